//! Everything that happens, in the order of virtual time.

use core::net::Ipv4Addr;

use nfs3_types::nfs3::nfsstat3;

use crate::clock::Agenda;
use crate::flood::{self, Target};
use crate::kernel::Kernel;
use crate::mmu::{Mmu, PAGE};
use crate::packet;
use crate::rng::Rng;
use crate::scenario::{FaultKind, File, Micros, Mode, Refusal, SECOND, Scenario, Traffic};
use crate::server::nfs::{Manners, Procedure};
use crate::server::{self, Call, Host};
use crate::stack::fingerprint;
use crate::trace::Trace;
use crate::verdict::Findings;
use crate::weather::Weather;

/// How long nothing may move once all faults are over: connections are given up after two minutes of
/// silence at most, tried again every 2 s, TCP waits a minute at most, and a neighbour that moved is
/// asked for after another.
const PATIENCE: Micros = 240 * SECOND;

/// When a program is stopped to which faults happen for ever.
const LONG_ENOUGH: Micros = 20 * SECOND;

/// How long it may take to put everything away beyond the budget, deadlines of requests apart: each
/// step of it gives up after ten seconds.
const GOODBYE: Micros = 60 * SECOND;

/// WRITEs that one fault puts off.
const ZOMBIES: usize = 4;

/// How soon the second of two activations is undone.
const UNDO: Micros = SECOND / 20;

