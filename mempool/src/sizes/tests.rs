use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::*;
use crate::ReserveBacking;
use crate::testbed::machine;
use proptest::prelude::*;

fn layout(size: usize, align: usize) -> Layout {
    Layout::from_size_align(size, align).unwrap()
}

#[test]
fn a_class_is_the_smallest_that_holds_the_bytes() {
    assert!(SIZES.is_sorted_by(|a, b| a < b));
    for bytes in 0..=FRAME_SIZE {
        let first = SIZES.iter().position(|size| *size >= bytes);
        assert_eq!(SizeClasses::class_of(bytes), first, "{bytes}");
    }
    assert_eq!(SizeClasses::class_of(usize::MAX), None);
    if FRAME_SIZE == 4096 {
        let published = [
            8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 672, 1008, 1344, 2016, 4032,
        ];
        assert_eq!(&SIZES[..], published);
    }
}

#[test]
fn at_most_a_third_of_an_object_is_left_over() {
    let rounding = if FRAME_SIZE == 4096 { 0 } else { 16 };
    for bytes in 17..=SIZES[COUNT - 2] {
        let size = SIZES[class_of(bytes).unwrap()];
        assert!(size - bytes <= size / 3 + rounding, "{bytes} in {size}");
    }
}

/// The step of the proof: a full slab holds at least half a frame of what its objects count for.
#[test]
fn a_full_slab_counts_for_at_least_half_a_frame() {
    for align in (0..=FRAME_SIZE.ilog2() + 2).map(|n| 1 << n) {
        for size in 0..=5 * FRAME_SIZE {
            let layout = layout(size, align);
            let (blocks, frames) = match place(layout) {
                Place::Object(class) => (per_slab(class), 1),
                Place::Frames(order) => (1, 1 << order),
            };
            let counted = blocks * SizeClasses::counted(layout);
            assert!(2 * counted >= frames * FRAME_SIZE, "{size} at {align}");
        }
    }
}

#[test]
fn a_block_counts_for_its_size_where_a_class_can_make_it_so() {
    let least = SizeClasses::counted(layout(1, 1));
    assert!(least <= 8, "the smallest class holds no less");
    let two = (FRAME_SIZE - SLAB_HEADER) / 2;
    for size in 1..=4 * FRAME_SIZE {
        let counted = SizeClasses::counted(layout(size, 1));
        let run = size.div_ceil(FRAME_SIZE).next_power_of_two() * FRAME_SIZE;
        let expected = match size {
            _ if size <= least => least,
            9 if FRAME_SIZE == 512 => 10,
            _ if size > two && size < FRAME_SIZE / 2 => FRAME_SIZE / 2,
            _ if size > FRAME_SIZE => size.max(run / 2 + RECORD),
            _ => size,
        };
        assert_eq!(counted, expected, "{size}");
        if size.is_power_of_two() && (8..=FRAME_SIZE / 8).contains(&size) {
            assert_eq!(SizeClasses::counted(layout(size, size)), size);
        }
    }
}

#[test]
fn layouts_beyond_any_memory_have_a_place_and_no_memory() {
    let m = machine(16);
    let sizes = <SizeClasses<'_>>::new(&m.zone);
    for beyond in [1 << 40, isize::MAX as usize, usize::MAX] {
        assert_eq!(
            sizes.alloc(beyond, Gfp::KERNEL).unwrap_err(),
            AllocError::BadOrder
        );
    }
    let aligned = sizes.take(layout(1, 1 << 40), Gfp::KERNEL);
    assert_eq!(aligned.unwrap_err(), AllocError::BadOrder);
}

#[test]
fn objects_are_aligned_to_what_divides_their_size() {
    let m = machine(128);
    let sizes = <SizeClasses<'_>>::new(&m.zone);
    for size in SIZES {
        let align = 1 << size.trailing_zeros();
        for _ in 0..3 {
            let object = sizes.alloc(size, Gfp::KERNEL).unwrap();
            assert_eq!(object.as_ptr().addr() % align, 0, "{size}");
            core::mem::forget(object);
        }
    }
}

#[test]
fn m4_every_class_keeps_its_reserve_objects_from_ordinary_callers() {
    let m = machine(64);
    m.zone.grow(2 * COUNT + 4).unwrap();
    let token = m.zone.claim_memalloc().unwrap();
    let sizes = <SizeClasses<'_>>::new(&m.zone);
    let mut held = Vec::new();
    for size in SIZES.into_iter().rev().chain([1]) {
        while let Ok(block) = sizes.alloc(size, Gfp::ATOMIC) {
            assert!(!block.from_reserve());
            held.push(block);
        }
    }
    let mut emergency = Vec::new();
    for size in SIZES.into_iter().chain([FRAME_SIZE]) {
        let block = sizes.alloc(size, token.gfp(Gfp::ATOMIC)).unwrap();
        assert!(block.from_reserve(), "{size}");
        assert!(sizes.alloc(size, Gfp::ATOMIC).is_err(), "{size}");
        emergency.push(block);
    }
    assert_eq!(m.zone.stats().reserve_in_use, COUNT + 1);
    drop(emergency);
    assert_eq!(m.zone.stats().reserve_in_use, 0);
}

#[test]
fn blocks_have_their_length_and_zeros_when_asked() {
    let m = machine(64);
    let sizes = <SizeClasses<'_>>::new(&m.zone);
    for bytes in [0, 1, 100, FRAME_SIZE, 2 * FRAME_SIZE + 1] {
        let mut block = sizes.alloc(bytes, Gfp::KERNEL).unwrap();
        block.fill(0xff);
        assert_eq!(block.len(), bytes);
        drop(block);
        let zeroed = sizes.alloc(bytes, Gfp::KERNEL | Gfp::ZERO).unwrap();
        assert!(zeroed.len() == bytes && zeroed.iter().all(|b| *b == 0));
    }
    assert!(sizes.shrink() > 0);
    assert_eq!((m.zone.stats().free, sizes.shrink()), (64, 0));
}

