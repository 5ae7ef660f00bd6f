//! What happened, step by step: a number that says whether two runs were the same, text for people,
//! and the wire as a capture file.

use std::io::{self, Write};

use crate::packet;
use crate::scenario::Micros;

/// Where a run is written to.
pub struct Trace {
    hash: u64,
    events: u64,
    text: Option<Box<dyn Write>>,
    capture: Option<Box<dyn Write>>,
}

impl Trace {
    /// Only the number.
    #[must_use]
    pub fn silent() -> Trace {
        Trace {
            hash: 0xcbf2_9ce4_8422_2325,
            events: 0,
            text: None,
            capture: None,
        }
    }

    /// A readable line for every step.
    #[must_use]
    pub fn with_text(mut self, text: Box<dyn Write>) -> Trace {
        self.text = Some(text);
        self
    }

    /// A capture of the wire in pcap format.
    ///
    /// # Errors
    ///
    /// It cannot be written.
    pub fn with_capture(mut self, mut capture: Box<dyn Write>) -> io::Result<Trace> {
        // Magic number, version 2.4, no offset, longest packet, Ethernet.
        let header: [u32; 6] = [0xa1b2_c3d4, 2 | 4 << 16, 0, 0, 65_535, 1];
        for word in header {
            capture.write_all(&word.to_le_bytes())?;
        }
        self.capture = Some(capture);
        Ok(self)
    }

    /// The number of what happened so far.
    pub(crate) const fn hash(&self) -> u64 {
        self.hash
    }

    pub(crate) const fn events(&self) -> u64 {
        self.events
    }

    fn mix(&mut self, word: u64) {
        self.hash = (self.hash ^ word)
            .wrapping_mul(0x0000_0100_0000_01b3)
            .rotate_left(23);
    }

    /// Something happened: what kind of thing, and to whom.
    pub(crate) fn event(&mut self, now: Micros, kind: u64, which: u64) {
        self.events += 1;
        self.mix(now);
        self.mix(kind << 32 ^ which);
    }

    /// Something worth a line.
    pub(crate) fn note(&mut self, now: Micros, line: impl FnOnce() -> String) {
        if let Some(text) = &mut self.text {
            // A reader who has gone away has seen enough.
            let _ = writeln!(
                text,
                "{:>4}.{:06} {}",
                now / 1_000_000,
                now % 1_000_000,
                line()
            );
        }
    }

    /// A packet passed.
    pub(crate) fn packet(&mut self, now: Micros, fate: &str, frame: &[u8]) {
        self.mix(frame.len() as u64);
        for chunk in frame.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.mix(u64::from_le_bytes(word));
        }
        self.note(now, || format!("{fate} {}", packet::describe(frame)));
        if let Some(capture) = &mut self.capture {
            let len = frame.len() as u32;
            let header = [(now / 1_000_000) as u32, (now % 1_000_000) as u32, len, len];
            for word in header {
                let _ = capture.write_all(&word.to_le_bytes());
            }
            let _ = capture.write_all(frame);
        }
    }
}

impl core::fmt::Debug for Trace {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Trace")
            .field("hash", &self.hash)
            .finish_non_exhaustive()
    }
}
