//! Who gets memory for work that frees memory, while ordinary demand is without bounds?
//!
//! `cargo bench -p mempool --bench emergency`; docs/BENCHMARKS.md says what the figures mean. It ends
//! with an error if one of ours was refused.
//!
//! In each step whoever wants ordinary memory takes all that there is. Now and then an urgent request
//! comes, such as for the buffer of a write to swap; it asks again in each step until it is served, and
//! gives its memory back some steps later.

#[path = "support/peers.rs"]
mod peers;
mod support;

use std::collections::VecDeque;

use mempool::{
    Budget, Buffer, BufferCache, Charge, FRAME_SIZE, Frame, Gfp, MemallocToken, ReserveBacking,
    ReserveNode, SizedCache, Zone,
};
use support::memory::leak;
use support::ours::{Unlocked, zone};
use support::patterns::Random;
use support::{BUFFER, Subject};

const BYTES: usize = 4 << 20;
const STEPS: usize = 20_000;
/// An urgent request comes every so many steps …
const EVERY: usize = 10;
/// … keeps its memory for so many …
const KEPT: usize = 100;
/// … and gives up after so many.
const PATIENCE: usize = 1000;
/// Urgent requests at once: what a reserve has to be computed for.
const URGENT: usize = KEPT.div_ceil(EVERY) + 1;
/// Of ordinary requests that come between two attempts of an urgent one.
const CROWD: usize = 8;

/// When ordinary memory comes back.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Scenario {
    /// In one step of four somebody gives one object back. All ask for it, in random order.
    Churn,
    /// When an urgent request was served, and so a page was written: what the reserve is there for.
    WriteOut,
}

trait Contender: Subject {
    /// An allocation of work that frees memory. The peers know of no difference.
    fn urgent(&mut self) -> Option<Self::Handle> {
        self.alloc(0)
    }
}

impl<H: peers::Heap> Contender for peers::Buffers<H> {}
impl<H: peers::Heap> Contender for peers::Pages<H> {}
impl Contender for peers::BuddyFrames {}

/// Packet buffers over a reserve for [`URGENT`] of them.
struct Buffers {
    cache: &'static SizedCache<'static, Unlocked>,
    node: &'static ReserveNode<'static>,
    token: MemallocToken,
}

impl Subject for Buffers {
    /// The buffer is given back before its charge.
    type Handle = (Buffer<'static>, Option<Charge<'static>>);

    fn new(bytes: usize) -> Self {
        const BUDGET: Budget = Budget::objects(URGENT, BUFFER, 0);
        let zone = zone::<Unlocked>(bytes);
        let root: &'static ReserveNode<'static> = leak(ReserveNode::root("total", zone));
        let node: &'static ReserveNode<'static> = leak(ReserveNode::new("urgent"));
        node.set_limit(URGENT * BUFFER, BUDGET.frames())
            .expect("a limit");
        node.connect(root).expect("frames enough");
        Buffers {
            cache: leak(SizedCache::new("buffers", zone, BUFFER, 0).expect("they fit")),
            node,
            token: zone.claim_memalloc().expect("the first claim"),
        }
    }

    fn alloc(&mut self, _: u8) -> Option<Self::Handle> {
        Some((self.cache.alloc(Gfp::ATOMIC).ok()?, None))
    }

    fn free(&mut self, (buffer, charge): Self::Handle) {
        drop(buffer);
        drop(charge);
    }
}

impl Contender for Buffers {
    fn urgent(&mut self) -> Option<Self::Handle> {
        let charge = self.node.charge(BUFFER).ok()?;
        let buffer = self.cache.alloc(self.token.gfp(Gfp::ATOMIC)).ok()?;
        let charge = buffer.from_reserve().then_some(charge);
        Some((buffer, charge))
    }
}

/// Frames over a reserve for [`URGENT`] of them.
struct Frames {
    zone: &'static Zone<'static, Unlocked>,
    token: MemallocToken,
}

impl Subject for Frames {
    type Handle = Frame<'static>;

    fn new(bytes: usize) -> Self {
        let zone = zone::<Unlocked>(bytes);
        zone.grow(URGENT).expect("frames enough");
        let token = zone.claim_memalloc().expect("the first claim");
        Frames { zone, token }
    }

    fn alloc(&mut self, _: u8) -> Option<Self::Handle> {
        self.zone.alloc(0, Gfp::ATOMIC).ok()
    }

