//! The books of a [`SocketTable`](super::SocketTable): lists of entries, and what each socket holds. What
//! it sent is in `sending`, and how VMIO begins and ends in `vmio`.

mod sending;
mod vmio;

use crate::ablation::{Ablation, Mechanism};
use crate::probe::{Keyed, Probe, Slot, hash_words};
use crate::{DropReason, Flow, Protocol, Skb};

use super::{BindError, ProtocolMemory, SocketId, SocketInfo, SocketStats, VmioRoom};

const NIL: u32 = u32::MAX;

/// Room for one skb in the queues of a [`SocketTable`](super::SocketTable).
#[derive(Debug)]
pub struct QueueEntry<'m> {
    skb: Option<Skb<'m>>,
    next: u32,
    /// It lies in the room of VMIO, beyond the limits.
    vmio: bool,
}

impl QueueEntry<'_> {
    /// No skb is in it.
    pub const EMPTY: Self = QueueEntry {
        skb: None,
        next: NIL,
        vmio: false,
    };
}

/// Entries, first in first out.
#[derive(Debug, Clone, Copy)]
pub(super) struct List {
    head: u32,
    tail: u32,
    len: usize,
}

impl List {
    pub(super) const EMPTY: List = List {
        head: NIL,
        tail: NIL,
        len: 0,
    };

