//! The machine's kernel: it drives the crates as a kernel would, runs the tasks, and checks every
//! promise after every step.

mod check;
mod task;

use core::task::Poll;
use core::time::Duration;

use mempool::{Budget, Frame, MemallocToken, ReserveNode, Zone};
use netreserve::{FlowTable, Ingress, Reserved, SkbPool, SocketId, SocketTable};
use nfs_swap::transport::smoltcp::SmoltcpTcp;
use nfs_swap::{SwapFile, SwapFileError};
use swapspace::{ActivateError, DeactivateError, ErrorKind, Instant, Page, Pager, PagerEvent};

use self::task::{Step, Task, is_accessible};
use crate::guard::Guard;
use crate::memory::{Drivers, PacketCache, Truth, Watched};
use crate::mmu::Mmu;
use crate::nic::{Card, SharedPort};
use crate::scenario::{File, Machine, Micros, Mode, Program, SECOND};
use crate::stack::{Layer, SharedLedger, Tap};
use crate::trace::Trace;
use crate::verdict::{Counts, Findings};

/// Room for requests; how many may be in flight is the machine's choice.
pub(crate) const REQUESTS: usize = 64;

/// How soon to look again when only memory can end a wait.
const RETRY: Micros = 1_000;

/// So often in a row nobody has a reason to be called again at once.
const SPINS: u32 = 500;

/// How long an administrator waits before the next try to activate.
const ADMINISTRATOR: Micros = SECOND;

pub(crate) type Device<'m> = Guard<Reserved<'m, Card<'m>>>;
pub(crate) type Link<'s, 'm> = Tap<SmoltcpTcp<'s, Device<'m>, &'m FlowTable<'m>>>;
pub(crate) type File3<'s, 'm> = SwapFile<Frame<'m>, Link<'s, 'm>, REQUESTS>;
pub(crate) type PagerOf<'s, 'm, M> = Pager<'s, 'm, Layer<File3<'s, 'm>>, M>;

/// One swap area with all that belongs to it.
pub(crate) struct Swapper<'s, 'm, M> {
    pub(crate) pager: PagerOf<'s, 'm, M>,
    pub(crate) port: SharedPort,
    pub(crate) nodes: [&'m ReserveNode<'m>; 2],
    pub(crate) pool: &'m SkbPool<'m>,
    pub(crate) ingress: &'m Ingress<'m>,
    pub(crate) ledger: SharedLedger,
    /// What each page must hold: 0 for zeros.
    pub(crate) truth: Vec<u64>,
    pub(crate) phase: Phase,
    /// Times in a row that it asked to be called again at once.
    pub(crate) spins: u32,
    /// When it got on last: a fault was answered, a task of its own did something, or it went into
    /// another phase.
    pub(crate) progress: Micros,
    /// There was a VMIO flow when the promises were checked last, and so many allocations of packet
    /// buffers had failed.
    pub(crate) open: bool,
    pub(crate) failed_allocations: u64,
    /// Somebody cut the file.
    pub(crate) cut: bool,
}

/// Where a swapper is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Being activated, not before the given time.
    Activating { not_before: Micros },
    /// In use, with as many activations as are to be undone.
    Active { activations: u32 },
    /// Its pages are being given up.
    ShuttingDown { activations: u32 },
    /// Being deactivated.
    Deactivating { activations: u32 },
    /// Put away; whether as intended.
    Over { clean: bool },
}

/// What all swappers share.
pub(crate) struct Parts<'m> {
    pub(crate) machine: &'m Machine,
    pub(crate) mode: Mode,
    pub(crate) zone: &'m Zone<'m>,
    /// The zone of the packets: the same one, or one of their own.
    pub(crate) packets: &'m Zone<'m>,
    pub(crate) memory: &'m Watched<'m>,
    pub(crate) packet_memory: &'m Watched<'m>,
    pub(crate) truth: &'m Truth,
    pub(crate) token: MemallocToken,
    pub(crate) interrupts: &'m dyn Drivers,
    pub(crate) cache: &'m dyn PacketCache,
    pub(crate) root: &'m ReserveNode<'m>,
    pub(crate) sockets: &'m SocketTable<'m>,
    pub(crate) flows: &'m FlowTable<'m>,
    pub(crate) findings: Findings,
    /// Whether no packet of the swap connection may be dropped: nobody damages packets.
    pub(crate) lossless: bool,
}

