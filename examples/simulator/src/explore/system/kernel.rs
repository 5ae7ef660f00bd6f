//! The kernel's step, and what holds after it.

use core::task::Poll;

use mempool::{FrameAllocator, Gfp};
use swapspace::{Instant, PagerEvent};

use super::super::build::SKB;
use super::{Phase, System};
use crate::kernel::time;
use crate::scenario::{Micros, SECOND};

/// How soon a kernel that could do nothing tries again; twice as long after each further time, up to
/// a second.
const RETRY: Micros = 1_000;

impl System<'_, '_> {
    /// Everything in the machine moves as far as it goes.
    pub(super) fn run_kernel(&mut self) {
        self.take_all();
        let before = self.machine_moved();
        let now = time(self.now);
        match self.phase {
            Phase::Activating => {
                let result = self.pager.area_mut().activate(now);
                if let Poll::Ready(result) = result {
                    self.phase = Phase::Active;
                    self.parts.findings.check(result.is_ok(), "S6", || {
                        format!("the swap file was refused: {result:?}")
                    });
                }
            }
            Phase::Active => {
                while let Some(event) = self.pager.poll(now) {
                    match event {
                        PagerEvent::Mapped { page, .. } => self.mapped.push(page.0),
                        PagerEvent::Failed { page, kind } => {
                            self.parts.findings.report("S4", || {
                                format!("the fault on page {} failed: {kind:?}", page.0)
                            });
                        }
                    }
                }
            }
            Phase::ShuttingDown => {
                if self.pager.shutdown(now).is_ready() {
                    self.phase = Phase::Deactivating;
                }
            }
            Phase::Deactivating | Phase::Over => {}
        }
        if self.phase == Phase::Deactivating
            && let Poll::Ready(result) = self.pager.area_mut().deactivate(now)
        {
            self.phase = Phase::Over;
            self.parts.findings.check(result.is_ok(), "S6", || {
                format!("the swap file could not be put away: {result:?}")
            });
        }
        // What could not be done now is not tried again at once, unless something moved.
        let moved = self.machine_moved() != before;
        self.idle = if moved {
            0
        } else {
            self.idle.saturating_add(1)
        };
        let pause = match self.idle {
            0 => 1,
            idle => SECOND.min(RETRY << (idle - 1).min(10)),
        };
        let next = self.pager.next_deadline().map(Instant::as_micros);
        self.kernel_next = next.map(|at| at.max(self.now + pause));
        // As long as something moves and something is left to move, it runs again.
        let device = &self.device().inner;
        let wants = device.more_pending() || !self.port.borrow().waiting.is_empty();
        let starved = self.port.borrow().posted < device.nic().rings[0];
        self.kernel_due = (wants || starved) && moved;
        self.check();
    }

    fn machine_moved(&self) -> ([u64; 2], usize, usize) {
        let port = self.port.borrow();
        (port.moved, port.posted, self.parts.cache.stats().in_use)
    }

    /// The others take what they can get, for as long as they may.
    pub(super) fn take_all(&mut self) {
        let memory = self.parts.memory;
        if let Some(hog) = &mut self.hog {
            while let Ok(frame) = memory.alloc(0, Gfp::ATOMIC) {
                hog.push(frame);
            }
        }
    }

    /// What holds between any two steps of the kernel.
    fn check(&self) {
        let findings = &self.parts.findings;
        let (zone, cache) = (self.parts.zone.stats(), self.parts.cache.stats());
        // With a reserve that is too small, the entitled take what comes free elsewhere.
        let reserve = zone.reserve + self.missing;
        findings.check(zone.reserve_in_use <= reserve, "M2", || {
            let used = zone.reserve_in_use;
            format!("{used} frames came out of a reserve of {reserve}")
        });
        let charged: usize = self.parts.nodes.iter().map(|node| node.usage()).sum();
        let held = cache.reserve_objects * SKB;
        findings.check(
            charged == held,
            if charged > held { "M6" } else { "N3" },
            || format!("packets hold {held} bytes of the reserve, and {charged} are charged"),
        );
        let over = self
            .parts
            .nodes
            .iter()
            .any(|node| node.usage() > node.limit());
        findings.check(!over, "M6", || "more is charged than may be".into());
        findings.check(cache.reserve_slabs == zone.reserve_in_use, "M7", || {
            let (used, slabs) = (zone.reserve_in_use, cache.reserve_slabs);
            format!("{used} frames of the reserve are in use, {slabs} of them by packets")
        });
        findings.check(held > 0 || zone.reserve_in_use == 0, "M4", || {
            "no packet holds anything of the reserve, and it did not come back".into()
        });
        let emergency = self.parts.sockets.stats().emergency;
        findings.check(emergency == 0, "N2", || {
            format!("{emergency} emergency packets wait in a socket for their reader")
        });
        let dropped = self.parts.ladder.stats().vmio_dropped;
        findings.check(dropped == 0, "N7", || {
            format!("{dropped} packets of the swap connection were dropped")
        });
    }
}
