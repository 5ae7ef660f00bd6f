//! Ctrl-C as something to wait for: the swap file must not stay behind on somebody's server.

use core::mem::MaybeUninit;
use core::ptr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};

/// The wish to end early, by SIGINT, SIGTERM or SIGHUP. The first one is read here; another one ends the
/// process as usual.
#[derive(Debug)]
pub(crate) struct Interrupt {
    signals: File,
    set: libc::sigset_t,
}

impl Interrupt {
    /// Takes the signals off this thread and those that it starts: call it before any other.
    ///
    /// # Errors
    ///
    /// The system has no descriptor left.
    pub(crate) fn catch() -> io::Result<Self> {
        let mut set = MaybeUninit::uninit();
        // SAFETY: `set` is written before it is read, and lives until the calls return.
        let fd = unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            libc::sigaddset(set.as_mut_ptr(), libc::SIGINT);
            libc::sigaddset(set.as_mut_ptr(), libc::SIGTERM);
            libc::sigaddset(set.as_mut_ptr(), libc::SIGHUP);
            libc::pthread_sigmask(libc::SIG_BLOCK, set.as_ptr(), ptr::null_mut());
            libc::signalfd(-1, set.as_ptr(), libc::SFD_CLOEXEC | libc::SFD_NONBLOCK)
        };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Interrupt {
            // SAFETY: the kernel has just given us this descriptor; nobody else owns it.
            signals: File::from(unsafe { OwnedFd::from_raw_fd(fd) }),
            // SAFETY: `sigemptyset` wrote it.
            set: unsafe { set.assume_init() },
        })
    }

    /// Whether somebody wants to end; true once.
    pub(crate) fn came(&self) -> bool {
        let mut info = [0; size_of::<libc::signalfd_siginfo>()];
        let came = (&self.signals).read(&mut info).is_ok();
        if came {
            // SAFETY: the set lives as long as `self`; this thread's mask is ours to change.
            unsafe { libc::pthread_sigmask(libc::SIG_UNBLOCK, &self.set, ptr::null_mut()) };
        }
        came
    }
}

impl AsFd for Interrupt {
    /// Readable while [`came`](Self::came) would be true.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.signals.as_fd()
    }
}
