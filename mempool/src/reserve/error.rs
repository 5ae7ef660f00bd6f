//! Why a reserve tree refuses.

use core::fmt;

/// There are not enough free frames to back a larger reserve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct BackingError {
    /// Frames that must be freed first.
    pub missing: usize,
}

impl fmt::Display for BackingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} frames too few are free to back the reserve",
            self.missing
        )
    }
}

impl core::error::Error for BackingError {}

/// Why the tree was not changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum ReserveError {
    /// The node has a parent already, or is a root.
    Connected,
    /// The node is a root: there is nothing above it.
    Root,
    /// The parent lies below the node.
    Cycle,
    /// More is charged than the change would leave.
    InUse,
    /// The frames cannot be had.
    Backing(BackingError),
}

impl fmt::Display for ReserveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReserveError::Connected => f.write_str("the node is connected already"),
            ReserveError::Root => f.write_str("the node is a root"),
            ReserveError::Cycle => f.write_str("the parent lies below the node"),
            ReserveError::InUse => f.write_str("more is charged than the change would leave"),
            ReserveError::Backing(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for ReserveError {}

/// Why nothing was charged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum ChargeError {
    /// Less than that is left of the limit.
    OverLimit,
    /// The node is not connected to a root: no frames stand behind its limit.
    Unbacked,
}

impl fmt::Display for ChargeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ChargeError::OverLimit => "the charge exceeds the limit",
            ChargeError::Unbacked => "no frames stand behind the limit",
        })
    }
}

impl core::error::Error for ChargeError {}
