//! Skbs in random order of everything, against plain vectors of bytes and a count of charges.

use alloc::rc::Rc;
use alloc::vec;
use alloc::vec::Vec;
use core::cell::Cell;

use proptest::prelude::*;

use super::{Side, Skb, SkbError};
use crate::testbed::{Hog, Machine, SKB, SWAP, machine};
use crate::{SkbAllocError, SkbPool};

const CASES: u32 = 288;
const OPS: usize = 400;
const SKBS: usize = 12;

/// What an skb should be.
struct Model {
    data: Vec<u8>,
    head: usize,
    memory: Rc<Memory>,
}

/// One for each buffer; its owners are counted by the `Rc`.
#[derive(Clone, Copy)]
struct Memory {
    emergency: bool,
    side: Side,
}

impl Model {
    fn of(skb: &Skb<'_>, side: Side) -> Model {
        Model {
            data: skb.data().to_vec(),
            head: skb.headroom(),
            memory: Rc::new(Memory {
                emergency: skb.is_emergency(),
                side,
            }),
        }
    }

    fn shared(&self) -> bool {
        Rc::strong_count(&self.memory) > 1
    }

    fn end(&self) -> usize {
        self.head + self.data.len()
    }

    /// Memory of its own, in which `copy` is: that of an ordinary skb is ordinary.
    fn own(&self, copy: &Skb<'_>, head: usize) -> Model {
        let emergency = copy.is_emergency();
        assert!(self.memory.emergency || !emergency);
        Model {
            data: self.data.clone(),
            head,
            memory: Rc::new(Memory {
                emergency,
                side: self.memory.side,
            }),
        }
    }

