//! A host of its own, whose parts hold packets: sockets that send, serve the VM for a while and have a
//! backlog. Its day is one function, on memory of its own, so that what it draws changes no other
//! actor's run. Every rule is judged by books that are kept here.

mod site;
mod sockets;

use netreserve::Mechanism as Part;

use crate::Mechanism;
use crate::rng::Rng;
use crate::verdict::Findings;

/// Streams of the seed.
const SOCKETS: u64 = 30;

/// What is shown to be needed here; everything else is shown elsewhere, and stays on.
const SHOWN: [Part; 5] = [
    Part::SendLimits,
    Part::VmioRoom,
    Part::VmioSettle,
    Part::BacklogScope,
    Part::BacklogBound,
];

/// Lets the day of a seed pass.
pub(crate) fn run(seed: u64, without: Option<Mechanism>, findings: &Findings) {
    let off = match without {
        Some(Mechanism::Netreserve(part)) if SHOWN.contains(&part) => Some(part),
        _ => None,
    };
    sockets::run(&mut Rng::new(seed, SOCKETS), off, findings);
}
