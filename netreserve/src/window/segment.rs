//! A TCP segment in a frame: where it is, and the few fields that matter here (RFC 9293, 7323).

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use core::ops::Range;

use crate::class::{self, ETHERTYPE_IPV4, ETHERTYPE_IPV6};
use crate::{Flow, Medium, VlanId};

const TCP: u8 = 6;
const TCP_HEADER: usize = 20;
const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;
/// More fragments, or a fragment's offset.
const FRAGMENT: u16 = 0x3fff;

const FLAGS: usize = 13;
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;
const WINDOW: usize = 14;
const CHECKSUM: usize = 16;

const OPTION_END: u8 = 0;
const OPTION_NOP: u8 = 1;
const OPTION_WINDOW_SCALE: u8 = 3;
/// More is not allowed (RFC 7323 section 2.3).
const MAX_SCALE: u8 = 14;

/// Where a whole TCP segment lies in a frame, and who speaks to whom.
#[derive(Debug, Clone)]
pub(super) struct Segment {
    source: SocketAddr,
    destination: SocketAddr,
    vlan: Option<VlanId>,
    /// At least a header.
    range: Range<usize>,
}

impl Segment {
    /// `None` for what is no TCP, for a fragment, and for what is cut short.
    pub(super) fn find(frame: &[u8], medium: Medium) -> Option<Segment> {
        let (vlan, start, ethertype) = match medium {
            Medium::Ethernet => {
                let link = class::link(frame)?;
                (link.vlan, link.header, Some(link.ethertype))
            }
            Medium::Ip => (None, 0, None),
        };
        let packet = frame.get(start..)?;
        let (source, destination, range) = match (packet.first()? >> 4, ethertype) {
            (4, None | Some(ETHERTYPE_IPV4)) => ipv4(packet)?,
            (6, None | Some(ETHERTYPE_IPV6)) => ipv6(packet)?,
            _ => return None,
        };
        let segment = packet.get(range.clone())?;
        segment.get(..TCP_HEADER)?;
        Some(Segment {
            source: SocketAddr::new(source, be16(segment, 0)?),
            destination: SocketAddr::new(destination, be16(segment, 2)?),
            vlan,
            range: start + range.start..start + range.end,
        })
    }

    /// The flow that it is of, if we send it.
    pub(super) fn sent(&self) -> Flow {
        self.flow(self.source, self.destination)
    }

    /// The flow that it is of, if we receive it.
    pub(super) fn received(&self) -> Flow {
        self.flow(self.destination, self.source)
    }

    fn flow(&self, local: SocketAddr, remote: SocketAddr) -> Flow {
        let flow = Flow::tcp(local, remote);
        match self.vlan {
            Some(vlan) => flow.in_vlan(vlan),
            None => flow,
        }
    }

    /// Bytes of the headers in front of the payload of a segment without options.
    pub(super) fn headers(&self) -> usize {
        TCP_HEADER
            + match self.source {
                SocketAddr::V4(_) => IPV4_HEADER,
                SocketAddr::V6(_) => IPV6_HEADER,
            }
    }

    pub(super) fn tcp<'a>(&self, frame: &'a [u8]) -> Tcp<'a> {
        Tcp(&frame[self.range.clone()])
    }

    /// Whether the checksum is right.
    pub(super) fn is_intact(&self, frame: &[u8]) -> bool {
        let segment = &frame[self.range.clone()];
        let length = u32::try_from(segment.len()).unwrap_or(u32::MAX);
        let mut sum = u32::from(TCP) + (length >> 16) + (length & 0xffff);
        for end in [self.source, self.destination] {
            sum = match end.ip() {
                IpAddr::V4(addr) => add(sum, &addr.octets()),
                IpAddr::V6(addr) => add(sum, &addr.octets()),
            };
        }
        fold(add(sum, segment)) == 0xffff
    }

    /// Writes another window, and what it changes in the checksum if that is `ours` to make (RFC 1624
    /// equation 3): a damaged one stays damaged.
    pub(super) fn set_window(&self, frame: &mut [u8], window: u16, ours: bool) {
        let segment = &mut frame[self.range.clone()];
        let (Some(old), Some(checksum)) = (be16(segment, WINDOW), be16(segment, CHECKSUM)) else {
            return;
        };
        segment[WINDOW..WINDOW + 2].copy_from_slice(&window.to_be_bytes());
        if ours {
            let sum = u32::from(!checksum) + u32::from(!old) + u32::from(window);
            segment[CHECKSUM..CHECKSUM + 2].copy_from_slice(&(!fold(sum)).to_be_bytes());
        }
    }
}

