//! The flood: packets of every kind that may lie on a wire, none of which serves the VM.

use core::net::{Ipv4Addr, SocketAddrV4};
use core::ops::Range;

use crate::rng::Rng;

pub(crate) const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
pub(crate) const SERVER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
pub(crate) const LOCAL: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 1), 700);
pub(crate) const SERVER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 2), 2049);
/// Ports that programs are bound to, of UDP and of TCP.
pub(crate) const PORTS: [u16; 6] = [53, 80, 123, 443, 5353, 8080];

const FRAME_MAX: usize = 1514;
const FRAME_MIN: usize = 60;
const UDP: u8 = 17;
const TCP: u8 = 6;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
/// Where ARP for IPv4 says whose it is.
const SENDER: Range<usize> = 28..32;
const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_ARP: u16 = 0x0806;
const ETHERTYPE_IPV6: u16 = 0x86dd;

/// What a packet is before it is tagged or cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Udp,
    UdpToNobody,
    Tcp,
    TcpToNobody,
    /// From the server's address, to our port, of another port of the server's.
    AlmostVmio,
    Echo,
    /// An ICMP error about somebody else's packet.
    IcmpError,
    Arp,
    FirstFragment,
    LaterFragment,
    Ipv6Udp,
    Ipv6Tcp,
    Icmpv6,
    OtherProtocol,
    OtherEthertype,
    OtherHost,
    /// Nothing but random bytes behind our address.
    Random,
}

impl Kind {
    pub(crate) const ALL: [Kind; 17] = [
        Kind::Udp,
        Kind::UdpToNobody,
        Kind::Tcp,
        Kind::TcpToNobody,
        Kind::AlmostVmio,
        Kind::Echo,
        Kind::IcmpError,
        Kind::Arp,
        Kind::FirstFragment,
        Kind::LaterFragment,
        Kind::Ipv6Udp,
        Kind::Ipv6Tcp,
        Kind::Icmpv6,
        Kind::OtherProtocol,
        Kind::OtherEthertype,
        Kind::OtherHost,
        Kind::Random,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Udp => "udp to a program",
            Kind::UdpToNobody => "udp to nobody",
            Kind::Tcp => "tcp to a program",
            Kind::TcpToNobody => "tcp to nobody",
            Kind::AlmostVmio => "tcp of the server, other port",
            Kind::Echo => "icmp echo",
            Kind::IcmpError => "icmp error, somebody else's",
            Kind::Arp => "arp of a stranger",
            Kind::FirstFragment => "first fragment",
            Kind::LaterFragment => "later fragment",
            Kind::Ipv6Udp => "ipv6 udp",
            Kind::Ipv6Tcp => "ipv6 tcp",
            Kind::Icmpv6 => "icmpv6",
            Kind::OtherProtocol => "other ip protocol",
            Kind::OtherEthertype => "other ethertype",
            Kind::OtherHost => "for another host",
            Kind::Random => "random bytes",
        }
    }
}

/// What was done to a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    Whole,
    /// With a priority tag.
    Priority,
    /// In another VLAN.
    Vlan,
    Truncated,
    /// Some of its bits are wrong.
    Damaged,
}

impl Shape {
    pub(crate) const ALL: [Shape; 5] = [
        Shape::Whole,
        Shape::Priority,
        Shape::Vlan,
        Shape::Truncated,
        Shape::Damaged,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Shape::Whole => "whole",
            Shape::Priority => "priority tag",
            Shape::Vlan => "other vlan",
            Shape::Truncated => "truncated",
            Shape::Damaged => "damaged",
        }
    }
}

/// Makes one packet after another.
#[derive(Debug)]
pub(crate) struct Flood {
    rng: Rng,
    frame: Vec<u8>,
    /// Of each kind and each shape.
    pub(crate) kinds: [u64; Kind::ALL.len()],
    pub(crate) shapes: [u64; Shape::ALL.len()],
}

impl Flood {
    pub(crate) fn new(seed: u64) -> Flood {
        Flood {
            rng: Rng::new(seed),
            frame: Vec::with_capacity(FRAME_MAX + 4),
            kinds: [0; Kind::ALL.len()],
            shapes: [0; Shape::ALL.len()],
        }
    }

