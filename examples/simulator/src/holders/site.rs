//! Where a day passes: a zone, a reserve with receive and transmit nodes, and packets.

use core::mem::ManuallyDrop;
use core::net::IpAddr;

use mempool::{
    Buddy, Budget, FRAME_SIZE, FrameEntry, MemallocToken, ReserveNode, SingleTask, SizedCache,
    Watermarks, Zone,
};
use netreserve::{
    ConsumerSlot, FirstFragment, Flow, FlowTable, Ingress, Protocol, ProtocolMemory, QueueEntry,
    SkbPool, Slot, SocketTable,
};

use super::tap::Tap;

/// Bytes of a packet buffer.
pub(super) const SKB: usize = 2016;

/// Frames of the zone, besides the reserve.
const ORDINARY: usize = 12;

/// Entries of the queues of all sockets, and packets that a protocol may hold.
pub(super) const ENTRIES: usize = 10;
pub(super) const PROTOCOL: usize = 6;

/// Packets of flows that may be under way in fragments.
const PACKETS: usize = 2;

/// What is there, in memory that outlives it.
pub(super) struct Site<'a, 'z> {
    pub(super) task: &'a SingleTask,
    pub(super) zone: &'a Zone<'z>,
    pub(super) token: MemallocToken,
    pub(super) cache: &'a SizedCache<'z>,
    pub(super) nodes: [&'a ReserveNode<'z>; 2],
    pub(super) flows: &'a FlowTable<'a>,
    pub(super) pool: &'a SkbPool<'a>,
    pub(super) table: &'a SocketTable<'a>,
    pub(super) ingress: &'a Ingress<'a>,
    /// Not registered.
    pub(super) tap: &'a Tap<'a>,
}

/// Runs `day` on a machine whose nodes may be charged so many packets each.
pub(super) fn with_site(skbs: [usize; 2], day: impl FnOnce(&Site<'_, '_>)) {
    let budget = Budget::objects(skbs[0] + skbs[1], SKB, 0);
    let frames = ORDINARY + budget.frames();
    let mut bytes = vec![0; (frames + 1) * FRAME_SIZE];
    let mut table = vec![FrameEntry::EMPTY; frames + 1];
    let source = <Buddy<'_>>::new(&mut bytes, &mut table);
    let source = source.expect("there is an entry for each frame");
    let task = SingleTask::new();
    let zone = <Zone<'_>>::new(&source, &task, Watermarks::default());
    let zone = zone.expect("there are no marks");
    let token = zone.claim_memalloc().expect("nobody claimed it before");
    let root = <ReserveNode<'_>>::root("total", &zone);
    let nodes = [ReserveNode::new("rx"), ReserveNode::new("tx")];
    for ((node, skbs), budget) in nodes.iter().zip(skbs).zip([budget, Budget::ZERO]) {
        node.set_limit(skbs * SKB, budget.frames())
            .expect("a node without a parent takes any");
        node.connect(&root).expect("the memory was sized for it");
    }
    let cache = <SizedCache<'_>>::new("skb", &zone, SKB, 0);
    let cache = cache.expect("packets fit into their slabs");
    let (mut flows, mut peers) = ([const { Slot::EMPTY }; 8], [const { Slot::EMPTY }; 16]);
    let mut packets = [const { FirstFragment::EMPTY }; PACKETS];
    let flows = FlowTable::new(&mut flows, &mut peers).with_fragments(&mut packets);
    let pool = SkbPool::new(&cache, &nodes[0], &nodes[1], &flows, token);
    let mut slots = [const { Slot::EMPTY }; 4];
    // The table wants its storage for good, and empties it itself.
    let mut entries = ManuallyDrop::new([const { QueueEntry::EMPTY }; ENTRIES]);
    let limit = ProtocolMemory::each(PROTOCOL * SKB);
    let table = SocketTable::new(&mut slots, &mut entries[..], limit).with_flows(&flows);
    // For good, as well; its owner empties it.
    let tap = ManuallyDrop::new(Tap::default());
    let mut consumers = [ConsumerSlot::EMPTY; 1];
    let ingress = Ingress::new(&flows, &table, [2, 0, 0, 0, 0, 1]).with_consumers(&mut consumers);
    day(&Site {
        task: &task,
        zone: &zone,
        token,
        cache: &cache,
        nodes: [&nodes[0], &nodes[1]],

        flows: &flows,
        pool: &pool,
        table: &table,
        ingress: &ingress,
        tap: &tap,
    });
}

/// An Ethernet frame to this host: an IPv4 packet of `flow`, from the other end.
pub(super) fn frame(flow: &Flow, payload: usize) -> Vec<u8> {
    let mut segment = match flow.protocol() {
        Protocol::Udp => {
            let mut header = vec![0; 8];
            header[4..6].copy_from_slice(&(8 + payload as u16).to_be_bytes());
            header
        }
        Protocol::Tcp => {
            let mut header = vec![0; 20];
            header[12] = 5 << 4;
            header
        }
    };
    segment[..2].copy_from_slice(&flow.remote().port().to_be_bytes());
    segment[2..4].copy_from_slice(&flow.local().port().to_be_bytes());
    segment.resize(segment.len() + payload, 0);
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, 0x45, 0];
    frame.extend((20 + segment.len() as u16).to_be_bytes());
    frame.extend([0, 0, 0, 0, 64, flow.protocol().number(), 0, 0]);
    for end in [flow.remote(), flow.local()] {
        let IpAddr::V4(addr) = end.ip() else {
            unreachable!("the flows of a day are over IPv4");
        };
        frame.extend(addr.octets());
    }
    frame.extend(segment);
    frame
}
