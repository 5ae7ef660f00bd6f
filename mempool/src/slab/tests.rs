use alloc::rc::Rc;
use alloc::vec::Vec;

use super::*;
use crate::testbed::{Machine, machine};
use crate::{FRAME_SIZE, MemallocToken, ReserveBacking, SLAB_HEADER, SLAB_RED_ZONE};
use proptest::prelude::*;

/// Two to a frame: 2016 bytes in 4096.
const SKB: usize = (FRAME_SIZE - SLAB_HEADER) / 2 - SLAB_RED_ZONE;

/// 64 frames, 16 of them reserved, and every ordinary object of the cache taken.
fn exhausted<'c>(m: &Machine, cache: &'c SizedCache<'_>) -> (MemallocToken, Vec<Buffer<'c>>) {
    m.zone.grow(16).unwrap();
    let token = m.zone.claim_memalloc().unwrap();
    (token, drain(cache, Gfp::ATOMIC))
}

fn drain<'c>(cache: &'c SizedCache<'_>, gfp: Gfp) -> Vec<Buffer<'c>> {
    core::iter::from_fn(|| cache.alloc(gfp).ok()).collect()
}

#[test]
fn m4_reserve_object_never_reaches_ordinary_caller() {
    let m = machine(64);
    let cache = SizedCache::new("skb", &m.zone, SKB, 0).unwrap();
    let (token, _held) = exhausted(&m, &cache);

    let emergency = cache.alloc(token.gfp(Gfp::ATOMIC)).unwrap();
    assert!(emergency.from_reserve());
    assert_eq!(
        cache.stats().reserve_slabs,
        1,
        "its slab has a second object, free …"
    );
    assert!(
        cache.alloc(Gfp::ATOMIC).is_err(),
        "… which is not for an ordinary caller"
    );
    assert!(
        cache
            .alloc(token.gfp(Gfp::ATOMIC | Gfp::NOMEMALLOC))
            .is_err()
    );
    assert!(cache.alloc(token.gfp(Gfp::ATOMIC)).unwrap().from_reserve());
}

#[cfg(feature = "ablation")]
#[test]
fn m4_without_admission_ordinary_callers_eat_the_reserve() {
    let m = machine(64);
    let cache = SizedCache::new("skb", &m.zone, SKB, 0).unwrap();
    cache.ablate(Mechanism::SlabAdmission);
    let (token, _held) = exhausted(&m, &cache);
    let _emergency = cache.alloc(token.gfp(Gfp::ATOMIC)).unwrap();
    assert!(cache.alloc(Gfp::ATOMIC).unwrap().from_reserve());
}

#[test]
fn m4_one_ordinary_page_does_not_unlock_reserve_objects() {
    let m = machine(64);
    let cache = SizedCache::new("skb", &m.zone, SKB, 0).unwrap();
    let (token, mut held) = exhausted(&m, &cache);
    let _emergency = cache.alloc(token.gfp(Gfp::ATOMIC)).unwrap();

    held.pop();
    assert!(
        !cache.alloc(Gfp::ATOMIC).unwrap().from_reserve(),
        "an ordinary object came back"
    );
    let _kept = cache.alloc(Gfp::ATOMIC).unwrap();
    assert!(
        cache.alloc(Gfp::ATOMIC).is_err(),
        "and unlocks nothing else"
    );
}

#[test]
fn m4_one_reserve_page_does_not_block_ordinary_slabs() {
    let m = machine(64);
    let cache = SizedCache::new("skb", &m.zone, SKB, 0).unwrap();
    let (token, mut held) = exhausted(&m, &cache);
    let emergency = cache.alloc(token.gfp(Gfp::ATOMIC)).unwrap();
    held.truncate(held.len() / 2);
    let again = drain(&cache, Gfp::ATOMIC);
    assert!(again.len() > 8 && again.iter().all(|b| !b.from_reserve()));
    assert!(cache.alloc(Gfp::ATOMIC).is_err());
    drop(emergency);
}

