mod consumers;
mod ladder;
mod vlan;

use alloc::vec::Vec;
use core::net::SocketAddrV4;

use super::*;
use crate::Protocol;
use crate::testbed::{
    LOCAL, Machine, SERVER, SKB, STRANGER, SWAP, arp, ethernet, fragment, icmp, ipv4, machine,
    packet,
};

const UDP_PORT: u16 = 9;

/// A machine with a VMIO flow, and a socket that may hold `rcvbuf` bytes.
fn swapping(rcvbuf: usize) -> (Machine, SocketId) {
    let m = machine();
    m.flows.add(SWAP).unwrap();
    let socket = m.sockets.bind(Protocol::Udp, UDP_PORT, rcvbuf).unwrap();
    (m, socket)
}

fn to_port(port: u16) -> Vec<u8> {
    let to = SocketAddrV4::new(*LOCAL.ip(), port);
    packet(Protocol::Udp, STRANGER, to, 100)
}

fn reason(verdict: Verdict<'_>) -> DropReason {
    match verdict {
        Verdict::Dropped(reason) => reason,
        other => panic!("{other:?} instead of a drop"),
    }
}

/// Everything that does not serve the VM: in an emergency skb, and in an ordinary one.
fn foreign_frames() -> [(Vec<u8>, DropReason, Option<DropReason>); 8] {
    let gre = ethernet(0x0800, &ipv4(47, *STRANGER.ip(), *LOCAL.ip(), &[0; 8]));
    [
        (to_port(UDP_PORT), DropReason::EmergencyUdp, None),
        (
            packet(Protocol::Tcp, STRANGER, LOCAL, 9),
            DropReason::EmergencyTcp,
            Some(DropReason::NoSocket),
        ),
        (
            icmp(8, Protocol::Tcp, LOCAL, SERVER),
            DropReason::EmergencyIcmp,
            Some(DropReason::NoProtocol),
        ),
        (
            arp(*STRANGER.ip(), *LOCAL.ip()),
            DropReason::EmergencyArp,
            Some(DropReason::ForeignArp),
        ),
        (
            fragment(to_port(UDP_PORT), 10),
            DropReason::EmergencyFragment,
            Some(DropReason::Fragment),
        ),
        (
            gre,
            DropReason::EmergencyOther,
            Some(DropReason::NoProtocol),
        ),
        (
            b"short".to_vec(),
            DropReason::Malformed,
            Some(DropReason::Malformed),
        ),
        (
            [&[2, 0, 0, 0, 0, 77], &to_port(UDP_PORT)[6..]].concat(),
            DropReason::OtherHost,
            Some(DropReason::OtherHost),
        ),
    ]
}

#[test]
fn n2_an_emergency_skb_that_does_not_serve_the_vm_is_freed_at_once_and_counted_by_reason() {
    let (m, _) = swapping(8 * SKB);
    let hog = m.exhaust();
    for (frame, expected, _) in foreign_frames() {
        let before = m.ingress.stats();
        let skb = m.skb(&frame);
        assert!(skb.is_emergency() && m.rx.usage() == SKB);
        assert_eq!(reason(m.ingress.receive(skb)), expected);
        assert_eq!(m.rx.usage(), 0, "its charge has ended");
        let after = m.ingress.stats();
        assert_eq!(
            after.dropped.get(expected),
            before.dropped.get(expected) + 1
        );
        assert_eq!(after.received_emergency, before.received_emergency + 1);
    }
    assert_eq!((m.sockets.queued(), m.ingress.stats().vmio_dropped), (0, 0));
    drop(hog);
    m.assert_quiescent();
}

#[test]
fn ordinary_skbs_go_to_their_socket_or_are_left_to_another_stack() {
    let (m, socket) = swapping(8 * SKB);
    for (frame, _, expected) in foreign_frames() {
        let verdict = m.ingress.receive(m.skb(&frame));
        match expected {
            Some(DropReason::Malformed | DropReason::OtherHost) => {
                assert_eq!(Some(reason(verdict)), expected);
            }
            Some(expected) => {
                let Verdict::Unclaimed(skb, reason) = verdict else {
                    panic!("{verdict:?} instead of {expected}");
                };
                assert_eq!((reason, skb.data()), (expected, &frame[..]));
                let dropped = || m.ingress.stats().dropped.get(expected);
                let before = dropped();
                m.ingress.drop_skb(skb, reason);
                assert_eq!(dropped(), before + 1);
            }
            None => assert!(matches!(verdict, Verdict::Delivered(id) if id == socket)),
        }
    }
    let stats = m.ingress.stats();
    assert_eq!(
        (stats.received, stats.delivered, stats.dropped.total()),
        (8, 1, 7)
    );
    assert_eq!(m.sockets.recv(socket).unwrap().data(), to_port(UDP_PORT));
}

