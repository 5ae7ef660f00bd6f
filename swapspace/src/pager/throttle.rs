//! When the next page-out may be tried.

use core::time::Duration;

use crate::Instant;

/// The pause after a first failure; it doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
/// Doublings: the longest pause is 1.28 s.
const DOUBLINGS: u32 = 7;

/// Keeps a store that fails or refuses from being tried again and again.
#[derive(Debug, Default)]
pub(super) struct Throttle {
    failures: u32,
    retry_at: Option<Instant>,
    refused: bool,
}

impl Throttle {
    /// A write failed: wait before the next, longer each time.
    pub(super) fn failed(&mut self, now: Instant) {
        let pause = FIRST_PAUSE * (1 << self.failures.min(DOUBLINGS));
        self.failures = self.failures.saturating_add(1);
        self.retry_at = Some(now + pause);
    }

    /// A write succeeded: the store is well.
    pub(super) fn succeeded(&mut self) {
        self.failures = 0;
        self.retry_at = None;
    }

    /// A request was refused although there was a credit: wait for a completion.
    pub(super) fn refused(&mut self) {
        self.refused = true;
    }

    /// A request completed: there is room again.
    pub(super) fn completed(&mut self) {
        self.refused = false;
    }

    /// Whether requests are refused until another one completes.
    pub(super) const fn full(&self) -> bool {
        self.refused
    }

    /// Ends a pause that is over.
    pub(super) fn expire(&mut self, now: Instant) {
        self.retry_at = self.retry_at.filter(|at| now < *at);
    }

    /// Whether a failed write is too recent for another one.
    pub(super) fn delays(&self, now: Instant) -> bool {
        self.retry_at.is_some_and(|at| now < at)
    }

    /// When writes may be tried again, if not now.
    pub(super) const fn retry_at(&self) -> Option<Instant> {
        self.retry_at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s3_pauses_double_up_to_a_bound_and_end_with_a_success() {
        let mut throttle = Throttle::default();
        let mut now = Instant::ZERO;
        let mut pauses = [0; 10];
        for pause in &mut pauses {
            throttle.failed(now);
            let at = throttle.retry_at().unwrap();
            assert!(throttle.delays(now) && !throttle.delays(at));
            *pause = (at - now).as_millis();
            now = at;
        }
        assert_eq!(pauses, [10, 20, 40, 80, 160, 320, 640, 1280, 1280, 1280]);
        throttle.succeeded();
        assert!(!throttle.delays(now));
    }
}
