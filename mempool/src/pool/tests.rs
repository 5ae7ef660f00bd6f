use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::task::Wake;
use alloc::vec;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::testbed::{Machine, machine};
use crate::{
    Buffer, FRAME_SIZE, Frame, FrameAllocator, MemallocToken, ReserveBacking, SLAB_HEADER,
    SizedCache, Zone,
};

mod model;
mod sweep;
mod threads;
mod waiting;

type FramePool<'p, 's> = Pool<'p, 's, Zone<'static>>;

const NONE: Option<Frame<'static>> = None;

/// 64 frames, 16 of them reserved; ordinary callers stop at 24.
fn reserved() -> (Machine, MemallocToken) {
    let m = machine(64);
    m.zone.grow(16).unwrap();
    let token = m.zone.claim_memalloc().unwrap();
    (m, token)
}

/// All that ordinary callers can have.
fn drain<'z>(zone: &'z Zone<'static>) -> Vec<Frame<'z>> {
    core::iter::from_fn(|| zone.alloc(0, Gfp::ATOMIC).ok()).collect()
}

/// Room for so many.
fn waiters(n: usize) -> Vec<Option<Waker>> {
    (0..n).map(|_| None).collect()
}

/// Counts how often it was woken.
#[derive(Default)]
struct Count(AtomicUsize);

