//! `defmt::Format` of the handles: what a line of a log can use, and no more. Errors, statistics and
//! other plain data derive theirs.

use core::ops::Deref;

use lock_api::RawMutex;

use crate::{
    Bitmap, Block, Buddy, Buffer, Cache, Charge, CpuMagazines, CriticalSection, Frame,
    FrameAllocator, FrameEntry, FrameSource, Heap, InterruptScope, Magazines, MemallocScope,
    NoMagazines, Object, Parking, Pool, PoolElement, PoolSource, Pooled, RawFrame, ReserveWalk,
    SharedBuffer, SingleTask, SizeClasses, SizedCache, SoftirqScope, TaskContext, Zone, ZoneList,
};

/// `[generics] Type: |value| format, arguments;`
#[doc(hidden)]
#[macro_export]
macro_rules! __formats {
    ($([$($generics:tt)*] $type:ty: |$value:ident| $format:literal $(, $argument:expr)*;)+) => {$(
        impl<$($generics)*> ::defmt::Format for $type {
            fn format(&self, f: ::defmt::Formatter<'_>) {
                let $value = self;
                let _ = $value;
                ::defmt::write!(f, $format $(, $argument)*);
            }
        }
    )+};
}

__formats! {
    [R: RawMutex + Send + Sync] Bitmap<'_, R>: |x| "Bitmap({=usize} frames)", FrameSource::total(x);
    [R: RawMutex + Send + Sync] Buddy<'_, R>: |x| "Buddy({=usize} frames)", FrameSource::total(x);
    [] FrameEntry: |x| "FrameEntry";
    [] RawFrame: |x| "RawFrame(order {=u8})", x.order();
    [] Frame<'_>: |x| "Frame(order {=u8}, from reserve: {=bool})", x.order(), x.from_reserve();
    [R: RawMutex] Zone<'_, R>: |x| "Zone({})", x.stats();
    [const N: usize] ZoneList<'_, N>: |x| "ZoneList({=usize} zones: {})", N, x.level();
    [] MemallocScope<'_>: |x| "MemallocScope";
    [] SoftirqScope<'_>: |x| "SoftirqScope";
    [] InterruptScope<'_>: |x| "InterruptScope";
    [] SingleTask: |x|
        "SingleTask(memalloc: {=bool}, in an interrupt: {=bool})", x.memalloc(), x.in_interrupt();
    [] CriticalSection: |x| "CriticalSection";
    [] Charge<'_>: |x| "Charge({=usize})", x.units();
    [R] ReserveWalk<'_, '_, R>: |x| "ReserveWalk";
    [] Buffer<'_>: |x|
        "Buffer({=usize} bytes, from reserve: {=bool})", Deref::deref(x).len(), x.from_reserve();
    [T: defmt::Format] Object<'_, T>: |x| "{}", Deref::deref(x);
    [T] SharedBuffer<'_, T>: |x| "SharedBuffer({=usize} bytes)", x.object_size();
    [R: RawMutex, M: Parking] SizedCache<'_, R, M>: |x| "cache {=str}: {}", x.name(), x.stats();
    [T, R: RawMutex, M: Parking] Cache<'_, T, R, M>: |x| "cache: {}", x.stats();
    [] NoMagazines: |x| "NoMagazines";
    [C, const ROUNDS: usize, L] Magazines<'_, C, ROUNDS, L>: |x| "Magazines({=usize} rounds)", ROUNDS;
    [const ROUNDS: usize, L] CpuMagazines<ROUNDS, L>: |x| "CpuMagazines";
    [R: RawMutex] SizeClasses<'_, R>: |x| "SizeClasses";
    [] Block<'_>: |x|
        "Block({=usize} bytes, from reserve: {=bool})", Deref::deref(x).len(), x.from_reserve();
    [R: RawMutex + Send + Sync] Heap<R>: |x| "Heap(ready: {=bool})", x.classes().is_some();
    [E: PoolElement] Pooled<'_, E>: |x| "Pooled(from reserve: {=bool})", x.from_reserve();
}

#[allow(explicit_outlives_requirements)]
impl<'s, S: PoolSource + ?Sized + 's, R: RawMutex + Send + Sync> defmt::Format
    for Pool<'_, 's, S, R>
{
    fn format(&self, f: defmt::Formatter<'_>) {
        defmt::write!(f, "pool {=str}: {}", self.name(), self.stats());
    }
}
