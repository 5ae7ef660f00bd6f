//! Ordinary sockets: receive queues, and how much memory each may hold.
//!
//! The owner of a socket may be asleep because its memory is swapped out. What lies in its queue
//! then stays there, so that a queue is a long-lived holder: an emergency skb never enters one (N2).

use core::fmt;

use lock_api::Mutex;
use mempool::CriticalSection;

use crate::ablation::{Ablation, Mechanism};
use crate::probe::{Keyed, Probe, Slot, hash_words};
use crate::{DropReason, Protocol, Skb};

const NIL: u32 = u32::MAX;

/// The ordinary sockets of a system, by protocol and local port.
///
/// All queues share one storage of entries and are bounded three times: each socket by its `rcvbuf`,
/// each protocol by its [memory limit](ProtocolMemory), all together by the entries. Sizes are
/// [truesizes](Skb::truesize), in bytes. A clone counts as much as its original: each queue is bounded
/// as if nobody shared with it, and all of them together never hold more memory than is counted.
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

    fn of(&mut self, protocol: Protocol) -> &mut usize {
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
    /// Of those, emergency skbs; none, unless the filter was switched off.
    pub emergency: usize,
    /// Bytes that they hold.
    pub rmem: usize,
    /// Bytes that they may hold.
    pub rcvbuf: usize,
}

/// What all sockets hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct SocketStats {
    /// Sockets bound.
    pub sockets: usize,
    /// Sockets with something in their queue.
    pub waiting: usize,
    /// Skbs in all queues.
    pub queued: usize,
    /// Of those, emergency skbs; none, unless the filter was switched off.
    pub emergency: usize,
    /// Bytes in all queues.
    pub rmem: usize,
    /// The most bytes in all queues at once.
    pub peak: usize,
    /// The socket with the most bytes.
    pub fullest: Option<SocketInfo>,
}

struct State<'m> {
    sockets: Probe<'m, Socket>,
    entries: &'m mut [QueueEntry<'m>],
    /// Head of the list of free entries.
    free: u32,
    limit: ProtocolMemory,
    rmem: ProtocolMemory,
    peak: usize,
    serial: u32,
    ablation: Ablation,
}

/// A bound socket: what a [`Slot`] of a [`SocketTable`] holds.
#[derive(Debug, Clone)]
pub struct Socket {
    id: SocketId,
    rcvbuf: usize,
    rmem: usize,
    queued: usize,
    emergency: usize,
    head: u32,
    tail: u32,
}

/// Room for one skb in the queues of a [`SocketTable`].
#[derive(Debug)]
pub struct QueueEntry<'m> {
    skb: Option<Skb<'m>>,
    next: u32,
}

impl QueueEntry<'_> {
    /// No skb is in it.
    pub const EMPTY: Self = QueueEntry {
        skb: None,
        next: NIL,
    };
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub(crate) struct Port {
    protocol: Protocol,
    number: u16,
}

impl Keyed for Socket {
    type Key = Port;

    fn key(&self) -> Port {
        self.id.port
    }

