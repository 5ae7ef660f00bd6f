use alloc::vec::Vec;

use super::*;
use crate::testbed::machine;

fn drain<'a>(zone: &'a Zone<'static>, gfp: Gfp) -> Vec<Frame<'a>> {
    core::iter::from_fn(|| zone.alloc(0, gfp).ok()).collect()
}

#[test]
fn m1_entitled_by_flag_or_scope_but_not_in_an_interrupt() {
    let m = machine(64);
    let token = m.zone.claim_memalloc().unwrap();
    assert!(
        m.zone.claim_memalloc().is_none(),
        "the token is given out once"
    );

    assert!(!m.zone.entitled(Gfp::ATOMIC));
    assert!(m.zone.entitled(token.gfp(Gfp::ATOMIC)));
    assert!(!m.zone.entitled(token.gfp(Gfp::ATOMIC | Gfp::NOMEMALLOC)));

    let scope = m.zone.memalloc(&token);
    assert!(m.zone.entitled(Gfp::KERNEL));
    assert!(!m.zone.entitled(Gfp::KERNEL | Gfp::NOMEMALLOC));
    let irq = m.task.interrupt();
    assert!(
        !m.zone.entitled(Gfp::ATOMIC),
        "an interrupt does not inherit the scope"
    );
    assert!(
        m.zone.entitled(token.gfp(Gfp::ATOMIC)),
        "but may carry the flag"
    );
    drop(irq);
    drop(scope);
    assert!(!m.zone.entitled(Gfp::KERNEL));
}

#[test]
fn m2_ordinary_allocations_stop_at_their_mark_above_the_reserve() {
    let m = machine(64);
    m.zone.grow(16).unwrap();
    for (gfp, left) in [
        (Gfp::KERNEL, 16 + 8),
        (Gfp::KERNEL | Gfp::HIGH, 16 + 4),
        (Gfp::ATOMIC, 16 + 3),
        (Gfp::ATOMIC | Gfp::NOMEMALLOC, 16 + 3),
    ] {
        let held = drain(&m.zone, gfp);
        assert_eq!(m.zone.stats().free, left, "{gfp:?}");
        assert!(held.iter().all(|f| !f.from_reserve()));
        drop(held);
        assert_eq!(m.zone.stats().free, 64);
    }
}

#[test]
fn m2_a_large_order_does_not_jump_over_the_mark() {
    let m = machine(64);
    m.zone.grow(16).unwrap();
    let held = drain(&m.zone, Gfp::KERNEL);
    drop(held.into_iter().take(3).collect::<Vec<_>>());
    let level = m.zone.level();
    assert!(level.ordinary() >= 8 && level.ordinary() < 8 + 64);
    assert_eq!(
        m.zone.alloc(6, Gfp::KERNEL).unwrap_err(),
        AllocError::Exhausted
    );
}

#[test]
fn m3_the_tag_says_that_the_reserve_was_needed_and_dies_with_the_frame() {
    let m = machine(64);
    m.zone.grow(16).unwrap();
    let token = m.zone.claim_memalloc().unwrap();
    let gfp = token.gfp(Gfp::KERNEL);

    assert!(
        !m.zone.alloc(0, gfp).unwrap().from_reserve(),
        "there was ordinary memory"
    );
    let held = drain(&m.zone, Gfp::KERNEL);
    let tagged = m.zone.alloc(0, gfp).unwrap();
    assert!(tagged.from_reserve());
    assert_eq!(m.zone.stats().reserve_in_use, 1);
    drop((tagged, held));

    let all = drain(&m.zone, gfp);
    assert_eq!(all.iter().filter(|f| f.from_reserve()).count(), 16 + 8);
    drop(all);
    assert_eq!(m.zone.stats().reserve_in_use, 0);
    assert!(
        drain(&m.zone, Gfp::KERNEL)
            .iter()
            .all(|f| !f.from_reserve()),
        "no tag was left"
    );
}

#[test]
fn the_entitled_get_every_last_frame() {
    let m = machine(64);
    m.zone.grow(16).unwrap();
    let token = m.zone.claim_memalloc().unwrap();
    let held = drain(&m.zone, token.gfp(Gfp::ATOMIC));
    assert_eq!((held.len(), m.zone.stats().min_free), (64, 0));
    assert_eq!(m.zone.stats().exhausted, 1);
}

#[test]
fn the_reserve_grows_only_over_free_frames() {
    let m = machine(64);
    assert_eq!(m.zone.grow(57), Err(BackingError { missing: 1 }));
    assert_eq!(m.zone.stats().reserve, 0);
    m.zone.grow(56).unwrap();
    assert!(m.zone.alloc(0, Gfp::KERNEL).is_err());
    m.zone.shrink(56);
    assert!(m.zone.alloc(0, Gfp::KERNEL).is_ok());
}

