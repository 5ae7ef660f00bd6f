//! What early demux needs of a frame's headers, and no more (RFC 826, 791, 792, 768, 9293, 1122).
//!
//! Lengths and versions are checked, because ports are read behind them. Checksums are not: that is
//! the stack's work, and a frame with a wrong one is freed there as well.

use core::net::{Ipv4Addr, SocketAddrV4};

use super::{Malformed, Protocol};

/// Bytes of an Ethernet header without a tag.
pub(crate) const ETHERNET_HEADER: usize = 14;
/// Bytes of an 802.1Q tag.
pub(crate) const VLAN_TAG: usize = 4;
const VLAN_ID: u16 = 0x0fff;

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_ARP: u16 = 0x0806;
const ETHERTYPE_VLAN: u16 = 0x8100;

const IPV4_MIN_HEADER: usize = 20;
const PROTOCOL_ICMP: u8 = 1;
const MORE_FRAGMENTS: u16 = 0x2000;
const FRAGMENT_OFFSET: u16 = 0x1fff;

const ICMP_HEADER: usize = 8;
const ICMP_UNREACHABLE: u8 = 3;
const ICMP_TIME_EXCEEDED: u8 = 11;

const ARP_IPV4_LEN: usize = 28;
/// Hardware type Ethernet, protocol type IPv4, address lengths 6 and 4.
const ARP_IPV4: [u8; 6] = [0, 1, 8, 0, 6, 4];

/// Who speaks to whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Conversation {
    pub(super) protocol: Protocol,
    pub(super) source: SocketAddrV4,
    pub(super) destination: SocketAddrV4,
}

/// A frame, as far as early demux looks into it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Parsed {
    Arp {
        sender: Ipv4Addr,
        target: Ipv4Addr,
    },
    Transport(Conversation),
    /// With its ports, if it is the first one.
    Fragment(Option<Conversation>),
    /// With the conversation that it quotes, if it is an error about one.
    Icmp(Option<Conversation>),
    Other,
}

/// Whether the frame carries a priority tag (802.1Q with VLAN 0) in front of its type.
pub(crate) fn priority_tagged(frame: &[u8]) -> bool {
    be16(frame, 12) == Some(ETHERTYPE_VLAN)
        && be16(frame, ETHERNET_HEADER).is_some_and(|tag| tag & VLAN_ID == 0)
}

pub(super) fn ethernet(frame: &[u8]) -> Result<Parsed, Malformed> {
    let mut header = ETHERNET_HEADER;
    let mut ethertype = be16(frame, 12).ok_or(Malformed::Ethernet)?;
    if ethertype == ETHERTYPE_VLAN {
        if !priority_tagged(frame) {
            // Another network, unless cut short.
            return be16(frame, 16)
                .map(|_| Parsed::Other)
                .ok_or(Malformed::Ethernet);
        }
        header += VLAN_TAG;
        ethertype = be16(frame, 16).ok_or(Malformed::Ethernet)?;
    }
    let payload = frame.get(header..).ok_or(Malformed::Ethernet)?;
    match ethertype {
        ETHERTYPE_IPV4 => ipv4(payload),
        ETHERTYPE_ARP => arp(payload),
        _ => Ok(Parsed::Other),
    }
}

/// A frame without a header in front of the packet.
pub(super) fn ip(packet: &[u8]) -> Result<Parsed, Malformed> {
    match packet.first().map(|first| first >> 4) {
        Some(4) => ipv4(packet),
        Some(_) => Ok(Parsed::Other),
        None => Err(Malformed::Ip),
    }
}

fn arp(packet: &[u8]) -> Result<Parsed, Malformed> {
    let packet = packet.get(..ARP_IPV4_LEN).ok_or(Malformed::Arp)?;
    if packet[..6] != ARP_IPV4 {
        return Ok(Parsed::Other);
    }
    let sender = address(packet, 14).ok_or(Malformed::Arp)?;
    let target = address(packet, 24).ok_or(Malformed::Arp)?;
    Ok(Parsed::Arp { sender, target })
}

