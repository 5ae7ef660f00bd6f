//! What every part of the allocator must do, in the same steps on every target: numbers from a seed,
//! no threads, no heap. The host runs it with large frames (`tests/battery/main.rs`), a Cortex-M0
//! without compare-and-swap with small ones (`examples/thumbv6m-tests`).
//!
//! Whatever is wrong panics.

use core::alloc::{GlobalAlloc, Layout};

use mempool::{
    Bitmap, Block, Buddy, Buffer, BufferCache, ChargeError, FRAME_SIZE, Frame, FrameAllocator,
    FrameEntry, FrameSource, Gfp, Heap, Pool, PoolError, ReserveError, ReserveNode, SLAB_HEADER,
    SingleTask, SizeClasses, SizedCache, Watermarks, Zone,
};

/// Frames of the machine.
pub const FRAMES: usize = 16;

/// Memory for the machine: `FRAMES` frames, aligned to their size.
pub type Memory<'m> = &'m mut [u8];

type Test = fn(Memory<'_>, u32);

/// The tests, by name.
pub const TESTS: [(&str, Test); 9] = [
    ("buddy", buddy),
    ("bitmap", bitmap),
    ("zone", zone),
    ("entitlement", entitlement),
    ("reserve tree", reserve_tree),
    ("slab", slab),
    ("pool", pool),
    ("size classes", size_classes),
    ("heap", heap),
];

/// Runs all of them, `rounds` operations each; says which begins.
pub fn run(memory: Memory<'_>, rounds: u32, begins: &mut dyn FnMut(&str)) {
    assert_eq!(memory.len(), FRAMES * FRAME_SIZE);
    for (name, test) in TESTS {
        begins(name);
        test(memory, rounds);
    }
}

const MARKS: Watermarks = Watermarks {
    min: 2,
    low: 3,
    high: 4,
};

/// Numbers that are the same everywhere (xorshift32).
struct Numbers(u32);

impl Numbers {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;
        self.0 as usize % end
    }
}

/// Bytes that only their owner writes: who finds others there shares them.
fn mark(bytes: &mut [u8], owner: usize) {
    let last = bytes.len() - 1;
    for at in [0, last / 2, last] {
        bytes[at] = owner as u8;
    }
}

fn check(bytes: &[u8], owner: usize) {
    let last = bytes.len() - 1;
    assert!(
        [0, last / 2, last]
            .iter()
            .all(|&at| bytes[at] == owner as u8),
        "somebody else wrote to it"
    );
}

fn with_zone(memory: Memory<'_>, marks: Watermarks, test: impl FnOnce(&Zone<'_>, &SingleTask)) {
    let mut table = [FrameEntry::EMPTY; FRAMES];
    let source = <Buddy<'_>>::new(memory, &mut table).unwrap();
    let task = SingleTask::new();
    let zone = <Zone<'_>>::new(&source, &task, marks).unwrap();
    test(&zone, &task);
    let end = zone.stats();
    assert_eq!(
        (end.free, end.reserve_in_use),
        (FRAMES, 0),
        "frames are lost"
    );
    assert_eq!(source.free_frames(), FRAMES);
}

