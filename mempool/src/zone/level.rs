//! Watermarks, and how the free frames stand against them.

/// Levels of free frames, each counted above the reserve: `min <= low <= high`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Watermarks {
    /// Ordinary allocations fail below.
    pub min: usize,
    /// Background reclaim starts below.
    pub low: usize,
    /// Background reclaim rests above.
    pub high: usize,
}

/// How many frames are free, against the marks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Level {
    /// Free frames, those of the reserve included.
    pub free: usize,
    /// Frames that ordinary allocations never get.
    pub reserve: usize,
    /// The marks above the reserve.
    pub marks: Watermarks,
}

impl Level {
    /// Free frames above the reserve.
    #[must_use]
    pub const fn ordinary(self) -> usize {
        self.free.saturating_sub(self.reserve)
    }

    /// A [`Gfp::KERNEL`](crate::Gfp::KERNEL) allocation would fail.
    #[must_use]
    pub const fn below_min(self) -> bool {
        self.ordinary() <= self.marks.min
    }

    /// Background reclaim should work.
    #[must_use]
    pub const fn below_low(self) -> bool {
        self.ordinary() < self.marks.low
    }

    /// Background reclaim may not rest yet.
    #[must_use]
    pub const fn below_high(self) -> bool {
        self.ordinary() < self.marks.high
    }

    /// Half of the reserve or more is in use.
    #[must_use]
    pub const fn reserve_is_low(self) -> bool {
        self.free < self.reserve - self.reserve / 2
    }
}

/// What a zone counted since it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct ZoneStats {
    /// Frames that exist.
    pub total: usize,
    /// Frames that are free now.
    pub free: usize,
    /// Frames set aside for the entitled.
    pub reserve: usize,
    /// The fewest free frames that any allocation left.
    pub min_free: usize,
    /// Frames handed out with the reserve tag, now.
    pub reserve_in_use: usize,
    /// The most of those at once.
    pub reserve_peak: usize,
    /// Ordinary requests refused: at their watermark, or because no run of that length was left.
    pub refused: u64,
    /// Entitled requests refused: no run of that length was left.
    pub exhausted: u64,
}
