use core::ptr;

use super::*;
use crate::testbed::machine;
use crate::{Gfp, SLAB_RED_ZONE, objects_per_slab};

const SIZE: usize = 16;

/// A cache's slabs, with one slab.
fn slabs(m: &crate::testbed::Machine) -> Slabs<'_> {
    let per_slab = objects_per_slab(SIZE, 0) as u32;
    let shape = Shape::new(SLAB_HEADER, SIZE, SIZE + SLAB_RED_ZONE, per_slab);
    let mut slabs = Slabs::new(shape);
    slabs.grow(m.zone.alloc(0, Gfp::KERNEL).unwrap());
    slabs
}

fn copy(object: &SlabObject) -> SlabObject {
    // SAFETY: for tests of what happens to who has two.
    unsafe { ptr::read(object) }
}

/// Objects out of the one slab, which has a free one.
fn out(slabs: &Slabs<'_>) -> u32 {
    let slab = slabs.partial[0].head.expect("it has a free object");
    // SAFETY: slabs on a list are alive.
    unsafe { slab.as_ref() }.in_use
}

fn give(slabs: &mut Slabs<'_>, mut object: SlabObject) -> Result<(), Fault> {
    object.freed(&slabs.shape)?;
    let object = slabs.may_go_back(object)?;
    slabs.push_any(object);
    Ok(())
}

#[test]
fn an_object_that_is_freed_twice_in_a_row_is_found() {
    let m = machine(16);
    let mut slabs = slabs(&m);
    let _other = slabs.pop(false).unwrap();
    let object = slabs.pop(false).unwrap();
    let again = copy(&object);
    give(&mut slabs, object).unwrap();
    let found = slabs.may_go_back(again).err();
    assert_eq!(found, Some(Fault::DoubleFree { index: 1 }));
    assert_eq!(out(&slabs), 1, "nothing has changed");
}

#[test]
fn an_object_is_not_freed_into_a_slab_of_which_nothing_is_out() {
    let m = machine(16);
    let mut slabs = slabs(&m);
    let (first, second) = (slabs.pop(false).unwrap(), slabs.pop(false).unwrap());
    let again = copy(&first);
    give(&mut slabs, first).unwrap();
    give(&mut slabs, second).unwrap();
    let found = slabs.may_go_back(again).err();
    assert_eq!(found, Some(Fault::DoubleFree { index: 0 }));
}

#[test]
fn an_object_of_another_cache_is_found() {
    let (m, n) = (machine(16), machine(16));
    let (mut one, mut two) = (slabs(&m), slabs(&n));
    let object = one.pop(false).unwrap();
    let again = copy(&object);
    assert_eq!(two.may_go_back(object).err(), Some(Fault::Foreign));
    assert_eq!(out(&two), 0);
    give(&mut one, again).unwrap();
    let _all = one.shrink().unwrap();
}

#[test]
fn an_address_is_an_object_only_where_one_lies() {
    let m = machine(16);
    let mut slabs = slabs(&m);
    let object = slabs.pop(false).unwrap();
    let (start, slab) = (object.start(), object.slab());
    let at = |address, number| {
        // SAFETY: addresses in a slab that is alive; what comes back is not used.
        unsafe { object_at(address, slab, &slabs.shape, number) }.map(|object| object.start())
    };
    assert_eq!(at(start, slabs.number), Ok(start));
    // SAFETY: inside the object.
    let inside = unsafe { start.add(SIZE - 1) };
    assert_eq!(at(inside, slabs.number), Ok(start));
    assert_eq!(at(slab, slabs.number), Err(Fault::NotAnObject), "a header");
    assert_eq!(at(start, slabs.number + 1), Err(Fault::Foreign));
}

#[test]
fn a_fault_tells_the_cache_and_the_object() {
    let stopped = std::panic::catch_unwind(|| Fault::DoubleFree { index: 7 }.report("route", 48));
    let message = *stopped
        .unwrap_err()
        .downcast::<std::string::String>()
        .unwrap();
    assert_eq!(
        message,
        "slab cache `route` of 48 bytes: object 7 was freed twice"
    );
}

/// For tests above: writes to a byte of a buffer, whose ever it is then.
#[cfg(feature = "slab-debug")]
pub(crate) fn writer(buffer: &mut crate::Buffer<'_>) -> impl Fn(usize) + use<> {
    let start = buffer.as_mut_ptr();
    // SAFETY: inside the slab, which is alive, though not the caller's: that is what is to be found.
    move |byte| unsafe { start.add(byte).write(0x55) }
}

