//! From a seed to a scenario.

use netreserve::Medium;

use super::{
    FOREVER, Fault, FaultKind, File, Machine, Micros, Mode, Program, Refusal, SECOND, Scenario,
    Sizes, Traffic,
};
use crate::rng::Rng;

/// Which streams of the seed are used up here.
const MACHINE: u64 = 1;
const SCRIPT: u64 = 2;
const MEDIUM: u64 = 40;

/// The longest that a fault lasts which ends.
const LONG: Micros = 20 * SECOND;

impl Scenario {
    /// The scenario of a seed.
    #[must_use]
    pub fn from_seed(seed: u64, mode: Mode) -> Scenario {
        let mut rng = Rng::new(seed, MACHINE);
        let mut machine = Machine::draw(&mut rng, mode);
        if Rng::new(seed, MEDIUM).chance(100) {
            machine.medium = Medium::Ip;
        }
        let program = Program::draw(&mut rng, &machine);
        let mut scenario = Scenario {
            seed,
            mode,
            machine,
            program,
            script: script(&mut Rng::new(seed, SCRIPT), mode),
            without: None,
        };
        scenario.fit_pages(rng.range(11, 22) as usize);
        scenario
    }

    /// Gives the program so many tenths of the memory: more than all of it, or else nothing is ever
    /// swapped.
    pub(crate) fn fit_pages(&mut self, tenths: usize) {
        let frames = Sizes::of(self).pages / self.machine.swappers;
        self.program.pages = frames * tenths / 10;
    }

    /// The scenario of a seed, with a script taken from arbitrary bytes: for a fuzzer.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Scenario {
        let (head, mut rest) = bytes.split_at(bytes.len().min(8));
        let mut seed = [0; 8];
        seed[..head.len()].copy_from_slice(head);
        let seed = u64::from_le_bytes(seed);
        let mode = if seed & 1 == 0 {
            Mode::Within
        } else {
            Mode::Beyond
        };
        let mut scenario = Scenario::from_seed(seed, mode);
        scenario.script.clear();
        // Eight bytes make a fault: kind, parameter, when, how long.
        while let Some((bytes, after)) = rest.split_first_chunk::<8>() {
            rest = after;
            if scenario.script.len() == 24 {
                break;
            }
            let word = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
            let mut rng = Rng::new(word(2).into(), u64::from(bytes[0]));
            let kind = kind(&mut rng, mode, bytes[0].into());
            let endless = mode == Mode::Beyond && bytes[1] == 0;
            let moment = kind.is_momentary();
            scenario.script.push(Fault {
                at: Micros::from(word(4)) * 100,
                lasting: match (moment, endless) {
                    (true, _) => 0,
                    (false, true) => FOREVER,
                    (false, false) => Micros::from(word(6)) * 300,
                },
                kind,
            });
        }
        scenario.script.sort_by_key(|fault| fault.at);
        scenario
    }
}

impl Machine {
    fn draw(rng: &mut Rng, mode: Mode) -> Machine {
        let ring = |rng: &mut Rng| rng.pick(&[2, 3, 4, 8, 8, 16]);
        let rings = [ring(rng), ring(rng)];
        let guaranteed = match rng.below(10) {
            0 => [0; 2],
            1 | 2 => [2; 2],
            _ => rings,
        };
        let requests = rng.pick(&[1, 2, 3, 4, 8, 16, 32, 64]);
        Machine {
            medium: Medium::Ethernet,
            mtu: if rng.chance(150) { 9000 } else { 1500 },
            rings,
            guaranteed,
            missing: 0,
            min: rng.range(2, 12) as usize,
            swappers: if rng.chance(200) { 2 } else { 1 },
            requests,
            socket_skbs: rng.range(8, 40) as usize,
            window: rng.pick(&[4096, 8192, 16_384, 32_768, 65_536]),
            mmu: rng.chance(600),
            scope: rng.chance(500),
            unstable: rng.chance(400),
            deadline: match mode {
                Mode::Within => 3600 * SECOND,
                Mode::Beyond => rng.pick(&[SECOND / 5, SECOND, 5 * SECOND, 20 * SECOND]),
            },
            fifo: rng.pick(&[0, 4, 16, 64]),
            file: match rng.below(20) {
                0 => File::Short,
                1 => File::Holes,
                2..=6 => File::Good,
                _ => File::Missing,
            },
            nested: rng.chance(200),
        }
    }
}

impl Program {
    fn draw(rng: &mut Rng, machine: &Machine) -> Program {
        let tasks = rng.range(1, 6) as usize;
        Program {
            tasks,
            pages: 0,
            operations: 400 / (tasks * machine.swappers),
            sockets: rng.range(1, 4) as usize,
            reads_sockets: rng.pick(&[0, 20, 200, 500]),
            background: rng.pick(&[0, 500, 2_000, 20_000]),
            early: rng.chance(300),
        }
    }
}

