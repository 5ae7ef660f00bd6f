//! The medium between the machine's network card and the rest of its network.
//!
//! Two bounded queues of Ethernet frames, one for each direction, in memory that is allocated once
//! and is not the machine's. Each end has a descriptor to block on with `poll(2)`. A switch shares
//! the medium fairly: traffic unrelated to the swap may fill three quarters of the way to the
//! machine and no more, so that a flood takes the machine's memory and time, but never loses a
//! frame of the swap traffic before the machine has seen it. Such a loss would be the network's
//! fault, and would prove nothing about the machine.

pub(crate) mod event;

use core::net::Ipv4Addr;
use core::sync::atomic::{AtomicU64, Ordering};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use smoltcp::wire::EthernetAddress;

pub(crate) use self::event::EventFd;

/// The machine's address.
pub(crate) const MACHINE_IP: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);
/// The machine's hardware address.
pub(crate) const MACHINE_MAC: EthernetAddress = EthernetAddress([2, 0, 10, 0, 2, 15]);
/// The router's address, behind which the servers are.
pub(crate) const GATEWAY_IP: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
/// The router's hardware address.
pub(crate) const GATEWAY_MAC: EthernetAddress = EthernetAddress([2, 0, 10, 0, 2, 2]);
/// Bits of the network's prefix.
pub(crate) const PREFIX_LEN: u8 = 24;
/// Bytes of an IP packet.
pub(crate) const MTU: usize = 1500;
/// Bytes of the longest frame: an IP packet, the Ethernet header and one VLAN tag.
pub(crate) const FRAME_MAX: usize = MTU + 14 + 4;

/// Frames that wait in one direction.
const CAPACITY: usize = 4096;
/// Frames on the way to the machine from which on unrelated traffic is refused.
const UNRELATED_LIMIT: usize = CAPACITY / 4 * 3;

/// Both directions of the medium.
#[derive(Debug)]
pub(crate) struct Wire {
    to_machine: Lane,
    from_machine: Lane,
    completions: Completions,
    refused: AtomicU64,
    unrelated_refused: AtomicU64,
    transmit_refused: AtomicU64,
}

/// What went over the wire so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct WireStats {
    /// To the machine, unrelated traffic included.
    pub(crate) to_machine: Traffic,
    /// From the machine, as far as the gateway took it.
    pub(crate) from_machine: Traffic,
    /// Frames of the swap traffic for which the way to the machine had no room. Anything but 0
    /// spoils the experiment.
    pub(crate) refused: u64,
    /// Unrelated frames for which it had none.
    pub(crate) unrelated_refused: u64,
    /// Frames from the machine for which there was no room.
    pub(crate) transmit_refused: u64,
}

/// A number of frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Traffic {
    /// How many.
    pub(crate) frames: u64,
    /// Their bytes, Ethernet headers included.
    pub(crate) bytes: u64,
}

impl Wire {
    /// An idle wire.
    ///
    /// # Errors
    ///
    /// If the system has no descriptor left.
    pub(crate) fn new() -> io::Result<Wire> {
        Ok(Wire {
            to_machine: Lane::new()?,
            from_machine: Lane::new()?,
            completions: Completions::new()?,
            refused: AtomicU64::new(0),
            unrelated_refused: AtomicU64::new(0),
            transmit_refused: AtomicU64::new(0),
        })
    }

    /// What happened so far.
    pub(crate) fn stats(&self) -> WireStats {
        WireStats {
            to_machine: self.to_machine.taken(),
            from_machine: self.from_machine.taken(),
            refused: self.refused.load(Ordering::Relaxed),
            unrelated_refused: self.unrelated_refused.load(Ordering::Relaxed),
            transmit_refused: self.transmit_refused.load(Ordering::Relaxed),
        }
    }
}

/// The machine's end.
impl Wire {
    /// Shows `copy` the oldest frame that came in and removes it; false if there is none.
    ///
    /// The wire is locked meanwhile: `copy` should only copy.
    pub(crate) fn take_for_machine(&self, copy: impl FnOnce(&[u8])) -> bool {
        self.to_machine.pop(copy)
    }

    /// Frames that came in and were not taken.
    pub(crate) fn waiting_for_machine(&self) -> usize {
        self.to_machine.len()
    }