/// Without progress for so long, the background becomes sparse: it has done what it could.
const STILL: Micros = 2 * SECOND;

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
            Event::ToMachine(card, frame) => {
                self.trace.event(now, 1, card as u64);
                self.trace.packet(now, "  <-", &frame);
                if kernel.swappers[card].port.borrow_mut().arrive(frame) {
                    let delay = self.kernel.range(1, 40);
                    self.plan_kernel(now + delay);
                } else {
                    self.trace
                        .note(now, || "     no buffer: the card lost it".into());
                }
            }
            Event::ToServer(card, frame) => {
                self.trace.event(now, 2, card as u64);
                self.host.arrive(frame);
                self.run_host();
            }
            Event::Sent(card, frame) => {
                self.trace.event(now, 3, card as u64);
                self.trace.packet(now, "->  ", &frame);
                kernel.swappers[card].port.borrow_mut().complete();
                if let Some(tcp) = packet::tcp(&frame) {
                    self.targets[card].connection = (tcp.source.port(), tcp.destination.port());
                }
                self.carry(frame, Event::ToServer, card);
                let delay = self.kernel.range(1, 60);
                self.plan_kernel(now + delay);
            }
            Event::Kernel if self.kernel_due == Some(now) => self.run_kernel(kernel),
            Event::Host if self.host_due == Some(now) => self.run_host(),
            Event::Kernel | Event::Host => {}
            Event::Execute(call) => self.execute(call),
            Event::PowerCut(lasting) => {
                let servers = self.host.servers.iter();
                let lost: usize = servers.map(|server| server.unstable_bytes()).sum();
                self.trace.note(now, || {
                    format!("** the power goes, and {lost} bytes with it")
                });
                self.reboot();
                self.dark = true;
                self.agenda.after(lasting, Event::PowerBack);
            }
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
                // A gigabit a second, or a tenth of it.
                let slow = if self.scenario.seed.is_multiple_of(5) {
                    10
                } else {
                    1
                };
                let took = slow * (1 + frame.len() as Micros / 125);
                let free = self.transmitter[card].max(now) + took;
                self.transmitter[card] = free;
                self.agenda.at(free, Event::Sent(card, frame));
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

    /// S2: what a completed write has written is on the server's stable storage now.
    fn check_stable<M: Mmu>(&mut self, kernel: &Kernel<'_, '_, M>) {
        for (swapper, server) in kernel.swappers.iter().zip(&self.host.servers) {
            for (slot, written) in swapper.ledger.take_written() {
                let stable = server.stable_page(slot, PAGE as u32);
                let lost = swapper.cut || !server.exists();
                let holds = stable.is_some_and(|page| fingerprint(&page) == written);
                self.findings.check(holds || lost, "S2", || {
                    format!("a write completed, and slot {slot} on the server is not stable")
                });
            }
        }
    }

    /// What must be on the server when everything was put away as intended.
    pub(crate) fn check_server(&self, clean: bool) {
        let created = self.scenario.machine.file == File::Missing;
        let removed = created && self.scenario.removes_file() && clean;
        for server in &self.host.servers {
            self.findings.check(!removed || !server.exists(), "S6", || {
                "the swap file was created for this run, and is left on the server".into()
            });
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

    fn begin_script(&mut self) {
        self.origin = Some(self.now());
        for (number, fault) in self.scenario.script.iter().enumerate() {
            self.agenda.after(fault.at, Event::FaultBegins(number));
        }
    }

    fn fault_begins<M: Mmu>(&mut self, number: usize, kernel: &mut Kernel<'_, '_, M>) {
        let now = self.now();
        let fault = self.scenario.script[number];
        self.trace.event(now, 5, number as u64);
        self.trace.note(now, || format!("** {fault}"));
        match fault.kind {
            FaultKind::Garbage => self.garbage = true,
            FaultKind::HangUp => {
                self.host.hang_up();
                self.run_host();
            }
            FaultKind::PowerCut => self.power_cut = Some(fault.lasting),
            FaultKind::Zombie => {
                self.zombies = ZOMBIES;
                self.zombie_for = fault.lasting.min(LONG_ENOUGH);
            }
            FaultKind::Moved => self.host.move_to(number as u8 + 1),
            FaultKind::Truncated => {
                for (server, swapper) in self.host.servers.iter_mut().zip(&mut kernel.swappers) {
                    server.truncate(PAGE as u64);
                    swapper.cut = true;
                }
            }
            FaultKind::Removed => self
                .host
                .servers
                .iter_mut()
                .for_each(|server| server.remove()),
            kind => {
                self.weather.begin(number, fault);
                self.agenda.after(fault.lasting, Event::FaultEnds(number));
                match kind {
                    FaultKind::Reboot => self.reboot(),
                    FaultKind::Flood(..) => self.agenda.after(0, Event::Flood(number)),
                    FaultKind::Raise(packets) => kernel.raise(packets.into()),
                    _ => {}
                }
            }
        }
        self.tell(kernel);
    }

    fn fault_ends<M: Mmu>(&mut self, number: usize, kernel: &mut Kernel<'_, '_, M>) {
        let now = self.now();
        self.trace.event(now, 6, number as u64);
        self.weather.end(number);
        self.trace.note(now, || {
            format!("** over: {}", self.scenario.script[number].kind)
        });
        if !self.weather.stall() {
            for call in core::mem::take(&mut self.stalled) {
                self.agenda.after(1, Event::Execute(call));
            }
        }
        if matches!(self.scenario.script[number].kind, FaultKind::Raise(_)) {
            kernel.end_raise();
        }
        self.tell(kernel);
        self.plan_kernel(now + 1);
    }

    /// Tells the machine which faults of its own are in force.
    fn tell<M: Mmu>(&self, kernel: &Kernel<'_, '_, M>) {
        kernel.parts.truth.set_fails(self.weather.alloc_fails());
        kernel.parts.interrupts.set_rate(self.weather.interrupts());
        for swapper in &kernel.swappers {
            swapper.ledger.set_busy(self.weather.busy());
        }
    }

    fn reboot(&mut self) {
        self.host.reboot();
        self.stalled.clear();
    }

    fn run_host(&mut self) {
        let now = self.now();
        self.host_due = None;
        if self.weather.down() || self.dark {
            while self.host.take_sent().is_some() {}
            self.plan_host(now + SECOND / 100);
            return;
        }
        let mut calls = Vec::new();
        let next = self.host.run(now, &mut calls);
        for call in calls {
            let delay = self.service_time();
            self.agenda.after(delay, Event::Execute(call));
        }
        while let Some(frame) = self.host.take_sent() {
            let to = self.target_of(&frame);
            self.carry(frame, Event::ToMachine, to);
        }
        if let Some(next) = next {
            self.plan_host(next);
        }
    }

    fn plan_host(&mut self, at: Micros) {
        if self.host_due.is_none_or(|due| at < due) {
            self.host_due = Some(at);
            self.agenda.at(at, Event::Host);
        }
    }

    fn service_time(&mut self) -> Micros {
        let slow = Micros::from(self.weather.slow());
        // One call in four finds the disk busy; others overtake it.
        let slow = if self.server.chance(250) {
            self.server.range(0, slow)
        } else {
            0
        };
        self.server.range(20, 200) + slow
    }

    /// Which card a packet of the server is for; a broadcast is for the first.
    fn target_of(&self, frame: &[u8]) -> usize {
        let cards = self.targets.iter();
        let mut cards = cards.map(|target| frame.starts_with(&target.hardware));
        cards.position(|own| own).unwrap_or(0)
    }

    fn execute(&mut self, call: Call) {
        let now = self.now();
        if call.boot != self.host.boot() {
            return;
        }
        if self.weather.stall() {
            self.stalled.push(call);
            return;
        }
        if self.zombies > 0 && call.is_write() {
            self.zombies -= 1;
            self.trace
                .note(now, || "     server: a WRITE is put off".into());
            self.agenda.after(self.zombie_for, Event::Execute(call));
            return;
        }
        let manners = Manners {
            short: self.weather.short(),
            unstable: self.weather.unstable(),
            refuse: self.weather.refusal().map(status),
            promise_more: self.scenario.seed.is_multiple_of(7),
        };
        let times = if self.weather.twice() { 2 } else { 1 };
        let garbage = core::mem::take(&mut self.garbage);
        match self.host.execute(&call, &manners, garbage, times) {
            Ok(done) => {
                if done.procedure == Procedure::Write
                    && let Some(lasting) = self.power_cut.take()
                {
                    // The answer is on its way by then.
                    self.agenda.after(200, Event::PowerCut(lasting));
                }
                self.trace.event(now, 7, u64::from(done.xid));
                self.trace.note(now, || {
                    format!(
                        "     server: {} {:#x} of {} bytes at {}{}",
                        done.procedure,
                        done.xid,
                        done.count,
                        done.offset,
                        if garbage {
                            ", answered with nonsense"
                        } else {
                            ""
                        }
                    )
                });
            }
            Err(why) => self.findings.report("S2", || {
                format!("the client sent a call that makes no sense: {why}")
            }),
        }
        self.run_host();
    }

    /// Carries a packet over the wire between a card and the server, to where `arrival` says.
    fn carry(&mut self, frame: Vec<u8>, arrival: fn(usize, Vec<u8>) -> Event, card: usize) {
        let rng = &mut self.wire;
        if self.weather.partition(card) || rng.chance(self.weather.loss()) {
            let now = self.agenda.now();
            self.trace
                .note(now, || format!("     lost: {}", packet::describe(&frame)));
            return;
        }
        let copies = if rng.chance(self.weather.duplicate()) {
            2
        } else {
            1
        };
        for _ in 0..copies {
            let mut frame = frame.clone();
            let beyond = self.scenario.mode == Mode::Beyond;
            let damaged = frame.len() > packet::ETHERNET && rng.chance(self.weather.corrupt());
            if damaged && (beyond || packet::is_protected(&frame)) {
                let at = rng.range(packet::ETHERNET as u64, frame.len() as u64 - 1);
                frame[at as usize] ^= 1 << rng.below(8);
            }
            let jitter = Micros::from(self.weather.jitter());
            let delay = 60 + rng.range(0, jitter);
            self.agenda.after(delay, arrival(card, frame));
        }
    }

    fn flood(&mut self, number: usize) {
        let FaultKind::Flood(traffic, gap) = self.scenario.script[number].kind else {
            return;
        };
        if !self.weather.is_active(number) {
            return;
        }
        self.send_unrelated(traffic);
        self.agenda.after(gap.max(1).into(), Event::Flood(number));
    }

    fn background<M: Mmu>(&mut self, kernel: &Kernel<'_, '_, M>) {
        let still = self.now() - kernel.still_since() > STILL;
        let gap = self.scenario.program.background * if still { 64 } else { 1 };
        self.send_unrelated(Traffic::Mixed);
        self.agenda.after(gap, Event::Background);
    }

    fn send_unrelated(&mut self, traffic: Traffic) {
        self.unrelated += 1;
        let card = self.flood.index(self.targets.len());
        let target = &self.targets[card];
        let mtu = usize::from(self.scenario.machine.mtu);
        let frame = flood::packet(&mut self.flood, traffic, target, mtu);
        self.agenda.after(1, Event::ToMachine(card, frame));
    }

    /// Looks whether the machine still gets on.
    fn watch<M: Mmu>(&mut self, kernel: &mut Kernel<'_, '_, M>) {
        let now = self.now();
        match self.scenario.mode {
            Mode::Within => {
                let origin = self.origin.unwrap_or(0);
                // What was accepted needs nobody else. What has not begun may wait for memory that
                // belongs to the pages of another.
                let quiet = |swapper: usize| match kernel.swappers[swapper].ledger.oldest() {
                    Some(accepted) => {
                        let quiet = origin + self.scenario.quiet_after(Some(swapper));
                        quiet.max(accepted.as_micros())
                    }
                    None => origin + self.scenario.quiet_after(None),
                };
                if let Some((swapper, since)) = kernel.stuck(quiet)
                    && now.saturating_sub(since) > PATIENCE
                {
                    self.findings.report("liveness", || {
                        let seconds = (now - since) / SECOND;
                        let circle = kernel.circle(now);
                        format!("nothing moved for {seconds} s in area {swapper}: {circle}")
                    });
                }
            }
            Mode::Beyond => {
                if now > LONG_ENOUGH {
                    self.wind_up(kernel);
                }
                let limit = 2 * self.scenario.machine.deadline + GOODBYE;
                if self.winding_up.is_some_and(|since| now - since > limit) {
                    self.findings.report("S4", || {
                        format!("the machine cannot be switched off: {}", kernel.circle(now))
                    });
                }
            }
        }
    }
}

const fn status(refusal: Refusal) -> nfsstat3 {
    match refusal {
        Refusal::Jukebox => nfsstat3::NFS3ERR_JUKEBOX,
        Refusal::Io => nfsstat3::NFS3ERR_IO,
        Refusal::NoSpace => nfsstat3::NFS3ERR_NOSPC,
        Refusal::ReadOnly => nfsstat3::NFS3ERR_ROFS,
        Refusal::Stale => nfsstat3::NFS3ERR_STALE,
        Refusal::ServerFault => nfsstat3::NFS3ERR_SERVERFAULT,
    }
}

/// The address of the card of that number.
pub(crate) const fn card_address(card: usize) -> (Ipv4Addr, [u8; 6]) {
    let last = 15 + card as u8;
    (Ipv4Addr::new(10, 0, 2, last), [2, 0, 10, 0, 2, last])
}

/// What the flood knows of the card of that number.
pub(crate) fn target(card: usize, ports: Vec<u16>) -> Target {
    let (address, hardware) = card_address(card);
    Target {
        hardware,
        address,
        server: server::ADDRESS,
        ports,
        connection: (50_000, 2049),
    }
}
