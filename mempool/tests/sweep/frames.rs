//! Frames: a zone, the hooks that make room in it, and a list of zones.

use std::sync::Mutex;

use mempool::{Frame, FrameAllocator, Gfp, Level, Pressure, Zone, ZoneList};

use crate::inject::{Injector, Run, sweep};
use crate::machine::{self, RESERVE, leak, machine};

#[test]
fn a_zone_loses_no_frame_whichever_allocation_fails() {
    let m = machine(64);
    let scenario = |run: &Run<'_>| {
        let mut held = Vec::new();
        let before = m.zone.stats();
        run.step("plenty");
        for order in [0, 1, 3, 0] {
            for gfp in [
                Gfp::KERNEL,
                Gfp::ATOMIC | Gfp::ZERO,
                m.entitled(Gfp::ATOMIC),
            ] {
                held.extend(run.need(m.zone.alloc(order, gfp)));
            }
        }
        assert!(held.iter().all(|frame: &Frame<'_>| !frame.from_reserve()));
        let hog = m.exhaust();
        run.step("want");
        for order in [0, 1, 0] {
            held.extend(run.need(m.zone.alloc(order, m.entitled(Gfp::KERNEL))));
        }
        let stats = m.zone.stats();
        let tagged = held.iter().filter(|frame| frame.from_reserve());
        let tagged: usize = tagged.map(|frame| 1 << frame.order()).sum();
        assert_eq!(stats.reserve_in_use, tagged);
        let frames: usize = held.iter().map(|frame| 1 << frame.order()).sum();
        assert_eq!(m.held(), frames + hog.len());
        if run.injected() > 0 {
            let failed = stats.refused + stats.exhausted;
            assert!(failed > before.refused + before.exhausted, "counted");
        }
    };
    sweep("zone", m.injector, scenario, || m.at_rest());
}

/// Reclaim that gives back what it has, and allocates in doing so.
struct Reclaim {
    clean: Mutex<Vec<Frame<'static>>>,
    zone: Mutex<Option<&'static Zone<'static>>>,
}

impl Pressure for Reclaim {
    fn wake_background(&self, _: Level) {}

    fn reclaim(&self, order: u8, _: Gfp, _: Level) -> usize {
        let zone = self.zone.lock().unwrap().expect("set when it was made");
        // In a memalloc scope: what it needs may come out of the reserve, or not come at all.
        let Ok(_scratch) = zone.alloc(0, Gfp::KERNEL) else {
            return 0;
        };
        let mut clean = self.clean.lock().unwrap();
        let left = clean.len().saturating_sub(1 << order);
        let freed = clean.split_off(left);
        freed.len()
    }
}

#[test]
fn who_reclaims_ends_and_loses_nothing_whichever_allocation_fails() {
    let injector: &'static Injector = leak(Injector::new());
    let reclaim: &'static Reclaim = leak(Reclaim {
        clean: Mutex::default(),
        zone: Mutex::default(),
    });
    let zone = machine::zone_with(64, injector, Some(reclaim));
    *reclaim.zone.lock().unwrap() = Some(zone);
    let scenario = |run: &Run<'_>| {
        *reclaim.clean.lock().unwrap() = machine::exhaust(zone, injector);
        run.step("direct reclaim");
        let held: Vec<_> = (0..4)
            .filter_map(|_| run.need(zone.alloc(0, Gfp::KERNEL)))
            .collect();
        assert!(held.iter().all(|frame| !frame.from_reserve()));
        drop(held);
        run.step("direct reclaim of a run");
        let _ = zone.alloc(1, Gfp::KERNEL);
        reclaim.clean.lock().unwrap().clear();
    };
    sweep("reclaim", injector, scenario, || machine::at_rest(zone));
}

#[test]
fn a_zone_list_loses_no_frame_whichever_allocation_fails() {
    let injector: &'static Injector = leak(Injector::new());
    let zones = [machine::zone(64, injector), machine::zone(128, injector)];
    let token = zones[0].claim_memalloc().unwrap();
    let scenario = |run: &Run<'_>| {
        let list = ZoneList::new([zones[0] as &dyn FrameAllocator, zones[1]]);
        let mut held = Vec::new();
        run.step("plenty");
        for order in [0, 2, 0] {
            held.extend(run.need(list.alloc(order, Gfp::ATOMIC)));
        }
        let _first = machine::exhaust(zones[0], injector);
        run.step("the first zone is at its mark");
        for gfp in [Gfp::KERNEL, token.gfp(Gfp::ATOMIC)] {
            let frame = run.need(list.alloc(1, gfp));
            assert!(
                run.injected() > 0 || frame.as_ref().is_some_and(|f| !f.from_reserve()),
                "M3"
            );
            held.extend(frame);
        }
        let _second = machine::exhaust(zones[1], injector);
        run.step("both are");
        assert!(list.alloc(0, Gfp::KERNEL).is_err());
        for _ in 0..3 {
            held.extend(run.need(list.alloc(0, token.gfp(Gfp::KERNEL))));
        }
        let tagged = held.iter().filter(|frame| frame.from_reserve());
        let tagged: usize = tagged.map(|frame| 1 << frame.order()).sum();
        let in_use: usize = zones.iter().map(|zone| zone.stats().reserve_in_use).sum();
        assert_eq!(in_use, tagged);
        assert!(tagged < RESERVE);
    };
    sweep("zone list", injector, scenario, || {
        zones.into_iter().for_each(machine::at_rest);
    });
}
