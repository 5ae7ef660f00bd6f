//! The swap area: an address space, and the books of its slots.
//!
//! It owns who has which slot and how many requests are out; it never looks into a page. One area
//! serves one [`Pager`](crate::Pager).

use core::fmt;
use core::marker::PhantomData;
use core::task::Poll;

use mempool::FRAME_SIZE;

use crate::ablation::{Ablation, Mechanism};
use crate::slots::{self, DupError, SlotMap};
use crate::{
    AddressSpace, CLUSTER_FRAMES, Completion, ErrorKind, Geometry, HeaderError, Instant, PageFrame,
    Refused, SlotRun, SwapEntry, SwapHeader, SwapIo, Ticket,
};

use self::header_page::HeaderPage;

mod header_page;

/// An address space with a map of its slots (`swap_info_struct`).
///
/// `'s` is the life of the map, whose storage the caller gives.
///
/// ```
/// use core::task::Poll;
/// use swapspace::{Instant, RamSpace, SwapArea};
///
/// type Page = Box<[u8]>;
/// const MAP: usize = SwapArea::<Page, RamSpace<'_, Page, 4>>::map_len(64);
///
/// let (mut store, mut map) = (vec![0; 64 * 4096], [0; MAP]);
/// let mut area = SwapArea::new(RamSpace::<Page, 4>::new(&mut store), &mut map);
/// let Poll::Ready(Ok(geometry)) = area.activate(Instant::ZERO) else { panic!() };
/// assert_eq!(geometry.slots, 64);
///
/// let run = area.alloc(8).expect("an empty area has eight slots in a row");
/// assert_eq!(run.len(), 8);
/// for entry in run {
///     area.free(entry);
/// }
/// assert_eq!(area.stats().used, 0);
/// ```
pub struct SwapArea<'s, F, A> {
    space: A,
    map: SlotMap<'s>,
    geometry: Option<Geometry>,
    activations: u32,
    /// The space has begun to activate, and is not ready.
    activating: bool,
    rejected: Option<Misfit>,
    header: Option<HeaderPage<F>>,
    in_flight: usize,
    /// Slots that whoever numbers them can tell apart.
    most_slots: u32,
    ablation: Ablation,
    _frames: PhantomData<fn(F) -> F>,
}

impl<F, A> SwapArea<'_, F, A> {
    /// Words of the map of an area of `slots` slots: 7 + 1/31 bits for each, less than a byte,
    /// rounded up by at most 14 words.
    #[must_use]
    pub const fn map_len(slots: u32) -> usize {
        slots::map_len(slots)
    }
}

impl<'s, F: PageFrame, A: AddressSpace<F>> SwapArea<'s, F, A> {
    /// An area over `space`, not active yet.
    pub fn new(space: A, map: &'s mut [u32]) -> Self {
        SwapArea {
            space,
            map: SlotMap::new(map),
            geometry: None,
            activations: 0,
            activating: false,
            rejected: None,
            header: None,
            in_flight: 0,
            most_slots: u32::MAX,
            ablation: Ablation::NONE,
            _frames: PhantomData,
        }
    }

    /// Expects the header of `mkswap` in slot 0, and reads it into `frame` when the area is
    /// activated: the header itself, the pages that it calls bad, and the store beyond its last
    /// page are never used. The area keeps the frame. For an area that was not activated yet.
    ///
    /// # Panics
    ///
    /// If the area is active, or about to be.
    ///
    /// ```
    /// use core::task::Poll;
    /// use swapspace::{Instant, RamSpace, SwapArea, SwapHeader};
    ///
    /// let (mut store, mut map) = (vec![0; 64 * 4096], [0; 17]);
    /// SwapHeader::new(64).with_bad_pages(&[7]).write(&mut store[..4096])?;
    ///
    /// let space = RamSpace::<Box<[u8]>, 4>::new(&mut store);
    /// let mut area = SwapArea::new(space, &mut map).with_header(vec![0; 4096].into());
    /// let mut now = Instant::ZERO;
    /// while area.activate(now).is_pending() {
    ///     now = area.next_deadline().expect("the read has a deadline");
    /// }
    /// assert_eq!((area.stats().free, area.stats().retired), (62, 2));
    /// assert_eq!(area.header().map(|header| header.pages()), Some(64));
    /// # Ok::<(), swapspace::HeaderError>(())
    /// ```
    #[must_use]
    pub fn with_header(mut self, frame: F) -> Self {
        assert!(
            self.activations == 0 && !self.activating,
            "the header is read when the area is activated"
        );
        self.header = Some(HeaderPage::new(frame));
        self
    }

