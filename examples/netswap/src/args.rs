//! The command line.
//!
//! Parsing knows no file and no server: it turns words into [`Args`], or into one line that says
//! what is wrong and what to write instead.

use core::error::Error;
use core::fmt;
use core::ops::RangeInclusive;
use core::time::Duration;
use std::ffi::OsString;
use std::path::PathBuf;

use lexopt::prelude::*;

/// Bytes in a frame; sizes are whole frames.
const FRAME: usize = 4096;

/// The most that a size can be: a demonstration has an end.
const MAX_SIZE: usize = 64 << 30;

const DEFAULT_RAM: usize = 16 << 20;
const DEFAULT_WORKING_SET: usize = 64 << 20;
const DEFAULT_FLOOD: u32 = 20_000;
const DEFAULT_SECONDS: u64 = 20;
const DEFAULT_THREADS: usize = 2;
const DEFAULT_SEED: u64 = 1;
const DEFAULT_DEADLINE: u64 = 10;

/// `--help`.
pub(crate) const HELP: &str = "\
netswap: a live program in a machine that is too small for it, swapped over NFS
while a flood of unrelated packets tries to starve the swap traffic of memory.

Usage: netswap [OPTIONS]

Where the pages go:
  --server URL         nfs://HOST[:PORT]/EXPORT/FILE[?mountport=N], a real NFSv3
                       server; without it, one inside this process is used

The machine and its program:
  --ram SIZE           memory of the machine                      [default: 16M]
  --working-set SIZE   memory that the program uses               [default: 64M]
  --threads N          threads of the program                       [default: 2]
  --seed N             what they write, and in which order          [default: 1]
  --explicit           page by calls instead of page faults; chosen by itself
                       where the system refuses userfaultfd

The ordeal:
  --flood PPS          unrelated packets per second, in bursts of a tenth of
                       a second's worth; 0 for none             [default: 20000]
  --seconds N          how long the program runs                   [default: 20]
  --deadline SECONDS   how long the server may take to answer, and a run to
                       make any progress at all                    [default: 10]
  --without MECHANISM  leave one part of the cure out, and watch it deadlock;
                       may be given more than once:
                         reserve         no frames are set aside
                         vmio-filter     reserve buffers go to any socket
                         slab-admission  reserve slabs serve any caller

What comes out:
  --json               one JSON object on standard output
  --report FILE.html   a page with the timeline drawn, for a browser
  -h, --help           this text
  -V, --version        the version

A SIZE is a number of bytes, or one with K, M or G (KiB, MiB, GiB: powers of
1024), in whole frames of 4096 bytes.

Exit status:
  0  every page came back as it was written, and every account is settled
  2  the run could not start or was cut short: bad option, server refused, ...
  3  a deadlock: nothing moves any more, and who waits for whom is told
  4  a page came back wrong, or a frame, slot or charge was lost
";

/// What the command line asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Command {
    /// Run the demonstration.
    Run(Args),
    /// Print [`HELP`].
    Help,
    /// Print the version.
    Version,
}

/// The settings of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Args {
    /// `nfs://…`; `None` for a server inside this process.
    pub(crate) server: Option<String>,
    /// Memory of the machine, in bytes; whole frames.
    pub(crate) ram: usize,
    /// Memory that the program uses, in bytes; whole frames.
    pub(crate) working_set: usize,
    /// Unrelated packets per second.
    pub(crate) flood: u32,
    /// How long the program runs.
    pub(crate) run_time: Duration,
    /// Threads of the program.
    pub(crate) threads: usize,
    /// What they write, and in which order.
    pub(crate) seed: u64,
    /// Print JSON.
    pub(crate) json: bool,
    /// Write an HTML page here.
    pub(crate) report: Option<PathBuf>,
    /// Mechanisms left out.
    pub(crate) without: Vec<Mechanism>,
    /// Page by calls, not by faults.
    pub(crate) explicit: bool,
    /// How long the run may make no progress.
    pub(crate) deadline: Duration,
}

