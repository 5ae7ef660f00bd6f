//! Early demux: whom a frame serves, decided from its headers before anything is done with it.

mod dhcp;
mod flow;
mod fragment;
mod parse;
mod table;

use core::fmt;
use core::net::Ipv6Addr;

use lock_api::RawMutex;

use crate::Medium;
pub use dhcp::DhcpClient;
use dhcp::Message;
pub use flow::{Flow, Neighbour, VlanId};
pub use fragment::FirstFragment;
use fragment::PacketId;
use parse::{Conversation, Fragment, Multicast, Ndp, NdpKind, Parsed};
pub(crate) use parse::{
    ETHERNET_HEADER, ETHERTYPE_IPV4, ETHERTYPE_IPV6, ETHERTYPE_VLAN, VLAN_TAG, link, tag_number,
};
pub use table::{AddrEntry, FlowError, FlowTable};

/// The transport protocols that have sockets here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Protocol {
    /// RFC 768.
    Udp,
    /// RFC 9293.
    Tcp,
}

impl Protocol {
    /// Both.
    pub const ALL: [Protocol; 2] = [Protocol::Udp, Protocol::Tcp];

    /// The protocol number in an IP header.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Protocol::Udp => 17,
            Protocol::Tcp => 6,
        }
    }

    /// `"UDP"` or `"TCP"`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Protocol::Udp => "UDP",
            Protocol::Tcp => "TCP",
        }
    }

    fn from_number(number: u8) -> Option<Protocol> {
        Protocol::ALL.into_iter().find(|p| p.number() == number)
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Whom a frame serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Class {
    /// A packet of a VMIO flow.
    Vmio,
    /// What VMIO flows depend on (N8).
    Control(Control),
    /// A packet of anybody's UDP or TCP.
    Socket {
        /// Its transport protocol.
        protocol: Protocol,
        /// The port at our end.
        local_port: u16,
    },
    /// ARP with a neighbour that no VMIO flow depends on. It could evict the entry of one that it
    /// does depend on, so it is never for the swap stack.
    Arp,
    /// Neighbour discovery with a neighbour that no VMIO flow depends on: as [`Arp`](Class::Arp).
    Ndp,
    /// ICMP that is not about a VMIO flow.
    Icmp,
    /// A fragment of a packet of a VMIO flow: the first one, or one that follows it while the table
    /// [remembers](FlowTable::with_fragments) that.
    VmioFragment,
    /// Any other fragment.
    Fragment {
        /// It is the first one of a packet of a VMIO flow, but has not the whole transport header in
        /// it, or there is no place to remember it: the rest of the packet could not be told from
        /// anybody else's.
        vmio: bool,
    },
    /// Another network protocol, another transport protocol, or another VLAN.
    Other,
    /// Not a frame that anybody can read.
    Malformed(Malformed),
}

impl Class {
    /// Whether the swap stack needs it: VMIO, or its control plane.
    #[must_use]
    pub const fn serves_vm(self) -> bool {
        matches!(self, Class::Vmio | Class::VmioFragment | Class::Control(_))
    }
}

/// What the control plane of VMIO consists of (N8).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Control {
    /// ARP with a server or its gateway, or a probe whether anybody has our address.
    Arp,
    /// Neighbour discovery with a server or its gateway (RFC 4861), or about our own address (RFC
    /// 4862):
    ///
    /// - received: a solicitation of a peer; an advertisement of a peer about a peer; a router
    ///   advertisement of a peer; a redirect of a peer to a peer, about a peer. A redirect to anybody
    ///   else would lead to a neighbour that is refused, so that it is refused itself. A solicitation
    ///   without a source asks whether our address is taken, and is answered;
    /// - to be sent: a solicitation of a peer, or of our own address before we use it; an
    ///   advertisement to a peer, or to everybody about our own address; a router solicitation.
    Ndp,
    /// What multicast routers and switches want to know (RFC 2710, 3810): those that look on pass the
    /// solicitations of our own address on to those alone who said that they listen. Only while there
    /// is a flow over IPv6.
    Mld,
    /// The renewal of the lease of our address, if that was [asked for](FlowTable::allow_dhcp).
    Dhcp,
    /// Destination unreachable or time exceeded, quoting a packet of a VMIO flow.
    IcmpError,
    /// Packet too big, or fragmentation needed, quoting a packet of a VMIO flow.
    PacketTooBig,
}

