//! Many runs.

use core::time::Duration;
use std::time::Instant;

use simulator::{Mode, Scenario, Summary, Total, Trace, run, run_workers};

use crate::args::Command;

/// The seeds from one number on.
pub(crate) fn seeds(command: &Command) -> Result<bool, String> {
    if command.jobs == Some(1) {
        let mut total = Total::default();
        let last = command.from.saturating_add(command.count);
        for seed in (command.from..last).step_by(command.step as usize) {
            one_seed(command, seed, &mut total);
        }
        println!("{total}");
        return Ok(total.failures == 0);
    }
    let workers = command.workers();
    let arguments = (0..workers).map(|worker| {
        let count = command.count.saturating_sub(worker);
        let mut arguments = worker_arguments(command, "seeds", command.from + worker, workers);
        arguments.extend(["--count".into(), count.to_string()]);
        arguments
    });
    finish(arguments.collect())
}

/// Runs until the time is over.
pub(crate) fn soak(command: &Command) -> Result<bool, String> {
    let minutes = command.minutes.ok_or("give --minutes")?;
    if command.jobs == Some(1) {
        let end = Instant::now() + Duration::from_secs_f64(minutes * 60.0);
        let mut total = Total::default();
        let mut seed = command.from;
        while Instant::now() < end {
            one_seed(command, seed, &mut total);
            seed = seed.wrapping_add(command.step);
        }
        println!("{total}");
        return Ok(total.failures == 0);
    }
    let workers = command.workers();
    let arguments = (0..workers).map(|worker| {
        let mut arguments = worker_arguments(command, "soak", command.from + worker, workers);
        arguments.extend(["--minutes".into(), minutes.to_string()]);
        arguments
    });
    finish(arguments.collect())
}

fn one_seed(command: &Command, seed: u64, total: &mut Total) {
    let modes = [Mode::Within, Mode::Beyond].into_iter();
    for mode in modes.filter(|mode| command.mode.is_none_or(|wanted| wanted == *mode)) {
        let mut scenario = Scenario::from_seed(seed, mode);
        scenario.without = command.without;
        let outcome = run(&scenario, Trace::silent());
        total.runs += 1;
        total.simulated += outcome.took;
        total.events += outcome.events;
        total.counts.add(&outcome.counts);
        if let Some(violation) = outcome.violation {
            total.failures += 1;
            println!("seed {seed} {mode}: {violation}");
        }
    }
}

fn worker_arguments(command: &Command, name: &str, from: u64, step: u64) -> Vec<String> {
    let mode = command.mode.map_or("both".into(), |mode| mode.to_string());
    let mut arguments: Vec<String> = [name, "--jobs", "1", "--mode", &mode]
        .map(Into::into)
        .into();
    arguments.extend(["--from".into(), from.to_string()]);
    arguments.extend(["--step".into(), step.to_string()]);
    if let Some(mechanism) = command.without {
        arguments.extend(["--without".into(), mechanism.to_string()]);
    }
    arguments
}

fn finish(arguments: Vec<Vec<String>>) -> Result<bool, String> {
    let begin = Instant::now();
    let total = run_workers(arguments, |line| println!("{line}"));
    let total = total.map_err(|error| error.to_string())?;
    let seconds = begin.elapsed().as_secs_f64();
    println!("{}", Summary(&total));
    println!(
        "{seconds:.1} s: {:.0} simulated seconds a second, {:.0} runs a second",
        total.simulated as f64 / 1e6 / seconds,
        total.runs as f64 / seconds,
    );
    Ok(total.failures == 0)
}
