//! The small frame source: one bit for each frame, for microcontrollers.

use core::fmt;
use core::sync::atomic::{AtomicUsize, Ordering};

use lock_api::{Mutex, RawMutex};

use crate::raw::Arena;
use crate::{CriticalSection, FRAME_SIZE};

/// A frame source of single frames over a piece of memory: its books are one bit for each.
///
/// To give is O(1), to take O(frames / 32), from where the last one was found. No orders above 0:
/// where buffers of several frames are wanted, use [`Buddy`](crate::Buddy).
///
/// ```
/// use mempool::{Bitmap, FrameSource, FRAME_SIZE};
///
/// let mut memory = vec![0u8; 65 * FRAME_SIZE];
/// let mut map = [0; Bitmap::map_len(65 * FRAME_SIZE)];
/// let source = <Bitmap>::new(&mut memory, &mut map).unwrap();
/// assert!(source.total() >= 64 && source.max_order() == 0);
/// ```
pub struct Bitmap<'m, R = CriticalSection> {
    arena: Arena<'m>,
    bits: Mutex<R, Bits<'m>>,
    /// What the bits count, to be read without their lock.
    free: AtomicUsize,
}

impl Bitmap<'_> {
    /// Words of the map for `bytes` of memory.
    #[must_use]
    pub const fn map_len(bytes: usize) -> usize {
        (bytes / FRAME_SIZE).div_ceil(u32::BITS as usize)
    }
}

impl<'m, R: RawMutex> Bitmap<'m, R> {
    /// Manages `memory` from its first frame boundary to its last. O(frames / 32).
    ///
    /// # Errors
    ///
    /// [`BitmapError`] if the memory holds no frame, or the map does not cover it.
    pub fn new(memory: &'m mut [u8], map: &'m mut [u32]) -> Result<Self, BitmapError> {
        let arena = Arena::new(memory);
        let frames = arena.frames();
        if frames == 0 {
            return Err(BitmapError::NoFrame);
        }
        let needed = Bitmap::map_len(frames * FRAME_SIZE);
        let given = map.len();
        let Some(map) = map.get_mut(..needed) else {
            return Err(BitmapError::ShortMap { needed, given });
        };
        let bits = Bits::new(map, frames);
        Ok(Bitmap {
            arena,
            free: AtomicUsize::new(bits.free),
            bits: Mutex::new(bits),
        })
    }

    pub(crate) fn arena(&self) -> &Arena<'m> {
        &self.arena
    }

    /// Free frames, as of the last time that somebody took or gave one. O(1), without the lock.
    pub(crate) fn free(&self) -> usize {
        self.free.load(Ordering::Relaxed)
    }

    pub(crate) fn take(&self) -> Option<usize> {
        let mut bits = self.bits.lock();
        let taken = bits.take();
        self.free.store(bits.free, Ordering::Relaxed);
        taken
    }

    /// # Panics
    ///
    /// If the frame is free already.
    pub(crate) fn give(&self, index: usize) {
        let mut bits = self.bits.lock();
        bits.give(index);
        self.free.store(bits.free, Ordering::Relaxed);
    }
}

impl<R> fmt::Debug for Bitmap<'_, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bitmap")
            .field("arena", &self.arena)
            .finish_non_exhaustive()
    }
}

/// Why a [`Bitmap`] cannot manage what it was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum BitmapError {
    /// Not one whole, aligned frame.
    NoFrame,
    /// The map has fewer words than there are frames to note.
    ShortMap {
        /// Words needed.
        needed: usize,
        /// Words given.
        given: usize,
    },
}

impl fmt::Display for BitmapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BitmapError::NoFrame => write!(f, "the memory holds not one aligned frame"),
            BitmapError::ShortMap { needed, given } => {
                write!(f, "the frame map has {given} words and needs {needed}")
            }
        }
    }
}

impl core::error::Error for BitmapError {}

/// A set bit is a free frame.
struct Bits<'m> {
    words: &'m mut [u32],
    free: usize,
    /// The word to look into first.
    next: usize,
}

impl<'m> Bits<'m> {
    fn new(words: &'m mut [u32], frames: usize) -> Self {
        words.fill(u32::MAX);
        let spare = words.len() * u32::BITS as usize - frames;
        if let Some(last) = words.last_mut() {
            *last >>= spare;
        }
        Bits {
            words,
            free: frames,
            next: 0,
        }
    }

    fn take(&mut self) -> Option<usize> {
        let (before, behind) = self.words.split_at(self.next);
        let found = |words: &[u32]| words.iter().position(|word| *word != 0);
        let word = match found(behind) {
            Some(at) => self.next + at,
            None => found(before)?,
        };
        let bit = self.words[word].trailing_zeros();
        self.words[word] &= !(1 << bit);
        (self.free, self.next) = (self.free - 1, word);
        Some(word * u32::BITS as usize + bit as usize)
    }

    /// See [`Bitmap::give`].
    fn give(&mut self, index: usize) {
        let (word, bit) = (index / u32::BITS as usize, index % u32::BITS as usize);
        let mask = 1 << bit;
        assert!(self.words[word] & mask == 0, "frame {index} is freed twice");
        self.words[word] |= mask;
        self.free += 1;
    }
}

#[cfg(test)]
mod tests;