#[test]
fn the_entitled_take_ordinary_memory_first() {
    let m = machine(64);
    let cache = SizedCache::new("skb", &m.zone, SKB, 0).unwrap();
    let (token, mut held) = exhausted(&m, &cache);
    let reserve = cache.alloc(token.gfp(Gfp::ATOMIC)).unwrap();
    held.pop();
    let next = cache.alloc(token.gfp(Gfp::ATOMIC)).unwrap();
    assert!(reserve.from_reserve() && !next.from_reserve());
}

#[test]
fn an_empty_reserve_slab_goes_back_at_once() {
    let m = machine(64);
    let cache = SizedCache::new("skb", &m.zone, SKB, 0).unwrap();
    let (token, _held) = exhausted(&m, &cache);
    let gfp = token.gfp(Gfp::ATOMIC);
    let (a, b) = (cache.alloc(gfp).unwrap(), cache.alloc(gfp).unwrap());
    assert_eq!(
        (m.zone.stats().reserve_in_use, cache.stats().reserve_slabs),
        (1, 1)
    );
    drop(a);
    assert_eq!(m.zone.stats().reserve_in_use, 1);
    drop(b);
    assert_eq!(
        (m.zone.stats().reserve_in_use, cache.stats().reserve_slabs),
        (0, 0)
    );
}

#[test]
fn one_ordinary_slab_stays_and_shrink_returns_it() {
    let m = machine(64);
    let cache = SizedCache::new("skb", &m.zone, SKB, 0).unwrap();
    drop(drain(&cache, Gfp::ATOMIC));
    assert_eq!((m.zone.stats().free, cache.stats().slabs), (63, 1));
    assert_eq!(cache.shrink(), 1);
    assert_eq!((m.zone.stats().free, cache.shrink()), (64, 0));
    drop(cache.alloc(Gfp::ATOMIC).unwrap());
    drop(cache);
    assert_eq!(m.zone.stats().free, 64, "a cache leaves nothing behind");
}

#[test]
fn typed_objects_are_dropped_once_and_a_refused_value_comes_back() {
    let m = machine(16);
    let cache: Cache<'_, (Rc<()>, [u8; 100])> = Cache::new("rc", &m.zone, 0).unwrap();
    let rc = Rc::new(());
    let mut held = Vec::new();
    let refused = loop {
        match cache.alloc(Gfp::KERNEL, (rc.clone(), [7; 100])) {
            Ok(object) => held.push(object),
            Err((error, value)) => break (error, value),
        }
    };
    assert_eq!(refused.0, AllocError::Exhausted);
    assert_eq!(Rc::strong_count(&rc), 1 + held.len() + 1);
    assert!(held.iter().all(|o| o.1 == [7; 100]));
    drop((held, refused));
    assert_eq!(Rc::strong_count(&rc), 1);
}

#[test]
fn sizes_that_cannot_work_are_refused() {
    let m = machine(16);
    let new = |size, order| <SizedCache<'_>>::new("x", &m.zone, size, order).unwrap_err();
    assert_eq!(new(0, 0), CacheError::ObjectTooSmall);
    assert_eq!(new(FRAME_SIZE, 0), CacheError::ObjectTooLarge);
}

