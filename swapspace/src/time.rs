//! A point in monotonic time, handed in by the caller.
//!
//! Nothing in these crates reads a clock: the kernel passes the time into every `poll`, so that a
//! test or a simulator can pass whatever it likes.

use core::ops::{Add, Sub};
use core::time::Duration;

/// Microseconds since an epoch of the caller's choice (boot, say), monotonic.
///
/// ```
/// use core::time::Duration;
/// use swapspace::Instant;
///
/// let now = Instant::from_micros(1_500);
/// assert_eq!(now + Duration::from_millis(1), Instant::from_micros(2_500));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Instant(u64);

impl Instant {
    /// The caller's epoch.
    pub const ZERO: Instant = Instant(0);

    /// `micros` microseconds after the epoch.
    #[must_use]
    pub const fn from_micros(micros: u64) -> Self {
        Instant(micros)
    }

    /// Microseconds since the epoch.
    #[must_use]
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// Time elapsed since `earlier`, zero if `earlier` lies ahead.
    #[must_use]
    pub const fn since(self, earlier: Instant) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Instant {
    type Output = Instant;

    /// Saturates at the end of time (584,000 years after the epoch).
    fn add(self, rhs: Duration) -> Instant {
        let micros = u64::try_from(rhs.as_micros()).unwrap_or(u64::MAX);
        Instant(self.0.saturating_add(micros))
    }
}

impl Sub for Instant {
    type Output = Duration;

    fn sub(self, rhs: Instant) -> Duration {
        self.since(rhs)
    }
}
