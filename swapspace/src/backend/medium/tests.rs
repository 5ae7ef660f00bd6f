//! What the space makes of a medium that fails.

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;

use super::*;
use crate::{FrameList, Slot, conformance};

const PAGE: usize = 512;
const NOW: Instant = Instant::ZERO;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Broken;

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("broken")
    }
}

impl SpaceError for Broken {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Io
    }
}

/// Memory that keeps what is written only once it is flushed, and can be told to fail.
#[derive(Debug, Default)]
struct Cached {
    stable: Vec<u8>,
    cache: Vec<(usize, Vec<u8>)>,
    opened: u32,
    closed: u32,
    transfers: u32,
    /// The page on which every transfer fails.
    bad_page: Option<usize>,
    flush_fails: bool,
}

impl Cached {
    fn of(pages: usize) -> Self {
        Cached {
            stable: vec![0; pages * PAGE],
            ..Cached::default()
        }
    }

    fn transfer(&mut self, offset: u64) -> Result<usize, Broken> {
        self.transfers += 1;
        let offset = offset as usize;
        if self.bad_page == Some(offset / PAGE) {
            return Err(Broken);
        }
        Ok(offset)
    }
}

impl Medium for Cached {
    type Error = Broken;

    fn open(&mut self) -> Result<u64, Broken> {
        self.opened += 1;
        Ok(self.stable.len() as u64)
    }

    fn read(&mut self, offset: u64, page: &mut [u8]) -> Result<(), Broken> {
        let offset = self.transfer(offset)?;
        page.copy_from_slice(&self.stable[offset..offset + page.len()]);
        Ok(())
    }

