//! The frames of the flood.

#[cfg(test)]
mod tests;

use core::net::Ipv4Addr;

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol,
    EthernetRepr, Icmpv4Packet, Icmpv4Repr, IpProtocol, Ipv4Packet, Ipv4Repr, TcpControl,
    TcpPacket, TcpRepr, TcpSeqNumber, UdpPacket, UdpRepr, checksum,
};

use super::rng::Rng;
use crate::wire::{FRAME_MAX, MACHINE_IP, MACHINE_MAC, MTU};

const ETHERNET_HEADER: usize = 14;
const IPV4_HEADER: usize = 20;
const UDP_HEADER: usize = 8;
const TCP_HEADER: usize = 20;
const ICMP_HEADER: usize = 8;

/// Hosts of the network that are neither the machine nor its gateway: 10.0.2.100 and up.
const STRANGERS: u8 = 100;
/// TCP connections that the segments seem to belong to, spread over the ports.
const TCP_FLOWS: u32 = 32;
/// Ports from here on belong to nobody: no system hands them out, and no task asks for them.
const UNKNOWN_PORTS: u16 = 61_000;

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A datagram to a port that somebody has.
    Udp,
    /// A segment with data, to a port that somebody has.
    Tcp,
    /// A stranger asks for the machine's hardware address.
    Arp,
    /// An ICMP echo request.
    Echo,
    /// A piece of an IP packet whose other pieces never come.
    Fragment,
    /// UDP or TCP to a port that nobody has.
    UnknownPort,
    /// Something that claims to be what it is not.
    Malformed,
}

impl Kind {
    /// Every kind, in the order of the declaration.
    pub(super) const ALL: [Kind; 7] = [
        Kind::Udp,
        Kind::Tcp,
        Kind::Arp,
        Kind::Echo,
        Kind::Fragment,
        Kind::UnknownPort,
        Kind::Malformed,
    ];

    /// Of 100 frames, how many are of this kind.
    fn share(self) -> u32 {
        match self {
            Kind::Udp => 60,
            Kind::Tcp => 26,
            Kind::Arp | Kind::Echo | Kind::Fragment => 3,
            Kind::UnknownPort => 3,
            Kind::Malformed => 2,
        }
    }
}

/// Makes one frame after another.
#[derive(Debug)]
pub(super) struct Sender {
    rng: Rng,
    udp_ports: Vec<u16>,
    flows: Vec<Flow>,
    /// What payloads are cut from.
    noise: Box<[u8]>,
    frame: Box<[u8]>,
}

/// A TCP connection that never was.
#[derive(Debug, Clone, Copy)]
struct Flow {
    from: Stranger,
    from_port: u16,
    to_port: u16,
    sequence: u32,
}

/// A host of the network.
#[derive(Debug, Clone, Copy)]
struct Stranger(u8);

impl Sender {
    pub(super) fn new(seed: u64, udp_ports: &[u16], tcp_ports: &[u16]) -> Sender {
        let mut rng = Rng::new(seed);
        let noise: Vec<u8> = (0..2 * MTU / 8)
            .flat_map(|_| rng.next().to_le_bytes())
            .collect();
        let flows = (0..TCP_FLOWS)
            .zip(tcp_ports.iter().cycle())
            .map(|(_, &to_port)| Flow {
                from: Stranger::any(&mut rng),
                from_port: rng.u16() | 0x8000,
                to_port,
                sequence: rng.next() as u32,
            })
            .collect();
        Sender {
            rng,
            udp_ports: udp_ports.to_vec(),
            flows,
            noise: noise.into_boxed_slice(),
            frame: vec![0; FRAME_MAX].into_boxed_slice(),
        }
    }

    /// The next frame.
    pub(super) fn next_frame(&mut self) -> (Kind, &[u8]) {
        let mut left = self.rng.below(100);
        let kind = Kind::ALL
            .into_iter()
            .find(|kind| match left.checked_sub(kind.share()) {
                None => true,
                Some(rest) => {
                    left = rest;
                    false
                }
            });
        self.frame_of(kind.unwrap_or(Kind::Udp))
    }

    /// A frame of that kind, or of one that is as good: without ports there is nothing to send to
    /// them.
    fn frame_of(&mut self, kind: Kind) -> (Kind, &[u8]) {
        let from = Stranger::any(&mut self.rng);
        let (kind, len) = match kind {
            Kind::Udp => match self.rng.pick(&self.udp_ports) {
                Some(port) => (kind, self.udp(from, port)),
                None => (Kind::UnknownPort, self.unknown_port(from)),
            },
            Kind::Tcp => match self.next_flow() {
                Some((flow, payload)) => (kind, self.tcp(flow, payload)),
                None => (Kind::UnknownPort, self.unknown_port(from)),
            },
            Kind::Arp => (kind, self.arp(from)),
            Kind::Echo => (kind, self.echo(from)),
            Kind::Fragment => (kind, self.fragment(from)),
            Kind::UnknownPort => (kind, self.unknown_port(from)),
            Kind::Malformed => (kind, self.malformed(from)),
        };
        (kind, &self.frame[..len])
    }

