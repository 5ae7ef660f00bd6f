//! The headers of a fragment, read and mended (RFC 791, 8200).

use core::net::{Ipv4Addr, Ipv6Addr};

use super::ReassemblyError;
use crate::class::ETHERNET_HEADER;
use crate::{Medium, Skb, SkbError};

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const ETHERTYPE_VLAN: u16 = 0x8100;
const VLAN_TAG: usize = 4;

const IPV4_HEADER: usize = 20;
const MORE_FRAGMENTS: u16 = 0x2000;
const FRAGMENT_OFFSET: u16 = 0x1fff;

const IPV6_HEADER: usize = 40;
const FRAGMENT_HEADER: usize = 8;
/// Headers in front of that of a fragment: hop by hop, destination and routing (RFC 8200, 4.1), as few
/// as anybody sends.
const EXTENSIONS: usize = 4;
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION: u8 = 60;

/// The longest packet.
const LONGEST: usize = 65_535;

/// Whose datagram a fragment is a part of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Key {
    pub(super) source: Ipv6Addr,
    pub(super) destination: Ipv6Addr,
    pub(super) id: u32,
    /// Of IPv4; 0 for IPv6.
    pub(super) protocol: u8,
    pub(super) vlan: u16,
}

/// What the headers say.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fragment {
    pub(super) key: Key,
    /// Bytes in front of the payload, and in front of the IP header.
    pub(super) header: usize,
    link: usize,
    pub(super) offset: usize,
    pub(super) len: usize,
    pub(super) more: bool,
    /// Of IPv6: where the number of the fragment header stands, and the header itself.
    v6: Option<(usize, usize)>,
}

impl Fragment {
    pub(super) fn read(frame: &[u8], medium: Medium) -> Result<Fragment, ReassemblyError> {
        let (link, vlan, ethertype) = match medium {
            Medium::Ethernet => ethernet(frame)?,
            Medium::Ip => (0, 0, 0),
        };
        let packet = frame.get(link..).ok_or(ReassemblyError::Malformed)?;
        let version = packet.first().map(|first| first >> 4);
        let fragment = match (ethertype, version) {
            (ETHERTYPE_IPV4 | 0, Some(4)) => ipv4(packet)?,
            (ETHERTYPE_IPV6 | 0, Some(6)) => ipv6(packet)?,
            (ETHERTYPE_IPV4 | ETHERTYPE_IPV6, _) => return Err(ReassemblyError::Malformed),
            _ => return Err(ReassemblyError::NoFragment),
        };
        let whole = !fragment.more || fragment.len.is_multiple_of(8);
        if fragment.len == 0 || !whole || fragment.packet(fragment.end()) > LONGEST {
            return Err(ReassemblyError::Malformed);
        }
        Ok(Fragment {
            key: Key {
                vlan,
                ..fragment.key
            },
            header: fragment.header + link,
            v6: fragment.v6.map(|(next, at)| (next + link, at + link)),
            link,
            ..fragment
        })
    }

    pub(super) fn end(&self) -> usize {
        self.offset + self.len
    }

    /// Whether it is all there is of its packet (RFC 6946).
    pub(super) fn is_atomic(&self) -> bool {
        self.offset == 0 && !self.more
    }

    /// Whether the packet would be one with so many bytes of payload behind these headers.
    pub(super) fn fits(&self, payload: usize) -> bool {
        self.packet(payload) <= LONGEST
    }

    /// What the length field of the packet would count.
    fn packet(&self, payload: usize) -> usize {
        let header = self.header - self.link;
        match self.v6 {
            Some(_) => header - IPV6_HEADER - FRAGMENT_HEADER + payload,
            None => header + payload,
        }
    }

    /// Makes the first fragment the head of a packet of so many bytes of payload.
    pub(super) fn mend(&self, skb: &mut Skb<'_>, payload: usize) -> Result<(), SkbError> {
        let length = (self.packet(payload) as u16).to_be_bytes();
        let link = self.link;
        let frame = skb.try_data_mut()?;
        match self.v6 {
            None => {
                let header = &mut frame[link..self.header];
                header[2..4].copy_from_slice(&length);
                header[6..8].fill(0);
                header[10..12].fill(0);
                let sum = checksum(header);
                header[10..12].copy_from_slice(&sum.to_be_bytes());
            }
            Some((next, at)) => {
                frame[next] = frame[at];
                frame[link + 4..link + 6].copy_from_slice(&length);
                frame.copy_within(..at, FRAGMENT_HEADER);
                skb.skip(FRAGMENT_HEADER)?;
            }
        }
        Ok(())
    }
}

