//! The swap space: several areas, used by priority.
//!
//! It decides which area a page is written to, and numbers the slots of all areas so that an entry
//! says where it belongs. It never looks into a page, and never waits.

use core::array;
use core::cmp::Reverse;
use core::fmt;
use core::task::Poll;

use crate::{
    ActivateError, AddressSpace, AreaStats, Completion, DeactivateError, DupError, ErrorKind,
    Geometry, Instant, IoClass, IoOp, PageFrame, Refused, Slot, SlotRun, SpaceError, SubmitError,
    SwapArea, SwapEntry, SwapIo, Ticket,
};

/// Up to `N` swap areas, 64 at most, each with a priority.
///
/// Pages go to the area of the highest priority that has room; areas of equal priority take turns,
/// run by run, so that a burst is striped over them. An area that is full, not active, or out of
/// requests is passed over, and so is one whose store is [out of order](Self::failed).
///
/// The number of a slot counts through all areas: each has `u32::MAX / N` numbers to itself, which
/// for 16 areas is 1 TiB of 4 KiB pages each. With one area, the numbers are its own.
///
/// ```
/// use swapspace::{Instant, RamSpace, SwapArea, SwapSpace};
///
/// type Page = Box<[u8]>;
/// let (mut fast, mut slow) = (vec![0; 8 * 4096], vec![0; 64 * 4096]);
/// let (mut fast_map, mut slow_map) = ([0; 7], [0; 17]);
/// let mut space = SwapSpace::<Page, RamSpace<Page, 4>, 2>::new();
/// let slow = space.swapon(SwapArea::new(RamSpace::new(&mut slow), &mut slow_map), 0)?;
/// let fast = space.swapon(SwapArea::new(RamSpace::new(&mut fast), &mut fast_map), 10)?;
/// for index in [slow, fast] {
///     assert!(space.activate(index, Instant::ZERO).is_ready());
/// }
///
/// let first = space.alloc(8).expect("an empty area");
/// assert_eq!(space.index_of(first.first()), fast);
/// let second = space.alloc(8).expect("another one");
/// assert_eq!(space.index_of(second.first()), slow, "the fast one is full");
/// for entry in first.chain(second) {
///     space.free(entry);
/// }
/// # Ok::<(), swapspace::SwaponError>(())
/// ```
pub struct SwapSpace<'s, F, A, const N: usize = 1> {
    members: [Option<Member<'s, F, A>>; N],
    /// Turns taken so far.
    turn: u64,
    /// Which area is asked first for the next completion.
    polled: usize,
}

struct Member<'s, F, A> {
    area: SwapArea<'s, F, A>,
    priority: i16,
    /// When pages last went to it.
    turn: u64,
    failed: Option<ErrorKind>,
    leaving: bool,
}

impl<'s, F: PageFrame, A: AddressSpace<F>, const N: usize> SwapSpace<'s, F, A, N> {
    /// Slot numbers of one area.
    const STRIDE: u32 = {
        assert!(1 <= N && N <= 64, "a space has 1 to 64 areas");
        u32::MAX / N as u32
    };

    /// A space without areas.
    #[must_use]
    pub fn new() -> Self {
        SwapSpace {
            members: array::from_fn(|_| None),
            turn: 0,
            polled: 0,
        }
    }

