//! A small machine for the tests: memory, a reserve, a pool, sockets, and frames to send around.

pub(crate) mod card;

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use core::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

use mempool::{
    Buddy, Buffer, BufferCache, FRAME_SIZE, Frame, FrameEntry, Gfp, MemallocToken, ReserveNode,
    SingleTask, SizedCache, Watermarks, Zone,
};

use crate::{
    Flow, FlowTable, Ingress, Protocol, ProtocolMemory, QueueEntry, Skb, SkbPool, Slot,
    SocketTable, rx_budget, rx_limit, tx_budget, tx_limit,
};

pub(crate) const SKB: usize = 2016;
pub(crate) const RX_RING: usize = 8;
pub(crate) const TX_RING: usize = 8;

pub(crate) const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
pub(crate) const SERVER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
pub(crate) const LOCAL: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 1), 700);
pub(crate) const SERVER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 2), 2049);
pub(crate) const STRANGER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 66), 6666);
pub(crate) const SWAP: Flow =
    Flow::new(Protocol::Tcp, SocketAddr::V4(LOCAL), SocketAddr::V4(SERVER));

/// Everything is leaked, so that lifetimes do not matter.
pub(crate) struct Machine {
    pub(crate) task: &'static SingleTask,
    pub(crate) zone: &'static Zone<'static>,
    pub(crate) cache: &'static SizedCache<'static>,
    pub(crate) rx: &'static ReserveNode<'static>,
    pub(crate) tx: &'static ReserveNode<'static>,
    pub(crate) token: MemallocToken,
    pub(crate) flows: &'static FlowTable<'static>,
    pub(crate) sockets: &'static SocketTable<'static>,
    pub(crate) ingress: &'static Ingress<'static>,
    /// The same for a card without Ethernet.
    pub(crate) ip_ingress: &'static Ingress<'static>,
    pub(crate) pool: &'static SkbPool<'static>,
}

/// Ordinary memory, all of it.
pub(crate) struct Hog {
    pub(crate) _buffers: Vec<Buffer<'static>>,
    pub(crate) _frames: Vec<Frame<'static>>,
}

/// Room for 128 skbs, with a reserve as the budget says.
pub(crate) fn machine() -> Machine {
    let [rx, tx] = ["rx", "tx"].map(ReserveNode::new);
    with_nodes(rx, tx)
}

/// The same, which tells who waits for a charge.
#[cfg(feature = "embassy")]
pub(crate) fn machine_with(waiters: &'static dyn mempool::ChargeWaiters) -> Machine {
    let [rx, tx] = ["rx", "tx"].map(|name| ReserveNode::with_waiters(name, waiters));
    with_nodes(rx, tx)
}

fn with_nodes(rx: ReserveNode<'static>, tx: ReserveNode<'static>) -> Machine {
    // Two skbs to a frame; with red zones there may be one.
    const FRAMES: usize = if mempool::objects_per_slab(SKB, 0) > 1 {
        64
    } else {
        128
    };
    let memory = leak(vec![0u8; (FRAMES + 1) * FRAME_SIZE]);
    let table = leak(vec![FrameEntry::EMPTY; FRAMES + 1]);
    let source: &'static Buddy<'static> = leak(Buddy::new(memory, table).unwrap());
    let marks = Watermarks {
        min: 4,
        low: 6,
        high: 8,
    };
    let task: &'static SingleTask = leak(SingleTask::new());
    let zone: &'static Zone<'static> = leak(Zone::new(source, task, marks).unwrap());
    let root: &'static ReserveNode<'static> = leak(ReserveNode::root("total", zone));
    let rx: &'static ReserveNode<'static> = leak(rx);
    let tx: &'static ReserveNode<'static> = leak(tx);
    rx.set_limit(rx_limit(RX_RING, SKB), rx_budget(RX_RING, SKB, 0).frames())
        .unwrap();
    tx.set_limit(tx_limit(TX_RING, SKB), tx_budget(TX_RING, SKB, 0).frames())
        .unwrap();
    rx.connect(root).unwrap();
    tx.connect(root).unwrap();

    let cache: &'static SizedCache<'static> = leak(SizedCache::new("skb", zone, SKB, 0).unwrap());
    let flows: &'static FlowTable<'static> = leak(FlowTable::new(
        leak(vec![Slot::EMPTY; 8]),
        leak(vec![Slot::EMPTY; 4]),
    ));
    let entries: Vec<_> = (0..64).map(|_| QueueEntry::EMPTY).collect();
    let limit = ProtocolMemory::each(32 * SKB);
    let sockets: &'static SocketTable<'static> =
        leak(SocketTable::new(leak(vec![Slot::EMPTY; 8]), entries.leak(), limit).with_flows(flows));
    let token = zone.claim_memalloc().unwrap();
    Machine {
        task,
        zone,
        cache,
        rx,
        tx,
        token,
        flows,
        sockets,
        ingress: leak(Ingress::new(flows, sockets, MAC)),
        ip_ingress: leak(Ingress::over_ip(flows, sockets)),
        pool: leak(SkbPool::new(cache, rx, tx, flows, token)),
    }
}

