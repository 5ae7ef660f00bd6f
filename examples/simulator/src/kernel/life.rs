//! The life of a swap area: it is activated, sometimes twice, used, and put away.

use core::task::Poll;

use nfs_swap::SwapFileError;
use swapspace::{ActivateError, DeactivateError};

use super::{Kernel, time};
use crate::mmu::Mmu;
use crate::scenario::{File, Micros, SECOND};
use crate::trace::Trace;

/// How long an administrator waits before the next try to activate.
const ADMINISTRATOR: Micros = SECOND;

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

impl Phase {
    pub(super) const fn is_in_use(self) -> bool {
        matches!(self, Phase::Active { .. })
    }
}

impl<M: Mmu> Kernel<'_, '_, M> {
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

    pub(super) fn activate(&mut self, number: usize, now: Micros, trace: &mut Trace) {
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

    pub(super) fn shut_down(&mut self, number: usize, activations: u32, now: Micros) {
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

    pub(super) fn deactivate(
        &mut self,
        number: usize,
        activations: u32,
        now: Micros,
        trace: &mut Trace,
    ) {
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
