use alloc::vec;
use alloc::vec::Vec;
use core::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::{Protocol, VlanId};

const LOCAL: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 0, 2, 15), 700);
const SERVER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 0, 2, 2), 2049);
const SERVER6: SocketAddrV6 =
    SocketAddrV6::new(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2), 2049, 0, 0);

#[test]
fn flows_and_addresses_are_bounded_and_refusals_change_nothing() {
    let (mut flows, mut addrs) = ([const { Slot::EMPTY }; 1], [const { Slot::EMPTY }; 3]);
    let table = FlowTable::new(&mut flows, &mut addrs);
    assert!(!table.any());
    table.add(Flow::tcp(LOCAL, SERVER)).unwrap();
    assert_eq!(table.add(Flow::tcp(LOCAL, SERVER)), Err(FlowError::Present));
    assert_eq!(table.add(Flow::udp(LOCAL, SERVER)), Err(FlowError::Full));
    assert!(!table.contains(Flow::udp(LOCAL, SERVER)) && table.any());

    let gateway = Ipv4Addr::new(10, 0, 2, 1);
    table.add_peer(gateway).unwrap();
    assert_eq!(table.add_peer(gateway), Err(FlowError::Present));
    assert_eq!(table.add_peer(*SERVER6.ip()), Err(FlowError::Full));
    table.add_peer(*SERVER.ip()).unwrap();
    table.remove(Flow::tcp(LOCAL, SERVER)).unwrap();
    assert!(
        !table.any() && table.is_peer(*SERVER.ip()),
        "it was added, too"
    );
    table.remove_peer(*SERVER.ip()).unwrap();
    assert!(!table.is_peer(*SERVER.ip()));
    table.remove_peer(gateway).unwrap();
    assert_eq!(table.remove_peer(gateway), Err(FlowError::Absent));
}

#[test]
fn a_flow_without_room_for_both_addresses_leaves_none_behind() {
    let (mut flows, mut addrs) = ([const { Slot::EMPTY }; 2], [const { Slot::EMPTY }; 1]);
    let table = FlowTable::new(&mut flows, &mut addrs);
    assert_eq!(table.add(Flow::tcp(LOCAL, SERVER)), Err(FlowError::Full));
    assert!(!table.any() && !table.is_local(*LOCAL.ip()));
    let loopback = Flow::tcp(LOCAL, LOCAL);
    table.add(loopback).unwrap();
    assert!(table.is_local(*LOCAL.ip()) && table.is_peer(*LOCAL.ip()));
    table.remove(loopback).unwrap();
    table.add_peer(*SERVER.ip()).unwrap();
}

#[test]
fn what_is_no_flow_is_refused_by_name() {
    let (mut flows, mut addrs) = ([const { Slot::EMPTY }; 4], [const { Slot::EMPTY }; 4]);
    let table = FlowTable::new(&mut flows, &mut addrs);
    assert_eq!(
        table.add(Flow::tcp(LOCAL, SERVER6)),
        Err(FlowError::Families)
    );
    assert_eq!(
        table.add(Flow::udp(SERVER6, LOCAL)),
        Err(FlowError::Families)
    );
    for nobody in [
        Ipv4Addr::UNSPECIFIED,
        Ipv4Addr::BROADCAST,
        Ipv4Addr::new(224, 0, 0, 1),
    ] {
        let end = SocketAddrV4::new(nobody, 1);
        assert_eq!(table.add(Flow::udp(LOCAL, end)), Err(FlowError::NotUnicast));
        assert_eq!(
            table.add(Flow::udp(end, SERVER)),
            Err(FlowError::NotUnicast)
        );
        assert_eq!(table.add_peer(nobody), Err(FlowError::NotUnicast));
    }
    for nobody in [
        Ipv6Addr::UNSPECIFIED,
        Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1),
    ] {
        let end = SocketAddrV6::new(nobody, 1, 0, 0);
        assert_eq!(
            table.add(Flow::udp(end, SERVER6)),
            Err(FlowError::NotUnicast)
        );
    }
    assert!(!table.any());
}

