//! Who on the link has which hardware address.
//!
//! A flood of strangers' ARP or neighbour discovery fills any cache. The entry of a server that swap
//! goes to must not be what makes room: to ask for its address again takes a round trip, a buffer, and
//! somebody who listens.

use core::fmt;
use core::time::Duration;

use lock_api::Mutex;
use mempool::CriticalSection;

use crate::ablation::{Ablation, Mechanism};
use crate::lru::{Kind, Lru, LruSlot};
use crate::probe::Keyed;
use crate::{FlowTable, Neighbour};

/// A bounded cache of neighbours, of IPv4 and IPv6 alike, in which those that a VMIO flow depends on
/// are pinned (N8).
///
/// A neighbour is pinned for as long as the table of flows says that it is a
/// [peer](FlowTable::is_peer): nobody has to remember to pin or unpin it. The least recently used of the
/// others makes room, for others and for peers.
///
/// **Bound (N4).** It holds `slots` entries in storage of the caller's, and nothing of the reserve: no
/// packet waits in it for an address. With more slots than the table of flows can have peers
/// ([`FlowTable::max_peers`]) there is always room for a peer, and with those that are left over for
/// strangers.
///
/// **smoltcp** keeps a cache of its own, of a few entries, which anybody may evict. It is protected from
/// outside: the [drop ladder](crate::Ingress) never lets ARP or neighbour discovery of strangers in.
/// This one is for stacks that share a card with others, and must answer strangers as well.
///
/// Shared by reference. O(1), if addresses are not chosen to collide; where entries have become peers
/// since they were learned, O(of those) once more.
///
/// ```
/// use core::net::{Ipv4Addr, SocketAddrV4};
/// use core::time::Duration;
/// use netreserve::{Flow, FlowTable, Hardware, LruSlot, NeighbourCache, Slot};
///
/// let (mut flows, mut addrs) = ([const { Slot::EMPTY }; 4], [const { Slot::EMPTY }; 4]);
/// let flows = FlowTable::new(&mut flows, &mut addrs);
/// let mut slots = [const { LruSlot::EMPTY }; 8];
/// let cache = NeighbourCache::new(&mut slots, &flows, Duration::from_secs(60));
///
/// let (local, server) = (Ipv4Addr::new(10, 0, 2, 15), Ipv4Addr::new(10, 0, 2, 2));
/// flows.add(Flow::tcp(SocketAddrV4::new(local, 700), SocketAddrV4::new(server, 2049)))?;
/// let now = Duration::from_secs(1); // since boot
/// cache.learn(server, [2, 0, 0, 0, 0, 2], now)?;
/// for stranger in 100..200 {
///     cache.learn(Ipv4Addr::new(10, 0, 2, stranger), [2; 6], now)?;
/// }
/// assert_eq!(cache.lookup(server, now), Hardware::Known([2, 0, 0, 0, 0, 2]));
/// assert_eq!(cache.lookup(Ipv4Addr::new(10, 0, 2, 100), now), Hardware::Unknown);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct NeighbourCache<'m> {
    flows: &'m FlowTable<'m>,
    reachable: Duration,
    state: Mutex<CriticalSection, State<'m>>,
}

struct State<'m> {
    entries: Lru<'m, NeighbourEntry>,
    stats: NeighbourStats,
    ablation: Ablation,
}

/// A neighbour of which something was heard: what an [`LruSlot`] of a [`NeighbourCache`] holds.
#[derive(Debug, Clone)]
pub struct NeighbourEntry {
    neighbour: Neighbour,
    hardware: [u8; 6],
    confirmed: Duration,
}

impl Keyed for NeighbourEntry {
    type Key = Neighbour;

    fn key(&self) -> Neighbour {
        self.neighbour
    }

    fn hash(neighbour: Neighbour) -> u32 {
        neighbour.hash()
    }
}

/// What is known of a neighbour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Hardware {
    /// Its address.
    Known([u8; 6]),
    /// Its address when it was heard of last, longer ago than neighbours are taken to be reachable:
    /// to be used, and asked for again.
    Stale([u8; 6]),
    /// Nothing: it must be asked for.
    Unknown,
}

/// What became of the neighbours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct NeighbourStats {
    /// Entries.
    pub entries: usize,
    /// Entries that were evicted to make room.
    pub evicted: u64,
    /// Neighbours that were not learned, because all entries were pinned.
    pub refused: u64,
}

impl<'m> NeighbourCache<'m> {
    /// An empty cache of `slots.len()` entries at most. Neighbours are taken to be reachable for as
    /// long as `reachable` after they were heard of. O(slots).
    #[must_use]
    pub fn new(
        slots: &'m mut [LruSlot<NeighbourEntry>],
        flows: &'m FlowTable<'m>,
        reachable: Duration,
    ) -> Self {
        NeighbourCache {
            flows,
            reachable,
            state: Mutex::new(State {
                entries: Lru::new(slots),
                stats: NeighbourStats::default(),
                ablation: Ablation::NONE,
            }),
        }
    }

