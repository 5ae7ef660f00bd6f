use alloc::vec::Vec;

use super::*;
use crate::testbed::{LOCAL, Machine, SKB, STRANGER, SWAP, machine, packet};

fn udp(m: &Machine, port: u16, mark: usize) -> Result<SocketId, DropReason> {
    let skb = m.skb(&packet(Protocol::Udp, STRANGER, LOCAL, mark));
    m.sockets
        .deliver(Protocol::Udp, port, skb)
        .map_err(|(reason, _)| reason)
}

#[test]
fn a_queue_is_first_in_first_out_and_bounded_by_truesize() {
    let m = machine();
    let id = m.sockets.bind(Protocol::Udp, 9, 3 * SKB).unwrap();
    for mark in 0..3 {
        assert_eq!(udp(&m, 9, mark), Ok(id));
    }
    assert_eq!(udp(&m, 9, 0), Err(DropReason::RcvbufFull));
    assert_eq!(m.sockets.rmem(id), Some(3 * SKB));
    let order: Vec<_> = core::iter::from_fn(|| m.sockets.recv(id))
        .map(|skb| skb.len() - packet(Protocol::Udp, STRANGER, LOCAL, 0).len())
        .collect();
    assert_eq!(order, [0, 1, 2]);
    assert_eq!((m.sockets.rmem(id), m.sockets.queued()), (Some(0), 0));
    m.assert_quiescent();
}

#[test]
fn each_protocol_has_a_limit_of_its_own() {
    let m = machine();
    let ids = [9, 10].map(|port| m.sockets.bind(Protocol::Udp, port, 20 * SKB).unwrap());
    for port in [9, 10] {
        for _ in 0..16 {
            udp(&m, port, 0).unwrap();
        }
    }
    assert_eq!(udp(&m, 9, 0), Err(DropReason::ProtocolMemoryFull));
    let tcp = m.sockets.bind(Protocol::Tcp, 9, SKB).unwrap();
    let skb = m.skb(&packet(Protocol::Tcp, STRANGER, LOCAL, 0));
    assert_eq!(m.sockets.deliver(Protocol::Tcp, 9, skb).ok(), Some(tcp));
    let stats = m.sockets.stats();
    assert_eq!((stats.sockets, stats.waiting, stats.queued), (3, 3, 33));
    assert_eq!((stats.rmem, stats.peak), (33 * SKB, 33 * SKB));
    assert_eq!(m.sockets.total_rmem(), 33 * SKB);

    assert_eq!(ids.map(|id| m.sockets.close(id)), [Some(16), Some(16)]);
    assert_eq!(m.sockets.close(tcp), Some(1));
    m.assert_quiescent();
}

#[test]
fn the_fullest_socket_is_named() {
    let m = machine();
    for (port, count) in [(9, 1), (10, 3), (11, 2)] {
        m.sockets.bind(Protocol::Udp, port, 8 * SKB).unwrap();
        for _ in 0..count {
            udp(&m, port, 0).unwrap();
        }
    }
    let fullest = m.sockets.stats().fullest.unwrap();
    assert_eq!(
        (fullest.port, fullest.queued, fullest.rmem),
        (10, 3, 3 * SKB)
    );
}

#[test]
fn a_closed_socket_is_gone_even_when_its_port_is_bound_again() {
    let m = machine();
    let old = m.sockets.bind(Protocol::Udp, 9, SKB).unwrap();
    assert_eq!(m.sockets.close(old), Some(0));
    assert_eq!(udp(&m, 9, 0), Err(DropReason::NoSocket));
    let new = m.sockets.bind(Protocol::Udp, 9, SKB).unwrap();
    udp(&m, 9, 0).unwrap();
    assert!(m.sockets.recv(old).is_none() && m.sockets.close(old).is_none());
    assert_eq!(
        (m.sockets.rmem(old), m.sockets.rmem(new)),
        (None, Some(SKB))
    );
    assert!(m.sockets.recv(new).is_some());
}

#[test]
fn entries_bound_all_queues_together() {
    let m = machine();
    let entries = [QueueEntry::EMPTY, QueueEntry::EMPTY];
    let table = SocketTable::new(
        crate::testbed::leak([Slot::EMPTY]),
        crate::testbed::leak(entries),
        ProtocolMemory::each(usize::MAX),
    );
    let id = table.bind(Protocol::Udp, 9, usize::MAX).unwrap();
    assert_eq!(
        table.bind(Protocol::Udp, 10, 1).unwrap_err(),
        BindError::Full
    );
    let deliver = || {
        let skb = m.skb(&[]);
        table
            .deliver(Protocol::Udp, 9, skb)
            .map_err(|(reason, _)| reason)
    };
    for _ in 0..3 {
        assert_eq!((deliver(), deliver()), (Ok(id), Ok(id)));
        assert_eq!(deliver(), Err(DropReason::QueueFull));
        assert!(table.recv(id).is_some() && table.recv(id).is_some());
        assert!(table.recv(id).is_none());
    }
}

#[test]
fn n2_an_emergency_skb_is_refused_and_comes_back() {
    let m = machine();
    m.flows.add(SWAP).unwrap();
    m.sockets.bind(Protocol::Tcp, 9, 8 * SKB).unwrap();
    let _hog = m.exhaust();
    let skb = m.skb(&packet(Protocol::Tcp, STRANGER, LOCAL, 0));
    let (reason, skb) = m.sockets.deliver(Protocol::Tcp, 9, skb).unwrap_err();
    assert_eq!(
        (reason, skb.is_emergency()),
        (DropReason::EmergencyTcp, true)
    );
    assert_eq!(m.sockets.queued(), 0);
}
