//! A number for a state.

use core::fmt::{self, Write};
use core::hash::{Hash, Hasher};
use std::collections::VecDeque;
use std::hash::DefaultHasher;

/// Collects what a state consists of. Made anew with the same keys each time, so that equal states
/// have equal numbers in every run and every thread.
#[derive(Debug, Default)]
pub(super) struct Digest {
    hasher: DefaultHasher,
    text: String,
}

impl Digest {
    pub(super) fn number(&mut self, number: usize) {
        number.hash(&mut self.hasher);
    }

    pub(super) fn value(&mut self, value: impl Hash) {
        value.hash(&mut self.hasher);
    }

    pub(super) fn frames(&mut self, frames: &VecDeque<Vec<u8>>) {
        frames.hash(&mut self.hasher);
    }

    /// Everything that a part says of itself, but for the addresses of its memory.
    pub(super) fn debug(&mut self, part: &dyn fmt::Debug) {
        self.text.clear();
        write!(self.text, "{part:?}").expect("a string takes everything");
        let mut rest = self.text.as_str();
        while let Some(at) = rest.find("0x") {
            self.hasher.write(&rest.as_bytes()[..at]);
            rest = rest[at + 2..].trim_start_matches(|c: char| c.is_ascii_hexdigit());
        }
        self.hasher.write(rest.as_bytes());
        self.hasher.write_u8(0xff);
    }

    pub(super) fn finish(self) -> u64 {
        self.hasher.finish()
    }
}

/// A number for a sequence: that of what came before and of what comes now.
pub(super) fn chain(before: u64, now: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    (before, now).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::Digest;

    #[test]
    fn addresses_do_not_count_and_everything_else_does() {
        let of = |text: &str| {
            let mut digest = Digest::default();
            digest.debug(&format_args!("{text}"));
            digest.finish()
        };
        assert_eq!(
            of("Frame { start: 0x7f12, order: 0 }"),
            of("Frame { start: 0xab, order: 0 }")
        );
        assert_ne!(
            of("Frame { start: 0x7f12, order: 0 }"),
            of("Frame { start: 0x7f12, order: 1 }")
        );
    }
}
