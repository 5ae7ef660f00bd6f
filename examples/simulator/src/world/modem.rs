//! A line without Ethernet, between a card and the wire: a modem puts the header in front of what is sent,
//! takes it off what comes, and answers for the card when somebody asks for its address.

use netreserve::Medium;

use super::World;
use crate::packet::ETHERNET;

const IPV4: [u8; 2] = [0x08, 0x00];
const ARP: [u8; 2] = [0x08, 0x06];
/// Hardware type Ethernet, protocol type IPv4, address lengths 6 and 4.
const ARP_IPV4: [u8; 6] = [0, 1, 8, 0, 6, 4];
const REQUEST: [u8; 2] = [0, 1];
const REPLY: [u8; 2] = [0, 2];

/// What becomes of a packet that comes to the card.
pub(super) enum Incoming {
    /// It is for the card, as the card sees it.
    Card(Vec<u8>),
    /// The modem answers.
    Answer(Vec<u8>),
    /// It ends at the modem.
    Nothing,
}

impl World<'_> {
    /// A packet of the card, as the wire carries it.
    pub(super) fn encapsulate(&self, card: usize, packet: Vec<u8>) -> Vec<u8> {
        match self.scenario.machine.medium {
            Medium::Ip => {
                let mut frame = self.host.hardware().to_vec();
                frame.extend(self.targets[card].hardware);
                frame.extend(IPV4);
                frame.extend(packet);
                frame
            }
            _ => packet,
        }
    }

    /// A packet of the wire, as the card sees it.
    pub(super) fn decapsulate(&self, card: usize, frame: Vec<u8>) -> Incoming {
        if self.scenario.machine.medium != Medium::Ip {
            return Incoming::Card(frame);
        }
        let own = self.targets[card].hardware;
        match frame.get(12..ETHERNET) {
            Some(kind) if kind == IPV4 && frame.starts_with(&own) => {
                Incoming::Card(frame[ETHERNET..].to_vec())
            }
            Some(kind) if kind == ARP => {
                match answer(&frame, own, self.targets[card].address.octets()) {
                    Some(answer) => Incoming::Answer(answer),
                    None => Incoming::Nothing,
                }
            }
            _ => Incoming::Nothing,
        }
    }
}

/// To a request for the address.
fn answer(frame: &[u8], hardware: [u8; 6], address: [u8; 4]) -> Option<Vec<u8>> {
    let arp = frame.get(ETHERNET..ETHERNET + 28)?;
    if arp[..6] != ARP_IPV4 || arp[6..8] != REQUEST || arp[24..28] != address {
        return None;
    }
    let mut answer = arp[8..14].to_vec();
    answer.extend(hardware);
    answer.extend(ARP);
    answer.extend(ARP_IPV4);
    answer.extend(REPLY);
    answer.extend(hardware);
    answer.extend(address);
    answer.extend(&arp[8..18]);
    Some(answer)
}