    fn udp(&mut self, from: Stranger, to_port: u16) -> usize {
        let len = payload_len(&mut self.rng, MTU - IPV4_HEADER - UDP_HEADER);
        let payload = noise(&mut self.rng, &self.noise, len);
        let from_port = self.rng.u16() | 0x8000;
        let packet = ipv4(&mut self.frame, from, IpProtocol::Udp, UDP_HEADER + len);
        let datagram = UdpRepr {
            src_port: from_port,
            dst_port: to_port,
        };
        datagram.emit(
            &mut UdpPacket::new_unchecked(packet),
            &from.ip().into(),
            &MACHINE_IP.into(),
            len,
            |buffer| buffer.copy_from_slice(payload),
            &ChecksumCapabilities::default(),
        );
        ETHERNET_HEADER + IPV4_HEADER + UDP_HEADER + len
    }

    /// A flow, as it is before its next segment, and how long that is to be.
    fn next_flow(&mut self) -> Option<(Flow, usize)> {
        let len = u32::try_from(self.flows.len()).ok().filter(|&n| n > 0)?;
        let payload = payload_len(&mut self.rng, MTU - IPV4_HEADER - TCP_HEADER);
        let flow = &mut self.flows[self.rng.below(len) as usize];
        let before = *flow;
        flow.sequence = flow.sequence.wrapping_add(payload as u32);
        Some((before, payload))
    }

    fn tcp(&mut self, flow: Flow, len: usize) -> usize {
        let payload = noise(&mut self.rng, &self.noise, len);
        let segment = TcpRepr {
            src_port: flow.from_port,
            dst_port: flow.to_port,
            control: TcpControl::Psh,
            seq_number: TcpSeqNumber(flow.sequence as i32),
            ack_number: Some(TcpSeqNumber(1)),
            window_len: u16::MAX,
            window_scale: None,
            max_seg_size: None,
            sack_permitted: false,
            sack_ranges: [None; 3],
            timestamp: None,
            payload,
        };
        let length = TCP_HEADER + len;
        let packet = ipv4(&mut self.frame, flow.from, IpProtocol::Tcp, length);
        segment.emit(
            &mut TcpPacket::new_unchecked(packet),
            &flow.from.ip().into(),
            &MACHINE_IP.into(),
            &ChecksumCapabilities::default(),
        );
        ETHERNET_HEADER + IPV4_HEADER + length
    }

    fn arp(&mut self, from: Stranger) -> usize {
        let question = ArpRepr::EthernetIpv4 {
            operation: ArpOperation::Request,
            source_hardware_addr: from.mac(),
            source_protocol_addr: from.ip(),
            target_hardware_addr: EthernetAddress([0; 6]),
            target_protocol_addr: MACHINE_IP,
        };
        let header = EthernetRepr {
            src_addr: from.mac(),
            dst_addr: EthernetAddress::BROADCAST,
            ethertype: EthernetProtocol::Arp,
        };
        let packet = ethernet(&mut self.frame, header, question.buffer_len());
        question.emit(&mut ArpPacket::new_unchecked(packet));
        ETHERNET_HEADER + question.buffer_len()
    }

    fn echo(&mut self, from: Stranger) -> usize {
        let len = payload_len(&mut self.rng, MTU - IPV4_HEADER - ICMP_HEADER);
        let request = Icmpv4Repr::EchoRequest {
            ident: self.rng.u16(),
            seq_no: self.rng.u16(),
            data: noise(&mut self.rng, &self.noise, len),
        };
        let length = request.buffer_len();
        let packet = ipv4(&mut self.frame, from, IpProtocol::Icmp, length);
        request.emit(
            &mut Icmpv4Packet::new_unchecked(packet),
            &ChecksumCapabilities::default(),
        );
        ETHERNET_HEADER + IPV4_HEADER + length
    }

    /// A first or a later piece of a long datagram.
    fn fragment(&mut self, from: Stranger) -> usize {
        let first = self.rng.below(2) == 0;
        let port = self.rng.pick(&self.udp_ports).unwrap_or(UNKNOWN_PORTS);
        let ident = self.rng.u16();
        // Offsets count in units of 8 bytes, and so do the lengths of all pieces but the last.
        let len = (payload_len(&mut self.rng, MTU - IPV4_HEADER) / 8).max(1) * 8;
        let offset = if first {
            0
        } else {
            8 * (1 + self.rng.below(7000) as u16)
        };
        let more = first || self.rng.below(2) == 0;
        let payload = noise(&mut self.rng, &self.noise, len);
        let packet = ipv4(&mut self.frame, from, IpProtocol::Udp, len);
        packet.copy_from_slice(payload);
        if first {
            let mut datagram = UdpPacket::new_unchecked(packet);
            datagram.set_dst_port(port);
            datagram.set_len(u16::try_from(len + 4000).unwrap_or(u16::MAX));
            // None: the sum would be over bytes that do not exist.
            datagram.set_checksum(0);
        }
        self.edit_ipv4(|header| {
            header.set_dont_frag(false);
            header.set_ident(ident);
            header.set_frag_offset(offset);
            header.set_more_frags(more);
        });
        ETHERNET_HEADER + IPV4_HEADER + len
    }

