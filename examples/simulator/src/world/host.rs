//! The server: when it runs, and what becomes of the calls that it has read.

use nfs3_types::nfs3::nfsstat3;

use super::{Event, World};
use crate::scenario::{Micros, Refusal, SECOND};
use crate::server::Call;
use crate::server::nfs::{Manners, Procedure};

impl World<'_> {
    pub(super) fn run_host(&mut self) {
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
            self.answer(frame);
        }
        if let Some(next) = next {
            self.plan_host(next);
        }
    }

    pub(super) fn execute(&mut self, call: Call) {
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
            if self.zombies == 0 {
                self.host.hang_up();
                self.run_host();
            }
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
