//! A flood of mixed packets against a machine at its low watermark, beside a swap connection that must
//! not notice.
//!
//! All memory that ordinary callers can have is taken, so that most of what arrives lands in the
//! reserve: packets for programs that are asleep, for nobody, for others, in pieces, cut short, damaged, and
//! plain noise. Meanwhile pages are written to a server and read from it, over smoltcp and
//! [`netreserve::Reserved`]; each byte is compared. In the end nothing may be lost, charged or held.

mod args;
mod card;
mod machine;
mod peer;
mod report;
mod rng;
mod run;
mod traffic;

use std::process::ExitCode;
use std::time::Instant;

fn main() -> ExitCode {
    let args = match args::parse() {
        Ok(Some(args)) => args,
        Ok(None) => {
            println!("{}", args::USAGE);
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("flood: {error}");
            return ExitCode::from(2);
        }
    };
    let begin = Instant::now();
    let outcome = run::run(&args);
    report::print(&outcome, begin.elapsed());
    ExitCode::from(u8::from(!outcome.broken.is_empty()))
}
