//! Fragments until they are a packet again: the one place that keeps skbs which nobody asked for, and
//! therefore the one that a flood fills first.

mod parse;
mod state;

use core::fmt;
use core::time::Duration;

use lock_api::Mutex;
use mempool::CriticalSection;

use self::parse::Fragment;
pub use self::state::{DatagramEntry, FragmentSlot};
use self::state::{Reassembly as Parts, State, Step};
#[cfg(feature = "ablation")]
use crate::ablation::Mechanism;
use crate::{LruSlot, Medium, Skb, SkbFrags};

/// Puts IPv4 and IPv6 packets together, within a budget of its own.
///
/// It knows no stack: frames of a card go in, and packets come out as [`SkbFrags`], whose head is that of
/// a packet that was never fragmented. The [drop ladder](crate::Ingress) hands up the fragments of VMIO
/// ([`Class::VmioFragment`](crate::Class::VmioFragment)), and leaves those of others unclaimed; a stack
/// that puts packets together itself needs nothing of this.
///
/// **Bound (N4).** All fragments together hold no more than [`high`](ReassemblyLimits::high) bytes of
/// [truesize](Skb::truesize), whatever comes. To make room, whole datagrams are evicted, the oldest
/// first, until `low` is reached; those of VMIO only for others of VMIO, and only as many as must be.
/// Their skbs are free before the new one is taken. The reserve must exceed what may be held here, so
/// that it can overflow and evict at all: `high` goes into [`RxHolders::reassembly`](crate::RxHolders).
///
/// **Emergency skbs.** A fragment in one is taken only if its datagram serves the VM (N2), as whoever
/// [pushes](Reassembly::push) it says of it, or said of another fragment of the same datagram. Charges
/// go with the skbs (N3).
///
/// **Overlaps.** Fragments that overlap end their datagram, over IPv4 as over IPv6 (RFC 5722), and it
/// stays ended until its time is over; a fragment that came twice is ignored.
///
/// Shared by reference. A push takes O(fragments of the datagram), and O(1) in the order in which they
/// were sent, as long as numbers are not chosen to collide; evicting is O(fragments evicted). No skb is
/// freed under the lock.
///
/// ```
/// # use mempool::{Buddy, FrameEntry, ReserveNode, SingleTask, SizedCache, Watermarks, Zone};
/// # use netreserve::{FlowTable, FragmentSlot, LruSlot, Medium, SkbPool};
/// use core::time::Duration;
/// use netreserve::{Reassembly, ReassemblyLimits};
///
/// # let (mut memory, mut table) = (vec![0u8; 17 * mempool::FRAME_SIZE], [FrameEntry::EMPTY; 17]);
/// # let source = <Buddy>::new(&mut memory, &mut table)?;
/// # let task = SingleTask::new();
/// # let zone = <Zone>::new(&source, &task, Watermarks::default())?;
/// # let (rx, tx) = (<ReserveNode>::new("rx"), <ReserveNode>::new("tx"));
/// # let cache = <SizedCache>::new("skb", &zone, 2016, 0)?;
/// # let flows = FlowTable::new(&mut [], &mut []);
/// # let pool = SkbPool::new(&cache, &rx, &tx, &flows, zone.claim_memalloc().unwrap());
/// let datagrams = [const { LruSlot::EMPTY }; 8];
/// let fragments = [const { FragmentSlot::EMPTY }; 32];
/// # let (mut datagrams, mut fragments) = (datagrams, core::mem::ManuallyDrop::new(fragments));
/// let limits = ReassemblyLimits::new(16 * 2016);
/// let reassembly = Reassembly::new(&mut datagrams, &mut fragments[..], limits, Medium::Ip);
///
/// // Two fragments of a packet of 16 bytes of payload, the last one first.
/// let fragment = |field: u16, payload: &[u8]| {
///     let mut packet = vec![0x45, 0, 0, 20 + payload.len() as u8, 0, 7];
///     packet.extend(field.to_be_bytes());
///     packet.extend([64, 17, 0, 0, 10, 0, 0, 2, 10, 0, 0, 1]);
///     packet.extend(payload);
///     packet
/// };
/// let receive = |packet: Vec<u8>| {
///     let mut skb = pool.alloc_rx()?;
///     skb.put(packet.len())?.copy_from_slice(&packet);
///     let vmio = false; // as the ladder found
///     Ok::<_, Box<dyn std::error::Error>>(
///         reassembly.push(skb, vmio, Duration::ZERO).map_err(|(error, _)| error)?,
///     )
/// };
/// assert!(receive(fragment(1, b"fragment"))?.is_none());
/// let packet = receive(fragment(0x2000, b"first - "))?.expect("it is complete");
/// let packet = packet.into_frags::<4>().map_err(|_| "more than 5 pieces")?;
/// let mut payload = [0; 16];
/// packet.copy_bits(20, &mut payload)?;
/// assert_eq!(&payload, b"first - fragment");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Reassembly<'m> {
    medium: Medium,
    state: Mutex<CriticalSection, State<'m>>,
}

