//! A zone: watermarks and a reserve over any frame source.
//!
//! ```text
//!  total ┬
//!        │  free: anybody
//!  high  ┤  background reclaim may rest above
//!  low   ┤  background reclaim starts below
//!  min   ┤  ordinary allocations fail below (less for the urgent, never nothing)
//!        │
//!  reserve ── only the entitled, and what they get is tagged
//!      0 ┴
//! ```
//! The marks are counted from the top of the reserve: a level of `reserve + min` is "at min".

mod level;
mod report;

use core::fmt;

use lock_api::{Mutex, RawMutex};

pub use level::{Level, Watermarks, ZoneStats};

use report::Report;

use crate::ablation::{Ablation, Mechanism};
use crate::counter::{Counter, Gauge, Writer};
use crate::event::EVENTS;
use crate::raw::{FrameOwner, Released};
use crate::{
    BackingError, CriticalSection, Frame, FrameSource, Gfp, MemallocScope, MemallocToken, Pressure,
    ReserveBacking, SoftirqScope, TaskContext,
};

/// Times that one allocation reclaims: more, and others take what it frees as fast as it does.
const RECLAIM_ROUNDS: usize = 16;

/// Frames under watermarks, with a reserve for work that frees memory (M2, M3).
///
/// It must be alone over its source: what others take from there, other zones included, is not held
/// to the marks.
///
/// ```
/// use mempool::{Buddy, FrameEntry, Gfp, ReserveBacking, SingleTask, Watermarks, Zone};
///
/// let (mut memory, mut table) = (vec![0u8; 65 * mempool::FRAME_SIZE], [FrameEntry::EMPTY; 65]);
/// let source = <Buddy>::new(&mut memory, &mut table)?;
/// let task = SingleTask::new();
/// let zone = <Zone>::new(&source, &task, Watermarks { min: 4, low: 8, high: 16 })?;
/// zone.grow(8)?;
///
/// let mut held = Vec::new();
/// while let Ok(frame) = zone.alloc(0, Gfp::KERNEL) {
///     held.push(frame);
/// }
/// assert_eq!(zone.stats().free, 8 + 4, "an ordinary caller stops at reserve + min");
///
/// let token = zone.claim_memalloc().expect("the first claim");
/// let scope = zone.memalloc(&token);
/// let frame = zone.alloc(0, Gfp::KERNEL)?;
/// assert!(frame.from_reserve());
/// # drop(scope);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Zone<'m, R = CriticalSection> {
    source: &'m dyn FrameSource,
    context: &'m dyn TaskContext,
    marks: Watermarks,
    total: usize,
    max_order: u8,
    pressure: Option<&'m dyn Pressure>,
    books: Books,
    state: Mutex<R, State>,
}

/// What [`Zone::stats`] reads without the lock. Written under it.
struct Books {
    free: Gauge,
    reserve: Gauge,
    min_free: Gauge,
    reserve_in_use: Gauge,
    reserve_peak: Gauge,
    refused: Counter,
    exhausted: Counter,
}

struct State {
    writer: Writer,
    claimed: bool,
    report: Report,
    ablation: Ablation,
}

/// How an attempt to take frames ended, and what the log may be told of it.
struct Taken<'z> {
    frame: Option<Frame<'z>>,
    /// How it stands after that: the numbers of a level, which is seldom asked for.
    free: usize,
    reserve: usize,
    /// The reserve came into use with it, or was found whole again.
    dip: Option<report::Dip>,
}

impl<'m, R: RawMutex> Zone<'m, R> {
    /// A zone over `source` without a reserve; a [`ReserveNode`](crate::ReserveNode) root grows it.
    ///
    /// # Errors
    ///
    /// [`ZoneError`] if the marks are not in order or exceed the frames.
    pub fn new(
        source: &'m dyn FrameSource,
        context: &'m dyn TaskContext,
        marks: Watermarks,
    ) -> Result<Self, ZoneError> {
        if marks.min > marks.low || marks.low > marks.high {
            return Err(ZoneError::MarksOutOfOrder);
        }
        if marks.high >= source.total() {
            return Err(ZoneError::TooSmall {
                frames: source.total(),
                needed: marks.high.saturating_add(1),
            });
        }
        let free = source.free_frames();
        Ok(Zone {
            source,
            context,
            marks,
            total: source.total(),
            max_order: source.max_order(),
            pressure: None,
            books: Books {
                free: Gauge::new(free),
                reserve: Gauge::new(0),
                min_free: Gauge::new(free),
                reserve_in_use: Gauge::new(0),
                reserve_peak: Gauge::new(0),
                refused: Counter::new(),
                exhausted: Counter::new(),
            },
            state: Mutex::new(State {
                writer: Writer::new(),
                claimed: false,
                report: Report::default(),
                ablation: Ablation::NONE,
            }),
        })
    }

