//! A zone over a buddy allocator against a bit for each frame.

use mempool::{AllocError, FRAME_SIZE, Frame, Gfp, ReserveBacking, SingleTask, Zone};
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::TestCaseError;

use crate::counted::drive;
use crate::memory::{FRAMES, Flags, MARKS, is_marked, mark, with_zone};

#[derive(Debug, Clone)]
enum Op {
    Alloc(u8, Flags),
    Free(Index),
    Grow(usize),
    Shrink(Index),
    Scope(bool),
    Interrupt(bool),
}

fn ops() -> impl Strategy<Value = Op> {
    let order = prop_oneof![6 => Just(0), 4 => 1..4u8, 1 => 4..7u8];
    prop_oneof![
        12 => (order, Flags::any()).prop_map(|(order, flags)| Op::Alloc(order, flags)),
        10 => any::<Index>().prop_map(Op::Free),
        1 => (0..20usize).prop_map(Op::Grow),
        1 => any::<Index>().prop_map(Op::Shrink),
        1 => any::<bool>().prop_map(Op::Scope),
        1 => any::<bool>().prop_map(Op::Interrupt),
    ]
}

#[derive(Default)]
struct Model {
    taken: Vec<bool>,
    reserve: usize,
    tagged: usize,
    peak: usize,
    min_free: usize,
    refused: u64,
    exhausted: u64,
}

impl Model {
    fn free(&self) -> usize {
        self.taken.iter().filter(|taken| !**taken).count()
    }

    /// Whether there is a run: aligned to its size, as those of a buddy allocator are.
    fn run(&self, order: u8) -> bool {
        let runs = self.taken.chunks_exact(1 << order);
        runs.into_iter().any(|run| run.iter().all(|taken| !taken))
    }

    fn mark(&mut self, first: usize, order: u8, taken: bool) {
        for frame in &mut self.taken[first..first + (1 << order)] {
            assert_ne!(*frame, taken, "two owners of frame {first}");
            *frame = taken;
        }
        self.min_free = self.min_free.min(self.free());
    }
}

struct World<'z> {
    zone: &'z Zone<'z>,
    base: usize,
    held: Vec<(Frame<'z>, u8)>,
    model: Model,
}

impl World<'_> {
    fn check(&self) -> Result<(), TestCaseError> {
        let (stats, model) = (self.zone.stats(), &self.model);
        prop_assert_eq!((stats.total, stats.free), (FRAMES, model.free()));
        prop_assert_eq!(stats.reserve, model.reserve);
        let in_use = (stats.reserve_in_use, stats.reserve_peak);
        prop_assert_eq!(in_use, (model.tagged, model.peak));
        prop_assert_eq!(stats.min_free, model.min_free);
        let failed = (stats.refused, stats.exhausted);
        prop_assert_eq!(failed, (model.refused, model.exhausted));
        Ok(())
    }

    fn give(&mut self, which: usize) {
        let (frame, stamp) = self.held.swap_remove(which);
        assert!(is_marked(&frame, stamp), "somebody wrote here");
        let first = (frame.as_ptr().addr() - self.base) / FRAME_SIZE;
        self.model.mark(first, frame.order(), false);
        if frame.from_reserve() {
            self.model.tagged -= 1 << frame.order();
        }
    }
}

fn run(
    ops: Vec<Op>,
    zone: &Zone<'_>,
    task: &SingleTask,
    base: usize,
) -> Result<usize, TestCaseError> {
    let token = zone.claim_memalloc().expect("the first claim");
    let (mut scopes, mut interrupts) = (Vec::new(), Vec::new());
    let model = Model {
        taken: vec![false; FRAMES],
        min_free: FRAMES,
        ..Model::default()
    };
    let mut world = World {
        zone,
        base,
        held: Vec::new(),
        model,
    };
    let mut done = 0;
    for (n, op) in ops.into_iter().enumerate() {
        done += 1;
        match op {
            Op::Alloc(order, flags) => {
                let model = &mut world.model;
                let entitled = flags.entitled(!scopes.is_empty(), !interrupts.is_empty());
                let needed = 1 << order;
                let above = model.free() >= model.reserve + flags.floor() + needed;
                let expected = (above || entitled) && model.run(order);
                match zone.alloc(order, flags.gfp(token)) {
                    Ok(mut frame) => {
                        prop_assert!(expected, "M2: {flags:?} took {needed} of {}", model.free());
                        prop_assert_eq!(frame.from_reserve(), !above, "M3");
                        prop_assert_eq!(frame.len(), FRAME_SIZE << order);
                        prop_assert!(!flags.zero() || frame.iter().all(|byte| *byte == 0));
                        let first = (frame.as_ptr().addr() - base) / FRAME_SIZE;
                        prop_assert_eq!(first % needed, 0, "aligned");
                        model.mark(first, order, true);
                        if !above {
                            model.tagged += needed;
                            model.peak = model.peak.max(model.tagged);
                        }
                        mark(&mut frame, n as u8);
                        world.held.push((frame, n as u8));
                    }
                    Err(error) => {
                        prop_assert_eq!(error, AllocError::Exhausted);
                        prop_assert!(!expected, "{flags:?} refused, order {order}");
                        *if entitled {
                            &mut model.exhausted
                        } else {
                            &mut model.refused
                        } += 1;
                    }
                }
            }
            Op::Free(which) if !world.held.is_empty() => {
                world.give(which.index(world.held.len()));
            }
            Op::Grow(frames) => {
                let model = &mut world.model;
                let backed = frames == 0 || model.free() >= model.reserve + MARKS.min + frames;
                prop_assert_eq!(zone.grow(frames).is_ok(), backed);
                model.reserve += if backed { frames } else { 0 };
            }
            Op::Shrink(which) => {
                let frames = which.index(world.model.reserve + 1);
                zone.shrink(frames);
                world.model.reserve -= frames;
            }
            Op::Scope(true) => scopes.push(zone.memalloc(&token)),
            Op::Scope(false) => drop(scopes.pop()),
            Op::Interrupt(true) => interrupts.push(task.interrupt()),
            Op::Interrupt(false) => drop(interrupts.pop()),
            Op::Free(_) => done -= 1,
        }
        world.check()?;
    }
    while !world.held.is_empty() {
        world.give(0);
    }
    world.check()?;
    zone.shrink(world.model.reserve);
    let gfp = token.gfp(Gfp::ATOMIC | Gfp::NOMEMALLOC);
    prop_assert!(zone.alloc(5, gfp).is_ok(), "in one piece");
    while scopes.pop().is_some() {}
    Ok(done)
}

#[test]
fn m2_m3_a_zone_does_what_a_bit_for_each_frame_says() {
    drive("zone", ops(), |ops| {
        with_zone(|zone, task, base| run(ops, zone, task, base))
    });
}
