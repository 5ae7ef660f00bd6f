//! What the command line can do. `true` means that all is well.

mod ablate;
mod budgets;
mod many;

use std::fs;
use std::io::{BufWriter, Write};
use std::path::Path;

use simulator::{Configuration, Mechanism, Mode, Scenario, Setup, Trace, run, shrink};

use crate::args::{Command, HELP, Name};

pub(crate) fn carry_out(command: Command) -> Result<bool, String> {
    match command.name {
        Name::Help => {
            println!("{HELP}");
            Ok(true)
        }
        Name::Run => one_run(&command),
        Name::Shrink => shrink_one(&command),
        Name::Seeds => many::seeds(&command),
        Name::Soak => many::soak(&command),
        Name::Ablate => ablate::ablate(&command),
        Name::Replay => replay(&command),
        Name::Budgets => budgets::budgets(&command),
        Name::Explore => explore(&command),
        Name::Mechanisms => {
            for mechanism in Mechanism::all() {
                println!(
                    "{}  {:<24} {}",
                    mechanism.invariant(),
                    mechanism.name(),
                    mechanism.package()
                );
            }
            Ok(true)
        }
    }
}

/// The scenario that the command line names.
fn scenario(command: &Command) -> Result<Scenario, String> {
    let mut scenario = match (&command.file, command.seed) {
        (Some(file), None) => read(file)?,
        (None, Some(seed)) => match command.machine {
            Some(number) => {
                let machine = Configuration::ALL.get(number - 1);
                let machine = machine.ok_or(format!("no machine {number}"))?;
                machine.scenario(seed, command.missing)
            }
            None => Scenario::from_seed(seed, command.mode.unwrap_or(Mode::Within)),
        },
        _ => return Err("give --seed or --file".into()),
    };
    scenario.without = command.without.or(scenario.without);
    Ok(scenario)
}

fn read(file: &Path) -> Result<Scenario, String> {
    let text = fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
    text.parse()
        .map_err(|error| format!("{}: {error}", file.display()))
}

fn one_run(command: &Command) -> Result<bool, String> {
    let scenario = scenario(command)?;
    let mut trace = Trace::silent();
    if !command.quiet {
        print!("{scenario}");
        println!("# {:?}\n# {:?}", scenario.machine, scenario.program);
        trace = trace.with_text(Box::new(BufWriter::new(std::io::stdout())));
    }
    if let Some(path) = &command.pcap {
        let unwritable = |error| format!("{}: {error}", path.display());
        let file = fs::File::create(path).map_err(unwritable)?;
        trace = trace
            .with_capture(Box::new(BufWriter::new(file)))
            .map_err(unwritable)?;
    }
    let outcome = run(&scenario, trace);
    let mut out = std::io::stdout().lock();
    let said = writeln!(
        out,
        "trace {:016x}, {} events, {}.{:06} s\n{:?}",
        outcome.hash,
        outcome.events,
        outcome.took / 1_000_000,
        outcome.took % 1_000_000,
        outcome.counts
    );
    said.map_err(|error| error.to_string())?;
    match outcome.violation {
        None => {
            println!("every promise was kept");
            Ok(true)
        }
        Some(violation) => {
            println!("{violation}");
            Ok(false)
        }
    }
}

fn shrink_one(command: &Command) -> Result<bool, String> {
    let small = shrink(&scenario(command)?).ok_or("the run does not fail")?;
    print!("{small}");
    if let Some(violation) = run(&small, Trace::silent()).violation {
        println!("# {violation}");
    }
    Ok(true)
}

/// Explores a small system with the smallest reserve, which must suffice, and with one frame less,
/// which must not: with each of the faults alone, or with all three at once, which takes minutes.
fn explore(command: &Command) -> Result<bool, String> {
    // Losses, strangers, reboots.
    const ONE: &[[u8; 3]] = &[[1, 0, 0], [0, 1, 0], [0, 0, 1]];
    const TWO: &[[u8; 3]] = &[[1, 1, 0], [1, 0, 1], [0, 1, 1]];
    const ALL: &[[u8; 3]] = &[[1, 1, 1]];
    // Fewer buffers make more schedules; so do the states of a COMMIT.
    let (smallest, covering, unstable) = match command.words.as_slice() {
        [] => (ONE, TWO, false),
        [word] if word == "unstable" => (ONE, ONE, true),
        [word] if word == "full" => (TWO, ALL, false),
        _ => return Err("explore knows 'unstable', 'full' and no other word".into()),
    };
    let small = Setup {
        smallest: true,
        unstable,
        ..Setup::default()
    };
    let covered = Setup {
        rings: [4, 4],
        smallest: false,
        ..small.clone()
    };
    let with = |setup: &Setup, [losses, foreign, reboots]: [u8; 3]| Setup {
        losses,
        foreign,
        reboots,
        ..setup.clone()
    };
    let mut well = true;
    for (setup, faults) in [(&small, smallest), (&covered, covering)] {
        for faults in faults {
            well &= explored(&with(setup, *faults), command.limit);
        }
        well &= tightened(&with(setup, [0; 3]), command.limit);
    }
    Ok(well)
}

/// Takes frames away until something goes wrong, which must come.
fn tightened(setup: &Setup, limit: usize) -> bool {
    let reports = simulator::tighten(setup, limit);
    for report in &reports {
        println!("{report}\n");
    }
    reports
        .last()
        .is_some_and(|report| report.counterexample.is_some())
}

/// Whether the whole system was seen, and nothing goes wrong in it.
fn explored(setup: &Setup, limit: usize) -> bool {
    let begin = std::time::Instant::now();
    let report = simulator::explore(setup, limit);
    println!("{report}\n{:.1} s\n", begin.elapsed().as_secs_f64());
    report.counterexample.is_none() && report.exhausted
}

fn replay(command: &Command) -> Result<bool, String> {
    let [directory] = command.words.as_slice() else {
        return Err("name one directory".into());
    };
    let entries = fs::read_dir(directory).map_err(|error| format!("{directory}: {error}"))?;
    let mut files: Vec<_> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    files.retain(|path| {
        path.extension()
            .is_some_and(|extension| extension == "scenario")
    });
    files.sort();
    if files.is_empty() {
        return Err(format!("{directory}: no scenario (*.scenario) in it"));
    }
    let mut well = true;
    for file in &files {
        let violation = run(&read(file)?, Trace::silent()).violation;
        if let Some(violation) = violation {
            println!("{}: {violation}", file.display());
            well = false;
        }
    }
    println!("{} scenarios replayed", files.len());
    Ok(well)
}
