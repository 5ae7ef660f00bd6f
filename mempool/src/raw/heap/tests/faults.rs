//! Faults of whoever uses a heap: what is freed twice, or not its own, is found and named.

use core::panic::AssertUnwindSafe;
use std::string::String;

use super::*;

/// What the heap says to a block that is freed. It does not unwind through `GlobalAlloc`, so this is
/// asked one level below.
fn refusal(b: &Bench, block: NonNull<u8>, layout: Layout) -> String {
    let inner = b.heap.inner().unwrap();
    let freed = std::panic::catch_unwind(AssertUnwindSafe(|| {
        // SAFETY: not at all: that is what is to be found.
        unsafe { inner.dealloc(block, layout) };
    }));
    *freed.expect_err("the heap takes it").downcast().unwrap()
}

#[test]
fn a_block_that_is_freed_twice_in_a_row_is_found() {
    let b = bench(64, 0);
    let of = layout(40, 1);
    let _other = b.alloc(of).unwrap();
    let block = b.alloc(of).unwrap();
    b.free(block, of);
    let message = refusal(&b, block, of);
    let twice = "slab cache `size class` of 48 bytes: object 1 was freed twice";
    assert_eq!(message, twice);
    assert!(b.alloc(of).is_some(), "no lock is held");
}

#[test]
fn a_block_that_is_freed_when_its_slab_is_gone_is_found() {
    let b = bench(64, 0);
    let of = layout(SizeClasses::LARGEST, 1);
    let (kept, block) = (b.alloc(of).unwrap(), b.alloc(of).unwrap());
    b.free(kept, of);
    b.free(block, of);
    assert!(refusal(&b, block, of).contains("not in one of its slabs"));
}

#[test]
fn a_block_of_another_heap_is_found() {
    let (b, other) = (bench(64, 0), bench(64, 0));
    let of = layout(40, 1);
    let block = other.alloc(of).unwrap();
    assert!(refusal(&b, block, of).contains("not in one of its slabs"));
    other.free(block, of);
}

#[test]
fn a_block_of_another_class_is_found() {
    let b = bench(64, 0);
    let block = b.alloc(layout(40, 1)).unwrap();
    assert!(refusal(&b, block, layout(20, 1)).contains("not in one of its slabs"));
    b.free(block, layout(40, 1));
}

#[cfg(feature = "slab-debug")]
mod debug {
    use super::*;

    #[test]
    fn any_block_that_is_freed_twice_is_found() {
        let b = bench(64, 0);
        let of = layout(20, 4);
        let blocks: Vec<_> = (0..10).map(|_| b.alloc(of).unwrap()).collect();
        for block in &blocks[..5] {
            b.free(*block, of);
        }
        for (index, block) in blocks[..5].iter().enumerate() {
            let message = refusal(&b, *block, of);
            assert!(
                message.ends_with(&std::format!("object {index} was freed twice")),
                "{message}"
            );
        }
    }

    #[test]
    fn who_writes_past_the_end_of_a_block_is_found() {
        for (size, align, past) in [(40, 1, 40), (40, 1, 47), (17, 16, 20), (100, 16, 101)] {
            let b = bench(64, 0);
            let of = layout(size, align);
            let (_other, block) = (b.alloc(of).unwrap(), b.alloc(of).unwrap());
            // SAFETY: inside the object, if not inside the block.
            unsafe { block.add(past).write(0) };
            let message = refusal(&b, block, of);
            let end = std::format!("past the end of object 1, at byte {past}");
            assert!(message.ends_with(&end), "{message}");
        }
    }

    #[test]
    fn the_red_zone_follows_a_block_that_changes_its_size_in_place() {
        let b = bench(64, 0);
        let block = b.alloc(layout(40, 1)).unwrap();
        let resize = |from, to| {
            // SAFETY: the block is the test's, and has that layout.
            let moved = unsafe { b.heap.realloc(block.as_ptr(), layout(from, 1), to) };
            assert_eq!(moved, block.as_ptr(), "in place");
        };
        // SAFETY: so long it is just then.
        let fill = |size| unsafe { block.write_bytes(9, size) };
        fill(40);
        resize(40, 46);
        fill(46);
        resize(46, 43);
        fill(43);
        b.free(block, layout(43, 1));
        let block = b.alloc(layout(40, 1)).unwrap();
        assert!(refusal(&b, block, layout(36, 1)).contains("past the end"));
    }

    #[test]
    fn who_writes_past_the_end_of_an_owned_block_is_found() {
        let b = bench(64, 0);
        let classes = b.heap.classes().unwrap();
        let mut block = classes.alloc(20, Gfp::KERNEL).unwrap();
        let start = block.as_mut_ptr();
        // SAFETY: inside the object, if not inside the block.
        unsafe { start.add(20).write(0) };
        let freed = std::panic::catch_unwind(AssertUnwindSafe(|| drop(block)));
        let message: String = *freed.unwrap_err().downcast().unwrap();
        assert!(
            message.contains("past the end of object 0, at byte 20"),
            "{message}"
        );
        drop(classes.alloc(20, Gfp::KERNEL).unwrap());
    }
}
