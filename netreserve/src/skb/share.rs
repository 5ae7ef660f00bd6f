//! Several skbs over the same bytes.

use core::mem;

use mempool::{Charge, SharedBuffer};

use super::{Bytes, Skb, SkbError};
use crate::ablation::Mechanism;

impl<'m> Skb<'m> {
    /// Bytes behind the data with which an skb can always be shared: the count of its owners, and
    /// the charge, are put there. Of a pool whose skbs are so much larger than a frame and its
    /// headroom, every skb can be.
    pub const SHARE_ROOM: usize = SharedBuffer::<Option<Charge<'m>>>::TAIL;

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
    /// # let (mut memory, mut table) = (vec![0u8; 17 * 4096], [FrameEntry::EMPTY; 17]);
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

    /// Takes the bytes as its own if the others that shared them are gone, and returns whether they
    /// are its own now. What writes to the bytes does this first.
    pub(crate) fn unshare(&mut self) -> bool {
        if let Bytes::Own(_) = self.bytes {
            return true;
        }
        self.bytes = match mem::replace(&mut self.bytes, Bytes::Moving) {
            Bytes::Shared(shared) => match shared.try_into_inner() {
                Ok((buffer, charge)) => {
                    self.charge = charge.or(self.charge.take());
                    Bytes::Own(buffer)
                }
                Err(shared) => Bytes::Shared(shared),
            },
            bytes => bytes,
        };
        matches!(self.bytes, Bytes::Own(_))
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
        if let Bytes::Shared(_) = self.bytes {
            return Ok(());
        }
        let Bytes::Own(buffer) = mem::replace(&mut self.bytes, Bytes::Moving) else {
            return Err(SkbError::NoTailroom);
        };
        // Off: the charge stays here, and ends with this skb though others still read its bytes.
        let follows = !self.ablation.off(Mechanism::ChargeWithClone);
        let charge = self.charge.take_if(|_| follows);
        match SharedBuffer::new(buffer, self.head + self.len, charge) {
            Ok(shared) => {
                self.bytes = Bytes::Shared(shared);
                Ok(())
            }
            Err((buffer, charge)) => {
                self.bytes = Bytes::Own(buffer);
                self.charge = charge.or(self.charge.take());
                Err(SkbError::NoTailroom)
            }
        }
    }
}

#[cfg(test)]
mod tests;
