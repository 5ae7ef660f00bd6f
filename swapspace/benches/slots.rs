//! What it costs to take a slot and to give it back, by the size of the area and by how full it is:
//! `cargo bench -p swapspace --bench slots [most GiB]`.
//!
//! The free slots lie as badly as chance can make them: each is free or taken by itself. Pages then
//! come and go, eight at a time, the oldest first, so that the area stays as full as it is. Needs
//! 220 MiB of memory for 1 TiB of swap. Figures are wall time of this machine, and good for the
//! shape of the curve only; that the steps are bounded is a test of `slots`.

use core::hint::black_box;
use core::task::Poll;
use std::collections::VecDeque;
use std::time::Instant as Clock;

use mempool::{Budget, FRAME_SIZE};
use swapspace::{
    AddressSpace, Completion, Geometry, Instant, RamError, Refused, SubmitError, SwapArea,
    SwapEntry, SwapIo, Ticket,
};

type Page = Box<[u8]>;

/// Slots with nothing behind them.
struct Nothing(u32);

impl AddressSpace<Page> for Nothing {
    type Error = RamError;

    const BUDGET: Budget = Budget::ZERO;

    fn swap_activate(&mut self, _: Instant) -> Poll<Result<Geometry, RamError>> {
        Poll::Ready(Ok(Geometry {
            slots: self.0,
            page_size: FRAME_SIZE as u32,
            max_frames: 8,
            max_in_flight: 1,
        }))
    }

    fn submit(&mut self, io: SwapIo<Page>, _: Instant) -> Result<Ticket, Refused<Page>> {
        let error = SubmitError::Inactive;
        Err(Refused { error, io })
    }

    fn poll(&mut self, _: Instant) -> Option<Completion<Page, RamError>> {
        None
    }

    fn next_deadline(&self) -> Option<Instant> {
        None
    }

    fn swap_deactivate(&mut self, _: Instant) -> Poll<Result<(), RamError>> {
        Poll::Ready(Ok(()))
    }
}

/// Pages that are out at a time, beside those that stay for ever.
const WINDOW: usize = 1024;

/// Pages that come and go in a measurement.
const PAGES: u32 = 2_000_000;

fn main() {
    let given = std::env::args().skip(1).find_map(|arg| arg.parse().ok());
    let most: u64 = given.unwrap_or(1024);
    println!("area      full   ns/page   pages/run");
    for shift in [14, 17, 20, 22, 24, 26, 28] {
        let slots = 1u32 << shift;
        let mib = (u64::from(slots) * FRAME_SIZE as u64) >> 20;
        if mib > most << 10 {
            break;
        }
        for percent in [0, 50, 90, 95, 99] {
            let (ns, run) = measure(slots, percent);
            println!("{mib:>7} MiB {percent:>2} %  {ns:>7.1}   {run:>6.2}");
        }
    }
}

/// Nanoseconds for taking a slot and giving it back, and slots in a run.
fn measure(slots: u32, percent: u32) -> (f64, f64) {
    let mut map = vec![0; SwapArea::<(), ()>::map_len(slots)];
    let mut area = SwapArea::new(Nothing(slots), &mut map);
    assert!(area.activate(Instant::ZERO).is_ready());
    fill(&mut area, slots, percent);

    let mut window = VecDeque::with_capacity(WINDOW + 8);
    let (mut pages, mut runs) = (0, 0);
    let start = Clock::now();
    while pages < PAGES {
        let run = area.alloc(8).expect("the window is smaller than the holes");
        pages += run.len() as u32;
        runs += 1;
        window.extend(run);
        while window.len() > WINDOW.min(slots as usize / 400) {
            area.free(black_box(window.pop_front().expect("not empty")));
        }
    }
    let ns = start.elapsed().as_nanos() as f64 / f64::from(pages);
    (ns, f64::from(pages) / f64::from(runs))
}

/// Takes slots for ever, each by a throw of dice, so that so many per cent of all are taken.
fn fill(area: &mut SwapArea<'_, Page, Nothing>, slots: u32, percent: u32) {
    let (mut dice, mut seen) = (1u64, 0);
    while seen < slots {
        // Next-fit comes by every slot once, whether it is given back or not.
        for entry in area.alloc(8).expect("slots that were not seen are free") {
            seen += 1;
            dice ^= dice << 13;
            dice ^= dice >> 7;
            dice ^= dice << 17;
            if dice % 100 >= u64::from(percent) {
                area.free(entry);
            } else {
                keep(entry);
            }
        }
    }
}

/// Nobody gives this slot back.
fn keep(entry: SwapEntry) {
    drop(entry);
}