    fn check(&self, skb: &Skb<'_>) {
        assert_eq!(skb.data(), self.data);
        assert_eq!((skb.headroom(), skb.len()), (self.head, self.data.len()));
        assert_eq!(skb.is_shared(), self.shared());
        assert_eq!(skb.is_emergency(), self.memory.emergency);
        assert_eq!(skb.truesize(), SKB);
        if !self.shared() {
            assert_eq!(skb.tailroom(), SKB - self.end());
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Op {
    AllocRx,
    AllocTx,
    AllocOrdinary,
    Pressure,
    Clone,
    Copy,
    Expand,
    Split,
    Push,
    Pull,
    Put,
    Trim,
    Skip,
    Write,
    Reserve,
    Drop,
}

/// Each as often as it is drawn.
#[rustfmt::skip]
const DRAWN: [Op; 26] = [
    Op::AllocRx, Op::AllocTx, Op::AllocOrdinary, Op::Pressure, Op::Clone, Op::Clone, Op::Clone,
    Op::Copy, Op::Copy, Op::Expand, Op::Expand, Op::Split, Op::Split, Op::Push, Op::Push, Op::Pull,
    Op::Put, Op::Put, Op::Put, Op::Trim, Op::Skip, Op::Write, Op::Reserve, Op::Drop, Op::Drop,
    Op::Drop,
];

/// Mostly small steps, and some that reach the ends.
fn ops() -> impl Strategy<Value = Vec<(usize, usize, usize, bool)>> {
    let op = (
        0..DRAWN.len(),
        0..SKBS,
        0..SKB + 8,
        prop::bool::weighted(0.2),
    );
    prop::collection::vec(op, OPS)
}

struct World {
    m: Machine,
    hog: Option<Hog>,
    skbs: Vec<(Skb<'static>, Model)>,
    stamp: u8,
}

impl World {
    /// Whether there was anything to act on.
    fn apply(&mut self, op: Op, pick: usize, n: usize) -> bool {
        let pool: &SkbPool<'static> = self.m.pool;
        self.stamp = self.stamp.wrapping_add(1);
        let stamp = self.stamp;
        let allocated = match op {
            Op::AllocRx => Some((pool.alloc_rx(), Side::Rx)),
            Op::AllocTx => Some((pool.alloc_tx(), Side::Tx)),
            Op::AllocOrdinary => Some((pool.alloc_tx_ordinary(), Side::Tx)),
            Op::Pressure => {
                self.hog = match self.hog.take() {
                    None => Some(self.m.exhaust()),
                    Some(_) => None,
                };
                return true;
            }
            _ => None,
        };
        if let Some((result, side)) = allocated {
            if let Ok(skb) = result {
                let ordinary = matches!(op, Op::AllocOrdinary);
                assert!(!(ordinary && skb.is_emergency()));
                let model = Model::of(&skb, side);
                self.add(skb, model);
            }
            return true;
        }
        if self.skbs.is_empty() {
            return false;
        }
        let at = pick % self.skbs.len();
        if let Some((skb, model)) = self.on_one(op, at, n, stamp) {
            self.add(skb, model);
        }
        true
    }

    /// Too many: the oldest goes.
    fn add(&mut self, skb: Skb<'static>, model: Model) {
        if self.skbs.len() == SKBS {
            self.skbs.remove(0);
        }
        self.skbs.push((skb, model));
    }

    /// Does `op` to one skb; returns what came of it.
    fn on_one(&mut self, op: Op, at: usize, n: usize, stamp: u8) -> Option<(Skb<'static>, Model)> {
        let (skb, model) = &mut self.skbs[at];
        let shared = if model.shared() {
            Err(SkbError::Shared)
        } else {
            Ok(())
        };
        let short = if n > model.data.len() {
            Err(SkbError::TooShort)
        } else {
            Ok(())
        };
        match op {
            Op::Clone => {
                let clone = skb.try_clone();
                check_room(model, &clone);
                return clone.ok().map(|skb| {
                    let model = Model {
                        data: model.data.clone(),
                        memory: model.memory.clone(),
                        ..*model
                    };
                    (skb, model)
                });
            }
            Op::Split => {
                let rest = skb.split(n);
                if let Err(error) = short {
                    assert_eq!(rest.unwrap_err(), error);
                    return None;
                }
                check_room(model, &rest);
                return rest.ok().map(|skb| {
                    let rest = Model {
                        data: model.data.split_off(n),
                        head: model.head + n,
                        memory: model.memory.clone(),
                    };
                    (skb, rest)
                });
            }
            Op::Copy => {
                return self.m.pool.copy(skb).ok().map(|skb| {
                    let model = model.own(&skb, model.head);
                    (skb, model)
                });
            }
            Op::Expand => {
                let (skb, model) = self.skbs.swap_remove(at);
                return Some(self.expand(skb, model, n));
            }
            Op::Drop => {
                self.skbs.swap_remove(at);
            }
            Op::Push => match skb.push(n) {
                Ok(bytes) => {
                    bytes.fill(stamp);
                    model.head -= n;
                    model.data.splice(..0, vec![stamp; n]);
                    assert_eq!(shared, Ok(()));
                }
                Err(SkbError::NoHeadroom) => assert!(n > model.head),
                Err(error) => assert_eq!(Err(error), shared),
            },
            Op::Put => match skb.put(n) {
                Ok(bytes) => {
                    bytes.fill(stamp);
                    model.data.resize(model.data.len() + n, stamp);
                    assert_eq!(shared, Ok(()));
                }
                Err(SkbError::NoTailroom) => assert!(model.end() + n > SKB),
                Err(error) => assert_eq!(Err(error), shared),
            },
            Op::Pull => {
                let expected = short.and(shared).map(|()| model.data[..n].to_vec());
                assert_eq!(skb.pull(n).map(|bytes| bytes.to_vec()), expected);
                if expected.is_ok() {
                    model.head += n;
                    model.data.drain(..n);
                }
            }
            Op::Skip => {
                let expected = short.map(|()| model.data[..n].to_vec());
                assert_eq!(skb.skip(n).map(<[u8]>::to_vec), expected);
                if expected.is_ok() {
                    model.head += n;
                    model.data.drain(..n);
                }
            }
            Op::Trim => {
                assert_eq!(skb.trim(n), short);
                model.data.truncate(n);
            }
            Op::Write => match skb.try_data_mut() {
                Ok(bytes) => {
                    bytes.fill(stamp);
                    model.data.fill(stamp);
                    assert_eq!(shared, Ok(()));
                }
                Err(error) => assert_eq!(Err(error), shared),
            },
            Op::Reserve => match skb.reserve(n) {
                Ok(()) => {
                    assert!(model.data.is_empty() && model.head + n <= SKB);
                    model.head += n;
                }
                Err(SkbError::NotEmpty) => assert!(!model.data.is_empty()),
                Err(_) => assert!(model.head + n > SKB || shared.is_err()),
            },
            Op::AllocRx | Op::AllocTx | Op::AllocOrdinary | Op::Pressure => unreachable!(),
        }
        None
    }

    fn expand(&self, skb: Skb<'static>, model: Model, n: usize) -> (Skb<'static>, Model) {
        let head = model.head.max(n);
        let fits = head + model.data.len() <= SKB;
        match self.m.pool.expand(skb, n) {
            Ok(skb) => {
                assert!(fits);
                if model.shared() {
                    let model = model.own(&skb, head);
                    (skb, model)
                } else {
                    (skb, Model { head, ..model })
                }
            }
            Err((error, skb)) => {
                assert_eq!(error == SkbAllocError::TooLarge, !fits);
                assert!(!fits || model.shared(), "nothing had to be allocated");
                (skb, model)
            }
        }
    }

    /// N3: what is charged is the memory of the emergency skbs, once each.
    fn check(&self) {
        let mut memory: Vec<&Rc<Memory>> = self.skbs.iter().map(|(_, m)| &m.memory).collect();
        memory.sort_by_key(|memory| Rc::as_ptr(memory));
        memory.dedup_by_key(|memory| Rc::as_ptr(memory));
        let charged = |side| {
            let those = memory.iter().filter(|m| m.emergency && m.side == side);
            those.count() * SKB
        };
        let (rx, tx) = (charged(Side::Rx), charged(Side::Tx));
        assert_eq!((self.m.rx.usage(), self.m.tx.usage()), (rx, tx));
        let stats = self.m.cache.stats();
        let hog = self.hog.as_ref().map_or(0, |hog| hog._buffers.len());
        assert_eq!(stats.in_use, hog + memory.len());
        assert_eq!(stats.reserve_objects * SKB, rx + tx, "M6");
        for (skb, model) in &self.skbs {
            model.check(skb);
        }
    }
}

/// A clone needs room behind the data, to within the alignment of what is put there.
fn check_room(model: &Model, clone: &Result<Skb<'_>, SkbError>) {
    match clone {
        Ok(_) => assert!(model.end() < SKB),
        Err(error) => {
            assert_eq!(*error, SkbError::NoTailroom);
            assert!(!model.shared() && model.end() + Skb::SHARE_ROOM > SKB);
        }
    }
}

#[test]
fn n3_bytes_and_charges_are_those_of_the_model_whatever_is_done() {
    let done = Cell::new(0);
    let config = ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(CASES)
    };
    proptest!(config, |(ops in ops())| {
        let m = machine();
        m.flows.add(SWAP).unwrap();
        let mut world = World { m, hog: None, skbs: Vec::new(), stamp: 0 };
        for (op, pick, n, far) in ops {
            done.set(done.get() + usize::from(world.apply(DRAWN[op], pick, if far { n } else { n % 64 })));
            world.check();
        }
        world.skbs.clear();
        world.check();
        world.hog = None;
        world.m.assert_quiescent();
    });
    // Those that had no skb to act on do not count.
    assert!(done.get() >= 100_000, "{} operations only", done.get());
}
