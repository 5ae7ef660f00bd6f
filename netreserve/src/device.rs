//! A card, a pool and the drop ladder behind the two questions that every stack asks: is there a packet
//! for me, and may I send one?
//!
//! The answers are tokens that come in pairs, so that a received frame can be answered at once. That is
//! just what N5 asks for: the transmit skb is held before the received one is handed up.

use core::fmt;
use core::num::{NonZeroU16, NonZeroUsize};

use crate::ablation::{Ablation, Mechanism};
use crate::class::VLAN_TAG;
use crate::skb::Meta;
use crate::window::Window;
use crate::{DropReason, Ingress, Medium, Nic, Skb, SkbPool, Verdict};

/// Frames that one [`poll_receive`](Reserved::poll_receive) takes from the card at most.
pub(crate) const LADDER_WEIGHT: usize = 64;

/// The largest IPv4 packet whose header tells its length: early demux has to read it.
const MAX_PACKET: usize = 0xffff;

/// Bytes for a frame that finds no skb, on the stack.
#[cfg(feature = "ablation")]
const SCRATCH: usize = 16 << 10;

/// A device for the swap stack, over a card, a pool and the drop ladder.
///
/// Received frames go through the ladder; only what serves the VM comes up to the stack, and what
/// nobody claims goes to [`Nic::unclaimed`]. Give paging an interface of its own: this one sees nobody else's
/// traffic.
///
/// It knows no stack: [`poll_receive`](Reserved::poll_receive) and
/// [`poll_transmit`](Reserved::poll_transmit) are what a kernel's own stack calls. With the feature
/// `smoltcp` it is a `smoltcp::phy::Device`; with `embassy`, `ReservedDriver` is a driver for
/// `embassy-net` over it.
///
/// # What it holds
///
/// - `spare`, a transmit skb, held from the first poll on. It is taken from the pool *before* a
///   received frame is handed up (N5), and goes into that frame's answer or stays for the next. If
///   it came out of the reserve, it is exchanged as soon as ordinary memory can be had.
/// - `pending`, one received frame for the stack. It waits here, not lost, while there is no transmit
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
/// The window of TCP that is sent is lowered to what the receive buffers that are
/// [posted](Nic::rx_posted) can take, so that the peer does not lose the rest of every burst when
/// they are few. The buffers are shared out evenly among all flows of the table: as long as no more than
/// buffers are posted, the peers are never promised more together than what is there, but for what they
/// were promised before another flow was added. Of 8 connections per device the scale of their windows
/// is known; beyond, those that were quiet for the longest time advertise what they like, shifted.
///
/// # Segmentation
///
/// Frames for a card that [segments](Nic::segmentation) are as large as an skb of the pool holds, and no
/// larger than what an IP header can tell. It is left alone unless the card makes TCP's checksums.
#[derive(Debug)]
pub struct Reserved<'m, N> {
    nic: N,
    pool: &'m SkbPool<'m>,
    ingress: &'m Ingress<'m>,
    medium: Medium,
    max_frame: usize,
    max_gso: Option<NonZeroUsize>,
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
    /// into an skb. [`ReservedError::OtherMedium`]: the ladder reads frames of another medium than
    /// those of the card. [`ReservedError::NoHeadroom`]: there is no room for the tag of the ladder's
    /// VLAN.
    pub fn new(
        nic: N,
        pool: &'m SkbPool<'m>,
        ingress: &'m Ingress<'m>,
    ) -> Result<Self, ReservedError> {
        let medium = nic.medium();
        if ingress.medium() != medium {
            return Err(ReservedError::OtherMedium {
                nic: medium,
                ingress: ingress.medium(),
            });
        }
        let max_frame = nic.mtu() + medium.header_len();
        let tag = match medium {
            Medium::Ethernet => VLAN_TAG,
            Medium::Ip => 0,
        };
        let needed = max_frame + tag;
        if pool.max_frame() < needed {
            return Err(ReservedError::SkbTooSmall {
                skb: pool.max_frame(),
                needed,
            });
        }
        // The ladder puts the tag of a VLAN in front.
        let headroom = match ingress.vlan() {
            Some(_) => VLAN_TAG,
            None => 0,
        };
        if pool.headroom() < headroom {
            return Err(ReservedError::NoHeadroom { needed: headroom });
        }
        let max_gso = nic
            .segmentation()
            .filter(|_| nic.checksum_offload().tcp.tx)
            .and_then(|most| {
                let readable = MAX_PACKET + medium.header_len();
                NonZeroUsize::new(most.get().min(pool.max_frame()).min(readable))
            })
            .filter(|most| most.get() > max_frame);
        Ok(Reserved {
            nic,
            pool,
            ingress,
            medium,
            max_frame,
            max_gso,
            spare: None,
            pending: None,
            backlog: None,
            more_pending: false,
            window: Window::new(ingress.vlan()),
            ablation: Ablation::NONE,
        })
    }

    /// The next frame that serves the VM, with the right to answer it. Each call runs up to 64 frames
    /// down the ladder; those that serve nobody are free again when it returns.
    ///
    /// `None` also if there is a frame and it cannot be answered (N5): it waits, and
    /// [`more_pending`](Reserved::more_pending) is true. Ask again after the card's next interrupt, and
    /// when memory came free.
    #[must_use = "a frame was perhaps received"]
    pub fn poll_receive(&mut self) -> Option<(RxToken<'_, 'm>, TxToken<'_, 'm, N>)> {
        self.advance().then(|| self.tokens())
    }

    /// Whether a frame is there that may be handed up.
    pub(crate) fn advance(&mut self) -> bool {
        let can_answer = if self.ablation.off(Mechanism::TransmitInHand) {
            self.prepare_nothing()
        } else {
            self.prepare_transmit()
        };
        self.fill_pending();
        can_answer && self.pending.is_some()
    }

    /// After [`advance`](Reserved::advance).
    pub(crate) fn tokens(&mut self) -> (RxToken<'_, 'm>, TxToken<'_, 'm, N>) {
        if let Some(skb) = &self.pending {
            let verify = !self.nic.checksum_offload().tcp.rx;
            self.window.received(skb.data(), self.medium, verify);
        }
        let Reserved {
            nic,
            #[cfg(feature = "ablation")]
            pool,
            ingress,
            medium,
            max_frame,
            max_gso,
            spare,
            pending,
            backlog,
            window,
            ablation,
            ..
        } = self;
        let rx = RxToken { pending, ingress };
        let tx = TxToken {
            nic,
            ingress,
            spare,
            backlog,
            window: (!ablation.off(Mechanism::PostedWindow)).then_some(window),
            medium: *medium,
            max_frame: *max_frame,
            max_gso: *max_gso,
            meta: Meta::default(),
            #[cfg(feature = "ablation")]
            late: ablation.off(Mechanism::TransmitInHand).then_some(*pool),
        };
        (rx, tx)
    }

    /// The right to send one frame, if there is an skb for it and room in the ring.
    #[must_use = "the frame is to be sent"]
    pub fn poll_transmit(&mut self) -> Option<TxToken<'_, 'm, N>> {
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
            medium: self.medium,
            max_frame: self.max_frame,
            max_gso: self.max_gso,
            meta: Meta::default(),
            #[cfg(feature = "ablation")]
            late: None,
        })
    }

    /// Whether the last poll stopped with frames still at the card, or with one that waits for a
    /// transmit skb or for room in the transmit ring.
    #[must_use]
    pub fn more_pending(&self) -> bool {
        self.more_pending || self.pending.is_some() || self.backlog.is_some()
    }

    /// Whether the last poll stopped after 64 frames (the weight of NAPI), not for want of any: polled
    /// again at once, it goes on.
    #[must_use]
    pub fn weight_exhausted(&self) -> bool {
        self.more_pending
    }

    /// The largest frame that may be sent, in bytes with its header, segmentation left aside.
    #[must_use]
    pub fn max_frame(&self) -> usize {
        self.max_frame
    }

    /// The largest frame with a [`gso_size`](Skb::gso_size) that may be sent, in bytes with all
    /// headers; `None` if the card or the pool cannot have it.
    #[must_use]
    pub fn max_gso(&self) -> Option<NonZeroUsize> {
        self.max_gso
            .filter(|_| !self.ablation.off(Mechanism::TransmitInHand))
    }

    /// What frames begin with.
    #[must_use]
    pub fn medium(&self) -> Medium {
        self.medium
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

    /// Runs frames down the ladder until one is for the stack.
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
                Verdict::Delivered(_) | Verdict::Taken(_) | Verdict::Dropped(_) => {}
            }
        }
        self.more_pending = true;
    }
}

