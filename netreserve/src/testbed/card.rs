//! A card of two rings of owned skbs, and the far end of its cable.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::num::NonZeroUsize;

use super::{MAC, RX_RING, TX_RING};
use crate::{ChecksumOffload, Medium, Nic, Skb, SkbPool};

pub(crate) const MTU: usize = 1500;

#[derive(Debug, Default)]
pub(crate) struct Card {
    pub(crate) medium: Medium,
    /// With the number that the driver gives each.
    pub(crate) incoming: VecDeque<(Vec<u8>, u32)>,
    pub(crate) posted: Vec<Skb<'static>>,
    pub(crate) sending: VecDeque<Skb<'static>>,
    pub(crate) offload: ChecksumOffload,
    pub(crate) burst: Option<usize>,
    pub(crate) segmentation: Option<NonZeroUsize>,
    pub(crate) unplugged: bool,
}

impl Card {
    pub(crate) fn new(medium: Medium, frames: impl IntoIterator<Item = Vec<u8>>) -> Self {
        Card {
            medium,
            incoming: frames.into_iter().map(|frame| (frame, 0)).collect(),
            ..Card::default()
        }
    }

    /// A frame comes out of the cable: lost, if no buffer is posted for it.
    #[cfg(feature = "smoltcp")]
    pub(crate) fn arrive(&mut self, frame: Vec<u8>) {
        if self.incoming.len() < self.posted.len() {
            self.incoming.push_back((frame, 0));
        }
    }
}

impl Nic<'static> for Card {
    fn receive(&mut self, pool: &SkbPool<'static>) -> Option<Skb<'static>> {
        while self.posted.len() < RX_RING
            && let Ok(skb) = pool.alloc_rx()
        {
            self.posted.push(skb);
        }
        let mut skb = self.posted.pop()?;
        let Some((frame, mark)) = self.incoming.pop_front() else {
            self.posted.push(skb);
            return None;
        };
        skb.put(frame.len()).unwrap().copy_from_slice(&frame);
        skb.set_mark(mark);
        Some(skb)
    }

    fn transmit(&mut self, skb: Skb<'static>) -> Result<(), Skb<'static>> {
        if !self.tx_ready() {
            return Err(skb);
        }
        self.sending.push_back(skb);
        Ok(())
    }

    fn tx_ready(&mut self) -> bool {
        self.sending.len() < TX_RING
    }

    fn medium(&self) -> Medium {
        self.medium
    }

    fn mtu(&self) -> usize {
        MTU
    }

    fn rx_posted(&self) -> Option<usize> {
        Some(self.posted.len())
    }

    fn max_burst(&self) -> Option<usize> {
        self.burst
    }

    fn hardware_addr(&self) -> [u8; 6] {
        MAC
    }

    fn link_up(&mut self) -> bool {
        !self.unplugged
    }

    fn checksum_offload(&self) -> ChecksumOffload {
        self.offload
    }

    fn segmentation(&self) -> Option<NonZeroUsize> {
        self.segmentation
    }
}
