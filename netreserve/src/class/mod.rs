//! Early demux: whom a frame serves, decided from its headers before anything is done with it.

mod flow;
mod parse;

use core::fmt;

use crate::Medium;
pub use flow::{Flow, FlowError, FlowTable};
use parse::{Conversation, Parsed};
pub(crate) use parse::{ETHERNET_HEADER, VLAN_TAG, priority_tagged};

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

    /// The protocol number in an IPv4 header.
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
    /// ICMP that is not about a VMIO flow.
    Icmp,
    /// A fragment of an IPv4 packet. Only the first one has ports, so that the rest cannot be told
    /// apart here: a VMIO flow must not be fragmented.
    Fragment {
        /// It is the first one of a packet of a VMIO flow.
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
        matches!(self, Class::Vmio | Class::Control(_))
    }
}

/// What the control plane of VMIO consists of (N8).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Control {
    /// ARP with a server or its gateway.
    Arp,
    /// Destination unreachable or time exceeded, quoting a packet of a VMIO flow.
    IcmpError,
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
    /// Cut short, or an error that quotes nothing readable.
    Icmp,
    /// Wrong UDP length or TCP data offset.
    Transport,
}

/// Classifies a received Ethernet frame. O(1): it looks at the headers alone and never panics,
/// whatever the bytes.
///
/// A priority tag (802.1Q with VLAN 0) is looked through; other VLANs are other networks.
///
/// ```
/// use netreserve::{Class, FlowTable, Malformed, classify};
///
/// let nobody = FlowTable::new(&mut [], &mut []);
/// assert_eq!(classify(b"short", &nobody), Class::Malformed(Malformed::Ethernet));
/// ```
#[must_use]
pub fn classify(frame: &[u8], flows: &FlowTable<'_>) -> Class {
    judge(parse::ethernet(frame), flows, Direction::Received)
}

/// Classifies a received frame that begins with its IP header ([`Medium::Ip`](crate::Medium::Ip)).
/// Nobody's address is asked for on such a line, so that its control plane is ICMP errors alone.
///
/// ```
/// use netreserve::{Class, FlowTable, Malformed, classify_ip};
///
/// let nobody = FlowTable::new(&mut [], &mut []);
/// assert_eq!(classify_ip(&[0x45; 19], &nobody), Class::Malformed(Malformed::Ipv4));
/// ```
#[must_use]
pub fn classify_ip(packet: &[u8], flows: &FlowTable<'_>) -> Class {
    judge(parse::ip(packet), flows, Direction::Received)
}

/// Classifies a finished frame that is about to be sent: what is VMIO, and what is control plane,
/// with the ends exchanged.
///
/// ```
/// use netreserve::{Class, FlowTable, classify_outgoing};
///
/// let nobody = FlowTable::new(&mut [], &mut []);
/// let mut frame = [0; 60];
/// frame[12..14].copy_from_slice(&[0x86, 0xdd]);
/// assert_eq!(classify_outgoing(&frame, &nobody), Class::Other);
/// ```
#[must_use]
pub fn classify_outgoing(frame: &[u8], flows: &FlowTable<'_>) -> Class {
    judge(parse::ethernet(frame), flows, Direction::Sent)
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
pub fn classify_ip_outgoing(packet: &[u8], flows: &FlowTable<'_>) -> Class {
    judge(parse::ip(packet), flows, Direction::Sent)
}

/// The transport protocol in a frame that is no fragment.
pub(crate) fn protocol(frame: &[u8], medium: Medium) -> Option<Protocol> {
    let parsed = match medium {
        Medium::Ethernet => parse::ethernet(frame),
        Medium::Ip => parse::ip(frame),
    };
    match parsed {
        Ok(Parsed::Transport(conversation)) => Some(conversation.protocol),
        _ => None,
    }
}

/// The flow that a received frame would be of.
pub(crate) fn received_flow(frame: &[u8], medium: Medium) -> Option<Flow> {
    let parsed = match medium {
        Medium::Ethernet => parse::ethernet(frame),
        Medium::Ip => parse::ip(frame),
    };
    match parsed {
        Ok(Parsed::Transport(conversation)) => Some(Direction::Received.flow(conversation)),
        _ => None,
    }
}

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

    fn flow(self, conversation: Conversation) -> Flow {
        let Conversation {
            protocol,
            source,
            destination,
        } = conversation;
        let (local, remote) = match self {
            Direction::Received => (destination, source),
            Direction::Sent => (source, destination),
        };
        Flow {
            protocol,
            local,
            remote,
        }
    }
}

fn judge(parsed: Result<Parsed, Malformed>, flows: &FlowTable<'_>, direction: Direction) -> Class {
    let parsed = match parsed {
        Ok(parsed) => parsed,
        Err(reason) => return Class::Malformed(reason),
    };
    let vmio = |conversation| flows.contains(direction.flow(conversation));
    match parsed {
        Parsed::Transport(conversation) if vmio(conversation) => Class::Vmio,
        Parsed::Transport(conversation) => Class::Socket {
            protocol: conversation.protocol,
            local_port: direction.flow(conversation).local.port(),
        },
        Parsed::Arp { sender, target } => {
            let neighbour = match direction {
                Direction::Received => sender,
                Direction::Sent => target,
            };
            if flows.is_peer(neighbour) {
                Class::Control(Control::Arp)
            } else {
                Class::Arp
            }
        }
        // What an error quotes went the other way.
        Parsed::Icmp(Some(quoted)) if flows.contains(direction.opposite().flow(quoted)) => {
            Class::Control(Control::IcmpError)
        }
        Parsed::Icmp(_) => Class::Icmp,
        Parsed::Fragment(first) => Class::Fragment {
            vmio: first.is_some_and(vmio),
        },
        Parsed::Other => Class::Other,
    }
}

#[cfg(test)]
mod tests;
