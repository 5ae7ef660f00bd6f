use lock_api::Mutex;
use mempool::{AllocError, Buffer, BufferCache, ChargeError, CriticalSection, Gfp};

use super::*;
use crate::testbed::{Hog, LOCAL, Machine, RX_RING, SKB, STRANGER, SWAP, leak, machine, packet};
use crate::{DropReason, Protocol, SkbError, rx_skbs};

fn short_of_memory() -> (Machine, Hog) {
    let m = machine();
    m.flows.add(SWAP).unwrap();
    let hog = m.exhaust();
    (m, hog)
}

#[test]
fn a_copy_has_bytes_of_its_own_and_as_much_headroom() {
    let m = machine();
    let mut skb = m.skb(b"header:data");
    skb.skip(7).unwrap();
    let mut copy = m.pool.copy(&skb).unwrap();
    copy.data_mut().fill(b'-');
    copy.put(1).unwrap()[0] = b'!';
    copy.push(7).unwrap().fill(b'+');
    assert_eq!(
        (skb.data(), copy.data()),
        (&b"data"[..], &b"+++++++----!"[..])
    );
    assert_eq!((copy.truesize(), copy.is_shared()), (SKB, false));
    let stats = m.pool.stats();
    assert_eq!((stats.rx.ordinary, stats.tx.ordinary), (2, 0));
}

#[test]
fn n2_the_copy_of_an_ordinary_skb_never_comes_out_of_the_reserve() {
    let m = machine();
    m.flows.add(SWAP).unwrap();
    let mut skb = m.skb(b"data");
    let _hog = m.exhaust();
    let scope = m.zone.memalloc(&m.token);
    assert!(matches!(m.pool.copy(&skb), Err(SkbAllocError::Memory(_))));
    let clone = skb.try_clone().unwrap();
    let (error, skb) = m.pool.expand(skb, 8).unwrap_err();
    assert!(matches!(error, SkbAllocError::Memory(_)));
    assert!(skb.is_shared() && skb.data() == clone.data());
    assert_eq!((m.rx.peak(), m.zone.stats().reserve_in_use), (0, 0));
    assert_eq!(m.pool.stats().rx.failed, 2);
    drop(scope);
}

#[test]
fn n3_each_copy_of_an_emergency_skb_has_a_charge_at_the_same_node() {
    let (m, hog) = short_of_memory();
    let rx = m.skb(b"data");
    let mut tx = m.pool.alloc_tx().unwrap();
    tx.put(1).unwrap();
    let copies = [m.pool.copy(&rx).unwrap(), m.pool.copy(&tx).unwrap()];
    assert!(copies.iter().all(Skb::is_emergency));
    assert_eq!((m.rx.usage(), m.tx.usage()), (2 * SKB, 2 * SKB));
    assert_eq!(m.cache.stats().reserve_objects, 4);
    let stats = m.pool.stats();
    assert_eq!((stats.rx.emergency, stats.tx.emergency), (2, 2));
    drop((rx, tx));
    assert_eq!((m.rx.usage(), m.tx.usage()), (SKB, SKB));
    drop((copies, hog));
    m.assert_quiescent();
}

#[test]
fn n2_what_lies_in_the_reserve_is_refused_and_a_copy_in_ordinary_memory_is_not() {
    let (m, hog) = short_of_memory();
    m.sockets.bind(Protocol::Udp, 9, 8 * SKB).unwrap();
    let mut skb = m.skb(&packet(Protocol::Udp, STRANGER, LOCAL, 9));
    let in_reserve = m.pool.copy(&skb).unwrap();
    drop(hog);
    let ordinary = m.pool.copy(&skb).unwrap();
    let clone = skb.try_clone().unwrap();
    assert!(
        m.pool
            .expand(skb, 64)
            .is_ok_and(|expanded| !expanded.is_emergency())
    );
    // Charged is what lies in the reserve, and nothing else (M6).
    assert_eq!(
        (m.rx.usage(), m.cache.stats().reserve_objects),
        (2 * SKB, 2)
    );
    for skb in [in_reserve, clone] {
        let (reason, _) = m.sockets.deliver(Protocol::Udp, 9, skb).unwrap_err();
        assert_eq!(reason, DropReason::EmergencyUdp);
    }
    let socket = m.sockets.deliver(Protocol::Udp, 9, ordinary).unwrap();
    drop(m.sockets.recv(socket));
    m.assert_quiescent();
}

#[test]
fn n1_without_a_vmio_flow_not_even_a_copy_comes_out_of_the_reserve() {
    let (m, hog) = short_of_memory();
    let skb = m.skb(b"data");
    m.flows.remove(SWAP).unwrap();
    assert!(matches!(m.pool.copy(&skb), Err(SkbAllocError::Memory(_))));
    assert_eq!((m.rx.usage(), m.cache.stats().reserve_objects), (SKB, 1));
    drop(hog);
    let copy = m.pool.copy(&skb).unwrap();
    assert!(!copy.is_emergency() && m.cache.stats().reserve_objects == 1);
    drop((skb, copy));
    m.assert_quiescent();
}

