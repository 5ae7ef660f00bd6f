//! Sockets: of strangers who flood them, and of a server that the VM depends on for a while.

use core::cell::Cell;
use core::net::{Ipv4Addr, SocketAddrV4};
use std::collections::VecDeque;

use mempool::{Buffer, BufferCache, Frame, FrameAllocator, Gfp};
use netreserve::{
    DropReason, Flow, Mechanism as Part, MemallocContext, OwnedSocket, Protocol, SendError, Skb,
    SkbAllocError, SocketId, SocketTable, Verdict, VmioRoom,
};

use super::site::{SKB, Site, frame, with_site};
use crate::rng::Rng;
use crate::verdict::Findings;

const STEPS: usize = 300;

/// Packets that a socket may hold, and have sent.
const RCVBUF: usize = 4;
const SNDBUF: usize = 3;
const ROOM: VmioRoom = VmioRoom { rx: 4, tx: 2 };

const LOCAL: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 1), 700);
const SERVER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 2), 2049);
const STRANGER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 66), 6666);

/// Serves the VM now and then.
const SWAP: usize = 0;
/// Of a task that may sleep.
const OTHER: usize = 1;

/// Lets the day pass.
pub(super) fn run(rng: &mut Rng, off: Option<Part>, findings: &Findings) {
    // What the room holds, and of what is received one packet in each pair of hands.
    with_site([ROOM.rx + 2, ROOM.tx], |site| {
        if let Some(part) = off {
            site.table.ablate(part);
        }
        let mut day = Day {
            site,
            ids: [LOCAL.port(), 9].map(|port| bind(site.table, port)),
            findings,
            vmio: false,
            held: 0,
            sent: [const { VecDeque::new() }; 2],
            owned: [None, None],
            backlog: [0; 2],
            hog: (Vec::new(), Vec::new()),
        };
        for _ in 0..STEPS {
            day.step(rng);
            day.check();
        }
        day.end();
    });
}

fn bind(table: &SocketTable<'_>, port: u16) -> SocketId {
    let socket = table.bind(Protocol::Udp, port, RCVBUF * SKB);
    let socket = socket.expect("the port is free");
    table.set_sndbuf(socket, SNDBUF * SKB).expect("it is bound");
    socket
}

/// The host, and what its books say.
struct Day<'d, 'a, 'z> {
    site: &'d Site<'a, 'z>,
    ids: [SocketId; 2],
    findings: &'d Findings,
    vmio: bool,
    /// Packets of the server that came and that nobody has taken.
    held: usize,
    /// With the card: each, with its place beyond the send buffer or within it.
    sent: [VecDeque<Skb<'a>>; 2],
    owned: [Option<OwnedSocket<'a, 'a>>; 2],
    /// Packets that came since somebody owned the socket.
    backlog: [usize; 2],
    /// Whoever takes all ordinary memory.
    hog: (Vec<Frame<'a>>, Vec<Buffer<'a>>),
}

impl<'a> Day<'_, 'a, '_> {
    fn step(&mut self, rng: &mut Rng) {
        let socket = rng.index(2);
        match rng.below(12) {
            0..3 => self.stranger_sends(),
            3..5 => self.server_sends(),
            5 => self.read(socket),
            6 if self.vmio => self.clear(),
            6 => self.set(),
            7 => self.lock(socket),
            8 => self.release(socket, rng.chance(500)),
            9 => self.send(socket, rng.chance(300)),
            10 => drop(self.sent[socket].pop_front()),
            _ if self.hog.0.is_empty() => self.exhaust(),
            _ => self.hog = (Vec::new(), Vec::new()),
        }
    }

    fn exhaust(&mut self) {
        let zone = self.site.zone;
        self.hog.0 = core::iter::from_fn(|| zone.alloc(0, Gfp::ATOMIC).ok()).collect();
        let cache = self.site.cache;
        self.hog.1 = core::iter::from_fn(|| cache.alloc(Gfp::ATOMIC).ok()).collect();
    }

