//! How much of the computed reserve is needed.

use core::fmt::Write;
use std::fs;

use simulator::{Configuration, run_workers};

use crate::args::Command;

/// Seeds that every size of the reserve must survive.
const SEEDS: u64 = 60;

pub(crate) fn budgets(command: &Command) -> Result<bool, String> {
    let seeds = command.seeds.unwrap_or(SEEDS);
    let all: Vec<usize> = (0..Configuration::ALL.len()).collect();
    if command.jobs == Some(1) {
        for word in &command.words {
            let number: usize = word
                .parse()
                .map_err(|_| format!("no configuration '{word}'"))?;
            let configuration = Configuration::ALL.get(number);
            let configuration = configuration.ok_or(format!("no configuration {number}"))?;
            let found = configuration.measure(seeds);
            let fails = match found.fails {
                Some((seed, rule)) => format!("seed {seed}: {rule}"),
                None => "nothing fails".into(),
            };
            println!(
                "{number}\t{}\t{}\t{:.2}\t{fails}",
                found.computed,
                found.needed,
                found.ratio()
            );
        }
        return Ok(true);
    }
    let workers = command.workers() as usize;
    let arguments = (0..workers).map(|worker| {
        let mut arguments: Vec<String> =
            ["budgets", "--jobs", "1", "--seeds"].map(Into::into).into();
        arguments.push(seeds.to_string());
        arguments.extend(
            all.iter()
                .skip(worker)
                .step_by(workers)
                .map(usize::to_string),
        );
        arguments
    });
    let mut lines = Vec::new();
    run_workers(arguments.collect(), |line| lines.push(line.to_string()))
        .map_err(|error| error.to_string())?;
    lines.sort_by_key(|line| {
        line.split('\t')
            .next()
            .and_then(|n| n.parse::<usize>().ok())
    });

    let mut table = String::from(
        "| machine | computed | needed | ratio | with less |\n|---|---|---|---|---|\n",
    );
    for line in &lines {
        let columns: Vec<&str> = line.split('\t').collect();
        let [number, computed, needed, ratio, fails] = columns.as_slice() else {
            return Err(format!("a worker said '{line}'"));
        };
        let configuration = number
            .parse()
            .ok()
            .and_then(|n: usize| Configuration::ALL.get(n));
        let configuration = configuration.ok_or("a worker named no configuration")?;
        println!(
            "{configuration}: {computed} frames computed, {needed} needed, ratio {ratio} ({fails})"
        );
        let _ = writeln!(
            table,
            "| {configuration} | {computed} | {needed} | {ratio} | {fails} |"
        );
    }
    if let Some(path) = &command.table {
        fs::write(path, table).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(lines.len() == all.len())
}
