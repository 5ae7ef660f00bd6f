//! Magazines that two CPUs, and an interrupt, use at the same time, in every order.
#![cfg(loom)]

#[path = "support/loom_lock.rs"]
mod loom_lock;

use std::sync::Arc;

use lock_api::RawMutex;
use loom::thread;
use loom_lock::{LoomLock, NoLock};
use mempool::{
    Buddy, BufferCache, CpuId, CpuMagazines, FRAME_SIZE, FrameEntry, Gfp, Magazines, MemallocToken,
    ReserveBacking, SingleTask, SizedCache, Watermarks, Zone,
};

const FRAMES: usize = 4;
/// Two to a frame.
const SIZE: usize = (FRAME_SIZE - mempool::SLAB_HEADER) / 2 - mempool::SLAB_RED_ZONE;
const ROUNDS: usize = 1;

std::thread_local! {
    /// Loom runs all its threads on one of the system's, one at a time: this follows them.
    static CPUS: std::cell::RefCell<Vec<(loom::thread::ThreadId, usize)>> = const { std::cell::RefCell::new(Vec::new()) };
}

struct Cpus;

impl CpuId for Cpus {
    fn cpu(&self) -> usize {
        let me = thread::current().id();
        CPUS.with_borrow(|cpus| {
            cpus.iter()
                .find(|(id, _)| *id == me)
                .map_or(0, |(_, cpu)| *cpu)
        })
    }
}

/// This thread runs on that CPU. Where two run on one, the second interrupts the first at any moment.
fn run_on(cpu: usize) {
    CPUS.with_borrow_mut(|cpus| cpus.push((thread::current().id(), cpu)));
}

type Lock = LoomLock;
type Cache<L> = SizedCache<'static, Lock, Magazines<'static, Cpus, ROUNDS, L>>;

struct World<L: RawMutex + Send + Sync + 'static> {
    zone: &'static Zone<'static, Lock>,
    cache: Cache<L>,
    token: MemallocToken,
}

/// Four frames, one of them reserved. (Leaked: a model has no place for owners of its own.)
fn world<L: RawMutex + Send + Sync + 'static>() -> Arc<World<L>> {
    CPUS.with_borrow_mut(Vec::clear);
    let memory = Box::leak(vec![0u8; (FRAMES + 1) * FRAME_SIZE].into_boxed_slice());
    let skip = memory.as_ptr().align_offset(FRAME_SIZE);
    let memory = &mut memory[skip..skip + FRAMES * FRAME_SIZE];
    let table = Box::leak(vec![FrameEntry::EMPTY; FRAMES].into_boxed_slice());
    let source = Box::leak(Box::new(Buddy::<Lock>::new(memory, table).unwrap()));
    let task = Box::leak(Box::new(SingleTask::new()));
    let zone: &'static Zone<'static, Lock> = Box::leak(Box::new(
        Zone::new(source, task, Watermarks::default()).unwrap(),
    ));
    zone.grow(1).unwrap();
    let slots: &'static mut [CpuMagazines<ROUNDS, L>; 2] = Box::leak(Box::default());
    let cache = SizedCache::new("skb", zone, SIZE, 0).unwrap();
    let token = zone.claim_memalloc().unwrap();
    let cache = cache.with_magazines(Magazines::new(Cpus, slots));
    Arc::new(World { zone, cache, token })
}

impl<L: RawMutex + Send + Sync> World<L> {
    /// Takes, uses and frees an object; somebody else with the same would be found.
    fn use_one(&self, gfp: Gfp, mine: u8) -> bool {
        let Ok(mut buffer) = self.cache.alloc(gfp) else {
            return false;
        };
        buffer.fill(mine);
        thread::yield_now();
        assert!(buffer.iter().all(|byte| *byte == mine));
        true
    }

    /// Two at once, so that one of them does not fit into the magazine that was loaded.
    fn use_two(&self, mine: u8) {
        let mut first = self.cache.alloc(Gfp::ATOMIC).unwrap();
        first.fill(mine);
        assert!(self.use_one(Gfp::ATOMIC, mine + 1));
        assert!(first.iter().all(|byte| *byte == mine));
    }

    fn is_at_rest(&self) {
        let stats = self.cache.stats();
        assert_eq!((stats.in_use, stats.reserve_slabs), (0, 0));
        self.cache.shrink();
        assert_eq!(
            (self.cache.stats().parked, self.zone.stats().free),
            (0, FRAMES)
        );
    }
}

fn model(f: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(5);
    builder.check(f);
}

/// Two threads, on the CPUs given, take and free two objects each.
fn two<L: RawMutex + Send + Sync + 'static>(cpus: [usize; 2]) {
    let w = world::<L>();
    // Something is parked at the first.
    drop(w.cache.alloc(Gfp::ATOMIC).unwrap());
    let other = {
        let w = w.clone();
        thread::spawn(move || {
            run_on(cpus[1]);
            w.use_two(20);
        })
    };
    run_on(cpus[0]);
    w.use_two(10);
    other.join().unwrap();
    w.is_at_rest();
}

#[test]
fn two_cpus_take_and_free() {
    model(|| two::<LoomLock>([0, 1]));
}

#[test]
fn an_interrupt_takes_and_frees_amid_its_task() {
    model(|| two::<LoomLock>([0, 0]));
}

/// The bug that the lock is there against: the model must see it.
#[test]
#[should_panic(expected = "Causality violation")]
fn without_its_lock_a_magazine_breaks() {
    model(|| two::<NoLock>([0, 0]));
}

/// An object is freed on the CPU that it was not taken on, while that empties all magazines.
#[test]
fn one_cpu_frees_what_another_shrinks() {
    model(|| {
        let w = world::<LoomLock>();
        let other = {
            let w = w.clone();
            thread::spawn(move || {
                run_on(1);
                assert!(w.use_one(Gfp::ATOMIC, 2));
            })
        };
        run_on(0);
        w.cache.shrink();
        other.join().unwrap();
        w.is_at_rest();
    });
}

/// The entitled dip while an ordinary caller comes and goes: none of the reserve is left anywhere.
#[test]
fn m4_the_reserve_is_whole_after_any_order() {
    model(|| {
        let w = world::<LoomLock>();
        let mut hog: Vec<_> =
            std::iter::from_fn(|| w.cache.alloc(Gfp::ATOMIC | Gfp::NOMEMALLOC).ok()).collect();
        assert_eq!(hog.len(), 2 * (FRAMES - 1));
        let freed = hog.pop().unwrap();
        let other = {
            let w = w.clone();
            thread::spawn(move || {
                run_on(1);
                let gfp = w.token.gfp(Gfp::ATOMIC);
                assert!(w.use_one(gfp, 2), "the entitled always get one");
            })
        };
        run_on(0);
        drop(freed);
        if let Ok(buffer) = w.cache.alloc(Gfp::ATOMIC) {
            assert!(!buffer.from_reserve());
        }
        other.join().unwrap();
        drop(hog);
        w.is_at_rest();
    });
}

/// Three threads: two on one CPU, one on another.
#[test]
fn two_cpus_and_an_interrupt() {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(2);
    builder.check(|| {
        let w = world::<LoomLock>();
        let others = [(1, 2), (0, 3)].map(|(cpu, mine)| {
            let w = w.clone();
            thread::spawn(move || {
                run_on(cpu);
                assert!(w.use_one(Gfp::ATOMIC, mine));
            })
        });
        run_on(0);
        assert!(w.use_one(Gfp::ATOMIC, 1));
        for other in others {
            other.join().unwrap();
        }
        w.is_at_rest();
    });
}
