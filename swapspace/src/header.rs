//! The header of a swap area, as `mkswap` writes it and Linux, libblkid and we read it.
//!
//! It fills the first page (`union swap_header` of `include/linux/swap.h`, mkswap(8)):
//!
//! ```text
//!      0  boot sector, nobody's business here      1052  label, 16 bytes, zeros after it
//!   1024  version: 1                               1068  117 words of padding
//!   1028  last page                                1536  bad pages, one word each
//!   1032  number of bad pages                 page - 10  "SWAPSPACE2"
//!   1036  UUID, 16 bytes
//! ```
//! Words are in the byte order of the machine that wrote them, and where the magic stands says how
//! large its pages were. It never does I/O: a page goes in or comes out as bytes.

use core::fmt;

const VERSION: usize = 1024;
const LAST_PAGE: usize = 1028;
const BAD_COUNT: usize = 1032;
const UUID: usize = 1036;
const LABEL: usize = 1052;
const PADDING: usize = 1068;
const BAD_PAGES: usize = 1536;

const MAGIC: &[u8; 10] = b"SWAPSPACE2";
const MAGIC_V0: &[u8; 10] = b"SWAP-SPACE";
/// What hibernation puts in place of the magic: the area holds a frozen system.
const MAGIC_FROZEN: [&[u8]; 4] = [b"S1SUSPEND", b"S2SUSPEND", b"ULSUSPEND", b"LINHIB0001"];

/// The smallest page that has room for a header, and for a bad page.
const MIN_PAGE: usize = 2048;

/// The header of a swap area: how large it is, what it is called, and which pages are bad.
///
/// It borrows the list of bad pages, from the page that was read or from whoever makes it.
///
/// ```
/// use swapspace::{HeaderError, SwapHeader};
///
/// let mut page = [0; 4096];
/// SwapHeader::new(64)
///     .with_label("spare")?
///     .with_uuid(*b"0123456789abcdef")
///     .with_bad_pages(&[7, 9])
///     .write(&mut page)?;
///
/// let header = SwapHeader::read(&page, 64)?;
/// assert_eq!((header.pages(), header.label()), (64, &b"spare"[..]));
/// assert!(header.bad_pages().eq([7, 9]));
/// assert_eq!(
///     SwapHeader::read(&page, 63),
///     Err(HeaderError::TooLarge { last_page: 63, slots: 63 })
/// );
/// # Ok::<(), HeaderError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SwapHeader<'a> {
    pages: u32,
    uuid: [u8; 16],
    label: [u8; 16],
    bad: BadPages<'a>,
}

impl<'a> SwapHeader<'a> {
    /// The header of an area of `pages` pages, itself included: no label, a UUID of zeros (which
    /// means none), no bad pages.
    #[must_use]
    pub const fn new(pages: u32) -> Self {
        SwapHeader {
            pages,
            uuid: [0; 16],
            label: [0; 16],
            bad: BadPages(List::Words(&[])),
        }
    }

    /// Names the area, with at most 16 bytes.
    ///
    /// # Errors
    ///
    /// [`HeaderError::LabelTooLong`].
    pub fn with_label(mut self, label: &str) -> Result<Self, HeaderError> {
        self.label = [0; 16];
        let room = self.label.get_mut(..label.len());
        let bytes = label.len();
        room.ok_or(HeaderError::LabelTooLong { bytes })?
            .copy_from_slice(label.as_bytes());
        Ok(self)
    }

    /// Gives the area a UUID, in the order in which it is printed.
    #[must_use]
    pub const fn with_uuid(mut self, uuid: [u8; 16]) -> Self {
        self.uuid = uuid;
        self
    }

    /// Says which pages must not be used, in any order. [`write`](Self::write) checks them.
    #[must_use]
    pub const fn with_bad_pages(mut self, bad: &'a [u32]) -> Self {
        self.bad = BadPages(List::Words(bad));
        self
    }

