//! Breadth-first search by replay.

use std::collections::HashMap;
use std::thread;

use super::choice::Choice;
use super::replay::{self, Seen};
use super::{Report, Setup};

/// Merges that are looked at a second time when the search is over.
const AUDITS: usize = 1_000;

/// A state, by the way on which it was reached first.
struct Node {
    digest: u64,
    parent: u32,
    choice: Option<Choice>,
}

/// An edge to follow: from a node, by a choice.
type Edge = (u32, Choice);

pub(super) struct Search<'a> {
    setup: &'a Setup,
    nodes: Vec<Node>,
    /// States that were reached.
    visited: HashMap<u64, u32>,
    /// States from which the goal was reached without faults, and which came next on that way.
    live: HashMap<u64, Option<u64>>,
    /// Where every edge leads.
    edges: HashMap<(u64, Choice), u64>,
    /// Edges that led to a state that was reached before.
    merges: Vec<Edge>,
    report: Report,
}

impl<'a> Search<'a> {
    pub(super) fn new(setup: &'a Setup) -> Self {
        Search {
            setup,
            nodes: Vec::new(),
            visited: HashMap::new(),
            live: HashMap::new(),
            edges: HashMap::new(),
            merges: Vec::new(),
            report: Report::new(setup),
        }
    }

    /// Searches until everything was seen, something is wrong, or there are `limit` states.
    pub(super) fn run(mut self, limit: usize) -> Report {
        let mut frontier = Vec::new();
        let root = replay::visit(self.setup, &[], &self.live, &self.visited);
        self.take(None, root, &mut frontier);
        self.report.exhausted = true;
        while self.report.counterexample.is_none() && !frontier.is_empty() {
            if self.nodes.len() >= limit {
                self.report.exhausted = false;
                break;
            }
            self.report.depth += 1;
            let level = core::mem::take(&mut frontier);
            let seen = self.in_parallel(&level, |search, edge| {
                let path = search.path(*edge);
                replay::visit(search.setup, &path, &search.live, &search.visited)
            });
            for (edge, seen) in level.into_iter().zip(seen) {
                self.report.transitions += 1;
                self.take(Some(edge), seen, &mut frontier);
                if self.report.counterexample.is_some() {
                    break;
                }
            }
        }
        self.report.states = self.nodes.len();
        if self.report.counterexample.is_none() {
            self.audit();
        }
        self.report
    }

    /// Notes what was seen behind an edge, or at the start.
    fn take(&mut self, edge: Option<Edge>, seen: Seen, frontier: &mut Vec<Edge>) {
        if let Some(what) = seen.wrong {
            let path = edge.map_or_else(Vec::new, |edge| self.path(edge));
            self.report.counterexample = Some(replay::explain(self.setup, &path, what));
            return;
        }
        for (number, digest) in seen.way.iter().enumerate() {
            let next = seen.way.get(number + 1).copied().or(seen.joins);
            self.live.entry(*digest).or_insert(next);
        }
        if let Some((parent, choice)) = edge {
            let from = self.nodes[parent as usize].digest;
            self.edges.insert((from, choice), seen.digest);
        }
        if self.visited.contains_key(&seen.digest) {
            self.merges.extend(edge);
            return;
        }
        let number = u32::try_from(self.nodes.len()).expect("memory ends before");
        self.visited.insert(seen.digest, number);
        self.nodes.push(Node {
            digest: seen.digest,
            parent: edge.map_or(0, |(parent, _)| parent),
            choice: edge.map(|(_, choice)| choice),
        });
        self.report.goals += usize::from(seen.goal);
        frontier.extend(seen.enabled.into_iter().map(|choice| (number, choice)));
    }

    /// The choices that lead to the end of an edge.
    fn path(&self, (mut node, last): Edge) -> Vec<Choice> {
        let mut path = vec![last];
        while let Node {
            parent,
            choice: Some(choice),
            ..
        } = self.nodes[node as usize]
        {
            path.push(choice);
            node = parent;
        }
        path.reverse();
        path
    }

    /// Does the same for each item, in order.
    fn in_parallel<T: Sync, R: Send>(
        &self,
        items: &[T],
        work: impl Fn(&Self, &T) -> R + Sync,
    ) -> Vec<R>
    where
        Self: Sync,
    {
        let threads = thread::available_parallelism().map_or(1, usize::from);
        let chunk = items.len().div_ceil(threads).max(1);
        let work = &work;
        thread::scope(|scope| {
            let spawn =
                |items: &'_ [T]| -> Vec<R> { items.iter().map(|item| work(self, item)).collect() };
            let handles: Vec<_> = items
                .chunks(chunk)
                .map(|items| scope.spawn(move || spawn(items)))
                .collect();
            let results = handles.into_iter();
            results
                .flat_map(|handle| handle.join().expect("replays catch what they throw"))
                .collect()
        })
    }

    /// Two ways led to what looks like one state: whether it also goes on as one.
    fn audit(&mut self) {
        let every = self.merges.len().div_ceil(AUDITS).max(1);
        let sample: Vec<Edge> = self.merges.iter().copied().step_by(every).collect();
        let agree = self.in_parallel(&sample, |search, edge| {
            let path = search.path(*edge);
            replay::agrees(search.setup, &path, &search.edges, &search.live)
        });
        self.report.audited = agree.len();
        self.report.disagree = agree.iter().filter(|agree| !**agree).count();
    }
}
