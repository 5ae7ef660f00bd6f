use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use core::slice;

use super::*;
use crate::testbed::{Machine, machine};
use crate::{
    Buddy, Frame, FrameEntry, FrameSource, Level, MemallocToken, ReserveBacking, SingleTask,
    Watermarks, Zone,
};

mod faults;
mod model;

struct Bench {
    machine: &'static Machine,
    heap: Heap,
    token: MemallocToken,
}

fn bench(frames: usize, reserve: usize) -> Bench {
    let machine: &'static Machine = Box::leak(Box::new(machine(frames)));
    machine.zone.grow(reserve).unwrap();
    let heap = Heap::new();
    heap.init(&machine.zone).unwrap();
    Bench {
        machine,
        heap,
        token: machine.zone.claim_memalloc().unwrap(),
    }
}

impl Bench {
    fn alloc(&self, layout: Layout) -> Option<NonNull<u8>> {
        assert!(layout.size() > 0);
        // SAFETY: not of size 0.
        NonNull::new(unsafe { self.heap.alloc(layout) })
    }

    /// Every block of that layout that can be had.
    fn drain(&self, layout: Layout) -> Vec<NonNull<u8>> {
        core::iter::from_fn(|| self.alloc(layout)).collect()
    }

    fn entitled<T>(&self, f: impl FnOnce() -> T) -> T {
        let _scope = self.machine.zone.memalloc(&self.token);
        f()
    }

    fn free(&self, block: NonNull<u8>, layout: Layout) {
        // SAFETY: the tests free what they allocated, with its layout, once.
        unsafe { self.heap.dealloc(block.as_ptr(), layout) }
    }

    fn reserve_objects(&self) -> usize {
        let classes = self.heap.classes().unwrap();
        let objects = |class| classes.stats(class).reserve_objects;
        (0..SizeClasses::COUNT).map(objects).sum()
    }
}

fn layout(size: usize, align: usize) -> Layout {
    Layout::from_size_align(size, align).unwrap()
}

fn holds(block: NonNull<u8>, bytes: usize, byte: u8) -> bool {
    // SAFETY: the tests ask of blocks that they hold and have filled.
    let bytes = unsafe { slice::from_raw_parts(block.as_ptr(), bytes) };
    bytes.iter().all(|b| *b == byte)
}

#[test]
fn without_memory_every_allocation_fails() {
    let heap = <Heap>::new();
    // SAFETY: not of size 0.
    assert!(unsafe { heap.alloc(layout(1, 1)) }.is_null());
    // SAFETY: as above.
    assert!(unsafe { heap.alloc_zeroed(layout(FRAME_SIZE, 1)) }.is_null());
    assert!(heap.classes().is_none());
}

#[test]
fn memory_is_given_once() {
    let b = bench(32, 0);
    let other: &'static Machine = Box::leak(Box::new(machine(16)));
    let block = b.alloc(layout(100, 4)).unwrap();
    let again = b.heap.init(&other.zone);
    assert_eq!(again, Err(HeapError::AlreadyInitialised));
    b.free(block, layout(100, 4));
    assert_eq!(b.heap.classes().unwrap().shrink(), 1, "the same heap");
    assert_eq!(
        (b.machine.zone.stats().free, other.zone.stats().free),
        (32, 16)
    );
}

/// Frames that begin 64 bytes behind a frame boundary: all that a source promises.
struct Skewed(Mutex<CriticalSection, Vec<NonNull<u8>>>);

// SAFETY: the addresses are of memory that is handed out as owned frames.
unsafe impl Sync for Skewed {}

// SAFETY: leaked, initialised memory; an address is in the list or handed out.
unsafe impl FrameSource for Skewed {
    fn alloc(&self, order: u8) -> Option<RawFrame> {
        assert_eq!(order, 0);
        self.0.lock().pop().map(|start| RawFrame::new(start, 0))
    }
    unsafe fn free(&self, frame: RawFrame) {
        self.0.lock().push(frame.start());
    }
    fn total(&self) -> usize {
        4
    }
    fn free_frames(&self) -> usize {
        self.0.lock().len()
    }
    fn max_order(&self) -> u8 {
        0
    }
}

