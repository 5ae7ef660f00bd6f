//! The transmit path: buffers for senders, judged when they are full.

use netreserve::{DropReason, Protocol, SendError, Skb, SkbAllocError, SocketId, VmioRoom};

use crate::inject::{Run, sweep};
use crate::machine::{Machine, RING, SKB, emergencies, machine};
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

/// What a socket sends is counted for it from before the allocation until the card frees it.
fn send(run: &Run<'_>, m: &Machine) {
    let program = m.sockets.bind(Protocol::Udp, 9, 2 * SKB).unwrap();
    let vmio = m.sockets.bind(Protocol::Tcp, LOCAL.port(), SKB).unwrap();
    // In want the ring may be full of what it sent.
    let room = VmioRoom { rx: 1, tx: 3 };
    m.sockets.set_vmio(vmio, swap(), room).unwrap();
    let mut ring: Vec<(SocketId, Skb<'static>)> = Vec::new();
    for sender in [program, vmio, vmio].into_iter().cycle().take(12) {
        let sent = if sender == vmio {
            run.step("a VMIO socket");
            run.need(m.sockets.alloc_send(vmio, m.pool))
        } else {
            run.step("a program's socket");
            match m.sockets.alloc_send(program, m.pool) {
                Err(SendError::Alloc(SkbAllocError::Memory(_))) => None,
                sent => Some(sent.expect("it has room")),
            }
        };
        ring.extend(sent.map(|skb| (sender, skb)));
        let holds = |id| ring.iter().filter(|(sender, _)| *sender == id).count();
        let info = |id| m.sockets.info(id).unwrap();
        assert_eq!(info(program).wmem, holds(program) * SKB);
        let sent = info(vmio);
        assert_eq!(sent.wmem / SKB + sent.vmio_sent, holds(vmio));
        m.assert_charged(0, emergencies(ring.iter().map(|(_, skb)| skb)));
        if ring.len() == 3 {
            ring.remove(0);
        }
    }
    drop(ring);
    m.sockets.clear_vmio(vmio).unwrap();
    assert_eq!(m.sockets.stats().wmem, 0);
    for socket in [program, vmio] {
        assert_eq!(m.sockets.close(socket), Some(0));
    }
}

#[test]
fn n3_a_socket_that_sends_loses_no_count_and_no_charge_whichever_allocation_fails() {
    for want in [false, true] {
        let m = machine();
        let scenario = |run: &Run<'_>| {
            let hog = want.then(|| m.exhaust());
            send(run, &m);
            drop(hog);
        };
        let name = if want { "send, in want" } else { "send" };
        sweep(name, m.injector, scenario, || m.at_rest());
    }
}
