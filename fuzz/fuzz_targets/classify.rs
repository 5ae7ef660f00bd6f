//! Frames, well formed or not, classified by us and judged once more through smoltcp's views.
//!
//! Where smoltcp can read a frame, the class must follow from what it reads; where it cannot, the
//! frame must be malformed. A priority tag must change nothing. Nothing may panic, whatever the
//! bytes.
#![no_main]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use netreserve::{
    Class, Control, DhcpClient, FirstFragment, Flow, FlowTable, Malformed, Neighbour, Protocol,
    Slot, VlanId, classify, classify_outgoing,
};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpHardware, ArpOperation, ArpPacket, ArpRepr, DhcpOpCode, DhcpPacket, EthernetAddress,
    EthernetFrame, EthernetProtocol, EthernetRepr, Icmpv4DstUnreachable, Icmpv4Packet, Icmpv4Repr,
    Icmpv6DstUnreachable, Icmpv6Message, Icmpv6Packet, Icmpv6Repr, IpAddress, IpProtocol, IpRepr,
    Ipv4Packet, Ipv4Repr, Ipv6ExtHeader, Ipv6FragmentHeader, Ipv6Packet, Ipv6Repr,
    Ipv6RoutingHeader, NdiscRepr, TcpPacket, UdpPacket,
};

const ETHERNET_HEADER: usize = 14;
const MAC: EthernetAddress = EthernetAddress([2, 0, 0, 0, 0, 1]);

#[derive(Debug, Arbitrary)]
struct Input<'a> {
    flows: [Ends; 3],
    /// The first flow lives in this VLAN, and the frame comes with this tag.
    vlan: u8,
    tag: Option<u8>,
    gateway: (u8, bool),
    /// A client may renew its lease: with this server alone, in this transaction alone.
    dhcp: Option<(Option<u8>, bool)>,
    /// Where the fragment begins that follows a first one, and what its protocol is changed by.
    rest: (u16, u8),
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
    Payload {
        protocol: u8,
        flags_and_offset: u16,
        hop_limit: u8,
        ends: Ends,
        payload: &'a [u8],
    },
    Transport {
        ends: Ends,
        /// In front of it: its kind, length, and what follows.
        extension: Option<(u8, bool, [u8; 6])>,
        payload: &'a [u8],
        excess: u8,
    },
    Arp {
        request: bool,
        sender: u8,
        target: u8,
    },
    Neighbour {
        solicit: bool,
        ends: Ends,
        target: u8,
        hop_limit: u8,
    },
    Unreachable {
        from: u8,
        quoted: Ends,
    },
    Dhcp {
        server: u8,
        client: u8,
        request: bool,
        outgoing: bool,
        transaction: bool,
        everybody: bool,
    },
}

/// The ends of a conversation, out of few, so that frames meet flows.
#[derive(Debug, Clone, Copy, Arbitrary)]
struct Ends {
    tcp: bool,
    ipv6: bool,
    local: u8,
    local_port: u8,
    remote: u8,
    remote_port: u8,
}

impl Ends {
    fn flow(self) -> Flow {
        let end = |host, port: u8| SocketAddr::new(address(host, self.ipv6), u16::from(port % 4));
        let protocol = if self.tcp {
            Protocol::Tcp
        } else {
            Protocol::Udp
        };
        Flow::new(
            protocol,
            end(self.local, self.local_port),
            end(self.remote, self.remote_port),
        )
    }
}

fn address(host: u8, ipv6: bool) -> IpAddr {
    match ipv6 {
        false => IpAddr::V4(Ipv4Addr::new(10, 0, 2, host % 4)),
        true => IpAddr::V6(Ipv6Addr::new(
            0x2001,
            0xdb8,
            0,
            0,
            0,
            0,
            0,
            u16::from(host % 4),
        )),
    }
}

