//! A live program swapped over NFS, under a flood of unrelated packets.
//!
//! ```text
//!  program ──fault──▶ pager ──▶ nfs-swap ──▶ smoltcp ──▶ Reserved ──▶ NIC
//!  (threads)          (swapspace)            (TCP)       (netreserve)  │
//!                                                              wire ───┤◀── flood
//!                                            server ◀──TCP── gateway ──┘
//! ```
//! Everything left of the wire is the machine: one thread, whose memory comes from one `Zone`, run by
//! the crates as a kernel would run them. Everything right of it is the outside world.
//!
//! - `args`, `report`: what goes in, what comes out;
//! - `memory`, `network`, `nic`, `page_table`, `machine`: the machine; `watchdog` says when it is
//!   stuck, and why, `interrupt` when somebody wants to end;
//! - `heap`: proof that the swap path takes nothing from the heap;
//! - `program`: the threads whose memory it is, `uffd` and `explicit` the two ways to get at it;
//! - `wire`, `gateway`, `flood`: the outside world, with an `nfs-server` or a real one at its end.

mod args;
mod explicit;
mod flood;
mod gateway;
mod heap;
mod interrupt;
mod live;
mod machine;
mod memory;
mod network;
mod nic;
mod output;
mod page_table;
mod pattern;
mod program;
mod report;
mod run;
mod store;
mod uffd;
mod via;
mod watchdog;
mod wire;

use core::fmt::Display;
use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::process::ExitCode;

use args::{Args, Command};
use output::{print, tell};
use report::{Outcome, Verdict};

fn main() -> ExitCode {
    match args::parse(std::env::args_os().skip(1)) {
        Ok(Command::Help) => printed(print(format_args!("{}", args::HELP)), ExitCode::SUCCESS),
        Ok(Command::Version) => {
            let version = env!("CARGO_PKG_VERSION");
            printed(
                print(format_args!("netswap {version}\n")),
                ExitCode::SUCCESS,
            )
        }
        Ok(Command::Run(args)) => execute(&args),
        Err(error) => {
            let json = std::env::args_os().any(|word| word == "--json");
            refuse_run(json, &error)
        }
    }
}

fn execute(args: &Args) -> ExitCode {
    // A report that cannot be written is known before the run, not after it; an older one stays as
    // it is until there is a new one.
    let mut is_new = false;
    if let Some(file) = &args.report {
        is_new = !file.exists();
        if let Err(error) = File::options().append(true).create(true).open(file) {
            return refuse_run(args.json, &cannot_write(file, &error));
        }
    }
    let mut outcome = match run::run(args) {
        Ok(outcome) => outcome,
        Err(error) => {
            if let Some(file) = args.report.as_ref().filter(|_| is_new) {
                // It is empty; that it stays would be no harm.
                let _ = fs::remove_file(file);
            }
            return refuse_run(args.json, &error);
        }
    };
    if let Some(file) = &args.report
        && let Err(error) = fs::write(file, report::page(&outcome))
    {
        outcome.cut_short(cannot_write(file, &error));
    }
    let status = ExitCode::from(outcome.verdict.exit_status());
    if outcome.verdict == Verdict::Error {
        let why = outcome.detail.as_deref();
        refuse(&why.unwrap_or("the run was cut short"));
    }
    printed(tell_outcome(&outcome, args.json), status)
}

fn tell_outcome(outcome: &Outcome, json: bool) -> io::Result<()> {
    let table = report::closing_table(outcome);
    if json {
        tell(format_args!("\n{}", table.trim_end()));
        print(format_args!("{}\n", report::object(outcome)))
    } else {
        print(format_args!("\n{table}"))
    }
}

fn cannot_write(file: &Path, error: &io::Error) -> String {
    let file = file.display();
    format!("--report {file}: {error}; name a file that can be written")
}

/// The status of a program whose output was printed, or not.
fn printed(result: io::Result<()>, status: ExitCode) -> ExitCode {
    match result {
        Ok(()) => status,
        Err(error) => refuse(&format_args!(
            "cannot write to standard output: {error}; lead it elsewhere"
        )),
    }
}

/// A run that did not start.
fn refuse_run(json: bool, error: &dyn Display) -> ExitCode {
    let status = refuse(error);
    match json {
        true => printed(print(format_args!("{}\n", report::refusal(error))), status),
        false => status,
    }
}

/// One line that names the problem and the remedy.
fn refuse(error: &dyn Display) -> ExitCode {
    tell(format_args!("netswap: {error}"));
    ExitCode::from(Verdict::Error.exit_status())
}
