use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;

use mempool::FRAME_SIZE;

use super::*;
use crate::{RamSpace, Slot};

type Page = Box<[u8]>;
type Area<'s> = SwapArea<'s, Page, RamSpace<'s, Page, 2>>;

fn ready<T>(poll: Poll<T>) -> T {
    match poll {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("RAM is ready at once"),
    }
}

#[test]
fn s6_activation_nests_and_the_first_deactivation_does_not_disable_the_second() {
    let (mut store, mut map) = (vec![0; 8 * FRAME_SIZE], [0; 7]);
    let mut area = Area::new(RamSpace::new(&mut store), &mut map);
    let now = Instant::ZERO;

    let geometry = ready(area.activate(now)).unwrap();
    assert_eq!(ready(area.activate(now)).unwrap(), geometry);
    let held = area.alloc(3).unwrap();

    ready(area.deactivate(now)).unwrap();
    assert_eq!(area.geometry(), Some(geometry), "one activation is left");
    assert_eq!(
        ready(area.deactivate(now)),
        Err(DeactivateError::InUse { slots: 3 })
    );
    for entry in held {
        area.free(entry);
    }
    ready(area.deactivate(now)).unwrap();
    assert_eq!(ready(area.deactivate(now)), Err(DeactivateError::Inactive));
    assert_eq!(area.alloc(1), None);
}

#[test]
fn s6_a_second_activation_keeps_the_slots_that_are_taken() {
    let (mut store, mut map) = (vec![0; 8 * FRAME_SIZE], [0; 7]);
    let mut area = Area::new(RamSpace::new(&mut store), &mut map);
    ready(area.activate(Instant::ZERO)).unwrap();
    let first = area.alloc(1).unwrap();
    ready(area.activate(Instant::ZERO)).unwrap();
    assert_ne!(area.alloc(1).unwrap().first(), first.first());
}

#[test]
fn s6_a_map_that_is_too_small_is_refused_by_name_and_leaves_the_space_inactive() {
    let (mut store, mut map) = (vec![0; 65 * FRAME_SIZE], [0; 2]);
    let mut area = Area::new(RamSpace::new(&mut store), &mut map);
    assert_eq!(
        ready(area.activate(Instant::ZERO)),
        Err(ActivateError::Misfit(Misfit::MapTooSmall {
            needed: 22,
            given: 2
        }))
    );
    assert_eq!(area.geometry(), None);
    assert!(ready(area.space_mut().swap_deactivate(Instant::ZERO)).is_err());
}

#[test]
fn s6_pages_that_are_not_frames_are_refused() {
    let (mut store, mut map) = (vec![0; 8 * FRAME_SIZE], [0; 7]);
    let space = RamSpace::new(&mut store).with_page_size(2 * FRAME_SIZE);
    let mut area = Area::new(space, &mut map);
    assert_eq!(
        ready(area.activate(Instant::ZERO)),
        Err(ActivateError::Misfit(Misfit::PageSize(
            2 * FRAME_SIZE as u32
        )))
    );
}

#[test]
fn a_retired_slot_is_not_in_use_and_not_free() {
    let (mut store, mut map) = (vec![0; 2 * FRAME_SIZE], [0; 7]);
    let mut area = Area::new(RamSpace::new(&mut store), &mut map);
    ready(area.activate(Instant::ZERO)).unwrap();
    let bad = area.alloc(1).unwrap().next().unwrap();
    assert_eq!(bad.slot(), Slot(0));
    area.retire(bad);
    let stats = area.stats();
    assert_eq!((stats.free, stats.used, stats.retired), (1, 0, 1));
    assert_eq!(area.alloc(2).unwrap().len(), 1);
}

/// RAM that takes its time to activate.
struct Slow<'m> {
    ram: RamSpace<'m, Page, 2>,
    activating: bool,
}

impl AddressSpace<Page> for Slow<'_> {
    type Error = crate::RamError;

    const BUDGET: mempool::Budget = mempool::Budget::ZERO;

    fn swap_activate(&mut self, _: Instant) -> Poll<Result<Geometry, Self::Error>> {
        self.activating = true;
        Poll::Pending
    }

    fn submit(&mut self, io: SwapIo<Page>, now: Instant) -> Result<Ticket, Refused<Page>> {
        self.ram.submit(io, now)
    }

    fn poll(&mut self, now: Instant) -> Option<Completion<Page, Self::Error>> {
        self.ram.poll(now)
    }

    fn next_deadline(&self) -> Option<Instant> {
        self.ram.next_deadline()
    }

    fn swap_deactivate(&mut self, _: Instant) -> Poll<Result<(), Self::Error>> {
        self.activating = false;
        Poll::Ready(Ok(()))
    }
}

#[test]
fn s6_an_activation_that_has_only_begun_can_be_given_up() {
    let (mut store, mut map) = (vec![0; 8 * FRAME_SIZE], [0; 7]);
    let slow = Slow {
        ram: RamSpace::new(&mut store),
        activating: false,
    };
    let mut area = SwapArea::new(slow, &mut map);
    let now = Instant::ZERO;
    assert!(area.activate(now).is_pending() && area.space().activating);
    assert_eq!(ready(area.deactivate(now)), Ok(()));
    assert!(!area.space().activating);
    assert_eq!(ready(area.deactivate(now)), Err(DeactivateError::Inactive));
}

