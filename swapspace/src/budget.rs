//! What the pager can hold at once, at compile time.
//!
//! A page-out takes nothing: its frames are the pages themselves, its slot and its request are
//! entries of tables that exist. A page-in takes one ordinary frame. So the pager adds nothing to
//! the reserve; what is computed here is how much *ordinary* memory it occupies.

use mempool::{Budget, FRAME_SIZE};

use crate::slots::map_len;
use crate::{CLUSTER_FRAMES, FaultEntry, PageEntry, RequestEntry};

/// How large the tables of a [`Pager`](crate::Pager) are, in entries.
///
/// ```
/// use swapspace::TableSizes;
///
/// // 64 MiB of pages over as much swap.
/// const TABLES: TableSizes = TableSizes { pages: 16384, slots: 16384, faults: 32, requests: 16 };
/// const _: () = TABLES.tables().assert_fits(320);
/// assert_eq!(TABLES.in_flight().frames(), 16 * 8);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct TableSizes {
    /// Pages that the pager manages.
    pub pages: usize,
    /// Slots of its area.
    pub slots: u32,
    /// Faults that may wait at once.
    pub faults: usize,
    /// Requests that may be in flight at once.
    pub requests: usize,
}

impl TableSizes {
    /// Frames that the tables fill, if they are cut from frames.
    #[must_use]
    pub const fn tables(self) -> Budget {
        let bytes = self.pages * size_of::<PageEntry<'static>>()
            + map_len(self.slots) * size_of::<u32>()
            + self.faults * size_of::<FaultEntry>()
            + self.requests * size_of::<RequestEntry>();
        Budget::from_frames(bytes.div_ceil(FRAME_SIZE))
    }

    /// The most frames that can be in requests at once, where reclaim cannot get at them. Memory
    /// for pages must exceed this, or everything can be in flight and nothing mapped.
    #[must_use]
    pub const fn in_flight(self) -> Budget {
        Budget::from_frames(CLUSTER_FRAMES).times(self.requests)
    }
}
