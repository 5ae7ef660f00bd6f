//! Readahead: which pages will be wanted next, and how far ahead it is worth to read.
//!
//! It looks at the faults and names pages; whether they are read is decided elsewhere, and is a
//! question of memory and credits only. Two things are tried. A **stride** that most of the last
//! faults have in common, found by majority vote (Boyer and Moore; as in Leap: Al Maruf and
//! Chowdhury, "Effectively prefetching remote memory with Leap", ATC 2020), first among the last
//! few, then among more. Where there is none, the **cluster**: the pages that were written together
//! with the faulting one and lie in the slots around it (Linux's `swapin_readahead`).
//!
//! The window grows while what was read ahead is used and shrinks while it is evicted unused; at
//! zero only a stride opens it again.

use core::ops::Range;

use super::Page;
use super::requests::PageList;
use crate::CLUSTER_FRAMES;

/// Faults that are looked at.
const HISTORY: usize = 16;
/// Of these, so many at first.
const FEWEST: usize = 4;
/// Pages ahead, at first and at most.
const FIRST_WINDOW: usize = 2;
const WINDOW: usize = CLUSTER_FRAMES;

/// What the pager knows of a range of pages, because it was [told](crate::Pager::advise).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Hint {
    #[default]
    None,
    /// The next pages will be wanted: the window is open from the start.
    Sequential,
    /// Nothing can be foretold.
    Random,
}

#[derive(Debug)]
pub(super) struct Readahead {
    on: bool,
    /// Distances from one fault to the next, the last one last.
    strides: heapless::Vec<i64, HISTORY>,
    last: Option<Page>,
    window: usize,
    /// The stride that is followed, and how many planned pages of it were not reached yet.
    stride: Option<i64>,
    runway: usize,
    /// Pages used, and evicted unused, since the window was set.
    hits: usize,
    wasted: usize,
    /// Pages that are to be read.
    plan: PageList,
    /// Pages that somebody asked for, read after those.
    asked: Range<u32>,
}

impl Readahead {
    pub(super) const fn new() -> Self {
        Readahead {
            on: false,
            strides: heapless::Vec::new(),
            last: None,
            window: FIRST_WINDOW,
            stride: None,
            runway: 0,
            hits: 0,
            wasted: 0,
            plan: PageList::new(),
            asked: 0..0,
        }
    }

    /// Begins afresh, or plans nothing any more.
    pub(super) fn switch(&mut self, on: bool) {
        let asked = self.asked.clone();
        *self = Readahead::new();
        (self.on, self.asked) = (on, asked);
    }

    /// A page that was read ahead was wanted.
    pub(super) fn hit(&mut self) {
        self.hits += 1;
    }

    /// A page that was read ahead was not wanted.
    pub(super) fn wasted(&mut self) {
        self.wasted += 1;
    }

    /// A fault found its page in the store, or read ahead: plans anew. `cluster` names the pages
    /// that were written together with it. O(1).
    pub(super) fn faulted(
        &mut self,
        page: Page,
        hint: Hint,
        cluster: impl FnOnce() -> PageList,
        pages: usize,
    ) {
        if !self.on {
            return;
        }
        if let Some(last) = self.last.replace(page) {
            if self.strides.is_full() {
                self.strides.remove(0);
            }
            let stride = i64::from(page.0) - i64::from(last.0);
            let _ = self.strides.push(stride); // there is room now
            self.runway = match self.stride {
                Some(expected) if expected == stride => self.runway.saturating_sub(1),
                _ => 0,
            };
        }
        if 2 * self.runway > self.window {
            return;
        }
        (self.runway, self.stride) = (0, None);
        self.plan.clear();
        let (stride, window) = match hint {
            Hint::Random => return,
            Hint::Sequential => (Some(1), WINDOW),
            Hint::None => {
                let stride = self.trend();
                (stride, self.adapt(stride.is_some()))
            }
        };
        let ahead = |steps: usize, stride: i64| {
            let number = i64::from(page.0) + stride * steps as i64;
            let number = u32::try_from(number).ok()?;
            ((number as usize) < pages).then_some(Page(number))
        };
        match stride {
            Some(stride) => {
                let pages = (1..=window).map_while(|steps| ahead(steps, stride));
                self.plan.extend(pages.take(WINDOW));
                (self.runway, self.stride) = (self.plan.len(), Some(stride));
            }
            None => self.plan.extend(cluster().into_iter().take(window)),
        }
    }

    /// Somebody will want these pages; they take the place of those that were asked for before.
    pub(super) fn ask(&mut self, pages: Range<u32>) {
        self.asked = pages;
    }

    /// How far ahead to read now.
    fn adapt(&mut self, trend: bool) -> usize {
        let (hits, wasted) = (
            core::mem::take(&mut self.hits),
            core::mem::take(&mut self.wasted),
        );
        if hits > wasted {
            self.window = (2 * self.window).min(WINDOW);
        } else if wasted > hits {
            self.window /= 2;
        }
        if trend {
            self.window = self.window.max(1);
        }
        self.window
    }

    /// The distance that most of the last faults have in common.
    fn trend(&self) -> Option<i64> {
        let mut looked_at = FEWEST;
        while looked_at <= self.strides.len() {
            let strides = self.strides.iter().rev().take(looked_at).copied();
            if let Some(stride) = majority(strides) {
                return Some(stride).filter(|stride| *stride != 0);
            }
            looked_at *= 2;
        }
        None
    }

    /// The next page to read.
    pub(super) fn next(&self) -> Option<Page> {
        let planned = self.plan.first().copied();
        planned.or_else(|| (!self.asked.is_empty()).then_some(Page(self.asked.start)))
    }

