use alloc::collections::VecDeque;
use alloc::vec;
use alloc::vec::Vec;

use ::smoltcp::iface::{Config, Interface, SocketSet};
use ::smoltcp::phy::{ChecksumCapabilities, Loopback, RxToken as _, TxToken as _};
use ::smoltcp::wire::{EthernetAddress, IpCidr, Ipv4Cidr};

use super::*;
use crate::testbed::{
    LOCAL, MAC, Machine, RX_RING, SERVER, SKB, STRANGER, SWAP, TX_RING, arp, machine, packet,
};
use crate::{ChecksumOffload, DropReason, Protocol, tx_skbs};

const MTU: usize = 1500;

/// Two rings of owned skbs, and the far end of the cable.
#[derive(Debug)]
struct Card {
    incoming: VecDeque<Vec<u8>>,
    posted: Vec<Skb<'static>>,
    sending: VecDeque<Skb<'static>>,
    offload: ChecksumOffload,
}

impl Nic<'static> for Card {
    fn receive(&mut self, pool: &SkbPool<'static>) -> Option<Skb<'static>> {
        while self.posted.len() < RX_RING
            && let Ok(skb) = pool.alloc_rx()
        {
            self.posted.push(skb);
        }
        let mut skb = self.posted.pop()?;
        let Some(frame) = self.incoming.pop_front() else {
            self.posted.push(skb);
            return None;
        };
        skb.put(frame.len()).unwrap().copy_from_slice(&frame);
        Some(skb)
    }

    fn transmit(&mut self, skb: Skb<'static>) -> Result<(), Skb<'static>> {
        if !self.tx_ready() {
            return Err(skb);
        }
        self.sending.push_back(skb);
        Ok(())
    }

    fn tx_ready(&mut self) -> bool {
        self.sending.len() < TX_RING
    }

    fn mtu(&self) -> usize {
        MTU
    }

    fn rx_posted(&self) -> Option<usize> {
        Some(self.posted.len())
    }

    fn hardware_addr(&self) -> [u8; 6] {
        MAC
    }

    fn checksum_offload(&self) -> ChecksumOffload {
        self.offload
    }
}

type TestDevice = Reserved<'static, Card>;

/// A machine with a VMIO flow, its device, and frames that have arrived.
fn device(frames: impl IntoIterator<Item = Vec<u8>>) -> (Machine, TestDevice) {
    let m = machine();
    m.flows.add(SWAP).unwrap();
    let card = Card {
        incoming: frames.into_iter().collect(),
        posted: Vec::new(),
        sending: VecDeque::new(),
        offload: ChecksumOffload::default(),
    };
    let device = Reserved::new(card, m.pool, m.ingress).unwrap();
    (m, device)
}

fn reply() -> Vec<u8> {
    packet(Protocol::Tcp, SERVER, LOCAL, 100)
}

fn request() -> Vec<u8> {
    packet(Protocol::Tcp, LOCAL, SERVER, 200)
}

/// What comes up, if anything does.
fn receive(device: &mut TestDevice) -> Option<Vec<u8>> {
    let (rx, _tx) = device.receive(Instant::ZERO)?;
    Some(rx.consume(<[u8]>::to_vec))
}

fn send(device: &mut TestDevice, frame: &[u8]) -> bool {
    let Some(tx) = device.transmit(Instant::ZERO) else {
        return false;
    };
    tx.consume(frame.len(), |bytes| bytes.copy_from_slice(frame));
    true
}

#[test]
fn n7_what_the_device_sends_asks_for_no_more_than_is_posted() {
    const WINDOW: core::ops::Range<usize> = 48..50;
    for ablated in [false, true] {
        let (_m, mut device) = device([]);
        #[cfg(feature = "ablation")]
        if ablated {
            device.ablate(Mechanism::PostedWindow);
        }
        let mut frame = request();
        frame[46] = 5 << 4;
        frame[WINDOW].copy_from_slice(&[0xff; 2]);
        // Nothing is posted before the first poll.
        assert!(send(&mut device, &frame));
        assert_eq!(receive(&mut device), None);
        assert!(send(&mut device, &frame));
        let windows = device.nic().sending.iter();
        let windows: Vec<_> = windows.map(|skb| skb.data()[WINDOW].to_vec()).collect();
        let segments = |n: usize| (n * (MTU - 40)).min(0xffff) as u16;
        let expected = match ablated && cfg!(feature = "ablation") {
            false => [segments(1), segments(RX_RING)],
            true => [0xffff; 2],
        };
        assert_eq!(
            windows,
            expected.map(|window| window.to_be_bytes().to_vec())
        );
    }
}

#[test]
fn n5_a_frame_is_handed_up_only_with_a_transmit_skb_in_hand_and_waits_for_it_unharmed() {
    let (m, mut device) = device([reply()]);
    let hog = m.exhaust();
    let mut taken: Vec<_> = core::iter::from_fn(|| m.pool.alloc_tx().ok()).collect();
    assert_eq!(receive(&mut device), None, "it could not be answered");
    assert!(device.more_pending());
    taken.pop();
    assert_eq!(receive(&mut device), Some(reply()));
    assert!(!device.more_pending());
    assert_eq!(m.ingress.stats().dropped.total(), 0);
    drop((taken, device, hog));
    m.assert_quiescent();
}

#[test]
fn n5_the_answer_goes_into_the_skb_that_was_held() {
    let (m, mut device) = device([reply()]);
    let _hog = m.exhaust();
    let (rx, tx) = device.receive(Instant::ZERO).unwrap();
    // Whatever else happens now, the answer has its memory.
    let _all: Vec<_> = core::iter::from_fn(|| m.pool.alloc_tx().ok()).collect();
    rx.consume(|_| ());
    let answer = request();
    tx.consume(answer.len(), |bytes| bytes.copy_from_slice(&answer));
    assert_eq!(device.nic().sending[0].data(), answer);
}

/// A real stack, no ordinary memory at all, and a flood before and behind each question.
#[test]
fn n8_a_stack_answers_the_server_out_of_the_reserve_under_a_flood() {
    let foreign = packet(Protocol::Udp, STRANGER, LOCAL, 1000);
    let question = arp(*SERVER.ip(), *LOCAL.ip());
    let frames = (0..100).map(|i| {
        if i % 10 == 5 {
            question.clone()
        } else {
            foreign.clone()
        }
    });
    let (m, mut device) = device(frames);
    let hog = m.exhaust();

    let mut interface = Interface::new(
        Config::new(EthernetAddress(MAC).into()),
        &mut device,
        Instant::ZERO,
    );
    interface.update_ip_addrs(|addrs| {
        let ours = Ipv4Cidr::new(*LOCAL.ip(), 24);
        addrs.push(IpCidr::Ipv4(ours)).unwrap();
    });
    let mut sockets = SocketSet::new(vec![]);
    let mut answers = 0;
    loop {
        interface.poll(Instant::ZERO, &mut device, &mut sockets);
        let sending = &mut device.nic_mut().sending;
        assert!(sending.iter().all(Skb::is_emergency));
        answers += sending.drain(..).count();
        if !device.more_pending() && device.nic().incoming.is_empty() {
            break;
        }
    }
    assert_eq!(answers, 10);
    let stats = m.ingress.stats();
    assert_eq!(stats.dropped.get(DropReason::EmergencyUdp), 90);
    assert_eq!((stats.control, stats.vmio_dropped), (10, 0));
    drop((device, hog));
    m.assert_quiescent();
}

#[test]
fn a_flood_is_worked_off_in_portions() {
    let foreign = packet(Protocol::Udp, STRANGER, LOCAL, 10);
    let (m, mut device) = device(vec![foreign; LADDER_WEIGHT + 1]);
    assert_eq!(receive(&mut device), None);
    assert_eq!(device.nic().incoming.len(), 1);
    assert!(device.more_pending(), "it must be polled again");
    assert_eq!(receive(&mut device), None);
    assert!(device.nic().incoming.is_empty() && !device.more_pending());
    let dropped = m.ingress.stats().dropped;
    let unclaimed = dropped.get(DropReason::NoSocket);
    assert_eq!(unclaimed, LADDER_WEIGHT as u64 + 1, "and each is counted");
}

#[test]
fn a_frame_that_the_card_refuses_is_sent_first_once_there_is_room() {
    let (m, mut device) = device([]);
    for _ in 0..TX_RING {
        assert!(send(&mut device, &request()));
    }
    assert!(!send(&mut device, &request()), "the ring is full");

    // Full between the token and its use: the frame was built, and must not be lost.
    device.nic_mut().sending.pop_front();
    let tx = device.transmit(Instant::ZERO).unwrap();
    tx.nic.sending.push_back(m.pool.alloc_tx().unwrap());
    tx.consume(4, |bytes| bytes.copy_from_slice(b"last"));
    assert!(device.more_pending() && !send(&mut device, b"new"));
    device.nic_mut().sending.clear();
    assert!(send(&mut device, b"new"));
    let sent: Vec<_> = device.nic().sending.iter().map(Skb::data).collect();
    assert_eq!(sent, [b"last".as_slice(), b"new"]);
}

#[test]
fn n6_the_spare_goes_back_to_the_reserve_when_ordinary_memory_can_be_had() {
    let (m, mut device) = device([]);
    let hog = m.exhaust();
    assert!(device.transmit(Instant::ZERO).is_some());
    assert_eq!(m.tx.usage(), SKB);
    drop(hog);
    assert!(device.transmit(Instant::ZERO).is_some());
    assert_eq!(m.tx.usage(), 0);
    assert!(device.spare.as_ref().is_some_and(|skb| !skb.is_emergency()));
}

#[test]
fn n6_what_does_not_serve_the_vm_is_not_sent_out_of_the_reserve() {
    let (m, mut device) = device([]);
    let _hog = m.exhaust();
    assert!(send(
        &mut device,
        &packet(Protocol::Udp, LOCAL, STRANGER, 9)
    ));
    assert!(device.nic().sending.is_empty() && m.tx.usage() == 0);
    assert!(send(&mut device, &request()));
    assert_eq!(device.nic().sending.len(), 1);
}

/// N4: at no time does a side hold more than its budget, and at some time all of it.
#[test]
fn n4_rings_and_the_device_together_stay_within_the_budget() {
    let (m, mut device) = device(vec![reply(); 50]);
    let hog = m.exhaust();
    while send(&mut device, &request()) {}
    while let Some(frame) = receive(&mut device) {
        assert_eq!(frame, reply());
    }
    assert!(m.tx.peak() <= tx_skbs(TX_RING) * SKB && m.tx.peak() >= TX_RING * SKB);
    assert!(m.rx.peak() <= m.rx.limit() && m.rx.peak() >= RX_RING * SKB);
    assert!(
        device.more_pending(),
        "with the transmit ring full nothing comes up"
    );
    drop((device, hog));
    m.assert_quiescent();
}

#[test]
fn tokens_that_are_not_used_lose_nothing() {
    let (m, mut device) = device([reply()]);
    assert!(device.receive(Instant::ZERO).is_some());
    assert_eq!(receive(&mut device), Some(reply()));
    drop(device);
    m.assert_quiescent();
}

#[test]
fn capabilities_are_those_of_the_card() {
    let (_m, mut device) = device([]);
    for (rx, tx, verify, fill) in [
        (false, false, true, true),
        (true, false, false, true),
        (false, true, true, false),
        (true, true, false, false),
    ] {
        device.nic_mut().offload = ChecksumOffload { rx, tx };
        let ChecksumCapabilities { udp, tcp, ipv4, .. } = device.capabilities().checksum;
        assert_eq!((udp.rx(), udp.tx()), (verify, fill));
        assert_eq!((tcp.rx(), tcp.tx()), (verify, fill));
        assert!(ipv4.rx() && ipv4.tx());
    }
    assert_eq!(device.capabilities().max_transmission_unit, MTU + 14);
}

#[test]
fn skbs_that_cannot_hold_a_frame_are_refused() {
    let m = machine();
    let nic = PhyNic::new(Loopback::new(Medium::Ethernet), MAC);
    let error = Reserved::new(nic, m.pool, m.ingress).unwrap_err();
    assert!(matches!(error, ReservedError::SkbTooSmall { skb: SKB, .. }));
}

#[test]
fn a_lending_device_is_a_card_too_and_its_oversized_frames_are_counted() {
    let m = machine();
    let mut nic = PhyNic::new(Loopback::new(Medium::Ethernet), MAC);
    let mut skb = m.pool.alloc_tx().unwrap();
    skb.put(4).unwrap().copy_from_slice(b"ping");
    nic.transmit(skb).unwrap();
    let token = nic.device_mut().transmit(Instant::ZERO).unwrap();
    token.consume(SKB + 1, |bytes| bytes.fill(0));
    assert_eq!(nic.receive(m.pool).unwrap().data(), b"ping");
    assert!(nic.receive(m.pool).is_none());
    assert_eq!(nic.oversized(), 1);
    drop(nic);
    m.assert_quiescent();
}

#[cfg(feature = "ablation")]
mod ablation {
    use super::*;

    #[test]
    fn n5_without_a_transmit_skb_in_hand_the_answer_is_lost() {
        let (m, mut device) = device([reply(), reply(), reply()]);
        device.ablate(Mechanism::TransmitInHand);
        let hog = m.exhaust();
        let mut taken: Vec<_> = core::iter::from_fn(|| m.pool.alloc_tx().ok()).collect();
        let mut answer = || {
            let (rx, tx) = device.receive(Instant::ZERO).unwrap();
            assert_eq!(rx.consume(<[u8]>::to_vec), reply());
            let request = request();
            tx.consume(request.len(), |bytes| bytes.copy_from_slice(&request));
            (device.nic().sending.len(), m.ingress.stats().vmio_dropped)
        };
        assert_eq!(answer(), (0, 1), "no memory");
        taken.clear();
        assert_eq!(answer(), (1, 1));
        for _ in 1..TX_RING {
            assert!(send(&mut device, &request()));
        }
        let (rx, tx) = device.receive(Instant::ZERO).unwrap();
        rx.consume(|_| ());
        let full = request();
        tx.consume(full.len(), |bytes| bytes.copy_from_slice(&full));
        assert_eq!(m.ingress.stats().vmio_dropped, 2, "no room in the ring");
        assert!(device.spare.is_none() && device.backlog.is_none());
        drop((device, hog));
        m.assert_quiescent();
    }

    #[test]
    fn n6_without_the_exchange_the_spare_stays_in_the_reserve() {
        let (m, mut device) = device([]);
        device.ablate(Mechanism::SpareExchange);
        let hog = m.exhaust();
        assert!(device.transmit(Instant::ZERO).is_some());
        drop(hog);
        assert!(device.transmit(Instant::ZERO).is_some());
        assert_eq!(m.tx.usage(), SKB);
    }
}