    fn push(&mut self, entries: &mut [QueueEntry<'_>], index: u32) {
        entries[index as usize].next = NIL;
        let last = core::mem::replace(&mut self.tail, index);
        match entries.get_mut(last as usize) {
            Some(last) => last.next = index,
            None => self.head = index,
        }
        self.len += 1;
    }

    fn pop(&mut self, entries: &[QueueEntry<'_>]) -> Option<u32> {
        let index = self.head;
        self.head = entries.get(index as usize)?.next;
        if self.head == NIL {
            self.tail = NIL;
        }
        self.len -= 1;
        Some(index)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub(crate) struct Port {
    pub(super) protocol: Protocol,
    pub(super) number: u16,
}

/// A bound socket: what a [`Slot`] of a [`SocketTable`](super::SocketTable) holds.
#[derive(Debug, Clone)]
pub struct Socket {
    id: SocketId,
    rcvbuf: usize,
    rmem: usize,
    emergency: usize,
    queue: List,
    /// What came while somebody owned the socket.
    backlog: List,
    /// Somebody owns it.
    owned: bool,
    /// Nothing comes in any more.
    closing: bool,
    /// Bytes and skbs that the backlog took since somebody owned the socket: a flood must not keep
    /// whoever releases it busy for ever.
    backlogged: (usize, usize),
    sndbuf: usize,
    wmem: usize,
    /// A sender was refused so many bytes since the waiters were told last.
    wanted: Option<usize>,
    vmio: Option<Vmio>,
    vmio_sent: usize,
}

/// A socket serves the VM.
#[derive(Debug, Clone, Copy)]
pub(super) struct Vmio {
    pub(super) flow: Flow,
    pub(super) room: VmioRoom,
    /// Skbs in queue and backlog.
    held: usize,
}

pub(super) struct State<'m> {
    sockets: Probe<'m, Socket>,
    entries: &'m mut [QueueEntry<'m>],
    /// The free entries, last in first out, and how many there are.
    free: u32,
    free_len: usize,
    /// Of these, how many the rooms of VMIO sockets are still to have.
    promised: usize,
    /// Sockets that serve the VM.
    vmio: usize,
    limit: ProtocolMemory,
    rmem: ProtocolMemory,
    peak: usize,
    wmem: usize,
    dropped: u64,
    serial: u32,
    ablation: Ablation,
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

impl<'m> State<'m> {
    pub(super) fn new(
        sockets: &'m mut [Slot<Socket>],
        entries: &'m mut [QueueEntry<'m>],
        limit: ProtocolMemory,
    ) -> Self {
        let (mut free, mut free_len) = (NIL, 0);
        for (index, entry) in (0..NIL).zip(entries.iter_mut()) {
            *entry = QueueEntry {
                next: free,
                ..QueueEntry::EMPTY
            };
            free = index;
            free_len += 1;
        }
        State {
            sockets: Probe::new(sockets),
            entries,
            free,
            free_len,
            promised: 0,
            vmio: 0,
            limit,
            rmem: ProtocolMemory::each(0),
            peak: 0,
            wmem: 0,
            dropped: 0,
            serial: 0,
            ablation: Ablation::NONE,
        }
    }

    pub(super) fn bind(&mut self, port: Port, rcvbuf: usize) -> Result<SocketId, BindError> {
        if self.is_bound(port) {
            return Err(BindError::InUse);
        }
        let id = SocketId {
            port,
            serial: self.serial,
        };
        let socket = Socket {
            id,
            rcvbuf,
            rmem: 0,
            emergency: 0,
            queue: List::EMPTY,
            backlog: List::EMPTY,
            owned: false,
            closing: false,
            backlogged: (0, 0),
            sndbuf: rcvbuf,
            wmem: 0,
            wanted: None,
            vmio: None,
            vmio_sent: 0,
        };
        self.sockets.insert(socket).map_err(|_| BindError::Full)?;
        self.serial = self.serial.wrapping_add(1);
        Ok(id)
    }

    pub(super) fn is_bound(&self, port: Port) -> bool {
        self.sockets.get(port).is_some()
    }

    /// Nothing is received any more.
    pub(super) fn shut(&mut self, id: SocketId) -> Option<()> {
        let socket = self.socket(id)?;
        (socket.rcvbuf, socket.sndbuf) = (0, 0);
        socket.closing = true;
        Some(())
    }

    /// Its lists are empty.
    pub(super) fn unbind(&mut self, id: SocketId) -> Option<()> {
        self.socket(id)?;
        self.sockets.remove(id.port).map(drop)
    }

    pub(super) fn any_vmio(&self) -> bool {
        self.vmio > 0
    }

    pub(super) fn info(&mut self, id: SocketId) -> Option<SocketInfo> {
        self.socket(id).map(|socket| socket.info())
    }

    pub(super) fn total_rmem(&self) -> usize {
        self.rmem.udp + self.rmem.tcp
    }

    pub(super) fn stats(&self) -> SocketStats {
        let mut stats = SocketStats {
            sockets: self.sockets.len(),
            rmem: self.total_rmem(),
            peak: self.peak,
            wmem: self.wmem,
            dropped: self.dropped,
            ..SocketStats::default()
        };
        for info in self.sockets.iter().map(Socket::info) {
            stats.waiting += usize::from(info.queued + info.backlog > 0);
            stats.queued += info.queued;
            stats.backlog += info.backlog;
            stats.vmio_queued += info.vmio_queued;
            if info.vmio.is_none() {
                stats.emergency += info.emergency;
            }
            if info.rmem > stats.fullest.map_or(0, |fullest| fullest.rmem) {
                stats.fullest = Some(info);
            }
        }
        stats
    }

    #[cfg(feature = "ablation")]
    pub(super) fn ablate(&mut self, mechanism: Mechanism) {
        self.ablation.ablate(mechanism);
    }

    pub(super) fn off(&self, mechanism: Mechanism) -> bool {
        self.ablation.off(mechanism)
    }

    pub(super) fn count_dropped(&mut self, skbs: usize) {
        self.dropped += skbs as u64;
    }

    pub(super) fn has_room(&mut self, protocol: Protocol, size: usize) -> bool {
        let held = *self.rmem.of(protocol);
        size <= self.limit.of(protocol).saturating_sub(held)
    }

    fn socket(&mut self, id: SocketId) -> Option<&mut Socket> {
        self.sockets
            .get_mut(id.port)
            .filter(|socket| socket.id == id)
    }
}

/// What comes in and goes out.
impl<'m> State<'m> {
    /// A packet to a port, of anybody.
    pub(super) fn receive(
        &mut self,
        port: Port,
        skb: Skb<'m>,
    ) -> Result<SocketId, (DropReason, Skb<'m>)> {
        // A socket of VMIO is connected to its server.
        let connected = |socket: &&Socket| socket.vmio.is_none();
        match self.sockets.get(port).filter(connected) {
            Some(socket) => self.admit(socket.id, skb, false),
            None => Err((DropReason::NoSocket, skb)),
        }
    }

    /// A packet of a VMIO flow. Without a reason it comes back if no socket has the flow.
    pub(super) fn receive_vmio(
        &mut self,
        flow: Flow,
        skb: Skb<'m>,
    ) -> Result<SocketId, (Option<DropReason>, Skb<'m>)> {
        let port = Port {
            protocol: flow.protocol(),
            number: flow.local().port(),
        };
        let tagged = |socket: &&Socket| socket.vmio.is_some_and(|vmio| vmio.flow == flow);
        match self.sockets.get(port).filter(tagged) {
            Some(socket) => self
                .admit(socket.id, skb, true)
                .map_err(|(reason, skb)| (Some(reason), skb)),
            None => Err((None, skb)),
        }
    }

    /// Puts an skb into the queue of a socket, or into the backlog of one that somebody owns.
    fn admit(
        &mut self,
        id: SocketId,
        skb: Skb<'m>,
        vmio: bool,
    ) -> Result<SocketId, (DropReason, Skb<'m>)> {
        let size = skb.truesize();
        let bypass = vmio && !self.off(Mechanism::VmioRoom);
        let unbounded = self.off(Mechanism::BacklogBound);
        let refusal = self.refusal(id, size, bypass);
        let Some(socket) = self.socket(id) else {
            return Err((DropReason::NoSocket, skb));
        };
        let (bytes, skbs) = socket.backlogged;
        let backlog = match socket.vmio {
            Some(vmio) if bypass => skbs < vmio.room.rx,
            _ => size <= socket.rcvbuf.saturating_sub(bytes),
        };
        match refusal {
            Some(DropReason::NoSocket) => return Err((DropReason::NoSocket, skb)),
            Some(_) if socket.owned => return Err((DropReason::BacklogFull, skb)),
            Some(reason) => return Err((reason, skb)),
            None if socket.owned && !backlog && !unbounded => {
                return Err((DropReason::BacklogFull, skb));
            }
            None => {}
        }
        if socket.owned {
            socket.backlogged = (bytes + size, skbs + 1);
        }
        let owned = socket.owned;
        match self.enter(id, skb, bypass, owned) {
            Ok(()) => Ok(id),
            Err(skb) => Err((DropReason::NoSocket, skb)),
        }
    }

    /// Puts an skb that comes out of the backlog into the queue.
    pub(super) fn requeue(
        &mut self,
        id: SocketId,
        skb: Skb<'m>,
        vmio: bool,
    ) -> Result<(), Skb<'m>> {
        let vmio = vmio && self.socket(id).is_some_and(|socket| socket.vmio.is_some());
        // An emergency skb is for VMIO alone (N2).
        let stray = skb.is_emergency() && !vmio && !self.off(Mechanism::VmioSettle);
        if stray || self.refusal(id, skb.truesize(), vmio).is_some() {
            return Err(skb);
        }
        self.enter(id, skb, vmio, false)
    }

    /// Why a socket cannot hold `size` bytes more.
    fn refusal(&mut self, id: SocketId, size: usize, vmio: bool) -> Option<DropReason> {
        let limited = !self.off(Mechanism::SocketLimits);
        let room = self.has_room(id.port.protocol, size);
        let spare = if vmio || self.off(Mechanism::VmioRoom) {
            self.free_len
        } else {
            self.free_len.saturating_sub(self.promised)
        };
        let Some(socket) = self.socket(id) else {
            return Some(DropReason::NoSocket);
        };
        if let Some(own) = socket.vmio.filter(|_| vmio) {
            return (own.held >= own.room.rx).then_some(DropReason::VmioFull);
        }
        if limited && size > socket.rcvbuf.saturating_sub(socket.rmem) {
            return Some(DropReason::RcvbufFull);
        }
        if limited && !room {
            return Some(DropReason::ProtocolMemoryFull);
        }
        (spare == 0).then_some(DropReason::QueueFull)
    }

    /// Counts an skb and links it in. There is room, and a free entry.
    fn enter(
        &mut self,
        id: SocketId,
        skb: Skb<'m>,
        vmio: bool,
        backlog: bool,
    ) -> Result<(), Skb<'m>> {
        let (index, size) = (self.free, skb.truesize());
        let Some(socket) = self
            .sockets
            .get_mut(id.port)
            .filter(|socket| socket.id == id)
        else {
            return Err(skb);
        };
        match &mut socket.vmio {
            Some(own) if vmio => {
                own.held += 1;
                self.promised -= 1;
            }
            _ => {
                socket.rmem += size;
                *self.rmem.of(id.port.protocol) += size;
            }
        }
        socket.emergency += usize::from(skb.is_emergency());
        let entry = &mut self.entries[index as usize];
        self.free = entry.next;
        self.free_len -= 1;
        (entry.skb, entry.vmio) = (Some(skb), vmio);
        let list = if backlog {
            &mut socket.backlog
        } else {
            &mut socket.queue
        };
        list.push(self.entries, index);
        self.peak = self.peak.max(self.rmem.udp + self.rmem.tcp);
        Ok(())
    }

