use alloc::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::testbed::{Machine, SKB, SWAP, machine};

type Packet = SkbFrags<'static, 3>;

fn packet(m: &Machine, parts: &[&[u8]]) -> Packet {
    let mut skbs = parts.iter().map(|part| m.skb(part));
    let mut packet = Packet::new(skbs.next().unwrap());
    for skb in skbs {
        packet.push_frag(skb).unwrap();
    }
    packet
}

fn bytes(packet: &Packet) -> Vec<u8> {
    packet.pieces().flatten().copied().collect()
}

#[test]
fn what_does_not_fit_comes_back_and_changes_nothing() {
    let m = machine();
    let mut full = packet(&m, &[b"a", b"bc", b"def", b"g"]);
    let (error, skb) = full.push_frag(m.skb(b"more")).unwrap_err();
    assert_eq!((error, skb.data()), (SkbError::TooManyFrags, &b"more"[..]));
    let (error, _) = packet(&m, &[b"a"]).push_frag(m.skb(b"")).unwrap_err();
    assert_eq!(error, SkbError::TooShort);

    assert_eq!(full.skip(8), Err(SkbError::TooShort));
    assert_eq!(full.trim(8), Err(SkbError::TooShort));
    assert_eq!(full.pull_tail(8), Err(SkbError::TooShort));
    assert_eq!(full.copy_bits(1, &mut [0; 7]), Err(SkbError::TooShort));
    assert_eq!(
        full.copy_bits(usize::MAX, &mut [0; 7]),
        Err(SkbError::TooShort)
    );
    let clone = full.first_mut().try_clone().unwrap();
    assert_eq!(full.pull_tail(2), Err(SkbError::Shared));
    drop(clone);
    let tailroom = full.first().tailroom();
    full.first_mut().put(tailroom).unwrap();
    assert_eq!(full.pull_tail(SKB + 1), Err(SkbError::NoTailroom));
    full.first_mut().trim(1).unwrap();
    assert_eq!(bytes(&full), b"abcdefg");
    assert_eq!(full.frags().len(), 3);
}

/// A clone of one piece that cannot be shared takes the clones of the others with it.
#[test]
fn n3_a_clone_that_fails_half_way_leaves_nothing_behind() {
    let m = machine();
    m.flows.add(SWAP).unwrap();
    let hog = m.exhaust();
    let mut packet = packet(&m, &[b"head", &[1; SKB]]);
    assert!(packet.is_emergency());
    assert_eq!(m.rx.usage(), 2 * SKB);
    assert_eq!(packet.try_clone().unwrap_err(), SkbError::NoTailroom);
    packet.trim(SKB - 100).unwrap();
    let clone = packet.try_clone().unwrap();
    assert_eq!((m.rx.usage(), bytes(&clone)), (2 * SKB, bytes(&packet)));
    drop(packet);
    assert_eq!(m.rx.usage(), 2 * SKB, "the clone still reads all of it");
    drop((clone, hog));
    m.assert_quiescent();
}

/// Fragments that are cut off, or used up, end with their charge while the packet goes on.
#[test]
fn n3_a_fragment_that_is_gone_is_not_charged_any_more() {
    let m = machine();
    m.flows.add(SWAP).unwrap();
    let hog = m.exhaust();
    let mut packet = packet(&m, &[b"abc", b"def", b"ghi"]);
    assert_eq!((m.rx.usage(), packet.truesize()), (3 * SKB, 3 * SKB));
    packet.trim(6).unwrap();
    assert_eq!(
        (m.rx.usage(), bytes(&packet)),
        (2 * SKB, b"abcdef".to_vec())
    );
    packet.pull_tail(6).unwrap();
    assert_eq!((m.rx.usage(), packet.first().data()), (SKB, &b"abcdef"[..]));
    drop((packet, hog));
    m.assert_quiescent();
}

#[test]
fn n3_a_packet_is_of_the_reserve_if_any_piece_is_and_its_copy_is_charged_once() {
    let m = machine();
    m.flows.add(SWAP).unwrap();
    let mut mixed = packet(&m, &[b"ordinary "]);
    assert!(!mixed.is_emergency());
    let hog = m.exhaust();
    mixed.push_frag(m.skb(b"emergency")).unwrap();
    assert!(mixed.is_emergency() && !mixed.first().is_emergency());
    let linear = mixed.linearize(m.pool).unwrap();
    assert_eq!(linear.data(), b"ordinary emergency");
    assert_eq!((linear.is_emergency(), m.rx.usage()), (true, SKB));
    drop(linear);

    let large = packet(&m, &[&[1; SKB], &[2; SKB]]);
    let (error, large) = large.linearize(m.pool).unwrap_err();
    assert_eq!((error, large.len()), (SkbAllocError::TooLarge, 2 * SKB));
    let one = packet(&m, &[b"one"]);
    let address = one.first().data().as_ptr();
    assert_eq!(one.linearize(m.pool).unwrap().data().as_ptr(), address);
    drop((large, hog));
    m.assert_quiescent();
}

proptest! {
    /// Against one vector of bytes.
    #[test]
    fn reads_like_one_run_of_bytes(
        sizes in prop::collection::vec(1usize..40, 1..=4),
        ops in prop::collection::vec((0u8..4, 0usize..90), 0..40),
    ) {
        let m = machine();
        let mut next = 0u8..=255;
        let parts: Vec<Vec<u8>> = sizes.iter().map(|&n| next.by_ref().take(n).collect()).collect();
        let slices: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
        let mut packet = packet(&m, &slices);
        let mut model = parts.concat();
        let mut clones = Vec::new();
        for (op, n) in ops {
            let fits = n <= model.len();
            match op {
                0 => {
                    prop_assert_eq!(packet.skip(n).is_ok(), fits);
                    model.drain(..if fits { n } else { 0 });
                }
                1 => {
                    prop_assert_eq!(packet.trim(n).is_ok(), fits);
                    model.truncate(if fits { n } else { model.len() });
                }
                2 => {
                    let shared = packet.first().is_shared();
                    let there = n <= packet.first().len();
                    prop_assert_eq!(packet.pull_tail(n).is_ok(), there || fits && !shared);
                    if fits && !shared {
                        prop_assert!(packet.first().len() >= n);
                    }
                }
                _ if clones.len() < 2 => clones.push((packet.try_clone().unwrap(), model.clone())),
                _ => drop(clones.pop()),
            }
            prop_assert_eq!(bytes(&packet), &model[..]);
            prop_assert_eq!((packet.len(), packet.is_empty()), (model.len(), model.is_empty()));
            prop_assert!(packet.frags().iter().all(|skb| !skb.is_empty()));
            let mut copy = alloc::vec![0; model.len() / 2];
            packet.copy_bits(model.len() - copy.len(), &mut copy).unwrap();
            prop_assert_eq!(&copy[..], &model[model.len() - copy.len()..]);
            for (clone, then) in &clones {
                prop_assert_eq!(bytes(clone), &then[..]);
            }
        }
        drop((packet, clones));
        m.assert_quiescent();
    }
}
