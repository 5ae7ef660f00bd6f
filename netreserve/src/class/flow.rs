//! The flows that serve the VM, and the neighbours that they depend on.

use core::fmt;
use core::net::{Ipv4Addr, SocketAddrV4};

use lock_api::Mutex;
use mempool::CriticalSection;

use super::Protocol;
use crate::probe::{Keyed, Probe, Slot, hash_words};

/// One connection that serves the VM (VMIO), by its IPv4 5-tuple.
///
/// ```
/// use core::net::{Ipv4Addr, SocketAddrV4};
/// use netreserve::Flow;
///
/// let local = SocketAddrV4::new(Ipv4Addr::new(10, 0, 2, 15), 700);
/// let server = SocketAddrV4::new(Ipv4Addr::new(10, 0, 2, 2), 2049);
/// let flow = Flow::tcp(local, server);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Flow {
    /// UDP or TCP.
    pub protocol: Protocol,
    /// Our address and port.
    pub local: SocketAddrV4,
    /// The server's address and port.
    pub remote: SocketAddrV4,
}

impl Flow {
    /// A TCP connection.
    #[must_use]
    pub const fn tcp(local: SocketAddrV4, remote: SocketAddrV4) -> Flow {
        Flow {
            protocol: Protocol::Tcp,
            local,
            remote,
        }
    }

    /// A connected UDP socket.
    #[must_use]
    pub const fn udp(local: SocketAddrV4, remote: SocketAddrV4) -> Flow {
        Flow {
            protocol: Protocol::Udp,
            local,
            remote,
        }
    }
}

impl Keyed for Flow {
    type Key = Flow;

    fn key(&self) -> Flow {
        *self
    }

    fn hash(flow: Flow) -> u32 {
        hash_words(&[
            flow.local.ip().to_bits(),
            flow.remote.ip().to_bits(),
            u32::from(flow.local.port()) << 16 | u32::from(flow.remote.port()),
            u32::from(flow.protocol.number()),
        ])
    }
}

impl Keyed for Ipv4Addr {
    type Key = Ipv4Addr;

    fn key(&self) -> Ipv4Addr {
        *self
    }

    fn hash(addr: Ipv4Addr) -> u32 {
        hash_words(&[addr.to_bits()])
    }
}

/// Every VMIO flow of the system, and its peers: the neighbours whose ARP is control plane (N8).
///
/// The reserve is open to packets only while there is a flow (N1). A transport adds its flow before
/// the first packet of a connection and removes it after the last (S7). The remote of each flow is
/// a peer by itself; a gateway between must be [added](FlowTable::add_peer).
///
/// Shared by reference: the lock inside is held for a look-up at a time. Look-ups, additions and
/// removals take O(1) while a quarter of the slots is empty, and never more than O(slots).
///
/// ```
/// use core::net::{Ipv4Addr, SocketAddrV4};
/// use netreserve::{Flow, FlowError, FlowTable, Slot};
///
/// let (mut flows, mut peers) = ([const { Slot::EMPTY }; 4], [const { Slot::EMPTY }; 4]);
/// let table = FlowTable::new(&mut flows, &mut peers);
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
pub struct FlowTable<'m> {
    state: Mutex<CriticalSection, State<'m>>,
}

struct State<'m> {
    flows: Probe<'m, Flow>,
    peers: Probe<'m, Ipv4Addr>,
}

impl<'m> FlowTable<'m> {
    /// An empty table: at most `flows.len()` flows and `peers.len()` peers besides their remotes.
    #[must_use]
    pub fn new(flows: &'m mut [Slot<Flow>], peers: &'m mut [Slot<Ipv4Addr>]) -> Self {
        FlowTable {
            state: Mutex::new(State {
                flows: Probe::new(flows),
                peers: Probe::new(peers),
            }),
        }
    }

    /// Tags a flow as VMIO, from its next packet on.
    ///
    /// # Errors
    ///
    /// [`FlowError::Present`] if it is tagged already, [`FlowError::Full`] if no slot is left.
    pub fn add(&self, flow: Flow) -> Result<(), FlowError> {
        insert(&mut self.state.lock().flows, flow)
    }

    /// Clears the tag of a flow.
    ///
    /// # Errors
    ///
    /// [`FlowError::Absent`] if it was not tagged.
    pub fn remove(&self, flow: Flow) -> Result<(), FlowError> {
        remove(&mut self.state.lock().flows, flow)
    }

