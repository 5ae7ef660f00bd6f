//! Completions: what becomes of a page whose request is finished.

use mempool::Frame;

use super::page::State;
use super::{Access, Arrival, EvictionPolicy, Page, PageTable, Pager};
use crate::ablation::Mechanism;
use crate::{AddressSpace, ErrorKind, Instant, IoClass, IoOp, SpaceError};

impl<'m, A, T, P, const N: usize> Pager<'_, 'm, A, T, P, N>
where
    A: AddressSpace<Frame<'m>>,
    T: PageTable,
    P: EvictionPolicy,
{
    /// Takes one completion from the address space. Whether there was one.
    pub(super) fn complete_one(&mut self, now: Instant) -> bool {
        let Some((ticket, completion)) = self.space.poll(now) else {
            return false;
        };
        self.throttle.completed();
        let frames = completion.io.frames;
        let request = self.requests.remove(ticket, &frames);
        let done = usize::from(completion.done);
        let result = completion.result.map_err(|error| error.kind());
        if request.op == IoOp::Write {
            match result {
                Ok(()) => self.throttle.succeeded(),
                Err(_) => self.throttle.failed(now),
            }
        }
        // S3: a write without an answer, or an earlier copy of one with an answer, may be carried
        // out later, over whatever its slots hold then. They may hold these pages, and nothing
        // else ever: once they are free of them they are retired, not given back.
        let stray = request.op == IoOp::Write
            && (completion.stray || result == Err(ErrorKind::TimedOut))
            && !self.off(Mechanism::RetireLate);
        for ((index, page), frame) in request.pages.into_iter().enumerate().zip(frames) {
            let result = result.or_else(|kind| if index < done { Ok(()) } else { Err(kind) });
            self.writeback -= usize::from(request.op == IoOp::Write);
            self.pages[page.index()].stray |= stray;
            match (self.pages[page.index()].doomed, request.op) {
                (true, _) => self.bury(page),
                (false, IoOp::Read) if request.class == IoClass::Prefetch => {
                    self.prefetch_done(page, frame, result, now);
                }
                (false, IoOp::Read) => {
                    self.page_in_done(page, frame, result, request.deadline, now)
                }
                (false, IoOp::Write) => self.page_out_done(page, frame, result, now),
            }
        }
        true
    }

    /// A page was forgotten while its request was in flight; its frame is dropped by now. Somebody
    /// may want the page again already.
    fn bury(&mut self, page: Page) {
        let entry = &mut self.pages[page.index()];
        entry.state = State::Untouched;
        (entry.doomed, entry.dirty, entry.writable) = (false, false, false);
        let fault = entry.fault;
        self.forgotten(page);
        if let Some(id) = fault {
            self.wait_for_frame(id);
        }
    }

    pub(super) fn page_in_done(
        &mut self,
        page: Page,
        frame: Frame<'m>,
        result: Result<(), ErrorKind>,
        deadline: Option<Instant>,
        now: Instant,
    ) {
        let mapped_anyhow = self.off(Mechanism::FailedRead);
        let entry = &mut self.pages[page.index()];
        // A fault may have joined that has more time than the request had.
        let cut_short = deadline.is_some_and(|deadline| deadline <= now);
        let patient = entry
            .fault
            .filter(|id| cut_short && !self.faults.get(*id).is_late(now));
        match (result, patient) {
            (Err(ErrorKind::TimedOut | ErrorKind::Unsent), Some(id)) => {
                drop(frame);
                entry.state = State::Swapped;
                self.wait_for_frame(id);
            }
            (Err(kind), _) if !mapped_anyhow => {
                // S4: what the frame holds is nobody's page; it goes back unseen.
                drop(frame);
                entry.state = State::Swapped;
                entry.suspect = matches!(kind, ErrorKind::Corrupt | ErrorKind::Io);
                self.stats.read_failures += 1;
                self.fail(page, kind);
            }
            _ if entry.fault.is_none() => self.cache(page, frame),
            _ => {
                entry.suspect = false;
                self.stats.pages_in += 1;
                self.settle(page, frame, true, now);
            }
        }
    }

    fn page_out_done(
        &mut self,
        page: Page,
        frame: Frame<'m>,
        result: Result<(), ErrorKind>,
        now: Instant,
    ) {
        let entry = &mut self.pages[page.index()];
        let redirtied = entry.dirty;
        // S3: only a write that succeeded, of bytes that are still the page's, makes it clean.
        entry.dirty = redirtied && !self.ablation.off(Mechanism::Redirty)
            || result.is_err() && !self.ablation.off(Mechanism::FailedWriteDirty);
        match result {
            Ok(()) => self.stats.pages_out += 1,
            Err(_) => self.stats.write_failures += 1,
        }
        self.stats.redirtied += u64::from(redirtied);
        let wanted = entry.dirty
            || entry.held()
            || (T::MAPPED_DURING_WRITEBACK && self.table.take_accessed(page));
        if wanted {
            self.keep(page, frame, now);
        } else {
            if T::MAPPED_DURING_WRITEBACK {
                self.table.unmap(page);
            }
            self.pages[page.index()].state = State::Swapped;
            let (policy, mut pages) = self.eviction();
            policy.evicted(&mut pages, page);
        }
    }

    /// A page stays in memory after its page-out.
    fn keep(&mut self, page: Page, frame: Frame<'m>, now: Instant) {
        let entry = &self.pages[page.index()];
        let (dirty, fault) = (entry.dirty, entry.fault);
        if T::MAPPED_DURING_WRITEBACK {
            self.link(page, frame, Arrival::Back);
        } else if fault.is_some() {
            self.settle(page, frame, false, now);
        } else {
            self.map(page, frame, Access::Read, Arrival::Back);
        }
        if dirty {
            self.release_slot(page);
        }
    }

    /// Maps a page for the fault that waits for it.
    fn settle(&mut self, page: Page, frame: Frame<'m>, major: bool, now: Instant) {
        let id = self.pages[page.index()].fault;
        let id = id.expect("a fault waits for the page");
        let access = self.faults.get(id).access;
        self.map(page, frame, access, Arrival::Faulted);
        let waited = self.faults.mapped(id, now, major);
        self.latency.record(waited);
        if major {
            self.stats.faults_major += 1;
            self.latency_major.record(waited);
        } else {
            self.stats.faults_minor += 1;
            self.latency_minor.record(waited);
        }
    }
}