    /// Reads the header of a store of `slots` pages from its first `page`. O(bad pages).
    ///
    /// # Errors
    ///
    /// [`HeaderError`], and never a panic, whatever the page holds.
    pub fn read(page: &'a [u8], slots: u32) -> Result<Self, HeaderError> {
        find_magic(page)?;
        let version = word(page, VERSION);
        match version {
            1 => {}
            _ if version.swap_bytes() == 1 => return Err(HeaderError::OtherEndian),
            _ => return Err(HeaderError::Version(version)),
        }
        let (last_page, count) = (word(page, LAST_PAGE), word(page, BAD_COUNT));
        if last_page >= slots && last_page > 0 {
            return Err(HeaderError::TooLarge { last_page, slots });
        }
        let room = &page[BAD_PAGES..page.len() - MAGIC.len()];
        let bytes = usize::try_from(count).ok().and_then(|n| n.checked_mul(4));
        let Some(list) = bytes.and_then(|bytes| room.get(..bytes)) else {
            let most = most_bad_pages(page.len());
            return Err(HeaderError::TooManyBadPages { count, most });
        };
        let header = SwapHeader {
            // Below `slots`, or zero: no overflow.
            pages: last_page + 1,
            uuid: field(page, UUID),
            label: field(page, LABEL),
            bad: BadPages(List::Bytes(list)),
        };
        header.check()?;
        Ok(header)
    }

    /// Writes the header into the first page of its store. The first 1024 bytes stay as they are:
    /// they may be a boot sector. O(page).
    ///
    /// # Errors
    ///
    /// [`HeaderError`]: a header that [`read`](Self::read) would refuse. The page has not changed.
    pub fn write(&self, page: &mut [u8]) -> Result<(), HeaderError> {
        let bytes = page.len();
        if !is_page(bytes) {
            return Err(HeaderError::PageSize { bytes });
        }
        self.check()?;
        let (count, most) = (self.bad.len(), most_bad_pages(bytes));
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        if count > most {
            return Err(HeaderError::TooManyBadPages { count, most });
        }
        page[VERSION..].fill(0);
        put(page, VERSION, &1u32.to_ne_bytes());
        put(page, LAST_PAGE, &(self.pages - 1).to_ne_bytes());
        put(page, BAD_COUNT, &count.to_ne_bytes());
        put(page, UUID, &self.uuid);
        put(page, LABEL, &self.label);
        for (bad, at) in self.bad.clone().zip((BAD_PAGES..).step_by(4)) {
            put(page, at, &bad.to_ne_bytes());
        }
        put(page, bytes - MAGIC.len(), MAGIC);
        Ok(())
    }

    fn check(&self) -> Result<(), HeaderError> {
        if self.pages < 2 {
            return Err(HeaderError::Empty);
        }
        let mut bad = self.bad.clone();
        match bad.find(|page| !(1..self.pages).contains(page)) {
            Some(page) => Err(HeaderError::BadPageOutOfRange {
                page,
                last_page: self.pages - 1,
            }),
            None => Ok(()),
        }
    }

    /// Pages of the area, the header included.
    #[must_use]
    pub const fn pages(&self) -> u32 {
        self.pages
    }

    /// The UUID, in the order in which it is printed; all zeros if there is none.
    #[must_use]
    pub const fn uuid(&self) -> [u8; 16] {
        self.uuid
    }

    /// The label, without the zeros after it. Usually UTF-8, but nobody checks.
    #[must_use]
    pub fn label(&self) -> &[u8] {
        self.label.split(|byte| *byte == 0).next().unwrap_or(&[])
    }

    /// Pages that must not be used, in the order of the list, in which one may occur twice.
    #[must_use]
    pub fn bad_pages(&self) -> BadPages<'a> {
        self.bad.clone()
    }
}

/// The bad pages of a [`SwapHeader`].
#[derive(Debug, Clone)]
pub struct BadPages<'a>(List<'a>);

#[derive(Debug, Clone)]
enum List<'a> {
    /// As they stand in a page: not aligned to anything.
    Bytes(&'a [u8]),
    Words(&'a [u32]),
}

impl Iterator for BadPages<'_> {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        match &mut self.0 {
            List::Bytes(bytes) => {
                let (first, rest) = bytes.split_first_chunk()?;
                *bytes = rest;
                Some(u32::from_ne_bytes(*first))
            }
            List::Words(words) => {
                let (first, rest) = words.split_first()?;
                *words = rest;
                Some(*first)
            }
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = match &self.0 {
            List::Bytes(bytes) => bytes.len() / 4,
            List::Words(words) => words.len(),
        };
        (left, Some(left))
    }
}

impl ExactSizeIterator for BadPages<'_> {}

impl PartialEq for BadPages<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.clone().eq(other.clone())
    }
}

impl Eq for BadPages<'_> {}

