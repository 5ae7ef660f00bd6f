//! What smoltcp may expect of a device, of `Reserved` over every kind of card and on both media.

use super::*;

fn device<N: Cable>(medium: Medium) -> (Machine, Reserved<'static, N>) {
    let m = machine();
    m.flows.add(SWAP).unwrap();
    let device = Reserved::new(N::over(medium), m.pool, ladder(&m, medium)).unwrap();
    (m, device)
}

fn reply(medium: Medium, len: usize) -> Vec<u8> {
    on(medium, packet(Protocol::Tcp, SERVER, LOCAL, len))
}

fn request(medium: Medium, len: usize) -> Vec<u8> {
    on(medium, packet(Protocol::Tcp, LOCAL, SERVER, len))
}

/// Bytes of TCP in the largest frame.
const LARGEST: usize = MTU - 40;

fn keeps_the_contract<N: Cable>(medium: Medium) {
    let (m, mut device) = device::<N>(medium);
    let capabilities = device.capabilities();
    assert_eq!(capabilities.medium, super::super::medium(medium));
    assert_eq!(capabilities.ip_mtu(), MTU);
    assert_eq!(
        capabilities.max_transmission_unit,
        reply(medium, LARGEST).len()
    );
    assert!(device.receive(Instant::ZERO).is_none(), "nothing came");

    for len in [0, 1, 100, LARGEST] {
        let (received, answer) = (reply(medium, len), request(medium, len));
        device.nic_mut().arrive(received.clone());
        // A token that is not used loses nothing, and both may be used in any order.
        assert!(device.receive(Instant::ZERO).is_some());
        let (rx, tx) = device.receive(Instant::ZERO).unwrap();
        tx.consume(answer.len(), |bytes| {
            assert_eq!(bytes.len(), answer.len());
            bytes.copy_from_slice(&answer);
        });
        rx.consume(|bytes| assert_eq!(bytes, received));
        assert_eq!(device.nic_mut().take(), Some(answer));
        assert!(device.receive(Instant::ZERO).is_none(), "each comes once");
    }

    // In the order in which they came, and results are handed through.
    for len in [3, 1, 2] {
        device.nic_mut().arrive(reply(medium, len));
        assert!(device.transmit(Instant::ZERO).is_some());
    }
    for len in [3, 1, 2] {
        let (rx, tx) = device.receive(Instant::ZERO).unwrap();
        assert_eq!(rx.consume(<[u8]>::len), reply(medium, len).len());
        let answer = request(medium, len);
        assert_eq!(tx.consume(answer.len(), |b| b.copy_from_slice(&answer)), ());
    }
    for len in [3, 1, 2] {
        assert_eq!(device.nic_mut().take(), Some(request(medium, len)));
    }
    drop(device);
    m.assert_quiescent();
}

#[test]
fn every_card_on_every_medium_keeps_the_contract_of_a_device() {
    for medium in MEDIA {
        keeps_the_contract::<Card>(medium);
        keeps_the_contract::<PhyNic<'static, Line>>(medium);
    }
}

/// Middleware of smoltcp's goes around it.
#[test]
fn a_device_can_be_wrapped() {
    for medium in MEDIA {
        let (m, mut device) = device::<Card>(medium);
        device.nic_mut().incoming.push_back((reply(medium, 5), 0));
        let mut traced = Tracer::new(device, |_, _| ());
        assert_eq!(traced.capabilities().ip_mtu(), MTU);
        let (rx, _) = traced.receive(Instant::ZERO).unwrap();
        rx.consume(|bytes| assert_eq!(bytes, reply(medium, 5)));
        drop(traced);
        m.assert_quiescent();
    }
}