impl Default for Args {
    fn default() -> Args {
        Args {
            server: None,
            ram: DEFAULT_RAM,
            working_set: DEFAULT_WORKING_SET,
            flood: DEFAULT_FLOOD,
            run_time: Duration::from_secs(DEFAULT_SECONDS),
            threads: DEFAULT_THREADS,
            seed: DEFAULT_SEED,
            json: false,
            report: None,
            without: Vec::new(),
            explicit: false,
            deadline: Duration::from_secs(DEFAULT_DEADLINE),
        }
    }
}

impl Args {
    /// Whether this part of the cure is in place.
    pub(crate) fn has(&self, mechanism: Mechanism) -> bool {
        !self.without.contains(&mechanism)
    }
}

/// A part of the cure that can be left out, to see what it is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mechanism {
    /// Frames which ordinary allocations never touch.
    Reserve,
    /// Emergency packets that do not serve the swap traffic are dropped at once.
    VmioFilter,
    /// Slab objects carved from reserve frames go only to entitled callers.
    SlabAdmission,
}

impl Mechanism {
    /// Every mechanism.
    pub(crate) const ALL: [Mechanism; 3] = [
        Mechanism::Reserve,
        Mechanism::VmioFilter,
        Mechanism::SlabAdmission,
    ];

    /// Its name on the command line.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Mechanism::Reserve => "reserve",
            Mechanism::VmioFilter => "vmio-filter",
            Mechanism::SlabAdmission => "slab-admission",
        }
    }
}

impl fmt::Display for Mechanism {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Parses the words after the program's name.
///
/// # Errors
///
/// The first word that makes no sense. The program then exits with status 2.
pub(crate) fn parse<W>(words: W) -> Result<Command, ArgsError>
where
    W: IntoIterator,
    W::Item: Into<OsString>,
{
    let mut args = Args::default();
    let mut parser = lexopt::Parser::from_args(words);
    while let Some(arg) = parser.next()? {
        match arg {
            Long("server") => args.server = Some(server(&mut parser)?),
            Long("ram") => args.ram = size(&mut parser, "--ram")?,
            Long("working-set") => args.working_set = size(&mut parser, "--working-set")?,
            Long("flood") => args.flood = number(&mut parser, "--flood", 0..=10_000_000)? as u32,
            Long("seconds") => args.run_time = seconds(&mut parser, "--seconds")?,
            Long("deadline") => args.deadline = seconds(&mut parser, "--deadline")?,
            Long("threads") => args.threads = number(&mut parser, "--threads", 1..=256)? as usize,
            Long("seed") => args.seed = number(&mut parser, "--seed", 0..=u64::MAX)?,
            Long("without") => args.without.push(mechanism(&mut parser)?),
            Long("report") => args.report = Some(parser.value()?.into()),
            Long("json") => args.json = true,
            Long("explicit") => args.explicit = true,
            Short('h') | Long("help") => return Ok(Command::Help),
            Short('V') | Long("version") => return Ok(Command::Version),
            other => return Err(other.unexpected().into()),
        }
    }
    let pages = args.working_set / FRAME;
    if pages < args.threads {
        return Err(ArgsError::TooManyThreads {
            threads: args.threads,
            pages,
        });
    }
    Ok(Command::Run(args))
}

/// What is wrong with the command line: one line, with the remedy.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub(crate) enum ArgsError {
    /// There is no such option.
    UnknownOption(String),
    /// A word that belongs to no option.
    StrayWord(String),
    /// An option without its value.
    MissingValue(String),
    /// A value for an option that takes none.
    UnwantedValue(String),
    /// Not text.
    NotUnicode(String),
    /// Not a size.
    BadSize {
        /// The option.
        option: &'static str,
        /// What was given.
        value: String,
    },
    /// A size that is not whole frames, or none at all.
    BrokenFrames {
        /// The option.
        option: &'static str,
        /// What was given.
        value: String,
    },
    /// More than [`MAX_SIZE`].
    TooLarge {
        /// The option.
        option: &'static str,
        /// What was given.
        value: String,
    },
    /// Not a number, or out of range.
    BadNumber {
        /// The option.
        option: &'static str,
        /// What was given.
        value: String,
        /// What is allowed.
        range: RangeInclusive<u64>,
    },
    /// Not the address of a file on an NFS server.
    BadServer(String),
    /// No such mechanism.
    BadMechanism(String),
    /// Threads which would have no page of their own.
    TooManyThreads {
        /// Threads asked for.
        threads: usize,
        /// Pages in the working set.
        pages: usize,
    },
}