    fn free(&mut self, handle: Self::Handle) {
        drop(handle);
    }
}

impl Contender for Frames {
    fn urgent(&mut self) -> Option<Self::Handle> {
        self.zone.alloc(0, self.token.gfp(Gfp::ATOMIC)).ok()
    }
}

/// What became of the urgent requests.
#[derive(Default)]
struct Outcome {
    asked: usize,
    at_once: usize,
    gave_up: usize,
    /// Steps that each waited.
    waits: Vec<usize>,
}

fn contend<C: Contender>(scenario: Scenario) -> Outcome {
    let mut subject = C::new(BYTES);
    let mut random = Random(0x5eed);
    let mut held: Vec<C::Handle> = Vec::new();
    let mut urgent: VecDeque<(usize, C::Handle)> = VecDeque::new();
    let mut waiting: VecDeque<usize> = VecDeque::new();
    let mut outcome = Outcome::default();
    for step in 0..STEPS {
        while let Some(handle) = subject.alloc(0) {
            held.push(handle);
        }
        if scenario == Scenario::Churn && random.below(4) == 0 {
            let handle = held.swap_remove(random.below(held.len()));
            subject.free(handle);
        }
        if urgent.front().is_some_and(|(until, _)| *until <= step) {
            let (_, handle) = urgent.pop_front().expect("just seen");
            subject.free(handle);
        }
        if step % EVERY == 0 && waiting.len() + urgent.len() < URGENT {
            waiting.push_back(step);
            outcome.asked += 1;
        }
        if waiting.front().is_some_and(|since| step - since > PATIENCE) {
            waiting.pop_front();
            outcome.gave_up += 1;
        }
        // One attempt of the urgent, somewhere in the crowd.
        let turn = random.below(CROWD);
        for request in 0..CROWD {
            if request != turn {
                held.extend(subject.alloc(0));
            } else if let Some(&since) = waiting.front()
                && let Some(handle) = subject.urgent()
            {
                waiting.pop_front();
                urgent.push_back((step + KEPT, handle));
                outcome.at_once += usize::from(since == step);
                outcome.waits.push(step - since);
                if scenario == Scenario::WriteOut {
                    let page = held.swap_remove(random.below(held.len()));
                    subject.free(page);
                }
            }
        }
    }
    // Those that still wait have not waited too long yet.
    outcome.asked -= waiting.len();
    outcome
}

/// Prints a row; whether every request was served at once.
fn report<C: Contender>(level: &str, name: &str) -> bool {
    let mut all = true;
    for (label, scenario) in [
        ("churn", Scenario::Churn),
        ("write-out", Scenario::WriteOut),
    ] {
        let mut outcome = contend::<C>(scenario);
        outcome.waits.sort_unstable();
        let served = outcome.asked - outcome.gave_up;
        let percent = |part: usize| 100.0 * part as f64 / outcome.asked as f64;
        let wait = |q: f64| match outcome.waits.len() {
            0 => String::new(),
            n => outcome.waits[((n - 1) as f64 * q) as usize].to_string(),
        };
        println!(
            "{level},{name},{label},{},{:.2},{:.2},{},{},{}",
            outcome.asked,
            percent(outcome.at_once),
            percent(served),
            wait(0.5),
            wait(0.99),
            wait(1.0),
        );
        all &= outcome.asked > 0 && outcome.at_once == outcome.asked;
    }
    all
}

fn main() {
    assert_eq!(FRAME_SIZE, 4096, "the frames of the peers");
    println!(
        "level,subject,scenario,urgent,at_once_percent,served_percent,wait_p50,wait_p99,wait_max"
    );
    let buffers = report::<Buffers>("buffer", "mempool");
    report::<peers::Buffers<peers::TalcHeap>>("buffer", "talc");
    report::<peers::Buffers<peers::BuddyHeap>>("buffer", "buddy_system_allocator");
    report::<peers::Buffers<peers::ListHeap>>("buffer", "linked_list_allocator");
    report::<peers::Buffers<peers::TlsfHeap>>("buffer", "rlsf");
    report::<peers::Buffers<peers::SlabHeap>>("buffer", "slabmalloc");
    let frames = report::<Frames>("frame", "mempool");
    report::<peers::BuddyFrames>("frame", "buddy_system_allocator_frames");
    report::<peers::Pages<peers::BuddyHeap>>("frame", "buddy_system_allocator");
    assert!(buffers && frames, "an urgent request of ours had to wait");
}