/// The kernel and everything above it.
pub(crate) struct Kernel<'s, 'm, M> {
    pub(crate) parts: Parts<'m>,
    pub(crate) swappers: Vec<Swapper<'s, 'm, M>>,
    pub(crate) tasks: Vec<Task<'m>>,
    pub(crate) counts: Counts,
    /// Tasks that can run again, and when.
    pub(crate) runnable: Vec<(usize, Micros)>,
    /// The program has begun.
    started: bool,
    /// So has the traffic in the background.
    pub(crate) background: bool,
    /// The transmit reserve was raised by so many packets.
    raised: Option<usize>,
}

impl<'s, 'm, M: Mmu> Kernel<'s, 'm, M> {
    pub(crate) fn new(
        parts: Parts<'m>,
        swappers: Vec<Swapper<'s, 'm, M>>,
        program: &Program,
        sockets: &[SocketId],
        seed: u64,
    ) -> Self {
        let tasks = program.tasks * swappers.len();
        let tasks = (0..tasks).map(|number| {
            let swapper = number % swappers.len();
            let own = sockets.iter().copied().skip(number).step_by(tasks);
            Task::new(seed, number, swapper, own.collect(), program)
        });
        Kernel {
            tasks: tasks.collect(),
            parts,
            swappers,
            counts: Counts::default(),
            runnable: Vec::new(),
            started: false,
            background: false,
            raised: None,
        }
    }

    /// Lets everything in the kernel move as far as it goes. Returns when it must run again at the
    /// latest.
    pub(crate) fn run(&mut self, now: Micros, trace: &mut Trace) -> Option<Micros> {
        let mut next = None;
        for number in 0..self.swappers.len() {
            let at = self.run_swapper(number, now, trace);
            next = earliest(next, at);
        }
        if !self.started && self.swappers.iter().all(|s| s.phase.is_in_use()) {
            self.started = true;
            (0..self.swappers.len()).for_each(|swapper| self.got_on(swapper, now));
            self.runnable
                .extend((0..self.tasks.len()).map(|task| (task, now)));
        }
        self.lower(now);
        self.parts.interrupts.release_one();
        self.check(now);
        next
    }

    /// Whether the program is through, or was refused its swap space as it must be.
    pub(crate) fn is_done(&self) -> bool {
        let over = |s: &Swapper<'_, '_, _>| matches!(s.phase, Phase::Over { .. });
        self.tasks.iter().all(Task::is_done) || self.swappers.iter().any(over)
    }

    /// Whether everything was put away.
    pub(crate) fn is_over(&self) -> bool {
        let over = |s: &Swapper<'_, '_, _>| matches!(s.phase, Phase::Over { .. });
        self.swappers.iter().all(over)
    }

    /// Whether everything was put away as intended.
    pub(crate) fn is_clean(&self) -> bool {
        let clean = |s: &Swapper<'_, '_, _>| s.phase == Phase::Over { clean: true };
        self.swappers.iter().all(clean)
    }

    /// Whether the program has begun.
    pub(crate) const fn has_started(&self) -> bool {
        self.started
    }

    /// A swapper got on.
    fn got_on(&mut self, swapper: usize, now: Micros) {
        self.swappers[swapper].progress = now;
    }

    /// Since when nothing has moved anywhere.
    pub(crate) fn still_since(&self) -> Micros {
        let progress = self.swappers.iter().map(|swapper| swapper.progress);
        progress.max().unwrap_or(0)
    }

    /// The swapper that has been stuck longest of those that have something to do, and since when:
    /// not since earlier than its faults were over. That another one gets on does not help it.
    pub(crate) fn stuck(&self, quiet: impl Fn(usize) -> Micros) -> Option<(usize, Micros)> {
        let busy = |number: &usize| match self.swappers[*number].phase {
            Phase::Over { .. } => false,
            // Its program has not begun, or is over.
            Phase::Active { .. } => {
                let mut own = self.tasks.iter().filter(|task| task.swapper == *number);
                self.started && own.any(|task| !task.is_done())
            }
            _ => true,
        };
        let busy = (0..self.swappers.len()).filter(busy);
        let since = busy.map(|number| (number, self.swappers[number].progress.max(quiet(number))));
        since.min_by_key(|(_, since)| *since)
    }

    /// The program is over: gives up all pages and lets go of the swap files.
    pub(crate) fn wind_up(&mut self, now: Micros) {
        for task in &mut self.tasks {
            task.end();
        }
        for swapper in &mut self.swappers {
            swapper.progress = now;
            swapper.phase = match swapper.phase {
                Phase::Over { .. } => continue,
                Phase::Activating { .. } => Phase::Deactivating { activations: 1 },
                Phase::Active { activations } => Phase::ShuttingDown { activations },
                phase => phase,
            };
        }
    }

