mod dhcp;
mod fragments;
mod ipv6;
mod reconnect;

use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4};

use proptest::prelude::*;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    EthernetAddress, EthernetFrame, EthernetProtocol, EthernetRepr, IpAddress, IpProtocol, IpRepr,
    Ipv4Packet, Ipv6Packet, TcpControl, TcpPacket, TcpRepr, TcpSeqNumber, UdpPacket, UdpRepr,
};

use super::*;
use crate::Slot;
use crate::testbed::{
    LOCAL, MAC, SERVER, SERVER_MAC, STRANGER, SWAP, arp, ethernet, fragment, icmp, ipv4, packet,
};

fn with_swap_flow(check: impl FnOnce(&FlowTable<'_>)) {
    let (mut flows, mut peers) = ([const { Slot::EMPTY }; 4], [const { Slot::EMPTY }; 4]);
    let table = FlowTable::new(&mut flows, &mut peers);
    table.add(SWAP).unwrap();
    check(&table);
}

#[test]
fn a_flow_is_vmio_and_whatever_differs_in_one_of_five_is_not() {
    with_swap_flow(|flows| {
        let class = |protocol, from, to| classify(&packet(protocol, from, to, 9), flows);
        assert_eq!(class(Protocol::Tcp, SERVER, LOCAL), Class::Vmio);
        let other = |addr: SocketAddrV4| SocketAddrV4::new(*addr.ip(), addr.port() + 1);
        let socket = |protocol, local_port| Class::Socket {
            protocol,
            local_port,
        };
        assert_eq!(
            class(Protocol::Udp, SERVER, LOCAL),
            socket(Protocol::Udp, 700)
        );
        for (from, to, port) in [
            (other(SERVER), LOCAL, 700),
            (SERVER, other(LOCAL), 701),
            (STRANGER, LOCAL, 700),
            (SocketAddrV4::new(*STRANGER.ip(), SERVER.port()), LOCAL, 700),
            (SERVER, SocketAddrV4::new(*STRANGER.ip(), 700), 700),
            (LOCAL, SERVER, 2049),
        ] {
            assert_eq!(class(Protocol::Tcp, from, to), socket(Protocol::Tcp, port));
        }
    });
}

#[test]
fn an_outgoing_frame_has_its_ends_exchanged() {
    with_swap_flow(|flows| {
        let out = |frame: &[u8]| classify_outgoing(frame, flows);
        assert_eq!(out(&packet(Protocol::Tcp, LOCAL, SERVER, 9)), Class::Vmio);
        assert_eq!(
            out(&packet(Protocol::Tcp, SERVER, LOCAL, 9)),
            Class::Socket {
                protocol: Protocol::Tcp,
                local_port: 2049
            }
        );
        let request = arp(*LOCAL.ip(), *SERVER.ip());
        assert_eq!(out(&request), Class::Control(Control::Arp));
        assert_eq!(out(&arp(*LOCAL.ip(), *STRANGER.ip())), Class::Arp);
    });
}

#[test]
fn n8_arp_of_peers_is_control_plane_and_nobody_elses() {
    with_swap_flow(|flows| {
        let class = |sender: &SocketAddrV4| classify(&arp(*sender.ip(), *LOCAL.ip()), flows);
        assert_eq!(class(&SERVER), Class::Control(Control::Arp));
        assert_eq!(class(&STRANGER), Class::Arp);
        flows.add_peer(*STRANGER.ip()).unwrap();
        assert_eq!(class(&STRANGER), Class::Control(Control::Arp));
    });
}

#[test]
fn n8_whether_our_address_is_taken_is_answered_and_announced() {
    with_swap_flow(|flows| {
        let probe = arp(Ipv4Addr::UNSPECIFIED, *LOCAL.ip());
        assert_eq!(classify(&probe, flows), Class::Control(Control::Arp));
        let other = arp(Ipv4Addr::UNSPECIFIED, *STRANGER.ip());
        assert_eq!(classify(&other, flows), Class::Arp);
        let sent = |sender, target| classify_outgoing(&arp(sender, target), flows);
        assert_eq!(sent(*LOCAL.ip(), *LOCAL.ip()), Class::Control(Control::Arp));
        assert_eq!(
            sent(Ipv4Addr::UNSPECIFIED, *LOCAL.ip()),
            Class::Control(Control::Arp)
        );
        assert_eq!(sent(*STRANGER.ip(), *LOCAL.ip()), Class::Arp);
        assert_eq!(sent(*STRANGER.ip(), *STRANGER.ip()), Class::Arp);
    });
}

#[test]
fn n8_icmp_errors_about_a_flow_are_control_plane_whoever_sends_them() {
    with_swap_flow(|flows| {
        let class = |frame: &[u8]| classify(frame, flows);
        for kind in [3, 11] {
            let error = icmp(kind, Protocol::Tcp, LOCAL, SERVER);
            assert_eq!(class(&error), Class::Control(Control::IcmpError));
        }
        let mut needed = icmp(3, Protocol::Tcp, LOCAL, SERVER);
        needed[14 + 20 + 1] = 4;
        assert_eq!(class(&needed), Class::Control(Control::PacketTooBig));
        assert_eq!(class(&icmp(3, Protocol::Tcp, SERVER, LOCAL)), Class::Icmp);
        assert_eq!(class(&icmp(3, Protocol::Udp, LOCAL, SERVER)), Class::Icmp);
        assert_eq!(class(&icmp(8, Protocol::Tcp, LOCAL, SERVER)), Class::Icmp);
    });
}

#[test]
fn fragments_are_a_class_of_their_own_and_only_the_first_can_be_told_to_be_vmio() {
    with_swap_flow(|flows| {
        let vmio = packet(Protocol::Tcp, SERVER, LOCAL, 100);
        let other = packet(Protocol::Udp, STRANGER, LOCAL, 100);
        for (frame, expected) in [
            (fragment(vmio.clone(), 0), true),
            (fragment(vmio, 10), false),
            (fragment(other, 0), false),
        ] {
            assert_eq!(classify(&frame, flows), Class::Fragment { vmio: expected });
        }
    });
}

fn tagged(mut frame: Vec<u8>, tag: u16) -> Vec<u8> {
    let [high, low] = tag.to_be_bytes();
    frame.splice(12..12, [0x81, 0, high, low]);
    frame
}

#[test]
fn a_priority_tag_is_looked_through() {
    with_swap_flow(|flows| {
        let frame = tagged(packet(Protocol::Tcp, SERVER, LOCAL, 9), 0xe000);
        assert_eq!(classify(&frame, flows), Class::Vmio);
        for cut in 12..18 {
            assert_eq!(
                classify(&frame[..cut], flows),
                Class::Malformed(Malformed::Ethernet)
            );
        }
    });
}

#[test]
fn n2_a_vlan_is_a_network_of_its_own() {
    let (mut flows, mut addrs) = ([const { Slot::EMPTY }; 4], [const { Slot::EMPTY }; 4]);
    let table = FlowTable::new(&mut flows, &mut addrs);
    let vlan = VlanId::new(7).unwrap();
    table.add(SWAP.in_vlan(vlan)).unwrap();
    let frames = [
        packet(Protocol::Tcp, SERVER, LOCAL, 9),
        arp(*SERVER.ip(), *LOCAL.ip()),
        icmp(3, Protocol::Tcp, LOCAL, SERVER),
    ];
    for frame in frames {
        let serves = |frame: Vec<u8>| classify(&frame, &table).serves_vm();
        assert!(serves(tagged(frame.clone(), 0x6007)));
        for foreign in [0, 6, 8, 0x0fff] {
            assert!(!serves(tagged(frame.clone(), foreign)), "{foreign}");
        }
        assert!(!serves(frame.clone()));
        let twice = tagged(tagged(frame.clone(), 7), 7);
        assert_eq!(classify(&twice, &table), Class::Other);
        let mut service = tagged(tagged(frame.clone(), 7), 7);
        service[12..14].copy_from_slice(&[0x88, 0xa8]);
        assert_eq!(classify(&service, &table), Class::Other);
    }
    // The same ends outside are another flow.
    table.add(SWAP).unwrap();
    table.remove(SWAP.in_vlan(vlan)).unwrap();
    let frame = packet(Protocol::Tcp, SERVER, LOCAL, 9);
    assert_eq!(classify(&frame, &table), Class::Vmio);
    assert!(!classify(&tagged(frame, 7), &table).serves_vm());
}

#[test]
fn options_and_padding_do_not_hide_the_ports() {
    with_swap_flow(|flows| {
        let mut frame = packet(Protocol::Tcp, SERVER, LOCAL, 0);
        frame[14] = 0x46;
        frame[17] += 4;
        frame.splice(34..34, [1, 1, 1, 0]);
        frame.extend([0xff; 20]);
        assert_eq!(classify(&frame, flows), Class::Vmio);
    });
}

#[test]
fn a_header_that_lies_about_lengths_is_malformed() {
    with_swap_flow(|flows| {
        let good = packet(Protocol::Tcp, SERVER, LOCAL, 10);
        let udp = packet(Protocol::Udp, SERVER, LOCAL, 10);
        let broken = |frame: &[u8], at: usize, value: u8| {
            let mut frame = Vec::from(frame);
            frame[at] = value;
            classify(&frame, flows)
        };
        let total = good.len() as u8 - 14;
        for (frame, at, value, reason) in [
            (&good, 14, 0x65, Malformed::Ipv4),      // version
            (&good, 14, 0x44, Malformed::Ipv4),      // header too short
            (&good, 17, total + 1, Malformed::Ipv4), // longer than the frame
            (&good, 17, 19, Malformed::Ipv4),        // shorter than the header
            (&good, 17, 39, Malformed::Transport),   // half a TCP header
            (&good, 46, 0x40, Malformed::Transport), // data offset too small
            (&good, 46, 0xf0, Malformed::Transport), // data offset beyond the end
            (&udp, 39, 7, Malformed::Transport),     // UDP length too small
            (&udp, 39, 19, Malformed::Transport),    // UDP length beyond the end
        ] {
            assert_eq!(
                broken(frame, at, value),
                Class::Malformed(reason),
                "{at} {value}"
            );
        }
        assert_eq!(
            classify(
                &ethernet(0x0800, &ipv4(1, *SERVER.ip(), *LOCAL.ip(), &[3; 7])),
                flows
            ),
            Class::Malformed(Malformed::Icmp)
        );
        let arp = arp(*SERVER.ip(), *LOCAL.ip());
        assert_eq!(
            classify(&arp[..41], flows),
            Class::Malformed(Malformed::Arp)
        );
    });
}

#[derive(Debug, Clone)]
struct Packet {
    protocol: Protocol,
    from: SocketAddr,
    to: SocketAddr,
    payload: Vec<u8>,
}

/// Both ends of the same family. Smoltcp refuses what cannot be on the wire.
fn ends() -> impl Strategy<Value = (SocketAddr, SocketAddr)> {
    let v4 = || any::<u32>().prop_map(|bits| IpAddr::V4(Ipv4Addr::from_bits(bits)));
    let v6 = || any::<u128>().prop_map(|bits| IpAddr::V6(Ipv6Addr::from_bits(bits)));
    let ips = prop_oneof![(v4(), v4()), (v6(), v6())];
    (ips, 1u16.., 1u16..).prop_map(|((from, to), from_port, to_port)| {
        (
            SocketAddr::new(from, from_port),
            SocketAddr::new(to, to_port),
        )
    })
}

prop_compose! {
    fn any_packet()(
        udp in any::<bool>(),
        (from, to) in ends(),
        payload in proptest::collection::vec(any::<u8>(), 0..64),
    ) -> Packet {
        let protocol = if udp { Protocol::Udp } else { Protocol::Tcp };
        Packet { protocol, from, to, payload }
    }
}

impl Packet {
    /// As smoltcp writes it.
    fn emit(&self) -> Vec<u8> {
        let checksums = ChecksumCapabilities::default();
        let (source, target) = (
            IpAddress::from(self.from.ip()),
            IpAddress::from(self.to.ip()),
        );
        let udp = UdpRepr {
            src_port: self.from.port(),
            dst_port: self.to.port(),
        };
        let tcp = TcpRepr {
            src_port: self.from.port(),
            dst_port: self.to.port(),
            control: TcpControl::Psh,
            seq_number: TcpSeqNumber(1),
            ack_number: Some(TcpSeqNumber(2)),
            window_len: 512,
            window_scale: Some(3),
            max_seg_size: Some(1460),
            sack_permitted: true,
            sack_ranges: [None; 3],
            timestamp: None,
            payload: &self.payload,
        };
        let (next_header, payload_len) = match self.protocol {
            Protocol::Udp => (IpProtocol::Udp, udp.header_len() + self.payload.len()),
            Protocol::Tcp => (IpProtocol::Tcp, tcp.buffer_len()),
        };
        let ip = IpRepr::new(source, target, next_header, payload_len, 64);
        let link = EthernetRepr {
            src_addr: EthernetAddress(SERVER_MAC),
            dst_addr: EthernetAddress(MAC),
            ethertype: match self.from {
                SocketAddr::V4(_) => EthernetProtocol::Ipv4,
                SocketAddr::V6(_) => EthernetProtocol::Ipv6,
            },
        };
        let mut frame = alloc::vec![0; link.buffer_len() + ip.buffer_len()];
        let mut ethernet = EthernetFrame::new_unchecked(&mut frame);
        link.emit(&mut ethernet);
        ip.emit(ethernet.payload_mut(), &checksums);
        let segment = &mut ethernet.payload_mut()[ip.header_len()..];
        match self.protocol {
            Protocol::Udp => udp.emit(
                &mut UdpPacket::new_unchecked(segment),
                &source,
                &target,
                self.payload.len(),
                |out| out.copy_from_slice(&self.payload),
                &checksums,
            ),
            Protocol::Tcp => tcp.emit(
                &mut TcpPacket::new_unchecked(segment),
                &source,
                &target,
                &checksums,
            ),
        }
        frame
    }
}

/// Protocol, source and destination.
type Reading = (Protocol, SocketAddr, SocketAddr);

/// As smoltcp's checked views read them; without extension headers, and without addresses of IPv4 in
/// a packet of IPv6, which smoltcp does not mind.
fn smoltcp_reads(frame: &[u8]) -> Option<Reading> {
    let ethernet = EthernetFrame::new_checked(frame).ok()?;
    let (from, to, next, payload) = match ethernet.ethertype() {
        EthernetProtocol::Ipv4 => {
            let packet = Ipv4Packet::new_checked(ethernet.payload()).ok()?;
            if packet.version() != 4 || packet.more_frags() || packet.frag_offset() != 0 {
                return None;
            }
            let (from, to) = (packet.src_addr().into(), packet.dst_addr().into());
            (from, to, packet.next_header(), packet.payload())
        }
        EthernetProtocol::Ipv6 => {
            let packet = Ipv6Packet::new_checked(ethernet.payload()).ok()?;
            let mapped = |addr: Ipv6Addr| addr.to_ipv4_mapped().is_some();
            if packet.version() != 6 || mapped(packet.src_addr()) || mapped(packet.dst_addr()) {
                return None;
            }
            let (from, to) = (packet.src_addr().into(), packet.dst_addr().into());
            (from, to, packet.next_header(), packet.payload())
        }
        _ => return None,
    };
    let (protocol, from_port, to_port) = match next {
        IpProtocol::Udp => {
            let udp = UdpPacket::new_checked(payload).ok()?;
            (Protocol::Udp, udp.src_port(), udp.dst_port())
        }
        IpProtocol::Tcp => {
            let tcp = TcpPacket::new_checked(payload).ok()?;
            (Protocol::Tcp, tcp.src_port(), tcp.dst_port())
        }
        _ => return None,
    };
    Some((
        protocol,
        SocketAddr::new(from, from_port),
        SocketAddr::new(to, to_port),
    ))
}

fn reading(conversation: Conversation) -> Reading {
    let flow = Direction::Received.flow(conversation, None);
    (flow.protocol(), flow.remote(), flow.local())
}

fn we_read(frame: &[u8]) -> Option<Reading> {
    match parse::frame(frame, Medium::Ethernet) {
        Ok((None, Parsed::Transport(conversation))) => Some(reading(conversation)),
        _ => None,
    }
}

/// A next header that hides what follows from [`smoltcp_reads`].
fn has_extensions(frame: &[u8]) -> bool {
    frame.len() > 20 && frame[12..14] == [0x86, 0xdd] && matches!(frame[20], 0 | 43 | 44 | 60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_bytes_are_classified_without_panic(
        ethertype in proptest::sample::select(&[0x0800u16, 0x0806, 0x8100, 0x86dd][..]),
        payload in proptest::collection::vec(any::<u8>(), 0..80),
    ) {
        with_swap_flow(|flows| {
            let frame = ethernet(ethertype, &payload);
            let (received, sent) = (classify(&frame, flows), classify_outgoing(&frame, flows));
            assert!(!received.serves_vm() && !sent.serves_vm());
            assert!(matches!(classify(&payload, flows), Class::Malformed(_) | Class::Other | _));
        });
    }

    #[test]
    fn demux_agrees_with_smoltcp_on_what_smoltcp_writes(packet in any_packet()) {
        let expected = Some((packet.protocol, packet.from, packet.to));
        let frame = packet.emit();
        prop_assert_eq!(we_read(&frame), expected);
        prop_assert_eq!(smoltcp_reads(&frame), expected);
        let quick = parse::common(&frame, Medium::Ethernet).map(reading);
        prop_assert_eq!(quick, expected.filter(|_| packet.from.is_ipv4() && frame.len() >= 54));
    }

    /// The quick way out says the same as the long one, or nothing.
    #[test]
    fn demux_agrees_with_smoltcp_on_damaged_frames(
        packet in any_packet(),
        damage in proptest::collection::vec((12usize..80, any::<u8>()), 0..3),
        cut in 0usize..120,
    ) {
        let mut frame = packet.emit();
        for (at, value) in damage {
            if let Some(byte) = frame.get_mut(at) {
                *byte = value;
            }
        }
        frame.truncate(frame.len().saturating_sub(cut.saturating_sub(60)));
        let ours = we_read(&frame);
        if let Some(quick) = parse::common(&frame, Medium::Ethernet) {
            prop_assert_eq!(Some(reading(quick)), ours);
        }
        if !has_extensions(&frame) {
            prop_assert_eq!(ours, smoltcp_reads(&frame));
        }
    }
}
