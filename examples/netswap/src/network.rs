//! The machine's side of the network: buffers, flows, the ladder, and the sockets of its program.

use netreserve::{
    FlowTable, Ingress, ProtocolMemory, QueueEntry, SkbPool, Slot, SocketId, SocketTable,
};

use crate::args::{Args, Mechanism};
use crate::memory::{Memory, SKB_SIZE, forever};
use crate::wire::{GATEWAY_IP, MACHINE_MAC};

/// Sockets of each protocol that the program owns.
const SOCKETS: u16 = 8;
const FIRST_UDP_PORT: u16 = 7001;
const FIRST_TCP_PORT: u16 = 8001;

/// The receive side of the machine, and the sockets of its program.
pub(crate) struct Network {
    pub(crate) flows: &'static FlowTable<'static>,
    pub(crate) sockets: &'static SocketTable<'static>,
    pub(crate) pool: &'static SkbPool<'static>,
    pub(crate) ingress: &'static Ingress<'static>,
    pub(crate) owned: Vec<SocketId>,
    pub(crate) udp_ports: Vec<u16>,
    pub(crate) tcp_ports: Vec<u16>,
}

impl Network {
    pub(crate) fn new(args: &Args, memory: &Memory) -> Network {
        let flows: &'static FlowTable<'static> = forever(FlowTable::new(
            vec![Slot::EMPTY; 4].leak(),
            vec![Slot::EMPTY; 4].leak(),
        ));
        flows.add_peer(GATEWAY_IP).expect("the table is empty");

        // Generous, so that it is memory which holds up the flood and not these limits.
        let limit = memory.socket_skbs / 2 * SKB_SIZE;
        let entries: Vec<QueueEntry<'static>> =
            (0..memory.socket_skbs).map(|_| QueueEntry::EMPTY).collect();
        let sockets: &'static SocketTable<'static> = forever(SocketTable::new(
            (0..4 * SOCKETS)
                .map(|_| Slot::EMPTY)
                .collect::<Vec<_>>()
                .leak(),
            entries.leak(),
            ProtocolMemory::each(limit),
        ));
        let rcvbuf = limit / usize::from(SOCKETS);
        let udp_ports: Vec<u16> = (FIRST_UDP_PORT..).take(SOCKETS.into()).collect();
        let tcp_ports: Vec<u16> = (FIRST_TCP_PORT..).take(SOCKETS.into()).collect();
        let bind = |protocol, port| {
            sockets
                .bind(protocol, port, rcvbuf)
                .expect("the table has room and the port is free")
        };
        let udp = udp_ports
            .iter()
            .map(|&port| bind(netreserve::Protocol::Udp, port));
        let tcp = tcp_ports
            .iter()
            .map(|&port| bind(netreserve::Protocol::Tcp, port));
        let owned = udp.chain(tcp).collect();

        let pool: &'static SkbPool<'static> = forever(SkbPool::new(
            memory.skbs,
            memory.rx,
            memory.tx,
            flows,
            memory.token,
        ));
        let ingress: &'static Ingress<'static> =
            forever(Ingress::new(flows, sockets, MACHINE_MAC.0));
        if !args.has(Mechanism::VmioFilter) {
            ingress.ablate(netreserve::Mechanism::VmioFilter);
        }
        Network {
            flows,
            sockets,
            pool,
            ingress,
            owned,
            udp_ports,
            tcp_ports,
        }
    }
}