    fn hash(port: Port) -> u32 {
        hash_words(&[u32::from(port.protocol.number()) << 16 | u32::from(port.number)])
    }
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
        let mut free = NIL;
        for (index, entry) in (0..NIL).zip(entries.iter_mut()) {
            *entry = QueueEntry {
                skb: None,
                next: free,
            };
            free = index;
        }
        SocketTable {
            state: Mutex::new(State {
                sockets: Probe::new(sockets),
                entries,
                free,
                limit,
                rmem: ProtocolMemory::each(0),
                peak: 0,
                serial: 0,
                ablation: Ablation::NONE,
            }),
        }
    }

    /// Binds a port to a new socket whose queue may hold `rcvbuf` bytes.
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
        let mut state = self.state.lock();
        if state.sockets.get(key).is_some() {
            return Err(BindError::InUse);
        }
        let id = SocketId {
            port: key,
            serial: state.serial,
        };
        let socket = Socket {
            id,
            rcvbuf,
            rmem: 0,
            queued: 0,
            emergency: 0,
            head: NIL,
            tail: NIL,
        };
        state.sockets.insert(socket).map_err(|_| BindError::Full)?;
        state.serial = state.serial.wrapping_add(1);
        Ok(id)
    }

    /// Queues an ordinary skb at the socket bound to `port`.
    ///
    /// # Errors
    ///
    /// The skb comes back, with the reason: [`DropReason::NoSocket`], [`DropReason::RcvbufFull`],
    /// [`DropReason::ProtocolMemoryFull`], [`DropReason::QueueFull`]; an emergency skb is always
    /// refused, with [`DropReason::EmergencyUdp`] or [`DropReason::EmergencyTcp`].
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
        skb: Skb<'m>,
    ) -> Result<SocketId, (DropReason, Skb<'m>)> {
        let port = Port {
            protocol,
            number: port,
        };
        self.state.lock().enqueue(port, skb)
    }

    /// Whether a socket is bound to `port`.
    pub(crate) fn is_bound(&self, protocol: Protocol, port: u16) -> bool {
        let port = Port {
            protocol,
            number: port,
        };
        self.state.lock().sockets.get(port).is_some()
    }

    /// Whether the sockets of `protocol` may hold `size` bytes more.
    pub(crate) fn has_room(&self, protocol: Protocol, size: usize) -> bool {
        self.state.lock().has_room(protocol, size)
    }

    /// Switches a mechanism of this table off, for good. A mechanism of another object changes
    /// nothing.
    #[cfg(feature = "ablation")]
    pub fn ablate(&self, mechanism: Mechanism) {
        self.state.lock().ablation.ablate(mechanism);
    }

    /// Takes the oldest skb out of a socket's queue: the whole frame, as it was received. Its
    /// memory is the caller's from now on.
    pub fn recv(&self, id: SocketId) -> Option<Skb<'m>> {
        self.state.lock().dequeue(id)
    }

    /// Closes a socket and frees what is in its queue; returns how many skbs that were, or `None`
    /// if the socket was closed already. O(queued), with the lock released between skbs.
    pub fn close(&self, id: SocketId) -> Option<usize> {
        // Nothing more comes in from here on.
        self.state.lock().socket(id)?.rcvbuf = 0;
        let mut freed = 0;
        loop {
            let mut state = self.state.lock();
            let Some(skb) = state.dequeue(id) else {
                state.socket(id)?;
                return state.sockets.remove(id.port).map(|_| freed);
            };
            drop(state);
            drop(skb);
            freed += 1;
        }
    }

    /// Bytes in a socket's queue, or `None` if it is closed.
    #[must_use]
    pub fn rmem(&self, id: SocketId) -> Option<usize> {
        self.info(id).map(|info| info.rmem)
    }

    /// What a socket holds, or `None` if it is closed.
    #[must_use]
    pub fn info(&self, id: SocketId) -> Option<SocketInfo> {
        self.state.lock().socket(id).map(|socket| socket.info())
    }

    /// Bytes in all queues.
    #[must_use]
    pub fn total_rmem(&self) -> usize {
        let rmem = self.state.lock().rmem;
        rmem.udp + rmem.tcp
    }

    /// Skbs in all queues. O(sockets).
    #[must_use]
    pub fn queued(&self) -> usize {
        self.stats().queued
    }

    /// A snapshot of what all sockets hold. O(sockets).
    #[must_use]
    pub fn stats(&self) -> SocketStats {
        let state = self.state.lock();
        let mut stats = SocketStats {
            sockets: state.sockets.len(),
            rmem: state.rmem.udp + state.rmem.tcp,
            peak: state.peak,
            ..SocketStats::default()
        };
        for info in state.sockets.iter().map(Socket::info) {
            stats.waiting += usize::from(info.queued > 0);
            stats.queued += info.queued;
            stats.emergency += info.emergency;
            if info.rmem > stats.fullest.map_or(0, |fullest| fullest.rmem) {
                stats.fullest = Some(info);
            }
        }
        stats
    }
}

impl<'m> State<'m> {
    fn socket(&mut self, id: SocketId) -> Option<&mut Socket> {
        self.sockets
            .get_mut(id.port)
            .filter(|socket| socket.id == id)
    }

    fn has_room(&mut self, protocol: Protocol, size: usize) -> bool {
        let held = *self.rmem.of(protocol);
        size <= self.limit.of(protocol).saturating_sub(held)
    }

    fn enqueue(&mut self, port: Port, skb: Skb<'m>) -> Result<SocketId, (DropReason, Skb<'m>)> {
        let size = skb.truesize();
        let limited = !self.ablation.off(Mechanism::SocketLimits);
        let room = self.has_room(port.protocol, size);
        let Some(socket) = self.sockets.get_mut(port) else {
            return Err((DropReason::NoSocket, skb));
        };
        if limited && size > socket.rcvbuf.saturating_sub(socket.rmem) {
            return Err((DropReason::RcvbufFull, skb));
        }
        if limited && !room {
            return Err((DropReason::ProtocolMemoryFull, skb));
        }
        let index = self.free;
        let Some(entry) = self.entries.get_mut(index as usize) else {
            return Err((DropReason::QueueFull, skb));
        };
        *self.rmem.of(port.protocol) += size;
        self.free = entry.next;
        entry.next = NIL;
        socket.rmem += size;
        socket.queued += 1;
        socket.emergency += usize::from(skb.is_emergency());
        entry.skb = Some(skb);
        let last = core::mem::replace(&mut socket.tail, index);
        match self.entries.get_mut(last as usize) {
            Some(last) => last.next = index,
            None => socket.head = index,
        }
        let id = socket.id;
        self.peak = self.peak.max(self.rmem.udp + self.rmem.tcp);
        Ok(id)
    }

    fn dequeue(&mut self, id: SocketId) -> Option<Skb<'m>> {
        let socket = self
            .sockets
            .get_mut(id.port)
            .filter(|socket| socket.id == id)?;
        let index = socket.head;
        let entry = self.entries.get_mut(index as usize)?;
        let skb = entry.skb.take()?;
        socket.head = core::mem::replace(&mut entry.next, self.free);
        if socket.head == NIL {
            socket.tail = NIL;
        }
        self.free = index;
        socket.rmem -= skb.truesize();
        socket.queued -= 1;
        socket.emergency -= usize::from(skb.is_emergency());
        *self.rmem.of(id.port.protocol) -= skb.truesize();
        Some(skb)
    }
}

impl Socket {
    fn info(&self) -> SocketInfo {
        SocketInfo {
            protocol: self.id.port.protocol,
            port: self.id.port.number,
            queued: self.queued,
            emergency: self.emergency,
            rmem: self.rmem,
            rcvbuf: self.rcvbuf,
        }
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
mod tests;
