//! Any sequence of operations on skbs, the ladder, the sockets and the limits of the nodes, in plenty, in
//! want, and with allocations that fail, against a count of the memory that each skb holds.
//!
//! Checked at every step: what is charged is the memory of the emergency skbs, once each (N3, M6); an
//! emergency skb is nowhere but with the swap stack and with sockets that serve the VM (N2), and there is none
//! without a flow (N1); sockets are billed for what they hold (N4, N7). In the end everything is back.
//!
//! The machine is the one of the sweep, and is used again: what one run left would break the next.
#![no_main]

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use arbitrary::{Arbitrary, Unstructured};
use libfuzzer_sys::fuzz_target;
use netreserve::{Flow, Protocol, Skb, SocketId, Verdict, VmioRoom};

#[allow(dead_code)]
#[path = "../../mempool/tests/sweep/inject.rs"]
mod inject;
#[allow(dead_code)]
#[path = "../../netreserve/tests/sweep/machine.rs"]
mod machine;
#[allow(dead_code)]
#[path = "../../netreserve/tests/sweep/packets.rs"]
mod packets;

use inject::Fails;
use machine::{Hog, Machine, RING, SKB, machine};
use packets::*;

/// Skbs that are held at once: more than the budget has.
const HELD: usize = 3 * RING;
const PORTS: [u16; 3] = [UDP_PORT, 80, 99];

#[derive(Debug, Arbitrary)]
enum Op<'a> {
    SwapFlow(bool),
    Hog(bool),
    /// The next call but so many fails.
    FailSoon(u8),
    AllocTx {
        ordinary: bool,
        len: u16,
    },
    Receive(Frame<'a>),
    Egress(u8),
    Clone(u8),
    Split {
        which: u8,
        at: u16,
    },
    Copy(u8),
    Expand {
        which: u8,
        headroom: u16,
    },
    Linearize {
        first: u8,
        last: u8,
    },
    Edit {
        which: u8,
        edit: Edit,
        n: u16,
    },
    Free(u8),
    Bind {
        port: u8,
        rcvbuf: u8,
    },
    Close(u8),
    Recv(u8),
    Send(u8),
    Own {
        port: u8,
        which: u8,
    },
    ServeVm {
        port: u8,
        rx: u8,
        tx: u8,
    },
    ServeVmNoMore(u8),
    SetLimit {
        tx: bool,
        skbs: u8,
        pages: u8,
    },
}

#[derive(Debug, Clone, Copy, Arbitrary)]
enum Edit {
    Put,
    Push,
    Pull,
    Skip,
    Trim,
    Reserve,
}

#[derive(Debug, Clone, Copy, Arbitrary)]
enum Frame<'a> {
    Reply(u16),
    Tagged,
    ServerArp,
    StrangerArp,
    Unreachable,
    Udp { port: u8, len: u16 },
    Fragment { offset: u16, len: u16 },
    Bytes(&'a [u8]),
}

impl Frame<'_> {
    fn bytes(self) -> Vec<u8> {
        let len = |len: u16| usize::from(len % 1400);
        match self {
            Frame::Reply(n) => reply(len(n)),
            Frame::Tagged => tagged(reply(9)),
            Frame::ServerArp => arp(*SERVER.ip()),
            Frame::StrangerArp => arp(*STRANGER.ip()),
            Frame::Unreachable => unreachable(),
            Frame::Udp { port, len: n } => udp(port_of(port), len(n)),
            Frame::Fragment { offset, len: n } => fragment(udp(UDP_PORT, len(n)), offset % 0x2000),
            Frame::Bytes(bytes) => bytes[..bytes.len().min(SKB)].to_vec(),
        }
    }
}

fn port_of(port: u8) -> u16 {
    PORTS[usize::from(port) % PORTS.len()]
}

/// The stranger's datagrams to a port, when the socket serves the VM.
fn udp_flow(port: u16) -> Flow {
    let local = core::net::SocketAddrV4::new(*LOCAL.ip(), port);
    Flow::udp(local, STRANGER)
}

thread_local! {
    static MACHINE: OnceCell<Machine> = const { OnceCell::new() };
}

fuzz_target!(|data: &[u8]| {
    MACHINE.with(|m| {
        let m = m.get_or_init(machine);
        m.injector.arm(Fails::Never);
        let limits = [(m.rx.limit(), m.rx.pages()), (m.tx.limit(), m.tx.pages())];
        let mut world = World {
            m,
            hog: None,
            held: Vec::new(),
            sockets: BTreeMap::new(),
        };
        // Not as a `Vec`, of which every second one ends after its first element.
        let mut data = Unstructured::new(data);
        // Mostly it begins where it matters: with a flow, and without memory.
        let begin = data.arbitrary().unwrap_or(0u8);
        world.apply(Op::SwapFlow(!begin.is_multiple_of(8)));
        world.apply(Op::Hog(begin & 0x18 != 0));
        while !data.is_empty()
            && let Ok(op) = Op::arbitrary(&mut data)
        {
            world.apply(op);
            world.check();
        }
        m.injector.arm(Fails::Never);
        world.settle();
        for (node, (limit, pages)) in [m.rx, m.tx].into_iter().zip(limits) {
            node.set_limit(limit, pages).expect("everything is free");
        }
        m.at_rest();
    });
});

