use alloc::boxed::Box;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::testbed::{Machine, machine};
use crate::{
    AllocError, Budget, Buffer, BufferCache, Frame, FrameAllocator, Gfp, Level, MemallocToken,
    ReserveBacking, SLAB_HEADER, SLAB_RED_ZONE, SizedCache,
};
use proptest::prelude::*;

const CPUS: usize = 2;
const ROUNDS: usize = 4;

/// Four to a frame.
const SIZE: usize = (crate::FRAME_SIZE - SLAB_HEADER) / 4 - SLAB_RED_ZONE;

/// The CPU that the test says it is.
#[derive(Default)]
struct Cpu(AtomicUsize);

impl CpuId for Cpu {
    fn cpu(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Cpu {
    fn run_on(&self, cpu: usize) {
        self.0.store(cpu, Ordering::Relaxed);
    }
}

type Parked = SizedCache<'static, CriticalSection, Magazines<'static, &'static Cpu, ROUNDS>>;

struct World {
    m: &'static Machine,
    cpu: &'static Cpu,
    cache: Parked,
}

/// 64 frames, 16 of them reserved, and a cache with magazines on two CPUs.
fn world() -> World {
    let m: &'static Machine = Box::leak(Box::new(machine(64)));
    m.zone.grow(16).unwrap();
    let cpu: &'static Cpu = Box::leak(Box::default());
    let slots: &'static mut [CpuMagazines<ROUNDS>; CPUS] = Box::leak(Box::default());
    let cache = SizedCache::new("skb", &m.zone, SIZE, 0).unwrap();
    let cache = cache.with_magazines(Magazines::new(cpu, slots));
    World { m, cpu, cache }
}

impl World {
    /// Every ordinary object there is, taken by CPU 0.
    fn exhaust(&self) -> (MemallocToken, Vec<Buffer<'_>>) {
        let token = self.m.zone.claim_memalloc().unwrap();
        let all = core::iter::from_fn(|| self.cache.alloc(Gfp::ATOMIC).ok()).collect();
        (token, all)
    }
}

#[test]
fn most_allocations_stay_at_their_cpu() {
    let w = world();
    let first = w.cache.alloc(Gfp::ATOMIC).unwrap();
    let address = first.as_ptr();
    drop(first);
    assert_eq!((w.cache.stats().in_use, w.cache.stats().parked), (0, 1));
    w.cpu.run_on(1);
    let other = w.cache.alloc(Gfp::ATOMIC).unwrap();
    assert_ne!(other.as_ptr(), address, "it is parked at CPU 0");
    w.cpu.run_on(0);
    assert_eq!(w.cache.alloc(Gfp::ATOMIC).unwrap().as_ptr(), address);
}

#[test]
fn a_cpu_without_magazines_uses_the_slabs() {
    let w = world();
    w.cpu.run_on(CPUS);
    drop(w.cache.alloc(Gfp::ATOMIC).unwrap());
    assert_eq!((w.cache.stats().in_use, w.cache.stats().parked), (0, 0));
}

#[test]
fn what_is_parked_is_bounded_and_counted() {
    let w = world();
    for cpu in [0, 1, 0, 1] {
        w.cpu.run_on(cpu);
        let many: Vec<_> = (0..40)
            .map(|_| w.cache.alloc(Gfp::ATOMIC).unwrap())
            .collect();
        assert_eq!(w.cache.stats().in_use, 40);
        drop(many);
        let stats = w.cache.stats();
        assert_eq!(stats.in_use, 0);
        assert!(stats.parked <= 2 * ROUNDS * CPUS);
        let taken = w.m.zone.stats().total - w.m.zone.stats().free;
        let bound = Budget::magazines(CPUS, ROUNDS, 0) + Budget::from_frames(1);
        assert!(taken <= bound.frames(), "{taken} frames");
    }
    assert!(w.cache.stats().parked >= ROUNDS * CPUS, "and it is used");
}

#[test]
fn a_cpu_goes_to_the_slabs_for_a_magazine_at_a_time() {
    let w = world();
    let many: Vec<_> = (0..10)
        .map(|_| w.cache.alloc(Gfp::ATOMIC).unwrap())
        .collect();
    w.cpu.run_on(1);
    drop(many);
    w.cache.shrink();
    // Now a slab is half empty, and the rest of it is loaded with the first that is taken.
    let _some = [(); 2].map(|()| w.cache.alloc(Gfp::ATOMIC).unwrap());
    assert_eq!(w.cache.stats().parked, 2);

    let mut held: Vec<_> = (0..20)
        .map(|_| w.cache.alloc(Gfp::ATOMIC).unwrap())
        .collect();
    while w.cache.stats().parked < 2 * ROUNDS {
        held.pop();
    }
    held.pop();
    assert_eq!(w.cache.stats().parked, ROUNDS, "room for as many more");
}

#[test]
fn shrink_empties_the_magazines_of_every_cpu() {
    let w = world();
    for cpu in 0..CPUS {
        w.cpu.run_on(cpu);
        drop([(); 6].map(|()| w.cache.alloc(Gfp::ATOMIC).unwrap()));
    }
    let before = w.m.zone.stats().free;
    let freed = w.cache.shrink();
    assert_eq!((w.cache.stats().parked, w.cache.stats().slabs), (0, 0));
    assert_eq!((w.m.zone.stats().free, before + freed), (64, 64));
}

#[test]
fn a_cache_leaves_nothing_parked_behind() {
    let w = world();
    drop([(); 6].map(|()| w.cache.alloc(Gfp::ATOMIC).unwrap()));
    drop(w.cache);
    assert_eq!(w.m.zone.stats().free, 64);
}

#[test]
fn m4_what_lies_in_reserve_memory_is_never_parked() {
    let w = world();
    let (token, _held) = w.exhaust();
    let emergency = w.cache.alloc(token.gfp(Gfp::ATOMIC)).unwrap();
    assert!(emergency.from_reserve());
    let second = w.cache.alloc(token.gfp(Gfp::ATOMIC)).unwrap();
    drop(emergency);
    assert_eq!(w.cache.stats().parked, 0);
    assert!(w.cache.alloc(Gfp::ATOMIC).is_err());
    drop(second);
    assert_eq!(w.m.zone.stats().reserve_in_use, 0, "whole again at once");
}

#[cfg(feature = "ablation")]
#[test]
fn m4_without_admission_what_is_parked_of_the_reserve_goes_to_anybody() {
    let w = world();
    w.cache.ablate(Mechanism::MagazineAdmission);
    let (token, _held) = w.exhaust();
    drop(w.cache.alloc(token.gfp(Gfp::ATOMIC)).unwrap());
    assert!(w.cache.alloc(Gfp::ATOMIC).unwrap().from_reserve());
}

#[test]
fn m3_what_another_cpu_has_parked_comes_before_the_reserve() {
    let w = world();
    let (token, mut held) = w.exhaust();
    w.cpu.run_on(1);
    held.truncate(held.len() - 3);
    assert_eq!(w.cache.stats().parked, 3);
    w.cpu.run_on(0);
    let mut taken: Vec<_> = (0..3)
        .map(|_| w.cache.alloc(token.gfp(Gfp::ATOMIC)).unwrap())
        .collect();
    assert!(taken.iter().all(|buffer| !buffer.from_reserve()));
    taken.push(w.cache.alloc(token.gfp(Gfp::ATOMIC)).unwrap());
    assert!(taken[3].from_reserve(), "and then it was needed");
}

#[test]
fn nobody_fails_while_another_cpu_has_something_parked() {
    let w = world();
    let (_token, mut held) = w.exhaust();
    w.cpu.run_on(1);
    held.pop();
    w.cpu.run_on(0);
    let _last = w.cache.alloc(Gfp::ATOMIC).unwrap();
    assert!(w.cache.alloc(Gfp::ATOMIC).is_err());
}

/// A zone that notes what it was asked for.
struct Asked(&'static Machine, std::sync::Mutex<Vec<Gfp>>);

impl FrameAllocator for Asked {
    fn alloc(&self, order: u8, gfp: Gfp) -> Result<Frame<'_>, AllocError> {
        self.1.lock().unwrap().push(gfp);
        FrameAllocator::alloc(&self.0.zone, order, gfp)
    }

    fn entitled(&self, gfp: Gfp) -> bool {
        self.0.zone.entitled(gfp)
    }

    fn level(&self) -> Level {
        FrameAllocator::level(&self.0.zone)
    }
}

#[test]
fn nobody_reclaims_while_another_cpu_has_something_parked() {
    let zone = Asked(
        Box::leak(Box::new(machine(16))),
        std::sync::Mutex::default(),
    );
    let cpu = Cpu::default();
    let mut slots: [CpuMagazines<ROUNDS>; CPUS] = Default::default();
    let cache = <SizedCache<'_>>::new("skb", &zone, SIZE, 0).unwrap();
    let cache = cache.with_magazines(Magazines::<_, ROUNDS>::new(&cpu, &mut slots));
    let mut held: Vec<_> = core::iter::from_fn(|| cache.alloc(Gfp::ATOMIC).ok()).collect();
    cpu.run_on(1);
    held.pop();
    cpu.run_on(0);
    let reclaims = |gfp: &Gfp| gfp.contains(Gfp::WAIT) && !gfp.contains(Gfp::NORECLAIM);
    let asked = || core::mem::take(&mut *zone.1.lock().unwrap());
    asked();
    held.push(cache.alloc(Gfp::KERNEL).unwrap());
    assert!(!asked().iter().any(reclaims), "it was parked");
    assert!(cache.alloc(Gfp::KERNEL).is_err());
    assert!(asked().iter().any(reclaims), "before it fails");
}

#[cfg(feature = "ablation")]
#[test]
fn m3_without_draining_the_reserve_is_taken_while_ordinary_memory_is_parked() {
    let w = world();
    w.cache.ablate(Mechanism::MagazineDrain);
    let (token, mut held) = w.exhaust();
    w.cpu.run_on(1);
    held.pop();
    w.cpu.run_on(0);
    assert!(w.cache.alloc(Gfp::ATOMIC).is_err());
    let dipped = w.cache.alloc(token.gfp(Gfp::ATOMIC)).unwrap();
    assert!(dipped.from_reserve());
}

#[test]
fn an_interrupt_amid_a_magazine_goes_to_the_slabs() {
    let w = world();
    drop(w.cache.alloc(Gfp::ATOMIC).unwrap());
    // The task below is in the middle of it.
    let busy = w.cache.parking.slots[0].pair.lock();
    let in_irq = w.cache.alloc(Gfp::ATOMIC).unwrap();
    let another = w.cache.alloc(Gfp::ATOMIC).unwrap();
    drop(in_irq);
    assert_eq!(busy.parked.len(), 1, "nobody touched it");
    w.cache.shrink();
    assert_eq!(busy.parked.len(), 1);
    drop(busy);
    drop(another);
    assert_eq!((w.cache.stats().in_use, w.cache.stats().parked), (0, 2));
}

#[test]
fn the_storage_of_a_forgotten_cache_holds_nothing_for_the_next() {
    let m: &'static Machine = Box::leak(Box::new(machine(16)));
    let cpu = Cpu::default();
    let mut slots: [CpuMagazines<ROUNDS>; 1] = Default::default();
    let new = || <SizedCache<'_>>::new("skb", &m.zone, SIZE, 0).unwrap();
    let first = new().with_magazines(Magazines::<_, ROUNDS>::new(&cpu, &mut slots));
    drop(first.alloc(Gfp::ATOMIC).unwrap());
    core::mem::forget(first);
    let second = new().with_magazines(Magazines::<_, ROUNDS>::new(&cpu, &mut slots));
    assert_eq!(second.stats().parked, 0);
    drop(second.alloc(Gfp::ATOMIC).unwrap());
    drop(second);
    assert_eq!(m.zone.stats().free, 15, "one slab was forgotten");
}

#[derive(Debug, Clone)]
enum Op {
    Take {
        cpu: usize,
        entitled: bool,
    },
    Free {
        cpu: usize,
        which: prop::sample::Index,
    },
    Shrink,
}

fn op() -> impl Strategy<Value = Op> {
    let cpu = || 0..CPUS + 1;
    prop_oneof![
        60 => (cpu(), any::<bool>()).prop_map(|(cpu, entitled)| Op::Take { cpu, entitled }),
        // Runs of releases come from taking failing in between.
        55 => (cpu(), any::<prop::sample::Index>()).prop_map(|(cpu, which)| Op::Free { cpu, which }),
        1 => Just(Op::Shrink),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Against a list of what is held: nobody shares bytes, the counters tell what there is, the
    /// reserve goes to the entitled alone, and only when nothing is parked anywhere.
    #[test]
    fn magazines_and_slabs_are_what_a_list_says(ops in prop::collection::vec(op(), 500..700), frames in 18usize..40) {
        let m: &'static Machine = Box::leak(Box::new(machine(frames)));
        m.zone.grow(4).unwrap();
        let token = m.zone.claim_memalloc().unwrap();
        let cpu = Cpu::default();
        let mut slots: [CpuMagazines<ROUNDS>; CPUS] = Default::default();
        let cache = <SizedCache<'_>>::new("skb", &m.zone, SIZE, 0).unwrap();
        let cache = cache.with_magazines(Magazines::<_, ROUNDS>::new(&cpu, &mut slots));
        let mut held: Vec<(Buffer<'_>, usize)> = Vec::new();
        for (n, op) in ops.into_iter().enumerate() {
            match op {
                Op::Take { cpu: at, entitled } => {
                    cpu.run_on(at);
                    let gfp = if entitled { token.gfp(Gfp::ATOMIC) } else { Gfp::ATOMIC };
                    match cache.alloc(gfp) {
                        Ok(mut buffer) => {
                            if buffer.from_reserve() {
                                prop_assert!(entitled);
                                prop_assert_eq!(cache.stats().parked, 0);
                            }
                            buffer[..8].copy_from_slice(&n.to_ne_bytes());
                            let end = buffer.len() - 8;
                            buffer[end..].copy_from_slice(&n.to_ne_bytes());
                            held.push((buffer, n));
                        }
                        Err(_) => prop_assert_eq!(cache.stats().parked, 0),
                    }
                }
                Op::Free { cpu: at, which } if !held.is_empty() => {
                    cpu.run_on(at);
                    let (buffer, n) = held.swap_remove(which.index(held.len()));
                    prop_assert_eq!(&buffer[..8], &n.to_ne_bytes());
                    prop_assert_eq!(&buffer[buffer.len() - 8..], &n.to_ne_bytes());
                }
                Op::Free { .. } => {}
                Op::Shrink => {
                    cache.shrink();
                    prop_assert_eq!(cache.stats().parked, 0);
                }
            }
            let stats = cache.stats();
            let reserve = held.iter().filter(|(buffer, _)| buffer.from_reserve()).count();
            prop_assert_eq!((stats.in_use, stats.reserve_objects), (held.len(), reserve));
            prop_assert!(stats.parked <= 2 * ROUNDS * CPUS);
            prop_assert_eq!(m.zone.stats().reserve_in_use, stats.reserve_slabs);
            let bound = Budget::objects(held.len().max(1), SIZE, 0).frames();
            prop_assert!(stats.slabs + stats.reserve_slabs >= bound.min(held.len()));
        }
        drop(held);
        drop(cache);
        prop_assert_eq!((m.zone.stats().free, m.zone.stats().reserve_in_use), (frames, 0));
    }
}
