//! How much of the computed reserve is needed.

use core::fmt::Write;
use std::fs;
use std::path::Path;

use mempool::FRAME_SIZE;
use simulator::{Configuration, run_workers};

use crate::args::Command;

/// Seeds that every size of the reserve must survive.
const SEEDS: u64 = 60;

pub(crate) fn budgets(command: &Command) -> Result<bool, String> {
    let seeds = command.seeds.unwrap_or(SEEDS);
    if command.jobs == Some(1) {
        return one_by_one(&command.words, seeds);
    }
    let workers = command.workers() as usize;
    let arguments = (0..workers).map(|worker| {
        let seeds = seeds.to_string();
        let own = (0..Configuration::ALL.len())
            .skip(worker)
            .step_by(workers)
            .map(|number| number.to_string());
        let arguments = ["budgets", "--jobs", "1", "--seeds", &seeds].map(String::from);
        arguments.into_iter().chain(own).collect()
    });
    let mut rows = Vec::new();
    run_workers(arguments.collect(), |line| rows.push(Row::parse(line)))
        .map_err(|error| error.to_string())?;
    let mut rows = rows.into_iter().collect::<Result<Vec<_>, _>>()?;
    rows.sort_by_key(|row| row.number);
    for row in &rows {
        println!("{row}");
    }
    if let Some(path) = &command.table {
        replace(path, &table(&rows))?;
    }
    let short: Vec<_> = rows
        .iter()
        .filter(|row| row.needed > row.computed)
        .collect();
    for row in &short {
        println!("{row}: the computed reserve does not suffice");
    }
    Ok(short.is_empty() && rows.len() == Configuration::ALL.len())
}

/// A worker's share: the configurations of these numbers.
fn one_by_one(numbers: &[String], seeds: u64) -> Result<bool, String> {
    for word in numbers {
        let number = word.parse().ok();
        let known = number.and_then(|number: usize| Configuration::ALL.get(number));
        let found = known
            .ok_or(format!("no configuration '{word}'"))?
            .measure(seeds);
        let fails = match found.fails {
            Some((seed, rule)) => format!("seed {seed}: {rule}"),
            None => "nothing fails".into(),
        };
        let (computed, needed, ratio) = (found.computed, found.needed, found.ratio());
        println!("{word}\t{computed}\t{needed}\t{ratio:.2}\t{fails}");
    }
    Ok(true)
}

/// What a worker said of one configuration.
struct Row {
    number: usize,
    configuration: &'static Configuration,
    computed: usize,
    needed: usize,
    ratio: String,
    fails: String,
}

impl Row {
    fn parse(line: &str) -> Result<Row, String> {
        let wrong = || format!("a worker said '{line}'");
        let columns: Vec<&str> = line.split('\t').collect();
        let [number, computed, needed, ratio, fails] = columns.as_slice() else {
            return Err(wrong());
        };
        let count = |word: &str| word.parse().map_err(|_| wrong());
        let number = count(number)?;
        Ok(Row {
            number,
            configuration: Configuration::ALL.get(number).ok_or_else(wrong)?,
            computed: count(computed)?,
            needed: count(needed)?,
            ratio: (*ratio).into(),
            fails: (*fails).into(),
        })
    }
}

impl core::fmt::Display for Row {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(
            f,
            "{}, {}: {} frames computed, {} needed, ratio {} ({})",
            self.configuration,
            self.configuration.promise,
            self.computed,
            self.needed,
            self.ratio,
            self.fails
        )
    }
}

fn table(rows: &[Row]) -> String {
    let mut table = String::from(
        "| machine | promise | computed | needed | ratio | with one slab less |\n\
         |---|---|---|---|---|---|\n",
    );
    for row in rows {
        let _ = writeln!(
            table,
            "| {} | {} | {} | {} | {} | {} |",
            row.configuration,
            row.configuration.promise,
            row.computed,
            row.needed,
            row.ratio,
            row.fails
        );
    }
    table
}

/// Puts the table where the file has the last one of the same frames.
fn replace(path: &Path, table: &str) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("{}: {error}", path.display());
    let text = fs::read_to_string(path).map_err(failed)?;
    let begin = format!("<!-- frames of {FRAME_SIZE} bytes -->\n");
    let place = text.split_once(&begin).and_then(|(before, rest)| {
        let (_, after) = rest.split_once("<!-- end -->")?;
        Some((before, after))
    });
    let (before, after) = place.ok_or_else(|| {
        let begin = begin.trim_end();
        format!(
            "{}: no place for the table: '{begin}' and '<!-- end -->'",
            path.display()
        )
    })?;
    fs::write(path, format!("{before}{begin}{table}<!-- end -->{after}")).map_err(failed)
}
