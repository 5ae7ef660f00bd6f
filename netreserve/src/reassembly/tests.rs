use alloc::vec::Vec;

use super::*;
use crate::testbed::{LOCAL, MAC, SERVER, SERVER_MAC, SKB, SWAP, ethernet, ipv4, leak, machine};
use crate::{Class, Protocol, classify};

pub(super) type Table = &'static Reassembly<'static>;

const NOW: Duration = Duration::ZERO;

pub(super) fn table(datagrams: usize, fragments: usize, high: usize) -> Table {
    make(datagrams, fragments, high, Medium::Ethernet)
}

pub(super) fn over_ip(datagrams: usize, fragments: usize, high: usize) -> Table {
    make(datagrams, fragments, high, Medium::Ip)
}

fn make(datagrams: usize, fragments: usize, high: usize, medium: Medium) -> Table {
    let datagrams: Vec<_> = (0..datagrams).map(|_| LruSlot::EMPTY).collect();
    let fragments: Vec<_> = (0..fragments).map(|_| FragmentSlot::EMPTY).collect();
    let limits = ReassemblyLimits::new(high);
    leak(Reassembly::new(
        datagrams.leak(),
        fragments.leak(),
        limits,
        medium,
    ))
}

/// Bytes that are different for each datagram.
pub(super) fn payload(id: u16, len: usize) -> Vec<u8> {
    (0..len)
        .map(|at| (at as u8) ^ (id as u8).wrapping_mul(37))
        .collect()
}

/// A frame with some of the payload of the datagram with that number.
pub(super) fn fragment(id: u16, offset: usize, more: bool, bytes: &[u8]) -> Vec<u8> {
    let mut packet = ipv4(17, *SERVER.ip(), *LOCAL.ip(), bytes);
    packet[4..6].copy_from_slice(&id.to_be_bytes());
    let field = (offset / 8) as u16 | if more { 0x2000 } else { 0 };
    packet[6..8].copy_from_slice(&field.to_be_bytes());
    ethernet(0x0800, &packet)
}

/// Over IPv6, behind a header with options.
fn fragment6(id: u32, offset: u16, more: bool, bytes: &[u8]) -> Vec<u8> {
    let mut packet = Vec::from([0x60, 0, 0, 0]);
    packet.extend((16 + bytes.len() as u16).to_be_bytes());
    packet.extend([0, 64]);
    packet.extend([0xfd; 16]);
    packet.extend([0xfe; 16]);
    packet.extend([44, 0, 1, 4, 0, 0, 0, 0]);
    packet.extend([17, 0]);
    packet.extend((offset | u16::from(more)).to_be_bytes());
    packet.extend(id.to_be_bytes());
    packet.extend(bytes);
    ethernet(0x86dd, &packet)
}

