//! A card of two rings whose cable leads back into it: what is sent arrives, if a buffer is posted.

use heapless::Deque;
use netreserve::{Medium, Nic, Skb, SkbPool};

/// Buffers in each ring.
pub const RING: usize = 4;
/// Bytes in each buffer: two to a frame.
pub const SKB: usize = 2016;
const MTU: usize = 1500;

/// The card, with the buffers of the driver in it.
#[derive(Debug, Default)]
pub struct LoopCard<'m> {
    posted: Deque<Skb<'m>, RING>,
    filled: Deque<Skb<'m>, RING>,
    sending: Deque<Skb<'m>, RING>,
}

impl LoopCard<'_> {
    /// A packet out of the cable. Whether there was a buffer for it.
    pub fn arrive(&mut self, packet: &[u8]) -> bool {
        let Some(mut skb) = self.posted.pop_front() else {
            return false;
        };
        match skb.put(packet.len()) {
            Ok(room) => room.copy_from_slice(packet),
            Err(_) => return false,
        }
        self.filled.push_back(skb).is_ok()
    }

    /// What the hardware would do by itself: everything that is to be sent is, and freed.
    fn work(&mut self) {
        while let Some(skb) = self.sending.pop_front() {
            self.arrive(skb.data());
        }
    }
}

impl<'m> Nic<'m> for LoopCard<'m> {
    fn receive(&mut self, pool: &SkbPool<'m>) -> Option<Skb<'m>> {
        while self.posted.len() + self.filled.len() < RING
            && let Ok(skb) = pool.alloc_rx()
        {
            let _ = self.posted.push_back(skb);
        }
        self.work();
        self.filled.pop_front()
    }

    fn transmit(&mut self, skb: Skb<'m>) -> Result<(), Skb<'m>> {
        self.sending.push_back(skb)
    }

    fn tx_ready(&mut self) -> bool {
        !self.sending.is_full()
    }

    fn medium(&self) -> Medium {
        Medium::Ip
    }

    fn mtu(&self) -> usize {
        MTU
    }

    fn rx_posted(&self) -> Option<usize> {
        Some(self.posted.len())
    }

    fn hardware_addr(&self) -> [u8; 6] {
        [0; 6]
    }
}
