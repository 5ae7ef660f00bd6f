//! Sockets: receive queues, and how much memory each may hold, either way.
//!
//! The owner of an ordinary socket may be asleep because its memory is swapped out. What lies in its
//! queue then stays there, so that a queue is a long-lived holder: an emergency skb never enters one
//! (N2). The owner of a VMIO socket runs without any memory being freed: see `vmio`.

mod backlog;
mod send;
mod state;
mod vmio;

use core::fmt;

use lock_api::Mutex;
use mempool::CriticalSection;

pub use self::backlog::{MemallocContext, OwnedSocket, Processed};
pub(crate) use self::send::Wmem;
pub use self::send::{SendError, SendWaiters};
use self::state::{Port, State};
pub use self::state::{QueueEntry, Socket};
pub use self::vmio::{Settled, VmioError, VmioRoom};
#[cfg(feature = "ablation")]
use crate::ablation::Mechanism;
use crate::probe::Slot;
use crate::{DropReason, Flow, FlowTable, Protocol, Skb};

/// The sockets of a system, by protocol and local port.
///
/// All queues share one storage of entries and are bounded three times: each socket by its `rcvbuf`,
/// each protocol by its [memory limit](ProtocolMemory), all together by the entries. Sizes are
/// [truesizes](Skb::truesize), in bytes. A clone counts as much as its original: each queue is bounded
/// as if nobody shared with it, and all of them together never hold more memory than is counted.
///
/// What a socket [sends](SocketTable::alloc_send) is bounded by its `sndbuf`, until the card has freed
/// it. A socket that serves the VM is bounded by the [room](SocketTable::set_vmio) that it was given
/// instead. While somebody [owns](SocketTable::lock_sock) a socket, what comes in goes to its backlog.
///
/// Shared by reference: one thread delivers, the owners receive. Every operation takes O(1) while a
/// quarter of the socket slots is empty, except where stated.
///
/// ```
/// use netreserve::{BindError, ProtocolMemory, Protocol, QueueEntry, Slot, SocketTable};
///
/// let sockets = vec![Slot::EMPTY; 16].leak(); // statics, in a kernel
/// let entries: Vec<_> = (0..64).map(|_| QueueEntry::EMPTY).collect();
/// let table = SocketTable::new(sockets, entries.leak(), ProtocolMemory::each(256 << 10));
///
/// let dns = table.bind(Protocol::Udp, 53, 64 << 10)?;
/// assert_eq!(table.bind(Protocol::Udp, 53, 1), Err(BindError::InUse));
/// assert!(table.recv(dns).is_none());
/// assert_eq!(table.close(dns), Some(0));
/// # Ok::<(), BindError>(())
/// ```
pub struct SocketTable<'m> {
    state: Mutex<CriticalSection, State<'m>>,
    flows: Option<&'m FlowTable<'m>>,
    waiters: Option<&'m dyn SendWaiters>,
}

/// Names a bound socket. It names nothing any more once the socket is closed, even when the port
/// is bound again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct SocketId {
    port: Port,
    serial: u32,
}

/// Bytes that all sockets of a protocol may hold together (`udp_mem`, `tcp_mem`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct ProtocolMemory {
    /// For UDP.
    pub udp: usize,
    /// For TCP.
    pub tcp: usize,
}

impl ProtocolMemory {
    /// `bytes` for each protocol.
    #[must_use]
    pub const fn each(bytes: usize) -> Self {
        ProtocolMemory {
            udp: bytes,
            tcp: bytes,
        }
    }

    pub(crate) fn of(&mut self, protocol: Protocol) -> &mut usize {
        match protocol {
            Protocol::Udp => &mut self.udp,
            Protocol::Tcp => &mut self.tcp,
        }
    }
}

