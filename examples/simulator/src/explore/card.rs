//! The smallest card that can be in the way: two short rings, and no memory of its own.

use core::cell::RefCell;
use core::fmt;
use std::collections::VecDeque;
use std::rc::Rc;

use netreserve::{FlowTable, Nic, Skb, SkbPool};

use super::digest::Digest;
use super::endpoint::Endpoint;
use crate::packet;
use crate::scenario::Micros;
use crate::server;
use crate::verdict::Findings;

/// The side of the card that the wire sees, and what the card's two rings have seen.
#[derive(Debug, Default)]
pub(super) struct Port {
    /// Packets that came, each in a posted buffer.
    pub(super) waiting: VecDeque<Vec<u8>>,
    /// Buffers posted for receiving, when the driver last looked.
    pub(super) posted: usize,
    /// Packets in the transmit ring that the wire has not carried away.
    pub(super) sending: VecDeque<Vec<u8>>,
    /// Descriptors that the wire is done with and the driver has not reaped.
    completed: usize,
    /// The wire is to carry a packet away while the kernel runs: just before the driver looks for
    /// what came. Where such packets are then.
    pub(super) meanwhile: bool,
    pub(super) carried: Option<Vec<u8>>,
    /// Packets that the driver took out of the receive ring, and put into the transmit ring.
    pub(super) moved: [u64; 2],
    /// The time, for what is seen from here of the swap connection.
    pub(super) now: Micros,
    /// The swap connection.
    pub(super) endpoint: Endpoint,
}

pub(super) type SharedPort = Rc<RefCell<Port>>;

impl Port {
    /// A packet arrives. Without a buffer it is lost: such a card keeps nothing.
    pub(super) fn arrive(&mut self, frame: Vec<u8>) -> bool {
        let room = self.waiting.len() < self.posted;
        if room {
            self.waiting.push_back(frame);
        }
        room
    }

    /// The wire carries the next packet away, and its descriptor is done with.
    pub(super) fn take_sent(&mut self) -> Option<Vec<u8>> {
        let frame = self.sending.pop_front()?;
        self.completed += 1;
        Some(frame)
    }

    pub(super) fn digest(&self, digest: &mut Digest) {
        digest.frames(&self.waiting);
        digest.frames(&self.sending);
        digest.number(self.posted);
        digest.number(self.completed);
        self.endpoint.digest(digest);
    }
}

/// The card with a driver that refills the receive ring at every opportunity: no driver holds more.
pub(super) struct Card<'m> {
    pub(super) port: SharedPort,
    pub(super) rings: [usize; 2],
    pub(super) hardware: [u8; 6],
    pub(super) flows: &'m FlowTable<'m>,
    pub(super) findings: Findings,
    pub(super) rx: VecDeque<Skb<'m>>,
    pub(super) tx: VecDeque<Skb<'m>>,
    /// Where the strangers' packets lie that the ladder was given, and whether in the reserve.
    pub(super) strange: Vec<(*const u8, bool)>,
}

impl<'m> Card<'m> {
    fn refill(&mut self, pool: &SkbPool<'m>) {
        while self.rx.len() < self.rings[0] {
            let Ok(skb) = pool.alloc_rx() else {
                break;
            };
            let allowed = !skb.is_emergency() || self.flows.any();
            self.findings.check(allowed, "N1", || {
                "a receive buffer came out of the reserve, and there is no VMIO flow".into()
            });
            self.rx.push_back(skb);
        }
        self.port.borrow_mut().posted = self.rx.len();
    }

    fn judge(&self, skb: &Skb<'_>) {
        let frame = skb.data();
        let tcp = packet::tcp(frame);
        let to_server = tcp.is_some_and(|tcp| *tcp.destination.ip() == server::ADDRESS);
        let serves = to_server || packet::arp_target(frame) == Some(server::ADDRESS);
        self.findings
            .check(serves || !skb.is_emergency(), "N2", || {
                let what = packet::describe(frame);
                format!("{what} left in an emergency buffer and does not serve the VM")
            });
    }
}

impl<'m> Nic<'m> for Card<'m> {
    fn receive(&mut self, pool: &SkbPool<'m>) -> Option<Skb<'m>> {
        {
            let mut port = self.port.borrow_mut();
            if core::mem::take(&mut port.meanwhile) {
                port.carried = port.take_sent();
            }
        }
        self.tx_ready();
        self.refill(pool);
        let frame = self.port.borrow_mut().waiting.pop_front()?;
        let mut skb = self
            .rx
            .pop_front()
            .expect("a packet waits in a posted buffer");
        skb.put(frame.len())
            .expect("no packet is longer than the MTU allows")
            .copy_from_slice(&frame);
        if packet::sender(&frame) != Some(server::ADDRESS) {
            self.strange.push((skb.data().as_ptr(), skb.is_emergency()));
        }
        self.refill(pool);
        let mut port = self.port.borrow_mut();
        port.moved[0] += 1;
        let now = port.now;
        port.endpoint.received(&frame, now);
        Some(skb)
    }

    fn transmit(&mut self, skb: Skb<'m>) -> Result<(), Skb<'m>> {
        if !self.tx_ready() {
            return Err(skb);
        }
        self.judge(&skb);
        let mut port = self.port.borrow_mut();
        port.moved[1] += 1;
        let now = port.now;
        port.endpoint.sent(skb.data(), now);
        port.sending.push_back(skb.data().to_vec());
        self.tx.push_back(skb);
        Ok(())
    }

    fn tx_ready(&mut self) -> bool {
        let completed = core::mem::take(&mut self.port.borrow_mut().completed);
        self.tx.drain(..completed);
        self.tx.len() < self.rings[1]
    }

    fn mtu(&self) -> usize {
        1500
    }

    fn rx_posted(&self) -> Option<usize> {
        Some(self.rx.len())
    }

    fn hardware_addr(&self) -> [u8; 6] {
        self.hardware
    }
}

impl fmt::Debug for Card<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Card").finish_non_exhaustive()
    }
}