    fn write(&mut self, offset: u64, page: &[u8]) -> Result<(), Broken> {
        let offset = self.transfer(offset)?;
        self.cache.push((offset, page.to_vec()));
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Broken> {
        if self.flush_fails {
            self.cache.clear();
            return Err(Broken);
        }
        for (offset, page) in self.cache.drain(..) {
            self.stable[offset..offset + page.len()].copy_from_slice(&page);
        }
        Ok(())
    }

    fn close(&mut self) -> Result<(), Broken> {
        self.closed += 1;
        Ok(())
    }
}

type Space = MediumSpace<Cached, Box<[u8]>, 4>;

fn space(pages: usize) -> Space {
    MediumSpace::new(Cached::of(pages)).with_page_size(PAGE)
}

fn active(pages: usize) -> Space {
    let mut space = space(pages);
    assert!(matches!(space.swap_activate(NOW), Poll::Ready(Ok(_))));
    space
}

fn io(op: IoOp, slot: u32, bytes: &[u8]) -> SwapIo<Box<[u8]>> {
    let frames: FrameList<_> = bytes
        .iter()
        .map(|byte| vec![*byte; PAGE].into_boxed_slice())
        .collect();
    SwapIo::new(op, Slot(slot), IoClass::Demand, frames)
}

fn first_bytes(completion: &Completion<Box<[u8]>, MediumError<Broken>>) -> Vec<u8> {
    completion.io.frames.iter().map(|frame| frame[0]).collect()
}

#[test]
fn it_keeps_the_contract() {
    let mut space = space(64);
    let frame = || vec![0; PAGE].into_boxed_slice();
    let report = conformance(&mut space, frame, |_| NOW).unwrap();
    assert_eq!(report.deepest, 4);
    let medium = space.medium();
    assert_eq!(
        medium.opened, medium.closed,
        "as often closed as it was opened"
    );
}

#[test]
fn s2_a_write_is_stable_when_it_completes() {
    let mut space = active(4);
    space.submit(io(IoOp::Write, 1, &[7, 8]), NOW).unwrap();
    assert!(space.poll(NOW).unwrap().result.is_ok());
    assert_eq!(space.medium().stable[PAGE], 7);
    assert_eq!(space.medium().stable[2 * PAGE], 8);
}

#[test]
fn s3_of_a_write_that_fails_the_pages_before_the_failure_are_done() {
    let mut space = active(8);
    space.medium.bad_page = Some(3);
    space
        .submit(io(IoOp::Write, 1, &[1, 2, 3, 4]), NOW)
        .unwrap();
    let failed = space.poll(NOW).unwrap();
    assert_eq!(failed.result, Err(MediumError::Medium(Broken)));
    assert_eq!((failed.done, failed.stray), (2, false));
    assert_eq!(first_bytes(&failed), [1, 2, 3, 4]);

    space.submit(io(IoOp::Read, 1, &[0, 0]), NOW).unwrap();
    let read = space.poll(NOW).unwrap();
    assert!(read.result.is_ok());
    assert_eq!(
        first_bytes(&read),
        [1, 2],
        "what is said to be done is there"
    );
}

#[test]
fn s2_nothing_is_done_that_could_not_be_flushed() {
    let mut space = active(8);
    space.medium.flush_fails = true;
    space.submit(io(IoOp::Write, 0, &[1, 2]), NOW).unwrap();
    let failed = space.poll(NOW).unwrap();
    assert!(failed.result.is_err() && failed.done == 0);

    space.medium.bad_page = Some(1);
    space.submit(io(IoOp::Write, 0, &[1, 2]), NOW).unwrap();
    let failed = space.poll(NOW).unwrap();
    assert!(failed.result.is_err() && failed.done == 0);
}

#[test]
fn s4_a_read_that_fails_says_how_far_it_came() {
    let mut space = active(8);
    space.submit(io(IoOp::Write, 0, &[5, 6, 7]), NOW).unwrap();
    assert!(space.poll(NOW).unwrap().result.is_ok());
    space.medium.bad_page = Some(1);
    // Nothing is flushed for a read.
    space.medium.flush_fails = true;
    space.submit(io(IoOp::Read, 0, &[0, 0, 0]), NOW).unwrap();
    let failed = space.poll(NOW).unwrap();
    assert_eq!(failed.result, Err(MediumError::Medium(Broken)));
    assert_eq!(failed.done, 1);
    assert_eq!(failed.io.frames[0][0], 5);
}

#[test]
fn s5_a_poll_serves_one_request() {
    let mut space = active(8);
    for slot in 0..3 {
        space.submit(io(IoOp::Write, slot, &[1]), NOW).unwrap();
    }
    let _ = space.poll(NOW);
    assert_eq!(space.medium().transfers, 1);
    assert_eq!(space.next_deadline(), Some(NOW));
}

#[test]
fn s3_what_is_cancelled_or_late_does_not_touch_the_medium() {
    let mut space = active(8);
    let ticket = space.submit(io(IoOp::Write, 0, &[1]), NOW).unwrap();
    space
        .submit(io(IoOp::Write, 1, &[1]).by(Instant::from_micros(5)), NOW)
        .unwrap();
    space.cancel(ticket, NOW);
    let later = Instant::from_micros(5);
    let results = [(); 2].map(|()| space.poll(later).unwrap().result.unwrap_err().kind());
    assert_eq!(results, [ErrorKind::Cancelled, ErrorKind::Unsent]);
    assert_eq!(space.medium().transfers, 0);
}

#[test]
fn s6_it_rests_once_everything_is_polled() {
    let mut space = active(8);
    space.submit(io(IoOp::Write, 0, &[1]), NOW).unwrap();
    assert!(space.swap_deactivate(NOW).is_pending());
    assert_eq!(space.medium().closed, 0);
    assert!(space.poll(NOW).is_some());
    assert_eq!(space.swap_deactivate(NOW), Poll::Ready(Ok(())));
    assert_eq!(space.medium().closed, 1);
    let again = space.swap_deactivate(NOW);
    assert_eq!(again, Poll::Ready(Err(MediumError::Inactive)));
}

#[test]
fn s6_a_medium_without_room_for_a_page_is_refused_and_closed() {
    let mut space = space(0);
    let result = space.swap_activate(NOW);
    assert_eq!(result, Poll::Ready(Err(MediumError::TooSmall)));
    assert_eq!(space.medium().closed, 1);
}

#[test]
fn a_request_too_many_or_of_the_wrong_size_is_given_back() {
    let mut space = active(8);
    for slot in 0..4 {
        space.submit(io(IoOp::Write, slot, &[1]), NOW).unwrap();
    }
    let refused = space.submit(io(IoOp::Write, 5, &[9]), NOW).unwrap_err();
    assert_eq!(refused.error, SubmitError::Busy);
    assert_eq!(refused.io.frames[0][0], 9);

    let mut short = io(IoOp::Write, 0, &[9]);
    short.frames[0] = vec![9; PAGE - 1].into_boxed_slice();
    let refused = space.submit(short, NOW).unwrap_err();
    assert_eq!(refused.error, SubmitError::BadFrames);
}
