use alloc::vec;
use alloc::vec::Vec;
use core::net::SocketAddrV4;

use mempool::SizedCache;

use super::*;
use crate::testbed::card::{Card, MTU};
use crate::testbed::{
    LOCAL, MAC, Machine, RX_RING, SERVER, SKB, STRANGER, SWAP, TX_RING, arp, leak, machine, packet,
};
use crate::{ChecksumOffload, Flow, Offload, Protocol, VlanId, tx_skbs};

type TestDevice = Reserved<'static, Card>;

/// A machine with a VMIO flow, its device, and frames that have arrived.
fn device(frames: impl IntoIterator<Item = Vec<u8>>) -> (Machine, TestDevice) {
    let m = machine();
    m.flows.add(SWAP).unwrap();
    let card = Card::new(Medium::Ethernet, frames);
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
    let (rx, _tx) = device.poll_receive()?;
    Some(rx.read(<[u8]>::to_vec))
}

fn send(device: &mut TestDevice, frame: &[u8]) -> bool {
    let Some(tx) = device.poll_transmit() else {
        return false;
    };
    tx.send(frame.len(), |bytes| bytes.copy_from_slice(frame));
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
    let (rx, tx) = device.poll_receive().unwrap();
    // Whatever else happens now, the answer has its memory.
    let _all: Vec<_> = core::iter::from_fn(|| m.pool.alloc_tx().ok()).collect();
    rx.read(|_| ());
    let answer = request();
    tx.send(answer.len(), |bytes| bytes.copy_from_slice(&answer));
    assert_eq!(device.nic().sending[0].data(), answer);
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
    let tx = device.poll_transmit().unwrap();
    tx.nic.sending.push_back(m.pool.alloc_tx().unwrap());
    tx.send(4, |bytes| bytes.copy_from_slice(b"last"));
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
    assert!(device.poll_transmit().is_some());
    assert_eq!(m.tx.usage(), SKB);
    drop(hog);
    assert!(device.poll_transmit().is_some());
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
    assert!(device.poll_receive().is_some());
    assert_eq!(receive(&mut device), Some(reply()));
    drop(device);
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
            let (rx, tx) = device.poll_receive().unwrap();
            assert_eq!(rx.read(<[u8]>::to_vec), reply());
            let request = request();
            tx.send(request.len(), |bytes| bytes.copy_from_slice(&request));
            (device.nic().sending.len(), m.ingress.stats().vmio_dropped)
        };
        assert_eq!(answer(), (0, 1), "no memory");
        taken.clear();
        assert_eq!(answer(), (1, 1));
        for _ in 1..TX_RING {
            assert!(send(&mut device, &request()));
        }
        let (rx, tx) = device.poll_receive().unwrap();
        rx.read(|_| ());
        let full = request();
        tx.send(full.len(), |bytes| bytes.copy_from_slice(&full));
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
        assert!(device.poll_transmit().is_some());
        drop(hog);
        assert!(device.poll_transmit().is_some());
        assert_eq!(m.tx.usage(), SKB);
    }
}

fn over_ip(frame: Vec<u8>) -> Vec<u8> {
    frame[Medium::Ethernet.header_len()..].to_vec()
}

