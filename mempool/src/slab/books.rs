//! What a snapshot of a cache reads without its lock.

use lock_api::{MutexGuard, RawMutex};

use crate::Frame;
use crate::ablation::Ablation;
use crate::counter::Gauge;
use crate::raw::{Fault, SlabObject, Slabs};

/// The counters of the slabs. Written under their lock.
pub(super) struct Books {
    /// Objects that are out, those of reserve-derived slabs among them.
    pub(super) out: Gauge,
    pub(super) out_of_reserve: Gauge,
    /// The most objects that were out at once.
    pub(super) peak: Gauge,
    /// Slabs by tag.
    pub(super) slabs: [Gauge; 2],
}

impl Books {
    pub(super) const fn new() -> Self {
        Books {
            out: Gauge::new(0),
            out_of_reserve: Gauge::new(0),
            peak: Gauge::new(0),
            slabs: [Gauge::new(0), Gauge::new(0)],
        }
    }
}

/// The slabs, locked. Whatever is taken and given back through this is counted.
pub(super) struct Locked<'a, 'z, R: RawMutex> {
    slabs: MutexGuard<'a, R, Slabs<'z>>,
    books: &'a Books,
}

impl<'a, 'z, R: RawMutex> Locked<'a, 'z, R> {
    #[inline]
    pub(super) fn new(slabs: MutexGuard<'a, R, Slabs<'z>>, books: &'a Books) -> Self {
        Locked { slabs, books }
    }

    /// See [`Slabs::pop`].
    #[inline]
    pub(super) fn pop(&mut self, from_reserve: bool) -> Option<SlabObject> {
        let object = self.slabs.pop(from_reserve)?;
        let (books, writer) = (self.books, &mut self.slabs.writer);
        let out = books.out.get() + 1;
        books.out.set(writer, out);
        if out > books.peak.get() {
            books.peak.set(writer, out);
        }
        if from_reserve {
            let reserve = books.out_of_reserve.get() + 1;
            books.out_of_reserve.set(writer, reserve);
        }
        Some(object)
    }

    /// See [`Slabs::push`].
    #[inline]
    pub(super) fn push(&mut self, object: SlabObject) {
        let out = self.books.out.get() - 1;
        self.books.out.set(&mut self.slabs.writer, out);
        if let Err(object) = self.slabs.push(object) {
            self.push_any(object);
        }
    }

    /// See [`Slabs::push_any`].
    #[inline(never)]
    fn push_any(&mut self, object: SlabObject) {
        if object.reserve_derived() {
            let reserve = self.books.out_of_reserve.get() - 1;
            let writer = &mut self.slabs.writer;
            self.books.out_of_reserve.set(writer, reserve);
        }
        self.slabs.push_any(object);
        self.count_slabs();
    }

    /// See [`Slabs::grow`].
    pub(super) fn grow(&mut self, frame: Frame<'z>) {
        self.slabs.grow(frame);
        self.count_slabs();
    }

    /// See [`Slabs::shrink`].
    pub(super) fn shrink(&mut self) -> Option<Frame<'z>> {
        let frame = self.slabs.shrink();
        self.count_slabs();
        frame
    }

    /// See [`Slabs::may_go_back`].
    #[inline]
    pub(super) fn may_go_back(&mut self, object: SlabObject) -> Result<SlabObject, Fault> {
        self.slabs.may_go_back(object)
    }

    /// Slabs that exist: ordinary, reserve-derived.
    pub(super) fn count(&self) -> [usize; 2] {
        self.slabs.count()
    }

    #[inline]
    pub(super) fn ablation(&mut self) -> &mut Ablation {
        &mut self.slabs.ablation
    }

    #[cold]
    fn count_slabs(&mut self) {
        let counts = self.slabs.count();
        for (gauge, count) in self.books.slabs.iter().zip(counts) {
            gauge.set(&mut self.slabs.writer, count);
        }
    }
}
