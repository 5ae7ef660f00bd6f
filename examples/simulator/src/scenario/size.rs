//! How much memory a machine has: enough for what the crates promise, and not much more.

use mempool::{Budget, Watermarks};
use swapspace::CLUSTER_FRAMES;

use super::{FaultKind, Machine, Mode, Scenario};
use crate::memory::INTERRUPT_FRAMES;
use crate::nic::OTHER_STACK;

/// Frames that the program needs besides all else: what is mapped must not be evicted before it is
/// touched, with full clusters on their way in and out.
const WORKING_MINIMUM: usize = 24;

/// How much of everything.
pub(crate) struct Sizes {
    /// Frames behind the reserves of each swapper: the receive side asks for all of them.
    pub(crate) reserve: Budget,
    /// Frames of the zone of pages, and of that of packets if there is one.
    pub(crate) pages: usize,
    pub(crate) packets: usize,
    pub(crate) marks: Watermarks,
    pub(crate) slots: u32,
}

impl Machine {
    /// Bytes that may be charged to the receive and to the transmit reserve.
    pub(crate) const fn limits(&self) -> [usize; 2] {
        let size = self.skb().0;
        match self.guaranteed {
            [0, _] | [_, 0] => [
                netreserve::MIN_RX_SKBS * size,
                netreserve::MIN_TX_SKBS * size,
            ],
            [rx, tx] => [
                netreserve::rx_limit(rx, size),
                netreserve::tx_limit(tx, size),
            ],
        }
    }
}

impl Sizes {
    pub(crate) fn of(scenario: &Scenario) -> Sizes {
        let Machine {
            rings,
            min,
            swappers,
            socket_skbs,
            ..
        } = scenario.machine;
        let (size, order) = scenario.machine.skb();
        let each = reserve(&scenario.machine);
        // An area whose program is over gives pages up below `low`, so that others get memory.
        let low = min + min.div_ceil(4).max(1);
        let marks = Watermarks {
            min,
            low,
            high: low.max(min + min.div_ceil(2)) + 1,
        };
        let raises = scenario.script.iter().map(|fault| match fault.kind {
            FaultKind::Raise(packets) => packets.into(),
            _ => 0,
        });
        let raise = Budget::objects(raises.max().unwrap_or(0), size, order).frames();
        let reserve = swappers * each.frames() + raise;
        // Ordinary memory comes first: the rings hold as much of it while there is any.
        let in_rings =
            swappers * Budget::objects(rings[0] + rings[1] + 4 + OTHER_STACK, size, order).frames();
        let in_sockets = Budget::objects(2 * socket_skbs, size, order).frames();
        let packets = reserve + in_rings + in_sockets + marks.high;
        let tasks = scenario.program.tasks * swappers;
        let program = WORKING_MINIMUM * swappers + 5 * tasks + INTERRUPT_FRAMES;
        let (pages, packets) = match scenario.machine.packet_zone() {
            // Whole slabs, aligned; and less than the sockets may hold, or it would never run dry.
            true => {
                let packets = packets - in_sockets / 2;
                (program + marks.high, packets.next_multiple_of(1 << order))
            }
            false => (program + packets, 0),
        };
        // A page that is written again has two slots for a moment. With few slots they are used again
        // and again; what finds none stays in memory.
        let own = scenario.program.pages;
        let slots = match scenario.seed % 3 {
            0 => own + scenario.machine.requests * CLUSTER_FRAMES,
            // Beyond the budget the area may be full.
            1 if scenario.mode == Mode::Beyond => own / 4,
            _ => own + CLUSTER_FRAMES,
        };
        Sizes {
            reserve: each,
            pages,
            packets,
            marks,
            slots: slots as u32,
        }
    }
}

/// Frames behind the reserves of one swapper.
fn reserve(machine: &Machine) -> Budget {
    let (size, order) = machine.skb();
    match machine.guaranteed {
        [0, _] | [_, 0] => netreserve::min_budget(size, order),
        [rx, tx] => netreserve::budget(rx, tx, size, order),
    }
}
