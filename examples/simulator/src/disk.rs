//! A local disk beside the network: its requests come out of a pool with a guaranteed minimum, in a
//! zone of its own that others exhaust.

use std::collections::VecDeque;
use std::sync::Mutex;

use mempool::{Frame, Gfp, MemallocToken, Pool, Pooled, Zone};

use crate::rng::Rng;
use crate::verdict::{Findings, locked};

/// Frames of the zone, and those of them that are its reserve.
pub(crate) const FRAMES: usize = 10;
pub(crate) const RESERVE: usize = 2;

/// Requests that can always be made.
pub(crate) const MINIMUM: usize = 2;

/// The most requests at once.
const REQUESTS: usize = 6;

/// Whoever does something now and then.
pub(crate) trait Actor {
    /// Does something, or nothing.
    fn step(&self);
}

/// The disk's driver, and whoever takes its memory.
pub(crate) struct Disk<'a, 'p, 'z: 'p> {
    zone: &'z Zone<'z>,
    pool: &'a Pool<'p, 'z, Zone<'z>>,
    token: MemallocToken,
    findings: Findings,
    state: Mutex<State<'a, 'z>>,
}

struct State<'a, 'z> {
    rng: Rng,
    requests: VecDeque<Pooled<'a, Frame<'z>>>,
    hog: Vec<Frame<'z>>,
}

impl<'a, 'p, 'z: 'p> Disk<'a, 'p, 'z> {
    pub(crate) fn new(
        zone: &'z Zone<'z>,
        pool: &'a Pool<'p, 'z, Zone<'z>>,
        token: MemallocToken,
        rng: Rng,
        findings: Findings,
    ) -> Self {
        let state = State {
            rng,
            requests: VecDeque::new(),
            hog: Vec::new(),
        };
        Disk {
            zone,
            pool,
            token,
            findings,
            state: Mutex::new(state),
        }
    }

    /// Makes a request: of the swap path, or of anybody.
    fn request(&self, state: &mut State<'a, 'z>) {
        let entitled = state.rng.chance(300);
        let gfp = if entitled {
            self.token.gfp(Gfp::ATOMIC)
        } else {
            Gfp::ATOMIC
        };
        let (free, available) = (self.zone.stats().free, self.pool.stats().available);
        match self.pool.alloc(gfp) {
            Ok(request) => {
                self.findings
                    .check(entitled || !request.from_reserve(), "M4", || {
                        "a pool gave memory of the reserve to a caller who is not entitled".into()
                    });
                state.requests.push_back(request);
            }
            Err(_) => {
                let possible = available > 0 || entitled && free > 0;
                self.findings.check(!possible, "M6", || {
                    format!(
                        "a pool with {available} of {MINIMUM} elements refused a caller (entitled: \
                         {entitled}), and {free} frames were free"
                    )
                });
            }
        }
    }

    fn complete(&self, state: &mut State<'a, 'z>) {
        let Some(request) = state.requests.pop_front() else {
            return;
        };
        let tagged = request.from_reserve();
        let before = (
            self.pool.stats().available,
            self.zone.stats().reserve_in_use,
        );
        drop(request);
        let after = (
            self.pool.stats().available,
            self.zone.stats().reserve_in_use,
        );
        if tagged {
            self.findings.check(after.1 < before.1, "M4", || {
                "memory of the reserve came back to a pool, and stays there".into()
            });
        } else {
            let expected = (before.0 + 1).min(MINIMUM);
            self.findings.check(after.0 == expected, "M6", || {
                format!(
                    "an element came back to a pool of {MINIMUM} that had {}, and it has {}",
                    before.0, after.0
                )
            });
        }
    }
}

impl Actor for Disk<'_, '_, '_> {
    fn step(&self) {
        let state = &mut *locked(&self.state);
        match state.rng.below(16) {
            0 | 1 if state.requests.len() < REQUESTS => self.request(state),
            2 | 3 => self.complete(state),
            4 => state.hog.extend(self.zone.alloc(0, Gfp::ATOMIC)),
            5 if state.rng.chance(100) => state.hog.clear(),
            _ => {}
        }
    }
}
