use super::{Setup, explore, tighten};

fn quiet() -> Setup {
    Setup {
        losses: 0,
        foreign: 0,
        reboots: 0,
        ..Setup::default()
    }
}

#[test]
fn n5_the_computed_reserve_survives_every_schedule() {
    let setup = Setup {
        rings: [4, 4],
        ..quiet()
    };
    let report = explore(&setup, 10_000);
    assert!(
        report.exhausted && report.counterexample.is_none(),
        "{report}"
    );
    assert!(report.states > 200 && report.goals > 0, "{report}");
    assert_eq!(report.disagree, 0, "{report}");
}

#[test]
fn n4_a_reserve_that_is_too_small_ends_in_a_deadlock() {
    let setup = Setup {
        rings: [4, 4],
        missing: 3,
        ..quiet()
    };
    let reports = tighten(&setup, 10_000);
    assert_eq!(reports.len(), 2, "three frames are enough, two are not");
    assert_eq!(reports[0].counterexample, None);
    let counterexample = reports[1].counterexample.as_ref();
    let counterexample =
        counterexample.expect("two frames hold four buffers, and the card takes them");
    assert_eq!(counterexample.steps.len(), 6, "{counterexample}");
}

#[test]
fn n2_without_the_filter_strangers_packets_end_in_a_deadlock() {
    let setup = Setup {
        foreign: 6,
        invariants: false,
        without: "vmio-filter".parse().ok(),
        ..quiet()
    };
    let report = explore(&setup, 10_000);
    let counterexample = report
        .counterexample
        .expect("the reserve holds eight buffers");
    let strangers = counterexample
        .steps
        .iter()
        .filter(|step| step.contains("stranger"));
    assert!(strangers.count() > 2, "{counterexample}");
}

#[test]
fn n4_the_smallest_reserve_survives_and_none_does_not() {
    let setup = Setup {
        smallest: true,
        unstable: false,
        ..quiet()
    };
    assert_eq!(setup.computed(), 1);
    let reports = tighten(&setup, 10_000);
    assert_eq!(reports.len(), 2);
    assert!(
        reports[0].exhausted && reports[0].counterexample.is_none(),
        "{}",
        reports[0]
    );
    assert!(reports[1].counterexample.is_some(), "{}", reports[1]);
}
