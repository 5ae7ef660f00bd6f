//! Slab memory: a header and equal objects in a run of frames, and lists of such slabs.
//!
//! The header owns the slab's [`Frame`], and with it the reserve tag. Free objects are chained by
//! index through their own first two bytes. Which list may serve whom is decided above, in
//! `slab.rs`; this file keeps the pointers right.

use core::fmt;
use core::mem::size_of;
use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;
use core::slice;

use super::frame::Frame;
use crate::SLAB_HEADER;
use crate::ablation::{Ablation, Mechanism};

/// Ends a chain of free objects.
const NONE: u16 = u16::MAX;

struct Header<'z> {
    frame: Frame<'z>,
    next: Option<NonNull<Header<'z>>>,
    prev: Option<NonNull<Header<'z>>>,
    first_free: u16,
    in_use: u16,
}

const _: () = assert!(size_of::<Header<'static>>() <= SLAB_HEADER);

/// Doubly linked slabs that have a free object.
struct List<'z> {
    head: Option<NonNull<Header<'z>>>,
}

/// An object in use: its address, its slab, and where the slab's memory came from.
#[derive(Clone, Copy)]
struct SlabObject {
    object: NonNull<u8>,
    slab: NonNull<u8>,
    from_reserve: bool,
}

/// Every slab of one cache that has a free object; full ones are known by their objects alone.
pub(crate) struct Slabs<'z> {
    /// Indexed by the reserve tag: ordinary slabs, reserve-derived slabs (M4).
    partial: [List<'z>; 2],
    /// Where in a slab the first object starts.
    first: usize,
    stride: usize,
    per_slab: u16,
    /// Slabs by tag, full ones included.
    count: [usize; 2],
    /// Ordinary slabs without an object in use; at most one is kept.
    empty: usize,
    pub(crate) ablation: Ablation,
}

// SAFETY: the pointers lead only to slabs that this value owns, reached under `&mut self`.
unsafe impl Send for Slabs<'_> {}

impl<'z> Slabs<'z> {
    /// `stride` is at least 2 bytes; `per_slab` objects of it fit from `first` on, which is behind
    /// the header.
    pub(crate) const fn new(first: usize, stride: usize, per_slab: u16) -> Self {
        assert!(first >= SLAB_HEADER && stride >= size_of::<u16>());
        assert!(per_slab > 0 && per_slab < NONE);
        Slabs {
            partial: [List { head: None }, List { head: None }],
            first,
            stride,
            per_slab,
            count: [0; 2],
            empty: 0,
            ablation: Ablation::NONE,
        }
    }

    /// Slabs that exist: ordinary, reserve-derived.
    pub(crate) fn count(&self) -> [usize; 2] {
        self.count
    }

    /// Takes a free object from a slab with that tag.
    fn pop(&mut self, from_reserve: bool) -> Option<SlabObject> {
        let slab = self.partial[usize::from(from_reserve)].head?;
        // SAFETY: slabs on a list are alive, and `&mut self` makes us the only one in them.
        let header = unsafe { &mut *slab.as_ptr() };
        let object = self.object_at(slab, header.first_free);
        // SAFETY: a free object holds the index of the next one; `grow` and `push` wrote it.
        header.first_free = unsafe { object.cast::<u16>().read_unaligned() };
        if header.in_use == 0 && !from_reserve {
            self.empty -= 1;
        }
        header.in_use += 1;
        if header.first_free == NONE {
            self.unlink(slab, from_reserve);
        }
        Some(SlabObject {
            object,
            slab: slab.cast(),
            from_reserve,
        })
    }

    /// Makes a slab of `frame`, which must be large enough for the cache's objects.
    pub(crate) fn grow(&mut self, frame: Frame<'z>) {
        let needed = self.stride.checked_mul(self.per_slab.into());
        let needed = needed.and_then(|bytes| bytes.checked_add(self.first));
        assert!(
            needed.is_some_and(|needed| needed <= frame.bytes()),
            "the allocator gave a run of the order that was asked for"
        );
        let slab = frame.start().cast::<Header<'z>>();
        let from_reserve = frame.from_reserve();
        for i in 0..self.per_slab {
            let next = if i + 1 < self.per_slab { i + 1 } else { NONE };
            let object = self.object_at(slab, i).cast::<u16>();
            // SAFETY: inside the frame (asserted above), which is ours alone.
            unsafe { object.write_unaligned(next) };
        }
        let header = Header {
            frame,
            next: None,
            prev: None,
            first_free: 0,
            in_use: 0,
        };
        // SAFETY: the frame starts with SLAB_HEADER bytes for us, aligned to 64 or more.
        unsafe { slab.write(header) };
        self.count[usize::from(from_reserve)] += 1;
        self.empty += usize::from(!from_reserve);
        self.link(slab, from_reserve);
    }

    /// Gives an object back, and the slab's frame with it if that made the slab superfluous: a
    /// reserve-derived slab goes at once, of ordinary ones one may stay empty. Returns whether the
    /// slab is a reserve-derived one, as its header says: nobody need have kept the tag.
    ///
    /// # Safety
    ///
    /// `object` points into an object that came from `pop` of these slabs, in `slab`; it is given
    /// back once, and nobody uses it any more.
    unsafe fn push(&mut self, object: NonNull<u8>, slab: NonNull<u8>) -> bool {
        let offset = object.as_ptr() as usize - slab.as_ptr() as usize - self.first;
        let index = u16::try_from(offset / self.stride).expect("objects have 16-bit indices");
        let slab = slab.cast::<Header<'z>>();
        // From the slab's pointer: the caller's may be good for its own bytes only, or lie behind
        // the start of the object.
        let object = self.object_at(slab, index).cast::<u16>();
        // SAFETY: the object is in use, so its slab is alive; `&mut self` makes us the only one.
        let header = unsafe { &mut *slab.as_ptr() };
        let from_reserve = header.frame.from_reserve();
        let was_full = header.first_free == NONE;
        // SAFETY: the object is ours again, and at least two bytes long.
        unsafe { object.write_unaligned(header.first_free) };
        header.first_free = index;
        header.in_use -= 1;
        let empty = header.in_use == 0;
        if was_full {
            self.link(slab, from_reserve);
        }
        if !empty {
            return from_reserve;
        }
        let kept = if from_reserve {
            self.ablation.off(Mechanism::SlabRelease)
        } else {
            self.empty == 0
        };
        if !kept {
            drop(self.release(slab, from_reserve));
        } else if !from_reserve {
            self.empty += 1;
        }
        from_reserve
    }