fuzz_target!(|input: Input<'_>| {
    let (mut flows, mut addrs) = ([const { Slot::EMPTY }; 4], [const { Slot::EMPTY }; 8]);
    let mut fragments = [const { FirstFragment::EMPTY }; 2];
    let table = FlowTable::new(&mut flows, &mut addrs).with_fragments(&mut fragments);
    let dhcp = input.dhcp.map(|(server, transaction)| Lease {
        server: server.map(|server| v4(address(server, false))),
        transaction,
    });
    if let Some(lease) = dhcp {
        let mut client = DhcpClient::new(MAC.0);
        if let Some(server) = lease.server {
            client = client.server(server);
        }
        if lease.transaction {
            client = client.transaction(XID);
        }
        table.allow_dhcp(client);
    }
    for (nth, ends) in input.flows.into_iter().enumerate() {
        let flow = ends.flow();
        // The same flow may come twice, and is refused then.
        let _ = table.add(match VlanId::new(u16::from(input.vlan % 3)) {
            Some(vlan) if nth == 0 => flow.in_vlan(vlan),
            _ => flow,
        });
    }
    let (gateway, ipv6) = input.gateway;
    table
        .add_peer(address(gateway, ipv6))
        .expect("there is room for one");

    let mut frame = input.frame.bytes();
    if let Some(tag) = input.tag
        && frame.len() >= ETHERNET_HEADER
    {
        // One in four is the reserved number.
        let number = if tag & 3 == 3 { 0xff } else { tag & 3 };
        let high = if tag & 3 == 3 { 0x0f } else { tag & 0xf0 };
        frame.splice(12..12, [0x81, 0x00, high, number]);
    }
    frame.truncate(frame.len().saturating_sub(usize::from(input.cut)));
    frame.resize(frame.len() + usize::from(input.padding), 0);
    if let Some(byte) = frame.get_mut(usize::from(input.flip.0)) {
        *byte ^= input.flip.1;
    }

    for direction in [Direction::Received, Direction::Sent] {
        let class = direction.classify(&frame, &table);
        if let Some(expected) = judge(&frame, &table, dhcp, direction) {
            assert_eq!(class, expected, "{direction:?} {frame:02x?}");
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
        if class == Class::VmioFragment {
            follow(&frame, &table, direction, input.rest);
        }
    }
});

/// After a first fragment over IPv4: one of the same packet is let in if it begins behind it, one of
/// another protocol is not.
fn follow(frame: &[u8], table: &FlowTable<'_>, direction: Direction, (at, change): (u16, u8)) {
    if frame[12..14] != [0x08, 0x00] {
        return;
    }
    let packet = Ipv4Packet::new_checked(&frame[ETHERNET_HEADER..]).expect("it was read");
    let first = packet.payload().len();
    let at = at & 0x1fff;
    let mut rest = frame.to_vec();
    rest[ETHERNET_HEADER + 6..][..2].copy_from_slice(&at.to_be_bytes());
    rest[ETHERNET_HEADER + 9] ^= change;
    let class = direction.classify(&rest, table);
    if at != 0 {
        let follows = change == 0 && usize::from(at) * 8 >= first;
        assert_eq!(class == Class::VmioFragment, follows, "{at} of {first}");
    }
}

const XID: u32 = 0x5eed;

/// The client that may renew its lease.
#[derive(Debug, Clone, Copy)]
struct Lease {
    server: Option<Ipv4Addr>,
    transaction: bool,
}

fn v4(addr: IpAddr) -> Ipv4Addr {
    match addr {
        IpAddr::V4(addr) => addr,
        IpAddr::V6(_) => unreachable!("asked for IPv4"),
    }
}

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

    fn opposite(self) -> Direction {
        match self {
            Direction::Received => Direction::Sent,
            Direction::Sent => Direction::Received,
        }
    }
}

/// What a frame is judged against.
#[derive(Clone, Copy)]
struct Against<'a, 'm> {
    flows: &'a FlowTable<'m>,
    dhcp: Option<Lease>,
    vlan: Option<VlanId>,
    direction: Direction,
}

impl Against<'_, '_> {
    fn flow(self, protocol: Protocol, source: SocketAddr, destination: SocketAddr) -> Flow {
        let flow = match self.direction {
            Direction::Received => Flow::new(protocol, destination, source),
            Direction::Sent => Flow::new(protocol, source, destination),
        };
        match self.vlan {
            Some(vlan) => flow.in_vlan(vlan),
            None => flow,
        }
    }

    fn neighbour(self, addr: IpAddr) -> Neighbour {
        let neighbour = Neighbour::from(addr);
        match self.vlan {
            Some(vlan) => neighbour.in_vlan(vlan),
            None => neighbour,
        }
    }

    fn is_peer(self, addr: IpAddr) -> bool {
        self.flows.is_peer(self.neighbour(addr))
    }

