//! Everything that happens, in the order of virtual time.

mod faults;
mod host;
mod modem;
mod watch;
mod wire;

use crate::clock::Agenda;
use crate::flood::Target;
use crate::kernel::Kernel;
use crate::mmu::Mmu;
use crate::rng::Rng;
use crate::scenario::{Micros, SECOND, Scenario};
use crate::server::{Call, Host};
use crate::trace::Trace;
use crate::verdict::Findings;
use crate::weather::Weather;

pub(crate) use self::wire::{card_address, target};

/// When a program is stopped to which faults happen for ever.
const LONG_ENOUGH: Micros = 20 * SECOND;

/// How soon the second of two activations is undone.
const UNDO: Micros = SECOND / 20;

/// Streams of the seed.
const WIRE: u64 = 10;
const SERVER: u64 = 11;
const FLOOD: u64 = 12;
const KERNEL: u64 = 13;

#[derive(Debug)]
enum Event {
    FaultBegins(usize),
    FaultEnds(usize),
    /// A packet reaches the machine's card of that number.
    ToMachine(usize, Vec<u8>),
    /// One from the card of that number reaches the server.
    ToServer(usize, Vec<u8>),
    /// The card has sent a packet.
    Sent(usize, Vec<u8>),
    Kernel,
    Host,
    Execute(Call),
    PowerCut(Micros),
    PowerBack,
    Task(usize),
    /// The next packet of the flood with that number in the script.
    Flood(usize),
    Background,
    UndoActivation,
}

/// The machine's surroundings.
pub(crate) struct World<'a> {
    scenario: &'a Scenario,
    agenda: Agenda<Event>,
    weather: Weather,
    host: Host,
    /// One for each card of the machine.
    targets: Vec<Target>,
    wire: Rng,
    server: Rng,
    flood: Rng,
    kernel: Rng,
    /// When the kernel and the host are to run next: other events of theirs are stale.
    kernel_due: Option<Micros>,
    host_due: Option<Micros>,
    /// When each card's transmitter is free again.
    transmitter: Vec<Micros>,
    /// Calls that a server that stalls has read.
    stalled: Vec<Call>,
    garbage: bool,
    /// The power goes when the next WRITE has been answered, for so long.
    power_cut: Option<Micros>,
    /// It is gone.
    dark: bool,
    /// WRITEs that are still to be put off, and for how long.
    zombies: usize,
    zombie_for: Micros,
    /// When the script began.
    origin: Option<Micros>,
    /// Everything is being put away since then.
    winding_up: Option<Micros>,
    findings: Findings,
    pub(crate) trace: Trace,
    pub(crate) unrelated: u64,
}

impl<'a> World<'a> {
    pub(crate) fn new(
        scenario: &'a Scenario,
        host: Host,
        targets: Vec<Target>,
        findings: Findings,
        trace: Trace,
    ) -> Self {
        let rng = |stream| Rng::new(scenario.seed, stream);
        World {
            agenda: Agenda::new(),
            weather: Weather::default(),
            host,
            transmitter: vec![0; targets.len()],
            targets,
            wire: rng(WIRE),
            server: rng(SERVER),
            flood: rng(FLOOD),
            kernel: rng(KERNEL),
            kernel_due: None,
            host_due: None,
            stalled: Vec::new(),
            garbage: false,
            power_cut: None,
            dark: false,
            zombies: 0,
            zombie_for: 0,
            origin: None,
            winding_up: None,
            findings,
            trace,
            unrelated: 0,
            scenario,
        }
    }

    pub(crate) const fn now(&self) -> Micros {
        self.agenda.now()
    }

    /// Lets everything happen until the machine is off, or a promise is broken.
    pub(crate) fn run<M: Mmu>(&mut self, kernel: &mut Kernel<'_, '_, M>) {
        if self.scenario.program.early {
            self.begin_script();
        }
        self.run_kernel(kernel);
        while self.findings.is_empty() && !kernel.is_over() {
            let Some(event) = self.agenda.next() else {
                self.findings
                    .report("liveness", || "nothing will ever happen again".into());
                break;
            };
            self.happen(event, kernel);
            self.watch(kernel);
        }
    }

    fn happen<M: Mmu>(&mut self, event: Event, kernel: &mut Kernel<'_, '_, M>) {
        let now = self.now();
        match event {
            Event::FaultBegins(number) => self.fault_begins(number, kernel),
            Event::FaultEnds(number) => self.fault_ends(number, kernel),
            Event::ToMachine(card, frame) => self.reach_machine(card, frame, kernel),
            Event::ToServer(card, frame) => self.reach_server(card, frame),
            Event::Sent(card, frame) => self.sent(card, frame, kernel),
            Event::Kernel if self.kernel_due == Some(now) => self.run_kernel(kernel),
            Event::Host if self.host_due == Some(now) => self.run_host(),
            Event::Kernel | Event::Host => {}
            Event::Execute(call) => self.execute(call),
            Event::PowerCut(lasting) => self.power_goes(lasting),
            Event::PowerBack => self.dark = false,
            Event::Task(task) => {
                self.trace.event(now, 4, task as u64);
                kernel.run_task(task, now, &mut self.trace);
                self.run_kernel(kernel);
            }
            Event::Flood(number) => self.flood(number),
            Event::Background => self.background(kernel),
            Event::UndoActivation => kernel.undo_one_activation(now),
        }
    }

    fn run_kernel<M: Mmu>(&mut self, kernel: &mut Kernel<'_, '_, M>) {
        let now = self.now();
        self.kernel_due = None;
        let next = kernel.run(now, &mut self.trace);
        self.check_stable(kernel);
        for card in 0..kernel.swappers.len() {
            while let Some(frame) = { kernel.swappers[card].port.borrow_mut().take_sent() } {
                let frame = self.encapsulate(card, frame);
                self.transmit(card, frame);
            }
        }
        for (task, at) in core::mem::take(&mut kernel.runnable) {
            self.agenda.at(at, Event::Task(task));
        }
        if let Some(next) = next {
            self.plan_kernel(next);
        }
        if kernel.has_started() && self.origin.is_none() {
            self.begin_script();
        }
        if kernel.has_started() && !kernel.background {
            kernel.background = true;
            if self.scenario.program.background > 0 {
                self.agenda.after(1, Event::Background);
            }
            self.agenda.after(UNDO, Event::UndoActivation);
        }
        if kernel.is_done() {
            self.wind_up(kernel);
        }
    }

    fn wind_up<M: Mmu>(&mut self, kernel: &mut Kernel<'_, '_, M>) {
        if self.winding_up.is_none() {
            self.winding_up = Some(self.now());
            self.trace
                .note(self.agenda.now(), || "everything is put away".into());
            kernel.wind_up(self.now());
            self.plan_kernel(self.now() + 1);
        }
    }

    fn plan_kernel(&mut self, at: Micros) {
        if self.kernel_due.is_none_or(|due| at < due) {
            self.kernel_due = Some(at);
            self.agenda.at(at, Event::Kernel);
        }
    }
}
