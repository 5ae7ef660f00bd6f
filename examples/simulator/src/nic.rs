//! The network card: two finite rings of packet buffers, a small memory of its own, and a DMA engine
//! that takes its time.

use core::cell::RefCell;
use core::net::{Ipv4Addr, SocketAddrV4};
use std::collections::VecDeque;
use std::rc::Rc;

use mempool::{ChargeError, Gfp, ReserveNode};
use netreserve::{
    DropReason, Flow, FlowTable, Ingress, Medium, Nic, RxRing, Skb, SkbAllocError, SkbPool,
};

use crate::memory::{Drivers, Watched};
use crate::packet;
use crate::rng::Rng;
use crate::verdict::Findings;

/// Packets that the other stack on the card holds at once.
pub(crate) const OTHER_STACK: usize = 4;

/// The side of the card that the wire sees.
#[derive(Debug, Default)]
pub(crate) struct Port {
    /// Packets that came and were not taken.
    waiting: VecDeque<Vec<u8>>,
    /// Packets that the card keeps when no buffer is posted.
    fifo: usize,
    /// Buffers posted for receiving, when the driver last looked.
    posted: usize,
    /// Packets that were put into the transmit ring and that the wire has not seen.
    sending: VecDeque<Vec<u8>>,
    /// Descriptors of the transmit ring that are done with, since the start.
    completed: u64,
    /// Packets lost because the card had no place for them.
    pub(crate) overrun: u64,
    /// Buffers in the transmit ring, when the driver last looked.
    pub(crate) in_tx_ring: usize,
}

pub(crate) type SharedPort = Rc<RefCell<Port>>;

impl Port {
    pub(crate) fn shared(fifo: usize) -> SharedPort {
        Rc::new(RefCell::new(Port {
            fifo,
            ..Port::default()
        }))
    }

    /// A packet arrives. Whether the card could take it.
    pub(crate) fn arrive(&mut self, frame: Vec<u8>) -> bool {
        let room = self.waiting.len() < self.posted + self.fifo;
        if room {
            self.waiting.push_back(frame);
        } else {
            self.overrun += 1;
        }
        room
    }

    /// The next packet to go out, whose descriptor is done with when the wire has carried it away.
    pub(crate) fn take_sent(&mut self) -> Option<Vec<u8>> {
        self.sending.pop_front()
    }

    /// One more descriptor of the transmit ring is done with.
    pub(crate) fn complete(&mut self) {
        self.completed += 1;
    }

    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    pub(crate) fn posted(&self) -> usize {
        self.posted
    }
}

/// Room in a receive ring; how much of it is used is the machine's choice.
pub(crate) const RX_RING: usize = 64;

/// One of how many received packets is copied if it is an emergency one, and one of how many is cloned that are sent.
const COPIED: u64 = 8;
const CLONED: u64 = 4;

/// The card with its driver.
pub(crate) struct Card<'m> {
    pub(crate) port: SharedPort,
    pub(crate) rings: [usize; 2],
    pub(crate) medium: Medium,
    pub(crate) mtu: usize,
    pub(crate) hardware: [u8; 6],
    pub(crate) server: Ipv4Addr,
    pub(crate) flows: &'m FlowTable<'m>,
    pub(crate) memory: &'m Watched<'m>,
    pub(crate) skb_size: usize,
    pub(crate) slab_order: u8,
    pub(crate) interrupts: &'m dyn Drivers,
    pub(crate) findings: Findings,
    pub(crate) reserve: &'m ReserveNode<'m>,
    pub(crate) ingress: &'m Ingress<'m>,
    pub(crate) rng: Rng,
    /// The packet of the swap stack that the ring had no room for: it must come again.
    pub(crate) refused: Option<Vec<u8>>,
    /// Packets that wait for the other stack that shares the card.
    pub(crate) others: VecDeque<Skb<'m>>,
    pub(crate) rx: RxRing<'m, RX_RING>,
    pub(crate) tx: VecDeque<Skb<'m>>,
    /// Packets ever put into the transmit ring, and taken out of the other one.
    pub(crate) sent: u64,
    pub(crate) received: u64,
    /// By how many bits the swap stack shifts its windows.
    pub(crate) window_scale: u8,
}

