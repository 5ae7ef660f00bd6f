//! Scripts of everything that goes wrong, made up by the fuzzer and run by the simulator: every promise
//! is checked after every step. What fails is printed as a scenario, which belongs into
//! `examples/simulator/corpus` once it is mended.
#![no_main]

use std::sync::Once;

use libfuzzer_sys::fuzz_target;
use simulator::{Scenario, Trace, run, shrink};

static QUIET: Once = Once::new();

fuzz_target!(|bytes: &[u8]| {
    // Panics of the crates are findings of the run, and must not end the process first.
    QUIET.call_once(simulator::quiet_panics);
    let mut scenario = Scenario::from_bytes(bytes);
    // Short programs: the fuzzer is after the script.
    scenario.program.operations = scenario.program.operations.min(40);
    if let Some(violation) = run(&scenario, Trace::silent()).violation {
        let small = shrink(&scenario).unwrap_or(scenario);
        eprintln!("{violation}\n{small}");
        std::process::abort();
    }
});