#[test]
fn n4_copies_are_bounded_by_the_node() {
    let (m, hog) = short_of_memory();
    let mut skb = m.skb(b"data");
    let copies: alloc::vec::Vec<_> = core::iter::from_fn(|| m.pool.copy(&skb).ok()).collect();
    assert_eq!(copies.len() + 1, rx_skbs(RX_RING));
    let over = SkbAllocError::Reserve(ChargeError::OverLimit);
    assert_eq!(m.pool.copy(&skb).unwrap_err(), over);
    let clone = skb.try_clone().unwrap();
    let (error, skb) = m.pool.expand(skb, 8).unwrap_err();
    assert_eq!(
        (error, skb.data(), skb.is_emergency()),
        (over, &b"data"[..], true)
    );
    assert_eq!(m.rx.usage(), m.rx.limit());
    let stats = m.cache.stats();
    assert_eq!(stats.peak, stats.in_use, "charged first, then allocated");
    drop((skb, clone, copies, hog));
    m.assert_quiescent();
}

#[test]
fn a_packet_in_pieces_becomes_one_run_of_bytes() {
    let m = machine();
    m.flows.add(SWAP).unwrap();
    let mut skb = m.skb(b"..header:data");
    skb.skip(2).unwrap();
    let mut rest = skb.split(7).unwrap();
    let last = rest.split(1).unwrap();
    let whole = m.pool.linearize(&skb, &[rest, last]).unwrap();
    assert_eq!((whole.data(), whole.headroom()), (&b"header:data"[..], 2));
    assert!(!whole.is_shared() && !skb.is_shared());
    drop(whole);
    let half = [m.skb(&[1; SKB / 2]), m.skb(&[1; SKB / 2 - 8])];
    let error = m.pool.linearize(&skb, &half).unwrap_err();
    assert_eq!(error, SkbAllocError::TooLarge);
    skb.trim(6).unwrap();
    assert_eq!(m.pool.linearize(&skb, &half).unwrap().tailroom(), 0);

    // One emergency skb among them makes it one, with a charge where that has its own (N2, N3).
    let hog = m.exhaust();
    let mut tx = m.pool.alloc_tx().unwrap();
    tx.put(1).unwrap();
    let whole = m.pool.linearize(&skb, &[tx]).unwrap();
    assert!(whole.is_emergency() && !skb.is_emergency());
    assert_eq!((m.rx.usage(), m.tx.usage()), (0, SKB));
    assert_eq!(m.pool.stats().tx.emergency, 2);
    drop((whole, skb, half, hog));
    m.assert_quiescent();
}

#[test]
fn an_skb_that_is_alone_expands_in_its_memory() {
    let (m, hog) = short_of_memory();
    let mut skb = m.skb(b"data");
    drop(skb.try_clone().unwrap());
    let address = skb.data().as_ptr();
    let mut skb = m.pool.expand(skb, 64).unwrap();
    assert_eq!(skb.data().as_ptr(), address.wrapping_add(64));
    skb.push(2).unwrap().copy_from_slice(b"h:");
    assert_eq!((skb.data(), m.rx.peak()), (&b"h:data"[..], SKB));
    // Down to the last byte, and no further.
    let skb = m.pool.expand(skb, SKB - 6).unwrap();
    assert_eq!((skb.data(), skb.tailroom()), (&b"h:data"[..], 0));
    assert_eq!(m.rx.peak(), SKB, "nothing was allocated");
    for headroom in [SKB - 3, usize::MAX] {
        let clone = m.skb(b"data");
        let (error, clone) = m.pool.expand(clone, headroom).unwrap_err();
        assert_eq!(
            (error, clone.data()),
            (SkbAllocError::TooLarge, &b"data"[..])
        );
    }
    // What has as much is left where it is.
    let skb = m.pool.expand(skb, 3).unwrap();
    assert_eq!((skb.headroom(), m.rx.peak()), (SKB - 6, 2 * SKB));
    drop((skb, hog));
    m.assert_quiescent();
}

#[test]
fn n3_a_shared_skb_expands_into_memory_of_its_own_and_leaves_the_others_theirs() {
    let (m, hog) = short_of_memory();
    let mut skb = m.skb(b"data");
    let kept = skb.try_clone().unwrap();
    let mut skb = m.pool.expand(skb, 2).unwrap();
    assert!(skb.is_emergency() && kept.is_emergency() && !kept.is_shared());
    skb.push(2).unwrap().copy_from_slice(b"h:");
    assert_eq!((skb.data(), kept.data()), (&b"h:data"[..], &b"data"[..]));
    assert_eq!(m.rx.usage(), 2 * SKB);
    drop(kept);
    assert_eq!(m.rx.usage(), SKB);
    drop((skb, hog));
    m.assert_quiescent();
}

