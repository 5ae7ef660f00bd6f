//! Network cards, as the receive path sees them: owned buffers, no stack.

use crate::{DropReason, Skb, SkbPool};

/// A driver over two rings of owned skbs.
///
/// The sizes of both rings are constants and go into the budget (N4): see
/// [`rx_budget`](crate::rx_budget) and [`tx_budget`](crate::tx_budget).
///
/// # Direct memory access
///
/// Nothing is copied on the way to the card: the skb goes into the ring, and the card gets its address
/// and length. These are `data().as_ptr()` and `len()` of a frame to be sent; of a buffer to be filled,
/// those of what `put(tailroom())` returned, to be cut with [`trim`](Skb::trim) to what came. Both stay
/// the same wherever the skb is moved to. The memory is what the frame source handed out, so that what
/// the card must be told of it (bus addresses, cache maintenance) is known there.
///
/// The driver drops a sent skb when the card has said that it is done with it, not before: the memory
/// is another packet's at once, and its charge ends. To stop a card that does not answer, reset it
/// first. A buffer that the card may still write to must stay in the ring, or be
/// [forgotten](core::mem::forget) together with its charge.
///
/// A frame to be sent may be a [clone](Skb::try_clone), whose sender keeps the bytes to send them
/// again: the card and everybody else only read them. A driver that writes a header in front of frames
/// [pushes](Skb::push) it; for [`SkbError::Shared`](crate::SkbError::Shared) it needs a descriptor of
/// its own for the header, or [`SkbPool::expand`].
pub trait Nic<'m> {
    /// Refills the receive ring from `pool`, as far as it has skbs, and returns the next frame.
    ///
    /// `None` if no frame has come, or if none could come because the ring is empty. The skb's
    /// data is the whole Ethernet frame without its check sequence, and nobody shares it.
    fn receive(&mut self, pool: &SkbPool<'m>) -> Option<Skb<'m>>;

    /// Puts a finished Ethernet frame into the transmit ring, as it is: the skb is the ring's until the
    /// card has read it, and is dropped then.
    ///
    /// # Errors
    ///
    /// The ring is full; the skb comes back.
    fn transmit(&mut self, skb: Skb<'m>) -> Result<(), Skb<'m>>;

    /// Frees what has been sent, and says whether the transmit ring has room.
    fn tx_ready(&mut self) -> bool;

    /// The largest IP packet, in bytes: the frame without its Ethernet header of 14.
    fn mtu(&self) -> usize;

    /// Receive buffers that are posted now, if the driver can tell, those with frames in them that
    /// nobody has read yet among them. The swap stack advertises no window beyond them: what its peer
    /// sent in one go beyond them would be lost.
    fn rx_posted(&self) -> Option<usize> {
        None
    }

    /// The card's own address.
    fn hardware_addr(&self) -> [u8; 6];

    /// Takes a packet that serves neither the VM nor a socket, for another stack that shares the card;
    /// its memory is ordinary. Comes back if nobody wants it, and is then dropped and counted for
    /// the reason given: that is the default.
    ///
    /// # Errors
    ///
    /// Nobody wants it.
    fn unclaimed(&mut self, skb: Skb<'m>, _: DropReason) -> Result<(), Skb<'m>> {
        Err(skb)
    }

    /// What the card does with checksums; nothing, unless a driver says otherwise.
    fn checksum_offload(&self) -> ChecksumOffload {
        ChecksumOffload::default()
    }
}

/// Checksums of UDP and TCP over IPv4 that a card takes care of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct ChecksumOffload {
    /// Received packets were verified already.
    pub rx: bool,
    /// Sent packets are completed by the card.
    pub tx: bool,
}
