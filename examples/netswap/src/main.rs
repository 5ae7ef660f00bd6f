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
//! - `memory`, `nic`, `page_table`, `machine`: the machine; `watchdog` says when it is stuck, and why;
//! - `heap`: proof that the swap path takes nothing from the heap;
//! - `program`: the threads whose memory it is, `uffd` and `explicit` the two ways to get at it;
//! - `wire`, `gateway`, `flood`: the outside world, with an `nfs-server` or a real one at its end.

mod args;
mod explicit;
mod flood;
mod gateway;
mod heap;
mod live;
mod machine;
mod memory;
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
        Err(error) => return refuse(&error),
    }
    ExitCode::SUCCESS
}

fn execute(args: &Args) -> ExitCode {
    // A report that cannot be written is known before the run, not after it.
    if let Some(file) = &args.report
        && let Err(error) = fs::write(file, "")
    {
        return refuse(&format_args!(
            "--report {}: {error}; name a file that can be written",
            file.display()
        ));
    }
    let outcome = match run::run(args) {
        Ok(outcome) => outcome,
        Err(error) => {
            let status = refuse(&error);
            if args.json {
                println!("{}", report::refusal(&error));
            }
            return status;
        }
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

/// One line that names the problem and the remedy.
fn refuse(error: &dyn core::fmt::Display) -> ExitCode {
    eprintln!("netswap: {error}");
    ExitCode::from(Verdict::Error.exit_status())
}