    fn receive(&self, flow: &Flow) -> Option<Verdict<'a>> {
        receive(self.site, flow)
    }

    fn stranger_sends(&mut self) {
        let to = SocketAddrV4::new(*LOCAL.ip(), 9);
        if let Some(Verdict::Delivered(_)) = self.receive(&Flow::udp(to, STRANGER)) {
            self.backlog[OTHER] += 1;
        }
    }

    /// A packet of the server is refused for no other reason than that the room is full.
    fn server_sends(&mut self) {
        let full =
            self.held >= ROOM.rx || self.owned[SWAP].is_some() && self.backlog[SWAP] >= ROOM.rx;
        match self.receive(&Flow::udp(LOCAL, SERVER)) {
            Some(Verdict::Delivered(_)) => {
                self.held += 1;
                self.backlog[SWAP] += 1;
                self.findings.check(!self.vmio || !full, "N4", || {
                    format!(
                        "a VMIO socket with room for {} packets took one more",
                        ROOM.rx
                    )
                });
            }
            Some(Verdict::Dropped(reason)) => {
                let fine = !self.vmio || full;
                self.findings.check(fine, "N7", || {
                    let held = self.held;
                    format!("a VMIO socket that held {held} packets was refused one: {reason}")
                });
            }
            _ => {}
        }
    }

    fn read(&mut self, socket: usize) {
        if self.site.table.recv(self.ids[socket]).is_some() && socket == SWAP {
            self.held -= 1;
        }
    }

    fn set(&mut self) {
        // As who swaps would: from an empty queue, and owned by nobody.
        if self.owned[SWAP].is_some() {
            return;
        }
        while self.site.table.recv(self.ids[SWAP]).is_some() {}
        self.held = 0;
        let result = self
            .site
            .table
            .set_vmio(self.ids[SWAP], Flow::udp(LOCAL, SERVER), ROOM);
        self.vmio = result.is_ok();
    }

    /// What is left afterwards is what an ordinary socket may hold.
    fn clear(&mut self) {
        self.site.table.clear_vmio(self.ids[SWAP]);
        self.vmio = false;
        let info = self.site.table.info(self.ids[SWAP]).expect("it is bound");
        let rx = self.site.nodes[0].usage();
        self.findings.check(rx == 0, "N7", || {
            format!("no socket serves the VM, and {rx} bytes of the receive reserve are charged")
        });
        self.findings.check(info.rmem <= info.rcvbuf, "N7", || {
            let (rmem, rcvbuf) = (info.rmem, info.rcvbuf);
            format!("a socket that does not serve the VM any more holds {rmem} bytes of {rcvbuf}")
        });
        self.held = info.queued + info.backlog;
    }

    fn lock(&mut self, socket: usize) {
        if let Some(owned) = self.site.table.lock_sock(self.ids[socket]) {
            self.owned[socket] = Some(owned);
            self.backlog[socket] = 0;
        }
    }

    /// The handler may have of the reserve what it needs, if the socket serves the VM. Meanwhile
    /// somebody goes on sending, and it ends all the same.
    fn release(&mut self, socket: usize, flooded: bool) {
        let Some(owned) = self.owned[socket].take() else {
            return;
        };
        let (site, findings) = (self.site, self.findings);
        let context = MemallocContext::new(site.zone, site.token, site.task);
        let (vmio, flow) = match socket {
            SWAP => (self.vmio, Flow::udp(LOCAL, SERVER)),
            _ => {
                let to = SocketAddrV4::new(*LOCAL.ip(), 9);
                (false, Flow::udp(to, STRANGER))
            }
        };
        let most = if vmio { ROOM.rx } else { RCVBUF };
        let (handled, came) = (Cell::new(0), Cell::new(0));
        let result = owned.release(&context, |skb| {
            let entitled = site.zone.entitled(Gfp::ATOMIC);
            findings.check(entitled == vmio, "M1", || {
                let which = if vmio { "the VM" } else { "nobody in need" };
                format!(
                    "the backlog of a socket that serves {which} is processed, entitled: {entitled}"
                )
            });
            drop(skb);
            handled.set(handled.get() + 1);
            findings.check(handled.get() <= most, "N4", || {
                format!(
                    "a backlog of {most} packets at most is being processed, and {handled:?} were"
                )
            });
            if flooded
                && handled.get() < 4 * most
                && let Some(Verdict::Delivered(_)) = receive(site, &flow)
            {
                came.set(came.get() + 1);
            }
            None
        });
        drop(result);
        if socket == SWAP {
            self.held = self.held + came.get() - handled.get();
        }
    }

    /// A sender has no more on the way than he may, whatever the card keeps of it, and no more of the
    /// reserve than was set aside for his room.
    fn send(&mut self, socket: usize, cloned: bool) {
        match self.site.table.alloc_send(self.ids[socket], self.site.pool) {
            Ok(mut skb) => {
                let clone = cloned.then(|| skb.try_clone().ok()).flatten();
                self.sent[socket].push_back(clone.unwrap_or(skb));
                let most = SNDBUF + if socket == SWAP { ROOM.tx } else { 0 };
                let sent = self.sent[socket].len();
                self.findings.check(sent <= most, "N4", || {
                    format!("a socket has {sent} packets with the card, and may have {most}")
                });
            }
            Err(SendError::SndbufFull) => {
                let (sent, vmio) = (self.sent[socket].len(), self.vmio && socket == SWAP);
                self.findings.check(sent >= SNDBUF && !vmio, "N7", || {
                    format!("a sender with {sent} packets on the way was refused (VMIO: {vmio})")
                });
            }
            Err(SendError::Alloc(SkbAllocError::Reserve(error))) => {
                self.findings.check(false, "N4", || {
                    format!("a sender was let into the reserve, and there it was refused: {error}")
                });
            }
            Err(_) => {}
        }
    }

    fn check(&self) {
        let (stats, cache) = (self.site.table.stats(), self.site.cache.stats());
        self.findings.check(stats.emergency == 0, "N2", || {
            let emergency = stats.emergency;
            format!("{emergency} emergency packets lie in sockets that do not serve the VM")
        });
        let charged = self
            .site
            .nodes
            .map(|node| node.usage())
            .iter()
            .sum::<usize>();
        let held = cache.reserve_objects * SKB;
        self.findings.check(charged == held, "N3", || {
            format!("packets hold {held} bytes of the reserve, and {charged} are charged")
        });
    }

    fn end(mut self) {
        self.clear();
        self.owned = [None, None];
        for id in self.ids {
            self.site.table.close(id);
        }
        self.sent = [const { VecDeque::new() }; 2];
        self.hog = (Vec::new(), Vec::new());
        self.site.cache.shrink();
        let (zone, wmem) = (self.site.zone.stats(), self.site.table.stats().wmem);
        self.findings
            .check(zone.free == zone.total && wmem == 0, "leak", || {
                let missing = zone.total - zone.free;
                format!("{missing} frames did not come back, and {wmem} bytes count as sent")
            });
        self.check();
    }
}

/// A packet comes from the other end of `flow`, if there is a buffer for it.
fn receive<'a>(site: &Site<'a, '_>, flow: &Flow) -> Option<Verdict<'a>> {
    let mut skb = site.pool.alloc_rx().ok()?;
    let frame = frame(flow, 16);
    skb.put(frame.len())
        .expect("it is short")
        .copy_from_slice(&frame);
    Some(match site.ingress.receive(skb) {
        Verdict::Unclaimed(skb, reason) => {
            site.ingress.drop_skb(skb, reason);
            Verdict::Dropped(DropReason::NoSocket)
        }
        verdict => verdict,
    })
}