    /// What the header says, while an area [with one](Self::with_header) is active.
    #[must_use]
    pub fn header(&self) -> Option<SwapHeader<'_>> {
        self.header.as_ref()?.read(self.geometry?.slots).ok()
    }

    /// Prepares the area for use (`swapon`); call it again while it is pending, at the latest at
    /// [`next_deadline`](Self::next_deadline). Nests: each success needs its own
    /// [`deactivate`](Self::deactivate) (S6). The first activation is O(slots / 32).
    ///
    /// # Errors
    ///
    /// [`ActivateError`]; the area is then as active as it was before.
    pub fn activate(&mut self, now: Instant) -> Poll<Result<Geometry, ActivateError<A::Error>>> {
        if let Some(misfit) = self.rejected {
            return self.reject(misfit, now);
        }
        let geometry = match self.activate_space(now) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Err(error)) => return Poll::Ready(Err(ActivateError::Space(error))),
            Poll::Ready(Ok(geometry)) => geometry,
        };
        if let Err(misfit) = self.check(geometry) {
            return self.reject(misfit, now);
        }
        if self.activations == 0 {
            match self.read_header(geometry, now) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(misfit)) => return self.reject(misfit, now),
                Poll::Ready(Ok(())) => self.geometry = Some(geometry),
            }
        }
        self.activating = false;
        self.activations += 1;
        Poll::Ready(Ok(geometry))
    }

    /// Activates the space, unless that is done already and its header is being read.
    fn activate_space(&mut self, now: Instant) -> Poll<Result<Geometry, A::Error>> {
        let fetching = self.header.as_ref().and_then(HeaderPage::fetching);
        if let Some(geometry) = fetching {
            return Poll::Ready(Ok(geometry));
        }
        let result = self.space.swap_activate(now);
        self.activating = result.is_pending();
        result
    }

    /// Makes the map, and withdraws what the header says, if there is to be one.
    fn read_header(&mut self, geometry: Geometry, now: Instant) -> Poll<Result<(), Misfit>> {
        let Some(page) = &mut self.header else {
            self.map.reset(geometry.slots);
            return Poll::Ready(Ok(()));
        };
        self.activating = true;
        match page.fetch(&mut self.space, geometry, now) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(result) => result.map_err(Misfit::Unreadable)?,
        }
        let header = page.read(geometry.slots).map_err(Misfit::Header)?;
        self.map.reset(header.pages());
        self.map.withdraw(0);
        for bad in header.bad_pages() {
            self.map.withdraw(bad);
        }
        if self.map.free_slots() == 0 {
            return Poll::Ready(Err(Misfit::Header(HeaderError::AllBad)));
        }
        Poll::Ready(Ok(()))
    }

    /// Undoes an activation of the space, which may take several calls.
    fn reject<T>(
        &mut self,
        misfit: Misfit,
        now: Instant,
    ) -> Poll<Result<T, ActivateError<A::Error>>> {
        self.activating = false;
        // How the space was left does not matter any more: the misfit is what the caller must mend.
        let undone = self.space.swap_deactivate(now).is_ready();
        self.rejected = (!undone).then_some(misfit);
        if undone {
            Poll::Ready(Err(ActivateError::Misfit(misfit)))
        } else {
            Poll::Pending
        }
    }

    /// Forbids more than `most` slots. Whether an active area has no more.
    pub(crate) fn limit_slots(&mut self, most: u32) -> bool {
        let fits = self.geometry.is_none_or(|shape| shape.slots <= most);
        if fits {
            self.most_slots = most;
        }
        fits
    }

    fn check(&self, geometry: Geometry) -> Result<(), Misfit> {
        let frames = usize::from(geometry.max_frames);
        let sane = (1..u32::MAX).contains(&geometry.slots)
            && (1..=CLUSTER_FRAMES).contains(&frames)
            && geometry.max_in_flight > 0;
        if !sane || self.geometry.is_some_and(|active| active != geometry) {
            return Err(Misfit::Shape(geometry));
        }
        if geometry.page_size as usize != FRAME_SIZE {
            return Err(Misfit::PageSize(geometry.page_size));
        }
        let (slots, most) = (geometry.slots, self.most_slots);
        if slots > most {
            return Err(Misfit::TooManySlots { slots, most });
        }
        let needed = slots::map_len(slots);
        let given = self.map.words();
        if needed > given {
            return Err(Misfit::MapTooSmall { needed, given });
        }
        Ok(())
    }

    /// Ends one activation (`swapoff`), or gives up one that is pending; call it again while it is
    /// pending itself.
    ///
    /// # Errors
    ///
    /// [`DeactivateError`]. After `Space` the area is inactive all the same; after the others
    /// nothing has changed.
    pub fn deactivate(&mut self, now: Instant) -> Poll<Result<(), DeactivateError<A::Error>>> {
        if self.activations == 0 && self.activating {
            return self.give_up(now);
        }
        if self.activations == 0 {
            return Poll::Ready(Err(DeactivateError::Inactive));
        }
        let looks = !self.ablation.off(Mechanism::SlotsInUse);
        if looks && self.activations == 1 && self.map.used() > 0 {
            let slots = self.map.used();
            return Poll::Ready(Err(DeactivateError::InUse { slots }));
        }
        let result = match self.space.swap_deactivate(now) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(result) => result,
        };
        self.activations -= 1;
        if self.activations == 0 {
            self.geometry = None;
        }
        Poll::Ready(result.map_err(DeactivateError::Space))
    }

    /// Switches a mechanism of this area off, for good. A mechanism of another object changes
    /// nothing.
    #[cfg(feature = "ablation")]
    pub fn ablate(&mut self, mechanism: Mechanism) {
        self.ablation.ablate(mechanism);
    }

    /// Ends an activation that has only begun.
    fn give_up(&mut self, now: Instant) -> Poll<Result<(), DeactivateError<A::Error>>> {
        if let Some(page) = &mut self.header {
            page.collect(&mut self.space, now);
        }
        let result = self.space.swap_deactivate(now);
        self.activating = result.is_pending();
        if let Some(page) = &mut self.header {
            page.reset();
        }
        result.map_err(DeactivateError::Space)
    }

    /// The shape of the space while it is active.
    #[must_use]
    pub fn geometry(&self) -> Option<Geometry> {
        self.geometry
    }

    /// Takes up to `want` consecutive slots, fewer when the next few free runs are shorter, `None`
    /// when nothing is left or the area is not active. O(log32 slots).
    pub fn alloc(&mut self, want: usize) -> Option<SlotRun> {
        self.geometry?;
        self.map.alloc(u32::try_from(want).unwrap_or(u32::MAX))
    }

    /// Adds an owner to a slot: two pages share what it holds, after a `fork` for example. Each
    /// owner frees its own entry, and the last one gives the slot back. O(1).
    ///
    /// # Errors
    ///
    /// [`DupError::TooManyOwners`] when there are 31: the count never wraps.
    ///
    /// # Panics
    ///
    /// If the entry came from another area.
    pub fn dup(&mut self, entry: &SwapEntry) -> Result<SwapEntry, DupError> {
        self.map.dup(entry.slot().0)?;
        Ok(SwapEntry::new(entry.slot()))
    }

    /// How many entries of a slot there are, 1 to 31. O(1).
    ///
    /// # Panics
    ///
    /// If the entry came from another area.
    #[must_use]
    pub fn owners(&self, entry: &SwapEntry) -> u32 {
        self.map.owners(entry.slot().0)
    }

    /// Gives an entry back; with the last one, its slot. What it held is lost. O(log32 slots).
    ///
    /// # Panics
    ///
    /// If the entry came from another area.
    pub fn free(&mut self, entry: SwapEntry) {
        self.map.free(entry.slot().0);
    }

    /// Takes a slot out of use until the area is activated anew: it failed to give back what was
    /// stored in it, or an earlier write to it may still be [carried out](Completion::stray). If
    /// the slot has other owners, it goes with the last of them.
    ///
    /// # Panics
    ///
    /// If the entry came from another area.
    pub fn retire(&mut self, entry: SwapEntry) {
        self.map.retire(entry.slot().0);
    }

    /// See [`AddressSpace::submit`].
    ///
    /// # Errors
    ///
    /// [`Refused`] holds the reason and the request.
    pub fn submit(&mut self, io: SwapIo<F>, now: Instant) -> Result<Ticket, Refused<F>> {
        let ticket = self.space.submit(io, now)?;
        self.in_flight += 1;
        Ok(ticket)
    }

    /// See [`AddressSpace::poll`].
    #[must_use = "the completion holds the frames"]
    pub fn poll(&mut self, now: Instant) -> Option<Completion<F, A::Error>> {
        if let Some(page) = self.header.as_mut().filter(|page| page.is_out()) {
            // Whoever activates the area learns of it.
            page.collect(&mut self.space, now);
            return None;
        }
        let completion = self.space.poll(now)?;
        self.in_flight = self.in_flight.saturating_sub(1);
        Some(completion)
    }

    /// See [`AddressSpace::next_deadline`].
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        self.space.next_deadline()
    }

    /// The address space, for its statistics and for whoever drives its medium.
    #[must_use]
    pub fn space(&self) -> &A {
        &self.space
    }

    /// The address space, mutably. Requests of one's own must go through
    /// [`submit`](Self::submit), and completions through [`poll`](Self::poll).
    #[must_use]
    pub fn space_mut(&mut self) -> &mut A {
        &mut self.space
    }

    /// A snapshot of the books.
    #[must_use]
    pub fn stats(&self) -> AreaStats {
        AreaStats {
            free: self.map.free_slots(),
            used: self.map.used(),
            retired: self.map.retired(),
            in_flight: self.in_flight,
        }
    }
}

