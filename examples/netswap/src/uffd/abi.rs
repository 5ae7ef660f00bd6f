//! The kernel's interface, from `linux/userfaultfd.h`.

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
