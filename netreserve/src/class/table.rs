//! The flows that serve the VM, and the addresses that they depend on.

use core::fmt;

use lock_api::{Mutex, RawMutex};
use mempool::CriticalSection;

use super::dhcp::{DhcpClient, Message};
use super::flow::{Flow, Neighbour, VlanId, is_ipv4, is_unicast};
use super::fragment::{Extent, FirstFragment, Fragments, PacketId};
use crate::probe::{Keyed, Probe, Slot};

/// Every VMIO flow of the system, and its peers: the neighbours whose ARP and neighbour discovery are
/// control plane (N8).
///
/// The reserve is open to packets only while there is a flow (N1). A transport adds its flow before
/// the first packet of a connection and removes it after the last (S7). The remote of each flow is
/// a peer by itself; a gateway between must be [added](FlowTable::add_peer), over IPv6 with the
/// link-local address that it advertises itself with.
///
/// What comes for a connection after it was removed (the rest of what the server had sent, and its
/// reset) is a stranger's packet, and so is a reset of ours that answers it: a connection that is given
/// up leaves nothing behind that the new one waits for. If the new one has the same ends, the server
/// may answer its SYN for the old one (RFC 5961, section 4): both that and our reset belong to the
/// flow that was added before the SYN.
///
/// Shared by reference: the lock inside is held for a look-up at a time. Look-ups, additions and
/// removals take O(1) while a quarter of the slots is empty, and never more than O(slots), however many
/// flows there are.
///
/// ```
/// use core::net::{Ipv4Addr, SocketAddrV4};
/// use netreserve::{Flow, FlowError, FlowTable, Slot};
///
/// let (mut flows, mut addrs) = ([const { Slot::EMPTY }; 4], [const { Slot::EMPTY }; 4]);
/// let table = FlowTable::new(&mut flows, &mut addrs);
///
/// let local = SocketAddrV4::new(Ipv4Addr::new(10, 0, 2, 15), 700);
/// let server = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 7), 2049);
/// table.add(Flow::tcp(local, server))?;
/// table.add_peer(Ipv4Addr::new(10, 0, 2, 2))?; // the gateway to it
/// assert!(table.any() && table.is_peer(*server.ip()));
///
/// table.remove(Flow::tcp(local, server))?;
/// assert_eq!(table.remove(Flow::tcp(local, server)), Err(FlowError::Absent));
/// # Ok::<(), FlowError>(())
/// ```
pub struct FlowTable<'m, R = CriticalSection> {
    state: Mutex<R, State<'m>>,
}

struct State<'m> {
    flows: Probe<'m, Flow>,
    addrs: Probe<'m, AddrEntry>,
    /// Flows over IPv6 among them.
    ipv6: usize,
    fragments: Fragments<'m>,
    dhcp: Option<DhcpClient>,
}

/// An address that VMIO flows depend on: what a [`Slot`] of a [`FlowTable`] holds.
#[derive(Debug, Clone)]
pub struct AddrEntry {
    neighbour: Neighbour,
    /// Flows that it is the remote of, and the local end of.
    remotes: u32,
    locals: u32,
    /// By [`FlowTable::add_peer`].
    added: bool,
}

impl Keyed for AddrEntry {
    type Key = Neighbour;

    #[inline]
    fn key(&self) -> Neighbour {
        self.neighbour
    }

    #[inline]
    fn hash(neighbour: Neighbour) -> u32 {
        neighbour.hash()
    }
}

impl<'m> FlowTable<'m> {
    /// An empty table: at most `flows.len()` flows, and `addrs.len()` different addresses among their
    /// ends and the peers that are added: 3 for a server behind a gateway.
    #[must_use]
    pub fn new(flows: &'m mut [Slot<Flow>], addrs: &'m mut [Slot<AddrEntry>]) -> Self {
        FlowTable::with_lock(flows, addrs)
    }
}

impl<'m, R: RawMutex> FlowTable<'m, R> {
    /// As [`new`](FlowTable::new), behind a lock of the caller's choice.
    #[must_use]
    pub fn with_lock(flows: &'m mut [Slot<Flow>], addrs: &'m mut [Slot<AddrEntry>]) -> Self {
        FlowTable {
            state: Mutex::new(State {
                flows: Probe::new(flows),
                addrs: Probe::new(addrs),
                ipv6: 0,
                fragments: Fragments::new(&mut []),
                dhcp: None,
            }),
        }
    }

