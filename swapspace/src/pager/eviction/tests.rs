//! What every policy owes, and what each is there for.

use alloc::vec;
use alloc::vec::Vec;

use proptest::prelude::*;

use super::*;

const PAGES: u32 = 24;

/// Pages without a pager.
struct Books {
    nodes: Vec<EvictionNode>,
    held: Vec<bool>,
    dirty: Vec<bool>,
    accessed: Vec<bool>,
}

impl Books {
    fn new() -> Self {
        let none = vec![false; PAGES as usize];
        Books {
            nodes: vec![EvictionNode::EMPTY; PAGES as usize],
            held: none.clone(),
            dirty: none.clone(),
            accessed: none,
        }
    }
}

impl EvictionPages for Books {
    fn node(&self, page: Page) -> &EvictionNode {
        &self.nodes[page.index()]
    }

    fn node_mut(&mut self, page: Page) -> &mut EvictionNode {
        &mut self.nodes[page.index()]
    }

    fn is_held(&self, page: Page) -> bool {
        self.held[page.index()]
    }

    fn is_dirty(&self, page: Page) -> bool {
        self.dirty[page.index()]
    }

    fn take_used(&mut self, page: Page) -> bool {
        core::mem::take(&mut self.accessed[page.index()])
    }
}

/// Where the model has a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Out,
    In,
    Lent,
    /// In memory, and not known to the policy.
    Recalled,
}

#[derive(Debug, Clone)]
enum Op {
    /// The page becomes resident, or what was lent comes back.
    Insert(u32),
    Lend(u32),
    /// What was lent, or recalled, has left memory.
    Evicted(u32),
    Recalled(u32),
    Forgotten(u32),
    Touch(u32),
    Accessed(u32),
    Demote(u32),
    Hold(u32, bool),
    Dirty(u32, bool),
    /// Looks for a victim, which goes or stays.
    Victim(usize, bool),
}

fn op() -> impl Strategy<Value = Op> {
    let page = 0..PAGES;
    prop_oneof![
        20 => page.clone().prop_map(Op::Insert),
        4 => page.clone().prop_map(Op::Lend),
        6 => page.clone().prop_map(Op::Evicted),
        4 => page.clone().prop_map(Op::Recalled),
        3 => page.clone().prop_map(Op::Forgotten),
        15 => page.clone().prop_map(Op::Touch),
        8 => page.clone().prop_map(Op::Accessed),
        3 => page.clone().prop_map(Op::Demote),
        8 => (page.clone(), any::<bool>()).prop_map(|(page, held)| Op::Hold(page, held)),
        6 => (page, any::<bool>()).prop_map(|(page, dirty)| Op::Dirty(page, dirty)),
        20 => (0usize..60, any::<bool>()).prop_map(|(looks, goes)| Op::Victim(looks, goes)),
    ]
}

struct World<E> {
    policy: E,
    books: Books,
    places: Vec<Place>,
}

impl<E: EvictionPolicy> World<E> {
    fn new(policy: E) -> Self {
        World {
            policy,
            books: Books::new(),
            places: vec![Place::Out; PAGES as usize],
        }
    }

    fn insert(&mut self, page: u32) {
        let arrival = match self.places[page as usize] {
            Place::In => return,
            Place::Out | Place::Recalled => Arrival::Faulted,
            Place::Lent => Arrival::Back,
        };
        self.policy.insert(&mut self.books, Page(page), arrival);
        self.places[page as usize] = Place::In;
    }

    fn evict(&mut self, page: u32) {
        if self.places[page as usize] == Place::In {
            self.policy.remove(&mut self.books, Page(page));
        }
        self.policy.evicted(&mut self.books, Page(page));
        self.places[page as usize] = Place::Out;
    }

    /// A page is used, faulted in and out as need be, with memory for `frames` of them.
    fn access(&mut self, page: u32, frames: usize) -> bool {
        let hit = self.places[page as usize] == Place::In;
        if !hit {
            if self.policy.len() == frames {
                let victim = self.victim(usize::MAX).expect("nothing is held");
                self.evict(victim.0);
            }
            self.insert(page);
        }
        self.policy.touch(&mut self.books, Page(page));
        hit
    }

    fn victim(&mut self, looks: usize) -> Option<Page> {
        let mut left = looks;
        let victim = self.policy.victim(&mut self.books, &mut left);
        assert!(left < looks || victim.is_none(), "a look costs a look");
        if let Some(page) = victim {
            assert_eq!(self.places[page.index()], Place::In, "{page:?} is not in");
            assert!(!self.books.held[page.index()], "{page:?} is held");
        }
        victim
    }

