//! Hosts of their own, whose parts hold packets or make room for others: sockets that send, serve the VM
//! for a while and have a backlog; reassembly, with limits that change; neighbours; fragments, a lease and a tap at
//! the drop ladder. A day of each is one
//! function, on memory of its own, so that what it draws changes no other actor's run. Every rule is
//! judged by books that are kept here.

mod fragments;
mod ladder;
mod neighbours;
mod site;
mod sockets;
mod tap;

use netreserve::Mechanism as Part;

use crate::Mechanism;
use crate::rng::Rng;
use crate::verdict::Findings;

/// Streams of the seed.
const SOCKETS: u64 = 45;
const FRAGMENTS: u64 = 41;
const NEIGHBOURS: u64 = 42;
const LADDER: u64 = 43;

/// What is shown to be needed here; everything else is shown elsewhere, and stays on.
const SHOWN: [Part; 12] = [
    Part::SendLimits,
    Part::VmioRoom,
    Part::VmioSettle,
    Part::BacklogScope,
    Part::BacklogBound,
    Part::ReassemblyBudget,
    Part::ReassemblyVmio,
    Part::GrowFirst,
    Part::PinnedNeighbours,
    Part::Fragments,
    Part::Dhcp,
    Part::TapRefusal,
];

/// Lets the days of a seed pass.
pub(crate) fn run(seed: u64, without: Option<Mechanism>, findings: &Findings) {
    let off = match without {
        Some(Mechanism::Netreserve(part)) if SHOWN.contains(&part) => Some(part),
        _ => None,
    };
    sockets::run(&mut Rng::new(seed, SOCKETS), off, findings);
    fragments::run(&mut Rng::new(seed, FRAGMENTS), off, findings);
    neighbours::run(&mut Rng::new(seed, NEIGHBOURS), off, findings);
    ladder::run(&mut Rng::new(seed, LADDER), off, findings);
}
