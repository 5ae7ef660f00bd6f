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

use core::fmt;

use lock_api::{Mutex, RawMutex};

pub use level::{Level, Watermarks, ZoneStats};

use crate::ablation::{Ablation, Mechanism};
use crate::raw::{FrameOwner, RawFrame};
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
/// let (mut memory, mut table) = (vec![0u8; 65 * 4096], [FrameEntry::EMPTY; 65]);
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
    pressure: Option<&'m dyn Pressure>,
    state: Mutex<R, State>,
}

struct State {
    reserve: usize,
    min_free: usize,
    reserve_in_use: usize,
    reserve_peak: usize,
    refused: u64,
    exhausted: u64,
    claimed: bool,
    ablation: Ablation,
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
        let state = State {
            reserve: 0,
            min_free: source.free_frames(),
            reserve_in_use: 0,
            reserve_peak: 0,
            refused: 0,
            exhausted: 0,
            claimed: false,
            ablation: Ablation::NONE,
        };
        Ok(Zone {
            source,
            context,
            marks,
            pressure: None,
            state: Mutex::new(state),
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

    /// A snapshot of the counters.
    pub fn stats(&self) -> ZoneStats {
        let state = self.state.lock();
        ZoneStats {
            total: self.source.total(),
            free: self.source.free_frames(),
            reserve: state.reserve,
            min_free: state.min_free,
            reserve_in_use: state.reserve_in_use,
            reserve_peak: state.reserve_peak,
            refused: state.refused,
            exhausted: state.exhausted,
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
    pub fn alloc(&self, order: u8, gfp: Gfp) -> Result<Frame<'_>, AllocError> {
        if order > self.source.max_order() {
            return Err(AllocError::BadOrder);
        }
        let entitled = self.entitled(gfp);
        let (mut result, level) = self.take(order, gfp, entitled);
        let hooks = self
            .pressure
            .filter(|_| !self.ablation().off(Mechanism::PressureHooks));
        if let Some(pressure) = hooks {
            if level.below_low() || result.is_err() {
                pressure.wake_background(level);
            }
            if result.is_err() && self.may_reclaim(gfp, entitled) {
                result = self.reclaim(pressure, order, gfp, level);
            }
        }
        let mut frame = result?;
        if gfp.contains(Gfp::ZERO) {
            frame.fill(0);
        }
        Ok(frame)
    }

    /// Takes frames as they are, or does not; how it stands after that.
    fn take(&self, order: u8, gfp: Gfp, entitled: bool) -> (Result<Frame<'_>, AllocError>, Level) {
        let needed = 1usize << order;
        let mut state = self.state.lock();
        let free = self.source.free_frames();
        let off = |mechanism| state.ablation.off(mechanism);
        let floor = if off(Mechanism::DiscountOnMinOnly) {
            gfp.floor(state.reserve + self.marks.min)
        } else {
            state.reserve + gfp.floor(self.marks.min)
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
        let mut level = Level {
            free,
            reserve: state.reserve,
            marks: self.marks,
        };
        let Some(frame) = frame else {
            *if entitled {
                &mut state.exhausted
            } else {
                &mut state.refused
            } += 1;
            return (Err(AllocError::Exhausted), level);
        };
        level.free = free.saturating_sub(needed);
        state.min_free = state.min_free.min(level.free);
        if from_reserve {
            state.reserve_in_use += needed;
            state.reserve_peak = state.reserve_peak.max(state.reserve_in_use);
        }
        (Ok(frame), level)
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
    fn reclaim(
        &self,
        pressure: &dyn Pressure,
        order: u8,
        gfp: Gfp,
        mut level: Level,
    ) -> Result<Frame<'_>, AllocError> {
        if level.reserve_is_low() {
            pressure.throttle(level);
        }
        for _ in 0..RECLAIM_ROUNDS {
            let scope = MemallocScope::enter(self.context, self.ablation());
            let freed = pressure.reclaim(order, gfp, level);
            drop(scope);
            if freed == 0 {
                break;
            }
            let (result, after) = self.take(order, gfp, false);
            if result.is_ok() {
                return result;
            }
            level = after;
        }
        Err(AllocError::Exhausted)
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

    fn entitled(&self, gfp: Gfp) -> bool {
        let ablation = self.ablation();
        let inherits =
            || !self.context.in_interrupt() || ablation.off(Mechanism::InterruptEntitlement);
        let scope = || self.context.memalloc() && inherits();
        let barred = gfp.contains(Gfp::NOMEMALLOC) && !ablation.off(Mechanism::NoMemalloc);
        !barred && (gfp.contains(Gfp::MEMALLOC) || scope())
    }

    fn level(&self) -> Level {
        let state = self.state.lock();
        Level {
            free: self.source.free_frames(),
            reserve: state.reserve,
            marks: self.marks,
        }
    }
}

impl<R: RawMutex + Send + Sync> ReserveBacking for Zone<'_, R> {
    fn grow(&self, frames: usize) -> Result<(), BackingError> {
        let mut state = self.state.lock();
        let needed = (state.reserve + self.marks.min).saturating_add(frames);
        let free = self.source.free_frames();
        // To ask for nothing is right even when memory is short.
        if frames > 0 && free < needed {
            return Err(BackingError {
                missing: needed - free,
            });
        }
        state.reserve += frames;
        Ok(())
    }

    fn shrink(&self, frames: usize) {
        let mut state = self.state.lock();
        assert!(
            frames <= state.reserve,
            "more was given back to the zone than was set aside"
        );
        state.reserve -= frames;
    }
}

impl<R: RawMutex + Send + Sync> FrameOwner for Zone<'_, R> {
    fn released(&self, raw: RawFrame, from_reserve: bool, free: &mut dyn FnMut(&dyn FrameSource)) {
        let mut state = self.state.lock();
        free(self.source);
        if from_reserve {
            state.reserve_in_use -= 1 << raw.order();
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
