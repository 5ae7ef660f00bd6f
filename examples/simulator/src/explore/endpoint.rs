//! What can be known of a TCP endpoint without looking into it: what it was told, and what it said.

use core::net::Ipv4Addr;

use super::digest::{Digest, chain};
use crate::packet::{self, ETHERNET};
use crate::scenario::Micros;
use crate::server;

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

/// One side of the swap connection, by the packets that went past it.
#[derive(Debug, Default, Hash)]
pub(super) struct Endpoint {
    /// Ports of the connection.
    ports: [u16; 2],
    /// Where it goes on sending, and the furthest that it ever was.
    next: u32,
    furthest: u32,
    /// Segments sent again. A retransmission changes the timers that come after it.
    again: u32,
    /// What the peer last acknowledged, its window, and how often it said so in a row.
    acknowledged: (u32, u16),
    repeated: u8,
    /// What it last acknowledged itself, and its own window.
    acknowledges: (u32, u16),
    /// What came beyond that.
    beyond: Vec<(u32, u32)>,
    /// The segment whose answer is timed, and when it was sent; and how long others took, if any
    /// time at all. The timers that come later depend on it.
    timed: Option<(u32, Micros)>,
    took: u64,
    /// SYN, FIN and RST that came and went.
    flags: [u8; 2],
    /// ARP, both ways: there is little of it.
    neighbours: u64,
}

/// A segment, as far as it matters here.
struct Segment {
    ports: [u16; 2],
    sequence: u32,
    /// Of sequence space: SYN and FIN count.
    len: u32,
    flags: u8,
    acknowledges: (u32, u16),
}

impl Segment {
    fn parse(frame: &[u8]) -> Option<Segment> {
        let tcp = packet::tcp(frame)?;
        let swap: [&Ipv4Addr; 2] = [tcp.source.ip(), tcp.destination.ip()];
        swap.contains(&&server::ADDRESS).then_some(())?;
        let half = |at: usize| u16::from_be_bytes([frame[at], frame[at + 1]]);
        let word = |at: usize| u32::from(half(at)) << 16 | u32::from(half(at + 2));
        let ip = ETHERNET;
        let header = frame
            .get(ip + 20..ip + 40)
            .map(|header| usize::from(header[12] >> 4) * 4)?;
        let flags = frame[ip + 33];
        let payload = usize::from(half(ip + 2)).saturating_sub(20 + header) as u32;
        let mut ports = [tcp.source.port(), tcp.destination.port()];
        ports.sort_unstable();
        Some(Segment {
            ports,
            sequence: word(ip + 24),
            len: payload + (flags & (SYN | FIN)).count_ones(),
            flags,
            acknowledges: (
                if flags & ACK != 0 { word(ip + 28) } else { 0 },
                half(ip + 34),
            ),
        })
    }

    const fn end(&self) -> u32 {
        self.sequence.wrapping_add(self.len)
    }
}

/// Whether one sequence number comes after another.
const fn after(one: u32, other: u32) -> bool {
    (one.wrapping_sub(other) as i32) > 0
}

impl Endpoint {
    /// A packet reached this side.
    pub(super) fn received(&mut self, frame: &[u8], now: Micros) {
        let Some(segment) = Segment::parse(frame) else {
            return self.neighbour(frame, false, now);
        };
        self.begin(&segment);
        self.flags[0] |= segment.flags & (SYN | FIN | RST);
        if segment.len == 0 && self.acknowledged == segment.acknowledges {
            self.repeated = self.repeated.saturating_add(1);
        } else {
            self.repeated = 0;
        }
        self.acknowledged = segment.acknowledges;
        if let Some((end, at)) = self.timed
            && !after(end, self.acknowledged.0)
        {
            self.timed = None;
            if now > at {
                self.took = chain(self.took, now - at);
            }
        }
        let came = (segment.sequence, segment.end());
        if segment.len > 0
            && after(came.1, self.acknowledges.0)
            && let Err(at) = self.beyond.binary_search(&came)
        {
            self.beyond.insert(at, came);
        }
    }

    /// A packet left this side.
    pub(super) fn sent(&mut self, frame: &[u8], now: Micros) {
        let Some(segment) = Segment::parse(frame) else {
            return self.neighbour(frame, true, now);
        };
        self.begin(&segment);
        self.flags[1] |= segment.flags & (SYN | FIN | RST);
        if segment.len > 0 {
            self.next = segment.end();
            if after(self.furthest, segment.sequence) {
                self.again += 1;
                self.timed = None;
            } else if self.timed.is_none() {
                self.timed = Some((self.next, now));
            }
            if after(self.next, self.furthest) {
                self.furthest = self.next;
            }
        }
        self.acknowledges = segment.acknowledges;
        let acknowledges = self.acknowledges.0;
        self.beyond.retain(|(_, end)| after(*end, acknowledges));
    }

    fn begin(&mut self, segment: &Segment) {
        if segment.ports != self.ports {
            *self = Endpoint {
                ports: segment.ports,
                next: segment.sequence,
                furthest: segment.sequence,
                neighbours: self.neighbours,
                ..Endpoint::default()
            };
        }
    }

    fn neighbour(&mut self, frame: &[u8], out: bool, now: Micros) {
        if packet::arp_target(frame).is_some() {
            self.neighbours = chain(self.neighbours, (frame, out, now));
        }
    }

    pub(super) fn digest(&self, digest: &mut Digest) {
        digest.value(self);
    }

    /// The last byte in order that it has received and acknowledged, as a name for what was read.
    pub(super) const fn position(&self) -> (u16, u32) {
        (self.ports[1], self.acknowledges.0)
    }
}
