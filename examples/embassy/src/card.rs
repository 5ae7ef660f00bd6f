//! A card of two rings, and the wire behind it, on which somebody floods.

use core::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use netreserve::{Medium, Nic, Skb, SkbPool};

use crate::peer::Peer;

/// Buffers in each ring.
pub(crate) const RING: usize = 8;
/// Bytes in each: two to a frame.
pub(crate) const SKB: usize = 2016;
pub(crate) const MTU: usize = 1500;
pub(crate) const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
/// Frames that come before the processor has answered the card's interrupt: more than there are
/// buffers.
pub(crate) const LATENCY: usize = 10;
/// Port of a socket whose owner never reads.
pub(crate) const SLEEPER: u16 = 7000;

/// What the driver and the device share: descriptors, and buffers that the device may write to.
struct Rings {
    posted: VecDeque<Skb<'static>>,
    filled: VecDeque<Skb<'static>>,
    sending: VecDeque<Skb<'static>>,
    lost: u64,
}

/// The driver's end.
pub(crate) struct Card {
    rings: Rc<RefCell<Rings>>,
    medium: Medium,
}

impl Card {
    pub(crate) fn new(wire: &Wire) -> Self {
        Card {
            rings: wire.rings.clone(),
            medium: wire.medium,
        }
    }
}

impl Nic<'static> for Card {
    fn receive(&mut self, pool: &SkbPool<'static>) -> Option<Skb<'static>> {
        let mut rings = self.rings.borrow_mut();
        while rings.posted.len() + rings.filled.len() < RING
            && let Ok(skb) = pool.alloc_rx()
        {
            rings.posted.push_back(skb);
        }
        rings.filled.pop_front()
    }

    fn transmit(&mut self, skb: Skb<'static>) -> Result<(), Skb<'static>> {
        if !self.tx_ready() {
            return Err(skb);
        }
        self.rings.borrow_mut().sending.push_back(skb);
        Ok(())
    }

    fn tx_ready(&mut self) -> bool {
        self.rings.borrow().sending.len() < RING
    }

    fn medium(&self) -> Medium {
        self.medium
    }

    fn mtu(&self) -> usize {
        MTU
    }

    fn rx_posted(&self) -> Option<usize> {
        let rings = self.rings.borrow();
        Some(rings.posted.len() + rings.filled.len())
    }

    fn hardware_addr(&self) -> [u8; 6] {
        MAC
    }
}

/// The device's end.
pub(crate) struct Wire {
    rings: Rc<RefCell<Rings>>,
    medium: Medium,
}

impl Wire {
    pub(crate) fn new(medium: Medium) -> Self {
        let rings = Rings {
            posted: VecDeque::new(),
            filled: VecDeque::new(),
            sending: VecDeque::new(),
            lost: 0,
        };
        Wire {
            rings: Rc::new(RefCell::new(rings)),
            medium,
        }
    }

    /// Everything in the transmit ring is sent to the peer. Whether there was anything.
    pub(crate) fn send(&self, peer: &mut Peer) -> bool {
        let sent: Vec<_> = self.rings.borrow_mut().sending.drain(..).collect();
        for skb in &sent {
            peer.arrive(skb.data().to_vec());
        }
        !sent.is_empty()
    }

    /// What comes in the millisecond `now`: the peer's packets somewhere in the flood.
    pub(crate) fn coming(&self, peer: &mut Peer, now: u64, flood: usize) -> Vec<Vec<u8>> {
        let mut frames = vec![stranger(self.medium); flood];
        for (i, frame) in peer.poll(now).into_iter().enumerate() {
            let at = (now as usize * 7 + i * 5) % (frames.len() + 1);
            frames.insert(at, frame);
        }
        frames
    }

    /// A frame arrives. Whether there was a buffer for it.
    pub(crate) fn arrive(&self, frame: &[u8]) -> bool {
        let mut rings = self.rings.borrow_mut();
        let Some(mut skb) = rings.posted.pop_front() else {
            rings.lost += 1;
            return false;
        };
        let room = skb
            .put(frame.len())
            .expect("no frame is larger than the MTU");
        room.copy_from_slice(frame);
        rings.filled.push_back(skb);
        true
    }

    /// Packets for which no buffer was posted.
    pub(crate) fn lost(&self) -> u64 {
        self.rings.borrow().lost
    }
}

/// UDP of somebody for the sleeper. Nobody here looks at its checksum.
fn stranger(medium: Medium) -> Vec<u8> {
    const PAYLOAD: u16 = 1000;
    let mut frame = Vec::new();
    if medium == Medium::Ethernet {
        frame.extend(MAC);
        frame.extend([2, 0, 0, 0, 0, 66, 0x08, 0x00]);
    }
    frame.extend([0x45, 0]);
    frame.extend((20 + 8 + PAYLOAD).to_be_bytes());
    frame.extend([0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 66, 10, 0, 0, 1]);
    frame.extend(6666u16.to_be_bytes());
    frame.extend(SLEEPER.to_be_bytes());
    frame.extend((8 + PAYLOAD).to_be_bytes());
    frame.resize(frame.len() + 2 + usize::from(PAYLOAD), 0);
    frame
}