    /// Calls the hooks of `pressure` when memory becomes short.
    #[must_use]
    pub fn with_pressure(mut self, pressure: &'m dyn Pressure) -> Self {
        self.pressure = Some(pressure);
        self
    }

    /// The right to dip into the reserve: once, to whoever asks first. As in Linux it entitles
    /// code, not a place: it is good for every zone of the system.
    pub fn claim_memalloc(&self) -> Option<MemallocToken> {
        let taken = core::mem::replace(&mut self.state.lock().claimed, true);
        (!taken).then(MemallocToken::new)
    }

    /// Entitles the running task until the guard is dropped (`PF_MEMALLOC`).
    pub fn memalloc(&self, _token: &MemallocToken) -> MemallocScope<'_> {
        MemallocScope::enter(self.context, self.ablation())
    }

    /// Marks a softirq on top of the running task until the guard is dropped: it is not entitled by
    /// the task's scopes, and may open its own.
    pub fn softirq(&self) -> SoftirqScope<'_> {
        SoftirqScope::enter(self.context, self.ablation())
    }

    /// A snapshot of the counters. O(1), without a lock: whoever holds it, this very thread even, is
    /// not waited for. Each number is right by itself; two may lie on both sides of an allocation.
    pub fn stats(&self) -> ZoneStats {
        let books = &self.books;
        ZoneStats {
            total: self.total,
            free: books.free.get(),
            reserve: books.reserve.get(),
            min_free: books.min_free.get(),
            reserve_in_use: books.reserve_in_use.get(),
            reserve_peak: books.reserve_peak.get(),
            refused: books.refused.get(),
            exhausted: books.exhausted.get(),
        }
    }

    /// Switches a mechanism of this zone off, for good. A mechanism of another object changes
    /// nothing.
    #[cfg(feature = "ablation")]
    pub fn ablate(&self, mechanism: Mechanism) {
        self.state.lock().ablation.ablate(mechanism);
    }

    fn ablation(&self) -> Ablation {
        if cfg!(feature = "ablation") {
            self.state.lock().ablation
        } else {
            Ablation::NONE
        }
    }
}

