//! Block devices: whatever implements `embedded_storage::Storage`.

use core::fmt;

use embedded_storage::Storage;

use super::medium::Medium;
use crate::{ErrorKind, SpaceError};

/// A device that can be written at any offset, as a [`Medium`]: memory behind a bus, FRAM, a card
/// or a drive whose controller erases by itself. A write must be stable when the driver returns,
/// since the trait has no flush (S2).
///
/// The trait counts in 32 bits: of a larger device the first 4 GiB are used.
///
/// # NOR flash
///
/// NOR flash as such is refused by its type: it implements `NorFlash` and not `Storage`, because a
/// page cannot be written there before its sector was erased.
///
/// ```compile_fail,E0277
/// use embedded_storage::nor_flash::NorFlash;
/// use swapspace::{BlockMedium, MediumSpace};
///
/// fn swap_on<S: NorFlash>(flash: S) {
///     let medium = BlockMedium::new(flash);
///     let space = MediumSpace::<_, Vec<u8>, 4>::new(medium);
/// }
/// ```
///
/// `embedded_storage::nor_flash::RmwNorFlashStorage` makes a `Storage` of it that erases before it
/// writes. Then let the page size be a multiple of the sector: a write that fails must spoil no
/// page but its own (S3). And a sector lasts for some 100,000 erasures, which swap can spend in a
/// day.
///
/// # Example
///
/// ```
/// use embedded_storage::{ReadStorage, Storage};
/// use swapspace::{BlockMedium, Instant, MediumSpace, conformance};
///
/// struct Fram(Vec<u8>);
///
/// impl ReadStorage for Fram {
///     type Error = core::convert::Infallible;
///
///     fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), Self::Error> {
///         bytes.copy_from_slice(&self.0[offset as usize..][..bytes.len()]);
///         Ok(())
///     }
///
///     fn capacity(&self) -> usize {
///         self.0.len()
///     }
/// }
///
/// impl Storage for Fram {
///     fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), Self::Error> {
///         self.0[offset as usize..][..bytes.len()].copy_from_slice(bytes);
///         Ok(())
///     }
/// }
///
/// let fram = BlockMedium::new(Fram(vec![0; 64 * 512]));
/// let mut space = MediumSpace::<_, Vec<u8>, 4>::new(fram).with_page_size(512);
/// conformance(&mut space, || vec![0; 512], |_| Instant::ZERO)?;
/// # Ok::<(), swapspace::Violation>(())
/// ```
#[derive(Debug)]
pub struct BlockMedium<S: Storage> {
    storage: S,
    kind_of: fn(&S::Error) -> ErrorKind,
}

impl<S: Storage> BlockMedium<S> {
    /// Every error of the driver is an [`ErrorKind::Io`].
    pub const fn new(storage: S) -> Self {
        BlockMedium {
            storage,
            kind_of: |_| ErrorKind::Io,
        }
    }

    /// `kind_of` says what the errors of the driver mean: that a card is gone, or write-protected.
    #[must_use]
    pub fn with_kinds(mut self, kind_of: fn(&S::Error) -> ErrorKind) -> Self {
        self.kind_of = kind_of;
        self
    }

    /// The device.
    pub const fn storage(&self) -> &S {
        &self.storage
    }

    fn failed(&self, error: S::Error) -> BlockError<S::Error> {
        let kind = (self.kind_of)(&error);
        BlockError::Device { error, kind }
    }
}

/// An offset as the trait counts; there is none in a space that [`Medium::open`] bounds.
fn offset_of<E>(offset: u64) -> Result<u32, BlockError<E>> {
    u32::try_from(offset).map_err(|_| BlockError::BeyondTheEnd)
}

impl<S: Storage<Error: fmt::Debug>> Medium for BlockMedium<S> {
    type Error = BlockError<S::Error>;

    fn open(&mut self) -> Result<u64, Self::Error> {
        Ok((self.storage.capacity() as u64).min(1 << 32))
    }