impl Count {
    fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn ordinary_memory_goes_first_then_the_pool_then_the_reserve() {
    let (m, token) = reserved();
    let mut slots = [NONE; 2];
    let pool: FramePool<'_, '_> = Pool::new("x", &m.zone, &mut slots);
    pool.fill(Gfp::KERNEL).unwrap();
    let entitled = token.gfp(Gfp::KERNEL);

    let ordinary = pool.alloc(entitled).unwrap();
    assert_eq!((pool.stats().ordinary, pool.stats().available), (1, 2));
    let _hog = drain(&m.zone);
    let kept = [(); 2].map(|()| pool.alloc(entitled).unwrap());
    assert!(kept.iter().all(|element| !element.from_reserve()));
    assert_eq!((pool.stats().from_pool, pool.stats().available), (2, 0));
    assert_eq!(m.zone.stats().reserve_in_use, 0);
    let emergency = pool.alloc(entitled).unwrap();
    assert!(emergency.from_reserve());
    assert_eq!((pool.stats().from_reserve, pool.stats().in_use), (1, 4));
    drop((ordinary, kept, emergency));
    assert_eq!(pool.stats().in_use, 0);
}

#[test]
fn m1_only_the_entitled_get_the_reserve_when_the_pool_is_empty() {
    let (m, token) = reserved();
    let mut slots = [NONE; 1];
    let pool: FramePool<'_, '_> = Pool::new("x", &m.zone, &mut slots);
    pool.fill(Gfp::KERNEL).unwrap();
    let _hog = drain(&m.zone);
    let _kept = pool.alloc(Gfp::KERNEL).unwrap();

    assert_eq!(pool.alloc(Gfp::ATOMIC).unwrap_err(), PoolError::Empty);
    let barred = token.gfp(Gfp::ATOMIC | Gfp::NOMEMALLOC);
    assert_eq!(pool.alloc(barred).unwrap_err(), PoolError::Empty);
    let scope = m.zone.memalloc(&token);
    assert!(pool.alloc(Gfp::KERNEL).unwrap().from_reserve());
    let irq = m.task.interrupt();
    assert!(pool.alloc(Gfp::ATOMIC).is_err());
    drop((irq, scope));
    assert!(pool.alloc(Gfp::KERNEL).is_err());
    assert_eq!(pool.stats().refused, 4);
}

#[test]
fn m4_a_reserve_element_never_stays_in_the_pool() {
    let (m, token) = reserved();
    let mut slots = [NONE; 2];
    let pool: FramePool<'_, '_> = Pool::new("x", &m.zone, &mut slots);
    pool.fill(Gfp::KERNEL).unwrap();
    let _hog = drain(&m.zone);
    let _kept = [(); 2].map(|()| pool.alloc(Gfp::KERNEL).unwrap());

    let emergency = pool.alloc(token.gfp(Gfp::KERNEL)).unwrap();
    assert_eq!(m.zone.stats().reserve_in_use, 1);
    drop(emergency);
    assert_eq!(m.zone.stats().reserve_in_use, 0, "the reserve is whole");
    assert_eq!(pool.stats().available, 0, "although the pool is not");
    assert!(pool.alloc(Gfp::KERNEL).is_err());
}

#[cfg(feature = "ablation")]
#[test]
fn without_its_mechanisms_a_pool_gives_reserve_memory_to_anybody_or_its_own_away() {
    use crate::Mechanism;

    for (mechanism, emergency, available) in [
        (None, Some(true), 2),
        (Some(Mechanism::PoolReserveReturn), Some(true), 2),
        (Some(Mechanism::PoolRefill), Some(true), 0),
        (Some(Mechanism::PoolEntitledRetry), None, 2),
        // Of another object.
        (Some(Mechanism::Uncharge), Some(true), 2),
    ] {
        let (m, token) = reserved();
        let mut slots = [NONE; 2];
        let pool: FramePool<'_, '_> = Pool::new("x", &m.zone, &mut slots);
        if let Some(mechanism) = mechanism {
            pool.ablate(mechanism);
        }
        pool.fill(Gfp::KERNEL).unwrap();
        let _hog = drain(&m.zone);
        let kept = [(); 2].map(|()| pool.alloc(Gfp::KERNEL).unwrap());
        let got = pool.alloc(token.gfp(Gfp::KERNEL)).ok();
        assert_eq!(got.as_ref().map(Pooled::from_reserve), emergency);
        drop(got);
        let anybody = pool.alloc(Gfp::KERNEL).ok();
        let leaked = mechanism == Some(Mechanism::PoolReserveReturn);
        assert_eq!(
            anybody.map(|got| got.from_reserve()),
            leaked.then_some(true)
        );
        drop(kept);
        assert_eq!(pool.stats().available, available, "{mechanism:?}");
    }
}

#[test]
fn what_comes_back_refills_the_pool_before_the_source() {
    let (m, _) = reserved();
    let mut slots = [NONE; 2];
    let pool: FramePool<'_, '_> = Pool::new("x", &m.zone, &mut slots);
    pool.fill(Gfp::KERNEL).unwrap();
    let mut hog = drain(&m.zone);
    let free = m.zone.stats().free;
    let first = pool.alloc(Gfp::KERNEL).unwrap();
    hog.truncate(hog.len() - 6);
    let ordinary = pool.alloc(Gfp::KERNEL).unwrap();
    assert_eq!((pool.stats().ordinary, pool.stats().available), (1, 1));

    drop(ordinary);
    assert_eq!((pool.stats().available, m.zone.stats().free), (2, free + 5));
    drop(first);
    assert_eq!((pool.stats().available, m.zone.stats().free), (2, free + 6));
    assert_eq!(pool.stats().min_available, 1);
}

#[test]
fn a_pool_that_cannot_be_filled_keeps_what_it_got_and_leaves_the_reserve_alone() {
    let (m, token) = reserved();
    let mut slots = [NONE; 5];
    let pool: FramePool<'_, '_> = Pool::new("x", &m.zone, &mut slots);
    let mut hog = drain(&m.zone);
    hog.truncate(hog.len() - 8);
    let fill = || pool.fill(token.gfp(Gfp::KERNEL));
    let short = |missing| {
        let reason = AllocError::Exhausted;
        Err(FillError { missing, reason })
    };
    assert_eq!(m.zone.stats().free, 24 + 3, "three for KERNEL");
    assert_eq!((fill(), pool.stats().available), (short(2), 3));
    assert_eq!((fill(), pool.stats().available), (short(2), 3));
    assert_eq!(m.zone.stats().reserve_peak, 0);
    drop(hog);
    assert_eq!((fill(), pool.stats().available), (Ok(()), 5));
    assert_eq!((fill(), pool.stats().available), (Ok(()), 5));
    assert_eq!((pool.stats().in_use, pool.stats().ordinary), (0, 0));
}

#[test]
fn an_element_of_the_pool_is_zeroed_when_that_is_asked_for() {
    let (m, _) = reserved();
    let mut slots = [NONE; 1];
    let pool: FramePool<'_, '_> = Pool::new("x", &m.zone, &mut slots);
    pool.fill(Gfp::KERNEL).unwrap();
    let _hog = drain(&m.zone);
    pool.alloc(Gfp::KERNEL).unwrap().fill(0x5a);
    let zeroed = pool.alloc(Gfp::KERNEL | Gfp::ZERO).unwrap();
    assert_eq!(pool.stats().from_pool, 2);
    assert!(zeroed.iter().all(|byte| *byte == 0));
}

#[test]
fn a_pool_leaves_nothing_behind_and_takes_nothing_over() {
    let (m, _) = reserved();
    let mut slots = [Some(m.zone.alloc(0, Gfp::KERNEL).unwrap()), None, None];
    let pool: FramePool<'_, '_> = Pool::new("x", &m.zone, &mut slots);
    assert_eq!((pool.stats().available, m.zone.stats().free), (0, 64));
    pool.fill(Gfp::KERNEL).unwrap();
    assert_eq!((pool.stats().available, m.zone.stats().free), (3, 61));
    drop(pool);
    assert_eq!(m.zone.stats().free, 64, "the slots are still there");
    assert!(slots.iter().all(Option::is_none));
}

/// The same over each kind of source.
fn serves_under_pressure<S: PoolSource + ?Sized>(m: &Machine, source: &S, token: MemallocToken) {
    let mut slots: Vec<_> = (0..2).map(|_| None).collect();
    let pool: Pool<'_, '_, S> = Pool::new("x", source, &mut slots);
    pool.fill(Gfp::KERNEL).unwrap();
    // Through the source: a slab that is not full would be ordinary memory too.
    let hog: Vec<_> = core::iter::from_fn(|| source.alloc_element(Gfp::ATOMIC).ok()).collect();
    for _ in 0..10 {
        let kept = [(); 2].map(|()| pool.alloc(Gfp::ATOMIC).unwrap());
        assert!(pool.alloc(Gfp::ATOMIC).is_err());
        assert!(pool.alloc(token.gfp(Gfp::ATOMIC)).unwrap().from_reserve());
        drop(kept);
    }
    assert_eq!(m.zone.stats().reserve_in_use, 0);
    let stats = pool.stats();
    assert_eq!((stats.ordinary, stats.from_pool), (0, 20));
    assert_eq!((stats.from_reserve, stats.refused), (10, 10));
    drop((hog, pool));
}

#[test]
fn zones_and_caches_are_sources_by_type_and_as_trait_objects() {
    let (m, token) = reserved();
    serves_under_pressure(&m, &m.zone, token);
    serves_under_pressure(&m, &m.zone as &dyn FrameAllocator, token);
    let cache: SizedCache<'_> = SizedCache::new("skb", &m.zone, SKB, 0).unwrap();
    serves_under_pressure(&m, &cache, token);
    serves_under_pressure(&m, &cache as &dyn BufferCache, token);
    cache.shrink();
    assert_eq!(m.zone.stats().free, 64);
}

#[test]
fn m4_a_source_that_gives_reserve_memory_unasked_does_not_fill_a_pool() {
    struct Generous<'z>(&'z Zone<'static>, MemallocToken);
    impl PoolSource for Generous<'_> {
        type Element<'a>
            = Frame<'a>
        where
            Self: 'a;

        fn alloc_element(&self, gfp: Gfp) -> Result<Frame<'_>, AllocError> {
            self.0.alloc(0, self.1.gfp(gfp.without(Gfp::NOMEMALLOC)))
        }
    }
    let (m, token) = reserved();
    let source = Generous(&m.zone, token);
    let mut slots = [const { None }; 2];
    let pool: Pool<'_, '_, _> = Pool::new("x", &source, &mut slots);
    let _hog = drain(&m.zone);
    assert_eq!(pool.fill(Gfp::KERNEL).unwrap_err().missing, 2);
    assert_eq!(m.zone.stats().reserve_in_use, 0);
    assert!(pool.alloc(Gfp::KERNEL).unwrap().from_reserve());
    assert_eq!(pool.stats().from_reserve, 1, "it is counted as what it is");
}