#[test]
fn n2_on_a_medium_without_ethernet_the_ladder_begins_at_ip() {
    let m = machine();
    m.flows.add(SWAP).unwrap();
    let foreign = over_ip(packet(Protocol::Udp, STRANGER, LOCAL, 1000));
    // What asks for a neighbour is no more than bytes of no version there.
    let question = over_ip(arp(*SERVER.ip(), *LOCAL.ip()));
    let frames = [foreign.clone(), question, over_ip(reply()), foreign];
    let card = Card::new(Medium::Ip, frames);
    let mut device = Reserved::new(card, m.pool, m.ip_ingress).unwrap();
    let hog = m.exhaust();
    assert_eq!(receive(&mut device), Some(over_ip(reply())));
    assert_eq!(receive(&mut device), None);
    let stats = m.ip_ingress.stats();
    assert_eq!((stats.vmio, stats.control), (1, 0));
    assert_eq!(stats.dropped.get(DropReason::EmergencyUdp), 2);
    assert_eq!(stats.dropped.total(), 3);

    assert!(send(&mut device, &over_ip(request())));
    let stranger = over_ip(packet(Protocol::Udp, LOCAL, STRANGER, 9));
    assert!(send(&mut device, &stranger));
    assert_eq!(
        device.nic().sending.len(),
        1,
        "the other one is not sent (N6)"
    );
    assert_eq!(device.nic().sending[0].data(), over_ip(request()));
    assert_eq!(
        m.ip_ingress
            .stats()
            .dropped
            .get(DropReason::EmergencyTransmit),
        1
    );
    drop((device, hog));
    m.assert_quiescent();
}

#[test]
fn what_does_not_fit_together_is_refused() {
    let m = machine();
    let card = || Card::new(Medium::Ip, []);
    assert_eq!(
        Reserved::new(card(), m.pool, m.ingress).unwrap_err(),
        ReservedError::OtherMedium {
            nic: Medium::Ip,
            ingress: Medium::Ethernet
        }
    );
    let narrow = m.pool_of(MTU + 17);
    assert_eq!(
        Reserved::new(Card::new(Medium::Ethernet, []), narrow, m.ingress).unwrap_err(),
        ReservedError::SkbTooSmall {
            skb: MTU + 17,
            needed: MTU + 18
        }
    );
    let vlan = VlanId::new(17).unwrap();
    let tagging: &'static Ingress<'static> =
        leak(Ingress::new(m.flows, m.sockets, MAC).in_vlan(vlan));
    let ethernet = || Card::new(Medium::Ethernet, []);
    assert_eq!(
        Reserved::new(ethernet(), m.pool, tagging).unwrap_err(),
        ReservedError::NoHeadroom { needed: 4 }
    );
    assert!(Reserved::new(ethernet(), m.pool_of(SKB - 4), tagging).is_ok());
    assert!(Reserved::new(card(), m.pool_of(MTU), m.ip_ingress).is_ok());
    assert!(Reserved::new(card(), m.pool_of(MTU - 1), m.ip_ingress).is_err());
}

#[test]
fn n7_every_flow_has_its_share_of_the_window_and_a_burst_is_a_limit_as_well() {
    let (m, mut device) = device([]);
    assert_eq!(receive(&mut device), None);
    let other = Flow::tcp(SocketAddrV4::new(*LOCAL.ip(), 701), SERVER);
    let says = |device: &mut TestDevice| {
        let mut frame = request();
        frame[48..50].copy_from_slice(&[0xff; 2]);
        assert!(send(device, &frame));
        let skb = device.nic_mut().sending.pop_back().unwrap();
        usize::from(u16::from_be_bytes([skb.data()[48], skb.data()[49]]))
    };
    let segments = |n: usize| n * (MTU - 40);
    assert_eq!(says(&mut device), segments(RX_RING));
    m.flows.add(other).unwrap();
    assert_eq!(says(&mut device), segments(RX_RING / 2));
    device.nic_mut().burst = Some(3);
    assert_eq!(says(&mut device), segments(1));
    m.flows.remove(other).unwrap();
    assert_eq!(says(&mut device), segments(3));
}

#[test]
fn numbers_go_with_their_packets_both_ways() {
    let (_m, mut device) = device([]);
    device
        .nic_mut()
        .incoming
        .extend([(reply(), 7), (reply(), 8)]);
    for expected in [7, 8] {
        let (rx, mut tx) = device.poll_receive().unwrap();
        assert_eq!(rx.mark(), expected);
        assert_eq!(rx.into_skb().data(), reply());
        tx.set_mark(expected + 10);
        tx.send(4, |bytes| bytes.copy_from_slice(b"ping"));
    }
    assert!(send(&mut device, b"none"));
    let marks: Vec<_> = device.nic().sending.iter().map(Skb::mark).collect();
    assert_eq!(marks, [17, 18, 0]);
}

