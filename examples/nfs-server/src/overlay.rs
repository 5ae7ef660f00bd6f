//! Bytes that were written but are not in the file yet.

use std::collections::BTreeMap;

/// Extents of unstable data, by offset; they never overlap.
///
/// Extents stay as they were written, whole or cut: a commit writes what the client wrote.
#[derive(Debug, Default)]
pub(crate) struct Overlay {
    extents: BTreeMap<u64, Vec<u8>>,
}

impl Overlay {
    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.extents.is_empty()
    }

    /// The offset behind the last byte, 0 when empty.
    pub(crate) fn end(&self) -> u64 {
        self.extents.last_key_value().map_or(0, end)
    }

    /// Puts `data` over whatever is there. `offset + data.len()` must not overflow.
    pub(crate) fn insert(&mut self, offset: u64, data: &[u8]) {
        if !data.is_empty() {
            self.remove(offset, offset + data.len() as u64);
            self.extents.insert(offset, data.to_vec());
        }
    }

    /// Forgets `start..end`.
    pub(crate) fn remove(&mut self, start: u64, end: u64) {
        for (offset, mut data) in self.take_touching(start, end) {
            let data_end = offset + data.len() as u64;
            if data_end > end {
                let tail = data.split_off((end.max(offset) - offset) as usize);
                self.extents.insert(data_end - tail.len() as u64, tail);
            }
            if offset < start {
                data.truncate((start - offset) as usize);
                self.extents.insert(offset, data);
            }
        }
    }

    /// Takes out every extent that touches `start..end`, whole.
    pub(crate) fn take_touching(&mut self, start: u64, end: u64) -> Vec<(u64, Vec<u8>)> {
        let first = self.first_touching(start);
        let offsets: Vec<u64> = self
            .extents
            .range(first..)
            .map(|(&offset, _)| offset)
            .take_while(|&offset| offset < end)
            .collect();
        offsets
            .into_iter()
            .filter_map(|offset| self.extents.remove_entry(&offset))
            .collect()
    }

    /// Lays the extents over `buffer`, which holds the file's bytes from `offset` on.
    pub(crate) fn patch(&self, offset: u64, buffer: &mut [u8]) {
        let limit = offset + buffer.len() as u64;
        for (&at, data) in self.extents.range(self.first_touching(offset)..) {
            if at >= limit {
                break;
            }
            let start = at.max(offset);
            let stop = limit.min(at + data.len() as u64);
            buffer[(start - offset) as usize..(stop - offset) as usize]
                .copy_from_slice(&data[(start - at) as usize..(stop - at) as usize]);
        }
    }

    /// Where the first extent that ends behind `offset` starts, or `offset`.
    fn first_touching(&self, offset: u64) -> u64 {
        self.extents
            .range(..offset)
            .next_back()
            .filter(|&extent| end(extent) > offset)
            .map_or(offset, |(&at, _)| at)
    }
}

fn end((&offset, data): (&u64, &Vec<u8>)) -> u64 {
    offset + data.len() as u64
}

#[cfg(test)]
mod tests {
    use super::Overlay;

    const LEN: usize = 64;

    /// Random inserts and removes against a plain array of optional bytes.
    #[test]
    fn newest_bytes_win_and_removed_ones_show_the_file() {
        let mut state = 1_u64;
        let mut random = |bound: usize| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 33) as usize % bound
        };
        let mut overlay = Overlay::default();
        let mut model = [None; LEN];
        for round in 0..5_000 {
            let start = random(LEN);
            let end = start + random(LEN - start + 1);
            if random(3) == 0 {
                overlay.remove(start as u64, end as u64);
                model[start..end].fill(None);
            } else {
                let byte = round as u8;
                overlay.insert(start as u64, &vec![byte; end - start]);
                model[start..end].fill(Some(byte));
            }

            let mut seen = [0xEE; LEN];
            overlay.patch(0, &mut seen);
            assert_eq!(seen, model.map(|byte| byte.unwrap_or(0xEE)), "{round}");
            let part = random(LEN);
            let mut seen = vec![0xEE; LEN - part];
            overlay.patch(part as u64, &mut seen);
            let wanted: Vec<u8> = model[part..].iter().map(|b| b.unwrap_or(0xEE)).collect();
            assert_eq!(seen, wanted, "{round}");

            let length = model
                .iter()
                .rposition(Option::is_some)
                .map_or(0, |at| at + 1);
            assert_eq!(overlay.end(), length as u64);
            assert_eq!(overlay.is_empty(), length == 0);
        }
    }

    #[test]
    fn taking_a_range_takes_what_touches_it_and_nothing_else() {
        let mut overlay = Overlay::default();
        for offset in [0, 10, 20] {
            overlay.insert(offset, &[offset as u8; 5]);
        }
        let taken = overlay.take_touching(5, 11);
        assert_eq!(taken, [(10, vec![10; 5])]);
        assert_eq!(overlay.take_touching(15, 20), []);
        assert_eq!(overlay.take_touching(0, u64::MAX).len(), 2);
        assert!(overlay.is_empty());
    }
}