impl<R: RawMutex + Send + Sync> Zone<'_, R> {
    /// Takes `1 << order` consecutive frames. Their bytes are whatever the last owner left, unless
    /// [`Gfp::ZERO`] is set. O(log n) over [`Buddy`](crate::Buddy).
    ///
    /// Waits for nothing by itself. With [`Gfp::WAIT`] it makes room before it fails, if there are
    /// hooks for that ([`Pressure`]): not for the entitled, who are the ones that make room.
    ///
    /// # Errors
    ///
    /// [`AllocError::Exhausted`] if that would cross the caller's watermark or if no such run is
    /// left, [`AllocError::BadOrder`] if none can ever exist. The marks count frames: above order 0
    /// free frames that are not consecutive do not help, whoever asks.
    #[inline]
    pub fn alloc(&self, order: u8, gfp: Gfp) -> Result<Frame<'_>, AllocError> {
        if order > self.max_order {
            return Err(AllocError::BadOrder);
        }
        let entitled = self.entitled(gfp);
        let taken = self.take(order, gfp, entitled);
        self.tell_dip(taken.dip);
        if taken.frame.is_none() {
            return self.alloc_short(order, gfp, entitled, taken);
        }
        if let Some(pressure) = self.hooks() {
            let level = self.level_of(&taken);
            if level.below_low() {
                pressure.wake_background(level);
            }
        }
        let mut frame = taken.frame.ok_or(AllocError::Exhausted)?;
        if gfp.contains(Gfp::ZERO) {
            frame.fill(0);
        }
        Ok(frame)
    }

    /// Nothing was to be had at once: makes room, if the caller may wait for that.
    #[cold]
    fn alloc_short<'a>(
        &'a self,
        order: u8,
        gfp: Gfp,
        entitled: bool,
        mut taken: Taken<'a>,
    ) -> Result<Frame<'a>, AllocError> {
        if let Some(pressure) = self.hooks() {
            pressure.wake_background(self.level_of(&taken));
            if self.may_reclaim(gfp, entitled) {
                taken = self.reclaim(pressure, order, gfp, taken);
            }
        }
        let Some(mut frame) = taken.frame else {
            self.tell_failure(order, gfp, entitled, self.level_of(&taken));
            return Err(AllocError::Exhausted);
        };
        if gfp.contains(Gfp::ZERO) {
            frame.fill(0);
        }
        Ok(frame)
    }

    #[inline]
    fn hooks(&self) -> Option<&dyn Pressure> {
        self.pressure
            .filter(|_| !self.ablation().off(Mechanism::PressureHooks))
    }

    /// Takes frames as they are, or does not.
    // Into its callers, of which one is cold: what it returns would go through memory.
    #[inline(always)]
    fn take(&self, order: u8, gfp: Gfp, entitled: bool) -> Taken<'_> {
        let needed = 1usize << order;
        let books = &self.books;
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let reserve = books.reserve.get();
        let free = self.source.free_frames();
        let ablation = state.ablation;
        let off = |mechanism| ablation.off(mechanism);
        let floor = if off(Mechanism::DiscountOnMinOnly) {
            gfp.floor(reserve + self.marks.min)
        } else {
            reserve + gfp.floor(self.marks.min)
        };
        let below = |floor| free < floor + needed;
        let admitted = entitled
            || if off(Mechanism::ReserveMark) {
                !below(gfp.floor(self.marks.min))
            } else {
                !below(floor)
            };
        // M3: the tag says that the reserve was needed, not that the caller might have used it.
        let from_reserve = entitled
            && (below(floor) || off(Mechanism::TagWhenNeeded))
            && !off(Mechanism::ReserveTag);
        let frame = if admitted {
            Frame::take(self.source, order, from_reserve, self)
        } else {
            None
        };
        let writer = &mut state.writer;
        let (mut free, mut dip) = (free, None);
        if frame.is_some() {
            free = free.saturating_sub(needed);
            if free < books.min_free.get() {
                books.min_free.set(writer, free);
            }
            if EVENTS {
                dip = state.report.taken(from_reserve, books.reserve_in_use.get());
            }
            if from_reserve {
                let in_use = books.reserve_in_use.get() + needed;
                books.reserve_in_use.set(writer, in_use);
                let peak = books.reserve_peak.get().max(in_use);
                books.reserve_peak.set(writer, peak);
            }
        } else if entitled {
            books.exhausted.count(writer);
        } else {
            books.refused.count(writer);
        }
        books.free.set(writer, free);
        Taken {
            frame,
            free,
            reserve,
            dip,
        }
    }

    fn level_of(&self, taken: &Taken<'_>) -> Level {
        Level {
            free: taken.free,
            reserve: taken.reserve,
            marks: self.marks,
        }
    }

    /// Those who may wait reclaim; but not those who make room: the entitled, even where `NOMEMALLOC`
    /// keeps them from the reserve, as it does when a cache tries ordinary memory first.
    fn may_reclaim(&self, gfp: Gfp, entitled: bool) -> bool {
        gfp.contains(Gfp::WAIT)
            && !gfp.contains(Gfp::NORECLAIM)
            && !gfp.contains(Gfp::MEMALLOC)
            && !entitled
            && !self.context.in_interrupt()
            && !self.context.memalloc()
    }

    /// Makes room and tries again, while that frees anything.
    fn reclaim<'a>(
        &'a self,
        pressure: &dyn Pressure,
        order: u8,
        gfp: Gfp,
        mut taken: Taken<'a>,
    ) -> Taken<'a> {
        let level = self.level_of(&taken);
        if level.reserve_is_low() {
            pressure.throttle(level);
        }
        for _ in 0..RECLAIM_ROUNDS {
            let scope = MemallocScope::enter(self.context, self.ablation());
            let freed = pressure.reclaim(order, gfp, self.level_of(&taken));
            drop(scope);
            if freed == 0 {
                break;
            }
            taken = self.take(order, gfp, false);
            self.tell_dip(taken.dip);
            if taken.frame.is_some() {
                break;
            }
        }
        taken
    }
}