proptest! {
    /// Every object keeps its bytes until it is given back, whatever is allocated around it.
    #[test]
    fn objects_never_overlap(ops in prop::collection::vec((any::<bool>(), any::<bool>(), any::<prop::sample::Index>()), 1..300), size in 2usize..FRAME_SIZE / 3) {
        let m = machine(32);
        m.zone.grow(8).unwrap();
        let token = m.zone.claim_memalloc().unwrap();
        let cache = <SizedCache<'_>>::new("any", &m.zone, size, 0).unwrap();
        let mut held: Vec<(Buffer<'_>, u8)> = Vec::new();
        for (n, (take, entitled, which)) in ops.into_iter().enumerate() {
            if take {
                let gfp = if entitled { token.gfp(Gfp::ATOMIC) } else { Gfp::ATOMIC };
                if let Ok(mut buffer) = cache.alloc(gfp) {
                    prop_assert!(entitled || !buffer.from_reserve());
                    buffer.fill(n as u8);
                    held.push((buffer, n as u8));
                }
            } else if !held.is_empty() {
                let (buffer, byte) = held.swap_remove(which.index(held.len()));
                prop_assert!(buffer.iter().all(|b| *b == byte));
            }
            let reserve = held.iter().filter(|(buffer, _)| buffer.from_reserve()).count();
            let stats = cache.stats();
            prop_assert_eq!((stats.in_use, stats.reserve_objects), (held.len(), reserve));
        }
        for (buffer, byte) in held {
            prop_assert!(buffer.iter().all(|b| *b == byte));
        }
        cache.shrink();
        prop_assert_eq!(m.zone.stats().free, 32);
        prop_assert_eq!(m.zone.stats().reserve_in_use, 0);
    }
}

#[test]
fn a_value_whose_drop_unwinds_still_gives_its_object_back() {
    struct Bomb(u8, u32);
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("as it says: {} {}", self.0, self.1);
        }
    }
    let m = machine(16);
    let bombs: Cache<'_, Bomb> = Cache::new("bombs", &m.zone, 0).unwrap();
    let bomb = bombs.alloc(Gfp::KERNEL, Bomb(1, 2)).ok().unwrap();
    let dropped = std::panic::catch_unwind(core::panic::AssertUnwindSafe(|| drop(bomb)));
    assert!(dropped.is_err());
    assert_eq!(bombs.stats().in_use, 0);
}

#[test]
fn a_forgotten_object_leaks_its_slab_and_nothing_else() {
    let m = machine(16);
    let before = m.zone.stats().free;
    let cache: SizedCache<'_> = SizedCache::new("skb", &m.zone, SKB, 0).unwrap();
    core::mem::forget(cache.alloc(Gfp::KERNEL).unwrap());
    drop(cache);
    assert_eq!(m.zone.stats().free, before - 1);
}

#[test]
fn impossible_slabs_are_refused() {
    let m = machine(16);
    let beyond = FRAME_SIZE.leading_zeros() as u8 + 1;
    for order in [beyond, 63, 64, 255] {
        let cache: Result<SizedCache<'_>, _> =
            SizedCache::new("x", &m.zone, usize::MAX / 64, order);
        assert!(matches!(cache, Err(CacheError::ObjectTooLarge)), "{order}");
    }
}

#[test]
fn objects_in_reserve_memory_are_counted_until_they_come_back() {
    let m = machine(64);
    let cache = SizedCache::new("skb", &m.zone, SKB, 0).unwrap();
    let (token, mut held) = exhausted(&m, &cache);
    assert_eq!(cache.stats().reserve_objects, 0);
    let emergency: Vec<_> = (0..3)
        .map(|_| cache.alloc(token.gfp(Gfp::ATOMIC)).unwrap())
        .collect();
    assert_eq!(cache.stats().reserve_objects, 3);
    held.pop();
    assert_eq!(cache.stats().reserve_objects, 3);
    drop(emergency);
    assert_eq!(cache.stats().reserve_objects, 0);
}

