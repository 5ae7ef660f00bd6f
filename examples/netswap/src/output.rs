//! Words for people and for scripts, on streams that may be closed or full: that must not end a run,
//! and its swap file must not stay behind.

use core::fmt;
use std::io::{self, ErrorKind, Write};

/// A line for people, on standard error.
pub(crate) fn tell(line: fmt::Arguments<'_>) {
    // Nobody listens: there is nobody to tell.
    let _ = writeln!(io::stderr(), "{line}");
}

/// Text that was asked for, on standard output.
///
/// # Errors
///
/// It cannot be written. A reader who has seen enough is no error.
pub(crate) fn print(text: fmt::Arguments<'_>) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_fmt(text).and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        done => done,
    }
}
