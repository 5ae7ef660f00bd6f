use alloc::vec::Vec;

use super::*;
use crate::testbed::{LOCAL, Machine, SERVER, SKB, STRANGER, SWAP, machine, packet};
use crate::{DropReason, Protocol, Verdict};

/// A machine whose next skbs are emergency skbs, charged to the receive node.
fn short_of_memory() -> (Machine, crate::testbed::Hog) {
    let m = machine();
    m.flows.add(SWAP).unwrap();
    let hog = m.exhaust();
    (m, hog)
}

/// What signatures of users rely on.
#[test]
fn an_skb_is_small_goes_anywhere_and_may_be_lent_for_less() {
    fn anywhere<T: Send + Sync>() {}
    fn shorter<'a>(skb: Skb<'static>, _: &'a ()) -> Skb<'a> {
        skb
    }
    anywhere::<Skb<'_>>();
    let m = machine();
    drop(shorter(m.skb(&[]), &()));
    // Errors carry an skb back: with more than 128 bytes they are too large to be handed around.
    assert!(size_of::<Result<(), (crate::SkbAllocError, Skb<'_>)>>() <= 128);
}

#[test]
fn a_clone_has_ends_of_its_own_over_the_same_bytes() {
    let m = machine();
    let mut skb = m.skb(b"header:data");
    let mut clone = skb.try_clone().unwrap();
    assert_eq!(skb.data().as_ptr(), clone.data().as_ptr());
    assert_eq!(clone.skip(7).unwrap(), b"header:");
    assert_eq!(clone.skip(5).unwrap_err(), SkbError::TooShort);
    skb.trim(6).unwrap();
    assert_eq!((skb.data(), clone.data()), (&b"header"[..], &b"data"[..]));
    assert_eq!((skb.headroom(), clone.headroom()), (0, 7));
    assert_eq!(m.cache.stats().in_use, 1);
    drop(skb);
    assert_eq!(clone.data(), b"data");
    drop(clone);
    m.assert_quiescent();
}

#[test]
fn shared_bytes_are_only_read_until_one_owner_is_left() {
    let m = machine();
    let mut skb = m.skb(b"data");
    skb.skip(1).unwrap();
    let mut clone = skb.try_clone().unwrap();
    for skb in [&mut skb, &mut clone] {
        assert!(skb.is_shared());
        assert_eq!(skb.put(1).unwrap_err(), SkbError::Shared);
        assert_eq!(skb.push(1).unwrap_err(), SkbError::Shared);
        assert_eq!(skb.push(2).unwrap_err(), SkbError::NoHeadroom);
        assert_eq!(skb.pull(1).unwrap_err(), SkbError::Shared);
        assert_eq!(skb.try_data_mut().unwrap_err(), SkbError::Shared);
        assert_eq!((skb.headroom(), skb.data()), (1, &b"ata"[..]));
    }
    drop(skb);
    assert!(!clone.is_shared());
    clone.push(1).unwrap()[0] = b'D';
    clone.data_mut()[1] = b'A';
    assert_eq!(clone.pull(2).unwrap(), b"DA");
}

#[test]
#[should_panic(expected = "shared bytes are not written to")]
fn writing_to_shared_bytes_unasked_is_named() {
    let m = machine();
    let mut skb = m.skb(b"data");
    let _clone = skb.try_clone().unwrap();
    let _ = skb.data_mut();
}

/// Nothing is lost while nothing is shared: the owners' count takes room only while it is needed.
#[test]
fn the_whole_size_is_there_before_and_after() {
    let m = machine();
    let mut skb = m.skb(&[7; 100]);
    assert_eq!(skb.tailroom(), SKB - 100);
    let clone = skb.try_clone().unwrap();
    let left = skb.tailroom();
    assert!((SKB - 100 - Skb::SHARE_ROOM..SKB - 100).contains(&left));
    drop(clone);
    assert_eq!(skb.tailroom(), SKB - 100);
    skb.put(SKB - 100).unwrap().fill(8);
    assert_eq!(skb.try_clone().unwrap_err(), SkbError::NoTailroom);
    assert_eq!(skb.split(50).unwrap_err(), SkbError::NoTailroom);
    assert!(
        !skb.is_shared() && skb.data()[..100] == [7; 100] && skb.data()[100..] == [8; SKB - 100]
    );
    skb.trim(SKB - Skb::SHARE_ROOM).unwrap();
    assert!(skb.try_clone().is_ok());

    // Few bytes, but at the end.
    let mut skb = m.skb(&[]);
    skb.reserve(SKB - 4).unwrap();
    skb.put(4).unwrap().copy_from_slice(b"data");
    assert_eq!(skb.try_clone().unwrap_err(), SkbError::NoTailroom);
    assert_eq!(skb.data(), b"data");
}

#[test]
fn an_empty_clone_does_not_reserve_what_holds_its_owners_together() {
    let m = machine();
    let mut skb = m.skb(&[]);
    let mut clone = skb.try_clone().unwrap();
    assert_eq!(clone.reserve(SKB), Err(SkbError::NoTailroom));
    clone.reserve(clone.tailroom()).unwrap();
    assert_eq!((clone.data(), clone.tailroom()), (&b""[..], 0));
    drop(skb);
    clone.reserve(clone.tailroom()).unwrap();
    assert_eq!((clone.data(), clone.headroom()), (&b""[..], SKB));
}

#[test]
fn split_parts_are_the_whole() {
    let m = machine();
    for at in 0..=4 {
        let mut skb = m.skb(b"data");
        let rest = skb.split(at).unwrap();
        assert_eq!((skb.data(), rest.data()), b"data".split_at(at));
        assert_eq!((skb.truesize(), rest.truesize()), (SKB, SKB));
        assert!(skb.is_shared() && m.cache.stats().in_use == 1);
    }
    let mut skb = m.skb(b"data");
    assert_eq!(skb.split(5).unwrap_err(), SkbError::TooShort);
    assert!(!skb.is_shared());
}

#[test]
fn n3_one_charge_for_all_clones_ends_with_the_last_after_its_memory() {
    for first_goes_last in [false, true] {
        let (m, hog) = short_of_memory();
        let mut skb = m.skb(b"header:data");
        let mut clone = skb.try_clone().unwrap();
        let third = clone.split(7).unwrap();
        assert_eq!(
            (m.rx.usage(), m.rx.peak()),
            (SKB, SKB),
            "shared, not doubled"
        );
        let (now, later) = match first_goes_last {
            true => ([clone, third], skb),
            false => ([skb, clone], third),
        };
        drop(now);
        assert!(later.is_emergency() && m.rx.usage() == SKB);
        assert_eq!(m.cache.stats().reserve_objects, 1);
        drop(later);
        assert_eq!((m.rx.usage(), m.cache.stats().reserve_objects), (0, 0));
        drop(hog);
        m.assert_quiescent();
    }
}

#[test]
fn n3_the_charge_comes_back_with_the_bytes() {
    let (m, hog) = short_of_memory();
    let mut skb = m.skb(b"data");
    drop(skb.try_clone().unwrap());
    skb.put(1).unwrap();
    assert!(skb.is_emergency() && m.rx.usage() == SKB);
    // Without room for a clone nothing has changed either.
    skb.put(skb.tailroom()).unwrap();
    assert!(skb.try_clone().is_err() && skb.is_emergency() && m.rx.usage() == SKB);
    drop((skb, hog));
    m.assert_quiescent();
}

#[test]
fn n2_who_refuses_an_emergency_skb_refuses_its_clones() {
    let (m, hog) = short_of_memory();
    m.sockets.bind(Protocol::Udp, 9, 8 * SKB).unwrap();
    let mut skb = m.skb(&packet(Protocol::Udp, STRANGER, LOCAL, 9));
    let clone = skb.try_clone().unwrap();
    let rest = skb.try_clone().unwrap().split(20).unwrap();
    assert!(clone.is_emergency() && rest.is_emergency());

    let (reason, clone) = m.sockets.deliver(Protocol::Udp, 9, clone).unwrap_err();
    assert_eq!(reason, DropReason::EmergencyUdp);
    assert_eq!(
        m.ingress.egress(clone).unwrap_err(),
        DropReason::EmergencyTransmit
    );
    let verdict = m.ingress.receive(rest);
    assert!(
        matches!(verdict, Verdict::Dropped(_)),
        "not unclaimed: {verdict:?}"
    );
    let verdict = m.ingress.receive(skb);
    assert!(matches!(verdict, Verdict::Dropped(_)));
    drop(hog);
    m.assert_quiescent();
}

/// Each queue is bounded as if nobody shared with it.
#[test]
fn a_clone_counts_at_its_socket_as_much_as_its_original() {
    let m = machine();
    let ids = [9, 10].map(|port| m.sockets.bind(Protocol::Udp, port, SKB).unwrap());
    let mut skb = m.skb(&packet(Protocol::Udp, STRANGER, LOCAL, 9));
    let [a, b] = [skb.try_clone().unwrap(), skb.try_clone().unwrap()];
    m.sockets.deliver(Protocol::Udp, 9, a).unwrap();
    m.sockets.deliver(Protocol::Udp, 10, b).unwrap();
    let (reason, skb) = m.sockets.deliver(Protocol::Udp, 9, skb).unwrap_err();
    assert_eq!(reason, DropReason::RcvbufFull);
    assert_eq!(
        (m.sockets.total_rmem(), m.cache.stats().in_use),
        (2 * SKB, 1)
    );
    drop(skb);
    // The last owner counts what the first did, also when it is alone by now.
    assert!(m.sockets.recv(ids[0]).is_some());
    assert_eq!(m.sockets.total_rmem(), SKB);
    assert_eq!(m.sockets.close(ids[1]), Some(1));
    assert_eq!(m.sockets.total_rmem(), 0);
    m.assert_quiescent();
}

#[test]
fn a_shared_frame_reaches_the_swap_stack_unless_a_tag_would_have_to_be_cut_out() {
    let m = machine();
    m.flows.add(SWAP).unwrap();
    let plain = packet(Protocol::Tcp, SERVER, LOCAL, 30);
    let mut skb = m.skb(&plain);
    let clone = skb.try_clone().unwrap();
    let verdict = m.ingress.receive(skb);
    assert!(matches!(&verdict, Verdict::Swap(skb) if skb.data() == plain));
    drop((verdict, clone));

    let mut tagged = plain.clone();
    tagged.splice(12..12, [0x81, 0, 0xe0, 0]);
    let mut skb = m.skb(&tagged);
    let clone = skb.try_clone().unwrap();
    let verdict = m.ingress.receive(skb);
    assert!(matches!(verdict, Verdict::Dropped(DropReason::SharedTag)));
    assert_eq!(clone.data(), tagged, "the other reader sees what came");
    assert_eq!(m.ingress.stats().vmio, 1);
    let verdict = m.ingress.receive(clone);
    assert!(matches!(&verdict, Verdict::Swap(skb) if skb.data() == plain));
}

/// A transmit ring that tells its card where the frames are, and frees them when it is done.
#[derive(Default)]
struct Ring {
    skbs: Vec<Skb<'static>>,
    descriptors: Vec<(*const u8, usize)>,
}

impl Ring {
    fn transmit(&mut self, skb: Skb<'static>) {
        self.descriptors.push((skb.data().as_ptr(), skb.len()));
        self.skbs.push(skb);
    }
}

/// What `Nic` tells a driver: no copy, one address from hand-over to completion, and the sender's
/// own skb with the bytes and their charge for as long as it likes.
#[test]
fn n3_a_ring_takes_a_clone_as_it_lies_and_gives_back_what_it_held() {
    let (m, hog) = short_of_memory();
    let mut ring = Ring::default();
    let mut sent: Vec<_> = [b"first", b"again"]
        .map(|frame| m.skb(frame))
        .into_iter()
        .collect();
    let lies_at: Vec<_> = sent.iter().map(|skb| skb.data().as_ptr()).collect();
    for skb in &mut sent {
        ring.transmit(skb.try_clone().unwrap());
    }
    assert_eq!(m.cache.stats().reserve_objects, 2, "no copy");
    drop(sent.pop()); // acknowledged before the card was done
    let (moved, kept) = (ring, sent);
    assert_eq!(moved.descriptors, [(lies_at[0], 5), (lies_at[1], 5)]);
    let frames: Vec<_> = moved.skbs.iter().map(Skb::data).collect();
    assert_eq!(frames, [b"first", b"again"]);
    assert_eq!(m.rx.usage(), 2 * SKB);
    drop(moved);
    assert_eq!((m.rx.usage(), kept[0].data()), (SKB, &b"first"[..]));
    drop((kept, hog));
    m.assert_quiescent();
}

#[test]
fn skbs_that_share_bytes_may_live_on_different_threads() {
    let (m, hog) = short_of_memory();
    for _ in 0..100 {
        let mut skb = m.skb(b"data");
        std::thread::scope(|scope| {
            for _ in 0..3 {
                let mut clone = skb.try_clone().unwrap();
                scope.spawn(move || {
                    let rest = clone.split(2).unwrap();
                    assert_eq!((clone.data(), rest.data()), (&b"da"[..], &b"ta"[..]));
                });
            }
            drop(skb);
        });
        assert_eq!((m.rx.usage(), m.rx.peak()), (0, SKB));
    }
    drop(hog);
    m.assert_quiescent();
}

#[cfg(feature = "ablation")]
#[test]
fn n3_without_it_the_charge_ends_while_a_clone_keeps_the_memory() {
    let m = machine();
    m.flows.add(SWAP).unwrap();
    m.pool.ablate(Mechanism::ChargeWithClone);
    let hog = m.exhaust();
    let mut skb = m.skb(b"data");
    let clone = skb.try_clone().unwrap();
    assert!(skb.is_emergency() && !clone.is_emergency());
    drop(skb);
    assert_eq!((m.rx.usage(), m.cache.stats().reserve_objects), (0, 1));
    drop((clone, hog));
    m.assert_quiescent();
}
