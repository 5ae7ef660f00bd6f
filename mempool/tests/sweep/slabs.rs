//! Slab growth: caches of bytes and of values, size classes, pools of both kinds.

use core::task::{Context, Poll, Waker};
use std::sync::Arc;
use std::task::Wake;

use mempool::{
    Buffer, BufferCache, Cache, FRAME_SIZE, Gfp, Pool, PoolError, SLAB_HEADER, SizeClasses,
    SizedCache,
};

use crate::inject::{Run, sweep};
use crate::machine::{Machine, machine};

/// Two to a frame.
const SKB: usize = (FRAME_SIZE - SLAB_HEADER) / 2;

fn check(cache: &SizedCache<'_>, held: &[Buffer<'_>]) {
    let stats = cache.stats();
    let tagged = held.iter().filter(|buffer| buffer.from_reserve()).count();
    assert_eq!((stats.in_use, stats.reserve_objects), (held.len(), tagged));
    assert!(
        tagged > 0 || stats.reserve_slabs == 0,
        "an empty slab stayed"
    );
}

#[test]
fn a_cache_loses_no_object_and_no_slab_whichever_growth_fails() {
    for order in [0, 2] {
        let m = machine(128);
        let size = SKB << order;
        let scenario = |run: &Run<'_>| {
            let cache = <SizedCache<'_>>::new("skb", m.frames, size, order).unwrap();
            let mut held = Vec::new();
            for (step, gfp, count) in [
                ("ordinary", Gfp::ATOMIC, 5),
                ("ordinary, in a scope", Gfp::KERNEL | Gfp::NOMEMALLOC, 3),
                ("entitled, in plenty", m.entitled(Gfp::ATOMIC), 3),
            ] {
                run.step(step);
                held.extend((0..count).filter_map(|_| run.need(cache.alloc(gfp))));
                check(&cache, &held);
            }
            let hog = m.exhaust();
            run.step("entitled, in want");
            let before = held.len();
            let entitled = || run.need(cache.alloc(m.entitled(Gfp::KERNEL)));
            held.extend((0..5).filter_map(|_| entitled()));
            check(&cache, &held);
            // Everything is given back in another order, and taken once more.
            held.drain(..before / 2);
            check(&cache, &held);
            run.step("entitled, again");
            held.extend((0..2).filter_map(|_| entitled()));
            check(&cache, &held);
            drop(hog);
            held.clear();
            check(&cache, &held);
            cache.shrink();
            assert_eq!(m.held(), 0, "shrunk to nothing");
            run.step("shrunk");
            held.extend(run.need(cache.alloc(Gfp::KERNEL)));
            check(&cache, &held);
        };
        sweep("sized cache", m.injector, scenario, || m.at_rest());
    }
}

#[test]
fn a_typed_cache_drops_every_value_once_and_gives_refused_ones_back() {
    let m = machine(64);
    let count = Arc::new(());
    let scenario = |run: &Run<'_>| {
        let cache: Cache<'_, (Arc<()>, [u8; 200])> = Cache::new("value", m.frames, 0).unwrap();
        let mut held = Vec::new();
        let take = |gfp, held: &mut Vec<_>| {
            for _ in 0..25 {
                match cache.alloc(gfp, (count.clone(), [7; 200])) {
                    Ok(object) => held.push(object),
                    Err((error, value)) => {
                        assert_eq!(Arc::strong_count(&count), 2 + held.len());
                        drop(value);
                        run.need(Err::<(), _>(error));
                    }
                }
            }
        };
        run.step("ordinary");
        take(Gfp::KERNEL, &mut held);
        let _hog = m.exhaust();
        run.step("entitled, in want");
        take(m.entitled(Gfp::ATOMIC), &mut held);
        assert_eq!(cache.stats().in_use, held.len());
        assert_eq!(Arc::strong_count(&count), 1 + held.len());
    };
    sweep("typed cache", m.injector, scenario, || {
        assert_eq!(Arc::strong_count(&count), 1, "a value was lost");
        m.at_rest();
    });
}

