//! One file: what it holds, and what it would hold after a power failure.

use core::ops::Range;
use std::collections::BTreeMap;

/// The longest file: what Linux allows.
pub(super) const SIZE_MAX: u64 = i64::MAX as u64;

/// A file with its unstable data.
#[derive(Debug, Clone)]
pub(super) struct File {
    /// Names this file and no other, not even a later one of the same name.
    pub(super) id: u64,
    /// Its permissions; nothing is checked against them.
    pub(super) mode: u32,
    /// When it was last changed, on the server's counter: there is no clock.
    pub(super) changed: u32,
    /// What clients see.
    now: Image,
    /// What a power failure leaves.
    stable: Image,
    /// What was written unstable, and not committed yet: the difference between the two above.
    unstable: Extents,
}

/// What a file is at one moment.
#[derive(Debug, Clone, Default)]
struct Image {
    size: u64,
    data: Extents,
}

impl File {
    /// A file of `size` bytes, the first `used` of which are zeros on disk; the rest is a hole.
    pub(super) fn new(id: u64, size: u64, used: u64) -> Self {
        let mut image = Image::default();
        image.write(0, vec![0; index(used.min(size))]);
        image.resize(size);
        File {
            id,
            mode: 0o600,
            changed: 0,
            now: image.clone(),
            stable: image,
            unstable: Extents::default(),
        }
    }

    /// Its length.
    pub(super) fn size(&self) -> u64 {
        self.now.size
    }

    /// Bytes of disk that it takes: what was ever written, and lies below its end.
    pub(super) fn used(&self) -> u64 {
        self.now.data.held
    }

    /// Bytes of disk that it would take after a write of `range`.
    pub(super) fn used_after(&self, range: &Range<u64>) -> u64 {
        self.used() + (range.end - range.start) - self.now.data.held_in(range)
    }

    /// The bytes of `range` that lie below the end of the file.
    pub(super) fn read(&self, range: Range<u64>) -> Vec<u8> {
        self.now.read(range)
    }

    /// The bytes of `range` after a power failure, as far as they lie below the end of the file.
    pub(super) fn read_stable(&self, range: Range<u64>) -> Vec<u8> {
        self.stable.read(range)
    }

    /// Stores bytes that a power failure takes away again.
    pub(super) fn write_unstable(&mut self, offset: u64, bytes: Vec<u8>) {
        self.now.write(offset, bytes.clone());
        self.unstable.insert(offset, bytes);
    }

    /// Stores bytes for good.
    pub(super) fn write_stable(&mut self, offset: u64, bytes: Vec<u8>) {
        self.unstable.take(&(offset..offset + bytes.len() as u64));
        self.now.write(offset, bytes.clone());
        self.stable.write(offset, bytes);
    }

    /// Makes stable what is unstable in `range`, and nothing else.
    pub(super) fn commit(&mut self, range: &Range<u64>) {
        for (offset, bytes) in self.unstable.take(range) {
            self.stable.write(offset, bytes);
        }
    }

    /// Cuts the file, or makes it longer by a hole; for good.
    pub(super) fn resize(&mut self, size: u64) {
        self.now.resize(size);
        self.stable.resize(size);
        self.unstable.take(&(size..u64::MAX));
    }

    /// The power fails, and comes back.
    pub(super) fn lose_unstable(&mut self) {
        self.now = self.stable.clone();
        self.unstable = Extents::default();
    }

    /// Bytes that a power failure would take.
    pub(super) fn unstable_bytes(&self) -> usize {
        index(self.unstable.held)
    }
}

impl Image {
    /// The bytes of `range` that lie below the end.
    fn read(&self, range: Range<u64>) -> Vec<u8> {
        let end = range.end.min(self.size);
        self.data.read(&(range.start.min(end)..end))
    }

    /// Stores bytes, beyond the end too. No bytes change nothing, the size neither.
    fn write(&mut self, offset: u64, bytes: Vec<u8>) {
        if !bytes.is_empty() {
            self.size = self.size.max(offset + bytes.len() as u64);
            self.data.insert(offset, bytes);
        }
    }