#[test]
fn frames_that_are_not_aligned_are_refused() {
    let memory = vec![0u8; 6 * FRAME_SIZE].leak();
    let skip = memory.as_ptr().align_offset(FRAME_SIZE) + 64;
    let frames = memory[skip..].chunks_exact_mut(FRAME_SIZE).take(4);
    let frames = frames.map(|frame| NonNull::from(frame).cast()).collect();
    let source: &'static Skewed = Box::leak(Box::new(Skewed(Mutex::new(frames))));
    let task: &'static SingleTask = Box::leak(Box::new(SingleTask::new()));
    let zone: &'static Zone<'_> = Box::leak(Box::new(
        Zone::new(source, task, Watermarks::default()).unwrap(),
    ));

    let heap = <Heap>::new();
    assert_eq!(heap.init(zone), Err(HeapError::Misaligned));
    assert!(heap.classes().is_none());
    let sizes = <SizeClasses<'_>>::new(zone);
    let refused = sizes.alloc(100, Gfp::KERNEL).unwrap_err();
    assert_eq!(refused, AllocError::Misaligned);

    // Nothing could be probed, and nothing is given out either.
    let hog: Vec<_> = core::iter::from_fn(|| zone.alloc(0, Gfp::KERNEL).ok()).collect();
    assert_eq!(heap.init(zone), Ok(()));
    drop(hog);
    for layout in [layout(100, 4), layout(FRAME_SIZE, FRAME_SIZE)] {
        // SAFETY: not of size 0.
        assert!(unsafe { heap.alloc(layout) }.is_null());
    }
    assert_eq!(zone.stats().free, 4);
}

#[test]
fn every_alignment_is_kept() {
    let memory = vec![0u8; (64 + 8) * FRAME_SIZE].leak();
    let skip = memory.as_ptr().align_offset(8 * FRAME_SIZE);
    let memory = &mut memory[skip..][..64 * FRAME_SIZE];
    let table = vec![FrameEntry::EMPTY; 64].leak();
    let source: &'static Buddy<'_> = Box::leak(Box::new(Buddy::new(memory, table).unwrap()));
    let task: &'static SingleTask = Box::leak(Box::new(SingleTask::new()));
    let marks = Watermarks::default();
    let zone: &'static Zone<'_> = Box::leak(Box::new(Zone::new(source, task, marks).unwrap()));
    let heap = <Heap>::new();
    heap.init(zone).unwrap();

    for align in (0..=FRAME_SIZE.ilog2() + 3).map(|n| 1 << n) {
        for size in [
            1,
            24,
            100,
            align,
            FRAME_SIZE / 2,
            FRAME_SIZE - 64,
            3 * FRAME_SIZE,
        ] {
            let layout = layout(size, align);
            // Two at a time, so that not every one is the first of its slab.
            // SAFETY: not of size 0.
            let blocks = [(); 2].map(|()| unsafe { heap.alloc(layout) });
            for block in blocks {
                assert!(!block.is_null() && block.addr() % align == 0, "{layout:?}");
                // SAFETY: allocated just now, with that layout, and freed once.
                unsafe {
                    block.write_bytes(0xff, size);
                    heap.dealloc(block, layout);
                }
            }
        }
    }
    heap.classes().unwrap().shrink();
    assert_eq!(zone.stats().free, 64);
}

#[test]
fn an_alignment_beyond_that_of_the_source_is_refused() {
    // The arena begins one frame behind a boundary of two: no pair of frames is aligned.
    let memory = vec![0u8; 20 * FRAME_SIZE].leak();
    let skip = memory.as_ptr().align_offset(2 * FRAME_SIZE) + FRAME_SIZE;
    let table = vec![FrameEntry::EMPTY; 16].leak();
    let source: &'static Buddy<'_> = Box::leak(Box::new(
        Buddy::new(&mut memory[skip..][..16 * FRAME_SIZE], table).unwrap(),
    ));
    let task: &'static SingleTask = Box::leak(Box::new(SingleTask::new()));
    let marks = Watermarks::default();
    let zone: &'static Zone<'_> = Box::leak(Box::new(Zone::new(source, task, marks).unwrap()));
    let heap = <Heap>::new();
    heap.init(zone).unwrap();
    // SAFETY: not of size 0.
    assert!(unsafe { heap.alloc(layout(8, 2 * FRAME_SIZE)) }.is_null());
    assert_eq!(zone.stats().free, 16);
}

