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

use std::fs;
use std::process::ExitCode;

use args::{Args, Command};
use report::Verdict;

fn main() -> ExitCode {
    match args::parse(std::env::args_os().skip(1)) {
        Ok(Command::Help) => print!("{}", args::HELP),
        Ok(Command::Version) => println!("netswap {}", env!("CARGO_PKG_VERSION")),
        Ok(Command::Run(args)) => return execute(&args),
        Err(error) => {
            let json = std::env::args_os().any(|word| word == "--json");
            return refuse_run(json, &error);
        }
    }
    ExitCode::SUCCESS
}

fn execute(args: &Args) -> ExitCode {
    // A report that cannot be written is known before the run, not after it.
    if let Some(file) = &args.report
        && let Err(error) = fs::write(file, "")
    {
        let file = file.display();
        let problem = format!("--report {file}: {error}; name a file that can be written");
        return refuse_run(args.json, &problem);
    }
    let outcome = match run::run(args) {
        Ok(outcome) => outcome,
        Err(error) => return refuse_run(args.json, &error),
    };
    if outcome.verdict == Verdict::Error {
        refuse(&outcome.detail.as_deref().unwrap_or("the run was cut short"));
    }
    let table = report::closing_table(&outcome);
    if args.json {
        eprint!("\n{table}");
        println!("{}", report::object(&outcome));
    } else {
        print!("\n{table}");
    }
    if let Some(file) = &args.report
        && let Err(error) = fs::write(file, report::page(&outcome))
    {
        return refuse(&format_args!("--report {}: {error}", file.display()));
    }
    ExitCode::from(outcome.verdict.exit_status())
}

/// A run that did not start.
fn refuse_run(json: bool, error: &dyn core::fmt::Display) -> ExitCode {
    if json {
        println!("{}", report::refusal(error));
    }
    refuse(error)
}

/// One line that names the problem and the remedy.
fn refuse(error: &dyn core::fmt::Display) -> ExitCode {
    eprintln!("netswap: {error}");
    ExitCode::from(Verdict::Error.exit_status())
}