#[test]
fn two_owners_share_a_slot_until_both_have_gone() {
    let (mut store, mut map) = (vec![0; 2 * FRAME_SIZE], [0; 7]);
    let mut area = Area::new(RamSpace::new(&mut store), &mut map);
    ready(area.activate(Instant::ZERO)).unwrap();
    let first = area.alloc(1).unwrap().next().unwrap();
    let second = area.dup(&first).unwrap();
    assert_eq!((area.owners(&first), first.slot()), (2, second.slot()));
    area.free(first);
    assert_eq!((area.owners(&second), area.stats().used), (1, 1));
    area.free(second);
    assert_eq!(area.stats().used, 0);
}

fn frame() -> Page {
    vec![0xcc; FRAME_SIZE].into()
}

/// A store of 40 slots whose header says so, and which pages are bad.
fn made(pages: u32, bad: &[u32]) -> Vec<u8> {
    let mut store = vec![0; 40 * FRAME_SIZE];
    let header = SwapHeader::new(pages).with_bad_pages(bad);
    header.write(&mut store[..FRAME_SIZE]).unwrap();
    store
}

/// Activates, as a driver would: until it is ready, and no later than at the deadlines.
fn switch_on(area: &mut Area<'_>) -> Result<Geometry, ActivateError<crate::RamError>> {
    let mut now = Instant::ZERO;
    loop {
        match area.activate(now) {
            Poll::Ready(result) => return result,
            Poll::Pending => now = area.next_deadline().expect("something is awaited"),
        }
    }
}

#[test]
fn the_header_its_bad_pages_and_what_lies_beyond_it_are_never_given_out() {
    // A page that is listed twice is bad once.
    let (mut store, mut map) = (made(35, &[3, 33, 3]), [0; 15]);
    let mut area = Area::new(RamSpace::new(&mut store), &mut map).with_header(frame());
    assert_eq!(switch_on(&mut area).unwrap().slots, 40);
    let stats = area.stats();
    assert_eq!((stats.free, stats.retired, stats.used), (32, 3, 0));
    assert_eq!(area.header().unwrap().pages(), 35);
    let slots: Vec<u32> = core::iter::from_fn(|| area.alloc(8))
        .flatten()
        .map(|entry| entry.slot().0)
        .collect();
    assert_eq!(slots.len(), 32);
    assert!(
        slots
            .iter()
            .all(|slot| *slot < 35 && ![0, 3, 33].contains(slot))
    );
}

#[test]
fn s6_a_store_without_a_header_that_fits_is_refused_by_name_and_left_alone() {
    let beyond = HeaderError::TooLarge {
        last_page: 40,
        slots: 40,
    };
    let cases = [
        (vec![0; 40 * FRAME_SIZE], HeaderError::NoMagic),
        (made(41, &[]), beyond),
        (made(3, &[1, 2]), HeaderError::AllBad),
    ];
    for (mut store, error) in cases {
        let mut map = [0; 15];
        let mut area = Area::new(RamSpace::new(&mut store), &mut map).with_header(frame());
        let refused = Err(ActivateError::Misfit(Misfit::Header(error)));
        // Again and again: the frame has come back.
        for _ in 0..3 {
            assert_eq!(switch_on(&mut area), refused);
            assert_eq!((area.geometry(), area.header()), (None, None));
        }
        assert!(ready(area.space_mut().swap_deactivate(Instant::ZERO)).is_err());
        assert_eq!(
            ready(area.deactivate(Instant::ZERO)),
            Err(DeactivateError::Inactive)
        );
    }
}

#[test]
fn s6_a_header_that_is_still_being_read_can_be_given_up_and_asked_for_again() {
    let latency = core::time::Duration::from_millis(1);
    let (mut store, mut map) = (made(40, &[]), [0; 15]);
    let ram = RamSpace::new(&mut store).with_latency(latency);
    let mut area = Area::new(ram, &mut map).with_header(frame());
    assert!(area.activate(Instant::ZERO).is_pending());
    assert!(area.poll(Instant::ZERO).is_none());
    assert!(area.deactivate(Instant::ZERO).is_pending());
    let later = area.next_deadline().unwrap();
    assert_eq!(ready(area.deactivate(later)), Ok(()));
    assert!(ready(area.space_mut().swap_deactivate(later)).is_err());
    assert_eq!(switch_on(&mut area).unwrap().slots, 40);
}

#[test]
fn the_completion_of_the_header_is_nobody_elses() {
    let latency = core::time::Duration::from_millis(1);
    let (mut store, mut map) = (made(40, &[]), [0; 15]);
    let ram = RamSpace::new(&mut store).with_latency(latency);
    let mut area = Area::new(ram, &mut map).with_header(frame());
    assert!(area.activate(Instant::ZERO).is_pending());
    let later = area.next_deadline().unwrap();
    // Whoever drives the area polls it as well.
    assert!(area.poll(later).is_none());
    assert_eq!(ready(area.activate(later)).unwrap().slots, 40);
}

#[cfg(feature = "ablation")]
#[test]
fn s6_without_a_look_at_its_slots_an_area_goes_from_under_its_pages() {
    let (mut store, mut map) = (vec![0; 8 * FRAME_SIZE], [0; 7]);
    let mut area = Area::new(RamSpace::new(&mut store), &mut map);
    area.ablate(Mechanism::SlotsInUse);
    ready(area.activate(Instant::ZERO)).unwrap();
    let held = area.alloc(3).unwrap();
    assert_eq!(ready(area.deactivate(Instant::ZERO)), Ok(()));
    assert_eq!(area.geometry(), None);
    for entry in held {
        area.free(entry);
    }
}
