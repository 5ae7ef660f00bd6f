//! How it begins and how it ends: the same in every schedule.

use netreserve::Skb;
use swapspace::{Access, FaultOutcome, Page};

use super::super::build::SLOTS;
use super::{PATIENCE, Phase, STEPS, System, strange_packet};
use crate::kernel::time;
use crate::mmu::{PAGE, difference, fill};

/// What is written into the page that goes out.
const TAG: u64 = 0x1234;

/// The most packets that strangers send before it begins.
const FLOOD: usize = 40;

impl System<'_, '_> {
    /// What is the same in every schedule: swap is activated, a page is written to, somebody takes
    /// all memory, and a second page is wanted.
    pub(in super::super) fn begin(&mut self) -> Result<(), String> {
        self.settle(|system| system.phase == Phase::Active)?;
        // All packets arrive.
        while self.moves().next().is_some() {
            self.go_on();
        }
        let outcome = self.pager.fault(Page(0), Access::Write, time(self.now));
        if outcome != Ok(FaultOutcome::Mapped) {
            return Err(format!("the first page: {outcome:?}"));
        }
        let frame = self.pager.frame_mut(Page(0)).expect("it is mapped");
        fill(frame, TAG);
        self.hog = Some(Vec::new());
        self.take_all();
        // Strangers have filled what was left of ordinary memory, so that the card has nothing but
        // the reserve to post.
        for _ in 0..FLOOD {
            if self.device().inner.nic().rx.iter().all(Skb::is_emergency) {
                break;
            }
            self.port.borrow_mut().arrive(strange_packet());
            self.run_kernel();
        }
        let outcome = self.pager.fault(Page(1), Access::Write, time(self.now));
        if outcome != Ok(FaultOutcome::Pending) {
            return Err(format!("there is no need to page out: {outcome:?}"));
        }
        self.kernel_due = true;
        Ok(())
    }

    /// What comes after the page-out, and is the same again in every schedule: there is memory, the
    /// socket is read, the second page is mapped, the first comes back as it was, and everything is put away.
    pub(in super::super) fn end(&mut self) -> Result<(), String> {
        self.check_stable();
        self.hog = None;
        while self.parts.sockets.recv(self.parts.stranger).is_some() {}
        self.left = [0; 4];
        self.kernel_due = true;
        self.settle(|system| system.mapped.contains(&1))?;
        if self.pager.frame(Page(0)).is_none() {
            let outcome = self.pager.fault(Page(0), Access::Read, time(self.now));
            let outcome = outcome.map_err(|error| format!("{error}"))?;
            self.kernel_due = true;
            if outcome == FaultOutcome::Pending {
                self.settle(|system| system.mapped.contains(&0))?;
            }
        }
        let bytes = self
            .pager
            .frame(Page(0))
            .ok_or("the page is not where it must be")?;
        let wrong = difference(bytes, TAG);
        self.parts.findings.check(wrong.is_none(), "integrity", || {
            format!("the page that came back is not what went out: {wrong:x?}")
        });
        self.phase = Phase::ShuttingDown;
        self.kernel_due = true;
        self.settle(|system| system.phase == Phase::Over)
    }

    /// S2: a page-out that has completed survives a power failure.
    fn check_stable(&self) {
        let server = &self.host.servers[0];
        let pages = (0..SLOTS.into()).filter_map(|slot| server.stable_page(slot, PAGE as u32));
        let found = pages
            .into_iter()
            .any(|page| difference(&page, TAG).is_none());
        self.parts.findings.check(found, "S2", || {
            "the page-out has completed, and the page is in no stable slot".into()
        });
    }

    /// Goes on without faults until something is so.
    fn settle(&mut self, done: impl Fn(&Self) -> bool) -> Result<(), String> {
        let deadline = self.now + PATIENCE;
        for _ in 0..STEPS {
            if done(self) {
                return Ok(());
            }
            if self.now > deadline || !self.go_on() {
                break;
            }
        }
        Err(self.hangs())
    }
}
