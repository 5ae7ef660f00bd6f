//! A host whose server is behind a router with a small MTU, whose address is leased, and whose packets
//! somebody taps; strangers in between, and no ordinary memory for much of the day.

use mempool::{Buffer, BufferCache, Frame, Gfp};
use netreserve::{ConsumerError, DhcpClient, Flow, Mechanism as Part, Skb, Verdict};

use core::net::{Ipv4Addr, SocketAddrV4};

use super::site::{SKB, Site, frame, with_site};
use crate::rng::Rng;
use crate::verdict::Findings;

const STEPS: usize = 300;

const HOST: [u8; 6] = [2, 0, 0, 0, 0, 1];
const LOCAL: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const LESSOR: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 3);
const STRANGER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 66);

/// Fragments that the router makes of a reply, and bytes in each.
const PIECES: usize = 3;
const PIECE: usize = 64;
/// How often the server sends a reply that nobody acknowledges.
const TRIES: usize = 4;
/// Steps for which the address is leased; it is renewed from the half of them on.
const LEASE: usize = 20;

/// Lets the day pass.
pub(super) fn run(rng: &mut Rng, off: Option<Part>, findings: &Findings) {
    with_site([2, 2], |site| {
        if let Some(part) = off {
            site.ingress.ablate(part);
        }
        let flow = Flow::udp(
            SocketAddrV4::new(LOCAL, 700),
            SocketAddrV4::new(SERVER, 2049),
        );
        site.flows.add(flow).expect("there is room");
        site.flows.allow_dhcp(DhcpClient::new(HOST).server(LESSOR));
        if site.ingress.register(site.tap) == Err(ConsumerError::KeepsVmio) {
            site.tap.ask_for_less();
            site.ingress
                .register(site.tap)
                .expect("it may see what does not serve the VM");
        }
        let mut day = Day {
            site,
            findings,
            flow,
            serial: 0,
            hog: (Vec::new(), Vec::new()),
        };
        let mut leased = LEASE;
        for step in 0..STEPS {
            match rng.below(8) {
                0..2 => day.strangers(rng),
                2..5 => day.request(rng),
                5 => site.tap.read(),
                _ if day.hog.0.is_empty() => day.exhaust(),
                _ if rng.chance(300) => day.hog = (Vec::new(), Vec::new()),
                _ => {}
            }
            if leased <= step + LEASE / 2 && day.renew() {
                leased = step + LEASE;
            }
            findings.check(step < leased, "N8", || {
                "the lease of the VM's address ran out: its renewal did not pass".into()
            });
            findings.check(!site.tap.holds_emergency(), "N2", || {
                "a tap whose reader sleeps holds an emergency packet".into()
            });
        }
        day.hog = (Vec::new(), Vec::new());
        site.tap.read();
        let usage = site.nodes.map(|node| node.usage());
        findings.check(usage == [0, 0], "M6", || {
            format!("{usage:?} bytes are still charged, and nobody holds a packet")
        });
        site.cache.shrink();
        let zone = site.zone.stats();
        findings.check(zone.free == zone.total, "leak", || {
            format!("{} frames did not come back", zone.total - zone.free)
        });
    });
}

struct Day<'d, 'a, 'z> {
    site: &'d Site<'a, 'z>,
    findings: &'d Findings,
    flow: Flow,
    /// Of the last packet that was cut up.
    serial: u16,
    hog: (Vec<Frame<'a>>, Vec<Buffer<'a>>),
}

