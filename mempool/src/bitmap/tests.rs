use alloc::vec;
use alloc::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::{Frame, FrameSource, Gfp, SingleTask, Watermarks, Zone};

#[test]
fn every_frame_is_given_out_once_and_comes_back() {
    for frames in [1, 31, 32, 33, 64, 100] {
        let (mut memory, mut map) = (vec![0; (frames + 1) * FRAME_SIZE], vec![0; 4]);
        let source = <Bitmap<'_>>::new(&mut memory, &mut map).unwrap();
        let total = source.total();
        assert!((frames..=frames + 1).contains(&total));
        let task = SingleTask::new();
        let zone = <Zone<'_>>::new(&source, &task, Watermarks::default()).unwrap();
        for _ in 0..3 {
            let held: Vec<Frame<'_>> =
                core::iter::from_fn(|| zone.alloc(0, Gfp::ATOMIC).ok()).collect();
            let mut starts: Vec<_> = held.iter().map(|frame| frame.as_ptr()).collect();
            starts.sort_unstable();
            starts.dedup();
            assert_eq!((starts.len(), zone.stats().free), (total, 0));
            drop(held);
            assert_eq!(zone.stats().free, total);
        }
        assert!(zone.alloc(1, Gfp::ATOMIC).is_err(), "single frames only");
    }
}

#[test]
fn what_cannot_be_managed_is_refused_by_name() {
    let mut map = [0; 1];
    let error = <Bitmap<'_>>::new(&mut [0; 16], &mut map).unwrap_err();
    assert_eq!(error, BitmapError::NoFrame);
    let mut memory = vec![0; 34 * FRAME_SIZE];
    let error = <Bitmap<'_>>::new(&mut memory, &mut map).unwrap_err();
    assert_eq!(
        error,
        BitmapError::ShortMap {
            needed: 2,
            given: 1
        }
    );
}

#[test]
#[should_panic(expected = "frame 3 is freed twice")]
fn a_double_free_is_noticed() {
    let mut words = [0];
    let mut bits = Bits::new(&mut words, 8);
    assert!((0..8).all(|_| bits.take().is_some()));
    bits.give(3);
    bits.give(3);
}

proptest! {
    #[test]
    fn it_does_what_a_set_does(frames in 1usize..100, ops in prop::collection::vec(any::<Option<u8>>(), 1..500)) {
        let mut words = vec![0; frames.div_ceil(32)];
        let mut bits = Bits::new(&mut words, frames);
        let mut held: Vec<usize> = Vec::new();
        for op in ops {
            match op {
                None => match bits.take() {
                    Some(index) => {
                        prop_assert!(index < frames && !held.contains(&index));
                        held.push(index);
                    }
                    None => prop_assert_eq!(held.len(), frames),
                },
                Some(which) if !held.is_empty() => {
                    let index = held.swap_remove(usize::from(which) % held.len());
                    bits.give(index);
                }
                Some(_) => {}
            }
            prop_assert_eq!(bits.free, frames - held.len());
        }
    }
}
