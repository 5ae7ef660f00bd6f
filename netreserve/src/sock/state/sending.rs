//! What sockets sent.

use super::{Socket, State};
use crate::ablation::Mechanism;
use crate::sock::{SendError, SocketId};

impl State<'_> {
    /// Counts `size` bytes for a sender, in the room of VMIO if he has none left otherwise, or they
    /// lie in the reserve: the answer.
    pub(in crate::sock) fn charge_send(
        &mut self,
        id: SocketId,
        size: usize,
        emergency: bool,
    ) -> Result<bool, SendError> {
        let unlimited = self.off(Mechanism::SendLimits);
        let socket = self.socket(id).ok_or(SendError::NoSocket)?;
        let within = !emergency && size <= socket.sndbuf.saturating_sub(socket.wmem);
        let vmio = match socket.vmio {
            _ if unlimited || within => false,
            Some(vmio) if socket.vmio_sent < vmio.room.tx => true,
            Some(_) => {
                socket.want(if emergency { ROOM } else { size });
                return Err(SendError::VmioFull);
            }
            None if emergency => return Err(SendError::NotVmio),
            None => {
                socket.want(size);
                return Err(SendError::SndbufFull);
            }
        };
        self.force_send(id, size, vmio);
        Ok(vmio)
    }

    /// Counts them whatever the limits. `false` if the socket is closed.
    pub(in crate::sock) fn force_send(&mut self, id: SocketId, size: usize, vmio: bool) -> bool {
        let Some(socket) = self.socket(id) else {
            return false;
        };
        if vmio {
            socket.vmio_sent += 1;
        } else {
            socket.wmem += size;
        }
        self.wmem += size;
        true
    }

    /// Moves what counts for the send buffer into the room of VMIO, as there is no ordinary memory for
    /// it: whether it counts there. If it may not be had of the reserve it counts nowhere any more, and
    /// the error is what the sender waits for, if anything. Second, whether another sender who was
    /// refused has room now.
    pub(in crate::sock) fn enter_room(
        &mut self,
        id: SocketId,
        size: usize,
    ) -> (Result<bool, Option<SendError>>, bool) {
        let unlimited = self.off(Mechanism::SendLimits);
        let Some(socket) = self.socket(id) else {
            self.wmem -= size;
            return (Err(Some(SendError::NoSocket)), false);
        };
        let room = socket.vmio.map(|vmio| vmio.room.tx);
        if unlimited && room.is_some() {
            return (Ok(false), false);
        }
        socket.wmem -= size;
        if room.is_some_and(|room| socket.vmio_sent < room) {
            socket.vmio_sent += 1;
            return (Ok(true), socket.told());
        }
        let told = socket.told();
        // If nothing is in the room nothing will leave it either.
        let waits = room.is_some() && socket.vmio_sent > 0;
        if waits {
            socket.want(ROOM);
        }
        self.wmem -= size;
        (Err(waits.then_some(SendError::VmioFull)), told)
    }

    /// Uncounts it. Whether a sender who was refused has room now.
    pub(in crate::sock) fn uncharge_send(&mut self, id: SocketId, size: usize, vmio: bool) -> bool {
        self.wmem -= size;
        let Some(socket) = self.socket(id) else {
            return false;
        };
        if vmio {
            socket.vmio_sent -= 1;
        } else {
            socket.wmem -= size;
        }
        socket.told()
    }

    pub(in crate::sock) fn set_sndbuf(&mut self, id: SocketId, bytes: usize) -> Option<bool> {
        let socket = self.socket(id)?;
        socket.sndbuf = bytes;
        Some(socket.told())
    }

    /// Whether a sender was refused, who is to look again.
    pub(in crate::sock) fn forget_wanted(&mut self, id: SocketId) -> bool {
        self.socket(id)
            .is_some_and(|socket| socket.wanted.take().is_some())
    }
}

/// What a sender wants whom a place in the room of VMIO alone helps: no send buffer has so much.
const ROOM: usize = usize::MAX;

impl Socket {
    /// A sender was refused.
    fn want(&mut self, size: usize) {
        self.wanted = Some(self.wanted.map_or(size, |wanted| wanted.min(size)));
    }

    /// Whether a sender who was refused has room now, and is to be told.
    pub(super) fn told(&mut self) -> bool {
        let room = self.sndbuf.saturating_sub(self.wmem);
        let vmio = self.vmio.is_some_and(|vmio| self.vmio_sent < vmio.room.tx);
        self.wanted
            .take_if(|wanted| vmio || *wanted <= room)
            .is_some()
    }
}
