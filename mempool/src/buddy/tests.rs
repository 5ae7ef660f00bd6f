use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use proptest::prelude::*;

use super::*;

#[test]
fn odd_sizes_are_covered_whole() {
    for frames in 1..300 {
        let mut table = alloc::vec![FrameEntry::EMPTY; frames];
        let mut lists = Lists::new(&mut table);
        let mut seen = alloc::vec![false; frames];
        while let Some(i) = lists.take(0) {
            assert!(!core::mem::replace(&mut seen[i], true));
        }
        assert!(seen.iter().all(|s| *s));
    }
}

#[test]
#[should_panic(expected = "not handed out")]
fn double_free_is_detected() {
    let mut table = [FrameEntry::EMPTY; 4];
    let mut lists = Lists::new(&mut table);
    let index = lists.take(0).unwrap();
    lists.give(index, 0);
    lists.give(index, 0);
}

#[test]
#[should_panic(expected = "not handed out")]
fn double_free_of_a_parked_frame_is_detected() {
    let mut table = [FrameEntry::EMPTY; 64];
    let mut lists = Lists::new(&mut table);
    let index = lists.take(0).unwrap();
    lists.give(index, 0);
    assert_ne!(lists.parked, NIL);
    lists.give(index, 0);
}

#[test]
fn parked_frames_are_few_and_join_before_a_run_is_refused() {
    for frames in [1, 63, 64, 640, 1024, 8192] {
        let mut table = alloc::vec![FrameEntry::EMPTY; frames];
        let mut lists = Lists::new(&mut table);
        let held: Vec<usize> = core::iter::from_fn(|| lists.take(0)).collect();
        held.into_iter().for_each(|index| lists.give(index, 0));
        let (mut parked, mut at) = (0, lists.parked);
        while at != NIL {
            (parked, at) = (parked + 1, lists.table[at as usize].next);
        }
        assert_eq!(parked, (frames / 64).min(64));

        // Every run that the memory ever had is there, whatever is parked.
        let largest = frames.ilog2().min(ORDERS as u32 - 1);
        for order in (0..=largest as u8).rev() {
            let runs = core::iter::from_fn(|| lists.take(order)).count();
            let before = match order {
                _ if u32::from(order) == largest => frames >> order,
                _ => frames >> order & 1,
            };
            assert_eq!(runs, before, "of order {order} in {frames} frames");
        }
        assert_eq!(lists.free(), 0);
    }
}

#[test]
fn the_books_of_frames_of_4096_bytes_are_below_one_percent() {
    let books = |frames: usize| {
        frames * size_of::<FrameEntry>()
            + size_of::<Buddy<'_>>()
            + size_of::<crate::Zone<'_>>()
            + size_of::<crate::ReserveNode<'_>>()
    };
    for frames in [256, 1 << 10, 1 << 18, 1 << 24] {
        assert!(books(frames) * 100 <= frames * 4096, "{frames} frames");
    }
}

/// A buddy allocator as the textbook has it: a set of free runs, joined at once.
struct Model {
    frames: usize,
    taken: BTreeMap<usize, u8>,
}

impl Model {
    /// Whether an aligned run of that order is free, by looking at everything that is taken.
    fn has(&self, order: u8) -> bool {
        let len = 1 << order;
        (0..self.frames / len).any(|at| self.is_free(at * len, len))
    }

    fn is_free(&self, start: usize, len: usize) -> bool {
        let before = self.taken.range(..start + len).next_back();
        before.is_none_or(|(&at, &order)| at + (1 << order) <= start)
    }
}

proptest! {
    // 128 cases of 1000 operations.
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// A run is handed out if and only if one is free somewhere: no more than the largest that are
    /// handed out split what is free, and what is parked hides nothing.
    #[test]
    fn runs_are_handed_out_while_there_are_any_and_never_twice(
        frames in 1usize..700,
        ops in prop::collection::vec((0u8..20, 0u8..5, any::<prop::sample::Index>()), 1000),
        hoard in any::<bool>(),
    ) {
        let mut table = alloc::vec![FrameEntry::EMPTY; frames];
        let mut lists = Lists::new(&mut table);
        let mut model = Model { frames, taken: BTreeMap::new() };
        for (what, order, which) in ops {
            // Single frames mostly; sometimes more is given than taken, sometimes less.
            let order = if what % 2 == 0 { 0 } else { order };
            if what < if hoard { 12 } else { 9 } {
                let index = lists.take(order);
                prop_assert_eq!(index.is_some(), model.has(order));
                if let Some(index) = index {
                    let len = 1usize << order;
                    prop_assert!(index.is_multiple_of(len) && index + len <= frames);
                    prop_assert!(model.is_free(index, len), "handed out twice");
                    model.taken.insert(index, order);
                }
            } else if !model.taken.is_empty() {
                let at = which.index(model.taken.len());
                let (&index, &order) = model.taken.iter().nth(at).unwrap();
                model.taken.remove(&index);
                lists.give(index, order);
            }
            let out: usize = model.taken.values().map(|&order| 1 << order).sum();
            prop_assert_eq!(lists.free(), frames - out);
        }
        for (index, order) in core::mem::take(&mut model.taken) {
            lists.give(index, order);
        }
        let largest = frames.ilog2().min(ORDERS as u32 - 1) as u8;
        prop_assert!(lists.take(largest).is_some(), "everything joins");
    }
}