impl<'m> Card<'m> {
    fn refill(&mut self, pool: &SkbPool<'m>) {
        let (memory, order, flows) = (self.memory, self.slab_order, self.flows);
        let possible = || memory.ordinary_possible(order, Gfp::ATOMIC);
        let (findings, mut ordinary) = (&self.findings, possible());
        let refill = self.rx.refill(pool, |skb| {
            if skb.is_emergency() {
                findings.check(flows.any(), "N1", || {
                    "a receive buffer came out of the reserve, and there is no VMIO flow".into()
                });
                findings.check(!ordinary, "N1", || {
                    "a receive buffer came out of the reserve, and there was ordinary memory".into()
                });
            }
            ordinary = possible();
        });
        if let Some(error) = refill.error {
            self.judge_refusal(error);
        }
        self.port.borrow_mut().posted = self.rx.posted();
    }

    fn judge_refusal(&self, error: SkbAllocError) {
        let (usage, limit) = (self.reserve.usage(), self.reserve.limit());
        let full = usage + self.skb_size > limit;
        let refused = error == SkbAllocError::Reserve(ChargeError::OverLimit);
        self.findings.check(full || !refused, "M5", || {
            format!("a charge was refused though {usage} of {limit} bytes are charged")
        });
    }

    /// The other stack sends something, as anybody may: what serves itself is not for emergency
    /// buffers.
    fn other_stack_sends(&mut self, pool: &SkbPool<'m>) {
        let Some(answered) = self.others.pop_front() else {
            return;
        };
        if !self.tx_ready() || self.rng.chance(500) {
            return;
        }
        if let Ok(mut skb) = pool.alloc_tx() {
            let len = answered.len().min(skb.tailroom());
            if let Ok(bytes) = skb.put(len) {
                bytes.copy_from_slice(&answered.data()[..len]);
                // To nobody: the wire's other end is the server, and not asked.
                bytes[..len.min(6)].fill(2);
            }
            if let Ok(skb) = self.ingress.egress(skb)
                && self.tx_ready()
            {
                self.send(skb);
            }
        }
    }

    /// Puts a packet into the ring, which has room.
    fn send(&mut self, skb: Skb<'m>) {
        self.judge(&skb);
        self.port
            .borrow_mut()
            .sending
            .push_back(skb.data().to_vec());
        self.sent += 1;
        self.tx.push_back(self.kept(skb));
        self.port.borrow_mut().in_tx_ring = self.tx.len();
    }

