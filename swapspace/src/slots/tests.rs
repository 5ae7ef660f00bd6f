use alloc::collections::BTreeSet;
use alloc::vec;
use alloc::vec::Vec;

use proptest::prelude::*;

use super::*;

fn with_map<T>(slots: u32, run: impl FnOnce(SlotMap<'_>) -> T) -> T {
    let mut words = vec![0xdead_beef; map_len(slots)];
    let mut map = SlotMap::new(&mut words);
    map.reset(slots);
    run(map)
}

#[test]
fn neighbours_in_time_are_neighbours_in_slots() {
    with_map(256, |mut map| {
        for i in 0..32 {
            let run = map.alloc(8).unwrap();
            assert_eq!((run.first().0, run.len()), (i * 8, 8));
        }
        assert_eq!(map.alloc(1), None);
    });
}

#[test]
fn a_full_run_is_preferred_to_the_next_hole() {
    with_map(128, |mut map| {
        let _held: Vec<_> = map.alloc(8).unwrap().chain(map.alloc(3).unwrap()).collect();
        let run = map.alloc(32).unwrap();
        assert_eq!((run.first().0, run.len()), (32, 32));
    });
}

#[test]
fn retired_slots_never_come_back() {
    with_map(40, |mut map| {
        let slots: Vec<u32> = core::iter::from_fn(|| map.alloc(1))
            .map(|run| run.first().0)
            .collect();
        assert_eq!(slots.len(), 40);
        for slot in slots {
            if slot % 2 == 0 {
                map.retire(slot);
            } else {
                map.free(slot);
            }
        }
        assert_eq!((map.retired(), map.free_slots(), map.used()), (20, 20, 0));
        while let Some(run) = map.alloc(8) {
            assert_eq!((run.first().0 % 2, run.len()), (1, 1));
        }
    });
}

#[test]
#[should_panic(expected = "slot 3 is not allocated in this area")]
fn freeing_a_free_slot_is_detected() {
    with_map(8, |mut map| map.free(3));
}

#[test]
fn a_slot_goes_back_with_its_last_owner() {
    with_map(40, |mut map| {
        let _others: Vec<_> = map.alloc(32).unwrap().collect();
        let slot = map.alloc(1).unwrap().first().0;
        for owners in 1..MAX_OWNERS {
            assert_eq!(map.owners(slot), owners);
            map.dup(slot).unwrap();
        }
        assert_eq!(map.dup(slot), Err(DupError::TooManyOwners));
        for owners in (1..=MAX_OWNERS).rev() {
            assert_eq!((map.owners(slot), map.used()), (owners, 33));
            map.free(slot);
        }
        assert_eq!((map.used(), map.free_slots()), (32, 8));
    });
}

#[test]
fn a_shared_slot_is_retired_when_its_last_owner_goes() {
    with_map(8, |mut map| {
        let slot = map.alloc(1).unwrap().first().0;
        map.dup(slot).unwrap();
        map.retire(slot);
        assert_eq!(
            (map.retired(), map.used()),
            (0, 1),
            "another owner reads it"
        );
        map.free(slot);
        assert_eq!((map.retired(), map.used(), map.free_slots()), (1, 0, 7));
    });
}

#[test]
fn what_is_withdrawn_is_never_given_out() {
    with_map(64, |mut map| {
        assert!(map.withdraw(0) && map.withdraw(33));
        assert!(!map.withdraw(33), "only once");
        assert!(!map.withdraw(64), "there is no such slot");
        let slots: Vec<u32> = core::iter::from_fn(|| map.alloc(8))
            .flatten()
            .map(|entry| entry.slot().0)
            .collect();
        assert_eq!(slots.len(), 62);
        assert!(!slots.contains(&0) && !slots.contains(&33));
    });
}

#[test]
#[should_panic(expected = "slot 3 is not allocated in this area")]
fn freeing_a_retired_slot_is_detected() {
    with_map(8, |mut map| {
        assert_eq!(map.alloc(8).unwrap().len(), 8);
        map.retire(3);
        map.free(3);
    });
}

#[test]
fn a_map_takes_less_than_a_byte_for_each_slot() {
    for shift in 0..32 {
        for slots in [(1u32 << shift) - 1, 1 << shift, (1 << shift) + 1] {
            let bytes = map_len(slots) * 4;
            assert!(bytes <= slots as usize + 14 * 4, "{slots} slots: {bytes}");
        }
    }
}

/// However full the map and however many its slots, an allocation touches a bounded number of
/// words, and each slot of a run little more than one.
#[test]
fn allocation_is_constant_up_to_99_per_cent() {
    for slots in [1 << 14, 1 << 17, 1 << 20] {
        for percent in [0, 50, 90, 99] {
            with_map(slots, |mut map| {
                // The free slots lie as badly as can be: alone, and far apart.
                while map.alloc(32).is_some() {}
                let holes = slots / 100 * (100 - percent);
                let mut slot = 0;
                for _ in 0..holes {
                    slot = (slot + 40_503) % slots;
                    map.free(slot);
                }
                map.touched.set(0);
                let mut runs = 0u32;
                while map.alloc(8).is_some() {
                    runs += 1;
                }
                let each = map.touched.get() / u64::from(runs.max(1));
                // Of each probe: up and down three summaries at most, and the run; then the set.
                assert!(each <= PROBES as u64 * 9 + 8, "{each} words at {percent} %");
            });
        }
    }
}

proptest! {
    #[test]
    fn agrees_with_a_set(
        slots in prop_oneof![1u32..100, Just(32), Just(1024), 1000u32..5000],
        ops in prop::collection::vec((any::<bool>(), 1u32..=8, any::<prop::sample::Index>()), 1..600),
    ) {
        with_map(slots, |mut map| {
            let mut taken = BTreeSet::new();
            for (alloc, want, which) in ops {
                if alloc || taken.is_empty() {
                    let run = map.alloc(want);
                    prop_assert_eq!(run.is_none(), taken.len() == slots as usize);
                    for entry in run.into_iter().flatten() {
                        prop_assert!(entry.slot().0 < slots);
                        prop_assert!(taken.insert(entry.slot().0), "given out twice");
                    }
                } else {
                    let slot = *which.get(&taken.iter().collect::<Vec<_>>());
                    let slot = *slot;
                    map.free(slot);
                    taken.remove(&slot);
                }
                prop_assert_eq!(map.used() as usize, taken.len());
            }
            // However the map got there, every free slot can still be found.
            while let Some(run) = map.alloc(1) {
                prop_assert!(taken.insert(run.first().0));
            }
            prop_assert_eq!(taken.len(), slots as usize);
            Ok(())
        })?;
    }
}
