//! The programs whose traces are replayed.
//!
//! Each really runs: its data lies in an array of numbers that notes the page of every element
//! that is read or written (512 elements to a page of 4 KiB), and each checks what it computed. Code,
//! stack and the programs' own variables are not in the traces. The only random numbers are those
//! of a fixed generator, so that the traces are the same wherever they are made.

use core::cmp::Reverse;

use super::trace::Trace;

/// Runs, and returns what it accessed.
type Program = fn() -> Trace;

/// Programs, by the name of their trace.
pub(crate) const PROGRAMS: [(&str, Program); 5] = [
    ("btree", btree),
    ("quicksort", quicksort),
    ("matrix", matrix),
    ("zipf", zipf),
    ("scan", scan),
];

/// Elements of 8 bytes in a page.
const PER_PAGE: usize = 512;

/// Memory that notes its accesses.
struct Memory {
    words: Vec<u64>,
    trace: Trace,
}

impl Memory {
    fn new(words: usize) -> Self {
        Memory {
            words: vec![0; words],
            trace: Trace::default(),
        }
    }

    fn get(&mut self, at: usize) -> u64 {
        self.trace.push((at / PER_PAGE) as u32, false);
        self.words[at]
    }

    fn set(&mut self, at: usize, value: u64) {
        self.trace.push((at / PER_PAGE) as u32, true);
        self.words[at] = value;
    }

    /// Forgets how the data came to be.
    fn loaded(&mut self) {
        self.trace = Trace::default();
    }
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    /// From 0 to 1.
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// Ranks 0, 1, 2, … with a frequency of 1 / (rank + 1).
struct Zipf(Vec<f64>);

impl Zipf {
    fn new(ranks: usize) -> Self {
        let mut sum = 0.0;
        let sums = (1..=ranks).map(|rank| {
            sum += 1.0 / rank as f64;
            sum
        });
        Zipf(sums.collect())
    }

