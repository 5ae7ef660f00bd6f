//! Slab memory: a header and equal objects in a run of frames, and lists of such slabs.
//!
//! The header owns the slab's [`Frame`], and with it the reserve tag. Free objects are chained through
//! their own first bytes. Which list may serve whom is decided above, in `slab.rs`; this file keeps
//! the pointers right.

mod check;
mod shape;

use core::mem::size_of;
use core::ptr::NonNull;

pub(crate) use check::Fault;
#[cfg(feature = "slab-debug")]
pub(crate) use check::{mark_slack, overwritten};
pub(crate) use shape::Shape;

use super::frame::Frame;
use crate::SLAB_HEADER;
use crate::ablation::{Ablation, Mechanism};
use crate::counter::Writer;

/// A free object, and the next one in its slab.
type Link = Option<NonNull<u8>>;

/// `frame` and `cache` change in no slab that has an object out, and are [read](object_at) of it without a
/// lock: no reference to a whole header may exist beside that, so that the others are reached one by one.
pub(super) struct Header<'z> {
    frame: Frame<'z>,
    next: Option<NonNull<Header<'z>>>,
    prev: Option<NonNull<Header<'z>>>,
    first_free: Link,
    in_use: u32,
    /// Whose slab it is: see [`Slabs::number`].
    cache: u32,
}

const _: () = assert!(size_of::<Header<'static>>() <= SLAB_HEADER);

/// Doubly linked slabs that have a free object.
struct List<'z> {
    head: Option<NonNull<Header<'z>>>,
}

/// An object out of its slab, owned by whoever has this. Nothing happens when it is dropped: its
/// slab then stays for ever.
pub struct SlabObject {
    start: NonNull<u8>,
    /// The slab; its last bit, which is 0 in an address of one, says that it is reserve-derived. So
    /// an object is two words.
    tagged: NonNull<u8>,
}

// SAFETY: it owns its bytes alone, and gives them to whoever takes it.
unsafe impl Send for SlabObject {}

impl SlabObject {
    #[inline]
    fn new(start: NonNull<u8>, slab: NonNull<u8>, from_reserve: bool) -> Self {
        let tagged = slab.map_addr(|slab| slab | usize::from(from_reserve));
        SlabObject { start, tagged }
    }

    /// Whether the object lies in reserve memory. That never changes: it is the tag of its frame.
    #[inline]
    pub(crate) fn reserve_derived(&self) -> bool {
        self.tagged.addr().get() & 1 != 0
    }

    /// Its first byte.
    #[inline]
    pub(super) fn start(&self) -> NonNull<u8> {
        self.start
    }

    #[inline]
    pub(super) fn slab(&self) -> NonNull<u8> {
        let tag = usize::from(self.reserve_derived());
        // SAFETY: the tag was added to the slab's address.
        unsafe { self.tagged.sub(tag) }
    }

    /// Looks whether nobody wrote to it while it was free; `shape` is that of its cache.
    ///
    /// # Errors
    ///
    /// Somebody did (feature `slab-debug`).
    #[inline]
    pub(crate) fn taken(&mut self, shape: &Shape) -> Result<(), Fault> {
        // SAFETY: whoever has a `SlabObject` owns the object, and a cache has slabs of one shape.
        unsafe { shape.unused(self) }
    }

    /// Its owner gave it back; `shape` is that of its cache.
    ///
    /// # Errors
    ///
    /// Somebody wrote past its end (feature `slab-debug`).
    #[inline]
    pub(crate) fn freed(&mut self, shape: &Shape) -> Result<(), Fault> {
        // SAFETY: as in `taken`.
        unsafe { shape.poison(self) }
    }
}

/// Every slab of one cache that has a free object; full ones are known by their objects alone.
pub(crate) struct Slabs<'z> {
    /// Indexed by the reserve tag: ordinary slabs, reserve-derived slabs (M4).
    partial: [List<'z>; 2],
    /// The ordinary slab that is kept when no object of it is out; one may be.
    kept: Option<NonNull<Header<'z>>>,
    shape: Shape,
    /// Another number in each cache, so that an object of somebody else is known as such.
    number: u32,
    /// Slabs by tag, full ones included.
    count: [usize; 2],
    /// Of the cache's books.
    pub(crate) writer: Writer,
    pub(crate) ablation: Ablation,
}

// SAFETY: the pointers lead only to slabs that this value owns, reached under `&mut self`.
unsafe impl Send for Slabs<'_> {}

impl<'z> Slabs<'z> {
    pub(crate) fn new(shape: Shape) -> Self {
        Slabs {
            partial: [List { head: None }, List { head: None }],
            kept: None,
            shape,
            number: check::number(),
            count: [0; 2],
            writer: Writer::new(),
            ablation: Ablation::NONE,
        }
    }

    pub(crate) fn number(&self) -> u32 {
        self.number
    }

    /// Slabs that exist: ordinary, reserve-derived.
    pub(crate) fn count(&self) -> [usize; 2] {
        self.count
    }

