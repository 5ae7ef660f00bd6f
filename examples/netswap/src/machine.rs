//! The machine: one thread that runs the crates as a kernel would, from boot to rest.

use core::cell::RefCell;
use core::fmt;
use core::sync::atomic::Ordering;
use core::task::Poll;
use core::time::Duration;
use std::io;
use std::os::fd::AsFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant as Clock;

use mempool::Frame;
use netreserve::{DropReason, FlowTable, Ingress, Reserved, SkbPool, SocketTable};
use nfs_swap::transport::smoltcp::SmoltcpTcp;
use nfs_swap::{Stage, SwapFile, SwapFileError};
use swapspace::{
    ActivateError, DeactivateError, ErrorKind, Instant, PagerEvent, PagerStats, StallReason,
};

use crate::heap;
use crate::interrupt::Interrupt;
use crate::live::Live;
use crate::memory::{Memory, SKB_SIZE};
use crate::nic::{Rings, VirtualNic};
use crate::page_table::{Clients, PagerOf};
use crate::program::Control;
use crate::report::{Deadlock, Sample, Timeline};
use crate::via::ViaGateway;
use crate::watchdog::{PATIENCE, Progress, Scene, Stillness, Watchdog};
use crate::wire::Wire;
use crate::wire::event::{Wait, poll};

/// Requests to the server in flight at once.
pub(crate) const REQUESTS: usize = 32;
/// How often the state of the machine is noted.
const SAMPLE_EVERY: Duration = Duration::from_millis(50);
/// How long a run that ended too early may take to put its swap file away.
pub(crate) const GOODBYE: Duration = Duration::from_secs(3);
/// How soon to look again when only memory or the transmit ring can end a wait.
const RETRY: Duration = Duration::from_millis(1);

/// The swap stack, from the network card up.
pub(crate) type Device = Reserved<'static, VirtualNic>;
pub(crate) type Link = ViaGateway<SmoltcpTcp<'static, Device, &'static FlowTable<'static>>>;
pub(crate) type Swap = SwapFile<Frame<'static>, Link, REQUESTS>;

/// What the machine shares with whoever built it.
pub(crate) struct Parts {
    pub(crate) memory: Memory,
    pub(crate) wire: Arc<Wire>,
    pub(crate) rings: Rc<RefCell<Rings>>,
    pub(crate) pool: &'static SkbPool<'static>,
    pub(crate) ingress: &'static Ingress<'static>,
    pub(crate) sockets: &'static SocketTable<'static>,
    pub(crate) control: Arc<Control>,
    pub(crate) interrupt: Interrupt,
    pub(crate) boot: Clock,
    /// How long a request, and a run without progress, may take.
    pub(crate) deadline: Duration,
}

/// A machine with its pager.
pub(crate) struct Machine<C: Clients> {
    pub(crate) parts: Parts,
    pager: PagerOf<Swap, C::Table>,
    clients: C,
    watchdog: Watchdog,
    /// When the program began.
    began: Instant,
    /// Pages have begun to go out.
    swapping: bool,
    /// Failures of the transmit side when something moved last.
    tx_failed_before: u64,
    timeline: Timeline,
    live: Live,
}

/// How running the program ended.
#[derive(Debug)]
pub(crate) enum End {
    /// Every task has ended.
    Done,
    /// Nothing moves, in a circle.
    Deadlock(Deadlock),
    /// The store failed, and why.
    StoreFailed(String),
    /// Somebody wants to end.
    Interrupted,
}

/// What a machine knows at the end.
pub(crate) struct Findings {
    pub(crate) stats: PagerStats,
    pub(crate) latency: [Duration; 3],
    pub(crate) requests_peak: usize,
    pub(crate) timeline: Timeline,
}

impl<C: Clients> Machine<C> {
    pub(crate) fn new(parts: Parts, pager: PagerOf<Swap, C::Table>, clients: C) -> Self {
        let reasons = DropReason::ALL.iter().map(|reason| reason.name()).collect();
        let timeline = Timeline {
            reasons,
            samples: Vec::new(),
        };
        Machine {
            parts,
            pager,
            clients,
            watchdog: Watchdog::new(),
            began: Instant::ZERO,
            swapping: false,
            tx_failed_before: 0,
            timeline,
            live: Live::default(),
        }
    }

    /// Mounts the swap file (`swapon`).
    ///
    /// # Errors
    ///
    /// The server cannot be used, and why; or somebody wants to end. Nothing is left there.
    pub(crate) fn swap_on(&mut self) -> Result<(), MachineError> {
        loop {
            let now = self.now();
            if self.parts.interrupt.came() {
                self.swap_off(GOODBYE)?;
                return Err(MachineError::Interrupted);
            }
            match self.pager.area_mut().activate(now) {
                Poll::Ready(Ok(_)) => return Ok(()),
                Poll::Ready(Err(ActivateError::Space(error))) => return Err(error.into()),
                Poll::Ready(Err(error)) => return Err(MachineError::Misfit(error.to_string())),
                Poll::Pending => self.wait(now)?,
            }
        }
    }