    /// Adds an area, which may be active already or is activated later. The answer is its index,
    /// which stays the same until it is taken out again. O(N).
    ///
    /// # Errors
    ///
    /// [`NotOn`] holds the reason and the area.
    #[allow(clippy::result_large_err)] // the area comes back whole
    pub fn swapon(
        &mut self,
        mut area: SwapArea<'s, F, A>,
        priority: i16,
    ) -> Result<usize, NotOn<'s, F, A>> {
        let mut places = self.members.iter_mut().enumerate();
        let Some((index, free)) = places.find(|(_, place)| place.is_none()) else {
            let error = SwaponError::Full;
            return Err(NotOn { error, area });
        };
        if !area.limit_slots(Self::STRIDE) {
            let most = Self::STRIDE;
            let error = SwaponError::TooManySlots { most };
            return Err(NotOn { error, area });
        }
        *free = Some(Member {
            area,
            priority,
            turn: 0,
            failed: None,
            leaving: false,
        });
        Ok(index)
    }

    /// See [`SwapArea::activate`].
    ///
    /// # Errors
    ///
    /// [`ActivateError`]; the area stays in the space, as active as it was before.
    ///
    /// # Panics
    ///
    /// If there is no such area.
    pub fn activate(
        &mut self,
        index: usize,
        now: Instant,
    ) -> Poll<Result<Geometry, ActivateError<A::Error>>> {
        self.member(index).area.activate(now)
    }

    /// Takes an area out: no page goes to it any more, and once nobody owns a slot of it and
    /// nothing is in flight, it is deactivated and given back. Call it again while it is pending:
    /// after slots were freed, and at the latest at [`next_deadline`](Self::next_deadline). The
    /// owners of its slots read them as before.
    ///
    /// # Errors
    ///
    /// [`SwapoffError::NoSuchArea`]; [`SwapoffError::Space`] if the store could not be left as
    /// intended, where the area is inactive and stays in the space for another call to take it.
    #[expect(
        clippy::type_complexity,
        reason = "a name would hide that it is pollable"
    )]
    pub fn swapoff(
        &mut self,
        index: usize,
        now: Instant,
    ) -> Poll<Result<SwapArea<'s, F, A>, SwapoffError<A::Error>>> {
        let Some(Some(member)) = self.members.get_mut(index) else {
            return Poll::Ready(Err(SwapoffError::NoSuchArea));
        };
        member.leaving = true;
        let stats = member.area.stats();
        if stats.used > 0 || stats.in_flight > 0 {
            return Poll::Pending;
        }
        // As often as it was activated.
        loop {
            match member.area.deactivate(now) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(DeactivateError::Inactive)) => break,
                Poll::Ready(Err(DeactivateError::InUse { .. })) => return Poll::Pending,
                Poll::Ready(Err(DeactivateError::Space(error))) => {
                    return Poll::Ready(Err(SwapoffError::Space(error)));
                }
            }
        }
        let taken = self.members[index].take();
        Poll::Ready(taken.map(|m| m.area).ok_or(SwapoffError::NoSuchArea))
    }

    /// Uses an area again whose [`swapoff`](Self::swapoff) is pending, or whose store was
    /// [out of order](Self::failed).
    ///
    /// # Panics
    ///
    /// If there is no such area.
    pub fn enable(&mut self, index: usize) {
        let member = self.member(index);
        (member.failed, member.leaving) = (None, false);
    }

    /// Why no page goes to an area any more, if its store is out of order: a request failed as
    /// [`Gone`](ErrorKind::Gone) or [`Denied`](ErrorKind::Denied), or a write as
    /// [`ReadOnly`](ErrorKind::ReadOnly). What is there is still read. It stays so until
    /// [`enable`](Self::enable). While no other area is active, pages go there all the same: there
    /// is nothing to lose, as a page whose write fails stays in memory.
    #[must_use]
    pub fn failed(&self, index: usize) -> Option<ErrorKind> {
        self.members.get(index)?.as_ref()?.failed
    }

    /// Takes up to `want` consecutive slots of one area, `None` when no area has both a slot and a
    /// request to spare. Never more than one request of that area carries. O(N + log32 slots).
    pub fn alloc(&mut self, want: usize) -> Option<SlotRun> {
        self.alloc_sparing(want, false)
    }

    /// As [`alloc`](Self::alloc), but if told so, the last request of an area that has several is
    /// not counted on: it is for reads.
    pub(crate) fn alloc_sparing(&mut self, want: usize, spare: bool) -> Option<SlotRun> {
        let healthy = self.any_healthy();
        let chosen = self.members.iter_mut().enumerate().filter_map(|(i, m)| {
            let member = m.as_mut()?;
            member.accepts(healthy, spare).then_some((i, member))
        });
        let (index, member) = chosen.min_by_key(|(_, m)| (Reverse(m.priority), m.turn))?;
        let most = usize::from(member.area.geometry()?.max_frames);
        let run = member.area.alloc(want.min(most))?;
        self.turn += 1;
        member.turn = self.turn;
        Some(run.moved_by(Self::base(index)))
    }

    /// The area that a slot belongs to.
    #[must_use]
    pub const fn index_of(&self, slot: Slot) -> usize {
        (slot.0 / Self::STRIDE) as usize
    }

    /// See [`SwapArea::dup`].
    ///
    /// # Errors
    ///
    /// [`DupError`].
    ///
    /// # Panics
    ///
    /// If the entry came from elsewhere.
    pub fn dup(&mut self, entry: &SwapEntry) -> Result<SwapEntry, DupError> {
        let (index, local) = Self::locate(entry.slot());
        let copy = self.member(index).area.dup(&SwapEntry::new(local))?;
        debug_assert_eq!(copy.slot(), local);
        Ok(SwapEntry::new(entry.slot()))
    }

    /// See [`SwapArea::free`].
    ///
    /// # Panics
    ///
    /// If the entry came from elsewhere.
    pub fn free(&mut self, entry: SwapEntry) {
        let (index, local) = Self::locate(entry.slot());
        self.member(index).area.free(SwapEntry::new(local));
    }

    /// See [`SwapArea::retire`].
    ///
    /// # Panics
    ///
    /// If the entry came from elsewhere.
    pub fn retire(&mut self, entry: SwapEntry) {
        let (index, local) = Self::locate(entry.slot());
        self.member(index).area.retire(SwapEntry::new(local));
    }

    /// Admits a request to the area of its slots. See [`AddressSpace::submit`].
    ///
    /// # Errors
    ///
    /// [`Refused`] holds the reason and the request.
    pub fn submit(&mut self, mut io: SwapIo<F>, now: Instant) -> Result<SpaceTicket, Refused<F>> {
        let (index, local) = Self::locate(io.slot);
        let Some(Some(member)) = self.members.get_mut(index) else {
            let error = SubmitError::OutOfRange;
            return Err(Refused { error, io });
        };
        let slot = core::mem::replace(&mut io.slot, local);
        match member.area.submit(io, now) {
            Ok(ticket) => Ok(SpaceTicket { index, ticket }),
            Err(mut refused) => {
                refused.io.slot = slot;
                Err(refused)
            }
        }
    }

    /// Moves the requests of all areas along, and returns one that is finished; the areas take
    /// turns. Its slot counts through all areas, and its ticket is that of
    /// [`submit`](Self::submit). When to call it is said at [`AddressSpace::poll`]. O(N).
    #[must_use = "the completion holds the frames"]
    pub fn poll(&mut self, now: Instant) -> Option<(SpaceTicket, Completion<F, A::Error>)> {
        let first = self.polled;
        for index in (first..N).chain(0..first) {
            let Some(member) = &mut self.members[index] else {
                continue;
            };
            if let Some(mut completion) = member.area.poll(now) {
                self.polled = (index + 1) % N;
                member.learn(&completion);
                completion.io.slot.0 += Self::base(index);
                let ticket = completion.ticket;
                return Some((SpaceTicket { index, ticket }, completion));
            }
        }
        None
    }

    /// See [`AddressSpace::expedite`]. O(1).
    pub fn expedite(&mut self, ticket: SpaceTicket, class: IoClass) {
        if let Some(Some(member)) = self.members.get_mut(ticket.index) {
            member.area.space_mut().expedite(ticket.ticket, class);
        }
    }

    /// When [`poll`](Self::poll) must be called even if nothing else happens. O(N).
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        let areas = self.areas();
        areas.filter_map(|(_, area)| area.next_deadline()).min()
    }

    /// An area, by the index that [`swapon`](Self::swapon) gave it.
    #[must_use]
    pub fn area(&self, index: usize) -> Option<&SwapArea<'s, F, A>> {
        Some(&self.members.get(index)?.as_ref()?.area)
    }

    /// An area, to activate and deactivate it, and for whoever drives its medium. Its slots and
    /// completions are the space's.
    #[must_use]
    pub fn area_mut(&mut self, index: usize) -> Option<&mut SwapArea<'s, F, A>> {
        Some(&mut self.members.get_mut(index)?.as_mut()?.area)
    }

    /// All areas with their indices.
    pub fn areas(&self) -> impl Iterator<Item = (usize, &SwapArea<'s, F, A>)> {
        let members = self.members.iter().enumerate();
        members.filter_map(|(index, member)| Some((index, &member.as_ref()?.area)))
    }

    /// The books of all areas together. Of the slots that are free, all count, even where no page
    /// goes now. O(N).
    #[must_use]
    pub fn stats(&self) -> AreaStats {
        self.areas()
            .map(|(_, area)| area.stats())
            .fold(AreaStats::default(), |sum, area| AreaStats {
                free: sum.free + area.free,
                used: sum.used + area.used,
                retired: sum.retired + area.retired,
                in_flight: sum.in_flight + area.in_flight,
            })
    }

    /// Slots that the next calls of [`alloc`](Self::alloc) can find, requests permitting. O(N).
    #[must_use]
    pub fn usable_slots(&self) -> u32 {
        let healthy = self.any_healthy();
        let usable = self.members.iter().flatten();
        usable
            .filter(|member| member.is_usable(healthy))
            .map(|member| member.area.stats().free)
            .sum()
    }

    /// Requests that all active areas admit at once. O(N).
    #[must_use]
    pub fn max_in_flight(&self) -> usize {
        let shapes = self.areas().filter_map(|(_, area)| area.geometry());
        shapes.map(|shape| usize::from(shape.max_in_flight)).sum()
    }

    /// The most frames that a request of any active area carries, 0 without one. O(N).
    #[must_use]
    pub fn max_frames(&self) -> u8 {
        let shapes = self.areas().filter_map(|(_, area)| area.geometry());
        shapes.map(|shape| shape.max_frames).max().unwrap_or(0)
    }

    /// The most frames that a read which nobody waits for may have at `slot`: 0 if the area would
    /// have no request left for one that somebody waits for. O(1).
    pub(crate) fn spare_frames(&self, slot: Slot) -> u8 {
        let (index, _) = Self::locate(slot);
        let member = self.members.get(index).and_then(Option::as_ref);
        let Some((area, shape)) = member.and_then(|m| Some((&m.area, m.area.geometry()?))) else {
            return 0;
        };
        let spare = area.stats().in_flight + 1 < usize::from(shape.max_in_flight);
        if spare { shape.max_frames } else { 0 }
    }

    /// Whether the area of a slot has a request for a read that nobody waits for, and another one
    /// if it has several. O(1).
    pub(crate) fn idles(&self, slot: Slot) -> bool {
        let area = self.area(self.index_of(slot));
        area.is_some_and(|area| match area.geometry() {
            Some(shape) if shape.max_in_flight == 1 => area.stats().in_flight == 0,
            _ => self.spare_frames(slot) > 0,
        })
    }

    /// Closes an area to new pages.
    pub(crate) fn leave(&mut self, index: usize) {
        self.member(index).leaving = true;
    }

    /// Opens an area again.
    pub(crate) fn stay(&mut self, index: usize) {
        self.member(index).leaving = false;
    }

    /// Which areas a slot that is given back can be had from again. O(N).
    pub(crate) fn usable(&self) -> Usable {
        let healthy = self.any_healthy();
        let members = self.members.iter().zip(0..);
        let usable = members.filter(|(m, _)| m.as_ref().is_some_and(|m| m.is_usable(healthy)));
        Usable {
            areas: usable.fold(0, |areas, (_, index)| areas | 1 << index),
            stride: Self::STRIDE,
        }
    }

    /// Whether an area is active. O(N).
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.areas().any(|(_, area)| area.geometry().is_some())
    }

    fn any_healthy(&self) -> bool {
        let mut members = self.members.iter().flatten();
        members.any(|member| member.is_usable(true))
    }

    fn member(&mut self, index: usize) -> &mut Member<'s, F, A> {
        let member = self.members.get_mut(index).and_then(Option::as_mut);
        member.expect("an area of this space")
    }

    const fn base(index: usize) -> u32 {
        // Below `N`, so that the product is below `u32::MAX`.
        index as u32 * Self::STRIDE
    }

    const fn locate(slot: Slot) -> (usize, Slot) {
        (
            (slot.0 / Self::STRIDE) as usize,
            Slot(slot.0 % Self::STRIDE),
        )
    }
}

