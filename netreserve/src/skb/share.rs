//! Several skbs over the same bytes.

use core::mem;

use mempool::SharedBuffer;

use super::{Bytes, Skb, SkbError, Tied};
use crate::ablation::Mechanism;
use crate::sock::Wmem;

impl<'m> Skb<'m> {
    /// Bytes behind the data with which an skb can always be shared: the count of its owners, the
    /// charge, and what its sender is counted, are put there. Of a pool whose skbs are so much larger than a frame and its
    /// headroom, every skb can be.
    pub const SHARE_ROOM: usize = SharedBuffer::<Tied<'m>>::TAIL;

    /// Another skb over the same bytes, with the same ends (`skb_clone`). It takes no memory, so
    /// that it cannot fail for want of any.
    ///
    /// Whoever keeps it keeps all of its memory. Of an emergency skb it is an emergency skb, and
    /// another holder of the reserve, for which the [budget](crate::budget()) must have room.
    ///
    /// # Errors
    ///
    /// [`SkbError::NoTailroom`]: the first clone needs [`SHARE_ROOM`](Skb::SHARE_ROOM) bytes behind
    /// the data. Nothing has changed.
    ///
    /// # Panics
    ///
    /// At 2^32 clones that were forgotten.
    pub fn try_clone(&mut self) -> Result<Skb<'m>, SkbError> {
        self.share()?;
        match &self.bytes {
            Bytes::Shared(shared) => Ok(Skb {
                bytes: Bytes::Shared(shared.clone()),
                charge: None,
                ..*self
            }),
            Bytes::Own(_) | Bytes::Moving => Err(SkbError::NoTailroom),
        }
    }

    /// Keeps the first `at` bytes, and returns an skb with the others (`skb_split`). Both share the
    /// memory, and hold all of it.
    ///
    /// # Errors
    ///
    /// [`SkbError::TooShort`] if there are fewer; [`SkbError::NoTailroom`] as for
    /// [`try_clone`](Skb::try_clone). Nothing has changed.
    ///
    /// # Panics
    ///
    /// See [`try_clone`](Skb::try_clone).
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
    /// skb.put(10)?.copy_from_slice(b"first next");
    /// let next = skb.split(6)?;
    /// assert_eq!((skb.data(), next.data()), (&b"first "[..], &b"next"[..]));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn split(&mut self, at: usize) -> Result<Skb<'m>, SkbError> {
        if at > self.len {
            return Err(SkbError::TooShort);
        }
        let mut rest = self.try_clone()?;
        rest.head += at;
        rest.len -= at;
        self.len = at;
        Ok(rest)
    }

    /// Whether another skb reads the same bytes now. As the others are dropped that may end at any
    /// time; it begins with a call to [`try_clone`](Skb::try_clone) or [`split`](Skb::split) alone.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        matches!(&self.bytes, Bytes::Shared(shared) if !shared.is_unique())
    }

    /// Takes the bytes as its own if the others that shared them are gone, and returns whether nobody
    /// else reads them now. What writes to the bytes does this first. While they count for a sender
    /// they stay where that is written.
    pub(crate) fn unshare(&mut self) -> bool {
        match &self.bytes {
            Bytes::Own(_) => true,
            Bytes::Shared(shared) if shared.value().owner.is_some() => shared.is_unique(),
            Bytes::Shared(_) | Bytes::Moving => self.take_apart().is_ok(),
        }
    }

    /// Takes the bytes as its own, and returns the sender that they counted for.
    fn take_apart(&mut self) -> Result<Option<Wmem<'m>>, SkbError> {
        match mem::replace(&mut self.bytes, Bytes::Moving) {
            Bytes::Shared(shared) => match shared.try_into_inner() {
                Ok((buffer, Tied { charge, owner })) => {
                    self.charge = charge.or(self.charge.take());
                    self.bytes = Bytes::Own(buffer);
                    return Ok(owner);
                }
                Err(shared) => self.bytes = Bytes::Shared(shared),
            },
            bytes => self.bytes = bytes,
        }
        match self.bytes {
            Bytes::Own(_) => Ok(None),
            Bytes::Shared(_) | Bytes::Moving => Err(SkbError::Shared),
        }
    }

    /// Makes it a packet of the socket that `owner` counts for, until its memory is free
    /// (`skb_set_owner_w`). It is the packet of nobody else then.
    ///
    /// # Errors
    ///
    /// [`SkbError::Shared`], [`SkbError::NoTailroom`] as for [`try_clone`](Skb::try_clone).
    pub(crate) fn set_owner(&mut self, owner: Wmem<'m>) -> Result<(), SkbError> {
        let before = self.take_apart()?;
        match self.share_with(Some(owner)) {
            Ok(()) => Ok(()),
            Err(error) => {
                debug_assert!(before.is_none(), "there was room for that one");
                Err(error)
            }
        }
    }

    /// The sender that it counts for.
    pub(crate) fn owner(&self) -> Option<&Wmem<'m>> {
        match &self.bytes {
            Bytes::Shared(shared) => shared.value().owner.as_ref(),
            Bytes::Own(_) | Bytes::Moving => None,
        }
    }

    /// It counts for its sender no more, unless others share it (`skb_orphan`).
    pub(crate) fn orphan(&mut self) {
        if self.owner().is_some() {
            drop(self.take_apart());
        }
    }

    /// Moves the data up, within bytes of its own, to have `headroom` bytes in front; returns
    /// whether it has them now. O(len).
    pub(crate) fn make_headroom(&mut self, headroom: usize) -> bool {
        let (head, len) = (self.head, self.len);
        if head < headroom {
            let Ok(room) = self.room_mut() else {
                return false;
            };
            if headroom > room.len() - len {
                return false;
            }
            room.copy_within(head..head + len, headroom);
            self.head = headroom;
        }
        true
    }

    /// Begins anew, without data, behind `headroom` bytes. They must be there.
    pub(crate) fn restart(&mut self, headroom: usize) {
        (self.head, self.len) = (headroom, 0);
    }

    /// Puts the charge behind the bytes, for others to join.
    fn share(&mut self) -> Result<(), SkbError> {
        self.share_with(None)
    }

    /// With the sender that they count for.
    fn share_with(&mut self, owner: Option<Wmem<'m>>) -> Result<(), SkbError> {
        if let Bytes::Shared(_) = self.bytes {
            return Ok(());
        }
        let Bytes::Own(buffer) = mem::replace(&mut self.bytes, Bytes::Moving) else {
            return Err(SkbError::NoTailroom);
        };
        // Off: the charge stays here, and ends with this skb though others still read its bytes.
        let follows = !self.ablation.off(Mechanism::ChargeWithClone);
        let tied = Tied {
            charge: self.charge.take_if(|_| follows),
            owner,
        };
        match SharedBuffer::new(buffer, self.head + self.len, tied) {
            Ok(shared) => {
                self.bytes = Bytes::Shared(shared);
                Ok(())
            }
            Err((buffer, tied)) => {
                self.bytes = Bytes::Own(buffer);
                self.charge = tied.charge.or(self.charge.take());
                Err(SkbError::NoTailroom)
            }
        }
    }
}

#[cfg(test)]
mod tests;
