//! The table of calls in flight, found by transaction id in constant time.

/// Up to `N` values, each named by an xid.
///
/// The low bits of an xid are the index of its slot and the rest is a serial number, so that a
/// reply finds its slot without a search, and a late reply to an older call does not find it.
///
/// ```
/// use nfs_swap::rpc::SlotTable;
///
/// let mut table = SlotTable::<&str, 2>::new(1);
/// let read = table.insert("read").unwrap();
/// let write = table.insert("write").unwrap();
/// assert_eq!(table.insert("one too many"), Err("one too many"));
/// assert_eq!(table.find(write), Some(1));
/// assert_eq!(table.remove(0), Some("read"));
/// assert_eq!(table.find(read), None);
/// ```
#[derive(Debug)]
pub struct SlotTable<T, const N: usize> {
    slots: [Option<(u32, T)>; N],
    len: usize,
    serial: u32,
}

impl<T, const N: usize> SlotTable<T, N> {
    /// Bits of an xid that hold the index; index `N` is for the caller that stands outside.
    const INDEX_BITS: u32 = {
        assert!(N >= 1 && N <= 1024, "a slot table has 1 to 1024 slots");
        usize::BITS - N.leading_zeros()
    };

    /// An empty table whose first serial number is `seed`. After a restart of the machine the seed
    /// should differ, lest a server takes a new call for a repetition of an old one.
    #[must_use]
    pub const fn new(seed: u32) -> Self {
        SlotTable {
            slots: [const { None }; N],
            len: 0,
            serial: seed,
        }
    }

    /// Values in the table.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether no value is in the table.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Puts `value` into a free slot and returns its xid. O(N).
    ///
    /// # Errors
    ///
    /// Every slot is taken; the value comes back.
    pub fn insert(&mut self, value: T) -> Result<u32, T> {
        let Some(index) = self.slots.iter().position(Option::is_none) else {
            return Err(value);
        };
        let xid = self.fresh_xid(index);
        self.slots[index] = Some((xid, value));
        self.len += 1;
        Ok(xid)
    }

    /// The slot of the value which has this xid now. O(1).
    #[must_use]
    pub fn find(&self, xid: u32) -> Option<usize> {
        let index = (xid & ((1 << Self::INDEX_BITS) - 1)) as usize;
        (self.xid(index)? == xid).then_some(index)
    }

    /// The xid of the value in slot `index`.
    #[must_use]
    pub fn xid(&self, index: usize) -> Option<u32> {
        Some(self.slots.get(index)?.as_ref()?.0)
    }

    /// Gives the value in slot `index` a new xid: for a new call on behalf of the same value. The
    /// old one finds nothing any more.
    pub fn renew(&mut self, index: usize) {
        let fresh = self.fresh_xid(index);
        if let Some(Some((xid, _))) = self.slots.get_mut(index) {
            *xid = fresh;
        }
    }

    /// A new xid that never names a slot: for a call which is kept elsewhere.
    pub fn outside_xid(&mut self) -> u32 {
        self.fresh_xid(N)
    }

    /// The value in slot `index`.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<&T> {
        Some(&self.slots.get(index)?.as_ref()?.1)
    }

    /// The value in slot `index`.
    pub fn get_mut(&mut self, index: usize) -> Option<&mut T> {
        Some(&mut self.slots.get_mut(index)?.as_mut()?.1)
    }

    /// Takes the value out of slot `index`.
    pub fn remove(&mut self, index: usize) -> Option<T> {
        let (_, value) = self.slots.get_mut(index)?.take()?;
        self.len -= 1;
        Some(value)
    }

    /// All values, with their slots.
    pub fn iter(&self) -> impl Iterator<Item = (usize, &T)> {
        let slots = self.slots.iter().enumerate();
        slots.filter_map(|(index, slot)| Some((index, &slot.as_ref()?.1)))
    }

    /// All values, with their slots.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (usize, &mut T)> {
        let slots = self.slots.iter_mut().enumerate();
        slots.filter_map(|(index, slot)| Some((index, &mut slot.as_mut()?.1)))
    }

    fn fresh_xid(&mut self, index: usize) -> u32 {
        let xid = (self.serial << Self::INDEX_BITS) | index as u32;
        self.serial = self.serial.wrapping_add(1);
        xid
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_reply_to_an_older_call_finds_nothing() {
        let mut table = SlotTable::<(), 4>::new(u32::MAX);
        let first = table.insert(()).unwrap();
        table.renew(0);
        assert_eq!(table.find(first), None);
        let second = table.xid(0).unwrap();
        assert_eq!(table.find(second), Some(0));
        table.remove(0);
        table.insert(()).unwrap();
        assert_eq!(table.find(second), None);
    }

    #[test]
    fn the_outside_xid_names_no_slot() {
        let mut table = SlotTable::<u8, 3>::new(0);
        let xids = [0, 1, 2].map(|value| table.insert(value).unwrap());
        let outside = table.outside_xid();
        assert_eq!(table.find(outside), None);
        assert!(!xids.contains(&outside));
        assert_eq!(table.len(), 3);
    }
}