impl Day<'_, '_, '_> {
    fn exhaust(&mut self) {
        let (zone, cache) = (self.site.zone, self.site.cache);
        self.hog.0 = core::iter::from_fn(|| zone.alloc(0, Gfp::ATOMIC).ok()).collect();
        self.hog.1 = core::iter::from_fn(|| cache.alloc(Gfp::ATOMIC).ok()).collect();
    }

    /// Whether the swap stack is given a frame; it frees it at once.
    fn receive(&self, frame: &[u8]) -> bool {
        let Ok(mut skb) = self.site.pool.alloc_rx() else {
            self.findings.report("liveness", || {
                let usage = self.site.nodes[0].usage() / SKB;
                format!("a packet finds no buffer: {usage} of the reserve are held, and not by the card or the stack")
            });
            return false;
        };
        skb.put(frame.len())
            .expect("it is short")
            .copy_from_slice(frame);
        match self.site.ingress.receive(skb) {
            Verdict::Swap(_) => true,
            Verdict::Unclaimed(skb, reason) => {
                self.findings.check(!skb.is_emergency(), "N2", || {
                    "another stack is given an emergency packet".into()
                });
                self.site.ingress.drop_skb(skb, reason);
                false
            }
            _ => false,
        }
    }

    /// Whether a frame of the stack gets out.
    fn send(&self, frame: &[u8]) -> bool {
        let Ok(mut skb) = self.site.pool.alloc_tx() else {
            return false;
        };
        skb.put(frame.len())
            .expect("it is short")
            .copy_from_slice(frame);
        self.site
            .ingress
            .egress(skb)
            .as_ref()
            .is_ok_and(|skb: &Skb<'_>| skb.len() == frame.len())
    }

    /// None of them is for the swap stack.
    fn strangers(&mut self, rng: &mut Rng) {
        for _ in 0..rng.range(1, 10) {
            let port = rng.range(1, 9) as u16;
            let flow = Flow::udp(
                SocketAddrV4::new(LOCAL, port),
                SocketAddrV4::new(STRANGER, 53),
            );
            let mut packet = frame(&flow, PIECES * PIECE - 8);
            if rng.chance(500) {
                // A packet with the same number as one of the server's.
                let id = self.serial.wrapping_sub(rng.below(3) as u16);
                packet = piece(&packet, id, rng.index(PIECES));
            }
            let passed = self.receive(&packet);
            self.findings.check(!passed, "N2", || {
                "the swap stack was given a stranger's packet".into()
            });
        }
    }

    /// The stack asks, and the server answers until it has heard.
    fn request(&mut self, rng: &mut Rng) {
        let answer = frame(&self.flow, PIECES * PIECE - 8);
        for last in (0..TRIES).rev() {
            self.serial = self.serial.wrapping_add(1);
            let id = self.serial;
            let mut order = [0, 1, 2];
            // On its way it may be overtaken by itself; not for ever.
            if last > 0 && rng.chance(300) {
                order.swap(rng.index(PIECES), rng.index(PIECES));
            }
            let mut arrived = [false; PIECES];
            for nth in order {
                arrived[nth] |= self.receive(&piece(&answer, id, nth));
                if rng.chance(300) {
                    self.strangers(rng);
                }
                if rng.chance(200) {
                    self.forge(&answer, id);
                }
            }
            if arrived == [true; PIECES] {
                return;
            }
        }
        self.findings.report("liveness", || {
            format!("the server's reply, cut up by a router, did not arrive whole in {TRIES} tries")
        });
    }

    /// A stranger in the server's name writes over the ports of its packet (RFC 1858).
    fn forge(&self, answer: &[u8], id: u16) {
        let mut forged = piece(answer, id, 1);
        forged[20..22].copy_from_slice(&(0x2000_u16 | 1).to_be_bytes());
        let passed = self.receive(&forged);
        self.findings.check(!passed, "N2", || {
            "a fragment was let in that writes over another one's ports".into()
        });
    }

    /// Whether the lessor could be asked, and heard.
    fn renew(&self) -> bool {
        let ask = Flow::udp(SocketAddrV4::new(LESSOR, 67), SocketAddrV4::new(LOCAL, 68));
        let hear = Flow::udp(SocketAddrV4::new(LOCAL, 68), SocketAddrV4::new(LESSOR, 67));
        self.send(&dhcp(&ask, 1)) && self.receive(&dhcp(&hear, 2))
    }
}

/// A message of DHCP: 1 asks, and 2 answers.
fn dhcp(flow: &Flow, operation: u8) -> Vec<u8> {
    let mut message = frame(flow, 240);
    let bootp = &mut message[42..];
    bootp[..3].copy_from_slice(&[operation, 1, 6]);
    bootp[28..34].copy_from_slice(&HOST);
    bootp[236..].copy_from_slice(&[0x63, 0x82, 0x53, 0x63]);
    message
}

/// One of the fragments of a packet.
fn piece(packet: &[u8], id: u16, nth: usize) -> Vec<u8> {
    let (headers, payload) = packet.split_at(34);
    let mut piece = headers.to_vec();
    piece.extend(&payload[nth * PIECE..(nth + 1) * PIECE]);
    piece[16..18].copy_from_slice(&(20 + PIECE as u16).to_be_bytes());
    piece[18..20].copy_from_slice(&id.to_be_bytes());
    let more = if nth + 1 < PIECES { 0x2000 } else { 0 };
    piece[20..22].copy_from_slice(&(more | (nth * PIECE / 8) as u16).to_be_bytes());
    piece
}
