use alloc::vec::Vec;

use mempool::Buffer;

use super::*;
use crate::testbed::{Hog, RX_RING, SKB, SWAP, TX_RING, leak, machine};
use crate::{rx_skbs, tx_skbs};

#[test]
fn n1_ordinary_memory_comes_first_and_the_reserve_only_while_a_vmio_flow_exists() {
    let m = machine();
    m.flows.add(SWAP).unwrap();
    assert!(!m.pool.alloc_rx().unwrap().is_emergency());

    let hog = m.exhaust();
    let emergency = m.pool.alloc_rx().unwrap();
    assert!(emergency.is_emergency() && m.rx.usage() == SKB);
    drop(emergency);

    m.flows.remove(SWAP).unwrap();
    for result in [m.pool.alloc_rx(), m.pool.alloc_tx()] {
        assert!(matches!(result, Err(SkbAllocError::Memory(_))));
    }
    assert_eq!((m.rx.usage(), m.tx.usage()), (0, 0));
    let PoolStats { rx, tx } = m.pool.stats();
    assert_eq!(
        (rx.ordinary, rx.emergency, rx.failed, tx.failed),
        (1, 1, 1, 1)
    );
    drop(hog);
    m.assert_quiescent();
}

#[test]
fn n4_each_side_can_have_all_of_its_budget_and_nothing_of_the_others() {
    let m = machine();
    m.flows.add(SWAP).unwrap();
    let hog = m.exhaust();
    let rx: Vec<_> = core::iter::from_fn(|| m.pool.alloc_rx().ok()).collect();
    assert_eq!(rx.len(), rx_skbs(RX_RING));
    assert!(matches!(
        m.pool.alloc_rx(),
        Err(SkbAllocError::Reserve(ChargeError::OverLimit))
    ));
    let tx: Vec<_> = core::iter::from_fn(|| m.pool.alloc_tx().ok()).collect();
    assert_eq!(tx.len(), tx_skbs(TX_RING), "receiving does not touch it");
    assert_eq!((m.rx.usage(), m.rx.limit()), (m.rx.limit(), rx.len() * SKB));
    drop((rx, tx, hog));
    m.assert_quiescent();
}

/// A cache whose ordinary memory comes free between two requests.
struct Refilled {
    cache: &'static dyn BufferCache,
    hog: Mutex<CriticalSection, Option<Hog>>,
}

impl BufferCache for Refilled {
    fn alloc(&self, gfp: Gfp) -> Result<Buffer<'_>, AllocError> {
        let result = self.cache.alloc(gfp);
        if result.is_err() {
            drop(self.hog.lock().take());
        }
        result
    }

    fn object_size(&self) -> usize {
        self.cache.object_size()
    }
}

#[test]
fn m6_memory_that_came_free_meanwhile_is_taken_and_the_charge_ends() {
    let m = machine();
    m.flows.add(SWAP).unwrap();
    let cache = leak(Refilled {
        cache: m.cache,
        hog: Mutex::new(Some(m.exhaust())),
    });
    let pool = SkbPool::new(cache, m.rx, m.tx, m.flows, m.token);
    let skb = pool.alloc_rx().unwrap();
    assert_eq!((skb.is_emergency(), m.rx.usage()), (false, 0));
    assert_eq!(m.rx.peak(), SKB, "it was charged first");
    drop(skb);
    m.assert_quiescent();
}

#[test]
fn m7_an_ordinary_sender_does_not_dip_even_inside_a_memalloc_scope() {
    let m = machine();
    m.flows.add(SWAP).unwrap();
    let _hog = m.exhaust();
    let scope = m.zone.memalloc(&m.token);
    assert!(m.pool.alloc_tx_ordinary().is_err());
    assert!(
        m.pool.alloc_tx().unwrap().is_emergency(),
        "charged, not by the scope"
    );
    drop(scope);
}

#[test]
fn headroom_is_in_front_of_every_skb() {
    let m = machine();
    let pool = SkbPool::new(m.cache, m.rx, m.tx, m.flows, m.token).with_headroom(64);
    assert_eq!(pool.max_frame(), SKB - 64);
    let skb = pool.alloc_rx().unwrap();
    assert_eq!((skb.headroom(), skb.tailroom()), (64, SKB - 64));
}

#[cfg(feature = "ablation")]
mod ablation {
    use super::*;

    #[test]
    fn n1_without_its_mechanisms_the_reserve_is_taken_early_or_for_nobody() {
        let m = machine();
        m.flows.add(SWAP).unwrap();
        m.pool.ablate(Mechanism::OrdinaryFirst);
        let all: Vec<_> = (0..=rx_skbs(RX_RING))
            .map(|_| m.pool.alloc_rx().unwrap().is_emergency())
            .collect();
        assert!(all.iter().all(|emergency| *emergency));
        let held: Vec<_> = (0..=rx_skbs(RX_RING))
            .map(|_| m.pool.alloc_rx().unwrap())
            .collect();
        assert_eq!(m.rx.usage(), m.rx.limit());
        assert!(!held[rx_skbs(RX_RING)].is_emergency(), "no charge is left");
        drop(held);
        m.assert_quiescent();

        let m = machine();
        m.pool.ablate(Mechanism::FlowGate);
        let _hog = m.exhaust();
        assert!(m.pool.alloc_rx().unwrap().is_emergency());
    }

    #[test]
    fn n3_without_its_charge_an_skb_of_the_reserve_looks_ordinary() {
        let m = machine();
        m.flows.add(SWAP).unwrap();
        m.pool.ablate(Mechanism::ChargeWithSkb);
        let hog = m.exhaust();
        let skb = m.pool.alloc_rx().unwrap();
        assert_eq!((skb.is_emergency(), m.rx.usage()), (false, 0));
        assert_eq!(m.cache.stats().reserve_objects, 1);
        drop((skb, hog));
        m.assert_quiescent();
    }

    #[test]
    fn m6_without_the_second_try_ordinary_memory_stays_charged() {
        let m = machine();
        m.flows.add(SWAP).unwrap();
        let cache = leak(Refilled {
            cache: m.cache,
            hog: Mutex::new(Some(m.exhaust())),
        });
        let pool = SkbPool::new(cache, m.rx, m.tx, m.flows, m.token);
        pool.ablate(Mechanism::RetryOrdinary);
        let skb = pool.alloc_rx().unwrap();
        assert_eq!((skb.is_emergency(), m.rx.usage()), (true, SKB));
        assert_eq!(m.cache.stats().reserve_objects, 0);
    }

    #[test]
    fn m7_without_it_an_ordinary_sender_dips_uncharged() {
        let m = machine();
        m.pool.ablate(Mechanism::BestEffort);
        let _hog = m.exhaust();
        assert!(m.pool.alloc_tx_ordinary().is_err());
        let _scope = m.zone.memalloc(&m.token);
        let _skb = m.pool.alloc_tx_ordinary().unwrap();
        assert_eq!((m.tx.usage(), m.zone.stats().reserve_in_use), (0, 1));
    }
}

/// As a panic handler would. The lock panics when its holder takes it again.
#[test]
fn a_snapshot_of_the_pool_takes_no_lock() {
    let m = machine();
    drop(m.pool.alloc_rx().unwrap());
    let stats = m.pool.stats();
    let held = m.pool.state.lock();
    assert_eq!(m.pool.stats(), stats);
    drop(held);
    assert_eq!((stats.rx.ordinary, stats.tx.ordinary), (1, 0));
}
