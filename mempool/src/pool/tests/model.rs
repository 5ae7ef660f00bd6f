//! The pool against a few numbers.

use proptest::prelude::*;
use proptest::sample::Index;

use super::*;

const TOTAL: usize = 40;
const RESERVE: usize = 16;
const MARK: usize = 8;
const MIN: usize = 4;
const TASKS: usize = 2;

#[derive(Debug, Clone)]
enum Op {
    Alloc(Caller),
    Poll(Caller, usize),
    Drop(Index),
    Fill(Caller),
    /// Others take and free ordinary memory.
    Hog(usize),
    Unhog(usize),
}

#[derive(Debug, Clone, Copy)]
struct Caller {
    entitled: bool,
    gfp: Gfp,
}

fn callers() -> impl Strategy<Value = Caller> {
    let gfp = prop_oneof![
        Just(Gfp::KERNEL),
        Just(Gfp::ATOMIC),
        Just(Gfp::ATOMIC | Gfp::NOMEMALLOC)
    ];
    (any::<bool>(), gfp).prop_map(|(entitled, gfp)| Caller { entitled, gfp })
}

fn ops() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => callers().prop_map(Op::Alloc),
        3 => (callers(), 0..TASKS).prop_map(|(caller, task)| Op::Poll(caller, task)),
        6 => any::<Index>().prop_map(Op::Drop),
        1 => callers().prop_map(Op::Fill),
        2 => (1..12usize).prop_map(Op::Hog),
        1 => (1..12usize).prop_map(Op::Unhog),
    ]
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Origin {
    Ordinary,
    Pool,
    Reserve,
}

/// What a pool over a zone must do, in numbers.
struct Model {
    free: usize,
    stats: PoolStats,
    waits: [bool; TASKS],
    woken: [usize; TASKS],
}

impl Model {
    /// Whether ordinary memory is left for the caller.
    fn ordinary(&self, caller: Caller) -> bool {
        self.free > RESERVE + caller.gfp.floor(MARK)
    }

    fn alloc(&mut self, caller: Caller) -> Option<Origin> {
        let origin = if self.ordinary(caller) {
            self.stats.ordinary += 1;
            self.free -= 1;
            Origin::Ordinary
        } else if self.stats.available > 0 {
            self.stats.from_pool += 1;
            self.stats.available -= 1;
            self.stats.min_available = self.stats.min_available.min(self.stats.available);
            Origin::Pool
        } else if caller.entitled && !caller.gfp.contains(Gfp::NOMEMALLOC) && self.free > 0 {
            self.stats.from_reserve += 1;
            self.free -= 1;
            Origin::Reserve
        } else {
            return None;
        };
        self.stats.in_use += 1;
        Some(origin)
    }

    fn returned(&mut self, reserve: bool) {
        self.stats.in_use -= 1;
        if !reserve && self.stats.available < MIN {
            self.stats.available += 1;
        } else {
            self.free += 1;
        }
        self.wake();
    }

    fn fill(&mut self, caller: Caller) -> usize {
        while self.stats.available < MIN && self.ordinary(caller) {
            self.free -= 1;
            self.stats.available += 1;
        }
        self.stats.min_available = self.stats.available;
        self.wake();
        MIN - self.stats.available
    }

    fn wake(&mut self) {
        for (waits, woken) in self.waits.iter_mut().zip(&mut self.woken) {
            *woken += usize::from(core::mem::take(waits));
        }
    }
}

/// 256 runs of 500 operations.
#[test]
fn a_pool_does_what_its_model_does() {
    let m = machine(TOTAL);
    m.zone.grow(RESERVE).unwrap();
    let token = m.zone.claim_memalloc().unwrap();
    let config = ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(256)
    };
    proptest!(config, |(ops in prop::collection::vec(ops(), 500))| {
        prop_assert_eq!(m.zone.stats().free, TOTAL);
        let (mut slots, mut waiters) = ([NONE; MIN], waiters(TASKS));
        let pool: FramePool<'_, '_> =
            Pool::with_waiters("x", &m.zone, &mut slots, &mut waiters);
        let counts: [Arc<Count>; TASKS] = core::array::from_fn(|_| Arc::default());
        let mut model = Model {
            free: TOTAL,
            stats: PoolStats { min: MIN, ..PoolStats::default() },
            waits: [false; TASKS],
            woken: [0; TASKS],
        };
        let (mut held, mut hog) = (Vec::new(), Vec::new());
        for op in ops {
            let gfp = |caller: Caller| {
                if caller.entitled { token.gfp(caller.gfp) } else { caller.gfp }
            };
            match op {
                Op::Alloc(caller) => {
                    let expected = model.alloc(caller);
                    model.stats.refused += u64::from(expected.is_none());
                    let got = pool.alloc(gfp(caller)).ok();
                    let origin = got.as_ref().map(|got| got.from_reserve());
                    prop_assert_eq!(origin, expected.map(|origin| origin == Origin::Reserve));
                    prop_assert!(caller.entitled || origin != Some(true));
                    held.extend(got);
                }
                Op::Poll(caller, task) => {
                    let waker = Waker::from(counts[task].clone());
                    let polled = pool.poll_alloc(&mut Context::from_waker(&waker), gfp(caller));
                    match (model.alloc(caller), polled) {
                        (Some(origin), Poll::Ready(Ok(got))) => {
                            prop_assert_eq!(got.from_reserve(), origin == Origin::Reserve);
                            held.push(got);
                        }
                        (None, Poll::Ready(Err(PoolError::Empty))) => {
                            prop_assert_eq!(model.stats.in_use, 0);
                            model.stats.refused += 1;
                        }
                        (None, Poll::Pending) => {
                            prop_assert!(model.stats.in_use > 0);
                            model.stats.waited += 1;
                            model.waits[task] = true;
                        }
                        (expected, got) => prop_assert!(false, "{expected:?}, and not {got:?}"),
                    }
                }
                Op::Drop(which) if !held.is_empty() => {
                    let element = held.swap_remove(which.index(held.len()));
                    model.returned(element.from_reserve());
                }
                Op::Drop(_) => {}
                Op::Fill(caller) => {
                    let missing = pool.fill(gfp(caller)).map_or_else(|error| error.missing, |()| 0);
                    prop_assert_eq!(missing, model.fill(caller));
                }
                Op::Hog(n) => {
                    let taken = (0..n).map_while(|_| m.zone.alloc(0, Gfp::ATOMIC).ok());
                    let before = hog.len();
                    hog.extend(taken);
                    model.free -= hog.len() - before;
                }
                Op::Unhog(n) => {
                    let left = hog.len().saturating_sub(n);
                    model.free += hog.len() - left;
                    hog.truncate(left);
                }
            }
            prop_assert_eq!(pool.stats(), model.stats);
            prop_assert_eq!(m.zone.stats().free, model.free);
            let tagged = held.iter().filter(|element| element.from_reserve()).count();
            prop_assert_eq!(m.zone.stats().reserve_in_use, tagged);
            prop_assert_eq!([counts[0].get(), counts[1].get()], model.woken);
        }
        drop((held, hog));
        prop_assert_eq!(pool.stats().in_use, 0);
        drop(pool);
        prop_assert_eq!(m.zone.stats().free, TOTAL);
    });
}