    /// Readable while [`Wire::take_for_machine`] has a frame to give.
    pub(crate) fn machine_fd(&self) -> BorrowedFd<'_> {
        self.to_machine.ready.as_fd()
    }

    /// Sends a frame of at most [`FRAME_MAX`] bytes; false if the gateway is too far behind.
    ///
    /// The frame's memory is to be kept until [`Wire::tx_completed`] has counted it, as with a card
    /// that reads memory by itself.
    #[must_use]
    pub(crate) fn send_from_machine(&self, frame: &[u8]) -> bool {
        let sent = self.from_machine.push(frame, CAPACITY);
        count_refusal(sent, &self.transmit_refused)
    }

    /// How many frames the gateway has taken since the start: that many of the oldest that were
    /// sent are done with.
    pub(crate) fn tx_completed(&self) -> u64 {
        self.completions.look()
    }

    /// Readable while [`Wire::tx_completed`] would return more than it did the last time.
    pub(crate) fn completion_fd(&self) -> BorrowedFd<'_> {
        self.completions.event.as_fd()
    }
}

/// The network's end.
impl Wire {
    /// Sends a frame of the swap traffic, of at most [`FRAME_MAX`] bytes; false if the way is full.
    #[must_use]
    pub(crate) fn send_to_machine(&self, frame: &[u8]) -> bool {
        let sent = self.to_machine.push(frame, CAPACITY);
        count_refusal(sent, &self.refused)
    }

    /// Sends an unrelated frame, of at most [`FRAME_MAX`] bytes; false if three quarters of the way
    /// are full.
    #[must_use]
    pub(crate) fn send_unrelated(&self, frame: &[u8]) -> bool {
        let sent = self.to_machine.push(frame, UNRELATED_LIMIT);
        count_refusal(sent, &self.unrelated_refused)
    }

    /// Whether [`Wire::send_to_machine`] has room. For its only caller this stays true until it
    /// sends: unrelated traffic never takes the last place.
    pub(crate) fn has_room(&self) -> bool {
        self.to_machine.has_room()
    }

    /// Shows `copy` the oldest frame from the machine and removes it; false if there is none.
    ///
    /// The wire is locked meanwhile: `copy` should only copy.
    pub(crate) fn take_from_machine(&self, copy: impl FnOnce(&[u8])) -> bool {
        let taken = self.from_machine.pop(copy);
        if taken {
            self.completions.add_one();
        }
        taken
    }

    /// Frames from the machine that were not taken.
    pub(crate) fn waiting_for_gateway(&self) -> usize {
        self.from_machine.len()
    }

    /// Readable while [`Wire::take_from_machine`] has a frame to give.
    pub(crate) fn gateway_fd(&self) -> BorrowedFd<'_> {
        self.from_machine.ready.as_fd()
    }
}

/// Locks `mutex` whether or not somebody panicked while holding it. The standard library's, because
/// waiting for it takes nothing from the heap: the machine does that on its swap path.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn count_refusal(sent: bool, refused: &AtomicU64) -> bool {
    if !sent {
        refused.fetch_add(1, Ordering::Relaxed);
    }
    sent
}

/// One direction.
#[derive(Debug)]
struct Lane {
    ring: Mutex<Ring>,
    /// Set while frames wait; changed only under the lock.
    ready: EventFd,
}

#[derive(Debug)]
struct Ring {
    slots: Box<[Slot]>,
    /// The oldest frame.
    head: usize,
    /// Frames that wait.
    len: usize,
    taken: Traffic,
}

#[derive(Debug, Clone)]
struct Slot {
    len: usize,
    bytes: [u8; FRAME_MAX],
}

impl Lane {
    fn new() -> io::Result<Lane> {
        let empty = Slot {
            len: 0,
            bytes: [0; FRAME_MAX],
        };
        Ok(Lane {
            ring: Mutex::new(Ring {
                slots: vec![empty; CAPACITY].into_boxed_slice(),
                head: 0,
                len: 0,
                taken: Traffic::default(),
            }),
            ready: EventFd::new()?,
        })
    }

    /// Adds a frame if fewer than `limit` wait.
    fn push(&self, frame: &[u8], limit: usize) -> bool {
        let mut ring = locked(&self.ring);
        if ring.len >= limit {
            return false;
        }
        let at = (ring.head + ring.len) % CAPACITY;
        let slot = &mut ring.slots[at];
        slot.bytes[..frame.len()].copy_from_slice(frame);
        slot.len = frame.len();
        ring.len += 1;
        if ring.len == 1 {
            self.ready.ring();
        }
        true
    }

    /// Removes the oldest frame.
    fn pop(&self, copy: impl FnOnce(&[u8])) -> bool {
        let mut ring = locked(&self.ring);
        if ring.len == 0 {
            return false;
        }
        let slot = &ring.slots[ring.head];
        let len = slot.len;
        copy(&slot.bytes[..len]);
        ring.head = (ring.head + 1) % CAPACITY;
        ring.len -= 1;
        ring.taken.frames += 1;
        ring.taken.bytes += len as u64;
        if ring.len == 0 {
            self.ready.clear();
        }
        true
    }

    fn len(&self) -> usize {
        locked(&self.ring).len
    }

    fn has_room(&self) -> bool {
        self.len() < CAPACITY
    }

