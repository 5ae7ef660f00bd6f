//! What sockets sent.

use super::{Socket, State};
use crate::ablation::Mechanism;
use crate::sock::{SendError, SocketId};

impl State<'_> {
    /// Counts `size` bytes for a sender, in the room of VMIO if he has none left otherwise: the
    /// answer. With `force` he is counted beyond all limits.
    pub(in crate::sock) fn charge_send(
        &mut self,
        id: SocketId,
        size: usize,
        force: bool,
    ) -> Result<bool, SendError> {
        let unlimited = force || self.off(Mechanism::SendLimits);
        let socket = self.socket(id).ok_or(SendError::NoSocket)?;
        if unlimited || size <= socket.sndbuf.saturating_sub(socket.wmem) {
            socket.wmem += size;
            self.wmem += size;
            return Ok(false);
        }
        match socket.vmio {
            Some(vmio) if socket.vmio_sent < vmio.room.tx => {
                socket.vmio_sent += 1;
                self.wmem += size;
                Ok(true)
            }
            vmio => {
                let wanted = socket.wanted.unwrap_or(size);
                socket.wanted = Some(wanted.min(size));
                Err(match vmio {
                    Some(_) => SendError::VmioFull,
                    None => SendError::SndbufFull,
                })
            }
        }
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
}

impl Socket {
    /// Whether a sender who was refused has room now, and is to be told.
    pub(super) fn told(&mut self) -> bool {
        let room = self.sndbuf.saturating_sub(self.wmem);
        let vmio = self.vmio.is_some_and(|vmio| self.vmio_sent < vmio.room.tx);
        self.wanted
            .take_if(|wanted| vmio || *wanted <= room)
            .is_some()
    }
}
