//! The slot map: which slots of an area are taken, and by how many owners.
//!
//! A bitmap with summaries: a bit of level `k + 1` says that a word of level `k` is full, so that a
//! free slot is found in a bounded number of steps however full the map is. Allocation is next-fit
//! in clusters of 32 slots: pages that are written out one after the other lie one after the other.
//!
//! # How large it is
//!
//! A cluster has a word of the bitmap and six *planes*: bit `i` of plane `p` is bit `p` of the
//! number that belongs to its slot `i`. Five planes count owners, the sixth marks slots that are to
//! be retired. With the summaries, a word in 31 of the level below, that is 7 + 1/31 bits, less
//! than a byte for each slot; the last word of each level is rounded up, at most 14 words in all.

use core::fmt;

use crate::SlotRun;

/// Levels that 2^32 slots need.
const MAX_LEVELS: usize = 7;

/// Runs that one allocation looks at before it takes the longest that it saw.
const PROBES: usize = 8;

/// Planes that count owners.
const COUNTING: usize = 5;

/// The plane of slots whose last owner retires them.
const DOOMED: usize = COUNTING;

/// Words of a cluster beside the bitmap's.
const PLANES: usize = COUNTING + 1;

/// The most owners of one slot.
const MAX_OWNERS: u32 = (1 << COUNTING) - 1;

/// Words of a map of `slots` slots.
pub(crate) const fn map_len(slots: u32) -> usize {
    let clusters = slots.div_ceil(32) as usize;
    let mut words = clusters;
    let mut total = words;
    while words > 1 {
        words = words.div_ceil(32);
        total += words;
    }
    total + clusters * PLANES
}

pub(crate) struct SlotMap<'m> {
    words: &'m mut [u32],
    /// Where each level starts; `starts[levels]` is the end of the last, where the planes start.
    starts: [usize; MAX_LEVELS + 1],
    levels: usize,
    slots: u32,
    cursor: u32,
    free: u32,
    retired: u32,
    /// Words that were looked at or changed.
    #[cfg(test)]
    touched: core::cell::Cell<u64>,
}

impl<'m> SlotMap<'m> {
    /// A map without slots over `words`; [`reset`](Self::reset) gives it some.
    pub(crate) fn new(words: &'m mut [u32]) -> Self {
        SlotMap {
            words,
            starts: [0; MAX_LEVELS + 1],
            levels: 0,
            slots: 0,
            cursor: 0,
            free: 0,
            retired: 0,
            #[cfg(test)]
            touched: core::cell::Cell::new(0),
        }
    }

    pub(crate) fn words(&self) -> usize {
        self.words.len()
    }

    /// Makes `slots` slots, all free. O(slots / 32). The words must suffice for [`map_len`].
    pub(crate) fn reset(&mut self, slots: u32) {
        debug_assert!(map_len(slots) <= self.words.len());
        self.words.fill(0);
        let (mut level, mut start, mut bits) = (0, 0, slots as usize);
        loop {
            let words = bits.div_ceil(32);
            self.starts[level] = start;
            // What lies beyond the end is taken for ever.
            if !bits.is_multiple_of(32) {
                self.words[start + words - 1] = !0 << (bits % 32);
            }
            start += words;
            level += 1;
            if words <= 1 {
                break;
            }
            bits = words;
        }
        self.starts[level] = start;
        self.levels = level;
        self.slots = slots;
        self.cursor = 0;
        self.free = slots;
        self.retired = 0;
    }

    pub(crate) fn free_slots(&self) -> u32 {
        self.free
    }

    pub(crate) fn retired(&self) -> u32 {
        self.retired
    }

    /// Slots that somebody owns.
    pub(crate) fn used(&self) -> u32 {
        self.slots - self.free - self.retired
    }

    /// Takes up to `want` consecutive slots: as many as are asked for if the next few free runs
    /// have them, the longest of those runs otherwise. O(log32 slots).
    pub(crate) fn alloc(&mut self, want: u32) -> Option<SlotRun> {
        if self.free == 0 || want == 0 {
            return None;
        }
        let (mut first, mut len) = (0, 0);
        let mut from = self.cursor;
        for _ in 0..PROBES {
            let start = self.next_free(from).or_else(|| self.next_free(0))?;
            let run = self.run_at(start).min(want);
            if run > len {
                (first, len) = (start, run);
            }
            if len == want {
                break;
            }
            from = start + run;
        }
        // A run lies within a cluster.
        let bits = (!0 >> (32 - len)) << (first % 32);
        self.set(first, bits);
        *self.word_mut(self.plane(first, 0)) |= bits;
        self.free -= len;
        self.cursor = first + len;
        Some(SlotRun::new(first, len))
    }

    /// Takes a slot that is free out of use. Whether it was free. O(log32 slots).
    pub(crate) fn withdraw(&mut self, slot: u32) -> bool {
        let bit = 1 << (slot % 32);
        let free = slot < self.slots && self.word(slot as usize / 32) & bit == 0;
        if free {
            self.set(slot, bit);
            self.free -= 1;
            self.retired += 1;
        }
        free
    }

