//! Sizing arithmetic: how many frames a component can hold at worst, at compile time.
//!
//! Every component states a [`Budget`]; a system's reserve is their sum, checked against the memory
//! given before anything runs. The rules are those of the 2007 patch set ("mm: serialize access to
//! min_free_kbytes", "mm: kmem_alloc_estimate()"), and its published numbers are the test vector.

use core::mem::size_of;
use core::ops::Add;

/// Bytes in an order-0 frame: 4096, or what the environment variable `MEMPOOL_FRAME_SIZE` said when
/// this crate was compiled. A power of two from 512 bytes to 64 KiB; anything else does not compile.
///
/// ```sh
/// MEMPOOL_FRAME_SIZE=16384 cargo build
/// ```
pub const FRAME_SIZE: usize = match option_env!("MEMPOOL_FRAME_SIZE") {
    None => 4096,
    Some(bytes) => match usize::from_str_radix(bytes, 10) {
        Ok(bytes) if bytes.is_power_of_two() && bytes >= 512 && bytes <= 64 << 10 => bytes,
        _ => panic!("MEMPOOL_FRAME_SIZE must be a power of two from 512 to 65536"),
    },
};

/// Bytes at the head of every slab that its objects cannot use.
pub const SLAB_HEADER: usize = 64;

/// Bytes behind every object that nobody may write to: none, or 64 with the feature `slab-debug`,
/// for which every budget of objects allows. Size classes have none.
pub const SLAB_RED_ZONE: usize = if cfg!(feature = "slab-debug") { 64 } else { 0 };

/// A worst case, in frames. Budgets add up.
///
/// A reserve is a number of frames and not of runs of them: it guarantees that so many frames are
/// free, not that they lie side by side. A budget in slabs of an order above 0 is what they hold at
/// worst, but only slabs of order 0 can always be made.
///
/// # Panics
///
/// Every function, if the result is beyond any memory; in a `const` that is a compile error.
///
/// ```
/// use mempool::{Budget, FRAME_SIZE, SLAB_HEADER, SLAB_RED_ZONE};
///
/// // 66 packet buffers, two to a frame: 2016 bytes (less, where red zones lie between them).
/// const SKB: usize = (FRAME_SIZE - SLAB_HEADER) / 2 - SLAB_RED_ZONE;
/// const RX: Budget = Budget::objects(66, SKB, 0);
/// const TX: Budget = Budget::objects(65, SKB, 0);
/// const TOTAL: Budget = RX.plus(TX);
/// assert_eq!((RX.frames(), TX.frames(), TOTAL.frames()), (33, 33, 66));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Budget {
    frames: usize,
}

impl Budget {
    /// Nothing.
    pub const ZERO: Budget = Budget { frames: 0 };

    /// `n` order-0 frames.
    #[must_use]
    pub const fn from_frames(n: usize) -> Budget {
        Budget { frames: n }
    }

    /// `count` objects of `size` bytes in slabs of `1 << order` frames:
    /// `ceil(count / objects_per_slab) << order`.
    ///
    /// # Panics
    ///
    /// If not even one object fits into a slab. In a `const` that is a compile error.
    #[must_use]
    pub const fn objects(count: usize, size: usize, order: u8) -> Budget {
        Budget::slabs(count, objects_per_slab(size, order), order)
    }

    /// `count` objects at `per_slab` to a slab of `1 << order` frames.
    ///
    /// # Panics
    ///
    /// If `per_slab` is 0.
    #[must_use]
    pub const fn slabs(count: usize, per_slab: usize, order: u8) -> Budget {
        assert!(per_slab > 0, "an object must fit into its slab");
        Budget {
            frames: runs(count.div_ceil(per_slab), order),
        }
    }

    /// One slab of `1 << order` frames for each of `cpus` that may park one: that makes a slab while
    /// others make theirs.
    #[must_use]
    pub const fn parked(cpus: usize, order: u8) -> Budget {
        Budget {
            frames: runs(cpus, order),
        }
    }

