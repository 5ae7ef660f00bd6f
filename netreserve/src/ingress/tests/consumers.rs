//! Taps, queues to user space, forwarding.

use std::sync::Mutex;

use super::*;
use crate::Policy;
use crate::testbed::leak;

/// As `AF_PACKET`: a queue whose reader sleeps. It keeps clones, or copies, or takes the packets as a
/// bridge does.
struct Tap {
    policy: Policy,
    takes: bool,
    held: Mutex<Vec<Skb<'static>>>,
    copied: Mutex<Vec<Vec<u8>>>,
}

impl Tap {
    fn new(sees: Sees, keeps: Keeps, takes: bool) -> &'static Tap {
        leak(Tap {
            policy: Policy { sees, keeps },
            takes,
            held: Mutex::default(),
            copied: Mutex::default(),
        })
    }

    fn seen(&self) -> usize {
        self.held.lock().unwrap().len() + self.copied.lock().unwrap().len()
    }

    fn holds_emergency(&self) -> bool {
        self.held.lock().unwrap().iter().any(Skb::is_emergency)
    }

    /// The reader wakes up at last.
    fn read(&self) {
        self.held.lock().unwrap().clear();
        self.copied.lock().unwrap().clear();
    }
}

impl Consumer<'static> for Tap {
    fn policy(&self) -> Policy {
        self.policy
    }

    fn look(&self, frame: &[u8], _: Class) {
        self.copied.lock().unwrap().push(frame.to_vec());
    }

    fn take(&self, mut skb: Skb<'static>, _: Class) -> Result<(), Skb<'static>> {
        let mut held = self.held.lock().unwrap();
        if self.takes {
            held.push(skb);
            return Ok(());
        }
        held.extend(skb.try_clone());
        Err(skb)
    }
}

/// A machine with a VMIO flow, and a ladder with places for consumers.
fn tapped() -> (Machine, &'static Ingress<'static>) {
    let m = machine();
    m.flows.add(SWAP).unwrap();
    m.sockets.bind(Protocol::Udp, UDP_PORT, usize::MAX).unwrap();
    let slots = leak([ConsumerSlot::EMPTY; 2]);
    let ingress = Ingress::new(m.flows, m.sockets, crate::testbed::MAC);
    (m, leak(ingress.with_consumers(slots)))
}

fn reply() -> Vec<u8> {
    packet(Protocol::Tcp, SERVER, LOCAL, 100)
}

#[test]
fn n2_who_would_keep_what_serves_the_vm_is_refused_when_it_is_registered() {
    let (_, ingress) = tapped();
    let tap = |sees, keeps| ingress.register(Tap::new(sees, keeps, false));
    let refused = Err(ConsumerError::KeepsVmio);
    assert_eq!(tap(Sees::All, Keeps::Skbs), refused);
    let bridge = tap(Sees::Foreign, Keeps::Skbs).unwrap();
    let packet_socket = tap(Sees::All, Keeps::Copies).unwrap();
    assert_ne!(bridge, packet_socket);
    assert_eq!(tap(Sees::All, Keeps::Nothing), Err(ConsumerError::Full));
    assert!(ingress.unregister(bridge) && !ingress.unregister(bridge));
    assert_eq!(
        tap(Sees::Foreign, Keeps::Copies),
        Ok(bridge),
        "its place is free"
    );
    assert!(ingress.unregister(packet_socket) && ingress.unregister(bridge));
    assert!(!ingress.unregister(ConsumerId(7)));
}

#[test]
fn n2_a_tap_that_holds_clones_never_has_one_of_the_reserve() {
    let (m, ingress) = tapped();
    let tap = Tap::new(Sees::Foreign, Keeps::Skbs, false);
    let copies = Tap::new(Sees::All, Keeps::Copies, false);
    ingress.register(tap).unwrap();
    ingress.register(copies).unwrap();

    let delivered = ingress.receive(m.skb(&to_port(UDP_PORT)));
    let Verdict::Delivered(socket) = delivered else {
        panic!("{delivered:?} though it was only looked at");
    };
    let swap = ingress.receive(m.skb(&reply()));
    assert!(matches!(&swap, Verdict::Swap(skb) if !skb.is_shared()));
    assert_eq!(
        (tap.seen(), copies.seen()),
        (1, 2),
        "VMIO is not for the tap"
    );
    drop(swap);

    let hog = m.exhaust();
    for (frame, expected) in [
        (to_port(UDP_PORT), Some(DropReason::EmergencyUdp)),
        (
            arp(*STRANGER.ip(), *LOCAL.ip()),
            Some(DropReason::EmergencyArp),
        ),
        (reply(), None),
        (arp(*SERVER.ip(), *LOCAL.ip()), None),
    ] {
        match (ingress.receive(m.skb(&frame)), expected) {
            (Verdict::Dropped(reason), Some(expected)) => assert_eq!(reason, expected),
            (Verdict::Swap(skb), None) => assert!(skb.is_emergency()),
            (other, _) => panic!("{other:?}"),
        }
    }
    assert_eq!(
        (tap.seen(), copies.seen()),
        (1, 2),
        "they saw nothing of that"
    );
    assert!(!tap.holds_emergency());
    assert_eq!((ingress.stats().untapped, m.rx.usage()), (4, 0));
    tap.read();
    m.sockets.close(socket);
    drop(hog);
    m.assert_quiescent();
}

#[test]
fn n2_forwarding_and_queues_to_user_space_take_ordinary_skbs_of_strangers_alone() {
    let (m, ingress) = tapped();
    let bridge = Tap::new(Sees::Foreign, Keeps::Skbs, true);
    let id = ingress.register(bridge).unwrap();
    let later = Tap::new(Sees::All, Keeps::Nothing, false);
    ingress.register(later).unwrap();
    let verdict = ingress.receive(m.skb(&to_port(UDP_PORT)));
    assert!(matches!(verdict, Verdict::Taken(taken) if taken == id));
    assert_eq!(later.seen(), 0, "it is gone");
    let swap = ingress.receive(m.skb(&reply()));
    assert!(matches!(swap, Verdict::Swap(_)));
    assert_eq!((bridge.seen(), later.seen()), (1, 1));
    // What is not for us, or cannot be read, is nobody's.
    let foreign = [&[2, 0, 0, 0, 0, 77], &reply()[6..]].concat();
    assert_eq!(
        reason(ingress.receive(m.skb(&foreign))),
        DropReason::OtherHost
    );
    assert_eq!(
        reason(ingress.receive(m.skb(b"short"))),
        DropReason::Malformed
    );

    let _hog = m.exhaust();
    let dropped = ingress.receive(m.skb(&to_port(UDP_PORT)));
    assert_eq!(reason(dropped), DropReason::EmergencyUdp);
    assert!(!bridge.holds_emergency());
    let stats = ingress.stats();
    assert_eq!((stats.taken, stats.untapped), (1, 1));

    assert!(ingress.unregister(id));
    assert_eq!(ingress.stats().untapped, 1);
}

#[cfg(feature = "ablation")]
#[test]
fn n2_without_the_refusal_a_sleeping_tap_holds_the_reserve() {
    let (m, ingress) = tapped();
    ingress.ablate(Mechanism::TapRefusal);
    let tap = Tap::new(Sees::All, Keeps::Skbs, false);
    ingress.register(tap).unwrap();
    let _hog = m.exhaust();
    for _ in 0..crate::rx_skbs(crate::testbed::RX_RING) {
        drop(ingress.receive(m.skb(&to_port(UDP_PORT))));
    }
    assert!(tap.holds_emergency());
    assert!(m.pool.alloc_rx().is_err(), "the reply finds no buffer");
}
