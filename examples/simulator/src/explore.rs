//! All schedules of a small system: breadth first, over the real state machines.
//!
//! The simulator draws schedules; here, none is left out. The system is as small as it can be and
//! still be one: one page to write, one for which it must go, a card with rings of a few
//! descriptors, a server, a wire that keeps the order, and a reserve of a few frames. The crates are
//! the real ones, and so is the server.
//!
//! # What is explored
//!
//! It begins with swap active, the first page dirty, and a fault on the second. Somebody holds every
//! ordinary frame and takes each that comes free, and strangers' packets hold what ordinary packet
//! buffers there were, but for the one transmit buffer that the device has in hand: the card has
//! nothing to post but the reserve. A step is what one actor does:
//!
//! - the kernel moves everything as far as it goes; or does, and the card completes a descriptor in
//!   the middle of it, when the device has looked at the transmit ring and the driver has not;
//! - the wire takes the oldest packet out of the transmit ring;
//! - the oldest packet reaches the server, whose stack answers at once; or the card, which has lost
//!   it if no buffer is posted;
//! - the server executes the oldest call that it has read;
//! - a fault, as long as there are some: the oldest packet of either direction is lost, a
//!   stranger's packet reaches the card, the server reboots and forgets what is not stable;
//! - if nobody can move, the next timer goes off.
//!
//! A state is the choices that lead to it, executed from the beginning on a machine of its own. It
//! must be possible from *every* state, without further faults, to complete the page-out: that is
//! tried by the schedule in which everybody moves as soon as he can, until 300 virtual seconds have
//! passed, or a state is reached from which it was tried. At each goal it is tried further: what the
//! server would keep in a power failure is the page; it comes back as it was; everything can be put
//! away; all memory comes back and nothing stays charged. And no invariant may be broken on the way.
//!
//! # What is reduced
//!
//! - Time passes only when nobody can move: no timer goes off early, unless [`Setup::early`] allows
//!   it. Faults of a machine so slow that it times out while packets wait for it are not seen.
//! - Packets are neither reordered nor duplicated by the wire, the server is never slow, one page is
//!   written, and reading it back is not explored but done once for each goal.
//! - One kernel step is atomic, but for the descriptor that completes in the middle.
//! - With [`Setup::reduce`], while a packet is on its way to the server only what concerns the
//!   server is followed: that the packet arrives or is lost, a call, a reboot. The rest commutes
//!   with all of that. The machine reads what the server sends from the one end of a queue, the
//!   server writes to the other; what the machine sends queues behind the packet; and nobody but
//!   the server takes from it. So every schedule has an equivalent one in which the server goes
//!   first, and ends in the same state. Only the step count of a counterexample suffers, so that
//!   one is looked for again without.
//!
//! # When two states are one
//!
//! States are told apart by a number of 64 bits: a hash of what can be seen of them, absolute times
//! included.
//!
//! - In full: the wire, packet by packet; the card's rings with their emergency tags; which buffers
//!   share a slab and which slab is next, because that decides when a frame comes back; the zone;
//!   the charges; the swap file with its client, as its `Debug` says; the pager's counters and the
//!   slots; the calls that the server has read.
//! - By what determines it: the server's disk, by the sequence of everything that it executed.
//! - By its traces: the two TCP endpoints. Ports, sequence numbers, windows, acknowledgements, what
//!   came out of order, retransmissions, round trips and deadlines are seen, the estimators of
//!   round-trip times are not. Two buffers that share a slab in two different ways look the same if
//!   neither is in a ring.
//!
//! So two states could be taken for one that are not. Therefore, when the search is over, up to a
//! thousand of the merges are looked at again: every step from the merged state, and the whole way
//! to the goal, must lead where they led before. The report says how many did not. Those seen were
//! retransmission timers that differed; they end in a goal as well.

mod build;
mod card;
mod choice;
mod digest;
mod endpoint;
mod replay;
mod search;
mod system;
#[cfg(test)]
mod tests;

use core::fmt;

use self::search::Search;
use crate::Mechanism;
use crate::scenario::{Micros, SECOND};

/// What is explored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setup {
    /// Descriptors of the card, receiving and sending.
    pub rings: [usize; 2],
    /// Whether the reserve is the smallest that the crates promise to suffice
    /// ([`netreserve::min_budget`]), and not the one that covers the rings.
    pub smallest: bool,
    /// Frames by which the reserve is smaller than computed.
    pub missing: usize,
    /// Packets of the swap connection that may be lost.
    pub losses: u8,
    /// Packets of strangers that may arrive.
    pub foreign: u8,
    /// Times that the server may reboot.
    pub reboots: u8,
    /// Times that a timer may go off although somebody could move.
    pub early: u8,
    /// Whether WRITE is UNSTABLE, and a COMMIT follows.
    pub unstable: bool,
    /// Whether a broken invariant counts by itself. If not, only what comes of it does: a page-out
    /// that does not complete, a page that is not what it was.
    pub invariants: bool,
    /// Whether orders that make no difference are left out. A counterexample may then be longer
    /// than it had to be.
    pub reduce: bool,
    /// A mechanism that is switched off.
    pub without: Option<Mechanism>,
}

