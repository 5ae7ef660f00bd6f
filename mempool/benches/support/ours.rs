//! This crate's allocators, with a lock that is none and with the default one.

use core::hint::black_box;
use core::num::NonZero;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, Ordering};

use lock_api::{GuardNoSend, RawMutex};
use mempool::{
    Bitmap, Buddy, Buffer, BufferCache, Cache, CpuId, CpuMagazines, CriticalSection, FRAME_SIZE,
    Frame, FrameEntry, FrameSource, Gfp, Magazines, Object, RawFrame, SingleTask, SizedCache,
    Watermarks, Zone,
};

use super::memory::{leak, map_aligned};
use super::{BUFFER, Payload, Subject};

/// A lock for a program with one thread: the peers are measured without locks, too.
pub struct Unlocked;

// SAFETY: it excludes nobody, and there is nobody to be excluded: the benchmarks have one thread.
unsafe impl RawMutex for Unlocked {
    const INIT: Self = Unlocked;

    type GuardMarker = GuardNoSend;

    #[inline(always)]
    fn lock(&self) {}

    #[inline(always)]
    fn try_lock(&self) -> bool {
        true
    }

    #[inline(always)]
    unsafe fn unlock(&self) {}
}

/// A lock of the kind that is measured.
pub trait Lock: RawMutex + Send + Sync + 'static {}

impl<R: RawMutex + Send + Sync + 'static> Lock for R {}

/// The built-in frame source alone.
pub fn buddy<R: Lock>(bytes: usize) -> &'static Buddy<'static, R> {
    let table = vec![FrameEntry::EMPTY; Buddy::table_len(bytes)];
    leak(Buddy::new(map_aligned(bytes), table.leak()).expect("memory and a table"))
}

/// Marks, with which a zone of `frames` frames is used in earnest.
pub fn marks(frames: usize) -> Watermarks {
    let min = (frames / 128).max(4);
    Watermarks {
        min,
        low: min + min / 4,
        high: min + min / 2,
    }
}

/// A zone over the built-in source.
pub fn zone<R: Lock>(bytes: usize) -> &'static Zone<'static, R> {
    let task: &'static SingleTask = leak(SingleTask::new());
    let source = buddy::<R>(bytes);
    leak(Zone::new(source, task, marks(source.total())).expect("marks that fit"))
}

/// What lies in a typed cache.
pub trait Value: Copy + Send + Sync + 'static {
    const NEW: Self;
}

impl Value for Payload {
    const NEW: Self = Payload::NEW;
}

/// So small that what is counted is the cache.
impl Value for u64 {
    const NEW: Self = 7;
}

/// [`Cache`] of values, which are moved in, and dropped.
pub struct TypedCache<R: Lock, T: 'static = Payload>(&'static Cache<'static, T, R>);

impl<R: Lock, T: Value> Subject for TypedCache<R, T> {
    type Handle = Object<'static, T>;

    fn new(bytes: usize) -> Self {
        TypedCache(leak(
            Cache::new("typed", zone::<R>(bytes), 0).expect("objects that fit"),
        ))
    }

    #[inline(always)]
    fn alloc(&mut self, _: u8) -> Option<Self::Handle> {
        self.0.alloc(Gfp::KERNEL, T::NEW).ok()
    }

    #[inline(always)]
    fn free(&mut self, handle: Self::Handle) {
        drop(handle);
    }
}

/// [`SizedCache`] of packet buffers.
pub struct Buffers<R: Lock>(&'static SizedCache<'static, R>);

impl<R: Lock> Subject for Buffers<R> {
    type Handle = Buffer<'static>;

    fn new(bytes: usize) -> Self {
        let cache = SizedCache::new("buffers", zone::<R>(bytes), BUFFER, 0);
        Buffers(leak(cache.expect("objects that fit")))
    }

    #[inline(always)]
    fn alloc(&mut self, _: u8) -> Option<Self::Handle> {
        self.0.alloc(Gfp::KERNEL).ok()
    }

    #[inline(always)]
    fn free(&mut self, handle: Self::Handle) {
        drop(handle);
    }
}

/// The magazines' lock where other CPUs may empty them: an atomic exchange.
pub struct Flag(AtomicBool);

// SAFETY: the exchange lets one in at a time.
unsafe impl RawMutex for Flag {
    #[allow(clippy::declare_interior_mutable_const)]
    const INIT: Self = Flag(AtomicBool::new(false));

    type GuardMarker = GuardNoSend;

    fn lock(&self) {
        while !self.try_lock() {
            core::hint::spin_loop();
        }
    }

    #[inline(always)]
    fn try_lock(&self) -> bool {
        !self.0.swap(true, Ordering::Acquire)
    }

    #[inline(always)]
    unsafe fn unlock(&self) {
        self.0.store(false, Ordering::Release);
    }
}

/// The only CPU.
pub struct FirstCpu;

impl CpuId for FirstCpu {
    #[inline(always)]
    fn cpu(&self) -> usize {
        black_box(0)
    }
}

/// Magazines of 32 for one CPU.
pub type Parked = Magazines<'static, FirstCpu, 32, Flag>;

