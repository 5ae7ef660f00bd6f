//! What the command line says.

use core::str::FromStr;
use std::path::PathBuf;

use lexopt::{Arg, Parser, ValueExt};
use simulator::{Mechanism, Mode};

pub(crate) const HELP: &str = "\
Runs the crates against a hostile network, in virtual time: one seed determines a run.

simulator run    --seed S [--mode within|beyond] [--without M] [--quiet] [--pcap FILE]
                 --file SCENARIO instead of a seed
                 --machine N [--missing FRAMES] with the seed: a machine of the budgets, from 1 on
                   one run, step by step; status 1 if a promise was broken
simulator shrink --seed S | --file SCENARIO [--mode ...] [--without M]
                   the smallest script that breaks the same promise, as text for a file
simulator seeds  [--mode within|beyond|both] [--from S] [--count N] [--jobs N] [--without M]
                   many runs; a line for each that fails
simulator ablate [MECHANISM...] [--seeds N] [--jobs N] [--table FILE]
                   leaves out each mechanism, and must find a run that goes wrong
simulator replay DIRECTORY
                   the scenarios of a corpus: every one must hold
simulator budgets [--seeds N] [--jobs N] [--table FILE]
                   how much of the computed reserve is needed
simulator explore [unstable | full] [--limit STATES]
                   every interleaving of a small system: with the smallest reserve and one fault (a
                   loss, a stranger's packet, a reboot), with the one that covers the rings and two;
                   then with frames taken away until a page-out does not complete. 'unstable': a COMMIT
                   follows each WRITE; 'full': two faults and three; minutes
simulator soak   --minutes N [--from S] [--jobs N]
                   runs until the time is over
simulator mechanisms
                   what can be left out

Modes: within the fault budget everything must also go on; beyond it nothing may be lost.";

/// What to do.
#[derive(Debug)]
pub(crate) struct Command {
    pub(crate) name: Name,
    pub(crate) seed: Option<u64>,
    pub(crate) file: Option<PathBuf>,
    /// `None` for both.
    pub(crate) mode: Option<Mode>,
    pub(crate) without: Option<Mechanism>,
    /// A machine of the budgets, counted from 1, and what its reserve lacks.
    pub(crate) machine: Option<usize>,
    pub(crate) missing: usize,
    pub(crate) quiet: bool,
    pub(crate) pcap: Option<PathBuf>,
    pub(crate) from: u64,
    pub(crate) count: u64,
    /// Every how many-th seed.
    pub(crate) step: u64,
    pub(crate) jobs: Option<u64>,
    pub(crate) seeds: Option<u64>,
    pub(crate) table: Option<PathBuf>,
    pub(crate) limit: usize,
    pub(crate) minutes: Option<f64>,
    pub(crate) words: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Name {
    Help,
    Run,
    Shrink,
    Seeds,
    Ablate,
    Replay,
    Budgets,
    Explore,
    Soak,
    Mechanisms,
}

impl FromStr for Name {
    type Err = String;

    fn from_str(name: &str) -> Result<Name, String> {
        Ok(match name {
            "help" => Name::Help,
            "run" => Name::Run,
            "shrink" => Name::Shrink,
            "seeds" => Name::Seeds,
            "ablate" => Name::Ablate,
            "replay" => Name::Replay,
            "budgets" => Name::Budgets,
            "explore" => Name::Explore,
            "soak" => Name::Soak,
            "mechanisms" => Name::Mechanisms,
            other => return Err(format!("no command '{other}'; see simulator --help")),
        })
    }
}

impl Command {
    pub(crate) fn parse() -> Result<Command, lexopt::Error> {
        let mut command = Command {
            name: Name::Help,
            seed: None,
            file: None,
            mode: None,
            without: None,
            machine: None,
            missing: 0,
            quiet: false,
            pcap: None,
            from: 0,
            count: 10_000,
            step: 1,
            jobs: None,
            seeds: None,
            table: None,
            limit: 2_000_000,
            minutes: None,
            words: Vec::new(),
        };
        let mut named = false;
        let mut parser = Parser::from_env();
        while let Some(arg) = parser.next()? {
            match arg {
                Arg::Short('h') | Arg::Long("help") => {
                    command.name = Name::Help;
                    return Ok(command);
                }
                Arg::Long("seed") => command.seed = Some(parser.value()?.parse()?),
                Arg::Long("file") => command.file = Some(parser.value()?.into()),
                Arg::Long("mode") => {
                    let mode = parser.value()?.string()?;
                    command.mode = match mode.as_str() {
                        "both" => None,
                        mode => Some(mode.parse().map_err(|error| format!("{error}"))?),
                    };
                }
                Arg::Long("without") => {
                    command.without = Some(parser.value()?.string()?.parse()?);
                }
                Arg::Long("machine") => {
                    command.machine = Some(at_least_one(parser.value()?.parse()?, "machine")?);
                }
                Arg::Long("missing") => command.missing = parser.value()?.parse()?,
                Arg::Long("quiet") => command.quiet = true,
                Arg::Long("pcap") => command.pcap = Some(parser.value()?.into()),
                Arg::Long("from") => command.from = parser.value()?.parse()?,
                Arg::Long("count") => command.count = parser.value()?.parse()?,
                Arg::Long("step") => command.step = at_least_one(parser.value()?.parse()?, "step")?,
                Arg::Long("jobs") => {
                    command.jobs = Some(at_least_one(parser.value()?.parse()?, "jobs")?);
                }
                Arg::Long("seeds") => command.seeds = Some(parser.value()?.parse()?),
                Arg::Long("table") => command.table = Some(parser.value()?.into()),
                Arg::Long("limit") => command.limit = parser.value()?.parse()?,
                Arg::Long("minutes") => {
                    let minutes: f64 = parser.value()?.parse()?;
                    if !(minutes > 0.0 && minutes < 1e6) {
                        return Err("--minutes is a number above 0".into());
                    }
                    command.minutes = Some(minutes);
                }
                Arg::Value(word) if !named => {
                    command.name = word.string()?.parse()?;
                    named = true;
                }
                Arg::Value(word) => command.words.push(word.string()?),
                other => return Err(other.unexpected()),
            }
        }
        Ok(command)
    }

    /// Workers to use: one for each core, unless it is said.
    pub(crate) fn workers(&self) -> u64 {
        let cores = std::thread::available_parallelism();
        let cores = cores.map_or(1, |cores| cores.get() as u64);
        self.jobs.unwrap_or(cores)
    }
}

fn at_least_one<N: Default + PartialEq>(number: N, name: &str) -> Result<N, lexopt::Error> {
    if number == N::default() {
        return Err(format!("--{name} is 1 at least").into());
    }
    Ok(number)
}