impl Machine {
    /// Takes all that ordinary callers can have.
    pub(crate) fn exhaust(&self) -> Hog {
        Hog {
            _frames: core::iter::from_fn(|| self.zone.alloc(0, Gfp::ATOMIC).ok()).collect(),
            _buffers: core::iter::from_fn(|| self.cache.alloc(Gfp::ATOMIC).ok()).collect(),
        }
    }

    /// Another pool, of the same reserve, with skbs for frames of so many bytes.
    pub(crate) fn pool_of(&self, frame: usize) -> &'static SkbPool<'static> {
        let pool = SkbPool::new(self.cache, self.rx, self.tx, self.flows, self.token);
        leak(pool.with_headroom(SKB - frame))
    }

    /// A received skb with `frame` in it.
    pub(crate) fn skb(&self, frame: &[u8]) -> Skb<'static> {
        let mut skb = self.pool.alloc_rx().unwrap();
        skb.put(frame.len()).unwrap().copy_from_slice(frame);
        skb
    }

    /// Nothing is held any more: no charge, no buffer, no frame.
    pub(crate) fn assert_quiescent(&self) {
        assert_eq!((self.rx.usage(), self.tx.usage()), (0, 0), "charges left");
        assert_eq!(self.cache.stats().in_use, 0, "buffers left");
        self.cache.shrink();
        let zone = self.zone.stats();
        assert_eq!((zone.free, zone.reserve_in_use), (zone.total, 0));
    }
}

pub(crate) fn leak<T>(value: T) -> &'static mut T {
    Box::leak(Box::new(value))
}

/// A received frame from `from` to `to`, with a payload of `len` bytes.
pub(crate) fn packet(
    protocol: Protocol,
    from: SocketAddrV4,
    to: SocketAddrV4,
    len: usize,
) -> Vec<u8> {
    let mut segment = vec![0; len];
    match protocol {
        Protocol::Udp => {
            segment.splice(0..0, [0; 8]);
            let length = segment.len() as u16;
            segment[4..6].copy_from_slice(&length.to_be_bytes());
        }
        Protocol::Tcp => {
            segment.splice(0..0, [0; 20]);
            segment[12] = 5 << 4;
        }
    }
    segment[..2].copy_from_slice(&from.port().to_be_bytes());
    segment[2..4].copy_from_slice(&to.port().to_be_bytes());
    ethernet(
        0x0800,
        &ipv4(protocol.number(), *from.ip(), *to.ip(), &segment),
    )
}

pub(crate) fn ipv4(protocol: u8, from: Ipv4Addr, to: Ipv4Addr, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x45, 0];
    packet.extend((20 + payload.len() as u16).to_be_bytes());
    packet.extend([0, 0, 0, 0, 64, protocol, 0, 0]);
    packet.extend(from.octets());
    packet.extend(to.octets());
    packet.extend(payload);
    packet
}

pub(crate) fn ethernet(ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::from(MAC);
    frame.extend(SERVER_MAC);
    frame.extend(ethertype.to_be_bytes());
    frame.extend(payload);
    frame
}

/// An ARP request of `sender` for `target`.
pub(crate) fn arp(sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let mut packet = vec![0, 1, 8, 0, 6, 4, 0, 1];
    packet.extend(SERVER_MAC);
    packet.extend(sender.octets());
    packet.extend([0; 6]);
    packet.extend(target.octets());
    ethernet(0x0806, &packet)
}

/// An ICMP message of type `kind`, about a packet that `protocol` sent `from` us `to` somebody.
pub(crate) fn icmp(kind: u8, protocol: Protocol, from: SocketAddrV4, to: SocketAddrV4) -> Vec<u8> {
    let quoted = &packet(protocol, from, to, 0)[14..42];
    let mut message = vec![kind, 0, 0, 0, 0, 0, 0, 0];
    message.extend(quoted);
    ethernet(
        0x0800,
        &ipv4(1, Ipv4Addr::new(10, 0, 0, 99), *LOCAL.ip(), &message),
    )
}

/// The first (`offset` 0) or another fragment of what would be `packet`.
pub(crate) fn fragment(mut packet: Vec<u8>, offset: u16) -> Vec<u8> {
    packet[20..22].copy_from_slice(&(0x2000 | offset).to_be_bytes());
    packet
}