fn any_source(source: &dyn FrameSource, orders: usize, rounds: u32) {
    let task = SingleTask::new();
    let zone = <Zone<'_>>::new(source, &task, Watermarks::default()).unwrap();
    let mut held: [Option<Frame<'_>>; FRAMES] = [const { None }; FRAMES];
    let (mut numbers, mut taken) = (Numbers(2463534242), 0);
    for _ in 0..rounds {
        let slot = numbers.below(FRAMES);
        match held[slot].take() {
            Some(frame) => {
                check(&frame, slot);
                taken -= 1 << frame.order();
            }
            None => {
                let order = numbers.below(orders) as u8;
                if let Ok(mut frame) = zone.alloc(order, Gfp::KERNEL) {
                    assert_eq!(frame.len(), FRAME_SIZE << order);
                    mark(&mut frame, slot);
                    taken += 1 << order;
                    held[slot] = Some(frame);
                }
            }
        }
        assert_eq!(zone.stats().free, FRAMES - taken);
    }
    held.fill_with(|| None);
    assert_eq!(source.free_frames(), FRAMES);
}

fn buddy(memory: Memory<'_>, rounds: u32) {
    let mut table = [FrameEntry::EMPTY; FRAMES];
    let source = <Buddy<'_>>::new(memory, &mut table).unwrap();
    any_source(&source, 4, rounds);
    let task = SingleTask::new();
    let zone = <Zone<'_>>::new(&source, &task, Watermarks::default()).unwrap();
    let whole = zone.alloc(4, Gfp::KERNEL);
    assert_eq!(
        whole.expect("it came together again").len(),
        FRAMES * FRAME_SIZE
    );
}

fn bitmap(memory: Memory<'_>, rounds: u32) {
    let mut map = [0; 1];
    let source = <Bitmap<'_>>::new(memory, &mut map).unwrap();
    any_source(&source, 1, rounds);
}

/// M2, M3: the marks, to the frame.
fn zone(memory: Memory<'_>, _: u32) {
    with_zone(memory, MARKS, |zone, _| {
        let root = <ReserveNode<'_>>::root("total", zone);
        root.set_limit(1, 4).unwrap();
        let mut held: [Option<Frame<'_>>; FRAMES] = [const { None }; FRAMES];
        let mut take = |gfp: Gfp| {
            let empty = held.iter_mut().find(|slot| slot.is_none());
            let empty = empty.expect("no more than there are");
            *empty = zone.alloc(0, gfp).ok();
            empty.as_ref().map(Frame::from_reserve)
        };
        while take(Gfp::KERNEL) == Some(false) {}
        assert_eq!(zone.stats().free, 4 + 2, "an ordinary caller stops at min");
        while take(Gfp::ATOMIC) == Some(false) {}
        assert_eq!(zone.stats().free, 4 + 1, "half of min is for the urgent");
        let token = zone.claim_memalloc().expect("the first claim");
        let mut tagged = 0;
        while let Some(from_reserve) = take(token.gfp(Gfp::ATOMIC)) {
            tagged += usize::from(from_reserve);
            if zone.stats().free == 0 {
                break;
            }
        }
        assert_eq!((tagged, zone.stats().reserve_in_use), (5, 5));
        assert!(zone.alloc(0, token.gfp(Gfp::ATOMIC)).is_err());
        let (stats, refused) = (zone.stats(), zone.stats().refused);
        assert_eq!((stats.min_free, stats.exhausted, refused), (0, 1, 2));
        held.fill_with(|| None);
        root.set_limit(0, 0).unwrap();
    });
}

/// M1: by flag or scope, not in an interrupt, not with `NOMEMALLOC`.
fn entitlement(memory: Memory<'_>, _: u32) {
    with_zone(memory, MARKS, |zone, task| {
        let token = zone.claim_memalloc().unwrap();
        assert!(zone.claim_memalloc().is_none(), "given out twice");
        assert!(!zone.entitled(Gfp::KERNEL) && zone.entitled(token.gfp(Gfp::KERNEL)));
        let scope = zone.memalloc(&token);
        assert!(zone.entitled(Gfp::KERNEL) && !zone.entitled(Gfp::NOMEMALLOC));
        let irq = task.interrupt();
        assert!(
            !zone.entitled(Gfp::KERNEL),
            "an interrupt inherited the scope"
        );
        drop(irq);
        let softirq = zone.softirq();
        assert!(!zone.entitled(Gfp::KERNEL), "a softirq inherited the scope");
        drop(zone.memalloc(&token));
        drop(softirq);
        assert!(zone.entitled(Gfp::KERNEL), "the scope was not put back");
        drop(scope);
        assert!(!zone.entitled(Gfp::KERNEL), "the scope did not end");
    });
}

/// M5, M6.
fn reserve_tree(memory: Memory<'_>, rounds: u32) {
    with_zone(memory, MARKS, |zone, _| {
        let root = <ReserveNode<'_>>::root("total", zone);
        let (net, rx) = (ReserveNode::new("network"), ReserveNode::new("rx"));
        rx.set_limit(100, 3).unwrap();
        rx.connect(&net).unwrap();
        assert_eq!(rx.charge(1).unwrap_err(), ChargeError::Unbacked);
        net.connect(&root).unwrap();
        assert_eq!((root.pages(), zone.stats().reserve), (3, 3));
        let beyond = rx.set_limit(100, FRAMES);
        assert!(matches!(beyond, Err(ReserveError::Backing(_))));
        assert_eq!((root.pages(), rx.limit()), (3, 100), "it changed something");

        let mut charges = [const { None }; 8];
        let (mut numbers, mut sum) = (Numbers(88172645), 0);
        for _ in 0..rounds {
            let (slot, units) = (numbers.below(8), 1 + numbers.below(40));
            if let Some(charge) = charges[slot].take() {
                let units = mempool::Charge::units(&charge);
                drop(charge);
                sum -= units;
            } else {
                let charge = rx.charge(units).ok();
                assert_eq!(charge.is_some(), sum + units <= 100);
                sum += charge.as_ref().map_or(0, |_| units);
                charges[slot] = charge;
            }
            assert!(rx.usage() == sum && rx.peak() <= 100 && net.usage() == 0);
        }
        charges.fill_with(|| None);
        let rows = root.walk().map(|(depth, node)| (depth, node.name));
        assert!(rows.eq([(0, "total"), (1, "network"), (2, "rx")]));
        assert!(rx.stats().failures > 0 && rx.usage() == 0);
        net.disconnect().unwrap();
        assert_eq!(zone.stats().reserve, 0);
    });
}

/// M4, and that no two owners share a byte.
fn slab(memory: Memory<'_>, rounds: u32) {
    with_zone(memory, MARKS, |zone, _| {
        const SIZE: usize = (FRAME_SIZE - SLAB_HEADER) / 4;
        let root = <ReserveNode<'_>>::root("total", zone);
        root.set_limit(1, 4).unwrap();
        let token = zone.claim_memalloc().unwrap();
        let cache = <SizedCache<'_>>::new("objects", zone, SIZE, 0).unwrap();
        let mut held: [Option<Buffer<'_>>; 4 * FRAMES] = [const { None }; 4 * FRAMES];
        let mut numbers = Numbers(1234567);
        let mut dipped = 0;
        for _ in 0..rounds {
            let slot = numbers.below(4 * FRAMES);
            match held[slot].take() {
                // More often taken than given back, so that memory is short.
                Some(buffer) if numbers.below(3) == 0 => check(&buffer, slot),
                Some(buffer) => held[slot] = Some(buffer),
                None => {
                    let entitled = numbers.below(2) == 0;
                    let gfp = if entitled {
                        token.gfp(Gfp::ATOMIC)
                    } else {
                        Gfp::ATOMIC
                    };
                    let Ok(mut buffer) = cache.alloc(gfp) else {
                        continue;
                    };
                    assert!(
                        entitled || !buffer.from_reserve(),
                        "reserve memory for anybody"
                    );
                    dipped += u32::from(buffer.from_reserve());
                    assert_eq!(buffer.len(), SIZE);
                    mark(&mut buffer, slot);
                    held[slot] = Some(buffer);
                }
            }
        }
        assert!(dipped > 0, "memory was never short");
        held.fill_with(|| None);
        assert_eq!(
            zone.stats().reserve_in_use,
            0,
            "the reserve is whole at once"
        );
        cache.shrink();
        root.set_limit(0, 0).unwrap();
    });
}

/// M6: a guaranteed minimum.
fn pool(memory: Memory<'_>, rounds: u32) {
    with_zone(memory, MARKS, |zone, _| {
        let mut slots = [const { None }; 2];
        let pool: Pool<'_, '_, Zone<'_>> = Pool::new("requests", zone, &mut slots);
        pool.fill(Gfp::KERNEL).unwrap();
        let mut hog: [Option<Frame<'_>>; FRAMES] = [const { None }; FRAMES];
        hog.fill_with(|| zone.alloc(0, Gfp::ATOMIC).ok());
        for _ in 0..rounds.min(1000) {
            let (one, two) = (pool.alloc(Gfp::ATOMIC), pool.alloc(Gfp::ATOMIC));
            assert!(one.is_ok() && two.is_ok(), "it gets on");
            assert!(matches!(pool.alloc(Gfp::ATOMIC), Err(PoolError::Empty)));
        }
        assert_eq!(pool.stats().available, 2);
        hog.fill_with(|| None);
    });
}

fn size_classes(memory: Memory<'_>, rounds: u32) {
    with_zone(memory, Watermarks::default(), |zone, _| {
        let classes = <SizeClasses<'_>>::new(zone);
        let mut held: [Option<Block<'_>>; FRAMES] = [const { None }; FRAMES];
        let mut numbers = Numbers(362436069);
        for _ in 0..rounds {
            let slot = numbers.below(FRAMES);
            if let Some(block) = held[slot].take() {
                check(&block, slot);
                continue;
            }
            // Of any size, small ones more often.
            let most = 1 << (1 + numbers.below(10));
            let bytes = 1 + numbers.below(most);
            if let Ok(mut block) = classes.alloc(bytes, Gfp::KERNEL) {
                assert_eq!(block.len(), bytes);
                mark(&mut block, slot);
                held[slot] = Some(block);
            }
        }
        held.fill_with(|| None);
        classes.shrink();
    });
}

fn heap(memory: Memory<'_>, rounds: u32) {
    with_zone(memory, Watermarks::default(), |zone, _| {
        // SAFETY: the heap, which alone keeps it, ends before the zone does.
        let zone: &'static Zone<'static> = unsafe { &*core::ptr::from_ref(zone).cast() };
        let heap: Heap = Heap::new();
        let mut held: [Option<(*mut u8, Layout)>; FRAMES] = [None; FRAMES];
        let layout = |size| Layout::from_size_align(size, 8).unwrap();
        // SAFETY: a layout of a size that is not 0.
        let early = unsafe { heap.alloc(layout(8)) };
        assert!(early.is_null(), "memory out of nowhere");
        heap.init(zone).unwrap();
        let mut numbers = Numbers(521288629);
        for _ in 0..rounds {
            let slot = numbers.below(FRAMES);
            let size = 1 + numbers.below(FRAME_SIZE / 2);
            let (block, layout) = match held[slot].take() {
                None => {
                    // SAFETY: a layout of a size that is not 0.
                    (unsafe { heap.alloc(layout(size)) }, layout(size))
                }
                Some((block, old)) => {
                    // SAFETY: a block of that layout, ours alone until it is freed just below.
                    check(unsafe { core::slice::from_raw_parts(block, 1) }, slot);
                    if numbers.below(2) == 0 {
                        // SAFETY: as above; nobody uses it any more.
                        unsafe { heap.dealloc(block, old) };
                        continue;
                    }
                    // SAFETY: as above, and a size that is not 0.
                    match unsafe { heap.realloc(block, old, size) } {
                        null if null.is_null() => (block, old),
                        moved => (moved, layout(size)),
                    }
                }
            };
            if block.is_null() {
                continue;
            }
            assert_eq!(block as usize % 8, 0);
            // SAFETY: a block of that many bytes, ours alone; the heap zeroes what it frees.
            let bytes = unsafe { core::slice::from_raw_parts_mut(block, layout.size()) };
            mark(bytes, slot);
            held[slot] = Some((block, layout));
        }
        for (block, layout) in held.into_iter().flatten() {
            // SAFETY: blocks of these layouts, and nobody uses them any more.
            unsafe { heap.dealloc(block, layout) };
        }
        heap.classes().expect("it was given memory").shrink();
    });
}