/// The header that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Malformed {
    /// Shorter than an Ethernet header, or than its tag.
    Ethernet,
    /// On a medium of IP packets: of no version, or none at all.
    Ip,
    /// Shorter than ARP for IPv4.
    Arp,
    /// Wrong version, header length or total length.
    Ipv4,
    /// Wrong version or payload length, or an extension header that is cut short.
    Ipv6,
    /// Cut short, or an error that quotes nothing readable.
    Icmp,
    /// Wrong UDP length or TCP data offset.
    Transport,
}

/// Classifies a received Ethernet frame. O(1): it looks at the headers alone and never panics,
/// whatever the bytes.
///
/// A priority tag (802.1Q with VLAN 0) is looked through; a frame with another tag belongs to the flows
/// of that VLAN, and one with two tags to nobody here. The table remembers first fragments, if it was
/// [given the place](FlowTable::with_fragments).
///
/// ```
/// use netreserve::{Class, FlowTable, Malformed, classify};
///
/// let nobody = FlowTable::new(&mut [], &mut []);
/// assert_eq!(classify(b"short", &nobody), Class::Malformed(Malformed::Ethernet));
/// ```
#[must_use]
pub fn classify<R: RawMutex>(frame: &[u8], flows: &FlowTable<'_, R>) -> Class {
    judge(frame, Medium::Ethernet, None, flows, Direction::Received)
}

/// Classifies a received frame that begins with its IP header ([`Medium::Ip`](crate::Medium::Ip)).
/// Nobody's address is asked for on such a line over IPv4, so that its control plane is ICMP errors
/// alone; over IPv6 neighbours can discover each other all the same.
///
/// ```
/// use netreserve::{Class, FlowTable, Malformed, classify_ip};
///
/// let nobody = FlowTable::new(&mut [], &mut []);
/// assert_eq!(classify_ip(&[0x45; 19], &nobody), Class::Malformed(Malformed::Ipv4));
/// ```
#[must_use]
pub fn classify_ip<R: RawMutex>(packet: &[u8], flows: &FlowTable<'_, R>) -> Class {
    judge(packet, Medium::Ip, None, flows, Direction::Received)
}

/// Classifies a finished frame that is about to be sent: what is VMIO, and what is control plane,
/// with the ends exchanged.
///
/// ```
/// use netreserve::{Class, FlowTable, classify_outgoing};
///
/// let nobody = FlowTable::new(&mut [], &mut []);
/// let mut frame = [0; 60];
/// frame[12..14].copy_from_slice(&[0x88, 0xcc]);
/// assert_eq!(classify_outgoing(&frame, &nobody), Class::Other);
/// ```
#[must_use]
pub fn classify_outgoing<R: RawMutex>(frame: &[u8], flows: &FlowTable<'_, R>) -> Class {
    judge(frame, Medium::Ethernet, None, flows, Direction::Sent)
}

/// [`classify_outgoing`] for a frame that begins with its IP header.
///
/// ```
/// use netreserve::{Class, FlowTable, Malformed, classify_ip_outgoing};
///
/// let nobody = FlowTable::new(&mut [], &mut []);
/// assert_eq!(classify_ip_outgoing(&[], &nobody), Class::Malformed(Malformed::Ip));
/// ```
#[must_use]
pub fn classify_ip_outgoing<R: RawMutex>(packet: &[u8], flows: &FlowTable<'_, R>) -> Class {
    judge(packet, Medium::Ip, None, flows, Direction::Sent)
}

/// [`classify_outgoing`] for a frame that will get its tag later.
pub(crate) fn classify_untagged<R: RawMutex>(
    frame: &[u8],
    vlan: Option<VlanId>,
    flows: &FlowTable<'_, R>,
) -> Class {
    judge(frame, Medium::Ethernet, vlan, flows, Direction::Sent)
}

/// The transport protocol in a frame that is no fragment.
pub(crate) fn protocol(frame: &[u8], medium: Medium) -> Option<Protocol> {
    match parse::frame(frame, medium) {
        Ok((_, Parsed::Transport(conversation))) => Some(conversation.protocol),
        _ => None,
    }
}

