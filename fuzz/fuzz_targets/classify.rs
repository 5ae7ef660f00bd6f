//! Frames, well formed or not, classified by us and judged once more through smoltcp's views.
//!
//! Where smoltcp can read a frame, the class must follow from what it reads; where it cannot, the
//! frame must be malformed. A priority tag must change nothing. Nothing may panic, whatever the
//! bytes.
#![no_main]

use std::net::{Ipv4Addr, SocketAddrV4};

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use netreserve::{
    Class, Control, Flow, FlowTable, Malformed, Protocol, Slot, classify, classify_outgoing,
};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol,
    EthernetRepr, Icmpv4DstUnreachable, Icmpv4Packet, Icmpv4Repr, IpProtocol, Ipv4Packet, Ipv4Repr,
    TcpPacket, UdpPacket,
};

const ETHERNET_HEADER: usize = 14;
const MAC: EthernetAddress = EthernetAddress([2, 0, 0, 0, 0, 1]);

#[derive(Debug, Arbitrary)]
struct Input<'a> {
    flows: [Ends; 3],
    gateway: u8,
    frame: Frame<'a>,
    /// Bytes cut off the end.
    cut: u8,
    /// Bytes appended, as Ethernet does to short packets.
    padding: u8,
    /// One byte changed: where, and how.
    flip: (u8, u8),
}

#[derive(Debug, Arbitrary)]
enum Frame<'a> {
    Bytes(&'a [u8]),
    Ipv4Payload {
        protocol: u8,
        flags_and_offset: u16,
        ends: Ends,
        payload: &'a [u8],
    },
    Transport {
        ends: Ends,
        payload: &'a [u8],
        excess: u8,
    },
    Arp {
        request: bool,
        sender: u8,
        target: u8,
    },
    Unreachable {
        from: u8,
        quoted: Ends,
    },
}

/// The ends of a conversation, out of few, so that frames meet flows.
#[derive(Debug, Clone, Copy, Arbitrary)]
struct Ends {
    tcp: bool,
    local: u8,
    local_port: u8,
    remote: u8,
    remote_port: u8,
}

impl Ends {
    fn flow(self) -> Flow {
        let end = |host, port: u8| SocketAddrV4::new(address(host), u16::from(port % 4));
        Flow {
            protocol: if self.tcp {
                Protocol::Tcp
            } else {
                Protocol::Udp
            },
            local: end(self.local, self.local_port),
            remote: end(self.remote, self.remote_port),
        }
    }
}

fn address(host: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 2, host % 4)
}

fuzz_target!(|input: Input<'_>| {
    let (mut flows, mut peers) = ([const { Slot::EMPTY }; 4], [const { Slot::EMPTY }; 2]);
    let table = FlowTable::new(&mut flows, &mut peers);
    for ends in input.flows {
        // The same flow may come twice, and is refused then.
        let _ = table.add(ends.flow());
    }
    table
        .add_peer(address(input.gateway))
        .expect("there is room for one");

    let mut frame = input.frame.bytes();
    frame.truncate(frame.len().saturating_sub(usize::from(input.cut)));
    frame.resize(frame.len() + usize::from(input.padding), 0);
    if let Some(byte) = frame.get_mut(usize::from(input.flip.0)) {
        *byte ^= input.flip.1;
    }

    for direction in [Direction::Received, Direction::Sent] {
        let class = direction.classify(&frame, &table);
        if let Some(expected) = judge(&frame, &table, direction) {
            assert_eq!(class, expected, "{direction:?}");
        }
        if frame.len() >= ETHERNET_HEADER && frame[12..14] != [0x81, 0x00] {
            let mut tagged = frame.clone();
            tagged.splice(12..12, [0x81, 0x00, 0xe0, 0x00]);
            assert_eq!(
                direction.classify(&tagged, &table),
                class,
                "with a priority tag"
            );
        }
    }
});

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Received,
    Sent,
}

impl Direction {
    fn classify(self, frame: &[u8], flows: &FlowTable<'_>) -> Class {
        match self {
            Direction::Received => classify(frame, flows),
            Direction::Sent => classify_outgoing(frame, flows),
        }
    }

    fn flow(self, protocol: Protocol, source: SocketAddrV4, destination: SocketAddrV4) -> Flow {
        match self {
            Direction::Received => Flow {
                protocol,
                local: destination,
                remote: source,
            },
            Direction::Sent => Flow {
                protocol,
                local: source,
                remote: destination,
            },
        }
    }

    fn opposite(self) -> Direction {
        match self {
            Direction::Received => Direction::Sent,
            Direction::Sent => Direction::Received,
        }
    }
}

