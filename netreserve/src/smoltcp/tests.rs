use alloc::collections::VecDeque;
use alloc::vec;
use alloc::vec::Vec;

use ::smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use ::smoltcp::phy::{Loopback, RxToken as _, Tracer, TxToken as _};
use ::smoltcp::socket::tcp;
use ::smoltcp::time::Duration;
use ::smoltcp::wire::{EthernetAddress, HardwareAddress, IpAddress, IpCidr, Ipv6Address};

use super::*;
use crate::testbed::card::{Card, MTU};
use crate::testbed::{
    LOCAL, MAC, Machine, SERVER, SERVER_MAC, SKB, STRANGER, SWAP, arp, machine, packet,
};
use crate::{DropReason, Flow, Ingress, Protocol, Skb};

#[cfg(feature = "ablation")]
use crate::Mechanism;

mod contract;
mod exchange;
#[cfg(feature = "segmentation-offload")]
mod segmenting;

/// A line that lends its own buffers, and has capabilities that can be told.
#[derive(Debug)]
struct Line {
    capabilities: DeviceCapabilities,
    incoming: VecDeque<Vec<u8>>,
    outgoing: VecDeque<Vec<u8>>,
    marks: Vec<u32>,
}

impl Line {
    fn new(medium: phy::Medium) -> Self {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = medium;
        let header = if medium == phy::Medium::Ethernet {
            14
        } else {
            0
        };
        capabilities.max_transmission_unit = MTU + header;
        Line {
            capabilities,
            incoming: VecDeque::new(),
            outgoing: VecDeque::new(),
            marks: Vec::new(),
        }
    }
}

struct LineRx(Vec<u8>);
struct LineTx<'a>(&'a mut Line);

impl Device for Line {
    type RxToken<'a> = LineRx;
    type TxToken<'a> = LineTx<'a>;

    fn receive(&mut self, _: Instant) -> Option<(LineRx, LineTx<'_>)> {
        let frame = self.incoming.pop_front()?;
        Some((LineRx(frame), LineTx(self)))
    }

    fn transmit(&mut self, _: Instant) -> Option<LineTx<'_>> {
        Some(LineTx(self))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        self.capabilities.clone()
    }
}

impl phy::RxToken for LineRx {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }

    fn meta(&self) -> PacketMeta {
        meta(u32::from(self.0[0]))
    }
}

impl phy::TxToken for LineTx<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut frame = vec![0; len];
        let result = f(&mut frame);
        self.0.outgoing.push_back(frame);
        result
    }

    fn set_meta(&mut self, meta: PacketMeta) {
        self.0.marks.push(mark(meta));
    }
}

/// What a test does at the far end of a card.
trait Cable: Nic<'static> + Sized {
    fn over(medium: Medium) -> Self;
    fn arrive(&mut self, frame: Vec<u8>);
    fn take(&mut self) -> Option<Vec<u8>>;
}

impl Cable for Card {
    fn over(medium: Medium) -> Self {
        Card::new(medium, [])
    }

    fn arrive(&mut self, frame: Vec<u8>) {
        Card::arrive(self, frame);
    }

    fn take(&mut self) -> Option<Vec<u8>> {
        let skb = self.sending.pop_front()?;
        Some(skb.data().to_vec())
    }
}

impl Cable for PhyNic<'static, Line> {
    fn over(medium: Medium) -> Self {
        PhyNic::new(Line::new(super::medium(medium)), MAC).unwrap()
    }

    fn arrive(&mut self, frame: Vec<u8>) {
        self.device_mut().incoming.push_back(frame);
    }

    fn take(&mut self) -> Option<Vec<u8>> {
        self.device_mut().outgoing.pop_front()
    }
}

const MEDIA: [Medium; 2] = [Medium::Ethernet, Medium::Ip];

fn ladder(m: &Machine, medium: Medium) -> &'static Ingress<'static> {
    match medium {
        Medium::Ethernet => m.ingress,
        Medium::Ip => m.ip_ingress,
    }
}

/// As it looks on the medium.
fn on(medium: Medium, frame: Vec<u8>) -> Vec<u8> {
    frame[Medium::Ethernet.header_len() - medium.header_len()..].to_vec()
}