    fn is_local(self, addr: IpAddr) -> bool {
        self.flows.is_local(self.neighbour(addr))
    }

    fn opposite(self) -> Self {
        Against {
            direction: self.direction.opposite(),
            ..self
        }
    }
}

/// The class, by smoltcp's reading; `None` where it has no opinion.
fn judge(
    frame: &[u8],
    flows: &FlowTable<'_>,
    dhcp: Option<Lease>,
    direction: Direction,
) -> Option<Class> {
    let Ok(ethernet) = EthernetFrame::new_checked(frame) else {
        return Some(Class::Malformed(Malformed::Ethernet));
    };
    let mut against = Against {
        flows,
        dhcp,
        vlan: None,
        direction,
    };
    let (mut protocol, mut payload) = (ethernet.ethertype(), ethernet.payload());
    if protocol == EthernetProtocol::Unknown(0x8100) {
        let Some(tag) = payload.first_chunk::<4>() else {
            return Some(Class::Malformed(Malformed::Ethernet));
        };
        let number = u16::from_be_bytes([tag[0], tag[1]]) & 0x0fff;
        against.vlan = VlanId::new(number);
        if number == 0x0fff {
            return Some(Class::Other);
        }
        protocol = EthernetProtocol::from(u16::from_be_bytes([tag[2], tag[3]]));
        payload = &payload[4..];
    }
    match protocol {
        EthernetProtocol::Arp => arp(payload, against),
        EthernetProtocol::Ipv4 => ipv4(payload, against),
        EthernetProtocol::Ipv6 => ipv6(payload, against),
        EthernetProtocol::Unknown(_) => Some(Class::Other),
    }
}

fn arp(packet: &[u8], against: Against<'_, '_>) -> Option<Class> {
    let packet = ArpPacket::new_checked(packet).ok()?;
    let Ok(ArpRepr::EthernetIpv4 {
        source_protocol_addr: sender,
        target_protocol_addr: target,
        ..
    }) = ArpRepr::parse(&packet)
    else {
        return None;
    };
    let serves = match against.direction {
        Direction::Received if sender.is_unspecified() => against.is_local(target.into()),
        Direction::Received => against.is_peer(sender.into()),
        Direction::Sent if against.is_peer(target.into()) => true,
        Direction::Sent => {
            (sender.is_unspecified() || sender == target) && against.is_local(target.into())
        }
    };
    Some(match serves {
        true => Class::Control(Control::Arp),
        false => Class::Arp,
    })
}

fn ipv4(packet: &[u8], against: Against<'_, '_>) -> Option<Class> {
    let malformed = Some(Class::Malformed(Malformed::Ipv4));
    let Ok(packet) = Ipv4Packet::new_checked(packet) else {
        return malformed;
    };
    // smoltcp looks at these later.
    if packet.version() != 4 || packet.header_len() < 20 {
        return malformed;
    }
    let ends = (packet.src_addr().into(), packet.dst_addr().into());
    let fragment =
        (packet.more_frags() || packet.frag_offset() != 0).then_some(packet.frag_offset());
    match (fragment, packet.next_header()) {
        (None, IpProtocol::Icmp) => icmp(packet.payload(), against),
        (fragment, next) => transport(next, ends, fragment, packet.payload(), against),
    }
}

fn ipv6(packet: &[u8], against: Against<'_, '_>) -> Option<Class> {
    let malformed = Some(Class::Malformed(Malformed::Ipv6));
    let Ok(packet) = Ipv6Packet::new_checked(packet) else {
        return malformed;
    };
    if packet.version() != 6 {
        return malformed;
    }
    let (source, destination) = (packet.src_addr(), packet.dst_addr());
    if mapped(source) || mapped(destination) {
        return Some(Class::Other);
    }
    let ends = (source.into(), destination.into());
    let (mut next, mut payload, mut fragment) = (packet.next_header(), packet.payload(), None);
    for nth in 0.. {
        if !is_extension(next) {
            break;
        }
        if payload.len() < 8 {
            return malformed;
        }
        if nth > 0 && next == IpProtocol::HopByHop {
            return Some(Class::Other);
        }
        let following = IpProtocol::from(payload[0]);
        if next == IpProtocol::Ipv6Frag {
            let header = Ipv6FragmentHeader::new_checked(&payload[2..8]).ok()?;
            let offset = header.frag_offset();
            fragment = (header.more_frags() || offset != 0).then_some(offset);
            payload = &payload[8..];
            next = following;
            if offset != 0 {
                break;
            }
        } else {
            if next == IpProtocol::Ipv6Route {
                let left = Ipv6RoutingHeader::new_unchecked(&payload[2..]).segments_left();
                if left != 0 {
                    return Some(Class::Other);
                }
            }
            let Ok(header) = Ipv6ExtHeader::new_checked(payload) else {
                return malformed;
            };
            payload = &payload[8 + usize::from(header.header_len()) * 8..];
            next = following;
        }
        if nth == 8 {
            return Some(Class::Other);
        }
    }
    match (fragment, next) {
        (None, IpProtocol::Icmpv6) => {
            let ends = (source, destination);
            icmp6(ends, packet.hop_limit(), payload, against)
        }
        (fragment, next) => transport(next, ends, fragment, payload, against),
    }
}

