use alloc::vec;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ::smoltcp::phy::ChecksumCapabilities;
use ::smoltcp::wire::{
    EthernetAddress, EthernetFrame, EthernetProtocol, EthernetRepr, IpAddress, IpProtocol, IpRepr,
    TcpControl, TcpPacket, TcpRepr, TcpSeqNumber,
};

use super::*;
use crate::testbed::leak;
use crate::{Slot, VlanId};

const MTU: usize = 1500;
const V4: [SocketAddr; 2] = [
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 2, 15)), 49152),
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 2, 2)), 2049),
];
const V6: [SocketAddr; 2] = [
    SocketAddr::new(
        IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 15)),
        49152,
    ),
    SocketAddr::new(IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2)), 2049),
];

/// Where a connection is, and over what.
#[derive(Debug, Clone, Copy)]
struct Place {
    medium: Medium,
    ends: [SocketAddr; 2],
    /// Of an 802.1Q tag; 0 is a priority tag.
    tag: Option<u16>,
}

const PLACES: [Place; 7] = [
    place(Medium::Ethernet, V4, None),
    place(Medium::Ethernet, V6, None),
    place(Medium::Ip, V4, None),
    place(Medium::Ip, V6, None),
    place(Medium::Ethernet, V4, Some(17)),
    place(Medium::Ethernet, V6, Some(4094)),
    place(Medium::Ethernet, V4, Some(0)),
];
const ETHERNET: Place = PLACES[0];

const fn place(medium: Medium, ends: [SocketAddr; 2], tag: Option<u16>) -> Place {
    Place { medium, ends, tag }
}

impl Place {
    /// Another connection beside it.
    fn with_port(mut self, port: u16) -> Place {
        self.ends[0].set_port(port);
        self
    }

    /// Bytes of a whole segment.
    fn segment(self) -> usize {
        MTU - if self.ends[0].is_ipv4() { 40 } else { 60 }
    }

    fn tcp_at(self) -> usize {
        MTU - self.segment() - 20 + self.ip_at()
    }

    fn ip_at(self) -> usize {
        self.medium.header_len() + if self.tag.is_some() { 4 } else { 0 }
    }

    /// A frame of ours with this window, and the scale that a SYN offers; 1000 is sent and 2000
    /// acknowledged.
    fn frame(self, control: TcpControl, window: u16, scale: Option<u8>, payload: &[u8]) -> Vec<u8> {
        let [local, remote] = self.ends;
        let tcp = TcpRepr {
            src_port: local.port(),
            dst_port: remote.port(),
            control,
            seq_number: TcpSeqNumber(1000),
            ack_number: Some(TcpSeqNumber(2000)),
            window_len: window,
            window_scale: scale,
            max_seg_size: scale.map(|_| self.segment() as u16),
            sack_permitted: true,
            sack_ranges: [None; 3],
            timestamp: None,
            payload,
        };
        let (from, to): (IpAddress, IpAddress) = (local.ip().into(), remote.ip().into());
        let ip = IpRepr::new(from, to, IpProtocol::Tcp, tcp.buffer_len(), 64);
        let start = self.ip_at();
        let mut bytes = vec![0; start + ip.buffer_len()];
        if self.medium == Medium::Ethernet {
            let ethernet = EthernetRepr {
                src_addr: EthernetAddress([2; 6]),
                dst_addr: EthernetAddress([4; 6]),
                ethertype: match from {
                    IpAddress::Ipv4(_) => EthernetProtocol::Ipv4,
                    IpAddress::Ipv6(_) => EthernetProtocol::Ipv6,
                },
            };
            ethernet.emit(&mut EthernetFrame::new_unchecked(&mut bytes));
            if let Some(number) = self.tag {
                bytes.copy_within(12..14, 16);
                bytes[12..14].copy_from_slice(&0x8100u16.to_be_bytes());
                // With a priority.
                bytes[14..16].copy_from_slice(&(0x6000 | number).to_be_bytes());
            }
        }
        let checksums = ChecksumCapabilities::default();
        ip.emit(&mut bytes[start..], &checksums);
        let mut segment = TcpPacket::new_unchecked(&mut bytes[self.tcp_at()..]);
        tcp.emit(&mut segment, &from, &to, &checksums);
        bytes
    }

