//! Any sequence of operations on a zone, its caches and its reserve tree, against a model that only
//! counts.
//!
//! Checked at every step: who is admitted (M1, M2), which memory is tagged (M3), who gets a tagged
//! object (M4), what the reserve holds and what is charged (M5, M6); that no two owners share a
//! byte; and in the end that every frame is back.
#![no_main]

use std::sync::atomic::{AtomicUsize, Ordering};

use arbitrary::{Arbitrary, Unstructured};
use libfuzzer_sys::fuzz_target;
use mempool::{
    AllocError, Buddy, Buffer, BufferCache, Cache, Charge, ChargeError, CpuId, CpuMagazines,
    CriticalSection, FRAME_SIZE, Frame, FrameAllocator, FrameEntry, Gfp, Magazines, MemallocToken,
    Object, ReserveError, ReserveNode, SingleTask, SizedCache, TaskContext, Watermarks, Zone,
};

const FRAMES: usize = 61;
const MARKS: Watermarks = Watermarks {
    min: 4,
    low: 6,
    high: 8,
};
const NODES: usize = 4;
/// Orders of the caches' slabs; the sizes are 2016, 96 and that of a `Box`.
const SLAB_ORDER: [u8; 3] = [0, 1, 0];

#[derive(Debug, Arbitrary)]
enum Op {
    TakeFrame {
        order: u8,
        flags: Flags,
    },
    GiveFrame(u8),
    TakeBuffer {
        large: bool,
        flags: Flags,
    },
    GiveBuffer(u8),
    TakeObject(Flags),
    GiveObject(u8),
    Shrink {
        large: bool,
    },
    Connect {
        node: u8,
        parent: u8,
    },
    Disconnect(u8),
    SetLimit {
        node: u8,
        limit: u16,
        pages: Pages,
    },
    Charge {
        node: u8,
        units: Units,
    },
    Uncharge(u8),
    EnterScope,
    LeaveScope,
    EnterInterrupt,
    LeaveInterrupt,
    /// On a CPU with magazines, or on the third, which has none.
    RunOn(u8),
}

/// Two CPUs park up to four objects each of either cache.
const CPUS: usize = 2;
const ROUNDS: usize = 2;
type Parked<'z, 'm> = SizedCache<'z, CriticalSection, Magazines<'m, &'m Cpu, ROUNDS>>;

#[derive(Default)]
struct Cpu(AtomicUsize);

