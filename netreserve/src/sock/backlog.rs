//! What comes in while somebody works on a socket, and the one place where it is processed.

use core::fmt;

use lock_api::RawMutex;
use mempool::{CriticalSection, MemallocToken, TaskContext, Zone};

use super::{SocketId, SocketTable};
use crate::Skb;
use crate::ablation::Mechanism;

/// Where backlogs are processed: the zone whose reserve the handler of a VMIO socket may dip into, the
/// right to let it, and the context that must not be an interrupt.
pub struct MemallocContext<'z, R = CriticalSection> {
    zone: &'z Zone<'z, R>,
    token: MemallocToken,
    task: &'z dyn TaskContext,
}

impl<'z, R: RawMutex + Send + Sync> MemallocContext<'z, R> {
    /// Of `zone`, whose token `token` is, and whose context is `task`.
    #[must_use]
    pub fn new(zone: &'z Zone<'z, R>, token: MemallocToken, task: &'z dyn TaskContext) -> Self {
        MemallocContext { zone, token, task }
    }
}

impl<R> fmt::Debug for MemallocContext<'_, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemallocContext").finish_non_exhaustive()
    }
}

/// What became of a backlog.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Processed {
    /// Skbs that the handler kept or freed.
    pub handled: usize,
    /// Skbs that went into the queue.
    pub queued: usize,
    /// Skbs that were freed, because the queue had no room left for them.
    pub dropped: usize,
}

impl<'m> SocketTable<'m> {
    /// Takes a socket for oneself (`lock_sock`): until it is released, what is received for it goes to
    /// its backlog, and nobody else gets it. `None` if it is closed or somebody has it.
    ///
    /// The backlog is bounded by the limits of the queue, which it counts against, and takes no more
    /// than `rcvbuf` bytes, or the skbs of the [room](super::VmioRoom) of VMIO, before it was processed:
    /// what exceeds this is refused with [`DropReason::BacklogFull`](crate::DropReason::BacklogFull).
    ///
    /// ```
    /// # use mempool::{Buddy, FrameEntry, ReserveNode, SingleTask, SizedCache, Watermarks, Zone};
    /// # use netreserve::{FlowTable, ProtocolMemory, QueueEntry, SkbPool, Slot, SocketTable};
    /// # let (mut memory, mut table) = (vec![0u8; 17 * mempool::FRAME_SIZE], [FrameEntry::EMPTY; 17]);
    /// # let source = <Buddy>::new(&mut memory, &mut table)?;
    /// # let task = SingleTask::new();
    /// # let zone = <Zone>::new(&source, &task, Watermarks::default())?;
    /// # let (rx, tx) = (<ReserveNode>::new("rx"), <ReserveNode>::new("tx"));
    /// # let cache = <SizedCache>::new("skb", &zone, 2016, 0)?;
    /// # let flows = FlowTable::new(&mut [], &mut []);
    /// # let token = zone.claim_memalloc().unwrap();
    /// # let pool = SkbPool::new(&cache, &rx, &tx, &flows, token);
    /// # let mut slots = [const { Slot::EMPTY }; 4];
    /// # let mut entries = core::mem::ManuallyDrop::new([const { QueueEntry::EMPTY }; 4]);
    /// use netreserve::{MemallocContext, Protocol::Udp};
    ///
    /// let sockets = SocketTable::new(&mut slots, &mut entries[..], ProtocolMemory::each(64 << 10));
    /// let socket = sockets.bind(Udp, 9, 8064)?;
    /// let owned = sockets.lock_sock(socket).expect("nobody has it");
    /// # let skb = pool.alloc_rx()?;
    /// sockets.deliver(Udp, 9, skb).map_err(|(reason, _)| reason).unwrap();
    /// assert!(sockets.recv(socket).is_none(), "it is in the backlog");
    ///
    /// // The protocol looks at each packet; this one keeps none back from the queue.
    /// let context = MemallocContext::new(&zone, token, &task);
    /// let processed = owned.release(&context, |skb| Some(skb)).map_err(|_| "in an interrupt")?;
    /// assert_eq!(processed.queued, 1);
    /// assert!(sockets.recv(socket).is_some());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn lock_sock(&self, id: SocketId) -> Option<OwnedSocket<'_, 'm>> {
        let owned = self.state.lock().own(id)?;
        // Only if it is: its end would release the socket of whoever has it.
        owned.then(|| OwnedSocket { table: self, id })
    }
}

/// A socket that one has for oneself; see [`SocketTable::lock_sock`].
///
/// Dropped without being [released](OwnedSocket::release), what is in the backlog goes to the queue, and
/// no handler sees it.
#[must_use = "the socket is released when this is dropped"]
pub struct OwnedSocket<'t, 'm> {
    table: &'t SocketTable<'m>,
    id: SocketId,
}

impl<'m> OwnedSocket<'_, 'm> {
    /// Releases the socket (`release_sock`): processes the backlog first, oldest packet first, by giving
    /// each to `handler`, which keeps it or gives it back for the queue. This is the one place where
    /// backlogs are processed (`sk_backlog_rcv`).
    ///
    /// The handler of a socket that serves the VM runs in a [memalloc scope](Zone::memalloc): what it
    /// allocates to acknowledge a packet may come out of the reserve. That of another does not: its
    /// caller's scope, if he is in one, is all that it has. No lock is held meanwhile; what comes in
    /// goes to the backlog still, up to its bound, so that this ends.
    ///
    /// # Errors
    ///
    /// An interrupt runs, which has no right to anything (M1) and must not be held up: the socket comes
    /// back, and nothing was processed.
    pub fn release<R: RawMutex + Send + Sync>(
        self,
        context: &MemallocContext<'_, R>,
        mut handler: impl FnMut(Skb<'m>) -> Option<Skb<'m>>,
    ) -> Result<Processed, Self> {
        if context.task.in_interrupt() {
            return Err(self);
        }
        let processed = self.process(|table, skb| {
            let mut state = table.state.lock();
            let entitled = state.is_vmio(self.id) && !state.off(Mechanism::BacklogScope);
            drop(state);
            let _scope = entitled.then(|| context.zone.memalloc(&context.token));
            handler(skb)
        });
        core::mem::forget(self);
        Ok(processed)
    }

    /// The socket.
    #[must_use]
    pub fn id(&self) -> SocketId {
        self.id
    }

    fn process(
        &self,
        mut handler: impl FnMut(&SocketTable<'m>, Skb<'m>) -> Option<Skb<'m>>,
    ) -> Processed {
        let (table, id) = (self.table, self.id);
        let mut processed = Processed::default();
        loop {
            let mut state = table.state.lock();
            let Some((skb, vmio)) = state.pop_backlog(id) else {
                state.disown(id);
                return processed;
            };
            drop(state);
            let Some(skb) = handler(table, skb) else {
                processed.handled += 1;
                continue;
            };
            let mut state = table.state.lock();
            match state.requeue(id, skb, vmio) {
                Ok(()) => processed.queued += 1,
                Err(skb) => {
                    state.count_dropped(1);
                    drop(state);
                    drop(skb);
                    processed.dropped += 1;
                }
            }
        }
    }
}

impl Drop for OwnedSocket<'_, '_> {
    fn drop(&mut self) {
        self.process(|_, skb| Some(skb));
    }
}

impl fmt::Debug for OwnedSocket<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnedSocket")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}
