use alloc::vec::Vec;
use core::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::testbed::{Machine, machine};
use crate::{BufferCache, Gfp, ReserveNode, SizedCache};

const SIZE: usize = 256;

/// A value that looks at its cache when it is dropped.
struct Witness<'a, 'z> {
    cache: &'a SizedCache<'z>,
    in_use: &'a AtomicUsize,
    drops: &'a AtomicUsize,
}

impl Drop for Witness<'_, '_> {
    fn drop(&mut self) {
        self.in_use
            .store(self.cache.stats().in_use, Ordering::Relaxed);
        self.drops.fetch_add(1, Ordering::Relaxed);
    }
}

fn cache(m: &Machine) -> SizedCache<'_> {
    SizedCache::new("skb", &m.zone, SIZE, 0).unwrap()
}

fn filled<'c>(cache: &'c SizedCache<'_>, byte: u8) -> Buffer<'c> {
    let mut buffer = cache.alloc(Gfp::ATOMIC).unwrap();
    buffer.fill(byte);
    buffer
}

#[test]
fn all_owners_see_the_same_bytes_and_only_a_lone_one_writes() {
    let m = machine(64);
    let cache = cache(&m);
    let mut first = SharedBuffer::new(filled(&cache, 7), 100, 5u64).unwrap();
    let second = first.clone();
    assert!(first.iter().all(|byte| *byte == 7) && first.as_ptr() == second.as_ptr());
    assert!(first.len() >= SIZE - SharedBuffer::<u64>::TAIL && first.len() < SIZE);
    assert_eq!((first.object_size(), *second.value()), (SIZE, 5));
    assert!(first.get_mut().is_none() && !second.is_unique());

    drop(second);
    first.get_mut().unwrap().fill(9);
    assert_eq!((first[0], *first.value(), first.is_unique()), (9, 5, true));
    let front = first.len();
    let (buffer, value) = first.try_into_inner().unwrap();
    assert_eq!((buffer.len(), buffer[100], value), (SIZE, 9, 5));
    let tail = &buffer[front..][..size_of::<Tail<u64>>()];
    assert!(tail.iter().all(|byte| *byte == 0), "padding is no bytes");
}

#[test]
fn a_buffer_that_is_shared_does_not_come_apart() {
    let m = machine(64);
    let cache = cache(&m);
    let first = SharedBuffer::new(filled(&cache, 1), 0, ()).unwrap();
    let second = first.clone();
    let first = first.try_into_inner().unwrap_err();
    drop(second);
    assert!(first.try_into_inner().is_ok());
    assert_eq!(cache.stats().in_use, 0);
}

#[test]
fn what_is_to_be_kept_is_never_overwritten() {
    let m = machine(64);
    // Odd sizes: objects start at every alignment.
    for size in [2, 9, 33, 61, 127] {
        let cache = <SizedCache<'_>>::new("odd", &m.zone, size, 0).unwrap();
        let mut held = Vec::new();
        for _ in 0..9 {
            for keep in 0..=size {
                let (buffer, value) = match SharedBuffer::new(filled(&cache, 0xee), keep, 3u64) {
                    Ok(shared) => {
                        assert!(shared.len() >= keep && *shared.value() == 3);
                        assert!(shared.iter().all(|byte| *byte == 0xee));
                        shared.try_into_inner().unwrap()
                    }
                    Err((buffer, value)) => {
                        assert!(keep + SharedBuffer::<u64>::TAIL > size);
                        assert!(buffer.iter().all(|byte| *byte == 0xee));
                        (buffer, value)
                    }
                };
                assert!(buffer[..keep.min(buffer.len())].iter().all(|b| *b == 0xee));
                assert_eq!((buffer.len(), value), (size, 3));
            }
            held.push(cache.alloc(Gfp::ATOMIC).unwrap());
        }
    }
}

#[test]
fn m6_the_value_is_dropped_once_after_the_buffer_by_whoever_is_last() {
    let m = machine(64);
    let cache = cache(&m);
    let (in_use, drops) = (AtomicUsize::new(99), AtomicUsize::new(0));
    let witness = || Witness {
        cache: &cache,
        in_use: &in_use,
        drops: &drops,
    };
    for (count, last) in [(1, 0), (3, 0), (3, 1), (3, 2)] {
        drops.store(0, Ordering::Relaxed);
        let first = SharedBuffer::new(filled(&cache, 1), 0, witness())
            .ok()
            .unwrap();
        let mut handles: Vec<_> = (1..count).map(|_| first.clone()).collect();
        handles.push(first);
        let kept = handles.swap_remove(last);
        drop(handles);
        assert_eq!(
            (drops.load(Ordering::Relaxed), cache.stats().in_use),
            (0, 1)
        );
        drop(kept);
        assert_eq!(
            (
                drops.load(Ordering::Relaxed),
                in_use.load(Ordering::Relaxed)
            ),
            (1, 0),
            "the memory was free before"
        );
    }
}

#[test]
fn a_charge_is_such_a_value() {
    let m = machine(64);
    let cache = cache(&m);
    let root: ReserveNode<'_> = ReserveNode::root("total", &m.zone);
    root.set_limit(SIZE, 1).unwrap();
    let charge = root.charge(SIZE).unwrap();
    let first = SharedBuffer::new(filled(&cache, 0), 0, charge).unwrap();
    let second = first.clone();
    drop(first);
    assert_eq!(root.usage(), SIZE);
    drop(second);
    assert_eq!(root.usage(), 0);
}

#[test]
#[should_panic(expected = "too many handles")]
fn the_count_never_wraps() {
    let m = machine(64);
    let cache = cache(&m);
    let shared = ManuallyDrop::new(SharedBuffer::new(filled(&cache, 0), 0, ()).unwrap());
    shared.count(|handles| handles.set(u32::MAX));
    let _ = ManuallyDrop::new((*shared).clone());
}

#[test]
fn threads_that_share_a_buffer_end_it_once() {
    let m = machine(64);
    let cache = cache(&m);
    let (in_use, drops) = (AtomicUsize::new(99), AtomicUsize::new(0));
    let (rounds, clones) = if cfg!(miri) { (3, 3) } else { (100, 2000) };
    for _ in 0..rounds {
        let witness = Witness {
            cache: &cache,
            in_use: &in_use,
            drops: &drops,
        };
        let first = SharedBuffer::new(filled(&cache, 6), 0, witness)
            .ok()
            .unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                let handle = first.clone();
                scope.spawn(move || {
                    for _ in 0..clones {
                        assert_eq!(handle.clone()[0], 6);
                    }
                });
            }
            drop(first);
        });
    }
    assert_eq!(
        (
            drops.load(Ordering::Relaxed),
            in_use.load(Ordering::Relaxed)
        ),
        (rounds, 0)
    );
    assert_eq!(cache.stats().in_use, 0);
}
