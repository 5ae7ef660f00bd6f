//! A deterministic simulator of machines that swap over a network.
#![forbid(unsafe_code)]

mod ablate;
mod ablation;
mod budgets;
mod clock;
mod cpus;
mod disk;
mod explore;
mod flood;
mod guard;
mod holders;
mod kernel;
mod memory;
mod mmu;
mod nic;
mod packet;
mod rng;
mod run;
mod scenario;
mod server;
mod shrink;
mod stack;
mod trace;
mod verdict;
mod weather;
mod workers;
mod world;

pub use ablate::{Found, search};
pub use ablation::Mechanism;
pub use budgets::{Configuration, Tightness};
pub use explore::{Counterexample, Report, Setup, explore, tighten};
pub use run::{quiet_panics, run};
pub use scenario::{
    FOREVER, Fault, FaultKind, File, Machine, Micros, Mode, ParseError, Program, Refusal, SECOND,
    Scenario, Traffic,
};
pub use shrink::shrink;
pub use trace::Trace;
pub use verdict::{Counts, Outcome, Violation};
pub use workers::{Summary, Total, run_workers};
