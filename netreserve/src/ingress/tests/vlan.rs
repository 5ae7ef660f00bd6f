//! A swap stack that lives in a VLAN.

use super::*;
use crate::testbed::leak;
use crate::{SkbPool, VlanId};

const HEADROOM: usize = 4;

struct Bed {
    m: Machine,
    pool: &'static SkbPool<'static>,
    ingress: Ingress<'static>,
}

fn bed() -> Bed {
    let m = machine();
    let vlan = VlanId::new(0x123).unwrap();
    m.flows.add(SWAP.in_vlan(vlan)).unwrap();
    let pool = SkbPool::new(m.cache, m.rx, m.tx, m.flows, m.token);
    let ingress = Ingress::new(m.flows, m.sockets, crate::testbed::MAC).in_vlan(vlan);
    let pool = leak(pool.with_headroom(HEADROOM));
    Bed { m, pool, ingress }
}

fn tagged(frame: &[u8], tag: u16) -> Vec<u8> {
    [&frame[..12], &[0x81, 0], &tag.to_be_bytes(), &frame[12..]].concat()
}

#[test]
fn the_swap_stack_of_a_vlan_sees_no_tags_and_sends_none() {
    let Bed { m, pool, ingress } = bed();
    let reply = packet(Protocol::Tcp, SERVER, LOCAL, 100);
    for frame in [reply.clone(), arp(*SERVER.ip(), *LOCAL.ip())] {
        let verdict = ingress.receive(m.skb(&tagged(&frame, 0x6123)));
        assert!(matches!(&verdict, Verdict::Swap(skb) if skb.data() == frame));
        drop(verdict);
        for foreign in [frame.clone(), tagged(&frame, 0), tagged(&frame, 0x124)] {
            let verdict = ingress.receive(m.skb(&foreign));
            assert!(matches!(verdict, Verdict::Unclaimed(..)), "{verdict:?}");
        }
    }

    let send = |frame: &[u8]| {
        let mut skb = pool.alloc_tx().unwrap();
        skb.put(frame.len()).unwrap().copy_from_slice(frame);
        ingress
            .egress(skb)
            .map(|skb| (skb.data().to_vec(), skb.is_emergency()))
    };
    let request = packet(Protocol::Tcp, LOCAL, SERVER, 100);
    let question = arp(*LOCAL.ip(), *SERVER.ip());
    let foreign = packet(Protocol::Udp, LOCAL, STRANGER, 9);
    for frame in [&request, &question, &foreign] {
        assert_eq!(send(frame), Ok((tagged(frame, 0x123), false)));
    }
    let _hog = m.exhaust();
    for frame in [&request, &question] {
        assert_eq!(send(frame), Ok((tagged(frame, 0x123), true)));
    }
    assert_eq!(send(&foreign), Err(DropReason::EmergencyTransmit));
    assert_eq!(m.tx.usage(), 0);
}

#[test]
fn a_tag_that_cannot_be_put_in_is_a_drop_by_name() {
    let Bed { m, pool, ingress } = bed();
    let request = packet(Protocol::Tcp, LOCAL, SERVER, 100);
    let make = |pool: &SkbPool<'static>| {
        let mut skb = pool.alloc_tx().unwrap();
        skb.put(request.len()).unwrap().copy_from_slice(&request);
        skb
    };
    let tight = ingress.egress(make(m.pool));
    assert_eq!(tight.unwrap_err(), DropReason::NoHeadroom);
    let mut kept = make(pool);
    let clone = kept.try_clone().unwrap();
    assert_eq!(ingress.egress(clone).unwrap_err(), DropReason::SharedTag);
    assert_eq!(kept.data(), request, "who keeps it has it unchanged");
    assert_eq!(ingress.stats().vmio_dropped, 2);
}