    /// The next packet.
    pub(crate) fn packet(&mut self) -> &[u8] {
        let kind = Kind::ALL[self.rng.below(Kind::ALL.len())];
        let shape = match self.rng.below(16) {
            0..8 => Shape::Whole,
            8..10 => Shape::Priority,
            10 => Shape::Vlan,
            11..14 => Shape::Truncated,
            _ => Shape::Damaged,
        };
        self.kinds[kind as usize] += 1;
        self.shapes[shape as usize] += 1;
        self.build(kind);
        self.reshape(shape);
        &self.frame
    }

    fn build(&mut self, kind: Kind) {
        let program = PORTS[self.rng.below(PORTS.len())];
        // Ports from here on are nobody's.
        let nobody = 20_000 + self.rng.below(10_000) as u16;
        let from = 1024 + self.rng.below(60_000) as u16;
        let stranger = Ipv4Addr::new(10, 0, 0, 100 + self.rng.below(100) as u8);
        match kind {
            Kind::Udp => self.udp(stranger, from, program),
            Kind::UdpToNobody => self.udp(stranger, from, nobody),
            Kind::Tcp => self.tcp(stranger, from, program),
            Kind::TcpToNobody => self.tcp(stranger, from, nobody),
            Kind::AlmostVmio => self.tcp(*SERVER.ip(), from.max(2050), LOCAL.port()),
            Kind::Echo => {
                self.ipv4(ICMP, stranger, 0, |frame| {
                    frame.extend([8, 0, 0, 0, 0, 1, 0, 1]);
                });
            }
            Kind::IcmpError => {
                // About what one of our programs sent to a stranger.
                self.ipv4(ICMP, stranger, 0, |frame| {
                    frame.extend([3, 3, 0, 0, 0, 0, 0, 0]);
                    let len = [0, 28];
                    frame.extend([0x45, 0, len[0], len[1], 0, 0, 0, 0, 64, UDP, 0, 0]);
                    frame.extend(LOCAL.ip().octets());
                    frame.extend(stranger.octets());
                    frame.extend(program.to_be_bytes());
                    frame.extend(from.to_be_bytes());
                    frame.extend([0, 8, 0, 0]);
                });
            }
            Kind::Arp => {
                self.ethernet(ETHERTYPE_ARP);
                self.frame.extend([0, 1, 8, 0, 6, 4, 0, 1]);
                self.frame.extend([2, 0, 0, 0, 9, stranger.octets()[3]]);
                self.frame.extend(stranger.octets());
                self.frame.extend([0; 6]);
                self.frame.extend(LOCAL.ip().octets());
            }
            Kind::FirstFragment => {
                self.udp(stranger, from, program);
                self.frame[20..22].copy_from_slice(&0x2000u16.to_be_bytes());
            }
            Kind::LaterFragment => {
                self.udp(stranger, from, program);
                let offset = 1 + self.rng.below(180) as u16;
                let more = if self.rng.below(2) == 0 { 0x2000 } else { 0 };
                self.frame[20..22].copy_from_slice(&(more | offset).to_be_bytes());
            }
            Kind::Ipv6Udp => self.ipv6(UDP, from, program),
            Kind::Ipv6Tcp => self.ipv6(TCP, from, program),
            Kind::Icmpv6 => self.ipv6(ICMPV6, 0x8700, program),
            Kind::OtherProtocol => {
                let protocol = [2, 4, 41, 47, 50, 89, 132][self.rng.below(7)];
                self.ipv4(protocol, stranger, 24, |_| ());
            }
            Kind::OtherEthertype => {
                let ethertype = [0x88cc, 0x8863, 0x88e5, 0x0027][self.rng.below(4)];
                self.ethernet(ethertype);
                self.noise(46);
            }
            Kind::OtherHost => {
                self.udp(stranger, from, program);
                self.frame[5] = 77;
            }
            Kind::Random => {
                let len = FRAME_MIN + self.rng.below(FRAME_MAX - FRAME_MIN);
                self.frame.clear();
                self.frame.extend(MAC);
                self.noise(len - 6);
            }
        }
        if self.frame.len() < FRAME_MIN {
            self.frame.resize(FRAME_MIN, 0);
        }
    }