    /// Forgets what lies beyond the end, so that a hole is there when it grows again.
    fn resize(&mut self, size: u64) {
        self.data.take(&(size..u64::MAX));
        self.size = size;
    }
}

/// Pieces of a file by their offset. They are not empty and never overlap; between them are holes.
#[derive(Debug, Clone, Default)]
struct Extents {
    pieces: BTreeMap<u64, Vec<u8>>,
    /// Bytes in all pieces together.
    held: u64,
}

impl Extents {
    /// Puts `bytes` over whatever is there.
    fn insert(&mut self, offset: u64, bytes: Vec<u8>) {
        self.take(&(offset..offset + bytes.len() as u64));
        self.put(offset, bytes);
    }

    /// Cuts `range` out.
    fn take(&mut self, range: &Range<u64>) -> Vec<(u64, Vec<u8>)> {
        let touched: Vec<u64> = self.overlapping(range).map(|(start, _)| start).collect();
        let cut = |start| self.cut(start, range);
        touched.into_iter().filter_map(cut).collect()
    }

    /// Cuts `range` out of the piece at `start`, which overlaps it; what is left stays.
    fn cut(&mut self, start: u64, range: &Range<u64>) -> Option<(u64, Vec<u8>)> {
        let mut piece = self.pieces.remove(&start)?;
        self.held -= piece.len() as u64;
        if start + piece.len() as u64 > range.end {
            self.put(range.end, piece.split_off(index(range.end - start)));
        }
        if start >= range.start {
            return Some((start, piece));
        }
        let inside = piece.split_off(index(range.start - start));
        self.put(start, piece);
        Some((range.start, inside))
    }

    /// Adds a piece where nothing is.
    fn put(&mut self, offset: u64, bytes: Vec<u8>) {
        if !bytes.is_empty() {
            self.held += bytes.len() as u64;
            self.pieces.insert(offset, bytes);
        }
    }

    /// The bytes of `range`; holes are zeros.
    fn read(&self, range: &Range<u64>) -> Vec<u8> {
        let mut bytes = vec![0; index(range.end - range.start)];
        for (start, piece) in self.overlapping(range) {
            let common = common(start, piece, range);
            bytes[index(common.start - range.start)..index(common.end - range.start)]
                .copy_from_slice(&piece[index(common.start - start)..index(common.end - start)]);
        }
        bytes
    }

    /// Bytes of `range` that are no hole.
    fn held_in(&self, range: &Range<u64>) -> u64 {
        let len = |range: Range<u64>| range.end - range.start;
        let pieces = self.overlapping(range);
        pieces
            .map(|(start, piece)| len(common(start, piece, range)))
            .sum()
    }

    /// The pieces that have a byte in `range`, in order.
    fn overlapping(&self, range: &Range<u64>) -> impl Iterator<Item = (u64, &Vec<u8>)> {
        let range = range.start..range.end.max(range.start);
        let before = self.pieces.range(..range.start).next_back();
        let reaches_in = |&(start, piece): &(&u64, &Vec<u8>)| {
            !range.is_empty() && end(*start, piece) > range.start
        };
        let before = before.filter(reaches_in);
        let inside = self.pieces.range(range);
        before
            .into_iter()
            .chain(inside)
            .map(|(&start, piece)| (start, piece))
    }
}

/// Where a piece ends.
fn end(start: u64, piece: &[u8]) -> u64 {
    start + piece.len() as u64
}

/// What a piece has in common with a range that it overlaps.
fn common(start: u64, piece: &[u8], range: &Range<u64>) -> Range<u64> {
    start.max(range.start)..end(start, piece).min(range.end)
}

