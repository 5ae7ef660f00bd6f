//! What an allocation and its release cost in instructions, with a lock that costs nothing.
//!
//! ```sh
//! cargo build --release -p mempool --example slab_cost
//! for n in 100000 200000; do
//!     valgrind --tool=callgrind --callgrind-out-file=/dev/null target/release/examples/slab_cost plain $n
//! done
//! ```
//! The difference of the two counts ("Collected"), divided by 100000, is the cost of one pair.

use core::cell::Cell;
use core::hint::black_box;

use lock_api::{GuardNoSend, RawMutex};
use mempool::{
    Buddy, BufferCache, Cache, CpuId, CpuMagazines, FRAME_SIZE, FrameEntry, Gfp, Magazines,
    Parking, SingleTask, SizedCache, Watermarks, Zone,
};

/// The lock of a system with one task and no interrupts: nobody can come in between.
struct OneTask;

// SAFETY: this program has one thread, and takes no lock that it holds.
unsafe impl RawMutex for OneTask {
    const INIT: Self = OneTask;

    type GuardMarker = GuardNoSend;

    fn lock(&self) {}

    fn try_lock(&self) -> bool {
        true
    }

    unsafe fn unlock(&self) {}
}

/// The lock of a CPU's magazines, with interrupts and without other CPUs: a flag that an interrupt
/// finds set. (Where other CPUs empty the magazines it is an atomic exchange.)
struct Flag(Cell<bool>);

// SAFETY: this program has one thread.
unsafe impl Sync for Flag {}

// SAFETY: one thread: whoever finds the flag clear is alone until they clear it again.
unsafe impl RawMutex for Flag {
    #[allow(clippy::declare_interior_mutable_const)]
    const INIT: Self = Flag(Cell::new(false));

    type GuardMarker = GuardNoSend;

    fn lock(&self) {
        assert!(self.try_lock(), "nobody waits for magazines");
    }

    fn try_lock(&self) -> bool {
        !self.0.replace(true)
    }

    unsafe fn unlock(&self) {
        self.0.set(false);
    }
}

struct FirstCpu;

impl CpuId for FirstCpu {
    fn cpu(&self) -> usize {
        black_box(0)
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let what = arguments.next().expect("plain, held, buffer or magazines");
    let pairs: u32 = arguments.next().and_then(|n| n.parse().ok()).unwrap_or(0);

    let mut memory = vec![0u8; 65 * FRAME_SIZE];
    let mut table = [FrameEntry::EMPTY; 65];
    let source: Buddy<'_, OneTask> = Buddy::new(&mut memory, &mut table).expect("64 frames");
    let task = SingleTask::new();
    let zone: Zone<'_, OneTask> =
        Zone::new(&source, &task, Watermarks::default()).expect("no marks");
    match what.as_str() {
        // The cache is empty in between.
        "plain" => {
            let cache: Cache<'_, [u64; 4], OneTask> =
                Cache::new("route", &zone, 0).expect("many to a slab");
            pairs_of(&cache, pairs);
        }
        // The slab has another object in use.
        "held" => {
            let cache: Cache<'_, [u64; 4], OneTask> =
                Cache::new("route", &zone, 0).expect("many to a slab");
            let held = cache.alloc(Gfp::ATOMIC, [0; 4]);
            pairs_of(&cache, pairs);
            drop(held);
        }
        "buffer" => {
            let cache: SizedCache<'_, OneTask> =
                SizedCache::new("skb", &zone, 1024, 0).expect("three to a slab");
            for _ in 0..pairs {
                if let Ok(buffer) = cache.alloc(Gfp::ATOMIC) {
                    black_box(&*buffer);
                }
            }
        }
        "magazines" => {
            let mut slots: [CpuMagazines<16, Flag>; 2] = Default::default();
            let cache: Cache<'_, [u64; 4], OneTask> =
                Cache::new("route", &zone, 0).expect("many to a slab");
            let cache = cache.with_magazines(Magazines::new(FirstCpu, &mut slots));
            pairs_of(&cache, pairs);
        }
        other => panic!("{other}: no such measurement"),
    }
}

#[inline(never)]
fn pairs_of<M: Parking>(cache: &Cache<'_, [u64; 4], OneTask, M>, pairs: u32) {
    for i in 0..pairs {
        if let Ok(object) = cache.alloc(Gfp::ATOMIC, [u64::from(i); 4]) {
            black_box(&*object);
        }
    }
}