#[test]
fn m1_a_scope_goes_on_where_everybody_else_gets_null() {
    let b = bench(128, 48);
    let layouts = [
        layout(64, 8),
        layout(2000, 16),
        layout(FRAME_SIZE, FRAME_SIZE),
    ];
    let held = layouts.map(|layout| b.drain(layout));
    for layout in layouts {
        assert!(b.alloc(layout).is_none());
        let emergency = b.entitled(|| [(); 4].map(|()| b.alloc(layout).unwrap()));
        assert!(b.machine.zone.stats().reserve_in_use > 0);
        assert!(b.alloc(layout).is_none(), "M4: not for an ordinary caller");
        let irq = b.machine.task.interrupt();
        assert!(
            b.entitled(|| b.alloc(layout)).is_none(),
            "M1: nor for an interrupt"
        );
        drop(irq);
        // Freed by an ordinary caller: it goes back to the reserve.
        emergency
            .into_iter()
            .for_each(|block| b.free(block, layout));
        assert_eq!(b.machine.zone.stats().reserve_in_use, 0, "{layout:?}");
        assert!(b.alloc(layout).is_none());
    }
    for (held, layout) in held.into_iter().zip(layouts) {
        held.into_iter().for_each(|block| b.free(block, layout));
    }
    b.heap.classes().unwrap().shrink();
    assert_eq!(b.machine.zone.stats().free, 128);
}

#[test]
fn m3_whole_frames_keep_their_tag_among_others() {
    let b = bench(128, 64);
    let page = layout(FRAME_SIZE, FRAME_SIZE);
    let ordinary = b.drain(page);
    let mut emergency = b.entitled(|| b.drain(page));
    assert!(emergency.len() > 50 && b.machine.zone.stats().free == 0);
    let in_use = b.machine.zone.stats().reserve_in_use;
    for block in &ordinary[1..] {
        b.free(*block, page);
    }
    assert_eq!(b.machine.zone.stats().reserve_in_use, in_use);
    // In an order of their own.
    emergency.rotate_left(7);
    for (n, block) in emergency.into_iter().enumerate() {
        b.free(block, page);
        assert!(b.machine.zone.stats().reserve_in_use < in_use - n);
    }
    assert_eq!(b.machine.zone.stats().reserve_in_use, 0);
    b.free(ordinary[0], page);
    b.heap.classes().unwrap().shrink();
    assert_eq!(b.machine.zone.stats().free, 128);
}