    /// The pages that are planned.
    pub(super) fn plan(&self) -> &[Page] {
        &self.plan
    }

    /// Whether a page is to be read soon.
    pub(super) fn wants(&self, page: Page) -> bool {
        self.plan.contains(&page) || self.asked.contains(&page.0)
    }

    /// A page is being read, or cannot be.
    pub(super) fn done(&mut self, page: Page) {
        self.plan.retain(|other| *other != page);
        if self.asked.start == page.0 && !self.asked.is_empty() {
            self.asked.start += 1;
        }
    }
}

/// What more than half of the elements are, if there is such a thing: a candidate by voting, then
/// a count.
fn majority(elements: impl Iterator<Item = i64> + Clone) -> Option<i64> {
    let (mut candidate, mut votes) = (None, 0usize);
    for element in elements.clone() {
        if votes == 0 {
            candidate = Some(element);
        }
        if candidate == Some(element) {
            votes += 1;
        } else {
            votes -= 1;
        }
    }
    let agree = elements.clone().filter(|e| candidate == Some(*e)).count();
    candidate.filter(|_| 2 * agree > elements.count())
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    fn on() -> Readahead {
        let mut readahead = Readahead::new();
        readahead.switch(true);
        readahead
    }

    fn pages(numbers: &[u32]) -> PageList {
        numbers.iter().copied().map(Page).collect()
    }

    /// What is planned after faults on these pages.
    fn planned(readahead: &mut Readahead, faults: &[u32]) -> Vec<u32> {
        for page in faults {
            readahead.faulted(Page(*page), Hint::None, PageList::new, 100);
        }
        readahead.plan.iter().map(|page| page.0).collect()
    }

    #[test]
    fn a_majority_is_more_than_half() {
        let of = |elements: &[i64]| majority(elements.iter().copied());
        assert_eq!(of(&[3, 1, 3, 3, 2]), Some(3));
        assert_eq!(of(&[1, 2, 1, 2]), None);
        assert_eq!(of(&[1, 2, 3]), None);
        assert_eq!(of(&[]), None);
    }

    #[test]
    fn a_stride_that_most_faults_share_is_followed_in_either_direction() {
        assert_eq!(planned(&mut on(), &[10, 13, 16, 19, 22]), [25, 28]);
        assert_eq!(planned(&mut on(), &[90, 88, 86, 84, 82]), [80, 78]);
        // One stray fault makes two stray distances.
        let with_noise = [0, 1, 2, 3, 4, 5, 50, 6, 7];
        assert_eq!(planned(&mut on(), &with_noise), [8, 9]);
        assert_eq!(planned(&mut on(), &[5, 60, 2, 33, 71, 8]), []);
    }

    #[test]
    fn what_lies_outside_of_the_table_is_not_planned() {
        assert_eq!(planned(&mut on(), &[94, 95, 96, 97, 98]), [99]);
        assert_eq!(planned(&mut on(), &[4, 3, 2, 1, 0]), []);
        assert_eq!(planned(&mut Readahead::new(), &[1, 2, 3, 4, 5]), []);
    }

    #[test]
    fn without_a_stride_the_cluster_is_planned_as_far_as_the_window_goes() {
        let mut readahead = on();
        let mut planned = |hits: usize, wasted: usize| {
            (readahead.hits, readahead.wasted) = (hits, wasted);
            let cluster = pages(&[40, 41, 42, 43, 44, 45, 46]);
            readahead.faulted(Page(39), Hint::None, || cluster, 100);
            readahead.plan.len()
        };
        assert_eq!(planned(0, 0), 2);
        assert_eq!([planned(1, 0), planned(2, 0), planned(3, 0)], [4, 7, 7]);
        assert_eq!([planned(0, 1), planned(1, 2), planned(0, 1)], [4, 2, 1]);
        assert_eq!([planned(0, 1), planned(0, 0)], [0, 0]);
    }

    #[test]
    fn a_stride_opens_a_closed_window() {
        let mut readahead = on();
        readahead.window = 0;
        assert_eq!(planned(&mut readahead, &[1, 2, 3, 4, 5]), [6]);
    }

    #[test]
    fn the_next_pages_are_planned_when_half_of_the_last_ones_are_used() {
        let mut readahead = on();
        readahead.window = 8;
        let first = planned(&mut readahead, &[10, 11, 12, 13, 14]);
        assert_eq!(first, [15, 16, 17, 18, 19, 20, 21, 22]);
        readahead.plan.clear();
        assert_eq!(planned(&mut readahead, &[15, 16, 17]), []);
        let next = planned(&mut readahead, &[18]);
        assert_eq!(next, [19, 20, 21, 22, 23, 24, 25, 26]);
    }

    #[test]
    fn hints_open_and_close_the_window() {
        let mut readahead = on();
        readahead.faulted(Page(7), Hint::Sequential, PageList::new, 10);
        assert_eq!(readahead.plan, pages(&[8, 9]));
        readahead.faulted(Page(8), Hint::Random, || pages(&[1, 2]), 10);
        assert!(readahead.plan.is_empty());
    }

    #[test]
    fn what_was_asked_for_comes_after_what_is_planned() {
        let mut readahead = on();
        readahead.ask(3..5);
        readahead.faulted(Page(50), Hint::None, || pages(&[60]), 100);
        let order = core::iter::from_fn(|| {
            let page = readahead.next()?;
            readahead.done(page);
            Some(page.0)
        });
        assert_eq!(order.collect::<Vec<u32>>(), [60, 3, 4]);
    }
}
