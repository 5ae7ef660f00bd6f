//! Making a failure small enough to be understood.

use crate::run;
use crate::scenario::Scenario;
use crate::trace::Trace;

/// Leaves out of a scenario what its failure does not need: faults, then their length, then what the
/// program does. The smaller one breaks the same promise. `None` if nothing fails to begin with.
///
/// Takes some hundred runs.
#[must_use]
pub fn shrink(scenario: &Scenario) -> Option<Scenario> {
    let rule = run(scenario, Trace::silent()).violation?.rule;
    let fails = |candidate: &Scenario| {
        let violation = run(candidate, Trace::silent()).violation;
        violation.is_some_and(|violation| violation.rule == rule)
    };
    let mut best = scenario.clone();
    shrink_operations(&mut best, &fails);
    shrink_script(&mut best, &fails);
    shrink_lengths(&mut best, &fails);
    shrink_operations(&mut best, &fails);
    Some(best)
}

/// Removes faults: half of them at a time, then a quarter, and so on.
fn shrink_script(best: &mut Scenario, fails: &impl Fn(&Scenario) -> bool) {
    let mut size = best.script.len().div_ceil(2);
    while size > 0 {
        let mut at = 0;
        while at < best.script.len() {
            let mut candidate = best.clone();
            let end = (at + size).min(candidate.script.len());
            candidate.script.drain(at..end);
            if fails(&candidate) {
                *best = candidate;
            } else {
                at += size;
            }
        }
        size /= 2;
    }
}

fn shrink_lengths(best: &mut Scenario, fails: &impl Fn(&Scenario) -> bool) {
    for at in 0..best.script.len() {
        loop {
            let mut candidate = best.clone();
            candidate.script[at].lasting /= 2;
            if candidate.script[at].lasting == 0 || !fails(&candidate) {
                break;
            }
            *best = candidate;
        }
    }
}

fn shrink_operations(best: &mut Scenario, fails: &impl Fn(&Scenario) -> bool) {
    let mut step = best.program.operations / 2;
    while step > 0 {
        let mut candidate = best.clone();
        candidate.program.operations = candidate.program.operations.saturating_sub(step);
        if candidate.program.operations > 0 && fails(&candidate) {
            *best = candidate;
        } else {
            step /= 2;
        }
    }
}
