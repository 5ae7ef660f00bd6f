//! What is printed while a run goes on: a line each second.

use crate::output::tell;
use crate::report::Sample;

/// Prints the difference between two samples, and the levels.
#[derive(Default)]
pub(crate) struct Live {
    last: Sample,
    headed: bool,
}

impl Live {
    /// One line, if a second has passed since the last; the heading before the first.
    pub(crate) fn show(&mut self, now: &Sample) {
        let seconds = now.at - self.last.at;
        if seconds < 1.0 {
            return;
        }
        if !core::mem::replace(&mut self.headed, true) {
            Self::print_heading();
        }
        self.print(now, seconds);
        self.last = now.clone();
    }

    fn print_heading() {
        tell(format_args!(
            "{:>6}  {:>9} {:>9} {:>9}  {:>8} {:>8} {:>8}  {:>9} {:>9}",
            "time",
            "faults/s",
            "in/s",
            "out/s",
            "resident",
            "free",
            "reserve",
            "emergency",
            "drops/s"
        ));
    }

    fn print(&self, now: &Sample, seconds: f64) {
        let rate = |now: u64, last: u64| ((now - last) as f64 / seconds).round() as u64;
        let drops = |sample: &Sample| sample.drops.iter().sum::<u64>();
        tell(format_args!(
            "{:>5.1}s  {:>9} {:>9} {:>9}  {:>8} {:>8} {:>8}  {:>9} {:>9}",
            now.at,
            rate(now.faults, self.last.faults),
            rate(now.pages_in, self.last.pages_in),
            rate(now.pages_out, self.last.pages_out),
            now.resident,
            now.free,
            now.reserve,
            now.emergency,
            rate(drops(now), drops(&self.last)),
        ));
    }
}
