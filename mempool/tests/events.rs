//! What the log is told, how often, and that no lock is held meanwhile.
#![cfg(not(feature = "defmt"))] // which wins: then `log` is told nothing

#[path = "support/capture.rs"]
mod capture;

use std::cell::Cell;

use capture::{lines, listen, on_event};
use log::Level::{Debug, Info, Warn};
use mempool::{
    Buddy, BufferCache, CpuId, CpuMagazines, FRAME_SIZE, FrameEntry, Gfp, Magazines, Pool,
    ReserveNode, SLAB_HEADER, SingleTask, SizedCache, Watermarks, Zone, ZoneList,
};

/// Two to a frame.
const SKB: usize = (FRAME_SIZE - SLAB_HEADER) / 2;

/// Leaked, so that lifetimes do not matter. `frames` of them, with marks of 4, 6 and 8.
fn zone(frames: usize) -> &'static Zone<'static> {
    listen();
    let memory = vec![0; (frames + 1) * FRAME_SIZE].leak();
    let skip = memory.as_ptr().align_offset(FRAME_SIZE);
    let table = vec![FrameEntry::EMPTY; frames].leak();
    let source: &'static Buddy<'static> = Box::leak(Box::new(
        Buddy::new(&mut memory[skip..skip + frames * FRAME_SIZE], table).unwrap(),
    ));
    let task = Box::leak(Box::new(SingleTask::new()));
    let (min, low, high) = (4, 6, 8);
    Box::leak(Box::new(
        Zone::new(source, task, Watermarks { min, low, high }).unwrap(),
    ))
}

/// Takes all that ordinary callers get.
fn hog<'z>(zone: &'z Zone<'_>, gfp: Gfp) -> Vec<mempool::Frame<'z>> {
    std::iter::from_fn(|| zone.alloc(0, gfp | Gfp::NOWARN).ok()).collect()
}

#[test]
fn a_failure_tells_what_was_asked_and_how_it_stands_unless_it_is_no_news() {
    let zone = zone(16);
    mempool::ReserveBacking::grow(zone, 3).unwrap();
    let _held = hog(zone, Gfp::KERNEL);
    assert_eq!(lines(), [], "NOWARN");
    zone.alloc(1, Gfp::KERNEL | Gfp::ZERO).unwrap_err();
    assert_eq!(
        lines(),
        [(
            Warn,
            "zone: ordinary allocation of order 1 failed, flags {WAIT, ZERO} (1 so far): \
             7 of 16 frames free, reserve 3, of it in use 0, min 4 low 6 high 8 above it"
                .to_string()
        )]
    );
    let token = zone.claim_memalloc().unwrap();
    zone.alloc(4, token.gfp(Gfp::ATOMIC)).unwrap_err();
    let [(Warn, line)] = &lines()[..] else {
        panic!("one line");
    };
    assert!(
        line.starts_with("zone: entitled allocation of order 4 failed, flags {HIGH, MEMALLOC} (2")
    );
}

#[test]
fn a_flood_of_failures_is_no_flood_of_lines() {
    let zone = zone(16);
    let _held = hog(zone, Gfp::KERNEL);
    for _ in 0..3000 {
        zone.alloc(0, Gfp::KERNEL).unwrap_err();
    }
    let told = lines();
    assert_eq!(told.len(), 12, "1, 2, 4 … 512, 1024, 2048");
    assert!(told.last().unwrap().1.contains("(2048 so far)"));
}

#[test]
fn what_is_tried_before_the_reserve_or_another_zone_is_no_failure() {
    let (one, two) = (zone(16), zone(16));
    let (_one, _two) = (hog(one, Gfp::ATOMIC), hog(two, Gfp::ATOMIC));
    let list = ZoneList::new([one, two]);
    let cache = <SizedCache<'_>>::new("skb", &list, SKB, 0).unwrap();
    cache.alloc(Gfp::KERNEL).unwrap_err();
    assert_eq!(lines().len(), 1, "once, of the last zone");
    cache.alloc(Gfp::ATOMIC | Gfp::NOWARN).unwrap_err();
    assert_eq!(lines(), []);

    let token = one.claim_memalloc().unwrap();
    let cache = <SizedCache<'_>>::new("skb", one, SKB, 0).unwrap();
    mempool::ReserveBacking::grow(one, 0).unwrap();
    let skb = cache.alloc(token.gfp(Gfp::ATOMIC)).unwrap();
    assert!(skb.from_reserve());
    let told = lines();
    assert!(told.iter().all(|(level, _)| *level == Debug), "{told:?}");

    // What a pool is for is no failure either, until it is empty as well.
    let mut slots = [None];
    let pool: Pool<'_, '_, _> = Pool::new("requests", one, &mut slots);
    assert!(pool.alloc(Gfp::ATOMIC).is_err());
    assert_eq!(
        lines(),
        [(
            Warn,
            "pool requests: empty (1 times so far), flags {HIGH}: 0 of at least 1 elements are out"
                .to_string()
        )]
    );
}

#[test]
fn with_magazines_a_failure_is_told_once_as_well() {
    struct OneCpu;

    impl CpuId for OneCpu {
        fn cpu(&self) -> usize {
            0
        }
    }

    let zone = zone(16);
    let mut slots: [CpuMagazines<8>; 1] = Default::default();
    let cache = <SizedCache<'_>>::new("skb", zone, SKB, 0).unwrap();
    let cache = cache.with_magazines(Magazines::new(OneCpu, &mut slots));
    let _held = hog(zone, Gfp::ATOMIC);
    cache.alloc(Gfp::ATOMIC).unwrap_err();
    assert_eq!(lines().len(), 1);
}