    /// Takes a free object from a slab with that tag.
    #[inline]
    pub(crate) fn pop(&mut self, from_reserve: bool) -> Option<SlabObject> {
        let slab = self.partial[usize::from(from_reserve)].head?;
        let header = slab.as_ptr();
        // SAFETY: slabs on a list are alive and have a free object; `&mut self` makes us the only one in
        // them.
        let start = unsafe { (*header).first_free.unwrap_unchecked() };
        // SAFETY: a free object holds the link to the next one; `grow` and `push` wrote it.
        let next = unsafe { start.cast::<Link>().read_unaligned() };
        let next = self.shape.checked_link(next, slab.cast());
        // SAFETY: as above.
        unsafe {
            (*header).first_free = next;
            (*header).in_use += 1;
        }
        if next.is_none() {
            self.unlink(slab, from_reserve);
        }
        let object = SlabObject::new(start, slab.cast(), from_reserve);
        // SAFETY: the object is ours.
        unsafe { self.shape.unlinked(&object) };
        Some(object)
    }

    /// Makes a slab of `frame`, which must be large enough for the cache's objects.
    pub(crate) fn grow(&mut self, frame: Frame<'z>) {
        assert!(
            self.shape.fits(frame.bytes()),
            "the allocator gave a run of the order that was asked for"
        );
        let slab = frame.start();
        let from_reserve = frame.from_reserve();
        let mut first_free = None;
        for index in (0..self.shape.per_slab()).rev() {
            // SAFETY: inside the frame (asserted above), which is ours alone.
            unsafe {
                let start = self.shape.object(slab, index);
                self.shape.made(&SlabObject::new(start, slab, from_reserve));
                start.cast::<Link>().write_unaligned(first_free);
                first_free = Some(start);
            }
        }
        let header = Header {
            frame,
            next: None,
            prev: None,
            first_free,
            in_use: 0,
            cache: self.number,
        };
        let slab = slab.cast::<Header<'z>>();
        // SAFETY: the frame starts with SLAB_HEADER bytes for us, aligned to 64 or more.
        unsafe { slab.write(header) };
        self.count[usize::from(from_reserve)] += 1;
        self.link(slab, from_reserve);
    }

    /// Takes an object back where that is a matter of a few instructions: the slab is an ordinary one,
    /// with a free object, and stays.
    ///
    /// # Errors
    ///
    /// It is not, and the object comes back, for [`push_any`](Self::push_any).
    #[inline]
    pub(crate) fn push(&mut self, object: SlabObject) -> Result<(), SlabObject> {
        if object.reserve_derived() {
            return Err(object);
        }
        let slab = object.tagged.cast::<Header<'z>>();
        let header = slab.as_ptr();
        // SAFETY: the object is out, so its slab is alive; `&mut self` makes us the only one in it.
        let Some(first_free) = (unsafe { (*header).first_free }) else {
            return Err(object);
        };
        // SAFETY: as above.
        if unsafe { (*header).in_use } == 1 && self.kept != Some(slab) {
            return Err(object);
        }
        // SAFETY: as above; the object is ours again, and has room for a link.
        unsafe {
            object
                .start
                .cast::<Link>()
                .write_unaligned(Some(first_free));
            (*header).first_free = Some(object.start);
            (*header).in_use -= 1;
        }
        Ok(())
    }

    /// Takes an object back, and gives the slab's frame back with it if that made the slab
    /// superfluous: a reserve-derived slab goes at once, of ordinary ones one may stay empty.
    pub(crate) fn push_any(&mut self, object: SlabObject) {
        let from_reserve = object.reserve_derived();
        let slab = object.slab().cast::<Header<'z>>();
        let header = slab.as_ptr();
        // SAFETY: the object is out, so its slab is alive; `&mut self` makes us the only one in it.
        let (first_free, in_use) = unsafe { ((*header).first_free, (*header).in_use) };
        let (was_full, empty) = (first_free.is_none(), in_use == 1);
        // SAFETY: as above; the object is ours again, and has room for a link.
        unsafe {
            object.start.cast::<Link>().write_unaligned(first_free);
            (*header).first_free = Some(object.start);
            (*header).in_use = in_use - 1;
        }
        if was_full {
            self.link(slab, from_reserve);
        }
        if !empty {
            return;
        }
        let stays = if from_reserve {
            self.ablation.off(Mechanism::SlabRelease)
        } else {
            match self.kept {
                // SAFETY: the slab that is kept is alive: only `shrink` ends it, and forgets it then.
                Some(kept) if kept != slab && unsafe { (*kept.as_ptr()).in_use } == 0 => false,
                _ => {
                    self.kept = Some(slab);
                    true
                }
            }
        };
        if !stays {
            drop(self.release(slab, from_reserve));
        }
    }

