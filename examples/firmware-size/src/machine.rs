//! The memory, its reserve, and the receive path over it.

use core::array;

use cortex_m_semihosting::hprintln;
use mempool::{
    Buddy, Budget, FRAME_SIZE, FrameEntry, Gfp, ReserveNode, SingleTask, SizedCache, Watermarks,
    Zone,
};
use netreserve::{
    DropReason, Flow, FlowTable, Ingress, ProtocolMemory, Reserved, SkbPool, Slot, SocketTable,
};

use crate::card::{LoopCard, RING, SKB};

/// Frames of the machine.
pub const FRAMES: usize = 10;
/// Both rings, and what lies between them.
pub const RESERVE: Budget = netreserve::budget(RING, RING, SKB, 0);
const _: () = RESERVE.assert_fits(FRAMES - 2);

/// The memory of the machine, in place of what a linker script would leave to a kernel.
#[repr(align(4096))]
#[derive(Debug)]
pub struct Arena(pub [u8; FRAMES * FRAME_SIZE]);

/// Boots the machine, takes all ordinary memory, lets `program` use the device, with `flows` that serve
/// the VM, and checks that nothing is left of it.
///
/// # Panics
///
/// If anything is left, or the memory does not suffice for what the budget says.
pub fn run<P>(arena: &mut Arena, table: &mut [FrameEntry; FRAMES], flows: &[Flow], program: P)
where
    P: for<'m> FnOnce(Reserved<'m, LoopCard<'m>>),
{
    let source = <Buddy>::new(&mut arena.0, table).expect("a table for the frames");
    let task = SingleTask::new();
    let marks = Watermarks {
        min: 1,
        low: 1,
        high: 1,
    };
    let zone = <Zone>::new(&source, &task, marks).expect("marks below the size");
    let root: ReserveNode<'_> = ReserveNode::root("total", &zone);
    let (rx, tx) = (ReserveNode::new("rx"), ReserveNode::new("tx"));
    rx.set_limit(netreserve::rx_limit(RING, SKB), RESERVE.frames())
        .expect("not connected");
    tx.set_limit(netreserve::tx_limit(RING, SKB), 0)
        .expect("not connected");
    for node in [&rx, &tx] {
        node.connect(&root).expect("the frames are there");
    }

    let cache = <SizedCache>::new("skb", &zone, SKB, 0).expect("two to a frame");
    let (mut slots, mut peers) = ([const { Slot::EMPTY }; 2], [const { Slot::EMPTY }; 1]);
    let table = FlowTable::new(&mut slots, &mut peers);
    for flow in flows {
        table.add(*flow).expect("as many slots as flows");
    }
    let token = zone.claim_memalloc().expect("claimed once, here");
    let pool = SkbPool::new(&cache, &rx, &tx, &table, token);
    let sockets = SocketTable::new(&mut [], &mut [], ProtocolMemory::each(0));
    let ingress = Ingress::over_ip(&table, &sockets);

    let ordinary: [_; FRAMES] = array::from_fn(|_| zone.alloc(0, Gfp::ATOMIC).ok());
    let taken = ordinary.iter().flatten().count();
    hprintln!(
        "memory: {} frames of {} bytes, reserve {}, ordinary taken {}",
        zone.stats().total,
        FRAME_SIZE,
        RESERVE.frames(),
        taken
    );
    assert!(
        taken > 0 && zone.alloc(0, Gfp::ATOMIC).is_err(),
        "ordinary memory is exhausted"
    );

    let device = Reserved::new(LoopCard::default(), &pool, &ingress).expect("a packet fits");
    program(device);

    let stats = ingress.stats();
    hprintln!(
        "received: {}, emergency {}, VMIO {}, foreign dropped {}",
        stats.received,
        stats.received_emergency,
        stats.vmio,
        stats.dropped.get(DropReason::EmergencyUdp)
    );
    assert_eq!(
        stats.received, stats.received_emergency,
        "there was no ordinary memory"
    );
    assert_eq!(stats.received, stats.vmio + stats.dropped.total());
    assert!(stats.vmio > 0 && stats.dropped.get(DropReason::EmergencyUdp) > 0);
    drop(ordinary);
    cache.shrink();
    hprintln!(
        "charges left: {}, frames free: {} of {}",
        rx.usage() + tx.usage(),
        zone.stats().free,
        zone.stats().total
    );
    assert_eq!((rx.usage(), tx.usage()), (0, 0));
    assert_eq!(zone.stats().free, zone.stats().total);
}