fn ethernet(frame: &[u8]) -> Result<(usize, u16, u16), ReassemblyError> {
    let short = |at| be16(frame, at).ok_or(ReassemblyError::Malformed);
    let ethertype = short(12)?;
    if ethertype != ETHERTYPE_VLAN {
        return Ok((ETHERNET_HEADER, 0, ethertype));
    }
    let link = ETHERNET_HEADER + VLAN_TAG;
    Ok((link, short(14)? & 0x0fff, short(16)?))
}

fn ipv4(packet: &[u8]) -> Result<Fragment, ReassemblyError> {
    let malformed = ReassemblyError::Malformed;
    let header = usize::from(packet[0] & 0x0f) * 4;
    let field = be16(packet, 6).ok_or(malformed)?;
    let total = usize::from(be16(packet, 2).ok_or(malformed)?);
    if header < IPV4_HEADER || packet.len() < header || total < header || total > packet.len() {
        return Err(malformed);
    }
    if field & (MORE_FRAGMENTS | FRAGMENT_OFFSET) == 0 {
        return Err(ReassemblyError::NoFragment);
    }
    let address = |at| Some(Ipv4Addr::from(*packet.get(at..)?.first_chunk::<4>()?));
    let (source, destination) = (address(12), address(16));
    Ok(Fragment {
        key: Key {
            source: source.ok_or(malformed)?.to_ipv6_mapped(),
            destination: destination.ok_or(malformed)?.to_ipv6_mapped(),
            id: u32::from(be16(packet, 4).ok_or(malformed)?),
            protocol: packet[9],
            vlan: 0,
        },
        header,
        link: 0,
        offset: usize::from(field & FRAGMENT_OFFSET) * 8,
        len: total - header,
        more: field & MORE_FRAGMENTS != 0,
        v6: None,
    })
}

fn ipv6(packet: &[u8]) -> Result<Fragment, ReassemblyError> {
    let malformed = ReassemblyError::Malformed;
    let end = IPV6_HEADER + usize::from(be16(packet, 4).ok_or(malformed)?);
    let packet = packet.get(..end).ok_or(malformed)?;
    let address = |at| Some(Ipv6Addr::from(*packet.get(at..)?.first_chunk::<16>()?));
    let (source, destination) = (address(8).ok_or(malformed)?, address(24).ok_or(malformed)?);
    let (mut next, mut at) = (6, IPV6_HEADER);
    for _ in 0..EXTENSIONS {
        match packet[next] {
            FRAGMENT => {
                let header = packet.get(at..at + FRAGMENT_HEADER).ok_or(malformed)?;
                let field = u16::from_be_bytes([header[2], header[3]]);
                let id = [header[4], header[5], header[6], header[7]];
                return Ok(Fragment {
                    key: Key {
                        source,
                        destination,
                        id: u32::from_be_bytes(id),
                        protocol: 0,
                        vlan: 0,
                    },
                    header: at + FRAGMENT_HEADER,
                    link: 0,
                    offset: usize::from(field & !7),
                    len: end - at - FRAGMENT_HEADER,
                    more: field & 1 != 0,
                    v6: Some((next, at)),
                });
            }
            HOP_BY_HOP | ROUTING | DESTINATION => {
                let header = packet.get(at..at + 2).ok_or(malformed)?;
                (next, at) = (at, at + (usize::from(header[1]) + 1) * 8);
            }
            _ => return Err(ReassemblyError::NoFragment),
        }
    }
    Err(ReassemblyError::NoFragment)
}

/// RFC 1071, over an even number of bytes.
fn checksum(header: &[u8]) -> u16 {
    let words = header.as_chunks::<2>().0.iter();
    let sum: u32 = words.map(|word| u32::from(u16::from_be_bytes(*word))).sum();
    let sum = (sum >> 16) + (sum & 0xffff);
    !((sum >> 16) + (sum & 0xffff)) as u16
}

fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    let field = bytes.get(at..)?.first_chunk()?;
    Some(u16::from_be_bytes(*field))
}
