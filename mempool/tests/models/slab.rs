//! Caches of every size and order against the addresses of what they gave out.

use std::collections::BTreeMap;

use mempool::{
    AllocError, Buffer, BufferCache, FRAME_SIZE, Frame, Gfp, ReserveBacking, SizedCache, Zone,
    objects_per_slab,
};
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::TestCaseError;

use crate::counted::drive;
use crate::memory::{FRAMES, Flags, is_marked, mark, with_zone};

const RESERVE: usize = 12;
const CACHES: usize = 3;

#[derive(Debug, Clone)]
enum Op {
    Alloc(usize, Flags),
    Free(usize, Index),
    /// Most of them at once: slabs become empty.
    FreeMany(usize),
    Shrink(usize),
    /// Others take and free ordinary memory.
    Hog(usize),
    Unhog(usize),
}

fn ops() -> impl Strategy<Value = Op> {
    let cache = || 0..CACHES;
    prop_oneof![
        20 => (cache(), Flags::any()).prop_map(|(cache, flags)| Op::Alloc(cache, flags)),
        12 => (cache(), any::<Index>()).prop_map(|(cache, which)| Op::Free(cache, which)),
        1 => cache().prop_map(Op::FreeMany),
        1 => cache().prop_map(Op::Shrink),
        2 => (1..FRAMES).prop_map(Op::Hog),
        1 => (1..FRAMES).prop_map(Op::Unhog),
    ]
}

/// Objects that are out, by address: their end.
#[derive(Default)]
struct Model(BTreeMap<usize, usize>);

impl Model {
    fn insert(&mut self, start: usize, len: usize) {
        let before = self.0.range(..=start).next_back();
        assert!(
            before.is_none_or(|(_, end)| *end <= start),
            "objects overlap"
        );
        let after = self.0.range(start..).next();
        assert!(
            after.is_none_or(|(next, _)| start + len <= *next),
            "objects overlap"
        );
        self.0.insert(start, start + len);
    }
}

struct Tested<'c, 'z> {
    cache: &'c SizedCache<'z>,
    order: u8,
    per_slab: usize,
    held: Vec<(Buffer<'c>, u8)>,
    peak: usize,
}

impl Tested<'_, '_> {
    fn tagged(&self) -> usize {
        let tagged = self.held.iter().filter(|(buffer, _)| buffer.from_reserve());
        tagged.count()
    }

    /// Objects of ordinary slabs that are not out.
    fn idle(&self) -> usize {
        let ordinary = self.held.len() - self.tagged();
        self.cache.stats().slabs * self.per_slab - ordinary
    }

    fn check(&self) -> Result<(), TestCaseError> {
        let (stats, tagged) = (self.cache.stats(), self.tagged());
        prop_assert_eq!((stats.in_use, stats.peak), (self.held.len(), self.peak));
        prop_assert_eq!(stats.reserve_objects, tagged);
        let (slabs, most) = (stats.reserve_slabs, stats.reserve_slabs * self.per_slab);
        prop_assert!(
            slabs <= tagged && tagged <= most,
            "an empty one goes at once"
        );
        prop_assert!(stats.slabs * self.per_slab >= self.held.len() - tagged);
        Ok(())
    }

    fn frames(&self) -> usize {
        let stats = self.cache.stats();
        (stats.slabs + stats.reserve_slabs) << self.order
    }
}

struct World<'c, 'z> {
    zone: &'z Zone<'z>,
    caches: [Tested<'c, 'z>; CACHES],
    hog: Vec<Frame<'z>>,
    model: Model,
}

impl World<'_, '_> {
    fn alloc(&mut self, at: usize, flags: Flags, gfp: Gfp, n: u8) -> Result<(), TestCaseError> {
        let entitled = flags.entitled(false, false);
        let tested = &mut self.caches[at];
        let free = self.zone.stats().free;
        let needed = 1 << tested.order;
        // Above order 0 frames may be free, and not side by side.
        let single = tested.order == 0;
        let room = free >= RESERVE + flags.floor() + needed;
        let (idle, spare) = (tested.idle(), tested.cache.stats().reserve_slabs);
        let spare = spare * tested.per_slab - tested.tagged();
        match tested.cache.alloc(gfp) {
            Ok(mut buffer) => {
                if buffer.from_reserve() {
                    prop_assert!(entitled, "M4: {flags:?} got a reserve object");
                    prop_assert!(idle == 0 && !(room && single), "M3: it was not needed");
                } else {
                    prop_assert!(idle > 0 || room, "M2: no memory for it");
                }
                prop_assert_eq!(buffer.len(), tested.cache.object_size());
                self.model.insert(buffer.as_ptr().addr(), buffer.len());
                mark(&mut buffer, n);
                tested.held.push((buffer, n));
                tested.peak = tested.peak.max(tested.held.len());
            }
            Err(error) => {
                prop_assert_eq!(error, AllocError::Exhausted);
                prop_assert!(idle == 0, "{flags:?} refused with {idle} objects idle");
                prop_assert!(
                    !(room && single),
                    "{flags:?} refused with {free} frames free"
                );
                let last = spare == 0 && (free == 0 || !single);
                prop_assert!(!entitled || last, "M4: the entitled get every last object");
            }
        }
        Ok(())
    }