    /// The answer to our SYN, which began with 1000: with this scale, and acknowledging so much.
    fn answer(self, scale: Option<u8>, acknowledged: u32) -> Vec<u8> {
        let back = Place {
            ends: [self.ends[1], self.ends[0]],
            ..self
        };
        let mut bytes = back.frame(TcpControl::Syn, 65_535, scale, b"");
        let mut tcp = TcpPacket::new_unchecked(&mut bytes[self.tcp_at()..]);
        tcp.set_ack_number(TcpSeqNumber(acknowledged as i32));
        let [local, remote] = self.ends;
        tcp.fill_checksum(&remote.ip().into(), &local.ip().into());
        bytes
    }

    /// The window in a frame, whose checksum must be right.
    fn window(self, frame: &[u8]) -> usize {
        let tcp = TcpPacket::new_checked(&frame[self.tcp_at()..]).unwrap();
        let [local, remote] = self.ends;
        assert!(tcp.verify_checksum(&local.ip().into(), &remote.ip().into()));
        tcp.window_len().into()
    }

    fn flow(self) -> Flow {
        let [local, remote] = self.ends;
        let flow = Flow::tcp(local, remote);
        match self.tag.and_then(VlanId::new) {
            Some(vlan) => flow.in_vlan(vlan),
            None => flow,
        }
    }

    fn clamped(self, known: &mut Known, frame: &[u8], posted: usize) -> Vec<u8> {
        let mut frame = frame.to_vec();
        known
            .window
            .clamp(&mut frame, self.medium, posted, MTU, true, known.flows);
        frame
    }

    fn syn(self, known: &mut Known, scale: Option<u8>) {
        let syn = self.frame(TcpControl::Syn, 65_535, scale, b"");
        assert_eq!(
            self.clamped(known, &syn, 0),
            syn,
            "the window of a SYN is left alone"
        );
    }

    /// What an acknowledgement with the largest of windows says in the end.
    fn says(self, known: &mut Known, posted: usize) -> usize {
        let ack = self.frame(TcpControl::None, 65_535, None, b"");
        self.window(&self.clamped(known, &ack, posted))
    }
}

struct Known {
    window: Window,
    flows: &'static FlowTable<'static>,
}

fn known() -> Known {
    let flows = leak(vec![Slot::EMPTY; 32]);
    Known {
        window: Window::new(None),
        flows: leak(FlowTable::new(flows, leak([Slot::EMPTY; 32]))),
    }
}

#[test]
fn n7_the_window_is_what_the_posted_buffers_hold_and_one_segment_at_least() {
    for place in PLACES {
        let ack = place.frame(TcpControl::None, 60_000, None, b"odd");
        let mut known = known();
        let segment = place.segment();
        for (posted, expected) in [(0, segment), (1, segment), (7, 7 * segment), (42, 60_000)] {
            let clamped = place.clamped(&mut known, &ack, posted);
            assert_eq!(
                place.window(&clamped),
                expected,
                "{posted} posted, {place:?}"
            );
            assert!(clamped.ends_with(b"odd"));
        }
        let small = place.frame(TcpControl::None, 100, None, b"");
        assert_eq!(place.clamped(&mut known, &small, 7), small, "never raised");
    }
}

/// All promises together are never more than what is posted, as long as there are as many buffers as
/// connections.
#[test]
fn n7_several_connections_share_the_posted_buffers() {
    for place in PLACES {
        let mut known = known();
        let connections: Vec<_> = (0..6).map(|i| place.with_port(50_000 + i)).collect();
        for (i, connection) in connections.iter().enumerate() {
            known.flows.add(connection.flow()).unwrap();
            // Each shifts by another number of bits.
            connection.syn(&mut known, Some(i as u8));
        }
        for posted in [6, 7, 20, 37] {
            let mut promised = 0;
            for (scale, connection) in connections.iter().enumerate() {
                let says = connection.says(&mut known, posted) << scale;
                assert!(says >= place.segment(), "each can go on");
                // Rounded up to what the shift can express.
                promised += says.saturating_sub((1 << scale) - 1);
            }
            assert!(
                promised <= posted * place.segment(),
                "{promised} of {posted}, {place:?}"
            );
        }
        for gone in &connections[1..] {
            known.flows.remove(gone.flow()).unwrap();
        }
        assert_eq!(connections[0].says(&mut known, 20), 20 * place.segment());
    }
}

