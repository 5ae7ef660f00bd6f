//! `embassy-net` over a reserve, with no ordinary memory and a flood; then the same without the filter.
//!
//! `cargo run -p embassy-exchange`

use std::process::ExitCode;

use embassy_exchange::{Options, exchange};

fn main() -> ExitCode {
    let with = exchange(&Options::default());
    println!("with the VMIO filter:    {with}");
    let without = exchange(&Options {
        vmio_filter: false,
        ..Options::default()
    });
    println!("without the VMIO filter: {without}");
    if with.is_complete() && !without.is_complete() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