impl CpuId for Cpu {
    fn cpu(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

#[derive(Debug, Clone, Copy, Arbitrary)]
struct Flags {
    wait: bool,
    high: bool,
    nomemalloc: bool,
    zero: bool,
    token: bool,
}

impl Flags {
    fn gfp(self, token: MemallocToken) -> Gfp {
        let none = Gfp::KERNEL.without(Gfp::WAIT);
        let on = |set, flag| if set { flag } else { none };
        let gfp = on(self.wait, Gfp::WAIT)
            | on(self.high, Gfp::HIGH)
            | on(self.nomemalloc, Gfp::NOMEMALLOC)
            | on(self.zero, Gfp::ZERO);
        if self.token { token.gfp(gfp) } else { gfp }
    }

    /// What of `min` must stay free: M2, written down once more.
    fn floor(self) -> usize {
        let half = if self.high {
            MARKS.min - MARKS.min / 2
        } else {
            MARKS.min
        };
        if self.wait { half } else { half - half / 4 }
    }
}

#[derive(Debug, Clone, Copy, Arbitrary)]
enum Pages {
    Few(u8),
    Absurd(usize),
}

#[derive(Debug, Clone, Copy, Arbitrary)]
enum Units {
    Few(u16),
    /// Exactly what is left.
    Rest,
    Absurd(usize),
}

/// What the reserve tree should hold.
#[derive(Default)]
struct Tree {
    parent: [Option<usize>; NODES],
    own: [usize; NODES],
    limit: [usize; NODES],
    usage: [usize; NODES],
}

impl Tree {
    /// Node 0 is the root.
    fn backed(&self, mut node: usize) -> bool {
        while let Some(parent) = self.parent[node] {
            node = parent;
        }
        node == 0
    }

    fn within(&self, mut node: usize, top: usize) -> bool {
        loop {
            if node == top {
                return true;
            }
            match self.parent[node] {
                Some(parent) => node = parent,
                None => return false,
            }
        }
    }

    fn pages(&self, top: usize) -> usize {
        (0..NODES)
            .filter(|&node| self.within(node, top))
            .map(|node| self.own[node])
            .sum()
    }

    fn charged_within(&self, top: usize) -> bool {
        (0..NODES).any(|node| self.within(node, top) && self.usage[node] > 0)
    }
}

fuzz_target!(|data: &[u8]| {
    let mut memory = vec![0u8; (FRAMES + 1) * FRAME_SIZE];
    let skip = memory.as_ptr().align_offset(FRAME_SIZE);
    let memory = &mut memory[skip..skip + FRAMES * FRAME_SIZE];
    let mut table = [FrameEntry::EMPTY; FRAMES];
    let source = <Buddy<'_>>::new(memory, &mut table).expect("sizes agree");
    let task = SingleTask::new();
    let zone = <Zone<'_>>::new(&source, &task, MARKS).expect("marks in order");
    let token = zone.claim_memalloc().expect("the first claim");
    assert!(zone.claim_memalloc().is_none());

    let nodes: [ReserveNode<'_>; NODES] = [
        ReserveNode::root("root", &zone),
        ReserveNode::new("a"),
        ReserveNode::new("b"),
        ReserveNode::new("c"),
    ];
    {
        let cpu = Cpu::default();
        let mut slots: [[CpuMagazines<ROUNDS>; CPUS]; 2] = Default::default();
        let [large, small] = &mut slots;
        let caches: [Parked<'_, '_>; 2] = [
            SizedCache::new("large", &zone, 2016, SLAB_ORDER[0])
                .expect("two to a frame")
                .with_magazines(Magazines::new(&cpu, large)),
            SizedCache::new("small", &zone, 96, SLAB_ORDER[1])
                .expect("many to a slab")
                .with_magazines(Magazines::new(&cpu, small)),
        ];
        let typed = <Cache<'_, Box<usize>>>::new("typed", &zone, SLAB_ORDER[2]).expect("small");
        let mut world = World {
            zone: &zone,
            task: &task,
            token,
            nodes: &nodes,
            caches: &caches,
            typed: &typed,
            frames: Vec::new(),
            buffers: Vec::new(),
            objects: Vec::new(),
            charges: Vec::new(),
            tree: Tree::default(),
            stamp: 0,
        };
        // Scopes end in the reverse order of their beginning, as guards do.
        let (mut scopes, mut interrupts) = (Vec::new(), Vec::new());
        // Not as a `Vec`, of which every second one ends after its first element.
        let mut data = Unstructured::new(data);
        while !data.is_empty()
            && let Ok(op) = Op::arbitrary(&mut data)
        {
            match op {
                Op::EnterScope => scopes.push(zone.memalloc(&token)),
                Op::LeaveScope => drop(scopes.pop()),
                Op::EnterInterrupt => interrupts.push(task.interrupt()),
                Op::LeaveInterrupt => drop(interrupts.pop()),
                Op::RunOn(on) => cpu.0.store(usize::from(on) % (CPUS + 1), Ordering::Relaxed),
                op => world.apply(op),
            }
            assert_eq!(task.memalloc(), !scopes.is_empty());
            assert_eq!(task.in_interrupt(), !interrupts.is_empty());
            world.check();
        }
        while scopes.pop().is_some() {}
        while interrupts.pop().is_some() {}
        world.settle();
    }
    let stats = zone.stats();
    assert_eq!(stats.free, FRAMES, "a frame was lost");
    assert_eq!(stats.reserve_in_use, 0);
    assert!(
        nodes.iter().all(|node| node.usage() == 0),
        "a charge was lost"
    );
});

struct World<'c, 'z, 't, 'm> {
    zone: &'z Zone<'z>,
    task: &'z SingleTask,
    token: MemallocToken,
    nodes: &'t [ReserveNode<'t>; NODES],
    caches: &'c [Parked<'z, 'm>; 2],
    typed: &'c Cache<'z, Box<usize>>,
    frames: Vec<(Frame<'z>, u8)>,
    buffers: Vec<(Buffer<'c>, u8)>,
    objects: Vec<(Object<'c, Box<usize>>, usize)>,
    charges: Vec<(Charge<'t>, usize)>,
    tree: Tree,
    /// What the next owner writes into its memory.
    stamp: u8,
}

impl World<'_, '_, '_, '_> {
    fn apply(&mut self, op: Op) {
        match op {
            Op::TakeFrame { order, flags } => self.take_frame(order % 14, flags),
            Op::GiveFrame(which) => {
                if let Some((frame, stamp)) = take_out(&mut self.frames, which) {
                    assert!(
                        frame.iter().all(|&b| b == stamp),
                        "somebody else wrote here"
                    );
                }
            }
            Op::TakeBuffer { large, flags } => self.take_buffer(usize::from(!large), flags),
            Op::GiveBuffer(which) => {
                if let Some((buffer, stamp)) = take_out(&mut self.buffers, which) {
                    assert!(
                        buffer.iter().all(|&b| b == stamp),
                        "somebody else wrote here"
                    );
                }
            }
            Op::TakeObject(flags) => self.take_object(flags),
            Op::GiveObject(which) => {
                if let Some((object, value)) = take_out(&mut self.objects, which) {
                    assert_eq!(**object, value);
                }
            }
            Op::Shrink { large } => {
                let cache = usize::from(!large);
                let before = self.zone.stats().free;
                let freed = self.caches[cache].shrink();
                assert!(freed.is_multiple_of(1 << SLAB_ORDER[cache]));
                assert_eq!(self.caches[cache].stats().parked, 0);
                assert_eq!(self.zone.stats().free, before + freed);
            }
            Op::Connect { node, parent } => {
                self.connect(usize::from(node) % NODES, usize::from(parent) % NODES);
            }
            Op::Disconnect(node) => self.disconnect(usize::from(node) % NODES),
            Op::SetLimit { node, limit, pages } => {
                let pages = match pages {
                    Pages::Few(few) => usize::from(few) % FRAMES,
                    Pages::Absurd(absurd) => absurd,
                };
                self.set_limit(usize::from(node) % NODES, usize::from(limit), pages);
            }
            Op::Charge { node, units } => self.charge(usize::from(node) % NODES, units),
            Op::Uncharge(which) => {
                if let Some((charge, node)) = take_out(&mut self.charges, which) {
                    self.tree.usage[node] -= charge.units();
                }
            }
            Op::EnterScope
            | Op::LeaveScope
            | Op::EnterInterrupt
            | Op::LeaveInterrupt
            | Op::RunOn(_) => {
                unreachable!("handled by the caller, who holds the guards")
            }
        }
    }

    /// M1.
    fn entitled(&self, flags: Flags) -> bool {
        let scope = self.task.memalloc() && !self.task.in_interrupt();
        !flags.nomemalloc && (flags.token || scope)
    }

    /// M2: whether so many frames may be taken without the reserve.
    fn ordinary(&self, flags: Flags, frames: usize) -> bool {
        self.zone.stats().free >= self.tree.pages(0) + flags.floor() + frames
    }

    fn take_frame(&mut self, order: u8, flags: Flags) {
        let needed = 1 << order;
        let free = self.zone.stats().free;
        let (ordinary, entitled) = (self.ordinary(flags, needed), self.entitled(flags));
        match self.zone.alloc(order, flags.gfp(self.token)) {
            Ok(mut frame) => {
                assert!(
                    ordinary || entitled,
                    "M2: {flags:?} took {needed} of {free}"
                );
                assert_eq!(frame.from_reserve(), !ordinary, "M3");
                assert_eq!(frame.len(), FRAME_SIZE << order);
                assert!(!flags.zero || frame.iter().all(|&b| b == 0), "not zeroed");
                let stamp = self.next_stamp();
                frame.fill(stamp);
                self.frames.push((frame, stamp));
            }
            Err(AllocError::BadOrder) => assert!(order > <Buddy<'_>>::MAX_ORDER),
            Err(_) => {
                let refused = !ordinary && !entitled;
                // There may be enough frames, but not next to each other.
                assert!(
                    refused || order > 0 || free == 0,
                    "{flags:?} refused with {free} free"
                );
            }
        }
    }

    fn take_buffer(&mut self, cache: usize, flags: Flags) {
        let cache = &self.caches[cache];
        let gfp = flags.gfp(self.token);
        match cache.alloc(gfp) {
            Ok(mut buffer) => {
                self.check_tag(buffer.from_reserve(), flags);
                if buffer.from_reserve() {
                    // M3, M6: ordinary memory was tried, and there is none.
                    assert!(cache.alloc(gfp | Gfp::NOMEMALLOC).is_err(), "M3");
                    assert_eq!(cache.stats().parked, 0, "M3");
                }
                assert_eq!(buffer.len(), cache.object_size());
                let stamp = self.next_stamp();
                buffer.fill(stamp);
                self.buffers.push((buffer, stamp));
            }
            Err(error) => assert_eq!(error, AllocError::Exhausted),
        }
    }

    fn take_object(&mut self, flags: Flags) {
        let value = usize::from(self.next_stamp());
        match self.typed.alloc(flags.gfp(self.token), Box::new(value)) {
            Ok(object) => {
                self.check_tag(object.from_reserve(), flags);
                self.objects.push((object, value));
            }
            Err((error, back)) => {
                assert_eq!((error, *back), (AllocError::Exhausted, value));
            }
        }
    }

    fn check_tag(&self, from_reserve: bool, flags: Flags) {
        assert!(
            !from_reserve || self.entitled(flags),
            "M4: {flags:?} got a reserve object"
        );
    }

    fn connect(&mut self, node: usize, parent: usize) {
        let room = self.room();
        let pages = self.tree.pages(node);
        let result = self.nodes[node].connect(&self.nodes[parent]);
        let expected = if node == 0 {
            Err("connected")
        } else if self.tree.within(parent, node) {
            Err("cycle")
        } else if self.tree.parent[node].is_some() {
            Err("connected")
        } else if self.tree.backed(parent) && pages > room {
            Err("backing")
        } else {
            self.tree.parent[node] = Some(parent);
            Ok(())
        };
        assert_eq!(result.map_err(name), expected);
    }

    fn disconnect(&mut self, node: usize) {
        // What is below must be quiescent, says the documentation.
        if self.tree.usage[node] == 0 && self.tree.charged_within(node) {
            return;
        }
        let expected = if node == 0 {
            Err("root")
        } else if self.tree.usage[node] > 0 {
            Err("in use")
        } else {
            self.tree.parent[node] = None;
            Ok(())
        };
        assert_eq!(self.nodes[node].disconnect().map_err(name), expected);
    }

    fn set_limit(&mut self, node: usize, limit: usize, pages: usize) {
        let room = self.room();
        let more = pages.saturating_sub(self.tree.own[node]);
        let expected = if self.tree.usage[node] > limit {
            Err("in use")
        } else if self.tree.backed(node) && more > room {
            Err("backing")
        } else if pages > FRAMES {
            // Allowed as long as nothing must back it; of no interest, and sums would overflow.
            return;
        } else {
            self.tree.own[node] = pages;
            self.tree.limit[node] = limit;
            Ok(())
        };
        assert_eq!(
            self.nodes[node].set_limit(limit, pages).map_err(name),
            expected
        );
    }

    /// Frames by which the reserve can still grow.
    fn room(&self) -> usize {
        self.zone
            .stats()
            .free
            .saturating_sub(self.tree.pages(0) + MARKS.min)
    }

    fn charge(&mut self, node: usize, units: Units) {
        let left = self.tree.limit[node] - self.tree.usage[node];
        let units = match units {
            Units::Few(few) => usize::from(few),
            Units::Rest => left,
            Units::Absurd(absurd) => absurd,
        };
        match self.nodes[node].charge(units) {
            Ok(charge) => {
                assert!(self.tree.backed(node) && units <= left, "M5, M6");
                assert_eq!(charge.units(), units);
                self.tree.usage[node] += units;
                self.charges.push((charge, node));
            }
            Err(ChargeError::Unbacked) => assert!(!self.tree.backed(node)),
            Err(_) => assert!(units > left, "a charge of {units} refused with {left} left"),
        }
    }

    fn next_stamp(&mut self) -> u8 {
        self.stamp = self.stamp.wrapping_add(1).max(1);
        self.stamp
    }

    fn check(&self) {
        let stats = self.zone.stats();
        let held: usize = self
            .frames
            .iter()
            .map(|(frame, _)| 1 << frame.order())
            .sum();
        let caches = [
            self.caches[0].stats(),
            self.caches[1].stats(),
            self.typed.stats(),
        ];
        let slabs: usize = caches
            .iter()
            .zip(SLAB_ORDER)
            .map(|(c, o)| (c.slabs + c.reserve_slabs) << o)
            .sum();
        assert_eq!(
            stats.free + held + slabs,
            FRAMES,
            "a frame is lost or counted twice"
        );
        assert!(stats.min_free <= stats.free);

        let tagged: usize = self
            .frames
            .iter()
            .filter(|(f, _)| f.from_reserve())
            .map(|(f, _)| 1 << f.order())
            .sum();
        let tagged_slabs: usize = caches
            .iter()
            .zip(SLAB_ORDER)
            .map(|(c, o)| c.reserve_slabs << o)
            .sum();
        assert_eq!(stats.reserve_in_use, tagged + tagged_slabs, "M3");
        assert_eq!(caches[2].in_use, self.objects.len());
        assert_eq!(caches[0].in_use + caches[1].in_use, self.buffers.len());

        let level = self.zone.level();
        assert_eq!((level.free, level.reserve), (stats.free, stats.reserve));
        assert_eq!(stats.reserve, self.tree.pages(0), "M5");
        for (i, node) in self.nodes.iter().enumerate() {
            assert_eq!(
                (node.usage(), node.limit()),
                (self.tree.usage[i], self.tree.limit[i])
            );
            assert_eq!(node.pages(), self.tree.pages(i), "M5");
            assert!(node.peak() >= node.usage());
        }
    }

    /// Gives everything back.
    fn settle(&mut self) {
        for _ in 0..self.frames.len() {
            self.apply(Op::GiveFrame(0));
        }
        for _ in 0..self.buffers.len() {
            self.apply(Op::GiveBuffer(0));
        }
        for _ in 0..self.objects.len() {
            self.apply(Op::GiveObject(0));
        }
        for _ in 0..self.charges.len() {
            self.apply(Op::Uncharge(0));
        }
        self.check();
    }
}

fn take_out<T>(held: &mut Vec<T>, which: u8) -> Option<T> {
    (!held.is_empty()).then(|| held.swap_remove(usize::from(which) % held.len()))
}

fn name(error: ReserveError) -> &'static str {
    match error {
        ReserveError::Connected => "connected",
        ReserveError::Root => "root",
        ReserveError::Cycle => "cycle",
        ReserveError::InUse => "in use",
        ReserveError::Backing(_) => "backing",
        _ => "unknown",
    }
}
