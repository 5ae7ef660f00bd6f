//! What the log is told, and that no lock is held meanwhile.

use alloc::boxed::Box;
use alloc::string::ToString;
use alloc::vec::Vec;
use core::fmt::Write;

use log::Level::{Info, Warn};

use crate::testbed::{LOCAL, RX_RING, SERVER, SKB, SWAP, fragment, machine, packet};
use crate::{DropReason, Protocol, rx_skbs};

#[path = "../../mempool/tests/support/capture.rs"]
mod capture;

use capture::{lines, listen, on_event};

#[test]
fn buffers_that_cannot_be_had_are_told_by_the_pool_alone() {
    listen();
    let m = machine();
    assert!(lines().iter().all(|(level, _)| *level == Info), "limits");
    m.flows.add(SWAP).unwrap();
    let hog = m.exhaust();
    lines();
    let rx: Vec<_> = core::iter::from_fn(|| m.pool.alloc_rx().ok()).collect();
    assert_eq!(rx.len(), rx_skbs(RX_RING));
    let warned = |line: &(log::Level, alloc::string::String)| line.0 == Warn;
    let told: Vec<_> = lines().into_iter().filter(warned).collect();
    let full = rx.len() * SKB;
    assert_eq!(
        told.iter().map(|(_, line)| &line[..]).collect::<Vec<_>>(),
        [
            alloc::format!(
                "reserve rx: a charge of {SKB} was refused (1 so far): the charge exceeds the limit, \
                 {full} of {full} charged"
            ),
            "skbs to receive: no packet buffer of the reserve: the charge exceeds the limit \
             (1 failures so far)"
                .to_string(),
        ]
    );
    drop((rx, hog));
    m.assert_quiescent();
}

#[test]
fn lost_vmio_traffic_is_told_and_other_peoples_is_not() {
    listen();
    let m = machine();
    m.flows.add(SWAP).unwrap();
    let _hog = m.exhaust();
    lines();
    // A logger that looks at everything, and allocates: no lock is held.
    let (ingress, pool, sockets) = (m.ingress, m.pool, m.sockets);
    on_event(Some(Box::new(move || {
        let mut table = alloc::string::String::new();
        write!(table, "{}", crate::Stats::new(pool, ingress)).unwrap();
        drop(pool.alloc_tx());
        let _ = ingress.drop_skb(pool.alloc_rx().unwrap(), DropReason::OtherHost);
        assert_eq!(sockets.total_rmem(), 0);
    })));
    let vmio = fragment(packet(Protocol::Tcp, SERVER, LOCAL, 100), 0);
    for _ in 0..3 {
        let verdict = m.ingress.receive(m.skb(&vmio));
        let reason = DropReason::EmergencyFragment;
        assert!(matches!(verdict, crate::Verdict::Dropped(r) if r == reason));
        drop(m.ingress.receive(m.skb(&[0; 10])));
    }
    on_event(None);
    let told: Vec<_> = lines().into_iter().filter(|l| l.0 == Warn).collect();
    let line = |nth| {
        let what = "emergency_fragment, Fragment { vmio: true }";
        (
            Warn,
            alloc::format!("VMIO traffic dropped ({nth} so far): {what}"),
        )
    };
    assert_eq!(told, [line(1), line(2)]);
    assert_eq!(m.ingress.stats().vmio_dropped, 3);
}
