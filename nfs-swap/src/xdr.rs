//! XDR (RFC 4506): a checked reader and a checked writer over byte slices.
//!
//! Neither copies what it need not, allocates, or panics, whatever the bytes.

use core::fmt;

/// Why a value cannot be read or written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum XdrError {
    /// The bytes end too early: at least `missing` more are needed to go on.
    Truncated {
        /// Bytes that the present item still lacks.
        missing: usize,
    },
    /// A variable-length item is longer than its limit.
    TooLong,
    /// A value which the protocol does not define.
    BadValue,
    /// The buffer written to is full.
    NoRoom,
}

impl fmt::Display for XdrError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            XdrError::Truncated { missing } => {
                write!(f, "the message ends {missing} bytes too early")
            }
            XdrError::TooLong => f.write_str("an item is longer than its limit"),
            XdrError::BadValue => f.write_str("a value that the protocol does not define"),
            XdrError::NoRoom => f.write_str("the buffer is full"),
        }
    }
}

impl core::error::Error for XdrError {}

/// Bytes of padding behind `len` bytes of opaque data (RFC 4506 section 4.10).
#[must_use]
pub const fn padding(len: usize) -> usize {
    len.wrapping_neg() % 4
}

/// Reads items off the front of a slice.
///
/// ```
/// use nfs_swap::xdr::{Reader, XdrError};
///
/// let mut reader = Reader::new(&[0, 0, 0, 7, 0, 0]);
/// assert_eq!(reader.u32(), Ok(7));
/// assert_eq!(reader.u32(), Err(XdrError::Truncated { missing: 2 }));
/// ```
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    /// A reader of all of `bytes`.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Reader { bytes }
    }

    /// What has not been read yet.
    #[must_use]
    pub const fn remaining(&self) -> &'a [u8] {
        self.bytes
    }

    /// The next `len` bytes, without padding.
    ///
    /// # Errors
    ///
    /// [`XdrError::Truncated`].
    pub fn take(&mut self, len: usize) -> Result<&'a [u8], XdrError> {
        let (head, tail) = self
            .bytes
            .split_at_checked(len)
            .ok_or(XdrError::Truncated {
                missing: len.saturating_sub(self.bytes.len()),
            })?;
        self.bytes = tail;
        Ok(head)
    }

    /// The next `L` bytes, without padding.
    ///
    /// # Errors
    ///
    /// [`XdrError::Truncated`].
    pub fn array<const L: usize>(&mut self) -> Result<[u8; L], XdrError> {
        let mut array = [0; L];
        array.copy_from_slice(self.take(L)?);
        Ok(array)
    }

    /// An unsigned integer, or the discriminant of an enum or union.
    ///
    /// # Errors
    ///
    /// [`XdrError::Truncated`].
    pub fn u32(&mut self) -> Result<u32, XdrError> {
        self.array().map(u32::from_be_bytes)
    }

    /// An unsigned hyper integer.
    ///
    /// # Errors
    ///
    /// [`XdrError::Truncated`].
    pub fn u64(&mut self) -> Result<u64, XdrError> {
        self.array().map(u64::from_be_bytes)
    }

    /// A boolean.
    ///
    /// # Errors
    ///
    /// [`XdrError::Truncated`], or [`XdrError::BadValue`] if it is neither 0 nor 1.
    pub fn bool(&mut self) -> Result<bool, XdrError> {
        match self.u32()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(XdrError::BadValue),
        }
    }

    /// Variable-length opaque data of at most `max` bytes, with its padding.
    ///
    /// # Errors
    ///
    /// [`XdrError::Truncated`] or [`XdrError::TooLong`].
    pub fn opaque(&mut self, max: usize) -> Result<&'a [u8], XdrError> {
        let len = self.u32()? as usize;
        if len > max {
            return Err(XdrError::TooLong);
        }
        let padded = self.take(len + padding(len))?;
        Ok(&padded[..len])
    }
}

/// Writes items one behind the other into a slice.
///
/// ```
/// use nfs_swap::xdr::Writer;
///
/// let mut buf = [0; 8];
/// let mut writer = Writer::new(&mut buf);
/// writer.opaque(b"swap!").unwrap_err();
/// writer.opaque(b"swap").unwrap();
/// assert_eq!(writer.len(), 8);
/// assert_eq!(&buf, b"\0\0\0\x04swap");
/// ```
#[derive(Debug)]
pub struct Writer<'a> {
    buf: &'a mut [u8],
    len: usize,
}