    fn reshape(&mut self, shape: Shape) {
        let tag = match shape {
            Shape::Whole => return,
            Shape::Priority => 0xa000,
            Shape::Vlan => 1 + self.rng.below(4094) as u16,
            Shape::Truncated => {
                let len = self.rng.below(self.frame.len());
                self.frame.truncate(len);
                return;
            }
            Shape::Damaged => {
                for _ in 0..=self.rng.below(4) {
                    // In the headers mostly: that is where it matters.
                    let at = 6 + self.rng.below((self.frame.len() - 6).min(48));
                    let bit = 1 << self.rng.below(8);
                    // Noise does not speak in the server's name: ARP that does is forged.
                    if !SENDER.contains(&at) || self.frame[12..14] != ETHERTYPE_ARP.to_be_bytes() {
                        self.frame[at] ^= bit;
                    }
                }
                return;
            }
        };
        let [a, b] = u16::to_be_bytes(tag);
        self.frame.splice(12..12, [0x81, 0, a, b]);
    }

    fn udp(&mut self, from: Ipv4Addr, from_port: u16, to_port: u16) {
        let len = self.payload(1472);
        self.ipv4(UDP, from, len, |frame| {
            frame.extend(from_port.to_be_bytes());
            frame.extend(to_port.to_be_bytes());
            frame.extend((8 + len as u16).to_be_bytes());
            frame.extend([0, 0]);
        });
    }

    fn tcp(&mut self, from: Ipv4Addr, from_port: u16, to_port: u16) {
        let len = self.payload(1460);
        let sequence = self.rng.next().to_be_bytes();
        self.ipv4(TCP, from, len, |frame| {
            frame.extend(from_port.to_be_bytes());
            frame.extend(to_port.to_be_bytes());
            frame.extend(sequence);
            frame.extend([5 << 4, 0x18, 0xff, 0xff, 0, 0, 0, 0]);
        });
    }

    /// Mostly small and full packets, as on any wire.
    fn payload(&mut self, most: usize) -> usize {
        match self.rng.below(4) {
            0 => most,
            1 => self.rng.below(most),
            _ => self.rng.below(100),
        }
    }

    /// A header, what `head` adds to it, and `len` bytes of noise.
    fn ipv4(&mut self, protocol: u8, from: Ipv4Addr, len: usize, head: impl FnOnce(&mut Vec<u8>)) {
        self.ethernet(ETHERTYPE_IPV4);
        let id = self.rng.next().to_be_bytes();
        let start = self.frame.len();
        self.frame
            .extend([0x45, 0, 0, 0, id[0], id[1], 0, 0, 64, protocol, 0, 0]);
        self.frame.extend(from.octets());
        self.frame.extend(LOCAL.ip().octets());
        head(&mut self.frame);
        self.noise(len);
        let total = (self.frame.len() - start) as u16;
        self.frame[start + 2..start + 4].copy_from_slice(&total.to_be_bytes());
        let checksum = checksum(&self.frame[start..start + 20]);
        self.frame[start + 10..start + 12].copy_from_slice(&checksum.to_be_bytes());
    }

    fn ipv6(&mut self, next: u8, from_port: u16, to_port: u16) {
        let len = self.payload(1400);
        self.ethernet(ETHERTYPE_IPV6);
        let segment = 20 + len;
        let [a, b] = (segment as u16).to_be_bytes();
        self.frame.extend([0x60, 0, 0, 0, a, b, next, 64]);
        let host = self.rng.below(200) as u8;
        for last in [host, 1] {
            self.frame
                .extend([0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]);
        }
        self.frame.extend(from_port.to_be_bytes());
        self.frame.extend(to_port.to_be_bytes());
        // The length of a datagram, or the sequence number of a segment.
        self.frame
            .extend([a, b, 0, 0, 0, 0, 0, 0, 5 << 4, 0x18, 0, 0, 0, 0, 0, 0]);
        self.noise(len);
    }

    fn ethernet(&mut self, ethertype: u16) {
        self.frame.clear();
        self.frame.extend(MAC);
        self.frame.extend([2, 0, 0, 0, 9, 9]);
        self.frame.extend(ethertype.to_be_bytes());
    }

    fn noise(&mut self, len: usize) {
        let start = self.frame.len();
        self.frame.resize(start + len, 0);
        self.rng.fill(&mut self.frame[start..]);
    }
}

fn checksum(header: &[u8]) -> u16 {
    let words = header.chunks_exact(2);
    let sum: u32 = words
        .map(|w| u32::from(u16::from_be_bytes([w[0], w[1]])))
        .sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !((folded & 0xffff) + (folded >> 16)) as u16
}
