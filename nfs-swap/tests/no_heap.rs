//! The swap path takes nothing from the heap: page-out must not need what it is to free (S5).

mod support;

use core::alloc::{GlobalAlloc, Layout};
use core::cell::Cell;
use std::alloc::System;

use nfs_server::{Config, Server};
use nfs_swap::transport::std::StdUdp;
use support::scripted::{Answer, Scripted, WRITE};
use support::{Frame, Socket, Swap, swap_over};
use support::{activate, complete, config, deactivate, now, page, submit, swap, url};
use swapspace::{AddressSpace, IoOp};

thread_local! {
    /// Allocations of this thread; the server has threads of its own.
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: every call goes to the system's allocator as it is; counting touches a `Cell` only.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's promise is the one that is asked for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations(work: impl FnOnce()) -> usize {
    let before = ALLOCATIONS.get();
    work();
    ALLOCATIONS.get() - before
}

#[test]
fn page_out_and_page_in_take_nothing_from_the_heap() {
    assert_eq!(allocations(|| drop(Box::new(1))), 1, "the count works");

    let directory = tempfile::tempdir().unwrap();
    let mut server = Server::start(Config::new(directory.path())).unwrap();
    let url = url(server.addr());
    let mut swap = swap(&url, config(&url, 64));
    activate(&mut swap).unwrap();

    let mut frames = goes_out_and_in(&mut swap);

    // Nor does a lost connection.
    server.kill();
    submit(&mut swap, IoOp::Write, 0, frames[0].take().unwrap()).unwrap();
    let taken = allocations(|| {
        while swap.stats().resets < 1 {
            assert!(swap.poll(now()).is_none());
        }
    });
    server.reboot().unwrap();
    let taken = taken + allocations(|| complete(&mut swap).result.unwrap());
    assert_eq!(taken, 0);
    deactivate(&mut swap).unwrap();
}

#[test]
fn nor_do_datagrams_that_are_lost_and_sent_again() {
    let mut writes = 0;
    let server = Scripted::start_udp(move |call| {
        writes += usize::from(call.is(WRITE));
        match call.is(WRITE) && writes % 2 == 1 {
            true => Answer::Silence,
            false => Answer::Normal,
        }
    });
    let url = url(server.address);
    let mut swap: Swap<StdUdp> = swap_over(&url, config(&url, 64));
    activate(&mut swap).unwrap();
    goes_out_and_in(&mut swap);
    assert!(swap.stats().resent > 0);
    deactivate(&mut swap).unwrap();
}

/// Eight clusters out and in again, without an allocation.
fn goes_out_and_in<T: Socket>(swap: &mut Swap<T>) -> Vec<Option<[Frame; 2]>> {
    let mut frames: Vec<_> = (0..8)
        .map(|slot| Some([page(slot, 1), page(slot + 8, 1)]))
        .collect();
    let taken = allocations(|| {
        for op in [IoOp::Write, IoOp::Read] {
            for (slot, frames) in (0..).step_by(2).zip(&mut frames) {
                submit(swap, op, slot, frames.take().unwrap()).unwrap();
            }
            for _ in 0..8 {
                let mut done = complete(swap);
                done.result.unwrap();
                let index = done.io.slot.0 as usize / 2;
                let second = done.io.frames.pop().unwrap();
                let first = done.io.frames.pop().unwrap();
                frames[index] = Some([first, second]);
            }
        }
    });
    assert_eq!(taken, 0);
    assert_eq!(frames[3].as_ref().unwrap()[1], page(11, 1));
    frames
}