    /// Raises the limit of the first transmit reserve (N4: the reserve grows first, or it fails).
    pub(crate) fn raise(&mut self, packets: usize) {
        if self.raised.is_none() && self.limit_transmit(packets) {
            self.raised = Some(packets);
        }
    }

    /// The raise is over.
    pub(crate) fn end_raise(&mut self) {
        if self.raised.is_some() {
            self.raised = Some(0);
        }
    }

    fn lower(&mut self, _: Micros) {
        // While more is in use than the old limit allows, it is tried again.
        if self.raised == Some(0) && self.limit_transmit(0) {
            self.raised = None;
        }
    }

    fn limit_transmit(&mut self, more: usize) -> bool {
        let (size, order) = self.parts.machine.skb();
        let frames = Budget::objects(more, size, order).frames();
        let limit = self.parts.machine.limits()[1] + more * size;
        let node = self.swappers[0].nodes[1];
        let before = (node.limit(), node.pages());
        let done = node.set_limit(limit, frames).is_ok();
        let after = (node.limit(), node.pages());
        let expected = if done { (limit, frames) } else { before };
        self.parts.findings.check(after == expected, "M5", || {
            format!("a change of limit ended with {after:?} in place of {expected:?}")
        });
        done
    }

    fn run_swapper(&mut self, number: usize, now: Micros, trace: &mut Trace) -> Option<Micros> {
        match self.swappers[number].phase {
            Phase::Activating { not_before } if not_before > now => return Some(not_before),
            Phase::Activating { .. } => self.activate(number, now, trace),
            Phase::Active { .. } => self.serve(number, now, trace),
            Phase::ShuttingDown { activations } => self.shut_down(number, activations, now),
            Phase::Deactivating { .. } => {}
            Phase::Over { .. } => return None,
        }
        if let Phase::Deactivating { activations } = self.swappers[number].phase {
            self.deactivate(number, activations, now, trace);
        }
        let swapper = &mut self.swappers[number];
        let deadline = swapper.pager.next_deadline().map(Instant::as_micros);
        // To be called again at once is all right for a while: there is a bound on what one call does.
        let again = deadline.is_some_and(|at| at <= now);
        swapper.spins = if again { swapper.spins + 1 } else { 0 };
        let (spins, phase) = (swapper.spins, swapper.phase);
        self.parts.findings.check(spins < SPINS, "spin", || {
            format!("{spins} times in a row the next deadline had passed already, while {phase:?}")
        });
        let device = swapper
            .pager
            .area()
            .space()
            .inner
            .transport()
            .inner
            .device();
        let device = &device.inner;
        let port = swapper.port.borrow();
        let starved = port.waiting() > 0 && port.posted() < self.parts.machine.rings[0];
        let retry = device.more_pending() || starved || swapper.pager.stall(time(now)).is_some();
        let next = earliest(deadline, retry.then_some(now + RETRY));
        match swapper.phase {
            Phase::Activating { not_before } if not_before > now => Some(not_before),
            Phase::Over { .. } => None,
            _ => next.map(|at| at.max(now + 1)),
        }
    }

    /// Runs `work` as the swap path runs: in a memalloc scope, if the machine is made so.
    fn on_swap_path<T>(&mut self, work: impl FnOnce(&mut Self) -> T) -> T {
        let (zone, token) = (self.parts.zone, self.parts.token);
        let scope = self.parts.machine.scope.then(|| zone.memalloc(&token));
        self.parts.truth.set_scope(scope.is_some());
        let result = work(self);
        self.parts.truth.set_scope(false);
        drop(scope);
        result
    }

    fn activate(&mut self, number: usize, now: Micros, trace: &mut Trace) {
        let result = self.on_swap_path(|kernel| {
            let pager = &mut kernel.swappers[number].pager;
            pager.area_mut().activate(time(now))
        });
        let (file, nested) = (self.parts.machine.file, self.parts.machine.nested);
        let bad = matches!(file, File::Short | File::Holes);
        let phase = match result {
            Poll::Pending => return,
            Poll::Ready(Ok(_)) => {
                self.parts.findings.check(!bad, "S6", || {
                    format!("a swap file that is {file:?} was accepted")
                });
                trace.note(now, || format!("swap area {number} is active"));
                if nested && self.activate_again(number, now) {
                    Phase::Active { activations: 2 }
                } else {
                    Phase::Active { activations: 1 }
                }
            }
            Poll::Ready(Err(ActivateError::Space(error))) => {
                trace.note(now, || format!("swap area {number} is refused: {error}"));
                let named = matches!(
                    error,
                    SwapFileError::TooSmall { .. } | SwapFileError::Holes { .. }
                );
                if bad && named {
                    Phase::Over { clean: true }
                } else {
                    let not_before = now + ADMINISTRATOR;
                    Phase::Activating { not_before }
                }
            }
            Poll::Ready(Err(error)) => {
                self.parts.findings.report("S6", || {
                    format!("an activation failed for a reason of the machine's own: {error}")
                });
                Phase::Over { clean: false }
            }
        };
        self.swappers[number].phase = phase;
    }

