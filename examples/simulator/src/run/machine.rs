//! What is in the machine before anything runs: memory, the reserve in it, and the program's sockets.

use mempool::{Buddy, Budget, FRAME_SIZE, FrameEntry, ReserveNode};
use netreserve::{Protocol, SocketId, SocketTable};

use crate::scenario::Scenario;

/// Sockets of each protocol.
pub(super) const SOCKETS: usize = 8;

/// Frames to which memory is aligned, so that runs are: those of the largest slab.
const ALIGN: usize = 8;

/// What a zone lies in.
pub(super) struct Memory {
    bytes: Vec<u8>,
    table: Vec<FrameEntry>,
}

impl Memory {
    /// So many frames, and a few more to align them in.
    pub(super) fn new(frames: usize) -> Memory {
        Memory {
            bytes: vec![0; (frames + ALIGN) * FRAME_SIZE],
            table: vec![FrameEntry::EMPTY; frames],
        }
    }

    pub(super) fn buddy(&mut self) -> Buddy<'_> {
        let skip = self.bytes.as_ptr().align_offset(ALIGN * FRAME_SIZE);
        let aligned = &mut self.bytes[skip..skip + self.table.len() * FRAME_SIZE];
        Buddy::new(aligned, &mut self.table).expect("the table has an entry for each frame")
    }
}

/// Puts the reserves of all swappers below the root. The receive side asks for all the frames.
pub(super) fn connect<'z>(
    nodes: &'z [[ReserveNode<'z>; 2]],
    root: &'z ReserveNode<'z>,
    limits: [usize; 2],
    budget: Budget,
) {
    for pair in nodes {
        for ((node, limit), budget) in pair.iter().zip(limits).zip([budget, Budget::ZERO]) {
            node.set_limit(limit, budget.frames())
                .expect("a node without a parent takes any");
            node.connect(root).expect("the memory was sized for it");
        }
    }
}

/// Binds the sockets. Returns them with their ports.
pub(super) fn bind(table: &SocketTable<'_>, scenario: &Scenario) -> (Vec<SocketId>, Vec<u16>) {
    let (machine, program) = (&scenario.machine, &scenario.program);
    let mut bound = Vec::new();
    let mut ports = Vec::new();
    for number in 0..program.sockets.min(SOCKETS) {
        for protocol in Protocol::ALL {
            let port = 7000 + number as u16;
            let rcvbuf = (machine.socket_skbs / program.sockets).max(1) * machine.skb().0;
            let socket = table.bind(protocol, port, rcvbuf);
            bound.push(socket.expect("the port is free"));
            ports.push(port);
        }
    }
    (bound, ports)
}
