//! The reserve tree against a table of parents, demands and charges.

use mempool::{Charge, ChargeError, Frame, Gfp, ReserveError, ReserveNode, Zone};
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::TestCaseError;

use crate::counted::drive;
use crate::memory::{FRAMES, MARKS, with_zone};

const NODES: usize = 6;

#[derive(Debug, Clone)]
enum Op {
    Connect(usize, usize),
    Disconnect(usize),
    SetLimit(usize, usize, usize),
    Charge(usize, usize),
    ChargeRest(usize),
    Uncharge(Index),
    Hog(usize),
    Unhog(usize),
}

fn ops() -> impl Strategy<Value = Op> {
    let node = || 0..NODES;
    let pages = prop_oneof![20 => 0..FRAMES / 3, 1 => Just(usize::MAX)];
    prop_oneof![
        4 => (node(), node()).prop_map(|(node, parent)| Op::Connect(node, parent)),
        1 => node().prop_map(Op::Disconnect),
        3 => (node(), 0..200usize, pages)
            .prop_map(|(node, limit, pages)| Op::SetLimit(node, limit, pages)),
        8 => (node(), 0..80usize).prop_map(|(node, units)| Op::Charge(node, units)),
        1 => node().prop_map(Op::ChargeRest),
        8 => any::<Index>().prop_map(Op::Uncharge),
        1 => (1..FRAMES).prop_map(Op::Hog),
        1 => (1..FRAMES).prop_map(Op::Unhog),
    ]
}

/// Node 0 is the root.
#[derive(Default)]
struct Model {
    parent: [Option<usize>; NODES],
    own: [usize; NODES],
    limit: [usize; NODES],
    usage: [usize; NODES],
    peak: [usize; NODES],
}

impl Model {
    fn within(&self, mut node: usize, top: usize) -> bool {
        while node != top {
            match self.parent[node] {
                Some(parent) => node = parent,
                None => return false,
            }
        }
        true
    }

    fn below(&self, top: usize) -> impl Iterator<Item = usize> + '_ {
        (0..NODES).filter(move |node| self.within(*node, top))
    }

    fn pages(&self, top: usize) -> usize {
        self.below(top).map(|node| self.own[node]).sum()
    }
}

struct World<'t, 'z> {
    zone: &'z Zone<'z>,
    nodes: &'t [ReserveNode<'t>; NODES],
    charges: Vec<(Charge<'t>, usize)>,
    hog: Vec<Frame<'z>>,
    model: Model,
}

impl World<'_, '_> {
    /// Frames by which the reserve could grow.
    fn room(&self) -> usize {
        let free = FRAMES - self.hog.len();
        free.saturating_sub(self.model.pages(0) + MARKS.min)
    }

    fn connect(&mut self, node: usize, parent: usize) -> Result<(), TestCaseError> {
        let model = &self.model;
        let backed = |pages: usize| !model.within(parent, 0) || pages == 0 || pages <= self.room();
        let expected = if node == 0 {
            Err("connected")
        } else if model.within(parent, node) {
            Err("cycle")
        } else if model.parent[node].is_some() {
            Err("connected")
        } else if !backed(model.pages(node)) {
            Err("backing")
        } else {
            Ok(())
        };
        let result = self.nodes[node].connect(&self.nodes[parent]).map_err(name);
        prop_assert_eq!(result, expected, "{} under {}", node, parent);
        if result.is_ok() {
            self.model.parent[node] = Some(parent);
        }
        Ok(())
    }

    /// Whether there was anything to do.
    fn disconnect(&mut self, node: usize) -> Result<bool, TestCaseError> {
        let model = &self.model;
        let charged = model.below(node).any(|below| model.usage[below] > 0);
        if node != 0 && charged && model.usage[node] == 0 {
            // What is below must be quiescent, says the documentation.
            return Ok(false);
        }
        let expected = match node {
            0 => Err("root"),
            _ if charged => Err("in use"),
            _ => Ok(()),
        };
        let result = self.nodes[node].disconnect().map_err(name);
        prop_assert_eq!(result, expected);
        if result.is_ok() {
            self.model.parent[node] = None;
        }
        Ok(true)
    }

