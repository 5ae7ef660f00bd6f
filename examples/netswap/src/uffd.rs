//! A page table made of `userfaultfd`: memory whose faults this process answers itself.
//!
//! [`Region`] is the side of whoever answers: it reads the faults, fills pages, protects them,
//! copies them out and drops them. [`Share`] is the side of the program that lives in the memory
//! and knows nothing of all this: plain loads and stores, which stop in the kernel until the
//! region has answered. The kernel interface is declared here by hand (`linux/userfaultfd.h`),
//! because it is a system call, six ioctls and a message of 32 bytes.
//!
//! Faults of the kernel itself are not served (`UFFD_USER_MODE_ONLY`), so that no privilege is
//! needed: a system call that is handed a pointer into the region fails with `EFAULT` instead.

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

    /// How a page is mapped now. O(1).
    pub(crate) fn state(&self, page: usize) -> PageState {
        self.pages[page]
    }

    /// Takes the faults that wait, at most [`FAULT_BATCH`], without blocking. Each must be
    /// answered with [`copy`](Self::copy), [`zero`](Self::zero),
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

    /// Fills an absent page with zeros, writable, and wakes whoever waits for it.
    ///
    /// # Errors
    ///
    /// As for [`copy`](Self::copy).
    pub(crate) fn zero(&mut self, page: usize) -> io::Result<()> {
        self.expect_absent(page)?;
        let range = self.mapping.range(page..page + 1);
        self.insist(
            abi::UFFDIO_ZEROPAGE,
            &mut abi::Zeropage {
                range,
                mode: 0,
                zeroed: 0,
            },
        )?;
        self.pages[page] = PageState::Writable;
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

/// The kernel's interface, from `linux/userfaultfd.h`.
mod abi {
    pub(super) const UFFD_USER_MODE_ONLY: libc::c_int = 1;
    pub(super) const UFFD_API: u64 = 0xAA;
    pub(super) const FEATURE_PAGEFAULT_FLAG_WP: u64 = 1 << 0;

    pub(super) const REGISTER_MODE_MISSING: u64 = 1 << 0;
    pub(super) const REGISTER_MODE_WP: u64 = 1 << 1;
    pub(super) const COPY_MODE_WP: u64 = 1 << 1;
    pub(super) const WRITEPROTECT_MODE_WP: u64 = 1 << 0;
    pub(super) const WRITEPROTECT_MODE_DONTWAKE: u64 = 1 << 1;

    pub(super) const EVENT_PAGEFAULT: u8 = 0x12;
    pub(super) const PAGEFAULT_FLAG_WRITE: u64 = 1 << 0;
    pub(super) const PAGEFAULT_FLAG_WP: u64 = 1 << 1;

    pub(super) const UFFDIO_REGISTER: libc::Ioctl = read_write::<Register>(0x00);
    pub(super) const UFFDIO_WAKE: libc::Ioctl = request::<Range>(READ, 0x02);
    pub(super) const UFFDIO_COPY: libc::Ioctl = read_write::<Copy>(0x03);
    pub(super) const UFFDIO_ZEROPAGE: libc::Ioctl = read_write::<Zeropage>(0x04);
    pub(super) const UFFDIO_WRITEPROTECT: libc::Ioctl = read_write::<Writeprotect>(0x06);
    pub(super) const UFFDIO_API: libc::Ioctl = read_write::<Api>(0x3F);

    /// Bits of [`Register::ioctls`]: wake, copy, zeropage, writeprotect.
    pub(super) const NEEDED_IOCTLS: u64 = 1 << 2 | 1 << 3 | 1 << 4 | 1 << 6;

    const WRITE: u32 = 1;
    const READ: u32 = 2;

    /// `_IOC(direction, 0xAA, number, sizeof(T))`.
    const fn request<T>(direction: u32, number: u32) -> libc::Ioctl {
        (direction << 30 | (size_of::<T>() as u32) << 16 | 0xAA << 8 | number) as libc::Ioctl
    }

    const fn read_write<T>(number: u32) -> libc::Ioctl {
        request::<T>(READ | WRITE, number)
    }

    /// Structures that the kernel reads and writes for one of the requests above.
    pub(super) trait Argument {}
    impl Argument for Api {}
    impl Argument for Range {}
    impl Argument for Register {}
    impl Argument for Copy {}
    impl Argument for Zeropage {}
    impl Argument for Writeprotect {}

    #[repr(C)]
    pub(super) struct Api {
        pub(super) api: u64,
        pub(super) features: u64,
        pub(super) ioctls: u64,
    }

    #[repr(C)]
    pub(super) struct Range {
        pub(super) start: u64,
        pub(super) len: u64,
    }

    #[repr(C)]
    pub(super) struct Register {
        pub(super) range: Range,
        pub(super) mode: u64,
        pub(super) ioctls: u64,
    }

    #[repr(C)]
    pub(super) struct Copy {
        pub(super) dst: u64,
        pub(super) src: u64,
        pub(super) len: u64,
        pub(super) mode: u64,
        pub(super) copied: i64,
    }

    #[repr(C)]
    pub(super) struct Zeropage {
        pub(super) range: Range,
        pub(super) mode: u64,
        pub(super) zeroed: i64,
    }

    #[repr(C)]
    pub(super) struct Writeprotect {
        pub(super) range: Range,
        pub(super) mode: u64,
    }

    /// `struct uffd_msg`, as a page fault fills it.
    #[repr(C)]
    #[derive(Clone, core::marker::Copy, Default)]
    pub(super) struct Message {
        pub(super) event: u8,
        pub(super) reserved: [u8; 7],
        pub(super) flags: u64,
        pub(super) address: u64,
        pub(super) thread: u32,
        pub(super) padding: u32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::thread;

    /// `None`, loudly, where the system refuses: the program falls back there as well.
    fn region(pages: usize, shares: usize) -> Option<(Region, Vec<Share>)> {
        match Uffd::open() {
            Ok(uffd) => Some(Region::new(uffd, pages, shares).expect("register memory")),
            Err(e) => {
                eprintln!("NOT TESTED: userfaultfd is refused here: {e}");
                None
            }
        }
    }

    /// Blocks until the program faults, and takes that one fault.
    fn next_fault(region: &Region) -> Fault {
        let mut poll = libc::pollfd {
            fd: region.as_fd().as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: one valid descriptor entry.
        let ready = unsafe { libc::poll(&mut poll, 1, 10_000) };
        assert_eq!(ready, 1, "no fault within ten seconds");
        let mut buf = [Fault::default(); FAULT_BATCH];
        let faults = region.read_faults(&mut buf).expect("read faults");
        assert_eq!(faults.len(), 1);
        faults[0]
    }

    #[test]
    fn structures_have_the_kernels_sizes() {
        assert_eq!(size_of::<abi::Api>(), 24);
        assert_eq!(size_of::<abi::Range>(), 16);
        assert_eq!(size_of::<abi::Register>(), 32);
        assert_eq!(size_of::<abi::Copy>(), 40);
        assert_eq!(size_of::<abi::Zeropage>(), 32);
        assert_eq!(size_of::<abi::Writeprotect>(), 24);
        assert_eq!(size_of::<abi::Message>(), 32);
    }

    #[test]
    fn requests_have_the_kernels_numbers() {
        assert_eq!(abi::UFFDIO_API, 0xC018_AA3F);
        assert_eq!(abi::UFFDIO_REGISTER, 0xC020_AA00);
        assert_eq!(abi::UFFDIO_WAKE, 0x8010_AA02);
        assert_eq!(abi::UFFDIO_COPY, 0xC028_AA03);
        assert_eq!(abi::UFFDIO_ZEROPAGE, 0xC020_AA04);
        assert_eq!(abi::UFFDIO_WRITEPROTECT, 0xC018_AA06);
    }

    #[test]
    fn missing_page_stops_the_thread_until_it_is_filled() {
        let Some((mut region, mut shares)) = region(4, 1) else {
            return;
        };
        let share = shares.remove(0);
        let program = thread::spawn(move || share.page(2)[100]);
        let fault = next_fault(&region);
        assert_eq!(
            fault,
            Fault {
                page: 2,
                write: false,
                protected: false
            }
        );
        region
            .copy(2, &[0x5A; PAGE_SIZE], true)
            .expect("fill the page");
        assert_eq!(program.join().expect("program"), 0x5A);
        assert_eq!(region.state(2), PageState::Protected);
    }

    #[test]
    fn write_to_a_protected_page_faults_and_the_copy_out_has_the_bytes() {
        let Some((mut region, mut shares)) = region(2, 1) else {
            return;
        };
        let mut share = shares.remove(0);
        region
            .copy(1, &[1; PAGE_SIZE], true)
            .expect("fill the page");
        let program = thread::spawn(move || share.page_mut(1)[4095] = 7);
        assert_eq!(
            next_fault(&region),
            Fault {
                page: 1,
                write: true,
                protected: true
            }
        );

        // The write has not happened.
        let mut out = [0; PAGE_SIZE];
        region.read_page(1, &mut out).expect("copy out");
        assert_eq!(out, [1; PAGE_SIZE]);

        region
            .write_protect(1, false, true)
            .expect("make it writable");
        program.join().expect("program");
        region
            .write_protect(1, true, false)
            .expect("protect it again");
        region.read_page(1, &mut out).expect("copy out");
        assert_eq!((out[4094], out[4095]), (1, 7));
    }

    #[test]
    fn dropped_page_faults_again_as_missing() {
        let Some((mut region, mut shares)) = region(1, 1) else {
            return;
        };
        let mut share = shares.remove(0);
        region
            .copy(0, &[3; PAGE_SIZE], true)
            .expect("fill the page");
        region.drop_page(0).expect("drop the page");
        let program = thread::spawn(move || {
            share.page_mut(0)[0] = 9;
            share.page(0)[1]
        });
        assert_eq!(
            next_fault(&region),
            Fault {
                page: 0,
                write: true,
                protected: false
            }
        );
        region
            .copy(0, &[4; PAGE_SIZE], false)
            .expect("fill it anew");
        assert_eq!(program.join().expect("program"), 4);
        region.write_protect(0, true, false).expect("protect");
        let mut out = [0; PAGE_SIZE];
        region.read_page(0, &mut out).expect("copy out");
        assert_eq!((out[0], out[1]), (9, 4));
    }

    #[test]
    fn zero_page_can_be_protected_like_any_other() {
        let Some((mut region, mut shares)) = region(1, 1) else {
            return;
        };
        let mut share = shares.remove(0);
        region.zero(0).expect("zero the page");
        region.write_protect(0, true, false).expect("protect it");
        let program = thread::spawn(move || {
            assert_eq!(share.page(0), &[0; PAGE_SIZE]);
            share.page_mut(0)[8] = 1;
        });
        assert_eq!(
            next_fault(&region),
            Fault {
                page: 0,
                write: true,
                protected: true
            }
        );
        region
            .write_protect(0, false, false)
            .expect("make it writable");
        region.wake(0).expect("wake the thread");
        program.join().expect("program");
    }

    #[test]
    fn operations_in_the_wrong_state_are_refused() {
        let Some((mut region, _shares)) = region(1, 1) else {
            return;
        };
        let mut out = [0; PAGE_SIZE];
        let kind = |r: io::Result<()>| r.expect_err("must be refused").kind();
        assert_eq!(kind(region.read_page(0, &mut out)), io::ErrorKind::NotFound);
        assert_eq!(
            kind(region.write_protect(0, true, false)),
            io::ErrorKind::NotFound
        );
        region.zero(0).expect("zero the page");
        assert_eq!(kind(region.zero(0)), io::ErrorKind::AlreadyExists);
        assert_eq!(
            kind(region.copy(0, &[1; PAGE_SIZE], true)),
            io::ErrorKind::AlreadyExists
        );
        assert_eq!(
            kind(region.read_page(0, &mut out)),
            io::ErrorKind::PermissionDenied
        );
    }

    #[test]
    fn nothing_waiting_reads_as_no_fault() {
        let Some((region, _shares)) = region(1, 1) else {
            return;
        };
        let mut buf = [Fault::default(); FAULT_BATCH];
        assert!(
            region
                .read_faults(&mut buf)
                .expect("read faults")
                .is_empty()
        );
    }

    #[test]
    fn dropping_the_region_releases_a_thread_that_nobody_will_answer() {
        let Some((region, mut shares)) = region(1, 1) else {
            return;
        };
        let share = shares.remove(0);
        let (done, finished) = mpsc::channel();
        thread::spawn(move || done.send(share.page(0)[0]));
        next_fault(&region);
        drop(region);
        let waited = finished.recv_timeout(core::time::Duration::from_secs(10));
        assert_eq!(waited, Ok(0), "still stuck");
    }

    #[test]
    fn shares_cover_the_region_without_overlap() {
        let Some((_region, shares)) = region(7, 3) else {
            return;
        };
        let dealt: Vec<usize> = shares.iter().flat_map(Share::pages).collect();
        assert_eq!(dealt, (0..7).collect::<Vec<_>>());
    }
}
