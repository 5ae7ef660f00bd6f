//! The little of packets that the world must know: read and written here a second time, so that the
//! crates' own parsers are not judged by themselves.

use core::net::{Ipv4Addr, SocketAddrV4};
use std::borrow::Cow;

use netreserve::Medium;

/// Bytes of an Ethernet header.
pub(crate) const ETHERNET: usize = 14;

/// Who talks to whom.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tcp {
    pub(crate) source: SocketAddrV4,
    pub(crate) destination: SocketAddrV4,
    pub(crate) syn: bool,
    pub(crate) rst: bool,
    pub(crate) window: u16,
    /// By how many bits the sender shifts its windows, if this says so.
    pub(crate) scale: Option<u8>,
}

/// A packet as a card has it, with an Ethernet header in front in any case.
pub(crate) fn framed(medium: Medium, packet: &[u8]) -> Cow<'_, [u8]> {
    match medium {
        Medium::Ip => {
            let mut frame = vec![0; ETHERNET];
            frame[12] = 0x08;
            frame.extend_from_slice(packet);
            Cow::Owned(frame)
        }
        _ => Cow::Borrowed(packet),
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]))
}

fn address(bytes: &[u8], at: usize) -> Option<Ipv4Addr> {
    let octets: [u8; 4] = bytes.get(at..at + 4)?.try_into().ok()?;
    Some(octets.into())
}

/// The TCP header of a frame without IP options.
pub(crate) fn tcp(frame: &[u8]) -> Option<Tcp> {
    let ip = frame.get(ETHERNET..)?;
    if word(frame, 12)? != 0x0800 || *ip.first()? != 0x45 || *ip.get(9)? != 6 {
        return None;
    }
    let flags = *ip.get(33)?;
    let options = ip.get(40..20 + usize::from(ip.get(32)? >> 4) * 4);
    Some(Tcp {
        source: SocketAddrV4::new(address(ip, 12)?, word(ip, 20)?),
        destination: SocketAddrV4::new(address(ip, 16)?, word(ip, 22)?),
        // With ACK it is the answer to somebody else's.
        syn: flags & 0x12 == 0x02,
        rst: flags & 0x04 != 0,
        window: word(ip, 34)?,
        scale: options.and_then(window_scale),
    })
}

fn window_scale(mut options: &[u8]) -> Option<u8> {
    loop {
        options = match *options {
            [3, 3, scale, ..] => return Some(scale),
            [1, ref rest @ ..] => rest,
            [kind, len, ..] if kind > 1 && len > 1 => options.get(usize::from(len)..)?,
            _ => return None,
        };
    }
}

/// Whom an ARP packet asks for or answers.
pub(crate) fn arp_target(frame: &[u8]) -> Option<Ipv4Addr> {
    (word(frame, 12)? == 0x0806).then_some(())?;
    address(frame, ETHERNET + 24)
}

/// Who sent a packet, by IP or ARP.
pub(crate) fn sender(frame: &[u8]) -> Option<Ipv4Addr> {
    match word(frame, 12)? {
        0x0806 => address(frame, ETHERNET + 14),
        0x0800 => address(frame, ETHERNET + 12),
        _ => None,
    }
}

/// Whether it is ICMP: an error can come from any router.
pub(crate) fn is_icmp(frame: &[u8]) -> bool {
    word(frame, 12) == Some(0x0800) && frame.get(ETHERNET + 9) == Some(&1)
}

/// Whether damage to a frame is sure to be noticed: it is under a checksum behind the Ethernet
/// header.
pub(crate) fn is_protected(frame: &[u8]) -> bool {
    word(frame, 12) == Some(0x0800)
}

/// A frame in a few words, for people.
pub(crate) fn describe(frame: &[u8]) -> String {
    let len = frame.len();
    match word(frame, 12) {
        Some(0x0806) => match (word(frame, 20), address(frame, 28), address(frame, 38)) {
            (Some(op), Some(from), Some(to)) => {
                let verb = if op == 1 { "asks for" } else { "answers" };
                format!("ARP: {from} {verb} {to}")
            }
            _ => format!("ARP, {len} bytes"),
        },
        Some(0x0800) => describe_ip(&frame[ETHERNET..]),
        Some(other) => format!("protocol {other:#06x}, {len} bytes"),
        None => format!("{len} bytes of noise"),
    }
}

fn describe_ip(ip: &[u8]) -> String {
    let (Some(from), Some(to), Some(&protocol)) = (address(ip, 12), address(ip, 16), ip.get(9))
    else {
        return format!("IP, cut short after {} bytes", ip.len());
    };
    let len = word(ip, 2).unwrap_or(0);
    if word(ip, 6).is_some_and(|fragment| fragment & 0x3fff != 0) {
        return format!("fragment {from} > {to}, protocol {protocol}");
    }
    let ports = match (word(ip, 20), word(ip, 22)) {
        (Some(a), Some(b)) => format!("{from}:{a} > {to}:{b}"),
        _ => format!("{from} > {to}"),
    };
    match protocol {
        1 => format!("ICMP {from} > {to} type {}", ip.get(20).unwrap_or(&0)),
        6 => {
            let flags = ip.get(33).copied().unwrap_or(0);
            let names = [(2, "S"), (16, "."), (8, "P"), (1, "F"), (4, "R")];
            let flags: String = names
                .iter()
                .filter(|(bit, _)| flags & bit != 0)
                .map(|(_, name)| *name)
                .collect();
            let offset = ip.get(32).map_or(20, |byte| u16::from(byte >> 4) * 4);
            let number = |at: usize| {
                let bytes = ip.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
                u32::from_be_bytes(bytes.unwrap_or_default())
            };
            format!(
                "TCP {ports} [{flags}] seq {} ack {} len {}",
                number(24),
                number(28),
                len.saturating_sub(20 + offset)
            )
        }
        17 => format!("UDP {ports} len {}", len.saturating_sub(28)),
        other => format!("IP {from} > {to}, protocol {other}"),
    }
}

/// The internet checksum (RFC 1071) of `bytes` on top of `sum`.
pub(crate) fn checksum(bytes: &[u8], mut sum: u32) -> u16 {
    for pair in bytes.chunks(2) {
        let low = pair.get(1).copied().unwrap_or(0);
        sum += u32::from(u16::from_be_bytes([pair[0], low]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
