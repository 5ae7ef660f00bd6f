//! The machine's memory, watched: every allocation is judged by a second, simpler set of books, and
//! some fail on request.

use core::sync::atomic::{AtomicBool, AtomicU16, AtomicUsize, Ordering};
use std::collections::VecDeque;
use std::sync::Mutex;

use mempool::{
    AllocError, Buffer, BufferCache, CacheStats, Frame, FrameAllocator, Gfp, Level, MemallocToken,
    Pressure, SingleTask, SizedCache, Zone,
};

use crate::rng::Rng;
use crate::verdict::{Findings, locked};

/// What really goes on, told by whoever does it.
#[derive(Debug, Default)]
pub(crate) struct Truth {
    /// The task is in a memalloc scope.
    scope: AtomicBool,
    /// An interrupt runs on top of it.
    interrupt: AtomicBool,
    /// Allocations that fail without need, in a thousand.
    fails: AtomicU16,
    /// How often background reclaim was woken.
    woken: AtomicUsize,
}

/// Background reclaim is the pager's, which the kernel polls whenever anything happened: it needs no
/// waking, but it must be woken.
impl Pressure for Truth {
    fn wake_background(&self, _: Level) {
        self.woken.fetch_add(1, Ordering::Relaxed);
    }
}

impl Truth {
    pub(crate) fn set_scope(&self, on: bool) {
        self.scope.store(on, Ordering::Relaxed);
    }

    pub(crate) fn set_fails(&self, permille: u16) {
        self.fails.store(permille, Ordering::Relaxed);
    }

    pub(crate) fn fails(&self) -> u16 {
        self.fails.load(Ordering::Relaxed)
    }

    fn scope_counts(&self) -> bool {
        self.scope.load(Ordering::Relaxed) && !self.interrupt.load(Ordering::Relaxed)
    }
}

/// A zone under observation.
pub(crate) struct Watched<'z> {
    zone: &'z Zone<'z>,
    token: MemallocToken,
    truth: &'z Truth,
    rng: Mutex<Rng>,
    findings: Findings,
}

impl<'z> Watched<'z> {
    pub(crate) fn new(
        zone: &'z Zone<'z>,
        token: MemallocToken,
        truth: &'z Truth,
        rng: Rng,
        findings: Findings,
    ) -> Self {
        let rng = Mutex::new(rng);
        Watched {
            zone,
            token,
            truth,
            rng,
            findings,
        }
    }

    /// Whether an ordinary caller gets `1 << order` frames with these flags, as far as the marks go.
    pub(crate) fn ordinary_possible(&self, order: u8, gfp: Gfp) -> bool {
        let level = FrameAllocator::level(self.zone);
        self.truth.fails() == 0 && level.free >= level.reserve + floor(level, gfp) + (1 << order)
    }

    /// M1, by its definition.
    fn is_entitled(&self, gfp: Gfp) -> bool {
        let flag = self.token.gfp(gfp) == gfp;
        (flag || self.truth.scope_counts()) && !gfp.contains(Gfp::NOMEMALLOC)
    }

    fn judge(&self, before: Level, order: u8, gfp: Gfp, frame: &Frame<'_>) {
        let needed = 1 << order;
        let entitled = self.is_entitled(gfp);
        let limit = before.reserve + floor(before, gfp);
        let into_reserve = before.free < limit + needed;
        if into_reserve && !entitled {
            let rule = match (self.zone.entitled(gfp), gfp.contains(Gfp::NOMEMALLOC)) {
                (true, true) => "M7",
                (true, false) => "M1",
                (false, _) => "M2",
            };
            self.findings.report(rule, || {
                format!(
                    "a caller with {gfp:?} who is not entitled took {needed} of {} free frames: {} \
                     are the reserve, and the {} above it are not for such a caller",
                    before.free,
                    before.reserve,
                    limit - before.reserve
                )
            });
        }
        self.findings.check(
            frame.from_reserve() == (into_reserve && entitled),
            "M3",
            || {
                format!(
                    "a frame is{} tagged reserve-derived: {} frames were free, {} of them reserve, \
                     the caller's mark was {limit}",
                    if frame.from_reserve() { "" } else { " not" },
                    before.free,
                    before.reserve,
                )
            },
        );
    }
}