    /// Serves faults until the program has ended or cannot go on. The program may run for
    /// `run_time`, then it is told to wind up.
    ///
    /// # Errors
    ///
    /// The system took back what it granted.
    pub(crate) fn serve(&mut self, run_time: Duration) -> Result<End, MachineError> {
        self.began = self.now();
        loop {
            let now = self.now();
            self.clients.take_up(&mut self.pager, now)?;
            while let Some(event) = heap::on_swap_path(|| self.pager.poll(now)) {
                match event {
                    PagerEvent::Mapped { page, .. } => self.clients.mapped(&mut self.pager, page),
                    PagerEvent::Failed { page, kind } => {
                        return Ok(End::StoreFailed(self.store_failed(page.0, kind)));
                    }
                }
            }
            if !self.swapping && self.pager.stats().writeback > 0 {
                self.swapping = true;
                self.parts.control.swapping.ring();
            }
            if self.parts.control.running.load(Ordering::Acquire) == 0 {
                self.sample();
                return Ok(End::Done);
            }
            if self.parts.interrupt.came() {
                return Ok(End::Interrupted);
            }
            if now.since(self.began) >= run_time {
                self.parts.control.wind_up.store(true, Ordering::Release);
            }
            if let Some(end) = self.sample_and_watch(now) {
                return Ok(end);
            }
            self.wait(now)?;
        }
    }

    /// Gives every frame and slot back and lets go of the swap file (`swapoff`); the file is removed
    /// if it was created for this run. Gives up after `limit`.
    ///
    /// # Errors
    ///
    /// The swap file could not be put away.
    pub(crate) fn swap_off(&mut self, limit: Duration) -> Result<(), MachineError> {
        let end = self.now() + limit;
        loop {
            let now = self.now();
            if self.pager.shutdown(now).is_ready() {
                break;
            }
            if now >= end {
                return Err(MachineError::Left);
            }
            self.wait(now)?;
        }
        loop {
            let now = self.now();
            if now >= end {
                return Err(MachineError::Left);
            }
            match self.pager.area_mut().deactivate(now) {
                Poll::Ready(Ok(())) => return Ok(()),
                Poll::Ready(Err(DeactivateError::Space(error))) => return Err(error.into()),
                Poll::Ready(Err(error)) => return Err(MachineError::Misfit(error.to_string())),
                Poll::Pending => self.wait(now)?,
            }
        }
    }

    /// Switches the machine off: whatever its rings still hold is freed.
    pub(crate) fn power_off(self) -> (Parts, Findings) {
        let latency = self.pager.latency();
        let findings = Findings {
            stats: self.pager.stats(),
            latency: [500, 990, 999].map(|per_mille| latency.quantile(per_mille)),
            requests_peak: self.pager.stats().in_flight_peak,
            timeline: self.timeline,
        };
        (self.parts, findings)
    }

    /// Seconds since the program began.
    fn at(&self) -> f64 {
        self.now().since(self.began).as_secs_f64()
    }

    fn now(&self) -> Instant {
        Instant::ZERO + self.parts.boot.elapsed()
    }

    /// Sleeps until something can have changed.
    fn wait(&self, now: Instant) -> io::Result<()> {
        let mut timeout = self
            .pager
            .next_deadline()
            .map_or(SAMPLE_EVERY, |at| at - now);
        timeout = timeout.min(SAMPLE_EVERY);
        let link = self.pager.area().space().transport().inner();
        if link.device().more_pending() || self.pager.stall(now).is_some() {
            timeout = timeout.min(RETRY);
        }
        let mut waits = vec![
            Wait::readable(self.clients.fd(&self.pager)),
            Wait::readable(self.parts.wire.completion_fd()),
            Wait::readable(self.parts.control.bell.as_fd()),
            Wait::readable(self.parts.interrupt.as_fd()),
        ];
        // Without a buffer in the ring a packet at the card is nothing to wake up for.
        if self.parts.rings.borrow().posted > 0 {
            waits.push(Wait::readable(self.parts.wire.machine_fd()));
        } else {
            timeout = timeout.min(RETRY);
        }
        poll(&mut waits, Some(timeout))
    }

    fn sample_and_watch(&mut self, now: Instant) -> Option<End> {
        let last = self.timeline.samples.last().map_or(0.0, |sample| sample.at);
        if self.at() - last < SAMPLE_EVERY.as_secs_f64() {
            return None;
        }
        self.sample();
        let stats = self.pager.stats();
        let progress = Progress {
            faults_answered: stats.faults_minor + stats.faults_major + stats.faults_zero,
            pages_in: stats.pages_in,
            pages_out: stats.pages_out,
        };
        let wire = self.parts.wire.stats();
        let still = self.watchdog.look(
            progress,
            self.clients.waiting(),
            wire.to_machine.frames,
            wire.from_machine.frames,
        );
        if still.progress < SAMPLE_EVERY {
            self.tx_failed_before = self.parts.pool.stats().tx.failed;
        }
        if still.progress >= PATIENCE
            && let Some(deadlock) = self.scene(still, now).deadlock()
        {
            return Some(End::Deadlock(deadlock));
        }
        let silence = still.progress;
        (silence >= self.parts.deadline.max(PATIENCE))
            .then(|| End::StoreFailed(self.store_silent(silence)))
    }

