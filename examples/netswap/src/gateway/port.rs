//! The gateway's end of the wire, as `smoltcp` wants a network card to be.

use std::sync::Arc;

use smoltcp::phy::{self, DeviceCapabilities, Medium};
use smoltcp::time::Instant;

use crate::wire::{FRAME_MAX, MTU, Wire};

/// Bytes of an Ethernet header.
const ETHERNET_HEADER: usize = 14;

/// A network card at the gateway's end of the wire.
///
/// It gives no token while the way to the machine is full, so that nothing is ever lost there.
#[derive(Debug)]
pub(super) struct Port {
    wire: Arc<Wire>,
    /// Frames that may still be taken.
    admitted: usize,
    received: Vec<u8>,
    transmitted: Box<[u8]>,
}

impl Port {
    /// Lets the frames in that wait now, and none that come later.
    pub(super) fn admit_waiting(&mut self) {
        self.admitted = self.wire.waiting_for_gateway();
    }

    pub(super) fn new(wire: Arc<Wire>) -> Port {
        Port {
            wire,
            admitted: 0,
            received: Vec::with_capacity(FRAME_MAX),
            transmitted: vec![0; FRAME_MAX].into_boxed_slice(),
        }
    }
}

impl phy::Device for Port {
    type RxToken<'a> = RxToken<'a>;
    type TxToken<'a> = TxToken<'a>;

    fn receive(&mut self, _now: Instant) -> Option<(RxToken<'_>, TxToken<'_>)> {
        if self.admitted == 0 || !self.wire.has_room() {
            return None;
        }
        self.received.clear();
        let received = &mut self.received;
        if !self
            .wire
            .take_from_machine(|frame| received.extend_from_slice(frame))
        {
            return None;
        }
        self.admitted -= 1;
        Some((
            RxToken(&self.received),
            TxToken {
                wire: &self.wire,
                buffer: &mut self.transmitted,
            },
        ))
    }

    fn transmit(&mut self, _now: Instant) -> Option<TxToken<'_>> {
        self.wire.has_room().then_some(TxToken {
            wire: &self.wire,
            buffer: &mut self.transmitted,
        })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = MTU + ETHERNET_HEADER;
        capabilities
    }
}

/// A frame that came in.
pub(super) struct RxToken<'a>(&'a [u8]);

impl phy::RxToken for RxToken<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.0)
    }
}

/// The right to send a frame, for which there is room.
pub(super) struct TxToken<'a> {
    wire: &'a Wire,
    buffer: &'a mut [u8],
}

impl phy::TxToken for TxToken<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let frame = &mut self.buffer[..len];
        let result = f(frame);
        // Should it be refused after all, the wire has counted it, and TCP will send it again.
        let _ = self.wire.send_to_machine(frame);
        result
    }
}
