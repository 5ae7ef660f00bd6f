//! One path, executed from the beginning.

use core::panic::AssertUnwindSafe;
use std::collections::HashMap;
use std::panic::catch_unwind;

use super::build::with_system;
use super::choice::Choice;
use super::system::{PATIENCE, STEPS, System};
use super::{Counterexample, Setup};
use crate::verdict::Findings;

/// Steps that are printed of what comes after a counterexample.
const CONTINUATION: usize = 60;

/// Timers that go off one after the other, and no packet moves, before it is called hopeless.
const IDLE: u32 = 2;

/// What must not happen, whatever else is not judged: what a user would notice.
const NOTICED: [&str; 5] = ["S2", "S4", "S6", "integrity", "leak"];

/// What there was to see at the end of a path.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) digest: u64,
    pub(super) goal: bool,
    pub(super) enabled: Vec<Choice>,
    /// States on the way from there to the goal, without faults, as far as it was not known.
    pub(super) way: Vec<u64>,
    /// The known state at which it was left.
    pub(super) joins: Option<u64>,
    pub(super) wrong: Option<String>,
}

/// Goes to the end of a path, and from there on to the goal as far as that is not known to be
/// possible.
pub(super) fn visit(
    setup: &Setup,
    path: &[Choice],
    live: &HashMap<u64, Option<u64>>,
    visited: &HashMap<u64, u32>,
) -> Seen {
    execute(setup, path, |system| {
        let digest = system.digest();
        if visited.contains_key(&digest) {
            // Nothing new: it was judged when it was reached first.
            return (
                Seen {
                    digest,
                    ..Seen::default()
                },
                false,
            );
        }
        let mut seen = Seen {
            digest,
            goal: system.is_goal(),
            ..Seen::default()
        };
        if !seen.goal {
            seen.enabled = system.relevant();
        }
        let over = prove(system, live, &mut seen);
        (seen, over)
    })
}

/// Goes on without faults until the goal, or a state from which that was done. Whether all is over.
fn prove(system: &mut System<'_, '_>, live: &HashMap<u64, Option<u64>>, seen: &mut Seen) -> bool {
    let deadline = system.now() + PATIENCE;
    loop {
        let digest = if seen.way.is_empty() {
            seen.digest
        } else {
            system.digest()
        };
        if live.contains_key(&digest) {
            seen.joins = Some(digest);
            return false;
        }
        seen.way.push(digest);
        if system.is_goal() {
            seen.wrong = system.end().err();
            return seen.wrong.is_none();
        }
        if seen.way.len() > STEPS || system.now() > deadline || !system.go_on() {
            seen.wrong = Some(system.hangs());
            return false;
        }
    }
}

/// Builds the system, follows a path, and does `then` at its end.
fn execute(
    setup: &Setup,
    path: &[Choice],
    then: impl FnOnce(&mut System<'_, '_>) -> (Seen, bool),
) -> Seen {
    let findings = Findings::default();
    let run = || {
        with_system(setup, &findings, |system| {
            if let Err(wrong) = system.begin() {
                let wrong = Some(wrong);
                return (
                    Seen {
                        wrong,
                        ..Seen::default()
                    },
                    false,
                );
            }
            path.iter().for_each(|choice| system.step(*choice));
            then(system)
        })
    };
    let mut seen = catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        let wrong = Some(format!("panic: {}", text.unwrap_or("without a word")));
        Seen {
            wrong,
            ..Seen::default()
        }
    });
    if let Some(violation) = findings.first(0)
        && (setup.invariants || NOTICED.contains(&violation.rule))
    {
        seen.wrong = Some(format!("{} broken: {}", violation.rule, violation.what));
    }
    seen
}

/// Puts a path and what comes after it into words.
pub(super) fn explain(setup: &Setup, path: &[Choice], what: String) -> Counterexample {
    let mut steps = Vec::new();
    let mut continuation = Vec::new();
    let findings = Findings::default();
    let judged = || {
        let first = findings.first(0);
        first.is_some_and(|first| setup.invariants || NOTICED.contains(&first.rule))
    };
    let run = || {
        with_system(setup, &findings, |system| {
            if system.begin().is_err() {
                return ((), false);
            }
            for choice in path {
                steps.push(tell(system, *choice));
            }
            let deadline = system.now() + PATIENCE;
            let mut idle = 0;
            while !judged() && !system.is_goal() && system.now() <= deadline {
                let Some(choice) = system.enabled().next().filter(|next| !next.is_fault()) else {
                    break;
                };
                continuation.push(tell(system, choice));
                idle = match choice {
                    Choice::Time => idle + 1,
                    Choice::Kernel | Choice::Meanwhile => idle,
                    _ => 0,
                };
                if idle == IDLE || continuation.len() == CONTINUATION {
                    continuation.push("and so on".into());
                    break;
                }
            }
            ((), false)
        });
    };
    // What it panics of is told already.
    let _ = catch_unwind(AssertUnwindSafe(run));
    Counterexample {
        steps,
        continuation,
        what,
    }
}

/// Does a step, and says what it was and how things stand then.
fn tell(system: &mut System<'_, '_>, choice: Choice) -> String {
    let mut text = system.describe(choice);
    system.step(choice);
    if matches!(choice, Choice::Kernel | Choice::Meanwhile) {
        text = format!("{text}: {}", system.memory());
    }
    text
}

/// Whether the end of a path goes on as its state did when it was reached first: one step of
/// everybody, and all the way to the goal.
pub(super) fn agrees(
    setup: &Setup,
    path: &[Choice],
    edges: &HashMap<(u64, Choice), u64>,
    live: &HashMap<u64, Option<u64>>,
) -> bool {
    let mut enabled = Vec::new();
    let mut same = true;
    let start = execute(setup, path, |system| {
        let mut digest = system.digest();
        let seen = Seen {
            digest,
            ..Seen::default()
        };
        enabled.extend(system.enabled().filter(|_| !system.is_goal()));
        while let Some(Some(next)) = live.get(&digest) {
            system.go_on();
            digest = system.digest();
            same &= digest == *next;
            if !same {
                break;
            }
        }
        (seen, false)
    });
    let steps = enabled.into_iter().all(|choice| {
        let path: Vec<_> = path.iter().copied().chain([choice]).collect();
        let next = execute(setup, &path, |system| {
            let digest = system.digest();
            (
                Seen {
                    digest,
                    ..Seen::default()
                },
                false,
            )
        });
        let known = edges.get(&(start.digest, choice));
        known.is_none_or(|known| *known == next.digest)
    });
    same && steps
}