/// Each capability by itself, from the card to smoltcp and from a smoltcp device through a card.
#[test]
fn capabilities_are_those_of_the_card() {
    let all = [Offload::NONE, Offload::RX, Offload::TX, Offload::BOTH];
    for (i, medium) in (0..5 * 4).map(|i| (i, MEDIA[i % 2])) {
        let mut offload = ChecksumOffload::NONE;
        let field = [
            &mut offload.ipv4,
            &mut offload.icmpv4,
            &mut offload.icmpv6,
            &mut offload.udp,
            &mut offload.tcp,
        ];
        *field.into_iter().nth(i / 4).unwrap() = all[i % 4];
        let (m, mut device) = device::<Card>(medium);
        device.nic_mut().offload = offload;
        device.nic_mut().burst = Some(i);
        let told = device.capabilities();
        assert_eq!(told.max_burst_size, Some(i));
        let c = &told.checksum;
        let with_icmpv6 = cfg!(feature = "proto-ipv6");
        for (left, offload) in [
            (&c.ipv4, offload.ipv4),
            (&c.icmpv4, offload.icmpv4),
            (
                &c.icmpv6,
                if with_icmpv6 {
                    offload.icmpv6
                } else {
                    Offload::NONE
                },
            ),
            (&c.udp, offload.udp),
            (&c.tcp, offload.tcp),
        ] {
            assert_eq!(
                (left.rx(), left.tx()),
                (!offload.rx, !offload.tx),
                "{offload:?}"
            );
        }

        let mut line = Line::new(super::super::medium(medium));
        line.capabilities = told.clone();
        let nic = PhyNic::new(line, MAC).unwrap();
        assert_eq!(
            (nic.medium(), nic.mtu(), nic.max_burst()),
            (medium, MTU, Some(i))
        );
        let through = nic.checksum_offload();
        if with_icmpv6 {
            assert_eq!(through, offload);
        }
        let again = Reserved::new(nic, m.pool, ladder(&m, medium)).unwrap();
        let again = again.capabilities();
        assert_eq!(alloc::format!("{again:?}"), alloc::format!("{told:?}"));
    }
}

#[cfg(feature = "packetmeta-id")]
#[test]
fn numbers_of_packets_go_through() {
    let (_m, mut device) = device::<PhyNic<'static, Line>>(Medium::Ip);
    device.nic_mut().arrive(reply(Medium::Ip, 1));
    let (rx, mut tx) = device.receive(Instant::ZERO).unwrap();
    assert_eq!(
        rx.meta(),
        meta(0x45),
        "the line took it from the first byte"
    );
    tx.set_meta(meta(99));
    rx.consume(|_| ());
    let answer = request(Medium::Ip, 1);
    tx.consume(answer.len(), |bytes| bytes.copy_from_slice(&answer));
    assert_eq!(device.nic_mut().device_mut().marks, [99]);
}

/// smoltcp makes one frame of several segments, and the card is told how to cut it.
#[cfg(feature = "segmentation-offload")]
#[test]
fn segmentation_is_asked_for_over_ipv4_and_never_over_ipv6() {
    let m = machine();
    let mut card = Card::new(Medium::Ethernet, []);
    card.segmentation = core::num::NonZeroUsize::new(64_000);
    card.offload = ChecksumOffload::each(Offload::TX);
    let device = Reserved::new(card, m.pool, m.ingress).unwrap();
    let told = device.capabilities().segmentation;
    assert_eq!(
        (told.tcpv4, told.tcpv6),
        (core::num::NonZeroUsize::new(SKB), None)
    );
    // smoltcp looks for what does not go together, and panics.
    Interface::new(
        Config::new(EthernetAddress(MAC).into()),
        &mut { device },
        Instant::ZERO,
    );
}

#[test]
fn a_frame_that_does_not_fit_is_refused() {
    let m = machine();
    let nic = PhyNic::new(Loopback::new(phy::Medium::Ethernet), MAC).unwrap();
    let error = Reserved::new(nic, m.pool, m.ingress).unwrap_err();
    assert!(matches!(
        error,
        crate::ReservedError::SkbTooSmall { skb: SKB, .. }
    ));
}

#[test]
fn a_lending_device_is_a_card_too_and_its_oversized_frames_are_counted() {
    let m = machine();
    for medium in [phy::Medium::Ethernet, phy::Medium::Ip] {
        let mut nic = PhyNic::new(Loopback::new(medium), MAC).unwrap();
        let mut skb = m.pool.alloc_tx().unwrap();
        skb.put(4).unwrap().copy_from_slice(b"ping");
        nic.transmit(skb).unwrap();
        let token = nic.device_mut().transmit(Instant::ZERO).unwrap();
        token.consume(SKB + 1, |bytes| bytes.fill(0));
        assert_eq!(nic.receive(m.pool).unwrap().data(), b"ping");
        assert!(nic.receive(m.pool).is_none());
        assert_eq!(nic.oversized(), 1);
    }
    m.assert_quiescent();
}
