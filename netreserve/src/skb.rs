//! Packet buffers.

use core::fmt;

use mempool::{Buffer, Charge};

/// An owned packet buffer: headroom, data, tailroom.
///
/// ```text
///   ├─ headroom ─┼──── data ────┼─ tailroom ─┤
///        push ◀──┘└──▶ pull  trim ◀──┘└──▶ put
/// ```
/// An skb that carries a charge is an *emergency* skb: its memory came out of the reserve. The
/// charge travels with the buffer and ends after it (N3, M6). There is no clone and no copy; an
/// owner moves it on or drops it. Every operation is O(1).
///
/// ```
/// # use mempool::{Buddy, FrameEntry, ReserveNode, SingleTask, SizedCache, Watermarks, Zone};
/// # use netreserve::{FlowTable, SkbError, SkbPool};
/// # let (mut memory, mut table) = (vec![0u8; 17 * 4096], [FrameEntry::EMPTY; 17]);
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
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Skb<'m> {
    // Fields drop in this order: the buffer is free before its charge ends (M6).
    buffer: Buffer<'m>,
    charge: Option<Charge<'m>>,
    head: usize,
    len: usize,
}

impl<'m> Skb<'m> {
    /// An skb without data, behind `headroom` bytes (or as many as there are).
    pub(crate) fn new(buffer: Buffer<'m>, charge: Option<Charge<'m>>, headroom: usize) -> Self {
        let head = headroom.min(buffer.len());
        Skb {
            buffer,
            charge,
            head,
            len: 0,
        }
    }

    /// Whether its memory came out of the reserve, and is charged.
    #[must_use]
    pub fn is_emergency(&self) -> bool {
        self.charge.is_some()
    }

    /// Bytes of memory that it holds, whatever it carries: the unit of all accounting.
    #[must_use]
    pub fn truesize(&self) -> usize {
        self.buffer.len()
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

    /// Bytes behind the data.
    #[must_use]
    pub fn tailroom(&self) -> usize {
        self.buffer.len() - self.head - self.len
    }

    /// The data.
    #[must_use]
    pub fn data(&self) -> &[u8] {
        &self.buffer[self.head..self.head + self.len]
    }

    /// The data.
    #[must_use]
    pub fn data_mut(&mut self) -> &mut [u8] {
        &mut self.buffer[self.head..self.head + self.len]
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
        if n > self.tailroom() {
            return Err(SkbError::NoTailroom);
        }
        self.head += n;
        Ok(())
    }

    /// Adds `n` bytes at the end and returns them. They hold whatever the last owner left.
    ///
    /// # Errors
    ///
    /// [`SkbError::NoTailroom`]; nothing has changed.
    pub fn put(&mut self, n: usize) -> Result<&mut [u8], SkbError> {
        if n > self.tailroom() {
            return Err(SkbError::NoTailroom);
        }
        let end = self.head + self.len;
        self.len += n;
        Ok(&mut self.buffer[end..end + n])
    }

    /// Adds `n` bytes in front and returns them. They hold whatever the last owner left.
    ///
    /// # Errors
    ///
    /// [`SkbError::NoHeadroom`]; nothing has changed.
    pub fn push(&mut self, n: usize) -> Result<&mut [u8], SkbError> {
        if n > self.head {
            return Err(SkbError::NoHeadroom);
        }
        self.head -= n;
        self.len += n;
        Ok(&mut self.buffer[self.head..self.head + n])
    }

    /// Takes `n` bytes off the front and returns them.
    ///
    /// # Errors
    ///
    /// [`SkbError::TooShort`]; nothing has changed.
    pub fn pull(&mut self, n: usize) -> Result<&mut [u8], SkbError> {
        if n > self.len {
            return Err(SkbError::TooShort);
        }
        let start = self.head;
        self.head += n;
        self.len -= n;
        Ok(&mut self.buffer[start..start + n])
    }

    /// Cuts the data to `n` bytes.
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
}

impl fmt::Debug for Skb<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Skb")
            .field("head", &self.head)
            .field("len", &self.len)
            .field("truesize", &self.truesize())
            .field("emergency", &self.is_emergency())
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
}

impl fmt::Display for SkbError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SkbError::NoHeadroom => "not so many bytes lie in front of the data",
            SkbError::NoTailroom => "not so many bytes lie behind the data",
            SkbError::TooShort => "there are fewer bytes of data",
            SkbError::NotEmpty => "there is data already",
        })
    }
}

impl core::error::Error for SkbError {}

#[cfg(test)]
mod tests;
