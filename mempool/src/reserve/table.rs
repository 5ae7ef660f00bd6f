//! The whole tree, as `/proc/reserve_info` showed it: a row for each node.

use core::fmt;

use lock_api::RawMutex;

use super::ReserveNode;

/// What a node of the reserve tree says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub struct ReserveStats {
    /// The name given when it was made.
    pub name: &'static str,
    /// Units that may be charged.
    pub limit: usize,
    /// Units charged now.
    pub usage: usize,
    /// The most units that were charged at once.
    pub peak: usize,
    /// Frames that the node and all below it ask for.
    pub pages: usize,
    /// Charges that were refused.
    pub failures: u64,
}

/// The nodes of a tree, each before its children and these in the order in which they were
/// connected: from [`ReserveNode::walk`]. Yields how deep below the first a node lies, and its
/// counters.
pub struct ReserveWalk<'a, 't, R> {
    at: Option<&'a ReserveNode<'t, R>>,
    depth: usize,
}

impl<'t, R: RawMutex> ReserveNode<'t, R> {
    /// A snapshot of the counters. O(1), without a lock: whoever holds it, this very thread even, is
    /// not waited for. Each number is right by itself; two may lie on both sides of a charge.
    pub fn stats(&self) -> ReserveStats {
        ReserveStats {
            name: self.name,
            limit: self.books.limit.get(),
            usage: self.books.usage.get(),
            peak: self.books.peak.get(),
            pages: self.books.pages.get(),
            failures: self.books.failures.get(),
        }
    }

    /// This node and all below it. The whole in O(nodes), without memory of its own.
    ///
    /// From one node to the next it takes the lock of one at a time, and none while its caller looks at
    /// a row. So each row is right when it is made, and sums need not be. While nodes are connected and
    /// disconnected, those that move, and what would have come after them, may be left out or be
    /// shown where they went.
    ///
    /// ```
    /// use mempool::ReserveNode;
    ///
    /// let (network, rx) = (<ReserveNode>::new("network"), ReserveNode::new("rx"));
    /// rx.set_limit(8 * 2016, 4)?;
    /// rx.connect(&network)?;
    /// let rows: Vec<_> = network.walk().map(|(depth, node)| (depth, node.name, node.pages)).collect();
    /// assert_eq!(rows, [(0, "network", 4), (1, "rx", 4)]);
    /// # Ok::<(), mempool::ReserveError>(())
    /// ```
    pub fn walk(&self) -> ReserveWalk<'_, 't, R> {
        ReserveWalk {
            at: Some(self),
            depth: 0,
        }
    }

    /// Appends this node to the children of `parent`.
    pub(super) fn link(&'t self, parent: &'t Self) {
        let mut last = {
            let mut state = parent.state.lock();
            match state.first_child {
                Some(first) => first,
                None => {
                    state.first_child = Some(self);
                    return;
                }
            }
        };
        loop {
            let mut state = last.state.lock();
            match state.next {
                Some(next) => last = next,
                None => {
                    state.next = Some(self);
                    return;
                }
            }
        }
    }

    /// Takes this node, which `next` follows, out of the children of `parent`. What it knows of the
    /// next it keeps until it is connected again: who walks past it finds the way.
    pub(super) fn unlink(&self, parent: &Self, next: Option<&'t Self>) {
        let mut at = {
            let mut state = parent.state.lock();
            match state.first_child {
                Some(first) if core::ptr::eq(first, self) => {
                    state.first_child = next;
                    return;
                }
                first => first,
            }
        };
        while let Some(sibling) = at {
            let mut state = sibling.state.lock();
            if state.next.is_some_and(|next| core::ptr::eq(next, self)) {
                state.next = next;
                return;
            }
            at = state.next;
        }
    }
}

impl<'a, 't: 'a, R: RawMutex> ReserveWalk<'a, 't, R> {
    /// The node after `node`: its first child, or the next child of the closest node above that has
    /// one.
    fn after(&mut self, mut node: &'a ReserveNode<'t, R>) -> Option<&'a ReserveNode<'t, R>> {
        let child = node.state.lock().first_child;
        if child.is_some() {
            self.depth += 1;
            return child;
        }
        while self.depth > 0 {
            let (next, parent) = {
                let state = node.state.lock();
                (state.next, state.parent)
            };
            if next.is_some() {
                return next;
            }
            node = parent?;
            self.depth -= 1;
        }
        None
    }
}

impl<'a, 't: 'a, R: RawMutex> Iterator for ReserveWalk<'a, 't, R> {
    type Item = (usize, ReserveStats);

    fn next(&mut self) -> Option<(usize, ReserveStats)> {
        let node = self.at?;
        let row = (self.depth, node.stats());
        self.at = self.after(node);
        Some(row)
    }
}

impl<R> fmt::Debug for ReserveWalk<'_, '_, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReserveWalk")
            .field("at", &self.at)
            .field("depth", &self.depth)
            .finish()
    }
}

/// A table of the node and all below it, indented by depth: `/proc/reserve_info`. No lock is held
/// while a line is written; see [`walk`](ReserveNode::walk).
impl<R: RawMutex> fmt::Display for ReserveNode<'_, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:<22} {:>12} {:>12} {:>12} {:>8} {:>10}",
            "reserve", "limit", "usage", "peak", "pages", "failures"
        )?;
        for (depth, node) in self.walk() {
            let indent = 2 * depth;
            let width = 22usize.saturating_sub(indent);
            write!(
                f,
                "\n{:indent$}{:<width$} {:>12} {:>12} {:>12} {:>8} {:>10}",
                "", node.name, node.limit, node.usage, node.peak, node.pages, node.failures
            )?;
        }
        Ok(())
    }
}

/// The same table, a node for each pair of braces.
#[cfg(feature = "defmt")]
impl<R: RawMutex> defmt::Format for ReserveNode<'_, R> {
    fn format(&self, f: defmt::Formatter<'_>) {
        for (depth, node) in self.walk() {
            defmt::write!(f, "{{{=usize} {}}}", depth, node);
        }
    }
}

#[cfg(test)]
mod tests;
