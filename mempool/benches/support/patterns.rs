//! Patterns of use.

use core::hint::black_box;

use super::Subject;

/// Allocations of one call of [`Ready::run`].
pub const OPERATIONS: usize = 1024;
const BATCH: usize = 64;

/// The order of allocations and releases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pattern {
    /// One allocation, one release.
    Pair,
    /// 64 allocations, then 64 releases, the last one first.
    Lifo,
    /// 64 allocations, then 64 releases, the first one first.
    Fifo,
    /// 64 allocations, then 64 releases in a fixed random order.
    Random,
    /// As `Random`, with runs of 1, 2, 4 and 8 frames: 8, 4, 2 and 1 of 15.
    Mixed,
}

impl Pattern {
    pub const ALL: [Pattern; 5] = [
        Pattern::Pair,
        Pattern::Lifo,
        Pattern::Fifo,
        Pattern::Random,
        Pattern::Mixed,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Pattern::Pair => "pair",
            Pattern::Lifo => "lifo",
            Pattern::Fifo => "fifo",
            Pattern::Random => "random",
            Pattern::Mixed => "mixed",
        }
    }
}

/// A subject, warm, and room for what it hands out.
pub struct Ready<S: Subject> {
    pub subject: S,
    pattern: Pattern,
    held: Vec<Option<S::Handle>>,
    frees: [u8; BATCH],
    orders: [u8; BATCH],
}

impl<S: Subject> Ready<S> {
    /// Over `bytes` of memory; every path was run once.
    pub fn new(pattern: Pattern, bytes: usize) -> Self {
        Self::with(S::new(bytes), pattern)
    }

    /// With a subject that somebody prepared.
    pub fn with(subject: S, pattern: Pattern) -> Self {
        let mut random = Random(0x5eed);
        let mut frees = core::array::from_fn(|i| i as u8);
        match pattern {
            Pattern::Lifo => frees.reverse(),
            Pattern::Random | Pattern::Mixed => random.shuffle(&mut frees),
            Pattern::Pair | Pattern::Fifo => {}
        }
        let order = |random: &mut Random| match random.below(15) {
            0..8 => 0,
            8..12 => 1,
            12..14 => 2,
            _ => 3,
        };
        let orders = match pattern {
            Pattern::Mixed => core::array::from_fn(|_| order(&mut random)),
            _ => [0; BATCH],
        };
        let mut ready = Ready {
            subject,
            pattern,
            held: (0..BATCH).map(|_| None).collect(),
            frees,
            orders,
        };
        ready.run();
        ready
    }

    /// [`OPERATIONS`] allocations, and as many releases.
    #[inline(never)]
    pub fn run(&mut self) {
        if self.pattern == Pattern::Pair {
            for _ in 0..OPERATIONS {
                let handle = self.subject.alloc(0).expect("there is room for one");
                black_box(&handle);
                self.subject.free(handle);
            }
            return;
        }
        for _ in 0..OPERATIONS / BATCH {
            for (slot, order) in self.held.iter_mut().zip(self.orders) {
                *slot = self.subject.alloc(order);
            }
            black_box(&mut self.held);
            for at in self.frees {
                let handle = self.held[usize::from(at)].take();
                self.subject
                    .free(handle.expect("there is room for a batch"));
            }
        }
    }
}

/// Numbers that are the same in each run (xorshift).
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i + 1));
        }
    }
}