    fn movable(&self) -> usize {
        let pages = self.places.iter().zip(&self.books.held);
        pages.filter(|page| page == &(&Place::In, &false)).count()
    }

    fn rounds(&self) -> usize {
        E::ROUNDS * self.policy.len()
    }

    fn step(&mut self, op: &Op) {
        let at = |page: &u32| *page as usize;
        match op {
            Op::Insert(page) => self.insert(*page),
            Op::Lend(page) if self.places[at(page)] == Place::In => {
                self.policy.remove(&mut self.books, Page(*page));
                self.places[at(page)] = Place::Lent;
            }
            Op::Evicted(page) if matches!(self.places[at(page)], Place::Lent | Place::Recalled) => {
                self.evict(*page);
            }
            Op::Recalled(page) if self.places[at(page)] == Place::Out => {
                self.policy.recalled(&mut self.books, Page(*page));
                self.places[at(page)] = Place::Recalled;
                // Its links are the pager's now.
                let node = self.books.node_mut(Page(*page));
                (node.next, node.prev) = (77, 77);
            }
            Op::Forgotten(page) => {
                if self.places[at(page)] == Place::In {
                    self.policy.remove(&mut self.books, Page(*page));
                }
                self.policy.forgotten(&mut self.books, Page(*page));
                self.places[at(page)] = Place::Out;
            }
            Op::Touch(page) if matches!(self.places[at(page)], Place::In | Place::Lent) => {
                self.policy.touch(&mut self.books, Page(*page));
            }
            Op::Accessed(page) if self.places[at(page)] == Place::In => {
                self.books.accessed[at(page)] = true;
            }
            Op::Demote(page) if self.places[at(page)] == Place::In => {
                self.policy.demote(&mut self.books, Page(*page));
            }
            Op::Hold(page, held) => self.books.held[at(page)] = *held,
            Op::Dirty(page, dirty) => self.books.dirty[at(page)] = *dirty,
            Op::Victim(looks, goes) => {
                if let Some(page) = self.victim(*looks)
                    && *goes
                {
                    self.evict(page.0);
                }
            }
            _ => {}
        }
    }

    /// The policy and the model know the same pages.
    fn check(&self) {
        for from in [End::First, End::Last] {
            let mut seen = Vec::new();
            let none = self.policy.find(&self.books, from, |_, page| {
                seen.push(page.0);
                false
            });
            assert_eq!(none, None);
            assert_eq!(seen.len(), self.policy.len());
            seen.sort_unstable();
            let places = (0..).zip(&self.places);
            let resident = places.filter(|(_, place)| **place == Place::In);
            assert_eq!(seen, resident.map(|(page, _)| page).collect::<Vec<u32>>());
        }
    }

    fn run(mut self, ops: &[Op]) {
        for op in ops {
            self.step(op);
            self.check();
        }
        // Left in, each page that is not held has its turn.
        let mut named = vec![false; PAGES as usize];
        let mut looks = 2 * self.movable() * self.rounds();
        while let Some(page) = self.policy.victim(&mut self.books, &mut looks) {
            named[page.index()] = true;
        }
        for (page, named) in named.iter().enumerate() {
            let movable = self.places[page] == Place::In && !self.books.held[page];
            assert_eq!(*named, movable, "page {page}");
        }
        // Taken out, each is found in time.
        while self.movable() > 0 {
            let page = self.victim(self.rounds()).expect("some page can go");
            self.evict(page.0);
        }
        assert_eq!(self.victim(self.rounds()), None);
        self.check();
    }
}