/// The flow that a received frame would be of.
pub(crate) fn received_flow(frame: &[u8], medium: Medium) -> Option<Flow> {
    match parse::frame(frame, medium) {
        Ok((vlan, Parsed::Transport(conversation))) => {
            Some(Direction::Received.flow(conversation, vlan))
        }
        _ => None,
    }
}

/// Where servers answer DHCP to.
pub(crate) const DHCP_CLIENT_PORT: u16 = Message::CLIENT_PORT;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Received,
    Sent,
}

impl Direction {
    const fn opposite(self) -> Direction {
        match self {
            Direction::Received => Direction::Sent,
            Direction::Sent => Direction::Received,
        }
    }

    #[inline]
    fn flow(self, conversation: Conversation, vlan: Option<VlanId>) -> Flow {
        let Conversation {
            protocol,
            source_port,
            destination_port,
            source,
            destination,
        } = conversation;
        let (source, destination) = ((source, source_port), (destination, destination_port));
        let (local, remote) = match self {
            Direction::Received => (destination, source),
            Direction::Sent => (source, destination),
        };
        Flow::read(protocol, local, remote, vlan)
    }
}

#[inline]
fn judge<R: RawMutex>(
    frame: &[u8],
    medium: Medium,
    vlan: Option<VlanId>,
    flows: &FlowTable<'_, R>,
    direction: Direction,
) -> Class {
    match parse::common(frame, medium) {
        Some(conversation) => {
            let flow = direction.flow(conversation, vlan);
            if flows.contains(flow) {
                Class::Vmio
            } else {
                judge_stranger(flow, frame, medium, flows, direction)
            }
        }
        None => judge_uncommon(frame, medium, vlan, flows, direction),
    }
}

/// A packet of UDP or TCP that is no flow's.
fn judge_stranger<R: RawMutex>(
    flow: Flow,
    frame: &[u8],
    medium: Medium,
    flows: &FlowTable<'_, R>,
    direction: Direction,
) -> Class {
    let ports = (flow.protocol(), flow.local_port(), flow.remote_port());
    if ports == (Protocol::Udp, Message::CLIENT_PORT, Message::SERVER_PORT)
        && let Some(message) = parse::dhcp(frame, medium)
        && flows.is_dhcp(&message, flow.vlan())
    {
        let client = message.client;
        let vlan = flow.vlan();
        let ours = match direction {
            Direction::Received => client.is_broadcast(),
            Direction::Sent => client.is_unspecified(),
        };
        let addr = client.to_ipv6_mapped();
        let right_way = message.request == (direction == Direction::Sent);
        if right_way && (ours || flows.is_local(Neighbour { addr, vlan })) {
            return Class::Control(Control::Dhcp);
        }
    }
    Class::Socket {
        protocol: flow.protocol(),
        local_port: flow.local_port(),
    }
}

fn judge_uncommon<R: RawMutex>(
    frame: &[u8],
    medium: Medium,
    implied: Option<VlanId>,
    flows: &FlowTable<'_, R>,
    direction: Direction,
) -> Class {
    let (tag, parsed) = match parse::frame(frame, medium) {
        Ok(parsed) => parsed,
        Err(reason) => return Class::Malformed(reason),
    };
    let vlan = tag.or(implied);
    let control = |serves, control, other| {
        if serves {
            Class::Control(control)
        } else {
            other
        }
    };
    let link = Depends { flows, vlan };
    match parsed {
        Parsed::Transport(conversation) => {
            let flow = direction.flow(conversation, vlan);
            if flows.contains(flow) {
                Class::Vmio
            } else {
                judge_stranger(flow, frame, medium, flows, direction)
            }
        }
        Parsed::Arp { sender, target } => control(
            link.arp(sender, target, direction),
            Control::Arp,
            Class::Arp,
        ),
        Parsed::Ndp(ndp) => control(link.ndp(ndp, direction), Control::Ndp, Class::Ndp),
        Parsed::Multicast(multicast) => {
            let serves = link.multicast(multicast, direction);
            control(serves, Control::Mld, Class::Icmp)
        }
        // What an error quotes went the other way.
        Parsed::IcmpError { quoted, too_big } => {
            let about = flows.contains(direction.opposite().flow(quoted, vlan));
            let kind = match too_big {
                true => Control::PacketTooBig,
                false => Control::IcmpError,
            };
            control(about, kind, Class::Icmp)
        }
        Parsed::Icmp => Class::Icmp,
        Parsed::Fragment(fragment) => link.fragment(fragment, direction),
        Parsed::Other => Class::Other,
    }
}

