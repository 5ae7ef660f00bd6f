//! A trace of page accesses, and its format.
//!
//! One number for each access: the distance to the page before (signed, zigzag) times two, plus one
//! for a write, seven bits to a byte, the low ones first. The first page is a distance from page 0.

use std::collections::BTreeSet;

/// An access.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Access {
    pub(crate) page: u32,
    pub(crate) write: bool,
}

/// Accesses of the last so many different pages are not recorded: any policy has those in memory.
const RECENT: usize = 4;

/// Accesses in order, without those to pages that were accessed just before.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    accesses: Vec<Access>,
    /// The last different pages, the last one last, and where each was recorded.
    recent: Vec<(u32, usize)>,
}

impl Trace {
    pub(crate) fn push(&mut self, page: u32, write: bool) {
        let recorded = match self.recent.iter().position(|(other, _)| *other == page) {
            Some(at) => self.recent.remove(at).1,
            None => {
                self.accesses.push(Access { page, write });
                self.accesses.len() - 1
            }
        };
        self.accesses[recorded].write |= write;
        self.recent.push((page, recorded));
        if self.recent.len() > RECENT {
            self.recent.remove(0);
        }
    }

    pub(crate) fn accesses(&self) -> &[Access] {
        &self.accesses
    }

    /// Different pages.
    pub(crate) fn pages(&self) -> usize {
        let pages: BTreeSet<u32> = self.accesses.iter().map(|access| access.page).collect();
        pages.len()
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut before = 0;
        for access in &self.accesses {
            let distance = i64::from(access.page) - before;
            before = i64::from(access.page);
            let zigzag = (distance << 1 ^ distance >> 63) as u64;
            let mut left = zigzag << 1 | u64::from(access.write);
            while left > 0x7f {
                bytes.push(left as u8 | 0x80);
                left >>= 7;
            }
            bytes.push(left as u8);
        }
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Trace {
        let mut trace = Trace::default();
        let (mut number, mut shift, mut before) = (0u64, 0, 0i64);
        for byte in bytes {
            number |= u64::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 != 0 {
                continue;
            }
            let zigzag = number >> 1;
            before += (zigzag >> 1) as i64 ^ -((zigzag & 1) as i64);
            let page = u32::try_from(before).expect("a page number");
            trace.accesses.push(Access {
                page,
                write: number & 1 != 0,
            });
            (number, shift) = (0, 0);
        }
        trace
    }
}
