//! What classification costs by the number of flows (callgrind).
//!
//! `cargo bench -p netreserve --bench curves`; docs/BENCHMARKS.md says what is needed, and what the
//! figures mean.

#[path = "support/packets.rs"]
mod packets;
#[path = "../../mempool/benches/support/mod.rs"]
mod support;

use core::hint::black_box;

use gungraun::prelude::*;
use netreserve::{FlowTable, classify};
use packets::Packet;
use support::ours::Unlocked;
use support::patterns::OPERATIONS;

type Input = (Vec<u8>, &'static FlowTable<'static, Unlocked>);

/// What is received; the macro below can only name it by a number.
const PACKETS: [Packet; 3] = [Packet::Tcp, Packet::ForeignUdp, Packet::Arp];

fn received<const PACKET: usize>(flows: usize) -> Input {
    (PACKETS[PACKET].frame(), packets::flows(flows))
}

macro_rules! curve {
    ($name:ident, $packet:literal) => {
        #[library_benchmark]
        #[bench::x1(args = (1), setup = received::<$packet>)]
        #[bench::x4(args = (4), setup = received::<$packet>)]
        #[bench::x16(args = (16), setup = received::<$packet>)]
        #[bench::x64(args = (64), setup = received::<$packet>)]
        #[bench::x256(args = (256), setup = received::<$packet>)]
        #[bench::x1024(args = (1024), setup = received::<$packet>)]
        #[bench::x4096(args = (4096), setup = received::<$packet>)]
        #[bench::x16384(args = (16384), setup = received::<$packet>)]
        #[bench::x65536(args = (65536), setup = received::<$packet>)]
        fn $name((frame, flows): Input) -> Vec<u8> {
            for _ in 0..OPERATIONS {
                black_box(classify(black_box(&frame), flows));
            }
            frame
        }
    };
}

mod by_flows {
    use super::*;

    curve!(tcp_1500, 0);
    curve!(foreign_udp, 1);
    curve!(arp_of_the_server, 2);

    #[library_benchmark]
    #[bench::loop_alone(Packet::Tcp.frame())]
    fn nothing(frame: Vec<u8>) -> Vec<u8> {
        for _ in 0..OPERATIONS {
            black_box(black_box(&frame));
        }
        frame
    }

    library_benchmark_group!(
        name = class_by_flows,
        benchmarks = [nothing, tcp_1500, foreign_udp, arp_of_the_server]
    );
}
use by_flows::class_by_flows;

main!(library_benchmark_groups = class_by_flows);
