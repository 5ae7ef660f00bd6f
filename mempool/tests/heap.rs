//! A process whose every allocation comes from a [`Heap`].
//!
//! It has a `main` of its own, since the heap must have its memory before the standard library asks
//! for some.
#![no_main]

use core::ffi::{c_char, c_int};
use std::collections::BTreeMap;
use std::sync::{Barrier, OnceLock, mpsc};

use mempool::{
    Buddy, FRAME_SIZE, FrameEntry, Heap, HeapError, MemallocToken, ReserveBacking, StdContext,
    Watermarks, Zone,
};

#[global_allocator]
static HEAP: Heap = Heap::new();

const FRAMES: usize = 2048;
const RESERVE: usize = 256;

#[repr(align(65536))]
struct Memory([u8; FRAMES * FRAME_SIZE]);

static mut MEMORY: Memory = Memory([0; FRAMES * FRAME_SIZE]);
static mut TABLE: [FrameEntry; FRAMES] = [FrameEntry::EMPTY; FRAMES];
static SOURCE: OnceLock<Buddy<'static>> = OnceLock::new();
static ZONE: OnceLock<Zone<'static>> = OnceLock::new();

fn memory() -> &'static Zone<'static> {
    let (memory, table) = (&raw mut MEMORY, &raw mut TABLE);
    // SAFETY: the statics are named here alone, and `main` calls this once.
    let (memory, table) = unsafe { (&mut (*memory).0, &mut *table) };
    let source = SOURCE.get_or_init(|| Buddy::new(memory, table).unwrap());
    let marks = Watermarks {
        min: 16,
        low: 32,
        high: 64,
    };
    ZONE.get_or_init(|| Zone::new(source, &StdContext, marks).unwrap())
}

// SAFETY: the one `main` of this program.
#[unsafe(no_mangle)]
extern "C" fn main(_: c_int, _: *const *const c_char) -> c_int {
    assert!(
        Vec::<u8>::new().try_reserve(1).is_err(),
        "no memory before there is some"
    );
    let zone = memory();
    HEAP.init(zone).unwrap();
    assert_eq!(HEAP.init(zone), Err(HeapError::AlreadyInitialised));

    let token = zone.claim_memalloc().unwrap();
    collections();
    threads(zone);
    a_scope_goes_on(zone, &token);
    threads_take_and_free_each_others(zone, &token);
    println!("heap: 4 passed");
    0
}

fn collections() {
    let boxed = Box::new([7u8; 3 * FRAME_SIZE]);
    let mut text = String::new();
    let mut map = BTreeMap::new();
    for n in 0..2_000u32 {
        text += &n.to_string();
        map.insert(n.wrapping_mul(2_654_435_761), vec![n; n as usize % 50]);
    }
    map.retain(|_, v| v.len() % 3 == 0);
    for (key, value) in &map {
        let n = value.first().copied().unwrap_or(0);
        assert!(value.iter().all(|v| *v == n) && (n == 0 || n.wrapping_mul(2_654_435_761) == *key));
    }
    assert!(text.starts_with("0123456789101112") && text.ends_with("19981999"));
    assert!(boxed.iter().all(|b| *b == 7));

    #[repr(align(1024))]
    struct Aligned([u8; 3]);
    for _ in 0..20 {
        let aligned = Box::new(Aligned([1, 2, 3]));
        assert!((&raw const *aligned).is_aligned() && aligned.0 == [1, 2, 3]);
    }
}

fn in_use(zone: &Zone<'_>) -> usize {
    HEAP.classes().unwrap().shrink();
    zone.stats().total - zone.stats().free
}

fn threads(zone: &Zone<'_>) {
    let run = || {
        std::thread::scope(|s| {
            for seed in 0..4u64 {
                s.spawn(move || churn(seed));
            }
        });
    };
    run(); // What the standard library keeps for itself it keeps once.
    let before = in_use(zone);
    run();
    assert!(in_use(zone) <= before + 2, "nothing is left behind");
}

/// Vectors that come, grow and go; each holds its own number only.
fn churn(seed: u64) {
    let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut held: Vec<Vec<u64>> = Vec::new();
    for n in 0..3_000 {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let pick = (random >> 32) as usize;
        if held.len() < 40 {
            held.push(vec![n; pick % 200 + 1]);
        } else if n % 2 == 0 {
            let vec = held.swap_remove(pick % 40);
            assert!(vec.iter().all(|v| *v == vec[0]));
        } else {
            let vec = &mut held[pick % 40];
            let tag = vec[0];
            vec.extend(core::iter::repeat_n(tag, pick % 100));
            vec.shrink_to_fit();
        }
    }
}

/// All that ordinary code can have, in blocks of a frame.
fn hog() -> Vec<Vec<u8>> {
    let mut hog = Vec::with_capacity(FRAMES);
    loop {
        let mut frame = Vec::new();
        if frame.try_reserve_exact(FRAME_SIZE).is_err() {
            return hog;
        }
        frame.resize(FRAME_SIZE, 1);
        hog.push(frame);
    }
}

/// What is seen without memory is judged when there is some again: a panic wants memory too.
fn a_scope_goes_on(zone: &Zone<'static>, token: &MemallocToken) {
    zone.grow(RESERVE).unwrap();
    let refused = || Vec::<u8>::new().try_reserve(4 * FRAME_SIZE).is_err();
    let hog = hog();
    let before = refused();
    let mut emergency = [const { Vec::new() }; 50];
    let in_scope = {
        let _scope = zone.memalloc(token);
        for (n, vec) in emergency.iter_mut().enumerate() {
            *vec = vec![n as u8; 1 + n * FRAME_SIZE / 20];
        }
        zone.stats().reserve_in_use
    };
    let after = refused();
    drop(hog);
    assert!(before && after, "ordinary code gets nothing");
    assert!(
        in_scope > 50,
        "the scope got {in_scope} frames of the reserve"
    );
    for (n, vec) in emergency.iter().enumerate() {
        assert!(vec.iter().all(|b| usize::from(*b) == n));
    }
    assert_eq!(zone.stats().reserve_in_use, in_scope);
    drop(emergency);
    assert_eq!(zone.stats().reserve_in_use, 0);
    zone.shrink(RESERVE);
}

/// One thread allocates in a scope, another without one frees: the reserve is whole again.
fn threads_take_and_free_each_others(zone: &'static Zone<'static>, token: &MemallocToken) {
    zone.grow(RESERVE).unwrap();
    // Made while there is memory: a thread, a channel and a barrier take some of their own.
    let (send, receive) = mpsc::sync_channel::<Vec<u8>>(64);
    let both = Barrier::new(2);
    std::thread::scope(|s| {
        let swapper = s.spawn(|| {
            let send = send;
            both.wait(); // It runs …
            both.wait(); // … and ordinary memory is gone.
            let _scope = zone.memalloc(token);
            let mut from_reserve = 0;
            for n in 0..200u8 {
                let vec = vec![n; 10 + usize::from(n) * (FRAME_SIZE / 200)];
                from_reserve += usize::from(zone.stats().reserve_in_use > 0);
                send.send(vec).unwrap();
            }
            from_reserve
        });
        both.wait();
        let hog = hog();
        both.wait();
        let (mut count, mut whole) = (0, true);
        for vec in receive {
            count += 1;
            whole &= vec.iter().all(|b| *b == vec[0]);
        }
        drop(hog);
        assert!(count == 200 && whole);
        assert!(swapper.join().unwrap() > 100, "most were of the reserve");
    });
    assert_eq!(zone.stats().reserve_in_use, 0);
    zone.shrink(RESERVE);
}