    /// A neighbour said that it has an address: by ARP or neighbour discovery. `now` is any time that
    /// does not go back. Whoever hears rumours decides whom to believe: this takes what it is told.
    ///
    /// # Errors
    ///
    /// [`NeighbourError`]: every entry is pinned, so that there is no room for it; nothing has changed.
    pub fn learn(
        &self,
        neighbour: impl Into<Neighbour>,
        hardware: [u8; 6],
        now: Duration,
    ) -> Result<(), NeighbourError> {
        let neighbour = neighbour.into();
        let kind = self.kind(neighbour);
        let mut state = self.state.lock();
        let entry = NeighbourEntry {
            neighbour,
            hardware,
            confirmed: now,
        };
        if let Some(index) = state.entries.find(neighbour) {
            state.entries.touch(index, kind);
            if let Some(known) = state.entries.get_mut(index) {
                *known = entry;
            }
            return Ok(());
        }
        let insert = |state: &mut State<'_>, entry| state.entries.insert(kind, entry).map(drop);
        if let Err(entry) = insert(&mut state, entry) {
            let evicted = self.evict(&mut state);
            if !evicted || insert(&mut state, entry).is_err() {
                state.stats.refused += 1;
                return Err(NeighbourError);
            }
        }
        Ok(())
    }

    /// The hardware address of a neighbour, which somebody is about to send to.
    #[must_use]
    pub fn lookup(&self, neighbour: impl Into<Neighbour>, now: Duration) -> Hardware {
        let neighbour = neighbour.into();
        let kind = self.kind(neighbour);
        let mut state = self.state.lock();
        let Some(index) = state.entries.find(neighbour) else {
            return Hardware::Unknown;
        };
        state.entries.touch(index, kind);
        match state.entries.get(index) {
            Some(entry) if now.saturating_sub(entry.confirmed) <= self.reachable => {
                Hardware::Known(entry.hardware)
            }
            Some(entry) => Hardware::Stale(entry.hardware),
            None => Hardware::Unknown,
        }
    }

    /// Forgets a neighbour, pinned or not; returns whether it was known.
    pub fn forget(&self, neighbour: impl Into<Neighbour>) -> bool {
        let mut state = self.state.lock();
        let index = state.entries.find(neighbour.into());
        index.is_some_and(|index| state.entries.remove(index).is_some())
    }

    /// A snapshot of the counters.
    #[must_use]
    pub fn stats(&self) -> NeighbourStats {
        let state = self.state.lock();
        NeighbourStats {
            entries: state.entries.len(),
            ..state.stats
        }
    }

    /// Entries that it has room for.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.state.lock().entries.capacity()
    }

    /// Switches a mechanism of this cache off, for good. A mechanism of another object changes
    /// nothing.
    #[cfg(feature = "ablation")]
    pub fn ablate(&self, mechanism: Mechanism) {
        self.state.lock().ablation.ablate(mechanism);
    }

    fn kind(&self, neighbour: Neighbour) -> Kind {
        match self.flows.is_peer(neighbour) {
            true => Kind::Vmio,
            false => Kind::Common,
        }
    }

    /// Makes room for one: the least recently used that is no peer goes. What became a peer since it
    /// was used last is put with the peers on the way. Of these one is looked at each time, so that
    /// one which is none any more does not stay for ever.
    fn evict(&self, state: &mut State<'_>) -> bool {
        let common = core::iter::repeat_n(Kind::Common, state.entries.len());
        let vmio = core::iter::repeat_n(Kind::Vmio, state.entries.len());
        for kind in core::iter::once(Kind::Vmio).chain(common).chain(vmio) {
            let Some(index) = state.entries.oldest(kind) else {
                continue;
            };
            let neighbour = state.entries.get(index).map(|entry| entry.neighbour);
            let pinned = neighbour.is_some_and(|neighbour| self.flows.is_peer(neighbour));
            if pinned && !state.ablation.off(Mechanism::PinnedNeighbours) {
                state.entries.touch(index, Kind::Vmio);
            } else {
                state.entries.remove(index);
                state.stats.evicted += 1;
                return true;
            }
        }
        false
    }
}

impl fmt::Debug for NeighbourCache<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NeighbourCache")
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

/// Every entry belongs to a neighbour that VMIO depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct NeighbourError;

impl fmt::Display for NeighbourError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("every neighbour that is known is one that the VM depends on")
    }
}

impl core::error::Error for NeighbourError {}

#[cfg(test)]
mod tests;