    pub(super) fn dequeue(&mut self, id: SocketId) -> Option<Skb<'m>> {
        let socket = self
            .sockets
            .get_mut(id.port)
            .filter(|socket| socket.id == id)?;
        let index = socket.queue.pop(self.entries)?;
        self.leave(id, index).map(|(skb, _)| skb)
    }

    pub(super) fn take_backlog(&mut self, id: SocketId) -> Option<Skb<'m>> {
        self.pop_backlog(id).map(|(skb, _)| skb)
    }

    /// The oldest skb of a backlog, and whether it lay in the room of VMIO.
    pub(super) fn pop_backlog(&mut self, id: SocketId) -> Option<(Skb<'m>, bool)> {
        let socket = self
            .sockets
            .get_mut(id.port)
            .filter(|socket| socket.id == id)?;
        let index = socket.backlog.pop(self.entries)?;
        self.leave(id, index)
    }

    /// Takes the skb out of an entry that is in no list any more, and uncounts it.
    fn leave(&mut self, id: SocketId, index: u32) -> Option<(Skb<'m>, bool)> {
        let entry = self.entries.get_mut(index as usize)?;
        let (skb, vmio) = (entry.skb.take()?, entry.vmio);
        entry.next = core::mem::replace(&mut self.free, index);
        self.free_len += 1;
        let size = skb.truesize();
        let socket = self
            .sockets
            .get_mut(id.port)
            .filter(|socket| socket.id == id)?;
        socket.emergency -= usize::from(skb.is_emergency());
        match &mut socket.vmio {
            Some(own) if vmio => {
                own.held -= 1;
                self.promised += 1;
            }
            _ => {
                socket.rmem -= size;
                *self.rmem.of(id.port.protocol) -= size;
            }
        }
        Some((skb, vmio))
    }
}

