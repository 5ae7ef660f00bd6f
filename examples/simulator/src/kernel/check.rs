//! The promises, checked after every step; and who waits for whom, for when nothing moves.

use core::fmt;

use mempool::{FrameAllocator, Gfp};

use super::{Kernel, Phase, span, time};
use crate::mmu::Mmu;
use crate::scenario::{Micros, Mode, SECOND};

/// How long after its deadline a request may end: the kernel runs at deadlines, but not always at
/// once.
const GRACE: Micros = SECOND;

impl<M: Mmu> Kernel<'_, '_, M> {
    /// Checks everything that must hold between any two steps.
    pub(super) fn check(&mut self, now: Micros) {
        if !self.parts.findings.is_empty() {
            return;
        }
        self.check_reserve();
        self.check_packets();
        for number in 0..self.swappers.len() {
            self.check_swapper(number, now);
            self.check_budget(number);
        }
    }

    /// N4: with a reserve of the computed size there is a packet buffer for every descriptor, and for
    /// what is between them, as long as there is a swap connection.
    fn check_budget(&mut self, number: usize) {
        let machine = self.parts.machine;
        let swapper = &mut self.swappers[number];
        let stats = swapper.pool.stats();
        let failed = stats.rx.failed + stats.tx.failed;
        let computed = machine.guaranteed == machine.rings;
        let injected = self.parts.truth.fails() > 0;
        if computed && !injected && swapper.open && self.parts.flows.any() {
            let before = swapper.failed_allocations;
            self.parts.findings.check(failed == before, "N4", || {
                let (rx, tx) = (stats.rx.failed, stats.tx.failed);
                format!(
                    "the reserve is computed for the rings, and {} packet buffers were refused \
                     ({rx} receive, {tx} transmit in all)",
                    failed - before
                )
            });
        }
        swapper.open = self.parts.flows.any();
        swapper.failed_allocations = failed;
    }

    fn check_reserve(&mut self) {
        let parts = &self.parts;
        let findings = &parts.findings;
        let zone = parts.packets.stats();
        let promised = parts.root.pages();
        let missing = parts.machine.missing;
        findings.check(zone.reserve + missing == promised, "M5", || {
            let reserve = zone.reserve;
            format!("the limits promise {promised} frames, and {reserve} are set aside")
        });
        findings.check(zone.reserve_in_use <= promised, "M2", || {
            let (used, reserve) = (zone.reserve_in_use, zone.reserve);
            format!("{used} frames came out of a reserve of {reserve}")
        });

        let (size, order) = parts.machine.skb();
        let cache = parts.cache.stats();
        let nodes = self.swappers.iter().flat_map(|swapper| swapper.nodes);
        let mut charged = 0;
        for node in nodes {
            charged += node.usage();
            findings.check(node.usage() <= node.limit(), "M6", || {
                let (usage, limit) = (node.usage(), node.limit());
                format!(
                    "{usage} bytes are charged to '{}', which may have {limit}",
                    node.name()
                )
            });
        }
        let held = cache.reserve_objects * size;
        findings.check(
            charged == held,
            if charged > held { "M6" } else { "N3" },
            || format!("packets hold {held} bytes of the reserve, and {charged} are charged"),
        );
        let slabs = cache.reserve_slabs << order;
        findings.check(slabs == zone.reserve_in_use, "M7", || {
            let used = zone.reserve_in_use;
            format!("{used} frames of the reserve are in use, {slabs} of them by packets")
        });
        findings.check(held > 0 || slabs == 0, "M4", || {
            format!("no packet holds anything of the reserve, and {slabs} frames did not go back")
        });
    }

    fn check_packets(&mut self) {
        let parts = &self.parts;
        let findings = &parts.findings;
        let sockets = parts.sockets.stats();
        findings.check(sockets.emergency == 0, "N2", || {
            format!(
                "{} emergency packets wait in sockets for their readers",
                sockets.emergency
            )
        });
        let limit = 2 * parts.machine.socket_skbs * parts.machine.skb().0;
        findings.check(sockets.rmem <= limit, "N4", || {
            format!("sockets hold {} bytes and may hold {limit}", sockets.rmem)
        });
        if parts.lossless {
            let dropped = self.swappers.iter();
            let dropped: u64 = dropped.map(|s| s.ingress.stats().vmio_dropped).sum();
            findings.check(dropped == 0, "N7", || {
                format!("{dropped} packets of the swap connection were dropped")
            });
        }
    }

