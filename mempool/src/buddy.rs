//! The built-in frame source: a binary buddy allocator over the caller's memory.
//!
//! Its books lie in a table of the caller's, apart from the memory that it manages, which it never
//! touches: 12 bytes for each frame of 4096, 0.3 %. The lists are doubly linked by index, so that a
//! buddy is taken out of the middle in constant time.
//!
//! Single frames that come back are parked for a while: who takes one and gives it back would otherwise
//! split a run of every order and join it again. Nobody misses them: what is parked joins its buddies
//! before any request fails for want of a run.

use core::fmt;
use core::sync::atomic::{AtomicUsize, Ordering};

use lock_api::{Mutex, RawMutex};

use crate::raw::Arena;
use crate::{CriticalSection, FRAME_SIZE};

/// Orders 0 to 10: 4 KiB to 4 MiB.
const ORDERS: usize = 11;
const NIL: u32 = u32::MAX;
/// Of so many frames one may be parked, up to [`MAX_PARKED`]: what is little shall not lie about.
const PARKED_SHARE: usize = 64;
const MAX_PARKED: usize = 64;

/// A frame source over a piece of memory: orders 0 to 10. To take and to give are O(orders); single
/// frames are O(1) while some are parked.
///
/// Buddies join at once, but for at most 64 single frames, and never more than one of 64 of the
/// memory, which are parked for who takes one next. They join theirs as soon as a run is asked for
/// that is not there: that one time to take costs O(64 × orders).
///
/// ```
/// use mempool::{Buddy, FrameEntry, FrameSource};
///
/// let mut memory = vec![0u8; 256 * mempool::FRAME_SIZE];
/// let mut table = vec![FrameEntry::EMPTY; Buddy::table_len(memory.len())];
/// let source = <Buddy>::new(&mut memory, &mut table).unwrap();
/// assert!(source.total() >= 255);
/// ```
pub struct Buddy<'m, R = CriticalSection> {
    arena: Arena<'m>,
    lists: Mutex<R, Lists<'m>>,
    /// What the lists count, to be read without their lock.
    free: AtomicUsize,
}

impl Buddy<'_> {
    /// Table entries needed for `bytes` of memory.
    #[must_use]
    pub const fn table_len(bytes: usize) -> usize {
        bytes / FRAME_SIZE
    }
}

impl<'m, R: RawMutex> Buddy<'m, R> {
    /// The largest order.
    pub const MAX_ORDER: u8 = ORDERS as u8 - 1;

    /// Manages `memory` from its first frame boundary to its last. O(frames).
    ///
    /// # Errors
    ///
    /// [`BuddyError`] if the memory holds no frame, or the table does not cover it.
    pub fn new(memory: &'m mut [u8], table: &'m mut [FrameEntry]) -> Result<Self, BuddyError> {
        Self::over(Arena::new(memory), table)
    }

    pub(crate) fn over(arena: Arena<'m>, table: &'m mut [FrameEntry]) -> Result<Self, BuddyError> {
        let frames = arena.frames();
        if frames == 0 {
            return Err(BuddyError::NoFrame);
        }
        if frames > table.len() {
            return Err(BuddyError::ShortTable {
                needed: frames,
                given: table.len(),
            });
        }
        if frames >= NIL as usize {
            return Err(BuddyError::TooLarge);
        }
        let lists = Lists::new(&mut table[..frames]);
        Ok(Buddy {
            arena,
            free: AtomicUsize::new(lists.free()),
            lists: Mutex::new(lists),
        })
    }

    pub(crate) fn arena(&self) -> &Arena<'m> {
        &self.arena
    }

    /// Free frames, as of the last time that somebody took or gave some. O(1), without the lock.
    #[inline]
    pub(crate) fn free(&self) -> usize {
        self.free.load(Ordering::Relaxed)
    }

    /// Takes the run whose first frame it returns.
    #[inline]
    pub(crate) fn take(&self, order: u8) -> Option<usize> {
        let mut lists = self.lists.lock();
        let taken = lists.take(order);
        self.free.store(lists.free(), Ordering::Relaxed);
        taken
    }

    /// Gives the run at `index` back.
    ///
    /// # Panics
    ///
    /// If no run of that order was handed out there: the books would be wrong from now on.
    #[inline]
    pub(crate) fn give(&self, index: usize, order: u8) {
        let mut lists = self.lists.lock();
        lists.give(index, order);
        self.free.store(lists.free(), Ordering::Relaxed);
    }
}

impl<R> fmt::Debug for Buddy<'_, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buddy")
            .field("arena", &self.arena)
            .finish_non_exhaustive()
    }
}

/// Why a [`Buddy`] cannot manage what it was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum BuddyError {
    /// Not one whole, aligned frame.
    NoFrame,
    /// The table has fewer entries than there are frames.
    ShortTable {
        /// Entries needed.
        needed: usize,
        /// Entries given.
        given: usize,
    },
    /// More frames than the table can index (16 TiB).
    TooLarge,
}

impl fmt::Display for BuddyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BuddyError::NoFrame => write!(f, "the memory holds not one aligned frame"),
            BuddyError::ShortTable { needed, given } => {
                write!(f, "the frame table has {given} entries and needs {needed}")
            }
            BuddyError::TooLarge => write!(f, "the memory has more frames than a table can index"),
        }
    }
}