    /// Makes `addr` a peer: a gateway on the way to a server.
    ///
    /// # Errors
    ///
    /// [`FlowError::Present`] if it was added already, [`FlowError::Full`] if no slot is left.
    pub fn add_peer(&self, addr: Ipv4Addr) -> Result<(), FlowError> {
        insert(&mut self.state.lock().peers, addr)
    }

    /// Takes back [`add_peer`](FlowTable::add_peer). The remote of a flow stays a peer.
    ///
    /// # Errors
    ///
    /// [`FlowError::Absent`] if it was not added.
    pub fn remove_peer(&self, addr: Ipv4Addr) -> Result<(), FlowError> {
        remove(&mut self.state.lock().peers, addr)
    }

    /// Whether there is any VMIO flow. O(1).
    #[must_use]
    pub fn any(&self) -> bool {
        self.state.lock().flows.len() > 0
    }

    /// How many VMIO flows there are. O(1).
    #[must_use]
    pub fn count(&self) -> usize {
        self.state.lock().flows.len()
    }

    /// Whether `flow` is tagged.
    #[must_use]
    pub fn contains(&self, flow: Flow) -> bool {
        self.state.lock().flows.get(flow).is_some()
    }

    /// Whether a VMIO flow depends on the neighbour `addr`. O(slots for flows).
    #[must_use]
    pub fn is_peer(&self, addr: Ipv4Addr) -> bool {
        let state = self.state.lock();
        state.peers.get(addr).is_some() || state.flows.iter().any(|flow| *flow.remote.ip() == addr)
    }
}

fn insert<E: Keyed>(table: &mut Probe<'_, E>, entry: E) -> Result<(), FlowError> {
    if table.get(entry.key()).is_some() {
        return Err(FlowError::Present);
    }
    table.insert(entry).map_err(|_| FlowError::Full)
}

fn remove<E: Keyed>(table: &mut Probe<'_, E>, key: E::Key) -> Result<(), FlowError> {
    table.remove(key).map(drop).ok_or(FlowError::Absent)
}

impl fmt::Debug for FlowTable<'_> {
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
}

impl fmt::Display for FlowError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FlowError::Full => "the flow table is full",
            FlowError::Present => "it is in the flow table already",
            FlowError::Absent => "it is not in the flow table",
        })
    }
}

impl core::error::Error for FlowError {}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCAL: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 0, 2, 15), 700);
    const SERVER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 0, 2, 2), 2049);

    #[test]
    fn flows_and_peers_are_bounded_and_refusals_change_nothing() {
        let (mut flows, mut peers) = ([const { Slot::EMPTY }; 1], [const { Slot::EMPTY }; 1]);
        let table = FlowTable::new(&mut flows, &mut peers);
        assert!(!table.any());
        table.add(Flow::tcp(LOCAL, SERVER)).unwrap();
        assert_eq!(table.add(Flow::tcp(LOCAL, SERVER)), Err(FlowError::Present));
        assert_eq!(table.add(Flow::udp(LOCAL, SERVER)), Err(FlowError::Full));
        assert!(!table.contains(Flow::udp(LOCAL, SERVER)) && table.any());
        table.remove(Flow::tcp(LOCAL, SERVER)).unwrap();
        assert!(!table.any());

        let gateway = Ipv4Addr::new(10, 0, 2, 1);
        table.add_peer(gateway).unwrap();
        assert_eq!(table.add_peer(gateway), Err(FlowError::Present));
        assert_eq!(table.add_peer(*LOCAL.ip()), Err(FlowError::Full));
        table.remove_peer(gateway).unwrap();
        assert_eq!(table.remove_peer(gateway), Err(FlowError::Absent));
    }

    #[test]
    fn n8_the_server_is_a_peer_for_as_long_as_its_flow_exists() {
        let (mut flows, mut peers) = ([const { Slot::EMPTY }; 2], [const { Slot::EMPTY }; 2]);
        let table = FlowTable::new(&mut flows, &mut peers);
        assert!(!table.is_peer(*SERVER.ip()));
        table.add(Flow::tcp(LOCAL, SERVER)).unwrap();
        assert!(table.is_peer(*SERVER.ip()) && !table.is_peer(*LOCAL.ip()));
        table.remove(Flow::tcp(LOCAL, SERVER)).unwrap();
        assert!(!table.is_peer(*SERVER.ip()));
    }
}