fn is_extension(next: IpProtocol) -> bool {
    matches!(
        next,
        IpProtocol::HopByHop | IpProtocol::Ipv6Route | IpProtocol::Ipv6Frag | IpProtocol::Ipv6Opts
    )
}

fn mapped(addr: Ipv6Addr) -> bool {
    addr.to_ipv4_mapped().is_some()
}

/// UDP or TCP, whole or in part, from an offset in bytes.
fn transport(
    next: IpProtocol,
    (source, destination): (IpAddr, IpAddr),
    fragment: Option<u16>,
    payload: &[u8],
    against: Against<'_, '_>,
) -> Option<Class> {
    let protocol = match next {
        IpProtocol::Udp => Some(Protocol::Udp),
        IpProtocol::Tcp => Some(Protocol::Tcp),
        _ => None,
    };
    let flow = |protocol, (from, to)| {
        let (source, destination) = (
            SocketAddr::new(source, from),
            SocketAddr::new(destination, to),
        );
        against.flow(protocol, source, destination)
    };
    if let Some(offset) = fragment {
        let ports = protocol.filter(|_| offset == 0).zip(ports(payload));
        let vmio =
            ports.is_some_and(|(protocol, ports)| against.flows.contains(flow(protocol, ports)));
        let least = if protocol == Some(Protocol::Tcp) {
            20
        } else {
            8
        };
        return Some(match vmio && payload.len() >= least {
            true => Class::VmioFragment,
            false => Class::Fragment { vmio },
        });
    }
    let flow = match protocol {
        Some(Protocol::Udp) => match UdpPacket::new_checked(payload) {
            Ok(udp) => flow(Protocol::Udp, (udp.src_port(), udp.dst_port())),
            Err(_) => return Some(Class::Malformed(Malformed::Transport)),
        },
        Some(Protocol::Tcp) => match TcpPacket::new_checked(payload) {
            Ok(tcp) => flow(Protocol::Tcp, (tcp.src_port(), tcp.dst_port())),
            Err(_) => return Some(Class::Malformed(Malformed::Transport)),
        },
        None => return Some(Class::Other),
    };
    Some(match against.flows.contains(flow) {
        true => Class::Vmio,
        false if is_dhcp(source, destination, payload, against) => Class::Control(Control::Dhcp),
        false => Class::Socket {
            protocol: flow.protocol(),
            local_port: flow.local().port(),
        },
    })
}

/// Whether a datagram renews the lease.
fn is_dhcp(source: IpAddr, destination: IpAddr, payload: &[u8], against: Against<'_, '_>) -> bool {
    let (Some(lease), None) = (against.dhcp, against.vlan) else {
        return false;
    };
    let (IpAddr::V4(source), IpAddr::V4(destination)) = (source, destination) else {
        return false;
    };
    let Ok(udp) = UdpPacket::new_checked(payload) else {
        return false;
    };
    let Ok(message) = DhcpPacket::new_checked(udp.payload()) else {
        return false;
    };
    let ports = (udp.src_port(), udp.dst_port());
    let ours = |client: Ipv4Addr| against.is_local(client.into());
    let addressed = match against.direction {
        Direction::Received => {
            let from = lease.server.is_none_or(|server| server == source);
            let to = destination.is_broadcast() || ours(destination);
            ports == (67, 68) && message.opcode() == DhcpOpCode::Reply && from && to
        }
        Direction::Sent => {
            let to = destination.is_broadcast()
                || lease.server.is_none_or(|server| server == destination);
            let from = source.is_unspecified() || ours(source);
            ports == (68, 67) && message.opcode() == DhcpOpCode::Request && from && to
        }
    };
    addressed
        && message.magic_number() == 0x6382_5363
        && message.hardware_type() == ArpHardware::Ethernet
        && message.hardware_len() == 6
        && message.client_hardware_address() == MAC
        && (!lease.transaction || message.transaction_id() == XID)
}

