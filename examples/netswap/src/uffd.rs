//! A page table made of `userfaultfd`: memory whose faults this process answers itself.
//!
//! [`Region`] is the side of whoever answers: it reads the faults, fills pages, protects them,
//! copies them out and drops them. [`Share`] is the side of the program that lives in the memory
//! and knows nothing of all this: plain loads and stores, which stop in the kernel until the
//! region has answered. The kernel interface is declared here by hand (`linux/userfaultfd.h`),
//! because it is a system call, five ioctls and a message of 32 bytes.
//!
//! Faults of the kernel itself are not served (`UFFD_USER_MODE_ONLY`), so that no privilege is
//! needed: a system call that is handed a pointer into the region fails with `EFAULT` instead.

mod abi;

use core::fmt;
use core::ops::Range;
use core::ptr::{self, NonNull};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;

/// Bytes in a page.
pub(crate) const PAGE_SIZE: usize = 4096;

/// Faults that one [`Region::read_faults`] can return.
pub(crate) const FAULT_BATCH: usize = 16;

/// One page worth of bytes.
pub(crate) type PageBytes = [u8; PAGE_SIZE];

/// An open `userfaultfd` which can report missing pages and write-protection faults.
#[derive(Debug)]
pub(crate) struct Uffd {
    fd: OwnedFd,
}

impl Uffd {
    /// Opens one, non-blocking.
    ///
    /// # Errors
    ///
    /// What the kernel answered: commonly `EPERM` (refused to this user or by the container's
    /// filter) or `ENOSYS`; [`io::ErrorKind::Unsupported`] when it cannot write-protect.
    pub(crate) fn open() -> io::Result<Uffd> {
        let flags = libc::O_CLOEXEC | libc::O_NONBLOCK | abi::UFFD_USER_MODE_ONLY;
        // SAFETY: the call takes flags and touches no memory of ours.
        let fd = unsafe { libc::syscall(libc::SYS_userfaultfd, flags) };
        let fd = RawFd::try_from(fd).map_err(|_| io::ErrorKind::InvalidData)?;
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just given us this descriptor; nobody else owns it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let uffd = Uffd { fd };

        let mut api = abi::Api {
            api: abi::UFFD_API,
            features: abi::FEATURE_PAGEFAULT_FLAG_WP,
            ioctls: 0,
        };
        uffd.ioctl(abi::UFFDIO_API, &mut api)?;
        if api.features & abi::FEATURE_PAGEFAULT_FLAG_WP == 0 {
            return Err(unsupported(
                "this kernel's userfaultfd cannot write-protect pages",
            ));
        }
        Ok(uffd)
    }

    fn ioctl<T: abi::Argument>(&self, request: libc::Ioctl, argument: &mut T) -> io::Result<()> {
        // SAFETY: `Argument` is only implemented for the structures which these requests read and
        // write, and the exclusive borrow lasts for the call.
        let answer = unsafe { libc::ioctl(self.fd.as_raw_fd(), request, ptr::from_mut(argument)) };
        if answer == -1 {
            Err(io::Error::last_os_error())
        } else {
            Ok(())
        }
    }
}

/// A fault: a thread of the program waits until the page is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Fault {
    /// Which page of the region.
    pub(crate) page: usize,
    /// The thread wants to write.
    pub(crate) write: bool,
    /// The page is there, but write-protected. Otherwise it is missing.
    pub(crate) protected: bool,
}

/// What the region knows of one of its pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PageState {
    /// Not there: any access faults.
    Absent,
    /// There, read-only: a write faults.
    Protected,
    /// There; no access faults.
    Writable,
}

impl fmt::Display for PageState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PageState::Absent => "absent",
            PageState::Protected => "write-protected",
            PageState::Writable => "writable",
        })
    }
}

/// A range of anonymous memory whose faults are answered by whoever holds this.
///
/// Dropping it closes the `userfaultfd`: every waiting thread wakes and finds zeros in the pages
/// that were missing, as in any anonymous memory. That is also the way to release a program whose
/// pages will never arrive; it must be told beforehand not to trust what it reads.
#[derive(Debug)]
pub(crate) struct Region {
    uffd: Uffd,
    mapping: Arc<Mapping>,
    pages: Vec<PageState>,
}

