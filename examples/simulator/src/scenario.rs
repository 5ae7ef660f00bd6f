//! What is simulated: a machine, a program, and a script of everything that goes wrong.
//!
//! A seed determines all of it. The script alone can be replaced: by a shorter one when a failure is
//! being shrunk, by one from a file of the corpus, or by one that a fuzzer made up.

mod draw;
mod size;
mod text;

use mempool::FRAME_SIZE;
use netreserve::Medium;

use crate::Mechanism;

pub(crate) use size::Sizes;
pub use text::ParseError;

/// Microseconds since the machine was switched on.
pub type Micros = u64;

/// A second.
pub const SECOND: Micros = 1_000_000;

/// What may go wrong, and so what must hold all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Faults end, the wire is fair-lossy, the server comes back: every fault of the program must be
    /// answered, and nothing may be lost.
    Within,
    /// Faults need not end: nothing may be lost, wrong, leaked or held for ever.
    Beyond,
}

/// A run: everything that happens in it follows from this.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scenario {
    /// Every random decision comes from it.
    pub seed: u64,
    /// What must hold.
    pub mode: Mode,
    /// The machine.
    pub machine: Machine,
    /// What runs on it.
    pub program: Program,
    /// What goes wrong, and when; in any order.
    pub script: Vec<Fault>,
    /// A mechanism of the crates that is switched off.
    pub without: Option<Mechanism>,
}

/// The machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// What the cards' packets begin with: an Ethernet header, or that of IP, behind a modem.
    pub medium: Medium,
    /// Bytes of an IP packet: 1500, or 9000 with packets in a zone of their own.
    pub mtu: u16,
    /// Descriptors of the card, receiving and sending.
    pub rings: [usize; 2],
    /// Descriptors for which the reserve has buffers: no more than `rings`. With 0 the reserve is the
    /// smallest that suffices.
    pub guaranteed: [usize; 2],
    /// Frames by which the reserve is made smaller than computed.
    pub missing: usize,
    /// Frames above the reserve that ordinary callers cannot have.
    pub min: usize,
    /// Swap areas, each with its card, connection and pager.
    pub swappers: usize,
    /// Requests in flight at once, of each swapper.
    pub requests: usize,
    /// Packet buffers that the sockets of each protocol may hold together.
    pub socket_skbs: usize,
    /// Bytes of the connection's buffers.
    pub window: usize,
    /// Whether pages stay mapped while they are written, as an MMU allows.
    pub mmu: bool,
    /// Whether paging runs in a memalloc scope.
    pub scope: bool,
    /// Whether WRITE asks for less than stable, and COMMITs.
    pub unstable: bool,
    /// How long a request may take.
    pub deadline: Micros,
    /// Frames that a packet waits for at the card when there is no buffer.
    pub fifo: usize,
    /// What is in the place of the swap file when the machine comes up.
    pub file: File,
    /// Whether the area is activated twice, and once undone while in use.
    pub nested: bool,
}

/// What is in the place of the swap file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum File {
    /// Nothing: it is created.
    Missing,
    /// A file that can be used.
    Good,
    /// One that is too short. Must be refused.
    Short,
    /// One with holes. Must be refused.
    Holes,
}

/// What runs on the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// Tasks of each swapper.
    pub tasks: usize,
    /// Pages of each swapper.
    pub pages: usize,
    /// Things that each task does.
    pub operations: usize,
    /// Sockets of each protocol; they belong to the tasks in turn.
    pub sockets: usize,
    /// Times in a thousand that a task looks into its sockets between two accesses.
    pub reads_sockets: u16,
    /// Microseconds between two unrelated packets, as long as the program runs; 0 for none.
    pub background: Micros,
    /// Whether the script begins with the machine, and not with the program: swap is then activated
    /// under fire.
    pub early: bool,
}

/// Something that goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// When it begins, counted from the beginning of the script.
    pub at: Micros,
    /// How long it lasts; [`FOREVER`] if it does not end. Nothing to what happens in a moment.
    pub lasting: Micros,
    /// What it is.
    pub kind: FaultKind,
}

