//! Any smoltcp device as a card, by copying.

use core::fmt;

use core::num::NonZeroUsize;

use ::smoltcp::phy::{self, Checksum, Device, RxToken, TxToken};
use ::smoltcp::time::Instant;

use super::{mark, meta};
use crate::{ChecksumOffload, Medium, Nic, Offload, Skb, SkbPool};

/// Frames that do not fit which one [`receive`](Nic::receive) looks at: a flood of them must not hold
/// the processor either.
const OVERSIZED_MAX: usize = 64;

/// A card over a device that lends its own buffers: frames are copied between those and skbs.
///
/// For devices that cannot hold owned skbs (a TAP or TUN interface, smoltcp's `Loopback`, `Tracer` or
/// `FaultInjector`), on both media; with every capability that the device has, and the packets'
/// metadata. The receive ring is the one skb that is held for the next frame; the transmit
/// ring is the device's own, so 1 and 0 go into the [budget](crate::budget). Frames larger than an
/// skb are dropped and [counted](PhyNic::oversized).
///
/// ```
/// use netreserve::{Nic, PhyNic};
/// use smoltcp::phy::{Loopback, Medium};
///
/// let nic = PhyNic::new(Loopback::new(Medium::Ethernet), [2, 0, 0, 0, 0, 1]).unwrap();
/// assert!(nic.mtu() > 1500);
/// ```
pub struct PhyNic<'m, D> {
    device: D,
    medium: Medium,
    hardware_addr: [u8; 6],
    now: Instant,
    posted: Option<Skb<'m>>,
    oversized: u64,
}

impl<D: Device> PhyNic<'_, D> {
    /// A card over `device`. Where the medium is IP, nobody asks for the address.
    ///
    /// # Errors
    ///
    /// [`OtherMedium`], with the device: it is neither Ethernet nor IP.
    pub fn new(device: D, hardware_addr: [u8; 6]) -> Result<Self, OtherMedium<D>> {
        let medium = match device.capabilities().medium {
            phy::Medium::Ethernet => Medium::Ethernet,
            phy::Medium::Ip => Medium::Ip,
            // There is a third one in builds in which somebody else asks smoltcp for it.
            #[allow(unreachable_patterns)]
            _ => return Err(OtherMedium(device)),
        };
        Ok(PhyNic {
            device,
            medium,
            hardware_addr,
            now: Instant::ZERO,
            posted: None,
            oversized: 0,
        })
    }

    /// The time that the device is told from now on. Only devices that look at it need it
    /// (`Tracer`, the rates of `FaultInjector`).
    pub fn set_now(&mut self, now: Instant) {
        self.now = now;
    }

    /// Frames dropped because they did not fit into an skb.
    pub fn oversized(&self) -> u64 {
        self.oversized
    }

    /// The device.
    pub fn device_mut(&mut self) -> &mut D {
        &mut self.device
    }
}

impl<'m, D: Device> Nic<'m> for PhyNic<'m, D> {
    fn receive(&mut self, pool: &SkbPool<'m>) -> Option<Skb<'m>> {
        let mut skb = match self.posted.take() {
            Some(skb) => skb,
            None => pool.alloc_rx().ok()?,
        };
        for _ in 0..OVERSIZED_MAX {
            let Some((rx, _)) = self.device.receive(self.now) else {
                break;
            };
            let mark = mark(rx.meta());
            let fits = rx.consume(|frame| match skb.put(frame.len()) {
                Ok(data) => {
                    data.copy_from_slice(frame);
                    true
                }
                Err(_) => false,
            });
            if fits {
                skb.set_mark(mark);
                return Some(skb);
            }
            self.oversized += 1;
        }
        self.posted = Some(skb);
        None
    }

    fn transmit(&mut self, skb: Skb<'m>) -> Result<(), Skb<'m>> {
        let Some(mut token) = self.device.transmit(self.now) else {
            return Err(skb);
        };
        #[allow(unused_mut)]
        let mut meta = meta(skb.mark());
        #[cfg(feature = "segmentation-offload")]
        {
            meta.segmentation_offload_size = skb.gso_size();
        }
        token.set_meta(meta);
        token.consume(skb.len(), |frame| frame.copy_from_slice(skb.data()));
        Ok(())
    }

    fn tx_ready(&mut self) -> bool {
        self.device.transmit(self.now).is_some()
    }

    fn medium(&self) -> Medium {
        self.medium
    }

    fn mtu(&self) -> usize {
        let frame = self.device.capabilities().max_transmission_unit;
        frame.saturating_sub(self.medium.header_len())
    }

    fn max_burst(&self) -> Option<usize> {
        self.device.capabilities().max_burst_size
    }

    fn hardware_addr(&self) -> [u8; 6] {
        self.hardware_addr
    }

    fn checksum_offload(&self) -> ChecksumOffload {
        let left = self.device.capabilities().checksum;
        let offload = |left: &Checksum| Offload {
            rx: !left.rx(),
            tx: !left.tx(),
        };
        ChecksumOffload {
            ipv4: offload(&left.ipv4),
            icmpv4: offload(&left.icmpv4),
            #[cfg(feature = "proto-ipv6")]
            icmpv6: offload(&left.icmpv6),
            #[cfg(not(feature = "proto-ipv6"))]
            icmpv6: Offload::NONE,
            udp: offload(&left.udp),
            tcp: offload(&left.tcp),
        }
    }

    fn segmentation(&self) -> Option<NonZeroUsize> {
        #[cfg(feature = "segmentation-offload")]
        return self.device.capabilities().segmentation.tcpv4;
        #[cfg(not(feature = "segmentation-offload"))]
        None
    }
}

impl<D> fmt::Debug for PhyNic<'_, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PhyNic")
            .field("hardware_addr", &self.hardware_addr)
            .field("oversized", &self.oversized)
            .finish_non_exhaustive()
    }
}

/// A device that no [`PhyNic`] can be over: its medium is neither Ethernet nor IP.
pub struct OtherMedium<D>(
    /// The device.
    pub D,
);

impl<D> fmt::Debug for OtherMedium<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("OtherMedium").finish_non_exhaustive()
    }
}

impl<D> fmt::Display for OtherMedium<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the medium of the device is neither Ethernet nor IP")
    }
}

impl<D> core::error::Error for OtherMedium<D> {}
