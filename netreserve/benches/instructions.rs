//! Instructions for a packet buffer taken and given back, and for the classification of a received
//! frame (callgrind).
//!
//! `cargo bench -p netreserve --bench instructions`; docs/BENCHMARKS.md says what is needed, and what
//! the figures mean.

#[path = "support/packets.rs"]
mod packets;
#[path = "support/skbs.rs"]
mod skbs;
#[path = "../../mempool/benches/support/mod.rs"]
mod support;

use core::hint::black_box;

use gungraun::prelude::*;
use netreserve::{FlowTable, classify};
use packets::Packet;
use support::patterns::{OPERATIONS, Pattern, Ready};
use support::{Nothing, Subject, ours};

const BYTES: usize = 16 << 20;

fn ready<S: Subject>(pattern: Pattern) -> Ready<S> {
    Ready::new(pattern, BYTES)
}

mod packet_buffers {
    use super::*;

    macro_rules! subjects {
        ($($name:ident = $subject:ty,)+) => {
            $(
                #[library_benchmark]
                #[bench::pair(args = (Pattern::Pair), setup = ready::<$subject>)]
                #[bench::lifo(args = (Pattern::Lifo), setup = ready::<$subject>)]
                #[bench::fifo(args = (Pattern::Fifo), setup = ready::<$subject>)]
                #[bench::random(args = (Pattern::Random), setup = ready::<$subject>)]
                fn $name(mut ready: Ready<$subject>) -> Ready<$subject> {
                    ready.run();
                    ready
                }
            )+
        };
    }

    subjects! {
        nothing = Nothing,
        netreserve = skbs::Skbs,
        netreserve_magazines = skbs::SkbMagazines,
        mempool = ours::Buffers<ours::Unlocked>,
        heapless_pool = skbs::HeaplessPool,
    }

    #[library_benchmark]
    #[bench::pair(args = (Pattern::Pair), setup = ready::<skbs::SmoltcpRing>)]
    #[bench::fifo(args = (Pattern::Fifo), setup = ready::<skbs::SmoltcpRing>)]
    fn smoltcp_ring(mut ready: Ready<skbs::SmoltcpRing>) -> Ready<skbs::SmoltcpRing> {
        ready.run();
        ready
    }

    #[library_benchmark]
    #[bench::pair(args = (Pattern::Pair), setup = ready::<skbs::LockedRing>)]
    #[bench::fifo(args = (Pattern::Fifo), setup = ready::<skbs::LockedRing>)]
    fn smoltcp_ring_locked(mut ready: Ready<skbs::LockedRing>) -> Ready<skbs::LockedRing> {
        ready.run();
        ready
    }

    library_benchmark_group!(
        name = skb,
        benchmarks = [
            nothing,
            netreserve,
            netreserve_magazines,
            mempool,
            heapless_pool,
            smoltcp_ring,
            smoltcp_ring_locked
        ]
    );
}
use packet_buffers::skb;

mod classification {
    use super::*;

    type Input<R> = (Vec<u8>, &'static FlowTable<'static, R>);

    /// A frame, and a table of `count` flows.
    fn received<R: ours::Lock>(packet: Packet, count: usize) -> Input<R> {
        (packet.frame(), packets::flows(count))
    }

    macro_rules! subjects {
        ($($name:ident = $lock:ty,)+) => {
            $(
                #[library_benchmark]
                #[bench::tcp_1500(args = (Packet::Tcp, 4), setup = received::<$lock>)]
                #[bench::arp(args = (Packet::Arp, 4), setup = received::<$lock>)]
                #[bench::foreign_udp(args = (Packet::ForeignUdp, 4), setup = received::<$lock>)]
                #[bench::tcp_1500_of_64(args = (Packet::Tcp, 64), setup = received::<$lock>)]
                #[bench::arp_of_64(args = (Packet::Arp, 64), setup = received::<$lock>)]
                #[bench::tcp_1500_of_4096(args = (Packet::Tcp, 4096), setup = received::<$lock>)]
                #[bench::foreign_udp_of_4096(args = (Packet::ForeignUdp, 4096), setup = received::<$lock>)]
                fn $name((frame, flows): Input<$lock>) -> Vec<u8> {
                    for _ in 0..OPERATIONS {
                        black_box(classify(black_box(&frame), flows));
                    }
                    frame
                }
            )+
        };
    }

    subjects! {
        netreserve = ours::Unlocked,
        netreserve_default_lock = ours::DefaultLock,
    }

    #[library_benchmark]
    #[bench::loop_alone(Packet::Tcp.frame())]
    fn nothing(frame: Vec<u8>) -> Vec<u8> {
        for _ in 0..OPERATIONS {
            black_box(black_box(&frame));
        }
        frame
    }

    library_benchmark_group!(
        name = class,
        benchmarks = [nothing, netreserve, netreserve_default_lock]
    );
}
use classification::class;

main!(library_benchmark_groups = [skb, class]);