fn reason(
    result: Result<Option<Reassembled<'_, '_>>, (ReassemblyError, Skb<'_>)>,
) -> ReassemblyError {
    result.map(drop).map_err(|(error, _)| error).unwrap_err()
}

#[test]
fn a_packet_is_as_it_was_before_it_was_cut_up_in_whatever_order_it_comes() {
    let m = machine();
    let table = table(4, 16, 16 * SKB);
    // UDP, so that early demux can read what comes out.
    let mut bytes = payload(7, 3 * 800 + 5);
    let header = [SERVER.port(), LOCAL.port(), bytes.len() as u16, 0];
    for (at, field) in bytes.chunks_mut(2).zip(header) {
        at.copy_from_slice(&field.to_be_bytes());
    }
    for order in [[0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1]] {
        let push = |piece: usize| {
            let cut = &bytes[piece * 800..bytes.len().min(piece * 800 + 800)];
            let mut frame = fragment(7, piece * 800, piece < 3, cut);
            if piece == 3 {
                frame.resize(60, 0xee); // as Ethernet pads it
            }
            table.push(m.skb(&frame), false, NOW).unwrap()
        };
        assert!(order[..3].iter().all(|piece| push(*piece).is_none()));
        let packet = push(order[3]).unwrap();
        assert_eq!((packet.payload(), packet.pieces()), (bytes.len(), 4));
        let packet = packet.into_frags::<2>().unwrap_err(); // too many for that
        let packet = packet.into_frags::<3>().unwrap();
        let mut whole = Vec::new();
        packet
            .pieces()
            .for_each(|piece| whole.extend_from_slice(piece));
        let mut expected = ethernet(0x0800, &ipv4(17, *SERVER.ip(), *LOCAL.ip(), &bytes));
        expected[18..20].copy_from_slice(&[0, 7]);
        expected[24..26].copy_from_slice(&whole[24..26]);
        assert_eq!(whole, expected);
        let sum: u32 = whole[14..34]
            .chunks(2)
            .map(|w| u32::from(w[0]) << 8 | u32::from(w[1]))
            .sum();
        assert_eq!(
            (sum >> 16) + (sum & 0xffff),
            0xffff,
            "its checksum is right"
        );
        let class = classify(&whole, m.flows);
        assert!(
            matches!(
                class,
                Class::Socket {
                    protocol: Protocol::Udp,
                    ..
                }
            ),
            "{class:?}"
        );
    }
    assert_eq!(table.stats().completed, 3);
    m.assert_quiescent();
}

#[test]
fn an_ipv6_packet_loses_its_fragment_header_and_keeps_the_others() {
    let m = machine();
    let table = table(4, 8, 8 * SKB);
    let bytes = payload(1, 24);
    let push = |offset: u16, more, cut: &[u8]| {
        table
            .push(m.skb(&fragment6(1, offset, more, cut)), true, NOW)
            .unwrap()
    };
    assert!(push(16, false, &bytes[16..]).is_none());
    let packet = push(0, true, &bytes[..16])
        .unwrap()
        .into_frags::<1>()
        .unwrap();
    let whole: Vec<u8> = packet.pieces().flatten().copied().collect();
    assert_eq!((&whole[..6], &whole[6..12]), (&MAC[..], &SERVER_MAC[..]));
    assert_eq!(whole[18..20], 32u16.to_be_bytes(), "options and payload");
    assert_eq!((whole[20], whole[54]), (0, 17), "options, then UDP");
    assert_eq!(whole[62..], bytes);
    drop(packet);
    // One that is all of its packet needs no others, whatever else has its number (RFC 6946).
    assert!(push(8, true, &bytes[..8]).is_none());
    let packet = push(0, false, &bytes).unwrap();
    assert_eq!((packet.payload(), packet.pieces()), (24, 1));
    drop(packet);
    table.clear();
    m.assert_quiescent();
}

#[test]
fn overlaps_end_a_datagram_and_keep_it_ended_and_a_duplicate_does_not() {
    let m = machine();
    let table = table(4, 8, 8 * SKB);
    let bytes = payload(1, 32);
    let push = |from: usize, to: usize| {
        let frame = fragment(1, from, to < 32, &bytes[from..to]);
        table.push(m.skb(&frame), false, NOW)
    };
    assert!(push(8, 16).unwrap().is_none());
    assert_eq!(reason(push(8, 16)), ReassemblyError::Duplicate);
    assert!(push(16, 24).unwrap().is_none(), "still alive");
    assert_eq!(reason(push(0, 16)), ReassemblyError::Contradictory);
    assert_eq!((table.stats().fragments, table.stats().datagrams), (0, 1));
    assert_eq!(
        reason(push(24, 32)),
        ReassemblyError::Contradictory,
        "remembered"
    );
    table.expire(Duration::from_secs(30));
    assert!(push(24, 32).unwrap().is_none(), "its number is free again");
    // Two ends, or one in front of what came.
    let longer = fragment(1, 32, false, &bytes[..8]);
    assert_eq!(
        reason(table.push(m.skb(&longer), false, NOW)),
        ReassemblyError::Contradictory
    );
    let behind = fragment(2, 16, true, &bytes[..8]);
    assert!(table.push(m.skb(&behind), false, NOW).unwrap().is_none());
    let end = fragment(2, 0, false, &bytes[..16]);
    // That is a whole packet, and no fragment.
    assert_eq!(
        reason(table.push(m.skb(&end), false, NOW)),
        ReassemblyError::NoFragment
    );
    let end = fragment(2, 8, false, &bytes[..8]);
    assert_eq!(
        reason(table.push(m.skb(&end), false, NOW)),
        ReassemblyError::Contradictory
    );
    assert_eq!(table.stats().contradictory, 3);
    table.clear();
    m.assert_quiescent();
}

#[test]
fn what_cannot_be_is_refused_by_name_and_comes_back() {
    let m = machine();
    let table = table(4, 8, 8 * SKB);
    let refused = |frame: &[u8]| {
        let (error, skb) = table.push(m.skb(frame), true, NOW).map(drop).unwrap_err();
        assert!(frame.starts_with(skb.data()));
        error
    };
    let bytes = payload(1, 64);
    assert_eq!(refused(&[]), ReassemblyError::Malformed);
    assert_eq!(
        refused(&ethernet(0x0806, &bytes)),
        ReassemblyError::NoFragment
    );
    assert_eq!(
        refused(&fragment(1, 8, true, &bytes[..12])),
        ReassemblyError::Malformed
    );
    assert_eq!(
        refused(&fragment(1, 8, false, &[])),
        ReassemblyError::Malformed
    );
    // Longer than any packet.
    let beyond = fragment(1, 65_520, false, &bytes[..8]);
    assert_eq!(refused(&beyond), ReassemblyError::Malformed);
    let cut = &fragment(1, 8, true, &bytes)[..40];
    assert_eq!(refused(cut), ReassemblyError::Malformed);
    let mut skb = m.skb(&fragment(1, 8, true, &bytes));
    let clone = skb.try_clone().unwrap();
    assert_eq!(reason(table.push(skb, true, NOW)), ReassemblyError::Shared);
    drop(clone);
    // As many fragments as a datagram may have.
    let limits = ReassemblyLimits {
        fragments: 2,
        ..table.limits()
    };
    table.set_limits(limits);
    for piece in [0, 16] {
        let frame = fragment(9, piece, true, &bytes[..8]);
        assert!(table.push(m.skb(&frame), false, NOW).unwrap().is_none());
    }
    assert_eq!(
        refused(&fragment(9, 32, true, &bytes[..8])),
        ReassemblyError::TooManyFragments
    );
    assert_eq!(table.stats().bytes, 0);
    table.clear();
    m.assert_quiescent();
}

#[test]
fn n4_fragments_of_strangers_are_evicted_oldest_first_and_the_budget_is_never_exceeded() {
    let m = machine();
    let table = table(64, 64, 8 * SKB);
    let push = |id: u16, vmio| {
        let bytes = payload(id, 8);
        table.push(m.skb(&fragment(id, 0, true, &bytes)), vmio, NOW)
    };
    assert!(push(1000, true).unwrap().is_none());
    for id in 0..40 {
        assert!(push(id, false).unwrap().is_none());
        assert!(m.cache.stats().in_use * SKB <= 8 * SKB);
    }
    let stats = table.stats();
    assert_eq!((stats.peak, stats.evicted_vmio), (8 * SKB, 0));
    // Room is made in batches, down to three quarters.
    assert_eq!(stats.evicted, 33, "{stats:?}");
    let frame = fragment(39, 8, false, &payload(39, 16)[8..]);
    assert!(
        table.push(m.skb(&frame), false, NOW).unwrap().is_some(),
        "the newest is there"
    );
    let frame = fragment(1000, 8, false, &payload(1000, 16)[8..]);
    let packet = table.push(m.skb(&frame), false, NOW).unwrap();
    assert!(
        packet.is_some_and(|packet| packet.is_vmio()),
        "and so is that of VMIO"
    );

    // When all is of VMIO, strangers have no room, and the oldest of VMIO makes room for VMIO.
    for id in 0..8 {
        assert!(push(2000 + id, true).unwrap().is_none());
    }
    assert_eq!(reason(push(50, false)), ReassemblyError::Full);
    assert!(push(3000, true).unwrap().is_none());
    assert_eq!(table.stats().evicted_vmio, 1);
    // A datagram that is too large for the budget ends, and takes no other with it but for these.
    for piece in 0..8 {
        let frame = fragment(4000, piece * 16, true, &payload(0, 8));
        assert!(table.push(m.skb(&frame), true, NOW).unwrap().is_none());
    }
    let frame = fragment(4000, 8 * 16, true, &payload(0, 8));
    assert_eq!(
        reason(table.push(m.skb(&frame), true, NOW)),
        ReassemblyError::Full
    );
    assert_eq!(table.stats().bytes, 0);
    m.assert_quiescent();
}

#[test]
fn n8_a_stranger_finds_no_place_among_datagrams_of_vmio() {
    let m = machine();
    let table = table(2, 8, 8 * SKB);
    let push = |id: u16, vmio| {
        let frame = fragment(id, 0, true, &payload(id, 8));
        table.push(m.skb(&frame), vmio, NOW)
    };
    assert!(push(1, false).unwrap().is_none());
    assert!((2..4).all(|id| push(id, true).unwrap().is_none()));
    assert_eq!(reason(push(4, false)), ReassemblyError::Full);
    let stats = table.stats();
    assert_eq!(
        (stats.datagrams, stats.evicted, stats.evicted_vmio),
        (2, 1, 0)
    );
    assert!(push(5, true).unwrap().is_none(), "VMIO makes room for VMIO");
    assert_eq!(table.stats().evicted_vmio, 1);
    table.clear();
    m.assert_quiescent();
}

#[test]
fn n2_n3_emergency_fragments_are_those_of_vmio_and_their_charges_go_with_them() {
    let m = machine();
    m.flows.add(SWAP).unwrap();
    let table = table(8, 16, 8 * SKB);
    let hog = m.exhaust();
    let bytes = payload(1, 24);
    let push = |id, from: usize, vmio| {
        let frame = fragment(id, from, from < 16, &bytes[from..from + 8]);
        table.push(m.skb(&frame), vmio, NOW)
    };
    assert_eq!(reason(push(1, 0, false)), ReassemblyError::Emergency);
    assert!(push(1, 0, true).unwrap().is_none());
    // The others have no ports: that one of them is known to be VMIO's says it for all.
    assert!(push(1, 16, false).unwrap().is_none());
    assert_eq!(m.rx.usage(), 2 * SKB);
    drop(hog);
    let packet = push(1, 8, false).unwrap().unwrap();
    assert!(packet.is_vmio());
    let packet = packet.into_frags::<2>().unwrap();
    assert!(packet.is_emergency());
    assert_eq!((m.rx.usage(), table.stats().bytes), (2 * SKB, 0));
    drop(packet);
    // A packet that nobody takes apart is freed, too.
    for from in [0, 16] {
        assert!(push(2, from, true).unwrap().is_none());
    }
    drop(push(2, 8, true).unwrap().unwrap());
    m.flows.remove(SWAP).unwrap();
    m.assert_quiescent();
}

#[test]
fn datagrams_end_when_their_time_is_over_and_it_is_said_when() {
    let m = machine();
    let table = table(8, 16, 8 * SKB);
    assert_eq!(table.next_deadline(), None);
    let push = |id, vmio, now: u64| {
        let frame = fragment(id, 0, true, &payload(id, 8));
        let result = table.push(m.skb(&frame), vmio, Duration::from_secs(now));
        assert!(result.unwrap().is_none());
    };
    push(1, true, 1);
    push(2, false, 5);
    assert_eq!(table.next_deadline(), Some(Duration::from_secs(31)));
    table.expire(Duration::from_secs(30));
    assert_eq!(table.stats().timed_out, 0);
    // A push looks at the time as well.
    push(3, false, 31);
    assert_eq!((table.stats().timed_out, table.stats().datagrams), (1, 2));
    assert_eq!(table.next_deadline(), Some(Duration::from_secs(35)));
    table.expire(Duration::from_secs(61));
    assert_eq!((table.stats().timed_out, table.stats().datagrams), (3, 0));
    m.assert_quiescent();
}