/// The class, by smoltcp's reading; `None` where it has no opinion.
fn judge(frame: &[u8], flows: &FlowTable<'_>, direction: Direction) -> Option<Class> {
    let Ok(ethernet) = EthernetFrame::new_checked(frame) else {
        return Some(Class::Malformed(Malformed::Ethernet));
    };
    match ethernet.ethertype() {
        EthernetProtocol::Arp => arp(ethernet.payload(), flows, direction),
        EthernetProtocol::Ipv4 => ipv4(ethernet.payload(), flows, direction),
        EthernetProtocol::Unknown(0x8100) => None,
        _ => Some(Class::Other),
    }
}

fn arp(packet: &[u8], flows: &FlowTable<'_>, direction: Direction) -> Option<Class> {
    let packet = ArpPacket::new_checked(packet).ok()?;
    let Ok(ArpRepr::EthernetIpv4 {
        source_protocol_addr,
        target_protocol_addr,
        ..
    }) = ArpRepr::parse(&packet)
    else {
        return None;
    };
    let neighbour = match direction {
        Direction::Received => source_protocol_addr,
        Direction::Sent => target_protocol_addr,
    };
    Some(match flows.is_peer(neighbour) {
        true => Class::Control(Control::Arp),
        false => Class::Arp,
    })
}

fn ipv4(packet: &[u8], flows: &FlowTable<'_>, direction: Direction) -> Option<Class> {
    let malformed = Some(Class::Malformed(Malformed::Ipv4));
    let Ok(packet) = Ipv4Packet::new_checked(packet) else {
        return malformed;
    };
    // smoltcp looks at these later.
    if packet.version() != 4 || packet.header_len() < 20 {
        return malformed;
    }
    let payload = packet.payload();
    let protocol = match packet.next_header() {
        IpProtocol::Udp => Some(Protocol::Udp),
        IpProtocol::Tcp => Some(Protocol::Tcp),
        _ => None,
    };
    if packet.more_frags() || packet.frag_offset() != 0 {
        let ports = protocol
            .filter(|_| packet.frag_offset() == 0)
            .zip(ports(payload));
        let vmio = ports.is_some_and(|(protocol, (source, destination))| {
            let source = SocketAddrV4::new(packet.src_addr(), source);
            let destination = SocketAddrV4::new(packet.dst_addr(), destination);
            flows.contains(direction.flow(protocol, source, destination))
        });
        return Some(Class::Fragment { vmio });
    }
    let (protocol, source, destination) = match packet.next_header() {
        IpProtocol::Udp => match UdpPacket::new_checked(payload) {
            Ok(udp) => (Protocol::Udp, udp.src_port(), udp.dst_port()),
            Err(_) => return Some(Class::Malformed(Malformed::Transport)),
        },
        IpProtocol::Tcp => match TcpPacket::new_checked(payload) {
            Ok(tcp) => (Protocol::Tcp, tcp.src_port(), tcp.dst_port()),
            Err(_) => return Some(Class::Malformed(Malformed::Transport)),
        },
        IpProtocol::Icmp => return icmp(payload, flows, direction),
        _ => return Some(Class::Other),
    };
    let source = SocketAddrV4::new(packet.src_addr(), source);
    let destination = SocketAddrV4::new(packet.dst_addr(), destination);
    let flow = direction.flow(protocol, source, destination);
    Some(match flows.contains(flow) {
        true => Class::Vmio,
        false => Class::Socket {
            protocol,
            local_port: flow.local.port(),
        },
    })
}

fn icmp(message: &[u8], flows: &FlowTable<'_>, direction: Direction) -> Option<Class> {
    let message = Icmpv4Packet::new_checked(message).ok()?;
    let repr = Icmpv4Repr::parse(&message, &ChecksumCapabilities::ignored()).ok()?;
    let (header, data) = match repr {
        Icmpv4Repr::DstUnreachable { header, data, .. }
        | Icmpv4Repr::TimeExceeded { header, data, .. } => (header, data),
        _ => return Some(Class::Icmp),
    };
    let quoted = Ipv4Packet::new_unchecked(message.data());
    // smoltcp does not look at these at all.
    if quoted.version() != 4 || quoted.header_len() < 20 {
        return Some(Class::Malformed(Malformed::Icmp));
    }
    if quoted.frag_offset() != 0 {
        return Some(Class::Icmp);
    }
    let protocol = match header.next_header {
        IpProtocol::Udp => Protocol::Udp,
        IpProtocol::Tcp => Protocol::Tcp,
        _ => return Some(Class::Icmp),
    };
    let (source, destination) = ports(data)?;
    let source = SocketAddrV4::new(header.src_addr, source);
    let destination = SocketAddrV4::new(header.dst_addr, destination);
    // The quoted packet went the other way.
    let flow = direction.opposite().flow(protocol, source, destination);
    Some(match flows.contains(flow) {
        true => Class::Control(Control::IcmpError),
        false => Class::Icmp,
    })
}

