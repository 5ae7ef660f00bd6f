//! smoltcp over a reserve: the one room that knows smoltcp.

mod phy_nic;

use ::smoltcp::phy::{
    self, Checksum, ChecksumCapabilities, Device, DeviceCapabilities, PacketMeta,
};
use ::smoltcp::time::Instant;

pub use phy_nic::{OtherMedium, PhyNic};

use crate::{ChecksumOffload, Medium, Nic, Offload, Reserved, RxToken, TxToken};

/// A smoltcp device for the swap stack, over either medium.
///
/// Its capabilities are the card's, except for segmentation of TCP over IPv6: smoltcp 0.14 drops a
/// segment that is larger than the MTU there, so that a connection would wait for ever.
///
/// smoltcp's minimum retransmission time-out is a second, so that a TCP segment lost here costs
/// one: none is.
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
        self.poll_receive()
    }

    fn transmit(&mut self, _: Instant) -> Option<Self::TxToken<'_>> {
        self.poll_transmit()
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = medium(self.medium());
        capabilities.max_transmission_unit = self.max_frame();
        capabilities.max_burst_size = self.nic().max_burst();
        capabilities.checksum = checksums(self.nic().checksum_offload());
        #[cfg(feature = "segmentation-offload")]
        {
            capabilities.segmentation.tcpv4 = self.max_gso();
        }
        capabilities
    }
}

impl phy::RxToken for RxToken<'_, '_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        self.read(f)
    }

    fn meta(&self) -> PacketMeta {
        meta(self.mark())
    }
}

impl<'m, N: Nic<'m>> phy::TxToken for TxToken<'_, 'm, N> {
    /// # Panics
    ///
    /// If `len` exceeds the `max_transmission_unit` of the device's capabilities.
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        self.send(len, f)
    }

    fn set_meta(&mut self, meta: PacketMeta) {
        self.set_mark(mark(meta));
        #[cfg(feature = "segmentation-offload")]
        self.set_gso_size(meta.segmentation_offload_size);
    }
}

const fn medium(medium: Medium) -> phy::Medium {
    match medium {
        Medium::Ethernet => phy::Medium::Ethernet,
        Medium::Ip => phy::Medium::Ip,
    }
}

/// What is left to do for the stack.
fn checksums(offload: ChecksumOffload) -> ChecksumCapabilities {
    let left = |offload: Offload| match (offload.rx, offload.tx) {
        (false, false) => Checksum::Both,
        (false, true) => Checksum::Rx,
        (true, false) => Checksum::Tx,
        (true, true) => Checksum::None,
    };
    let mut capabilities = ChecksumCapabilities::default();
    capabilities.ipv4 = left(offload.ipv4);
    capabilities.udp = left(offload.udp);
    capabilities.tcp = left(offload.tcp);
    capabilities.icmpv4 = left(offload.icmpv4);
    #[cfg(feature = "proto-ipv6")]
    {
        capabilities.icmpv6 = left(offload.icmpv6);
    }
    capabilities
}

#[cfg(feature = "packetmeta-id")]
fn mark(meta: PacketMeta) -> u32 {
    meta.id
}

/// Without the feature there is no number in it.
#[cfg(not(feature = "packetmeta-id"))]
fn mark(_: PacketMeta) -> u32 {
    0
}

#[cfg(feature = "packetmeta-id")]
fn meta(mark: u32) -> PacketMeta {
    let mut meta = PacketMeta::default();
    meta.id = mark;
    meta
}

#[cfg(not(feature = "packetmeta-id"))]
fn meta(_: u32) -> PacketMeta {
    PacketMeta::default()
}

#[cfg(test)]
mod tests;