    /// An area that is active says so at once.
    fn activate_again(&mut self, number: usize, now: Micros) -> bool {
        let area = self.swappers[number].pager.area_mut();
        let again = matches!(area.activate(time(now)), Poll::Ready(Ok(_)));
        self.parts.findings.check(again, "S6", || {
            "an active area cannot be activated a second time".into()
        });
        again
    }

    /// Somebody is done with one of two activations, while the other is in use; or tries to take away
    /// an area that pages are in.
    pub(crate) fn undo_one_activation(&mut self, now: Micros) {
        for swapper in &mut self.swappers {
            let Phase::Active { activations } = swapper.phase else {
                continue;
            };
            let used = swapper.pager.area().stats().used;
            if activations == 1 && used == 0 {
                continue;
            }
            let area = swapper.pager.area_mut();
            let result = area.deactivate(time(now));
            let active = area.geometry().is_some();
            let right = match activations {
                1 => matches!(result, Poll::Ready(Err(DeactivateError::InUse { .. }))),
                _ => matches!(result, Poll::Ready(Ok(()))),
            };
            self.parts.findings.check(right && active, "S6", || {
                format!(
                    "one of {activations} activations was undone while {used} slots hold pages: \
                     {result:?}, active {active}"
                )
            });
            swapper.phase = Phase::Active { activations: 1 };
        }
    }

    fn serve(&mut self, number: usize, now: Micros, trace: &mut Trace) {
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

    /// A task goes on.
    pub(crate) fn run_task(&mut self, task: usize, now: Micros, trace: &mut Trace) {
        let step = self.step(task, now, trace);
        self.schedule(task, step, now);
        self.check(now);
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

    fn shut_down(&mut self, number: usize, activations: u32, now: Micros) {
        let done = self.on_swap_path(|kernel| {
            let pager = &mut kernel.swappers[number].pager;
            pager.shutdown(time(now)).is_ready()
        });
        if done {
            let swapper = &mut self.swappers[number];
            swapper.progress = now;
            let used = swapper.pager.area().stats().used;
            self.parts.findings.check(used == 0, "S1", || {
                format!("{used} slots are in use though no page is")
            });
            swapper.phase = Phase::Deactivating { activations };
        }
    }

    fn deactivate(&mut self, number: usize, activations: u32, now: Micros, trace: &mut Trace) {
        let result = self.on_swap_path(|kernel| {
            let pager = &mut kernel.swappers[number].pager;
            // Completions may still be due: an activation that is given up has none.
            pager.area_mut().deactivate(time(now))
        });
        let clean = match result {
            Poll::Pending => return,
            Poll::Ready(Ok(()) | Err(DeactivateError::Inactive)) => true,
            Poll::Ready(Err(error)) => {
                trace.note(now, || {
                    format!("swap area {number} could not be put away: {error}")
                });
                let space = matches!(error, DeactivateError::Space(_));
                self.parts.findings.check(space, "S6", || {
                    format!("deactivation failed for a reason of the machine's own: {error}")
                });
                false
            }
        };
        self.got_on(number, now);
        self.swappers[number].phase = match activations {
            // Each activation is undone by itself.
            2.. => Phase::Deactivating {
                activations: activations - 1,
            },
            _ => Phase::Over { clean },
        };
        if activations > 1 {
            self.deactivate(number, activations - 1, now, trace);
        }
    }
}

impl Phase {
    const fn is_in_use(self) -> bool {
        matches!(self, Phase::Active { .. })
    }
}

/// The crates' time.
pub(crate) const fn time(now: Micros) -> Instant {
    Instant::from_micros(now)
}

pub(crate) fn earliest(a: Option<Micros>, b: Option<Micros>) -> Option<Micros> {
    a.into_iter().chain(b).min()
}

/// The crates' durations.
pub(crate) const fn span(micros: Micros) -> Duration {
    Duration::from_micros(micros)
}