impl<'a> Writer<'a> {
    /// A writer from the start of `buf` on.
    #[must_use]
    pub const fn new(buf: &'a mut [u8]) -> Self {
        Writer { buf, len: 0 }
    }

    /// Bytes written so far.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing has been written yet.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Raw bytes, without padding.
    ///
    /// # Errors
    ///
    /// [`XdrError::NoRoom`]; nothing was written then.
    pub fn bytes(&mut self, bytes: &[u8]) -> Result<(), XdrError> {
        let room = self.buf.get_mut(self.len..).unwrap_or_default();
        room.get_mut(..bytes.len())
            .ok_or(XdrError::NoRoom)?
            .copy_from_slice(bytes);
        self.len += bytes.len();
        Ok(())
    }

    /// An unsigned integer, or the discriminant of an enum or union.
    ///
    /// # Errors
    ///
    /// [`XdrError::NoRoom`].
    pub fn u32(&mut self, value: u32) -> Result<(), XdrError> {
        self.bytes(&value.to_be_bytes())
    }

    /// An unsigned hyper integer.
    ///
    /// # Errors
    ///
    /// [`XdrError::NoRoom`].
    pub fn u64(&mut self, value: u64) -> Result<(), XdrError> {
        self.bytes(&value.to_be_bytes())
    }

    /// A boolean.
    ///
    /// # Errors
    ///
    /// [`XdrError::NoRoom`].
    pub fn bool(&mut self, value: bool) -> Result<(), XdrError> {
        self.u32(u32::from(value))
    }

    /// Variable-length opaque data, padded.
    ///
    /// # Errors
    ///
    /// [`XdrError::NoRoom`]; nothing was written then. [`XdrError::TooLong`] beyond 4 GiB.
    pub fn opaque(&mut self, bytes: &[u8]) -> Result<(), XdrError> {
        let len = u32::try_from(bytes.len()).map_err(|_| XdrError::TooLong)?;
        let start = self.len;
        self.u32(len)
            .and_then(|()| self.bytes(bytes))
            .and_then(|()| self.bytes(&[0; 3][..padding(bytes.len())]))
            .inspect_err(|_| self.len = start)
    }
}

#[cfg(test)]
mod tests {
    extern crate alloc;
    extern crate std;

    use super::*;
    use alloc::vec;
    use proptest::prelude::*;

    #[test]
    fn padding_rounds_up_to_words() {
        assert_eq!([0, 1, 2, 3, 4, 5].map(padding), [0, 3, 2, 1, 0, 3]);
    }

    #[test]
    fn a_length_beyond_the_limit_is_refused_before_the_bytes_are_there() {
        let mut reader = Reader::new(&[0xff; 4]);
        assert_eq!(reader.opaque(64), Err(XdrError::TooLong));
    }

    #[test]
    fn a_boolean_is_zero_or_one() {
        assert_eq!(Reader::new(&[0, 0, 0, 2]).bool(), Err(XdrError::BadValue));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            a: u32, b: u64, c: bool, blob in proptest::collection::vec(any::<u8>(), 0..80),
        ) {
            let mut buf = vec![0xaa; 128];
            let mut w = Writer::new(&mut buf);
            w.u32(a).unwrap();
            w.opaque(&blob).unwrap();
            w.u64(b).unwrap();
            w.bool(c).unwrap();
            let len = w.len();
            let mut r = Reader::new(&buf[..len]);
            prop_assert_eq!(r.u32(), Ok(a));
            prop_assert_eq!(r.opaque(80), Ok(&blob[..]));
            prop_assert_eq!(r.u64(), Ok(b));
            prop_assert_eq!(r.bool(), Ok(c));
            prop_assert!(r.remaining().is_empty());
        }

        /// The streaming decoder relies on it: `missing` more bytes never overshoot.
        #[test]
        fn truncation_names_what_is_missing(cut in 0usize..12, blob in proptest::collection::vec(any::<u8>(), 0..8)) {
            let mut buf = [0; 16];
            let mut w = Writer::new(&mut buf);
            w.opaque(&blob).unwrap();
            let len = w.len();
            let cut = cut.min(len);
            match Reader::new(&buf[..cut]).opaque(8) {
                Ok(got) => { prop_assert_eq!(cut, len); prop_assert_eq!(got, &blob[..]); }
                Err(XdrError::Truncated { missing }) => {
                    prop_assert!(missing > 0 && cut + missing <= len);
                }
                Err(other) => prop_assert!(false, "{other}"),
            }
        }
    }
}
