//! Property tests that say how much they did.

use core::cell::Cell;
use core::fmt::Debug;

use proptest::prelude::*;
use proptest::test_runner::{TestCaseError, TestRunner};

/// Operations that each model is driven through at least.
const ENOUGH: usize = 100_000;
/// Operations in a run, before everything is given back.
const LENGTH: usize = 500;
const CASES: u32 = 288;

/// Runs `test` with sequences of `ops`. It returns how many of them had something to act on: those
/// count.
pub(crate) fn drive<Op: Debug + Clone>(
    name: &str,
    ops: impl Strategy<Value = Op>,
    test: impl Fn(Vec<Op>) -> Result<usize, TestCaseError>,
) {
    let done = Cell::new(0);
    let config = ProptestConfig {
        failure_persistence: None,
        max_shrink_iters: 4_000,
        ..ProptestConfig::with_cases(CASES)
    };
    let strategy = prop::collection::vec(ops, LENGTH);
    let result = TestRunner::new(config).run(&strategy, |ops| {
        done.set(done.get() + test(ops)?);
        Ok(())
    });
    if let Err(error) = result {
        panic!("{name}: {error}");
    }
    println!("{name}: {} operations", done.get());
    assert!(
        done.get() >= ENOUGH,
        "{name}: {} operations only",
        done.get()
    );
}