/// What the flows depend on, in the network that a frame is in.
struct Depends<'a, 'm, R> {
    flows: &'a FlowTable<'m, R>,
    vlan: Option<VlanId>,
}

impl<R: RawMutex> Depends<'_, '_, R> {
    fn peer(&self, addr: Ipv6Addr) -> bool {
        let vlan = self.vlan;
        self.flows.is_peer(Neighbour { addr, vlan })
    }

    fn local(&self, addr: Ipv6Addr) -> bool {
        let vlan = self.vlan;
        self.flows.is_local(Neighbour { addr, vlan })
    }

    fn arp(&self, sender: Ipv6Addr, target: Ipv6Addr, direction: Direction) -> bool {
        match direction {
            // A probe has no sender (RFC 5227).
            Direction::Received if is_unspecified(sender) => self.local(target),
            Direction::Received => self.peer(sender),
            Direction::Sent if self.peer(target) => true,
            // A probe of our own, or an announcement.
            Direction::Sent => (is_unspecified(sender) || sender == target) && self.local(target),
        }
    }

    fn ndp(&self, ndp: Ndp, direction: Direction) -> bool {
        const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
        const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
        let Ndp {
            kind,
            source,
            destination,
        } = ndp;
        match (direction, kind) {
            (Direction::Received, NdpKind::Solicit { target }) => {
                self.peer(source) || is_unspecified(source) && self.local(target)
            }
            (Direction::Received, NdpKind::Advert { target }) => {
                self.peer(source) && self.peer(target)
            }
            (Direction::Received, NdpKind::RouterAdvert) => self.peer(source),
            (Direction::Received, NdpKind::Redirect { target, about }) => {
                self.peer(source) && self.peer(target) && self.peer(about)
            }
            (Direction::Received, NdpKind::RouterSolicit) => false,
            (Direction::Sent, NdpKind::Solicit { target }) => {
                self.peer(target) || is_unspecified(source) && self.local(target)
            }
            (Direction::Sent, NdpKind::Advert { target }) => {
                self.peer(destination) || destination == ALL_NODES && self.local(target)
            }
            (Direction::Sent, NdpKind::RouterSolicit) => {
                self.peer(destination) || destination == ALL_ROUTERS && self.flows.any_ipv6()
            }
            (Direction::Sent, NdpKind::RouterAdvert | NdpKind::Redirect { .. }) => false,
        }
    }

    fn fragment(&self, fragment: Fragment, direction: Direction) -> Class {
        let Fragment {
            packet,
            extent,
            first,
            whole_header,
        } = fragment;
        let vlan = self.vlan;
        let sent = direction == Direction::Sent;
        let id = PacketId {
            vlan,
            sent,
            ..packet
        };
        let flow = first.map(|first| direction.flow(first, vlan));
        let flow = flow.filter(|flow| self.flows.contains(*flow));
        let vmio = flow.is_some();
        let known = match (extent.offset, flow) {
            (0, Some(flow)) if whole_header => self.flows.begin_fragments(id, flow, extent),
            (0, _) => {
                self.flows.end_fragments(id);
                false
            }
            _ => self.flows.fragment_goes_on(id, extent),
        };
        if known {
            Class::VmioFragment
        } else {
            Class::Fragment { vmio }
        }
    }

    fn multicast(&self, multicast: Multicast, direction: Direction) -> bool {
        let ours = match multicast {
            Multicast::Query => Direction::Received,
            Multicast::Report => Direction::Sent,
        };
        direction == ours && self.flows.any_ipv6()
    }
}

/// Of either version.
fn is_unspecified(addr: Ipv6Addr) -> bool {
    addr.to_canonical().is_unspecified()
}

#[cfg(test)]
mod tests;
