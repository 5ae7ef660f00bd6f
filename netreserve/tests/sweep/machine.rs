//! A machine with a reserve, in which every frame, buffer and charge can be refused.

use mempool::{
    AllocError, Buddy, Buffer, BufferCache, Charge, ChargeError, FRAME_SIZE, Frame, FrameAllocator,
    FrameEntry, Gfp, Level, Reserve, ReserveNode, SLAB_HEADER, SingleTask, SizedCache, Watermarks,
    Zone,
};
use netreserve::{
    FlowTable, Ingress, ProtocolMemory, QueueEntry, Skb, SkbPool, Slot, SocketTable, rx_budget,
    rx_limit, rx_skbs, tx_budget, tx_limit, tx_skbs,
};

use crate::inject::Injector;
use crate::packets::MAC;

pub(crate) const RING: usize = 6;
/// Two to a frame of 4 KiB, and enough for an Ethernet frame in any.
pub(crate) const SKB: usize = 2016;
/// Slabs as small as they can be for that.
const ORDER: u8 = (SKB + SLAB_HEADER)
    .div_ceil(FRAME_SIZE)
    .next_power_of_two()
    .trailing_zeros() as u8;
/// Bytes of memory, whatever the frames are.
const MEMORY: usize = 96 * 4096;
const FRAMES: usize = if MEMORY / FRAME_SIZE < 24 {
    24
} else {
    MEMORY / FRAME_SIZE
};

/// Everything is leaked, so that lifetimes do not matter.
pub(crate) struct Machine {
    pub(crate) injector: &'static Injector,
    pub(crate) zone: &'static Zone<'static>,
    pub(crate) cache: &'static SizedCache<'static>,
    pub(crate) rx: &'static ReserveNode<'static>,
    pub(crate) tx: &'static ReserveNode<'static>,
    pub(crate) flows: &'static FlowTable<'static>,
    pub(crate) sockets: &'static SocketTable<'static>,
    pub(crate) ingress: &'static Ingress<'static>,
    pub(crate) pool: &'static SkbPool<'static>,
}

/// Ordinary memory, all of it.
pub(crate) struct Hog {
    _buffers: Vec<Buffer<'static>>,
    _frames: Vec<Frame<'static>>,
}

impl Hog {
    #[allow(dead_code, reason = "for those who count buffers")]
    pub(crate) fn buffers(&self) -> usize {
        self._buffers.len()
    }
}

pub(crate) fn leak<T>(value: T) -> &'static mut T {
    Box::leak(Box::new(value))
}

pub(crate) fn machine() -> Machine {
    let injector: &'static Injector = leak(Injector::new());
    let memory = leak(vec![0u8; (FRAMES + 1) * FRAME_SIZE]);
    let skip = memory.as_ptr().align_offset(FRAME_SIZE);
    let memory = &mut memory[skip..skip + FRAMES * FRAME_SIZE];
    let table = leak(vec![FrameEntry::EMPTY; FRAMES]);
    let source: &'static Buddy<'static> = leak(Buddy::new(memory, table).unwrap());
    let task: &'static SingleTask = leak(SingleTask::new());
    let marks = Watermarks {
        min: 2,
        low: 3,
        high: 4,
    };
    let zone: &'static Zone<'static> = leak(Zone::new(source, task, marks).unwrap());
    let root: &'static ReserveNode<'static> = leak(ReserveNode::root("total", zone));
    let [rx, tx] = ["rx", "tx"].map(|name| &*leak(ReserveNode::new(name)));
    rx.set_limit(rx_limit(RING, SKB), rx_budget(RING, SKB, ORDER).frames())
        .unwrap();
    tx.set_limit(tx_limit(RING, SKB), tx_budget(RING, SKB, ORDER).frames())
        .unwrap();
    rx.connect(root).unwrap();
    tx.connect(root).unwrap();

    let frames: &'static FailingFrames = leak(FailingFrames { zone, injector });
    let cache: &'static SizedCache<'static> =
        leak(SizedCache::new("skb", frames, SKB, ORDER).unwrap());
    let flows: &'static FlowTable<'static> = leak(FlowTable::new(
        leak(vec![Slot::EMPTY; 8]),
        leak(vec![Slot::EMPTY; 4]),
    ));
    let entries: Vec<_> = (0..8).map(|_| QueueEntry::EMPTY).collect();
    let limit = ProtocolMemory::each(6 * SKB);
    let sockets = SocketTable::new(leak(vec![Slot::EMPTY; 8]), entries.leak(), limit);
    let sockets: &'static SocketTable<'static> = leak(sockets.with_flows(flows));
    let token = zone.claim_memalloc().unwrap();
    let buffers: &'static FailingCache = leak(FailingCache { cache, injector });
    let [rx_node, tx_node] =
        [rx, tx].map(|node| &*leak(FailingNode { node, injector }) as &dyn Reserve);
    Machine {
        injector,
        zone,
        cache,
        rx,
        tx,
        flows,
        sockets,
        ingress: leak(Ingress::new(flows, sockets, MAC)),
        pool: leak(SkbPool::new(buffers, rx_node, tx_node, flows, token)),
    }
}

