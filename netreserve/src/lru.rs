//! A map in storage of the caller's whose entries stay where they are, and which knows the oldest of two
//! kinds of them.

use crate::probe::Keyed;

const NIL: u32 = u32::MAX;

/// One place in the storage of a [`NeighbourCache`](crate::NeighbourCache) or a
/// [`Reassembly`](crate::Reassembly).
#[derive(Debug)]
pub struct LruSlot<E> {
    entry: Option<E>,
    /// The first entry whose hash leads to this slot, and the next with the same hash as this entry.
    bucket: u32,
    chain: u32,
    /// Neighbours by age in the entry's list; of a free slot, the next free one.
    older: u32,
    newer: u32,
    list: u8,
}

impl<E> LruSlot<E> {
    /// Nothing is in it.
    pub const EMPTY: Self = LruSlot {
        entry: None,
        bucket: NIL,
        chain: NIL,
        older: NIL,
        newer: NIL,
        list: 0,
    };
}

impl<E> Default for LruSlot<E> {
    fn default() -> Self {
        LruSlot::EMPTY
    }
}

/// Which of the two kinds an entry is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Anybody's.
    Common = 0,
    /// Of VMIO.
    Vmio = 1,
}

/// Entries by key, and each kind by age. Every operation takes O(1) as long as keys are not chosen to
/// collide, and never more than O(slots).
#[derive(Debug)]
pub(crate) struct Lru<'m, E> {
    slots: &'m mut [LruSlot<E>],
    len: usize,
    free: u32,
    oldest: [u32; 2],
    newest: [u32; 2],
}