    fn unknown_port(&mut self, from: Stranger) -> usize {
        let port = UNKNOWN_PORTS + self.rng.below(1000) as u16;
        if self.rng.below(2) == 0 {
            return self.udp(from, port);
        }
        let flow = Flow {
            from,
            from_port: self.rng.u16() | 0x8000,
            to_port: port,
            sequence: self.rng.next() as u32,
        };
        let len = payload_len(&mut self.rng, MTU - IPV4_HEADER - TCP_HEADER);
        self.tcp(flow, len)
    }

    /// A good datagram that is then spoilt.
    fn malformed(&mut self, from: Stranger) -> usize {
        let port = self.rng.pick(&self.udp_ports).unwrap_or(UNKNOWN_PORTS);
        let len = self.udp(from, port);
        let ip = ETHERNET_HEADER;
        match self.rng.below(7) {
            // Shorter than the headers that it should have.
            0 => return 1 + self.rng.below((ETHERNET_HEADER + IPV4_HEADER) as u32 - 1) as usize,
            // Another version of IP than the Ethernet header says.
            1 => self.frame[ip] = 0x65,
            // A header of less than 20 bytes, with a right checksum.
            2 => self.edit_ipv4(|header| header.set_header_len(16)),
            // A packet that goes on behind the frame, with a right checksum.
            3 => self.edit_ipv4(|header| {
                let total = header.total_len();
                header.set_total_len(total.saturating_add(1000));
            }),
            // A wrong checksum of the header.
            4 => self.frame[ip + 10] ^= 0x55,
            // A datagram that goes on behind its packet.
            5 => self.frame[ip + IPV4_HEADER + 4] ^= 0x80,
            // Noise with an Ethernet header.
            _ => {
                let noise = noise(&mut self.rng, &self.noise, len - ip);
                self.frame[ip..len].copy_from_slice(noise);
            }
        }
        len
    }

    /// Changes the IPv4 header of the frame, and puts its checksum right.
    fn edit_ipv4(&mut self, edit: impl FnOnce(&mut Ipv4Packet<&mut [u8]>)) {
        let header = &mut self.frame[ETHERNET_HEADER..ETHERNET_HEADER + IPV4_HEADER];
        let mut packet = Ipv4Packet::new_unchecked(&mut *header);
        edit(&mut packet);
        packet.set_checksum(0);
        // Over these 20 bytes, whatever length the header now claims.
        let sum = !checksum::data(header);
        Ipv4Packet::new_unchecked(header).set_checksum(sum);
    }
}

impl Stranger {
    fn any(rng: &mut Rng) -> Stranger {
        Stranger(STRANGERS + rng.below(100) as u8)
    }

    fn ip(self) -> Ipv4Addr {
        Ipv4Addr::new(10, 0, 2, self.0)
    }

    fn mac(self) -> EthernetAddress {
        EthernetAddress([2, 0, 10, 0, 2, self.0])
    }
}

/// A length as they come: many short ones, many full ones, and the rest.
fn payload_len(rng: &mut Rng, max: usize) -> usize {
    match rng.below(3) {
        0 => 18 + rng.below(110) as usize,
        1 => max,
        _ => 1 + rng.below(max as u32) as usize,
    }
}

/// `len` bytes of the noise.
fn noise<'a>(rng: &mut Rng, noise: &'a [u8], len: usize) -> &'a [u8] {
    let start = rng.below((noise.len() - len + 1) as u32) as usize;
    &noise[start..start + len]
}

/// Writes an Ethernet header; what is behind it is returned.
fn ethernet(frame: &mut [u8], header: EthernetRepr, len: usize) -> &mut [u8] {
    let frame = &mut frame[..ETHERNET_HEADER + len];
    header.emit(&mut EthernetFrame::new_unchecked(&mut *frame));
    &mut frame[ETHERNET_HEADER..]
}

/// Writes the Ethernet and IPv4 headers of a packet to the machine; what is behind them is returned.
fn ipv4(frame: &mut [u8], from: Stranger, protocol: IpProtocol, len: usize) -> &mut [u8] {
    let header = EthernetRepr {
        src_addr: from.mac(),
        dst_addr: MACHINE_MAC,
        ethertype: EthernetProtocol::Ipv4,
    };
    let packet = ethernet(frame, header, IPV4_HEADER + len);
    let header = Ipv4Repr {
        src_addr: from.ip(),
        dst_addr: MACHINE_IP,
        next_header: protocol,
        payload_len: len,
        hop_limit: 64,
    };
    header.emit(
        &mut Ipv4Packet::new_unchecked(&mut *packet),
        &ChecksumCapabilities::default(),
    );
    &mut packet[IPV4_HEADER..]
}
