//! Wall time of an allocation and a release, ours and the peers in turn.
//!
//! `cargo bench -p mempool --bench walltime`; docs/BENCHMARKS.md says what the figures mean.

#[path = "support/peers.rs"]
mod peers;
mod support;
#[path = "support/timing.rs"]
mod timing;

use mempool::Buddy;
use support::patterns::Pattern;
use support::{Nothing, ours};
use timing::Race;

const BYTES: usize = 16 << 20;

macro_rules! race {
    ($group:literal, $pattern:expr, $($name:literal = $subject:ty,)+) => {
        Race::new($group, $pattern.name())
            $(.subject::<$subject>($name, $pattern, BYTES))+
            .print()
    };
}

fn main() {
    timing::header();
    for pattern in Pattern::ALL {
        if pattern != Pattern::Mixed {
            objects(pattern);
        }
        frames(pattern);
    }
}

fn objects(pattern: Pattern) {
    race!("typed", pattern,
        "mempool" = ours::TypedCache<ours::Unlocked>,
        "mempool_default_lock" = ours::TypedCache<ours::DefaultLock>,
        "mempool_magazines" = ours::TypedMagazines,
        "talc" = peers::Typed<peers::TalcHeap>,
        "buddy_system_allocator" = peers::Typed<peers::BuddyHeap>,
        "linked_list_allocator" = peers::Typed<peers::ListHeap>,
        "rlsf" = peers::Typed<peers::TlsfHeap>,
        "slabmalloc" = peers::Typed<peers::SlabHeap>,
        "nothing" = Nothing,
    );
    race!("buffer", pattern,
        "mempool" = ours::Buffers<ours::Unlocked>,
        "mempool_default_lock" = ours::Buffers<ours::DefaultLock>,
        "mempool_magazines" = ours::BufferMagazines,
        "talc" = peers::Buffers<peers::TalcHeap>,
        "buddy_system_allocator" = peers::Buffers<peers::BuddyHeap>,
        "linked_list_allocator" = peers::Buffers<peers::ListHeap>,
        "rlsf" = peers::Buffers<peers::TlsfHeap>,
        "slabmalloc" = peers::Buffers<peers::SlabHeap>,
        "nothing" = Nothing,
    );
}

fn frames(pattern: Pattern) {
    race!("frame", pattern,
        "mempool" = ours::Frames<ours::Unlocked>,
        "mempool_default_lock" = ours::Frames<ours::DefaultLock>,
        "mempool_buddy" = ours::Source<Buddy<'static, ours::Unlocked>>,
        "buddy_system_allocator_frames" = peers::BuddyFrames,
        "buddy_system_allocator" = peers::Pages<peers::BuddyHeap>,
        "nothing" = Nothing,
    );
}
