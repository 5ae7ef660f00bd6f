//! Packets that have nothing to do with the swap, or pretend to.

use core::net::Ipv4Addr;

use crate::packet::{ETHERNET, checksum};
use crate::rng::Rng;
use crate::scenario::Traffic;

/// Whom the packets are for, and whom they can be confused with.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) hardware: [u8; 6],
    pub(crate) address: Ipv4Addr,
    pub(crate) server: Ipv4Addr,
    /// Bound ports, of both protocols.
    pub(crate) ports: Vec<u16>,
    /// Local and remote port of the swap connection, as far as the wire has seen it.
    pub(crate) connection: (u16, u16),
}

const UDP: u8 = 17;
const TCP: u8 = 6;

/// A packet, small or of whole length.
pub(crate) fn packet(rng: &mut Rng, traffic: Traffic, target: &Target, mtu: usize) -> Vec<u8> {
    let traffic = match traffic {
        Traffic::Mixed => Traffic::draw_kind(rng),
        traffic => traffic,
    };
    let len = match rng.below(3) {
        0 => rng.range(0, 32) as usize,
        1 => rng.range(0, 512) as usize,
        _ => mtu - 60,
    };
    let stranger = Ipv4Addr::new(10, 0, 2, rng.range(20, 250) as u8);
    let from = rng.range(1024, 65_535) as u16;
    let port = |rng: &mut Rng| match target.ports.as_slice() {
        [] => rng.range(1, 65_535) as u16,
        ports => rng.pick(ports),
    };
    match traffic {
        Traffic::Udp => {
            let to = port(rng);
            transport(target, stranger, UDP, &udp(from, to, len), 0)
        }
        Traffic::Tcp => {
            let to = port(rng);
            let flags = rng.pick(&[0x10, 0x18, 0x02]);
            transport(target, stranger, TCP, &tcp(rng, from, to, flags, len), 0)
        }
        Traffic::Unbound => {
            let to = rng.range(1, 1023) as u16;
            match rng.below(2) {
                0 => transport(target, stranger, UDP, &udp(from, to, len), 0),
                _ => transport(target, stranger, TCP, &tcp(rng, from, to, 0x02, 0), 0),
            }
        }
        Traffic::Fragments => {
            let (source, first) = match rng.below(2) {
                // Of the server, but not the one with the ports: whose they are cannot be known.
                0 => (target.server, false),
                _ => (stranger, rng.chance(500)),
            };
            let fragment = if first {
                0x2000
            } else {
                0x2000 | rng.range(1, 100) as u16
            };
            let to = port(rng);
            transport(target, source, UDP, &udp(from, to, len.max(8)), fragment)
        }
        Traffic::Arp => arp(rng, target, stranger),
        Traffic::LookAlike => look_alike(rng, target, stranger, len),
        Traffic::Icmp => icmp(rng, target, stranger),
        Traffic::Noise => noise(rng, target, len),
        Traffic::Mixed => unreachable!("replaced above"),
    }
}

fn ethernet(target: &Target, protocol: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(ETHERNET + payload.len());
    frame.extend(target.hardware);
    frame.extend([2, 0, 0, 0, 9, 9]);
    frame.extend(protocol.to_be_bytes());
    frame.extend(payload);
    frame
}

fn transport(
    target: &Target,
    source: Ipv4Addr,
    protocol: u8,
    payload: &[u8],
    fragment: u16,
) -> Vec<u8> {
    let len = (20 + payload.len()) as u16;
    let mut ip = vec![0x45, 0];
    ip.extend(len.to_be_bytes());
    ip.extend([0x12, 0x34]);
    ip.extend(fragment.to_be_bytes());
    ip.extend([64, protocol, 0, 0]);
    ip.extend(source.octets());
    ip.extend(target.address.octets());
    let sum = checksum(&ip, 0);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    let mut payload = payload.to_vec();
    if protocol == TCP && fragment == 0 {
        let pseudo: u32 = ip[12..20]
            .chunks(2)
            .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
            .sum();
        let sum = checksum(&payload, pseudo + u32::from(TCP) + payload.len() as u32);
        payload[16..18].copy_from_slice(&sum.to_be_bytes());
    }
    ip.extend(payload);
    ethernet(target, 0x0800, &ip)
}