    fn sample(&mut self) {
        let Parts {
            memory, ingress, ..
        } = &self.parts;
        let stats = self.pager.stats();
        let zone = memory.zone.stats();
        self.timeline.samples.push(Sample {
            at: self.at(),
            free: zone.free as u64,
            reserve: zone.reserve as u64,
            resident: (stats.resident + stats.writeback) as u64,
            emergency: (memory.charged() / SKB_SIZE) as u64,
            drops: ingress
                .stats()
                .dropped
                .iter()
                .map(|(_, count)| count)
                .collect(),
            faults: stats.faults_minor + stats.faults_major + stats.faults_zero,
            pages_in: stats.pages_in,
            pages_out: stats.pages_out,
        });
        self.live
            .show(self.timeline.samples.last().expect("just pushed"));
    }

    fn scene(&self, still: Stillness, now: Instant) -> Scene {
        let Parts {
            memory,
            wire,
            rings,
            pool,
            sockets,
            ..
        } = &self.parts;
        let (stats, stall, rings) = (self.pager.stats(), self.pager.stall(now), *rings.borrow());
        let zone = memory.zone.stats();
        let held = sockets.stats();
        Scene {
            still,
            faults_waiting: self.clients.waiting(),
            waiting_for_frame: stats.waiting,
            resident: stats.resident + stats.writeback,
            dirty: stats.dirty + stats.writeback,
            reads: stall.map_or(0, |stall| stall.reads),
            writes: stall.map_or(stats.in_flight, |stall| stall.writes),
            free: zone.free,
            reserve: zone.reserve,
            rx_posted: rings.posted,
            rx_waiting: wire.waiting_for_machine(),
            tx_refused: pool.stats().tx.failed - self.tx_failed_before,
            sockets: held.waiting,
            socket_skbs: held.queued,
            socket_emergency: held.emergency,
            fullest: held
                .fullest
                .map(|info| (info.protocol.name(), info.port, info.queued)),
            rx_limit: memory.rx.limit() / SKB_SIZE,
            charged: memory.charged() / SKB_SIZE,
            reserve_slabs: memory.skbs.stats().reserve_slabs,
        }
    }

    fn store_failed(&self, page: u32, kind: ErrorKind) -> String {
        let why = match kind {
            ErrorKind::TimedOut | ErrorKind::Unsent => format!(
                "the server did not answer within the deadline of {} s",
                self.parts.deadline.as_secs()
            ),
            ErrorKind::Gone => String::from("the swap file is gone from the server"),
            ErrorKind::NoSpace => String::from("the server has no space left"),
            ErrorKind::ReadOnly => String::from("the export has become read-only"),
            ErrorKind::Denied => String::from("the server denies access to the swap file"),
            kind => format!("the server failed ({kind:?})"),
        };
        format!(
            "page {page} cannot be read: {why}{}; bring the server back and run again",
            self.lost()
        )
    }

    fn store_silent(&self, still: Duration) -> String {
        let reason = self.pager.stall(self.now()).map(|stall| stall.reason);
        let why = match reason {
            Some(StallReason::BackOff) => "the server refuses page-outs",
            _ => "the server does not answer",
        };
        format!(
            "no progress for {} s, which is the deadline: {why}{}; bring it back and run again",
            still.as_secs(),
            self.lost(),
        )
    }

    fn lost(&self) -> String {
        let space = self.pager.area().space();
        space
            .last_loss()
            .map_or_else(String::new, |loss| format!(" ({loss})"))
    }
}

/// Why a machine could not go on.
#[derive(Debug)]
pub(crate) enum MachineError {
    /// The server cannot be used.
    Server(SwapFileError),
    /// The store does not fit this machine.
    Misfit(String),
    /// Somebody wants to end.
    Interrupted,
    /// There was no time to put the swap file away.
    Left,
    /// The system refused.
    System(io::Error),
}

impl MachineError {
    /// Whether a file that was created may still be there: its creation or its removal was asked
    /// for, and not answered.
    pub(crate) fn may_leave_the_file(&self) -> bool {
        let unanswered = |stage| matches!(stage, Stage::Create | Stage::Remove);
        match self {
            MachineError::Server(SwapFileError::TimedOut { stage }) => unanswered(*stage),
            _ => false,
        }
    }
}

impl From<SwapFileError> for MachineError {
    fn from(error: SwapFileError) -> Self {
        MachineError::Server(error)
    }
}

impl From<io::Error> for MachineError {
    fn from(error: io::Error) -> Self {
        MachineError::System(error)
    }
}

impl fmt::Display for MachineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MachineError::Server(error) => error.fmt(f),
            MachineError::Misfit(text) => f.write_str(text),
            MachineError::Interrupted => f.write_str("interrupted before the program ran"),
            MachineError::Left => f.write_str(
                "interrupted, and the server does not answer; remove the swap file there",
            ),
            MachineError::System(error) => write!(f, "the system refused: {error}"),
        }
    }
}

impl core::error::Error for MachineError {}
