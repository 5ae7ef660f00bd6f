//! A card with two rings, and the cable at it.

use std::collections::VecDeque;

use netreserve::{DropReason, Nic, Skb, SkbPool};

use crate::machine::{MTU, RING};
use crate::traffic::MAC;

#[derive(Debug, Default)]
pub(crate) struct Card {
    posted: VecDeque<Skb<'static>>,
    arrived: VecDeque<Skb<'static>>,
    sending: VecDeque<Skb<'static>>,
    /// Frames that found no buffer.
    pub(crate) missed: u64,
    /// Frames that nobody here wanted, for another stack.
    pub(crate) unclaimed: u64,
    /// Of those, in emergency skbs.
    pub(crate) unclaimed_emergencies: u64,
}

impl Card {
    /// Buffers that wait for frames.
    pub(crate) fn room(&self) -> usize {
        self.posted.len()
    }

    /// A frame comes out of the cable. Lost, if there is no buffer for it.
    pub(crate) fn arrive(&mut self, frame: &[u8]) {
        match self.posted.pop_front() {
            Some(mut skb) => {
                let room = skb.put(frame.len()).expect("a buffer holds any frame");
                room.copy_from_slice(frame);
                self.arrived.push_back(skb);
            }
            None => self.missed += 1,
        }
    }

    /// What was sent goes into the cable; its memory is free.
    pub(crate) fn sent(&mut self) -> impl Iterator<Item = Vec<u8>> + '_ {
        self.sending.drain(..).map(|skb| skb.data().to_vec())
    }
}

impl Nic<'static> for Card {
    fn receive(&mut self, pool: &SkbPool<'static>) -> Option<Skb<'static>> {
        while self.posted.len() + self.arrived.len() < RING
            && let Ok(skb) = pool.alloc_rx()
        {
            self.posted.push_back(skb);
        }
        self.arrived.pop_front()
    }

    fn transmit(&mut self, skb: Skb<'static>) -> Result<(), Skb<'static>> {
        if !self.tx_ready() {
            return Err(skb);
        }
        self.sending.push_back(skb);
        Ok(())
    }

    fn tx_ready(&mut self) -> bool {
        self.sending.len() < RING
    }

    fn mtu(&self) -> usize {
        MTU
    }

    fn rx_posted(&self) -> Option<usize> {
        Some(self.posted.len() + self.arrived.len())
    }

    fn hardware_addr(&self) -> [u8; 6] {
        MAC
    }

    fn unclaimed(&mut self, skb: Skb<'static>, _: DropReason) -> Result<(), Skb<'static>> {
        self.unclaimed += 1;
        self.unclaimed_emergencies += u64::from(skb.is_emergency());
        drop(skb);
        Ok(())
    }
}
