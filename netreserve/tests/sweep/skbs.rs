//! Skbs made of others: clone, split, copy, expand, linearize.

use std::collections::BTreeSet;

use netreserve::{Skb, SkbFrags};

use crate::inject::{Run, sweep};
use crate::machine::{Machine, machine};
use crate::packets::swap;

const DATA: &[u8] = b"header:the payload of it";

/// Emergency skbs by the memory that they hold: clones share one charge.
fn charges<'a>(skbs: impl IntoIterator<Item = &'a Skb<'static>>) -> usize {
    let emergencies = skbs.into_iter().filter(|skb| skb.is_emergency());
    // The start of the buffer, wherever the data begins in it.
    let starts = emergencies.map(|skb| skb.data().as_ptr() as usize - skb.headroom());
    starts.collect::<BTreeSet<_>>().len()
}

fn derive(run: &Run<'_>, m: &Machine) {
    run.step("alloc");
    let Some(mut skb) = run.need(m.pool.alloc_rx()) else {
        return;
    };
    skb.put(DATA.len()).unwrap().copy_from_slice(DATA);
    let mut held = Vec::new();
    // A copy of ordinary bytes never dips, so in want it is refused.
    let in_want_and_ordinary = |skb: &Skb<'_>| !skb.is_emergency() && run.injected() > 0;

    run.step("expand, alone");
    skb = match m.pool.expand(skb, 8) {
        Ok(skb) => skb,
        Err((error, _)) => panic!("{error}: nothing had to be allocated"),
    };
    skb.push(3).unwrap().copy_from_slice(b"to:");
    skb.skip(3).unwrap();

    run.step("copy");
    match m.pool.copy(&skb) {
        Ok(copy) => {
            assert_eq!(copy.data(), DATA);
            held.push(copy);
        }
        Err(error) => {
            assert!(run.injected() > 0 || in_want_and_ordinary(&skb), "{error}");
            run.need(Err::<(), _>(error));
        }
    }
    run.step("clone and split");
    let mut clone = skb.try_clone().expect("takes no memory");
    let rest = clone.split(7).expect("takes no memory");
    m.assert_charged(charges(held.iter().chain([&skb, &clone, &rest])), 0);

    run.step("expand, shared");
    clone = match m.pool.expand(clone, 64) {
        Ok(own) => {
            assert!(!own.is_shared() && own.headroom() >= 64);
            own
        }
        Err((error, same)) => {
            run.need(Err::<(), _>(error));
            assert!(same.is_shared(), "as it was");
            same
        }
    };
    assert_eq!((clone.data(), rest.data()), DATA.split_at(7));
    m.assert_charged(charges(held.iter().chain([&skb, &clone, &rest])), 0);

    run.step("linearize");
    if let Some(whole) = run.need(m.pool.linearize(&clone, core::slice::from_ref(&rest))) {
        assert_eq!(whole.data(), DATA);
        held.push(whole);
    }
    run.step("linearize a packet in pieces");
    let mut packet = SkbFrags::<2>::new(clone);
    packet.push_frag(rest).expect("there is room for two");
    match packet.linearize(m.pool) {
        Ok(whole) => assert_eq!(whole.data(), DATA),
        Err((error, same)) => {
            run.need(Err::<(), _>(error));
            assert!(
                same.pieces().eq(<[_; 2]>::from(DATA.split_at(7))),
                "as it was"
            );
        }
    }
    run.step("expand, the last of them");
    skb = match m.pool.expand(skb, 16) {
        Ok(skb) => skb,
        Err((error, _)) => panic!("{error}: the others are gone"),
    };
    assert_eq!(skb.data(), DATA);
    held.push(skb);
    m.assert_charged(charges(&held), 0);
    run.step("copies of all");
    for n in 0..held.len() {
        let copy = run.need(m.pool.copy(&held[n]));
        held.extend(copy);
    }
    m.assert_charged(charges(&held), 0);
    // In the order of their making: the first one's charge is not the others'.
    while !held.is_empty() {
        held.remove(0);
        m.assert_charged(charges(&held), 0);
    }
}

#[test]
fn n3_skbs_made_of_others_lose_no_charge_whichever_allocation_fails() {
    for want in [false, true] {
        let m = machine();
        let scenario = |run: &Run<'_>| {
            m.flows.add(swap()).unwrap();
            let hog = want.then(|| m.exhaust());
            derive(run, &m);
            drop(hog);
            m.flows.remove(swap()).unwrap();
        };
        let name = if want {
            "derived skbs, in want"
        } else {
            "derived skbs"
        };
        sweep(name, m.injector, scenario, || m.at_rest());
    }
}