impl Machine {
    /// Takes all that ordinary callers can have.
    pub(crate) fn exhaust(&self) -> Hog {
        self.injector.aside(|| Hog {
            _frames: core::iter::from_fn(|| self.zone.alloc(0, Gfp::ATOMIC).ok()).collect(),
            _buffers: core::iter::from_fn(|| self.cache.alloc(Gfp::ATOMIC).ok()).collect(),
        })
    }

    /// N3, M6: what is charged is what these hold, and so is what lies in the reserve.
    pub(crate) fn assert_charged(&self, rx: usize, tx: usize) {
        assert_eq!((self.rx.usage(), self.tx.usage()), (rx * SKB, tx * SKB));
        assert_eq!(self.cache.stats().reserve_objects, rx + tx);
    }

    /// Nothing is held any more: no charge, no buffer, no frame, nothing in a socket.
    pub(crate) fn at_rest(&self) {
        self.assert_charged(0, 0);
        assert_eq!(self.cache.stats().in_use, 0, "buffers left");
        self.cache.shrink();
        let zone = self.zone.stats();
        assert_eq!((zone.free, zone.reserve_in_use), (zone.total, 0));
        assert_eq!((self.sockets.total_rmem(), self.sockets.queued()), (0, 0));
        for (node, limit) in [
            (self.rx, rx_limit(RING, SKB)),
            (self.tx, tx_limit(RING, SKB)),
        ] {
            assert_eq!(node.limit(), limit);
            assert!(node.peak() <= limit);
        }
        // N4: as many as the rings and the device can hold, and not one more.
        let hog = self.exhaust();
        self.flows.add(crate::packets::swap()).unwrap();
        let rx: Vec<_> = core::iter::from_fn(|| self.pool.alloc_rx().ok()).collect();
        let tx: Vec<_> = core::iter::from_fn(|| self.pool.alloc_tx().ok()).collect();
        assert_eq!((rx.len(), tx.len()), (rx_skbs(RING), tx_skbs(RING)));
        drop((rx, tx, hog));
        self.flows.remove(crate::packets::swap()).unwrap();
        self.cache.shrink();
    }
}

/// Emergency skbs among these.
pub(crate) fn emergencies<'a>(skbs: impl IntoIterator<Item = &'a Skb<'static>>) -> usize {
    skbs.into_iter().filter(|skb| skb.is_emergency()).count()
}

/// A zone that refuses: slabs cannot grow.
struct FailingFrames {
    zone: &'static Zone<'static>,
    injector: &'static Injector,
}

impl FrameAllocator for FailingFrames {
    fn alloc(&self, order: u8, gfp: Gfp) -> Result<Frame<'_>, AllocError> {
        if self
            .injector
            .fails(|| format!("slab, order {order}, {gfp:?}"))
        {
            return Err(AllocError::Exhausted);
        }
        self.zone.alloc(order, gfp)
    }

    fn entitled(&self, gfp: Gfp) -> bool {
        self.zone.entitled(gfp)
    }

    fn level(&self) -> Level {
        self.zone.level()
    }
}

/// A cache that refuses.
struct FailingCache {
    cache: &'static SizedCache<'static>,
    injector: &'static Injector,
}

impl BufferCache for FailingCache {
    fn alloc(&self, gfp: Gfp) -> Result<Buffer<'_>, AllocError> {
        if self.injector.fails(|| format!("buffer, {gfp:?}")) {
            return Err(AllocError::Exhausted);
        }
        self.cache.alloc(gfp)
    }

    fn object_size(&self) -> usize {
        self.cache.object_size()
    }
}

/// A node that has nothing left.
struct FailingNode {
    node: &'static ReserveNode<'static>,
    injector: &'static Injector,
}

impl Reserve for FailingNode {
    fn charge(&self, units: usize) -> Result<Charge<'_>, ChargeError> {
        if self
            .injector
            .fails(|| format!("charge to {}", self.node.name()))
        {
            return Err(ChargeError::OverLimit);
        }
        self.node.charge(units)
    }

    fn usage(&self) -> usize {
        self.node.usage()
    }

    fn limit(&self) -> usize {
        self.node.limit()
    }

    fn peak(&self) -> usize {
        self.node.peak()
    }

    fn name(&self) -> &'static str {
        self.node.name()
    }
}