    /// Whether an object may go back: it came from here, and is not free. What can be seen without a
    /// look at other objects is always seen, the rest with the feature `slab-debug`.
    ///
    /// Handles go back once, and to where they came from. Those who had an address should ask.
    ///
    /// # Errors
    ///
    /// It may not; it is lost.
    #[inline]
    pub(crate) fn may_go_back(&mut self, object: SlabObject) -> Result<SlabObject, Fault> {
        let slab = object.slab().cast::<Header<'z>>();
        // SAFETY: an object that is out has a live slab; `&mut self` makes us the only one in it, if
        // it is ours. If not, only this number is read of it, which changes for no object's slab.
        if unsafe { (*slab.as_ptr()).cache } != self.number {
            return Err(Fault::Foreign);
        }
        // SAFETY: as above, and it is ours.
        let (first_free, in_use) =
            unsafe { ((*slab.as_ptr()).first_free, (*slab.as_ptr()).in_use) };
        if first_free == Some(object.start) || in_use == 0 {
            let index = self.shape.index_of(object.start, object.slab());
            return Err(index.map_or(Fault::NotAnObject, |index| Fault::DoubleFree { index }));
        }
        // SAFETY: a slab of this cache.
        unsafe { check::not_free(&self.shape, slab, object.start)? };
        Ok(object)
    }

    /// Takes out a slab that is kept empty, if there is one. O(1).
    pub(crate) fn shrink(&mut self) -> Option<Frame<'z>> {
        if let Some(slab) = self.kept {
            // SAFETY: the slab that is kept is alive: only this function ends it, and forgets it then.
            let in_use = unsafe { (*slab.as_ptr()).in_use };
            if in_use == 0 {
                self.kept = None;
                return Some(self.release(slab, false));
            }
        }
        if self.ablation.off(Mechanism::SlabRelease)
            && let Some(slab) = self.find_empty(true)
        {
            return Some(self.release(slab, true));
        }
        None
    }

    fn find_empty(&self, from_reserve: bool) -> Option<NonNull<Header<'z>>> {
        let mut at = self.partial[usize::from(from_reserve)].head;
        while let Some(slab) = at {
            // SAFETY: slabs on a list are alive.
            let (in_use, next) = unsafe { ((*slab.as_ptr()).in_use, (*slab.as_ptr()).next) };
            if in_use == 0 {
                return Some(slab);
            }
            at = next;
        }
        None
    }

    /// Ends an empty slab and hands out its frame.
    #[inline(never)]
    fn release(&mut self, slab: NonNull<Header<'z>>, from_reserve: bool) -> Frame<'z> {
        self.unlink(slab, from_reserve);
        self.count[usize::from(from_reserve)] -= 1;
        // SAFETY: no object is in use and no list leads here: the header is read for the last time.
        let header = unsafe { slab.read() };
        // SAFETY: as above. The padding of a header is uninitialised, a frame's bytes must not be.
        // An object that is freed once more finds a number here that no cache has.
        unsafe { slab.cast::<u8>().write_bytes(0, SLAB_HEADER) };
        header.frame
    }

    #[inline(never)]
    fn link(&mut self, slab: NonNull<Header<'z>>, from_reserve: bool) {
        let list = &mut self.partial[usize::from(from_reserve)];
        // SAFETY: `slab` is alive and on no list; so is the head, if any, on this one.
        unsafe {
            (*slab.as_ptr()).prev = None;
            (*slab.as_ptr()).next = list.head;
            if let Some(head) = list.head {
                (*head.as_ptr()).prev = Some(slab);
            }
        }
        list.head = Some(slab);
    }

    #[inline(never)]
    fn unlink(&mut self, slab: NonNull<Header<'z>>, from_reserve: bool) {
        // SAFETY: `slab` is alive and on the list of its tag, and so are its neighbours.
        unsafe {
            let (prev, next) = ((*slab.as_ptr()).prev, (*slab.as_ptr()).next);
            match prev {
                Some(prev) => (*prev.as_ptr()).next = next,
                None => self.partial[usize::from(from_reserve)].head = next,
            }
            if let Some(next) = next {
                (*next.as_ptr()).prev = prev;
            }
        }
    }
}

impl Drop for Slabs<'_> {
    fn drop(&mut self) {
        // Objects borrow their cache: those in use were forgotten, and their slabs leak with them.
        // All others are empty, and were kept.
        while self.shrink().is_some() {}
    }
}

/// The object of a cache's slab that `address` lies in.
///
/// # Safety
///
/// `address` points into an object of `slab` that came from slabs of this shape and number and whose
/// handle was given up; nobody else makes one of it again. What can be seen of that is checked.
pub(super) unsafe fn object_at(
    address: NonNull<u8>,
    slab: NonNull<u8>,
    shape: &Shape,
    number: u32,
) -> Result<SlabObject, Fault> {
    // SAFETY: the object is in use, so its slab is alive, and these change in no slab that is. (The
    // fields are read alone: somebody may be writing to others.)
    let (cache, from_reserve) = unsafe {
        let header = slab.cast::<Header<'_>>().as_ptr();
        let frame = &raw const (*header).frame;
        ((*header).cache, (*frame).from_reserve())
    };
    if cache != number {
        return Err(Fault::Foreign);
    }
    let index = shape.index_of(address, slab).ok_or(Fault::NotAnObject)?;
    // From the slab's pointer: the address may lie behind the start of the object.
    // SAFETY: an index that was just found.
    let start = unsafe { shape.object(slab, index) };
    Ok(SlabObject::new(start, slab, from_reserve))
}

#[cfg(test)]
pub(super) mod tests;