    /// Lets fragments of VMIO in and out, `slots.len()` packets at a time, both directions together.
    ///
    /// Only the first fragment of a packet has ports. It is remembered, so that those which follow are
    /// known: until as many others have begun, or 64 KiB of fragments have come. What comes before the
    /// first one is refused, and what overlaps it; the sender repeats the packet. A stranger's fragments
    /// change nothing here, unless they come from the same address under the same identification: whose
    /// the others are is in doubt then, and they are refused. Without slots, as the table is made, all fragments are refused.
    ///
    /// Whoever puts the packets together holds their fragments meanwhile, and needs a bound (N4).
    ///
    /// ```
    /// use netreserve::{FlowTable, FirstFragment};
    ///
    /// let mut slots = [const { FirstFragment::EMPTY }; 16];
    /// let table = FlowTable::new(&mut [], &mut []).with_fragments(&mut slots);
    /// ```
    #[must_use]
    pub fn with_fragments(mut self, slots: &'m mut [FirstFragment]) -> Self {
        self.state.get_mut().fragments = Fragments::new(slots);
        self
    }

    /// Tags a flow as VMIO, from its next packet on.
    ///
    /// # Errors
    ///
    /// [`FlowError::Families`] or [`FlowError::NotUnicast`] if there is no such flow,
    /// [`FlowError::Present`] if it is tagged already, [`FlowError::Full`] if no slot is left for it or
    /// for its addresses. Nothing has changed then.
    pub fn add(&self, flow: Flow) -> Result<(), FlowError> {
        if is_ipv4(flow.local_addr()) != is_ipv4(flow.remote_addr()) {
            return Err(FlowError::Families);
        }
        if !is_unicast(flow.local_addr()) || !is_unicast(flow.remote_addr()) {
            return Err(FlowError::NotUnicast);
        }
        let mut state = self.state.lock();
        if state.flows.get(flow).is_some() {
            return Err(FlowError::Present);
        }
        let ends = [flow.local_neighbour(), flow.remote_neighbour()];
        let distinct = &ends[..if ends[0] == ends[1] { 1 } else { 2 }];
        let unknown = |end: &&Neighbour| state.addrs.get(**end).is_none();
        if state.flows.free() == 0 || state.addrs.free() < distinct.iter().filter(unknown).count() {
            return Err(FlowError::Full);
        }
        state.ipv6 += usize::from(!is_ipv4(flow.remote_addr()));
        // There is room for all three.
        let _ = state.flows.insert(flow);
        state.addr(ends[0]).expect("counted above").locals += 1;
        state.addr(ends[1]).expect("counted above").remotes += 1;
        Ok(())
    }

    /// Clears the tag of a flow, and forgets which of its packets are under way in fragments. O(slots for
    /// fragments).
    ///
    /// # Errors
    ///
    /// [`FlowError::Absent`] if it was not tagged.
    pub fn remove(&self, flow: Flow) -> Result<(), FlowError> {
        let mut state = self.state.lock();
        state.flows.remove(flow).ok_or(FlowError::Absent)?;
        state.fragments.end_flow(flow);
        state.ipv6 -= usize::from(!is_ipv4(flow.remote_addr()));
        state.release(flow.local_neighbour(), |entry| entry.locals -= 1);
        state.release(flow.remote_neighbour(), |entry| entry.remotes -= 1);
        Ok(())
    }

    /// Makes a neighbour a peer: a gateway on the way to a server.
    ///
    /// # Errors
    ///
    /// [`FlowError::NotUnicast`] if no host can have that address, [`FlowError::Present`] if it was
    /// added already, [`FlowError::Full`] if no slot is left.
    pub fn add_peer(&self, peer: impl Into<Neighbour>) -> Result<(), FlowError> {
        let peer = peer.into();
        if !is_unicast(peer.addr) {
            return Err(FlowError::NotUnicast);
        }
        let mut state = self.state.lock();
        let entry = state.addr(peer).ok_or(FlowError::Full)?;
        if core::mem::replace(&mut entry.added, true) {
            return Err(FlowError::Present);
        }
        Ok(())
    }

    /// Takes back [`add_peer`](FlowTable::add_peer). The remote of a flow stays a peer.
    ///
    /// # Errors
    ///
    /// [`FlowError::Absent`] if it was not added.
    pub fn remove_peer(&self, peer: impl Into<Neighbour>) -> Result<(), FlowError> {
        let peer = peer.into();
        let mut state = self.state.lock();
        if !state.addrs.get(peer).is_some_and(|entry| entry.added) {
            return Err(FlowError::Absent);
        }
        state.release(peer, |entry| entry.added = false);
        Ok(())
    }

    /// Makes the messages of a DHCP client control plane: for a system whose swap stack renews the lease
    /// of the address that its flows are from. Answers must be to such an address, or to everybody.
    /// Another client takes the place of the one before.
    pub fn allow_dhcp(&self, client: DhcpClient) {
        self.state.lock().dhcp = Some(client);
    }

