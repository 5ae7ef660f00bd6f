//! Leaving a mechanism out must be found out.

use crate::Mechanism;
use crate::run;
use crate::scenario::{Mode, Scenario};
use crate::trace::Trace;
use crate::verdict::Violation;

/// What came of a search.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The scenario that shows it.
    pub scenario: Scenario,
    /// What went wrong.
    pub violation: Violation,
    /// Runs that it took.
    pub runs: u64,
}

/// Looks for a run that goes wrong without `mechanism`, within the budget first; `seeds` of each mode
/// at most.
#[must_use]
pub fn search(mechanism: Mechanism, seeds: u64) -> Option<Found> {
    let mut runs = 0;
    for seed in 0..seeds {
        for mode in [Mode::Within, Mode::Beyond] {
            runs += 1;
            let scenario = Scenario::from_seed(seed, mode).without(mechanism);
            if let Some(violation) = run(&scenario, Trace::silent()).violation {
                return Some(Found {
                    scenario,
                    violation,
                    runs,
                });
            }
        }
    }
    None
}
