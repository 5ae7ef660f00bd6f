//! Memory with a reserve for the card's rings, all of it leaked, so that lifetimes do not matter.

use mempool::{
    Buddy, Buffer, BufferCache, ChargeWaiters, FRAME_SIZE, Frame, FrameEntry, Gfp, ReserveNode,
    SingleTask, SizedCache, Watermarks, Zone,
};
use netreserve::{
    FlowTable, Ingress, Mechanism, Medium, Protocol, ProtocolMemory, QueueEntry, SkbPool, Slot,
    SocketTable,
};

use crate::Options;
use crate::card::{MAC, RING, SKB, SLEEPER};

/// Frames of ordinary memory.
const ORDINARY: usize = 64;

pub(crate) struct Machine {
    zone: &'static Zone<'static>,
    cache: &'static SizedCache<'static>,
    rx: &'static ReserveNode<'static>,
    tx: &'static ReserveNode<'static>,
    pub(crate) flows: &'static FlowTable<'static>,
    pub(crate) ingress: &'static Ingress<'static>,
    pub(crate) pool: &'static SkbPool<'static>,
}

/// All of the memory that ordinary callers can have.
pub(crate) struct Hog {
    _frames: Vec<Frame<'static>>,
    _buffers: Vec<Buffer<'static>>,
}

impl Machine {
    pub(crate) fn new(options: &Options, waiters: &'static dyn ChargeWaiters) -> Self {
        let reserve = netreserve::budget(RING, RING, SKB, 0).frames();
        let frames = ORDINARY + reserve + 1;
        let memory = leak(vec![0; frames * FRAME_SIZE]);
        let table = leak(vec![FrameEntry::EMPTY; frames]);
        let source: &Buddy<'_> =
            leak(Buddy::new(memory, table).expect("aligned or not, there is enough"));
        let marks = Watermarks {
            min: 4,
            low: 6,
            high: 8,
        };
        let zone: &Zone<'_> =
            leak(Zone::new(source, leak(SingleTask::new()), marks).expect("marks below the size"));

        let root: &ReserveNode<'_> = leak(ReserveNode::root("total", zone));
        let [rx, tx]: [&ReserveNode<'_>; 2] =
            ["rx", "tx"].map(|name| &*leak(ReserveNode::with_waiters(name, waiters)));
        let rx_frames = netreserve::rx_budget(RING, SKB, 0).frames();
        rx.set_limit(netreserve::rx_limit(RING, SKB), rx_frames)
            .expect("not connected");
        tx.set_limit(netreserve::tx_limit(RING, SKB), reserve - rx_frames)
            .expect("not connected");
        for node in [rx, tx] {
            node.connect(root).expect("the frames are there");
        }

        let cache: &SizedCache<'_> =
            leak(SizedCache::new("skb", zone, SKB, 0).expect("two to a frame"));
        let flows: &FlowTable<'_> = leak(FlowTable::new(
            leak([Slot::EMPTY; 4]),
            leak([Slot::EMPTY; 4]),
        ));
        let entries = (0..64)
            .map(|_| QueueEntry::EMPTY)
            .collect::<Vec<_>>()
            .leak();
        let sockets: &SocketTable<'_> = leak(SocketTable::new(
            leak([const { Slot::EMPTY }; 4]),
            entries,
            ProtocolMemory::each(64 * SKB),
        ));
        sockets
            .bind(Protocol::Udp, SLEEPER, usize::MAX)
            .expect("the table is empty");
        let ingress: &Ingress<'_> = leak(match options.medium {
            Medium::Ip => Ingress::over_ip(flows, sockets),
            _ => Ingress::new(flows, sockets, MAC),
        });
        if !options.vmio_filter {
            ingress.ablate(Mechanism::VmioFilter);
        }
        let token = zone.claim_memalloc().expect("claimed once, here");
        Machine {
            zone,
            cache,
            rx,
            tx,
            flows,
            ingress,
            pool: leak(SkbPool::new(cache, rx, tx, flows, token)),
        }
    }

    pub(crate) fn exhaust(&self) -> Hog {
        Hog {
            _frames: core::iter::from_fn(|| self.zone.alloc(0, Gfp::ATOMIC).ok()).collect(),
            _buffers: core::iter::from_fn(|| self.cache.alloc(Gfp::ATOMIC).ok()).collect(),
        }
    }

    /// Bytes of both reserves.
    pub(crate) fn charged(&self) -> usize {
        self.rx.usage() + self.tx.usage()
    }
}

fn leak<T>(value: T) -> &'static mut T {
    Box::leak(Box::new(value))
}
