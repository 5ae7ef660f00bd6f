//! What early demux needs of a frame's headers, and no more (RFC 826, 791, 792, 768, 9293, 1122; for
//! IPv6 see the modules below).
//!
//! Lengths and versions are checked, because ports are read behind them. Checksums are not: that is
//! the stack's work, and a frame with a wrong one is freed there as well.

mod icmp;
mod ipv6;

use core::net::{Ipv4Addr, Ipv6Addr};

use super::dhcp::Message;
use super::flow::VlanId;
use super::fragment::{Extent, PacketId};
use super::{Malformed, Protocol};
use crate::Medium;
pub(super) use icmp::{Multicast, Ndp, NdpKind};

/// Bytes of an Ethernet header without a tag.
pub(crate) const ETHERNET_HEADER: usize = 14;
/// Bytes of an 802.1Q tag.
pub(crate) const VLAN_TAG: usize = 4;
const VLAN_NUMBER: u16 = 0x0fff;

pub(crate) const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_ARP: u16 = 0x0806;
pub(crate) const ETHERTYPE_VLAN: u16 = 0x8100;
pub(crate) const ETHERTYPE_IPV6: u16 = 0x86dd;

const IPV4_MIN_HEADER: usize = 20;
const PROTOCOL_ICMP: u8 = 1;
const MORE_FRAGMENTS: u16 = 0x2000;
const FRAGMENT_OFFSET: u16 = 0x1fff;

const ARP_IPV4_LEN: usize = 28;
/// Hardware type Ethernet, protocol type IPv4, address lengths 6 and 4.
const ARP_IPV4: [u8; 6] = [0, 1, 8, 0, 6, 4];

/// Who speaks to whom; an address of IPv4 is a mapped one of IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Conversation {
    pub(super) protocol: Protocol,
    pub(super) source_port: u16,
    pub(super) destination_port: u16,
    pub(super) source: Ipv6Addr,
    pub(super) destination: Ipv6Addr,
}

/// A packet, as far as early demux looks into it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Parsed {
    Arp {
        sender: Ipv6Addr,
        target: Ipv6Addr,
    },
    Transport(Conversation),
    Fragment(Fragment),
    /// An error about a conversation that it quotes.
    IcmpError {
        quoted: Conversation,
        too_big: bool,
    },
    Ndp(Ndp),
    Multicast(Multicast),
    /// Any other message.
    Icmp,
    Other,
}

/// A part of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fragment {
    /// But for the VLAN and the way, which are the frame's.
    pub(super) packet: PacketId,
    pub(super) extent: Extent,
    /// The ports, if it is the first one.
    pub(super) first: Option<Conversation>,
    /// The first one has the whole transport header, without its options.
    pub(super) whole_header: bool,
}

impl Fragment {
    /// A fragment with `protocol` in its header that says what follows; `transport` and `segment` of the
    /// first one alone, where it has them.
    fn new(
        ends: Ends,
        id: u32,
        protocol: u8,
        extent: Extent,
        transport: Option<Protocol>,
        segment: &[u8],
    ) -> Fragment {
        let first = transport
            .filter(|_| extent.offset == 0)
            .and_then(|protocol| ends.ports(protocol, segment));
        Fragment {
            packet: PacketId {
                source: ends.source,
                destination: ends.destination,
                id,
                protocol,
                vlan: None,
                sent: false,
            },
            extent,
            first,
            whole_header: first.is_some_and(|first| segment.len() >= least_header(first.protocol)),
        }
    }
}

/// The network that a frame is in, and its payload's type and offset.
pub(crate) struct Link {
    pub(crate) vlan: Option<VlanId>,
    pub(crate) ethertype: u16,
    pub(crate) header: usize,
}

