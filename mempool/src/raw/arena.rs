//! The caller's memory, cut into frames that are known by index.

use core::marker::PhantomData;
use core::num::NonZero;
use core::ptr::NonNull;

use super::RawFrame;
use super::frame::FrameSource;
use crate::bitmap::Bitmap;
use crate::buddy::{Buddy, BuddyError};
use crate::{FRAME_SIZE, FrameEntry};
use lock_api::RawMutex;

/// A slice of the caller's memory, from the first frame boundary on.
#[derive(Debug)]
pub(crate) struct Arena<'m> {
    base: NonNull<u8>,
    frames: usize,
    memory: PhantomData<&'m mut [u8]>,
}

// SAFETY: an arena is an address and a length; what lies behind it is handed out as owned frames.
unsafe impl Send for Arena<'_> {}
// SAFETY: as above; no method reads or writes the memory.
unsafe impl Sync for Arena<'_> {}

impl<'m> Arena<'m> {
    pub(crate) fn new(memory: &'m mut [u8]) -> Self {
        let skip = memory.as_ptr().align_offset(FRAME_SIZE).min(memory.len());
        let memory = &mut memory[skip..];
        Arena {
            frames: memory.len() / FRAME_SIZE,
            base: NonNull::from(memory).cast(),
            memory: PhantomData,
        }
    }

    pub(crate) fn frames(&self) -> usize {
        self.frames
    }

    #[inline]
    fn frame(&self, index: usize, order: u8) -> RawFrame {
        assert!(
            index + (1 << order) <= self.frames,
            "the run lies inside the arena"
        );
        // SAFETY: just asserted to lie inside the arena, which does not wrap around: not null.
        let at = |base: NonZero<usize>| unsafe {
            NonZero::new_unchecked(base.get() + index * FRAME_SIZE)
        };
        RawFrame::new(self.base.map_addr(at), order)
    }

    #[inline]
    fn index(&self, frame: RawFrame) -> usize {
        let offset = frame.start().as_ptr() as usize - self.base.as_ptr() as usize;
        offset / FRAME_SIZE
    }
}

impl<'m, R: RawMutex> Buddy<'m, R> {
    /// Manages `frames` frames from `start` on, such as a kernel's direct map. O(frames).
    ///
    /// No source touches what it manages, so that memory need be behind a frame only when somebody
    /// uses its bytes.
    ///
    /// # Safety
    ///
    /// From `start` on, which is aligned to `FRAME_SIZE`, `frames` times `FRAME_SIZE` bytes do not
    /// wrap around and are the source's alone for `'m`; whenever the bytes of a frame are used, they
    /// are initialised (any bytes will do) and may be read and written through `start`.
    ///
    /// # Errors
    ///
    /// [`BuddyError`] as of [`Buddy::new`].
    ///
    /// # Panics
    ///
    /// If `start` is not aligned.
    ///
    /// ```
    /// use core::ptr::NonNull;
    /// use mempool::{Buddy, FrameEntry, FrameSource, FRAME_SIZE};
    ///
    /// #[repr(align(65536))]
    /// struct Direct([u8; 8 * FRAME_SIZE]);
    /// let mut direct = Box::new(Direct([0; 8 * FRAME_SIZE]));
    /// let start = NonNull::from(&mut direct.0).cast();
    /// let mut table = [FrameEntry::EMPTY; 8];
    /// // SAFETY: so many zeroes, aligned, and nobody uses them any more while the source does.
    /// let source = unsafe { <Buddy>::from_raw_parts(start, 8, &mut table) }.unwrap();
    /// assert_eq!(source.total(), 8);
    /// ```
    pub unsafe fn from_raw_parts(
        start: NonNull<u8>,
        frames: usize,
        table: &'m mut [FrameEntry],
    ) -> Result<Self, BuddyError> {
        assert!(
            start.addr().get().is_multiple_of(FRAME_SIZE),
            "frames start at multiples of their size"
        );
        let arena = Arena {
            base: start,
            frames,
            memory: PhantomData,
        };
        Buddy::over(arena, table)
    }
}

// SAFETY: the arena is exclusively ours for 'm and initialised (it was a `&mut [u8]`), frames are
// aligned to FRAME_SIZE, and the bit of a frame that is handed out is clear.
unsafe impl<R: RawMutex + Sync + Send> FrameSource for Bitmap<'_, R> {
    fn alloc(&self, order: u8) -> Option<RawFrame> {
        if order > 0 {
            return None;
        }
        let index = self.take()?;
        Some(self.arena().frame(index, 0))
    }

    unsafe fn free(&self, frame: RawFrame) {
        let index = self.arena().index(frame);
        self.give(index);
    }

    fn total(&self) -> usize {
        self.arena().frames()
    }

    fn free_frames(&self) -> usize {
        Bitmap::free(self)
    }

    fn max_order(&self) -> u8 {
        0
    }
}

// SAFETY: the arena is exclusively ours for 'm and initialised (it was a `&mut [u8]`, or somebody
// promised as much), frames are aligned to FRAME_SIZE, and the free lists never hold a frame that is handed out.
unsafe impl<R: RawMutex + Sync + Send> FrameSource for Buddy<'_, R> {
    fn alloc(&self, order: u8) -> Option<RawFrame> {
        let index = self.take(order)?;
        Some(self.arena().frame(index, order))
    }

    unsafe fn free(&self, frame: RawFrame) {
        let index = self.arena().index(frame);
        self.give(index, frame.order());
    }

    fn total(&self) -> usize {
        self.arena().frames()
    }

    fn free_frames(&self) -> usize {
        Buddy::free(self)
    }

    fn max_order(&self) -> u8 {
        Buddy::<R>::MAX_ORDER
    }
}