    /// Takes out a slab that is kept empty, if there is one. O(partial slabs).
    pub(crate) fn shrink(&mut self) -> Option<Frame<'z>> {
        if self.empty > 0
            && let Some(slab) = self.find_empty(false)
        {
            self.empty -= 1;
            return Some(self.release(slab, false));
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
            let header = unsafe { slab.as_ref() };
            if header.in_use == 0 {
                return Some(slab);
            }
            at = header.next;
        }
        None
    }

    /// Ends an empty slab and hands out its frame.
    fn release(&mut self, slab: NonNull<Header<'z>>, from_reserve: bool) -> Frame<'z> {
        self.unlink(slab, from_reserve);
        self.count[usize::from(from_reserve)] -= 1;
        // SAFETY: no object is in use and no list leads here: the header is read for the last time.
        let header = unsafe { slab.read() };
        // SAFETY: as above. The padding of a header is uninitialised, a frame's bytes must not be.
        unsafe { slab.cast::<u8>().write_bytes(0, SLAB_HEADER) };
        header.frame
    }

    fn object_at(&self, slab: NonNull<Header<'z>>, index: u16) -> NonNull<u8> {
        let offset = self.first + usize::from(index) * self.stride;
        // SAFETY: callers pass indices below `per_slab`, which fit into the slab.
        unsafe { slab.cast::<u8>().add(offset) }
    }

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

/// Takes an object back when its handle is dropped.
pub(crate) trait ObjectHome: Sync {
    /// Calls `give` once with the slabs that the object came from, under their lock, and updates
    /// its books; `give` says whether the object was of a reserve-derived slab.
    fn returned(&self, give: &mut dyn FnMut(&mut Slabs<'_>) -> bool);
}

/// An owned object of a [`SizedCache`](crate::SizedCache): bytes, given back on drop. The bytes are
/// whatever the last owner left.
pub struct Buffer<'c> {
    object: SlabObject,
    len: usize,
    home: &'c dyn ObjectHome,
}

// SAFETY: the handle owns its bytes alone, and its home is `Sync`.
unsafe impl Send for Buffer<'_> {}
// SAFETY: `&Buffer` gives out only `&[u8]` and copies of plain fields.
unsafe impl Sync for Buffer<'_> {}

impl<'c> Buffer<'c> {
    /// Takes a free object from a slab with that tag; `slabs` are those of `home`.
    pub(crate) fn take(
        slabs: &mut Slabs<'_>,
        from_reserve: bool,
        home: &'c dyn ObjectHome,
    ) -> Option<Self> {
        let len = slabs.stride;
        slabs
            .pop(from_reserve)
            .map(|object| Buffer { object, len, home })
    }

    /// Whether the object lies in reserve memory: only the entitled get such a one (M4).
    #[must_use]
    pub fn from_reserve(&self) -> bool {
        self.object.from_reserve
    }

    pub(super) fn start(&self) -> NonNull<u8> {
        self.object.object
    }

    /// Bytes in the object, without a look at them: somebody else may be writing to a shared one.
    pub(super) fn size(&self) -> usize {
        self.len
    }

    /// Gives the object up to whoever calls [`give_back`] for it. Its slab's address is exposed, so
    /// that it can be found again by arithmetic.
    pub(super) fn into_raw(self) -> NonNull<u8> {
        let SlabObject { object, slab, .. } = self.object;
        slab.as_ptr().expose_provenance();
        core::mem::forget(self);
        object
    }
}

/// Gives an object back to `home`.
///
/// # Safety
///
/// `object` points into an object of `slab` that a [`Buffer`] of `home` owned and that nobody owns
/// now; nobody uses it any more.
pub(super) unsafe fn give_back(object: NonNull<u8>, slab: NonNull<u8>, home: &dyn ObjectHome) {
    let mut given = false;
    home.returned(&mut |slabs| {
        assert!(
            !core::mem::replace(&mut given, true),
            "an object is given back once"
        );
        // SAFETY: the caller's promise, and the assertion above keeps it to once.
        unsafe { slabs.push(object, slab) }
    });
}

impl Drop for Buffer<'_> {
    fn drop(&mut self) {
        let SlabObject { object, slab, .. } = self.object;
        // SAFETY: `take` got the object from the slabs of `home` for us alone; the handle ends here.
        unsafe { give_back(object, slab, self.home) }
    }
}

impl Deref for Buffer<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `len` initialised bytes that are ours alone.
        unsafe { slice::from_raw_parts(self.start().as_ptr(), self.len) }
    }
}

impl DerefMut for Buffer<'_> {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`, and `&mut self` excludes other borrows.
        unsafe { slice::from_raw_parts_mut(self.start().as_ptr(), self.len) }
    }
}

impl fmt::Debug for Buffer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffer")
            .field("start", &self.start())
            .field("len", &self.len)
            .field("from_reserve", &self.from_reserve())
            .finish_non_exhaustive()
    }
}
