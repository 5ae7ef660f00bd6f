//! Objects parked at each CPU, so that most allocations take no lock that another CPU holds.
//!
//! ```text
//!   CPU 0: [■■■■][■□□□]           CPU 1: [■■□□][□□□□]
//!        empty: one is loaded       both full: one goes back
//!            └──── the cache's lock, the slabs ────┘
//! ```
//! After Bonwick and Adams, "Magazines and Vmem" (2001): two magazines for each CPU, so that it goes to
//! the slabs at the earliest after as many allocations or releases as one has rounds. The two lie one
//! upon the other, as one stack. There is no depot of full ones: the slabs are O(1) themselves, and
//! what lies in a depot nobody else could have.
//!
//! # Interrupts and migration
//!
//! The number of a CPU is a hint: it may be wrong as soon as it is known. What excludes others is the
//! lock of the magazines, and it is only ever *tried*. An interrupt that finds the task below it in the
//! middle of a magazine, a task that was moved to another CPU, a CPU that empties all magazines:
//! whoever comes second goes to the slabs, under the cache's lock, and waits for nobody here. So
//! the magazines' lock need not keep interrupts out (the cache's lock must, if they allocate), and
//! an atomic flag will do. On a target without compare-and-swap it is the default, a critical section.
//!
//! # The reserve
//!
//! Nothing that lies in reserve memory is ever parked: it goes back to its slab, and the slab to the
//! reserve (M4, N6). So anybody may have what is parked. It can make memory look shorter than it is:
//! before an allocation of the cache fails, or reclaims, or dips into the reserve, what *all* CPUs
//! have parked goes back to the slabs. Only magazines that are in use at that very moment are passed
//! over.

use core::fmt;

use lock_api::{Mutex, RawMutex};

use self::sealed::Layer;
use crate::CriticalSection;
use crate::ablation::{Ablation, Mechanism};
use crate::raw::{Magazine, SlabObject};

/// Which CPU runs.
pub trait CpuId: Send + Sync {
    /// The number of the CPU that runs this, from 0. It may be wrong at once: that costs time, and
    /// nothing else. A CPU whose number has no magazines uses none.
    fn cpu(&self) -> usize;
}

impl<C: CpuId + ?Sized> CpuId for &C {
    #[inline]
    fn cpu(&self) -> usize {
        (**self).cpu()
    }
}

/// What a cache has in front of its lock: [`NoMagazines`] or [`Magazines`].
pub trait Parking: Layer {}

/// Nothing, and that costs nothing: for one CPU.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoMagazines;

/// Magazines for each CPU in front of a cache's lock; see
/// [`SizedCache::with_magazines`](crate::SizedCache::with_magazines).
///
/// A CPU parks up to `2 * ROUNDS` objects ([`Budget::magazines`](crate::Budget::magazines) says what
/// memory that keeps), takes and frees them in O(1) without the cache's lock, and goes to the slabs
/// for up to `ROUNDS` at a time. `L` is the lock of each CPU's magazines; it is never waited for.
pub struct Magazines<'m, C, const ROUNDS: usize, L = CriticalSection> {
    cpus: C,
    slots: &'m mut [CpuMagazines<ROUNDS, L>],
}

impl<'m, C: CpuId, const ROUNDS: usize, L: RawMutex> Magazines<'m, C, ROUNDS, L> {
    /// Magazines for as many CPUs as there are `slots`.
    #[must_use]
    pub fn new(cpus: C, slots: &'m mut [CpuMagazines<ROUNDS, L>]) -> Self {
        const { assert!(ROUNDS > 0, "a magazine holds at least one object") };
        // Of a cache that was forgotten: its objects are lost with it.
        slots.fill_with(CpuMagazines::new);
        Magazines { cpus, slots }
    }

    /// The magazines of the CPU that runs, if nobody uses them.
    #[inline]
    fn own(&self) -> Option<lock_api::MutexGuard<'_, L, Pair<ROUNDS>>> {
        self.slots.get(self.cpus.cpu())?.pair.try_lock()
    }
}

impl<C, const ROUNDS: usize, L> fmt::Debug for Magazines<'_, C, ROUNDS, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Magazines")
            .field("cpus", &self.slots.len())
            .field("rounds", &ROUNDS)
            .finish_non_exhaustive()
    }
}

/// The two magazines of one CPU, on cache lines of their own: storage for [`Magazines`].
#[repr(align(64))]
pub struct CpuMagazines<const ROUNDS: usize, L = CriticalSection> {
    pair: Mutex<L, Pair<ROUNDS>>,
}

impl<const ROUNDS: usize, L: RawMutex> CpuMagazines<ROUNDS, L> {
    /// Empty ones.
    #[must_use]
    pub const fn new() -> Self {
        CpuMagazines {
            pair: Mutex::new(Pair {
                parked: Magazine::EMPTY,
                ablation: Ablation::NONE,
            }),
        }
    }
}