    fn set_limit(&mut self, node: usize, limit: usize, pages: usize) -> Result<(), TestCaseError> {
        let model = &self.model;
        let more = pages.saturating_sub(model.own[node]);
        if pages > FRAMES && !model.within(node, 0) {
            // Allowed as long as nothing must back it, and of no interest here.
            return Ok(());
        }
        let expected = if model.usage[node] > limit {
            Err("in use")
        } else if model.within(node, 0) && more > 0 && more > self.room() {
            Err("backing")
        } else {
            Ok(())
        };
        let result = self.nodes[node].set_limit(limit, pages).map_err(name);
        prop_assert_eq!(result, expected, "{} units over {} frames", limit, pages);
        if result.is_ok() {
            (self.model.limit[node], self.model.own[node]) = (limit, pages);
        }
        Ok(())
    }

    fn charge(&mut self, node: usize, units: usize) -> Result<(), TestCaseError> {
        let model = &mut self.model;
        let expected = if !model.within(node, 0) {
            Err(ChargeError::Unbacked)
        } else if model.usage[node] + units > model.limit[node] {
            Err(ChargeError::OverLimit)
        } else {
            model.usage[node] += units;
            model.peak[node] = model.peak[node].max(model.usage[node]);
            Ok(units)
        };
        let result = self.nodes[node].charge(units);
        let charged = result.as_ref().map(Charge::units).map_err(|error| *error);
        prop_assert_eq!(charged, expected, "{} units", units);
        self.charges
            .extend(result.ok().map(|charge| (charge, node)));
        Ok(())
    }

    fn check(&self) -> Result<(), TestCaseError> {
        let model = &self.model;
        for (at, node) in self.nodes.iter().enumerate() {
            prop_assert_eq!(node.pages(), model.pages(at), "M5, {}", at);
            prop_assert_eq!(
                (node.limit(), node.usage()),
                (model.limit[at], model.usage[at])
            );
            prop_assert_eq!(node.peak(), model.peak[at]);
            prop_assert!(node.usage() <= node.limit(), "M6");
        }
        prop_assert_eq!(
            self.zone.stats().reserve,
            model.pages(0),
            "the root's, and no other's"
        );
        Ok(())
    }
}

fn name(error: ReserveError) -> &'static str {
    match error {
        ReserveError::Connected => "connected",
        ReserveError::Root => "root",
        ReserveError::Cycle => "cycle",
        ReserveError::InUse => "in use",
        ReserveError::Backing(_) => "backing",
        _ => "another",
    }
}

fn run(ops: Vec<Op>, zone: &Zone<'_>) -> Result<usize, TestCaseError> {
    let nodes: [ReserveNode<'_>; NODES] = core::array::from_fn(|at| match at {
        0 => ReserveNode::root("root", zone),
        _ => ReserveNode::new("node"),
    });
    let mut world = World {
        zone,
        nodes: &nodes,
        charges: Vec::new(),
        hog: Vec::new(),
        model: Model::default(),
    };
    let mut done = 0;
    for op in ops {
        done += 1;
        match op {
            Op::Connect(node, parent) => world.connect(node, parent)?,
            Op::Disconnect(node) => done -= usize::from(!world.disconnect(node)?),
            Op::SetLimit(node, limit, pages) => world.set_limit(node, limit, pages)?,
            Op::Charge(node, units) => world.charge(node, units)?,
            Op::ChargeRest(node) => {
                let rest = nodes[node].limit() - nodes[node].usage();
                world.charge(node, rest)?;
                world.charge(node, 1)?;
            }
            Op::Uncharge(which) if !world.charges.is_empty() => {
                let (charge, node) = world.charges.swap_remove(which.index(world.charges.len()));
                world.model.usage[node] -= charge.units();
            }
            Op::Uncharge(_) => done -= 1,
            Op::Hog(frames) => {
                let more = || zone.alloc(0, Gfp::ATOMIC).ok();
                world.hog.extend(core::iter::from_fn(more).take(frames));
            }
            Op::Unhog(frames) => {
                let left = world.hog.len().saturating_sub(frames);
                world.hog.truncate(left);
            }
        }
        world.check()?;
    }
    world.charges.clear();
    world.model.usage = [0; NODES];
    world.check()?;
    for node in 1..NODES {
        world.disconnect(node)?;
        world.check()?;
    }
    world.set_limit(0, 0, 0)?;
    world.check()?;
    prop_assert_eq!(zone.stats().reserve, 0);
    Ok(done)
}

#[test]
fn m5_m6_a_tree_does_what_a_table_of_parents_says() {
    drive("tree", ops(), |ops| with_zone(|zone, _, _| run(ops, zone)));
}
