//! The command line.

use lexopt::prelude::*;

pub(crate) const USAGE: &str = "\
usage: flood [--packets N] [--seed S] [--without MECHANISM]...

Sends N packets of a flood (10,000,000 unless said otherwise) to a machine at its low watermark, beside
a swap connection. Ends with status 0 if every promise held, 1 if one broke, 2 if the command line is bad.
The seed determines the run.";

/// What was asked for.
#[derive(Debug)]
pub(crate) struct Args {
    pub(crate) packets: u64,
    pub(crate) seed: u64,
    /// Names of mechanisms that are left out.
    pub(crate) without: Vec<String>,
}

/// `None` if only help was asked for.
pub(crate) fn parse() -> Result<Option<Args>, lexopt::Error> {
    let mut args = Args {
        packets: 10_000_000,
        seed: 1,
        without: Vec::new(),
    };
    let mut parser = lexopt::Parser::from_env();
    while let Some(arg) = parser.next()? {
        match arg {
            Long("packets") => args.packets = parser.value()?.parse()?,
            Long("seed") => args.seed = parser.value()?.parse()?,
            Long("without") => {
                let name = parser.value()?.string()?;
                if !mechanisms().any(|mechanism| mechanism == name) {
                    let known: Vec<_> = mechanisms().collect();
                    let known = known.join(", ");
                    return Err(format!("no mechanism '{name}'; there are {known}").into());
                }
                args.without.push(name);
            }
            Short('h') | Long("help") => return Ok(None),
            other => return Err(other.unexpected()),
        }
    }
    Ok(Some(args))
}

fn mechanisms() -> impl Iterator<Item = &'static str> {
    let memory = mempool::Mechanism::ALL.into_iter().map(|m| m.name());
    memory.chain(netreserve::Mechanism::ALL.into_iter().map(|m| m.name()))
}