#[test]
fn a_zone_that_gives_other_runs_than_asked_for_is_refused() {
    struct Small(crate::Zone<'static>);
    impl FrameAllocator for Small {
        fn alloc(&self, _: u8, gfp: Gfp) -> Result<Frame<'_>, AllocError> {
            self.0.alloc(0, gfp)
        }
        fn entitled(&self, gfp: Gfp) -> bool {
            FrameAllocator::entitled(&self.0, gfp)
        }
        fn level(&self) -> crate::Level {
            self.0.level()
        }
    }
    let small = Small(machine(16).zone);
    let sizes = <SizeClasses<'_>>::new(&small);
    let refused = sizes.alloc(3 * FRAME_SIZE, Gfp::KERNEL).unwrap_err();
    assert_eq!(refused, AllocError::BadOrder);
}

#[test]
fn a_budget_for_blocks_of_one_layout_is_exact() {
    let m = machine(64);
    for (size, count) in [(8, 3), (100, 90), (FRAME_SIZE / 2 - 96, 9), (FRAME_SIZE, 5)] {
        let sizes = <SizeClasses<'_>>::new(&m.zone);
        let held: Vec<_> = (0..count)
            .map(|_| sizes.alloc(size, Gfp::KERNEL).unwrap())
            .collect();
        let used = 64 - m.zone.stats().free;
        let record = usize::from(size >= FRAME_SIZE);
        let budget = SizeClasses::budget_of(count, layout(size, 1));
        assert_eq!(budget.frames(), used + record, "{size}");
        drop(held);
    }
}

#[derive(Debug, Clone)]
struct Op {
    take: bool,
    entitled: bool,
    layout: Layout,
    times: usize,
    which: prop::sample::Index,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let top = FRAME_SIZE.ilog2() as usize;
    // Just beyond a class is where most is left over.
    let worst = (0..COUNT).prop_map(|class| SIZES[class] + 1);
    let size =
        prop_oneof![3 => worst, 2 => 1usize..200, 2 => 1..FRAME_SIZE, 1 => 1..4 * FRAME_SIZE];
    let align = prop_oneof![3 => Just(0usize), 1 => 0..=top];
    let op = (
        prop::bool::weighted(0.7),
        any::<bool>(),
        size,
        align,
        1usize..150,
        any::<prop::sample::Index>(),
    );
    let op = op.prop_map(|(take, entitled, size, align, times, which)| Op {
        take,
        entitled,
        layout: layout(size, 1 << align),
        times,
        which,
    });
    prop::collection::vec(op, 1..60)
}

/// What the blocks of one kind of memory count for, now and at each place's worst time.
#[derive(Default)]
struct Counted(BTreeMap<(bool, usize), (usize, usize)>);

impl Counted {
    fn key(layout: Layout) -> (bool, usize) {
        match place(layout) {
            Place::Object(class) => (false, class),
            Place::Frames(order) => (true, order.into()),
        }
    }

    fn add(&mut self, layout: Layout) {
        let (now, worst) = self.0.entry(Self::key(layout)).or_default();
        *now += SizeClasses::counted(layout);
        *worst = (*worst).max(*now);
    }

    fn remove(&mut self, layout: Layout) {
        self.0.get_mut(&Self::key(layout)).unwrap().0 -= SizeClasses::counted(layout);
    }

    /// As `SizeClasses::budget`, but only the classes in use leave a slab partly used: the bound
    /// that is published has more slack.
    fn bound(&self) -> usize {
        let bytes = self.0.values().map(|(_, worst)| worst).sum();
        let classes = self.0.keys().filter(|(frames, _)| !frames).count();
        let bound = Budget::bytes(bytes, classes).frames();
        assert!(bound <= SizeClasses::budget(bytes).frames());
        bound
    }
}

#[test]
fn any_set_of_blocks_stays_within_its_budget() {
    let m = machine(1500);
    m.zone.grow(800).unwrap();
    let token = m.zone.claim_memalloc().unwrap();
    proptest!(|(ops in ops())| {
        let sizes = <SizeClasses<'_>>::new(&m.zone);
        let mut counted: [Counted; 2] = Default::default();
        let mut held: Vec<(Memory<'_, '_>, Layout, bool)> = Vec::new();
        for op in ops {
            for _ in 0..op.times {
                if op.take {
                    let gfp = if op.entitled { token.gfp(Gfp::KERNEL) } else { Gfp::KERNEL };
                    if let Ok(memory) = sizes.take(op.layout, gfp) {
                        let from_reserve = match &memory {
                            Memory::Object(buffer) => buffer.from_reserve(),
                            Memory::Frames(frame) => frame.from_reserve(),
                        };
                        counted[usize::from(from_reserve)].add(op.layout);
                        held.push((memory, op.layout, from_reserve));
                    }
                } else if !held.is_empty() {
                    let (_, layout, from_reserve) = held.swap_remove(op.which.index(held.len()));
                    counted[usize::from(from_reserve)].remove(layout);
                }
            }
            let stats = m.zone.stats();
            let used = stats.total - stats.free;
            prop_assert!(used - stats.reserve_in_use <= counted[0].bound());
            prop_assert!(stats.reserve_in_use <= counted[1].bound());
        }
    });
    assert_eq!(m.zone.stats().free, 1500);
    assert!(
        m.zone.stats().reserve_peak > 100,
        "the reserve was put to use"
    );
}