    fn check_swapper(&mut self, number: usize, now: Micros) {
        let parts = &self.parts;
        let findings = &parts.findings;
        let swapper = &self.swappers[number];
        let most = parts.machine.requests;
        let (writes, in_flight) = (swapper.ledger.writes(), swapper.ledger.in_flight());
        findings.check(in_flight <= most, "S1", || {
            format!("{in_flight} requests are in flight, and {most} may be")
        });
        findings.check(writes < most || most == 1, "S8", || {
            format!("page-outs have all {most} requests: a page-in would have to wait for them")
        });
        if parts.mode == Mode::Beyond
            && let Some(oldest) = swapper.ledger.oldest()
        {
            let age = time(now).since(oldest);
            let most = span(parts.machine.deadline + GRACE);
            findings.check(age <= most, "S4", || {
                format!("a request has been in flight for {age:?}, beyond its deadline")
            });
        }
        let (slab_order, port) = (parts.machine.skb().1, swapper.port.borrow());
        let tx = swapper.nodes[1];
        let plenty = parts
            .packet_memory
            .ordinary_possible(slab_order, Gfp::KERNEL);
        if matches!(swapper.phase, Phase::Deactivating { .. }) && plenty && port.in_tx_ring == 0 {
            let device = swapper
                .pager
                .area()
                .space()
                .inner
                .transport()
                .inner
                .device();
            let settled = !device.inner.more_pending();
            findings.check(!settled || tx.usage() == 0, "N6", || {
                "memory is plenty, nothing is being sent, and a transmit buffer is still one of \
                 the reserve"
                    .into()
            });
        }
    }

    /// Who waits for whom, as far as it can be told.
    pub(crate) fn circle(&self, now: Micros) -> Circle {
        let mut links = Vec::new();
        let waiting = self.tasks.iter().filter(|task| task.waiting().is_some());
        let waiting: Vec<_> = waiting.collect();
        if let Some((page, _, since)) = waiting.first().and_then(|task| task.waiting()) {
            links.push(format!(
                "{} tasks wait for pages (page {} for {} s)",
                waiting.len(),
                page.0,
                (now - since) / SECOND
            ));
        }
        for (number, swapper) in self.swappers.iter().enumerate() {
            links.push(match swapper.pager.stall(time(now)) {
                Some(stall) => format!("area {number}: {stall}"),
                None => format!(
                    "area {number} ({:?}): {} requests in flight",
                    swapper.phase,
                    swapper.ledger.in_flight()
                ),
            });
            let (port, pool) = (swapper.port.borrow(), swapper.pool.stats());
            let [rx, tx] = swapper.nodes.map(|node| (node.usage(), node.limit()));
            links.push(format!(
                "its card has {} receive buffers posted and {} packets waiting, {} in the transmit \
                 ring; {} of {} bytes of the receive reserve and {} of {} of the transmit reserve \
                 are charged; {} and {} allocations failed",
                port.posted(),
                port.waiting(),
                port.in_tx_ring,
                rx.0,
                rx.1,
                tx.0,
                tx.1,
                pool.rx.failed,
                pool.tx.failed,
            ));
        }
        let level = FrameAllocator::level(self.parts.packets);
        let sockets = self.parts.sockets.stats();
        links.push(format!(
            "{} frames are free, {} of them reserve, min {}; {} packets lie in {} sockets, {} of \
             them emergency",
            level.free,
            level.reserve,
            level.marks.min,
            sockets.queued,
            sockets.waiting,
            sockets.emergency,
        ));
        if !waiting.is_empty() && sockets.queued > 0 {
            links.push("and their owners are the tasks that wait".into());
        }
        Circle(links)
    }
}

/// Who waits for whom.
#[derive(Debug, Clone)]
pub(crate) struct Circle(pub(crate) Vec<String>);

impl fmt::Display for Circle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(" -> "))
    }
}
