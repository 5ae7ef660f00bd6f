use alloc::vec::Vec;
use core::net::{Ipv4Addr, SocketAddrV4};

use proptest::prelude::*;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    EthernetAddress, EthernetFrame, EthernetProtocol, EthernetRepr, IpAddress, IpProtocol,
    Ipv4Packet, Ipv4Repr, TcpControl, TcpPacket, TcpRepr, TcpSeqNumber, UdpPacket, UdpRepr,
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
fn n8_icmp_errors_about_a_flow_are_control_plane_whoever_sends_them() {
    with_swap_flow(|flows| {
        let class = |frame: &[u8]| classify(frame, flows);
        for kind in [3, 11] {
            let error = icmp(kind, Protocol::Tcp, LOCAL, SERVER);
            assert_eq!(class(&error), Class::Control(Control::IcmpError));
        }
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

#[test]
fn a_priority_tag_is_looked_through_and_another_vlan_is_another_network() {
    with_swap_flow(|flows| {
        let tagged = |vlan: u8| {
            let mut frame = packet(Protocol::Tcp, SERVER, LOCAL, 9);
            frame.splice(12..12, [0x81, 0, 0xe0, vlan]);
            frame
        };
        assert_eq!(classify(&tagged(0), flows), Class::Vmio);
        assert_eq!(classify(&tagged(7), flows), Class::Other);
        for cut in 12..18 {
            assert_eq!(
                classify(&tagged(0)[..cut], flows),
                Class::Malformed(Malformed::Ethernet)
            );
        }
    });
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
    from: SocketAddrV4,
    to: SocketAddrV4,
    payload: Vec<u8>,
}

fn endpoint() -> impl Strategy<Value = SocketAddrV4> {
    (any::<u32>(), 1u16..).prop_map(|(ip, port)| SocketAddrV4::new(Ipv4Addr::from_bits(ip), port))
}

prop_compose! {
    fn any_packet()(
        udp in any::<bool>(),
        from in endpoint(),
        to in endpoint(),
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
            IpAddress::Ipv4(*self.from.ip()),
            IpAddress::Ipv4(*self.to.ip()),
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
        let ip = Ipv4Repr {
            src_addr: *self.from.ip(),
            dst_addr: *self.to.ip(),
            next_header,
            payload_len,
            hop_limit: 64,
        };
        let link = EthernetRepr {
            src_addr: EthernetAddress(SERVER_MAC),
            dst_addr: EthernetAddress(MAC),
            ethertype: EthernetProtocol::Ipv4,
        };
        let mut frame = alloc::vec![0; link.buffer_len() + ip.buffer_len() + payload_len];
        let mut ethernet = EthernetFrame::new_unchecked(&mut frame);
        link.emit(&mut ethernet);
        let mut packet = Ipv4Packet::new_unchecked(ethernet.payload_mut());
        ip.emit(&mut packet, &checksums);
        match self.protocol {
            Protocol::Udp => udp.emit(
                &mut UdpPacket::new_unchecked(packet.payload_mut()),
                &source,
                &target,
                self.payload.len(),
                |out| out.copy_from_slice(&self.payload),
                &checksums,
            ),
            Protocol::Tcp => tcp.emit(
                &mut TcpPacket::new_unchecked(packet.payload_mut()),
                &source,
                &target,
                &checksums,
            ),
        }
        frame
    }
}

/// Protocol, source and destination as smoltcp's checked views read them.
fn smoltcp_reads(frame: &[u8]) -> Option<Conversation> {
    let ethernet = EthernetFrame::new_checked(frame).ok()?;
    if ethernet.ethertype() != EthernetProtocol::Ipv4 {
        return None;
    }
    let packet = Ipv4Packet::new_checked(ethernet.payload()).ok()?;
    if packet.version() != 4 || packet.more_frags() || packet.frag_offset() != 0 {
        return None;
    }
    let (protocol, from, to) = match packet.next_header() {
        IpProtocol::Udp => {
            let udp = UdpPacket::new_checked(packet.payload()).ok()?;
            (Protocol::Udp, udp.src_port(), udp.dst_port())
        }
        IpProtocol::Tcp => {
            let tcp = TcpPacket::new_checked(packet.payload()).ok()?;
            (Protocol::Tcp, tcp.src_port(), tcp.dst_port())
        }
        _ => return None,
    };
    Some(Conversation {
        protocol,
        source: SocketAddrV4::new(packet.src_addr(), from),
        destination: SocketAddrV4::new(packet.dst_addr(), to),
    })
}

fn we_read(frame: &[u8]) -> Option<Conversation> {
    match parse::ethernet(frame) {
        Ok(Parsed::Transport(conversation)) => Some(conversation),
        _ => None,
    }
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
        let expected = Conversation {
            protocol: packet.protocol,
            source: packet.from,
            destination: packet.to,
        };
        let frame = packet.emit();
        prop_assert_eq!(we_read(&frame), Some(expected));
        prop_assert_eq!(smoltcp_reads(&frame), Some(expected));
    }

    #[test]
    fn demux_agrees_with_smoltcp_on_damaged_frames(
        packet in any_packet(),
        damage in proptest::collection::vec((12usize..60, any::<u8>()), 0..3),
        cut in 0usize..120,
    ) {
        let mut frame = packet.emit();
        for (at, value) in damage {
            if let Some(byte) = frame.get_mut(at) {
                *byte = value;
            }
        }
        frame.truncate(frame.len().saturating_sub(cut.saturating_sub(60)));
        prop_assert_eq!(we_read(&frame), smoltcp_reads(&frame));
    }
}
