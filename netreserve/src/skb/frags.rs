//! One packet in several skbs.

use core::fmt;

use heapless::Vec;

use super::{Skb, SkbError};
use crate::{SkbAllocError, SkbPool};

/// One packet in up to `1 + N` skbs: the first begins with its headers, the others are its page
/// fragments (`skb_shinfo(skb)->frags`).
///
/// For a card that puts a large frame into several buffers, or gathers one from several, so that a
/// jumbo frame needs no run of consecutive frames, which a reserve does not promise. Each fragment is
/// an [`Skb`]: it owns its bytes, or [shares](Skb::try_clone) them, and carries its own charge, which
/// ends after it (N3). A fragment that is cut off or used up is freed at once.
///
/// A type of its own, so that nobody who knows only [`Skb::data`] loses the rest of a packet by
/// mistake: who needs it in one run [linearizes](SkbFrags::linearize) it. What needs room for `k`
/// emergency packets needs room for `k * (1 + N)` skbs in its [budget](crate::budget()).
///
/// ```
/// # use mempool::{Buddy, FRAME_SIZE, FrameEntry, ReserveNode, SingleTask, SizedCache, Watermarks, Zone};
/// # use netreserve::{FlowTable, SkbPool};
/// use netreserve::{SkbError, SkbFrags};
///
/// # let (mut memory, mut table) = (vec![0u8; 17 * FRAME_SIZE], [FrameEntry::EMPTY; 17]);
/// # let source = <Buddy>::new(&mut memory, &mut table)?;
/// # let task = SingleTask::new();
/// # let zone = <Zone>::new(&source, &task, Watermarks::default())?;
/// # let (rx, tx) = (<ReserveNode>::new("rx"), <ReserveNode>::new("tx"));
/// # let cache = <SizedCache>::new("skb", &zone, 256, 0)?;
/// # let flows = FlowTable::new(&mut [], &mut []);
/// # let pool = SkbPool::new(&cache, &rx, &tx, &flows, zone.claim_memalloc().unwrap());
/// let (mut first, mut second) = (pool.alloc_rx()?, pool.alloc_rx()?);
/// first.put(10)?.copy_from_slice(b"header:abc");
/// second.put(3)?.copy_from_slice(b"def");
///
/// let mut packet = SkbFrags::<'_, 4>::new(first);
/// packet.push_frag(second).map_err(|(error, _)| error)?;
/// assert_eq!((packet.len(), packet.frags().len()), (13, 1));
/// packet.skip(7)?;
/// packet.pull_tail(5)?;
/// assert_eq!(packet.first().data(), b"abcde");
/// assert_eq!(packet.pieces().collect::<Vec<_>>(), [&b"abcde"[..], b"f"]);
/// assert_eq!(packet.trim(7), Err(SkbError::TooShort));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct SkbFrags<'m, const N: usize> {
    first: Skb<'m>,
    /// None of them is empty.
    frags: Vec<Skb<'m>, N>,
}

impl<'m, const N: usize> SkbFrags<'m, N> {
    /// A packet in one piece, so far.
    #[must_use]
    pub fn new(first: Skb<'m>) -> Self {
        SkbFrags {
            first,
            frags: Vec::new(),
        }
    }

    /// Adds a fragment at the end (`skb_add_rx_frag`). O(1).
    ///
    /// # Errors
    ///
    /// [`SkbError::TooShort`] if there is nothing in it, [`SkbError::TooManyFrags`]; it comes back.
    pub fn push_frag(&mut self, skb: Skb<'m>) -> Result<(), (SkbError, Skb<'m>)> {
        if skb.is_empty() {
            return Err((SkbError::TooShort, skb));
        }
        self.frags
            .push(skb)
            .map_err(|skb| (SkbError::TooManyFrags, skb))
    }

