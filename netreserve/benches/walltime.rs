//! Wall time of a packet buffer taken and given back, and of the classification of a received frame.
//!
//! `cargo bench -p netreserve --bench walltime`; docs/BENCHMARKS.md says what the figures mean.

#[path = "support/packets.rs"]
mod packets;
#[path = "support/skbs.rs"]
mod skbs;
#[path = "../../mempool/benches/support/mod.rs"]
mod support;
#[path = "../../mempool/benches/support/timing.rs"]
mod timing;

use core::hint::black_box;

use netreserve::classify;
use packets::Packet;
use support::patterns::{OPERATIONS, Pattern};
use support::{Nothing, ours};
use timing::Race;

const BYTES: usize = 16 << 20;

fn main() {
    timing::header();
    for pattern in [Pattern::Pair, Pattern::Lifo, Pattern::Fifo, Pattern::Random] {
        let mut race = Race::new("skb", pattern.name())
            .subject::<skbs::Skbs>("netreserve", pattern, BYTES)
            .subject::<skbs::SkbMagazines>("netreserve_magazines", pattern, BYTES)
            .subject::<ours::Buffers<ours::Unlocked>>("mempool", pattern, BYTES)
            .subject::<skbs::HeaplessPool>("heapless_pool", pattern, BYTES);
        if matches!(pattern, Pattern::Pair | Pattern::Fifo) {
            race = race
                .subject::<skbs::SmoltcpRing>("smoltcp_ring", pattern, BYTES)
                .subject::<skbs::LockedRing>("smoltcp_ring_locked", pattern, BYTES);
        }
        race.subject::<Nothing>("nothing", pattern, BYTES).print();
    }
    for (case, packet) in [
        ("tcp_1500", Packet::Tcp),
        ("arp", Packet::Arp),
        ("foreign_udp", Packet::ForeignUdp),
    ] {
        let (frame, flows) = (packet.frame(), packets::flows::<ours::Unlocked>(4));
        let same = frame.clone();
        Race::new("class", case)
            .with("netreserve", move || {
                for _ in 0..OPERATIONS {
                    black_box(classify(black_box(&frame), flows));
                }
            })
            .with("nothing", move || {
                for _ in 0..OPERATIONS {
                    black_box(black_box(&same));
                }
            })
            .print();
    }
}
