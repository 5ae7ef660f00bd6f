//! The caller's memory, cut into frames that are known by index.

use core::marker::PhantomData;
use core::ptr::NonNull;

use super::RawFrame;
use super::frame::FrameSource;
use crate::FRAME_SIZE;
use crate::bitmap::Bitmap;
use crate::buddy::Buddy;
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

    fn frame(&self, index: usize, order: u8) -> RawFrame {
        assert!(
            index + (1 << order) <= self.frames,
            "the run lies inside the arena"
        );
        // SAFETY: just asserted to lie inside the slice that the arena owns.
        RawFrame::new(unsafe { self.base.add(index * FRAME_SIZE) }, order)
    }

    fn index(&self, frame: RawFrame) -> usize {
        let offset = frame.start().as_ptr() as usize - self.base.as_ptr() as usize;
        offset / FRAME_SIZE
    }
}

// SAFETY: the arena is exclusively ours for 'm and initialised (it was a `&mut [u8]`), frames are
// aligned to FRAME_SIZE, and the bit of a frame that is handed out is clear.
unsafe impl<R: RawMutex + Sync + Send> FrameSource for Bitmap<'_, R> {
    fn alloc(&self, order: u8) -> Option<RawFrame> {
        if order > 0 {
            return None;
        }
        let index = self.bits().lock().take()?;
        Some(self.arena().frame(index, 0))
    }

    unsafe fn free(&self, frame: RawFrame) {
        let index = self.arena().index(frame);
        self.bits().lock().give(index);
    }

    fn total(&self) -> usize {
        self.arena().frames()
    }

    fn free_frames(&self) -> usize {
        self.bits().lock().free()
    }

    fn max_order(&self) -> u8 {
        0
    }
}

// SAFETY: the arena is exclusively ours for 'm and initialised (it was a `&mut [u8]`), frames are
// aligned to FRAME_SIZE, and the free lists never hold a frame that is handed out.
unsafe impl<R: RawMutex + Sync + Send> FrameSource for Buddy<'_, R> {
    fn alloc(&self, order: u8) -> Option<RawFrame> {
        let index = self.lists().lock().take(order)?;
        Some(self.arena().frame(index, order))
    }

    unsafe fn free(&self, frame: RawFrame) {
        let index = self.arena().index(frame);
        self.lists().lock().give(index, frame.order());
    }

    fn total(&self) -> usize {
        self.arena().frames()
    }

    fn free_frames(&self) -> usize {
        self.lists().lock().free()
    }

    fn max_order(&self) -> u8 {
        Buddy::<R>::MAX_ORDER
    }
}