#[test]
fn a_card_that_segments_gets_frames_as_large_as_an_skb_holds() {
    const GSO: Option<NonZeroU16> = NonZeroU16::new(1460);
    let m = machine();
    m.flows.add(SWAP).unwrap();
    let device = |segmentation, tx: Offload| {
        let mut card = Card::new(Medium::Ethernet, []);
        card.segmentation = NonZeroUsize::new(segmentation);
        card.offload = ChecksumOffload {
            tcp: tx,
            ..ChecksumOffload::NONE
        };
        Reserved::new(card, m.pool, m.ingress).unwrap()
    };
    let most = |segmentation, tx| device(segmentation, tx).max_gso().map(NonZeroUsize::get);
    assert_eq!(most(0, Offload::TX), None);
    assert_eq!(
        most(65_000, Offload::RX),
        None,
        "it would send wrong checksums"
    );
    assert_eq!(most(65_000, Offload::TX), Some(SKB));
    assert_eq!(most(1800, Offload::BOTH), Some(1800));
    assert_eq!(most(1514, Offload::TX), None, "nothing to be gained");

    let mut device = device(1800, Offload::TX);
    let large = packet(Protocol::Tcp, LOCAL, SERVER, 1800 - 54);
    let hog = m.exhaust();
    let mut token = device.poll_transmit().unwrap();
    token.set_gso_size(GSO);
    token.send(large.len(), |bytes| bytes.copy_from_slice(&large));
    let sent = &device.nic().sending[0];
    assert_eq!((sent.data(), sent.gso_size()), (&large[..], GSO));
    assert!(sent.is_emergency(), "it serves the VM, as large as it is");
    assert!(send(&mut device, &request()));
    assert_eq!(device.nic().sending[1].gso_size(), None);
    drop((device, hog));
    m.assert_quiescent();
}

/// The IP header has no room for the length of a larger one, so that early demux could not read it.
#[test]
fn a_frame_to_be_segmented_is_no_larger_than_its_header_can_tell() {
    const LARGE: usize = 128 << 10;
    let m = machine();
    let order = (2 * LARGE / mempool::FRAME_SIZE).ilog2() as u8;
    let large = SizedCache::new("large", m.zone, LARGE, order);
    let cache: &'static SizedCache<'static> = leak(large.unwrap());
    let pool = leak(SkbPool::new(cache, m.rx, m.tx, m.flows, m.token));
    for (medium, ladder) in [(Medium::Ethernet, m.ingress), (Medium::Ip, m.ip_ingress)] {
        let mut card = Card::new(medium, []);
        card.segmentation = NonZeroUsize::new(LARGE);
        card.offload = ChecksumOffload::each(Offload::TX);
        let device = Reserved::new(card, pool, ladder).unwrap();
        let most = device.max_gso().map(NonZeroUsize::get);
        assert_eq!(most, Some(0xffff + medium.header_len()));
    }
}

#[test]
#[should_panic(expected = "larger than the device said")]
fn a_frame_beyond_the_mtu_that_is_not_to_be_segmented_is_a_bug_of_the_stack() {
    let (_m, mut device) = device([]);
    send(&mut device, &[0; MTU + 15]);
}

#[test]
fn a_frame_may_be_changed_by_its_reader() {
    let (m, mut device) = device([reply(), reply()]);
    for _ in 0..2 {
        let (rx, _tx) = device.poll_receive().unwrap();
        let first = rx.modify(|data| {
            data[0] = !data[0];
            data[0]
        });
        assert_eq!(first, !reply()[0]);
    }
    drop(device);
    m.assert_quiescent();
}
