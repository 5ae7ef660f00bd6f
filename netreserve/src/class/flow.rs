//! What is known of a flow that serves the VM: its ends, its protocol, and the VLAN that it lives in.

use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use core::num::{NonZeroU16, NonZeroU64};

use super::Protocol;
use crate::probe::Keyed;

/// One connection that serves the VM (VMIO), by its 5-tuple and its VLAN.
///
/// Over IPv4 or IPv6. The addresses of a dual-stack socket (`::ffff:10.0.2.2`) are those of IPv4, which
/// the wire knows. Scopes and flow labels of IPv6 are no part of it: one table, one link.
///
/// ```
/// use core::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6};
/// use netreserve::{Flow, VlanId};
///
/// let local = SocketAddrV4::new(Ipv4Addr::new(10, 0, 2, 15), 700);
/// let server = SocketAddrV4::new(Ipv4Addr::new(10, 0, 2, 2), 2049);
/// let flow = Flow::tcp(local, server);
/// assert_eq!((flow.local(), flow.remote()), (local.into(), server.into()));
///
/// let ip = |host| Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, host);
/// let end = |host, port| SocketAddrV6::new(ip(host), port, 0, 0);
/// let storage = VlanId::new(17).unwrap();
/// let flow = Flow::udp(end(15, 700), end(2, 2049)).in_vlan(storage);
/// assert_eq!(flow.vlan(), Some(storage));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Flow {
    /// From the lowest bits: the remote port, the local one, the protocol's number (16 bits each), and
    /// that of the VLAN, or 0.
    rest: NonZeroU64,
    remote: Words,
    local: Words,
}

/// An address as it is compared and hashed quickly. As everywhere in this module one of IPv4 is a mapped
/// one of IPv6.
type Words = [u64; 2];

impl Flow {
    /// A flow of `protocol` between our address and port and those of the server.
    #[must_use]
    pub const fn new(protocol: Protocol, local: SocketAddr, remote: SocketAddr) -> Flow {
        let (local, local_port) = split(local);
        let (remote, remote_port) = split(remote);
        Flow {
            rest: rest(protocol, local_port, remote_port, None),
            remote: words(remote),
            local: words(local),
        }
    }

    /// As it was read from a packet.
    #[inline]
    pub(super) fn read(
        protocol: Protocol,
        (local, local_port): (Ipv6Addr, u16),
        (remote, remote_port): (Ipv6Addr, u16),
        vlan: Option<VlanId>,
    ) -> Flow {
        Flow {
            rest: rest(protocol, local_port, remote_port, vlan),
            remote: words(remote),
            local: words(local),
        }
    }

    /// A TCP connection.
    #[must_use]
    pub fn tcp(local: impl Into<SocketAddr>, remote: impl Into<SocketAddr>) -> Flow {
        Flow::new(Protocol::Tcp, local.into(), remote.into())
    }

    /// A connected UDP socket.
    #[must_use]
    pub fn udp(local: impl Into<SocketAddr>, remote: impl Into<SocketAddr>) -> Flow {
        Flow::new(Protocol::Udp, local.into(), remote.into())
    }

    /// The same flow in a VLAN of its own: only frames with that tag belong to it.
    #[must_use]
    pub const fn in_vlan(mut self, vlan: VlanId) -> Flow {
        let rest = self.rest.get() & !(0xffff << VLAN) | (vlan.get() as u64) << VLAN;
        if let Some(rest) = NonZeroU64::new(rest) {
            self.rest = rest;
        }
        self
    }

    /// UDP or TCP.
    #[must_use]
    pub const fn protocol(&self) -> Protocol {
        match (self.rest.get() >> PROTOCOL) as u8 {
            17 => Protocol::Udp,
            _ => Protocol::Tcp,
        }
    }

    /// Our address and port.
    #[must_use]
    pub const fn local(&self) -> SocketAddr {
        join(self.local_addr(), self.local_port())
    }

    /// The server's address and port.
    #[must_use]
    pub const fn remote(&self) -> SocketAddr {
        join(self.remote_addr(), self.remote_port())
    }

    /// The VLAN, or `None` for untagged frames.
    #[must_use]
    pub const fn vlan(&self) -> Option<VlanId> {
        VlanId::new((self.rest.get() >> VLAN) as u16)
    }

