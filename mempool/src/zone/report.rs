//! What a zone tells the log, and how often. Nothing here is called with the zone's lock held, but
//! for [`Report::taken`], which only keeps count.

use lock_api::RawMutex;

use super::Zone;
use crate::event::{EVENTS, loud};
use crate::{__event, Gfp, Level};

/// Counts of what may be told, under the zone's lock.
#[derive(Default)]
pub(super) struct Report {
    /// Allocations that failed and were not `NOWARN`.
    failures: u64,
    /// Times that the reserve came into use.
    dips: u64,
    /// It did, and was not found whole since.
    dipped: bool,
}

/// The reserve came into use, or is whole again, for the nth time.
#[derive(Clone, Copy)]
pub(super) enum Dip {
    Into(u64),
    OutOf(u64),
}

impl Report {
    /// Frames were taken while `in_use` of the reserve were.
    ///
    /// That the reserve is whole is noted by the next allocation, not when its last frame comes back: a
    /// frame may be freed under a lock of somebody else's, and then nothing can be told.
    pub(super) fn taken(&mut self, from_reserve: bool, in_use: usize) -> Option<Dip> {
        if in_use > 0 || from_reserve == self.dipped {
            return None;
        }
        self.dipped = from_reserve;
        Some(if from_reserve {
            self.dips += 1;
            Dip::Into(self.dips)
        } else {
            Dip::OutOf(self.dips)
        })
    }
}

impl<R: RawMutex> Zone<'_, R> {
    #[inline]
    pub(super) fn tell_dip(&self, dip: Option<Dip>) {
        if EVENTS && let Some(dip) = dip {
            self.dip(dip);
        }
    }

    #[cold]
    fn dip(&self, dip: Dip) {
        match dip {
            Dip::Into(nth) if loud(nth) => __event!(
                debug,
                "zone: into the reserve of {} frames ({} times so far)",
                self.books.reserve.get(),
                nth
            ),
            Dip::OutOf(nth) if loud(nth) => __event!(
                debug,
                "zone: the reserve of {} frames is whole again ({} times so far)",
                self.books.reserve.get(),
                nth
            ),
            Dip::Into(_) | Dip::OutOf(_) => {}
        }
    }

    /// An allocation failed, whatever was done for it.
    #[inline]
    pub(super) fn tell_failure(&self, order: u8, gfp: Gfp, entitled: bool, level: Level) {
        if EVENTS && !gfp.contains(Gfp::NOWARN) {
            self.failure(order, gfp, entitled, level);
        }
    }

    #[cold]
    fn failure(&self, order: u8, gfp: Gfp, entitled: bool, level: Level) {
        let nth = {
            let mut state = self.state.lock();
            state.report.failures += 1;
            state.report.failures
        };
        if loud(nth) {
            __event!(
                warn,
                "zone: {} allocation of order {} failed, flags {:?} ({} so far): {} of {} frames free, \
                 reserve {}, of it in use {}, min {} low {} high {} above it",
                if entitled { "entitled" } else { "ordinary" },
                order,
                gfp,
                nth,
                level.free,
                self.total,
                level.reserve,
                self.books.reserve_in_use.get(),
                level.marks.min,
                level.marks.low,
                level.marks.high,
            );
        }
    }
}
