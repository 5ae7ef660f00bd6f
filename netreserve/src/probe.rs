//! A hash table with open addressing, in storage of the caller's.

/// An entry of a table, known by its key.
pub(crate) trait Keyed {
    type Key: Copy + Eq;

    fn key(&self) -> Self::Key;

    fn hash(key: Self::Key) -> u32;
}

/// One place in the storage of a [`FlowTable`](crate::FlowTable) or a
/// [`SocketTable`](crate::SocketTable).
///
/// ```
/// use netreserve::{Flow, Slot};
///
/// let storage: [Slot<Flow>; 8] = [const { Slot::EMPTY }; 8];
/// ```
#[derive(Debug, Clone)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Slot<E>(Option<E>);

impl<E> Slot<E> {
    /// Nothing is in it.
    pub const EMPTY: Slot<E> = Slot(None);
}

impl<E> Default for Slot<E> {
    fn default() -> Self {
        Slot::EMPTY
    }
}

/// Linear probing; a removal moves what follows back, so that there are no tombstones and a miss
/// ends at the first empty slot.
#[derive(Debug)]
pub(crate) struct Probe<'m, E> {
    slots: &'m mut [Slot<E>],
    len: usize,
}

impl<'m, E: Keyed> Probe<'m, E> {
    /// A table over `slots`, emptied.
    pub(crate) fn new(slots: &'m mut [Slot<E>]) -> Self {
        slots.fill_with(|| Slot::EMPTY);
        Probe { slots, len: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Slots that are empty.
    pub(crate) fn free(&self) -> usize {
        self.slots.len() - self.len
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &E> {
        self.slots.iter().filter_map(|slot| slot.0.as_ref())
    }

    #[inline]
    pub(crate) fn get(&self, key: E::Key) -> Option<&E> {
        self.slots[self.find(key)?].0.as_ref()
    }

    pub(crate) fn get_mut(&mut self, key: E::Key) -> Option<&mut E> {
        let index = self.find(key)?;
        self.slots[index].0.as_mut()
    }

    /// Puts `entry` in, whose key must not be there yet; gives it back when every slot is taken.
    pub(crate) fn insert(&mut self, entry: E) -> Result<(), E> {
        if self.len == self.slots.len() {
            return Err(entry);
        }
        let mut index = self.home(entry.key());
        while self.slots[index].0.is_some() {
            index = self.next(index);
        }
        self.slots[index].0 = Some(entry);
        self.len += 1;
        Ok(())
    }

    pub(crate) fn remove(&mut self, key: E::Key) -> Option<E> {
        let start = self.find(key)?;
        let removed = self.slots[start].0.take();
        self.len -= 1;
        let (mut hole, mut index) = (start, self.next(start));
        while index != start
            && let Some(entry) = &self.slots[index].0
        {
            // It may move into the hole unless it would then lie before its home.
            let from_home = self.distance(self.home(entry.key()), index);
            if from_home >= self.distance(hole, index) {
                self.slots[hole].0 = self.slots[index].0.take();
                hole = index;
            }
            index = self.next(index);
        }
        removed
    }

    #[inline]
    fn find(&self, key: E::Key) -> Option<usize> {
        if self.slots.is_empty() {
            return None;
        }
        let home = self.home(key);
        let mut index = home;
        loop {
            if self.slots[index].0.as_ref()?.key() == key {
                return Some(index);
            }
            index = self.next(index);
            if index == home {
                return None;
            }
        }
    }

    #[inline]
    fn home(&self, key: E::Key) -> usize {
        // The high half of the product: a hash of 32 bits scaled to the number of slots.
        ((u64::from(E::hash(key)) * self.slots.len() as u64) >> 32) as usize
    }

    fn next(&self, index: usize) -> usize {
        if index + 1 == self.slots.len() {
            0
        } else {
            index + 1
        }
    }

    /// Steps from `from` to `to`, going round.
    fn distance(&self, from: usize, to: usize) -> usize {
        if to >= from {
            to - from
        } else {
            to + self.slots.len() - from
        }
    }
}

/// Spreads words over 32 bits; every bit of the input reaches every bit of the result.
pub(crate) fn hash_words(words: &[u32]) -> u32 {
    words.iter().fold(0x9e37_79b9, |hash, &word| {
        let mut hash = (hash ^ word).wrapping_mul(0x85eb_ca6b);
        hash ^= hash >> 13;
        hash = hash.wrapping_mul(0xc2b2_ae35);
        hash ^ (hash >> 16)
    })
}

#[cfg(test)]
mod tests {
    use alloc::vec;
    use alloc::vec::Vec;
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// Hashes to a few homes only, so that runs collide and go round the end.
    impl Keyed for u8 {
        type Key = u8;

        fn key(&self) -> u8 {
            *self
        }

        fn hash(key: u8) -> u32 {
            u32::from(key % 4) << 30
        }
    }

    proptest! {
        #[test]
        fn behaves_like_a_set(ops in proptest::collection::vec((any::<bool>(), 0u8..24), 0..200)) {
            let mut storage = vec![Slot::EMPTY; 11];
            let mut table = Probe::new(&mut storage);
            let mut model = BTreeSet::new();
            for (add, key) in ops {
                if !add {
                    prop_assert_eq!(table.remove(key).is_some(), model.remove(&key));
                } else if table.get(key).is_none() {
                    let room = model.len() < 11;
                    prop_assert_eq!(table.insert(key).is_ok(), room);
                    if room {
                        model.insert(key);
                    }
                }
                prop_assert_eq!(table.len(), model.len());
                let found: Vec<bool> = (0..24).map(|k| table.get(k).is_some()).collect();
                let expected: Vec<bool> = (0..24).map(|k| model.contains(&k)).collect();
                prop_assert_eq!(found, expected);
            }
        }
    }

    #[test]
    fn a_table_without_slots_is_always_full() {
        let mut table = Probe::<'_, u8>::new(&mut []);
        assert_eq!(table.get(1), None);
        assert_eq!(table.insert(1), Err(1));
    }
}
