//! Why packets are dropped.

use core::fmt;

use crate::{Class, Control, Protocol};

macro_rules! reasons {
    ($($(#[$doc:meta])+ $reason:ident = $name:literal,)+) => {
        /// Why a packet was dropped. Every drop has one reason and is counted under it (N2).
        ///
        /// `Emergency*`: its memory came out of the reserve, and it does not serve the VM.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[cfg_attr(feature = "defmt", derive(defmt::Format))]
        #[non_exhaustive]
        pub enum DropReason {
            $($(#[$doc])+ $reason,)+
        }

        impl DropReason {
            /// Every reason, in the order in which they are counted.
            pub const ALL: [DropReason; 0 $(+ { let _ = DropReason::$reason; 1 })+] =
                [$(DropReason::$reason),+];

            /// A short name in snake case, for logs and reports.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(DropReason::$reason => $name,)+
                }
            }
        }
    };
}

reasons! {
    /// An emergency skb with anybody's UDP.
    EmergencyUdp = "emergency_udp",
    /// An emergency skb with anybody's TCP.
    EmergencyTcp = "emergency_tcp",
    /// An emergency skb with ICMP that is not about a VMIO flow.
    EmergencyIcmp = "emergency_icmp",
    /// An emergency skb with ARP of a neighbour that no VMIO flow depends on.
    EmergencyArp = "emergency_arp",
    /// An emergency skb with neighbour discovery that no VMIO flow depends on.
    EmergencyNdp = "emergency_ndp",
    /// An emergency skb with a fragment.
    EmergencyFragment = "emergency_fragment",
    /// An emergency skb with anything else.
    EmergencyOther = "emergency_other",
    /// An emergency skb that was about to be sent, with anything but VMIO and its control plane.
    EmergencyTransmit = "emergency_transmit",
    /// A header cannot be read.
    Malformed = "malformed",
    /// Sent to the hardware address of another host.
    OtherHost = "other_host",
    /// Its tag cannot be taken out, or put in, because another skb shares its bytes.
    SharedTag = "shared_tag",
    /// There is no room in front of it for the tag of its VLAN.
    NoHeadroom = "no_headroom",
    /// ARP of a neighbour that no VMIO flow depends on: it could evict one that matters.
    ForeignArp = "foreign_arp",
    /// Neighbour discovery that no VMIO flow depends on: it could evict a neighbour that matters.
    ForeignNdp = "foreign_ndp",
    /// A fragment that is not of VMIO, or cannot be told to be: nobody puts packets together here.
    Fragment = "fragment",
    /// A protocol that has no sockets here.
    NoProtocol = "no_protocol",
    /// No socket is bound to the port.
    NoSocket = "no_socket",
    /// The socket holds as much as it may.
    RcvbufFull = "rcvbuf_full",
    /// The sockets of the protocol hold as much as they may.
    ProtocolMemoryFull = "protocol_memory_full",
    /// Every queue entry is in use, or promised to VMIO.
    QueueFull = "queue_full",
    /// Somebody owns the socket, and its backlog holds as much as it may.
    BacklogFull = "backlog_full",
    /// The room of a VMIO socket is full.
    VmioFull = "vmio_full",
}

impl DropReason {
    /// For an emergency skb of a socket.
    pub(crate) const fn emergency(protocol: Protocol) -> DropReason {
        match protocol {
            Protocol::Udp => DropReason::EmergencyUdp,
            Protocol::Tcp => DropReason::EmergencyTcp,
        }
    }
}

impl DropReason {
    /// For the control plane in an emergency skb, as if it were anybody's.
    pub(crate) const fn emergency_control(control: Control) -> DropReason {
        match control {
            Control::Arp => DropReason::EmergencyArp,
            Control::Ndp => DropReason::EmergencyNdp,
            Control::Dhcp => DropReason::EmergencyUdp,
            Control::Mld | Control::IcmpError | Control::PacketTooBig => DropReason::EmergencyIcmp,
        }
    }

    /// For what neither the VM nor a socket wants: in an emergency skb, and in an ordinary one.
    pub(crate) const fn of_nobody(class: Class) -> (DropReason, DropReason) {
        match class {
            Class::Arp => (DropReason::EmergencyArp, DropReason::ForeignArp),
            Class::Ndp => (DropReason::EmergencyNdp, DropReason::ForeignNdp),
            Class::Icmp => (DropReason::EmergencyIcmp, DropReason::NoProtocol),
            Class::Fragment { .. } => (DropReason::EmergencyFragment, DropReason::Fragment),
            _ => (DropReason::EmergencyOther, DropReason::NoProtocol),
        }
    }
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Drops by reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct DropCounts([u64; DropReason::ALL.len()]);

impl DropCounts {
    /// Drops for `reason`.
    #[must_use]
    pub const fn get(&self, reason: DropReason) -> u64 {
        self.0[reason as usize]
    }

    /// Drops for any reason.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// Every reason with its drops.
    pub fn iter(&self) -> impl Iterator<Item = (DropReason, u64)> {
        DropReason::ALL.into_iter().zip(self.0)
    }

    /// The counts that `of` says.
    pub(crate) fn new(of: impl Fn(DropReason) -> u64) -> Self {
        DropCounts(DropReason::ALL.map(of))
    }
}

#[cfg(test)]
mod tests {
    use alloc::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_reason_is_counted_by_itself_and_has_a_name_of_its_own() {
        let names: BTreeSet<_> = DropReason::ALL.iter().map(|r| r.name()).collect();
        assert_eq!(names.len(), DropReason::ALL.len());
        for reason in DropReason::ALL {
            let counts = DropCounts::new(|r| u64::from(r == reason));
            assert_eq!((counts.get(reason), counts.total()), (1, 1));
            assert!(counts.iter().all(|(r, n)| (r == reason) == (n == 1)));
        }
    }
}
