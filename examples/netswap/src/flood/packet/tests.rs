//! The frames, read back by `smoltcp`.

use std::collections::{HashMap, HashSet};

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol, Icmpv4Packet, Icmpv4Repr,
    IpProtocol, Ipv4Packet, Ipv4Repr, TcpPacket, TcpRepr, UdpPacket, UdpRepr,
};

use super::{Kind, Sender, Stranger, UNKNOWN_PORTS};
use crate::wire::{FRAME_MAX, GATEWAY_IP, MACHINE_IP, MACHINE_MAC};

const UDP_PORTS: [u16; 2] = [7, 9];
const TCP_PORTS: [u16; 2] = [80, 443];

fn sender(seed: u64) -> Sender {
    Sender::new(seed, &UDP_PORTS, &TCP_PORTS)
}

/// What a receiver makes of a frame that it believes to be whole.
fn parse(frame: &[u8]) -> Result<(Kind, usize), smoltcp::wire::Error> {
    let caps = ChecksumCapabilities::default();
    let frame = EthernetFrame::new_checked(frame)?;
    if frame.ethertype() == EthernetProtocol::Arp {
        assert_eq!(frame.dst_addr(), EthernetAddress::BROADCAST);
        let ArpRepr::EthernetIpv4 {
            target_protocol_addr,
            ..
        } = ArpRepr::parse(&ArpPacket::new_checked(frame.payload())?)?
        else {
            panic!("another kind of ARP")
        };
        assert_eq!(target_protocol_addr, MACHINE_IP);
        return Ok((Kind::Arp, frame.payload().len()));
    }
    assert_eq!(frame.dst_addr(), MACHINE_MAC);
    let packet = Ipv4Packet::new_checked(frame.payload())?;
    if packet.more_frags() || packet.frag_offset() > 0 {
        assert!(packet.verify_checksum());
        return Ok((Kind::Fragment, packet.payload().len()));
    }
    let ip = Ipv4Repr::parse(&packet, &caps)?;
    let (from, to) = (ip.src_addr.into(), ip.dst_addr.into());
    assert_eq!(ip.dst_addr, MACHINE_IP);
    assert_ne!(ip.src_addr, GATEWAY_IP);
    match ip.next_header {
        IpProtocol::Udp => {
            let udp = UdpPacket::new_checked(packet.payload())?;
            let repr = UdpRepr::parse(&udp, &from, &to, &caps)?;
            let known = UDP_PORTS.contains(&repr.dst_port);
            assert!(known || repr.dst_port >= UNKNOWN_PORTS);
            let kind = if known { Kind::Udp } else { Kind::UnknownPort };
            Ok((kind, udp.payload().len()))
        }
        IpProtocol::Tcp => {
            let tcp = TcpPacket::new_checked(packet.payload())?;
            let repr = TcpRepr::parse(&tcp, &from, &to, &caps)?;
            let known = TCP_PORTS.contains(&repr.dst_port);
            assert!(known || repr.dst_port >= UNKNOWN_PORTS);
            let kind = if known { Kind::Tcp } else { Kind::UnknownPort };
            Ok((kind, repr.payload.len()))
        }
        IpProtocol::Icmp => {
            let icmp = Icmpv4Packet::new_checked(packet.payload())?;
            let Icmpv4Repr::EchoRequest { data, .. } = Icmpv4Repr::parse(&icmp, &caps)? else {
                panic!("another kind of ICMP")
            };
            Ok((Kind::Echo, data.len()))
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_frame_is_what_it_is_counted_as_and_only_the_malformed_ones_are_broken() {
    let mut sender = sender(1);
    let mut lengths: HashMap<u8, HashSet<usize>> = HashMap::new();
    for _ in 0..20_000 {
        let (kind, frame) = sender.next_frame();
        assert!(frame.len() <= FRAME_MAX - 4, "{}", frame.len());
        let seen = parse(frame);
        if kind == Kind::Malformed {
            assert!(seen.is_err(), "{seen:?} {frame:02x?}");
        } else {
            let (is, len) = seen.expect("the frame is sound");
            assert_eq!(is, kind);
            lengths.entry(kind as u8).or_default().insert(len);
        }
    }
    // Every sound kind came, and all but ARP in many sizes.
    assert_eq!(lengths.len(), Kind::ALL.len() - 1);
    for (kind, lengths) in lengths {
        assert!(kind == Kind::Arp as u8 || lengths.len() > 50, "{kind}");
    }
}

#[test]
fn the_kinds_have_their_shares() {
    assert_eq!(Kind::ALL.iter().map(|kind| kind.share()).sum::<u32>(), 100);
    let mut sender = sender(2);
    let mut counts = [0_u32; Kind::ALL.len()];
    for _ in 0..100_000 {
        counts[sender.next_frame().0 as usize] += 1;
    }
    for kind in Kind::ALL {
        let wanted = kind.share() * 1000;
        let got = counts[kind as usize];
        assert!(got.abs_diff(wanted) < wanted / 10 + 100, "{kind:?} {got}");
    }
}

#[test]
fn a_seed_gives_the_same_frames_again_and_another_seed_gives_others() {
    let frames = |seed| {
        let mut sender = sender(seed);
        let frames = (0..200).map(|_| sender.next_frame().1.to_vec());
        frames.collect::<Vec<_>>()
    };
    assert!(frames(3) == frames(3));
    assert!(frames(3) != frames(4));
}

#[test]
fn segments_of_a_flow_follow_each_other() {
    let mut sender = sender(5);
    let mut next: HashMap<_, u32> = HashMap::new();
    let mut followed = 0;
    for _ in 0..10_000 {
        let (kind, frame) = sender.next_frame();
        if kind != Kind::Tcp {
            continue;
        }
        let ip = Ipv4Packet::new_unchecked(&frame[14..]);
        let tcp = TcpPacket::new_unchecked(ip.payload());
        let sequence = tcp.seq_number().0 as u32;
        let flow = (ip.src_addr(), tcp.src_port(), tcp.dst_port());
        let after = sequence.wrapping_add(tcp.payload().len() as u32);
        if let Some(expected) = next.insert(flow, after) {
            assert_eq!(sequence, expected);
            followed += 1;
        }
    }
    assert!(followed > 1000);
}

#[test]
fn without_ports_there_is_still_a_flood() {
    let mut sender = Sender::new(6, &[], &[]);
    for _ in 0..1000 {
        let (kind, _) = sender.next_frame();
        assert!(kind != Kind::Udp && kind != Kind::Tcp);
    }
}

#[test]
fn strangers_are_neither_the_machine_nor_the_gateway() {
    let mut rng = super::Rng::new(7);
    for _ in 0..10_000 {
        let ip = Stranger::any(&mut rng).ip();
        assert!(ip.octets()[3] >= 100 && ip.octets()[3] < 200);
        assert!(ip != MACHINE_IP && ip != GATEWAY_IP);
    }
}