impl<const ROUNDS: usize, L: RawMutex> Default for CpuMagazines<ROUNDS, L> {
    fn default() -> Self {
        CpuMagazines::new()
    }
}

impl<const ROUNDS: usize, L> fmt::Debug for CpuMagazines<ROUNDS, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CpuMagazines").finish_non_exhaustive()
    }
}

struct Pair<const ROUNDS: usize> {
    parked: Magazine<ROUNDS>,
    ablation: Ablation,
}

pub(super) mod sealed {
    use super::{Mechanism, SlabObject};

    /// A place in front of the slabs. Nothing here waits.
    pub trait Layer: Send + Sync {
        /// Whether anything is ever parked.
        const PARKS: bool;

        /// Takes an object that this CPU has parked.
        fn take(&self) -> Option<SlabObject>;

        /// Parks an object.
        ///
        /// # Errors
        ///
        /// It belongs into its slab, and comes back.
        fn park(&self, object: SlabObject) -> Result<(), SlabObject>;

        /// Loads a magazine of this CPU with what `free` gives, under the cache's lock.
        fn load(&self, free: &mut dyn FnMut() -> Option<SlabObject>);

        /// Empties one magazine of this CPU into `slabs` if both are full, under the cache's lock.
        fn spill(&self, slabs: &mut dyn FnMut(SlabObject));

        /// Empties the magazines of that CPU into `slabs`, under the cache's lock. False if there is no
        /// such CPU.
        fn drain(&self, cpu: usize, slabs: &mut dyn FnMut(SlabObject)) -> bool;

        /// Objects in magazines.
        fn parked(&self) -> usize;

        /// Switches a mechanism off.
        #[cfg_attr(not(feature = "ablation"), allow(dead_code))]
        fn ablate(&self, mechanism: Mechanism);
    }
}

impl Parking for NoMagazines {}

impl Layer for NoMagazines {
    const PARKS: bool = false;

    #[inline]
    fn take(&self) -> Option<SlabObject> {
        None
    }

    #[inline]
    fn park(&self, object: SlabObject) -> Result<(), SlabObject> {
        Err(object)
    }

    #[inline]
    fn load(&self, _: &mut dyn FnMut() -> Option<SlabObject>) {}

    #[inline]
    fn spill(&self, _: &mut dyn FnMut(SlabObject)) {}

    #[inline]
    fn drain(&self, _: usize, _: &mut dyn FnMut(SlabObject)) -> bool {
        false
    }

    #[inline]
    fn parked(&self) -> usize {
        0
    }

    fn ablate(&self, _: Mechanism) {}
}

impl<C: CpuId, const ROUNDS: usize, L: RawMutex + Send + Sync> Parking
    for Magazines<'_, C, ROUNDS, L>
{
}

impl<C: CpuId, const ROUNDS: usize, L: RawMutex + Send + Sync> Layer
    for Magazines<'_, C, ROUNDS, L>
{
    const PARKS: bool = true;

    #[inline]
    fn take(&self) -> Option<SlabObject> {
        self.own()?.parked.take()
    }

    #[inline]
    fn park(&self, object: SlabObject) -> Result<(), SlabObject> {
        if object.reserve_derived() && !cfg!(feature = "ablation") {
            return Err(object);
        }
        let Some(mut own) = self.own() else {
            return Err(object);
        };
        if object.reserve_derived() && !own.ablation.off(Mechanism::MagazineAdmission) {
            return Err(object);
        }
        own.parked.put(object)
    }

    fn load(&self, free: &mut dyn FnMut() -> Option<SlabObject>) {
        let Some(mut own) = self.own() else {
            return;
        };
        while own.parked.len() < ROUNDS
            && let Some(object) = free()
        {
            if own.parked.put(object).is_err() {
                unreachable!("there is room for twice as many");
            }
        }
    }

    fn spill(&self, slabs: &mut dyn FnMut(SlabObject)) {
        if let Some(mut own) = self.own()
            && own.parked.is_full()
        {
            while own.parked.len() > ROUNDS
                && let Some(object) = own.parked.take()
            {
                slabs(object);
            }
        }
    }

    fn drain(&self, cpu: usize, slabs: &mut dyn FnMut(SlabObject)) -> bool {
        let Some(slot) = self.slots.get(cpu) else {
            return false;
        };
        if let Some(mut pair) = slot.pair.try_lock() {
            while let Some(object) = pair.parked.take() {
                slabs(object);
            }
        }
        true
    }

    fn parked(&self) -> usize {
        let pairs = self.slots.iter().filter_map(|slot| slot.pair.try_lock());
        pairs.map(|pair| pair.parked.len()).sum()
    }

    fn ablate(&self, mechanism: Mechanism) {
        #[cfg(feature = "ablation")]
        for slot in &*self.slots {
            slot.pair.lock().ablation.ablate(mechanism);
        }
        let _ = mechanism;
    }
}

#[cfg(test)]
mod tests;