impl FrameAllocator for Watched<'_> {
    fn alloc(&self, order: u8, gfp: Gfp) -> Result<Frame<'_>, AllocError> {
        let fails = self.truth.fails();
        if fails > 0 && locked(&self.rng).chance(fails) {
            return Err(AllocError::Exhausted);
        }
        let before = FrameAllocator::level(self.zone);
        let woken = || self.truth.woken.load(Ordering::Relaxed);
        let woken_before = woken();
        let frame = self.zone.alloc(order, gfp);
        let after = FrameAllocator::level(self.zone);
        let short = after.below_low() || frame.is_err();
        self.findings
            .check(!short || woken() > woken_before, "M2", || {
                format!(
                    "{} frames are free above the reserve, {} is low, and nobody was woken",
                    after.ordinary(),
                    after.marks.low
                )
            });
        let frame = frame?;
        self.judge(before, order, gfp, &frame);
        Ok(frame)
    }

    fn entitled(&self, gfp: Gfp) -> bool {
        self.zone.entitled(gfp)
    }

    fn level(&self) -> Level {
        FrameAllocator::level(self.zone)
    }
}

/// What a caller must leave of `min`: DESIGN's arithmetic, written down a second time.
fn floor(level: Level, gfp: Gfp) -> usize {
    let mut floor = level.marks.min;
    if gfp.contains(Gfp::HIGH) {
        floor -= floor / 2;
    }
    if !gfp.contains(Gfp::WAIT) {
        floor -= floor / 4;
    }
    floor
}

/// A packet cache with its statistics, whatever its lifetime.
pub(crate) trait PacketCache: BufferCache {
    fn stats(&self) -> CacheStats;
}

impl PacketCache for SizedCache<'_> {
    fn stats(&self) -> CacheStats {
        SizedCache::stats(self)
    }
}

/// The packet cache under observation.
pub(crate) struct WatchedCache<'m> {
    pub(crate) cache: &'m dyn PacketCache,
    pub(crate) memory: &'m Watched<'m>,
    pub(crate) findings: Findings,
}

impl BufferCache for WatchedCache<'_> {
    fn alloc(&self, gfp: Gfp) -> Result<Buffer<'_>, AllocError> {
        let buffer = self.cache.alloc(gfp)?;
        let allowed = !buffer.from_reserve() || self.memory.is_entitled(gfp);
        self.findings.check(allowed, "M4", || {
            format!("an object of the reserve went to a caller with {gfp:?} who is not entitled")
        });
        Ok(buffer)
    }

    fn object_size(&self) -> usize {
        self.cache.object_size()
    }
}

/// The most frames that other drivers hold at once.
pub(crate) const INTERRUPT_FRAMES: usize = 6;

/// Other drivers, whose interrupts and softirqs come at awkward times and take ordinary memory.
pub(crate) trait Drivers {
    /// A moment at which an interrupt can come: anywhere outside a critical section.
    fn moment(&self);

    /// About how many of a hundred moments see an interrupt.
    fn set_rate(&self, percent: u16);

    /// The driver that has held its frame longest is done with it. Whether there was one.
    fn release_one(&self) -> bool;
}

/// Drivers that hold frames for a while.
pub(crate) struct Interrupts<'m> {
    memory: &'m Watched<'m>,
    task: &'m SingleTask,
    rate: AtomicU16,
    rng: Mutex<Rng>,
    held: Mutex<VecDeque<Frame<'m>>>,
}

impl<'m> Interrupts<'m> {
    pub(crate) fn new(memory: &'m Watched<'m>, task: &'m SingleTask, rng: Rng) -> Self {
        Interrupts {
            memory,
            task,
            rate: AtomicU16::new(0),
            rng: Mutex::new(rng),
            held: Mutex::default(),
        }
    }
}

impl Drivers for Interrupts<'_> {
    fn set_rate(&self, percent: u16) {
        self.rate.store(percent, Ordering::Relaxed);
    }

    fn moment(&self) {
        let rate = self.rate.load(Ordering::Relaxed);
        if rate == 0 || !locked(&self.rng).chance(rate.saturating_mul(10)) {
            return;
        }
        let held = locked(&self.held).len();
        let room = held < INTERRUPT_FRAMES;
        // By turns one that does its work in a softirq.
        let softirq = (held % 2 == 1).then(|| self.memory.zone.softirq());
        let handler = softirq.is_none().then(|| self.task.interrupt());
        self.memory.truth.interrupt.store(true, Ordering::Relaxed);
        if room && let Ok(frame) = self.memory.alloc(0, Gfp::ATOMIC) {
            locked(&self.held).push_back(frame);
        }
        self.memory.truth.interrupt.store(false, Ordering::Relaxed);
        drop((handler, softirq));
    }

    fn release_one(&self) -> bool {
        locked(&self.held).pop_front().is_some()
    }
}