    /// What the [magazines](crate::Magazines) of `cpus` may keep from everybody else: each object that
    /// is parked in one of two magazines of `rounds` may be the last of its slab.
    ///
    /// It is ordinary memory, and no part of a reserve: what lies in reserve memory is never parked,
    /// and before an allocation of the cache fails, or dips into the reserve, the magazines are
    /// emptied. It is a part of the memory that a machine has for everybody.
    ///
    /// ```
    /// use mempool::Budget;
    /// assert_eq!(Budget::magazines(2, 8, 0), Budget::from_frames(2 * 2 * 8));
    /// ```
    #[must_use]
    pub const fn magazines(cpus: usize, rounds: usize, order: u8) -> Budget {
        Budget {
            frames: runs(product(product(2, rounds), cpus), order),
        }
    }

    /// `count` runs of `1 << order` frames: pages, or buffers that are whole frames.
    #[must_use]
    pub const fn runs(count: usize, order: u8) -> Budget {
        Budget {
            frames: runs(count, order),
        }
    }

    /// `bytes` in allocations of any size: sizes are rounded up to a class, which at worst doubles
    /// them, and each of `classes` may leave one frame partly used. For the classes of this crate
    /// see [`SizeClasses::budget`](crate::SizeClasses::budget).
    #[must_use]
    pub const fn bytes(bytes: usize, classes: usize) -> Budget {
        Budget {
            frames: sum(product(2, bytes).div_ceil(FRAME_SIZE), classes),
        }
    }

    /// Both at once.
    #[must_use]
    pub const fn plus(self, other: Budget) -> Budget {
        Budget {
            frames: sum(self.frames, other.frames),
        }
    }

    /// `n` times this.
    #[must_use]
    pub const fn times(self, n: usize) -> Budget {
        Budget {
            frames: product(self.frames, n),
        }
    }

    /// Frames of order 0.
    #[must_use]
    pub const fn frames(self) -> usize {
        self.frames
    }

    /// Whether a reserve of `frames` suffices.
    #[must_use]
    pub const fn fits(self, frames: usize) -> bool {
        self.frames <= frames
    }

    /// Refuses a reserve that is too small. In a `const` block the refusal is a compile error that
    /// tells both numbers ("… 66 frames needed, 64 given"):
    ///
    /// ```compile_fail,E0080
    /// use mempool::Budget;
    /// const _: () = Budget::from_frames(66).assert_fits(64);
    /// ```
    ///
    /// # Panics
    ///
    /// If `frames` is less than the budget.
    pub const fn assert_fits(self, frames: usize) {
        if !self.fits(frames) {
            let mut text = Text::new("the reserve is smaller than its components can need: ");
            text.number(self.frames);
            text.append(" frames needed, ");
            text.number(frames);
            text.append(" given");
            // A `const` can panic with a whole string only.
            panic!("{}", text.as_str());
        }
    }
}

impl Add for Budget {
    type Output = Budget;

    fn add(self, rhs: Budget) -> Budget {
        self.plus(rhs)
    }
}

const BEYOND: &str = "a budget beyond any memory";

const fn sum(a: usize, b: usize) -> usize {
    a.checked_add(b).expect(BEYOND)
}

const fn product(a: usize, b: usize) -> usize {
    a.checked_mul(b).expect(BEYOND)
}

/// Frames in `n` runs.
const fn runs(n: usize, order: u8) -> usize {
    product(n, 1usize.checked_shl(order as u32).expect(BEYOND))
}

/// A message with numbers in it, composed at compile time.
struct Text {
    bytes: [u8; 128],
    len: usize,
}

impl Text {
    const fn new(start: &str) -> Text {
        let mut text = Text {
            bytes: [0; 128],
            len: 0,
        };
        text.append(start);
        text
    }

    const fn append(&mut self, text: &str) {
        let mut i = 0;
        while i < text.len() {
            self.bytes[self.len] = text.as_bytes()[i];
            self.len += 1;
            i += 1;
        }
    }

    const fn number(&mut self, n: usize) {
        if n >= 10 {
            self.number(n / 10);
        }
        self.bytes[self.len] = b'0' + (n % 10) as u8;
        self.len += 1;
    }

    const fn as_str(&self) -> &str {
        match core::str::from_utf8(self.bytes.split_at(self.len).0) {
            Ok(text) => text,
            Err(_) => unreachable!(),
        }
    }
}

