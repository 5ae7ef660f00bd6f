//! The reduced system: the machine, the server and the wire between them, moved one step at a time.

mod kernel;
mod life;
mod observe;

use std::collections::VecDeque;

use mempool::{Frame, MemallocToken, ReserveNode, Zone};
use netreserve::{FlowTable, Ingress, Reserved, SocketId, SocketTable};
use nfs_swap::SwapFile;
use nfs_swap::transport::smoltcp::SmoltcpTcp;
use swapspace::{ExplicitTable, Pager};

use super::Setup;
use super::build::STRANGE_PORT;
use super::card::{Card, SharedPort};
use super::choice::Choice;
use super::digest::chain;
use super::endpoint::Endpoint;
use crate::Mechanism;
use crate::flood;
use crate::guard::Guard;
use crate::kernel::earliest;
use crate::memory::{PacketCache, Watched};
use crate::rng::Rng;
use crate::scenario::{Micros, SECOND, Traffic};
use crate::server::nfs::Manners;
use crate::server::{Call, Host};
use crate::stack::{Layer, Tap};
use crate::verdict::Findings;
use crate::world;

type Device<'m> = Guard<Reserved<'m, Card<'m>>>;
type Link<'s, 'm> = Tap<SmoltcpTcp<'s, Device<'m>, &'m FlowTable<'m>>>;
type Space<'s, 'm> = Layer<SwapFile<Frame<'m>, Link<'s, 'm>, 1>>;

/// How long a page-out may take, in virtual time, when nothing goes wrong any more.
pub(super) const PATIENCE: Micros = 300 * SECOND;

/// Steps after which a schedule without a goal counts as one that has none.
pub(super) const STEPS: usize = 20_000;

/// What the system does not own.
pub(super) struct Parts<'m> {
    pub(super) zone: &'m Zone<'m>,
    pub(super) memory: &'m Watched<'m>,
    pub(super) cache: &'m dyn PacketCache,
    pub(super) token: MemallocToken,
    pub(super) nodes: &'m [ReserveNode<'m>; 2],
    pub(super) sockets: &'m SocketTable<'m>,
    /// Where strangers send to.
    pub(super) stranger: SocketId,
    pub(super) ladder: &'m Ingress<'m>,
    pub(super) findings: Findings,
}

/// What the kernel is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Phase {
    Activating,
    Active,
    ShuttingDown,
    Deactivating,
    Over,
}

pub(super) struct System<'s, 'm> {
    parts: Parts<'m>,
    pager: Pager<'s, 'm, Space<'s, 'm>, ExplicitTable>,
    phase: Phase,
    port: SharedPort,
    host: Host,
    now: Micros,
    to_machine: VecDeque<Vec<u8>>,
    to_server: VecDeque<Vec<u8>>,
    /// Calls that the server has read, and their names.
    calls: VecDeque<(Call, u64)>,
    /// The connection as the server sees it.
    peer: Endpoint,
    /// Everything that the server has executed and forgotten: what determines its disk.
    executed: u64,
    /// Something has happened that the kernel has not seen.
    kernel_due: bool,
    kernel_next: Option<Micros>,
    /// How often in a row the kernel could do nothing.
    idle: u8,
    host_next: Option<Micros>,
    /// Somebody takes every frame that is to be had, and these are what he has.
    hog: Option<Vec<Frame<'m>>>,
    /// Faults that may still happen: losses, strangers, reboots, timers that go off early.
    left: [u8; 4],
    mapped: Vec<u32>,
    missing: usize,
    /// Orders that make no difference are left out.
    reduce: bool,
    /// The slabs do not behave as they should, and are not looked into.
    odd_slabs: bool,
    /// Sockets take packets of the reserve.
    odd_sockets: bool,
}

impl<'s, 'm> System<'s, 'm> {
    pub(super) fn new(
        setup: &Setup,
        parts: Parts<'m>,
        pager: Pager<'s, 'm, Space<'s, 'm>, ExplicitTable>,
        port: SharedPort,
        host: Host,
    ) -> Self {
        System {
            parts,
            pager,
            phase: Phase::Activating,
            port,
            host,
            now: 0,
            to_machine: VecDeque::new(),
            to_server: VecDeque::new(),
            calls: VecDeque::new(),
            peer: Endpoint::default(),
            executed: 0,
            kernel_due: true,
            kernel_next: None,
            idle: 0,
            host_next: None,
            hog: None,
            left: [setup.losses, setup.foreign, setup.reboots, setup.early],
            mapped: Vec::new(),
            missing: setup.missing,
            reduce: setup.reduce && setup.early == 0,
            odd_slabs: matches!(setup.without, Some(Mechanism::Mempool(_))),
            odd_sockets: matches!(setup.without, Some(Mechanism::Netreserve(_))),
        }
    }

    pub(super) const fn now(&self) -> Micros {
        self.now
    }

    /// Whether the page is out.
    pub(super) fn is_goal(&self) -> bool {
        self.pager.stats().pages_out > 0
    }

    /// The next step of the one schedule in which everybody moves as soon as he can, and nothing
    /// goes wrong. Whether there was one.
    pub(super) fn go_on(&mut self) -> bool {
        let choice = self.enabled().next().filter(|choice| !choice.is_fault());
        if let Some(choice) = choice {
            self.step(choice);
        }
        choice.is_some()
    }