impl fmt::Display for ArgsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ArgsError::UnknownOption(option) => {
                write!(
                    f,
                    "there is no option {option}; --help lists those that exist"
                )
            }
            ArgsError::StrayWord(word) => {
                write!(
                    f,
                    "{word:?} belongs to no option; every setting has its --name, see --help"
                )
            }
            ArgsError::MissingValue(option) => {
                write!(f, "{option} needs a value; --help shows which")
            }
            ArgsError::UnwantedValue(option) => {
                write!(f, "{option} takes no value; give it alone")
            }
            ArgsError::NotUnicode(word) => {
                write!(
                    f,
                    "{word:?} is not Unicode text; only --report takes such a value"
                )
            }
            ArgsError::BadSize { option, value } => {
                write!(
                    f,
                    "{option} {value:?} is not a size; write it like 16M, 64MiB or 16777216"
                )
            }
            ArgsError::BrokenFrames { option, value } => {
                write!(
                    f,
                    "{option} {value} is not in whole frames; give a multiple of 4K"
                )
            }
            ArgsError::TooLarge { option, value } => {
                let max = MAX_SIZE >> 30;
                write!(f, "{option} {value} is too large; give {max}G at most")
            }
            ArgsError::BadNumber {
                option,
                value,
                range,
            } => {
                write!(
                    f,
                    "{option} {value:?} is out of range; give a whole number "
                )?;
                match (*range.start(), *range.end()) {
                    (min, u64::MAX) => write!(f, "from {min} on, below 2^64"),
                    (min, max) => write!(f, "from {min} to {max}"),
                }
            }
            ArgsError::BadServer(value) => write!(
                f,
                "--server {value:?} is no NFS address; write nfs://HOST[:PORT]/EXPORT/FILE"
            ),
            ArgsError::BadMechanism(value) => {
                write!(f, "--without {value:?} names no mechanism; choose ")?;
                let [first, second, last] = Mechanism::ALL;
                write!(f, "{first}, {second} or {last}")
            }
            ArgsError::TooManyThreads { threads, pages } => write!(
                f,
                "--threads {threads} is more than the {pages} pages of the working set; \
                 give fewer threads or a larger --working-set"
            ),
        }
    }
}

impl Error for ArgsError {}

impl From<lexopt::Error> for ArgsError {
    fn from(error: lexopt::Error) -> ArgsError {
        match error {
            lexopt::Error::MissingValue { option } => {
                ArgsError::MissingValue(option.unwrap_or_default())
            }
            lexopt::Error::UnexpectedOption(option) => ArgsError::UnknownOption(option),
            lexopt::Error::UnexpectedArgument(word) => {
                ArgsError::StrayWord(word.to_string_lossy().into_owned())
            }
            lexopt::Error::UnexpectedValue { option, .. } => ArgsError::UnwantedValue(option),
            lexopt::Error::NonUnicodeValue(word) => {
                ArgsError::NotUnicode(word.to_string_lossy().into_owned())
            }
            // Made only by lexopt's own value parsing, which is not used here.
            other => ArgsError::StrayWord(other.to_string()),
        }
    }
}

fn server(parser: &mut lexopt::Parser) -> Result<String, ArgsError> {
    let value = parser.value()?.string()?;
    // No more than the form: the NFS client parses it in full, and names what it dislikes.
    let rest = value.strip_prefix("nfs://").unwrap_or_default();
    match rest.split_once('/') {
        Some((host, path)) if !host.is_empty() && !path.is_empty() => Ok(value),
        _ => Err(ArgsError::BadServer(value)),
    }
}

fn mechanism(parser: &mut lexopt::Parser) -> Result<Mechanism, ArgsError> {
    let value = parser.value()?.string()?;
    let found = Mechanism::ALL.into_iter().find(|m| m.name() == value);
    found.ok_or(ArgsError::BadMechanism(value))
}

