//! What the surroundings see of the promises: what is on the server, and whether the machine gets on.

use super::{LONG_ENOUGH, World};
use crate::kernel::Kernel;
use crate::mmu::{Mmu, PAGE};
use crate::scenario::{File, Micros, Mode, SECOND};
use crate::stack::fingerprint;

/// How long nothing may move once all faults are over: connections are given up after two minutes of
/// silence at most, tried again every 2 s, TCP waits a minute at most, and a neighbour that moved is
/// asked for after another.
const PATIENCE: Micros = 240 * SECOND;

/// How long it may take to put everything away beyond the budget, deadlines of requests apart: each
/// step of it gives up after ten seconds.
const GOODBYE: Micros = 60 * SECOND;

impl World<'_> {
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

    /// S2: what a completed write has written is on the server's stable storage now.
    pub(super) fn check_stable<M: Mmu>(&mut self, kernel: &Kernel<'_, '_, M>) {
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

    /// Looks whether the machine still gets on.
    pub(super) fn watch<M: Mmu>(&mut self, kernel: &mut Kernel<'_, '_, M>) {
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
                // Requests that fail and are made again are always young.
                let after_all = |_| origin + self.scenario.quiet_after(None);
                let late = |stuck: Option<(usize, Micros)>, patience| {
                    stuck.filter(|(_, since)| now.saturating_sub(*since) > patience)
                };
                let stuck = late(kernel.stuck(quiet), PATIENCE)
                    .or_else(|| late(kernel.stuck(after_all), 2 * PATIENCE));
                if let Some((swapper, since)) = stuck {
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