/// In any state at all, the next victim is found within the rounds.
fn finds_in_time<E: EvictionPolicy>(policy: E, ops: &[Op]) {
    let mut world = World::new(policy);
    for op in ops {
        world.step(op);
    }
    let found = world.victim(world.rounds()).is_some();
    assert_eq!(found, world.movable() > 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn second_chance_keeps_the_contract(ops in prop::collection::vec(op(), 0..200)) {
        World::new(SecondChance::new()).run(&ops);
        finds_in_time(SecondChance::new(), &ops);
    }

    #[test]
    fn nru_keeps_the_contract(ops in prop::collection::vec(op(), 0..200)) {
        World::new(Nru::new()).run(&ops);
        finds_in_time(Nru::new(), &ops);
    }

    #[test]
    fn s3_fifo_keeps_the_contract(ops in prop::collection::vec(op(), 0..200)) {
        World::new(S3Fifo::new()).run(&ops);
        finds_in_time(S3Fifo::new(), &ops);
    }

    #[test]
    fn s3_fifo_remembers_as_many_pages_as_are_resident(ops in prop::collection::vec(op(), 0..300)) {
        let mut world = World::new(S3Fifo::new());
        let mut most = 0;
        for op in &ops {
            world.step(op);
            most = most.max(world.policy.len());
            assert!(world.policy.ghosts() <= most + 1);
        }
    }
}

/// The pages that go, in order, when all go.
fn order<E: EvictionPolicy>(world: &mut World<E>) -> Vec<u32> {
    let mut order = Vec::new();
    while let Some(page) = world.victim(world.rounds()) {
        world.evict(page.0);
        order.push(page.0);
    }
    order
}

#[test]
fn second_chance_passes_over_what_was_used_since_the_last_round() {
    let mut world = World::new(SecondChance::new());
    for page in [3, 0, 4] {
        world.insert(page);
    }
    // One round: all of them were used, for they were faulted in.
    assert_eq!(world.victim(3), None);
    assert_eq!(world.policy.spared(), 3);
    world.policy.touch(&mut world.books, Page(3));
    world.books.accessed[0] = true;
    world.insert(1);
    assert_eq!(order(&mut world), [4, 3, 0, 1]);
}

#[test]
fn nru_takes_unused_pages_first_and_of_those_the_clean_ones() {
    let mut world = World::new(Nru::new());
    for page in 0..6 {
        world.insert(page);
        world.books.dirty[page as usize] = page % 2 == 0;
    }
    assert_eq!(world.victim(6), None, "first they are sorted");
    world.policy.touch(&mut world.books, Page(1));
    world.books.accessed[2] = true;
    assert_eq!(order(&mut world), [3, 5, 0, 4, 1, 2]);
}

#[test]
fn s3_fifo_keeps_what_is_used_twice_from_a_scan() {
    let mut world = World::new(S3Fifo::new());
    for page in [0, 1, 0, 1] {
        world.access(page, 8);
    }
    for page in 2..PAGES {
        world.access(page, 8);
    }
    assert!(world.access(0, 8) && world.access(1, 8));

    // The clock loses them.
    let mut world = World::new(SecondChance::new());
    for page in [0, 1, 0, 1] {
        world.access(page, 8);
    }
    for page in 2..PAGES {
        world.access(page, 8);
    }
    assert!(!world.access(0, 8) && !world.access(1, 8));
}

#[test]
fn s3_fifo_takes_a_page_that_comes_back_soon_into_the_main_queue() {
    let mut world = World::new(S3Fifo::new());
    for page in 0..9 {
        world.access(page, 8);
    }
    // Page 0 made room for page 8, and comes back.
    assert!(!world.access(0, 8));
    for page in 9..PAGES {
        world.access(page, 8);
    }
    assert!(world.access(0, 8));
    // Forgotten, it is as new.
    world.step(&Op::Forgotten(0));
    world.access(0, 8);
    for page in 9..PAGES {
        world.access(page, 8);
    }
    assert!(!world.access(0, 8));
}

#[test]
fn s3_fifo_counts_the_uses_of_the_main_queue_up_to_three() {
    let mut world = World::new(S3Fifo::new());
    for page in [0, 0, 1, 1] {
        world.access(page, 8);
    }
    // Both move to the main queue, and page 0 is the first to be named there.
    assert_eq!(world.victim(3), Some(Page(0)));
    for _ in 0..5 {
        world.policy.touch(&mut world.books, Page(1));
    }
    // Three looks lower the count, the fourth would name it; those at page 0 name that.
    let named: Vec<_> = (0..5).map(|_| world.victim(60).unwrap().0).collect();
    assert_eq!(named, [0, 0, 0, 1, 0]);
}

#[test]
fn a_page_that_was_demoted_goes_first() {
    fn check<E: EvictionPolicy>(policy: E) {
        let mut world = World::new(policy);
        for page in 0..4 {
            world.insert(page);
            world.policy.touch(&mut world.books, Page(page));
            world.books.accessed[page as usize] = true;
        }
        world.policy.demote(&mut world.books, Page(2));
        assert_eq!(order(&mut world)[0], 2);
    }
    check(SecondChance::new());
    check(Nru::new());
    check(S3Fifo::new());
}
