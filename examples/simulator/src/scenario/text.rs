//! Scenarios as text: what `simulator shrink` prints and the corpus keeps.
//!
//! ```text
//! seed 17 within
//! without vmio-filter
//! operations 40
//! script
//! at 120 for 4000 flood udp 10
//! at 300 forever partition
//! at 400 garbage
//! ```
//! Without the line `script` the script is that of the seed. `#` begins a comment.

use core::fmt;
use core::str::{FromStr, SplitWhitespace};

use super::{FOREVER, Fault, FaultKind, Mode, Refusal, Scenario, Traffic};
const TRAFFIC: [(Traffic, &str); 9] = [
    (Traffic::Udp, "udp"),
    (Traffic::Tcp, "tcp"),
    (Traffic::Unbound, "unbound"),
    (Traffic::Fragments, "fragments"),
    (Traffic::Arp, "arp"),
    (Traffic::LookAlike, "look-alike"),
    (Traffic::Icmp, "icmp"),
    (Traffic::Noise, "noise"),
    (Traffic::Mixed, "mixed"),
];

const REFUSALS: [(Refusal, &str); 6] = [
    (Refusal::Jukebox, "jukebox"),
    (Refusal::Io, "io"),
    (Refusal::NoSpace, "no-space"),
    (Refusal::ReadOnly, "read-only"),
    (Refusal::Stale, "stale"),
    (Refusal::ServerFault, "server-fault"),
];

fn name_of<T: PartialEq>(table: &[(T, &'static str)], value: &T) -> &'static str {
    let entry = table.iter().find(|(known, _)| known == value);
    entry.expect("every value has a name").1
}

fn named<T: Copy>(table: &[(T, &'static str)], name: &str) -> Option<T> {
    let entry = table.iter().find(|(_, known)| *known == name);
    entry.map(|(value, _)| *value)
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Mode::Within => "within",
            Mode::Beyond => "beyond",
        })
    }
}

impl FromStr for Mode {
    type Err = ParseError;

    fn from_str(s: &str) -> Result<Mode, ParseError> {
        match s {
            "within" => Ok(Mode::Within),
            "beyond" => Ok(Mode::Beyond),
            _ => Err(ParseError(format!("no mode '{s}': within or beyond"))),
        }
    }
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FaultKind::Loss(n) => write!(f, "loss {n}"),
            FaultKind::Duplicate(n) => write!(f, "duplicate {n}"),
            FaultKind::Corrupt(n) => write!(f, "corrupt {n}"),
            FaultKind::Jitter(n) => write!(f, "jitter {n}"),
            FaultKind::Partition => write!(f, "partition"),
            FaultKind::Away(n) => write!(f, "away {n}"),
            FaultKind::Flood(traffic, gap) => {
                write!(f, "flood {} {gap}", name_of(&TRAFFIC, traffic))
            }
            FaultKind::Stall => write!(f, "stall"),
            FaultKind::Slow(n) => write!(f, "slow {n}"),
            FaultKind::Reboot => write!(f, "reboot"),
            FaultKind::PowerCut => write!(f, "power-cut"),
            FaultKind::Zombie => write!(f, "zombie"),
            FaultKind::Short => write!(f, "short"),
            FaultKind::Unstable => write!(f, "unstable"),
            FaultKind::Refuse(refusal) => write!(f, "refuse {}", name_of(&REFUSALS, refusal)),
            FaultKind::Twice => write!(f, "twice"),
            FaultKind::Garbage => write!(f, "garbage"),
            FaultKind::HangUp => write!(f, "hang-up"),
            FaultKind::Moved => write!(f, "moved"),
            FaultKind::Truncated => write!(f, "truncated"),
            FaultKind::Removed => write!(f, "removed"),
            FaultKind::AllocFails(n) => write!(f, "alloc-fails {n}"),
            FaultKind::Interrupts(n) => write!(f, "interrupts {n}"),
            FaultKind::Busy(n) => write!(f, "busy {n}"),
            FaultKind::Raise(n) => write!(f, "raise {n}"),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at {} ", self.at)?;
        match self.lasting {
            _ if self.kind.is_momentary() => {}
            FOREVER.. => write!(f, "forever ")?,
            lasting => write!(f, "for {lasting} ")?,
        }
        self.kind.fmt(f)
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {} {}", self.seed, self.mode)?;
        if let Some(mechanism) = self.without {
            writeln!(f, "without {mechanism}")?;
        }
        writeln!(f, "operations {}", self.program.operations)?;
        if self.machine.missing > 0 {
            writeln!(f, "missing {}", self.machine.missing)?;
        }
        writeln!(f, "script")?;
        self.script
            .iter()
            .try_for_each(|fault| writeln!(f, "{fault}"))
    }
}

/// What is wrong with the text of a scenario.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseError(String);

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl core::error::Error for ParseError {}

impl FromStr for Scenario {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Scenario, ParseError> {
        let mut scenario = None;
        let mut explicit = false;
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.split('#').next().unwrap_or_default().trim();
            if line.is_empty() {
                continue;
            }
            let wrong = |ParseError(why)| ParseError(format!("line {number}, '{line}': {why}"));
            let mut words = Words(line.split_whitespace());
            take_line(&mut scenario, &mut explicit, &mut words).map_err(wrong)?;
            words.end().map_err(wrong)?;
        }
        let mut scenario =
            scenario.ok_or_else(|| ParseError("no line 'seed NUMBER MODE'".into()))?;
        if explicit {
            scenario.script.sort_by_key(|fault| fault.at);
        }
        Ok(scenario)
    }
}