/// What one socket holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct SocketInfo {
    /// Its protocol.
    pub protocol: Protocol,
    /// Its port.
    pub port: u16,
    /// Skbs in its queue.
    pub queued: usize,
    /// Skbs in its backlog: somebody owns it.
    pub backlog: usize,
    /// Of both, emergency skbs; none, unless it serves the VM or the filter was switched off.
    pub emergency: usize,
    /// Bytes that all of them hold, but for those in the room of VMIO.
    pub rmem: usize,
    /// Bytes that they may hold.
    pub rcvbuf: usize,
    /// Skbs of both in the room of VMIO.
    pub vmio_queued: usize,
    /// Bytes that it sent and the card has not freed, but for those in the room of VMIO.
    pub wmem: usize,
    /// Bytes that it may have sent so.
    pub sndbuf: usize,
    /// Skbs that it sent in the room of VMIO and the card has not freed.
    pub vmio_sent: usize,
    /// What it was given, if it serves the VM.
    pub vmio: Option<VmioRoom>,
}

/// What all sockets hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct SocketStats {
    /// Sockets bound.
    pub sockets: usize,
    /// Sockets with something in their queue or backlog.
    pub waiting: usize,
    /// Skbs in all queues.
    pub queued: usize,
    /// Skbs in all backlogs.
    pub backlog: usize,
    /// Of both, emergency skbs of sockets that do not serve the VM; none, unless the filter was
    /// switched off.
    pub emergency: usize,
    /// Skbs in the room of VMIO sockets.
    pub vmio_queued: usize,
    /// Bytes in all queues and backlogs, but for those in the room of VMIO.
    pub rmem: usize,
    /// The most of these bytes at once.
    pub peak: usize,
    /// Bytes sent and not yet freed by the card, of closed sockets as well.
    pub wmem: usize,
    /// Skbs freed because there was no room for them when a backlog was processed or VMIO cleared.
    pub dropped: u64,
    /// The socket with the most bytes in queue and backlog.
    pub fullest: Option<SocketInfo>,
}

