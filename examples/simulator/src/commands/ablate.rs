//! Leaving out each mechanism, and the table of what then goes wrong.

use core::fmt::Write;
use std::collections::BTreeMap;
use std::fs;

use simulator::{Mechanism, run_workers, search};

use crate::args::Command;

/// Seeds that a search tries, of each mode.
const SEEDS: u64 = 4000;

/// What a worker says between the columns.
const COLUMN: char = '\t';

pub(crate) fn ablate(command: &Command) -> Result<bool, String> {
    let mechanisms: Vec<Mechanism> = match command.words.as_slice() {
        [] => Mechanism::all().collect(),
        words => words
            .iter()
            .map(|word| word.parse())
            .collect::<Result<_, _>>()?,
    };
    let seeds = command.seeds.unwrap_or(SEEDS);
    if command.jobs == Some(1) {
        let found = mechanisms.iter().map(|mechanism| one(*mechanism, seeds));
        return Ok(found.filter(|found| !found).count() == 0);
    }
    let workers = command.workers() as usize;
    let arguments = (0..workers).map(|worker| {
        let mut arguments: Vec<String> =
            ["ablate", "--jobs", "1", "--seeds"].map(Into::into).into();
        arguments.push(seeds.to_string());
        let own = mechanisms.iter().skip(worker).step_by(workers);
        arguments.extend(own.map(|mechanism| mechanism.to_string()));
        arguments
    });
    // A worker without names would take all of them.
    let arguments = arguments.filter(|arguments| arguments.len() > 5);
    let mut lines = BTreeMap::new();
    run_workers(arguments.collect(), |line| {
        let name = line.split(COLUMN).next().unwrap_or_default();
        lines.insert(name.to_string(), line.to_string());
    })
    .map_err(|error| error.to_string())?;

    let mut rows = Vec::new();
    let mut nothing = Vec::new();
    for mechanism in &mechanisms {
        let line = lines.get(mechanism.name()).map_or("", |line| line.as_str());
        let columns: Vec<&str> = line.split(COLUMN).collect();
        match columns.as_slice() {
            [_, seed, mode, runs, what] => {
                println!(
                    "{:<3} {:<24} {runs:>5} runs, seed {seed} {mode}: {what}",
                    mechanism.invariant(),
                    mechanism.name()
                );
                rows.push((*mechanism, format!("{seed} {mode}"), what.to_string()));
            }
            _ => nothing.push(mechanism.name()),
        }
    }
    for name in &nothing {
        println!(
            "{name}: {} runs, and nothing went wrong without it",
            2 * seeds
        );
    }
    println!(
        "{} of {} mechanisms were missed",
        rows.len(),
        mechanisms.len()
    );
    if let Some(path) = command.table.as_ref().filter(|_| nothing.is_empty()) {
        fs::write(path, table(&rows)).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(nothing.is_empty())
}

/// A worker's search.
fn one(mechanism: Mechanism, seeds: u64) -> bool {
    let Some(found) = search(mechanism, seeds) else {
        return false;
    };
    let what = found.violation.to_string().replace(['\n', COLUMN], " ");
    println!(
        "{mechanism}{COLUMN}{}{COLUMN}{}{COLUMN}{}{COLUMN}{what}",
        found.scenario.seed, found.scenario.mode, found.runs
    );
    true
}

fn table(rows: &[(Mechanism, String, String)]) -> String {
    let mut table = String::from(
        "# What every mechanism is for\n\n\
         Each mechanism of the crates can be switched off in the simulator (`--without`). Without it \
         some run goes wrong; this is the first one that does, and what was seen. Written by \
         `cargo run --release -p simulator -- ablate --table docs/ABLATION.md`; see any of them with \
         `simulator run --seed SEED --mode MODE --without MECHANISM`.\n\n\
         | keeps | mechanism | crate | seed | what went wrong |\n|---|---|---|---|---|\n",
    );
    for (mechanism, seed, what) in rows {
        let what = what.replace('|', "\\|");
        let _ = writeln!(
            table,
            "| {} | `{}` | {} | {seed} | {what} |",
            mechanism.invariant(),
            mechanism.name(),
            mechanism.package()
        );
    }
    table
}
