//! Instructions for an allocation and a release, ours beside the peers (callgrind).
//!
//! `cargo bench -p mempool --bench instructions`; docs/BENCHMARKS.md says what is needed, and what the
//! figures mean.

#[path = "support/peers.rs"]
mod peers;
mod support;

use gungraun::prelude::*;
use mempool::Buddy;
use support::patterns::{Pattern, Ready};
use support::{Nothing, Subject, ours};

/// Of memory under each subject.
const BYTES: usize = 16 << 20;

fn ready<S: Subject>(pattern: Pattern) -> Ready<S> {
    Ready::new(pattern, BYTES)
}

/// A group: each subject under each pattern. `mixed` is for those who have runs of frames.
macro_rules! group {
    ($group:ident in $room:ident $(with $mixed:ident)?: $($name:ident = $subject:ty,)+) => {
        mod $room {
            use super::*;

            group!(@each ($($mixed)?) $($name = $subject,)+);
            library_benchmark_group!(name = $group, benchmarks = [$($name),+]);
        }
        use $room::$group;
    };
    (@each $mixed:tt $($name:ident = $subject:ty,)+) => {
        $(group!(@one $mixed $name = $subject);)+
    };
    (@one () $name:ident = $subject:ty) => {
        #[library_benchmark]
        #[bench::pair(args = (Pattern::Pair), setup = ready::<$subject>)]
        #[bench::lifo(args = (Pattern::Lifo), setup = ready::<$subject>)]
        #[bench::fifo(args = (Pattern::Fifo), setup = ready::<$subject>)]
        #[bench::random(args = (Pattern::Random), setup = ready::<$subject>)]
        fn $name(mut ready: Ready<$subject>) -> Ready<$subject> {
            ready.run();
            ready
        }
    };
    (@one (mixed) $name:ident = $subject:ty) => {
        #[library_benchmark]
        #[bench::pair(args = (Pattern::Pair), setup = ready::<$subject>)]
        #[bench::lifo(args = (Pattern::Lifo), setup = ready::<$subject>)]
        #[bench::fifo(args = (Pattern::Fifo), setup = ready::<$subject>)]
        #[bench::random(args = (Pattern::Random), setup = ready::<$subject>)]
        #[bench::mixed(args = (Pattern::Mixed), setup = ready::<$subject>)]
        fn $name(mut ready: Ready<$subject>) -> Ready<$subject> {
            ready.run();
            ready
        }
    };
}

// A value of 64 bytes, moved into its object.
group!(typed in typed_objects:
    nothing = Nothing,
    mempool = ours::TypedCache<ours::Unlocked>,
    mempool_default_lock = ours::TypedCache<ours::DefaultLock>,
    mempool_magazines = ours::TypedMagazines,
    talc = peers::Typed<peers::TalcHeap>,
    buddy_system_allocator = peers::Typed<peers::BuddyHeap>,
    linked_list_allocator = peers::Typed<peers::ListHeap>,
    rlsf = peers::Typed<peers::TlsfHeap>,
    slabmalloc = peers::Typed<peers::SlabHeap>,
);

// A value of 8 bytes: the cache without what lies in it.
group!(typed_word in typed_words:
    nothing = Nothing,
    mempool = ours::TypedCache<ours::Unlocked, u64>,
);

// A packet buffer of 2016 bytes, as it is.
group!(buffer in packet_buffers:
    nothing = Nothing,
    mempool = ours::Buffers<ours::Unlocked>,
    mempool_default_lock = ours::Buffers<ours::DefaultLock>,
    mempool_magazines = ours::BufferMagazines,
    talc = peers::Buffers<peers::TalcHeap>,
    buddy_system_allocator = peers::Buffers<peers::BuddyHeap>,
    linked_list_allocator = peers::Buffers<peers::ListHeap>,
    rlsf = peers::Buffers<peers::TlsfHeap>,
    slabmalloc = peers::Buffers<peers::SlabHeap>,
);

// Frames: out of a zone (marks, tag, owned handle), out of the sources alone, out of the peers.
group!(frame in frames with mixed:
    nothing = Nothing,
    mempool = ours::Frames<ours::Unlocked>,
    mempool_default_lock = ours::Frames<ours::DefaultLock>,
    mempool_buddy = ours::Source<Buddy<'static, ours::Unlocked>>,
    buddy_system_allocator_frames = peers::BuddyFrames,
    buddy_system_allocator = peers::Pages<peers::BuddyHeap>,
);

main!(library_benchmark_groups = [typed, typed_word, buffer, frame]);
