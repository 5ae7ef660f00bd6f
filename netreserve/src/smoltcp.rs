//! smoltcp over a reserve: the one room that knows smoltcp.
//!
//! smoltcp's tokens come in pairs, so that a received frame can be answered at once. That is just
//! what N5 asks for: the transmit skb is held before the received one is handed up.

mod phy_nic;
mod window;

use core::fmt;

use ::smoltcp::phy::{Checksum, Device, DeviceCapabilities, Medium};
use ::smoltcp::time::Instant;

pub use phy_nic::PhyNic;

use window::Window;

use crate::ablation::{Ablation, Mechanism};
use crate::class::{ETHERNET_HEADER, VLAN_TAG};
use crate::{Ingress, Nic, Skb, SkbPool, Verdict};

/// Frames that one [`receive`](Device::receive) takes from the card at most.
const LADDER_WEIGHT: usize = 64;

/// Bytes for a frame that finds no skb, on the stack.
#[cfg(feature = "ablation")]
const SCRATCH: usize = 16 << 10;

/// A smoltcp device for the swap stack, over a card, a pool and the drop ladder.
///
/// Received frames go through the ladder; only what serves the VM comes up to smoltcp, and what
/// nobody claims goes to [`Nic::unclaimed`]. Give paging an interface of its own: this one sees nobody else's
/// traffic.
///
/// # What it holds
///
/// - `spare`, a transmit skb, held from the first poll on. It is taken from the pool *before* a
///   received frame is handed up (N5), and goes into that frame's answer or stays for the next. If
///   it came out of the reserve, it is exchanged as soon as ordinary memory can be had.
/// - `pending`, one received frame for smoltcp. It waits here, not lost, while there is no transmit
///   skb or no room in the transmit ring.
/// - `backlog`, one finished frame that the card did not take. Nothing else is sent or handed up
///   before it.
///
/// These are the "+ 2" of the [budget](crate::budget).
///
/// # Polling
///
/// One call takes at most 64 frames that fit from the card, so that a flood cannot hold the
/// processor. When
/// [`more_pending`](Reserved::more_pending) is true after a poll of the interface, poll again.
///
/// The window of what is sent is lowered to what the receive buffers that are
/// [posted](Nic::rx_posted) can take, so that the peer does not lose the rest of every burst when
/// they are few. That counts on one TCP connection at a time, over IPv4: several would each be promised
/// all of the buffers.
///
/// smoltcp's minimum retransmission time-out is a second, so that a TCP segment lost here costs
/// one: none is.
#[derive(Debug)]
pub struct Reserved<'m, N> {
    nic: N,
    pool: &'m SkbPool<'m>,
    ingress: &'m Ingress<'m>,
    max_frame: usize,
    spare: Option<Skb<'m>>,
    pending: Option<Skb<'m>>,
    backlog: Option<Skb<'m>>,
    more_pending: bool,
    window: Window,
    ablation: Ablation,
}

