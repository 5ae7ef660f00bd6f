//! Skbs made of others: by the same rules as these (N2, N3).

use super::{SkbAllocError, SkbPool};
use crate::Skb;

impl<'m> SkbPool<'m> {
    /// An skb with a copy of the data, behind as much headroom (`skb_copy`). O(len).
    ///
    /// The copy of an ordinary skb never comes out of the reserve. That of an emergency skb may, by the
    /// rules by which the skb itself was allocated: ordinary memory first, and charged to the node of
    /// its side, as an emergency skb, if it did.
    ///
    /// # Errors
    ///
    /// [`SkbAllocError`]; nothing has changed, and nothing stays charged.
    ///
    /// ```
    /// # use mempool::{Buddy, FrameEntry, ReserveNode, SingleTask, SizedCache, Watermarks, Zone};
    /// # use netreserve::{FlowTable, SkbPool};
    /// # let (mut memory, mut table) = (vec![0u8; 17 * mempool::FRAME_SIZE], [FrameEntry::EMPTY; 17]);
    /// # let source = <Buddy>::new(&mut memory, &mut table)?;
    /// # let task = SingleTask::new();
    /// # let zone = <Zone>::new(&source, &task, Watermarks::default())?;
    /// # let (rx, tx) = (<ReserveNode>::new("rx"), <ReserveNode>::new("tx"));
    /// # let cache = <SizedCache>::new("skb", &zone, 2016, 0)?;
    /// # let flows = FlowTable::new(&mut [], &mut []);
    /// # let pool = SkbPool::new(&cache, &rx, &tx, &flows, zone.claim_memalloc().unwrap());
    /// # let mut skb = pool.alloc_tx()?;
    /// skb.put(4)?.copy_from_slice(b"data");
    /// let mut copy = pool.copy(&skb)?;
    /// copy.data_mut()[0] = b'D';
    /// assert_eq!((skb.data(), copy.data()), (&b"data"[..], &b"Data"[..]));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn copy(&self, skb: &Skb<'m>) -> Result<Skb<'m>, SkbAllocError> {
        self.copy_behind(skb, &[], skb.headroom())
    }

    /// An skb with a copy of the data of several, one after the other, behind the headroom of the
    /// first (`skb_linearize`). O(len).
    ///
    /// For a packet in pieces, whether it was [split](Skb::split) or a card put it into several
    /// buffers. If any of them is an emergency skb, it may be one, as a copy of the first of those.
    ///
    /// # Errors
    ///
    /// See [`copy`](SkbPool::copy); [`SkbAllocError::TooLarge`] if it does not fit into one skb.
    ///
    /// ```
    /// # use mempool::{Buddy, FrameEntry, ReserveNode, SingleTask, SizedCache, Watermarks, Zone};
    /// # use netreserve::{FlowTable, SkbPool};
    /// # let (mut memory, mut table) = (vec![0u8; 17 * mempool::FRAME_SIZE], [FrameEntry::EMPTY; 17]);
    /// # let source = <Buddy>::new(&mut memory, &mut table)?;
    /// # let task = SingleTask::new();
    /// # let zone = <Zone>::new(&source, &task, Watermarks::default())?;
    /// # let (rx, tx) = (<ReserveNode>::new("rx"), <ReserveNode>::new("tx"));
    /// # let cache = <SizedCache>::new("skb", &zone, 2016, 0)?;
    /// # let flows = FlowTable::new(&mut [], &mut []);
    /// # let pool = SkbPool::new(&cache, &rx, &tx, &flows, zone.claim_memalloc().unwrap());
    /// # let mut skb = pool.alloc_tx()?;
    /// skb.put(10)?.copy_from_slice(b"header:abc");
    /// let body = [skb.split(7)?];
    /// skb.trim(6)?;
    /// assert_eq!(pool.linearize(&skb, &body)?.data(), b"headerabc");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn linearize(&self, first: &Skb<'m>, others: &[Skb<'m>]) -> Result<Skb<'m>, SkbAllocError> {
        self.copy_behind(first, others, first.headroom())
    }

    /// The same skb with bytes of its own, and `headroom` of them in front of the data, or more
    /// (`pskb_expand_head`). O(len) if the data has to be moved.
    ///
    /// An skb that is alone keeps its memory: the data is moved up in it, and no memory is needed.
    /// One that is [shared](Skb::is_shared) is exchanged for a [copy](SkbPool::copy), and the other
    /// skbs keep what they had; this takes an skb more while it lasts, and for good unless the last
    /// of the others goes. The copy counts for the same sender, whatever he holds.
    ///
    /// # Errors
    ///
    /// See [`copy`](SkbPool::copy); [`SkbAllocError::TooLarge`] if the data does not fit behind so
    /// much headroom. The skb comes back as it was.
    ///
    /// ```
    /// # use mempool::{Buddy, FrameEntry, ReserveNode, SingleTask, SizedCache, Watermarks, Zone};
    /// # use netreserve::{FlowTable, SkbError, SkbPool};
    /// # let (mut memory, mut table) = (vec![0u8; 17 * mempool::FRAME_SIZE], [FrameEntry::EMPTY; 17]);
    /// # let source = <Buddy>::new(&mut memory, &mut table)?;
    /// # let task = SingleTask::new();
    /// # let zone = <Zone>::new(&source, &task, Watermarks::default())?;
    /// # let (rx, tx) = (<ReserveNode>::new("rx"), <ReserveNode>::new("tx"));
    /// # let cache = <SizedCache>::new("skb", &zone, 2016, 0)?;
    /// # let flows = FlowTable::new(&mut [], &mut []);
    /// # let pool = SkbPool::new(&cache, &rx, &tx, &flows, zone.claim_memalloc().unwrap());
    /// # let mut skb = pool.alloc_tx()?;
    /// skb.put(4)?.copy_from_slice(b"data");
    /// let kept = skb.try_clone()?; // to send it again
    /// skb = pool.expand(skb, 12).map_err(|(error, _)| error)?;
    /// skb.push(12)?.copy_from_slice(b"virtio-net: ");
    /// assert_eq!((skb.data(), kept.data()), (&b"virtio-net: data"[..], &b"data"[..]));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn expand(
        &self,
        mut skb: Skb<'m>,
        headroom: usize,
    ) -> Result<Skb<'m>, (SkbAllocError, Skb<'m>)> {
        if skb.unshare() && skb.make_headroom(headroom) {
            return Ok(skb);
        }
        match self.copy_behind(&skb, &[], headroom.max(skb.headroom())) {
            // It takes the place of the packet, whose sender is counted both until that is gone.
            Ok(mut copy) => {
                let emergency = copy.is_emergency();
                let owner = skb.owner().and_then(|owner| owner.again(emergency));
                match owner.map_or(Ok(()), |owner| copy.set_owner(owner)) {
                    Ok(()) => Ok(copy),
                    Err(_) => Err((SkbAllocError::TooLarge, skb)),
                }
            }
            Err(error) => Err((error, skb)),
        }
    }

    fn copy_behind(
        &self,
        first: &Skb<'m>,
        others: &[Skb<'m>],
        headroom: usize,
    ) -> Result<Skb<'m>, SkbAllocError> {
        let parts = || core::iter::once(first).chain(others);
        let end = parts().try_fold(headroom, |end, skb| end.checked_add(skb.len()));
        let mut copy = if end.is_none_or(|end| end > self.cache.object_size()) {
            return Err(self.failed(first.side(), SkbAllocError::TooLarge));
        } else if let Some(emergency) = parts().find(|skb| skb.is_emergency()) {
            self.alloc(emergency.side())?
        } else {
            self.ordinary(first.side())
                .map_err(|error| self.failed(first.side(), SkbAllocError::Memory(error)))?
        };
        copy.restart(headroom);
        copy.set_meta(first.meta());
        for skb in parts() {
            let room = copy
                .put(skb.len())
                .expect("just measured, and nobody shares it");
            room.copy_from_slice(skb.data());
        }
        Ok(copy)
    }
}

#[cfg(test)]
mod tests;