    pub(super) const fn local_port(&self) -> u16 {
        (self.rest.get() >> LOCAL_PORT) as u16
    }

    pub(super) const fn remote_port(&self) -> u16 {
        self.rest.get() as u16
    }

    pub(super) const fn local_addr(&self) -> Ipv6Addr {
        addr(self.local)
    }

    pub(super) const fn remote_addr(&self) -> Ipv6Addr {
        addr(self.remote)
    }

    pub(super) const fn local_neighbour(&self) -> Neighbour {
        Neighbour {
            addr: self.local_addr(),
            vlan: self.vlan(),
        }
    }

    pub(super) const fn remote_neighbour(&self) -> Neighbour {
        Neighbour {
            addr: self.remote_addr(),
            vlan: self.vlan(),
        }
    }
}

impl fmt::Debug for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flow")
            .field("protocol", &self.protocol())
            .field("local", &self.local())
            .field("remote", &self.remote())
            .field("vlan", &self.vlan())
            .finish()
    }
}

impl Keyed for Flow {
    type Key = Flow;

    #[inline]
    fn key(&self) -> Flow {
        *self
    }

    #[inline]
    fn hash(flow: Flow) -> u32 {
        hash_all(fold(flow.remote), flow.rest.get(), fold(flow.local))
    }
}

/// The number of an 802.1Q VLAN: 1 to 4094.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct VlanId(NonZeroU16);

impl VlanId {
    /// `None` for 0, which means no VLAN, for 4095, which is reserved, and beyond.
    ///
    /// ```
    /// use netreserve::VlanId;
    ///
    /// assert_eq!(VlanId::new(4094).unwrap().get(), 4094);
    /// assert!(VlanId::new(0).is_none() && VlanId::new(4095).is_none());
    /// ```
    #[must_use]
    pub const fn new(number: u16) -> Option<VlanId> {
        match NonZeroU16::new(number) {
            Some(number) if number.get() < 0x0fff => Some(VlanId(number)),
            _ => None,
        }
    }

    /// 1 to 4094.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0.get()
    }
}

/// A host on the link, by its address and the VLAN that it is in.
///
/// ```
/// use core::net::{IpAddr, Ipv4Addr};
/// use netreserve::{Neighbour, VlanId};
///
/// let gateway = Ipv4Addr::new(10, 0, 2, 2);
/// let tagged = Neighbour::from(gateway).in_vlan(VlanId::new(17).unwrap());
/// assert_eq!(tagged.addr(), IpAddr::V4(gateway));
/// assert_ne!(tagged, Neighbour::from(gateway));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Neighbour {
    pub(super) addr: Ipv6Addr,
    pub(super) vlan: Option<VlanId>,
}

impl Neighbour {
    /// The same address in a VLAN.
    #[must_use]
    pub const fn in_vlan(mut self, vlan: VlanId) -> Neighbour {
        self.vlan = Some(vlan);
        self
    }

    /// Its address.
    #[must_use]
    pub const fn addr(&self) -> IpAddr {
        self.addr.to_canonical()
    }

    /// The VLAN, or `None` for untagged frames.
    #[must_use]
    pub const fn vlan(&self) -> Option<VlanId> {
        self.vlan
    }
}

impl From<IpAddr> for Neighbour {
    fn from(addr: IpAddr) -> Self {
        let addr = map(addr);
        Neighbour { addr, vlan: None }
    }
}

impl From<Ipv4Addr> for Neighbour {
    fn from(addr: Ipv4Addr) -> Self {
        Neighbour::from(IpAddr::V4(addr))
    }
}

impl From<Ipv6Addr> for Neighbour {
    fn from(addr: Ipv6Addr) -> Self {
        Neighbour::from(IpAddr::V6(addr))
    }
}

impl fmt::Debug for Neighbour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Neighbour")
            .field("addr", &self.addr())
            .field("vlan", &self.vlan)
            .finish()
    }
}

impl Neighbour {
    #[inline]
    pub(crate) fn hash(self) -> u32 {
        let vlan = self.vlan.map_or(0, VlanId::get);
        hash_all(fold(words(self.addr)), vlan.into(), 0)
    }
}