#[cfg(feature = "ablation")]
#[test]
fn m4_without_release_empty_reserve_slabs_stay_until_the_cache_is_shrunk_or_dropped() {
    for shrunk in [true, false] {
        let m = machine(64);
        let cache = SizedCache::new("skb", &m.zone, SKB, 0).unwrap();
        cache.ablate(Mechanism::SlabRelease);
        let (token, held) = exhausted(&m, &cache);
        let emergency = || -> Vec<_> {
            (0..2 * crate::objects_per_slab(SKB, 0))
                .map(|_| cache.alloc(token.gfp(Gfp::ATOMIC)).unwrap())
                .collect()
        };
        drop(emergency());
        assert_eq!(
            (m.zone.stats().reserve_in_use, cache.stats().reserve_objects),
            (2, 0)
        );
        assert!(cache.alloc(Gfp::ATOMIC).is_err(), "admission goes on");
        let again = emergency();
        assert_eq!(m.zone.stats().reserve_in_use, 2, "they are used again");
        drop((again, held));
        if shrunk {
            assert_eq!((cache.shrink(), cache.stats().reserve_slabs), (3, 0));
        }
        drop(cache);
        assert_eq!(
            (m.zone.stats().free, m.zone.stats().reserve_in_use),
            (64, 0)
        );
    }
}

#[test]
fn a_constructor_runs_where_there_is_memory_and_nowhere_else() {
    let m = machine(16);
    let cache: Cache<'_, Rc<u32>> = Cache::new("rc", &m.zone, 0).unwrap();
    let mut held = Vec::new();
    let mut made = 0;
    while let Ok(object) = cache.alloc_with(Gfp::KERNEL, || {
        made += 1;
        Rc::new(made)
    }) {
        held.push(object);
    }
    assert_eq!(held.len(), made as usize);
    for (object, n) in held.iter().zip(1..) {
        assert_eq!(***object, n);
    }
}

#[test]
fn a_constructor_that_unwinds_gives_its_object_back() {
    let m = machine(16);
    let cache: Cache<'_, Rc<u32>> = Cache::new("rc", &m.zone, 0).unwrap();
    let made = std::panic::catch_unwind(core::panic::AssertUnwindSafe(|| {
        let _ = cache.alloc_with(Gfp::KERNEL, || panic!("as it says"));
    }));
    assert!(made.is_err());
    assert_eq!((cache.stats().in_use, cache.stats().peak), (0, 1));
}

#[test]
fn a_constructor_may_allocate_from_its_own_cache() {
    let m = machine(16);
    let cache: Cache<'_, usize> = Cache::new("n", &m.zone, 0).unwrap();
    let outer = cache.alloc_with(Gfp::KERNEL, || {
        *cache.alloc_with(Gfp::KERNEL, || 41).unwrap() + 1
    });
    assert_eq!(*outer.unwrap(), 42);
}

#[test]
fn objects_are_aligned_as_asked() {
    let m = machine(64);
    for align in [1, 2, 16, 64, 128, FRAME_SIZE / 4] {
        let cache = <SizedCache<'_>>::aligned("dma", &m.zone, 70, 0, align).unwrap();
        let held: Vec<_> = (0..20).map(|_| cache.alloc(Gfp::ATOMIC).unwrap()).collect();
        let aligned = |buffer: &Buffer<'_>| buffer.as_ptr().addr().is_multiple_of(align);
        assert!(
            held.iter()
                .all(|buffer| buffer.len() == 70 && aligned(buffer)),
            "{align}"
        );
        let per_slab = aligned_objects_per_slab(70, align, 0);
        assert_eq!(cache.stats().slabs, 20_usize.div_ceil(per_slab), "{align}");
    }
    let new = |align| <SizedCache<'_>>::aligned("dma", &m.zone, 70, 0, align).unwrap_err();
    for align in [0, 3, 96] {
        assert_eq!(new(align), CacheError::NotAPowerOfTwo);
    }
    for align in [FRAME_SIZE, 1 << (usize::BITS - 1)] {
        assert_eq!(new(align), CacheError::ObjectTooLarge);
    }
}

#[test]
fn values_with_a_large_alignment_get_it() {
    #[repr(align(128))]
    struct Line(u8);
    let m = machine(16);
    let cache: Cache<'_, Line> = Cache::new("line", &m.zone, 0).unwrap();
    let held: Vec<_> = (0..8)
        .map(|n| cache.alloc_with(Gfp::ATOMIC, || Line(n)).unwrap())
        .collect();
    assert!(
        held.iter()
            .all(|line| core::ptr::from_ref::<Line>(line).is_aligned())
    );
    assert!(held.iter().map(|line| line.0).eq(0..8));
}