/// What reassembly may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct ReassemblyLimits {
    /// Bytes of truesize that are never exceeded (`ipfrag_high_thresh`).
    pub high: usize,
    /// Bytes that are left when datagrams had to be evicted (`ipfrag_low_thresh`); no more than `high`.
    pub low: usize,
    /// How long a datagram may wait for the rest of it (`ipfrag_time`).
    pub timeout: Duration,
    /// Fragments that a datagram may consist of.
    pub fragments: usize,
}

// RFC 8200: 1280 bytes of which 48 are headers.
const _: () = assert!(ReassemblyLimits::FRAGMENTS * (1280 - 48) > u16::MAX as usize);

impl ReassemblyLimits {
    /// Fragments of 64 KiB over the narrowest line of IPv6, with 1232 bytes each.
    pub const FRAGMENTS: usize = 54;

    /// `high` bytes, three quarters of which are left after an eviction; 30 seconds, 54 fragments.
    #[must_use]
    pub const fn new(high: usize) -> Self {
        ReassemblyLimits {
            high,
            low: high - high / 4,
            timeout: Duration::from_secs(30),
            fragments: Self::FRAGMENTS,
        }
    }
}

/// What became of fragments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct ReassemblyStats {
    /// Datagrams of which something is here, or which have ended early and are remembered.
    pub datagrams: usize,
    /// Fragments that are here.
    pub fragments: usize,
    /// Bytes of truesize that they hold.
    pub bytes: usize,
    /// The most bytes at once.
    pub peak: usize,
    /// Packets that were completed.
    pub completed: u64,
    /// Datagrams that timed out.
    pub timed_out: u64,
    /// Datagrams that were evicted to make room.
    pub evicted: u64,
    /// Of those, datagrams of VMIO. Anything but 0 means that the budget is too small for what the
    /// server sends at once.
    pub evicted_vmio: u64,
    /// Datagrams that ended because their fragments contradict each other.
    pub contradictory: u64,
    /// Fragments that were refused.
    pub refused: u64,
}

impl<'m> Reassembly<'m> {
    /// Room for `datagrams.len()` datagrams in `fragments.len()` fragments, of cards of a medium.
    /// O(slots).
    #[must_use]
    pub fn new(
        datagrams: &'m mut [LruSlot<DatagramEntry>],
        fragments: &'m mut [FragmentSlot<'m>],
        limits: ReassemblyLimits,
        medium: Medium,
    ) -> Self {
        Reassembly {
            medium,
            state: Mutex::new(State::new(datagrams, fragments, limits)),
        }
    }

    /// Takes a received fragment, and returns the packet if it is complete with it. `vmio` says that
    /// it belongs to a packet that serves the VM. `now` is any time that does not go back.
    ///
    /// A driver hands in skbs that nobody [shares](Skb::is_shared).
    ///
    /// # Errors
    ///
    /// [`ReassemblyError`]; the skb comes back, to be dropped and counted.
    pub fn push(
        &self,
        mut skb: Skb<'m>,
        vmio: bool,
        now: Duration,
    ) -> Result<Option<Reassembled<'_, 'm>>, (ReassemblyError, Skb<'m>)> {
        let fragment = match Fragment::read(skb.data(), self.medium) {
            Ok(_) if skb.is_shared() => Err(ReassemblyError::Shared),
            Ok(fragment) => Ok(fragment),
            Err(error) => Err(error),
        };
        let fragment = match fragment {
            Ok(fragment) => fragment,
            Err(error) => {
                self.state.lock().refused();
                return Err((error, skb));
            }
        };
        // Ethernet pads short frames; the padding is not part of them.
        let _ = skb.trim(fragment.header + fragment.len);
        loop {
            let mut state = self.state.lock();
            let step = state.push(&fragment, skb, vmio, now);
            drop(state);
            match step {
                Step::Taken => return Ok(None),
                Step::Complete(parts) => return Ok(Some(Reassembled { table: self, parts })),
                // Freed before the next is taken, so that the budget is kept by what is really held.
                Step::Free { doomed, pushed } => {
                    drop(doomed);
                    skb = pushed;
                }
                Step::Refused(error, skb) => {
                    self.free_doomed();
                    return Err((error, skb));
                }
            }
        }
    }

    /// Ends datagrams whose time is over; to be called at [`next_deadline`](Reassembly::next_deadline).
    /// O(fragments of these).
    pub fn expire(&self, now: Duration) {
        self.state.lock().expire(now);
        self.free_doomed();
    }

    /// When the oldest datagram times out.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Duration> {
        self.state.lock().next_deadline()
    }

    /// What it may hold.
    #[must_use]
    pub fn limits(&self) -> ReassemblyLimits {
        self.state.lock().limits()
    }

    /// Changes what it may hold. What exceeds it now is evicted first. To hold more, the reserve must
    /// have grown before: see [`RxLimits`](crate::RxLimits).
    pub fn set_limits(&self, limits: ReassemblyLimits) {
        self.state.lock().set_limits(limits);
        self.free_doomed();
    }

    /// A snapshot of the counters.
    #[must_use]
    pub fn stats(&self) -> ReassemblyStats {
        self.state.lock().stats()
    }

    /// Frees everything; of a host that goes down, or whose link does. O(fragments).
    pub fn clear(&self) {
        self.state.lock().clear();
        self.free_doomed();
    }

    /// Switches a mechanism of this object off, for good. A mechanism of another object changes
    /// nothing.
    #[cfg(feature = "ablation")]
    pub fn ablate(&self, mechanism: Mechanism) {
        self.state.lock().ablate(mechanism);
    }

    fn free_doomed(&self) {
        loop {
            let doomed = self.state.lock().pop_doomed();
            if doomed.is_none() {
                return;
            }
            drop(doomed);
        }
    }
}