impl<'m, N: Nic<'m>> Reserved<'m, N> {
    /// A device over `nic`, with skbs of `pool`, behind `ingress`.
    ///
    /// # Errors
    ///
    /// [`ReservedError::SkbTooSmall`]: a frame of the card's MTU, with a priority tag, does not fit
    /// into an skb.
    pub fn new(
        nic: N,
        pool: &'m SkbPool<'m>,
        ingress: &'m Ingress<'m>,
    ) -> Result<Self, ReservedError> {
        let max_frame = nic.mtu() + ETHERNET_HEADER;
        let needed = max_frame + VLAN_TAG;
        if pool.max_frame() < needed {
            return Err(ReservedError::SkbTooSmall {
                skb: pool.max_frame(),
                needed,
            });
        }
        Ok(Reserved {
            nic,
            pool,
            ingress,
            max_frame,
            spare: None,
            pending: None,
            backlog: None,
            more_pending: false,
            window: Window::default(),
            ablation: Ablation::NONE,
        })
    }

    /// Whether the last poll stopped with frames still at the card, or with one that waits for a
    /// transmit skb or for room in the transmit ring.
    #[must_use]
    pub fn more_pending(&self) -> bool {
        self.more_pending || self.pending.is_some() || self.backlog.is_some()
    }

    /// The card.
    pub fn nic(&self) -> &N {
        &self.nic
    }

    /// The card.
    pub fn nic_mut(&mut self) -> &mut N {
        &mut self.nic
    }

    /// Gives the card back; what the device holds is freed.
    pub fn into_nic(self) -> N {
        self.nic
    }

    /// Switches a mechanism of this device off, for good. A mechanism of another object changes
    /// nothing.
    #[cfg(feature = "ablation")]
    pub fn ablate(&mut self, mechanism: Mechanism) {
        self.ablation.ablate(mechanism);
    }

    /// Whether a frame can be sent now: nothing waits before it, the ring has room, and there is an
    /// skb.
    fn prepare_transmit(&mut self) -> bool {
        self.send_backlog() && self.nic.tx_ready() && self.refresh_spare()
    }

    fn send_backlog(&mut self) -> bool {
        if let Some(skb) = self.backlog.take()
            && let Err(skb) = self.nic.transmit(skb)
        {
            self.backlog = Some(skb);
            return false;
        }
        true
    }

    /// Without a transmit skb in hand (N5): what could be sent is, and nothing is held back.
    fn prepare_nothing(&mut self) -> bool {
        self.spare = None;
        let _ = self.send_backlog() && self.nic.tx_ready();
        true
    }

    fn refresh_spare(&mut self) -> bool {
        self.spare = match self.spare.take() {
            None => self.pool.alloc_tx().ok(),
            // Back to the reserve with it, if it can be (N6).
            Some(skb) if skb.is_emergency() && !self.ablation.off(Mechanism::SpareExchange) => {
                Some(self.pool.exchange_tx(skb))
            }
            spare => spare,
        };
        self.spare.is_some()
    }

    /// Runs frames down the ladder until one is for smoltcp.
    fn fill_pending(&mut self) {
        self.more_pending = false;
        if self.pending.is_some() {
            return;
        }
        for _ in 0..LADDER_WEIGHT {
            let Some(skb) = self.nic.receive(self.pool) else {
                return;
            };
            match self.ingress.receive(skb) {
                Verdict::Swap(skb) => {
                    self.pending = Some(skb);
                    return;
                }
                Verdict::Unclaimed(skb, reason) => {
                    if let Err(skb) = self.nic.unclaimed(skb, reason) {
                        self.ingress.drop_skb(skb, reason);
                    }
                }
                Verdict::Delivered(_) | Verdict::Dropped(_) => {}
            }
        }
        self.more_pending = true;
    }
}

impl<'m, N: Nic<'m>> Device for Reserved<'m, N> {
    type RxToken<'a>
        = RxToken<'a, 'm>
    where
        Self: 'a;
    type TxToken<'a>
        = TxToken<'a, 'm, N>
    where
        Self: 'a;

    fn receive(&mut self, _: Instant) -> Option<(Self::RxToken<'_>, Self::TxToken<'_>)> {
        let late = self.ablation.off(Mechanism::TransmitInHand);
        let can_answer = if late {
            self.prepare_nothing()
        } else {
            self.prepare_transmit()
        };
        self.fill_pending();
        if !can_answer {
            return None;
        }
        self.window.received(self.pending.as_ref()?.data());
        let Reserved {
            nic,
            #[cfg(feature = "ablation")]
            pool,
            ingress,
            max_frame,
            spare,
            pending,
            backlog,
            window,
            ablation,
            ..
        } = self;
        let tx = TxToken {
            nic,
            ingress,
            spare,
            backlog,
            window: (!ablation.off(Mechanism::PostedWindow)).then_some(window),
            max_frame: *max_frame,
            #[cfg(feature = "ablation")]
            late: late.then_some(*pool),
        };
        Some((RxToken { pending }, tx))
    }

    fn transmit(&mut self, _: Instant) -> Option<Self::TxToken<'_>> {
        if !self.prepare_transmit() {
            return None;
        }
        let window = (!self.ablation.off(Mechanism::PostedWindow)).then_some(&mut self.window);
        Some(TxToken {
            nic: &mut self.nic,
            ingress: self.ingress,
            spare: &mut self.spare,
            backlog: &mut self.backlog,
            window,
            max_frame: self.max_frame,
            #[cfg(feature = "ablation")]
            late: None,
        })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let offload = self.nic.checksum_offload();
        let checksum = || match (offload.rx, offload.tx) {
            (false, false) => Checksum::Both,
            (false, true) => Checksum::Rx,
            (true, false) => Checksum::Tx,
            (true, true) => Checksum::None,
        };
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = self.max_frame;
        capabilities.checksum.udp = checksum();
        capabilities.checksum.tcp = checksum();
        capabilities
    }
}