impl core::error::Error for BuddyError {}

/// The books of one frame; opaque to the caller, who only provides the storage.
#[derive(Debug, Clone, Copy)]
pub struct FrameEntry {
    next: u32,
    prev: u32,
    state: State,
    order: u8,
}

impl FrameEntry {
    /// What a table is filled with before it is handed over.
    pub const EMPTY: FrameEntry = FrameEntry {
        next: NIL,
        prev: NIL,
        state: State::Inner,
        order: 0,
    };
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Inside a run, free or not.
    Inner,
    /// First frame of a free run.
    Free,
    /// A single free frame that has not joined its buddy yet.
    Parked,
    /// First frame of a run that is handed out.
    Taken,
}

/// The free lists, one for each order.
struct Lists<'m> {
    table: &'m mut [FrameEntry],
    heads: [u32; ORDERS],
    /// A bit for each order whose list is not empty.
    occupied: u32,
    /// Free frames, those that are parked included.
    free: usize,
    /// A stack of single frames, linked by `next`.
    parked: u32,
    /// How many more may be parked.
    room: usize,
}

impl<'m> Lists<'m> {
    fn new(table: &'m mut [FrameEntry]) -> Self {
        table.fill(FrameEntry::EMPTY);
        let frames = table.len();
        let mut lists = Lists {
            table,
            heads: [NIL; ORDERS],
            occupied: 0,
            free: frames,
            parked: NIL,
            room: (frames / PARKED_SHARE).min(MAX_PARKED),
        };
        // Cover the memory with the largest aligned runs, from the end, so that low addresses are
        // at the heads of their lists.
        let mut end = frames;
        while end > 0 {
            let order = (end.trailing_zeros() as usize).min(ORDERS - 1);
            end -= 1 << order;
            lists.link(end, order);
        }
        lists
    }

    #[inline]
    fn free(&self) -> usize {
        self.free
    }

    /// See [`Buddy::take`].
    #[inline]
    fn take(&mut self, order: u8) -> Option<usize> {
        if order == 0 && self.parked != NIL {
            let index = self.unpark();
            self.free -= 1;
            self.table[index].state = State::Taken;
            return Some(index);
        }
        self.take_run(order)
    }

    fn take_run(&mut self, order: u8) -> Option<usize> {
        let order = usize::from(order);
        let mut from = match self.smallest(order) {
            Some(from) => from,
            None => {
                self.join_parked();
                self.smallest(order)?
            }
        };
        let index = self.heads[from] as usize;
        self.unlink(index, from);
        while from > order {
            from -= 1;
            self.link(index + (1 << from), from);
        }
        self.table[index].state = State::Taken;
        self.table[index].order = order as u8;
        self.free -= 1 << order;
        Some(index)
    }

    /// The smallest order, from `order` on, of which there is a run.
    fn smallest(&self, order: usize) -> Option<usize> {
        let large_enough = self.occupied.checked_shr(order as u32)?;
        (large_enough != 0).then(|| order + large_enough.trailing_zeros() as usize)
    }

    /// See [`Buddy::give`].
    #[inline]
    fn give(&mut self, index: usize, order: u8) {
        let entry = self.table[index];
        assert!(
            entry.state == State::Taken && entry.order == order,
            "a frame was freed that was not handed out"
        );
        self.free += 1 << order;
        if order == 0 && self.room > 0 {
            self.park(index);
        } else {
            self.join(index, usize::from(order));
        }
    }

    #[inline]
    fn park(&mut self, index: usize) {
        self.table[index].state = State::Parked;
        self.table[index].next = self.parked;
        self.parked = index as u32;
        self.room -= 1;
    }

    #[inline]
    fn unpark(&mut self) -> usize {
        let index = self.parked as usize;
        self.parked = self.table[index].next;
        self.room += 1;
        index
    }

    #[cold]
    fn join_parked(&mut self) {
        while self.parked != NIL {
            let index = self.unpark();
            self.join(index, 0);
        }
    }

    /// Makes the run at `index` a free one, together with every buddy that is free.
    fn join(&mut self, mut index: usize, mut order: usize) {
        self.table[index].state = State::Inner;
        while order + 1 < ORDERS {
            let buddy = index ^ (1 << order);
            match self.table.get(buddy) {
                Some(b) if b.state == State::Free && usize::from(b.order) == order => {}
                _ => break,
            }
            self.unlink(buddy, order);
            index &= buddy;
            order += 1;
        }
        self.link(index, order);
    }

    fn link(&mut self, index: usize, order: usize) {
        let head = self.heads[order];
        self.table[index] = FrameEntry {
            next: head,
            prev: NIL,
            state: State::Free,
            order: order as u8,
        };
        if head != NIL {
            self.table[head as usize].prev = index as u32;
        }
        self.heads[order] = index as u32;
        self.occupied |= 1 << order;
    }

    fn unlink(&mut self, index: usize, order: usize) {
        let FrameEntry { next, prev, .. } = self.table[index];
        match prev {
            NIL => self.heads[order] = next,
            _ => self.table[prev as usize].next = next,
        }
        match next {
            NIL if prev == NIL => self.occupied &= !(1 << order),
            NIL => {}
            _ => self.table[next as usize].prev = prev,
        }
        self.table[index].state = State::Inner;
    }
}

#[cfg(test)]
mod tests;
