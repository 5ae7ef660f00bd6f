//! How tight the computed reserve is: the smallest that survives, searched downward.

use core::fmt;

use crate::rng::Rng;
use crate::run;
use crate::scenario::{Fault, FaultKind, File, Micros, Mode, SECOND, Scenario, Sizes, Traffic};
use crate::trace::Trace;

/// Which stream of the seed is used up here.
const STREAM: u64 = 3;

/// Floods of each run, and microseconds between two packets of them.
const BURSTS: usize = 16;
const GAP: u32 = 20;

/// How long one server is away: longer than anything else may take.
const AWAY: Micros = 600 * SECOND;

/// A machine whose reserve is put to the test.
#[derive(Debug, Clone, Copy)]
pub struct Configuration {
    /// What the reserve promises.
    pub promise: Promise,
    /// Bytes of an IP packet.
    pub mtu: u16,
    /// Descriptors of the card: receive, transmit.
    pub rings: [usize; 2],
    /// Requests in flight.
    pub requests: usize,
    /// Swap areas.
    pub swappers: usize,
    /// Bytes of the connection's buffers.
    pub window: usize,
}

/// What a reserve promises, and what is held against it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Promise {
    /// Every accepted page-out completes: [`netreserve::min_budget`].
    Progress,
    /// No packet buffer is ever refused: [`netreserve::budget`] of the rings.
    FullRings,
}

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tightness {
    /// Frames of the computed reserve.
    pub computed: usize,
    /// The fewest frames with which every run got through.
    pub needed: usize,
    /// A seed that fails with a slab less, and the rule that it breaks. Without one the search ended
    /// at no reserve at all.
    pub fails: Option<(u64, &'static str)>,
}

impl Tightness {
    /// Computed frames for each that is needed.
    #[must_use]
    pub fn ratio(&self) -> f64 {
        self.computed as f64 / self.needed.max(1) as f64
    }
}

impl Configuration {
    /// Those that are looked at.
    pub const ALL: [Configuration; 15] = {
        const fn progress(
            mtu: u16,
            rings: [usize; 2],
            requests: usize,
            swappers: usize,
            window: usize,
        ) -> Configuration {
            Configuration {
                promise: Promise::Progress,
                mtu,
                rings,
                requests,
                swappers,
                window,
            }
        }
        const fn full_rings(
            mtu: u16,
            rings: [usize; 2],
            requests: usize,
            swappers: usize,
            window: usize,
        ) -> Configuration {
            Configuration {
                promise: Promise::FullRings,
                ..progress(mtu, rings, requests, swappers, window)
            }
        }
        [
            progress(1500, [2; 2], 1, 1, 4096),
            progress(1500, [16; 2], 8, 1, 16_384),
            progress(1500, [16; 2], 64, 1, 65_536),
            progress(1500, [64; 2], 32, 1, 65_536),
            progress(1500, [16; 2], 64, 2, 65_536),
            progress(9000, [4; 2], 8, 1, 65_536),
            progress(9000, [16; 2], 64, 1, 65_536),
            progress(9000, [4; 2], 64, 2, 65_536),
            full_rings(1500, [4; 2], 8, 1, 65_536),
            full_rings(1500, [16; 2], 8, 1, 65_536),
            full_rings(1500, [64; 2], 64, 1, 262_144),
            full_rings(1500, [64, 16], 64, 1, 262_144),
            full_rings(1500, [16; 2], 64, 2, 65_536),
            full_rings(9000, [8; 2], 8, 1, 262_144),
            full_rings(9000, [4; 2], 64, 2, 131_072),
        ]
    };

    /// The scenario of a seed on this machine, with so many frames less than computed.
    #[must_use]
    pub fn scenario(&self, seed: u64, missing: usize) -> Scenario {
        let mut scenario = Scenario::from_seed(seed, Mode::Within);
        let machine = &mut scenario.machine;
        machine.missing = missing;
        machine.mtu = self.mtu;
        machine.rings = self.rings;
        machine.guaranteed = match self.promise {
            Promise::Progress => [0; 2],
            Promise::FullRings => self.rings,
        };
        machine.requests = self.requests;
        machine.swappers = self.swappers;
        machine.window = self.window;
        machine.file = File::Missing;
        // The entitled may take what lies below the marks, too: nothing does.
        machine.min = 0;
        // More than there is ordinary memory for packets: nothing but the reserve is left.
        machine.socket_skbs = 2 * self.rings[0] * self.swappers + 40;
        scenario.program.reads_sockets = 0;
        scenario.program.background = 0;
        scenario.program.operations = 480 / (scenario.program.tasks * self.swappers);
        let mut rng = Rng::new(seed, STREAM);
        let mut add = |at, lasting, kind| scenario.script.push(Fault { at, lasting, kind });
        // Bursts that empty the rings, now and again until the sockets are full: what is refilled
        // between them has to come from where there is nothing left.
        let burst = u64::from(GAP) * (2 * self.rings[0] * self.swappers) as Micros;
        for number in 0..BURSTS {
            let traffic = match number % 4 {
                0 | 1 => Traffic::Udp,
                2 => Traffic::Tcp,
                _ => Traffic::Fragments,
            };
            let kind = FaultKind::Flood(traffic, GAP);
            add(rng.range(20_000, SECOND), burst, kind);
        }
        // What one swapper holds while its server is away helps no other.
        if self.swappers > 1 {
            add(rng.range(20_000, SECOND / 2), AWAY, FaultKind::Away(0));
        }
        scenario.fit_pages(15);
        scenario
    }

    /// The first of `seeds` runs that fails with `missing` frames less than computed.
    fn failure(&self, missing: usize, seeds: u64) -> Option<(u64, &'static str)> {
        (0..seeds).find_map(|seed| {
            let violation = run(&self.scenario(seed, missing), Trace::silent()).violation?;
            Some((seed, violation.rule))
        })
    }

    /// Takes frames away until a run fails.
    #[must_use]
    pub fn measure(&self, seeds: u64) -> Tightness {
        let scenario = self.scenario(0, 0);
        let computed = self.swappers * Sizes::of(&scenario).reserve.frames();
        let mut fails = None;
        let mut missing = 0;
        // Slabs of several frames come and go as a whole.
        let step = 1 << scenario.machine.skb().1;
        while missing <= computed {
            fails = self.failure(missing, seeds);
            if fails.is_some() {
                break;
            }
            missing += step;
        }
        Tightness {
            computed,
            needed: (computed + step).saturating_sub(missing),
            fails,
        }
    }
}

impl fmt::Display for Configuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = |n| if n == 1 { "" } else { "s" };
        write!(
            f,
            "MTU {}, rings of {} and {}, {} request{}, {} swapper{}",
            self.mtu,
            self.rings[0],
            self.rings[1],
            self.requests,
            plural(self.requests),
            self.swappers,
            plural(self.swappers),
        )
    }
}

impl fmt::Display for Promise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Promise::Progress => "progress",
            Promise::FullRings => "full rings",
        })
    }
}
