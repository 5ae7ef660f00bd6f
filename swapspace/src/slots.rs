//! The slot map: which slots of an area are taken.
//!
//! A bitmap with summaries: a bit of level `k + 1` says that a word of level `k` is full, so that a
//! free slot is found in a bounded number of steps however full the map is. Allocation is next-fit
//! in clusters of 32 slots: pages that are written out one after the other lie one after the other.

use crate::SlotRun;

/// Levels that 2^32 slots need.
const MAX_LEVELS: usize = 7;

/// Runs that one allocation looks at before it takes the longest that it saw.
const PROBES: usize = 8;

/// Words of a map of `slots` slots: one bit for each, and summaries (about 3 per cent).
pub(crate) const fn map_len(slots: u32) -> usize {
    let mut words = slots.div_ceil(32) as usize;
    let mut total = words;
    while words > 1 {
        words = words.div_ceil(32);
        total += words;
    }
    total
}

pub(crate) struct SlotMap<'m> {
    words: &'m mut [u32],
    /// Where each level starts; `starts[levels]` is the end of the last.
    starts: [usize; MAX_LEVELS + 1],
    levels: usize,
    slots: u32,
    cursor: u32,
    free: u32,
    retired: u32,
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
        for slot in first..first + len {
            self.set(slot);
        }
        self.free -= len;
        self.cursor = first + len;
        Some(SlotRun::new(first, len))
    }

    /// Gives a slot back. O(log32 slots).
    ///
    /// # Panics
    ///
    /// If the slot is not taken: its entry came from another area.
    pub(crate) fn free(&mut self, slot: u32) {
        self.assert_taken(slot);
        self.clear(slot);
        self.free += 1;
    }

    /// Never gives the slot out again.
    ///
    /// # Panics
    ///
    /// As [`free`](Self::free).
    pub(crate) fn retire(&mut self, slot: u32) {
        self.assert_taken(slot);
        self.retired += 1;
    }

    fn assert_taken(&self, slot: u32) {
        let taken = slot < self.slots && self.words[slot as usize / 32] & (1 << (slot % 32)) != 0;
        assert!(taken, "slot {slot} is not allocated in this area");
    }

    /// Free slots from `slot` on, within its cluster.
    fn run_at(&self, slot: u32) -> u32 {
        let bit = slot % 32;
        (self.words[slot as usize / 32] >> bit)
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
                let free = !self.words[word] & (!0 << (index % 32));
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
            let free = !self.words[self.starts[level] + index];
            index = index * 32 + free.trailing_zeros() as usize;
        }
        u32::try_from(index).ok()
    }

    fn set(&mut self, slot: u32) {
        let mut index = slot as usize;
        for level in 0..self.levels {
            let word = &mut self.words[self.starts[level] + index / 32];
            *word |= 1 << (index % 32);
            if *word != !0 {
                return;
            }
            index /= 32;
        }
    }

    fn clear(&mut self, slot: u32) {
        let mut index = slot as usize;
        for level in 0..self.levels {
            let word = &mut self.words[self.starts[level] + index / 32];
            let was_full = *word == !0;
            *word &= !(1 << (index % 32));
            if !was_full {
                return;
            }
            index /= 32;
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::collections::BTreeSet;
    use alloc::vec;
    use alloc::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    fn with_map<T>(slots: u32, run: impl FnOnce(SlotMap<'_>) -> T) -> T {
        let mut words = vec![0xdead_beef; map_len(slots)];
        let mut map = SlotMap::new(&mut words);
        map.reset(slots);
        run(map)
    }

    #[test]
    fn neighbours_in_time_are_neighbours_in_slots() {
        with_map(256, |mut map| {
            for i in 0..32 {
                let run = map.alloc(8).unwrap();
                assert_eq!((run.first().0, run.len()), (i * 8, 8));
            }
            assert_eq!(map.alloc(1), None);
        });
    }

    #[test]
    fn a_full_run_is_preferred_to_the_next_hole() {
        with_map(128, |mut map| {
            let _held: Vec<_> = map.alloc(8).unwrap().chain(map.alloc(3).unwrap()).collect();
            let run = map.alloc(32).unwrap();
            assert_eq!((run.first().0, run.len()), (32, 32));
        });
    }

    #[test]
    fn retired_slots_never_come_back() {
        with_map(40, |mut map| {
            let slots: Vec<u32> = core::iter::from_fn(|| map.alloc(1))
                .map(|run| run.first().0)
                .collect();
            assert_eq!(slots.len(), 40);
            for slot in slots {
                if slot % 2 == 0 {
                    map.retire(slot);
                } else {
                    map.free(slot);
                }
            }
            assert_eq!((map.retired(), map.free_slots(), map.used()), (20, 20, 0));
            while let Some(run) = map.alloc(8) {
                assert_eq!((run.first().0 % 2, run.len()), (1, 1));
            }
        });
    }

    #[test]
    #[should_panic(expected = "slot 3 is not allocated in this area")]
    fn freeing_a_free_slot_is_detected() {
        with_map(8, |mut map| map.free(3));
    }

    proptest! {
        #[test]
        fn agrees_with_a_set(
            slots in prop_oneof![1u32..100, Just(32), Just(1024), 1000u32..5000],
            ops in prop::collection::vec((any::<bool>(), 1u32..=8, any::<prop::sample::Index>()), 1..600),
        ) {
            with_map(slots, |mut map| {
                let mut taken = BTreeSet::new();
                for (alloc, want, which) in ops {
                    if alloc || taken.is_empty() {
                        let run = map.alloc(want);
                        prop_assert_eq!(run.is_none(), taken.len() == slots as usize);
                        for entry in run.into_iter().flatten() {
                            prop_assert!(entry.slot().0 < slots);
                            prop_assert!(taken.insert(entry.slot().0), "given out twice");
                        }
                    } else {
                        let slot = *which.get(&taken.iter().collect::<Vec<_>>());
                        let slot = *slot;
                        map.free(slot);
                        taken.remove(&slot);
                    }
                    prop_assert_eq!(map.used() as usize, taken.len());
                }
                // However the map got there, every free slot can still be found.
                while let Some(run) = map.alloc(1) {
                    prop_assert!(taken.insert(run.first().0));
                }
                prop_assert_eq!(taken.len(), slots as usize);
                Ok(())
            })?;
        }
    }
}