#[cfg(feature = "slab-debug")]
mod debug {
    use super::*;

    /// Writes where nobody may.
    fn write(object: &SlabObject, byte: usize) {
        // SAFETY: inside the slab, though not the caller's: that is what is to be found.
        unsafe { object.start().add(byte).write(0x55) };
    }

    #[test]
    fn any_object_that_is_freed_twice_is_found() {
        let m = machine(16);
        let mut slabs = slabs(&m);
        let all = [(); 4].map(|()| slabs.pop(false).unwrap());
        let copies = all.each_ref().map(copy);
        let [a, b, c, _d] = all;
        for object in [a, b, c] {
            give(&mut slabs, object).unwrap();
        }
        let [again, ..] = copies;
        let found = slabs.may_go_back(again).err();
        assert_eq!(found, Some(Fault::DoubleFree { index: 0 }));
    }

    #[test]
    fn whoever_writes_to_a_free_object_is_found_when_it_is_next_taken() {
        for byte in [0, 3, 8, SIZE - 1] {
            let m = machine(16);
            let mut slabs = slabs(&m);
            let _kept = slabs.pop(false).unwrap();
            let object = slabs.pop(false).unwrap();
            let stale = copy(&object);
            give(&mut slabs, object).unwrap();
            write(&stale, byte);
            let mut next = slabs.pop(false).unwrap();
            match next.taken(&slabs.shape) {
                Err(Fault::WrittenAfterFree { index: 1, byte: at }) => {
                    // A link that cannot be one is seen as a whole.
                    assert!(at == byte || byte < 8 && at < 8, "{at}");
                }
                other => panic!("byte {byte}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_link_that_was_written_to_is_found_when_another_object_is_freed() {
        let m = machine(16);
        let mut slabs = slabs(&m);
        let (object, other) = (slabs.pop(false).unwrap(), slabs.pop(false).unwrap());
        let stale = copy(&object);
        give(&mut slabs, object).unwrap();
        write(&stale, 0);
        let found = give(&mut slabs, other).err();
        assert_eq!(found, Some(Fault::WrittenAfterFree { index: 0, byte: 0 }));
        // One that leads to another object makes the chain too short.
        let m = machine(16);
        let mut slabs = super::slabs(&m);
        let (object, other) = (slabs.pop(false).unwrap(), slabs.pop(false).unwrap());
        let stale = copy(&object);
        give(&mut slabs, object).unwrap();
        // SAFETY: inside the slab.
        unsafe { stale.start().cast::<Link>().write_unaligned(None) };
        assert_eq!(give(&mut slabs, other).err(), Some(Fault::FreeList));
    }

    #[test]
    fn whoever_writes_past_the_end_is_found_when_the_object_is_freed() {
        for byte in [SIZE, SIZE + SLAB_RED_ZONE - 1] {
            let m = machine(16);
            let mut slabs = slabs(&m);
            let object = slabs.pop(false).unwrap();
            write(&object, byte);
            let found = give(&mut slabs, object).err();
            assert_eq!(found, Some(Fault::WrittenPastEnd { index: 0, byte }));
        }
    }

    #[test]
    fn whoever_writes_past_the_end_of_a_free_object_is_found_as_well() {
        let m = machine(16);
        let mut slabs = slabs(&m);
        let object = slabs.pop(false).unwrap();
        let stale = copy(&object);
        give(&mut slabs, object).unwrap();
        write(&stale, SIZE + 1);
        let mut next = slabs.pop(false).unwrap();
        let found = next.taken(&slabs.shape).err();
        let byte = SIZE + 1;
        assert_eq!(found, Some(Fault::WrittenPastEnd { index: 0, byte }));
    }

    #[test]
    fn an_object_that_is_too_small_for_a_link_is_watched_too() {
        let m = machine(16);
        let shape = Shape::new(SLAB_HEADER, 3, 8 + SLAB_RED_ZONE, 4);
        let mut slabs = Slabs::new(shape);
        slabs.grow(m.zone.alloc(0, Gfp::KERNEL).unwrap());
        for _ in 0..8 {
            let mut object = slabs.pop(false).unwrap();
            object.taken(&slabs.shape).unwrap();
            // SAFETY: the object's bytes.
            unsafe { object.start().write_bytes(0, 3) };
            give(&mut slabs, object).unwrap();
        }
        let object = slabs.pop(false).unwrap();
        write(&object, 3);
        let found = give(&mut slabs, object).err();
        assert_eq!(found, Some(Fault::WrittenPastEnd { index: 0, byte: 3 }));
    }
}