#[test]
fn a_pool_over_a_trait_object_can_be_named_and_its_elements_be_sent() {
    struct Driver<'p, 's: 'p> {
        requests: Pool<'p, 's, dyn BufferCache>,
    }
    fn sent<T: Send>(value: T) -> T {
        value
    }
    let (m, _) = reserved();
    let cache: SizedCache<'_> = SizedCache::new("skb", &m.zone, SKB, 0).unwrap();
    let mut slots = [const { None }; 2];
    let requests = Pool::new("requests", &cache as &dyn BufferCache, &mut slots);
    let driver = Driver { requests };
    assert_eq!(sent(driver.requests.alloc(Gfp::KERNEL).unwrap()).len(), SKB);
}

/// Two to a frame: 2016 bytes in 4096.
const SKB: usize = (FRAME_SIZE - SLAB_HEADER) / 2;

#[test]
fn the_budget_is_what_buffers_of_a_pool_can_keep_at_worst() {
    let (m, _) = reserved();
    let cache: SizedCache<'_> = SizedCache::new("skb", &m.zone, SKB, 0).unwrap();
    let mut slots = [const { None::<Buffer<'_>> }; 2];
    let pool: Pool<'_, '_, _> = Pool::new("x", &cache, &mut slots);
    pool.fill(Gfp::KERNEL).unwrap();
    assert_eq!(cache.stats().slabs, Budget::objects(2, SKB, 0).frames());

    // Of two slabs one object each comes back while the first two are out.
    let [one, its_neighbour, another, another_neighbour] =
        [(); 4].map(|()| pool.alloc(Gfp::KERNEL).unwrap());
    let hog: Vec<_> = core::iter::from_fn(|| cache.alloc(Gfp::ATOMIC).ok()).collect();
    let first = [(); 2].map(|()| pool.alloc(Gfp::KERNEL).unwrap());
    drop((one, another));
    drop((its_neighbour, another_neighbour, first, hog));
    assert_eq!((pool.stats().available, pool.stats().in_use), (2, 0));
    cache.shrink();
    assert_eq!(cache.stats().slabs, Pool::budget(2, 0).frames());
    assert_eq!(Pool::budget(3, 2).frames(), 12);
}

#[test]
fn a_guard_is_a_page_frame() {
    let (m, _) = reserved();
    let mut slots = vec![NONE];
    let pool: FramePool<'_, '_> = Pool::new("frames", &m.zone, &mut slots);
    let mut page = pool.alloc(Gfp::KERNEL).unwrap();
    page.as_mut()[7] = 7;
    assert_eq!((page.as_ref()[7], page.element()[7]), (7, 7));
    assert_eq!((page.len(), page.element().order()), (FRAME_SIZE, 0));
    assert!(std::format!("{pool:?} {page:?}").starts_with("Pool { name: \"frames\", .. } Pooled"));
    assert_eq!(pool.name(), "frames");
}
