//! The machine's kernel: it drives the crates as a kernel would, runs the tasks, and checks every
//! promise after every step.

mod check;
mod life;
mod raise;
mod serve;
mod task;

use core::time::Duration;

use mempool::{Frame, MemallocToken, ReserveNode, Zone};
use netreserve::{FlowTable, Ingress, Reserved, SkbPool, SocketId, SocketTable};
use nfs_swap::SwapFile;
use nfs_swap::transport::smoltcp::SmoltcpTcp;
use swapspace::{Instant, Pager};

pub(crate) use self::life::Phase;
use self::task::Task;
use crate::disk::Actor;
use crate::guard::Guard;
use crate::memory::{Drivers, PacketCache, Truth, Watched};
use crate::mmu::Mmu;
use crate::nic::{Card, SharedPort};
use crate::scenario::{Machine, Micros, Mode, Program};
use crate::stack::{Layer, SharedLedger, Tap};
use crate::trace::Trace;
use crate::verdict::{Counts, Findings};

/// Room for requests; how many may be in flight is the machine's choice.
pub(crate) const REQUESTS: usize = 64;

/// How soon to look again when only memory can end a wait.
const RETRY: Micros = 1_000;

/// So often in a row nobody has a reason to be called again at once.
const SPINS: u32 = 500;

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
    pub(crate) disk: &'m dyn Actor,
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
        self.lower();
        self.parts.interrupts.release_one();
        self.parts.disk.step();
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

    /// A swapper got on.
    fn got_on(&mut self, swapper: usize, now: Micros) {
        self.swappers[swapper].progress = now;
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
