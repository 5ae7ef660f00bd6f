//! Blocking on several things at once: a flag with a descriptor, and `ppoll(2)`.

use core::ptr;
use core::time::Duration;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use libc::{c_short, pollfd};

/// A flag whose descriptor is readable while it is set.
#[derive(Debug)]
pub(crate) struct EventFd(File);

impl EventFd {
    /// A flag that is not set.
    ///
    /// # Errors
    ///
    /// If the system has no descriptor left.
    pub(crate) fn new() -> io::Result<EventFd> {
        // SAFETY: the call takes numbers and touches no memory of ours.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just given us this descriptor; nobody else owns it.
        Ok(EventFd(File::from(unsafe { OwnedFd::from_raw_fd(fd) })))
    }

    /// Sets it, and wakes whoever waits for it.
    pub(crate) fn ring(&self) {
        // Fails only if the counter overflows, and then it is set.
        let _ = (&self.0).write(&1_u64.to_ne_bytes());
    }

    /// Unsets it.
    pub(crate) fn clear(&self) {
        // Fails only if it is not set.
        let _ = (&self.0).read(&mut [0; 8]);
    }
}

impl AsFd for EventFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for EventFd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// One descriptor to wait for, and how it turned out.
#[derive(Debug)]
pub(crate) struct Wait<'fd> {
    fd: BorrowedFd<'fd>,
    events: c_short,
    ready: bool,
}

impl<'fd> Wait<'fd> {
    /// Until it can be read, or has failed.
    pub(crate) fn readable(fd: BorrowedFd<'fd>) -> Wait<'fd> {
        Wait::new(fd, true, false)
    }

    /// Until it can be read or written as asked, or has failed.
    pub(crate) fn new(fd: BorrowedFd<'fd>, read: bool, write: bool) -> Wait<'fd> {
        let read = if read { libc::POLLIN } else { 0 };
        let write = if write { libc::POLLOUT } else { 0 };
        Wait {
            fd,
            events: read | write,
            ready: false,
        }
    }

    /// Whether the last [`poll`] ended for this one.
    pub(crate) fn is_ready(&self) -> bool {
        self.ready
    }
}

/// Blocks until one of `waits` is ready, `timeout` has passed or a signal came.
///
/// # Errors
///
/// If the system refuses; a signal is no error.
pub(crate) fn poll(waits: &mut [Wait<'_>], timeout: Option<Duration>) -> io::Result<()> {
    let mut fds: Vec<pollfd> = waits
        .iter()
        .map(|wait| pollfd {
            fd: wait.fd.as_raw_fd(),
            events: wait.events,
            revents: 0,
        })
        .collect();
    let timeout = timeout.map(|timeout| libc::timespec {
        tv_sec: timeout.as_secs().try_into().unwrap_or(libc::time_t::MAX),
        tv_nsec: timeout.subsec_nanos().into(),
    });
    let timeout = timeout.as_ref().map_or(ptr::null(), ptr::from_ref);
    let len = fds.len() as libc::nfds_t;
    // SAFETY: `fds` holds `len` entries, and `timeout` is null or points to a value that lives
    // until the end of this function; a null signal mask leaves the mask as it is.
    let n = unsafe { libc::ppoll(fds.as_mut_ptr(), len, timeout, ptr::null()) };
    if n < 0 {
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    for (wait, fd) in waits.iter_mut().zip(&fds) {
        // After a signal nothing was filled in.
        wait.ready = n > 0 && fd.revents != 0;
    }
    Ok(())
}
