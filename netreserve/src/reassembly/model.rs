//! Random fragments of random datagrams, against the bytes that were cut up and books of what is held.

use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;

use proptest::prelude::*;

use super::tests::{Table, fragment, payload, table};
use super::*;
use crate::testbed::{Hog, Machine, SKB, SWAP, machine};

const CASES: u32 = 256;
const OPS: usize = 500;
/// Datagrams that are under way, and pieces of 8 bytes that each is cut into.
const DATAGRAMS: u16 = 7;
/// The first of them serve the VM: as many as there is room for.
const VMIO: u16 = 5;
const PIECES: usize = 4;
/// Datagrams and fragments that there is room for, and fragments left after an eviction.
const ROOM: usize = 5;
const HIGH: usize = 6;
const LOW: usize = 4;
const TIMEOUT: Duration = Duration::from_secs(30);

/// A datagram, as it must be.
#[derive(Clone)]
struct Model {
    id: u16,
    vmio: bool,
    dead: bool,
    born: Duration,
    /// From piece to piece.
    came: Vec<(usize, usize)>,
    total: Option<usize>,
}

struct World {
    m: Machine,
    hog: Option<Hog>,
    table: Table,
    /// The oldest first.
    models: Vec<Model>,
    now: Duration,
    evicted: u64,
    completed: u64,
}

impl World {
    fn new() -> World {
        let m = machine();
        m.flows.add(SWAP).unwrap();
        // The ladder's one, and what reassembly may hold.
        let holders = crate::RxHolders {
            reassembly: HIGH * SKB,
            ..crate::RxHolders::ring(0)
        };
        m.rx.set_limit(holders.limit(SKB), holders.budget(SKB, 0).frames())
            .unwrap();
        World {
            m,
            hog: None,
            table: table(ROOM, 12, HIGH * SKB),
            models: Vec::new(),
            now: Duration::ZERO,
            evicted: 0,
            completed: 0,
        }
    }

    fn held(&self) -> usize {
        self.models.iter().map(|model| model.came.len()).sum()
    }

    fn evict(&mut self, vmio: bool, own: Option<u16>) -> bool {
        let victim = |model: &Model| model.vmio == vmio && Some(model.id) != own;
        let at = self.models.iter().position(victim);
        self.evicted += u64::from(at.is_some());
        at.map(|at| self.models.remove(at)).is_some()
    }

    fn expire(&mut self) {
        self.models.retain(|model| self.now - model.born < TIMEOUT);
    }

    /// What must become of a fragment: whether its packet is complete.
    fn expect(
        &mut self,
        id: u16,
        (from, to): (usize, usize),
        vmio: bool,
        emergency: bool,
    ) -> Result<bool, ReassemblyError> {
        self.expire();
        let at = self.models.iter().position(|model| model.id == id);
        let serves = vmio || at.is_some_and(|at| self.models[at].vmio);
        if emergency && !serves {
            return Err(ReassemblyError::Emergency);
        }
        let last = to == PIECES;
        if let Some(at) = at {
            let model = &mut self.models[at];
            if model.came.contains(&(from, to)) {
                return Err(ReassemblyError::Duplicate);
            }
            let overlaps = model.came.iter().any(|&(a, b)| a < to && from < b);
            if model.dead || overlaps {
                (model.dead, model.came) = (true, Vec::new());
                return Err(ReassemblyError::Contradictory);
            }
            if serves && !model.vmio {
                let mut model = self.models.remove(at);
                (model.vmio, model.born) = (true, self.now);
                self.models.push(model);
            }
        } else if self.models.len() == ROOM
            && !self.evict(false, None)
            && !(serves && self.evict(true, None))
        {
            return Err(ReassemblyError::Full);
        }
        let own = at.map(|_| id);
        if self.held() >= HIGH {
            while self.held() >= LOW && self.evict(false, own) {}
            while serves && self.held() >= HIGH && self.evict(true, own) {}
        }
        if self.held() >= HIGH {
            self.models.retain(|model| model.id != id);
            return Err(ReassemblyError::Full);
        }
        if at.is_none() {
            self.models.push(Model {
                id,
                vmio,
                dead: false,
                born: self.now,
                came: Vec::new(),
                total: None,
            });
        }
        let at = self.models.iter().position(|model| model.id == id).unwrap();
        let model = &mut self.models[at];
        model.came.push((from, to));
        model.total = model.total.or(last.then_some(to));
        let received: usize = model.came.iter().map(|(from, to)| to - from).sum();
        if model.total == Some(received) {
            self.models.remove(at);
            self.completed += 1;
            return Ok(true);
        }
        Ok(false)
    }