impl Traffic {
    /// UDP is drawn twice as often as any other.
    const KINDS: [Traffic; 9] = [
        Traffic::Udp,
        Traffic::Udp,
        Traffic::Tcp,
        Traffic::Unbound,
        Traffic::Fragments,
        Traffic::Arp,
        Traffic::LookAlike,
        Traffic::Icmp,
        Traffic::Noise,
    ];

    /// One kind.
    pub(crate) fn draw_kind(rng: &mut Rng) -> Traffic {
        rng.pick(&Self::KINDS)
    }

    /// One kind, or, as often as UDP, a mixture of all.
    fn draw(rng: &mut Rng) -> Traffic {
        let number = rng.index(Self::KINDS.len() + 2);
        Self::KINDS.get(number).copied().unwrap_or(Traffic::Mixed)
    }
}

fn script(rng: &mut Rng, mode: Mode) -> Vec<Fault> {
    // Some runs are undisturbed but for the flood: they show what a mechanism is for.
    let faults = rng.pick(&[0, 1, 2, 4, 8, 12]);
    let mut script = Vec::new();
    let floods = rng.range(1, 4);
    for _ in 0..floods {
        let traffic = Traffic::draw(rng);
        let gap = rng.pick(&[2, 10, 40, 150]);
        script.push(Fault {
            at: rng.below(SECOND / 2),
            lasting: rng.range(1, 400) * Micros::from(gap),
            kind: FaultKind::Flood(traffic, gap),
        });
    }
    for _ in 0..faults {
        let which = rng.next();
        let kind = kind(rng, mode, which);
        let lasting = match rng.below(4) {
            0 => rng.range(1, LONG),
            1 => rng.range(1, 2 * SECOND),
            _ => rng.range(1, SECOND / 5),
        };
        let endless = mode == Mode::Beyond && rng.chance(150) && !kind.is_momentary();
        script.push(Fault {
            at: rng.below(SECOND),
            lasting: match kind {
                // A flood of seconds costs more than it shows.
                FaultKind::Flood(_, gap) => rng.range(1, 400) * Micros::from(gap),
                _ if kind.is_momentary() => 0,
                // Long enough for other pages to move in, and not so long that they have left.
                FaultKind::Zombie => rng.range(SECOND / 5, 3 * SECOND),
                _ if endless => FOREVER,
                _ => lasting,
            },
            kind,
        });
    }
    script.sort_by_key(|fault| fault.at);
    script
}

/// One of all kinds of faults; those that do not end by themselves only beyond the budget.
fn kind(rng: &mut Rng, mode: Mode, which: u64) -> FaultKind {
    let beyond = mode == Mode::Beyond;
    match which % if beyond { 24 } else { 21 } {
        0 => FaultKind::Loss(rng.range(1, 400) as u16),
        1 => FaultKind::Duplicate(rng.range(1, 500) as u16),
        2 => FaultKind::Corrupt(rng.range(1, 200) as u16),
        3 => FaultKind::Jitter(rng.range(1, 50_000) as u32),
        4 if rng.chance(300) => FaultKind::Away(0),
        4 => FaultKind::Partition,
        5 => FaultKind::Flood(Traffic::draw(rng), rng.range(2, 200) as u32),
        6 => FaultKind::Stall,
        7 => FaultKind::Slow(rng.range(100, 3_000_000) as u32),
        8 => FaultKind::Reboot,
        9 if rng.chance(300) => FaultKind::PowerCut,
        9 => FaultKind::Zombie,
        10 => FaultKind::Short,
        11 => FaultKind::Unstable,
        12 => FaultKind::Refuse(Refusal::Jukebox),
        13 => FaultKind::Refuse(rng.pick(&[
            Refusal::Io,
            Refusal::ServerFault,
            Refusal::NoSpace,
            Refusal::ReadOnly,
        ])),
        14 => FaultKind::Twice,
        15 => FaultKind::Garbage,
        16 => FaultKind::HangUp,
        17 => FaultKind::Moved,
        18 => FaultKind::AllocFails(rng.range(1, 500) as u16),
        19 => FaultKind::Interrupts(rng.range(1, 20) as u16),
        20 if rng.chance(500) => FaultKind::Busy(rng.range(1, 600) as u16),
        20 => FaultKind::Raise(rng.range(1, 8) as u16),
        21 => FaultKind::Truncated,
        22 => FaultKind::Removed,
        _ => FaultKind::Refuse(Refusal::Stale),
    }
}
