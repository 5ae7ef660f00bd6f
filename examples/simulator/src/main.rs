//! The simulator's command line.

mod args;
mod commands;

use std::process::ExitCode;

use args::Command;

fn main() -> ExitCode {
    simulator::quiet_panics();
    let done = match Command::parse() {
        Ok(command) => commands::carry_out(command),
        Err(why) => Err(why.to_string()),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(why) => {
            eprintln!("simulator: {why}");
            ExitCode::from(2)
        }
    }
}
