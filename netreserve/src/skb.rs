//! Packet buffers.

mod frags;
mod meta;
mod share;

use core::fmt;

pub use frags::SkbFrags;
use mempool::{Buffer, Charge, SharedBuffer};

pub(crate) use meta::Meta;

use crate::ablation::Ablation;
use crate::sock::Wmem;

/// An owned packet buffer: headroom, data, tailroom.
///
/// ```text
///   ├─ headroom ─┼──── data ────┼─ tailroom ─┤
///        push ◀──┘└──▶ pull  trim ◀──┘└──▶ put
/// ```
/// An skb that carries a charge is an *emergency* skb: its memory came out of the reserve. The
/// charge travels with the buffer and ends after it (N3, M6).
///
/// # Sharing
///
/// [`try_clone`](Skb::try_clone) and [`split`](Skb::split) make a second skb over the same bytes,
/// with ends of its own. While there are several, the bytes can only be read: what would write to
/// them is refused with [`SkbError::Shared`], and [`SkbPool::expand`](crate::SkbPool::expand) makes
/// such an skb the owner of a copy. The last one that is left can write again. A clone of an
/// emergency skb is an emergency skb; their one charge ends with the last of them.
/// [`SkbPool::copy`](crate::SkbPool::copy) makes an skb with bytes of its own.
///
/// An skb is one run of bytes, so that its headers can be read and a card can be told one address. A
/// packet in several of them, with page fragments, is an [`SkbFrags`].
///
/// Every operation is O(1).
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
/// let mut skb = pool.alloc_tx()?;
/// skb.reserve(8)?;
/// skb.put(4)?.copy_from_slice(b"data");
/// skb.push(7)?.copy_from_slice(b"header:");
/// assert_eq!(skb.data(), b"header:data");
/// assert_eq!(skb.push(7), Err(SkbError::NoHeadroom));
///
/// let mut clone = skb.try_clone()?;
/// assert_eq!(clone.skip(7)?, b"header:");
/// assert_eq!((skb.data(), clone.data()), (&b"header:data"[..], &b"data"[..]));
/// assert_eq!(clone.put(1), Err(SkbError::Shared));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Skb<'m> {
    // Fields drop in this order: the memory is free before its charge ends (M6).
    bytes: Bytes<'m>,
    /// Of bytes of its own; that of shared bytes lies with them.
    charge: Option<Charge<'m>>,
    head: usize,
    len: usize,
    side: Side,
    meta: Meta,
    ablation: Ablation,
}

/// Where the bytes are. `head + len` never exceeds them.
enum Bytes<'m> {
    Own(Buffer<'m>),
    /// With what is tied to them behind them, which ends with the last owner (N3). Bytes of one owner
    /// lie so while they count for a sender.
    Shared(SharedBuffer<'m, Tied<'m>>),
    /// On the way from one to the other; nobody else sees this.
    Moving,
}

/// What ends after the memory.
struct Tied<'m> {
    /// Against the reserve that the memory came out of.
    charge: Option<Charge<'m>>,
    /// Against the send buffer of the socket whose packet it is.
    owner: Option<Wmem<'m>>,
}

/// What an skb was allocated for: whose node it is charged to, and who counts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Rx,
    Tx,
}

impl<'m> Skb<'m> {
    /// An skb without data, behind `headroom` bytes (or as many as there are).
    pub(crate) fn new(
        buffer: Buffer<'m>,
        charge: Option<Charge<'m>>,
        headroom: usize,
        side: Side,
        ablation: Ablation,
    ) -> Self {
        let head = headroom.min(buffer.len());
        Skb {
            bytes: Bytes::Own(buffer),
            charge,
            head,
            len: 0,
            side,
            meta: Meta::default(),
            ablation,
        }
    }

    pub(crate) fn side(&self) -> Side {
        self.side
    }

    /// Whether its memory came out of the reserve, and is charged.
    #[must_use]
    pub fn is_emergency(&self) -> bool {
        match &self.bytes {
            Bytes::Shared(shared) => shared.value().charge.is_some() || self.charge.is_some(),
            Bytes::Own(_) | Bytes::Moving => self.charge.is_some(),
        }
    }

    /// Bytes of memory that it holds, whatever it carries: the unit of all accounting. An skb that
    /// shares its bytes holds all of them, as each of the others does: whatever becomes of those,
    /// this one keeps so much from being free.
    #[must_use]
    pub fn truesize(&self) -> usize {
        match &self.bytes {
            Bytes::Own(buffer) => buffer.len(),
            Bytes::Shared(shared) => shared.object_size(),
            Bytes::Moving => 0,
        }
    }

    /// Bytes of data.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it carries nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes in front of the data.
    #[must_use]
    pub fn headroom(&self) -> usize {
        self.head
    }

    /// Bytes behind the data; while the skb is shared, or counts for a socket that sends it, without
    /// those that hold its owners together, [`SHARE_ROOM`](Skb::SHARE_ROOM) at most.
    #[must_use]
    pub fn tailroom(&self) -> usize {
        let end = match &self.bytes {
            // The others are gone, and what held them together with them, once it is written to.
            Bytes::Shared(shared) if shared.is_unique() && shared.value().owner.is_none() => {
                shared.object_size()
            }
            _ => self.room().len(),
        };
        end - self.head - self.len
    }

    /// The data. Its address stays the same, wherever the skb is moved to, until the skb is dropped
    /// or [expanded](crate::SkbPool::expand): a card may be told it, see [`Nic`](crate::Nic).
    #[must_use]
    pub fn data(&self) -> &[u8] {
        &self.room()[self.head..self.head + self.len]
    }

