//! What the benchmarks share: allocators under one trait, patterns of use, memory.
//!
//! No benchmark uses all of it, and none is a library.
#![allow(dead_code, unreachable_pub)]

pub mod memory;
pub mod ours;
pub mod patterns;

/// An allocator under test: ours or a peer.
pub trait Subject {
    /// What an allocation gives.
    type Handle;

    /// A fresh one over `bytes` of memory.
    fn new(bytes: usize) -> Self;

    /// Takes one object, or `1 << order` frames; those who hand out objects ignore the order.
    fn alloc(&mut self, order: u8) -> Option<Self::Handle>;

    /// Gives it back.
    fn free(&mut self, handle: Self::Handle);
}

/// What lies in a typed object. Who is measured with it moves it in, as a caller would.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct Payload(pub [u64; 8]);

impl Payload {
    pub const NEW: Payload = Payload([7; 8]);
}

/// Bytes of a packet buffer: two to a frame of 4096.
pub const BUFFER: usize = 2016;

/// An allocator that does nothing: what the loop around it costs.
pub struct Nothing(core::ptr::NonNull<u8>);

impl Subject for Nothing {
    type Handle = core::ptr::NonNull<u8>;

    fn new(_: usize) -> Self {
        Nothing(core::ptr::NonNull::dangling())
    }

    #[inline(always)]
    fn alloc(&mut self, _: u8) -> Option<Self::Handle> {
        Some(core::hint::black_box(self.0))
    }

    #[inline(always)]
    fn free(&mut self, handle: Self::Handle) {
        core::hint::black_box(handle);
    }
}