    fn push(&mut self, id: u16, from: usize, len: usize) {
        let bytes = payload(id, PIECES * 8);
        let to = (from + len).min(PIECES);
        if (from, to) == (0, PIECES) {
            return; // it would be no fragment
        }
        let frame = fragment(id, from * 8, to < PIECES, &bytes[from * 8..to * 8]);
        let Ok(mut skb) = self.m.pool.alloc_rx() else {
            return;
        };
        skb.put(frame.len()).unwrap().copy_from_slice(&frame);
        // The first fragment has the ports that say so.
        let vmio = id < VMIO && from == 0;
        let expected = self.expect(id, (from, to), vmio, skb.is_emergency());
        match self.table.push(skb, vmio, self.now) {
            Ok(packet) => {
                assert_eq!(Ok(packet.is_some()), expected);
                let Some(packet) = packet else { return };
                assert_eq!(packet.payload(), bytes.len());
                assert_eq!(packet.is_vmio(), id < VMIO);
                let packet = packet.into_frags::<PIECES>().unwrap();
                let mut got = vec![0; bytes.len()];
                packet
                    .copy_bits(packet.len() - bytes.len(), &mut got)
                    .unwrap();
                assert_eq!(got, bytes, "the bytes that were cut up");
            }
            Err((error, _)) => assert_eq!(Err(error), expected),
        }
    }

    fn check(&self) {
        let stats = self.table.stats();
        assert!(stats.peak <= HIGH * SKB, "N4");
        assert_eq!(
            (stats.datagrams, stats.fragments),
            (self.models.len(), self.held())
        );
        assert_eq!(stats.bytes, stats.fragments * SKB);
        assert_eq!(
            (stats.completed, stats.evicted),
            (self.completed, self.evicted)
        );
        // What is held of the reserve is held here, and charged.
        assert!(self.m.rx.usage() <= stats.bytes, "N3");
        let hog = self.hog.as_ref().map_or(0, |hog| hog._buffers.len());
        assert_eq!(self.m.cache.stats().in_use, stats.fragments + hog);
        let oldest = self.models.iter().map(|model| model.born).min();
        assert_eq!(
            self.table.next_deadline(),
            oldest.map(|born| born + TIMEOUT)
        );
    }
}

fn run(ops: Vec<(u8, u16, usize, usize)>) {
    let mut world = World::new();
    for (op, id, from, len) in ops {
        match op {
            0..=12 => world.push(id, from, 1),
            13 | 14 => world.push(id, from, len),
            15 => {
                world.hog = match world.hog.take() {
                    Some(_) => None,
                    None => Some(world.m.exhaust()),
                };
            }
            _ => {
                world.now += TIMEOUT / 4;
                world.table.expire(world.now);
                world.expire();
            }
        }
        world.check();
    }
    world.table.clear();
    world.hog = None;
    world.m.assert_quiescent();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(CASES))]

    #[test]
    fn n4_packets_are_what_was_cut_up_and_no_more_is_held_than_may_be(
        ops in prop::collection::vec((0u8..17, 0..DATAGRAMS, 0..PIECES, 1..PIECES), OPS)
    ) {
        run(ops);
    }

    #[test]
    fn whatever_the_bytes_nothing_panics_and_nothing_is_lost(
        frames in prop::collection::vec(
            (any::<bool>(), any::<bool>(), prop::collection::vec(any::<u8>(), 0..96), any::<u8>()),
            250,
        )
    ) {
        let m = machine();
        let (tables, mut held) = ([table(4, 8, 6 * SKB), super::tests::over_ip(4, 8, 6 * SKB)], 0);
        for (vmio, mended, mut bytes, id) in frames {
            // Random bytes are hardly ever fragments: most of them are given the look of some.
            if mended && bytes.len() >= 34 {
                let length = (bytes.len() - 14) as u16;
                bytes[12..16].copy_from_slice(&[8, 0, 0x45, 0]);
                bytes[16..18].copy_from_slice(&length.to_be_bytes());
                bytes[18..20].copy_from_slice(&[0, id % 4]);
                bytes[20] &= 0x20;
                bytes[21] &= 0x07;
                bytes[23] = 17;
                bytes[26..34].fill(1);
                let even = 34 + (bytes.len() - 34) / 8 * 8;
                if bytes[20] != 0 {
                    bytes.truncate(even);
                    bytes[16..18].copy_from_slice(&((even - 14) as u16).to_be_bytes());
                }
            }
            for (table, bytes) in tables.iter().zip([&bytes[..], bytes.get(14..).unwrap_or(&[])]) {
                match table.push(m.skb(bytes), vmio, Duration::ZERO) {
                    Ok(Some(packet)) => held += packet.pieces(),
                    Ok(None) => held += 1,
                    Err((_, skb)) => prop_assert!(bytes.starts_with(skb.data())),
                }
                prop_assert!(table.stats().bytes <= 6 * SKB);
            }
        }
        prop_assert!(held > 0, "some of them were fragments");
        tables.iter().for_each(|table| table.clear());
        m.assert_quiescent();
    }
}
