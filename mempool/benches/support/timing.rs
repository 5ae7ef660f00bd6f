//! Wall time, side by side: whatever slows the machine for a while slows all of the subjects.
#![allow(dead_code, unreachable_pub)]

use std::time::Instant;

use crate::support::Subject;
use crate::support::patterns::{OPERATIONS, Pattern, Ready};

/// Each subject runs once in each.
const ROUNDS: usize = 101;
/// Runs of one subject in a row, which are timed as one.
const RUNS: usize = 8;

/// Subjects that run in turn; the first one is what the others are compared with.
pub struct Race {
    group: &'static str,
    case: &'static str,
    runners: Vec<Runner>,
}

struct Runner {
    name: &'static str,
    run: Box<dyn FnMut()>,
    /// Nanoseconds for an operation, a round each.
    times: Vec<f64>,
}

impl Race {
    pub fn new(group: &'static str, case: &'static str) -> Self {
        Race {
            group,
            case,
            runners: Vec::new(),
        }
    }

    /// [`OPERATIONS`] of whatever `run` does are what is timed.
    pub fn with(mut self, name: &'static str, run: impl FnMut() + 'static) -> Self {
        self.runners.push(Runner {
            name,
            run: Box::new(run),
            times: Vec::with_capacity(ROUNDS),
        });
        self
    }

    /// A subject under a pattern.
    pub fn subject<S>(self, name: &'static str, pattern: Pattern, bytes: usize) -> Self
    where
        S: Subject + 'static,
        S::Handle: 'static,
    {
        let mut ready = Ready::<S>::new(pattern, bytes);
        self.with(name, move || ready.run())
    }

    /// Rows: group, subject, case, median and quartiles of the nanoseconds for an operation, median
    /// of its ratios to the first subject in the same round.
    pub fn print(mut self) {
        let count = self.runners.len();
        for round in 0..ROUNDS {
            // Who goes first changes, so that nobody always finds the caches as one other left them.
            for turn in 0..count {
                let runner = &mut self.runners[(round + turn) % count];
                let start = Instant::now();
                for _ in 0..RUNS {
                    (runner.run)();
                }
                let elapsed = start.elapsed().as_nanos() as f64;
                runner.times.push(elapsed / (RUNS * OPERATIONS) as f64);
            }
        }
        let first = self.runners[0].times.clone();
        for runner in self.runners {
            let ratios = runner.times.iter().zip(&first).map(|(t, f)| t / f);
            let ratio = quantile(ratios.collect(), 0.5);
            let [low, median, high] = [0.25, 0.5, 0.75].map(|q| quantile(runner.times.clone(), q));
            let (group, case, name) = (self.group, self.case, runner.name);
            println!("{group},{name},{case},{median:.2},{low:.2},{high:.2},{ratio:.3}");
        }
    }
}

/// The header of those rows.
pub fn header() {
    println!("group,subject,case,ns_median,ns_q1,ns_q3,ratio");
}

fn quantile(mut values: Vec<f64>, q: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    values[((values.len() - 1) as f64 * q).round() as usize]
}