    /// What the ring keeps of a packet: now and then a clone, whose original ends at once.
    fn kept(&self, mut skb: Skb<'m>) -> Skb<'m> {
        let clone = self.sent.is_multiple_of(CLONED).then(|| skb.try_clone());
        clone.and_then(Result::ok).unwrap_or(skb)
    }

    fn reap(&mut self) {
        let in_ring = self.sent - self.port.borrow().completed;
        while self.tx.len() as u64 > in_ring {
            self.tx.pop_front();
        }
        self.port.borrow_mut().in_tx_ring = self.tx.len();
    }

    /// Judges a packet that leaves, without the crates' own classification.
    fn judge(&self, skb: &Skb<'_>) {
        let frame = &packet::framed(self.medium, skb.data());
        let tcp = packet::tcp(frame);
        if skb.is_emergency() {
            let to_server = tcp.is_some_and(|tcp| *tcp.destination.ip() == self.server);
            let arp = packet::arp_target(frame) == Some(self.server);
            self.findings.check(to_server || arp, "N2", || {
                format!(
                    "{} left in an emergency buffer and does not serve the VM",
                    packet::describe(frame)
                )
            });
        }
        let own = |tcp: &packet::Tcp| tcp.syn && *tcp.destination.ip() == self.server;
        if let Some(tcp) = tcp.filter(own) {
            let (local, remote): (SocketAddrV4, SocketAddrV4) = (tcp.source, tcp.destination);
            self.findings
                .check(self.flows.contains(Flow::tcp(local, remote)), "S7", || {
                    format!("the SYN of {local} left before its flow was tagged")
                });
        }
    }
}

impl Card<'_> {
    /// The server may send no more in one go than there are buffers for, but for one segment.
    fn judge_window(&mut self, frame: &[u8]) {
        let frame = &packet::framed(self.medium, frame);
        let tcp = packet::tcp(frame).filter(|tcp| *tcp.destination.ip() == self.server);
        let Some(tcp) = tcp else {
            return;
        };
        if tcp.syn {
            // The next segment is sent before any data can come.
            self.window_scale = tcp.scale.unwrap_or(0);
            return;
        }
        // Nobody takes a window from a RST; and it may end a connection whose SYN never left, because the
        // server's hardware address was asked for in vain.
        if tcp.rst {
            return;
        }
        let window = usize::from(tcp.window) << self.window_scale;
        let posted = self.rx.posted();
        self.findings
            .check(window <= posted.max(1) * self.mtu, "N7", || {
                format!("a window of {window} bytes was sent, and {posted} buffers are posted")
            });
    }
}

impl<'m> Nic<'m> for Card<'m> {
    fn receive(&mut self, pool: &SkbPool<'m>) -> Option<Skb<'m>> {
        self.interrupts.moment();
        self.reap();
        if self.rng.chance(100) {
            self.other_stack_sends(pool);
        }
        self.refill(pool);
        if self.rx.posted() == 0 {
            return None;
        }
        let frame = self.port.borrow_mut().waiting.pop_front()?;
        let mut skb = self.rx.next()?;
        self.port.borrow_mut().posted = self.rx.posted();
        skb.put(frame.len())
            .expect("the wire carries no longer packets than the MTU allows")
            .copy_from_slice(&frame);
        self.received += 1;
        // As a driver does that keeps its ring buffers: what it hands up is a copy. That of an ordinary
        // one may not be had; for emergency skbs there is always one more than the ring holds.
        let copied = skb.is_emergency() && self.received.is_multiple_of(COPIED);
        let copy = copied.then(|| pool.copy(&skb));
        Some(copy.and_then(Result::ok).unwrap_or(skb))
    }

    fn transmit(&mut self, skb: Skb<'m>) -> Result<(), Skb<'m>> {
        self.interrupts.moment();
        // One that comes again has the window of when it was made.
        if self.refused.is_none() {
            self.judge_window(skb.data());
        }
        let again = self
            .refused
            .take()
            .is_none_or(|refused| refused == skb.data());
        self.findings.check(again, "N5", || {
            "a packet that the ring had no room for was not sent before the next one".into()
        });
        if !self.tx_ready() {
            self.refused = Some(skb.data().to_vec());
            return Err(skb);
        }
        self.send(skb);
        Ok(())
    }

    fn tx_ready(&mut self) -> bool {
        self.reap();
        self.tx.len() < self.rings[1]
    }

    fn unclaimed(&mut self, skb: Skb<'m>, _: DropReason) -> Result<(), Skb<'m>> {
        self.findings.check(!skb.is_emergency(), "N2", || {
            let what = packet::describe(&packet::framed(self.medium, skb.data()));
            format!("another stack was given an emergency buffer: {what}")
        });
        if self.others.len() == OTHER_STACK {
            return Err(skb);
        }
        self.others.push_back(skb);
        Ok(())
    }

    fn medium(&self) -> Medium {
        self.medium
    }

    fn mtu(&self) -> usize {
        self.mtu
    }

    fn rx_posted(&self) -> Option<usize> {
        Some(self.rx.posted())
    }

    fn hardware_addr(&self) -> [u8; 6] {
        self.hardware
    }
}
