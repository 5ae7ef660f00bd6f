//! What the program writes into its pages, and how it knows them again.
//!
//! Every page has contents that follow from the seed, its number and its version (how often it was
//! written), so that a page that comes back late, stale, from a neighbour or half is told from the
//! right one, without keeping a copy. The first word names the page and the version: when a check
//! fails, it shows whose bytes arrived instead. Version 0 is a page of zeros, never written.

use core::error::Error;
use core::fmt;

/// Bytes of the words that the pattern is made of.
const WORD: usize = size_of::<u64>();

/// Fills `bytes` with the contents of `page` at `version`. O(len), about half a microsecond for
/// 4 KiB.
///
/// # Panics
///
/// If the length of `bytes` is not a multiple of 8.
pub(crate) fn fill(bytes: &mut [u8], seed: u64, page: u32, version: u32) {
    let (words, rest) = bytes.as_chunks_mut::<WORD>();
    assert!(rest.is_empty(), "a page is made of whole words");
    for (word, value) in words.iter_mut().zip(Pattern::new(seed, page, version)) {
        *word = value.to_le_bytes();
    }
}

/// Checks that `bytes` are the contents of `page` at `version`. O(len).
///
/// # Errors
///
/// The first byte that differs.
///
/// # Panics
///
/// If the length of `bytes` is not a multiple of 8.
pub(crate) fn check(bytes: &[u8], seed: u64, page: u32, version: u32) -> Result<(), Mismatch> {
    let (words, rest) = bytes.as_chunks::<WORD>();
    assert!(rest.is_empty(), "a page is made of whole words");
    for (i, (word, value)) in words
        .iter()
        .zip(Pattern::new(seed, page, version))
        .enumerate()
    {
        let expected = value.to_le_bytes();
        if *word != expected {
            let at = (0..WORD).find(|&at| word[at] != expected[at]).unwrap_or(0);
            return Err(Mismatch {
                page,
                version,
                offset: i * WORD + at,
                expected: expected[at],
                found: word[at],
                holds: identify(words, seed, page),
            });
        }
    }
    Ok(())
}

/// A page that is not what was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mismatch {
    /// The page that was checked.
    pub(crate) page: u32,
    /// The version that it should have had.
    pub(crate) version: u32,
    /// The first byte that differs.
    pub(crate) offset: usize,
    /// What should be there.
    pub(crate) expected: u8,
    /// What is there.
    pub(crate) found: u8,
    /// Whose contents these are from end to end, if they are any page's: page, version.
    pub(crate) holds: Option<(u32, u32)>,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Mismatch {
            page,
            version,
            offset,
            expected,
            found,
            holds,
        } = *self;
        write!(
            f,
            "page {page} version {version}: byte {offset} is {found:#04x} instead of \
             {expected:#04x}; "
        )?;
        match holds {
            Some((_, 0)) => f.write_str("the page is all zeros"),
            Some((p, v)) if p == page => write!(f, "the page is its own version {v}"),
            Some((p, v)) => write!(f, "the page is page {p} version {v}"),
            None => f.write_str("the page as a whole was never written"),
        }
    }
}

impl Error for Mismatch {}

/// The words of a page, without end.
struct Pattern {
    first: Option<u64>,
    /// `None` for version 0.
    state: Option<u64>,
}

impl Pattern {
    fn new(seed: u64, page: u32, version: u32) -> Pattern {
        if version == 0 {
            return Pattern {
                first: None,
                state: None,
            };
        }
        let name = u64::from(page) << 32 | u64::from(version);
        let first = name ^ mix(seed);
        Pattern {
            first: Some(first),
            state: Some(mix(first)),
        }
    }
}

impl Iterator for Pattern {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        if let Some(first) = self.first.take() {
            return Some(first);
        }
        let Some(state) = &mut self.state else {
            return Some(0);
        };
        *state = state.wrapping_add(GOLDEN);
        Some(mix(*state))
    }
}

/// Whose contents these are: reads the name in the first word, and believes it if the rest agrees.
fn identify(words: &[[u8; WORD]], seed: u64, page: u32) -> Option<(u32, u32)> {
    let name = u64::from_le_bytes(*words.first()?) ^ mix(seed);
    let candidates = [(page, 0), ((name >> 32) as u32, name as u32)];
    candidates.into_iter().find(|&(page, version)| {
        let mut pairs = words.iter().zip(Pattern::new(seed, page, version));
        pairs.all(|(word, value)| *word == value.to_le_bytes())
    })
}

const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// The output function of SplitMix64: a bijection that spreads every bit.
fn mix(z: u64) -> u64 {
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEED: u64 = 0xC0FFEE;

    fn page(number: u32, version: u32) -> [u8; 4096] {
        let mut bytes = [0xEE; 4096];
        fill(&mut bytes, SEED, number, version);
        bytes
    }

    #[test]
    fn page_passes_as_itself() {
        for (number, version) in [(0, 0), (0, 1), (7, 3), (u32::MAX, u32::MAX)] {
            assert_eq!(check(&page(number, version), SEED, number, version), Ok(()));
        }
    }

    #[test]
    fn version_0_is_all_zeros() {
        assert_eq!(page(9, 0), [0; 4096]);
    }

    #[test]
    fn stale_page_is_told_from_the_right_one_and_named() {
        let m = check(&page(7, 2), SEED, 7, 3).expect_err("stale");
        assert_eq!(m.holds, Some((7, 2)));
        assert!(
            m.to_string().ends_with("the page is its own version 2"),
            "{m}"
        );
    }

    #[test]
    fn neighbours_page_is_told_from_the_right_one_and_named() {
        let m = check(&page(8, 3), SEED, 7, 3).expect_err("another page");
        assert_eq!(m.holds, Some((8, 3)));
        assert!(
            m.to_string().ends_with("the page is page 8 version 3"),
            "{m}"
        );
    }

    #[test]
    fn lost_page_is_seen_as_zeros() {
        let m = check(&[0; 4096], SEED, 7, 3).expect_err("zeros");
        assert_eq!(m.holds, Some((7, 0)));
    }

    #[test]
    fn every_flipped_bit_is_found_where_it_is() {
        let good = page(5, 1);
        for offset in (0..4096).step_by(13).chain([4095]) {
            let mut bad = good;
            bad[offset] ^= 0x10;
            let m = check(&bad, SEED, 5, 1).expect_err("a bit flipped");
            assert_eq!(
                (m.offset, m.expected, m.found),
                (offset, good[offset], bad[offset])
            );
            assert_eq!(m.holds, None);
        }
    }

    #[test]
    fn half_a_page_is_not_enough() {
        let mut torn = page(5, 2);
        torn[2048..].copy_from_slice(&page(5, 1)[2048..]);
        let m = check(&torn, SEED, 5, 2).expect_err("torn");
        assert_eq!((m.offset, m.holds), (2048, None));
    }

    #[test]
    fn another_seed_gives_other_bytes() {
        assert!(check(&page(5, 1), SEED + 1, 5, 1).is_err());
    }
}