#[test]
fn n7_reconnects_do_not_push_a_quiet_connection_out() {
    let vlan = VlanId::new(17).unwrap();
    for tagged in [false, true] {
        // What the ladder puts a tag in has none when it is looked at here.
        let flow = |place: Place| match tagged {
            true => place.flow().in_vlan(vlan),
            false => place.flow(),
        };
        let mut known = known();
        known.window = Window::new(tagged.then_some(vlan));
        let quiet = ETHERNET.with_port(1);
        known.flows.add(flow(quiet)).unwrap();
        quiet.syn(&mut known, Some(5));
        for port in 2..100 {
            let again = ETHERNET.with_port(port);
            known.flows.add(flow(again)).unwrap();
            again.syn(&mut known, Some(3));
            assert_eq!(again.says(&mut known, 4), (2 * again.segment()) >> 3);
            known.flows.remove(flow(again)).unwrap();
        }
        assert_eq!(
            quiet.says(&mut known, 2),
            (2 * quiet.segment()).div_ceil(32)
        );
    }
}

#[test]
fn n7_of_more_connections_than_places_the_quietest_is_forgotten() {
    let mut known = known();
    let quiet = ETHERNET.with_port(1);
    known.flows.add(quiet.flow()).unwrap();
    quiet.syn(&mut known, Some(5));
    assert_eq!(
        quiet.says(&mut known, 2),
        (2 * quiet.segment()).div_ceil(32)
    );

    // More than there are places for: who was quiet for longest is forgotten.
    for port in 100..107 {
        let another = ETHERNET.with_port(port);
        known.flows.add(another.flow()).unwrap();
        another.syn(&mut known, Some(3));
    }
    assert_eq!(
        quiet.says(&mut known, 16),
        (2 * quiet.segment()).div_ceil(32)
    );
    let ninth = ETHERNET.with_port(107);
    known.flows.add(ninth.flow()).unwrap();
    ninth.syn(&mut known, Some(3));
    let of_nine = |port: u16, known: &mut Known| ETHERNET.with_port(port).says(known, 18);
    assert_eq!(of_nine(1, &mut known), (2 * quiet.segment()).div_ceil(32));
    assert_eq!(of_nine(101, &mut known), (2 * quiet.segment()) >> 3);
    assert_eq!(of_nine(100, &mut known), 2 * quiet.segment(), "forgotten");
}

/// The same addresses and ports in two networks are two connections.
#[test]
fn n7_each_vlan_has_its_own_connections() {
    let mut known = known();
    let places = [None, Some(17), Some(18)].map(|tag| place(Medium::Ethernet, V4, tag));
    for (place, scale) in places.into_iter().zip([0, 2, 5]) {
        known.flows.add(place.flow()).unwrap();
        place.syn(&mut known, Some(scale));
    }
    let segment = places[0].segment();
    for (place, scale) in places.into_iter().zip([0, 2, 5]) {
        let says = place.says(&mut known, 3);
        assert_eq!(says, segment.div_ceil(1 << scale), "{place:?}");
    }
}

#[test]
fn the_window_scale_of_the_last_syn_counts_and_a_syn_keeps_its_window() {
    let (place, segment) = (ETHERNET, ETHERNET.segment());
    let mut known = known();
    place.syn(&mut known, Some(3));
    assert_eq!(place.says(&mut known, 2), (2 * segment) >> 3);
    let one = place.says(&mut known, 1);
    assert_eq!(one, 183, "room for a whole segment of 1460 bytes");
    place.syn(&mut known, None);
    assert_eq!(place.says(&mut known, 2), 2 * segment);
    place.syn(&mut known, Some(14));
    assert_eq!(place.says(&mut known, 2), 1, "never closed");
}

