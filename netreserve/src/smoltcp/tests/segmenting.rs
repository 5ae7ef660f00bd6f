//! smoltcp over a card that cuts large segments, end to end.

use core::num::NonZeroUsize;
use core::sync::atomic::{AtomicUsize, Ordering};

use ::smoltcp::wire::{EthernetFrame, EthernetProtocol, Ipv4Packet, TcpPacket};

use super::exchange::{LONG, Version, exchange};
use super::*;
use crate::SkbPool;

/// A card that makes several segments of one, and all checksums.
struct Segmenting {
    card: Card,
    cut: VecDeque<Vec<u8>>,
}

/// Frames beyond the MTU that were cut.
static LARGE: AtomicUsize = AtomicUsize::new(0);

impl Nic<'static> for Segmenting {
    fn receive(&mut self, pool: &SkbPool<'static>) -> Option<Skb<'static>> {
        self.card.receive(pool)
    }

    fn transmit(&mut self, skb: Skb<'static>) -> Result<(), Skb<'static>> {
        self.card.transmit(skb)
    }

    fn tx_ready(&mut self) -> bool {
        self.card.tx_ready()
    }

    fn medium(&self) -> Medium {
        self.card.medium
    }

    fn mtu(&self) -> usize {
        MTU
    }

    fn rx_posted(&self) -> Option<usize> {
        self.card.rx_posted()
    }

    fn hardware_addr(&self) -> [u8; 6] {
        MAC
    }

    fn checksum_offload(&self) -> ChecksumOffload {
        ChecksumOffload::each(Offload::TX)
    }

    fn segmentation(&self) -> Option<NonZeroUsize> {
        NonZeroUsize::new(64_000)
    }
}

impl Cable for Segmenting {
    fn over(medium: Medium) -> Self {
        Segmenting {
            card: Card::new(medium, []),
            cut: VecDeque::new(),
        }
    }

    fn arrive(&mut self, frame: Vec<u8>) {
        self.card.arrive(frame);
    }

    fn take(&mut self) -> Option<Vec<u8>> {
        if self.cut.is_empty() {
            let skb = self.card.sending.pop_front()?;
            self.cut = segments(self.card.medium, &skb);
        }
        self.cut.pop_front()
    }
}

fn segments(medium: Medium, skb: &Skb<'_>) -> VecDeque<Vec<u8>> {
    let (frame, ip) = (skb.data(), medium.header_len());
    let ethertype = || EthernetFrame::new_unchecked(frame).ethertype();
    if medium == Medium::Ethernet && ethertype() != EthernetProtocol::Ipv4 {
        return [frame.to_vec()].into();
    }
    let tcp = ip + 20;
    let payload = tcp + usize::from(frame[tcp + 12] >> 4) * 4;
    let whole = frame.len() - payload;
    let size = skb.gso_size().map_or(whole, |size| size.get().into());
    if frame.len() > MTU + ip {
        assert!(size < whole, "a frame beyond the MTU must be cut");
        LARGE.fetch_add(1, Ordering::Relaxed);
    }
    let starts = (0..whole.max(1)).step_by(size.max(1));
    let cut = starts.map(|start| {
        let end = whole.min(start + size);
        let mut segment = frame[..payload].to_vec();
        segment.extend_from_slice(&frame[payload + start..payload + end]);
        let mut packet = Ipv4Packet::new_unchecked(&mut segment[ip..]);
        packet.set_total_len((payload - ip + end - start) as u16);
        packet.fill_checksum();
        let (from, to) = (packet.src_addr().into(), packet.dst_addr().into());
        let mut header = TcpPacket::new_unchecked(&mut segment[tcp..]);
        header.set_seq_number(header.seq_number() + start);
        header.set_psh(header.psh() && end == whole);
        header.set_fin(header.fin() && end == whole);
        header.fill_checksum(&from, &to);
        segment
    });
    cut.collect()
}

#[test]
fn an_exchange_in_large_segments_ends_in_reserve_memory_alone_under_a_flood() {
    for medium in MEDIA {
        let before = LARGE.load(Ordering::Relaxed);
        exchange::<Segmenting>(medium, Version::V4, 1, |_, _| (), LONG).assert_complete();
        assert!(LARGE.load(Ordering::Relaxed) > before, "{medium:?}");
    }
}
