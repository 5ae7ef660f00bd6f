use alloc::boxed::Box;
use alloc::vec;

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
    let (mut store, mut map) = (vec![0; 8 * FRAME_SIZE], [0; 1]);
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
    let (mut store, mut map) = (vec![0; 8 * FRAME_SIZE], [0; 1]);
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
            needed: 4,
            given: 2
        }))
    );
    assert_eq!(area.geometry(), None);
    assert!(ready(area.space_mut().swap_deactivate(Instant::ZERO)).is_err());
}

#[test]
fn s6_pages_that_are_not_frames_are_refused() {
    let (mut store, mut map) = (vec![0; 8 * FRAME_SIZE], [0; 1]);
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
    let (mut store, mut map) = (vec![0; 2 * FRAME_SIZE], [0; 1]);
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
    let (mut store, mut map) = (vec![0; 8 * FRAME_SIZE], [0; 1]);
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

#[cfg(feature = "ablation")]
#[test]
fn s6_without_a_look_at_its_slots_an_area_goes_from_under_its_pages() {
    let (mut store, mut map) = (vec![0; 8 * FRAME_SIZE], [0; 1]);
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
