//! Frames: raw ones as a source knows them, and owned ones as everybody else does.

use core::fmt;
use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;
use core::slice;

use crate::FRAME_SIZE;

/// A run of `1 << order` frames, by address: what a [`FrameSource`] hands out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RawFrame {
    start: NonNull<u8>,
    order: u8,
}

impl RawFrame {
    /// The run of `1 << order` frames at `start`.
    #[must_use]
    pub const fn new(start: NonNull<u8>, order: u8) -> Self {
        RawFrame { start, order }
    }

    /// Address of the first byte.
    #[must_use]
    pub const fn start(self) -> NonNull<u8> {
        self.start
    }

    /// Base-2 logarithm of the number of frames.
    #[must_use]
    pub const fn order(self) -> u8 {
        self.order
    }
}

/// Where frames come from: the built-in [`Buddy`](crate::Buddy), or a kernel's own allocator.
///
/// A source knows nothing of watermarks or reserves; a [`Zone`](crate::Zone) puts them on top. It
/// is called under the zone's lock and must not call back.
///
/// # Implementation safety
///
/// `alloc` returns memory of `FRAME_SIZE << order` bytes, aligned to 64 bytes at least, initialised
/// (any bytes will do), writable, and not handed out again before it was freed. Both it and the
/// source stay valid for as long as the source is borrowed.
pub unsafe trait FrameSource: Sync {
    /// Takes `1 << order` consecutive frames, or `None`.
    fn alloc(&self, order: u8) -> Option<RawFrame>;

    /// Gives frames back.
    ///
    /// # Safety
    ///
    /// `frame` came from `alloc` of this source, is given back once, and nobody uses it any more.
    unsafe fn free(&self, frame: RawFrame);

    /// Frames that exist.
    fn total(&self) -> usize;

    /// Frames that are free; they need not be consecutive.
    fn free_frames(&self) -> usize;

    /// The largest order that `alloc` can ever satisfy.
    fn max_order(&self) -> u8;
}

/// Takes a frame back when its handle is dropped.
pub(crate) trait FrameOwner: Sync {
    /// Frees `frame` into the source that it came from, under the lock that guards the source, and
    /// updates its books.
    fn released(&self, frame: Released, from_reserve: bool);
}

/// A run whose handle is gone: nobody refers to it any more, and it is freed once.
///
/// The books are the owner's, and safe; only this room can tell that a frame is done with.
#[must_use = "the frame is lost if it is not freed"]
pub(crate) struct Released(RawFrame);

impl Released {
    /// Base-2 logarithm of the number of frames.
    #[inline]
    pub(crate) fn order(&self) -> u8 {
        self.0.order
    }

    /// Gives the run back to `source`, which must be the one that its owner took it from.
    #[inline]
    pub(crate) fn free_into(self, source: &dyn FrameSource) {
        // SAFETY: `Frame::take` got it from this source for one handle alone, which made this value
        // when it was dropped, and this value is consumed.
        unsafe { source.free(self.0) }
    }
}

/// Owned frames: `FRAME_SIZE << order` bytes, given back to their zone on drop.
///
/// The reserve tag is a field of the handle: it dies with it, and is never read from memory that
/// somebody else may own (M3).
pub struct Frame<'z> {
    start: NonNull<u8>,
    owner: &'z dyn FrameOwner,
    order: u8,
    from_reserve: bool,
}

// SAFETY: the handle owns its bytes alone, and its owner is `Sync`.
unsafe impl Send for Frame<'_> {}
// SAFETY: `&Frame` gives out only `&[u8]` and copies of plain fields.
unsafe impl Sync for Frame<'_> {}

impl<'z> Frame<'z> {
    /// Takes a run from `source`, which must be the one that `owner` frees into.
    #[inline]
    pub(crate) fn take(
        source: &dyn FrameSource,
        order: u8,
        from_reserve: bool,
        owner: &'z dyn FrameOwner,
    ) -> Option<Self> {
        let raw = source.alloc(order)?;
        Some(Frame {
            start: raw.start,
            owner,
            order: raw.order,
            from_reserve,
        })
    }

    /// Base-2 logarithm of the number of frames.
    #[must_use]
    pub fn order(&self) -> u8 {
        self.order
    }

    /// Whether the reserve was needed to satisfy this allocation (M3).
    #[must_use]
    pub fn from_reserve(&self) -> bool {
        self.from_reserve
    }

    pub(crate) fn is_aligned_to(&self, align: usize) -> bool {
        self.start.addr().get().is_multiple_of(align)
    }

    pub(crate) fn start(&self) -> NonNull<u8> {
        self.start
    }

    pub(super) fn owner(&self) -> &'z dyn FrameOwner {
        self.owner
    }

    /// An ordinary frame of `owner` whose handle was forgotten.
    ///
    /// # Safety
    ///
    /// There was such a handle, of that run and without the reserve tag; this is the only one made
    /// of it again.
    pub(super) unsafe fn from_raw(raw: RawFrame, owner: &'z dyn FrameOwner) -> Self {
        Frame {
            start: raw.start,
            owner,
            order: raw.order,
            from_reserve: false,
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        FRAME_SIZE << self.order
    }
}

impl Drop for Frame<'_> {
    #[inline]
    fn drop(&mut self) {
        let run = Released(RawFrame::new(self.start, self.order));
        self.owner.released(run, self.from_reserve);
    }
}

impl Deref for Frame<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the source promised that many initialised bytes, and they are ours alone.
        unsafe { slice::from_raw_parts(self.start.as_ptr(), self.bytes()) }
    }
}

impl DerefMut for Frame<'_> {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`, and `&mut self` excludes other borrows.
        unsafe { slice::from_raw_parts_mut(self.start.as_ptr(), self.bytes()) }
    }
}

impl AsRef<[u8]> for Frame<'_> {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl AsMut<[u8]> for Frame<'_> {
    fn as_mut(&mut self) -> &mut [u8] {
        self
    }
}

impl fmt::Debug for Frame<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frame")
            .field("start", &self.start)
            .field("order", &self.order)
            .field("from_reserve", &self.from_reserve)
            .finish_non_exhaustive()
    }
}
