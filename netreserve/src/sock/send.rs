//! What a socket sends, from its allocation until the card has freed it.

use core::fmt;

use super::{SocketId, SocketTable};
use crate::{Skb, SkbAllocError, SkbError, SkbPool};

/// Whom to tell when a socket has room to send again (`sk_write_space`).
///
/// ```
/// use std::sync::{Condvar, Mutex};
/// use netreserve::{SendWaiters, SocketId};
///
/// /// One queue for all senders, who look again whether it was for them.
/// #[derive(Default)]
/// struct Senders(Mutex<u64>, Condvar);
///
/// impl SendWaiters for Senders {
///     fn writable(&self, _: SocketId) {
///         *self.0.lock().unwrap() += 1;
///         self.1.notify_all();
///     }
/// }
/// ```
pub trait SendWaiters: Sync {
    /// The socket has room for the smallest packet that it was refused since the last time: its
    /// senders should try again. Called with no lock held, by whoever frees packets: an interrupt
    /// as well. It must not wait.
    fn writable(&self, socket: SocketId);
}

impl<'m> SocketTable<'m> {
    /// An skb for a packet of the socket (`sock_alloc_send_skb`): counted for it, clones and all,
    /// until the memory is free, and never beyond its `sndbuf`. It is ordinary memory.
    ///
    /// A socket that serves the VM goes on when its `sndbuf` is full, or there is no ordinary memory
    /// (N7), with as many skbs as the [room](SocketTable::set_vmio) that it was given has. Those alone
    /// may come out of the reserve, so that the room is all that it has to hold for the socket (N4).
    /// What is sent in one is judged like everything else, see
    /// [`Ingress::egress`](crate::Ingress::egress).
    ///
    /// # Errors
    ///
    /// [`SendError`]; nothing has changed. After [`SendError::SndbufFull`] and
    /// [`SendError::VmioFull`] the [waiters](SocketTable::with_waiters) are told when there is room.
    ///
    /// ```
    /// # use mempool::{Buddy, FrameEntry, ReserveNode, SingleTask, SizedCache, Watermarks, Zone};
    /// # use netreserve::{FlowTable, ProtocolMemory, SendError, SkbPool, Slot, SocketTable};
    /// # let (mut memory, mut table) = (vec![0u8; 17 * mempool::FRAME_SIZE], [FrameEntry::EMPTY; 17]);
    /// # let source = <Buddy>::new(&mut memory, &mut table)?;
    /// # let task = SingleTask::new();
    /// # let zone = <Zone>::new(&source, &task, Watermarks::default())?;
    /// # let (rx, tx) = (<ReserveNode>::new("rx"), <ReserveNode>::new("tx"));
    /// # let cache = <SizedCache>::new("skb", &zone, 2016, 0)?;
    /// # let flows = FlowTable::new(&mut [], &mut []);
    /// # let pool = SkbPool::new(&cache, &rx, &tx, &flows, zone.claim_memalloc().unwrap());
    /// # let mut slots = [const { Slot::EMPTY }; 4];
    /// use netreserve::Protocol::Udp;
    ///
    /// let sockets = SocketTable::new(&mut slots, &mut [], ProtocolMemory::each(64 << 10));
    /// let socket = sockets.bind(Udp, 9, 2016)?; // one at a time
    /// let skb = sockets.alloc_send(socket, &pool)?;
    /// assert_eq!(sockets.alloc_send(socket, &pool).unwrap_err(), SendError::SndbufFull);
    /// drop(skb); // by the card
    /// assert!(sockets.alloc_send(socket, &pool).is_ok());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn alloc_send(&'m self, id: SocketId, pool: &SkbPool<'m>) -> Result<Skb<'m>, SendError> {
        // First, so that a refused sender costs no memory. It ends should there be none.
        let mut owner = self.wmem(id, pool.truesize(), false)?;
        let ordinary = if owner.vmio {
            None
        } else {
            match pool.ordinary_tx() {
                Ok(skb) => Some(skb),
                Err(error) => {
                    let failed = |full: Option<_>| {
                        let error = pool.failed_tx(error);
                        full.unwrap_or(SendError::Alloc(error))
                    };
                    owner = self.enter_room(owner).map_err(failed)?;
                    None
                }
            }
        };
        let mut skb = match ordinary {
            Some(skb) => skb,
            None => pool.alloc_tx().map_err(SendError::Alloc)?,
        };
        skb.set_owner(owner).map_err(SendError::Skb)?;
        Ok(skb)
    }

    /// Makes an skb that was allocated otherwise a packet of the socket (`skb_set_owner_w`), by the
    /// same rules: an emergency skb takes a place in the room of VMIO, whatever the `sndbuf`. If it was
    /// another's, it is not any more. What it counts for is written behind its data, in the place of a
    /// clone's [`SHARE_ROOM`](Skb::SHARE_ROOM).
    ///
    /// # Errors
    ///
    /// [`SendError`], [`SendError::Skb`] if others share it or its data leaves no such room; the skb
    /// comes back as it was.
    pub fn own_send(
        &'m self,
        id: SocketId,
        mut skb: Skb<'m>,
    ) -> Result<Skb<'m>, (SendError, Skb<'m>)> {
        match self.wmem(id, skb.truesize(), skb.is_emergency()) {
            Ok(owner) => match skb.set_owner(owner) {
                Ok(()) => Ok(skb),
                Err(error) => Err((SendError::Skb(error), skb)),
            },
            Err(error) => Err((error, skb)),
        }
    }

    /// Lets a socket have `bytes` of ordinary memory on the way. What is on the way already stays. Of the
    /// reserve it is given nothing by that, so that no budget changes. `None` if the socket is closed.
    pub fn set_sndbuf(&self, id: SocketId, bytes: usize) -> Option<()> {
        let writable = self.state.lock().set_sndbuf(id, bytes)?;
        self.tell(id, writable);
        Some(())
    }

    /// Counts an skb of `size` bytes, which lies in the reserve or not.
    fn wmem(&'m self, id: SocketId, size: usize, emergency: bool) -> Result<Wmem<'m>, SendError> {
        // No packet is so large.
        let units = u32::try_from(size).map_err(|_| SendError::SndbufFull)?;
        let vmio = self.state.lock().charge_send(id, size, emergency)?;
        Ok(Wmem {
            table: self,
            id,
            units,
            vmio,
        })
    }

    /// Moves what is counted within the `sndbuf` into the room of VMIO, before the reserve is asked.
    ///
    /// # Errors
    ///
    /// It is counted no more: the room is full, or there is none to wait for.
    fn enter_room(&self, mut owner: Wmem<'m>) -> Result<Wmem<'m>, Option<SendError>> {
        let (id, size) = (owner.id, owner.units as usize);
        let (entered, writable) = self.state.lock().enter_room(id, size);
        self.tell(id, writable);
        match entered {
            Ok(vmio) => {
                owner.vmio = vmio;
                Ok(owner)
            }
            Err(full) => {
                // Uncounted there, so that this refusal is not what its own sender is told of.
                core::mem::forget(owner);
                Err(full)
            }
        }
    }

    pub(super) fn tell(&self, id: SocketId, writable: bool) {
        if let Some(waiters) = self.waiters.filter(|_| writable) {
            waiters.writable(id);
        }
    }
}

/// Bytes of an skb that count for its sender, until it is dropped.
pub(crate) struct Wmem<'m> {
    table: &'m dyn Wfree,
    id: SocketId,
    units: u32,
    vmio: bool,
}

