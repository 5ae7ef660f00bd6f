//! Memory to manage, of any size: it costs nothing until it is touched.

use core::alloc::Layout;
use core::ptr;

/// `bytes` of zeroes, aligned to a page, for as long as the process lives. Neither swap nor memory is
/// set aside for them, so that there may be more than the machine has.
pub fn map(bytes: usize) -> &'static mut [u8] {
    let (access, kind) = (
        libc::PROT_READ | libc::PROT_WRITE,
        libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
    );
    // SAFETY: a new mapping, which overlaps nothing.
    let start = unsafe { libc::mmap(ptr::null_mut(), bytes, access, kind, -1, 0) };
    assert!(
        start != libc::MAP_FAILED,
        "no address space for {bytes} bytes"
    );
    // SAFETY: so many readable and writable bytes, zeroed, never unmapped, known to nobody else.
    unsafe { core::slice::from_raw_parts_mut(start.cast(), bytes) }
}

/// The same, aligned to 4 MiB: no allocator is at an advantage by where it was put.
pub fn map_aligned(bytes: usize) -> &'static mut [u8] {
    const ALIGN: usize = 4 << 20;
    let memory = map(bytes + ALIGN);
    let skip = memory.as_ptr().align_offset(ALIGN);
    &mut memory[skip..skip + bytes]
}

/// A value that lives as long as the process.
pub fn leak<T>(value: T) -> &'static T {
    Box::leak(Box::new(value))
}

/// The layout of an object of `T`.
pub const fn layout_of(size: usize) -> Layout {
    match Layout::from_size_align(size, 8) {
        Ok(layout) => layout,
        Err(_) => panic!("a size and an alignment"),
    }
}