#[test]
fn zeroed_means_zeroed() {
    let m = machine(16);
    drain(&m.zone, Gfp::ATOMIC)
        .iter_mut()
        .for_each(|f| f.fill(0xff));
    assert!(
        m.zone
            .alloc(1, Gfp::ATOMIC | Gfp::ZERO)
            .unwrap()
            .iter()
            .all(|b| *b == 0)
    );
}

#[test]
fn bad_arguments_are_named() {
    let m = machine(16);
    assert_eq!(
        m.zone.alloc(11, Gfp::KERNEL).unwrap_err(),
        AllocError::BadOrder
    );
    let bad = Watermarks {
        min: 3,
        low: 2,
        high: 4,
    };
    let source = m.zone.source;
    assert_eq!(
        <Zone<'_>>::new(source, m.task, bad).unwrap_err(),
        ZoneError::MarksOutOfOrder
    );
    let big = Watermarks {
        min: 3,
        low: 4,
        high: 16,
    };
    assert!(matches!(
        <Zone<'_>>::new(source, m.task, big),
        Err(ZoneError::TooSmall { needed: 17, .. })
    ));
}

#[cfg(feature = "ablation")]
mod ablation {
    use super::*;

    #[test]
    fn m1_without_its_mechanisms_who_should_not_is_entitled() {
        let m = machine(64);
        let token = m.zone.claim_memalloc().unwrap();
        m.zone.ablate(Mechanism::InterruptEntitlement);
        m.zone.ablate(Mechanism::NoMemalloc);
        m.zone.ablate(Mechanism::ScopeEnd);
        let scope = m.zone.memalloc(&token);
        let irq = m.task.interrupt();
        assert!(m.zone.entitled(Gfp::ATOMIC));
        assert!(m.zone.entitled(Gfp::KERNEL | Gfp::NOMEMALLOC));
        drop((irq, scope));
        assert!(m.zone.entitled(Gfp::KERNEL), "the scope left it behind");
    }

    #[test]
    fn m2_without_its_mechanisms_ordinary_callers_eat_the_reserve() {
        for (mechanism, gfp, left) in [
            (None, Gfp::KERNEL, 40 + 8),
            (Some(Mechanism::ReserveMark), Gfp::KERNEL, 8),
            (Some(Mechanism::DiscountOnMinOnly), Gfp::KERNEL, 40 + 8),
            (Some(Mechanism::DiscountOnMinOnly), Gfp::ATOMIC, 18),
            // Of another object.
            (Some(Mechanism::Backing), Gfp::KERNEL, 40 + 8),
        ] {
            let m = machine(64);
            m.zone.grow(40).unwrap();
            if let Some(mechanism) = mechanism {
                m.zone.ablate(mechanism);
            }
            let held = drain(&m.zone, gfp);
            assert_eq!(m.zone.stats().free, left, "{mechanism:?}");
            assert!(held.iter().all(|frame| !frame.from_reserve()));
        }
    }

    #[test]
    fn m3_without_its_mechanisms_the_tag_says_nothing() {
        for (mechanism, early, late) in [
            (Mechanism::TagWhenNeeded, true, true),
            (Mechanism::ReserveTag, false, false),
        ] {
            let m = machine(64);
            m.zone.grow(16).unwrap();
            m.zone.ablate(mechanism);
            let token = m.zone.claim_memalloc().unwrap();
            let entitled = || m.zone.alloc(0, token.gfp(Gfp::KERNEL)).unwrap();
            assert_eq!(entitled().from_reserve(), early);
            let held = drain(&m.zone, Gfp::KERNEL);
            assert!(held.iter().all(|frame| !frame.from_reserve()));
            assert_eq!(entitled().from_reserve(), late);
            assert_eq!(m.zone.stats().reserve_in_use, 0);
        }
    }
}

/// As a panic handler would, or somebody whom the holder calls. The lock panics when its holder takes
/// it again.
#[test]
fn a_snapshot_of_a_zone_takes_no_lock() {
    let m = machine(64);
    m.zone.grow(4).unwrap();
    let frame = m.zone.alloc(1, Gfp::KERNEL).unwrap();
    let stats = m.zone.stats();
    let held = m.zone.state.lock();
    assert_eq!(m.zone.stats(), stats);
    drop(held);
    assert_eq!((stats.free, stats.min_free, stats.reserve), (62, 62, 4));
    drop(frame);
    assert_eq!((m.zone.stats().free, m.zone.stats().min_free), (64, 62));
}