#[test]
fn frames_of_several_zones_go_home() {
    struct Both([Zone<'static>; 2]);
    impl FrameAllocator for Both {
        fn alloc(&self, order: u8, gfp: Gfp) -> Result<Frame<'_>, AllocError> {
            let [near, far] = &self.0;
            near.alloc(order, gfp).or_else(|_| far.alloc(order, gfp))
        }
        fn entitled(&self, gfp: Gfp) -> bool {
            FrameAllocator::entitled(&self.0[0], gfp)
        }
        fn level(&self) -> Level {
            self.0[0].level()
        }
    }
    let both: &'static Both = Box::leak(Box::new(Both([16, 32].map(|n| machine(n).zone))));
    let heap = <Heap>::new();
    heap.init(both).unwrap();
    let layout = layout(FRAME_SIZE, 8);
    // SAFETY: not of size 0.
    let alloc = || NonNull::new(unsafe { heap.alloc(layout) });
    let blocks: Vec<_> = core::iter::from_fn(alloc).collect();
    assert!(both.0.iter().all(|zone| zone.stats().free < 8));
    for block in blocks {
        // SAFETY: allocated above, freed once.
        unsafe { heap.dealloc(block.as_ptr(), layout) };
    }
    heap.classes().unwrap().shrink();
    assert_eq!(both.0.each_ref().map(|zone| zone.stats().free), [16, 32]);
}

#[test]
fn realloc_stays_in_place_within_a_class_and_moves_its_bytes_beyond() {
    let b = bench(64, 0);
    let realloc = |block: NonNull<u8>, old, size| {
        // SAFETY: the block and layout of the step before.
        NonNull::new(unsafe { b.heap.realloc(block.as_ptr(), old, size) }).unwrap()
    };
    let small = b.alloc(layout(50, 4)).unwrap();
    // SAFETY: ours, and that long.
    unsafe { small.write_bytes(0x5a, 50) };
    let same = realloc(small, layout(50, 4), 64);
    assert_eq!(same, small);
    let moved = realloc(same, layout(64, 4), 65);
    assert_ne!(moved, small);
    let frames = realloc(moved, layout(65, 4), 3 * FRAME_SIZE);
    assert_eq!(
        realloc(frames, layout(3 * FRAME_SIZE, 4), 4 * FRAME_SIZE),
        frames
    );
    assert!(holds(frames, 50, 0x5a));
    let back = realloc(frames, layout(4 * FRAME_SIZE, 4), 7);
    assert!(holds(back, 7, 0x5a));
    b.free(back, layout(7, 4));
    b.heap.classes().unwrap().shrink();
    assert_eq!(b.machine.zone.stats().free, 64);
}

#[test]
fn a_realloc_that_fails_leaves_the_block_alone() {
    let b = bench(32, 0);
    let (small, large) = (layout(16, 1), layout(FRAME_SIZE, 1));
    let block = b.alloc(small).unwrap();
    // SAFETY: ours, and that long.
    unsafe { block.write_bytes(7, 16) };
    let hog = b.drain(large);
    // SAFETY: the block and its layout.
    let moved = unsafe { b.heap.realloc(block.as_ptr(), small, FRAME_SIZE) };
    assert!(moved.is_null());
    assert!(holds(block, 16, 7));
    b.free(block, small);
    hog.into_iter().for_each(|block| b.free(block, large));
}

/// A free object has the address of the next one in front, in which any byte may be.
const LINK: usize = size_of::<usize>();

#[test]
fn freed_bytes_are_zeroed() {
    let b = bench(32, 0);
    for layout in [layout(500, 4), layout(FRAME_SIZE, 4)] {
        let block = b.alloc(layout).unwrap();
        // SAFETY: ours, and that long.
        unsafe { block.write_bytes(0xee, layout.size()) };
        b.free(block, layout);
        let next = b.heap.classes().unwrap();
        let next = next.alloc(layout.size(), Gfp::KERNEL).unwrap();
        assert_eq!(next.as_ptr(), block.as_ptr(), "the same memory");
        assert!(!next[LINK..].contains(&0xee));
    }
}

#[test]
fn bytes_that_are_cut_off_in_place_are_zeroed_too() {
    let b = bench(32, 0);
    for (large, small) in [(FRAME_SIZE - 64, FRAME_SIZE / 2 + 1), (48, 33)] {
        let large = layout(large, 4);
        let block = b.alloc(large).unwrap();
        // SAFETY: ours, and that long.
        unsafe { block.write_bytes(0xee, large.size()) };
        // SAFETY: ours, of that layout.
        let same = unsafe { b.heap.realloc(block.as_ptr(), large, small) };
        assert_eq!(same, block.as_ptr(), "in place");
        assert!(holds(block, small, 0xee));
        b.free(block, layout(small, 4));
        let next = b.heap.classes().unwrap();
        let next = next.alloc(large.size(), Gfp::KERNEL).unwrap();
        assert_eq!(next.as_ptr(), block.as_ptr(), "the same memory");
        assert!(!next[LINK..].contains(&0xee));
    }
}

#[test]
fn a_heap_that_ends_leaves_nothing_behind() {
    let b = bench(32, 0);
    b.free(b.alloc(layout(10, 1)).unwrap(), layout(10, 1));
    assert_eq!(b.machine.zone.stats().free, 31, "a slab is kept");
    drop(b.heap);
    assert_eq!(b.machine.zone.stats().free, 32);
}

/// Runs itself again, in a process that must not survive.
#[test]
fn a_panic_below_never_unwinds_through_the_heap() {
    /// Works until the heap has it.
    struct Broken(AtomicBool);
    static BROKEN: Broken = Broken(AtomicBool::new(false));
    impl FrameAllocator for Broken {
        fn alloc(&self, _: u8, _: Gfp) -> Result<Frame<'_>, AllocError> {
            assert!(!self.0.load(Ordering::Relaxed), "broken");
            Err(AllocError::Exhausted)
        }
        fn entitled(&self, _: Gfp) -> bool {
            false
        }
        fn level(&self) -> Level {
            unimplemented!()
        }
    }
    if std::env::var_os("MEMPOOL_TEST_UNWIND").is_some() {
        let heap = <Heap>::new();
        heap.init(&BROKEN).unwrap();
        BROKEN.0.store(true, Ordering::Relaxed);
        let alloc = core::panic::AssertUnwindSafe(|| {
            // SAFETY: not of size 0.
            unsafe { heap.alloc(layout(1, 1)) };
        });
        assert!(std::panic::catch_unwind(alloc).is_err());
        return; // And so the process survives.
    }
    let child = std::process::Command::new(std::env::current_exe().unwrap())
        .args([
            "--nocapture",
            "--exact",
            std::thread::current().name().unwrap(),
        ])
        .env("MEMPOOL_TEST_UNWIND", "1")
        .output()
        .unwrap();
    let errors = alloc::string::String::from_utf8_lossy(&child.stderr).into_owned();
    assert!(
        !child.status.success() && errors.contains("a panic in the heap"),
        "{errors}"
    );
}
