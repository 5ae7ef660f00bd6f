//! Eviction: in which order resident pages go when memory is short.
//!
//! A policy owns the order and nothing else. What it knows of a page lies in the page's own
//! [`EvictionNode`], which every page has whether it is resident or not, so that no policy needs
//! storage of its own.

mod nru;
mod queue;
mod s3_fifo;
mod second_chance;

pub use self::nru::Nru;
pub use self::queue::{End, PageQueue};
pub use self::s3_fifo::S3Fifo;
pub use self::second_chance::SecondChance;

use super::Page;

/// Decides which resident page goes next.
///
/// # Who calls what
///
/// The pager calls [`insert`](Self::insert) when a page becomes resident and
/// [`remove`](Self::remove) when its frame leaves it: because it is dropped, because it is lent out
/// to be written, or because it is forgotten. A page that was removed ends in one of three ways:
/// [`insert`](Self::insert) as [`Arrival::Back`] (its write failed, or it was wanted meanwhile),
/// [`evicted`](Self::evicted), or [`forgotten`](Self::forgotten). [`touch`](Self::touch) comes for
/// pages that are resident or lent out, whenever the pager itself sees an access; what only the
/// hardware sees shows in [`EvictionPages::take_used`].
///
/// # What a policy owes
///
/// - [`victim`](Self::victim) never names a page that is not in, or one that is
///   [held](EvictionPages::is_held): pinned, or mapped for a client that was not told yet. Held
///   pages stay in; they may be passed over any number of times.
/// - A page that `victim` named and that was not removed comes again only after all others had
///   their turn: dirty pages are left in when there is no room to write them.
/// - If any page is in that is not held, `victim` with [`ROUNDS`](Self::ROUNDS) looks for each page
///   finds one.
/// - Apart from looks, every call is O(1); a policy keeps links and counts in the
///   [`EvictionNode`] of each page and in itself, and never touches the node of a page that is
///   unknown to it.
///
/// [`SecondChance`] is the default, [`Nru`] prefers pages that need no write, [`S3Fifo`] resists
/// scans.
pub trait EvictionPolicy {
    /// Looks at each page after which a page that is not held has been found, provided that
    /// nothing is used meanwhile.
    const ROUNDS: usize;

    /// A page is resident from now on. O(1).
    fn insert<P: EvictionPages>(&mut self, pages: &mut P, page: Page, arrival: Arrival);

    /// A page that is in is not resident any more. O(1).
    fn remove<P: EvictionPages>(&mut self, pages: &mut P, page: Page);

    /// A page that was removed has left memory, and may come back some day. O(1).
    fn evicted<P: EvictionPages>(&mut self, pages: &mut P, page: Page) {
        let _ = (pages, page);
    }

    /// A page that had left memory is back, unmapped, and may become resident
    /// ([`insert`](Self::insert) as [`Arrival::Faulted`]) or leave again
    /// ([`evicted`](Self::evicted)). Until then the links of its node are not the policy's. O(1).
    fn recalled<P: EvictionPages>(&mut self, pages: &mut P, page: Page) {
        let _ = (pages, page);
    }

    /// The contents of a page that is not in are gone, and with them all that was known of it.
    /// O(1).
    fn forgotten<P: EvictionPages>(&mut self, pages: &mut P, page: Page) {
        let _ = (pages, page);
    }

    /// A page that is resident, or lent out, was used. O(1).
    fn touch<P: EvictionPages>(&mut self, pages: &mut P, page: Page);

    /// A page that is in will not be used soon: it goes before all others of its kind, unless it is
    /// used after all. O(1).
    fn demote<P: EvictionPages>(&mut self, pages: &mut P, page: Page);

    /// The next page to go; it stays in until it is removed. Takes one off `looks` for every page
    /// that it looks at, and gives up when none is left. O(looks), amortised O(1) for each page
    /// inserted or used, and one more for each time that a held page is passed over.
    fn victim<P: EvictionPages>(&mut self, pages: &mut P, looks: &mut usize) -> Option<Page>;

    /// The first page for which `wanted` holds, beginning with those that would go first or last.
    /// Changes nothing. O(pages that are in).
    fn find<P: EvictionPages>(
        &self,
        pages: &P,
        from: End,
        wanted: impl FnMut(&P, Page) -> bool,
    ) -> Option<Page>;

    /// Pages that are in.
    fn len(&self) -> usize;

    /// Whether no page is in.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Pages that were passed over because they had been used.
    fn spared(&self) -> u64;
}

/// How a page became resident.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Arrival {
    /// For a fault: it is about to be used.
    Faulted,
    /// It was removed a moment ago and never left memory.
    Back,
}

/// What a policy keeps in a page's entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EvictionNode {
    /// The next page of the [`PageQueue`] that this one is in.
    pub next: u32,
    /// The one before it.
    pub prev: u32,
    /// In which queue it is, was before it was lent out, or nothing: the policy's own numbers.
    pub queue: u8,
    /// How often it was used lately: the policy's own count.
    pub used: u8,
}

impl EvictionNode {
    /// Of a page that no policy has seen.
    pub const EMPTY: Self = EvictionNode {
        next: 0,
        prev: 0,
        queue: 0,
        used: 0,
    };
}

/// What a policy sees of the pages.
pub trait EvictionPages {
    /// The node of a page.
    fn node(&self, page: Page) -> &EvictionNode;

    /// The node of a page, to be changed.
    fn node_mut(&mut self, page: Page) -> &mut EvictionNode;

    /// Whether a resident page must stay.
    fn is_held(&self, page: Page) -> bool;

    /// Whether a resident page must be written before it can go.
    fn is_dirty(&self, page: Page) -> bool;

    /// Whether the hardware saw a use of a resident page since the last call (test and clear).
    fn take_used(&mut self, page: Page) -> bool;
}

#[cfg(test)]
mod tests;