    /// The data, for writing.
    ///
    /// # Panics
    ///
    /// If the skb is [shared](Skb::is_shared), as it can be only after a
    /// [`try_clone`](Skb::try_clone) or a [`split`](Skb::split); see
    /// [`try_data_mut`](Skb::try_data_mut).
    #[must_use]
    pub fn data_mut(&mut self) -> &mut [u8] {
        self.try_data_mut()
            .expect("shared bytes are not written to")
    }

    /// The data, for writing.
    ///
    /// # Errors
    ///
    /// [`SkbError::Shared`].
    pub fn try_data_mut(&mut self) -> Result<&mut [u8], SkbError> {
        let data = self.head..self.head + self.len;
        Ok(&mut self.room_mut()?[data])
    }

    /// Turns `n` bytes of tailroom into headroom; only while there is no data.
    ///
    /// # Errors
    ///
    /// [`SkbError::NotEmpty`], [`SkbError::NoTailroom`]; nothing has changed.
    pub fn reserve(&mut self, n: usize) -> Result<(), SkbError> {
        if !self.is_empty() {
            return Err(SkbError::NotEmpty);
        }
        self.unshare();
        if n > self.room().len() - self.head {
            return Err(SkbError::NoTailroom);
        }
        self.head += n;
        Ok(())
    }

    /// Adds `n` bytes at the end and returns them. They hold whatever the last owner left.
    ///
    /// # Errors
    ///
    /// [`SkbError::Shared`], [`SkbError::NoTailroom`]; nothing has changed.
    pub fn put(&mut self, n: usize) -> Result<&mut [u8], SkbError> {
        let end = self.head + self.len;
        if n > self.room_mut()?.len() - end {
            return Err(SkbError::NoTailroom);
        }
        self.len += n;
        Ok(&mut self.room_mut()?[end..end + n])
    }

    /// Adds `n` bytes in front and returns them. They hold whatever the last owner left.
    ///
    /// # Errors
    ///
    /// [`SkbError::NoHeadroom`], [`SkbError::Shared`]; nothing has changed.
    pub fn push(&mut self, n: usize) -> Result<&mut [u8], SkbError> {
        let head = self.head.checked_sub(n).ok_or(SkbError::NoHeadroom)?;
        let end = self.head;
        self.room_mut()?;
        self.head = head;
        self.len += n;
        Ok(&mut self.room_mut()?[head..end])
    }

    /// Takes `n` bytes off the front and returns them, for writing; [`skip`](Skb::skip) does the
    /// same for reading.
    ///
    /// # Errors
    ///
    /// [`SkbError::TooShort`], [`SkbError::Shared`]; nothing has changed.
    pub fn pull(&mut self, n: usize) -> Result<&mut [u8], SkbError> {
        if n > self.len {
            return Err(SkbError::TooShort);
        }
        self.room_mut()?;
        let start = self.head;
        self.head += n;
        self.len -= n;
        Ok(&mut self.room_mut()?[start..start + n])
    }

    /// Takes `n` bytes off the front and returns them, of a shared skb as well.
    ///
    /// # Errors
    ///
    /// [`SkbError::TooShort`] if there are fewer; nothing has changed.
    pub fn skip(&mut self, n: usize) -> Result<&[u8], SkbError> {
        if n > self.len {
            return Err(SkbError::TooShort);
        }
        let start = self.head;
        self.head += n;
        self.len -= n;
        Ok(&self.room()[start..start + n])
    }

    /// Cuts the data to `n` bytes; the others that share them keep theirs.
    ///
    /// # Errors
    ///
    /// [`SkbError::TooShort`] if there are fewer; nothing has changed.
    pub fn trim(&mut self, n: usize) -> Result<(), SkbError> {
        if n > self.len {
            return Err(SkbError::TooShort);
        }
        self.len = n;
        Ok(())
    }

    /// All bytes that headroom, data and tailroom can have as things are.
    fn room(&self) -> &[u8] {
        match &self.bytes {
            Bytes::Own(buffer) => buffer,
            Bytes::Shared(shared) => shared,
            Bytes::Moving => &[],
        }
    }

    fn room_mut(&mut self) -> Result<&mut [u8], SkbError> {
        self.unshare();
        match &mut self.bytes {
            Bytes::Own(buffer) => Ok(buffer),
            Bytes::Shared(shared) => shared.get_mut().ok_or(SkbError::Shared),
            Bytes::Moving => Err(SkbError::Shared),
        }
    }
}

impl fmt::Debug for Skb<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Skb")
            .field("head", &self.head)
            .field("len", &self.len)
            .field("truesize", &self.truesize())
            .field("emergency", &self.is_emergency())
            .field("shared", &self.is_shared())
            .finish_non_exhaustive()
    }
}

/// Why an skb was left as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum SkbError {
    /// Fewer bytes lie in front of the data.
    NoHeadroom,
    /// Fewer bytes lie behind the data.
    NoTailroom,
    /// There are fewer bytes of data.
    TooShort,
    /// There is data already.
    NotEmpty,
    /// Other skbs read the same bytes.
    Shared,
    /// The packet is in as many pieces as it may be.
    TooManyFrags,
}

impl fmt::Display for SkbError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SkbError::NoHeadroom => "not so many bytes lie in front of the data",
            SkbError::NoTailroom => "not so many bytes lie behind the data",
            SkbError::TooShort => "there are fewer bytes of data",
            SkbError::NotEmpty => "there is data already",
            SkbError::Shared => "other packets share the bytes",
            SkbError::TooManyFrags => "the packet has no room for another fragment",
        })
    }
}

impl core::error::Error for SkbError {}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