impl<'m, E: Keyed> Lru<'m, E> {
    /// A map over `slots`, emptied; no more than 2^32 - 1 of them are used. O(slots).
    pub(crate) fn new(slots: &'m mut [LruSlot<E>]) -> Self {
        let usable = slots.len().min(NIL as usize);
        let slots = &mut slots[..usable];
        let mut free = NIL;
        for (index, slot) in (0..NIL).zip(slots.iter_mut()) {
            *slot = LruSlot {
                newer: free,
                ..LruSlot::EMPTY
            };
            free = index;
        }
        Lru {
            slots,
            len: 0,
            free,
            oldest: [NIL; 2],
            newest: [NIL; 2],
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn capacity(&self) -> usize {
        self.slots.len()
    }

    pub(crate) fn find(&self, key: E::Key) -> Option<u32> {
        if self.slots.is_empty() {
            return None;
        }
        let mut index = self.slots[self.home(key)].bucket;
        while let Some(slot) = self.slots.get(index as usize) {
            if slot.entry.as_ref()?.key() == key {
                return Some(index);
            }
            index = slot.chain;
        }
        None
    }

    pub(crate) fn get(&self, index: u32) -> Option<&E> {
        self.slots.get(index as usize)?.entry.as_ref()
    }

    /// The key must stay as it is.
    pub(crate) fn get_mut(&mut self, index: u32) -> Option<&mut E> {
        self.slots.get_mut(index as usize)?.entry.as_mut()
    }

    /// Puts `entry` in, whose key must not be there yet, as the newest of its kind; gives it back when
    /// every slot is taken.
    pub(crate) fn insert(&mut self, kind: Kind, entry: E) -> Result<u32, E> {
        let index = self.free;
        let Some(slot) = self.slots.get_mut(index as usize) else {
            return Err(entry);
        };
        self.free = slot.newer;
        let key = entry.key();
        slot.entry = Some(entry);
        let home = self.home(key);
        let first = core::mem::replace(&mut self.slots[home].bucket, index);
        self.slots[index as usize].chain = first;
        self.len += 1;
        self.link(index, kind);
        Ok(index)
    }

    pub(crate) fn remove(&mut self, index: u32) -> Option<E> {
        let entry = self.slots.get_mut(index as usize)?.entry.take()?;
        self.unlink(index);
        let home = self.home(entry.key());
        let next = core::mem::replace(&mut self.slots[index as usize].chain, NIL);
        let mut at = self.slots[home].bucket;
        if at == index {
            self.slots[home].bucket = next;
        } else {
            while self.slots[at as usize].chain != index {
                at = self.slots[at as usize].chain;
            }
            self.slots[at as usize].chain = next;
        }
        self.slots[index as usize].newer = core::mem::replace(&mut self.free, index);
        self.len -= 1;
        Some(entry)
    }

    /// Makes an entry the newest of a kind.
    pub(crate) fn touch(&mut self, index: u32, kind: Kind) {
        if self.get(index).is_some() {
            self.unlink(index);
            self.link(index, kind);
        }
    }

    #[cfg(test)]
    fn kind(&self, index: u32) -> Kind {
        match self.slots.get(index as usize).map(|slot| slot.list) {
            Some(1) => Kind::Vmio,
            _ => Kind::Common,
        }
    }

    pub(crate) fn oldest(&self, kind: Kind) -> Option<u32> {
        let index = self.oldest[kind as usize];
        self.get(index).map(|_| index)
    }

    /// The one after `index` of its kind.
    pub(crate) fn newer(&self, index: u32) -> Option<u32> {
        let newer = self.slots.get(index as usize)?.newer;
        self.get(newer).map(|_| newer)
    }

    fn link(&mut self, index: u32, kind: Kind) {
        let list = kind as usize;
        let newest = core::mem::replace(&mut self.newest[list], index);
        let slot = &mut self.slots[index as usize];
        (slot.older, slot.newer, slot.list) = (newest, NIL, list as u8);
        match self.slots.get_mut(newest as usize) {
            Some(newest) => newest.newer = index,
            None => self.oldest[list] = index,
        }
    }

    fn unlink(&mut self, index: u32) {
        let LruSlot {
            older, newer, list, ..
        } = self.slots[index as usize];
        let list = usize::from(list);
        match self.slots.get_mut(older as usize) {
            Some(older) => older.newer = newer,
            None => self.oldest[list] = newer,
        }
        match self.slots.get_mut(newer as usize) {
            Some(newer) => newer.older = older,
            None => self.newest[list] = older,
        }
    }

    fn home(&self, key: E::Key) -> usize {
        ((u64::from(E::hash(key)) * self.slots.len() as u64) >> 32) as usize
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    /// Hashes to a few homes only, so that chains are long.
    #[derive(Debug, PartialEq, Eq)]
    struct Item(u8);

    impl Keyed for Item {
        type Key = u8;

        fn key(&self) -> u8 {
            self.0
        }

        fn hash(key: u8) -> u32 {
            u32::from(key % 4) << 30
        }
    }

    fn kind(vmio: bool) -> Kind {
        if vmio { Kind::Vmio } else { Kind::Common }
    }

    fn by_age(lru: &Lru<'_, Item>, kind: Kind) -> Vec<u8> {
        core::iter::successors(lru.oldest(kind), |index| lru.newer(*index))
            .map(|index| lru.get(index).unwrap().0)
            .collect()
    }

    proptest! {
        #[test]
        fn behaves_like_a_map_and_two_lists(
            ops in prop::collection::vec((0u8..4, 0u8..24, any::<bool>()), 0..300)
        ) {
            let mut storage: Vec<_> = (0..11).map(|_| LruSlot::EMPTY).collect();
            let mut lru = Lru::new(&mut storage);
            let mut model: [Vec<u8>; 2] = Default::default();
            for (op, key, vmio) in ops {
                let found = lru.find(key);
                let at = model.iter().position(|list| list.contains(&key));
                prop_assert_eq!(found.map(|index| lru.kind(index) as usize), at);
                match (op, found) {
                    (0, Some(index)) => {
                        prop_assert_eq!(lru.remove(index), Some(Item(key)));
                        model[at.unwrap()].retain(|k| *k != key);
                    }
                    (1, Some(index)) => {
                        lru.touch(index, kind(vmio));
                        model[at.unwrap()].retain(|k| *k != key);
                        model[usize::from(vmio)].push(key);
                    }
                    (_, None) => {
                        let room = model.iter().map(Vec::len).sum::<usize>() < 11;
                        prop_assert_eq!(lru.insert(kind(vmio), Item(key)).is_ok(), room);
                        if room {
                            model[usize::from(vmio)].push(key);
                        }
                    }
                    _ => {}
                }
                prop_assert_eq!(lru.len(), model.iter().map(Vec::len).sum::<usize>());
                prop_assert_eq!(by_age(&lru, Kind::Common), model[0].clone());
                prop_assert_eq!(by_age(&lru, Kind::Vmio), model[1].clone());
            }
        }
    }

    #[test]
    fn a_map_without_slots_is_always_full() {
        let mut lru = Lru::new(&mut []);
        assert_eq!((lru.find(1), lru.oldest(Kind::Vmio)), (None, None));
        assert_eq!(lru.insert(Kind::Common, Item(1)), Err(Item(1)));
    }
}
