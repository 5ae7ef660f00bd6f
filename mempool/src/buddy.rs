//! The built-in frame source: a binary buddy allocator over the caller's memory.
//!
//! Its books lie in a table of the caller's, apart from the memory that it manages: 12 bytes for
//! each frame of 4096, 0.3 %. The lists are doubly linked by index, so that a buddy is taken out of
//! the middle in constant time.

use core::fmt;

use lock_api::{Mutex, RawMutex};

use crate::raw::Arena;
use crate::{CriticalSection, FRAME_SIZE};

/// Orders 0 to 10: 4 KiB to 4 MiB.
const ORDERS: usize = 11;
const NIL: u32 = u32::MAX;

/// A frame source over a piece of memory: orders 0 to 10, O(orders) to take and to give, buddies
/// coalesce at once.
///
/// ```
/// use mempool::{Buddy, FrameEntry, FrameSource};
///
/// let mut memory = vec![0u8; 1 << 20];
/// let mut table = vec![FrameEntry::EMPTY; Buddy::table_len(memory.len())];
/// let source = <Buddy>::new(&mut memory, &mut table).unwrap();
/// assert!(source.total() >= 255);
/// ```
pub struct Buddy<'m, R = CriticalSection> {
    arena: Arena<'m>,
    lists: Mutex<R, Lists<'m>>,
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
        let arena = Arena::new(memory);
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
            lists: Mutex::new(lists),
        })
    }

    pub(crate) fn arena(&self) -> &Arena<'m> {
        &self.arena
    }

    pub(crate) fn lists(&self) -> &Mutex<R, Lists<'m>> {
        &self.lists
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
    /// First frame of a run that is handed out.
    Taken,
}

/// The free lists, one for each order.
pub(crate) struct Lists<'m> {
    table: &'m mut [FrameEntry],
    heads: [u32; ORDERS],
    free: usize,
}

impl<'m> Lists<'m> {
    fn new(table: &'m mut [FrameEntry]) -> Self {
        table.fill(FrameEntry::EMPTY);
        let frames = table.len();
        let mut lists = Lists {
            table,
            heads: [NIL; ORDERS],
            free: frames,
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

    pub(crate) fn free(&self) -> usize {
        self.free
    }

    /// Takes the run whose first frame it returns.
    pub(crate) fn take(&mut self, order: u8) -> Option<usize> {
        let order = usize::from(order);
        let mut from = (order..ORDERS).find(|&o| self.heads[o] != NIL)?;
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

    /// Gives the run at `index` back.
    ///
    /// # Panics
    ///
    /// If no run of that order was handed out there: the books would be wrong from now on.
    pub(crate) fn give(&mut self, mut index: usize, order: u8) {
        let entry = self.table[index];
        assert!(
            entry.state == State::Taken && entry.order == order,
            "a frame was freed that was not handed out"
        );
        self.free += 1 << order;
        let mut order = usize::from(order);
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
    }

    fn unlink(&mut self, index: usize, order: usize) {
        let FrameEntry { next, prev, .. } = self.table[index];
        match prev {
            NIL => self.heads[order] = next,
            _ => self.table[prev as usize].next = next,
        }
        if next != NIL {
            self.table[next as usize].prev = prev;
        }
        self.table[index].state = State::Inner;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    #[test]
    fn odd_sizes_are_covered_whole() {
        for frames in 1..70 {
            let mut table = alloc::vec![FrameEntry::EMPTY; frames];
            let mut lists = Lists::new(&mut table);
            let mut seen = alloc::vec![false; frames];
            while let Some(i) = lists.take(0) {
                assert!(!core::mem::replace(&mut seen[i], true));
            }
            assert!(seen.iter().all(|s| *s));
        }
    }

    #[test]
    #[should_panic(expected = "not handed out")]
    fn double_free_is_detected() {
        let mut table = [FrameEntry::EMPTY; 4];
        let mut lists = Lists::new(&mut table);
        let index = lists.take(0).unwrap();
        lists.give(index, 0);
        lists.give(index, 0);
    }

    proptest! {
        #[test]
        fn runs_never_overlap_and_everything_coalesces(ops in prop::collection::vec((any::<bool>(), 0u8..6, any::<prop::sample::Index>()), 1..200)) {
            let mut table = [FrameEntry::EMPTY; 93];
            let mut lists = Lists::new(&mut table);
            let mut held: Vec<(usize, u8)> = Vec::new();
            for (take, order, which) in ops {
                if take {
                    if let Some(i) = lists.take(order) {
                        let run = i..i + (1 << order);
                        prop_assert!(run.end <= 93 && i % (1 << order) == 0);
                        for &(j, o) in &held {
                            prop_assert!(run.end <= j || j + (1 << o) <= run.start);
                        }
                        held.push((i, order));
                    }
                } else if !held.is_empty() {
                    let (i, o) = held.swap_remove(which.index(held.len()));
                    lists.give(i, o);
                }
                let out: usize = held.iter().map(|&(_, o)| 1 << o).sum();
                prop_assert_eq!(lists.free(), 93 - out);
            }
            for (i, o) in held {
                lists.give(i, o);
            }
            // 93 = 64 + 16 + 8 + 4 + 1
            prop_assert!(lists.take(6).is_some() && lists.take(4).is_some());
        }
    }
}