#[test]
fn a_copy_that_does_not_fit_is_refused_by_name() {
    let m = machine();
    let small = leak(<mempool::SizedCache<'_>>::new("small", m.zone, SKB / 2, 0).unwrap());
    let pool = SkbPool::new(small, m.rx, m.tx, m.flows, m.token);
    let mut skb = m.skb(&[1; SKB]);
    assert_eq!(pool.copy(&skb).unwrap_err(), SkbAllocError::TooLarge);
    skb.trim(SKB / 2).unwrap();
    assert_eq!(pool.copy(&skb).unwrap().data(), skb.data());
    // And a smaller one moves to a pool of larger ones.
    let skb = pool.copy(&skb).unwrap();
    let skb = m.pool.expand(skb, 64).unwrap();
    assert_eq!((skb.truesize(), skb.headroom()), (SKB, 64));
}

/// A cache whose `n`th allocation from now on fails.
struct Failing {
    cache: &'static dyn BufferCache,
    countdown: Mutex<CriticalSection, usize>,
}

impl BufferCache for Failing {
    fn alloc(&self, gfp: Gfp) -> Result<Buffer<'_>, AllocError> {
        let mut countdown = self.countdown.lock();
        *countdown = countdown.wrapping_sub(1);
        let fails = *countdown == 0;
        drop(countdown);
        match fails {
            true => Err(AllocError::Exhausted),
            false => self.cache.alloc(gfp),
        }
    }

    fn object_size(&self) -> usize {
        self.cache.object_size()
    }
}

/// Every allocation of every way fails once: the answer is a typed error or an skb, nothing has
/// changed or all has, and nothing is left behind.
#[test]
fn n3_whichever_allocation_fails_every_charge_ends() {
    for emergency in [false, true] {
        for expand in [false, true] {
            let mut failures = 0;
            for nth in 1..=3 {
                let m = machine();
                m.flows.add(SWAP).unwrap();
                let cache = leak(Failing {
                    cache: m.cache,
                    countdown: Mutex::new(0),
                });
                let pool = SkbPool::new(cache, m.rx, m.tx, m.flows, m.token);
                let hog = emergency.then(|| m.exhaust());
                let mut skb = pool.alloc_rx().unwrap();
                skb.put(4).unwrap().copy_from_slice(b"data");
                let clone = skb.try_clone().unwrap();
                assert_eq!(skb.is_emergency(), emergency);

                *cache.countdown.lock() = nth;
                let (made, original) = match expand {
                    false => (pool.copy(&skb), Some(skb)),
                    true => match pool.expand(skb, 64) {
                        Ok(made) => (Ok(made), None),
                        Err((error, skb)) => (Err(error), Some(skb)),
                    },
                };
                let charged = 1 + usize::from(made.is_ok());
                assert_eq!(m.rx.usage(), if emergency { charged * SKB } else { 0 });
                for skb in [made.as_ref().ok(), original.as_ref(), Some(&clone)] {
                    let as_it_was =
                        |skb: &Skb<'_>| skb.data() == b"data" && skb.is_emergency() == emergency;
                    assert!(skb.is_none_or(as_it_was));
                }
                failures += usize::from(made.is_err());
                drop((made, original, clone, hog));
                m.assert_quiescent();
            }
            // An emergency skb looks for ordinary memory first, and does without.
            assert_eq!(failures, 1, "emergency {emergency}, expand {expand}");
        }
    }
}

#[test]
fn a_refused_write_is_what_expand_is_for() {
    let m = machine();
    let mut skb = m.skb(b"data");
    let kept = skb.try_clone().unwrap();
    assert_eq!(skb.try_data_mut().unwrap_err(), SkbError::Shared);
    let mut skb = m.pool.expand(skb, 0).unwrap();
    skb.data_mut()[0] = b'D';
    assert_eq!((skb.data(), kept.data()), (&b"Data"[..], &b"data"[..]));
}

#[test]
fn a_copy_and_a_clone_have_the_same_number_and_are_cut_alike() {
    let m = machine();
    let mut skb = m.skb(b"data");
    skb.set_mark(7);
    skb.set_gso_size(core::num::NonZeroU16::new(1460));
    let same = |skb: &Skb<'_>| (skb.mark(), skb.gso_size().map(u16::from));
    let clone = skb.try_clone().unwrap();
    let copy = m.pool.copy(&skb).unwrap();
    let expanded = m.pool.expand(skb, 8).unwrap();
    for other in [&clone, &copy, &expanded] {
        assert_eq!(same(other), (7, Some(1460)));
    }
    assert_eq!(same(&m.skb(b"data")), (0, None), "the next one begins anew");
}
