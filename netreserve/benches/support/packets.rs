//! Received frames, and the flows that some of them are of.
#![allow(dead_code, unreachable_pub)]

use core::net::{Ipv4Addr, SocketAddrV4};

use netreserve::{Flow, FlowTable, Slot};

use crate::support::memory::leak;
use crate::support::ours::Lock;

const LOCAL: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 0, 2, 15), 700);
const SERVER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 0, 2, 2), 2049);
const STRANGER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 0, 2, 66), 6666);

/// `count` flows of as many servers, in four times as many slots: the first is that of
/// [`Packet::Tcp`].
pub fn flows<R: Lock>(count: usize) -> &'static FlowTable<'static, R> {
    // The server of each flow is a peer.
    let table = FlowTable::with_lock(
        vec![Slot::EMPTY; 4 * count].leak(),
        vec![Slot::EMPTY; 4 * count].leak(),
    );
    for i in 0..count as u32 {
        let server = Ipv4Addr::from_bits(SERVER.ip().to_bits() + (i << 8));
        table
            .add(Flow::tcp(LOCAL, SocketAddrV4::new(server, 2049)))
            .expect("a slot for each");
    }
    leak(table)
}

/// What arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packet {
    /// 1500 bytes of the VMIO flow.
    Tcp,
    /// A request of the server.
    Arp,
    /// Another host's, for another socket.
    ForeignUdp,
}

impl Packet {
    /// The whole Ethernet frame.
    pub fn frame(self) -> Vec<u8> {
        match self {
            Packet::Tcp => {
                let mut segment = vec![0; 1480];
                segment[12] = 5 << 4;
                ipv4(6, SERVER, LOCAL, segment)
            }
            Packet::ForeignUdp => {
                let mut datagram = vec![0; 1480];
                datagram[4..6].copy_from_slice(&1480u16.to_be_bytes());
                ipv4(17, STRANGER, SocketAddrV4::new(*LOCAL.ip(), 7004), datagram)
            }
            Packet::Arp => {
                let mut packet = vec![0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 2];
                packet.extend(SERVER.ip().octets());
                packet.extend([0; 6]);
                packet.extend(LOCAL.ip().octets());
                ethernet(0x0806, &packet)
            }
        }
    }
}

fn ipv4(protocol: u8, from: SocketAddrV4, to: SocketAddrV4, mut payload: Vec<u8>) -> Vec<u8> {
    payload[..2].copy_from_slice(&from.port().to_be_bytes());
    payload[2..4].copy_from_slice(&to.port().to_be_bytes());
    let mut packet = vec![0x45, 0];
    packet.extend((20 + payload.len() as u16).to_be_bytes());
    packet.extend([0, 0, 0, 0, 64, protocol, 0, 0]);
    packet.extend(from.ip().octets());
    packet.extend(to.ip().octets());
    packet.extend(payload);
    ethernet(0x0800, &packet)
}

fn ethernet(ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    frame.extend(ethertype.to_be_bytes());
    frame.extend(payload);
    frame
}
