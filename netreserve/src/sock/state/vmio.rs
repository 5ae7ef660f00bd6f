//! VMIO on and off.

use super::{List, State, Vmio};
use crate::ablation::Mechanism;
use crate::sock::{SocketId, VmioError, VmioRoom};
use crate::{Flow, Skb};

impl State<'_> {
    /// Whether the flow can be that of the socket, and the room be had.
    pub(in crate::sock) fn set_vmio(
        &mut self,
        id: SocketId,
        flow: Flow,
        room: VmioRoom,
    ) -> Result<(), VmioError> {
        let spare = self.free_len.saturating_sub(self.promised);
        let open = self.socket(id).filter(|socket| !socket.closing);
        let socket = open.ok_or(VmioError::NoSocket)?;
        if (flow.protocol(), flow.local().port()) != (id.port.protocol, id.port.number) {
            return Err(VmioError::OtherPort);
        }
        if socket.vmio.is_some() {
            return Err(VmioError::Present);
        }
        if spare < room.rx {
            return Err(VmioError::NoEntries);
        }
        socket.vmio = Some(Vmio {
            flow,
            room,
            held: 0,
        });
        self.promised += room.rx;
        self.vmio += 1;
        Ok(())
    }

    pub(in crate::sock) fn flow(&mut self, id: SocketId) -> Option<Flow> {
        self.socket(id)?.vmio.map(|vmio| vmio.flow)
    }

    /// Clears VMIO. What lies in its room is charged to the socket, or put into a list of its own
    /// if it may not stay, for [`drop_doomed`](State::drop_doomed); how much was kept. O(queued).
    pub(in crate::sock) fn clear_vmio(&mut self, id: SocketId) -> Option<(List, usize)> {
        let settles = !self.off(Mechanism::VmioSettle);
        let socket = self.socket(id)?;
        let vmio = socket.vmio.take()?;
        let lists = [socket.queue, socket.backlog];
        (socket.queue, socket.backlog) = (List::EMPTY, List::EMPTY);
        self.promised -= vmio.room.rx - vmio.held;
        self.vmio -= 1;
        let (mut doomed, mut kept) = (List::EMPTY, 0);
        for (mut list, backlog) in lists.into_iter().zip([false, true]) {
            while let Some(index) = list.pop(self.entries) {
                let entry = &mut self.entries[index as usize];
                let was_vmio = core::mem::replace(&mut entry.vmio, false);
                let (size, emergency) = entry
                    .skb
                    .as_ref()
                    .map_or((0, false), |skb| (skb.truesize(), skb.is_emergency()));
                let stays = !was_vmio || !settles || !emergency && self.fits(id, size);
                let Some(socket) = self
                    .sockets
                    .get_mut(id.port)
                    .filter(|socket| socket.id == id)
                else {
                    continue;
                };
                if !stays {
                    socket.emergency -= usize::from(emergency);
                    doomed.push(self.entries, index);
                    continue;
                }
                if was_vmio {
                    kept += 1;
                    socket.rmem += size;
                    *self.rmem.of(id.port.protocol) += size;
                }
                let list = if backlog {
                    &mut socket.backlog
                } else {
                    &mut socket.queue
                };
                list.push(self.entries, index);
            }
        }
        self.peak = self.peak.max(self.total_rmem());
        Some((doomed, kept))
    }

    /// Whether socket and protocol may hold `size` bytes more.
    fn fits(&mut self, id: SocketId, size: usize) -> bool {
        let room = self.has_room(id.port.protocol, size);
        room && self
            .socket(id)
            .is_some_and(|socket| size <= socket.rcvbuf.saturating_sub(socket.rmem))
    }
}

impl<'m> State<'m> {
    /// The next skb of a list that nobody else knows.
    pub(in crate::sock) fn drop_doomed(&mut self, doomed: &mut List) -> Option<Skb<'m>> {
        let index = doomed.pop(self.entries)?;
        let entry = &mut self.entries[index as usize];
        entry.next = core::mem::replace(&mut self.free, index);
        self.free_len += 1;
        entry.skb.take()
    }
}
