//! The receive path: a buffer for the ring, the ladder, the sockets.

use netreserve::{DropReason, Protocol, Skb, Verdict};

use crate::inject::{Run, sweep};
use crate::machine::{Machine, SKB, emergencies, machine};
use crate::packets::*;

/// Frames of every kind, and what becomes of them in ordinary memory.
fn frames() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("vmio", reply(1000)),
        ("vmio, tagged", tagged(reply(10))),
        ("arp of the server", arp(*SERVER.ip())),
        ("icmp error", unreachable()),
        ("udp to a socket", udp(UDP_PORT, 300)),
        ("udp to nobody", udp(99, 300)),
        ("tcp to nobody", tcp(STRANGER, LOCAL, 9)),
        ("arp of a stranger", arp(*STRANGER.ip())),
        ("first fragment", fragment(udp(UDP_PORT, 64), 0)),
        ("later fragment", fragment(udp(UDP_PORT, 64), 8)),
        ("fragment of vmio", fragment(reply(64), 0)),
        ("truncated", udp(UDP_PORT, 30)[..40].to_vec()),
        ("udp to a socket, once more", udp(UDP_PORT, 1)),
    ]
}

/// Runs every frame through the ladder; `posted` buffers are in the ring.
fn receive(run: &Run<'_>, m: &Machine) {
    let mut ring: Vec<Skb<'static>> = Vec::new();
    let before = m.ingress.stats();
    let allocated = m.pool.stats().rx;
    let mut tries = 0;
    let (mut received, mut unclaimed, mut kept) = (0, 0, Vec::new());
    for (step, frame) in frames() {
        run.step(step);
        while ring.len() < 2 {
            tries += 1;
            match run.need(m.pool.alloc_rx()) {
                Some(skb) => ring.push(skb),
                None => break,
            }
        }
        m.assert_charged(emergencies(ring.iter().chain(&kept)), 0);
        let Some(mut skb) = ring.pop() else { continue };
        skb.put(frame.len()).unwrap().copy_from_slice(&frame);
        let emergency = skb.is_emergency();
        received += 1;
        match m.ingress.receive(skb) {
            // The swap stack frees it before it asks for the next.
            Verdict::Swap(skb) => assert!(frame.ends_with(&skb.data()[14..])),
            Verdict::Unclaimed(skb, reason) => {
                assert!(!emergency, "N2");
                unclaimed += 1;
                assert_eq!(m.ingress.drop_skb(skb, reason), reason);
            }
            Verdict::Delivered(socket) => {
                assert!(!emergency, "N2");
                if kept.is_empty() {
                    kept.extend(m.sockets.recv(socket));
                }
            }
            Verdict::Taken(_) => unreachable!("there is no consumer"),
            Verdict::Dropped(reason) => {
                let full = matches!(
                    reason,
                    DropReason::RcvbufFull | DropReason::ProtocolMemoryFull | DropReason::QueueFull
                );
                assert!(emergency || !full, "{step}: {reason}");
            }
        }
        assert_eq!(m.sockets.stats().emergency, 0);
    }
    let after = m.ingress.stats();
    assert_eq!(after.received - before.received, received);
    let fate = |s: netreserve::IngressStats| s.vmio + s.control + s.delivered + s.dropped.total();
    assert_eq!(
        fate(after) - fate(before),
        received,
        "each was counted once"
    );
    assert!(unclaimed <= received);
    let now = m.pool.stats().rx;
    let sum = |s: netreserve::AllocStats| s.ordinary + s.emergency + s.failed;
    assert_eq!(sum(now) - sum(allocated), tries);
}

#[test]
fn n3_a_receiver_loses_no_buffer_and_no_charge_whichever_allocation_fails() {
    for want in [false, true] {
        let m = machine();
        let scenario = |run: &Run<'_>| {
            m.flows.add(swap()).unwrap();
            let socket = m.sockets.bind(Protocol::Udp, UDP_PORT, 4 * SKB).unwrap();
            let hog = want.then(|| m.exhaust());
            receive(run, &m);
            drop(hog);
            assert!(m.sockets.close(socket).is_some());
            m.flows.remove(swap()).unwrap();
        };
        let name = if want { "receive, in want" } else { "receive" };
        sweep(name, m.injector, scenario, || m.at_rest());
    }
}

/// N1: without a VMIO flow nobody comes near the reserve, whatever fails.
#[test]
fn n1_without_a_flow_a_receiver_that_fails_does_not_dip() {
    let m = machine();
    let scenario = |run: &Run<'_>| {
        run.step("no flow");
        let held: Vec<_> = (0..5).filter_map(|_| run.need(m.pool.alloc_rx())).collect();
        m.assert_charged(0, 0);
        let _hog = m.exhaust();
        run.step("no flow, in want");
        assert!(m.pool.alloc_rx().is_err() && m.pool.alloc_tx().is_err());
        m.assert_charged(0, 0);
        drop(held);
    };
    sweep("receive without a flow", m.injector, scenario, || {
        m.at_rest()
    });
}
