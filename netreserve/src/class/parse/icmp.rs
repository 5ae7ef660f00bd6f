//! ICMP for both versions: errors that quote a packet, neighbour discovery, and who listens to which
//! group (RFC 792, 4443, 4861, 2710, 3810).

use core::net::Ipv6Addr;

use super::super::{Malformed, Protocol};
use super::{Ends, FRAGMENT_OFFSET, Parsed, ipv4_header, ipv6};

const HEADER: usize = 8;

const UNREACHABLE: u8 = 3;
const FRAGMENTATION_NEEDED: u8 = 4;
const TIME_EXCEEDED: u8 = 11;

const UNREACHABLE_6: u8 = 1;
const TOO_BIG_6: u8 = 2;
const TIME_EXCEEDED_6: u8 = 3;
const MLD_QUERY: u8 = 130;
const MLD_REPORT: u8 = 131;
const MLD_DONE: u8 = 132;
const ROUTER_SOLICIT: u8 = 133;
const ROUTER_ADVERT: u8 = 134;
const NEIGHBOUR_SOLICIT: u8 = 135;
const NEIGHBOUR_ADVERT: u8 = 136;
const REDIRECT: u8 = 137;
const MLD_REPORT_2: u8 = 143;

/// A message of neighbour discovery, with the addresses that matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct Ndp {
    pub(in super::super) kind: NdpKind,
    pub(in super::super) source: Ipv6Addr,
    pub(in super::super) destination: Ipv6Addr,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum NdpKind {
    RouterSolicit,
    RouterAdvert,
    Solicit {
        target: Ipv6Addr,
    },
    Advert {
        target: Ipv6Addr,
    },
    /// `target` is the better way to `about`.
    Redirect {
        target: Ipv6Addr,
        about: Ipv6Addr,
    },
}

/// A message about who listens to which group (MLD).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Multicast {
    Query,
    Report,
}

/// An error quotes the header of the packet that caused it and 8 bytes more (RFC 792).
pub(super) fn v4(message: &[u8]) -> Result<Parsed, Malformed> {
    let header: &[u8; HEADER] = message.first_chunk().ok_or(Malformed::Icmp)?;
    if !matches!(header[0], UNREACHABLE | TIME_EXCEEDED) {
        return Ok(Parsed::Icmp);
    }
    let packet = &message[HEADER..];
    let quoted = ipv4_header(packet).ok_or(Malformed::Icmp)?;
    if quoted.fragment & FRAGMENT_OFFSET != 0 {
        return Ok(Parsed::Icmp);
    }
    let ports = Protocol::from_number(quoted.protocol)
        .and_then(|protocol| quoted.ends.ports(protocol, &packet[quoted.len..]));
    Ok(ports.map_or(Parsed::Icmp, |quoted| Parsed::IcmpError {
        quoted,
        too_big: header[..2] == [UNREACHABLE, FRAGMENTATION_NEEDED],
    }))
}

pub(super) fn v6(ends: Ends, hop_limit: u8, message: &[u8]) -> Result<Parsed, Malformed> {
    // The checksum is the third and fourth byte of any.
    let header: &[u8; 4] = message.first_chunk().ok_or(Malformed::Icmp)?;
    match header[0] {
        kind @ (UNREACHABLE_6 | TOO_BIG_6 | TIME_EXCEEDED_6) => {
            let packet = message.get(HEADER..).ok_or(Malformed::Icmp)?;
            Ok(
                ipv6::quoted(packet)?.map_or(Parsed::Icmp, |quoted| Parsed::IcmpError {
                    quoted,
                    too_big: kind == TOO_BIG_6,
                }),
            )
        }
        kind @ ROUTER_SOLICIT..=REDIRECT => {
            // A router lowers the hop limit: what comes from elsewhere is a forgery (RFC 4861, 7.1).
            if hop_limit != 255 || header[1] != 0 {
                return Ok(Parsed::Icmp);
            }
            discovery(kind, ends, message)
        }
        MLD_QUERY | MLD_REPORT | MLD_DONE | MLD_REPORT_2 => {
            // It never crosses a router, and its source is of the link, or not there yet.
            let source = ends.source;
            let of_link = source.is_unicast_link_local() || source.is_unspecified();
            Ok(match header[0] {
                _ if hop_limit != 1 || !of_link => Parsed::Icmp,
                MLD_QUERY if source.is_unspecified() => Parsed::Icmp,
                MLD_QUERY => Parsed::Multicast(Multicast::Query),
                _ => Parsed::Multicast(Multicast::Report),
            })
        }
        _ => Ok(Parsed::Icmp),
    }
}

fn discovery(kind: u8, ends: Ends, message: &[u8]) -> Result<Parsed, Malformed> {
    let least = match kind {
        ROUTER_SOLICIT => 8,
        ROUTER_ADVERT => 16,
        REDIRECT => 40,
        _ => 24,
    };
    if message.len() < least {
        return Err(Malformed::Icmp);
    }
    let target = ipv6::address(message, 8);
    let kind = match (kind, target) {
        (ROUTER_SOLICIT, _) => NdpKind::RouterSolicit,
        (ROUTER_ADVERT, _) => NdpKind::RouterAdvert,
        (NEIGHBOUR_SOLICIT, Some(target)) => NdpKind::Solicit { target },
        (NEIGHBOUR_ADVERT, Some(target)) => NdpKind::Advert { target },
        (REDIRECT, Some(target)) => match ipv6::address(message, 24) {
            Some(about) => NdpKind::Redirect { target, about },
            None => return Ok(Parsed::Icmp),
        },
        _ => return Ok(Parsed::Icmp),
    };
    Ok(Parsed::Ndp(Ndp {
        kind,
        source: ends.source,
        destination: ends.destination,
    }))
}