/// A received frame for the stack. Dropped unused, the frame waits for the next poll.
#[derive(Debug)]
pub struct RxToken<'a, 'm> {
    /// Full, until it is consumed.
    pending: &'a mut Option<Skb<'m>>,
    ingress: &'a Ingress<'m>,
}

impl<'m> RxToken<'_, 'm> {
    /// The frame.
    #[must_use]
    pub fn data(&self) -> &[u8] {
        self.pending.as_ref().map_or(&[], Skb::data)
    }

    /// The number that the driver gave it.
    #[must_use]
    pub fn mark(&self) -> u32 {
        self.pending.as_ref().map_or(0, Skb::mark)
    }

    /// The skb, for a stack that keeps buffers. It must be free before the next one is asked for, or
    /// be counted in the [budget](crate::budget): it may be an emergency skb.
    #[must_use = "what nobody takes is lost"]
    pub fn into_skb(self) -> Skb<'m> {
        self.pending.take().expect("a token is made with a frame")
    }

    /// Lends the frame to `f`, and frees it.
    pub fn read<R>(self, f: impl FnOnce(&[u8]) -> R) -> R {
        f(self.into_skb().data())
    }

    /// Lends the frame to `f` for writing, and frees it. Should somebody share its bytes, against what
    /// a [`Nic`] promises, it is dropped and counted, and `f` sees nothing.
    pub fn modify<R>(self, f: impl FnOnce(&mut [u8]) -> R) -> R {
        let ingress = self.ingress;
        let mut skb = self.into_skb();
        if let Ok(data) = skb.try_data_mut() {
            return f(data);
        }
        ingress.drop_skb(skb, DropReason::SharedTag);
        f(&mut [])
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
    medium: Medium,
    max_frame: usize,
    max_gso: Option<NonZeroUsize>,
    meta: Meta,
    /// Where the skb comes from when none is in hand (N5).
    #[cfg(feature = "ablation")]
    late: Option<&'a SkbPool<'m>>,
}