/// Whoever hands out frames under watermarks, without the zone's type parameters.
pub trait FrameAllocator: Sync {
    /// See [`Zone::alloc`].
    ///
    /// # Errors
    ///
    /// See [`Zone::alloc`].
    fn alloc(&self, order: u8, gfp: Gfp) -> Result<Frame<'_>, AllocError>;

    /// Whether the running context may dip into the reserve with these flags (M1): it carries the
    /// flag or runs, not as an interrupt, in a memalloc scope; and `NOMEMALLOC` is not set.
    fn entitled(&self, gfp: Gfp) -> bool;

    /// Free frames against the marks.
    fn level(&self) -> Level;
}

impl<R: RawMutex + Send + Sync> FrameAllocator for Zone<'_, R> {
    fn alloc(&self, order: u8, gfp: Gfp) -> Result<Frame<'_>, AllocError> {
        Zone::alloc(self, order, gfp)
    }

    #[inline]
    fn entitled(&self, gfp: Gfp) -> bool {
        let ablation = self.ablation();
        let inherits =
            || !self.context.in_interrupt() || ablation.off(Mechanism::InterruptEntitlement);
        let scope = || self.context.memalloc() && inherits();
        let barred = gfp.contains(Gfp::NOMEMALLOC) && !ablation.off(Mechanism::NoMemalloc);
        !barred && (gfp.contains(Gfp::MEMALLOC) || scope())
    }

    fn level(&self) -> Level {
        let _alone = self.state.lock();
        Level {
            free: self.source.free_frames(),
            reserve: self.books.reserve.get(),
            marks: self.marks,
        }
    }
}

impl<R: RawMutex + Send + Sync> ReserveBacking for Zone<'_, R> {
    fn grow(&self, frames: usize) -> Result<(), BackingError> {
        let mut state = self.state.lock();
        let reserve = self.books.reserve.get();
        let needed = (reserve + self.marks.min).saturating_add(frames);
        let free = self.source.free_frames();
        // To ask for nothing is right even when memory is short.
        if frames > 0 && free < needed {
            return Err(BackingError {
                missing: needed - free,
            });
        }
        self.books.reserve.set(&mut state.writer, reserve + frames);
        Ok(())
    }

    fn shrink(&self, frames: usize) {
        let mut state = self.state.lock();
        let left = self.books.reserve.get().checked_sub(frames);
        let left = left.expect("more was given back to the zone than was set aside");
        self.books.reserve.set(&mut state.writer, left);
    }
}

impl<R: RawMutex + Send + Sync> FrameOwner for Zone<'_, R> {
    #[inline]
    fn released(&self, frame: Released, from_reserve: bool) {
        let frames = 1usize << frame.order();
        let books = &self.books;
        let mut state = self.state.lock();
        frame.free_into(self.source);
        books.free.set(&mut state.writer, books.free.get() + frames);
        if from_reserve {
            let in_use = books.reserve_in_use.get() - frames;
            books.reserve_in_use.set(&mut state.writer, in_use);
        }
    }
}

impl<R> fmt::Debug for Zone<'_, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Zone")
            .field("marks", &self.marks)
            .finish_non_exhaustive()
    }
}

/// Why an allocation failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum AllocError {
    /// It would have crossed the caller's watermark, or nothing was left.
    Exhausted,
    /// The source never has a run of that order.
    BadOrder,
    /// The source's memory is not aligned as the caller needs it; see
    /// [`SizeClasses`](crate::SizeClasses).
    Misaligned,
}

impl fmt::Display for AllocError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            AllocError::Exhausted => "no frame above the caller's watermark",
            AllocError::BadOrder => "the source has no runs of that order",
            AllocError::Misaligned => "the source's frames are not aligned to their size",
        })
    }
}

impl core::error::Error for AllocError {}

/// Why a zone cannot be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum ZoneError {
    /// `min <= low <= high` does not hold.
    MarksOutOfOrder,
    /// The marks exceed the frames.
    TooSmall {
        /// Frames of the source.
        frames: usize,
        /// Frames needed.
        needed: usize,
    },
}

impl fmt::Display for ZoneError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ZoneError::MarksOutOfOrder => write!(f, "the watermarks are not min <= low <= high"),
            ZoneError::TooSmall { frames, needed } => {
                write!(
                    f,
                    "the source has {frames} frames, the watermarks need {needed}"
                )
            }
        }
    }
}

impl core::error::Error for ZoneError {}

#[cfg(test)]
mod pressure_tests;
#[cfg(test)]
mod tests;