/// The VLAN in the tag of an Ethernet frame: 0 for a priority tag; `None` if it has no tag.
pub(crate) fn tag_number(frame: &[u8]) -> Option<u16> {
    if be16(frame, 12)? != ETHERTYPE_VLAN {
        return None;
    }
    Some(be16(frame, ETHERNET_HEADER)? & VLAN_NUMBER)
}

/// What nearly every frame is: untagged, whole, and TCP or UDP over IPv4 without options. One check of
/// the length covers all that is read.
///
/// `None` says nothing: see [`frame`].
#[inline]
pub(super) fn common(frame: &[u8], medium: Medium) -> Option<Conversation> {
    if medium != Medium::Ethernet {
        return None;
    }
    const HEADERS: usize = ETHERNET_HEADER + IPV4_MIN_HEADER + 20;
    let h: &[u8; HEADERS] = frame.first_chunk()?;
    let short = |at: usize| u16::from_be_bytes([h[at], h[at + 1]]);
    if short(12) != ETHERTYPE_IPV4
        || h[14] != 0x45
        || short(20) & (MORE_FRAGMENTS | FRAGMENT_OFFSET) != 0
    {
        return None;
    }
    let total = usize::from(short(16));
    let segment = total.checked_sub(IPV4_MIN_HEADER)?;
    if ETHERNET_HEADER + total > frame.len() {
        return None;
    }
    let (protocol, least, length) = match h[23] {
        6 => (Protocol::Tcp, 20, usize::from(h[46] >> 4) * 4),
        17 => (Protocol::Udp, 8, usize::from(short(38))),
        _ => return None,
    };
    if length < least || length > segment {
        return None;
    }
    Some(Conversation {
        protocol,
        source_port: short(34),
        destination_port: short(36),
        source: Ipv4Addr::new(h[26], h[27], h[28], h[29]).to_ipv6_mapped(),
        destination: Ipv4Addr::new(h[30], h[31], h[32], h[33]).to_ipv6_mapped(),
    })
}

/// Any frame.
pub(super) fn frame(frame: &[u8], medium: Medium) -> Result<(Option<VlanId>, Parsed), Malformed> {
    match medium {
        Medium::Ethernet => ethernet(frame),
        Medium::Ip => Ok((None, ip(frame)?)),
    }
}

/// The message in a frame that is a datagram between the ports of DHCP.
#[cold]
pub(super) fn dhcp(frame: &[u8], medium: Medium) -> Option<Message> {
    let packet = match medium {
        Medium::Ethernet => frame.get(link(frame)?.header..)?,
        Medium::Ip => frame,
    };
    let header = ipv4_header(packet)?;
    let (source, destination) = (header.ends.source, header.ends.destination);
    let total = usize::from(be16(packet, 2)?);
    let datagram = packet.get(header.len..total)?;
    let length = usize::from(be16(datagram, 4)?);
    let payload = datagram.get(least_header(Protocol::Udp)..length)?;
    Message::read(
        source.to_ipv4_mapped()?,
        destination.to_ipv4_mapped()?,
        payload,
    )
}

fn ip(packet: &[u8]) -> Result<Parsed, Malformed> {
    match packet.first().map(|first| first >> 4) {
        Some(4) => ipv4(packet),
        Some(6) => ipv6::packet(packet),
        Some(_) => Ok(Parsed::Other),
        None => Err(Malformed::Ip),
    }
}

fn ethernet(frame: &[u8]) -> Result<(Option<VlanId>, Parsed), Malformed> {
    let link = link(frame).ok_or(Malformed::Ethernet)?;
    let payload = frame.get(link.header..).ok_or(Malformed::Ethernet)?;
    let parsed = match link.ethertype {
        ETHERTYPE_IPV4 => ipv4(payload)?,
        ETHERTYPE_ARP => arp(payload)?,
        ETHERTYPE_IPV6 => ipv6::packet(payload)?,
        _ => Parsed::Other,
    };
    Ok((link.vlan, parsed))
}

