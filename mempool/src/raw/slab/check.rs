//! What is looked at to find those who use memory that is not theirs.
//!
//! Always, for a comparison or two: an object that goes back has the number of its cache in its slab,
//! and is not the one that went back last. With the feature `slab-debug` everything that a look can
//! find: free objects are poison, red zones lie between objects, and the chain of what is free is
//! walked. That takes O(object + objects per slab) for each allocation and release.

use core::fmt;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU32, Ordering};

use super::{Header, Shape};
#[cfg(not(feature = "slab-debug"))]
use super::{Link, SlabObject};

/// Somebody used memory that was not theirs, as far as slabs can see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(not(feature = "slab-debug"), allow(dead_code))]
pub(crate) enum Fault {
    /// Freed into a cache that it did not come from.
    Foreign,
    /// Freed by an address at which no object lies.
    NotAnObject,
    /// Freed, and free already.
    DoubleFree {
        /// Its index in the slab.
        index: u32,
    },
    /// Not as it was left when it was freed.
    WrittenAfterFree {
        /// Its index in the slab.
        index: u32,
        /// The first byte that is different.
        byte: usize,
    },
    /// The bytes behind it are not as they were left.
    WrittenPastEnd {
        /// Its index in the slab.
        index: u32,
        /// The first byte that is different, counted from the start of the object.
        byte: usize,
    },
    /// The chain of free objects does not have as many as are free.
    FreeList,
}

impl Fault {
    /// Stops. What the fault is about stays where it is: it goes to nobody any more.
    #[cold]
    #[inline(never)]
    pub(crate) fn report(self, cache: &str, size: usize) -> ! {
        panic!("slab cache `{cache}` of {size} bytes: {self}");
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Foreign => f.write_str("freed what is not in one of its slabs"),
            Fault::NotAnObject => f.write_str("freed an address at which there is no object"),
            Fault::DoubleFree { index } => write!(f, "object {index} was freed twice"),
            Fault::WrittenAfterFree { index, byte } => {
                write!(
                    f,
                    "object {index} was written to after it was freed, at byte {byte}"
                )
            }
            Fault::WrittenPastEnd { index, byte } => {
                write!(
                    f,
                    "somebody wrote past the end of object {index}, at byte {byte}"
                )
            }
            Fault::FreeList => f.write_str("the list of a slab's free objects was overwritten"),
        }
    }
}

/// Another number for each cache, never 0. Where there is no atomic addition two caches that are made
/// at the same moment may have the same: then one does not know the other's objects from its own.
pub(super) fn number() -> u32 {
    static LAST: AtomicU32 = AtomicU32::new(0);
    loop {
        #[cfg(target_has_atomic = "32")]
        let last = LAST.fetch_add(1, Ordering::Relaxed);
        #[cfg(not(target_has_atomic = "32"))]
        let last = {
            let last = LAST.load(Ordering::Relaxed);
            LAST.store(last.wrapping_add(1), Ordering::Relaxed);
            last
        };
        if last != u32::MAX {
            return last + 1;
        }
    }
}

/// Whether an object is on no list of free ones.
///
/// # Safety
///
/// `slab` is a slab of that shape, and the caller has it alone.
#[inline]
pub(super) unsafe fn not_free(
    shape: &Shape,
    slab: NonNull<Header<'_>>,
    object: NonNull<u8>,
) -> Result<(), Fault> {
    #[cfg(feature = "slab-debug")]
    // SAFETY: the caller's word.
    unsafe {
        debug::not_free(shape, slab, object)?;
    }
    let _ = (shape, slab, object);
    Ok(())
}

/// What is done to objects, and looked for in them, at each turn of their lives: nothing without the
/// feature `slab-debug`.
///
/// # Safety
///
/// Of each: the caller owns the object, which lies in a slab of this shape.
#[cfg(not(feature = "slab-debug"))]
#[allow(clippy::unused_self)]
impl Shape {
    #[inline]
    pub(super) unsafe fn made(&self, _: &SlabObject) {}

    #[inline]
    pub(super) unsafe fn unlinked(&self, _: &SlabObject) {}

    #[inline]
    pub(super) fn checked_link(&self, next: Link, _: NonNull<u8>) -> Link {
        next
    }

    #[inline]
    pub(super) unsafe fn poison(&self, _: &SlabObject) -> Result<(), Fault> {
        Ok(())
    }

    #[inline]
    pub(super) unsafe fn unused(&self, _: &SlabObject) -> Result<(), Fault> {
        Ok(())
    }
}

/// Fills what an owner did not ask for of an object: the red zone of size classes.
#[cfg(feature = "slab-debug")]
pub(crate) fn mark_slack(slack: &mut [u8]) {
    slack.fill(debug::RED);
}

/// The first byte of it that somebody wrote to.
#[cfg(feature = "slab-debug")]
pub(crate) fn overwritten(slack: &[u8]) -> Option<usize> {
    slack.iter().position(|byte| *byte != debug::RED)
}

#[cfg(feature = "slab-debug")]
mod debug {
    use core::mem::size_of;
    use core::ptr::NonNull;
    use core::slice;

