//! How long things took: a histogram of fixed size.
//!
//! Eight linear buckets to each power of two, so that every quantile is exact to 12.5 per cent,
//! from a microsecond to 71 minutes, in less than a kilobyte.

use core::fmt;
use core::time::Duration;

const LINEAR_BITS: u32 = 3;
const LINEAR: usize = 1 << LINEAR_BITS;
const BUCKETS: usize = LINEAR + (u32::BITS - LINEAR_BITS) as usize * LINEAR;

/// Durations in microseconds, counted in buckets. No heap; recording is O(1).
///
/// ```
/// use core::time::Duration;
/// use swapspace::Histogram;
///
/// let mut latency = Histogram::new();
/// for micros in 1..=1000 {
///     latency.record(Duration::from_micros(micros));
/// }
/// let p99 = latency.quantile(990);
/// assert!(p99 >= Duration::from_micros(990) && p99 < Duration::from_micros(1120));
/// ```
#[derive(Clone)]
pub struct Histogram {
    buckets: [u32; BUCKETS],
    count: u64,
    max: u32,
}

impl Histogram {
    /// An empty one.
    #[must_use]
    pub const fn new() -> Self {
        Histogram {
            buckets: [0; BUCKETS],
            count: 0,
            max: 0,
        }
    }

    /// Counts one duration. What is longer than 71 minutes counts as that.
    pub fn record(&mut self, duration: Duration) {
        let micros = u32::try_from(duration.as_micros()).unwrap_or(u32::MAX);
        let bucket = &mut self.buckets[bucket(micros)];
        *bucket = bucket.saturating_add(1);
        self.count += 1;
        self.max = self.max.max(micros);
    }

    /// Durations recorded.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// The longest, exactly.
    #[must_use]
    pub const fn max(&self) -> Duration {
        Duration::from_micros(self.max as u64)
    }

    /// A duration that `per_mille` of those recorded do not exceed: the upper end of the bucket,
    /// at most 12.5 per cent too long. Zero when nothing was recorded. O(buckets), 240.
    ///
    /// # Panics
    ///
    /// If `per_mille` exceeds 1000.
    #[must_use]
    pub fn quantile(&self, per_mille: u16) -> Duration {
        assert!(per_mille <= 1000, "at most all of them");
        let rank = (self.count * u64::from(per_mille)).div_ceil(1000).max(1);
        let mut seen = 0;
        for (index, count) in self.buckets.iter().enumerate() {
            seen += u64::from(*count);
            if seen >= rank {
                return Duration::from_micros(upper_end(index).min(self.max).into());
            }
        }
        self.max()
    }

    /// The median.
    #[must_use]
    pub fn p50(&self) -> Duration {
        self.quantile(500)
    }

    /// 99 per cent do not exceed it.
    #[must_use]
    pub fn p99(&self) -> Duration {
        self.quantile(990)
    }

    /// 99.9 per cent do not exceed it.
    #[must_use]
    pub fn p999(&self) -> Duration {
        self.quantile(999)
    }
}

impl Default for Histogram {
    fn default() -> Self {
        Histogram::new()
    }
}

impl fmt::Debug for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Histogram")
            .field("count", &self.count)
            .field("p50", &self.p50())
            .field("p99", &self.p99())
            .field("p999", &self.p999())
            .field("max", &self.max())
            .finish()
    }
}

/// Which bucket counts `micros`.
fn bucket(micros: u32) -> usize {
    let Some(octave) = micros.checked_ilog2().filter(|o| *o >= LINEAR_BITS) else {
        return micros as usize;
    };
    let shift = octave - LINEAR_BITS;
    (shift as usize + 1) * LINEAR + ((micros >> shift) as usize & (LINEAR - 1))
}

/// The longest duration that bucket `index` counts.
fn upper_end(index: usize) -> u32 {
    if index < LINEAR {
        return index as u32;
    }
    let shift = (index / LINEAR - 1) as u32;
    let first = ((LINEAR + index % LINEAR) as u32) << shift;
    first + ((1 << shift) - 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_empty_histogram_says_zero() {
        assert_eq!(Histogram::new().p999(), Duration::ZERO);
    }

    #[test]
    fn the_last_bucket_ends_where_the_range_ends() {
        assert_eq!(bucket(u32::MAX), BUCKETS - 1);
        assert_eq!(upper_end(BUCKETS - 1), u32::MAX);
    }

    proptest! {
        #[test]
        fn a_bucket_holds_its_value_and_is_narrow(micros: u32) {
            let index = bucket(micros);
            let end = upper_end(index);
            prop_assert!(end >= micros && end - micros <= micros / 8);
            prop_assert!(index == 0 || upper_end(index - 1) < micros);
        }

        #[test]
        fn a_quantile_is_never_below_the_exact_one(
            mut micros in prop::collection::vec(0u32..5_000_000, 1..200),
            per_mille in 0u16..=1000,
        ) {
            let mut histogram = Histogram::new();
            for micros in &micros {
                histogram.record(Duration::from_micros(u64::from(*micros)));
            }
            micros.sort_unstable();
            let rank = (micros.len() * usize::from(per_mille)).div_ceil(1000).max(1);
            let exact = u128::from(micros[rank - 1]);
            let told = histogram.quantile(per_mille).as_micros();
            prop_assert!(told >= exact && told <= exact + exact / 8);
        }
    }
}