/// Why a page is not the header of a swap area that we can use, or cannot become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum HeaderError {
    /// So many bytes are not a page: a power of two, 2048 at least.
    PageSize {
        /// How many.
        bytes: usize,
    },
    /// There is no magic: this is no swap area, or one of larger pages.
    NoMagic,
    /// It was made for smaller pages.
    OtherPageSize {
        /// Their size.
        bytes: usize,
    },
    /// It was made on a machine of the other byte order.
    OtherEndian,
    /// It has the header of Linux before 2.2, a bitmap (magic "SWAP-SPACE").
    Version0,
    /// It has a header of a version that nobody knows yet.
    Version(u32),
    /// It holds the image of a hibernated system, which swapping would destroy.
    Hibernated,
    /// It has no page but the header.
    Empty,
    /// It ends beyond its store.
    TooLarge {
        /// The last page that it claims to have.
        last_page: u32,
        /// Pages of the store.
        slots: u32,
    },
    /// It lists more bad pages than fit into the header (`MAX_SWAP_BADPAGES`).
    TooManyBadPages {
        /// How many.
        count: u32,
        /// How many fit.
        most: u32,
    },
    /// It lists as bad its header, or a page that it does not have.
    BadPageOutOfRange {
        /// Which one.
        page: u32,
        /// The last page that it has.
        last_page: u32,
    },
    /// Every page is bad.
    AllBad,
    /// A label of more than 16 bytes.
    LabelTooLong {
        /// How many.
        bytes: usize,
    },
}

impl fmt::Display for HeaderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HeaderError::PageSize { bytes } => write!(f, "{bytes} bytes are not a page"),
            HeaderError::NoMagic => f.write_str("no swap header"),
            HeaderError::OtherPageSize { bytes } => {
                write!(f, "the swap area was made for pages of {bytes} bytes")
            }
            HeaderError::OtherEndian => f.write_str("the swap area has the other byte order"),
            HeaderError::Version0 => f.write_str("the swap area has a header of version 0"),
            HeaderError::Version(version) => {
                write!(f, "the swap area has a header of version {version}")
            }
            HeaderError::Hibernated => f.write_str("the swap area holds a hibernated system"),
            HeaderError::Empty => f.write_str("the swap area is empty"),
            HeaderError::TooLarge { last_page, slots } => write!(
                f,
                "the swap area ends at page {last_page}, and its store has {slots} pages"
            ),
            HeaderError::TooManyBadPages { count, most } => {
                write!(f, "{count} bad pages, and a header has room for {most}")
            }
            HeaderError::BadPageOutOfRange { page, last_page } => {
                write!(f, "page {page} cannot be bad, only 1 to {last_page} can")
            }
            HeaderError::AllBad => f.write_str("every page of the swap area is bad"),
            HeaderError::LabelTooLong { bytes } => {
                write!(f, "a label of {bytes} bytes, and a header has room for 16")
            }
        }
    }
}

impl core::error::Error for HeaderError {}

fn is_page(bytes: usize) -> bool {
    bytes >= MIN_PAGE && bytes.is_power_of_two()
}

/// `MAX_SWAP_BADPAGES`.
fn most_bad_pages(page: usize) -> u32 {
    u32::try_from((page - MAGIC.len() - BAD_PAGES) / 4).unwrap_or(u32::MAX)
}

/// Whether the magic of version 1 stands at the end of the page.
fn find_magic(page: &[u8]) -> Result<(), HeaderError> {
    let bytes = page.len();
    if !is_page(bytes) {
        return Err(HeaderError::PageSize { bytes });
    }
    let magic = &page[bytes - MAGIC.len()..];
    if magic == MAGIC {
        return Ok(());
    }
    if magic == MAGIC_V0 {
        return Err(HeaderError::Version0);
    }
    if MAGIC_FROZEN.iter().any(|frozen| magic.starts_with(frozen)) {
        return Err(HeaderError::Hibernated);
    }
    let mut smaller = bytes / 2;
    while smaller >= MIN_PAGE {
        if page[..smaller].ends_with(MAGIC) {
            return Err(HeaderError::OtherPageSize { bytes: smaller });
        }
        smaller /= 2;
    }
    Err(HeaderError::NoMagic)
}

/// A field within the first `PADDING` bytes, which every page has.
fn field<const N: usize>(page: &[u8], at: usize) -> [u8; N] {
    debug_assert!(at + N <= PADDING);
    let mut bytes = [0; N];
    bytes.copy_from_slice(&page[at..at + N]);
    bytes
}

fn word(page: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(field(page, at))
}

fn put(page: &mut [u8], at: usize, bytes: &[u8]) {
    page[at..at + bytes.len()].copy_from_slice(bytes);
}

#[cfg(test)]
mod tests;