/// Whoever owns a socket.
impl State<'_> {
    /// Whether it is owned from now on, and nobody had it.
    pub(super) fn own(&mut self, id: SocketId) -> Option<bool> {
        let socket = self.socket(id)?;
        let taken = !core::mem::replace(&mut socket.owned, true);
        if taken {
            socket.backlogged = (0, 0);
        }
        Some(taken)
    }

    /// Ends ownership if the backlog is empty.
    pub(super) fn disown(&mut self, id: SocketId) -> bool {
        match self.socket(id) {
            Some(socket) if socket.backlog.len > 0 => false,
            Some(socket) => {
                socket.owned = false;
                true
            }
            None => true,
        }
    }

    pub(super) fn is_vmio(&mut self, id: SocketId) -> bool {
        self.socket(id).is_some_and(|socket| socket.vmio.is_some())
    }
}

impl Socket {
    fn info(&self) -> SocketInfo {
        SocketInfo {
            protocol: self.id.port.protocol,
            port: self.id.port.number,
            queued: self.queue.len,
            backlog: self.backlog.len,
            emergency: self.emergency,
            rmem: self.rmem,
            rcvbuf: self.rcvbuf,
            vmio_queued: self.vmio.map_or(0, |vmio| vmio.held),
            wmem: self.wmem,
            sndbuf: self.sndbuf,
            vmio_sent: self.vmio_sent,
            vmio: self.vmio.map(|vmio| vmio.room),
        }
    }
}
