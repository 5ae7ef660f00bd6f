//! Allocation flags, and the capability that entitles to the reserve.

use core::fmt;
use core::ops::BitOr;

/// How an allocation may be satisfied ("get free page" flags, by their Linux names).
///
/// The bit that entitles to the reserve has no constant: it is set only by
/// [`MemallocToken::gfp`], so that the right to dip is a value that somebody was given.
///
/// ```
/// use mempool::Gfp;
///
/// let gfp = Gfp::ATOMIC | Gfp::ZERO;
/// assert!(gfp.contains(Gfp::ZERO) && !gfp.contains(Gfp::WAIT));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Gfp(u8);

impl Gfp {
    /// The caller can wait: before it fails, [reclaim](crate::Pressure::reclaim) makes room. Without
    /// it a quarter of what is left of `min` is open as well.
    pub const WAIT: Gfp = Gfp(1 << 0);
    /// Urgent: half of `min` is open, never the reserve (M2).
    pub const HIGH: Gfp = Gfp(1 << 1);
    /// Never the reserve, whoever asks: for best-effort caches (M7), and to try ordinary memory
    /// first.
    pub const NOMEMALLOC: Gfp = Gfp(1 << 2);
    /// The memory is to be zeroed.
    pub const ZERO: Gfp = Gfp(1 << 3);
    /// Making room must start no I/O: the caller holds what I/O needs.
    pub const NOIO: Gfp = Gfp(1 << 4);
    pub(crate) const NONE: Gfp = Gfp(0);
    /// Another zone is tried before this one makes room.
    pub(crate) const NORECLAIM: Gfp = Gfp(1 << 5);
    /// That it fails is no news: the caller does without, or tries something else first. Otherwise a
    /// failure is told to the log (features `log`, `defmt`).
    pub const NOWARN: Gfp = Gfp(1 << 6);
    pub(crate) const MEMALLOC: Gfp = Gfp(1 << 7);

    /// An ordinary allocation of a task.
    pub const KERNEL: Gfp = Gfp::WAIT;
    /// An allocation that cannot wait: an interrupt, a receive path.
    pub const ATOMIC: Gfp = Gfp::HIGH;

    /// Whether every flag of `other` is set.
    #[must_use]
    pub const fn contains(self, other: Gfp) -> bool {
        self.0 & other.0 == other.0
    }

    /// Both sets of flags.
    #[must_use]
    pub const fn with(self, other: Gfp) -> Gfp {
        Gfp(self.0 | other.0)
    }

    /// These flags less those of `other`.
    #[must_use]
    pub const fn without(self, other: Gfp) -> Gfp {
        Gfp(self.0 & !other.0)
    }

    /// The part of the `min` watermark (in frames) that this caller must leave untouched. The
    /// discounts apply to `min` alone (M2).
    pub(crate) const fn floor(self, min: usize) -> usize {
        let mut floor = min;
        if self.contains(Gfp::HIGH) {
            floor -= floor / 2;
        }
        if !self.contains(Gfp::WAIT) {
            floor -= floor / 4;
        }
        floor
    }
}

impl BitOr for Gfp {
    type Output = Gfp;

    fn bitor(self, rhs: Gfp) -> Gfp {
        self.with(rhs)
    }
}

const NAMES: [(Gfp, &str); 8] = [
    (Gfp::WAIT, "WAIT"),
    (Gfp::HIGH, "HIGH"),
    (Gfp::NOMEMALLOC, "NOMEMALLOC"),
    (Gfp::ZERO, "ZERO"),
    (Gfp::NOIO, "NOIO"),
    (Gfp::NORECLAIM, "NORECLAIM"),
    (Gfp::NOWARN, "NOWARN"),
    (Gfp::MEMALLOC, "MEMALLOC"),
];

impl fmt::Debug for Gfp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut set = f.debug_set();
        for (flag, name) in NAMES {
            if self.contains(flag) {
                set.entry(&format_args!("{name}"));
            }
        }
        set.finish()
    }
}

#[cfg(feature = "defmt")]
impl defmt::Format for Gfp {
    fn format(&self, f: defmt::Formatter<'_>) {
        let mut first = true;
        for (flag, name) in NAMES {
            if self.contains(flag) {
                defmt::write!(f, "{=str}{=str}", if first { "" } else { "|" }, name);
                first = false;
            }
        }
    }
}

/// The right to allocate from the reserve: work that frees memory, and nothing else.
///
/// A [`Zone`](crate::Zone) gives out one, once; swap code holds it and copies it to the parts that
/// it trusts.
#[derive(Debug, Clone, Copy)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct MemallocToken(());

impl MemallocToken {
    pub(crate) const fn new() -> Self {
        MemallocToken(())
    }

    /// `base`, entitled.
    #[must_use]
    pub const fn gfp(self, base: Gfp) -> Gfp {
        base.with(Gfp::MEMALLOC)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn discounts_apply_to_min_only_and_never_reach_zero() {
        assert_eq!(Gfp::KERNEL.floor(64), 64);
        assert_eq!((Gfp::KERNEL | Gfp::HIGH).floor(64), 32);
        assert_eq!(Gfp::ATOMIC.floor(64), 24);
        assert_eq!(Gfp::ATOMIC.floor(1), 1);
    }
}
