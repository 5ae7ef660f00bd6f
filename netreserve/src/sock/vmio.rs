//! Sockets that serve the VM, for as long as they do.

use core::fmt;

use super::state::List;
use super::{SocketId, SocketTable};
use crate::{Flow, FlowError};

/// What a socket that serves the VM may hold beyond its limits, in skbs: emergency ones or not.
///
/// Each is one more that the reserve may have to hold: they go into the budget beside the rings, see
/// [`RxHolders`](crate::RxHolders) and [`TxHolders`](crate::TxHolders).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct VmioRoom {
    /// Received, in its queue and backlog. So many entries are set aside for it.
    pub rx: usize,
    /// Sent, and not freed by the card yet: beyond its `sndbuf`, or for want of ordinary memory within
    /// it. What a socket sends out of the reserve is always in here.
    pub tx: usize,
}

/// What became of what lay in a socket's room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Settled {
    /// Skbs that are ordinary ones of the socket now, within its limits.
    pub kept: usize,
    /// Skbs that were freed: emergency ones, and those for which there was no room.
    pub dropped: usize,
}

impl SocketTable<'_> {
    /// Makes a bound socket that is connected by `flow` serve the VM (`SOCK_MEMALLOC`), from its next
    /// packet on: the flow is tagged in the [table of flows](SocketTable::with_flows), and its
    /// packets come here instead of to the swap stack. Whole packets: those in fragments go on to the
    /// swap stack.
    ///
    /// While it is set the socket's limits do not hold these packets up, nor does its protocol's, nor
    /// do the queues of others (N7). They may be emergency skbs. `room` bounds them instead, and must
    /// be in the budget (N4).
    ///
    /// **Whose sockets.** Emergency skbs lie in the queue until the owner takes them out. He must be
    /// able to run though no memory is ever freed: a kernel thread whose stack and code are never
    /// swapped out, which allocates nothing on the way that is not in a budget (N2). A socket of a
    /// user's task must never serve the VM.
    ///
    /// # Errors
    ///
    /// [`VmioError`]; nothing has changed.
    pub fn set_vmio(&self, id: SocketId, flow: Flow, room: VmioRoom) -> Result<(), VmioError> {
        let flows = self.flows.ok_or(VmioError::NoFlows)?;
        let mut state = self.state.lock();
        // The socket first: no packet of the flow must miss it. And the tag under the lock: whoever
        // closes the socket or clears VMIO meanwhile finds both or neither.
        state.set_vmio(id, flow, room)?;
        if let Err(error) = flows.add(flow) {
            // Nothing has come into the room.
            let _ = state.clear_vmio(id);
            return Err(VmioError::Flow(error));
        }
        // Beyond what they were refused there is a room now.
        let waiting = state.forget_wanted(id);
        drop(state);
        self.tell(id, waiting);
        Ok(())
    }

    /// The socket serves the VM no longer (N7). The tag goes first, then what the socket holds in its
    /// room is settled: ordinary skbs for which its limits have room become ordinary skbs of the
    /// socket; emergency skbs, and those for which there is none, are freed and counted as
    /// [dropped](super::SocketStats::dropped). Afterwards the socket holds what it would hold had
    /// it never served the VM. Skbs that it sent are the card's, and count for it until they are free.
    ///
    /// `None` if it did not serve the VM. O(queued); no skb is freed under the lock.
    pub fn clear_vmio(&self, id: SocketId) -> Option<Settled> {
        let mut state = self.state.lock();
        let flow = state.flow(id)?;
        if let Some(flows) = self.flows {
            let _ = flows.remove(flow);
        }
        let settled = state.clear_vmio(id);
        drop(state);
        Some(self.settle(id, settled?))
    }

    /// Frees what may not stay, and tells those who wait.
    fn settle(&self, id: SocketId, (mut doomed, kept): (List, usize)) -> Settled {
        let mut dropped = 0;
        loop {
            let skb = self.state.lock().drop_doomed(&mut doomed);
            if skb.is_none() {
                break;
            }
            drop(skb);
            dropped += 1;
        }
        let mut state = self.state.lock();
        state.count_dropped(dropped);
        let waiting = state.forget_wanted(id);
        drop(state);
        // Whoever waits for a place in the room would wait for ever.
        self.tell(id, waiting);
        Settled { kept, dropped }
    }
}

/// Why a socket does not serve the VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum VmioError {
    /// It is closed.
    NoSocket,
    /// The flow has another port or protocol.
    OtherPort,
    /// It serves the VM already.
    Present,
    /// So many entries are not free.
    NoEntries,
    /// The table of sockets was given no table of flows.
    NoFlows,
    /// The flow cannot be tagged.
    Flow(FlowError),
}

impl fmt::Display for VmioError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            VmioError::NoSocket => f.write_str("the socket is closed"),
            VmioError::OtherPort => f.write_str("the flow is not one of the socket's port"),
            VmioError::Present => f.write_str("the socket serves the VM already"),
            VmioError::NoEntries => f.write_str("too few queue entries are free"),
            VmioError::NoFlows => f.write_str("the sockets have no table of flows"),
            VmioError::Flow(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for VmioError {}