/// What a flood does without the filter: it stays. With it, whatever comes, no more than the one
/// skb that is being judged is ever charged.
#[test]
fn n2_a_flood_into_the_reserve_leaves_nothing_behind() {
    let (m, _) = swapping(usize::MAX);
    let hog = m.exhaust();
    for round in 0..1000 {
        let frames = foreign_frames();
        let (frame, expected, _) = &frames[round % frames.len()];
        assert_eq!(reason(m.ingress.receive(m.skb(frame))), *expected);
    }
    assert_eq!((m.rx.usage(), m.rx.peak()), (0, SKB));
    drop(hog);
    m.assert_quiescent();
}

/// The switch that the demonstration turns: the same flood, and the receive reserve is gone.
#[cfg(feature = "ablation")]
#[test]
fn without_the_filter_a_flood_takes_the_whole_receive_reserve() {
    let (m, _) = swapping(usize::MAX);
    m.ingress.ablate(Mechanism::VmioFilter);
    let _hog = m.exhaust();
    for _ in 0..crate::rx_skbs(crate::testbed::RX_RING) {
        let verdict = m.ingress.receive(m.skb(&to_port(UDP_PORT)));
        assert!(matches!(verdict, Verdict::Delivered(_)));
    }
    assert!(m.pool.alloc_rx().is_err(), "the reply finds no buffer");
}

#[test]
fn n7_vmio_passes_whatever_the_sockets_hold() {
    let (m, socket) = swapping(SKB);
    let fill = m.ingress.receive(m.skb(&to_port(UDP_PORT)));
    assert!(matches!(fill, Verdict::Delivered(_)));
    let full = m.ingress.receive(m.skb(&to_port(UDP_PORT)));
    assert_eq!(reason(full), DropReason::RcvbufFull);
    let reply = packet(Protocol::Tcp, SERVER, LOCAL, 1000);
    let verdict = m.ingress.receive(m.skb(&reply));
    assert!(matches!(verdict, Verdict::Swap(skb) if skb.data() == reply));
    assert_eq!(m.sockets.rmem(socket), Some(SKB));
}

#[test]
fn n8_the_control_plane_passes_in_emergency_skbs() {
    let (m, _) = swapping(8 * SKB);
    let _hog = m.exhaust();
    for frame in [
        packet(Protocol::Tcp, SERVER, LOCAL, 1000),
        arp(*SERVER.ip(), *LOCAL.ip()),
        icmp(3, Protocol::Tcp, LOCAL, SERVER),
    ] {
        let skb = m.skb(&frame);
        assert!(skb.is_emergency());
        let verdict = m.ingress.receive(skb);
        assert!(matches!(verdict, Verdict::Swap(skb) if skb.data() == frame));
    }
    let stats = m.ingress.stats();
    assert_eq!((stats.vmio, stats.control, stats.vmio_dropped), (1, 2, 0));
}

#[test]
fn a_dropped_fragment_of_the_swap_flow_does_not_go_unnoticed() {
    let (m, _) = swapping(8 * SKB);
    let reply = packet(Protocol::Tcp, SERVER, LOCAL, 1000);
    let first = m.ingress.receive(m.skb(&fragment(reply, 0)));
    let Verdict::Unclaimed(skb, reason) = first else {
        panic!("{first:?}");
    };
    assert_eq!(m.ingress.stats().vmio_dropped, 0);
    m.ingress.drop_skb(skb, reason);
    assert_eq!(m.ingress.stats().vmio_dropped, 1);
}

#[test]
fn a_priority_tag_is_taken_off_before_the_swap_stack_sees_it() {
    let (m, _) = swapping(8 * SKB);
    let plain = packet(Protocol::Tcp, SERVER, LOCAL, 30);
    let mut tagged = plain.clone();
    tagged.splice(12..12, [0x81, 0, 0xe0, 0]);
    let verdict = m.ingress.receive(m.skb(&tagged));
    assert!(matches!(verdict, Verdict::Swap(skb) if skb.data() == plain));
}

#[test]
fn n6_an_emergency_skb_is_sent_with_vmio_in_it_or_not_at_all() {
    let (m, _) = swapping(8 * SKB);
    let send = |frame: &[u8]| {
        let mut skb = m.pool.alloc_tx().unwrap();
        skb.put(frame.len()).unwrap().copy_from_slice(frame);
        m.ingress.egress(skb).map(|skb| skb.is_emergency())
    };
    let request = packet(Protocol::Tcp, LOCAL, SERVER, 1000);
    let question = arp(*LOCAL.ip(), *SERVER.ip());
    let foreign = packet(Protocol::Udp, LOCAL, STRANGER, 9);
    assert_eq!(
        send(&foreign),
        Ok(false),
        "ordinary memory carries anything"
    );

    let hog = m.exhaust();
    assert_eq!(send(&request), Ok(true));
    assert_eq!(send(&question), Ok(true));
    assert_eq!(send(&foreign), Err(DropReason::EmergencyTransmit));
    assert_eq!(m.tx.usage(), 0, "sent or dropped, every charge has ended");
    let stats = m.ingress.stats();
    assert_eq!((stats.sent_emergency, stats.dropped.total()), (2, 1));
    drop(hog);
    m.assert_quiescent();
}

