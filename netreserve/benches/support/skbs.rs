//! Packet buffers: skbs, and what the peers have instead.
#![allow(dead_code, unreachable_pub)]

use core::hint::black_box;

use heapless::object_pool;
use heapless::pool::object::{Object, ObjectBlock};
use lock_api::Mutex;
use mempool::{BufferCache, CriticalSection, ReserveNode, SizedCache, Zone};
use netreserve::{FlowTable, Skb, SkbPool, rx_budget, rx_limit, tx_budget, tx_limit};
use smoltcp::storage::{PacketBuffer, PacketMetadata};

use crate::support::memory::leak;
use crate::support::ours::{DefaultLock, Lock, Unlocked, magazines, zone};
use crate::support::{BUFFER, Subject};

const RING: usize = 64;

/// A pool over a cache of `zone` and a reserve for rings of 64, without a flow.
fn pool<R: Lock>(
    zone: &'static Zone<'static, R>,
    cache: &'static dyn BufferCache,
) -> &'static SkbPool<'static> {
    let root: &'static ReserveNode<'static> = leak(ReserveNode::root("total", zone));
    let rx: &'static ReserveNode<'static> = leak(ReserveNode::new("rx"));
    let tx: &'static ReserveNode<'static> = leak(ReserveNode::new("tx"));
    for (node, limit, budget) in [
        (rx, rx_limit(RING, BUFFER), rx_budget(RING, BUFFER, 0)),
        (tx, tx_limit(RING, BUFFER), tx_budget(RING, BUFFER, 0)),
    ] {
        node.set_limit(limit, budget.frames()).expect("a limit");
        node.connect(root).expect("frames enough");
    }
    let flows = leak(FlowTable::new(&mut [], &mut []));
    let token = zone.claim_memalloc().expect("the first claim");
    leak(SkbPool::new(cache, rx, tx, flows, token))
}

/// Skbs for receiving, over a cache whose lock is none.
pub struct Skbs(&'static SkbPool<'static>);

impl Subject for Skbs {
    type Handle = Skb<'static>;

    fn new(bytes: usize) -> Self {
        let zone = zone::<Unlocked>(bytes);
        let cache = SizedCache::<Unlocked>::new("skb", zone, BUFFER, 0);
        Skbs(pool(zone, leak(cache.expect("buffers that fit"))))
    }

    #[inline(always)]
    fn alloc(&mut self, _: u8) -> Option<Self::Handle> {
        self.0.alloc_rx().ok()
    }

    #[inline(always)]
    fn free(&mut self, handle: Self::Handle) {
        drop(handle);
    }
}

/// Skbs for receiving, over a cache with the default lock and magazines of 32.
pub struct SkbMagazines(Skbs);

impl Subject for SkbMagazines {
    type Handle = Skb<'static>;

    fn new(bytes: usize) -> Self {
        let zone = zone::<DefaultLock>(bytes);
        let cache = SizedCache::<DefaultLock>::new("skb", zone, BUFFER, 0);
        let cache = cache.expect("buffers that fit").with_magazines(magazines());
        SkbMagazines(Skbs(pool(zone, leak(cache))))
    }

    #[inline(always)]
    fn alloc(&mut self, order: u8) -> Option<Self::Handle> {
        self.0.alloc(order)
    }

    #[inline(always)]
    fn free(&mut self, handle: Self::Handle) {
        self.0.free(handle);
    }
}

object_pool!(Packets: [u8; BUFFER]);

/// heapless's pool of objects, lock-free by itself.
pub struct HeaplessPool;

impl Subject for HeaplessPool {
    type Handle = Object<Packets>;

    fn new(_: usize) -> Self {
        for _ in 0..4 * RING {
            Packets.manage(Box::leak(Box::new(ObjectBlock::new([0; BUFFER]))));
        }
        HeaplessPool
    }

    #[inline(always)]
    fn alloc(&mut self, _: u8) -> Option<Self::Handle> {
        Packets.request()
    }

    #[inline(always)]
    fn free(&mut self, handle: Self::Handle) {
        drop(handle);
    }
}

/// smoltcp's ring of packets: it hands out a place at its end, and takes back the oldest packet
/// alone, so that only the first-in-first-out pattern can be asked of it.
pub struct SmoltcpRing(PacketBuffer<'static, ()>);

fn ring() -> PacketBuffer<'static, ()> {
    let entries = vec![PacketMetadata::EMPTY; 4 * RING];
    PacketBuffer::new(entries, vec![0; 4 * RING * BUFFER])
}

fn put(ring: &mut PacketBuffer<'static, ()>) -> Option<()> {
    ring.enqueue(BUFFER, ()).ok().map(|packet| {
        black_box(packet.as_mut_ptr());
    })
}

fn take(ring: &mut PacketBuffer<'static, ()>) {
    black_box(ring.dequeue().expect("a packet").1.as_mut_ptr());
}

impl Subject for SmoltcpRing {
    type Handle = ();

    fn new(_: usize) -> Self {
        SmoltcpRing(ring())
    }

    #[inline(always)]
    fn alloc(&mut self, _: u8) -> Option<()> {
        put(&mut self.0)
    }

    #[inline(always)]
    fn free(&mut self, (): ()) {
        take(&mut self.0);
    }
}

/// The same behind the lock that `SkbPool` has.
pub struct LockedRing(Mutex<CriticalSection, PacketBuffer<'static, ()>>);

impl Subject for LockedRing {
    type Handle = ();

    fn new(_: usize) -> Self {
        LockedRing(Mutex::new(ring()))
    }

    #[inline(always)]
    fn alloc(&mut self, _: u8) -> Option<()> {
        put(&mut self.0.lock())
    }

    #[inline(always)]
    fn free(&mut self, (): ()) {
        take(&mut self.0.lock());
    }
}