    fn free(&mut self, at: usize, which: usize) {
        let (buffer, byte) = self.caches[at].held.swap_remove(which);
        assert!(is_marked(&buffer, byte), "somebody wrote here");
        self.model.0.remove(&buffer.as_ptr().addr());
    }

    fn check(&self) -> Result<(), TestCaseError> {
        for tested in &self.caches {
            tested.check()?;
        }
        let slabs: usize = self.caches.iter().map(Tested::frames).sum();
        prop_assert_eq!(self.zone.stats().free + slabs + self.hog.len(), FRAMES);
        let tagged = |tested: &Tested<'_, '_>| tested.cache.stats().reserve_slabs << tested.order;
        let in_use: usize = self.caches.iter().map(tagged).sum();
        prop_assert_eq!(self.zone.stats().reserve_in_use, in_use);
        Ok(())
    }
}

fn run(ops: Vec<Op>, sizes: [usize; CACHES], zone: &Zone<'_>) -> Result<usize, TestCaseError> {
    zone.grow(RESERVE).expect("everything is free");
    let token = zone.claim_memalloc().expect("the first claim");
    let orders = [0, 0, 1];
    let new = |at: usize| <SizedCache<'_>>::new("any", zone, sizes[at], orders[at]).unwrap();
    let caches: [SizedCache<'_>; CACHES] = core::array::from_fn(new);
    let mut world = World {
        zone,
        caches: core::array::from_fn(|at| Tested {
            cache: &caches[at],
            order: orders[at],
            per_slab: objects_per_slab(sizes[at], orders[at]),
            held: Vec::new(),
            peak: 0,
        }),
        hog: Vec::new(),
        model: Model::default(),
    };
    let mut done = 0;
    for (n, op) in ops.into_iter().enumerate() {
        done += 1;
        match op {
            Op::Alloc(at, flags) => world.alloc(at, flags, flags.gfp(token), n as u8)?,
            Op::Free(at, which) => match world.caches[at].held.len() {
                0 => done -= 1,
                held => world.free(at, which.index(held)),
            },
            Op::FreeMany(at) => {
                for _ in 0..world.caches[at].held.len() * 3 / 4 {
                    world.free(at, 0);
                }
            }
            Op::Shrink(at) => {
                let before = zone.stats().free;
                let frames = caches[at].shrink();
                prop_assert_eq!(zone.stats().free, before + frames);
            }
            Op::Hog(frames) => {
                let more = || zone.alloc(0, Gfp::ATOMIC).ok();
                world.hog.extend(core::iter::from_fn(more).take(frames));
            }
            Op::Unhog(frames) => {
                let left = world.hog.len().saturating_sub(frames);
                world.hog.truncate(left);
            }
        }
        world.check()?;
    }
    for (at, cache) in caches.iter().enumerate() {
        while !world.caches[at].held.is_empty() {
            world.free(at, 0);
        }
        world.check()?;
        cache.shrink();
        let stats = cache.stats();
        prop_assert_eq!((stats.slabs, stats.reserve_slabs), (0, 0));
    }
    world.hog.clear();
    world.check()?;
    Ok(done)
}

#[test]
fn m4_caches_do_what_the_addresses_of_their_objects_say() {
    let sizes = [FRAME_SIZE / 3, 60, FRAME_SIZE / 2 + 10];
    drive("slab", ops(), |ops| {
        with_zone(|zone, _, _| run(ops, sizes, zone))
    });
}