#[test]
fn a_source_that_is_not_aligned_so_is_refused_at_the_first_slab() {
    let m = machine(16);
    // Two frames are aligned to two frames at every other place only.
    let cache = <SizedCache<'_>>::aligned("dma", &m.zone, 1, 5, FRAME_SIZE * 16).unwrap();
    assert!(cache.alloc(Gfp::ATOMIC).is_err());
    assert_eq!(m.zone.stats().free, 16);
}

#[test]
fn values_of_no_bytes_and_of_one_have_a_place_each() {
    let m = machine(64);
    let (none, one): (Cache<'_, ()>, Cache<'_, u8>) = (
        Cache::new("none", &m.zone, 0).unwrap(),
        Cache::new("one", &m.zone, 0).unwrap(),
    );
    let mut held: Vec<_> = (0..200)
        .map(|n| one.alloc(Gfp::KERNEL, n).ok().unwrap())
        .collect();
    let nothing = [(); 3].map(|()| none.alloc(Gfp::KERNEL, ()).ok().unwrap());
    held.swap(3, 150);
    held.drain(..100);
    assert!(
        held.iter()
            .map(|n| **n)
            .filter(|n| *n != 3)
            .eq((100..200).filter(|n| *n != 150))
    );
    assert_eq!((none.stats().in_use, one.stats().in_use), (3, 100));
    drop((nothing, held));
}

#[cfg(feature = "slab-debug")]
#[test]
fn who_writes_to_a_parked_object_is_found_when_it_is_next_taken() {
    struct First;
    impl CpuId for First {
        fn cpu(&self) -> usize {
            0
        }
    }
    let m = machine(16);
    let mut slots: [CpuMagazines<4>; 1] = Default::default();
    let cache = <SizedCache<'_>>::new("skb", &m.zone, SKB, 0).unwrap();
    let cache = cache.with_magazines(Magazines::new(First, &mut slots));
    let mut buffer = cache.alloc(Gfp::KERNEL).unwrap();
    let stale = crate::raw::writer(&mut buffer);
    drop(buffer);
    assert_eq!(cache.stats().parked, 1);
    stale(100);
    let taken = std::panic::catch_unwind(core::panic::AssertUnwindSafe(|| {
        drop(cache.alloc(Gfp::KERNEL));
    }));
    let message = *taken
        .unwrap_err()
        .downcast::<std::string::String>()
        .unwrap();
    let written = "object 0 was written to after it was freed, at byte 100";
    assert!(
        message.contains("`skb`") && message.ends_with(written),
        "{message}"
    );
}

/// As a panic handler would. The lock panics when its holder takes it again.
#[test]
fn a_snapshot_of_a_cache_takes_no_lock() {
    let m = machine(64);
    let cache = SizedCache::new("skb", &m.zone, SKB, 0).unwrap();
    let (token, held) = exhausted(&m, &cache);
    let emergency = cache.alloc(token.gfp(Gfp::ATOMIC)).unwrap();
    let stats = cache.stats();
    let locked = cache.slabs.lock();
    assert_eq!(cache.stats(), stats);
    drop(locked);
    assert_eq!((stats.in_use, stats.peak), (held.len() + 1, held.len() + 1));
    assert_eq!((stats.reserve_objects, stats.reserve_slabs), (1, 1));
    drop((held, emergency));
    let CacheStats {
        in_use,
        peak,
        reserve_slabs,
        slabs,
        ..
    } = cache.stats();
    assert_eq!((in_use, peak, reserve_slabs, slabs), (0, stats.peak, 0, 1));
    cache.shrink();
    assert_eq!(cache.stats().slabs, 0);
}