impl<F: PageFrame, A: AddressSpace<F>> Member<'_, F, A> {
    /// Whether pages may go to the area at all. One that is out of order serves only where no
    /// other is `healthy`.
    fn is_usable(&self, healthy: bool) -> bool {
        let in_order = self.failed.is_none() || !healthy;
        in_order && !self.leaving && self.area.geometry().is_some()
    }

    /// Whether a page can go to the area now.
    fn accepts(&self, healthy: bool, spare: bool) -> bool {
        let stats = self.area.stats();
        let requests = self.area.geometry().map_or(0, |shape| shape.max_in_flight);
        let spared = usize::from(spare && requests > 1);
        self.is_usable(healthy)
            && stats.free > 0
            && stats.in_flight + spared < usize::from(requests)
    }

    /// Notes whether the store is out of order.
    fn learn(&mut self, completion: &Completion<F, A::Error>) {
        let Err(error) = &completion.result else {
            return;
        };
        let kind = error.kind();
        let for_good = match kind {
            ErrorKind::Gone | ErrorKind::Denied => true,
            ErrorKind::ReadOnly => completion.io.op == IoOp::Write,
            _ => false,
        };
        if for_good {
            self.failed = Some(kind);
        }
    }
}

impl<F: PageFrame, A: AddressSpace<F>, const N: usize> Default for SwapSpace<'_, F, A, N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<'s, F: PageFrame, A: AddressSpace<F>> From<SwapArea<'s, F, A>> for SwapSpace<'s, F, A> {
    /// The space of a single area.
    fn from(area: SwapArea<'s, F, A>) -> Self {
        SwapSpace {
            members: [Some(Member {
                area,
                priority: 0,
                turn: 0,
                failed: None,
                leaving: false,
            })],
            turn: 0,
            polled: 0,
        }
    }
}

