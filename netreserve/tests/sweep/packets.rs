//! Frames to send around.

use core::net::{Ipv4Addr, SocketAddrV4};

use netreserve::Flow;

pub(crate) const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
pub(crate) const SERVER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
pub(crate) const LOCAL: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 1), 700);
pub(crate) const SERVER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 2), 2049);
pub(crate) const STRANGER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 66), 6666);
/// Somebody's socket.
pub(crate) const UDP_PORT: u16 = 53;

const UDP: u8 = 17;
const TCP: u8 = 6;

pub(crate) fn swap() -> Flow {
    Flow::tcp(LOCAL, SERVER)
}

/// A segment of the swap connection, as the server sends it.
pub(crate) fn reply(len: usize) -> Vec<u8> {
    tcp(SERVER, LOCAL, len)
}

/// A segment of the swap connection, as we send it.
pub(crate) fn request(len: usize) -> Vec<u8> {
    tcp(LOCAL, SERVER, len)
}

pub(crate) fn tcp(from: SocketAddrV4, to: SocketAddrV4, len: usize) -> Vec<u8> {
    let mut segment = ports(from, to);
    segment.extend([0, 0, 0, 0, 0, 0, 0, 0, 5 << 4, 0x10, 0, 0, 0, 0, 0, 0]);
    segment.resize(20 + len, 0x5a);
    ipv4(TCP, *from.ip(), *to.ip(), &segment)
}

/// A datagram of a stranger to one of our ports.
pub(crate) fn udp(port: u16, len: usize) -> Vec<u8> {
    let to = SocketAddrV4::new(*LOCAL.ip(), port);
    let mut datagram = ports(STRANGER, to);
    datagram.extend((8 + len as u16).to_be_bytes());
    datagram.extend([0, 0]);
    datagram.resize(8 + len, 0xa5);
    ipv4(UDP, *STRANGER.ip(), *to.ip(), &datagram)
}

/// The first (`offset` 0) or another fragment of what would be `packet`.
pub(crate) fn fragment(mut packet: Vec<u8>, offset: u16) -> Vec<u8> {
    packet[20..22].copy_from_slice(&(0x2000 | offset).to_be_bytes());
    packet
}

pub(crate) fn arp(sender: Ipv4Addr) -> Vec<u8> {
    let mut packet = vec![0, 1, 8, 0, 6, 4, 0, 1];
    packet.extend(SERVER_MAC);
    packet.extend(sender.octets());
    packet.extend([0; 6]);
    packet.extend(LOCAL.ip().octets());
    ethernet(0x0806, &packet)
}

/// A router says that what the swap connection sent did not arrive.
pub(crate) fn unreachable() -> Vec<u8> {
    let mut message = vec![3, 1, 0, 0, 0, 0, 0, 0];
    message.extend(&request(0)[14..42]);
    ipv4(1, Ipv4Addr::new(10, 0, 0, 99), *LOCAL.ip(), &message)
}

/// With a priority tag.
pub(crate) fn tagged(mut frame: Vec<u8>) -> Vec<u8> {
    frame.splice(12..12, [0x81, 0, 0xa0, 0]);
    frame
}

fn ports(from: SocketAddrV4, to: SocketAddrV4) -> Vec<u8> {
    [from.port().to_be_bytes(), to.port().to_be_bytes()].concat()
}

fn ipv4(protocol: u8, from: Ipv4Addr, to: Ipv4Addr, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x45, 0];
    packet.extend((20 + payload.len() as u16).to_be_bytes());
    packet.extend([0, 7, 0, 0, 64, protocol, 0, 0]);
    packet.extend(from.octets());
    packet.extend(to.octets());
    packet.extend(payload);
    ethernet(0x0800, &packet)
}

fn ethernet(ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::from(MAC);
    frame.extend(SERVER_MAC);
    frame.extend(ethertype.to_be_bytes());
    frame.extend(payload);
    frame
}