/// A segment of at least a header.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tcp<'a>(&'a [u8]);

impl Tcp<'_> {
    pub(super) fn syn(self) -> bool {
        self.0[FLAGS] & SYN != 0
    }

    /// What a SYN acknowledges.
    pub(super) fn acknowledges_syn(self) -> Option<u32> {
        (self.syn() && self.0[FLAGS] & ACK != 0).then(|| self.be32(8))
    }

    pub(super) fn sequence(self) -> u32 {
        self.be32(4)
    }

    pub(super) fn window(self) -> u16 {
        be16(self.0, WINDOW).unwrap_or(0)
    }

    pub(super) fn window_scale(self) -> Option<u8> {
        let header = usize::from(self.0[12] >> 4) * 4;
        let mut options = self.0.get(TCP_HEADER..header)?;
        loop {
            let (&kind, rest) = options.split_first()?;
            options = match kind {
                OPTION_END => return None,
                OPTION_NOP => rest,
                _ => {
                    let len = usize::from(*rest.first()?);
                    if kind == OPTION_WINDOW_SCALE && len == 3 {
                        return rest.get(1).map(|scale| (*scale).min(MAX_SCALE));
                    }
                    options.get(len.max(2)..)?
                }
            };
        }
    }

    fn be32(self, at: usize) -> u32 {
        let field = self.0[at..].first_chunk();
        field.map_or(0, |field| u32::from_be_bytes(*field))
    }
}

fn ipv4(packet: &[u8]) -> Option<(IpAddr, IpAddr, Range<usize>)> {
    let header = usize::from(packet[0] & 0x0f) * 4;
    let fragment = be16(packet, 6)? & FRAGMENT != 0;
    if header < IPV4_HEADER || fragment || *packet.get(9)? != TCP {
        return None;
    }
    let address = |at: usize| Some(Ipv4Addr::from(*packet.get(at..)?.first_chunk::<4>()?));
    let range = header..usize::from(be16(packet, 2)?);
    Some((address(12)?.into(), address(16)?.into(), range))
}

/// Without extension headers: no TCP that a stack sends has any, unless it is a fragment.
fn ipv6(packet: &[u8]) -> Option<(IpAddr, IpAddr, Range<usize>)> {
    if *packet.get(6)? != TCP {
        return None;
    }
    let address = |at: usize| Some(Ipv6Addr::from(*packet.get(at..)?.first_chunk::<16>()?));
    let range = IPV6_HEADER..IPV6_HEADER + usize::from(be16(packet, 4)?);
    Some((address(8)?.into(), address(24)?.into(), range))
}

fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    let field = bytes.get(at..)?.first_chunk()?;
    Some(u16::from_be_bytes(*field))
}

/// Adds 16-bit words, an odd byte as the upper half of one (RFC 1071). No frame has so many that this
/// overflows.
fn add(sum: u32, bytes: &[u8]) -> u32 {
    let (words, odd) = bytes.as_chunks::<2>();
    let sum = words
        .iter()
        .fold(sum, |sum, word| sum + u32::from(u16::from_be_bytes(*word)));
    sum + odd.first().map_or(0, |byte| u32::from(*byte) << 8)
}

fn fold(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}
