//! Every frame has one verdict, and every drop one reason.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::testbed::{MAC, leak};
use crate::{DhcpClient, FirstFragment, Policy};

/// Takes all TCP of strangers.
struct Proxy;

impl Consumer<'static> for Proxy {
    fn policy(&self) -> Policy {
        Policy {
            sees: Sees::Foreign,
            keeps: Keeps::Skbs,
        }
    }

    fn take(&self, skb: Skb<'static>, class: Class) -> Result<(), Skb<'static>> {
        match class {
            Class::Socket {
                protocol: Protocol::Tcp,
                ..
            } => Ok(()),
            _ => Err(skb),
        }
    }
}

/// Frames of every class, by number.
fn frames() -> Vec<Vec<u8>> {
    let mut frames: Vec<_> = foreign_frames().map(|(frame, ..)| frame).into();
    let reply = packet(Protocol::Tcp, SERVER, LOCAL, 100);
    frames.push(reply.clone());
    frames.push(fragment(reply.clone(), 0));
    frames.push(fragment(reply.clone(), 100));
    frames.push(arp(*SERVER.ip(), *LOCAL.ip()));
    frames.push(icmp(3, Protocol::Tcp, LOCAL, SERVER));
    frames.push(to_port(UDP_PORT + 1));
    let client = SocketAddrV4::new(*LOCAL.ip(), 68);
    let mut dhcp = packet(
        Protocol::Udp,
        SocketAddrV4::new(*SERVER.ip(), 67),
        client,
        240,
    );
    dhcp[42..45].copy_from_slice(&[2, 1, 6]);
    dhcp[70..76].copy_from_slice(&MAC);
    dhcp[278..282].copy_from_slice(&[0x63, 0x82, 0x53, 0x63]);
    frames.push(dhcp);
    frames.push([&reply[..12], &[0x81, 0, 0, 7], &reply[12..]].concat());
    frames.push(ethernet(0x86dd, &[0x60; 80]));
    frames
}

/// A ladder that has everything.
fn ladder(m: &Machine) -> &'static Ingress<'static> {
    let flows = leak(
        crate::FlowTable::new(vec_of(crate::Slot::EMPTY), vec_of(crate::Slot::EMPTY))
            .with_fragments(vec_of(FirstFragment::EMPTY)),
    );
    flows.add(SWAP).unwrap();
    flows.allow_dhcp(DhcpClient::new(MAC));
    let ingress =
        leak(Ingress::new(flows, m.sockets, MAC).with_consumers(vec_of(ConsumerSlot::EMPTY)));
    ingress.register(leak(Proxy)).unwrap();
    ingress
}

fn vec_of<T: Clone>(empty: T) -> &'static mut [T] {
    alloc::vec![empty; 4].leak()
}

#[test]
fn n8_fragments_and_the_lease_pass_in_emergency_skbs() {
    let (m, _) = swapping(SKB);
    let ingress = ladder(&m);
    let _hog = m.exhaust();
    let frames = frames();
    for at in [9, 10, 14] {
        let skb = m.skb(&frames[at]);
        assert!(skb.is_emergency());
        let verdict = ingress.receive(skb);
        assert!(matches!(verdict, Verdict::Swap(_)), "{at}: {verdict:?}");
    }
    let stats = ingress.stats();
    assert_eq!((stats.vmio, stats.vmio_fragments, stats.control), (2, 2, 1));
}

/// Else a packet that began while memory was left would lose its end each time that it is sent.
#[test]
fn n8_our_fragments_go_on_in_the_reserve_wherever_the_first_one_was() {
    let (m, _) = swapping(SKB);
    let ingress = ladder(&m);
    let request = packet(Protocol::Tcp, LOCAL, SERVER, 100);
    let first = m.skb(&fragment(request.clone(), 0));
    assert!(!first.is_emergency());
    ingress.egress(first).unwrap();
    let _hog = m.exhaust();
    let rest = m.skb(&fragment(request, 100));
    assert!(rest.is_emergency());
    assert!(ingress.egress(rest).is_ok());
}

