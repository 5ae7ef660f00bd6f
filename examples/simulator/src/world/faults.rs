//! The script: how a fault begins, what it does at once, and how it ends.

use super::{Event, LONG_ENOUGH, World};
use crate::kernel::Kernel;
use crate::mmu::{Mmu, PAGE};
use crate::scenario::{FaultKind, Micros};

/// WRITEs that one fault puts off.
const ZOMBIES: usize = 4;

impl World<'_> {
    pub(super) fn begin_script(&mut self) {
        self.origin = Some(self.now());
        for (number, fault) in self.scenario.script.iter().enumerate() {
            self.agenda.after(fault.at, Event::FaultBegins(number));
        }
    }

    pub(super) fn fault_begins<M: Mmu>(&mut self, number: usize, kernel: &mut Kernel<'_, '_, M>) {
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

    pub(super) fn fault_ends<M: Mmu>(&mut self, number: usize, kernel: &mut Kernel<'_, '_, M>) {
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

    /// The power goes, for so long.
    pub(super) fn power_goes(&mut self, lasting: Micros) {
        let servers = self.host.servers.iter();
        let lost: usize = servers.map(|server| server.unstable_bytes()).sum();
        self.trace.note(self.agenda.now(), || {
            format!("** the power goes, and {lost} bytes with it")
        });
        self.reboot();
        self.dark = true;
        self.agenda.after(lasting, Event::PowerBack);
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
}
