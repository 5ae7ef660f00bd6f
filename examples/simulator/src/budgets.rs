//! How tight the computed reserve is: the smallest that survives, searched downward.

use core::fmt;

use crate::rng::Rng;
use crate::run;
use crate::scenario::{Fault, FaultKind, File, Mode, SECOND, Scenario, Sizes, Traffic};
use crate::trace::Trace;

/// Which stream of the seed is used up here.
const STREAM: u64 = 3;

/// A machine whose reserve is put to the test.
#[derive(Debug, Clone, Copy)]
pub struct Configuration {
    /// Bytes of an IP packet.
    pub mtu: u16,
    /// Descriptors of the card, each way.
    pub ring: usize,
    /// Descriptors for which the reserve has buffers, each way.
    pub guaranteed: usize,
    /// Requests in flight.
    pub requests: usize,
    /// Swap areas.
    pub swappers: usize,
    /// Bytes of the connection's buffers.
    pub window: usize,
}

/// What was found.
#[derive(Debug, Clone, Copy)]
pub struct Tightness {
    /// The machine.
    pub configuration: Configuration,
    /// Frames of the computed reserve.
    pub computed: usize,
    /// The fewest frames with which every run got through.
    pub needed: usize,
    /// A seed that fails with one frame less, and how.
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
    /// The dozen that is looked at.
    pub const ALL: [Configuration; 12] = {
        const fn make(
            mtu: u16,
            [ring, guaranteed]: [usize; 2],
            requests: usize,
            swappers: usize,
            window: usize,
        ) -> Configuration {
            Configuration {
                mtu,
                ring,
                guaranteed,
                requests,
                swappers,
                window,
            }
        }
        [
            make(1500, [2, 0], 1, 1, 4096),
            make(1500, [16, 0], 1, 1, 4096),
            make(1500, [16, 0], 8, 1, 16_384),
            make(1500, [16, 0], 64, 1, 65_536),
            make(1500, [64, 0], 32, 1, 65_536),
            make(1500, [16, 0], 8, 2, 16_384),
            make(1500, [16, 0], 64, 2, 65_536),
            make(9000, [4, 0], 8, 1, 65_536),
            make(9000, [4, 0], 64, 2, 65_536),
            make(1500, [16, 1], 8, 1, 16_384),
            make(1500, [16, 4], 8, 1, 16_384),
            make(1500, [16, 16], 8, 1, 16_384),
        ]
    };

    /// The scenario of a seed on this machine.
    fn scenario(&self, seed: u64) -> Scenario {
        let mut scenario = Scenario::from_seed(seed, Mode::Within);
        let machine = &mut scenario.machine;
        machine.mtu = self.mtu;
        machine.rings = [self.ring; 2];
        machine.guaranteed = [self.guaranteed; 2];
        machine.requests = self.requests;
        machine.swappers = self.swappers;
        machine.window = self.window;
        machine.file = File::Missing;
        // The entitled may take what lies below the marks, too: nothing does.
        machine.min = 0;
        // More than there is ordinary memory for packets: nothing but the reserve is left.
        machine.socket_skbs = 2 * self.ring * self.swappers + 40;
        scenario.program.reads_sockets = 0;
        scenario.program.background = 0;
        // The program takes all memory before others want it: the sockets are filled one packet at a
        // time, as memory comes back.
        let mut rng = Rng::new(seed, STREAM);
        for traffic in [Traffic::Udp, Traffic::Tcp] {
            scenario.script.push(Fault {
                at: rng.range(20_000, SECOND / 2),
                lasting: 2 * SECOND,
                kind: FaultKind::Flood(traffic, 100),
            });
        }
        scenario.program.operations = 480 / (scenario.program.tasks * self.swappers);
        scenario.fit_pages(15);
        scenario
    }

    /// The first of `seeds` runs that fails with `missing` frames less than computed.
    fn failure(&self, missing: usize, seeds: u64) -> Option<(u64, &'static str)> {
        (0..seeds).find_map(|seed| {
            let mut scenario = self.scenario(seed);
            scenario.machine.missing = missing;
            let violation = run(&scenario, Trace::silent()).violation?;
            Some((seed, violation.rule))
        })
    }

    /// Takes frames away until a run fails.
    #[must_use]
    pub fn measure(&self, seeds: u64) -> Tightness {
        let sizes = Sizes::of(&self.scenario(0));
        let computed = self.swappers * (sizes.rx.frames() + sizes.tx.frames());
        let mut fails = None;
        let mut missing = 0;
        // Slabs of several frames come and go as a whole.
        let step = 1 << self.scenario(0).machine.skb().1;
        while missing <= computed {
            fails = self.failure(missing, seeds);
            if fails.is_some() {
                break;
            }
            missing += step;
        }
        Tightness {
            configuration: *self,
            computed,
            needed: (computed + step).saturating_sub(missing),
            fails,
        }
    }
}

impl fmt::Display for Configuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "MTU {}, rings of {} ({}), {} requests, {} swapper{}, window {} KiB",
            self.mtu,
            self.ring,
            match self.guaranteed {
                0 => "the smallest reserve".into(),
                guaranteed => format!("{guaranteed} of them in the reserve"),
            },
            self.requests,
            self.swappers,
            if self.swappers == 1 { "" } else { "s" },
            self.window / 1024,
        )
    }
}