/// Whether it belongs to IPv4.
pub(super) const fn is_ipv4(addr: Ipv6Addr) -> bool {
    addr.to_ipv4_mapped().is_some()
}

/// Whether one host can have it, as both ends of a flow must.
pub(super) const fn is_unicast(addr: Ipv6Addr) -> bool {
    match addr.to_canonical() {
        IpAddr::V4(addr) => !(addr.is_unspecified() || addr.is_multicast() || addr.is_broadcast()),
        IpAddr::V6(addr) => !(addr.is_unspecified() || addr.is_multicast()),
    }
}

const fn map(addr: IpAddr) -> Ipv6Addr {
    match addr {
        IpAddr::V4(addr) => addr.to_ipv6_mapped(),
        IpAddr::V6(addr) => addr,
    }
}

const fn split(end: SocketAddr) -> (Ipv6Addr, u16) {
    match end {
        SocketAddr::V4(end) => (end.ip().to_ipv6_mapped(), end.port()),
        SocketAddr::V6(end) => (*end.ip(), end.port()),
    }
}

const fn join(addr: Ipv6Addr, port: u16) -> SocketAddr {
    match addr.to_ipv4_mapped() {
        Some(addr) => SocketAddr::V4(SocketAddrV4::new(addr, port)),
        None => SocketAddr::V6(SocketAddrV6::new(addr, port, 0, 0)),
    }
}

const LOCAL_PORT: u32 = 16;
const PROTOCOL: u32 = 32;
const VLAN: u32 = 48;

#[inline]
const fn rest(
    protocol: Protocol,
    local_port: u16,
    remote_port: u16,
    vlan: Option<VlanId>,
) -> NonZeroU64 {
    let vlan = match vlan {
        Some(vlan) => vlan.get(),
        None => 0,
    };
    let bits = (vlan as u64) << VLAN
        | (protocol.number() as u64) << PROTOCOL
        | (local_port as u64) << LOCAL_PORT
        | remote_port as u64;
    NonZeroU64::new(bits).expect("no protocol has the number 0")
}

#[inline]
const fn words(addr: Ipv6Addr) -> Words {
    let [a, b, c, d, e, f, g, h, rest @ ..] = addr.octets();
    [
        u64::from_le_bytes([a, b, c, d, e, f, g, h]),
        u64::from_le_bytes(rest),
    ]
}

const fn addr(words: Words) -> Ipv6Addr {
    let [a, b, c, d, e, f, g, h] = words[0].to_le_bytes();
    let [i, j, k, l, m, n, o, p] = words[1].to_le_bytes();
    Ipv6Addr::from_octets([a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p])
}

/// Where addresses differ, in the lower half.
#[inline]
fn fold(words: Words) -> u64 {
    words[0] ^ words[1].rotate_left(32)
}

/// The upper bits of a product depend on all of both; they say where an entry is at home.
#[inline]
fn hash_all(a: u64, b: u64, c: u64) -> u32 {
    let hash = a.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ b;
    let hash = (hash ^ hash >> 32).wrapping_mul(0xbf58_476d_1ce4_e5b9) ^ c;
    let hash = (hash ^ hash >> 29).wrapping_mul(0x94d0_49bb_1331_11eb);
    (hash >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flow_is_the_same_whatever_the_socket_says_besides_its_ends() {
        let v4 = |host, port| SocketAddrV4::new(Ipv4Addr::new(10, 0, 2, host), port);
        let plain = Flow::tcp(v4(15, 700), v4(2, 2049));
        let mapped =
            |end: SocketAddrV4| SocketAddrV6::new(end.ip().to_ipv6_mapped(), end.port(), 1, 2);
        assert_eq!(Flow::tcp(mapped(v4(15, 700)), mapped(v4(2, 2049))), plain);
        let ip = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 2);
        let scoped = |scope| SocketAddrV6::new(ip, 2049, 7, scope);
        let flow = |scope| Flow::udp(scoped(scope), scoped(scope));
        assert_eq!(flow(1), flow(2));
        assert_eq!(
            flow(1).remote(),
            SocketAddr::V6(SocketAddrV6::new(ip, 2049, 0, 0))
        );
    }
}
