//! Network cards, as the receive path sees them: owned buffers, no stack.

use core::num::NonZeroUsize;

use crate::{DropReason, Skb, SkbPool};

/// What a card's frames begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Medium {
    /// An Ethernet header; neighbours are asked for their hardware address.
    #[default]
    Ethernet,
    /// An IP header (a point-to-point line, a modem, a tunnel): there are no hardware addresses and
    /// nobody is asked for one.
    Ip,
}

impl Medium {
    /// Bytes in front of an IP packet.
    #[must_use]
    pub const fn header_len(self) -> usize {
        match self {
            Medium::Ethernet => crate::class::ETHERNET_HEADER,
            Medium::Ip => 0,
        }
    }
}

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
    /// data is the whole frame: from the [medium](Nic::medium)'s header on, without its check
    /// sequence; nobody shares it.
    fn receive(&mut self, pool: &SkbPool<'m>) -> Option<Skb<'m>>;

    /// Puts a finished frame into the transmit ring, as it is: the skb is the ring's until the card has
    /// read it, and is dropped then. A card that [segments](Nic::segmentation) looks at
    /// [`gso_size`](Skb::gso_size).
    ///
    /// # Errors
    ///
    /// The ring is full; the skb comes back.
    fn transmit(&mut self, skb: Skb<'m>) -> Result<(), Skb<'m>>;

    /// Frees what has been sent, and says whether the transmit ring has room.
    fn tx_ready(&mut self) -> bool;

    /// What frames begin with: Ethernet, unless a driver says otherwise.
    fn medium(&self) -> Medium {
        Medium::Ethernet
    }

    /// The largest IP packet, in bytes: the frame without its Ethernet header of 14.
    fn mtu(&self) -> usize;

    /// Receive buffers that are posted now, if the driver can tell, those with frames in them that
    /// nobody has read yet among them. The swap stack advertises no window beyond them: what its peer
    /// sent in one go beyond them would be lost.
    fn rx_posted(&self) -> Option<usize> {
        None
    }

    /// The most frames that may come in one go, if the card has such a limit of its own. No window
    /// beyond it is advertised.
    fn max_burst(&self) -> Option<usize> {
        None
    }

    /// The card's own address; on a medium without addresses nobody asks.
    fn hardware_addr(&self) -> [u8; 6];

    /// Whether there is somebody at the other end.
    fn link_up(&mut self) -> bool {
        true
    }

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

    /// The largest frame of TCP over IPv4 that the card cuts into segments of
    /// [`gso_size`](Skb::gso_size) by itself, in bytes with all headers; `None` if it cuts none. It
    /// must make the segments' checksums, too.
    fn segmentation(&self) -> Option<NonZeroUsize> {
        None
    }
}

/// Checksums that a card takes care of, by protocol.
///
/// ```
/// use netreserve::{ChecksumOffload, Offload};
///
/// // A card that completes UDP and TCP, and verifies nothing.
/// let offload = ChecksumOffload { udp: Offload::TX, tcp: Offload::TX, ..ChecksumOffload::NONE };
/// assert!(offload.tcp.tx && !offload.ipv4.tx);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct ChecksumOffload {
    /// Of IPv4 headers.
    pub ipv4: Offload,
    /// Of ICMP.
    pub icmpv4: Offload,
    /// Of ICMPv6.
    pub icmpv6: Offload,
    /// Of UDP, over both.
    pub udp: Offload,
    /// Of TCP, over both.
    pub tcp: Offload,
}

impl ChecksumOffload {
    /// The card looks at no checksum.
    pub const NONE: ChecksumOffload = ChecksumOffload::each(Offload::NONE);

    /// The same for each protocol.
    #[must_use]
    pub const fn each(offload: Offload) -> ChecksumOffload {
        ChecksumOffload {
            ipv4: offload,
            icmpv4: offload,
            icmpv6: offload,
            udp: offload,
            tcp: offload,
        }
    }
}

/// What a card does with the checksums of one protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Offload {
    /// Received ones were verified already, and need not be right in the frame.
    pub rx: bool,
    /// Those of sent packets are completed by the card.
    pub tx: bool,
}

impl Offload {
    /// None of both.
    pub const NONE: Offload = Offload {
        rx: false,
        tx: false,
    };
    /// Verifies received ones.
    pub const RX: Offload = Offload {
        rx: true,
        tx: false,
    };
    /// Completes sent ones.
    pub const TX: Offload = Offload {
        rx: false,
        tx: true,
    };
    /// Both.
    pub const BOTH: Offload = Offload { rx: true, tx: true };
}
