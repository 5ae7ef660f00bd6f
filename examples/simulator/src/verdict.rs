//! What a run found.

use core::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::scenario::Micros;

/// A promise that was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The invariant, `"M1"` to `"S8"`, or `"liveness"`, `"panic"`.
    pub rule: &'static str,
    /// What was seen.
    pub what: String,
    /// When.
    pub at: Micros,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} broken at {}.{:06} s: {}",
            self.rule,
            self.at / 1_000_000,
            self.at % 1_000_000,
            self.what
        )
    }
}

/// How a run went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The first promise that was broken, if any was.
    pub violation: Option<Violation>,
    /// A number that is the same for the same run.
    pub hash: u64,
    /// How long the run took in virtual time.
    pub took: Micros,
    /// Events that happened.
    pub events: u64,
    /// What happened how often.
    pub counts: Counts,
}

/// What happened how often in one run or in many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Pages whose contents were compared with what they must be.
    pub verified: u64,
    /// Pages read.
    pub pages_in: u64,
    /// Pages written.
    pub pages_out: u64,
    /// Page faults that failed.
    pub failed: u64,
    /// Unrelated packets sent to the machine.
    pub unrelated: u64,
    /// Emergency packets received.
    pub emergency: u64,
    /// Packets dropped because they did not serve the VM.
    pub dropped: u64,
    /// The most frames of the reserve in use at once.
    pub reserve_peak: u64,
    /// Frames of the reserve.
    pub reserve: u64,
    /// Times that the connection was made anew.
    pub reconnects: u64,
}

impl Counts {
    /// Adds what happened in another run.
    pub fn add(&mut self, other: &Counts) {
        self.verified += other.verified;
        self.pages_in += other.pages_in;
        self.pages_out += other.pages_out;
        self.failed += other.failed;
        self.unrelated += other.unrelated;
        self.emergency += other.emergency;
        self.dropped += other.dropped;
        self.reserve_peak = self.reserve_peak.max(other.reserve_peak);
        self.reserve = self.reserve.max(other.reserve);
        self.reconnects += other.reconnects;
    }
}

/// Where checks report, from wherever they are made. Only the first counts: what comes after it may
/// follow from it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Findings(Arc<Mutex<Option<(&'static str, String)>>>);

impl Findings {
    /// A promise was broken.
    pub(crate) fn report(&self, rule: &'static str, what: impl FnOnce() -> String) {
        let mut first = locked(&self.0);
        if first.is_none() {
            *first = Some((rule, what()));
        }
    }

    /// Reports unless `holds`.
    pub(crate) fn check(&self, holds: bool, rule: &'static str, what: impl FnOnce() -> String) {
        if !holds {
            self.report(rule, what);
        }
    }

    pub(crate) fn first(&self, at: Micros) -> Option<Violation> {
        let first = locked(&self.0);
        first.as_ref().map(|(rule, what)| Violation {
            rule,
            what: what.clone(),
            at,
        })
    }

    pub(crate) fn is_empty(&self) -> bool {
        locked(&self.0).is_none()
    }
}

/// The crates ask for what can be shared between threads; here nothing ever is.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
