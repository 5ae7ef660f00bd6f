//! Record marking on a byte stream (RFC 5531 section 11).
//!
//! A record is a sequence of fragments, each behind a mark of 4 bytes: 31 bits of length, and one
//! bit which says that it is the last.

use core::fmt;

const LAST: u32 = 1 << 31;

/// The mark of a record of `len` bytes in a single fragment.
///
/// # Panics
///
/// If `len` needs more than 31 bits.
#[must_use]
pub const fn record_mark(len: u32) -> [u8; 4] {
    assert!(len & LAST == 0, "a fragment has fewer than 2^31 bytes");
    (len | LAST).to_be_bytes()
}

/// A record that nobody sane would send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum RecordError {
    /// Longer than the longest reply that was asked for.
    TooLong,
    /// A fragment without bytes that is not the last.
    EmptyFragment,
}

impl fmt::Display for RecordError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            RecordError::TooLong => "a record longer than any reply asked for",
            RecordError::EmptyFragment => "a record fragment without bytes",
        })
    }
}

impl core::error::Error for RecordError {}

/// Takes the marks out of a stream, however the stream is cut into pieces.
///
/// ```
/// use nfs_swap::rpc::{RecordReader, record_mark};
///
/// let mut reader = RecordReader::new(1024);
/// let mut input: &[u8] = &[record_mark(3), *b"abc\0"].concat();
/// assert_eq!(reader.read(&mut input, 2)?, b"ab");
/// assert_eq!(reader.read(&mut input, 9)?, b"c");
/// assert!(reader.at_end());
/// # Ok::<(), nfs_swap::rpc::RecordError>(())
/// ```
#[derive(Debug)]
pub struct RecordReader {
    mark: [u8; 4],
    mark_len: u8,
    /// Bytes of the present fragment that have not been read.
    left: u32,
    last: bool,
    /// Bytes of the present record in all fragments seen.
    total: u32,
    limit: u32,
}

impl RecordReader {
    /// A reader at the start of a stream whose records have at most `limit` bytes.
    #[must_use]
    pub const fn new(limit: u32) -> Self {
        RecordReader {
            mark: [0; 4],
            mark_len: 0,
            left: 0,
            last: false,
            total: 0,
            limit,
        }
    }

    /// Takes up to `want` bytes of the present record off the front of `input`, marks removed.
    /// No bytes come back when the input is used up or the record [is at its end](Self::at_end).
    ///
    /// # Errors
    ///
    /// The stream makes no sense; nothing behind this point can be trusted.
    pub fn read<'a>(&mut self, input: &mut &'a [u8], want: usize) -> Result<&'a [u8], RecordError> {
        while self.left == 0 && !self.last {
            let Some((&byte, rest)) = input.split_first() else {
                return Ok(&[]);
            };
            *input = rest;
            self.mark[usize::from(self.mark_len)] = byte;
            self.mark_len += 1;
            if self.mark_len == 4 {
                self.start_fragment(u32::from_be_bytes(self.mark))?;
            }
        }
        let available = input.len().min(self.left as usize).min(want);
        let (head, tail) = input.split_at(available);
        *input = tail;
        self.left -= available as u32;
        Ok(head)
    }

    /// Whether the present record has been read to its end.
    #[must_use]
    pub const fn at_end(&self) -> bool {
        self.last && self.left == 0
    }

    /// Goes on to the next record.
    pub fn next_record(&mut self) {
        *self = RecordReader::new(self.limit);
    }

    fn start_fragment(&mut self, mark: u32) -> Result<(), RecordError> {
        self.mark_len = 0;
        self.last = mark & LAST != 0;
        self.left = mark & !LAST;
        if self.left == 0 && !self.last {
            return Err(RecordError::EmptyFragment);
        }
        self.total = self.total.saturating_add(self.left);
        if self.total > self.limit {
            return Err(RecordError::TooLong);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    extern crate alloc;
    extern crate std;

    use super::*;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    #[test]
    fn the_limit_counts_all_fragments() {
        let mut reader = RecordReader::new(5);
        let stream = [[0, 0, 0, 3], *b"abc\0", [0, 0, 3, 0]].concat();
        let mut input = &stream[..];
        assert_eq!(reader.read(&mut input, 8), Ok(&b"abc"[..]));
        assert_eq!(reader.read(&mut input, 8), Err(RecordError::TooLong));
    }

    #[test]
    fn an_empty_fragment_is_refused_unless_it_is_the_last() {
        let mut reader = RecordReader::new(5);
        assert_eq!(
            reader.read(&mut &[0; 4][..], 1),
            Err(RecordError::EmptyFragment)
        );
        let mut reader = RecordReader::new(5);
        assert_eq!(reader.read(&mut &[0x80, 0, 0, 0][..], 1), Ok(&[][..]));
        assert!(reader.at_end());
    }

    proptest! {
        #[test]
        fn records_survive_any_fragments_and_any_cuts(
            records in proptest::collection::vec(
                proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..9), 1..4), 1..6),
            cuts in proptest::collection::vec(1usize..7, 1..40),
        ) {
            let mut stream = Vec::new();
            for fragments in &records {
                for (i, fragment) in fragments.iter().enumerate() {
                    let last = if i + 1 == fragments.len() { LAST } else { 0 };
                    stream.extend((fragment.len() as u32 | last).to_be_bytes());
                    stream.extend(fragment);
                }
            }
            let mut reader = RecordReader::new(64);
            let mut got = Vec::new();
            let mut record = Vec::new();
            let mut stream = &stream[..];
            let mut cuts = cuts.iter().cycle();
            while !stream.is_empty() {
                let (mut piece, rest) = stream.split_at(stream.len().min(*cuts.next().unwrap()));
                stream = rest;
                loop {
                    let bytes = reader.read(&mut piece, 5).unwrap();
                    record.extend_from_slice(bytes);
                    if reader.at_end() {
                        got.push(core::mem::take(&mut record));
                        reader.next_record();
                    } else if bytes.is_empty() {
                        break;
                    }
                }
            }
            let sent: Vec<Vec<u8>> = records.iter().map(|fragments| fragments.concat()).collect();
            prop_assert_eq!(got, sent);
        }
    }
}
