//! The simulator as a whole: what it must find, and what it must not.

use std::path::Path;
use std::process::Command;

use simulator::{Mechanism, Mode, Scenario, Trace, run, search, shrink};

#[test]
fn every_promise_is_kept_on_the_first_seeds() {
    for seed in 0..40 {
        for mode in [Mode::Within, Mode::Beyond] {
            let outcome = run(&Scenario::from_seed(seed, mode), Trace::silent());
            assert_eq!(outcome.violation, None, "seed {seed} {mode}");
        }
    }
}

#[test]
fn the_same_seed_is_the_same_run() {
    for seed in [1, 11, 14] {
        let scenario = Scenario::from_seed(seed, Mode::Within);
        let (first, second) = (
            run(&scenario, Trace::silent()),
            run(&scenario, Trace::silent()),
        );
        assert_eq!(first, second);
        let other = run(
            &Scenario::from_seed(seed + 100, Mode::Within),
            Trace::silent(),
        );
        assert_ne!(first.hash, other.hash, "the number says something");
    }
}

#[test]
fn a_mechanism_that_is_left_out_is_missed_and_the_failure_shrinks() {
    let filter: Mechanism = "vmio-filter".parse().unwrap();
    let found = search(filter, 100).expect("without the filter emergency packets reach sockets");
    assert_eq!(found.violation.rule, "N2");
    let small = shrink(&found.scenario).expect("it fails");
    assert!(small.script.len() <= found.scenario.script.len());
    assert!(small.program.operations <= found.scenario.program.operations);
    let again = run(&small.to_string().parse().unwrap(), Trace::silent());
    assert_eq!(again.violation.map(|violation| violation.rule), Some("N2"));
    // With the filter the same run is all right.
    let mut with = small;
    with.without = None;
    assert_eq!(run(&with, Trace::silent()).violation, None);
}

fn simulator(arguments: &[&str]) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_simulator"))
        .args(arguments)
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        output.status.code().unwrap(),
        text(output.stdout),
        text(output.stderr),
    )
}

#[test]
fn the_corpus_replays() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let (status, out, _) = simulator(&["replay", corpus.to_str().unwrap()]);
    assert_eq!(status, 0, "{out}");
}

#[test]
fn a_run_is_told_step_by_step_and_captured() {
    let directory = std::env::temp_dir().join(format!("simulator-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let capture = directory.join("wire.pcap");
    let (status, out, _) = simulator(&["run", "--seed", "11", "--pcap", capture.to_str().unwrap()]);
    assert_eq!(status, 0);
    assert!(out.starts_with("seed 11 within\n") && out.contains("server: WRITE"));
    assert!(out.ends_with("every promise was kept\n"));
    let bytes = std::fs::read(&capture).unwrap();
    assert_eq!(bytes[..4], [0xd4, 0xc3, 0xb2, 0xa1], "little-endian pcap");
    assert!(bytes.len() > 10_000);
    std::fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn workers_share_the_seeds() {
    let (status, out, _) = simulator(&["seeds", "--count", "5", "--jobs", "3", "--mode", "within"]);
    assert_eq!(status, 0);
    assert!(out.starts_with("5 runs, 0 failures"), "{out}");
}

#[test]
fn a_failure_has_status_1_and_says_which_promise() {
    let (status, out, _) = simulator(&["run", "--seed", "0", "--without", "backing", "--quiet"]);
    assert_eq!(status, 1);
    assert!(out.contains("M5 broken"), "{out}");
}

#[test]
fn what_makes_no_sense_is_one_line_and_status_2() {
    for arguments in [
        &["dance"][..],
        &["run"],
        &["run", "--seed", "one"],
        &["run", "--seed", "1", "--without", "luck"],
        &["run", "--file", "/nowhere"],
        &["ablate", "luck"],
        &["replay", "/nowhere"],
        &["soak"],
        &["seeds", "--jobs", "0"],
        &["seeds", "--mode", "sideways"],
    ] {
        let (status, _, error) = simulator(arguments);
        assert_eq!(status, 2, "{arguments:?}");
        assert_eq!(error.lines().count(), 1, "{arguments:?}: {error}");
    }
}