impl<'m> Wmem<'m> {
    /// As much again, for a copy that takes the place of the skb: it is there already, so that no
    /// limit can keep it from being counted; one that lies in the reserve is in the room of VMIO.
    /// `None` if the socket is closed by now.
    pub(crate) fn again(&self, emergency: bool) -> Option<Wmem<'m>> {
        let counted = self.table.force(self.id, self.units as usize, emergency);
        counted.then_some(()).map(|()| Wmem {
            vmio: emergency,
            ..*self
        })
    }
}

impl Drop for Wmem<'_> {
    fn drop(&mut self) {
        self.table.wfree(self.id, self.units as usize, self.vmio);
    }
}

/// The table of the sender, whatever else is in it.
trait Wfree: Sync {
    fn wfree(&self, id: SocketId, units: usize, vmio: bool);

    fn force(&self, id: SocketId, units: usize, vmio: bool) -> bool;
}

impl Wfree for SocketTable<'_> {
    fn wfree(&self, id: SocketId, units: usize, vmio: bool) {
        let writable = self.state.lock().uncharge_send(id, units, vmio);
        self.tell(id, writable);
    }

    fn force(&self, id: SocketId, units: usize, vmio: bool) -> bool {
        self.state.lock().force_send(id, units, vmio)
    }
}

/// Why a socket cannot send now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum SendError {
    /// It is closed.
    NoSocket,
    /// As much as it may have sent has not been freed by the card.
    SndbufFull,
    /// It serves the VM, and its room is full as well: as its `sndbuf` is, or there is no ordinary
    /// memory.
    VmioFull,
    /// The skb lies in the reserve, and the socket does not serve the VM.
    NotVmio,
    /// There is no memory.
    Alloc(SkbAllocError),
    /// The skb is too full, or too small, or shared, to be counted for a socket.
    Skb(SkbError),
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SendError::NoSocket => f.write_str("the socket is closed"),
            SendError::SndbufFull => f.write_str("the send buffer is full"),
            SendError::VmioFull => f.write_str("the room of VMIO is full"),
            SendError::NotVmio => f.write_str("the packet is for sockets that serve the VM"),
            SendError::Alloc(error) => error.fmt(f),
            SendError::Skb(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for SendError {}
