//! What the pager counts.

/// A snapshot of the pager's counters. Pages and faults, not requests, unless it says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub struct PagerStats {
    /// Faults served from a resident page: its first write, mostly.
    pub faults_minor: u64,
    /// Faults served by a page-in, failed ones included.
    pub faults_major: u64,
    /// Faults served with zeros: the first touch.
    pub faults_zero: u64,
    /// Faults that found another one waiting for the same page.
    pub faults_merged: u64,
    /// Faults that found the queue full.
    pub faults_refused: u64,
    /// Faults that were not served by their deadline.
    pub faults_late: u64,
    /// Pages read.
    pub pages_in: u64,
    /// Pages written, and stable.
    pub pages_out: u64,
    /// Pages whose read failed.
    pub read_failures: u64,
    /// Pages whose write failed; they are dirty and resident again.
    pub write_failures: u64,
    /// Requests that the address space refused; nothing changed.
    pub refusals: u64,
    /// Pages read ahead of any fault, or for one that was over by then.
    pub prefetched: u64,
    /// Of these, pages that were faulted: from memory, or while they were on their way in.
    pub prefetch_hits: u64,
    /// Of these, pages that went, or were forgotten, before they were of use.
    pub prefetch_wasted: u64,
    /// Pages that became dirty again while they were being written.
    pub redirtied: u64,
    /// Pages that went without a write, because their slot or the zero page holds them.
    pub clean_drops: u64,
    /// Pages that the eviction policy passed over because they had been used.
    pub second_chances: u64,
    /// Slots that were taken from a resident page because none was free.
    pub slots_reclaimed: u64,

    /// Pages mapped now, those being written not included.
    pub resident: usize,
    /// Resident pages that no slot holds.
    pub dirty: usize,
    /// Pages in memory now that were read ahead and not faulted yet.
    pub cached: usize,
    /// Pages being written now.
    pub writeback: usize,
    /// Requests in flight now.
    pub in_flight: usize,
    /// Faults that wait for a frame now.
    pub waiting: usize,
    /// The most pages that were resident at once.
    pub resident_peak: usize,
    /// The most requests that were in flight at once.
    pub in_flight_peak: usize,
    /// The most faults that waited for a frame at once.
    pub waiting_peak: usize,
}