#[test]
fn the_way_into_the_reserve_and_out_of_it_is_told_once() {
    let zone = zone(16);
    mempool::ReserveBacking::grow(zone, 4).unwrap();
    let token = zone.claim_memalloc().unwrap();
    let mut held = hog(zone, Gfp::ATOMIC);
    let emergency: Vec<_> = (0..3)
        .map(|_| zone.alloc(0, token.gfp(Gfp::ATOMIC)).unwrap())
        .collect();
    let into = "zone: into the reserve of 4 frames (1 times so far)".to_string();
    assert_eq!(lines(), [(Debug, into)]);
    drop(emergency);
    held.pop();
    assert_eq!(lines(), []);
    drop(zone.alloc(0, Gfp::ATOMIC).unwrap());
    let whole = "zone: the reserve of 4 frames is whole again (1 times so far)".to_string();
    assert_eq!(lines(), [(Debug, whole)]);
    drop(zone.alloc(0, Gfp::ATOMIC).unwrap());
    assert_eq!(lines(), []);
}

#[test]
fn limits_and_connections_are_told_and_refused_charges() {
    let zone = zone(16);
    let (root, rx) = (
        <ReserveNode<'_>>::root("total", zone),
        ReserveNode::new("rx"),
    );
    rx.set_limit(100, 2).unwrap();
    rx.connect(&root).unwrap();
    let _charge = rx.charge(60).unwrap();
    for _ in 0..3 {
        rx.charge(50).unwrap_err();
    }
    drop(_charge);
    rx.disconnect().unwrap();
    assert!(
        root.set_limit(1, 100).is_err(),
        "said by its error, and by nobody else"
    );
    let refused = |nth| {
        format!(
            "reserve rx: a charge of 50 was refused ({nth} so far): the charge exceeds the limit, \
             60 of 100 charged"
        )
    };
    assert_eq!(
        lines(),
        [
            (
                Info,
                "reserve rx: limit 100, backed by 2 frames".to_string()
            ),
            (
                Info,
                "reserve rx: connected to total with 2 frames".to_string()
            ),
            (Warn, refused(1)),
            (Warn, refused(2)),
            (
                Info,
                "reserve rx: disconnected from total, 2 frames returned".to_string()
            ),
        ]
    );
}

/// Its locks are [`CriticalSection`](mempool::CriticalSection)s, which notice when their holder takes
/// them again: a logger that is called under one of them panics here.
#[test]
fn m7_a_logger_may_call_back_and_what_it_fails_at_does_not_go_round_for_ever() {
    thread_local!(static DEPTH: Cell<(usize, usize)> = const { Cell::new((0, 0)) });

    let zone = zone(16);
    let token = zone.claim_memalloc().unwrap();
    let nodes: &'static [ReserveNode<'static>; 2] = Box::leak(Box::new([
        ReserveNode::root("total", zone),
        ReserveNode::new("rx"),
    ]));
    let [root, rx] = nodes;
    let cache: &'static SizedCache<'static> =
        Box::leak(Box::new(SizedCache::new("skb", zone, SKB, 0).unwrap()));
    on_event(Some(Box::new(move || {
        let (depth, deepest) = DEPTH.get();
        DEPTH.set((depth + 1, deepest.max(depth + 1)));
        // As a logger that formats into memory of its own would, best effort (M7) …
        assert_eq!(zone.stats().total, 16);
        drop(cache.alloc(Gfp::ATOMIC | Gfp::NOMEMALLOC));
        drop(zone.alloc(0, Gfp::ATOMIC | Gfp::NOMEMALLOC));
        // … and one that asks for everything else there is.
        drop(cache.alloc(token.gfp(Gfp::ATOMIC)));
        drop(rx.charge(1));
        assert!(root.to_string().lines().count() >= 2 && rx.usage() <= 1);
        let (depth, deepest) = DEPTH.get();
        DEPTH.set((depth - 1, deepest));
    })));

    rx.set_limit(1, 4).unwrap();
    rx.connect(root).unwrap();
    // The logger's last ordinary slab is in the cache yet.
    cache.shrink();
    let held = hog(zone, Gfp::ATOMIC);
    for _ in 0..100 {
        drop(zone.alloc(0, Gfp::KERNEL));
        let skb = cache.alloc(token.gfp(Gfp::ATOMIC)).unwrap();
        assert!(skb.from_reserve());
        let _full = rx.charge(1);
        drop(rx.charge(1));
    }
    drop(held);
    drop(zone.alloc(0, Gfp::KERNEL));
    rx.disconnect().unwrap();
    on_event(None);
    let told = lines();
    for (level, what) in [
        (Info, "connected"),
        (Info, "limit"),
        (Info, "disconnected"),
        (Warn, "failed"),
        (Warn, "refused"),
        (Debug, "into the reserve"),
        (Debug, "whole again"),
    ] {
        let said = told
            .iter()
            .any(|(l, line)| *l == level && line.contains(what));
        assert!(said, "{what}");
    }
    let (_, deepest) = DEPTH.get();
    // Each of the three kinds of events that it causes can nest twice.
    assert!((2..=8).contains(&deepest), "{deepest}");
    assert_eq!((zone.stats().reserve_in_use, rx.usage()), (0, 0));
}