pub fn magazines() -> Parked {
    Magazines::new(FirstCpu, vec![CpuMagazines::new()].leak())
}

/// [`TypedCache`] with the default lock, and magazines of 32 in front of it.
pub struct TypedMagazines(&'static Cache<'static, Payload, DefaultLock, Parked>);

impl Subject for TypedMagazines {
    type Handle = Object<'static, Payload>;

    fn new(bytes: usize) -> Self {
        let cache = Cache::new("typed", zone::<DefaultLock>(bytes), 0).expect("objects that fit");
        TypedMagazines(leak(cache.with_magazines(magazines())))
    }

    #[inline(always)]
    fn alloc(&mut self, _: u8) -> Option<Self::Handle> {
        self.0.alloc(Gfp::KERNEL, Payload::NEW).ok()
    }

    #[inline(always)]
    fn free(&mut self, handle: Self::Handle) {
        drop(handle);
    }
}

/// [`Buffers`] with the default lock, and magazines of 32 in front of it.
pub struct BufferMagazines(&'static SizedCache<'static, DefaultLock, Parked>);

impl Subject for BufferMagazines {
    type Handle = Buffer<'static>;

    fn new(bytes: usize) -> Self {
        let cache = SizedCache::new("buffers", zone::<DefaultLock>(bytes), BUFFER, 0);
        let cache = cache.expect("objects that fit");
        BufferMagazines(leak(cache.with_magazines(magazines())))
    }

    #[inline(always)]
    fn alloc(&mut self, _: u8) -> Option<Self::Handle> {
        self.0.alloc(Gfp::KERNEL).ok()
    }

    #[inline(always)]
    fn free(&mut self, handle: Self::Handle) {
        drop(handle);
    }
}

/// Frames of a [`Zone`] over a [`Buddy`]: under marks, tagged, owned.
pub struct Frames<R: Lock>(pub &'static Zone<'static, R>);

impl<R: Lock> Subject for Frames<R> {
    type Handle = Frame<'static>;

    fn new(bytes: usize) -> Self {
        Frames(zone(bytes))
    }

    #[inline(always)]
    fn alloc(&mut self, order: u8) -> Option<Self::Handle> {
        self.0.alloc(order, Gfp::KERNEL).ok()
    }

    #[inline(always)]
    fn free(&mut self, handle: Self::Handle) {
        drop(handle);
    }
}

/// The same over addresses with nothing behind them: neither the source nor the zone touches what it
/// manages, so that there may be more of it than any machine has.
pub struct SimulatedFrames(Frames<Unlocked>);

impl Subject for SimulatedFrames {
    type Handle = Frame<'static>;

    fn new(bytes: usize) -> Self {
        let frames = bytes / FRAME_SIZE;
        let start = NonNull::without_provenance(NonZero::new(1 << 44).expect("not zero"));
        let table = vec![FrameEntry::EMPTY; frames].leak();
        // SAFETY: these addresses are nobody else's, do not wrap around, and the bytes of no frame of
        // them are ever used.
        let source = unsafe { Buddy::<Unlocked>::from_raw_parts(start, frames, table) };
        let task: &'static SingleTask = leak(SingleTask::new());
        let source = leak(source.expect("frames and a table"));
        let zone = Zone::new(source, task, marks(frames)).expect("marks that fit");
        SimulatedFrames(Frames(leak(zone)))
    }

    #[inline(always)]
    fn alloc(&mut self, order: u8) -> Option<Self::Handle> {
        self.0.alloc(order)
    }

    #[inline(always)]
    fn free(&mut self, handle: Self::Handle) {
        self.0.free(handle);
    }
}

/// A frame source alone, as a zone uses it.
pub struct Source<S: 'static>(&'static S);

impl Subject for Source<Buddy<'static, Unlocked>> {
    type Handle = RawFrame;

    fn new(bytes: usize) -> Self {
        Source(buddy(bytes))
    }

    #[inline(always)]
    fn alloc(&mut self, order: u8) -> Option<Self::Handle> {
        FrameSource::alloc(self.0, order)
    }

    #[inline(always)]
    fn free(&mut self, handle: Self::Handle) {
        // SAFETY: of this source, and given back once, as the handle is gone.
        unsafe { FrameSource::free(self.0, handle) }
    }
}

impl Subject for Source<Bitmap<'static, Unlocked>> {
    type Handle = RawFrame;

    fn new(bytes: usize) -> Self {
        let map = vec![0; Bitmap::map_len(bytes)];
        Source(leak(
            Bitmap::new(map_aligned(bytes), map.leak()).expect("memory and a map"),
        ))
    }

    #[inline(always)]
    fn alloc(&mut self, order: u8) -> Option<Self::Handle> {
        FrameSource::alloc(self.0, order)
    }

    #[inline(always)]
    fn free(&mut self, handle: Self::Handle) {
        // SAFETY: of this source, and given back once, as the handle is gone.
        unsafe { FrameSource::free(self.0, handle) }
    }
}

/// [`CriticalSection`], the default: on a host a mutex of the whole process.
pub type DefaultLock = CriticalSection;
