//! Memory to manage, and the flags of who asks for it.

use mempool::{Buddy, FRAME_SIZE, FrameEntry, Gfp, MemallocToken, SingleTask, Watermarks, Zone};
use proptest::prelude::*;

/// No power of two: the last runs have no buddy.
pub(crate) const FRAMES: usize = 61;
pub(crate) const MARKS: Watermarks = Watermarks {
    min: 8,
    low: 9,
    high: 10,
};

/// Runs `test` on a zone of [`FRAMES`] frames; tells where they begin.
pub(crate) fn with_zone<T>(test: impl FnOnce(&Zone<'_>, &SingleTask, usize) -> T) -> T {
    let mut memory = vec![0u8; (FRAMES + 1) * FRAME_SIZE];
    let skip = memory.as_ptr().align_offset(FRAME_SIZE);
    let memory = &mut memory[skip..skip + FRAMES * FRAME_SIZE];
    let base = memory.as_ptr().addr();
    let mut table = [FrameEntry::EMPTY; FRAMES];
    let source = <Buddy<'_>>::new(memory, &mut table).unwrap();
    let task = SingleTask::new();
    let zone = <Zone<'_>>::new(&source, &task, MARKS).unwrap();
    test(&zone, &task, base)
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Flags {
    wait: bool,
    high: bool,
    nomemalloc: bool,
    zero: bool,
    token: bool,
}

impl Flags {
    pub(crate) fn any() -> impl Strategy<Value = Flags> {
        let rare = || prop::bool::weighted(0.15);
        (any::<bool>(), any::<bool>(), rare(), rare(), any::<bool>()).prop_map(
            |(wait, high, nomemalloc, zero, token)| Flags {
                wait,
                high,
                nomemalloc,
                zero,
                token,
            },
        )
    }

    pub(crate) fn gfp(self, token: MemallocToken) -> Gfp {
        let none = Gfp::KERNEL.without(Gfp::WAIT);
        let on = |set, flag| if set { flag } else { none };
        let gfp = on(self.wait, Gfp::WAIT)
            | on(self.high, Gfp::HIGH)
            | on(self.nomemalloc, Gfp::NOMEMALLOC)
            | on(self.zero, Gfp::ZERO);
        if self.token { token.gfp(gfp) } else { gfp }
    }

    pub(crate) fn zero(self) -> bool {
        self.zero
    }

    /// M1, written down once more.
    pub(crate) fn entitled(self, scope: bool, interrupt: bool) -> bool {
        !self.nomemalloc && (self.token || scope && !interrupt)
    }

    /// What of `min` must stay free (M2), written down once more.
    pub(crate) fn floor(self) -> usize {
        match (self.high, self.wait) {
            (false, true) => MARKS.min,
            (false, false) => MARKS.min * 3 / 4,
            (true, true) => MARKS.min / 2,
            (true, false) => MARKS.min / 2 * 3 / 4,
        }
    }
}

/// Bytes at each end of memory that its owner marks. Owners who overlap are known by their addresses; this
/// is for whoever writes to memory that is not his.
const MARKED: usize = 64;

pub(crate) fn mark(bytes: &mut [u8], mark: u8) {
    let n = bytes.len().min(MARKED);
    let end = bytes.len() - n;
    bytes[..n].fill(mark);
    bytes[end..].fill(mark);
}

pub(crate) fn is_marked(bytes: &[u8], mark: u8) -> bool {
    let n = bytes.len().min(MARKED);
    let ends = bytes[..n].iter().chain(&bytes[bytes.len() - n..]);
    ends.into_iter().all(|byte| *byte == mark)
}
