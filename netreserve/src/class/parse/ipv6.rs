//! IPv6: the header, and as many extension headers as anybody sends (RFC 8200, 7045).

use core::net::Ipv6Addr;

use super::super::flow::is_ipv4;
use super::super::fragment::Extent;
use super::super::{Malformed, Protocol};
use super::{Conversation, Ends, Fragment, Parsed, icmp, transport};

const HEADER: usize = 40;
/// Extension headers that are looked behind: each of those that RFC 8200 recommends in front of a
/// transport header, and some to spare. A packet with more belongs to nobody here.
const MAX_EXTENSIONS: usize = 8;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const ICMPV6: u8 = 58;
const DESTINATION_OPTIONS: u8 = 60;

const MORE_FRAGMENTS: u16 = 1;
const FRAGMENT_OFFSET: u16 = 0xfff8;

/// What is behind the header of a packet and its extensions.
struct Upper<'p> {
    protocol: u8,
    /// Where the payload begins.
    payload: &'p [u8],
    fragment: Option<FragmentHeader>,
}

#[derive(Clone, Copy)]
struct FragmentHeader {
    id: u32,
    /// What follows it in the whole packet.
    next: u8,
    /// Offset and flag.
    field: u16,
    /// Bytes behind it.
    len: u16,
}

impl FragmentHeader {
    /// In bytes, of which it is a multiple of 8.
    fn offset(self) -> u16 {
        self.field & FRAGMENT_OFFSET
    }
}

pub(super) fn packet(packet: &[u8]) -> Result<Parsed, Malformed> {
    let header: &[u8; HEADER] = packet.first_chunk().ok_or(Malformed::Ipv6)?;
    if header[0] >> 4 != 6 {
        return Err(Malformed::Ipv6);
    }
    let length = usize::from(u16::from_be_bytes([header[4], header[5]]));
    // Ethernet pads short packets; the padding is not part of them.
    let payload = packet.get(HEADER..HEADER + length).ok_or(Malformed::Ipv6)?;
    let Some(ends) = ends(header) else {
        return Ok(Parsed::Other);
    };
    let Some(upper) = behind_extensions(header[6], payload)? else {
        return Ok(Parsed::Other);
    };
    let protocol = Protocol::from_number(upper.protocol);
    if let Some(header) = upper.fragment
        && header.field & (MORE_FRAGMENTS | FRAGMENT_OFFSET) != 0
    {
        let FragmentHeader { id, next, len, .. } = header;
        let offset = header.offset();
        let extent = Extent { offset, len };
        let fragment = Fragment::new(ends, id, next, extent, protocol, upper.payload);
        return Ok(Parsed::Fragment(fragment));
    }
    match (protocol, upper.protocol) {
        (Some(protocol), _) => transport(protocol, ends, upper.payload),
        (None, ICMPV6) => icmp::v6(ends, header[7], upper.payload),
        (None, _) => Ok(Parsed::Other),
    }
}

/// The conversation of a packet that an error quotes, which may be cut short anywhere.
pub(super) fn quoted(packet: &[u8]) -> Result<Option<Conversation>, Malformed> {
    let header: &[u8; HEADER] = packet.first_chunk().ok_or(Malformed::Icmp)?;
    if header[0] >> 4 != 6 {
        return Err(Malformed::Icmp);
    }
    let Some(ends) = ends(header) else {
        return Ok(None);
    };
    // A header that is cut off is not the sender's fault.
    let Ok(Some(upper)) = behind_extensions(header[6], &packet[HEADER..]) else {
        return Ok(None);
    };
    if upper.fragment.is_some_and(|header| header.offset() != 0) {
        return Ok(None);
    }
    Ok(Protocol::from_number(upper.protocol)
        .and_then(|protocol| ends.ports(protocol, upper.payload)))
}

/// `None` for addresses that mean IPv4 and have no place on the wire: they would be taken for those of
/// a flow over IPv4.
fn ends(header: &[u8; HEADER]) -> Option<Ends> {
    let source = address(header, 8)?;
    let destination = address(header, 24)?;
    Some(Ends {
        source,
        destination,
    })
}

/// An address of IPv6, and of nothing else.
pub(super) fn address(bytes: &[u8], at: usize) -> Option<Ipv6Addr> {
    let field = bytes.get(at..)?.first_chunk::<16>()?;
    Some(Ipv6Addr::from(*field)).filter(|addr| !is_ipv4(*addr))
}

/// `None` if there are too many, if one is where it may not be, or sends the packet on to somebody
/// else.
fn behind_extensions(first: u8, payload: &[u8]) -> Result<Option<Upper<'_>>, Malformed> {
    let mut upper = Upper {
        protocol: first,
        payload,
        fragment: None,
    };
    for nth in 0..=MAX_EXTENSIONS {
        let kind = upper.protocol;
        if !matches!(kind, HOP_BY_HOP | ROUTING | FRAGMENT | DESTINATION_OPTIONS) {
            return Ok(Some(upper));
        }
        let header: &[u8; 8] = upper.payload.first_chunk().ok_or(Malformed::Ipv6)?;
        let length = match kind {
            FRAGMENT => 8,
            _ => 8 + usize::from(header[1]) * 8,
        };
        // Segments that are left: we are but one stop on its way.
        if kind == ROUTING && header[3] != 0 || kind == HOP_BY_HOP && nth > 0 {
            return Ok(None);
        }
        if kind == FRAGMENT {
            let fragment = FragmentHeader {
                id: u32::from_be_bytes([header[4], header[5], header[6], header[7]]),
                next: header[0],
                field: u16::from_be_bytes([header[2], header[3]]),
                len: (upper.payload.len() - 8) as u16,
            };
            upper.fragment = Some(fragment);
            if fragment.offset() != 0 {
                // What follows is the middle of something.
                upper.protocol = header[0];
                upper.payload = &upper.payload[8..];
                return Ok(Some(upper));
            }
        }
        upper.payload = upper.payload.get(length..).ok_or(Malformed::Ipv6)?;
        upper.protocol = header[0];
    }
    Ok(None)
}
