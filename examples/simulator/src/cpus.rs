//! A machine of several CPUs, whose cache has magazines: tasks of the swap path and others take and free
//! objects wherever they happen to run. Its day is one function, on memory of its own, so that what it
//! draws changes no other actor's run. Every rule is judged by books that are kept here.

use core::sync::atomic::{AtomicUsize, Ordering};

use mempool::{
    Buddy, Buffer, BufferCache, CpuId, CpuMagazines, FRAME_SIZE, Frame, FrameEntry, Gfp, Magazines,
    Mechanism as Part, MemallocToken, ReserveBacking, SLAB_HEADER, SLAB_RED_ZONE, SingleTask,
    SizedCache, Watermarks, Zone,
};

use crate::Mechanism;
use crate::rng::Rng;
use crate::verdict::Findings;

/// Streams of the seed.
const CPUS: u64 = 44;

/// Frames of the zone, and those of them that are its reserve.
const FRAMES: usize = 12;
const RESERVE: usize = 4;

/// Objects in a slab, and in a magazine.
const PER_SLAB: usize = 3;
const ROUNDS: usize = 3;
const SIZE: usize = (FRAME_SIZE - SLAB_HEADER) / PER_SLAB - SLAB_RED_ZONE;

/// What happens in a day.
const STEPS: usize = 400;

/// What is shown to be needed here; everything else is shown elsewhere, and stays on.
const SHOWN: [Part; 2] = [Part::MagazineAdmission, Part::MagazineDrain];

/// Lets the day of a seed pass.
pub(crate) fn run(seed: u64, without: Option<Mechanism>, findings: &Findings) {
    let mut bytes = vec![0; (FRAMES + 1) * FRAME_SIZE];
    let mut table = vec![FrameEntry::EMPTY; FRAMES + 1];
    let skip = bytes.as_ptr().align_offset(FRAME_SIZE);
    let bytes = &mut bytes[skip..][..FRAMES * FRAME_SIZE];
    let source = <Buddy<'_>>::new(bytes, &mut table).expect("there is an entry for each frame");
    let task = SingleTask::new();
    let zone = <Zone<'_>>::new(&source, &task, Watermarks::default()).expect("there are no marks");
    zone.grow(RESERVE).expect("it is all free");
    let token = zone.claim_memalloc().expect("nobody claimed it before");

    let mut rng = Rng::new(seed, CPUS);
    let (cpu, mut slots) = (Cpu::default(), [const { CpuMagazines::new() }; 4]);
    let online = 2 + rng.below(3) as usize;
    let cache = <SizedCache<'_>>::new("smp", &zone, SIZE, 0).expect("three to a frame");
    let magazines = Magazines::<_, ROUNDS>::new(&cpu, &mut slots[..online]);
    let cache = cache.with_magazines(magazines);
    if let Some(Mechanism::Mempool(part)) = without
        && SHOWN.contains(&part)
    {
        cache.ablate(part);
    }
    let mut day = Day {
        zone: &zone,
        cache: &cache,
        task: &task,
        token,
        findings,
        held: Vec::new(),
        hog: Vec::new(),
    };
    for _ in 0..STEPS {
        // A CPU that was plugged in later has no magazines.
        cpu.0
            .store(rng.below(online as u64 + 1) as usize, Ordering::Relaxed);
        day.step(&mut rng);
        if !findings.is_empty() {
            return;
        }
    }
    day.held.clear();
    day.hog.clear();
    cache.shrink();
    let left = (zone.stats().free, zone.stats().reserve_in_use);
    findings.check(left == (FRAMES, 0), "M6", || {
        format!(
            "of {FRAMES} frames {} are free at the end of the day",
            left.0
        )
    });
}

/// Where the task runs just now.
#[derive(Default)]
struct Cpu(AtomicUsize);

impl CpuId for Cpu {
    fn cpu(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

struct Day<'a, 'z> {
    zone: &'z Zone<'z>,
    cache: &'a dyn BufferCache,
    task: &'a SingleTask,
    token: MemallocToken,
    findings: &'a Findings,
    held: Vec<Buffer<'a>>,
    /// Somebody else's frames.
    hog: Vec<Frame<'z>>,
}

impl Day<'_, '_> {
    fn step(&mut self, rng: &mut Rng) {
        match rng.below(20) {
            0..9 => self.take(rng),
            9..16 if !self.held.is_empty() => {
                let which = rng.below(self.held.len() as u64) as usize;
                drop(self.held.swap_remove(which));
            }
            // A queue is emptied.
            16 if rng.chance(300) => self.held.truncate(self.held.len() / 3),
            17 => self.hog.extend(self.zone.alloc(0, Gfp::ATOMIC)),
            18 if rng.chance(200) => self.hog.clear(),
            _ => {}
        }
        self.reserve_is_back();
    }

    /// Somebody takes an object: the swap path by its flag or in its scope, or anybody, or an interrupt
    /// on top of the swap path, which is anybody.
    fn take(&mut self, rng: &mut Rng) {
        let flag = rng.chance(200);
        let scope = rng.chance(200).then(|| self.zone.memalloc(&self.token));
        let interrupt = rng.chance(200).then(|| self.task.interrupt());
        let entitled = flag || scope.is_some() && interrupt.is_none();
        let gfp = match flag {
            true => self.token.gfp(Gfp::ATOMIC),
            false => Gfp::ATOMIC,
        };
        let idle = self.idle();
        let taken = self.cache.alloc(gfp);
        drop((interrupt, scope));
        let tagged = taken.as_ref().is_ok_and(Buffer::from_reserve);
        self.findings.check(entitled || !tagged, "M4", || {
            "an object of the reserve went to a caller who is not entitled".into()
        });
        self.findings.check(idle == 0 || !tagged, "M3", || {
            format!("the reserve was taken while {idle} ordinary objects were in nobody's hands")
        });
        self.findings.check(idle == 0 || taken.is_ok(), "M6", || {
            format!("a caller was refused while {idle} ordinary objects were in nobody's hands")
        });
        self.held.extend(taken);
    }

    /// Objects in ordinary slabs that nobody holds: wherever they are, they are for anybody.
    fn idle(&self) -> usize {
        let zone = self.zone.stats();
        let slabs = zone.total - zone.free - zone.reserve_in_use - self.hog.len();
        let held = self.held.iter().filter(|buffer| !buffer.from_reserve());
        slabs * PER_SLAB - held.count()
    }

    /// Of the reserve nothing is out but the slabs of which somebody holds an object.
    fn reserve_is_back(&self) {
        let tagged = self.held.iter().filter(|buffer| buffer.from_reserve());
        let mut slabs: Vec<_> = tagged
            .map(|buffer| buffer.as_ptr().addr() / FRAME_SIZE)
            .collect();
        slabs.sort_unstable();
        slabs.dedup();
        let out = self.zone.stats().reserve_in_use;
        self.findings.check(out == slabs.len(), "M4", || {
            format!(
                "{out} frames of the reserve are out, and objects of {} are in anybody's hands",
                slabs.len()
            )
        });
    }
}