#[test]
fn a_tag_is_put_into_ethernet_headers_alone() {
    let (m, _) = swapping(SKB);
    let vlan = crate::VlanId::new(7).unwrap();
    let ingress = Ingress::over_ip(m.flows, m.sockets).in_vlan(vlan);
    let sent = ingress.egress(m.skb(&[0x45; 40])).unwrap();
    assert_eq!(sent.data(), [0x45; 40]);
    let ingress = Ingress::new(m.flows, m.sockets, MAC).in_vlan(vlan);
    let refused = ingress.egress(m.skb(&[0; 13])).unwrap_err();
    assert_eq!(refused, DropReason::Malformed);
}

/// Learned from a frame for another host, it would open the door to fragments of that host.
#[test]
fn n2_nothing_is_learned_from_a_frame_for_another_host() {
    let (m, _) = swapping(SKB);
    let ingress = ladder(&m);
    let mut frames = frames();
    frames[9][5] ^= 1;
    assert_eq!(
        reason(ingress.receive(m.skb(&frames[9]))),
        DropReason::OtherHost
    );
    let rest = ingress.receive(m.skb(&frames[10]));
    assert!(matches!(rest, Verdict::Unclaimed(_, DropReason::Fragment)));
}

#[cfg(feature = "ablation")]
#[test]
fn n8_without_their_mechanisms_fragments_and_the_lease_are_strangers() {
    let frames = frames();
    for (mechanism, at, expected) in [
        (Mechanism::Fragments, 9, DropReason::EmergencyFragment),
        (Mechanism::Fragments, 10, DropReason::EmergencyFragment),
        (Mechanism::Dhcp, 14, DropReason::EmergencyUdp),
    ] {
        let (m, _) = swapping(SKB);
        let ingress = ladder(&m);
        ingress.ablate(mechanism);
        let _hog = m.exhaust();
        assert_eq!(reason(ingress.receive(m.skb(&frames[at]))), expected);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn n2_every_frame_has_one_verdict_and_every_drop_one_reason(
        script in proptest::collection::vec((0usize..17, any::<bool>(), 0u8..4), 1..60),
    ) {
        let (m, _) = swapping(4 * SKB);
        let ingress = ladder(&m);
        let frames = frames();
        let mut dropped: BTreeMap<&str, u64> = BTreeMap::new();
        let (mut swap, mut delivered, mut taken, mut unclaimed) = (0, 0, 0, 0);
        let mut emergency_frames = 0;
        for (at, emergency, cut) in &script {
            let hog = emergency.then(|| m.exhaust());
            let frame = &frames[*at];
            let len = frame.len() - if *cut == 3 { frame.len() / 2 } else { 0 };
            let skb = m.skb(&frame[..len]);
            emergency_frames += u64::from(skb.is_emergency());
            match ingress.receive(skb) {
                Verdict::Swap(_) => swap += 1,
                Verdict::Delivered(_) => delivered += 1,
                Verdict::Taken(_) => taken += 1,
                Verdict::Unclaimed(skb, reason) => {
                    prop_assert!(!skb.is_emergency());
                    unclaimed += 1;
                    ingress.drop_skb(skb, reason);
                    *dropped.entry(reason.name()).or_default() += 1;
                }
                Verdict::Dropped(reason) => *dropped.entry(reason.name()).or_default() += 1,
            }
            drop(hog);
        }
        let stats = ingress.stats();
        prop_assert_eq!(stats.received, script.len() as u64);
        prop_assert_eq!(stats.received_emergency, emergency_frames);
        prop_assert_eq!((stats.vmio + stats.control, stats.delivered, stats.taken), (swap, delivered, taken));
        let total: u64 = dropped.values().sum();
        prop_assert_eq!(stats.received, swap + delivered + taken + total);
        prop_assert!(unclaimed <= total);
        for (reason, count) in stats.dropped.iter() {
            prop_assert_eq!(count, dropped.get(reason.name()).copied().unwrap_or(0), "{}", reason);
        }
    }
}