    /// Adds an owner. O(1).
    ///
    /// # Panics
    ///
    /// If the slot has no owner: its entry came from another area.
    pub(crate) fn dup(&mut self, slot: u32) -> Result<(), DupError> {
        let owners = self.owners(slot);
        if owners == MAX_OWNERS {
            return Err(DupError::TooManyOwners);
        }
        self.set_owners(slot, owners + 1);
        Ok(())
    }

    /// Owners of a slot, one at least. O(1).
    ///
    /// # Panics
    ///
    /// As [`dup`](Self::dup).
    pub(crate) fn owners(&self, slot: u32) -> u32 {
        let mut owners = 0;
        if slot < self.slots {
            for plane in 0..COUNTING {
                let word = self.word(self.plane(slot, plane));
                owners |= (word >> (slot % 32) & 1) << plane;
            }
        }
        assert!(owners > 0, "slot {slot} is not allocated in this area");
        owners
    }

    /// Takes an owner away; the last one gives the slot back. O(log32 slots).
    ///
    /// # Panics
    ///
    /// As [`dup`](Self::dup).
    pub(crate) fn free(&mut self, slot: u32) {
        let owners = self.owners(slot) - 1;
        self.set_owners(slot, owners);
        if owners > 0 {
            return;
        }
        let (doomed, bit) = (self.plane(slot, DOOMED), 1 << (slot % 32));
        if self.word(doomed) & bit != 0 {
            *self.word_mut(doomed) &= !bit;
            self.retired += 1;
        } else {
            self.clear(slot);
            self.free += 1;
        }
    }

    /// As [`free`](Self::free), but the slot is never given out again, once its last owner goes.
    ///
    /// # Panics
    ///
    /// As [`dup`](Self::dup).
    pub(crate) fn retire(&mut self, slot: u32) {
        if slot < self.slots {
            *self.word_mut(self.plane(slot, DOOMED)) |= 1 << (slot % 32);
        }
        self.free(slot);
    }

    /// Where the word of a plane is, for the cluster of a slot.
    fn plane(&self, slot: u32, plane: usize) -> usize {
        self.starts[self.levels] + slot as usize / 32 * PLANES + plane
    }

    fn set_owners(&mut self, slot: u32, owners: u32) {
        for plane in 0..COUNTING {
            let word = self.word_mut(self.plane(slot, plane));
            *word &= !(1 << (slot % 32));
            *word |= (owners >> plane & 1) << (slot % 32);
        }
    }

    fn word(&self, index: usize) -> u32 {
        #[cfg(test)]
        self.touched.set(self.touched.get() + 1);
        self.words[index]
    }

    fn word_mut(&mut self, index: usize) -> &mut u32 {
        #[cfg(test)]
        self.touched.set(self.touched.get() + 1);
        &mut self.words[index]
    }

    /// Free slots from `slot` on, within its cluster.
    fn run_at(&self, slot: u32) -> u32 {
        let bit = slot % 32;
        (self.word(slot as usize / 32) >> bit)
            .trailing_zeros()
            .min(32 - bit)
    }

    fn next_free(&self, from: u32) -> Option<u32> {
        let mut index = from as usize;
        let mut level = 0;
        // Up, past what is full …
        loop {
            if level == self.levels {
                return None;
            }
            let word = self.starts[level] + index / 32;
            if word < self.starts[level + 1] {
                let free = !self.word(word) & (!0 << (index % 32));
                if free != 0 {
                    index = index / 32 * 32 + free.trailing_zeros() as usize;
                    break;
                }
            }
            index = index / 32 + 1;
            level += 1;
        }
        // … and down to the first bit of what is not.
        while level > 0 {
            level -= 1;
            let free = !self.word(self.starts[level] + index);
            index = index * 32 + free.trailing_zeros() as usize;
        }
        u32::try_from(index).ok()
    }

    /// Marks slots of the cluster of `slot` as taken.
    fn set(&mut self, slot: u32, bits: u32) {
        let (mut index, mut bits) = (slot as usize / 32, bits);
        for level in 0..self.levels {
            let word = self.word_mut(self.starts[level] + index);
            *word |= bits;
            if *word != !0 {
                return;
            }
            bits = 1 << (index % 32);
            index /= 32;
        }
    }

    fn clear(&mut self, slot: u32) {
        let mut index = slot as usize;
        for level in 0..self.levels {
            let word = self.word_mut(self.starts[level] + index / 32);
            let was_full = *word == !0;
            *word &= !(1 << (index % 32));
            if !was_full {
                return;
            }
            index /= 32;
        }
    }
}

/// Why a slot could not get another owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum DupError {
    /// It has 31 already: copy the page instead.
    TooManyOwners,
}

impl fmt::Display for DupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DupError::TooManyOwners => f.write_str("the slot has too many owners"),
        }
    }
}

impl core::error::Error for DupError {}

#[cfg(test)]
mod tests;