    fn read(&mut self, offset: u64, page: &mut [u8]) -> Result<(), Self::Error> {
        let result = self.storage.read(offset_of(offset)?, page);
        result.map_err(|error| self.failed(error))
    }

    fn write(&mut self, offset: u64, page: &[u8]) -> Result<(), Self::Error> {
        let result = self.storage.write(offset_of(offset)?, page);
        result.map_err(|error| self.failed(error))
    }
}

/// What can go wrong on a [`BlockMedium`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum BlockError<E> {
    /// The offset does not fit into the 32 bits of the trait.
    BeyondTheEnd,
    /// What the driver said.
    Device {
        /// Its words.
        error: E,
        /// What they mean.
        kind: ErrorKind,
    },
}

impl<E: fmt::Debug> fmt::Display for BlockError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BlockError::BeyondTheEnd => f.write_str("the offset lies beyond 4 GiB"),
            // Drivers' errors need not have any other form.
            BlockError::Device { error, .. } => write!(f, "the device failed: {error:?}"),
        }
    }
}

impl<E: fmt::Debug> core::error::Error for BlockError<E> {}

impl<E: fmt::Debug> SpaceError for BlockError<E> {
    fn kind(&self) -> ErrorKind {
        match self {
            BlockError::BeyondTheEnd => ErrorKind::Io,
            BlockError::Device { kind, .. } => *kind,
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;
    use alloc::vec::Vec;

    use embedded_storage::ReadStorage;

    use super::*;
    use crate::{Instant, MediumSpace, conformance};

    /// A card of which `bytes` are there, whatever it says.
    struct Card {
        bytes: Vec<u8>,
        capacity: usize,
    }

    #[derive(Debug, PartialEq, Eq)]
    struct NotThere;

    impl ReadStorage for Card {
        type Error = NotThere;

        fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), NotThere> {
            let from = self.bytes.get(offset as usize..).ok_or(NotThere)?;
            bytes.copy_from_slice(from.get(..bytes.len()).ok_or(NotThere)?);
            Ok(())
        }

        fn capacity(&self) -> usize {
            self.capacity
        }
    }

    impl Storage for Card {
        fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), NotThere> {
            let to = self.bytes.get_mut(offset as usize..).ok_or(NotThere)?;
            to.get_mut(..bytes.len())
                .ok_or(NotThere)?
                .copy_from_slice(bytes);
            Ok(())
        }
    }

    fn card(there: usize, capacity: usize) -> BlockMedium<Card> {
        BlockMedium::new(Card {
            bytes: vec![0; there],
            capacity,
        })
    }

    #[test]
    fn a_card_keeps_the_contract() {
        let size = 64 * 512;
        let mut space = MediumSpace::<_, Vec<u8>, 4>::new(card(size, size)).with_page_size(512);
        conformance(&mut space, || vec![0; 512], |_| Instant::ZERO).unwrap();
        assert!(space.medium().storage().bytes.iter().any(|byte| *byte != 0));
    }

    #[test]
    fn errors_mean_what_the_caller_says() {
        let mut page = [0; 512];
        let mut plain = card(0, 512);
        assert_eq!(plain.read(0, &mut page).unwrap_err().kind(), ErrorKind::Io);
        let mut told = card(0, 512).with_kinds(|NotThere| ErrorKind::Gone);
        assert_eq!(told.write(0, &page).unwrap_err().kind(), ErrorKind::Gone);
    }

    #[test]
    fn no_offset_wraps_around() {
        let mut card = card(512, usize::MAX);
        assert_eq!(card.open(), Ok(1 << 32));
        let mut page = [0; 512];
        let beyond = Err(BlockError::BeyondTheEnd);
        assert_eq!(card.read(1 << 32, &mut page), beyond);
        assert_eq!(card.write(1 << 32, &page), Err(BlockError::BeyondTheEnd));
    }
}