#[test]
fn size_classes_lose_nothing_whichever_growth_fails() {
    let m = machine(256);
    let scenario = |run: &Run<'_>| {
        let sizes = <SizeClasses<'_>>::new(m.frames);
        let mut held = Vec::new();
        run.step("ordinary");
        for size in SizeClasses::SIZES
            .into_iter()
            .chain([FRAME_SIZE, 5 * FRAME_SIZE])
        {
            held.extend(run.need(sizes.alloc(size, Gfp::KERNEL | Gfp::ZERO)));
        }
        assert!(held.iter().all(|block| block.iter().all(|byte| *byte == 0)));
        let _hog = m.exhaust();
        run.step("entitled, in want");
        for size in [
            8,
            100,
            600,
            SizeClasses::LARGEST,
            FRAME_SIZE,
            2 * FRAME_SIZE,
        ] {
            held.extend(run.need(sizes.alloc(size, m.entitled(Gfp::ATOMIC))));
        }
        held.clear();
        sizes.shrink();
        for class in 0..SizeClasses::COUNT {
            let stats = sizes.stats(class);
            assert_eq!((stats.in_use, stats.slabs + stats.reserve_slabs), (0, 0));
        }
    };
    sweep("size classes", m.injector, scenario, || m.at_rest());
}

struct Nobody;

impl Wake for Nobody {
    fn wake(self: Arc<Self>) {}
}

/// The pool's promise holds whatever fails: what comes back serves the next.
fn pool(run: &Run<'_>, m: &Machine, buffers: Option<&SizedCache<'_>>) {
    let (mut slots, mut waiters) = (Vec::new(), [const { None }; 1]);
    let mut frame_slots = Vec::new();
    match buffers {
        Some(cache) => {
            slots.resize_with(3, || None);
            let source: &dyn BufferCache = cache;
            on(
                run,
                m,
                &Pool::with_waiters("p", source, &mut slots, &mut waiters),
            );
        }
        None => {
            frame_slots.resize_with(3, || None);
            let source: &dyn mempool::FrameAllocator = m.frames;
            on(
                run,
                m,
                &Pool::with_waiters("p", source, &mut frame_slots, &mut waiters),
            );
        }
    }
}

fn on<'s, S: mempool::PoolSource + ?Sized>(run: &Run<'_>, m: &Machine, pool: &Pool<'_, 's, S>) {
    let waker = Waker::from(Arc::new(Nobody));
    run.step("fill");
    let filled = run.need(pool.fill(Gfp::KERNEL));
    let available = pool.stats().available;
    assert_eq!(filled.is_some(), available == 3);
    let _hog = m.exhaust();
    let mut held = Vec::new();
    run.step("in want");
    held.extend((0..3).filter_map(|_| pool.alloc(Gfp::KERNEL).ok()));
    assert!(held.len() >= available, "what the pool has, it gives");
    run.step("entitled, with the pool empty");
    held.extend(run.need(pool.alloc(m.entitled(Gfp::KERNEL))));
    run.step("waiting");
    match pool.poll_alloc(&mut Context::from_waker(&waker), Gfp::KERNEL) {
        Poll::Ready(Ok(_)) => panic!("there is none"),
        Poll::Ready(Err(PoolError::Empty)) => assert!(held.is_empty()),
        Poll::Pending => {
            drop(held.swap_remove(0));
            assert!(held.is_empty() || pool.stats().available > 0);
            if pool.stats().available > 0 {
                held.push(
                    pool.alloc(Gfp::KERNEL)
                        .expect("what came back serves the next"),
                );
            }
        }
        Poll::Ready(Err(error)) => panic!("{error}"),
    }
    assert_eq!(pool.stats().in_use, held.len());
    held.clear();
    assert_eq!(pool.stats().in_use, 0);
    assert!(pool.stats().available >= available, "it refills itself");
}

#[test]
fn pools_lose_no_element_whichever_allocation_fails() {
    let m = machine(64);
    sweep(
        "pool of frames",
        m.injector,
        |run| pool(run, &m, None),
        || m.at_rest(),
    );
    let m = machine(64);
    let scenario = |run: &Run<'_>| {
        let cache = <SizedCache<'_>>::new("skb", m.frames, SKB, 0).unwrap();
        pool(run, &m, Some(&cache));
        let stats = cache.stats();
        assert_eq!((stats.in_use, stats.reserve_objects), (0, 0));
    };
    sweep("pool of buffers", m.injector, scenario, || m.at_rest());
}
