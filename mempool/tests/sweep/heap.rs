//! The heap: a null pointer and nothing else comes of an allocation that fails.

use core::alloc::{GlobalAlloc, Layout};
use core::ptr::NonNull;

use mempool::{FRAME_SIZE, Heap, SizeClasses};

use crate::inject::{Run, sweep};
use crate::machine::{leak, machine};

fn layout(size: usize, align: usize) -> Layout {
    Layout::from_size_align(size, align).unwrap()
}

/// A block, its layout, and the byte that fills it.
type Held = (NonNull<u8>, Layout, u8);

#[test]
fn a_heap_loses_no_block_whichever_growth_fails() {
    let m = machine(256);
    let heap: &'static Heap = leak(Heap::new());
    m.injector.aside(|| heap.init(m.frames).unwrap());
    let free = |(block, layout, byte): Held| {
        // SAFETY: the heap gave it out with that layout, and all of it was written.
        unsafe {
            let bytes = core::slice::from_raw_parts(block.as_ptr(), layout.size());
            assert!(bytes.iter().all(|b| *b == byte), "somebody else wrote here");
            heap.dealloc(block.as_ptr(), layout);
        }
    };
    let scenario = |run: &Run<'_>| {
        let mut held: Vec<Held> = Vec::new();
        let alloc = |size, align| {
            let layout = layout(size, align);
            // SAFETY: not of size 0.
            let block = run.need(NonNull::new(unsafe { heap.alloc(layout) }).ok_or("null"))?;
            // SAFETY: the block is that long.
            unsafe { block.write_bytes(size as u8, size) };
            Some((block, layout, size as u8))
        };
        let sizes = [1, 24, 100, 700, 2000, 4000, FRAME_SIZE, 3 * FRAME_SIZE];
        run.step("ordinary");
        held.extend(sizes.into_iter().filter_map(|size| alloc(size, 8)));
        held.extend(alloc(100, 1024));
        run.step("grown by realloc");
        if let Some((block, old, byte)) = held.pop() {
            let new = layout(2 * FRAME_SIZE, old.align());
            // SAFETY: of that layout, and the new size is not 0.
            let moved = unsafe { heap.realloc(block.as_ptr(), old, new.size()) };
            held.push(match run.need(NonNull::new(moved).ok_or("null")) {
                Some(moved) => {
                    // SAFETY: the block is that long now.
                    unsafe { moved.write_bytes(byte, new.size()) };
                    (moved, new, byte)
                }
                // The old one is untouched, and is checked when it is freed.
                None => (block, old, byte),
            });
        }
        let hog = m.exhaust();
        run.step("entitled, in want");
        let scope = m.zone.memalloc(&m.token);
        for size in [24, 700, 4000, FRAME_SIZE, 2 * FRAME_SIZE, FRAME_SIZE] {
            held.extend(alloc(size, 16));
        }
        drop(scope);
        held.into_iter().rev().for_each(free);
        drop(hog);
        let classes = heap.classes().unwrap();
        classes.shrink();
        for class in 0..SizeClasses::COUNT {
            let stats = classes.stats(class);
            assert_eq!((stats.in_use, stats.slabs, stats.reserve_slabs), (0, 0, 0));
        }
    };
    sweep("heap", m.injector, scenario, || m.at_rest());
}
