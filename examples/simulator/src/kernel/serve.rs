//! What becomes of page faults: whom they wake, and when tasks go on.

use swapspace::{ErrorKind, Page, PagerEvent};

use super::task::{Step, is_accessible};
use super::{Kernel, time};
use crate::mmu::Mmu;
use crate::scenario::{Micros, Mode};
use crate::trace::Trace;

impl<M: Mmu> Kernel<'_, '_, M> {
    /// A task goes on.
    pub(crate) fn run_task(&mut self, task: usize, now: Micros, trace: &mut Trace) {
        let step = self.step(task, now, trace);
        self.schedule(task, step, now);
        self.check(now);
    }

    pub(super) fn serve(&mut self, number: usize, now: Micros, trace: &mut Trace) {
        loop {
            let event = self.on_swap_path(|kernel| kernel.swappers[number].pager.poll(time(now)));
            let Some(event) = event else {
                return;
            };
            let (page, failed) = match event {
                PagerEvent::Mapped { page, waited, .. } => {
                    trace.note(now, || {
                        format!("page {} is mapped after {waited:?}", page.0)
                    });
                    (page, None)
                }
                PagerEvent::Failed { page, kind } => {
                    trace.note(now, || {
                        format!("the fault on page {} failed: {kind:?}", page.0)
                    });
                    self.judge_failure(page.0, kind);
                    (page, Some(kind))
                }
            };
            self.got_on(number, now);
            if failed.is_none() {
                self.judge_mapping(number, page);
            }
            for task in 0..self.tasks.len() {
                if self.tasks[task].swapper == number && self.tasks[task].waits_for(page) {
                    self.wake(task, failed, now, trace);
                }
            }
        }
    }

    /// A page that is said to be mapped is mapped as every fault on it asked for.
    fn judge_mapping(&mut self, number: usize, page: Page) {
        let pager = &mut self.swappers[number].pager;
        for task in self.tasks.iter().filter(|task| task.swapper == number) {
            let asked = task.waiting().filter(|(waited, ..)| *waited == page);
            if let Some((_, access, _)) = asked {
                let mapped = is_accessible(pager, page, access);
                self.parts.findings.check(mapped, "pager", || {
                    format!(
                        "page {} was mapped, and not for the {access:?} asked for",
                        page.0
                    )
                });
            }
        }
    }

    /// Within the budget a fault fails only if the server said so, or the page was discarded.
    fn judge_failure(&mut self, page: u32, kind: ErrorKind) {
        if kind == ErrorKind::Cancelled {
            return;
        }
        self.counts.failed += 1;
        let allowed = matches!(
            kind,
            ErrorKind::Io | ErrorKind::NoSpace | ErrorKind::ReadOnly | ErrorKind::Denied
        );
        self.parts
            .findings
            .check(allowed || self.parts.mode == Mode::Beyond, "S4", || {
                format!("the fault on page {page} failed within the budget: {kind:?}")
            });
    }

    fn wake(&mut self, task: usize, failed: Option<ErrorKind>, now: Micros, trace: &mut Trace) {
        let step = match failed {
            None => self.step(task, now, trace),
            Some(_) => {
                self.tasks[task].give_up();
                Step::After(100)
            }
        };
        self.schedule(task, step, now);
    }

    fn schedule(&mut self, task: usize, step: Step, now: Micros) {
        let swapper = self.tasks[task].swapper;
        match step {
            Step::After(delay) => {
                self.got_on(swapper, now);
                self.runnable.push((task, now + delay));
            }
            Step::Again(delay) => self.runnable.push((task, now + delay)),
            Step::Blocked => {}
            Step::Done => self.got_on(swapper, now),
        }
    }
}