fn ports(segment: &[u8]) -> Option<(u16, u16)> {
    let ports: &[u8; 4] = segment.first_chunk()?;
    let [a, b, c, d] = *ports;
    Some((u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])))
}

impl Frame<'_> {
    fn bytes(&self) -> Vec<u8> {
        match *self {
            Frame::Bytes(bytes) => bytes.to_vec(),
            Frame::Ipv4Payload {
                protocol,
                flags_and_offset,
                ends,
                payload,
            } => {
                let flow = ends.flow();
                let protocol = IpProtocol::from(protocol);
                let mut frame = packet(*flow.remote.ip(), *flow.local.ip(), protocol, payload);
                frame[ETHERNET_HEADER + 6..][..2].copy_from_slice(&flags_and_offset.to_be_bytes());
                frame
            }
            Frame::Transport {
                ends,
                payload,
                excess,
            } => {
                let flow = ends.flow();
                let segment = segment(flow, payload, excess);
                let protocol = IpProtocol::from(flow.protocol.number());
                packet(*flow.remote.ip(), *flow.local.ip(), protocol, &segment)
            }
            Frame::Arp {
                request,
                sender,
                target,
            } => {
                let repr = ArpRepr::EthernetIpv4 {
                    operation: if request {
                        ArpOperation::Request
                    } else {
                        ArpOperation::Reply
                    },
                    source_hardware_addr: MAC,
                    source_protocol_addr: address(sender),
                    target_hardware_addr: MAC,
                    target_protocol_addr: address(target),
                };
                let mut frame = ethernet(EthernetProtocol::Arp, repr.buffer_len());
                repr.emit(&mut ArpPacket::new_unchecked(&mut frame[ETHERNET_HEADER..]));
                frame
            }
            Frame::Unreachable { from, quoted } => {
                // What we sent comes back quoted.
                let flow = quoted.flow();
                let mirrored = Flow {
                    local: flow.remote,
                    remote: flow.local,
                    ..flow
                };
                let segment = segment(mirrored, &[], 0);
                let repr = Icmpv4Repr::DstUnreachable {
                    reason: Icmpv4DstUnreachable::PortUnreachable,
                    header: Ipv4Repr {
                        src_addr: *flow.local.ip(),
                        dst_addr: *flow.remote.ip(),
                        next_header: IpProtocol::from(flow.protocol.number()),
                        payload_len: segment.len(),
                        hop_limit: 64,
                    },
                    data: &segment,
                };
                let mut message = vec![0; repr.buffer_len()];
                repr.emit(
                    &mut Icmpv4Packet::new_unchecked(&mut message),
                    &ChecksumCapabilities::default(),
                );
                packet(address(from), *flow.local.ip(), IpProtocol::Icmp, &message)
            }
        }
    }
}

/// A UDP or TCP segment from the remote end to the local one. UDP says that it is longer by
/// `excess`.
fn segment(flow: Flow, payload: &[u8], excess: u8) -> Vec<u8> {
    let ports = [
        flow.remote.port().to_be_bytes(),
        flow.local.port().to_be_bytes(),
    ]
    .concat();
    match flow.protocol {
        Protocol::Udp => {
            let len = ((8 + payload.len()) as u16).wrapping_add(u16::from(excess));
            [&ports[..], &len.to_be_bytes(), &[0; 2], payload].concat()
        }
        Protocol::Tcp => [&ports[..], &[0; 8], &[0x50, 0x10], &[0; 6], payload].concat(),
    }
}

fn packet(source: Ipv4Addr, destination: Ipv4Addr, next: IpProtocol, payload: &[u8]) -> Vec<u8> {
    let payload = &payload[..payload.len().min(2000)];
    let repr = Ipv4Repr {
        src_addr: source,
        dst_addr: destination,
        next_header: next,
        payload_len: payload.len(),
        hop_limit: 64,
    };
    let mut frame = ethernet(EthernetProtocol::Ipv4, repr.buffer_len() + payload.len());
    let mut packet = Ipv4Packet::new_unchecked(&mut frame[ETHERNET_HEADER..]);
    repr.emit(&mut packet, &ChecksumCapabilities::default());
    packet.payload_mut().copy_from_slice(payload);
    frame
}

fn ethernet(ethertype: EthernetProtocol, payload: usize) -> Vec<u8> {
    let mut frame = vec![0; ETHERNET_HEADER + payload];
    let repr = EthernetRepr {
        src_addr: MAC,
        dst_addr: MAC,
        ethertype,
    };
    repr.emit(&mut EthernetFrame::new_unchecked(&mut frame));
    frame
}
