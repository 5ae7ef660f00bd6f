//! The transmit path: buffers for senders, judged when they are full.

use netreserve::{DropReason, Skb, SkbAllocError};

use crate::inject::{Run, sweep};
use crate::machine::{Machine, RING, emergencies, machine};
use crate::packets::*;

fn transmit(run: &Run<'_>, m: &Machine) {
    let mut ring: Vec<Skb<'static>> = Vec::new();
    let before = m.pool.stats().tx;
    let mut tries = 0;
    let senders = [
        ("vmio", request(1400), true),
        ("arp for the server", arp_for_server(), true),
        ("somebody's", tcp(LOCAL, STRANGER, 100), true),
        ("vmio, ordinary memory only", request(0), false),
        ("vmio, again", tagged(request(70)), true),
    ];
    for (step, frame, may_dip) in senders.iter().cycle().take(2 * senders.len()) {
        run.step(step);
        tries += 1;
        let skb = if *may_dip {
            run.need(m.pool.alloc_tx())
        } else {
            match m.pool.alloc_tx_ordinary() {
                Err(SkbAllocError::Memory(_)) => None,
                Err(error) => panic!("{error}: no reserve is asked"),
                Ok(skb) => Some(skb).filter(|skb| !skb.is_emergency()),
            }
        };
        m.assert_charged(0, emergencies(ring.iter().chain(&skb)));
        let Some(mut skb) = skb else { continue };
        skb.put(frame.len()).unwrap().copy_from_slice(frame);
        let emergency = skb.is_emergency();
        match m.ingress.egress(skb) {
            Ok(skb) => ring.push(skb),
            Err(reason) => assert!(emergency && reason == DropReason::EmergencyTransmit),
        }
        if ring.len() == RING {
            ring.remove(0);
        }
        m.assert_charged(0, emergencies(&ring));
    }
    let after = m.pool.stats().tx;
    let sum = |s: netreserve::AllocStats| s.ordinary + s.emergency + s.failed;
    assert_eq!(sum(after) - sum(before), tries);
}

/// An ARP request of ours, for the server.
fn arp_for_server() -> Vec<u8> {
    let mut frame = arp(*LOCAL.ip());
    let target = frame.len() - 4;
    frame[target..].copy_from_slice(&SERVER.ip().octets());
    frame
}

#[test]
fn n3_a_sender_loses_no_buffer_and_no_charge_whichever_allocation_fails() {
    for want in [false, true] {
        let m = machine();
        let scenario = |run: &Run<'_>| {
            m.flows.add(swap()).unwrap();
            let hog = want.then(|| m.exhaust());
            transmit(run, &m);
            drop(hog);
            m.flows.remove(swap()).unwrap();
        };
        let name = if want {
            "transmit, in want"
        } else {
            "transmit"
        };
        sweep(name, m.injector, scenario, || m.at_rest());
    }
}