impl Region {
    /// Maps `pages` pages, all absent, and deals them out in `shares` consecutive shares of
    /// (nearly) equal size, one for each thread of the program.
    ///
    /// # Errors
    ///
    /// What `mmap`, `madvise` or `UFFDIO_REGISTER` answered, and
    /// [`io::ErrorKind::Unsupported`] when the system's pages are not of [`PAGE_SIZE`] bytes or
    /// this memory cannot be filled and write-protected.
    ///
    /// # Panics
    ///
    /// If `pages` or `shares` is 0.
    pub(crate) fn new(uffd: Uffd, pages: usize, shares: usize) -> io::Result<(Region, Vec<Share>)> {
        assert!(
            pages > 0 && shares > 0,
            "a region has pages and somebody who uses them"
        );
        let mapping = Arc::new(Mapping::new(pages)?);
        let mut register = abi::Register {
            range: mapping.range(0..pages),
            mode: abi::REGISTER_MODE_MISSING | abi::REGISTER_MODE_WP,
            ioctls: 0,
        };
        uffd.ioctl(abi::UFFDIO_REGISTER, &mut register)?;
        if register.ioctls & abi::NEEDED_IOCTLS != abi::NEEDED_IOCTLS {
            return Err(unsupported(
                "this kernel cannot fill and write-protect such memory",
            ));
        }
        let dealt = (0..shares)
            .map(|i| Share {
                mapping: Arc::clone(&mapping),
                range: pages * i / shares..pages * (i + 1) / shares,
            })
            .collect();
        Ok((
            Region {
                uffd,
                mapping,
                pages: vec![PageState::Absent; pages],
            },
            dealt,
        ))
    }