fn take_line(
    scenario: &mut Option<Scenario>,
    explicit: &mut bool,
    words: &mut Words<'_>,
) -> Result<(), ParseError> {
    let first = words.next()?;
    if first == "seed" {
        let seed = words.number()?;
        *scenario = Some(Scenario::from_seed(seed, words.next()?.parse()?));
        return Ok(());
    }
    let scenario = scenario
        .as_mut()
        .ok_or_else(|| ParseError("the first line is 'seed NUMBER MODE'".into()))?;
    match first {
        "without" => scenario.without = Some(words.next()?.parse().map_err(ParseError)?),
        "operations" => scenario.program.operations = words.number()?,
        "missing" => scenario.machine.missing = words.number()?,
        "script" => {
            scenario.script.clear();
            *explicit = true;
        }
        "at" if *explicit => {
            let fault = words.fault()?;
            scenario.script.push(fault);
        }
        other => return Err(ParseError(format!("'{other}' means nothing here"))),
    }
    Ok(())
}

struct Words<'a>(SplitWhitespace<'a>);

impl<'a> Words<'a> {
    fn next(&mut self) -> Result<&'a str, ParseError> {
        let next = self.0.next();
        next.ok_or_else(|| ParseError("something is missing at the end".into()))
    }

    fn number<N: FromStr>(&mut self) -> Result<N, ParseError> {
        let word = self.next()?;
        let number = word.parse();
        number.map_err(|_| ParseError(format!("'{word}' is not a number that fits here")))
    }

    fn end(&mut self) -> Result<(), ParseError> {
        match self.0.next() {
            None => Ok(()),
            Some(word) => Err(ParseError(format!("'{word}' is too much"))),
        }
    }

    /// What comes behind `at`.
    fn fault(&mut self) -> Result<Fault, ParseError> {
        let at = self.number()?;
        let mut word = self.next()?;
        let lasting = match word {
            "for" => {
                let lasting = self.number()?;
                word = self.next()?;
                lasting
            }
            "forever" => {
                word = self.next()?;
                FOREVER
            }
            _ => 0,
        };
        let kind = self.kind(word)?;
        Ok(Fault { at, lasting, kind })
    }

    fn kind(&mut self, name: &str) -> Result<FaultKind, ParseError> {
        Ok(match name {
            "loss" => FaultKind::Loss(self.number()?),
            "duplicate" => FaultKind::Duplicate(self.number()?),
            "corrupt" => FaultKind::Corrupt(self.number()?),
            "jitter" => FaultKind::Jitter(self.number()?),
            "partition" => FaultKind::Partition,
            "away" => FaultKind::Away(self.number()?),
            "flood" => {
                let traffic = self.one_of(&TRAFFIC)?;
                FaultKind::Flood(traffic, self.number()?)
            }
            "stall" => FaultKind::Stall,
            "slow" => FaultKind::Slow(self.number()?),
            "reboot" => FaultKind::Reboot,
            "power-cut" => FaultKind::PowerCut,
            "zombie" => FaultKind::Zombie,
            "short" => FaultKind::Short,
            "unstable" => FaultKind::Unstable,
            "refuse" => FaultKind::Refuse(self.one_of(&REFUSALS)?),
            "twice" => FaultKind::Twice,
            "garbage" => FaultKind::Garbage,
            "hang-up" => FaultKind::HangUp,
            "moved" => FaultKind::Moved,
            "truncated" => FaultKind::Truncated,
            "removed" => FaultKind::Removed,
            "alloc-fails" => FaultKind::AllocFails(self.number()?),
            "interrupts" => FaultKind::Interrupts(self.number()?),
            "busy" => FaultKind::Busy(self.number()?),
            "raise" => FaultKind::Raise(self.number()?),
            other => return Err(ParseError(format!("no fault '{other}'"))),
        })
    }

    fn one_of<T: Copy>(&mut self, table: &[(T, &'static str)]) -> Result<T, ParseError> {
        let word = self.next()?;
        named(table, word).ok_or_else(|| {
            let names: Vec<_> = table.iter().map(|(_, name)| *name).collect();
            ParseError(format!("no '{word}': {}", names.join(", ")))
        })
    }
}