/// A received frame for smoltcp. Dropped unused, the frame waits for the next poll.
#[derive(Debug)]
pub struct RxToken<'a, 'm> {
    /// Full, until it is consumed.
    pending: &'a mut Option<Skb<'m>>,
}

impl ::smoltcp::phy::RxToken for RxToken<'_, '_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        let skb = self.pending.take();
        f(skb.as_ref().map_or(&[], Skb::data))
    }
}

/// The right to send one frame. Dropped unused, the skb stays with the device.
#[derive(Debug)]
pub struct TxToken<'a, 'm, N> {
    nic: &'a mut N,
    ingress: &'a Ingress<'m>,
    /// Full, until it is consumed.
    spare: &'a mut Option<Skb<'m>>,
    /// Empty, until the card refuses.
    backlog: &'a mut Option<Skb<'m>>,
    /// Follows the posted buffers, unless that is switched off.
    window: Option<&'a mut Window>,
    max_frame: usize,
    /// Where the skb comes from when none is in hand (N5).
    #[cfg(feature = "ablation")]
    late: Option<&'a SkbPool<'m>>,
}

#[cfg(feature = "ablation")]
impl<'m, N: Nic<'m>> TxToken<'_, 'm, N> {
    /// Sends a frame whose memory is looked for only now: without any, or without room in the
    /// ring, it is lost.
    fn send_late<R>(self, pool: &SkbPool<'m>, len: usize, f: impl FnOnce(&mut [u8]) -> R) -> R {
        let Ok(mut skb) = pool.alloc_tx() else {
            let mut scratch = [0; SCRATCH];
            let frame = &mut scratch[..len];
            let result = f(frame);
            self.ingress.count_lost(frame);
            return result;
        };
        let result = f(skb.put(len).expect("an skb holds any frame of the card"));
        if let Ok(skb) = self.ingress.egress(skb)
            && let Err(skb) = self.nic.transmit(skb)
        {
            self.ingress.count_lost(skb.data());
        }
        result
    }
}

impl<'m, N: Nic<'m>> ::smoltcp::phy::TxToken for TxToken<'_, 'm, N> {
    /// # Panics
    ///
    /// If `len` exceeds the `max_transmission_unit` of the device's capabilities.
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        assert!(len <= self.max_frame, "a frame larger than the device said");
        #[cfg(feature = "ablation")]
        if let Some(pool) = self.late {
            return self.send_late(pool, len, f);
        }
        let mut skb = self.spare.take().expect("a token is made with a spare");
        // `Reserved::new` checked that such a frame fits.
        let frame = skb.put(len).expect("an skb holds any frame of the card");
        let result = f(frame);
        if let (Some(window), Some(posted)) = (self.window, self.nic.rx_posted()) {
            let checksum = !self.nic.checksum_offload().tx;
            window.clamp(frame, posted, self.nic.mtu(), checksum);
        }
        if let Ok(skb) = self.ingress.egress(skb)
            && let Err(skb) = self.nic.transmit(skb)
        {
            *self.backlog = Some(skb);
        }
        result
    }
}

/// Why a device cannot be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum ReservedError {
    /// A frame of the card's MTU does not fit into an skb of the pool.
    SkbTooSmall {
        /// Bytes that fit.
        skb: usize,
        /// Bytes of the largest frame.
        needed: usize,
    },
}

impl fmt::Display for ReservedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReservedError::SkbTooSmall { skb, needed } => write!(
                f,
                "frames of {needed} bytes do not fit into skbs of {skb}: use larger ones or a smaller MTU"
            ),
        }
    }
}

impl core::error::Error for ReservedError {}

#[cfg(test)]
mod tests;
