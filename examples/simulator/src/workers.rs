//! Many runs, on every core.
//!
//! Each worker is a process: the crates' locks are critical sections, of which a host process has only
//! one, so that threads would wait for each other. It talks to its parent in lines of text.

use core::fmt;
use core::str::FromStr;
use std::io::{self, BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use crate::verdict::Counts;

/// What several runs came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Total {
    /// Runs.
    pub runs: u64,
    /// Runs in which a promise was broken.
    pub failures: u64,
    /// Virtual time of all runs, in microseconds.
    pub simulated: u64,
    /// Events of all runs.
    pub events: u64,
    /// What happened in them.
    pub counts: Counts,
}

impl Total {
    /// Adds what other runs came to.
    pub fn add(&mut self, other: &Total) {
        self.runs += other.runs;
        self.failures += other.failures;
        self.simulated += other.simulated;
        self.events += other.events;
        self.counts.add(&other.counts);
    }

    fn fields(&mut self) -> [&mut u64; 14] {
        let Total {
            runs,
            failures,
            simulated,
            events,
            counts,
        } = self;
        let Counts {
            verified,
            pages_in,
            pages_out,
            failed,
            unrelated,
            emergency,
            dropped,
            reserve_peak,
            reserve,
            reconnects,
        } = counts;
        [
            runs,
            failures,
            simulated,
            events,
            verified,
            pages_in,
            pages_out,
            failed,
            unrelated,
            emergency,
            dropped,
            reserve_peak,
            reserve,
            reconnects,
        ]
    }
}

/// How workers report: the numbers in a line. People read [`Summary`].
impl fmt::Display for Total {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut total = *self;
        let numbers = total.fields().map(|field| field.to_string());
        write!(f, "{PREFIX}{}", numbers.join(" "))
    }
}

const PREFIX: &str = "total ";

impl FromStr for Total {
    type Err = ();

    fn from_str(line: &str) -> Result<Total, ()> {
        let mut total = Total::default();
        let mut numbers = line.strip_prefix(PREFIX).ok_or(())?.split(' ');
        for field in total.fields() {
            *field = numbers.next().and_then(|n| n.parse().ok()).ok_or(())?;
        }
        Ok(total)
    }
}

/// A [`Total`] in words.
#[derive(Debug, Clone, Copy)]
pub struct Summary<'a>(pub &'a Total);

impl fmt::Display for Summary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Total {
            runs,
            failures,
            simulated,
            events,
            counts,
        } = self.0;
        write!(
            f,
            "{runs} runs, {failures} failures: {} s simulated, {events} events; {} pages verified, \
             {} written, {} read, {} page faults failed; {} unrelated packets, {} emergency packets \
             received, {} packets dropped, {} connections",
            simulated / 1_000_000,
            counts.verified,
            counts.pages_out,
            counts.pages_in,
            counts.failed,
            counts.unrelated,
            counts.emergency,
            counts.dropped,
            counts.reconnects,
        )
    }
}

/// Runs this program once for each list of arguments, at the same time, and hands every line that is
/// not a total to `line`. A worker that dies is an error.
///
/// # Errors
///
/// A worker cannot be started, or died.
pub fn run_workers(arguments: Vec<Vec<String>>, mut line: impl FnMut(&str)) -> io::Result<Total> {
    let program = std::env::current_exe()?;
    let start = |arguments: &Vec<String>| {
        let mut command = Command::new(&program);
        command
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        command.spawn()
    };
    let workers: Vec<Child> = arguments.iter().map(start).collect::<io::Result<_>>()?;
    let mut total = Total::default();
    for mut worker in workers {
        let output = worker.stdout.take().expect("it is piped");
        for text in BufReader::new(output).lines() {
            let text = text?;
            match text.parse() {
                Ok(part) => total.add(&part),
                Err(()) => line(&text),
            }
        }
        let status = worker.wait()?;
        if !matches!(status.code(), Some(0 | 1)) {
            return Err(io::Error::other(format!("a worker died: {status}")));
        }
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::Total;

    #[test]
    fn a_total_is_the_same_after_a_round_through_text() {
        let mut total = Total::default();
        for (number, field) in (1..).zip(total.fields()) {
            *field = number;
        }
        assert_eq!(total.to_string().parse(), Ok(total));
        assert_eq!("seed 4 within: total loss".parse::<Total>(), Err(()));
    }
}
