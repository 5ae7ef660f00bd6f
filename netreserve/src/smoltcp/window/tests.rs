use alloc::vec;
use alloc::vec::Vec;

use ::smoltcp::phy::ChecksumCapabilities;
use ::smoltcp::wire::{
    EthernetAddress, EthernetRepr, IpAddress, Ipv4Address, Ipv4Repr, TcpControl, TcpRepr,
    TcpSeqNumber,
};

use super::*;

const US: Ipv4Address = Ipv4Address::new(10, 0, 2, 15);
const SERVER: Ipv4Address = Ipv4Address::new(10, 0, 2, 2);
const MTU: usize = 1500;
const SEGMENT: usize = MTU - HEADERS;

/// A frame of ours with this window, and the scale that a SYN offers.
fn frame(control: TcpControl, window: u16, scale: Option<u8>, payload: &[u8]) -> Vec<u8> {
    let tcp = TcpRepr {
        src_port: 49152,
        dst_port: 2049,
        control,
        seq_number: TcpSeqNumber(1000),
        ack_number: Some(TcpSeqNumber(2000)),
        window_len: window,
        window_scale: scale,
        max_seg_size: scale.map(|_| SEGMENT as u16),
        sack_permitted: false,
        sack_ranges: [None; 3],
        timestamp: None,
        payload,
    };
    let ip = Ipv4Repr {
        src_addr: US,
        dst_addr: SERVER,
        next_header: IpProtocol::Tcp,
        payload_len: tcp.buffer_len(),
        hop_limit: 64,
    };
    let ethernet = EthernetRepr {
        src_addr: EthernetAddress([2; 6]),
        dst_addr: EthernetAddress([4; 6]),
        ethertype: EthernetProtocol::Ipv4,
    };
    let mut bytes = vec![0; 14 + 20 + tcp.buffer_len()];
    let mut frame = EthernetFrame::new_unchecked(&mut bytes);
    ethernet.emit(&mut frame);
    let mut packet = Ipv4Packet::new_unchecked(frame.payload_mut());
    ip.emit(&mut packet, &ChecksumCapabilities::default());
    let mut segment = TcpPacket::new_unchecked(packet.payload_mut());
    let (from, to) = (IpAddress::Ipv4(US), IpAddress::Ipv4(SERVER));
    tcp.emit(&mut segment, &from, &to, &ChecksumCapabilities::default());
    bytes
}

/// The window in a frame, whose checksum must be right.
fn window(frame: &[u8]) -> usize {
    let tcp = TcpPacket::new_checked(&frame[34..]).unwrap();
    assert!(tcp.verify_checksum(&IpAddress::Ipv4(US), &IpAddress::Ipv4(SERVER)));
    tcp.window_len().into()
}

fn clamped(window: &mut Window, frame: &[u8], posted: usize) -> Vec<u8> {
    let mut frame = frame.to_vec();
    window.clamp(&mut frame, posted, MTU, true);
    frame
}

#[test]
fn n7_the_window_is_what_the_posted_buffers_hold_and_one_segment_at_least() {
    let ack = frame(TcpControl::None, 60_000, None, b"data");
    let mut known = Window::default();
    for (posted, expected) in [(0, SEGMENT), (1, SEGMENT), (7, 7 * SEGMENT), (42, 60_000)] {
        let clamped = clamped(&mut known, &ack, posted);
        assert_eq!(window(&clamped), expected, "{posted} posted");
        assert!(clamped.ends_with(b"data"));
    }
    let small = frame(TcpControl::None, 100, None, b"");
    assert_eq!(clamped(&mut known, &small, 7), small, "never raised");
}

#[test]
fn the_window_scale_of_the_last_syn_counts_and_a_syn_keeps_its_window() {
    let mut known = Window::default();
    let syn = frame(TcpControl::Syn, 65_535, Some(3), b"");
    assert_eq!(clamped(&mut known, &syn, 0), syn);
    let ack = frame(TcpControl::None, 32_768, None, b"");
    assert_eq!(window(&clamped(&mut known, &ack, 2)), (2 * SEGMENT) >> 3);
    assert_eq!(
        window(&clamped(&mut known, &ack, 1)),
        183,
        "room for a whole segment of 1460 bytes"
    );
    let syn = frame(TcpControl::Syn, 65_535, None, b"");
    clamped(&mut known, &syn, 2);
    assert_eq!(window(&clamped(&mut known, &ack, 2)), 2 * SEGMENT);
    let syn = frame(TcpControl::Syn, 65_535, Some(14), b"");
    clamped(&mut known, &syn, 2);
    assert_eq!(window(&clamped(&mut known, &ack, 2)), 1, "never closed");
}

#[test]
fn windows_are_not_shifted_for_a_peer_that_does_not_do_so() {
    // `frame` sends with 1000 and acknowledges 2000.
    let answer = |scale, acknowledged: u32| {
        let mut bytes = frame(TcpControl::Syn, 65_535, scale, b"");
        let mut tcp = TcpPacket::new_unchecked(&mut bytes[34..]);
        tcp.set_ack_number(TcpSeqNumber(acknowledged as i32));
        tcp.fill_checksum(&IpAddress::Ipv4(US), &IpAddress::Ipv4(SERVER));
        bytes
    };
    let [with, without, stale] =
        [(Some(7), 1001), (None, 1001), (None, 1002)].map(|(s, a)| answer(s, a));
    let mut damaged = without.clone();
    *damaged.last_mut().unwrap() ^= 1;
    let syn = frame(TcpControl::Syn, 65_535, Some(3), b"");
    let ack = frame(TcpControl::None, 65_535, None, b"");
    for (answer, expected) in [(&with, SEGMENT.div_ceil(8)), (&without, SEGMENT)] {
        let mut known = Window::default();
        clamped(&mut known, &syn, 1);
        known.received(&ack);
        known.received(answer);
        // What is damaged, or the answer to another, says nothing.
        known.received(&damaged);
        known.received(&stale);
        assert_eq!(window(&clamped(&mut known, &ack, 1)), expected);
        known.received(&without);
        assert_eq!(window(&clamped(&mut known, &ack, 1)), expected, "too late");
    }
}

#[test]
fn what_is_no_tcp_is_left_alone() {
    let ack = frame(TcpControl::None, 60_000, None, b"");
    let mut known = Window::default();
    let with = |at: usize, value: u8| {
        let mut frame = ack.clone();
        frame[at] = value;
        frame
    };
    // UDP; a fragment; ARP; cut short at every length.
    for other in [with(23, 17), with(20, 0x20), with(21, 1), with(13, 6)] {
        assert_eq!(clamped(&mut known, &other, 0), other);
    }
    for len in 0..ack.len() {
        assert_eq!(clamped(&mut known, &ack[..len], 0), ack[..len]);
    }
}

#[test]
fn a_checksum_that_the_card_makes_is_not_touched() {
    let mut ack = frame(TcpControl::None, 60_000, None, b"");
    let before = ack[50..52].to_vec();
    Window::default().clamp(&mut ack, 1, MTU, false);
    assert_eq!(ack[50..52], before);
    assert_eq!(ack[48..50], (SEGMENT as u16).to_be_bytes());
}