    /// Takes the faults that wait, at most [`FAULT_BATCH`], without blocking. Each must be
    /// answered with [`copy`](Self::copy),
    /// [`write_protect`](Self::write_protect) or [`wake`](Self::wake), or its thread waits for
    /// ever. To block, poll(2) the descriptor for `POLLIN`.
    ///
    /// # Errors
    ///
    /// What read(2) answered, "nothing there" excepted.
    pub(crate) fn read_faults<'b>(
        &self,
        buf: &'b mut [Fault; FAULT_BATCH],
    ) -> io::Result<&'b [Fault]> {
        let mut messages = [abi::Message::default(); FAULT_BATCH];
        // SAFETY: the buffer is as long as we say, and any bytes are a valid `Message`.
        let read = unsafe {
            libc::read(
                self.uffd.fd.as_raw_fd(),
                messages.as_mut_ptr().cast(),
                size_of_val(&messages),
            )
        };
        let Ok(read) = usize::try_from(read) else {
            return match io::Error::last_os_error() {
                e if e.kind() == io::ErrorKind::WouldBlock => Ok(&[]),
                e if e.kind() == io::ErrorKind::Interrupted => Ok(&[]),
                e => Err(e),
            };
        };
        let mut found = 0;
        for message in &messages[..read / size_of::<abi::Message>()] {
            // No other event was asked for; one that we do not know needs no answer.
            if message.event != abi::EVENT_PAGEFAULT {
                continue;
            }
            let Some(page) = self.mapping.page_of(message.address) else {
                continue;
            };
            buf[found] = Fault {
                page,
                write: message.flags & abi::PAGEFAULT_FLAG_WRITE != 0,
                protected: message.flags & abi::PAGEFAULT_FLAG_WP != 0,
            };
            found += 1;
        }
        Ok(&buf[..found])
    }

    /// Fills an absent page and wakes whoever waits for it; `protected` maps it read-only.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::AlreadyExists`] when the page is there (its contents stay); otherwise what
    /// `UFFDIO_COPY` answered.
    pub(crate) fn copy(
        &mut self,
        page: usize,
        bytes: &PageBytes,
        protected: bool,
    ) -> io::Result<()> {
        self.expect_absent(page)?;
        let mut copy = abi::Copy {
            dst: self.mapping.address(page),
            src: bytes.as_ptr() as u64,
            len: PAGE_SIZE as u64,
            mode: if protected { abi::COPY_MODE_WP } else { 0 },
            copied: 0,
        };
        self.insist(abi::UFFDIO_COPY, &mut copy)?;
        self.pages[page] = if protected {
            PageState::Protected
        } else {
            PageState::Writable
        };
        Ok(())
    }

    /// Takes the right to write a present page away (`on`), or gives it back and, with `wake`,
    /// wakes whoever waits to write. When it returns with `on`, no processor still writes.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::NotFound`] when the page is absent; otherwise what
    /// `UFFDIO_WRITEPROTECT` answered.
    pub(crate) fn write_protect(&mut self, page: usize, on: bool, wake: bool) -> io::Result<()> {
        if self.pages[page] == PageState::Absent {
            return Err(wrong_state(
                io::ErrorKind::NotFound,
                page,
                PageState::Absent,
            ));
        }
        let mode = match (on, wake) {
            // The kernel refuses `DONTWAKE` together with `WP`: protecting never wakes.
            (true, _) => abi::WRITEPROTECT_MODE_WP,
            (false, true) => 0,
            (false, false) => abi::WRITEPROTECT_MODE_DONTWAKE,
        };
        let range = self.mapping.range(page..page + 1);
        self.insist(
            abi::UFFDIO_WRITEPROTECT,
            &mut abi::Writeprotect { range, mode },
        )?;
        self.pages[page] = if on {
            PageState::Protected
        } else {
            PageState::Writable
        };
        Ok(())
    }

    /// Wakes whoever waits for the page; the access is tried again.
    ///
    /// # Errors
    ///
    /// What `UFFDIO_WAKE` answered.
    pub(crate) fn wake(&self, page: usize) -> io::Result<()> {
        self.uffd
            .ioctl(abi::UFFDIO_WAKE, &mut self.mapping.range(page..page + 1))
    }

    /// Forgets the page, whatever is in it: from now on any access faults.
    ///
    /// # Errors
    ///
    /// What `madvise` answered.
    pub(crate) fn drop_page(&mut self, page: usize) -> io::Result<()> {
        self.mapping.advise(page..page + 1, libc::MADV_DONTNEED)?;
        self.pages[page] = PageState::Absent;
        Ok(())
    }

    /// Copies a write-protected page out. Only such a page: nothing can change it meanwhile, and
    /// reading it cannot fault (this thread would wait for itself).
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::NotFound`] when it is absent, [`io::ErrorKind::PermissionDenied`] when it
    /// is writable.
    pub(crate) fn read_page(&self, page: usize, to: &mut PageBytes) -> io::Result<()> {
        match self.pages[page] {
            PageState::Protected => {}
            s @ PageState::Absent => return Err(wrong_state(io::ErrorKind::NotFound, page, s)),
            s @ PageState::Writable => {
                return Err(wrong_state(io::ErrorKind::PermissionDenied, page, s));
            }
        }
        // SAFETY: the page is within the mapping, present and write-protected, so the bytes are
        // readable and do not change; `to` is memory of the caller's, outside of the mapping,
        // because no `&mut` of a `Share` may be lent to the thread which answers its faults.
        unsafe {
            ptr::copy_nonoverlapping(self.mapping.pointer(page), to.as_mut_ptr(), PAGE_SIZE);
        }
        Ok(())
    }

    fn expect_absent(&self, page: usize) -> io::Result<()> {
        match self.pages[page] {
            PageState::Absent => Ok(()),
            state => Err(wrong_state(io::ErrorKind::AlreadyExists, page, state)),
        }
    }

    /// `EAGAIN` means that the address space changed under the kernel's feet (another thread in
    /// `mremap` or `fork`) and nothing was done: that passes.
    fn insist<T: abi::Argument>(&self, request: libc::Ioctl, argument: &mut T) -> io::Result<()> {
        loop {
            match self.uffd.ioctl(request, argument) {
                Err(e) if e.raw_os_error() == Some(libc::EAGAIN) => std::thread::yield_now(),
                answer => return answer,
            }
        }
    }
}

/// Readable while a fault waits.
impl AsFd for Region {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.uffd.fd.as_fd()
    }
}

/// The pages of a region that belong to one thread of the program.
///
/// Shares never overlap, so ordinary borrows guard their bytes. An access to a page that is not
/// there stops the thread until the [`Region`] answers; never lend such a borrow to the thread
/// which answers.
#[derive(Debug)]
pub(crate) struct Share {
    mapping: Arc<Mapping>,
    range: Range<usize>,
}

impl Share {
    /// Which pages of the region these are.
    pub(crate) fn pages(&self) -> Range<usize> {
        self.range.clone()
    }

    /// Reads a page, by its number in the region.
    ///
    /// # Panics
    ///
    /// If the page is not in this share.
    pub(crate) fn page(&self, page: usize) -> &PageBytes {
        // SAFETY: as for `page_mut`, with a shared borrow.
        unsafe { &*self.locate(page) }
    }

    /// Writes a page, by its number in the region.
    ///
    /// # Panics
    ///
    /// If the page is not in this share.
    pub(crate) fn page_mut(&mut self, page: usize) -> &mut PageBytes {
        // SAFETY: the page lies within the mapping, which the share keeps alive; no other share
        // holds it and we are borrowed. The region swaps what is behind it, but promises to put
        // back the bytes that it took, and takes them only while writing is barred; any bytes are
        // a valid `PageBytes`.
        unsafe { &mut *self.locate(page) }
    }

    fn locate(&self, page: usize) -> *mut PageBytes {
        assert!(
            self.range.contains(&page),
            "page {page} is not in the share {:?}",
            self.range
        );
        // The optimiser must not carry over what it has seen of the page before: to check the
        // memory is to load it.
        core::hint::black_box(self.mapping.pointer(page).cast())
    }
}

/// The memory itself.
#[derive(Debug)]
struct Mapping {
    base: NonNull<u8>,
    pages: usize,
}

// SAFETY: it owns the memory like a `Box<[u8]>` would; who may touch which bytes when is settled by
// `Share` and `Region`.
unsafe impl Send for Mapping {}
// SAFETY: as above; its own methods only compute addresses.
unsafe impl Sync for Mapping {}

impl Mapping {
    fn new(pages: usize) -> io::Result<Mapping> {
        // SAFETY: asks for a number.
        if unsafe { libc::sysconf(libc::_SC_PAGESIZE) } != PAGE_SIZE as libc::c_long {
            return Err(unsupported("this system's pages are not of 4096 bytes"));
        }
        let len = pages
            .checked_mul(PAGE_SIZE)
            .ok_or(io::ErrorKind::OutOfMemory)?;
        // SAFETY: a new anonymous mapping where the kernel likes; nothing existing is touched.
        let base = unsafe {
            libc::mmap(
                ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        let mapping = Mapping { base, pages };
        // A huge page would come and go as one, past the page-wise bookkeeping. A kernel built
        // without them answers EINVAL, and then there is nothing to forbid.
        match mapping.advise(0..pages, libc::MADV_NOHUGEPAGE) {
            Err(e) if e.raw_os_error() != Some(libc::EINVAL) => Err(e),
            _ => Ok(mapping),
        }
    }

    fn pointer(&self, page: usize) -> *mut u8 {
        assert!(
            page < self.pages,
            "page {page} lies beyond the region's {}",
            self.pages
        );
        // SAFETY: within the mapping, as just checked.
        unsafe { self.base.as_ptr().add(page * PAGE_SIZE) }
    }

    fn address(&self, page: usize) -> u64 {
        self.pointer(page) as u64
    }

    fn page_of(&self, address: u64) -> Option<usize> {
        let offset = address.checked_sub(self.base.as_ptr() as u64)?;
        let page = usize::try_from(offset).ok()? / PAGE_SIZE;
        (page < self.pages).then_some(page)
    }

    fn range(&self, pages: Range<usize>) -> abi::Range {
        abi::Range {
            start: self.address(pages.start),
            len: (pages.len() * PAGE_SIZE) as u64,
        }
    }

    fn advise(&self, pages: Range<usize>, advice: libc::c_int) -> io::Result<()> {
        let start = self.pointer(pages.start).cast();
        // SAFETY: the range is ours; the advices in use drop contents or forbid huge pages, and
        // whoever drops contents answers for them (`Region::drop_page`).
        let answer = unsafe { libc::madvise(start, pages.len() * PAGE_SIZE, advice) };
        if answer == -1 {
            Err(io::Error::last_os_error())
        } else {
            Ok(())
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: we mapped exactly this, and with the last `Arc` gone nobody can reach it.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.pages * PAGE_SIZE) };
    }
}

fn unsupported(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, what)
}

fn wrong_state(kind: io::ErrorKind, page: usize, state: PageState) -> io::Error {
    io::Error::new(kind, format!("page {page} is {state}"))
}

#[cfg(test)]
mod tests;
