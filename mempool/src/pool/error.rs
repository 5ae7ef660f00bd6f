//! What can go wrong with a pool.

use core::fmt;

use crate::AllocError;

/// Why nothing was allocated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum PoolError {
    /// All elements of the pool are out, and the source has none for this caller.
    Empty,
}

impl fmt::Display for PoolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PoolError::Empty => "the pool is empty, and its source has nothing for the caller",
        })
    }
}

impl core::error::Error for PoolError {}

/// A pool could not be filled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct FillError {
    /// Elements that the pool is short of its minimum.
    pub missing: usize,
    /// Why the source gave no more.
    pub reason: AllocError,
}

impl fmt::Display for FillError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let FillError { missing, reason } = self;
        write!(f, "the pool is {missing} elements short: {reason}")
    }
}

impl core::error::Error for FillError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        Some(&self.reason)
    }
}