fn seconds(parser: &mut lexopt::Parser, option: &'static str) -> Result<Duration, ArgsError> {
    number(parser, option, 1..=86_400).map(Duration::from_secs)
}

fn number(
    parser: &mut lexopt::Parser,
    option: &'static str,
    range: RangeInclusive<u64>,
) -> Result<u64, ArgsError> {
    let value = parser.value()?.string()?;
    match value.parse() {
        Ok(number) if range.contains(&number) => Ok(number),
        _ => Err(ArgsError::BadNumber {
            option,
            value,
            range,
        }),
    }
}

fn size(parser: &mut lexopt::Parser, option: &'static str) -> Result<usize, ArgsError> {
    let value = parser.value()?.string()?;
    match parse_size(&value) {
        None => Err(ArgsError::BadSize { option, value }),
        Some(bytes) if bytes > MAX_SIZE => Err(ArgsError::TooLarge { option, value }),
        Some(bytes) if bytes == 0 || bytes % FRAME != 0 => {
            Err(ArgsError::BrokenFrames { option, value })
        }
        Some(bytes) => Ok(bytes),
    }
}

/// `16777216`, `16M`, `16MiB`; letters of either case.
fn parse_size(text: &str) -> Option<usize> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let shift = match unit.to_ascii_lowercase().as_str() {
        "" => 0,
        "k" | "kib" => 10,
        "m" | "mib" => 20,
        "g" | "gib" => 30,
        _ => return None,
    };
    number.parse::<usize>().ok()?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(words: &[&str]) -> Args {
        match parse(words.iter().copied()) {
            Ok(Command::Run(args)) => args,
            other => panic!("{words:?} gave {other:?}"),
        }
    }

    fn refusal(words: &[&str]) -> String {
        match parse(words.iter().copied()) {
            Err(e) => e.to_string(),
            other => panic!("{words:?} gave {other:?}"),
        }
    }

    #[test]
    fn nothing_asked_for_means_the_defaults() {
        let args = run(&[]);
        assert_eq!(args, Args::default());
        assert_eq!((args.ram, args.working_set), (16 << 20, 64 << 20));
        assert!(Mechanism::ALL.into_iter().all(|m| args.has(m)));
    }

    #[test]
    fn every_option_is_heard() {
        let args = run(&[
            "--server",
            "nfs://localhost:20490/export/swap?mountport=20491",
            "--ram=8M",
            "--working-set=128MiB",
            "--flood=5000",
            "--seconds=3",
            "--threads=4",
            "--seed=9",
            "--json",
            "--report=out.html",
            "--without=reserve",
            "--without=vmio-filter",
            "--explicit",
            "--deadline=7",
        ]);
        let expected = Args {
            server: Some("nfs://localhost:20490/export/swap?mountport=20491".into()),
            ram: 8 << 20,
            working_set: 128 << 20,
            flood: 5000,
            run_time: Duration::from_secs(3),
            threads: 4,
            seed: 9,
            json: true,
            report: Some("out.html".into()),
            without: vec![Mechanism::Reserve, Mechanism::VmioFilter],
            explicit: true,
            deadline: Duration::from_secs(7),
        };
        assert_eq!(args, expected);
        assert!(args.has(Mechanism::SlabAdmission) && !args.has(Mechanism::Reserve));
    }

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for text in [
            "16777216", "16M", "16m", "16MiB", "16mib", "16384K", "16384KiB",
        ] {
            assert_eq!(parse_size(text), Some(16 << 20), "{text}");
        }
        assert_eq!(parse_size("2G"), Some(2 << 30));
        for text in [
            "",
            "M",
            "16MB",
            "1.5M",
            "-1",
            "16 M",
            "99999999999999999999",
            "17179869184G",
        ] {
            assert_eq!(parse_size(text), None, "{text}");
        }
    }

    #[test]
    fn every_refusal_is_one_line_with_problem_and_remedy() {
        for (words, problem, remedy) in [
            (&["--frobnicate"][..], "--frobnicate", "--help"),
            (&["-x"], "-x", "--help"),
            (&["swap.img"], "\"swap.img\"", "--help"),
            (&["--ram"], "--ram", "needs a value"),
            (&["--json=yes"], "--json", "give it alone"),
            (&["--ram", "much"], "--ram \"much\"", "like 16M"),
            (&["--ram", "0"], "--ram 0", "multiple of 4K"),
            (
                &["--working-set", "5000"],
                "--working-set 5000",
                "multiple of 4K",
            ),
            (&["--seconds", "0"], "--seconds \"0\"", "from 1 to 86400"),
            (
                &["--threads", "none"],
                "--threads \"none\"",
                "from 1 to 256",
            ),
            (&["--seed", "-1"], "--seed \"-1\"", "from 0 on"),
            (&["--flood", "1e3"], "--flood \"1e3\"", "from 0 to 10000000"),
            (&["--deadline", "soon"], "--deadline \"soon\"", "from 1 to"),
            (
                &["--server", "http://host/x"],
                "\"http://host/x\"",
                "nfs://HOST",
            ),
            (&["--server", "nfs://host"], "\"nfs://host\"", "nfs://HOST"),
            (
                &["--without", "luck"],
                "\"luck\"",
                "reserve, vmio-filter or slab-admission",
            ),
            (
                &["--working-set=4K", "--threads=2"],
                "--threads 2",
                "fewer threads",
            ),
        ] {
            let message = refusal(words);
            assert!(message.contains(problem), "{words:?}: {message}");
            assert!(message.contains(remedy), "{words:?}: {message}");
            assert!(!message.contains('\n'), "{words:?}: {message}");
        }
    }

    #[test]
    fn words_that_are_not_text_are_refused_and_not_a_panic() {
        use std::os::unix::ffi::OsStringExt;
        let bad = OsString::from_vec(b"\xFF\xFE".to_vec());
        for option in ["--server", "--ram", "--flood", "--without"] {
            let result = parse([option.into(), bad.clone()]);
            assert!(
                matches!(result, Err(ArgsError::NotUnicode(_))),
                "{option}: {result:?}"
            );
        }
        assert!(parse(["--report".into(), bad]).is_ok());
    }

    #[test]
    fn help_and_version_win() {
        assert_eq!(parse(["--seed=1", "--help"]), Ok(Command::Help));
        assert_eq!(parse(["-h"]), Ok(Command::Help));
        assert_eq!(parse(["-V"]), Ok(Command::Version));
    }

    #[test]
    fn help_names_every_option_mechanism_default_and_exit_status() {
        for option in [
            "--server",
            "--ram",
            "--working-set",
            "--threads",
            "--seed",
            "--explicit",
            "--flood",
            "--seconds",
            "--deadline",
            "--without",
            "--json",
            "--report",
            "--help",
            "--version",
        ] {
            assert!(HELP.contains(option), "{option}");
        }
        for mechanism in Mechanism::ALL {
            assert!(HELP.contains(mechanism.name()), "{mechanism}");
        }
        let default = |option: &str| {
            let after = HELP.split_once(&format!("{option} ")).expect("option").1;
            let value = after.split_once("[default:").expect("default").1;
            value.split_once(']').expect("bracket").0.trim().to_owned()
        };
        assert_eq!(parse_size(&default("--ram")), Some(DEFAULT_RAM));
        assert_eq!(
            parse_size(&default("--working-set")),
            Some(DEFAULT_WORKING_SET)
        );
        assert_eq!(default("--threads"), DEFAULT_THREADS.to_string());
        assert_eq!(default("--seed"), DEFAULT_SEED.to_string());
        assert_eq!(default("--flood"), DEFAULT_FLOOD.to_string());
        assert_eq!(default("--seconds"), DEFAULT_SECONDS.to_string());
        assert_eq!(default("--deadline"), DEFAULT_DEADLINE.to_string());
        for status in ["\n  0  ", "\n  2  ", "\n  3  ", "\n  4  "] {
            assert!(HELP.contains(status), "{status}");
        }
        assert!(
            HELP.lines().all(|line| line.len() <= 80),
            "a line is too long for a terminal"
        );
    }
}