    fn draw(&self, random: &mut Random) -> usize {
        let total = self.0[self.0.len() - 1];
        let at = random.unit() * total;
        self.0
            .partition_point(|sum| *sum < at)
            .min(self.0.len() - 1)
    }
}

/// A B+ tree with one node to a page: 200,000 keys in leaves of 255 pairs, two levels of inner nodes of 32
/// children. 12,000 operations: 70 % look-ups and 20 % updates of keys that are Zipf-distributed
/// over a shuffled order, 10 % range scans of three leaves.
fn btree() -> Trace {
    const KEYS: usize = 200_000;
    const PAIRS: usize = 255;
    const FAN_OUT: usize = 32;
    let leaves = KEYS.div_ceil(PAIRS);
    let inner = leaves.div_ceil(FAN_OUT);
    // Pages: the root, the inner nodes, the leaves.
    let mut memory = Memory::new((1 + inner + leaves) * PER_PAGE);
    let leaf_at = |leaf: usize| (1 + inner + leaf) * PER_PAGE;
    for key in 0..KEYS {
        let at = leaf_at(key / PAIRS) + 2 * (key % PAIRS);
        memory.set(at, key as u64);
        memory.set(at + 1, 7 * key as u64);
    }
    for leaf in 0..leaves {
        let at = (1 + leaf / FAN_OUT) * PER_PAGE + leaf % FAN_OUT;
        memory.set(at, (leaf * PAIRS) as u64);
    }
    for node in 0..inner {
        memory.set(node, (node * FAN_OUT * PAIRS) as u64);
    }
    memory.loaded();

    // The last entry of `len` from `base`, `step` words apart, that is not above the key.
    fn search(memory: &mut Memory, base: usize, step: usize, len: usize, key: u64) -> usize {
        let (mut low, mut high) = (0, len);
        while high - low > 1 {
            let middle = usize::midpoint(low, high);
            if memory.get(base + step * middle) <= key {
                low = middle;
            } else {
                high = middle;
            }
        }
        low
    }

    let mut random = Random(1);
    let mut order: Vec<usize> = (0..KEYS).collect();
    for at in (1..KEYS).rev() {
        order.swap(at, random.below(at + 1));
    }
    let zipf = Zipf::new(KEYS);
    for _ in 0..12_000 {
        let key = order[zipf.draw(&mut random)] as u64;
        let node = search(&mut memory, 0, 1, inner, key);
        let children = FAN_OUT.min(leaves - node * FAN_OUT);
        let leaf = node * FAN_OUT + search(&mut memory, (1 + node) * PER_PAGE, 1, children, key);
        let pairs = PAIRS.min(KEYS - leaf * PAIRS);
        let at = leaf_at(leaf) + 2 * search(&mut memory, leaf_at(leaf), 2, pairs, key);
        assert_eq!(memory.get(at), key, "the key is in the tree");
        match random.below(10) {
            0..7 => assert_eq!(memory.get(at + 1) % 7, 0),
            7..9 => {
                let value = memory.get(at + 1);
                memory.set(at + 1, value + 7);
            }
            _ => {
                for leaf in leaf..leaves.min(leaf + 3) {
                    memory.get(leaf_at(leaf));
                }
            }
        }
    }
    memory.trace
}

/// Quicksort (Hoare's partition about the middle element, the smaller part first) of 400,000 random
/// numbers.
fn quicksort() -> Trace {
    const NUMBERS: usize = 400_000;
    let mut memory = Memory::new(NUMBERS);
    let mut random = Random(2);
    for at in 0..NUMBERS {
        memory.set(at, random.next());
    }
    memory.loaded();
    let mut parts = vec![(0, NUMBERS)];
    while let Some((from, to)) = parts.pop() {
        if to - from < 2 {
            continue;
        }
        let pivot = memory.get(usize::midpoint(from, to - 1));
        let (mut low, mut high) = (from, to - 1);
        let split = loop {
            while memory.get(low) < pivot {
                low += 1;
            }
            while memory.get(high) > pivot {
                high -= 1;
            }
            if low >= high {
                break high + 1;
            }
            let (left, right) = (memory.get(low), memory.get(high));
            memory.set(low, right);
            memory.set(high, left);
            low += 1;
            high -= 1;
        };
        let mut halves = [(from, split), (split, to)];
        halves.sort_by_key(|(from, to)| Reverse(to - from));
        parts.extend(halves);
    }
    assert!(memory.words.is_sorted());
    memory.trace
}

/// The first three rows of C = A · B for matrices of 192 by 192: three loops, B by columns.
fn matrix() -> Trace {
    const N: usize = 192;
    let mut memory = Memory::new(3 * N * N);
    for at in 0..2 * N * N {
        memory.set(at, (at % 10) as u64);
    }
    memory.loaded();
    // The trace of every row is like that of the first: three rows tell it all.
    for row in 0..3 {
        for column in 0..N {
            let mut sum = 0;
            for k in 0..N {
                sum += memory.get(row * N + k) * memory.get(N * N + k * N + column);
            }
            memory.set(2 * N * N + row * N + column, sum);
        }
    }
    let expected: u64 = (0..N)
        .map(|k| memory.words[k] * memory.words[N * N + k * N])
        .sum();
    assert_eq!(memory.words[2 * N * N], expected);
    memory.trace
}

/// An open-addressing hash table of 2^18 slots, 130,000 keys: 25,000 look-ups, Zipf-distributed,
/// every eighth an update.
fn zipf() -> Trace {
    hash_table(25_000, None)
}

/// The same table with 15,000 look-ups, and a scan of a quarter of it after every 3,000.
fn scan() -> Trace {
    hash_table(15_000, Some(3_000))
}

fn hash_table(lookups: usize, scan_every: Option<usize>) -> Trace {
    const SLOTS: usize = 1 << 18;
    const KEYS: usize = 130_000;
    let mut memory = Memory::new(SLOTS);
    let mut random = Random(3);
    let home = |key: u64| Random(key).next() as usize % SLOTS;
    for key in 1..=KEYS as u64 {
        let mut at = home(key);
        while memory.get(at) != 0 {
            at = (at + 1) % SLOTS;
        }
        memory.set(at, key);
    }
    memory.loaded();
    let zipf = Zipf::new(KEYS);
    for number in 1..=lookups {
        let key = 1 + zipf.draw(&mut random) as u64;
        let mut at = home(key);
        while memory.get(at) != key {
            at = (at + 1) % SLOTS;
        }
        if number % 8 == 0 {
            memory.set(at, key);
        }
        if scan_every.is_some_and(|every| number % every == 0) {
            let from = random.below(4) * SLOTS / 4;
            let used = (from..from + SLOTS / 4).filter(|at| memory.get(*at) != 0);
            assert!(used.count() > KEYS / 5);
        }
    }
    memory.trace
}