/// What a socket should hold.
struct Socket {
    id: SocketId,
    /// The memory in its queue: where it begins, and whether it is the reserve's.
    queue: VecDeque<(usize, bool)>,
    vmio: bool,
}

struct World<'a> {
    m: &'a Machine,
    hog: Option<Hog>,
    /// With the port of the socket that it was sent by.
    held: Vec<(Skb<'static>, Option<u16>)>,
    sockets: BTreeMap<u16, Socket>,
}

/// Where the memory of an skb begins, whatever its data is.
fn memory(skb: &Skb<'_>) -> usize {
    skb.data().as_ptr() as usize - skb.headroom()
}

impl World<'_> {
    fn pick(&self, which: u8) -> Option<usize> {
        (!self.held.is_empty()).then(|| usize::from(which) % self.held.len())
    }

    fn keep(&mut self, skb: Skb<'static>, owner: Option<u16>) {
        if self.held.len() == HELD {
            self.held.remove(0);
        }
        self.held.push((skb, owner));
    }

    /// N1.
    fn allocated(&mut self, skb: Skb<'static>) {
        assert!(!skb.is_emergency() || self.m.flows.any(), "N1");
        self.keep(skb, None);
    }

    fn apply(&mut self, op: Op<'_>) {
        match op {
            Op::SwapFlow(true) => drop(self.m.flows.add(swap())),
            Op::SwapFlow(false) => drop(self.m.flows.remove(swap())),
            Op::Hog(true) => {
                if self.hog.is_none() {
                    self.hog = Some(self.m.exhaust());
                }
            }
            Op::Hog(false) => self.hog = None,
            Op::FailSoon(n) => self.m.injector.arm(Fails::At(vec![usize::from(n % 16)])),
            Op::AllocTx { ordinary, len } => {
                let skb = if ordinary {
                    self.m.pool.alloc_tx_ordinary()
                } else {
                    self.m.pool.alloc_tx()
                };
                if let Ok(mut skb) = skb {
                    assert!(!(ordinary && skb.is_emergency()));
                    let frame = request(usize::from(len % 1400));
                    skb.put(frame.len()).expect("room").copy_from_slice(&frame);
                    self.allocated(skb);
                }
            }
            Op::Receive(frame) => self.receive(&frame.bytes()),
            Op::Egress(which) => {
                if let Some(at) = self.pick(which) {
                    let (skb, owner) = self.held.swap_remove(at);
                    let emergency = skb.is_emergency();
                    match self.m.ingress.egress(skb) {
                        Ok(skb) => self.keep(skb, owner),
                        Err(_) => assert!(emergency),
                    }
                }
            }
            Op::Close(port) => {
                if let Some(socket) = self.sockets.remove(&port_of(port)) {
                    self.m.sockets.close(socket.id).expect("it is bound");
                    // What it sent is nobody's now, whoever binds the port next.
                    let sent = |owner: &&mut Option<u16>| **owner == Some(port_of(port));
                    let owners = self.held.iter_mut().map(|(_, owner)| owner);
                    owners.filter(sent).for_each(|owner| *owner = None);
                }
            }
            Op::Free(which) => {
                if let Some(at) = self.pick(which) {
                    self.held.swap_remove(at);
                }
            }
            Op::SetLimit { tx, skbs, pages } => {
                let node = if tx { self.m.tx } else { self.m.rx };
                let before = (node.limit(), node.pages());
                let wanted = (usize::from(skbs) % (RING + 3) * SKB, usize::from(pages) % 8);
                // Less than the skbs of the limit take would be a reserve that is too small.
                let pages = wanted.1.max(wanted.0.div_ceil(SKB));
                match node.set_limit(wanted.0, pages) {
                    Ok(()) => assert_eq!((node.limit(), node.pages()), (wanted.0, pages)),
                    Err(_) => assert_eq!((node.limit(), node.pages()), before),
                }
            }
            Op::Clone(_)
            | Op::Split { .. }
            | Op::Copy(_)
            | Op::Expand { .. }
            | Op::Linearize { .. }
            | Op::Edit { .. } => self.derive(op),
            Op::Bind { .. }
            | Op::Recv(_)
            | Op::Send(_)
            | Op::Own { .. }
            | Op::ServeVm { .. }
            | Op::ServeVmNoMore(_) => self.socket(op),
        }
    }

    fn receive(&mut self, frame: &[u8]) {
        let before = self.m.ingress.stats();
        let Ok(mut skb) = self.m.pool.alloc_rx() else {
            return;
        };
        let emergency = skb.is_emergency();
        assert!(!emergency || self.m.flows.any(), "N1");
        skb.put(frame.len())
            .expect("room for any frame")
            .copy_from_slice(frame);
        let place = memory(&skb);
        match self.m.ingress.receive(skb) {
            Verdict::Swap(skb) => self.keep(skb, None),
            Verdict::Delivered(id) => {
                let socket = self.sockets.values_mut().find(|socket| socket.id == id);
                let socket = socket.expect("it is bound");
                assert!(!emergency || socket.vmio, "N2");
                socket.queue.push_back((place, emergency));
            }
            Verdict::Unclaimed(skb, reason) => {
                assert!(!emergency, "N2");
                self.m.ingress.drop_skb(skb, reason);
            }
            Verdict::Taken(_) => unreachable!("there is no consumer"),
            Verdict::Dropped(_) => {}
        }
        let after = self.m.ingress.stats();
        assert_eq!(after.received, before.received + 1);
    }

    fn derive(&mut self, op: Op<'_>) {
        match op {
            Op::Clone(which) => {
                if let Some(at) = self.pick(which) {
                    let (skb, owner) = &mut self.held[at];
                    let owner = *owner;
                    if let Ok(clone) = skb.try_clone() {
                        self.keep(clone, owner);
                    }
                }
            }
            Op::Split { which, at } => {
                if let Some(which) = self.pick(which) {
                    let (skb, owner) = &mut self.held[which];
                    let (len, owner) = (skb.len(), *owner);
                    if let Ok(rest) = skb.split(usize::from(at)) {
                        assert_eq!(skb.len() + rest.len(), len);
                        self.keep(rest, owner);
                    }
                }
            }
            Op::Copy(which) => {
                if let Some(at) = self.pick(which) {
                    let (skb, _) = &self.held[at];
                    if let Ok(copy) = self.m.pool.copy(skb) {
                        assert_eq!(copy.data(), skb.data());
                        assert!(skb.is_emergency() || !copy.is_emergency(), "N3");
                        self.allocated(copy);
                    }
                }
            }
            Op::Expand { which, headroom } => {
                if let Some(at) = self.pick(which) {
                    let (skb, owner) = self.held.swap_remove(at);
                    let data = skb.data().to_vec();
                    let skb = match self.m.pool.expand(skb, usize::from(headroom)) {
                        Ok(skb) => {
                            assert!(skb.headroom() >= usize::from(headroom));
                            skb
                        }
                        Err((_, skb)) => skb,
                    };
                    assert_eq!(skb.data(), data);
                    // A copy in its place is the sender's as well.
                    self.keep(skb, owner);
                }
            }
            Op::Linearize { first, last } => {
                if let (Some(first), Some(last)) = (self.pick(first), self.pick(last)) {
                    let (others, one) = (&self.held[last].0, &self.held[first].0);
                    let others = core::slice::from_ref(others);
                    if let Ok(whole) = self.m.pool.linearize(one, others) {
                        assert_eq!(whole.data(), [one.data(), others[0].data()].concat());
                        self.allocated(whole);
                    }
                }
            }
            Op::Edit { which, edit, n } => {
                if let Some(at) = self.pick(which) {
                    let (skb, n) = (&mut self.held[at].0, usize::from(n));
                    let _ = match edit {
                        Edit::Put => skb.put(n).map(|bytes| bytes.fill(1)),
                        Edit::Push => skb.push(n).map(|bytes| bytes.fill(2)),
                        Edit::Pull => skb.pull(n).map(|bytes| bytes.fill(3)),
                        Edit::Skip => skb.skip(n).map(drop),
                        Edit::Trim => skb.trim(n),
                        Edit::Reserve => skb.reserve(n),
                    };
                }
            }
            _ => unreachable!("handled by the caller"),
        }
    }

    fn socket(&mut self, op: Op<'_>) {
        let table = self.m.sockets;
        match op {
            Op::Bind { port, rcvbuf } => {
                let port = port_of(port);
                let rcvbuf = usize::from(rcvbuf % 8) * SKB;
                match table.bind(Protocol::Udp, port, rcvbuf) {
                    Ok(id) => {
                        let socket = Socket {
                            id,
                            queue: VecDeque::new(),
                            vmio: false,
                        };
                        assert!(self.sockets.insert(port, socket).is_none());
                    }
                    Err(_) => assert!(self.sockets.contains_key(&port)),
                }
            }
            Op::Recv(port) => {
                if let Some(socket) = self.sockets.get_mut(&port_of(port)) {
                    let skb = table.recv(socket.id);
                    let expected = socket.queue.pop_front();
                    let got = skb.as_ref().map(|skb| (memory(skb), skb.is_emergency()));
                    // A tag that was taken out moves the data, and not the memory.
                    assert_eq!(got, expected, "first in, first out");
                    if let Some(skb) = skb {
                        self.keep(skb, None);
                    }
                }
            }
            Op::Send(port) => {
                let port = port_of(port);
                if let Some(socket) = self.sockets.get(&port)
                    && let Ok(skb) = table.alloc_send(socket.id, self.m.pool)
                {
                    assert!(!skb.is_emergency() || socket.vmio, "N2");
                    self.keep(skb, Some(port));
                }
            }
            Op::Own { port, which } => {
                let port = port_of(port);
                if let (Some(socket), Some(at)) = (self.sockets.get(&port), self.pick(which)) {
                    let id = socket.id;
                    let (skb, owner) = self.held.swap_remove(at);
                    match table.own_send(id, skb) {
                        Ok(skb) => self.keep(skb, Some(port)),
                        Err((_, skb)) => self.keep(skb, owner),
                    }
                }
            }
            Op::ServeVm { port, rx, tx } => {
                let port = port_of(port);
                if let Some(socket) = self.sockets.get_mut(&port) {
                    let room = VmioRoom {
                        rx: usize::from(rx % 4),
                        tx: usize::from(tx % 4),
                    };
                    let set = table.set_vmio(socket.id, udp_flow(port), room);
                    socket.vmio |= set.is_ok();
                }
            }
            Op::ServeVmNoMore(port) => {
                let port = port_of(port);
                if let Some(socket) = self.sockets.get_mut(&port) {
                    let settled = table.clear_vmio(socket.id);
                    assert_eq!(settled.is_some(), socket.vmio);
                    socket.vmio = false;
                    // What is left is ordinary, in the old order.
                    let left = core::iter::from_fn(|| table.recv(socket.id));
                    let left: Vec<_> = left.map(|skb| (memory(&skb), skb.is_emergency())).collect();
                    let before: Vec<_> = socket.queue.drain(..).collect();
                    assert!(
                        left.iter()
                            .all(|(_, emergency)| !emergency || settled.is_none())
                    );
                    let mut rest = before.iter();
                    assert!(
                        left.iter().all(|one| rest.any(|other| one == other)),
                        "in order"
                    );
                    let dropped = settled.map_or(0, |settled| settled.dropped);
                    assert_eq!(left.len() + dropped, before.len());
                }
            }
            _ => unreachable!("handled by the caller"),
        }
    }

    fn check(&self) {
        let held = self
            .held
            .iter()
            .map(|(skb, _)| (memory(skb), skb.is_emergency()));
        let queued = self
            .sockets
            .values()
            .flat_map(|socket| &socket.queue)
            .copied();
        let all: BTreeSet<(usize, bool)> = held.chain(queued).collect();
        let emergencies = all.iter().filter(|(_, emergency)| *emergency).count();
        let (rx, tx) = (self.m.rx, self.m.tx);
        assert_eq!(rx.usage() + tx.usage(), emergencies * SKB, "N3");
        assert!(rx.usage() <= rx.limit() && tx.usage() <= tx.limit(), "M6");
        let cache = self.m.cache.stats();
        assert_eq!(cache.reserve_objects, emergencies, "M6");
        let hog = self.hog.as_ref().map_or(0, Hog::buffers);
        assert_eq!(cache.in_use, all.len() + hog, "a buffer was lost");

        for (port, socket) in &self.sockets {
            let info = self.m.sockets.info(socket.id).expect("it is bound");
            assert_eq!(info.queued, socket.queue.len());
            assert_eq!(
                info.emergency,
                socket.queue.iter().filter(|(_, e)| *e).count()
            );
            let sent = self.held.iter().filter(|(_, owner)| *owner == Some(*port));
            let sent: BTreeSet<usize> = sent.map(|(skb, _)| memory(skb)).collect();
            let (vmio, wmem) = (info.vmio_sent * SKB, info.wmem);
            assert!(
                wmem == sent.len() * SKB || wmem + vmio == sent.len() * SKB,
                "N4: {} skbs on the way, {wmem} bytes and {vmio} of VMIO billed",
                sent.len()
            );
        }
        let zone = self.m.zone.stats();
        assert!(zone.free + zone.reserve_in_use >= zone.reserve, "M2");
    }

    fn settle(&mut self) {
        self.held.clear();
        self.hog = None;
        for (_, socket) in core::mem::take(&mut self.sockets) {
            self.m.sockets.clear_vmio(socket.id);
            self.m.sockets.close(socket.id).expect("it is bound");
        }
        let _ = self.m.flows.remove(swap());
        assert!(!self.m.flows.any());
    }
}
