//! The swap entry: ownership of one slot, as small as a page table can store it.

use core::fmt;
use core::num::NonZeroU32;

use crate::Slot;

/// One allocated slot of a [`SwapArea`](crate::SwapArea), owned.
///
/// Four bytes, and so is `Option<SwapEntry>`. It cannot be copied: a slot goes back by handing its
/// entry to [`SwapArea::free`](crate::SwapArea::free), so that freeing one twice cannot be written
/// down; [`SwapArea::dup`](crate::SwapArea::dup) makes another owner of the same slot. An entry that is merely dropped leaks its slot until the area is made anew.
///
/// ```
/// use swapspace::SwapEntry;
///
/// assert_eq!(size_of::<Option<SwapEntry>>(), 4);
/// ```
#[must_use = "an entry that is dropped leaks its slot"]
#[derive(PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct SwapEntry(NonZeroU32);

impl SwapEntry {
    /// Owns `slot`, which was just allocated. Areas have fewer than `u32::MAX` slots.
    pub(crate) const fn new(slot: Slot) -> Self {
        match NonZeroU32::new(slot.0.wrapping_add(1)) {
            Some(number) => SwapEntry(number),
            None => panic!("a slot number below u32::MAX"),
        }
    }

    /// Which slot.
    #[must_use]
    pub const fn slot(&self) -> Slot {
        Slot(self.0.get() - 1)
    }
}

impl fmt::Debug for SwapEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SwapEntry({})", self.slot().0)
    }
}

/// Consecutive slots, owned: what one page-out is written to.
///
/// An iterator over the [`SwapEntry`] of each, in slot order.
#[must_use = "a run that is dropped leaks its slots"]
#[derive(Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct SlotRun {
    next: u32,
    end: u32,
}

impl SlotRun {
    /// Owns the `len` slots from `first` on, which were just allocated.
    pub(crate) const fn new(first: u32, len: u32) -> Self {
        SlotRun {
            next: first,
            end: first + len,
        }
    }

    /// The same slots, as they are numbered where this area starts at `base`.
    pub(crate) const fn moved_by(self, base: u32) -> SlotRun {
        SlotRun {
            next: self.next + base,
            end: self.end + base,
        }
    }

    /// The first slot that was not yet taken out.
    #[must_use]
    pub const fn first(&self) -> Slot {
        Slot(self.next)
    }
}

impl Iterator for SlotRun {
    type Item = SwapEntry;

    fn next(&mut self) -> Option<SwapEntry> {
        if self.next == self.end {
            return None;
        }
        self.next += 1;
        Some(SwapEntry::new(Slot(self.next - 1)))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = (self.end - self.next) as usize;
        (left, Some(left))
    }
}

impl ExactSizeIterator for SlotRun {}