/// A distance within a piece or a buffer, which is in memory.
fn index(distance: u64) -> usize {
    usize::try_from(distance).expect("what is in memory has a length of usize")
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEN: usize = 48;

    /// Numbers that look random, and are the same every time.
    fn random(state: &mut u64, bound: usize) -> usize {
        *state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (*state >> 33) as usize % bound
    }

    /// What a file should be: its bytes, and what each is after a power failure.
    #[derive(Default)]
    struct Model {
        now: Vec<Option<u8>>,
        stable: Vec<Option<u8>>,
        unstable: Vec<bool>,
    }

    impl Model {
        fn write(image: &mut Vec<Option<u8>>, range: Range<usize>, byte: u8) {
            if !range.is_empty() {
                image.resize(image.len().max(range.end), None);
                image[range].fill(Some(byte));
            }
        }

        fn commit(&mut self, range: Range<usize>) {
            for at in range {
                if self.unstable[at] {
                    let byte = self.now[at].expect("unstable bytes were written");
                    Model::write(&mut self.stable, at..at + 1, byte);
                    self.unstable[at] = false;
                }
            }
        }

        fn bytes(image: &[Option<u8>]) -> Vec<u8> {
            image.iter().map(|byte| byte.unwrap_or(0)).collect()
        }
    }

    #[test]
    fn a_file_does_what_an_array_of_bytes_does() {
        let mut state = 1;
        let mut file = File::new(1, 0, 0);
        let mut model = Model {
            unstable: vec![false; LEN],
            ..Model::default()
        };
        for round in 0..20_000 {
            let start = random(&mut state, LEN);
            let end = start + random(&mut state, LEN - start + 1);
            let (range, wide) = (start..end, start as u64..end as u64);
            let written = range
                .clone()
                .filter(|&at| !matches!(model.now.get(at), Some(Some(_))));
            let used_after = file.used() + written.count() as u64;
            assert_eq!(file.used_after(&wide), used_after, "{round}");
            let byte = round as u8;
            match random(&mut state, 12) {
                0 => {
                    file.lose_unstable();
                    model.now = model.stable.clone();
                    model.unstable.fill(false);
                }
                1 => {
                    file.resize(wide.end);
                    model.now.resize(end, None);
                    model.stable.resize(end, None);
                    model.unstable[end..].fill(false);
                }
                2 | 3 => {
                    file.commit(&wide);
                    model.commit(range.clone());
                }
                4..7 => {
                    file.write_stable(wide.start, vec![byte; range.len()]);
                    Model::write(&mut model.now, range.clone(), byte);
                    Model::write(&mut model.stable, range.clone(), byte);
                    model.unstable[range.clone()].fill(false);
                }
                _ => {
                    file.write_unstable(wide.start, vec![byte; range.len()]);
                    Model::write(&mut model.now, range.clone(), byte);
                    model.unstable[range.clone()].fill(true);
                }
            }
            let (now, stable) = (Model::bytes(&model.now), Model::bytes(&model.stable));
            assert_eq!(file.size(), now.len() as u64, "{round}");
            assert_eq!(file.read(0..u64::MAX), now, "{round}");
            assert_eq!(file.read_stable(0..u64::MAX), stable, "{round}");
            let inside = start.min(now.len())..end.min(now.len());
            assert_eq!(file.read(start as u64..end as u64), now[inside], "{round}");
            let used = model.now.iter().flatten().count() as u64;
            assert_eq!(file.used(), used, "{round}");
            let unstable = model.unstable.iter().filter(|&&unstable| unstable).count();
            assert_eq!(file.unstable_bytes(), unstable, "{round}");
        }
    }

    #[test]
    fn a_file_of_any_size_takes_no_memory_for_its_holes() {
        let mut file = File::new(1, SIZE_MAX, 3);
        assert_eq!((file.size(), file.used()), (SIZE_MAX, 3));
        file.write_unstable(SIZE_MAX - 2, vec![1, 2]);
        assert_eq!(file.read(SIZE_MAX - 3..u64::MAX), [0, 1, 2]);
        file.commit(&(0..u64::MAX));
        assert_eq!(file.read_stable(SIZE_MAX - 3..u64::MAX), [0, 1, 2]);
        assert_eq!(file.used(), 5);
    }
}