#[test]
fn windows_are_not_shifted_for_a_peer_that_does_not_do_so() {
    for place in PLACES {
        let segment = place.segment();
        let [with, without, stale] =
            [(Some(7), 1001), (None, 1001), (None, 1002)].map(|(s, a)| place.answer(s, a));
        let elsewhere = place.with_port(7).answer(None, 1001);
        let mut damaged = without.clone();
        *damaged.last_mut().unwrap() ^= 1;
        let ack = place.frame(TcpControl::None, 65_535, None, b"");
        for (answer, expected) in [(&with, segment.div_ceil(8)), (&without, segment)] {
            let mut known = known();
            place.syn(&mut known, Some(3));
            let received = |known: &mut Known, frame: &[u8]| {
                known.window.received(frame, place.medium, true);
            };
            // What is damaged, or the answer to another, says nothing.
            for nothing in [&ack, &damaged, &stale, &elsewhere, answer, &damaged, &stale] {
                received(&mut known, nothing);
            }
            assert_eq!(place.says(&mut known, 1), expected, "{place:?}");
            received(&mut known, &without);
            assert_eq!(place.says(&mut known, 1), expected, "too late");
        }
        // The card has looked at the checksum already, and need not leave it right.
        let mut known = known();
        place.syn(&mut known, Some(3));
        known.window.received(&damaged, place.medium, false);
        assert_eq!(place.says(&mut known, 1), segment);
    }
}

#[test]
fn what_is_no_tcp_is_left_alone() {
    for place in PLACES {
        let ack = place.frame(TcpControl::None, 60_000, None, b"");
        let mut known = known();
        let ip = place.ip_at();
        let with = |at: usize, value: u8| {
            let mut frame = ack.clone();
            frame[at] = value;
            frame
        };
        let mut others = vec![with(ip, 0x55)];
        if place.ends[0].is_ipv4() {
            // UDP; fragments; an odd header length.
            others.extend([
                with(ip + 9, 17),
                with(ip + 6, 0x20),
                with(ip + 7, 1),
                with(ip, 0x44),
            ]);
        } else {
            // UDP; a fragment header.
            others.extend([with(ip + 6, 17), with(ip + 6, 44)]);
        }
        if place.medium == Medium::Ethernet {
            others.push(with(ip - 1, 6)); // ARP, or nothing known
        }
        for other in others {
            assert_eq!(place.clamped(&mut known, &other, 0), other, "{place:?}");
        }
        for len in 0..ack.len() {
            assert_eq!(place.clamped(&mut known, &ack[..len], 0), ack[..len]);
        }
    }
}

/// A frame that cannot be right stays so: nobody takes it for whole because its window was changed.
#[test]
fn a_damaged_frame_stays_damaged() {
    for place in PLACES {
        let mut ack = place.frame(TcpControl::None, 60_000, None, b"data");
        *ack.last_mut().unwrap() ^= 0x40;
        let clamped = place.clamped(&mut known(), &ack, 1);
        assert_ne!(clamped, ack);
        let tcp = TcpPacket::new_checked(&clamped[place.tcp_at()..]).unwrap();
        let [local, remote] = place.ends;
        assert!(!tcp.verify_checksum(&local.ip().into(), &remote.ip().into()));
    }
}

#[test]
fn a_checksum_that_the_card_makes_is_not_touched() {
    let mut ack = ETHERNET.frame(TcpControl::None, 60_000, None, b"");
    let before = ack[50..52].to_vec();
    let known = known();
    let mut window = Window::new(None);
    window.clamp(&mut ack, Medium::Ethernet, 1, MTU, false, known.flows);
    assert_eq!(ack[50..52], before);
    assert_eq!(ack[48..50], (ETHERNET.segment() as u16).to_be_bytes());
}

/// Every odd and even length, against smoltcp's own arithmetic.
#[test]
fn the_checksum_of_an_answer_is_looked_at() {
    for place in PLACES {
        for len in 0..64 {
            let payload = vec![0xa5; len];
            let mut frame = place.frame(TcpControl::None, 77, None, &payload);
            let segment = Segment::find(&frame, place.medium).unwrap();
            assert!(segment.is_intact(&frame), "{len} bytes, {place:?}");
            frame[place.tcp_at() + 19 + len] ^= 1;
            assert!(!segment.is_intact(&frame), "{len} bytes, {place:?}");
        }
    }
}
