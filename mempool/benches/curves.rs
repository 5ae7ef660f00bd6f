//! What an allocation costs by the size of the memory, and by how much of it is taken (callgrind).
//!
//! `cargo bench -p mempool --bench curves`; docs/BENCHMARKS.md says what is needed, and what the
//! figures mean.

#[path = "support/peers.rs"]
mod peers;
mod support;

use gungraun::prelude::*;
use support::patterns::{Pattern, Random, Ready};
use support::{Nothing, Subject, ours};

const MIB: usize = 1 << 20;

/// Memory of `mib`: addresses with nothing behind them, since only the books are touched.
fn sized<S: Subject>(mib: usize) -> Ready<S> {
    Ready::new(Pattern::Random, mib * MIB)
}

/// Memory of `OF_MIB`, of which some remains allocated: all was taken, and what is too much given back at
/// random, so that what is free lies in holes.
fn filled<S: Subject, const OF_MIB: usize>(percent: usize) -> Ready<S> {
    let mut subject = S::new(OF_MIB * MIB);
    let mut held: Vec<_> = core::iter::from_fn(|| subject.alloc(0)).collect();
    Random(0x5eed).shuffle(&mut held);
    for handle in held.drain(held.len() * percent / 100..) {
        subject.free(handle);
    }
    core::mem::forget(held);
    Ready::with(subject, Pattern::Random)
}

macro_rules! group {
    ($group:ident in $room:ident, $cases:ident: $($name:ident = $subject:ty,)+) => {
        mod $room {
            use super::*;

            #[library_benchmark]
            #[bench::loop_alone(args = (1), setup = sized::<Nothing>)]
            fn nothing(mut ready: Ready<Nothing>) -> Ready<Nothing> {
                ready.run();
                ready
            }

            $($cases!($name = $subject);)+
            library_benchmark_group!(name = $group, benchmarks = [nothing, $($name),+]);
        }
        use $room::$group;
    };
}

macro_rules! sizes {
    ($name:ident = $subject:ty) => {
        #[library_benchmark]
        #[bench::x1(args = (1), setup = sized::<$subject>)]
        #[bench::x4(args = (4), setup = sized::<$subject>)]
        #[bench::x16(args = (16), setup = sized::<$subject>)]
        #[bench::x64(args = (64), setup = sized::<$subject>)]
        #[bench::x256(args = (256), setup = sized::<$subject>)]
        #[bench::x1024(args = (1024), setup = sized::<$subject>)]
        #[bench::x4096(args = (4096), setup = sized::<$subject>)]
        #[bench::x16384(args = (16384), setup = sized::<$subject>)]
        #[bench::x65536(args = (65536), setup = sized::<$subject>)]
        fn $name(mut ready: Ready<$subject>) -> Ready<$subject> {
            ready.run();
            ready
        }
    };
}

macro_rules! levels {
    ($name:ident = $subject:ty, $mib:literal) => {
        #[library_benchmark]
        #[bench::x0(args = (0), setup = filled::<$subject, $mib>)]
        #[bench::x10(args = (10), setup = filled::<$subject, $mib>)]
        #[bench::x25(args = (25), setup = filled::<$subject, $mib>)]
        #[bench::x50(args = (50), setup = filled::<$subject, $mib>)]
        #[bench::x75(args = (75), setup = filled::<$subject, $mib>)]
        #[bench::x90(args = (90), setup = filled::<$subject, $mib>)]
        #[bench::x95(args = (95), setup = filled::<$subject, $mib>)]
        #[bench::x99(args = (99), setup = filled::<$subject, $mib>)]
        fn $name(mut ready: Ready<$subject>) -> Ready<$subject> {
            ready.run();
            ready
        }
    };
}

macro_rules! levels_of_frames {
    ($name:ident = $subject:ty) => {
        levels!($name = $subject, 256);
    };
}

// Little memory: to make holes in a sorted list of them takes quadratic time.
macro_rules! levels_of_objects {
    ($name:ident = $subject:ty) => {
        levels!($name = $subject, 1);
    };
}

group!(frame_by_mib in by_size, sizes:
    mempool = ours::SimulatedFrames,
    buddy_system_allocator_frames = peers::BuddyFrames,
);

group!(frame_by_fill in frames_by_fill, levels_of_frames:
    mempool = ours::Frames<ours::Unlocked>,
    buddy_system_allocator_frames = peers::BuddyFrames,
);

group!(typed_by_fill in objects_by_fill, levels_of_objects:
    mempool = ours::TypedCache<ours::Unlocked>,
    talc = peers::Typed<peers::TalcHeap>,
    buddy_system_allocator = peers::Typed<peers::BuddyHeap>,
    linked_list_allocator = peers::Typed<peers::ListHeap>,
    rlsf = peers::Typed<peers::TlsfHeap>,
    slabmalloc = peers::Typed<peers::SlabHeap>,
);

main!(library_benchmark_groups = [frame_by_mib, frame_by_fill, typed_by_fill]);
