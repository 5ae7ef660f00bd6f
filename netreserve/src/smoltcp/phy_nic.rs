//! Any smoltcp device as a card, by copying.

use core::fmt;

use ::smoltcp::phy::{Device, RxToken, TxToken};
use ::smoltcp::time::Instant;

use crate::class::ETHERNET_HEADER;
use crate::{ChecksumOffload, Nic, Skb, SkbPool};

/// Frames that do not fit which one [`receive`](Nic::receive) looks at: a flood of them must not hold
/// the processor either.
const OVERSIZED_MAX: usize = 64;

/// A card over a device that lends its own buffers: frames are copied between those and skbs.
///
/// For devices that cannot hold owned skbs (a TAP interface, smoltcp's `Loopback`, `Tracer` or
/// `FaultInjector`). The receive ring is the one skb that is held for the next frame; the transmit
/// ring is the device's own, so 1 and 0 go into the [budget](crate::budget). Frames larger than an
/// skb are dropped and [counted](PhyNic::oversized).
///
/// ```
/// use netreserve::{Nic, PhyNic};
/// use smoltcp::phy::{Loopback, Medium};
///
/// let nic = PhyNic::new(Loopback::new(Medium::Ethernet), [2, 0, 0, 0, 0, 1]);
/// assert!(nic.mtu() > 1500);
/// ```
pub struct PhyNic<'m, D> {
    device: D,
    hardware_addr: [u8; 6],
    now: Instant,
    posted: Option<Skb<'m>>,
    oversized: u64,
}

impl<D: Device> PhyNic<'_, D> {
    /// A card over `device`, whose medium must be Ethernet.
    pub fn new(device: D, hardware_addr: [u8; 6]) -> Self {
        PhyNic {
            device,
            hardware_addr,
            now: Instant::ZERO,
            posted: None,
            oversized: 0,
        }
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
            let fits = rx.consume(|frame| match skb.put(frame.len()) {
                Ok(data) => {
                    data.copy_from_slice(frame);
                    true
                }
                Err(_) => false,
            });
            if fits {
                return Some(skb);
            }
            self.oversized += 1;
        }
        self.posted = Some(skb);
        None
    }

    fn transmit(&mut self, skb: Skb<'m>) -> Result<(), Skb<'m>> {
        let Some(token) = self.device.transmit(self.now) else {
            return Err(skb);
        };
        token.consume(skb.len(), |frame| frame.copy_from_slice(skb.data()));
        Ok(())
    }

    fn tx_ready(&mut self) -> bool {
        self.device.transmit(self.now).is_some()
    }

    fn mtu(&self) -> usize {
        let frame = self.device.capabilities().max_transmission_unit;
        frame.saturating_sub(ETHERNET_HEADER)
    }

    fn hardware_addr(&self) -> [u8; 6] {
        self.hardware_addr
    }

    /// Offloaded where the device's UDP and TCP agree.
    fn checksum_offload(&self) -> ChecksumOffload {
        let checksum = self.device.capabilities().checksum;
        ChecksumOffload {
            rx: !checksum.udp.rx() && !checksum.tcp.rx(),
            tx: !checksum.udp.tx() && !checksum.tcp.tx(),
        }
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