impl<'m> SocketTable<'m> {
    /// A table without sockets: at most `sockets.len()` of them, with `entries.len()` skbs queued
    /// in all (no more than 2^32 - 1 are used). O(entries).
    #[must_use]
    pub fn new(
        sockets: &'m mut [Slot<Socket>],
        entries: &'m mut [QueueEntry<'m>],
        limit: ProtocolMemory,
    ) -> Self {
        SocketTable {
            state: Mutex::new(State::new(sockets, entries, limit)),
            flows: None,
            waiters: None,
        }
    }

    /// The flows that sockets can be [tagged](SocketTable::set_vmio) in.
    #[must_use]
    pub fn with_flows(mut self, flows: &'m FlowTable<'m>) -> Self {
        self.flows = Some(flows);
        self
    }

    /// Whom to tell when a socket has room to send again.
    #[must_use]
    pub fn with_waiters(mut self, waiters: &'m dyn SendWaiters) -> Self {
        self.waiters = Some(waiters);
        self
    }

    /// Binds a port to a new socket whose queue may hold `rcvbuf` bytes. It may have sent as many:
    /// see [`set_sndbuf`](SocketTable::set_sndbuf).
    ///
    /// # Errors
    ///
    /// [`BindError::InUse`], [`BindError::Full`], or [`BindError::BadPort`] for port 0.
    pub fn bind(
        &self,
        protocol: Protocol,
        port: u16,
        rcvbuf: usize,
    ) -> Result<SocketId, BindError> {
        if port == 0 {
            return Err(BindError::BadPort);
        }
        let key = Port {
            protocol,
            number: port,
        };
        self.state.lock().bind(key, rcvbuf)
    }

    /// Queues an ordinary skb at the socket bound to `port`, or puts it into the backlog while
    /// somebody owns the socket. A socket that serves the VM is connected, and for nobody's but its
    /// own flow.
    ///
    /// # Errors
    ///
    /// The skb comes back, with the reason: [`DropReason::NoSocket`], [`DropReason::RcvbufFull`],
    /// [`DropReason::ProtocolMemoryFull`], [`DropReason::QueueFull`], [`DropReason::BacklogFull`]; an
    /// emergency skb is always refused, with [`DropReason::EmergencyUdp`] or
    /// [`DropReason::EmergencyTcp`].
    pub fn deliver(
        &self,
        protocol: Protocol,
        port: u16,
        skb: Skb<'m>,
    ) -> Result<SocketId, (DropReason, Skb<'m>)> {
        if skb.is_emergency() {
            return Err((DropReason::emergency(protocol), skb));
        }
        self.enqueue(protocol, port, skb)
    }

    /// Queues an skb wherever its memory came from.
    pub(crate) fn enqueue(
        &self,
        protocol: Protocol,
        port: u16,
        mut skb: Skb<'m>,
    ) -> Result<SocketId, (DropReason, Skb<'m>)> {
        let port = Port {
            protocol,
            number: port,
        };
        // Whoever sent it has sent it.
        skb.orphan();
        self.state.lock().receive(port, skb)
    }

    /// Queues a packet of a VMIO flow at the socket that is tagged with it, if there is one.
    ///
    /// # Errors
    ///
    /// The skb comes back: without a reason if no socket has the flow.
    pub(crate) fn deliver_vmio(
        &self,
        flow: Flow,
        mut skb: Skb<'m>,
    ) -> Result<SocketId, (Option<DropReason>, Skb<'m>)> {
        skb.orphan();
        self.state.lock().receive_vmio(flow, skb)
    }

    /// Whether any socket serves the VM. O(1).
    pub(crate) fn any_vmio(&self) -> bool {
        self.state.lock().any_vmio()
    }

    /// Whether a socket is bound to `port`.
    pub(crate) fn is_bound(&self, protocol: Protocol, port: u16) -> bool {
        let port = Port {
            protocol,
            number: port,
        };
        self.state.lock().is_bound(port)
    }

    /// Whether the sockets of `protocol` may hold `size` bytes more.
    pub(crate) fn has_room(&self, protocol: Protocol, size: usize) -> bool {
        self.state.lock().has_room(protocol, size)
    }

    /// Switches a mechanism of this table off, for good. A mechanism of another object changes
    /// nothing.
    #[cfg(feature = "ablation")]
    pub fn ablate(&self, mechanism: Mechanism) {
        self.state.lock().ablate(mechanism);
    }

    /// Takes the oldest skb out of a socket's queue: the whole frame, as it was received. Its
    /// memory is the caller's from now on.
    pub fn recv(&self, id: SocketId) -> Option<Skb<'m>> {
        self.state.lock().dequeue(id)
    }

    /// Closes a socket, whoever owns it, and frees what is in its queue and backlog; returns how many
    /// skbs that were, or `None` if the socket was closed already. O(queued), with the lock released
    /// between skbs. If it served the VM, it does not from here on.
    ///
    /// What it sent stays with the card, whose ring bounds it.
    pub fn close(&self, id: SocketId) -> Option<usize> {
        // Nothing more comes in from here on, and nobody makes it serve the VM again.
        self.state.lock().shut(id)?;
        let settled = self.clear_vmio(id).map_or(0, |settled| settled.dropped);
        let mut freed = 0;
        loop {
            let mut state = self.state.lock();
            let Some(skb) = state.dequeue(id).or_else(|| state.take_backlog(id)) else {
                state.unbind(id)?;
                return Some(settled + freed);
            };
            drop(state);
            drop(skb);
            freed += 1;
        }
    }

    /// Bytes in a socket's queue and backlog, but for those in the room of VMIO, or `None` if it is
    /// closed.
    #[must_use]
    pub fn rmem(&self, id: SocketId) -> Option<usize> {
        self.info(id).map(|info| info.rmem)
    }

    /// What a socket holds, or `None` if it is closed.
    #[must_use]
    pub fn info(&self, id: SocketId) -> Option<SocketInfo> {
        self.state.lock().info(id)
    }

    /// Bytes in all queues and backlogs, but for those in the room of VMIO.
    #[must_use]
    pub fn total_rmem(&self) -> usize {
        self.state.lock().total_rmem()
    }

    /// Skbs in all queues. O(sockets).
    #[must_use]
    pub fn queued(&self) -> usize {
        self.stats().queued
    }

    /// A snapshot of what all sockets hold. O(sockets).
    #[must_use]
    pub fn stats(&self) -> SocketStats {
        self.state.lock().stats()
    }
}

impl fmt::Debug for SocketTable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SocketTable")
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

/// Why a port was not bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum BindError {
    /// Another socket has the port.
    InUse,
    /// Every socket slot is taken.
    Full,
    /// Port 0.
    BadPort,
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BindError::InUse => "the port is in use",
            BindError::Full => "every socket is in use",
            BindError::BadPort => "port 0 cannot be bound",
        })
    }
}

impl core::error::Error for BindError {}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