    /// The skb with the headers.
    #[must_use]
    pub fn first(&self) -> &Skb<'m> {
        &self.first
    }

    /// The skb with the headers, to push others in front of them.
    #[must_use]
    pub fn first_mut(&mut self) -> &mut Skb<'m> {
        &mut self.first
    }

    /// The fragments behind the first skb, in their order.
    #[must_use]
    pub fn frags(&self) -> &[Skb<'m>] {
        &self.frags
    }

    /// The data, a run of bytes after the other: what a card's descriptors are made of. O(1) each.
    pub fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        self.skbs().map(Skb::data)
    }

    /// Bytes of data in all pieces. O(N).
    #[must_use]
    pub fn len(&self) -> usize {
        self.skbs().map(Skb::len).sum()
    }

    /// Whether it carries nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.first.is_empty() && self.frags.is_empty()
    }

    /// Bytes of memory that all pieces hold: see [`Skb::truesize`]. O(N).
    #[must_use]
    pub fn truesize(&self) -> usize {
        self.skbs().map(Skb::truesize).sum()
    }

    /// Whether any piece lies in the reserve: then the packet is an emergency packet, and serves the
    /// VM or is dropped whole (N2). O(N).
    #[must_use]
    pub fn is_emergency(&self) -> bool {
        self.skbs().any(Skb::is_emergency)
    }

    /// Copies `into.len()` bytes of data from `offset` on (`skb_copy_bits`). O(N + bytes).
    ///
    /// # Errors
    ///
    /// [`SkbError::TooShort`]; nothing was copied.
    pub fn copy_bits(&self, mut offset: usize, mut into: &mut [u8]) -> Result<(), SkbError> {
        let end = offset.checked_add(into.len());
        if end.is_none_or(|end| end > self.len()) {
            return Err(SkbError::TooShort);
        }
        for piece in self.pieces() {
            let skipped = offset.min(piece.len());
            let piece = &piece[skipped..];
            let (to, rest) = into.split_at_mut(piece.len().min(into.len()));
            to.copy_from_slice(&piece[..to.len()]);
            offset -= skipped;
            into = rest;
        }
        Ok(())
    }

    /// Moves bytes of the fragments to the end of the first skb, until that has `n` of them
    /// (`__pskb_pull_tail`): for headers that a card put elsewhere. O(N + bytes moved).
    ///
    /// # Errors
    ///
    /// [`SkbError::TooShort`], [`SkbError::NoTailroom`] of the first skb, [`SkbError::Shared`];
    /// nothing has changed.
    pub fn pull_tail(&mut self, n: usize) -> Result<(), SkbError> {
        let here = self.first.len();
        let Some(missing) = n.checked_sub(here).filter(|&missing| missing > 0) else {
            return Ok(());
        };
        if n > self.len() {
            return Err(SkbError::TooShort);
        }
        let mut room = self.first.put(missing)?;
        for skb in &self.frags {
            let taken = skb.len().min(room.len());
            let (to, rest) = room.split_at_mut(taken);
            to.copy_from_slice(&skb.data()[..taken]);
            room = rest;
        }
        self.skip_frags(missing);
        Ok(())
    }

    /// Takes `n` bytes off the front; fragments that are used up are freed. O(N).
    ///
    /// # Errors
    ///
    /// [`SkbError::TooShort`] if there are fewer; nothing has changed.
    pub fn skip(&mut self, n: usize) -> Result<(), SkbError> {
        if n > self.len() {
            return Err(SkbError::TooShort);
        }
        let in_first = n.min(self.first.len());
        self.first.skip(in_first)?;
        self.skip_frags(n - in_first);
        Ok(())
    }

    /// Cuts the data to `n` bytes; fragments behind them are freed. O(N).
    ///
    /// # Errors
    ///
    /// [`SkbError::TooShort`] if there are fewer; nothing has changed.
    pub fn trim(&mut self, n: usize) -> Result<(), SkbError> {
        if n > self.len() {
            return Err(SkbError::TooShort);
        }
        let mut left = n.saturating_sub(self.first.len());
        self.first.trim(n.min(self.first.len()))?;
        self.frags.retain_mut(|skb| {
            let kept = left.min(skb.len());
            left -= kept;
            kept > 0 && skb.trim(kept).is_ok()
        });
        Ok(())
    }

    /// Another packet over the same bytes, as [`Skb::try_clone`] makes another skb. O(N).
    ///
    /// # Errors
    ///
    /// [`SkbError::NoTailroom`]: a piece has no room to be shared. The packet is as it was.
    ///
    /// # Panics
    ///
    /// See [`Skb::try_clone`].
    pub fn try_clone(&mut self) -> Result<Self, SkbError> {
        let mut clone = SkbFrags::new(self.first.try_clone()?);
        for skb in &mut self.frags {
            let cloned = clone.push_frag(skb.try_clone()?);
            cloned.map_err(|(error, _)| error)?;
        }
        Ok(clone)
    }

    /// The packet in one run: itself if it is one already, else a copy in an skb of `pool` by the
    /// rules of [`SkbPool::linearize`], which also says what it costs. Its pieces are free then.
    ///
    /// # Errors
    ///
    /// See [`SkbPool::linearize`]; the packet comes back as it was.
    pub fn linearize(self, pool: &SkbPool<'m>) -> Result<Skb<'m>, (SkbAllocError, Self)> {
        if self.frags.is_empty() {
            return Ok(self.first);
        }
        pool.linearize(&self.first, &self.frags)
            .map_err(|error| (error, self))
    }

    fn skbs(&self) -> impl Iterator<Item = &Skb<'m>> {
        core::iter::once(&self.first).chain(&self.frags)
    }

    /// Takes `n` bytes off the front of the fragments; so many are there.
    fn skip_frags(&mut self, mut n: usize) {
        self.frags.retain_mut(|skb| {
            let taken = n.min(skb.len());
            n -= taken;
            taken < skb.len() && skb.skip(taken).is_ok()
        });
    }
}

impl<const N: usize> fmt::Debug for SkbFrags<'_, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SkbFrags")
            .field("first", &self.first)
            .field("frags", &&self.frags[..])
            .finish()
    }
}

#[cfg(test)]
mod tests;