impl Default for Setup {
    /// The reserve that covers the rings, and one fault of each kind.
    fn default() -> Self {
        Setup {
            rings: [2, 2],
            smallest: false,
            missing: 0,
            losses: 1,
            foreign: 1,
            reboots: 1,
            early: 0,
            unstable: true,
            invariants: true,
            reduce: true,
            without: None,
        }
    }
}

impl Setup {
    /// Frames of the reserve as the crates compute it.
    #[must_use]
    pub const fn computed(&self) -> usize {
        build::budget(self.smallest, self.rings).frames()
    }
}

/// Explores everything that can happen, up to about `limit` states.
///
/// A counterexample has as few steps as there can be, unless the limit is in the way.
#[must_use]
pub fn explore(setup: &Setup, limit: usize) -> Report {
    let report = Search::new(setup).run(limit);
    if report.counterexample.is_none() || !setup.reduce {
        return report;
    }
    let setup = Setup {
        reduce: false,
        ..setup.clone()
    };
    let shortest = Search::new(&setup).run(limit);
    if shortest.counterexample.is_some() {
        shortest
    } else {
        report
    }
}

/// Explores with a smaller and smaller reserve, until it is too small: the last report is the first
/// with a counterexample, or the one without a reserve.
#[must_use]
pub fn tighten(setup: &Setup, limit: usize) -> Vec<Report> {
    let mut reports = Vec::new();
    for missing in setup.missing..=setup.computed() {
        let setup = Setup {
            missing,
            ..setup.clone()
        };
        reports.push(explore(&setup, limit));
        if reports
            .last()
            .is_some_and(|report| report.counterexample.is_some())
        {
            break;
        }
    }
    reports
}

/// What an exploration saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// What was explored.
    pub setup: Setup,
    /// States, the goals among them.
    pub states: usize,
    /// States in which the page-out has completed.
    pub goals: usize,
    /// Steps from one state to another.
    pub transitions: usize,
    /// Steps of the longest of the shortest ways to a state.
    pub depth: usize,
    /// Whether every state was seen.
    pub exhausted: bool,
    /// Times that two ways to one state were compared in what comes after it.
    pub audited: usize,
    /// Times that they differed: then the state is not seen in full, and something may be missed.
    pub disagree: usize,
    /// What went wrong, after the fewest steps.
    pub counterexample: Option<Counterexample>,
}

impl Report {
    fn new(setup: &Setup) -> Self {
        Report {
            setup: setup.clone(),
            states: 0,
            goals: 0,
            transitions: 0,
            depth: 0,
            exhausted: false,
            audited: 0,
            disagree: 0,
            counterexample: None,
        }
    }
}

/// A schedule that goes wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counterexample {
    /// What must happen for that; no fewer steps do.
    pub steps: Vec<String>,
    /// What follows when everybody moves as soon as he can and nothing else goes wrong.
    pub continuation: Vec<String>,
    /// How it ends.
    pub what: String,
}

impl fmt::Display for Setup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let computed = self.computed();
        write!(
            f,
            "rings of {} and {}, a reserve of {} of {computed} frames, {} lost, {} foreign, {} \
             reboots, {} early timers, {}",
            self.rings[0],
            self.rings[1],
            computed.saturating_sub(self.missing),
            self.losses,
            self.foreign,
            self.reboots,
            self.early,
            if self.unstable {
                "UNSTABLE and COMMIT"
            } else {
                "FILE_SYNC"
            },
        )?;
        match self.without {
            Some(mechanism) => write!(f, ", without {mechanism}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.setup)?;
        write!(
            f,
            "{} states, {} of them goals, {} transitions, depth {}: ",
            self.states, self.goals, self.transitions, self.depth
        )?;
        match &self.counterexample {
            Some(counterexample) => write!(f, "{counterexample}")?,
            None if self.exhausted => write!(f, "no deadlock, no violation")?,
            None => write!(
                f,
                "nothing found, and not exhaustive: the limit was reached"
            )?,
        }
        if self.audited > 0 {
            let Report {
                audited, disagree, ..
            } = self;
            write!(
                f,
                "\n{audited} merged states compared, {disagree} of them differ"
            )?;
        }
        Ok(())
    }
}

impl fmt::Display for Counterexample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "it goes wrong after {} steps", self.steps.len())?;
        for (number, step) in self.steps.iter().enumerate() {
            writeln!(f, "{:4}. {step}", number + 1)?;
        }
        if !self.continuation.is_empty() {
            writeln!(f, "and then, without further faults:")?;
        }
        for step in &self.continuation {
            writeln!(f, "      {step}")?;
        }
        write!(f, "{}", self.what)
    }
}

/// A time, for people.
fn seconds(micros: Micros) -> String {
    format!("{}.{:06} s", micros / SECOND, micros % SECOND)
}
