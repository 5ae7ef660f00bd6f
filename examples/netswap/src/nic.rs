//! The machine's network card: rings of packet buffers over the wire.
//!
//! Hardware with two descriptor rings. Buffers are posted to the receive ring before packets come;
//! the card copies a packet into the buffer at the head ("DMA") and the driver hands that buffer up.
//! A transmitted buffer stays in its ring until the gateway has taken the packet.

use core::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use netreserve::{Nic, RefillPolicy, RxRing, Skb, SkbPool};

use crate::memory::{RX_RING, TX_RING};
use crate::wire::Wire;

/// What an observer may know of the rings.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Rings {
    /// Buffers posted for receiving.
    pub(crate) posted: usize,
    /// Those of them that came out of the reserve.
    pub(crate) posted_emergency: usize,
    /// Buffers that the gateway has not taken yet.
    pub(crate) sending: usize,
    /// Times that the pool had no buffer for the receive ring.
    pub(crate) refill_failures: u64,
}

/// The card and its driver.
pub(crate) struct VirtualNic {
    wire: Arc<Wire>,
    mac: [u8; 6],
    rx: RxRing<'static, RX_RING>,
    tx: VecDeque<Skb<'static>>,
    /// Packets handed to the wire, and how many of them the gateway has taken.
    sent: u64,
    rings: Rc<RefCell<Rings>>,
}

impl VirtualNic {
    /// A card on `wire`, and a window through which its rings can be watched.
    pub(crate) fn new(wire: Arc<Wire>, mac: [u8; 6]) -> (Self, Rc<RefCell<Rings>>) {
        let rings = Rc::new(RefCell::new(Rings::default()));
        let nic = VirtualNic {
            wire,
            mac,
            rx: RxRing::new(RefillPolicy::half(RX_RING)),
            tx: VecDeque::with_capacity(TX_RING),
            sent: 0,
            rings: Rc::clone(&rings),
        };
        (nic, rings)
    }

    /// Frees the buffers that the gateway has taken.
    fn reap(&mut self) {
        let in_ring = (self.sent - self.wire.tx_completed()) as usize;
        while self.tx.len() > in_ring {
            self.tx.pop_front();
        }
    }

    fn publish(&mut self) {
        let mut rings = self.rings.borrow_mut();
        rings.posted = self.rx.posted();
        rings.refill_failures = self.rx.stats().short;
        rings.posted_emergency = self.rx.iter().filter(|skb| skb.is_emergency()).count();
        rings.sending = self.tx.len();
    }
}

impl Nic<'static> for VirtualNic {
    fn receive(&mut self, pool: &SkbPool<'static>) -> Option<Skb<'static>> {
        self.reap();
        self.rx.refill(pool, |_| ());
        let Some(skb) = self.rx.front_mut() else {
            self.publish();
            return None;
        };
        let received = self.wire.take_for_machine(|bytes| {
            skb.put(bytes.len())
                .expect("buffers are larger than the MTU")
                .copy_from_slice(bytes);
        });
        let skb = received.then(|| self.rx.next()).flatten();
        self.publish();
        skb
    }

    fn transmit(&mut self, skb: Skb<'static>) -> Result<(), Skb<'static>> {
        if !self.tx_ready() {
            return Err(skb);
        }
        if !self.wire.send_from_machine(skb.data()) {
            return Err(skb);
        }
        self.sent += 1;
        self.tx.push_back(skb);
        Ok(())
    }

    fn tx_ready(&mut self) -> bool {
        self.reap();
        self.tx.len() < TX_RING
    }

    fn mtu(&self) -> usize {
        1500
    }

    fn rx_posted(&self) -> Option<usize> {
        Some(self.rx.posted())
    }

    fn hardware_addr(&self) -> [u8; 6] {
        self.mac
    }
}
