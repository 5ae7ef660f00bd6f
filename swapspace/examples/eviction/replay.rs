//! A trace against a policy, and against the optimum.

use std::collections::{BTreeSet, HashMap};

use swapspace::{Arrival, EvictionNode, EvictionPages, EvictionPolicy, Page};

use super::trace::Trace;

/// The books of a pager that does nothing but evict.
#[derive(Debug, Clone, Copy, Default)]
struct Entry {
    node: EvictionNode,
    resident: bool,
    dirty: bool,
}

struct Books(Vec<Entry>);

impl Books {
    fn entry(&mut self, page: Page) -> &mut Entry {
        &mut self.0[page.0 as usize]
    }
}

impl EvictionPages for Books {
    fn node(&self, page: Page) -> &EvictionNode {
        &self.0[page.0 as usize].node
    }

    fn node_mut(&mut self, page: Page) -> &mut EvictionNode {
        &mut self.entry(page).node
    }

    fn is_held(&self, _page: Page) -> bool {
        false
    }

    fn is_dirty(&self, page: Page) -> bool {
        self.0[page.0 as usize].dirty
    }

    fn take_used(&mut self, _page: Page) -> bool {
        false
    }
}

/// Hits of a policy with so many frames.
pub(crate) fn replay<E: EvictionPolicy>(mut policy: E, trace: &Trace, frames: usize) -> usize {
    let pages = trace.accesses().iter().map(|access| access.page as usize);
    let mut books = Books(vec![
        Entry::default();
        pages.max().map_or(0, |last| last + 1)
    ]);
    let mut hits = 0;
    for access in trace.accesses() {
        let page = Page(access.page);
        if books.entry(page).resident {
            hits += 1;
        } else {
            if policy.len() == frames {
                let mut looks = usize::MAX;
                let victim = policy.victim(&mut books, &mut looks);
                let victim = victim.expect("nothing is held");
                policy.remove(&mut books, victim);
                policy.evicted(&mut books, victim);
                let entry = books.entry(victim);
                (entry.resident, entry.dirty) = (false, false);
            }
            policy.insert(&mut books, page, Arrival::Faulted);
            books.entry(page).resident = true;
        }
        policy.touch(&mut books, page);
        books.entry(page).dirty |= access.write;
    }
    hits
}

/// Hits of Belady's optimum: the page that is needed last goes.
pub(crate) fn optimum(trace: &Trace, frames: usize) -> usize {
    let accesses = trace.accesses();
    let mut next = vec![usize::MAX; accesses.len()];
    let mut seen = HashMap::new();
    for (at, access) in accesses.iter().enumerate().rev() {
        next[at] = seen.insert(access.page, at).unwrap_or(usize::MAX);
    }
    // Resident pages by when they are needed next, and the other way round.
    let mut by_need: BTreeSet<(usize, u32)> = BTreeSet::new();
    let mut resident: HashMap<u32, usize> = HashMap::new();
    let mut hits = 0;
    for (access, next) in accesses.iter().zip(next) {
        if let Some(need) = resident.remove(&access.page) {
            by_need.remove(&(need, access.page));
            hits += 1;
        } else if resident.len() == frames
            && let Some((_, page)) = by_need.pop_last()
        {
            resident.remove(&page);
        }
        resident.insert(access.page, next);
        by_need.insert((next, access.page));
    }
    hits
}
