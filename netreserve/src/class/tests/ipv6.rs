//! IPv6: extension headers, neighbour discovery, errors.

use alloc::vec;
use alloc::vec::Vec;
use core::net::{Ipv6Addr, SocketAddrV6};

use super::*;

const fn ip(host: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, host)
}

const fn link_local(host: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, host)
}

pub(super) const LOCAL6: SocketAddrV6 = SocketAddrV6::new(ip(1), 700, 0, 0);
pub(super) const SERVER6: SocketAddrV6 = SocketAddrV6::new(ip(2), 2049, 0, 0);
const STRANGER6: SocketAddrV6 = SocketAddrV6::new(ip(0x66), 6666, 0, 0);
/// The router, as it advertises itself.
const ROUTER: Ipv6Addr = link_local(3);
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
const MLD_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 22);

fn with_flow6(check: impl FnOnce(&FlowTable<'_>)) {
    let (mut flows, mut addrs) = ([const { Slot::EMPTY }; 4], [const { Slot::EMPTY }; 8]);
    let table = FlowTable::new(&mut flows, &mut addrs);
    table.add(Flow::tcp(LOCAL6, SERVER6)).unwrap();
    table.add_peer(ROUTER).unwrap();
    check(&table);
}

fn ipv6(next: u8, hops: u8, from: Ipv6Addr, to: Ipv6Addr, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend((payload.len() as u16).to_be_bytes());
    packet.extend([next, hops]);
    packet.extend(from.octets());
    packet.extend(to.octets());
    packet.extend(payload);
    ethernet(0x86dd, &packet)
}

fn segment(from: SocketAddrV6, to: SocketAddrV6) -> Vec<u8> {
    let mut segment = vec![0; 20];
    segment[..2].copy_from_slice(&from.port().to_be_bytes());
    segment[2..4].copy_from_slice(&to.port().to_be_bytes());
    segment[12] = 0x50;
    segment
}

/// A segment of TCP behind `extensions`, each with its kind and its bytes.
pub(super) fn behind(extensions: &[(u8, &[u8])], from: SocketAddrV6, to: SocketAddrV6) -> Vec<u8> {
    let mut payload = Vec::new();
    for (at, (_, bytes)) in extensions.iter().enumerate() {
        payload.push(extensions.get(at + 1).map_or(6, |(kind, _)| *kind));
        payload.extend(*bytes);
    }
    payload.extend(segment(from, to));
    let first = extensions.first().map_or(6, |(kind, _)| *kind);
    ipv6(first, 64, *from.ip(), *to.ip(), &payload)
}

fn reply(extensions: &[(u8, &[u8])]) -> Vec<u8> {
    behind(extensions, SERVER6, LOCAL6)
}

const OPTIONS: &[u8] = &[0, 1, 4, 0, 0, 0, 0];
const LONG_OPTIONS: &[u8] = &[1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
const HOP_BY_HOP: (u8, &[u8]) = (0, OPTIONS);
const ROUTED: (u8, &[u8]) = (43, &[0, 4, 0, 0, 0, 0, 0]);
const ATOMIC: (u8, &[u8]) = (44, &[0, 0, 0, 0, 0, 0, 9]);
const DESTINATION: (u8, &[u8]) = (60, OPTIONS);
const LONG_DESTINATION: (u8, &[u8]) = (60, LONG_OPTIONS);

#[test]
fn a_flow_is_found_behind_the_extension_headers_that_a_host_may_meet() {
    with_flow6(|flows| {
        for extensions in [
            &[][..],
            &[HOP_BY_HOP],
            &[LONG_DESTINATION],
            &[HOP_BY_HOP, DESTINATION, ROUTED, ATOMIC, LONG_DESTINATION],
            &[DESTINATION; 8],
        ] {
            let frame = reply(extensions);
            assert_eq!(classify(&frame, flows), Class::Vmio, "{extensions:?}");
            let other = behind(extensions, STRANGER6, LOCAL6);
            let socket = Class::Socket {
                protocol: Protocol::Tcp,
                local_port: 700,
            };
            assert_eq!(classify(&other, flows), socket);
        }
        let request = behind(&[], LOCAL6, SERVER6);
        assert_eq!(classify_outgoing(&request, flows), Class::Vmio);
    });
}

#[test]
fn extension_headers_without_end_or_with_another_end_are_nobodys() {
    with_flow6(|flows| {
        let underway = (43, &[0, 4, 1, 0, 0, 0, 0][..]);
        for extensions in [
            &[DESTINATION; 9][..],
            &[underway],
            &[DESTINATION, HOP_BY_HOP],
            &[HOP_BY_HOP, HOP_BY_HOP],
        ] {
            assert_eq!(classify(&reply(extensions), flows), Class::Other);
        }
        let frame = reply(&[LONG_DESTINATION]);
        for cut in 54..frame.len() {
            let mut frame = frame[..cut].to_vec();
            frame[18..20].copy_from_slice(&(cut as u16 - 54).to_be_bytes());
            let class = classify(&frame, flows);
            let reason = match cut {
                ..70 => Malformed::Ipv6,
                _ => Malformed::Transport,
            };
            assert_eq!(class, Class::Malformed(reason), "{cut}");
        }
        let mut short = reply(&[]);
        short[19] += 1;
        assert_eq!(classify(&short, flows), Class::Malformed(Malformed::Ipv6));
        short[14] = 0x50;
        assert_eq!(classify(&short, flows), Class::Malformed(Malformed::Ipv6));
        let padded = [&reply(&[])[..], &[0xff; 9]].concat();
        assert_eq!(classify(&padded, flows), Class::Vmio);
    });
}

/// On the wire nothing comes from `::ffff:10.0.0.2`. Who sends it nevertheless is not 10.0.0.2.
#[test]
fn n2_a_mapped_address_on_the_wire_is_not_that_of_a_flow_over_ipv4() {
    with_swap_flow(|flows| {
        let mapped =
            |end: SocketAddrV4| SocketAddrV6::new(end.ip().to_ipv6_mapped(), end.port(), 0, 0);
        let (server, local) = (mapped(SERVER), mapped(LOCAL));
        assert!(
            flows.contains(Flow::tcp(local, server)),
            "as a socket says it"
        );
        let frame = behind(&[], server, local);
        assert_eq!(classify(&frame, flows), Class::Other);
        assert_eq!(
            classify_outgoing(&behind(&[], local, server), flows),
            Class::Other
        );
        let error = error(1, 0, behind(&[], local, server));
        assert_eq!(classify(&error, flows), Class::Icmp);
        let addr = SERVER.ip().to_ipv6_mapped();
        let advert = ndp(ADVERT, addr, ALL_NODES, &[addr]);
        assert!(!classify(&advert, flows).serves_vm());
    });
}

/// An error that quotes a frame of ours.
fn error(kind: u8, code: u8, quoted: Vec<u8>) -> Vec<u8> {
    let mut message = vec![kind, code, 0, 0, 0, 0, 0, 0];
    message.extend(&quoted[14..]);
    ipv6(58, 64, ip(99), ip(1), &message)
}

#[test]
fn n8_icmpv6_errors_about_a_flow_are_control_plane_whoever_sends_them() {
    with_flow6(|flows| {
        for (kind, expected) in [
            (1, Class::Control(Control::IcmpError)),
            (2, Class::Control(Control::PacketTooBig)),
            (3, Class::Control(Control::IcmpError)),
            (4, Class::Icmp),
            (128, Class::Icmp),
        ] {
            for extensions in [&[][..], &[DESTINATION, ATOMIC]] {
                let sent = behind(extensions, LOCAL6, SERVER6);
                assert_eq!(classify(&error(kind, 0, sent), flows), expected);
            }
        }
        let of = |quoted| classify(&error(1, 0, quoted), flows);
        assert_eq!(of(behind(&[], SERVER6, LOCAL6)), Class::Icmp);
        assert_eq!(of(behind(&[], LOCAL6, STRANGER6)), Class::Icmp);
        assert_eq!(of(behind(&[], LOCAL6, SERVER6)[..54].to_vec()), Class::Icmp);
        let later = (44, &[0, 0, 8, 0, 0, 0, 9][..]);
        assert_eq!(of(behind(&[later], LOCAL6, SERVER6)), Class::Icmp);
        assert_eq!(
            of(behind(&[], LOCAL6, SERVER6)[..53].to_vec()),
            Class::Malformed(Malformed::Icmp)
        );
    });
}

/// Neighbour discovery from `from`: the addresses behind the four bytes that differ.
fn ndp(kind: u8, from: Ipv6Addr, to: Ipv6Addr, addrs: &[Ipv6Addr]) -> Vec<u8> {
    ndp_with(kind, 0, 255, from, to, addrs)
}

fn ndp_with(
    kind: u8,
    code: u8,
    hops: u8,
    from: Ipv6Addr,
    to: Ipv6Addr,
    addrs: &[Ipv6Addr],
) -> Vec<u8> {
    let mut message = vec![kind, code, 0, 0, 0, 0, 0, 0];
    message.extend(addrs.iter().flat_map(Ipv6Addr::octets));
    if kind == 134 {
        message.extend([0; 8]);
    }
    ipv6(58, hops, from, to, &message)
}

fn solicited_node(addr: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = addr.octets();
    let (high, low) = (0xff00 | u16::from(a), u16::from_be_bytes([b, c]));
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, high, low)
}

const UNSPECIFIED: Ipv6Addr = Ipv6Addr::UNSPECIFIED;
const SOLICIT: u8 = 135;
const ADVERT: u8 = 136;

#[test]
fn n8_neighbour_discovery_of_peers_and_of_our_own_address_is_control_plane() {
    with_flow6(|flows| {
        let received = |frame: &[u8]| classify(frame, flows) == Class::Control(Control::Ndp);
        let sent = |frame: &[u8]| classify_outgoing(frame, flows) == Class::Control(Control::Ndp);
        let group = solicited_node(ip(1));
        let (server, stranger, us) = (ip(2), ip(0x66), ip(1));

        // Who asks for us, and who says where it is.
        assert!(received(&ndp(SOLICIT, server, group, &[us])));
        assert!(received(&ndp(SOLICIT, ROUTER, us, &[us])));
        assert!(!received(&ndp(SOLICIT, stranger, group, &[us])));
        assert!(received(&ndp(ADVERT, server, us, &[server])));
        assert!(received(&ndp(ADVERT, ROUTER, ALL_NODES, &[ROUTER])));
        assert!(!received(&ndp(ADVERT, stranger, us, &[stranger])));
        // A peer and a stranger in one message: either could be what a stack learns.
        assert!(!received(&ndp(ADVERT, stranger, us, &[server])));
        assert!(!received(&ndp(ADVERT, server, us, &[stranger])));
        // Whether our address is taken is asked by nobody that could be learned.
        assert!(received(&ndp(SOLICIT, UNSPECIFIED, group, &[us])));
        assert!(!received(&ndp(SOLICIT, UNSPECIFIED, group, &[stranger])));

        // What we ask and answer.
        assert!(sent(&ndp(SOLICIT, us, solicited_node(server), &[server])));
        assert!(sent(&ndp(SOLICIT, link_local(1), ROUTER, &[ROUTER])));
        assert!(!sent(&ndp(
            SOLICIT,
            us,
            solicited_node(stranger),
            &[stranger]
        )));
        assert!(sent(&ndp(SOLICIT, UNSPECIFIED, group, &[us])));
        assert!(sent(&ndp(ADVERT, us, server, &[us])));
        assert!(sent(&ndp(ADVERT, link_local(1), ROUTER, &[link_local(1)])));
        assert!(sent(&ndp(ADVERT, us, ALL_NODES, &[us])));
        assert!(!sent(&ndp(ADVERT, us, ALL_NODES, &[stranger])));
        assert!(!sent(&ndp(ADVERT, us, stranger, &[us])));
    });
}

#[test]
fn n8_routers_are_heard_and_redirects_lead_to_peers_alone() {
    with_flow6(|flows| {
        let received = |frame: &[u8]| classify(frame, flows);
        let control = Class::Control(Control::Ndp);
        assert_eq!(received(&ndp(134, ROUTER, ALL_NODES, &[])), control);
        assert_eq!(
            received(&ndp(134, link_local(9), ALL_NODES, &[])),
            Class::Ndp
        );
        assert_eq!(received(&ndp(133, ROUTER, ALL_ROUTERS, &[])), Class::Ndp);
        let redirect = |from, target| received(&ndp(137, from, ip(1), &[target, ip(2)]));
        assert_eq!(
            redirect(ROUTER, ip(2)),
            control,
            "the server is on the link"
        );
        assert_eq!(redirect(ROUTER, link_local(9)), Class::Ndp);
        assert_eq!(redirect(link_local(9), ip(2)), Class::Ndp);
        let elsewhere = ndp(137, ROUTER, ip(1), &[ip(2), ip(0x66)]);
        assert_eq!(received(&elsewhere), Class::Ndp);

        let sent = |frame: &[u8]| classify_outgoing(frame, flows);
        assert_eq!(sent(&ndp(133, link_local(1), ALL_ROUTERS, &[])), control);
        assert_eq!(sent(&ndp(133, link_local(1), ip(0x66), &[])), Class::Ndp);
        assert_eq!(sent(&ndp(134, ip(1), ip(2), &[])), Class::Ndp);
    });
}

#[test]
fn neighbour_discovery_that_crossed_a_router_or_is_cut_short_is_none() {
    with_flow6(|flows| {
        let from = |code, hops| {
            let frame = ndp_with(ADVERT, code, hops, ip(2), ip(1), &[ip(2)]);
            classify(&frame, flows)
        };
        assert_eq!(from(0, 255), Class::Control(Control::Ndp));
        assert_eq!(from(0, 254), Class::Icmp);
        assert_eq!(from(1, 255), Class::Icmp);
        for (kind, least) in [(133, 8), (134, 16), (135, 24), (136, 24), (137, 40)] {
            let message = [&[kind, 0][..], &[0x20; 60]].concat();
            for len in 4..50 {
                let frame = ipv6(58, 255, ip(2), ip(1), &message[..len]);
                let malformed = classify(&frame, flows) == Class::Malformed(Malformed::Icmp);
                assert_eq!(malformed, len < least, "{kind} {len}");
            }
        }
    });
}

#[test]
fn n8_the_switch_is_told_that_we_listen_while_there_is_a_flow() {
    let message = |kind, hops, from| {
        let to = if kind == 130 { ALL_NODES } else { MLD_ROUTERS };
        let payload = [&[58, 0, 5, 2, 0, 0, 1, 0][..], &[kind], &[0; 27]].concat();
        ipv6(0, hops, from, to, &payload)
    };
    let query = message(130, 1, link_local(9));
    let report = message(143, 1, link_local(1));
    let control = Class::Control(Control::Mld);
    with_flow6(|flows| {
        assert_eq!(classify(&query, flows), control);
        assert_eq!(classify_outgoing(&report, flows), control);
        assert_eq!(
            classify_outgoing(&message(143, 1, UNSPECIFIED), flows),
            control
        );
        assert_eq!(classify(&report, flows), Class::Icmp, "of somebody else");
        assert_eq!(classify_outgoing(&query, flows), Class::Icmp);
        for forged in [
            message(130, 64, link_local(9)),
            message(130, 1, ip(9)),
            message(130, 1, UNSPECIFIED),
        ] {
            assert_eq!(classify(&forged, flows), Class::Icmp);
        }
        flows.remove(Flow::tcp(LOCAL6, SERVER6)).unwrap();
        assert_eq!(classify(&query, flows), Class::Icmp);
    });
    with_swap_flow(|flows| assert_eq!(classify(&query, flows), Class::Icmp));
}

#[test]
fn the_first_fragment_of_a_flow_over_ipv6_is_recognised() {
    with_flow6(|flows| {
        let vmio = |field: [u8; 2]| {
            let header = [0, field[0], field[1], 0, 0, 0, 9];
            classify(&reply(&[(44, &header)]), flows)
        };
        assert_eq!(vmio([0, 1]), Class::Fragment { vmio: true });
        assert_eq!(vmio([0, 8]), Class::Fragment { vmio: false });
        assert_eq!(vmio([0, 6]), Class::Vmio, "reserved bits say nothing");
    });
}
