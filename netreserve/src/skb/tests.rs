use mempool::{FRAME_SIZE, Gfp};

use super::*;
use crate::testbed::{SKB, SWAP, machine};

#[test]
fn room_moves_between_the_ends_and_a_refusal_changes_nothing() {
    let m = machine();
    let mut skb = m.skb(&[]);
    let shape = |skb: &Skb<'_>| (skb.headroom(), skb.len(), skb.tailroom());
    assert_eq!(skb.reserve(SKB + 1), Err(SkbError::NoTailroom));
    skb.reserve(16).unwrap();
    skb.put(8).unwrap().copy_from_slice(b"12345678");
    assert_eq!(skb.reserve(1), Err(SkbError::NotEmpty));
    skb.push(4).unwrap().copy_from_slice(b"head");
    assert_eq!(shape(&skb), (12, 12, SKB - 24));

    assert_eq!(skb.put(SKB - 23).unwrap_err(), SkbError::NoTailroom);
    assert_eq!(skb.push(13).unwrap_err(), SkbError::NoHeadroom);
    assert_eq!(skb.pull(13).unwrap_err(), SkbError::TooShort);
    assert_eq!(skb.trim(13), Err(SkbError::TooShort));
    assert_eq!(shape(&skb), (12, 12, SKB - 24));

    assert_eq!(skb.pull(4).unwrap(), b"head");
    skb.trim(3).unwrap();
    assert_eq!((skb.data(), skb.truesize()), (&b"123"[..], SKB));
    skb.data_mut()[0] = b'0';
    assert_eq!(skb.data(), b"023");
}

/// The buffer first, then its charge: at no time does the reserve hold more than is charged.
#[test]
fn n3_the_charge_goes_with_the_buffer_and_ends_after_it() {
    let m = machine();
    m.flows.add(SWAP).unwrap();
    let hog = m.exhaust();
    let skb = m.skb(&[1; 100]);
    let moved = [skb];
    assert_eq!((m.rx.usage(), moved[0].truesize()), (SKB, SKB));
    let in_use = m.cache.stats().in_use;
    drop(moved);
    assert_eq!((m.rx.usage(), m.cache.stats().in_use), (0, in_use - 1));
    drop(hog);
    m.assert_quiescent();
    assert!(m.zone.alloc(0, Gfp::KERNEL).unwrap().len() == FRAME_SIZE);
}