    /// Whoever can move without time passing; in a fixed order.
    fn moves(&self) -> impl Iterator<Item = Choice> + use<'s, 'm> {
        let enabled = [
            (Choice::ToServer, !self.to_server.is_empty()),
            (Choice::Execute, !self.calls.is_empty()),
            (Choice::Sent, !self.port.borrow().sending.is_empty()),
            (Choice::ToMachine, !self.to_machine.is_empty()),
            (Choice::Kernel, self.kernel_due),
            (
                Choice::Meanwhile,
                self.kernel_due && !self.port.borrow().sending.is_empty(),
            ),
        ];
        enabled
            .into_iter()
            .filter(|(_, enabled)| *enabled)
            .map(|(choice, _)| choice)
    }

    /// Everything that can happen next, faults last.
    pub(super) fn enabled(&self) -> impl Iterator<Item = Choice> + use<'s, 'm> {
        let rest = self.moves().next().is_none();
        let timer = earliest(self.kernel_next, self.host_next).is_some();
        let [losses, foreign, reboots, early] = self.left.map(|left| left > 0);
        let others = [
            (Choice::Time, rest && timer),
            (Choice::Early, !rest && timer && early),
            (Choice::LoseToServer, losses && !self.to_server.is_empty()),
            (Choice::LoseToMachine, losses && !self.to_machine.is_empty()),
            (Choice::Foreign, foreign),
            (Choice::Reboot, reboots),
        ];
        let others = others.into_iter().filter(|(_, enabled)| *enabled);
        self.moves().chain(others.map(|(choice, _)| choice))
    }

    /// What of it must be followed so that nothing is missed. The module's documentation says why.
    pub(super) fn relevant(&self) -> Vec<Choice> {
        let mut enabled: Vec<_> = self.enabled().collect();
        if self.reduce && !self.to_server.is_empty() {
            enabled.retain(|choice| choice.is_of_server());
        }
        enabled
    }

    /// Does one step, which is enabled.
    pub(super) fn step(&mut self, choice: Choice) {
        match choice {
            Choice::ToServer => {
                let frame = self.to_server.pop_front().expect("enabled");
                self.peer.received(&frame, self.now);
                self.host.arrive(frame);
                self.run_host();
            }
            Choice::Execute => {
                let (call, name) = self.calls.pop_front().expect("enabled");
                self.executed = chain(self.executed, name);
                let done = self.host.execute(&call, &Manners::default(), false, 1);
                self.parts.findings.check(done.is_ok(), "S2", || {
                    format!("the client sent a call that makes no sense: {done:?}")
                });
                self.run_host();
            }
            Choice::Sent => {
                let frame = self.port.borrow_mut().take_sent().expect("enabled");
                self.to_server.push_back(frame);
                self.kernel_due = true;
            }
            Choice::ToMachine => {
                let frame = self.to_machine.pop_front().expect("enabled");
                self.kernel_due |= self.port.borrow_mut().arrive(frame);
            }
            Choice::Kernel => self.run_kernel(),
            Choice::Meanwhile => {
                self.port.borrow_mut().meanwhile = true;
                self.run_kernel();
                let mut port = self.port.borrow_mut();
                port.meanwhile = false;
                self.to_server.extend(port.carried.take());
            }
            Choice::Time | Choice::Early => {
                let next = earliest(self.kernel_next, self.host_next).expect("enabled");
                self.left[3] -= u8::from(choice == Choice::Early);
                self.now = self.now.max(next);
                self.port.borrow_mut().now = self.now;
                self.kernel_due |= self.kernel_next.is_some_and(|at| at <= self.now);
                if self.host_next.is_some_and(|at| at <= self.now) {
                    self.run_host();
                }
            }
            Choice::LoseToServer => {
                self.left[0] -= 1;
                self.to_server.pop_front();
            }
            Choice::LoseToMachine => {
                self.left[0] -= 1;
                self.to_machine.pop_front();
            }
            Choice::Foreign => {
                self.left[1] -= 1;
                self.kernel_due |= self.port.borrow_mut().arrive(strange_packet());
            }
            Choice::Reboot => {
                self.left[2] -= 1;
                self.host.reboot();
                self.calls.clear();
                self.executed = chain(self.executed, "reboot");
                self.peer = Endpoint::default();
                self.host_next = None;
                self.run_host();
            }
        }
    }

    fn run_host(&mut self) {
        let mut calls = Vec::new();
        self.host_next = self.host.run(self.now, &mut calls);
        while let Some(frame) = self.host.take_sent() {
            self.peer.sent(&frame, self.now);
            self.to_machine.push_back(frame);
        }
        for (number, call) in calls.into_iter().enumerate() {
            let name = chain(call.boot, (self.peer.position(), number));
            self.calls.push_back((call, name));
        }
    }

    fn device(&self) -> &Device<'m> {
        self.pager.area().space().inner.transport().inner.device()
    }
}

/// What a stranger sends: to a socket whose owner waits for the page.
fn strange_packet() -> Vec<u8> {
    let target = world::target(0, vec![STRANGE_PORT]);
    flood::packet(&mut Rng::new(3, 0), Traffic::Udp, &target, 1500)
}