    use super::super::{Header, Link, Shape, SlabObject};
    use super::Fault;

    /// What free objects are filled with, and what red zones are: the values of Linux' slab debugging.
    const POISON: u8 = 0x6b;
    pub(super) const RED: u8 = 0xbb;

    const LINK: usize = size_of::<Link>();

    impl Shape {
        /// The object, with the rest of the bytes that a link may take, and its red zone.
        ///
        /// # Safety
        ///
        /// The caller owns the object, which lies in a slab of this shape, for as long as they use
        /// the slices.
        unsafe fn parts<'a>(&self, object: &SlabObject) -> (&'a mut [u8], &'a mut [u8]) {
            // SAFETY: the caller's word; red zones belong to the object in front of them.
            unsafe {
                let start = object.start().as_ptr();
                (
                    slice::from_raw_parts_mut(start, self.size()),
                    slice::from_raw_parts_mut(start.add(self.size()), self.red_zone()),
                )
            }
        }

        /// A new slab has it.
        pub(in super::super) unsafe fn made(&self, object: &SlabObject) {
            // SAFETY: the caller's word.
            let (bytes, zone) = unsafe { self.parts(object) };
            bytes.fill(POISON);
            zone.fill(RED);
        }

        /// It was taken off the list of free ones, whose link was in it. A link that cannot be one
        /// is left to be found by [`unused`](Self::unused).
        pub(in super::super) unsafe fn unlinked(&self, object: &SlabObject) {
            // SAFETY: the caller's word.
            let link = unsafe { object.start().cast::<Link>().read_unaligned() };
            if self.is_link(link, object.slab()) {
                // SAFETY: the caller's word.
                let (bytes, zone) = unsafe { self.parts(object) };
                let inside = LINK.min(bytes.len());
                bytes[..inside].fill(POISON);
                zone[..LINK - inside].fill(RED);
            }
        }

        /// The end of the chain in place of a link that cannot be one.
        pub(in super::super) fn checked_link(&self, next: Link, slab: NonNull<u8>) -> Link {
            next.filter(|_| self.is_link(next, slab))
        }

        fn is_link(&self, next: Link, slab: NonNull<u8>) -> bool {
            next.is_none_or(|next| {
                self.index_of(next, slab).is_some_and(|index| {
                    // SAFETY: an index that was just found.
                    unsafe { self.object(slab, index) == next }
                })
            })
        }

        /// Its owner gives it back: from now on it is poison.
        pub(in super::super) unsafe fn poison(&self, object: &SlabObject) -> Result<(), Fault> {
            // SAFETY: the caller's word.
            let (bytes, zone) = unsafe { self.parts(object) };
            self.red_zone_is_whole(zone, object)?;
            bytes.fill(POISON);
            Ok(())
        }

        /// It is about to get an owner: nobody had it since it was freed.
        pub(in super::super) unsafe fn unused(&self, object: &SlabObject) -> Result<(), Fault> {
            // SAFETY: the caller's word.
            let (bytes, zone) = unsafe { self.parts(object) };
            if let Some(byte) = bytes.iter().position(|byte| *byte != POISON) {
                let index = self.index(object);
                return Err(Fault::WrittenAfterFree { index, byte });
            }
            self.red_zone_is_whole(zone, object)
        }

        fn red_zone_is_whole(&self, zone: &[u8], object: &SlabObject) -> Result<(), Fault> {
            match super::overwritten(zone) {
                Some(at) => Err(Fault::WrittenPastEnd {
                    index: self.index(object),
                    byte: self.size() + at,
                }),
                None => Ok(()),
            }
        }

        /// Which of its slab the object is.
        pub(crate) fn index(&self, object: &SlabObject) -> u32 {
            self.index_of(object.start(), object.slab())
                .expect("an object lies in its slab")
        }
    }

    /// Walks the chain. The link of the object itself is not read: who freed it twice may have
    /// written to it.
    ///
    /// # Safety
    ///
    /// See [`not_free`](super::not_free).
    pub(super) unsafe fn not_free(
        shape: &Shape,
        slab: NonNull<Header<'_>>,
        object: NonNull<u8>,
    ) -> Result<(), Fault> {
        // SAFETY: the caller has the slab alone.
        let (mut at, in_use) = unsafe { ((*slab.as_ptr()).first_free, (*slab.as_ptr()).in_use) };
        let mut free = shape.per_slab() - in_use;
        while let Some(start) = at {
            let index = shape.index_of(start, slab.cast()).ok_or(Fault::FreeList)?;
            if start == object {
                return Err(Fault::DoubleFree { index });
            }
            if free == 0 {
                return Err(Fault::FreeList);
            }
            free -= 1;
            // SAFETY: an object of the slab that is on the chain of free ones.
            let next = unsafe { start.cast::<Link>().read_unaligned() };
            if !shape.is_link(next, slab.cast()) {
                return Err(Fault::WrittenAfterFree { index, byte: 0 });
            }
            at = next;
        }
        if free == 0 {
            Ok(())
        } else {
            Err(Fault::FreeList)
        }
    }
}
