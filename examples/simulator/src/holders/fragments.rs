//! Reassembly: strangers who never send the rest, a server whose datagrams come whole, and an
//! administrator who changes the limits.

use core::mem::ManuallyDrop;
use core::net::{Ipv4Addr, SocketAddrV4};
use core::time::Duration;

use mempool::{Budget, Buffer, BufferCache, Frame, Gfp};
use netreserve::{
    Flow, FragmentSlot, LruSlot, Mechanism as Part, Medium, Reassembly, ReassemblyLimits,
    RxHolders, RxLimits,
};

use super::site::{SKB, Site, with_site};
use crate::rng::Rng;
use crate::verdict::Findings;

const STEPS: usize = 400;

/// Packets that reassembly may hold.
const HIGH: [usize; 3] = [6, 10, 16];
const SLOTS: usize = 24;
/// Fragments of a datagram of the server.
const PIECES: usize = 3;
const PIECE: usize = 64;

/// Lets the day pass.
pub(super) fn run(rng: &mut Rng, off: Option<Part>, findings: &Findings) {
    with_site([2, 2], |site| {
        let mut datagrams = [const { LruSlot::EMPTY }; 16];
        let mut fragments = ManuallyDrop::new([const { FragmentSlot::EMPTY }; SLOTS]);
        let limits = ReassemblyLimits::new(HIGH[0] * SKB);
        let table = Reassembly::new(&mut datagrams, &mut fragments[..], limits, Medium::Ethernet);
        // The ring of one, the ladder's, and what reassembly holds; the transmit node's beside it.
        let holders = RxHolders {
            reassembly: HIGH[0] * SKB,
            ..RxHolders::ring(1)
        };
        let reserve = RxLimits::new(site.nodes[0], holders, 2, SKB, 0);
        let mut reserve = reserve.expect("nothing is taken yet");
        if let Some(part) = off {
            table.ablate(part);
            reserve.ablate(part);
        }
        let flow = Flow::udp(
            SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 1), 700),
            SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 2), 2049),
        );
        site.flows.add(flow).expect("there is room");
        let mut day = Day {
            site,
            table: &table,
            findings,
            high: HIGH[0],
            now: Duration::ZERO,
            serial: 0,
            hog: (Vec::new(), Vec::new()),
        };
        for _ in 0..STEPS {
            match rng.below(8) {
                0..4 => day.stranger(rng),
                4 | 5 => day.server(rng),
                6 => day.change(rng, &mut reserve),
                _ if day.hog.0.is_empty() => day.exhaust(),
                _ => day.hog = (Vec::new(), Vec::new()),
            }
            day.now += Duration::from_millis(rng.below(2_000));
            day.check();
        }
        day.hog = (Vec::new(), Vec::new());
        table.clear();
        site.cache.shrink();
        let zone = site.zone.stats();
        findings.check(zone.free == zone.total, "leak", || {
            format!("{} frames did not come back", zone.total - zone.free)
        });
    });
}

struct Day<'d, 'a, 'z, 'r> {
    site: &'d Site<'a, 'z>,
    table: &'d Reassembly<'r>,
    findings: &'d Findings,
    /// Packets that it may hold now.
    high: usize,
    now: Duration,
    serial: u16,
    hog: (Vec<Frame<'a>>, Vec<Buffer<'a>>),
}

impl<'a: 'r, 'r> Day<'_, 'a, '_, 'r> {
    fn exhaust(&mut self) {
        let zone = self.site.zone;
        self.hog.0 = core::iter::from_fn(|| zone.alloc(0, Gfp::ATOMIC).ok()).collect();
        let cache = self.site.cache;
        self.hog.1 = core::iter::from_fn(|| cache.alloc(Gfp::ATOMIC).ok()).collect();
    }

    /// Whether a packet was completed; `None` if there was no buffer for it.
    fn push(&self, frame: &[u8], vmio: bool) -> Option<bool> {
        let mut skb = self.site.pool.alloc_rx().ok()?;
        skb.put(frame.len())
            .expect("it is short")
            .copy_from_slice(frame);
        let emergency = skb.is_emergency();
        let taken = self.table.push(skb, vmio, self.now);
        self.findings
            .check(vmio || !emergency || taken.is_err(), "N2", || {
                "reassembly keeps an emergency packet of a stranger".into()
            });
        Some(matches!(taken, Ok(Some(_))))
    }

    /// Fragments of datagrams that will never be complete.
    fn stranger(&mut self, rng: &mut Rng) {
        for _ in 0..rng.range(1, 12) {
            self.serial = self.serial.wrapping_add(1);
            let piece = rng.index(PIECES);
            self.push(&fragment(66, self.serial, piece), false);
        }
    }

    /// All of a datagram comes, strangers' in between: nothing of it may be lost, since it is the only
    /// one that serves the VM.
    fn server(&mut self, rng: &mut Rng) {
        self.serial = self.serial.wrapping_add(1);
        let serial = self.serial;
        let mut complete = false;
        for piece in 0..PIECES {
            match self.push(&fragment(2, serial, piece), true) {
                Some(last) => complete = last,
                // The card had no buffer for it.
                None => return,
            }
            if piece + 1 < PIECES && rng.chance(500) {
                self.stranger(rng);
            }
        }
        self.findings.check(complete, "N8", || {
            "a datagram that serves the VM came whole, and strangers' fragments displaced it".into()
        });
    }

    /// More is promised only with the frames for it.
    fn change(&mut self, rng: &mut Rng, reserve: &mut RxLimits<'_, '_>) {
        let high = rng.pick(&HIGH);
        let limits = ReassemblyLimits::new(high * SKB);
        if reserve.set_reassembly(self.table, limits).is_ok() {
            self.high = high;
            let promised = Budget::objects(high + 3 + 2, SKB, 0).frames();
            let held = self.site.zone.stats().reserve;
            self.findings.check(held >= promised, "N4", || {
                format!("reassembly may hold {high} packets, which takes {promised} frames, and {held} are set aside")
            });
        }
    }

    /// What is in use and nobody else's is held by reassembly.
    fn check(&self) {
        let held = self.site.cache.stats().in_use - self.hog.1.len();
        self.findings.check(held <= self.high, "N4", || {
            let high = self.high;
            format!("reassembly holds {held} packets, and may hold {high}")
        });
        let (usage, reserved) = (
            self.site.nodes[0].usage(),
            self.site.cache.stats().reserve_objects * SKB,
        );
        self.findings.check(usage == reserved, "N3", || {
            format!("fragments hold {reserved} bytes of the reserve, and {usage} are charged")
        });
    }
}

/// One of the fragments of a datagram of that host.
fn fragment(host: u8, id: u16, piece: usize) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, 0x45, 0];
    frame.extend((20 + PIECE as u16).to_be_bytes());
    frame.extend(id.to_be_bytes());
    let more = if piece + 1 < PIECES { 0x2000 } else { 0 };
    frame.extend((more | (piece * PIECE / 8) as u16).to_be_bytes());
    frame.extend([64, 17, 0, 0, 10, 0, 0, host, 10, 0, 0, 1]);
    frame.resize(frame.len() + PIECE, host);
    frame
}