    fn taken(&self) -> Traffic {
        locked(&self.ring).taken
    }
}

/// Frames that left the machine, and whether it knows.
#[derive(Debug)]
struct Completions {
    state: Mutex<Completed>,
    /// Set while there is something new; changed only under the lock.
    event: EventFd,
}

#[derive(Debug)]
struct Completed {
    frames: u64,
    seen: bool,
}

impl Completions {
    fn new() -> io::Result<Completions> {
        Ok(Completions {
            state: Mutex::new(Completed {
                frames: 0,
                seen: true,
            }),
            event: EventFd::new()?,
        })
    }

    fn add_one(&self) {
        let mut state = locked(&self.state);
        state.frames += 1;
        if state.seen {
            state.seen = false;
            self.event.ring();
        }
    }

    fn look(&self) -> u64 {
        let mut state = locked(&self.state);
        if !state.seen {
            state.seen = true;
            self.event.clear();
        }
        state.frames
    }
}

#[cfg(test)]
mod tests {
    use core::time::Duration;
    use std::collections::VecDeque;
    use std::os::fd::BorrowedFd;

    use super::event::{Wait, poll};
    use super::{CAPACITY, FRAME_MAX, Traffic, UNRELATED_LIMIT, Wire};

    fn readable(fd: BorrowedFd<'_>) -> bool {
        let mut waits = [Wait::readable(fd)];
        poll(&mut waits, Some(Duration::ZERO)).unwrap();
        waits[0].is_ready()
    }

    fn receive(wire: &Wire) -> Option<Vec<u8>> {
        let mut frame = Vec::new();
        wire.take_for_machine(|bytes| frame.extend_from_slice(bytes))
            .then_some(frame)
    }

    #[test]
    fn frames_come_out_whole_and_in_order_and_the_descriptor_tells() {
        let wire = Wire::new().unwrap();
        let mut model = VecDeque::new();
        let mut state = 7_u32;
        // More frames than slots, so that the ring turns over several times.
        for round in 0..5 * CAPACITY {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            if state >> 31 == 0 {
                let frame = vec![round as u8; (state >> 8) as usize % (FRAME_MAX + 1)];
                assert!(wire.send_to_machine(&frame));
                model.push_back(frame);
            } else {
                assert_eq!(receive(&wire), model.pop_front());
            }
            assert_eq!(readable(wire.machine_fd()), !model.is_empty());
        }
    }

    #[test]
    fn unrelated_traffic_leaves_a_quarter_of_the_way_to_the_swap_traffic() {
        let wire = Wire::new().unwrap();
        let accepted = (0..CAPACITY)
            .take_while(|_| wire.send_unrelated(b"flood"))
            .count();
        assert_eq!(accepted, UNRELATED_LIMIT);
        for _ in UNRELATED_LIMIT..CAPACITY {
            assert!(wire.has_room());
            assert!(wire.send_to_machine(b"swap"));
        }
        assert!(!wire.has_room());
        assert!(!wire.send_to_machine(b"swap"));
        let stats = wire.stats();
        assert_eq!((stats.refused, stats.unrelated_refused), (1, 1));

        // Unrelated traffic comes back only when its share is free again.
        for _ in UNRELATED_LIMIT..=CAPACITY {
            assert!(!wire.send_unrelated(b"flood"));
            receive(&wire).unwrap();
        }
        assert!(wire.send_unrelated(b"flood"));
    }

    #[test]
    fn a_sent_frame_is_complete_once_the_gateway_took_it() {
        let wire = Wire::new().unwrap();
        assert!(!readable(wire.completion_fd()));
        assert!(wire.send_from_machine(b"one"));
        assert!(wire.send_from_machine(b"two"));
        assert!(readable(wire.gateway_fd()));
        assert_eq!(wire.tx_completed(), 0);

        assert!(wire.take_from_machine(|frame| assert_eq!(frame, b"one")));
        assert!(readable(wire.completion_fd()));
        assert_eq!(wire.tx_completed(), 1);
        assert!(!readable(wire.completion_fd()), "told already");
        assert!(wire.take_from_machine(|frame| assert_eq!(frame, b"two")));
        assert!(readable(wire.completion_fd()));
        assert!(!wire.take_from_machine(|_| unreachable!()));
        assert_eq!(wire.tx_completed(), 2);
        let taken = Traffic {
            frames: 2,
            bytes: 6,
        };
        assert_eq!(wire.stats().from_machine, taken);
    }

    #[test]
    fn a_full_wire_refuses_the_machine_and_counts_it() {
        let wire = Wire::new().unwrap();
        for _ in 0..CAPACITY {
            assert!(wire.send_from_machine(b"frame"));
        }
        assert!(!wire.send_from_machine(b"frame"));
        assert_eq!(wire.stats().transmit_refused, 1);
    }
}