pub(crate) fn link(frame: &[u8]) -> Option<Link> {
    let ethertype = be16(frame, 12)?;
    if ethertype != ETHERTYPE_VLAN {
        return Some(Link {
            vlan: None,
            ethertype,
            header: ETHERNET_HEADER,
        });
    }
    let number = be16(frame, ETHERNET_HEADER)? & VLAN_NUMBER;
    let inner = be16(frame, ETHERNET_HEADER + 2)?;
    let vlan = VlanId::new(number);
    Some(Link {
        vlan,
        // The reserved number is nobody's network.
        ethertype: if vlan.is_none() && number != 0 {
            0
        } else {
            inner
        },
        header: ETHERNET_HEADER + VLAN_TAG,
    })
}

fn arp(packet: &[u8]) -> Result<Parsed, Malformed> {
    let packet: &[u8; ARP_IPV4_LEN] = packet.first_chunk().ok_or(Malformed::Arp)?;
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
        let extent = Extent {
            offset: (header.fragment & FRAGMENT_OFFSET) * 8,
            len: payload.len() as u16,
        };
        let (ends, number) = (header.ends, header.protocol);
        let fragment = Fragment::new(ends, header.id.into(), number, extent, protocol, payload);
        return Ok(Parsed::Fragment(fragment));
    }
    match (protocol, header.protocol) {
        (Some(protocol), _) => transport(protocol, header.ends, payload),
        (None, PROTOCOL_ICMP) => icmp::v4(payload),
        (None, _) => Ok(Parsed::Other),
    }
}

/// Bytes of a transport header without options.
const fn least_header(protocol: Protocol) -> usize {
    match protocol {
        Protocol::Udp => 8,
        Protocol::Tcp => 20,
    }
}

fn transport(protocol: Protocol, ends: Ends, segment: &[u8]) -> Result<Parsed, Malformed> {
    let field = match protocol {
        Protocol::Udp => be16(segment, 4).map(usize::from),
        Protocol::Tcp => segment.get(12).map(|b| usize::from(b >> 4) * 4),
    };
    let least = least_header(protocol);
    match (field, ends.ports(protocol, segment)) {
        (Some(length), Some(ports)) if length >= least && length <= segment.len() => {
            Ok(Parsed::Transport(ports))
        }
        _ => Err(Malformed::Transport),
    }
}

/// The addresses in a header.
#[derive(Debug, Clone, Copy)]
struct Ends {
    source: Ipv6Addr,
    destination: Ipv6Addr,
}

impl Ends {
    /// The first four bytes of UDP and TCP alike.
    fn ports(self, protocol: Protocol, segment: &[u8]) -> Option<Conversation> {
        Some(Conversation {
            protocol,
            source_port: be16(segment, 0)?,
            destination_port: be16(segment, 2)?,
            source: self.source,
            destination: self.destination,
        })
    }
}

struct Ipv4Header {
    /// Bytes, options included; so many are there.
    len: usize,
    id: u16,
    fragment: u16,
    protocol: u8,
    ends: Ends,
}

fn ipv4_header(packet: &[u8]) -> Option<Ipv4Header> {
    let first = *packet.first()?;
    let len = usize::from(first & 0x0f) * 4;
    if first >> 4 != 4 || len < IPV4_MIN_HEADER || len > packet.len() {
        return None;
    }
    Some(Ipv4Header {
        len,
        id: be16(packet, 4)?,
        fragment: be16(packet, 6)?,
        protocol: *packet.get(9)?,
        ends: Ends {
            source: address(packet, 12)?,
            destination: address(packet, 16)?,
        },
    })
}

fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    let field = bytes.get(at..)?.first_chunk()?;
    Some(u16::from_be_bytes(*field))
}

fn address(bytes: &[u8], at: usize) -> Option<Ipv6Addr> {
    let field = bytes.get(at..)?.first_chunk::<4>()?;
    Some(Ipv4Addr::from(*field).to_ipv6_mapped())
}
