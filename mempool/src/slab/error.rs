use core::fmt;

/// Why a cache cannot be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum CacheError {
    /// No byte, or so few that a slab holds more objects than can be counted (2^32).
    ObjectTooSmall,
    /// Not one fits into a slab of that order, with that alignment.
    ObjectTooLarge,
    /// The alignment is not a power of two.
    NotAPowerOfTwo,
}

impl fmt::Display for CacheError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            CacheError::ObjectTooSmall => "the object is too small for slabs of that order",
            CacheError::ObjectTooLarge => "not one object fits into a slab of that order",
            CacheError::NotAPowerOfTwo => "the alignment is not a power of two",
        })
    }
}

impl core::error::Error for CacheError {}