/// An error quoted a packet between these ends, which went the other way.
fn quoting(
    next: IpProtocol,
    (source, destination): (IpAddr, IpAddr),
    segment: &[u8],
    too_big: bool,
    against: Against<'_, '_>,
) -> Option<Class> {
    let protocol = match next {
        IpProtocol::Udp => Protocol::Udp,
        IpProtocol::Tcp => Protocol::Tcp,
        _ => return Some(Class::Icmp),
    };
    let (from, to) = ports(segment)?;
    let (source, destination) = (
        SocketAddr::new(source, from),
        SocketAddr::new(destination, to),
    );
    let flow = against.opposite().flow(protocol, source, destination);
    Some(match (against.flows.contains(flow), too_big) {
        (true, true) => Class::Control(Control::PacketTooBig),
        (true, false) => Class::Control(Control::IcmpError),
        (false, _) => Class::Icmp,
    })
}

fn icmp(message: &[u8], against: Against<'_, '_>) -> Option<Class> {
    let message = Icmpv4Packet::new_checked(message).ok()?;
    let repr = Icmpv4Repr::parse(&message, &ChecksumCapabilities::ignored()).ok()?;
    let (header, data, too_big) = match repr {
        Icmpv4Repr::DstUnreachable {
            header,
            data,
            reason,
        } => (header, data, reason == Icmpv4DstUnreachable::FragRequired),
        Icmpv4Repr::TimeExceeded { header, data, .. } => (header, data, false),
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
    let ends = (header.src_addr.into(), header.dst_addr.into());
    quoting(header.next_header, ends, data, too_big, against)
}

fn icmp6(
    (source, destination): (Ipv6Addr, Ipv6Addr),
    hop_limit: u8,
    message: &[u8],
    against: Against<'_, '_>,
) -> Option<Class> {
    let packet = Icmpv6Packet::new_checked(message).ok()?;
    if packet.msg_type().is_ndisc() {
        if hop_limit != 255 || packet.msg_code() != 0 {
            return Some(Class::Icmp);
        }
        return ndp(source, destination, &packet, against);
    }
    let ignored = ChecksumCapabilities::ignored();
    let repr = Icmpv6Repr::parse(&source, &destination, &packet, &ignored).ok()?;
    let (header, data, too_big) = match repr {
        Icmpv6Repr::DstUnreachable { header, data, .. }
        | Icmpv6Repr::TimeExceeded { header, data, .. } => (header, data, false),
        Icmpv6Repr::PktTooBig { header, data, .. } => (header, data, true),
        Icmpv6Repr::Mld(_) => return None,
        _ => return Some(Class::Icmp),
    };
    // smoltcp does not look at it at all.
    if message[8] >> 4 != 6 {
        return Some(Class::Malformed(Malformed::Icmp));
    }
    if is_extension(header.next_header) {
        return None;
    }
    if mapped(header.src_addr) || mapped(header.dst_addr) {
        return Some(Class::Icmp);
    }
    let ends = (header.src_addr.into(), header.dst_addr.into());
    quoting(header.next_header, ends, data, too_big, against)
}

fn ndp(
    source: Ipv6Addr,
    destination: Ipv6Addr,
    packet: &Icmpv6Packet<&[u8]>,
    against: Against<'_, '_>,
) -> Option<Class> {
    let all_nodes = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    let all_routers = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
    let (peer, local) = (
        |addr: Ipv6Addr| against.is_peer(addr.into()),
        |addr: Ipv6Addr| against.is_local(addr.into()),
    );
    let received = against.direction == Direction::Received;
    let message = NdiscRepr::parse(packet).ok()?;
    // Nobody on a link has such an address: it stands for one of IPv4.
    let about_ipv4 = match message {
        NdiscRepr::NeighborSolicit { target_addr, .. }
        | NdiscRepr::NeighborAdvert { target_addr, .. } => mapped(target_addr),
        NdiscRepr::Redirect {
            target_addr,
            dest_addr,
            ..
        } => mapped(target_addr) || mapped(dest_addr),
        NdiscRepr::RouterSolicit { .. } | NdiscRepr::RouterAdvert { .. } => false,
    };
    if about_ipv4 {
        return Some(Class::Icmp);
    }
    let serves = match message {
        NdiscRepr::RouterSolicit { .. } => {
            !received
                && (peer(destination) || destination == all_routers && any_ipv6(against.flows)?)
        }
        NdiscRepr::RouterAdvert { .. } => received && peer(source),
        NdiscRepr::NeighborSolicit { target_addr, .. } => {
            let asked = match received {
                true => peer(source),
                false => peer(target_addr),
            };
            asked || source.is_unspecified() && local(target_addr)
        }
        NdiscRepr::NeighborAdvert { target_addr, .. } => match received {
            true => peer(source) && peer(target_addr),
            false => peer(destination) || destination == all_nodes && local(target_addr),
        },
        NdiscRepr::Redirect {
            target_addr,
            dest_addr,
            ..
        } => received && peer(source) && peer(target_addr) && peer(dest_addr),
    };
    Some(match serves {
        true => Class::Control(Control::Ndp),
        false => Class::Ndp,
    })
}

/// Cannot be seen from outside, but where there is no flow at all.
fn any_ipv6(flows: &FlowTable<'_>) -> Option<bool> {
    match flows.any() {
        true => None,
        false => Some(false),
    }
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
            Frame::Payload {
                protocol,
                flags_and_offset,
                hop_limit,
                ends,
                payload,
            } => {
                let flow = ends.flow();
                let protocol = IpProtocol::from(protocol);
                let mut frame = packet(flow.remote().ip(), flow.local().ip(), protocol, payload);
                if ends.ipv6 {
                    frame[ETHERNET_HEADER + 7] = hop_limit;
                } else {
                    let field = flags_and_offset.to_be_bytes();
                    frame[ETHERNET_HEADER + 6..][..2].copy_from_slice(&field);
                }
                frame
            }
            Frame::Transport {
                ends,
                extension,
                payload,
                excess,
            } => {
                let flow = ends.flow();
                let mut segment = segment(flow, payload, excess);
                let mut protocol = flow.protocol().number();
                if let Some((kind, long, rest)) = extension.filter(|_| ends.ipv6) {
                    let header = [&[protocol, u8::from(long)], &rest[..]].concat();
                    segment.splice(0..0, header);
                    protocol = [0, 43, 44, 60][usize::from(kind % 4)];
                }
                let protocol = IpProtocol::from(protocol);
                packet(flow.remote().ip(), flow.local().ip(), protocol, &segment)
            }
            Frame::Arp {
                request,
                sender,
                target,
            } => {
                let v4 = |host| v4(address(host, false));
                let repr = ArpRepr::EthernetIpv4 {
                    operation: if request {
                        ArpOperation::Request
                    } else {
                        ArpOperation::Reply
                    },
                    source_hardware_addr: MAC,
                    source_protocol_addr: v4(sender),
                    target_hardware_addr: MAC,
                    target_protocol_addr: v4(target),
                };
                let mut frame = ethernet(EthernetProtocol::Arp, repr.buffer_len());
                repr.emit(&mut ArpPacket::new_unchecked(&mut frame[ETHERNET_HEADER..]));
                frame
            }
            Frame::Neighbour {
                solicit,
                ends,
                target,
                hop_limit,
            } => {
                let kind = match solicit {
                    true => Icmpv6Message::NeighborSolicit,
                    false => Icmpv6Message::NeighborAdvert,
                };
                let IpAddr::V6(target) = address(target, true) else {
                    unreachable!("asked for IPv6");
                };
                let mut message = vec![0; 24];
                message[0] = kind.into();
                message[8..].copy_from_slice(&target.octets());
                let flow = Ends { ipv6: true, ..ends }.flow();
                let (from, to) = (flow.remote().ip(), flow.local().ip());
                let mut frame = packet(from, to, IpProtocol::Icmpv6, &message);
                frame[ETHERNET_HEADER + 7] = 255 - hop_limit % 4 / 3;
                frame
            }
            Frame::Dhcp {
                server,
                client,
                request,
                outgoing,
                transaction,
                everybody,
            } => {
                let mut message = vec![0; 8 + 240];
                let length = message.len() as u16;
                let ports: [u16; 2] = if outgoing { [68, 67] } else { [67, 68] };
                message[..2].copy_from_slice(&ports[0].to_be_bytes());
                message[2..4].copy_from_slice(&ports[1].to_be_bytes());
                message[4..6].copy_from_slice(&length.to_be_bytes());
                message[8..11].copy_from_slice(&[if request { 1 } else { 2 }, 1, 6]);
                let xid = XID + u32::from(transaction);
                message[12..16].copy_from_slice(&xid.to_be_bytes());
                message[36..42].copy_from_slice(&MAC.0);
                message[244..].copy_from_slice(&[0x63, 0x82, 0x53, 0x63]);
                let (server, client) = (address(server, false), address(client, false));
                let all = IpAddr::V4(Ipv4Addr::BROADCAST);
                let none = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
                let (from, to) = match (outgoing, everybody) {
                    (false, false) => (server, client),
                    (false, true) => (server, all),
                    (true, false) => (client, server),
                    (true, true) => (none, all),
                };
                packet(from, to, IpProtocol::Udp, &message)
            }
            Frame::Unreachable { from, quoted } => {
                // What we sent comes back quoted.
                let flow = quoted.flow();
                let mirrored = Flow::new(flow.protocol(), flow.remote(), flow.local());
                let segment = segment(mirrored, &[], 0);
                let (source, destination) = (flow.local().ip(), flow.remote().ip());
                let next_header = IpProtocol::from(flow.protocol().number());
                let from = address(from, quoted.ipv6);
                match (source, destination) {
                    (IpAddr::V4(src_addr), IpAddr::V4(dst_addr)) => {
                        let repr = Icmpv4Repr::DstUnreachable {
                            reason: Icmpv4DstUnreachable::PortUnreachable,
                            header: Ipv4Repr {
                                src_addr,
                                dst_addr,
                                next_header,
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
                        packet(from, source, IpProtocol::Icmp, &message)
                    }
                    (IpAddr::V6(src_addr), IpAddr::V6(dst_addr)) => {
                        let repr = Icmpv6Repr::DstUnreachable {
                            reason: Icmpv6DstUnreachable::PortUnreachable,
                            header: Ipv6Repr {
                                src_addr,
                                dst_addr,
                                next_header,
                                payload_len: segment.len(),
                                hop_limit: 64,
                            },
                            data: &segment,
                        };
                        let mut message = vec![0; repr.buffer_len()];
                        repr.emit(
                            &dst_addr,
                            &src_addr,
                            &mut Icmpv6Packet::new_unchecked(&mut message),
                            &ChecksumCapabilities::default(),
                        );
                        packet(from, source, IpProtocol::Icmpv6, &message)
                    }
                    _ => unreachable!("the ends of a flow are of one family"),
                }
            }
        }
    }
}

/// A UDP or TCP segment from the remote end to the local one. UDP says that it is longer by
/// `excess`.
fn segment(flow: Flow, payload: &[u8], excess: u8) -> Vec<u8> {
    let ports = [
        flow.remote().port().to_be_bytes(),
        flow.local().port().to_be_bytes(),
    ]
    .concat();
    match flow.protocol() {
        Protocol::Udp => {
            let len = ((8 + payload.len()) as u16).wrapping_add(u16::from(excess));
            [&ports[..], &len.to_be_bytes(), &[0; 2], payload].concat()
        }
        Protocol::Tcp => [&ports[..], &[0; 8], &[0x50, 0x10], &[0; 6], payload].concat(),
    }
}

fn packet(source: IpAddr, destination: IpAddr, next: IpProtocol, payload: &[u8]) -> Vec<u8> {
    let payload = &payload[..payload.len().min(2000)];
    let (source, destination) = (IpAddress::from(source), IpAddress::from(destination));
    let repr = IpRepr::new(source, destination, next, payload.len(), 64);
    let protocol = match repr {
        IpRepr::Ipv4(_) => EthernetProtocol::Ipv4,
        IpRepr::Ipv6(_) => EthernetProtocol::Ipv6,
    };
    let mut frame = ethernet(protocol, repr.buffer_len());
    repr.emit(
        &mut frame[ETHERNET_HEADER..],
        &ChecksumCapabilities::default(),
    );
    frame[ETHERNET_HEADER + repr.header_len()..].copy_from_slice(payload);
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
