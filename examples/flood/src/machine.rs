//! The machine: little memory, of which most is taken, and a reserve as its budget says.

use mempool::{
    Buddy, Budget, Buffer, BufferCache, FRAME_SIZE, Frame, FrameEntry, Gfp, ReserveNode,
    SLAB_HEADER, SingleTask, SizedCache, Watermarks, Zone,
};
use netreserve::{
    Flow, FlowTable, Ingress, Protocol, ProtocolMemory, QueueEntry, SkbPool, Slot, SocketId,
    SocketTable, budget, rx_limit, tx_limit,
};

use crate::rng::Rng;
use crate::traffic::{LOCAL, MAC, PORTS, SERVER};

pub(crate) const MTU: usize = 1500;
pub(crate) const RING: usize = 32;
/// Two to a frame of 4 KiB.
pub(crate) const SKB: usize = 2016;
const ORDER: u8 = {
    let frames = (SKB + SLAB_HEADER).div_ceil(FRAME_SIZE);
    frames.next_power_of_two().trailing_zeros() as u8
};
/// What the packets can need at worst, known when this was compiled.
pub(crate) const BUDGET: Budget = budget(RING, RING, SKB, ORDER);
/// Beside the reserve.
const ORDINARY: usize = (1 << 20) / FRAME_SIZE;
const FRAMES: usize = BUDGET.frames() + ORDINARY;
const MARKS: Watermarks = Watermarks {
    min: ORDINARY / 8,
    low: ORDINARY / 6,
    high: ORDINARY / 4,
};
const RCVBUF: usize = 24 * SKB;

pub(crate) fn swap() -> Flow {
    Flow::tcp(LOCAL, SERVER)
}

/// Everything is leaked: it lives as long as the process.
pub(crate) struct Machine {
    pub(crate) zone: &'static Zone<'static>,
    pub(crate) cache: &'static SizedCache<'static>,
    pub(crate) rx: &'static ReserveNode<'static>,
    pub(crate) tx: &'static ReserveNode<'static>,
    pub(crate) flows: &'static FlowTable<'static>,
    pub(crate) ingress: &'static Ingress<'static>,
    pub(crate) pool: &'static SkbPool<'static>,
    /// Whose owners are swapped out, and read nothing.
    asleep: Vec<SocketId>,
    awake: Vec<SocketId>,
    /// What programs hold.
    hog: Vec<Frame<'static>>,
    /// What other packets hold.
    packets: Vec<Buffer<'static>>,
}

fn leak<T>(value: T) -> &'static mut T {
    Box::leak(Box::new(value))
}

impl Machine {
    pub(crate) fn new(without: &[String]) -> Machine {
        let memory = leak(vec![0u8; (FRAMES + 1) * FRAME_SIZE]);
        let skip = memory.as_ptr().align_offset(FRAME_SIZE);
        let memory = &mut memory[skip..skip + FRAMES * FRAME_SIZE];
        let table = leak(vec![FrameEntry::EMPTY; FRAMES]);
        let source: &'static Buddy<'static> = leak(Buddy::new(memory, table).expect("aligned"));
        let task: &'static SingleTask = leak(SingleTask::new());
        let zone: &'static Zone<'static> =
            leak(Zone::new(source, task, MARKS).expect("there is memory beside the reserve"));
        let token = zone.claim_memalloc().expect("the first claim");

        let root: &'static ReserveNode<'static> = leak(ReserveNode::root("total", zone));
        let [rx, tx] = ["receive", "transmit"].map(|name| &*leak(ReserveNode::new(name)));
        let cache: &'static SizedCache<'static> =
            leak(SizedCache::new("skb", zone, SKB, ORDER).expect("of the order for it"));
        let flows: &'static FlowTable<'static> = leak(FlowTable::new(
            leak(vec![Slot::EMPTY; 4]),
            leak(vec![Slot::EMPTY; 4]),
        ));
        let entries: Vec<_> = (0..512).map(|_| QueueEntry::EMPTY).collect();
        let sockets: &'static SocketTable<'static> = leak(SocketTable::new(
            leak(vec![Slot::EMPTY; 32]),
            entries.leak(),
            ProtocolMemory::each(4 * RCVBUF),
        ));
        let ingress: &'static Ingress<'static> = leak(Ingress::new(flows, sockets, MAC));
        let pool: &'static SkbPool<'static> = leak(SkbPool::new(cache, rx, tx, flows, token));

        for name in without {
            for m in mempool::Mechanism::ALL
                .into_iter()
                .filter(|m| m.name() == name)
            {
                zone.ablate(m);
                cache.ablate(m);
                [root, rx, tx].into_iter().for_each(|node| node.ablate(m));
            }
            for m in netreserve::Mechanism::ALL
                .into_iter()
                .filter(|m| m.name() == name)
            {
                ingress.ablate(m);
                sockets.ablate(m);
                pool.ablate(m);
            }
        }
        // Both kinds share their slabs: one of the nodes asks for all of them.
        rx.set_limit(rx_limit(RING, SKB), BUDGET.frames())
            .expect("not connected yet");
        tx.set_limit(tx_limit(RING, SKB), 0)
            .expect("not connected yet");
        rx.connect(root).expect("everything is free");
        tx.connect(root).expect("needs nothing");

        let (mut asleep, mut awake) = (Vec::new(), Vec::new());
        for protocol in Protocol::ALL {
            for (n, port) in PORTS.into_iter().enumerate() {
                let id = sockets.bind(protocol, port, RCVBUF).expect("there is room");
                if n % 2 == 0 { &mut asleep } else { &mut awake }.push(id);
            }
        }
        Machine {
            zone,
            cache,
            rx,
            tx,
            flows,
            ingress,
            pool,
            asleep,
            awake,
            hog: Vec::new(),
            packets: Vec::new(),
        }
    }

    /// Programs and the rest of the kernel take what ordinary callers can have, the urgent too: the next
    /// one fails.
    pub(crate) fn take_memory(&mut self) {
        let ordinary = || self.zone.alloc(0, Gfp::ATOMIC).ok();
        self.hog.extend(core::iter::from_fn(ordinary));
        let buffers = || self.cache.alloc(Gfp::ATOMIC).ok();
        self.packets.extend(core::iter::from_fn(buffers));
    }

    /// Programs come and go: some free a few frames, others take what there is, and those who are awake
    /// read their sockets.
    pub(crate) fn breathe(&mut self, rng: &mut Rng) {
        let freed = rng.below(RING).min(self.hog.len());
        if rng.below(16) == 0 {
            self.hog.truncate(self.hog.len() - freed);
            let kept = self.packets.len().saturating_sub(freed);
            self.packets.truncate(kept);
        } else {
            self.take_memory();
        }
        let sockets = self.ingress.sockets();
        let socket = self.awake[rng.below(self.awake.len())];
        while let Some(skb) = sockets.recv(socket) {
            drop(skb);
        }
    }

    /// Everything that belongs to the machine itself is given back.
    pub(crate) fn shut_down(&mut self) {
        let sockets = self.ingress.sockets();
        for socket in self.asleep.drain(..).chain(self.awake.drain(..)) {
            sockets.close(socket);
        }
        self.hog.clear();
        self.packets.clear();
        self.cache.shrink();
    }
}
