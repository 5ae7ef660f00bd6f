//! The lease of our own address, without which no connection goes on (RFC 2131).

use core::net::Ipv4Addr;

use super::flow::VlanId;

/// What a DHCP client of ours is known by.
///
/// ```
/// use core::net::Ipv4Addr;
/// use netreserve::{DhcpClient, FlowTable};
///
/// let table = FlowTable::new(&mut [], &mut []);
/// let client = DhcpClient::new([2, 0, 0, 0, 0, 1]);
/// table.allow_dhcp(client.server(Ipv4Addr::new(10, 0, 2, 2)).transaction(0x5eed));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct DhcpClient {
    pub(super) hardware: [u8; 6],
    pub(super) server: Option<Ipv4Addr>,
    pub(super) transaction: Option<u32>,
    pub(super) vlan: Option<VlanId>,
}

impl DhcpClient {
    /// The client with the hardware address of our card. Any server may answer, as when a lease is
    /// rebound.
    #[must_use]
    pub const fn new(hardware: [u8; 6]) -> DhcpClient {
        DhcpClient {
            hardware,
            server: None,
            transaction: None,
            vlan: None,
        }
    }

    /// With this server alone, as when a lease is renewed.
    #[must_use]
    pub const fn server(mut self, server: Ipv4Addr) -> DhcpClient {
        self.server = Some(server);
        self
    }

    /// In this transaction alone (`xid`).
    #[must_use]
    pub const fn transaction(mut self, transaction: u32) -> DhcpClient {
        self.transaction = Some(transaction);
        self
    }

    /// In a VLAN.
    #[must_use]
    pub const fn in_vlan(mut self, vlan: VlanId) -> DhcpClient {
        self.vlan = Some(vlan);
        self
    }

    /// Whether a message is one of this client, or for it.
    pub(super) fn is_in(&self, message: &Message, vlan: Option<VlanId>) -> bool {
        let Message {
            server,
            transaction,
            hardware,
            ..
        } = *message;
        self.vlan == vlan
            && self.hardware == hardware
            && self.transaction.is_none_or(|known| known == transaction)
            // Ours may go to everybody.
            && (message.request && server.is_broadcast()
                || self.server.is_none_or(|known| known == server))
    }
}

/// A message between a client and a server, as far as it says whose it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Message {
    /// From the client.
    pub(super) request: bool,
    pub(super) server: Ipv4Addr,
    pub(super) client: Ipv4Addr,
    pub(super) transaction: u32,
    pub(super) hardware: [u8; 6],
}

impl Message {
    pub(super) const SERVER_PORT: u16 = 67;
    pub(super) const CLIENT_PORT: u16 = 68;

    /// Reads what is in a datagram between those ports.
    pub(super) fn read(source: Ipv4Addr, destination: Ipv4Addr, payload: &[u8]) -> Option<Message> {
        const COOKIE: [u8; 4] = [0x63, 0x82, 0x53, 0x63];
        // Up to the options, and no options but those of DHCP.
        let header: &[u8; 240] = payload.first_chunk()?;
        let request = match header[0] {
            1 => true,
            2 => false,
            _ => return None,
        };
        // Ethernet.
        if header[1..3] != [1, 6] || header[236..] != COOKIE {
            return None;
        }
        let (server, client) = match request {
            true => (destination, source),
            false => (source, destination),
        };
        Some(Message {
            request,
            server,
            client,
            transaction: u32::from_be_bytes(*header[4..].first_chunk()?),
            hardware: *header[28..].first_chunk()?,
        })
    }
}