impl fmt::Debug for Reassembly<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reassembly")
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

/// A complete packet, still in its place: it counts there until its pieces are taken out, or it is
/// dropped.
#[must_use = "the packet is freed when this is dropped"]
pub struct Reassembled<'t, 'm> {
    table: &'t Reassembly<'m>,
    parts: Parts,
}

impl<'m> Reassembled<'_, 'm> {
    /// Bytes of payload behind the IP header.
    #[must_use]
    pub fn payload(&self) -> usize {
        self.parts.payload
    }

    /// Skbs that it lies in.
    #[must_use]
    pub fn pieces(&self) -> usize {
        self.parts.count
    }

    /// Whether any fragment was said to serve the VM.
    #[must_use]
    pub fn is_vmio(&self) -> bool {
        self.parts.vmio
    }

    /// The packet, with the link header of its first fragment. O(pieces).
    ///
    /// # Errors
    ///
    /// It has more than `1 + N` pieces; it comes back.
    pub fn into_frags<const N: usize>(mut self) -> Result<SkbFrags<'m, N>, Self> {
        if self.parts.count > 1 + N {
            return Err(self);
        }
        let Some(first) = self.next_piece() else {
            return Err(self);
        };
        let mut packet = SkbFrags::new(first);
        while let Some(piece) = self.next_piece() {
            if packet.push_frag(piece).is_err() {
                return Err(self);
            }
        }
        Ok(packet)
    }

    /// The next piece: the first has the headers, the others have payload alone. For those who have
    /// no room for all of them.
    pub fn next_piece(&mut self) -> Option<Skb<'m>> {
        self.table.state.lock().take_piece(&mut self.parts)
    }
}

impl Drop for Reassembled<'_, '_> {
    fn drop(&mut self) {
        while let Some(piece) = self.next_piece() {
            drop(piece);
        }
    }
}

impl fmt::Debug for Reassembled<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reassembled")
            .field("payload", &self.payload())
            .field("pieces", &self.pieces())
            .finish_non_exhaustive()
    }
}

/// Why a fragment was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum ReassemblyError {
    /// It is none: a whole packet, or no IP packet.
    NoFragment,
    /// A header cannot be read, it carries nothing, or it would make its packet too long.
    Malformed,
    /// Other skbs share its bytes.
    Shared,
    /// Its memory came out of the reserve, and its datagram does not serve the VM.
    Emergency,
    /// It came before.
    Duplicate,
    /// It overlaps another one of its datagram, or they disagree about where it ends; or they did
    /// earlier. The datagram has ended.
    Contradictory,
    /// Its datagram would consist of too many. The datagram has ended.
    TooManyFragments,
    /// There is no room, and none can be made for it. The datagram has ended.
    Full,
}

impl fmt::Display for ReassemblyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ReassemblyError::NoFragment => "it is not a fragment",
            ReassemblyError::Malformed => "the headers of the fragment cannot be",
            ReassemblyError::Shared => "other packets share the bytes",
            ReassemblyError::Emergency => "a fragment of a stranger lies in the reserve",
            ReassemblyError::Duplicate => "the fragment came before",
            ReassemblyError::Contradictory => "the fragments contradict each other",
            ReassemblyError::TooManyFragments => "the datagram consists of too many fragments",
            ReassemblyError::Full => "fragments hold as much as they may",
        })
    }
}

impl core::error::Error for ReassemblyError {}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