#[cfg(feature = "ablation")]
mod ablation {
    use super::*;
    use crate::Skb;

    /// A machine without ordinary memory and without `mechanism`.
    fn without(mechanism: Mechanism) -> (Machine, crate::testbed::Hog) {
        let (m, _) = swapping(8 * SKB);
        m.ingress.ablate(mechanism);
        let hog = m.exhaust();
        (m, hog)
    }

    #[test]
    fn n2_without_its_mechanisms_what_does_not_serve_the_vm_stays_in_the_reserve() {
        let (m, _hog) = without(Mechanism::EmergencyUnclaimed);
        for (frame, emergency, ordinary) in foreign_frames() {
            let verdict = m.ingress.receive(m.skb(&frame));
            match ordinary {
                Some(DropReason::Malformed | DropReason::OtherHost) | None => {
                    assert_eq!(reason(verdict), emergency);
                }
                Some(ordinary) => assert!(
                    matches!(&verdict, Verdict::Unclaimed(skb, reason)
                        if *reason == ordinary && skb.is_emergency()),
                    "{verdict:?} instead of {ordinary}"
                ),
            }
        }

        let (m, _hog) = without(Mechanism::EgressFilter);
        let mut skb = m.pool.alloc_tx().unwrap();
        let foreign = packet(Protocol::Udp, LOCAL, STRANGER, 9);
        skb.put(foreign.len()).unwrap().copy_from_slice(&foreign);
        assert!(m.ingress.egress(skb).is_ok_and(|skb| skb.is_emergency()));
    }

    #[test]
    fn n4_without_limits_the_entries_alone_bound_a_queue() {
        let (m, socket) = swapping(0);
        m.sockets.ablate(Mechanism::SocketLimits);
        let verdict = m.ingress.receive(m.skb(&to_port(UDP_PORT)));
        assert!(matches!(verdict, Verdict::Delivered(id) if id == socket));
        assert_eq!(m.sockets.close(socket), Some(1));
        assert_eq!(m.sockets.total_rmem(), 0);
    }

    #[test]
    fn n7_without_the_bypass_full_sockets_hold_the_server_up() {
        let (m, _) = swapping(usize::MAX);
        m.ingress.ablate(Mechanism::VmioBypass);
        m.sockets.bind(Protocol::Tcp, 80, usize::MAX).unwrap();
        let reply = || {
            m.ingress
                .receive(m.skb(&packet(Protocol::Tcp, SERVER, LOCAL, 9)))
        };
        let web = SocketAddrV4::new(*LOCAL.ip(), 80);
        let fill = |protocol, to| {
            let frame = packet(protocol, STRANGER, to, 9);
            while let Verdict::Delivered(_) = m.ingress.receive(m.skb(&frame)) {}
        };
        fill(Protocol::Udp, SocketAddrV4::new(*LOCAL.ip(), UDP_PORT));
        assert!(matches!(reply(), Verdict::Swap(_)), "TCP has room");
        fill(Protocol::Tcp, web);
        assert_eq!(reason(reply()), DropReason::ProtocolMemoryFull);
        assert_eq!(m.ingress.stats().vmio_dropped, 1);
    }

    #[test]
    fn n8_without_its_mechanisms_the_neighbour_entry_is_lost() {
        let (m, _hog) = without(Mechanism::ControlPlane);
        for (frame, expected) in [
            (arp(*SERVER.ip(), *LOCAL.ip()), DropReason::EmergencyArp),
            (
                icmp(3, Protocol::Tcp, LOCAL, SERVER),
                DropReason::EmergencyIcmp,
            ),
        ] {
            assert_eq!(reason(m.ingress.receive(m.skb(&frame))), expected);
        }
        assert_eq!(m.ingress.stats().vmio_dropped, 2);

        let (m, hog) = without(Mechanism::ForeignArp);
        let foreign = arp(*STRANGER.ip(), *LOCAL.ip());
        let swap = |skb: Skb<'static>| matches!(m.ingress.receive(skb), Verdict::Swap(_));
        assert!(swap(m.skb(&foreign)), "in an emergency skb");
        drop(hog);
        assert!(swap(m.skb(&foreign)), "in an ordinary one");
    }
}

/// As a panic handler would. The lock panics when its holder takes it again.
#[test]
fn a_snapshot_of_the_ladder_takes_no_lock() {
    let (m, _) = swapping(0);
    assert_eq!(
        reason(m.ingress.receive(m.skb(&[0; 10]))),
        DropReason::Malformed
    );
    let stats = m.ingress.stats();
    let held = m.ingress.state.lock();
    assert_eq!(m.ingress.stats(), stats);
    drop(held);
    assert_eq!((stats.received, stats.dropped.total()), (1, 1));
}