/// Longer than any run.
pub const FOREVER: Micros = u64::MAX / 4;

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    /// So many packets in a thousand are lost, each way.
    Loss(u16),
    /// So many come twice.
    Duplicate(u16),
    /// So many come with a bit turned over.
    Corrupt(u16),
    /// Each is late by up to so many microseconds, and may be overtaken.
    Jitter(u32),
    /// None gets through.
    Partition,
    /// None of the swapper of that number gets through: the others must not notice.
    Away(u8),
    /// Unrelated packets, so many microseconds apart.
    Flood(Traffic, u32),
    /// The server executes nothing.
    Stall,
    /// One call in four takes the server up to so many microseconds.
    Slow(u32),
    /// The server loses its power for as long as it lasts, and with it what was not stable.
    Reboot,
    /// READ and WRITE move less than was asked for.
    Short,
    /// WRITE promises less than was asked for.
    Unstable,
    /// Calls are refused.
    Refuse(Refusal),
    /// Every reply comes twice.
    Twice,
    /// In a moment: the next reply is nonsense.
    Garbage,
    /// The power of the server goes when it has answered the next WRITE.
    PowerCut,
    /// The server reads the next WRITEs, closes its connections, and carries the WRITEs out only when
    /// this has lasted: over another connection they have been sent again by then.
    Zombie,
    /// In a moment: the server closes its connections.
    HangUp,
    /// In a moment: the server comes back with another hardware address.
    Moved,
    /// In a moment: somebody cuts the swap file to one page.
    Truncated,
    /// In a moment: somebody removes the swap file.
    Removed,
    /// So many allocations in a thousand fail without need.
    AllocFails(u16),
    /// Other drivers' interrupts, each of which takes a frame for a while, about every so many
    /// allocations of the network.
    Interrupts(u16),
    /// So many requests in a thousand are refused by a layer above the swap file.
    Busy(u16),
    /// In a moment: the limit of the transmit reserve is raised by so many packets, if there is
    /// memory; and lowered again when it has lasted.
    Raise(u16),
}

/// Unrelated packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Traffic {
    /// UDP to bound sockets.
    Udp,
    /// TCP segments to bound sockets.
    Tcp,
    /// To ports that nobody bound; SYNs among them.
    Unbound,
    /// Fragments, some of them of the swap connection.
    Fragments,
    /// ARP of strangers who ask for us.
    Arp,
    /// Looks like the swap connection: its ports, or its very addresses with stale numbers.
    LookAlike,
    /// ICMP of all kinds.
    Icmp,
    /// Noise.
    Noise,
    /// All of the above.
    Mixed,
}

/// How the server refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// `NFS3ERR_JUKEBOX`: try again later.
    Jukebox,
    /// `NFS3ERR_IO`.
    Io,
    /// `NFS3ERR_NOSPC`.
    NoSpace,
    /// `NFS3ERR_ROFS`.
    ReadOnly,
    /// `NFS3ERR_STALE`.
    Stale,
    /// `NFS3ERR_SERVERFAULT`.
    ServerFault,
}

impl Scenario {
    /// When the last fault has ended that ends: of all, or of those that the swapper of that number
    /// notices at its card.
    pub(crate) fn quiet_after(&self, swapper: Option<usize>) -> Micros {
        let concerns = |kind| match (kind, swapper) {
            (FaultKind::Away(away), Some(swapper)) => usize::from(away) == swapper,
            _ => true,
        };
        let own = self.script.iter().filter(|fault| concerns(fault.kind));
        let ends = own.map(|fault| fault.at + fault.lasting);
        ends.filter(|end| *end < FOREVER).max().unwrap_or(0)
    }

    /// Whether the file that was created is to be removed in the end.
    pub(crate) const fn removes_file(&self) -> bool {
        self.seed.is_multiple_of(2)
    }

    /// The same run without a mechanism.
    #[must_use]
    pub fn without(mut self, mechanism: Mechanism) -> Self {
        self.without = Some(mechanism);
        self
    }
}

impl FaultKind {
    /// Whether it happens at once, so that how long it lasts does not matter.
    pub(crate) const fn is_momentary(self) -> bool {
        matches!(
            self,
            FaultKind::Garbage
                | FaultKind::HangUp
                | FaultKind::Moved
                | FaultKind::Truncated
                | FaultKind::Removed
        )
    }
}

impl Machine {
    /// Bytes of a packet buffer, and the order of the slabs that they are cut from.
    pub(crate) const fn skb(&self) -> (usize, u8) {
        match self.mtu {
            ..=1500 => (2016, 0),
            // Three to 32 KiB.
            _ => (10_880, (32_768 / FRAME_SIZE).ilog2() as u8),
        }
    }

    /// Whether packets have a zone of their own. Slabs of several frames need one: in a zone that
    /// other orders are taken from, free frames need not be neighbours.
    pub(crate) const fn packet_zone(&self) -> bool {
        self.skb().1 > 0
    }
}

#[cfg(test)]
mod tests;
