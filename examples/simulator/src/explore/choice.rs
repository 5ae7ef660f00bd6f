//! What can happen next.

/// One step of one actor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum Choice {
    /// The oldest packet reaches the server, whose stack answers at once.
    ToServer,
    /// The server executes the oldest call, and answers.
    Execute,
    /// The wire carries away the oldest packet of the transmit ring.
    Sent,
    /// The oldest packet reaches the machine's card.
    ToMachine,
    /// The kernel moves everything as far as it goes.
    Kernel,
    /// The kernel runs, and the wire carries a packet away in the middle of it.
    Meanwhile,
    /// Everybody waits: the next timer goes off.
    Time,
    /// The next timer goes off though somebody could move.
    Early,
    /// The oldest packet to the server is lost.
    LoseToServer,
    /// The oldest packet to the machine is lost.
    LoseToMachine,
    /// A stranger's packet reaches the card.
    Foreign,
    /// The server loses its power, and what was not stable; it is back at once.
    Reboot,
}

impl Choice {
    /// Whether it concerns the server, or the oldest packet on its way there.
    pub(super) const fn is_of_server(self) -> bool {
        matches!(
            self,
            Choice::ToServer | Choice::Execute | Choice::LoseToServer | Choice::Reboot
        )
    }

    pub(super) const fn is_fault(self) -> bool {
        matches!(
            self,
            Choice::Early
                | Choice::LoseToServer
                | Choice::LoseToMachine
                | Choice::Foreign
                | Choice::Reboot
        )
    }
}
