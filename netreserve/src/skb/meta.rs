//! What goes with a packet beside its bytes.

use core::num::NonZeroU16;

use super::Skb;

/// Copies and clones have the same.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Meta {
    pub(crate) mark: u32,
    pub(crate) gso_size: Option<NonZeroU16>,
}

impl Skb<'_> {
    /// A number that a stack and a driver give each other with the packet: for its time stamp, say
    /// (`skb->mark`). 0 until somebody sets it.
    #[must_use]
    pub fn mark(&self) -> u32 {
        self.meta.mark
    }

    /// Sets the [`mark`](Skb::mark). O(1).
    pub fn set_mark(&mut self, mark: u32) {
        self.meta.mark = mark;
    }

    /// Bytes of TCP payload in each of the segments that the card is to make of this one; `None` if it
    /// is to send the frame as it is (`gso_size`). See [`Nic::segmentation`](crate::Nic::segmentation).
    #[must_use]
    pub fn gso_size(&self) -> Option<NonZeroU16> {
        self.meta.gso_size
    }

    /// Sets the [`gso_size`](Skb::gso_size). O(1).
    pub fn set_gso_size(&mut self, size: Option<NonZeroU16>) {
        self.meta.gso_size = size;
    }

    pub(crate) fn meta(&self) -> Meta {
        self.meta
    }

    pub(crate) fn set_meta(&mut self, meta: Meta) {
        self.meta = meta;
    }
}