fn udp(from: u16, to: u16, len: usize) -> Vec<u8> {
    let mut udp = Vec::with_capacity(8 + len);
    udp.extend(from.to_be_bytes());
    udp.extend(to.to_be_bytes());
    udp.extend(((8 + len) as u16).to_be_bytes());
    udp.extend([0, 0]);
    udp.resize(8 + len, 0xaa);
    udp
}

fn tcp(rng: &mut Rng, from: u16, to: u16, flags: u8, len: usize) -> Vec<u8> {
    let mut tcp = Vec::with_capacity(20 + len);
    tcp.extend(from.to_be_bytes());
    tcp.extend(to.to_be_bytes());
    tcp.extend((rng.next() as u32).to_be_bytes());
    tcp.extend((rng.next() as u32).to_be_bytes());
    tcp.extend([0x50, flags, 0x10, 0, 0, 0, 0, 0]);
    tcp.resize(20 + len, 0xbb);
    tcp
}

/// A stranger asks for us, or says where it is. To a stack that believes it, it is a neighbour.
fn arp(rng: &mut Rng, target: &Target, stranger: Ipv4Addr) -> Vec<u8> {
    let operation = rng.pick(&[1_u8, 1, 2]);
    let mut arp = vec![0, 1, 8, 0, 6, 4, 0, operation];
    arp.extend([2, 0, 0, 0, 9, stranger.octets()[3]]);
    arp.extend(stranger.octets());
    arp.extend(target.hardware);
    arp.extend(target.address.octets());
    ethernet(target, 0x0806, &arp)
}

/// Numbers out of every window: nobody may be led astray who does not know the connection's.
fn look_alike(rng: &mut Rng, target: &Target, stranger: Ipv4Addr, len: usize) -> Vec<u8> {
    let (local, remote) = target.connection;
    match rng.below(4) {
        0 => transport(
            target,
            stranger,
            TCP,
            &tcp(rng, remote, local, 0x10, len),
            0,
        ),
        1 => transport(target, target.server, UDP, &udp(remote, local, len), 0),
        2 => {
            let other = rng.range(1024, 65_535) as u16;
            transport(
                target,
                target.server,
                TCP,
                &tcp(rng, remote, other, 0x10, len),
                0,
            )
        }
        _ => transport(
            target,
            target.server,
            TCP,
            &tcp(rng, remote, local, 0x10, 0),
            0,
        ),
    }
}

fn icmp(rng: &mut Rng, target: &Target, stranger: Ipv4Addr) -> Vec<u8> {
    let kind = rng.pick(&[8_u8, 0, 3, 11]);
    let mut icmp = vec![kind, 0, 0, 0, 0, 0, 0, 0];
    // What an error quotes: a packet of ours to somebody else.
    let quoted = transport(target, stranger, UDP, &udp(7, 7, 0), 0);
    icmp.extend(&quoted[ETHERNET..]);
    let sum = checksum(&icmp, 0);
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());
    transport(target, stranger, 1, &icmp, 0)
}

fn noise(rng: &mut Rng, target: &Target, len: usize) -> Vec<u8> {
    let mut payload: Vec<u8> = (0..len).map(|_| rng.next() as u8).collect();
    let protocol = rng.pick(&[0x0800, 0x0806, 0x86dd, 0x8100, 0x9999]);
    if protocol == 0x0806 {
        // Of nobody whom the swap depends on.
        payload.truncate(20);
    }
    let mut frame = ethernet(target, protocol, &payload);
    if rng.chance(200) {
        frame.truncate(rng.range(0, 30) as usize);
    }
    frame
}