impl<F, A: fmt::Debug, const N: usize> fmt::Debug for SwapSpace<'_, F, A, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let members = self.members.iter().enumerate();
        let members = members.filter_map(|(index, member)| Some((index, member.as_ref()?)));
        f.debug_map()
            .entries(members.map(|(index, member)| (index, (member.priority, &member.area))))
            .finish()
    }
}

/// The areas that pages go to, by bit.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Usable {
    areas: u64,
    stride: u32,
}

impl Usable {
    /// Whether a slot is in one of them.
    pub(crate) const fn contains(self, slot: Slot) -> bool {
        self.areas >> (slot.0 / self.stride) & 1 != 0
    }
}

/// Names a request in flight in one of the areas of a [`SwapSpace`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct SpaceTicket {
    /// Which area.
    pub index: usize,
    /// What that area calls it.
    pub ticket: Ticket,
}

/// An area that could not be added: the reason, and the area back.
#[derive(Debug)]
pub struct NotOn<'s, F, A> {
    /// Why.
    pub error: SwaponError,
    /// The area as it was handed in.
    pub area: SwapArea<'s, F, A>,
}

impl<F, A> From<NotOn<'_, F, A>> for SwaponError {
    fn from(refused: NotOn<'_, F, A>) -> Self {
        refused.error
    }
}

/// Why an area could not be added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum SwaponError {
    /// There are as many areas as the space holds.
    Full,
    /// It is active, with more slots than an area of this space can number.
    TooManySlots {
        /// How many can be.
        most: u32,
    },
}

impl fmt::Display for SwaponError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SwaponError::Full => f.write_str("there are as many swap areas as can be"),
            SwaponError::TooManySlots { most } => {
                write!(f, "a swap area of this space can have {most} slots")
            }
        }
    }
}

impl core::error::Error for SwaponError {}

/// Why an area could not be taken out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum SwapoffError<E> {
    /// There is no such area.
    NoSuchArea,
    /// The address space could not be left as intended.
    Space(E),
}

impl<E: fmt::Display> fmt::Display for SwapoffError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SwapoffError::NoSuchArea => f.write_str("there is no such swap area"),
            SwapoffError::Space(error) => error.fmt(f),
        }
    }
}

impl<E: fmt::Debug + fmt::Display> core::error::Error for SwapoffError<E> {}

#[cfg(test)]
mod tests;