/// Objects of `size` bytes that fit into a slab of `1 << order` frames, beside its header; none if
/// `size` is 0 or there can be no such slab.
#[must_use]
pub const fn objects_per_slab(size: usize, order: u8) -> usize {
    aligned_objects_per_slab(size, 1, order)
}

/// As [`objects_per_slab`], for objects that begin at multiples of `align`, as those of
/// [`SizedCache::aligned`](crate::SizedCache::aligned) do.
///
/// ```
/// use mempool::{aligned_objects_per_slab, objects_per_slab};
///
/// assert!(aligned_objects_per_slab(96, 64, 0) < objects_per_slab(96, 0));
/// ```
#[must_use]
pub const fn aligned_objects_per_slab(size: usize, align: usize, order: u8) -> usize {
    if size == 0 || order as u32 > FRAME_SIZE.leading_zeros() {
        return 0;
    }
    let bytes = FRAME_SIZE << order;
    match (
        SLAB_HEADER.checked_next_multiple_of(align),
        stride(size, align),
    ) {
        (Some(first), Some(stride)) if first < bytes => (bytes - first) / stride,
        _ => 0,
    }
}

/// Bytes from one object to the next, with its red zone. Free ones have room for a pointer.
pub(crate) const fn stride(size: usize, align: usize) -> Option<usize> {
    let size = if size < size_of::<usize>() {
        size_of::<usize>()
    } else {
        size
    };
    match size.checked_add(SLAB_RED_ZONE) {
        Some(bytes) => bytes.checked_next_multiple_of(align),
        None => None,
    }
}

/// Objects of a size class in its frame: without red zones.
pub(crate) const fn objects_per_frame(size: usize) -> usize {
    (FRAME_SIZE - SLAB_HEADER) / size
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `/proc/reserve_info` as published in 2007, 4 KiB pages, one CPU (DESIGN section 6).
    #[test]
    fn published_vector_of_2007() {
        let route = |n| (Budget::slabs(n, 12, 0) + Budget::parked(1, 0)).frames();
        assert_eq!(route(16384), 1367);
        assert_eq!(route(4096), 343);
        let bytes = 262_144 / 4096 * FRAME_SIZE;
        assert_eq!(Budget::bytes(bytes, 10 + 2).frames(), 140);
    }

    #[test]
    fn a_refusal_tells_both_numbers() {
        for (needed, given) in [(66, 64), (1, 0), (usize::MAX, 1_000_000)] {
            let budget = Budget::from_frames(needed);
            assert!(!budget.fits(given));
            let refusal = std::panic::catch_unwind(|| budget.assert_fits(given)).unwrap_err();
            let message = refusal.downcast_ref::<std::string::String>().unwrap();
            let numbers = std::format!(": {needed} frames needed, {given} given");
            assert!(message.ends_with(&numbers), "{message}");
        }
        Budget::from_frames(64).assert_fits(64);
        Budget::ZERO.assert_fits(0);
    }

    #[test]
    fn runs_are_counted_in_frames() {
        assert_eq!(Budget::runs(5, 0), Budget::from_frames(5));
        assert_eq!(Budget::runs(5, 3), Budget::from_frames(40));
    }

    #[test]
    fn objects_that_do_not_fit_count_as_none() {
        assert_eq!(objects_per_slab(FRAME_SIZE, 0), 0);
        let half = (FRAME_SIZE - SLAB_HEADER) / 2 - SLAB_RED_ZONE;
        assert_eq!(objects_per_slab(half, 0), 2);
        assert_eq!(objects_per_slab(half + 1, 0), 1);
        assert_eq!(objects_per_slab(0, 0), 0);
        assert_eq!(objects_per_slab(1 << 20, 255), 0);
    }

    #[test]
    fn a_budget_beyond_any_memory_is_refused_and_does_not_wrap() {
        let half = Budget::from_frames(usize::MAX / 2 + 1);
        for beyond in [
            || Budget::slabs(1 << 20, 1, 60),
            || Budget::slabs(1, 1, 200),
            || Budget::bytes(usize::MAX, 0),
        ] {
            assert!(std::panic::catch_unwind(beyond).is_err());
        }
        assert!(std::panic::catch_unwind(|| half + half).is_err());
        assert!(std::panic::catch_unwind(|| half.times(2)).is_err());
    }
}