    /// Takes back [`allow_dhcp`](FlowTable::allow_dhcp).
    pub fn forbid_dhcp(&self) {
        self.state.lock().dhcp = None;
    }

    /// Whether there is any VMIO flow. O(1).
    #[must_use]
    pub fn any(&self) -> bool {
        self.state.lock().flows.len() > 0
    }

    /// The most neighbours that can be peers at once.
    #[must_use]
    pub fn max_peers(&self) -> usize {
        let state = self.state.lock();
        state.addrs.free() + state.addrs.len()
    }

    /// How many VMIO flows there are. O(1).
    #[must_use]
    pub fn count(&self) -> usize {
        self.state.lock().flows.len()
    }

    /// Whether `flow` is tagged.
    #[must_use]
    #[inline]
    pub fn contains(&self, flow: Flow) -> bool {
        self.state.lock().flows.get(flow).is_some()
    }

    /// Whether a VMIO flow depends on a neighbour: it is the remote of one, or was
    /// [added](FlowTable::add_peer).
    #[must_use]
    pub fn is_peer(&self, neighbour: impl Into<Neighbour>) -> bool {
        self.addr(neighbour.into())
            .is_some_and(|entry| entry.remotes > 0 || entry.added)
    }

    /// Whether it is our own address, at our end of a VMIO flow.
    #[must_use]
    pub fn is_local(&self, neighbour: impl Into<Neighbour>) -> bool {
        self.addr(neighbour.into())
            .is_some_and(|entry| entry.locals > 0)
    }

    /// Whether there is any VMIO flow over IPv6.
    pub(super) fn any_ipv6(&self) -> bool {
        self.state.lock().ipv6 > 0
    }

    /// See [`Fragments::begin`].
    pub(super) fn begin_fragments(&self, id: PacketId, flow: Flow, first: Extent) -> bool {
        self.state.lock().fragments.begin(id, flow, first)
    }

    /// See [`Fragments::end`].
    pub(super) fn end_fragments(&self, id: PacketId) {
        self.state.lock().fragments.end(id);
    }

    /// Whether there is a place for any: see [`with_fragments`](Self::with_fragments).
    pub(crate) fn remembers_fragments(&self) -> bool {
        self.state.lock().fragments.any_place()
    }

    /// See [`Fragments::goes_on`].
    pub(super) fn fragment_goes_on(&self, id: PacketId, part: Extent) -> bool {
        self.state.lock().fragments.goes_on(id, part)
    }

    /// Whether a message is one of the client that was allowed, or for it.
    pub(super) fn is_dhcp(&self, message: &Message, vlan: Option<VlanId>) -> bool {
        let client = self.state.lock().dhcp;
        client.is_some_and(|client| client.is_in(message, vlan))
    }

    fn addr(&self, neighbour: Neighbour) -> Option<AddrEntry> {
        self.state.lock().addrs.get(neighbour).cloned()
    }
}

impl State<'_> {
    /// The entry of an address, made if need be; `None` if no slot is left.
    fn addr(&mut self, neighbour: Neighbour) -> Option<&mut AddrEntry> {
        if self.addrs.get(neighbour).is_none() {
            let entry = AddrEntry {
                neighbour,
                remotes: 0,
                locals: 0,
                added: false,
            };
            self.addrs.insert(entry).ok()?;
        }
        self.addrs.get_mut(neighbour)
    }

    /// Changes the entry of an address, and frees it when nobody depends on it any more.
    fn release(&mut self, neighbour: Neighbour, change: impl FnOnce(&mut AddrEntry)) {
        if let Some(entry) = self.addrs.get_mut(neighbour) {
            change(entry);
            if (entry.remotes, entry.locals, entry.added) == (0, 0, false) {
                self.addrs.remove(neighbour);
            }
        }
    }
}

impl<R> fmt::Debug for FlowTable<'_, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FlowTable").finish_non_exhaustive()
    }
}

/// Why the flow table was not changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum FlowError {
    /// Every slot is taken.
    Full,
    /// It is in the table already.
    Present,
    /// It is not in the table.
    Absent,
    /// One end has an address of IPv4, and the other one of IPv6.
    Families,
    /// An unspecified, multicast or broadcast address: no host has it.
    NotUnicast,
}

impl fmt::Display for FlowError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FlowError::Full => "the flow table is full",
            FlowError::Present => "it is in the flow table already",
            FlowError::Absent => "it is not in the flow table",
            FlowError::Families => "a flow is over IPv4 or over IPv6, not between them",
            FlowError::NotUnicast => "not the address of a host",
        })
    }
}

impl core::error::Error for FlowError {}

#[cfg(test)]
mod tests;