#[test]
fn n8_the_server_is_a_peer_for_as_long_as_a_flow_to_it_exists() {
    let (mut flows, mut addrs) = ([const { Slot::EMPTY }; 2], [const { Slot::EMPTY }; 2]);
    let table = FlowTable::new(&mut flows, &mut addrs);
    assert!(!table.is_peer(*SERVER.ip()));
    table.add(Flow::tcp(LOCAL, SERVER)).unwrap();
    table.add(Flow::udp(LOCAL, SERVER)).unwrap();
    assert!(table.is_peer(*SERVER.ip()) && !table.is_peer(*LOCAL.ip()));
    assert!(table.is_local(*LOCAL.ip()) && !table.is_local(*SERVER.ip()));
    table.remove(Flow::tcp(LOCAL, SERVER)).unwrap();
    assert!(table.is_peer(*SERVER.ip()));
    table.remove(Flow::udp(LOCAL, SERVER)).unwrap();
    assert!(!table.is_peer(*SERVER.ip()) && !table.is_local(*LOCAL.ip()));
}

/// Ends out of few, so that they meet.
fn flow() -> impl Strategy<Value = Flow> {
    (any::<[bool; 3]>(), 1u8..4, 1u8..4, 1u16..3).prop_map(|([udp, v6, tagged], a, b, port)| {
        let end = |host: u8, port| match v6 {
            true => SocketAddrV6::new(
                Ipv6Addr::from(0xfe80_u128 << 112 | u128::from(host)),
                port,
                0,
                0,
            )
            .into(),
            false => SocketAddr::from(([10, 0, 2, host], port)),
        };
        let protocol = if udp { Protocol::Udp } else { Protocol::Tcp };
        let flow = Flow::new(protocol, end(a, port), end(b, 2049));
        match tagged {
            true => flow.in_vlan(VlanId::new(7).unwrap()),
            false => flow,
        }
    })
}

proptest! {
    /// The references on addresses are those of a model that counts over all flows.
    #[test]
    fn n8_peers_are_the_remotes_of_the_flows_and_what_was_added(
        ops in proptest::collection::vec((0u8..4, flow()), 0..100),
    ) {
        let (mut flows, mut addrs) = (vec![Slot::EMPTY; 8], vec![Slot::EMPTY; 9]);
        let table = FlowTable::new(&mut flows, &mut addrs);
        let mut model: Vec<Flow> = Vec::new();
        let mut added: Vec<Neighbour> = Vec::new();
        let known = |model: &[Flow], added: &[Neighbour]| {
            let mut known: BTreeMap<_, (bool, bool)> = BTreeMap::new();
            for flow in model {
                known.entry((flow.local_addr(), flow.vlan())).or_default().0 = true;
                known.entry((flow.remote_addr(), flow.vlan())).or_default().1 = true;
            }
            for peer in added {
                known.entry((peer.addr, peer.vlan)).or_default().1 = true;
            }
            known
        };
        for (op, flow) in ops {
            let peer = flow.remote_neighbour();
            let result = match op {
                0 => table.add(flow),
                1 => table.remove(flow),
                2 => table.add_peer(peer),
                _ => table.remove_peer(peer),
            };
            let present = model.contains(&flow);
            let listed = added.contains(&peer);
            let (mut next, mut next_added) = (model.clone(), added.clone());
            let expected = match op {
                0 if present => Err(FlowError::Present),
                0 => { next.push(flow); Ok(()) }
                1 if present => { next.retain(|f| *f != flow); Ok(()) }
                1 => Err(FlowError::Absent),
                2 if listed => Err(FlowError::Present),
                2 => { next_added.push(peer); Ok(()) }
                _ if listed => { next_added.retain(|p| *p != peer); Ok(()) }
                _ => Err(FlowError::Absent),
            };
            let fits = next.len() <= 8 && known(&next, &next_added).len() <= 9;
            if expected.is_ok() && !fits {
                prop_assert_eq!(result, Err(FlowError::Full));
            } else {
                prop_assert_eq!(result, expected);
                (model, added) = (next, next_added);
            }
            let known = known(&model, &added);
            for host in 1..4 {
                for (bits, vlan) in [(0xfe80_u128 << 112, None), (0xffff_0a00_0200, VlanId::new(7)), (0xffff_0a00_0200, None)] {
                    let neighbour = Neighbour { addr: Ipv6Addr::from(bits | host), vlan };
                    let (local, peer) = known.get(&(neighbour.addr, vlan)).copied().unwrap_or_default();
                    prop_assert_eq!((table.is_local(neighbour), table.is_peer(neighbour)), (local, peer));
                }
            }
            prop_assert_eq!(table.any(), !model.is_empty());
        }
    }
}