impl<'m, N: Nic<'m>> TxToken<'_, 'm, N> {
    /// Sends the frame of `len` bytes that `f` writes. What it finds there is whatever the last owner
    /// left. If the frame does not serve the VM and its memory is the reserve's, it is dropped and
    /// counted (N6).
    ///
    /// # Panics
    ///
    /// If `len` exceeds [`max_frame`](Reserved::max_frame), or, with a
    /// [`gso_size`](TxToken::set_gso_size), [`max_gso`](Reserved::max_gso).
    pub fn send<R>(self, len: usize, f: impl FnOnce(&mut [u8]) -> R) -> R {
        let gso = self.meta.gso_size.and(self.max_gso);
        let most = gso.map_or(self.max_frame, NonZeroUsize::get);
        assert!(len <= most, "a frame larger than the device said");
        #[cfg(feature = "ablation")]
        if let Some(pool) = self.late {
            return self.send_late(pool, len, f);
        }
        let mut skb = self.spare.take().expect("a token is made with a spare");
        skb.set_meta(self.meta);
        // `Reserved::new` checked that such a frame fits.
        let frame = skb.put(len).expect("an skb holds any frame of the card");
        let result = f(frame);
        let posted = [self.nic.rx_posted(), self.nic.max_burst()];
        if let (Some(window), Some(posted)) = (self.window, posted.into_iter().flatten().min()) {
            let flows = self.ingress.flows();
            let ours = !self.nic.checksum_offload().tcp.tx;
            window.clamp(frame, self.medium, posted, self.nic.mtu(), ours, flows);
        }
        if let Ok(skb) = self.ingress.egress(skb)
            && let Err(skb) = self.nic.transmit(skb)
        {
            *self.backlog = Some(skb);
        }
        result
    }

    /// Gives the packet a number for the driver.
    pub fn set_mark(&mut self, mark: u32) {
        self.meta.mark = mark;
    }

    /// Lets the card cut the frame into segments of so many bytes.
    pub fn set_gso_size(&mut self, size: Option<NonZeroU16>) {
        self.meta.gso_size = size;
    }

    /// Sends a frame whose memory is looked for only now: without any, or without room in the
    /// ring, it is lost.
    #[cfg(feature = "ablation")]
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
    /// The ladder puts a VLAN's tag in front of what is sent, and skbs of the pool have no room there:
    /// see [`SkbPool::with_headroom`].
    NoHeadroom {
        /// Bytes of the tag.
        needed: usize,
    },
    /// The ladder cannot read the card's frames.
    OtherMedium {
        /// What the card's frames begin with.
        nic: Medium,
        /// What the ladder expects.
        ingress: Medium,
    },
}

impl fmt::Display for ReservedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReservedError::SkbTooSmall { skb, needed } => write!(
                f,
                "frames of {needed} bytes do not fit into skbs of {skb}: use larger ones or a smaller MTU"
            ),
            ReservedError::NoHeadroom { needed } => write!(
                f,
                "the tag of the VLAN needs {needed} bytes of headroom in each skb"
            ),
            ReservedError::OtherMedium { nic, ingress } => write!(
                f,
                "the card's medium is {nic:?}, and the ladder was made for {ingress:?}"
            ),
        }
    }
}

impl core::error::Error for ReservedError {}

#[cfg(test)]
mod tests;