fn ipv4(packet: &[u8]) -> Result<Parsed, Malformed> {
    let header = ipv4_header(packet).ok_or(Malformed::Ipv4)?;
    let total = usize::from(be16(packet, 2).ok_or(Malformed::Ipv4)?);
    // Ethernet pads short packets; the padding is not part of them.
    let payload = packet.get(header.len..total).ok_or(Malformed::Ipv4)?;

    let protocol = Protocol::from_number(header.protocol);
    if header.fragment & (MORE_FRAGMENTS | FRAGMENT_OFFSET) != 0 {
        let first = header.fragment & FRAGMENT_OFFSET == 0;
        let ports = protocol
            .filter(|_| first)
            .and_then(|p| header.ports(p, payload));
        return Ok(Parsed::Fragment(ports));
    }
    match (protocol, header.protocol) {
        (Some(protocol), _) => {
            check_transport(protocol, payload)?;
            let ports = header.ports(protocol, payload);
            ports.map(Parsed::Transport).ok_or(Malformed::Transport)
        }
        (None, PROTOCOL_ICMP) => icmp(payload),
        (None, _) => Ok(Parsed::Other),
    }
}

fn check_transport(protocol: Protocol, segment: &[u8]) -> Result<(), Malformed> {
    let (field, minimum) = match protocol {
        Protocol::Udp => (be16(segment, 4).map(usize::from), 8),
        Protocol::Tcp => (segment.get(12).map(|b| usize::from(b >> 4) * 4), 20),
    };
    match field {
        Some(length) if length >= minimum && length <= segment.len() => Ok(()),
        _ => Err(Malformed::Transport),
    }
}

/// An error message quotes the header of the packet that caused it and 8 bytes more (RFC 792).
fn icmp(message: &[u8]) -> Result<Parsed, Malformed> {
    if message.len() < ICMP_HEADER {
        return Err(Malformed::Icmp);
    }
    if !matches!(message[0], ICMP_UNREACHABLE | ICMP_TIME_EXCEEDED) {
        return Ok(Parsed::Icmp(None));
    }
    let packet = &message[ICMP_HEADER..];
    let header = ipv4_header(packet).ok_or(Malformed::Icmp)?;
    if header.fragment & FRAGMENT_OFFSET != 0 {
        return Ok(Parsed::Icmp(None));
    }
    let quoted = Protocol::from_number(header.protocol)
        .and_then(|protocol| header.ports(protocol, &packet[header.len..]));
    Ok(Parsed::Icmp(quoted))
}

struct Ipv4Header {
    /// Bytes, options included; so many are there.
    len: usize,
    fragment: u16,
    protocol: u8,
    source: Ipv4Addr,
    destination: Ipv4Addr,
}

impl Ipv4Header {
    /// The first four bytes of UDP and TCP alike.
    fn ports(&self, protocol: Protocol, segment: &[u8]) -> Option<Conversation> {
        Some(Conversation {
            protocol,
            source: SocketAddrV4::new(self.source, be16(segment, 0)?),
            destination: SocketAddrV4::new(self.destination, be16(segment, 2)?),
        })
    }
}

fn ipv4_header(packet: &[u8]) -> Option<Ipv4Header> {
    let first = *packet.first()?;
    let len = usize::from(first & 0x0f) * 4;
    if first >> 4 != 4 || len < IPV4_MIN_HEADER || len > packet.len() {
        return None;
    }
    Some(Ipv4Header {
        len,
        fragment: be16(packet, 6)?,
        protocol: *packet.get(9)?,
        source: address(packet, 12)?,
        destination: address(packet, 16)?,
    })
}

fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    let field = bytes.get(at..)?.first_chunk()?;
    Some(u16::from_be_bytes(*field))
}

fn address(bytes: &[u8], at: usize) -> Option<Ipv4Addr> {
    let field = bytes.get(at..)?.first_chunk::<4>()?;
    Some(Ipv4Addr::from(*field))
}