impl<F, A: fmt::Debug> fmt::Debug for SwapArea<'_, F, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SwapArea")
            .field("space", &self.space)
            .field("geometry", &self.geometry)
            .field("in_flight", &self.in_flight)
            .finish_non_exhaustive()
    }
}

/// The books of a swap area, in slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct AreaStats {
    /// Slots that can be had.
    pub free: u32,
    /// Slots that hold a page or are being written.
    pub used: u32,
    /// Slots that are never used again.
    pub retired: u32,
    /// Requests (not slots) that were admitted and are not finished.
    pub in_flight: usize,
}

/// Why an area could not be activated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum ActivateError<E> {
    /// The address space refuses.
    Space(E),
    /// It is ready, but does not fit this area.
    Misfit(Misfit),
}

impl<E: fmt::Display> fmt::Display for ActivateError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ActivateError::Space(error) => error.fmt(f),
            ActivateError::Misfit(misfit) => misfit.fmt(f),
        }
    }
}

impl<E: fmt::Debug + fmt::Display> core::error::Error for ActivateError<E> {}

/// How an address space can fail to fit its area.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Misfit {
    /// It has no slots, frames or requests, more than can be, or other ones than at its first
    /// activation.
    Shape(Geometry),
    /// Its pages, of so many bytes, are not frames.
    PageSize(u32),
    /// It has more slots than an area of its [`SwapSpace`](crate::SwapSpace) can number.
    TooManySlots {
        /// Slots that it has.
        slots: u32,
        /// How many can be.
        most: u32,
    },
    /// It has no header of `mkswap` that fits, though it is to have one.
    Header(HeaderError),
    /// Its header could not be read.
    Unreadable(ErrorKind),
    /// The storage for the map has too few words.
    MapTooSmall {
        /// [`SwapArea::map_len`] of the slots.
        needed: usize,
        /// What there is.
        given: usize,
    },
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Misfit::Shape(geometry) => {
                write!(f, "the address space has an impossible shape: {geometry:?}")
            }
            Misfit::PageSize(bytes) => {
                write!(f, "pages of {bytes} bytes cannot be frames of {FRAME_SIZE}")
            }
            Misfit::TooManySlots { slots, most } => {
                write!(
                    f,
                    "the address space has {slots} slots, {most} can be numbered"
                )
            }
            Misfit::Header(error) => error.fmt(f),
            Misfit::Unreadable(kind) => write!(f, "the swap header cannot be read: {kind:?}"),
            Misfit::MapTooSmall { needed, given } => {
                write!(f, "the slot map has {given} words and needs {needed}")
            }
        }
    }
}

/// Why an area could not be deactivated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum DeactivateError<E> {
    /// The address space could not be left as intended; it is inactive all the same.
    Space(E),
    /// Slots still hold pages: discard them first.
    InUse {
        /// How many.
        slots: u32,
    },
    /// It is not active.
    Inactive,
}

impl<E: fmt::Display> fmt::Display for DeactivateError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeactivateError::Space(error) => error.fmt(f),
            DeactivateError::InUse { slots } => write!(f, "{slots} slots still hold pages"),
            DeactivateError::Inactive => f.write_str("the area is not active"),
        }
    }
}

impl<E: fmt::Debug + fmt::Display> core::error::Error for DeactivateError<E> {}

#[cfg(test)]
mod tests;
