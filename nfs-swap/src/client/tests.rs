//! The client against a server that the test plays by hand, in virtual time.

extern crate alloc;
extern crate std;

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;

use swapspace::{ErrorKind, IoClass, IoOp, Slot, SpaceError};

use super::*;
use crate::error::ProtocolError;
use crate::nfs3::{Nfsstat3, StableHow};
use crate::rpc::record_mark;
use crate::xdr::padding;

const PAGE: usize = 512;
const READ: u32 = 6;
const WRITE: u32 = 7;
const COMMIT: u32 = 21;
const BOOT_1: [u32; 2] = [1, 1];
const BOOT_2: [u32; 2] = [2, 2];

type Frame = Box<[u8]>;

/// A call as the server sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    xid: u32,
    procedure: u32,
    offset: u64,
    count: u32,
    payload: Vec<u8>,
}

struct Pair {
    client: Client<Frame, 4>,
    now: Instant,
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap())
}

impl Pair {
    fn new() -> Self {
        Pair::with(ClientConfig::default())
    }

    fn with(config: ClientConfig) -> Self {
        let mut client = Client::new(config);
        let geometry = Geometry {
            slots: 64,
            page_size: PAGE as u32,
            max_frames: 4,
            max_in_flight: 4,
        };
        client.open(Fh::new(b"file").unwrap(), geometry);
        Pair {
            client,
            now: Instant::ZERO,
        }
    }

    fn submit(&mut self, op: IoOp, slot: u32, frames: usize, class: IoClass) -> Ticket {
        let frames = (0..frames).map(|i| page(slot as u8 + i as u8)).collect();
        let io = SwapIo::new(op, Slot(slot), class, frames);
        self.client.submit(io, self.now).expect("admitted")
    }

    fn read(&mut self, slot: u32, frames: usize) -> Ticket {
        self.submit(IoOp::Read, slot, frames, IoClass::Demand)
    }

    fn write(&mut self, slot: u32, frames: usize) -> Ticket {
        self.submit(IoOp::Write, slot, frames, IoClass::Reclaim)
    }

    /// All that the client has to send, fetched through a buffer of an awkward size.
    fn sent_bytes(&mut self) -> Vec<u8> {
        let mut stream = vec![];
        let mut buf = [0; 77];
        loop {
            match self.client.poll_transmit(self.now, &mut buf) {
                0 => return stream,
                len => stream.extend_from_slice(&buf[..len]),
            }
        }
    }

    fn sent(&mut self) -> Vec<Seen> {
        let stream = self.sent_bytes();
        let mut rest = &stream[..];
        let mut calls = vec![];
        while !rest.is_empty() {
            let len = (word(rest, 0) & 0x7fff_ffff) as usize;
            calls.push(see(&rest[4..4 + len]));
            rest = &rest[4 + len..];
        }
        calls
    }

    fn receive(&mut self, bytes: &[u8]) -> Result<(), ProtocolError> {
        self.client.handle_input(self.now, bytes)
    }

    fn completed(&mut self) -> Completion<Frame, RequestError> {
        self.client
            .poll_completion()
            .expect("a request has finished")
    }

    fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
        self.client.handle_timeout(self.now);
    }
}

fn page(fill: u8) -> Frame {
    vec![fill; PAGE].into_boxed_slice()
}

fn see(call: &[u8]) -> Seen {
    let credential = 8 + word(call, 28) as usize;
    let arguments = &call[24 + credential + 8..];
    assert_eq!(&arguments[..8], b"\0\0\0\x04file");
    let procedure = word(call, 20);
    Seen {
        xid: word(call, 0),
        procedure,
        offset: u64::from_be_bytes(arguments[8..16].try_into().unwrap()),
        count: word(arguments, 16),
        payload: match procedure {
            WRITE => arguments[28..].to_vec(),
            _ => vec![],
        },
    }
}

fn record(xid: u32, words: &[u32], payload: &[u8]) -> Vec<u8> {
    let mut body: Vec<u8> = [xid, 1, 0, 0, 0, 0]
        .iter()
        .chain(words)
        .flat_map(|word| word.to_be_bytes())
        .collect();
    body.extend_from_slice(payload);
    body.resize(body.len() + padding(payload.len()), 0);
    [&record_mark(body.len() as u32)[..], &body].concat()
}

/// A READ refused; no attributes follow.
fn status(xid: u32, status: u32) -> Vec<u8> {
    record(xid, &[status, 0], &[])
}

fn read_reply(xid: u32, data: &[u8], eof: bool) -> Vec<u8> {
    let count = data.len() as u32;
    record(xid, &[0, 0, count, u32::from(eof), count], data)
}

fn write_reply(xid: u32, count: u32, committed: StableHow, boot: [u32; 2]) -> Vec<u8> {
    record(
        xid,
        &[0, 0, 0, count, committed as u32, boot[0], boot[1]],
        &[],
    )
}

fn commit_reply(xid: u32, boot: [u32; 2]) -> Vec<u8> {
    record(xid, &[0, 0, 0, boot[0], boot[1]], &[])
}

#[test]
fn a_read_fills_its_frames_however_the_stream_is_cut() {
    for cut in 1..40 {
        let mut pair = Pair::new();
        let ticket = pair.read(3, 2);
        let call = pair.sent().remove(0);
        assert_eq!(
            (call.procedure, call.offset, call.count),
            (READ, 3 * PAGE as u64, 1024)
        );
        let data: Vec<u8> = (0..1024u32).map(|i| (i * 7) as u8).collect();
        for piece in read_reply(call.xid, &data, false).chunks(cut) {
            pair.receive(piece).unwrap();
        }
        let done = pair.completed();
        assert_eq!((done.ticket, done.result), (ticket, Ok(())));
        assert_eq!(done.io.frames.concat(), data);
        assert_eq!(pair.client.in_flight(), 0);
    }
}

#[test]
fn a_reply_in_several_fragments_is_one_reply() {
    let mut pair = Pair::new();
    pair.read(0, 1);
    let xid = pair.sent()[0].xid;
    let whole = read_reply(xid, &[9; PAGE], false);
    for piece in whole[4..].chunks(100) {
        pair.receive(&(piece.len() as u32).to_be_bytes()).unwrap();
        pair.receive(piece).unwrap();
    }
    assert!(pair.client.poll_completion().is_none());
    pair.receive(&record_mark(0)).unwrap();
    assert_eq!(pair.completed().io.frames[0], page(9));
}

#[test]
fn demand_goes_before_reclaim_before_prefetch_before_writeback() {
    let mut pair = Pair::new();
    pair.submit(IoOp::Write, 1, 1, IoClass::Writeback);
    pair.submit(IoOp::Read, 2, 1, IoClass::Prefetch);
    pair.submit(IoOp::Write, 3, 1, IoClass::Reclaim);
    pair.submit(IoOp::Read, 4, 1, IoClass::Demand);
    let order: Vec<u64> = pair
        .sent()
        .iter()
        .map(|call| call.offset / PAGE as u64)
        .collect();
    assert_eq!(order, [4, 3, 2, 1]);
}

#[test]
fn within_a_class_the_oldest_goes_first() {
    let mut pair = Pair::new();
    for slot in [9, 5, 7] {
        pair.read(slot, 1);
    }
    let order: Vec<u64> = pair
        .sent()
        .iter()
        .map(|call| call.offset / PAGE as u64)
        .collect();
    assert_eq!(order, [9, 5, 7]);
}

#[test]
fn s8_a_prefetch_that_somebody_waits_for_goes_first() {
    let mut pair = Pair::new();
    pair.submit(IoOp::Write, 1, 1, IoClass::Reclaim);
    let ticket = pair.submit(IoOp::Read, 2, 1, IoClass::Prefetch);
    pair.client.expedite(ticket, IoClass::Demand);
    // It never sinks again.
    pair.client.expedite(ticket, IoClass::Writeback);
    let calls = pair.sent();
    assert_eq!(calls[0].offset, 2 * PAGE as u64);
    pair.receive(&read_reply(calls[0].xid, &[7; PAGE], false))
        .unwrap();
    assert_eq!(pair.completed().io.class, IoClass::Prefetch);
}

#[test]
fn s3_what_is_cancelled_ends_unless_it_is_on_its_way() {
    let mut pair = Pair::new();
    let write = pair.write(0, 1);
    let read = pair.read(1, 1);
    let calls = pair.sent();
    let queued = pair.write(2, 1);
    for ticket in [write, read, queued] {
        pair.client.cancel(ticket);
    }
    for ticket in [read, queued] {
        let done = pair.completed();
        assert_eq!(done.result, Err(RequestError::Cancelled));
        assert!(done.ticket == ticket && !done.stray);
    }
    assert!(pair.client.poll_completion().is_none());
    assert_eq!(pair.sent(), [], "what is cancelled is not sent");
    // The late answer to the READ does no harm.
    pair.receive(&read_reply(calls[0].xid, &[7; PAGE], false))
        .unwrap();
    assert!(pair.client.poll_completion().is_none());
    let stable = StableHow::FileSync;
    pair.receive(&write_reply(calls[1].xid, PAGE as u32, stable, BOOT_1))
        .unwrap();
    let done = pair.completed();
    assert_eq!((done.ticket, done.result), (write, Ok(())));
}

#[test]
fn s3_a_read_whose_reply_is_half_there_is_not_cancelled() {
    let mut pair = Pair::new();
    let read = pair.read(1, 1);
    let reply = read_reply(pair.sent()[0].xid, &[7; PAGE], false);
    pair.receive(&reply[..100]).unwrap();
    pair.client.cancel(read);
    assert!(pair.client.poll_completion().is_none());
    pair.receive(&reply[100..]).unwrap();
    assert_eq!(pair.completed().io.frames[0], page(7));
}

#[test]
fn s4_a_request_ends_by_its_own_deadline() {
    let mut pair = Pair::new();
    let frames = [page(1)].into_iter().collect();
    let io = SwapIo::new(IoOp::Read, Slot(3), IoClass::Demand, frames);
    let deadline = pair.now + Duration::from_millis(3);
    pair.client.submit(io.by(deadline), pair.now).unwrap();
    pair.sent();
    assert_eq!(pair.client.poll_timeout(), Some(deadline));
    pair.pass(Duration::from_millis(3));
    assert_eq!(pair.completed().result, Err(RequestError::TimedOut));
}

#[test]
fn s3_the_pages_that_are_done_before_a_failure_are_told() {
    let mut pair = Pair::new();
    let page_bytes = PAGE as u32;
    for (committed, done) in [(StableHow::FileSync, 2), (StableHow::Unstable, 0)] {
        pair.write(0, 4);
        let xid = pair.sent()[0].xid;
        let short = 2 * page_bytes + page_bytes / 2;
        pair.receive(&write_reply(xid, short, committed, BOOT_1))
            .unwrap();
        let xid = pair.sent()[0].xid;
        pair.receive(&record(xid, &[28, 0, 0], &[])).unwrap();
        let failed = pair.completed();
        assert_eq!(failed.result, Err(RequestError::Nfs(Nfsstat3::NoSpc)));
        assert_eq!(failed.done, done, "{committed:?}");
        assert_eq!(failed.result_of(1).is_ok(), done > 1);
        assert!(failed.result_of(2).is_err());
    }
}

#[test]
fn a_full_client_gives_the_request_back() {
    let mut pair = Pair::new();
    for slot in 0..4 {
        pair.read(slot, 1);
    }
    let frames = [page(1)].into_iter().collect();
    let io = SwapIo::new(IoOp::Write, Slot(9), IoClass::Reclaim, frames);
    let refused = pair.client.submit(io, pair.now).unwrap_err();
    assert_eq!(refused.error, SubmitError::Busy);
    assert_eq!(refused.io.frames[0], page(1));
}

#[test]
fn a_short_read_is_continued_where_it_stopped() {
    let mut pair = Pair::new();
    pair.read(0, 2);
    let first = pair.sent().remove(0);
    pair.receive(&read_reply(first.xid, &[1; 701], false))
        .unwrap();
    let rest = pair.sent().remove(0);
    assert_eq!((rest.offset, rest.count), (701, 323));
    assert_ne!(rest.xid, first.xid);
    pair.receive(&read_reply(rest.xid, &[2; 323], true))
        .unwrap();
    let done = pair.completed();
    assert_eq!(done.result, Ok(()));
    assert_eq!(
        done.io.frames.concat(),
        [vec![1; 701], vec![2; 323]].concat()
    );
    assert_eq!(pair.client.stats().short_reads, 1);
}

#[test]
fn a_file_that_ends_early_is_gone_and_never_zeros() {
    for (data, eof) in [(&[1; 100][..], true), (&[], false), (&[], true)] {
        let mut pair = Pair::new();
        pair.read(0, 1);
        let xid = pair.sent()[0].xid;
        pair.receive(&read_reply(xid, data, eof)).unwrap();
        let error = pair.completed().result.unwrap_err();
        assert_eq!(error, RequestError::FileEnded);
        assert_eq!(error.kind(), ErrorKind::Gone);
    }
}

#[test]
fn s6_a_file_that_was_cut_is_gone_from_there_on_even_when_it_grows_again() {
    let mut pair = Pair::new();
    // Our own write makes it as long as before; what lies between are zeros, and no pages.
    pair.write(4, 1);
    let xid = pair.sent()[0].xid;
    let size_before = 2 * PAGE as u32;
    let words = [0, 1, 0, size_before, 0, 0, 0, 0, 0, PAGE as u32, 2, 7, 7];
    pair.receive(&record(xid, &words, &[])).unwrap();
    assert_eq!(pair.completed().result, Err(RequestError::FileEnded));

    for (slot, result) in [(3, Err(RequestError::FileEnded)), (1, Ok(()))] {
        pair.read(slot, 1);
        let xid = pair.sent()[0].xid;
        pair.receive(&read_reply(xid, &[0; PAGE], false)).unwrap();
        assert_eq!(pair.completed().result, result, "slot {slot}");
    }

    // READ says how long the file is now: behind type, mode, links, owner and group.
    pair.read(1, 1);
    let xid = pair.sent()[0].xid;
    let mut attributes = [0; 21];
    attributes[6] = PAGE as u32;
    let words = [&[0, 1], &attributes[..], &[PAGE as u32, 0, PAGE as u32]].concat();
    pair.receive(&record(xid, &words, &[0; PAGE])).unwrap();
    assert_eq!(pair.completed().result, Err(RequestError::FileEnded));
}

#[test]
fn a_short_write_is_continued_before_it_completes() {
    let mut pair = Pair::new();
    pair.write(1, 2);
    let first = pair.sent().remove(0);
    assert_eq!(first.payload, [vec![1; PAGE], vec![2; PAGE]].concat());
    pair.receive(&write_reply(first.xid, 511, StableHow::FileSync, BOOT_1))
        .unwrap();
    assert!(pair.client.poll_completion().is_none());
    let rest = pair.sent().remove(0);
    assert_eq!((rest.offset, rest.count), (PAGE as u64 + 511, 513));
    // One byte of the first page, the second page, and three bytes of padding.
    assert_eq!(rest.payload, [vec![1], vec![2; PAGE], vec![0; 3]].concat());
    pair.receive(&write_reply(rest.xid, 513, StableHow::FileSync, BOOT_1))
        .unwrap();
    assert_eq!(pair.completed().result, Ok(()));
}

#[test]
fn a_write_less_stable_than_asked_completes_after_its_commit() {
    let mut pair = Pair::new();
    pair.write(2, 1);
    let write = pair.sent().remove(0);
    pair.receive(&write_reply(
        write.xid,
        PAGE as u32,
        StableHow::Unstable,
        BOOT_1,
    ))
    .unwrap();
    assert!(
        pair.client.poll_completion().is_none(),
        "unstable is not complete (S2)"
    );
    let commit = pair.sent().remove(0);
    assert_eq!(commit.procedure, COMMIT);
    assert_eq!(
        (commit.offset, commit.count),
        (2 * PAGE as u64, PAGE as u32)
    );
    pair.receive(&commit_reply(commit.xid, BOOT_1)).unwrap();
    assert_eq!(pair.completed().result, Ok(()));
}

#[test]
fn a_changed_verifier_at_commit_makes_everything_unstable_be_written_again() {
    let mut pair = Pair::new();
    pair.write(2, 1);
    let write = pair.sent().remove(0);
    pair.receive(&write_reply(
        write.xid,
        PAGE as u32,
        StableHow::Unstable,
        BOOT_1,
    ))
    .unwrap();
    let commit = pair.sent().remove(0);
    pair.receive(&commit_reply(commit.xid, BOOT_2)).unwrap();
    assert!(pair.client.poll_completion().is_none());
    let again = pair.sent().remove(0);
    assert_eq!((again.procedure, &again.payload), (WRITE, &write.payload));
    pair.receive(&write_reply(
        again.xid,
        PAGE as u32,
        StableHow::FileSync,
        BOOT_2,
    ))
    .unwrap();
    assert_eq!(pair.completed().result, Ok(()));
    assert_eq!(pair.client.stats().verifier_changes, 1);
}

#[test]
fn a_changed_verifier_between_two_parts_of_a_write_makes_the_first_be_written_again() {
    let mut pair = Pair::new();
    pair.write(2, 1);
    let first = pair.sent().remove(0);
    pair.receive(&write_reply(first.xid, 256, StableHow::Unstable, BOOT_1))
        .unwrap();
    let rest = pair.sent().remove(0);
    pair.receive(&write_reply(rest.xid, 256, StableHow::FileSync, BOOT_2))
        .unwrap();
    assert!(pair.client.poll_completion().is_none());
    assert_eq!(pair.sent()[0].payload, first.payload);
}

#[test]
fn a_lost_connection_loses_no_request() {
    let mut pair = Pair::new();
    pair.write(1, 1);
    pair.read(5, 1);
    let before = pair.sent();
    // Half a reply arrives, then the connection breaks.
    let read = before
        .iter()
        .find(|call| call.procedure == READ)
        .unwrap()
        .clone();
    let reply = read_reply(read.xid, &[8; PAGE], false);
    pair.receive(&reply[..200]).unwrap();
    pair.client.reset_connection(pair.now);
    assert!(pair.client.poll_completion().is_none());
    let after = pair.sent();
    assert_eq!(after, before, "same calls, same xids, same order");
    pair.receive(&reply).unwrap();
    assert_eq!(pair.completed().io.frames[0], page(8));
    assert_eq!(pair.client.stats().resent, 2);
}

#[test]
fn a_record_broken_off_starts_afresh_on_the_new_connection() {
    let mut pair = Pair::new();
    pair.write(1, 2);
    let mut buf = [0; 300];
    assert_eq!(pair.client.poll_transmit(pair.now, &mut buf), 300);
    pair.client.reset_connection(pair.now);
    let calls = pair.sent();
    assert_eq!(calls.len(), 1);
    assert_eq!(calls[0].payload.len(), 2 * PAGE);
}

/// Answers the call that is due next, and returns the completion that this brings.
fn finished(pair: &mut Pair) -> Completion<Frame, RequestError> {
    let call = pair.sent().remove(0);
    let reply = match call.procedure {
        READ => read_reply(call.xid, &[8; PAGE], false),
        WRITE => write_reply(call.xid, call.count, StableHow::FileSync, BOOT_2),
        _ => commit_reply(call.xid, BOOT_1),
    };
    pair.receive(&reply).unwrap();
    pair.completed()
}

/// A write of one page, and a first answer to it: so many bytes, unstable.
fn begun(count: u32) -> Pair {
    let mut pair = Pair::new();
    pair.write(2, 1);
    let xid = pair.sent()[0].xid;
    pair.receive(&write_reply(xid, count, StableHow::Unstable, BOOT_1))
        .unwrap();
    pair
}

#[test]
fn s3_a_write_sent_again_over_a_new_connection_is_stray() {
    // Sent as a whole, or in part; its answer half received, or not at all.
    for (sent, received) in [(usize::MAX, 0), (usize::MAX, 20), (1, 0)] {
        let mut pair = Pair::new();
        pair.write(2, 1);
        let mut buf = [0; 2 * PAGE];
        let room = buf.len().min(sent);
        let len = pair.client.poll_transmit(pair.now, &mut buf[..room]);
        let xid = word(&buf, 4);
        let reply = write_reply(xid, PAGE as u32, StableHow::FileSync, BOOT_1);
        pair.receive(&reply[..received]).unwrap();
        pair.client.reset_connection(pair.now);
        let done = finished(&mut pair);
        assert_eq!((done.result, done.stray), (Ok(()), true), "{len} bytes");
    }

    // The rest of a short write was lost, not the first part.
    let mut pair = begun(256);
    assert_eq!(pair.sent().len(), 1);
    pair.client.reset_connection(pair.now);
    let call = pair.sent().remove(0);
    pair.receive(&write_reply(call.xid, 256, StableHow::FileSync, BOOT_1))
        .unwrap();
    assert!(finished(&mut pair).stray);
}

#[test]
fn s3_a_stray_write_stays_so_whatever_the_server_says_later() {
    let lost = || {
        let mut pair = Pair::new();
        pair.write(2, 1);
        let _ = pair.sent();
        pair.client.reset_connection(pair.now);
        let xid = pair.sent()[0].xid;
        (pair, xid)
    };

    // It refuses.
    let (mut pair, xid) = lost();
    pair.receive(&record(xid, &[28, 0, 0], &[])).unwrap();
    let done = pair.completed();
    assert_eq!(done.result.unwrap_err().kind(), ErrorKind::NoSpace);
    assert!(done.stray);

    // It asks for time.
    let (mut pair, xid) = lost();
    let jukebox = Nfsstat3::Jukebox.code();
    pair.receive(&record(xid, &[jukebox, 0, 0], &[])).unwrap();
    pair.pass(Duration::from_millis(100));
    assert!(finished(&mut pair).stray);

    // It has rebooted, so that all is written again.
    let (mut pair, xid) = lost();
    let reply = write_reply(xid, PAGE as u32, StableHow::Unstable, BOOT_1);
    pair.receive(&reply).unwrap();
    let commit = pair.sent().remove(0);
    pair.receive(&commit_reply(commit.xid, BOOT_2)).unwrap();
    assert!(finished(&mut pair).stray);

    // It falls silent for good.
    let (mut pair, _) = lost();
    pair.pass(Duration::from_secs(30));
    pair.client.reset_connection(pair.now);
    let done = pair.completed();
    assert_eq!(
        (done.result, done.stray),
        (Err(RequestError::TimedOut), true)
    );
}

#[test]
fn s3_what_was_answered_where_it_was_sent_is_not_stray() {
    // Nothing was lost.
    let mut pair = Pair::new();
    pair.write(2, 1);
    assert!(!finished(&mut pair).stray);

    // A read has nothing to carry out.
    let mut pair = Pair::new();
    pair.read(5, 1);
    let _ = pair.sent();
    pair.client.reset_connection(pair.now);
    assert!(!finished(&mut pair).stray);

    // The connection was lost before the write was sent, or any more of it.
    let mut pair = Pair::new();
    pair.write(2, 1);
    pair.client.reset_connection(pair.now);
    assert!(!finished(&mut pair).stray);
    let mut pair = begun(256);
    pair.client.reset_connection(pair.now);
    let rest = pair.sent().remove(0);
    let reply = write_reply(rest.xid, 256, StableHow::FileSync, BOOT_1);
    pair.receive(&reply).unwrap();
    assert!(!finished(&mut pair).stray);

    // A COMMIT was lost.
    let mut pair = begun(PAGE as u32);
    assert_eq!(pair.sent()[0].procedure, COMMIT);
    pair.client.reset_connection(pair.now);
    assert!(!finished(&mut pair).stray);

    // It was written again over the same connection.
    let mut pair = begun(PAGE as u32);
    let commit = pair.sent().remove(0);
    pair.receive(&commit_reply(commit.xid, BOOT_2)).unwrap();
    assert!(!finished(&mut pair).stray);

    // One was lost, and the next has its place in the table.
    let mut pair = Pair::new();
    pair.write(2, 1);
    let _ = pair.sent();
    pair.client.reset_connection(pair.now);
    assert!(finished(&mut pair).stray);
    pair.write(3, 1);
    assert!(!finished(&mut pair).stray);
}

#[test]
fn replies_nobody_waits_for_are_counted_and_skipped() {
    let mut pair = Pair::new();
    pair.read(0, 1);
    let xid = pair.sent()[0].xid;
    pair.receive(&read_reply(xid.wrapping_add(64), &[1; 600], false))
        .unwrap();
    pair.receive(&read_reply(xid, &[7; PAGE], false)).unwrap();
    assert_eq!(pair.completed().io.frames[0], page(7));
    pair.receive(&read_reply(xid, &[1; PAGE], false)).unwrap();
    assert_eq!(pair.client.stats().foreign, 2);
    assert!(pair.client.poll_completion().is_none());
}

#[test]
fn nonsense_breaks_the_connection_and_no_request() {
    type Nonsense = (&'static str, fn(u32) -> Vec<u8>);
    let nonsense: [Nonsense; 8] = [
        ("record too long", |_| b"SSH-2.0-OpenSSH".to_vec()),
        ("empty fragment", |_| vec![0; 4]),
        ("a call", |xid| {
            [&record_mark(8)[..], &xid.to_be_bytes(), &[0; 4]].concat()
        }),
        ("too short", |_| [&record_mark(4)[..], &[0; 4]].concat()),
        ("more data than asked for", |xid| {
            read_reply(xid, &[0; PAGE + 4], false)
        }),
        ("counts differ", |xid| {
            record(xid, &[0, 0, 8, 0, 4], &[0; 4])
        }),
        ("record ends in the data", |xid| {
            record(xid, &[0, 0, 8, 0, 8], &[0; 4])
        }),
        ("bytes behind the data", |xid| {
            record(xid, &[0, 0, 8, 0, 8], &[0; 12])
        }),
    ];
    for (what, bytes) in nonsense {
        let mut pair = Pair::new();
        pair.read(0, 1);
        let call = pair.sent().remove(0);
        assert!(pair.receive(&bytes(call.xid)).is_err(), "{what}");
        assert!(pair.client.needs_reset(), "{what}");
        assert_eq!(pair.receive(&[]), Err(ProtocolError::NotReset), "{what}");
        pair.client.reset_connection(pair.now);
        assert_eq!(pair.sent(), core::slice::from_ref(&call), "{what}");
        pair.receive(&read_reply(call.xid, &[3; PAGE], false))
            .unwrap();
        assert_eq!(pair.completed().io.frames[0], page(3), "{what}");
    }
}

#[test]
fn a_write_that_reports_more_than_it_was_given_is_nonsense() {
    let mut pair = Pair::new();
    pair.write(0, 1);
    let xid = pair.sent()[0].xid;
    let reply = write_reply(xid, PAGE as u32 + 1, StableHow::FileSync, BOOT_1);
    assert_eq!(pair.receive(&reply), Err(ProtocolError::TooMany));
}

#[test]
fn statuses_reach_the_pager_by_name() {
    for (code, kind) in [
        (28, ErrorKind::NoSpace),
        (70, ErrorKind::Gone),
        (13, ErrorKind::Denied),
    ] {
        let mut pair = Pair::new();
        pair.read(0, 1);
        let xid = pair.sent()[0].xid;
        pair.receive(&status(xid, code)).unwrap();
        assert_eq!(pair.completed().result.unwrap_err().kind(), kind);
    }
}

#[test]
fn a_reject_of_the_rpc_layer_is_named() {
    let mut pair = Pair::new();
    pair.read(0, 1);
    let xid = pair.sent()[0].xid;
    let denied: Vec<u8> = [0x8000_0014, xid, 1, 1, 1, 5]
        .iter()
        .flat_map(|w| u32::to_be_bytes(*w))
        .collect();
    pair.receive(&denied).unwrap();
    let error = pair.completed().result.unwrap_err();
    assert_eq!(
        error,
        RequestError::Rejected(crate::rpc::Reject::AuthError(5))
    );
}

#[test]
fn a_server_that_asks_for_time_gets_it_until_the_deadline() {
    let mut pair = Pair::new();
    pair.read(0, 1);
    let first = pair.sent().remove(0);
    let jukebox = Nfsstat3::Jukebox.code();
    pair.receive(&status(first.xid, jukebox)).unwrap();
    assert!(pair.sent().is_empty(), "not at once");
    assert_eq!(
        pair.client.poll_timeout(),
        Some(Instant::from_micros(100_000))
    );
    pair.pass(Duration::from_millis(100));
    let second = pair.sent().remove(0);
    assert_ne!(
        second.xid, first.xid,
        "or the server would repeat its answer"
    );
    pair.receive(&status(second.xid, jukebox)).unwrap();
    pair.pass(Duration::from_secs(30));
    assert_eq!(pair.completed().result, Err(RequestError::TimedOut));
}

#[test]
fn a_pause_that_is_over_is_no_deadline_any_more() {
    let mut pair = Pair::new();
    pair.read(0, 1);
    let first = pair.sent().remove(0);
    let jukebox = Nfsstat3::Jukebox.code();
    pair.receive(&status(first.xid, jukebox)).unwrap();
    // The connection is gone when the pause ends: nothing can be sent.
    pair.client.reset_connection(pair.now);
    pair.pass(Duration::from_secs(1));
    assert!(pair.client.poll_timeout() > Some(pair.now));
}

#[test]
fn a_closed_client_carries_on_with_what_it_has() {
    let mut pair = Pair::new();
    let ticket = pair.write(7, 1);
    pair.client.close();
    assert!(!pair.client.submit_zeros(0, 4096, pair.now), "nothing new");
    let call = pair.sent().remove(0);
    pair.receive(&write_reply(
        call.xid,
        PAGE as u32,
        StableHow::FileSync,
        BOOT_1,
    ))
    .unwrap();
    let done = pair.completed();
    assert_eq!((done.ticket, done.result), (ticket, Ok(())));
}

#[test]
fn the_longest_verifier_that_a_reply_may_have_is_read_over() {
    let mut pair = Pair::new();
    pair.read(0, 1);
    let xid = pair.sent()[0].xid;
    // AUTH_SHORT with 400 bytes, as RFC 5531 allows; then the attributes and the data.
    let mut words = vec![xid, 1, 0, 2, 400];
    words.resize(words.len() + 100, 0xffff_ffff);
    words.extend([0, 0, 1]);
    words.resize(words.len() + 21, 7);
    words.extend([PAGE as u32, 0, PAGE as u32]);
    let mut body: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
    body.extend([3; PAGE]);
    let mark = record_mark(body.len() as u32);
    pair.receive(&[&mark[..], &body].concat()).unwrap();
    let done = pair.completed();
    assert_eq!(
        (done.result, &done.io.frames[0][..]),
        (Ok(()), &[3; PAGE][..])
    );
}

#[test]
fn a_call_that_replaces_one_half_sent_costs_the_connection() {
    let mut pair = Pair::new();
    let program = crate::portmap::PROGRAM;
    let call = crate::portmap::GetPort {
        program,
        protocol: crate::transport::Protocol::Tcp,
    };
    pair.client.start_call(&call).unwrap();
    assert_eq!(pair.client.poll_transmit(pair.now, &mut [0; 20]), 20);
    pair.client.start_call(&call).unwrap();
    assert!(pair.client.needs_reset());
    assert_eq!(pair.client.poll_transmit(pair.now, &mut [0; 20]), 0);
    pair.client.reset_connection(pair.now);
    assert!(pair.client.poll_transmit(pair.now, &mut [0; 20]) > 0);
}

#[test]
fn silence_breaks_the_connection_and_patience_doubles() {
    let mut pair = Pair::new();
    pair.read(0, 1);
    let call = pair.sent().remove(0);
    assert_eq!(
        pair.client.poll_timeout(),
        Some(Instant::from_micros(2_000_000))
    );
    pair.pass(Duration::from_secs(2));
    assert!(pair.client.needs_reset());
    pair.client.reset_connection(pair.now);
    assert_eq!(pair.sent(), core::slice::from_ref(&call));
    assert_eq!(
        pair.client.poll_timeout(),
        Some(Instant::from_micros(6_000_000))
    );
    pair.receive(&read_reply(call.xid, &[1; PAGE], false))
        .unwrap();
    assert_eq!(pair.completed().result, Ok(()));
    assert_eq!(pair.client.stats().silences, 1);
    // An answer restores patience.
    pair.read(0, 1);
    pair.sent();
    assert_eq!(
        pair.client.poll_timeout(),
        Some(Instant::from_micros(4_000_000))
    );
}

#[test]
fn patience_outlasts_the_longest_pause_of_a_peer_s_tcp() {
    let mut pair = Pair::with(ClientConfig {
        deadline: Duration::from_secs(3600),
        ..ClientConfig::default()
    });
    pair.read(0, 1);
    pair.sent();
    let mut last = Duration::ZERO;
    for _ in 0..10 {
        let end = pair.client.poll_timeout().unwrap();
        last = end.since(pair.now);
        pair.pass(last);
        assert!(pair.client.needs_reset());
        pair.client.reset_connection(pair.now);
        pair.sent();
    }
    assert_eq!(last, Duration::from_secs(128));
}

#[test]
fn reads_that_time_out_one_after_another_still_show_that_the_server_is_silent() {
    let mut pair = Pair::new();
    let mut resets = 0;
    for _ in 0..600 {
        if pair.client.stats().timed_out > 8 {
            break;
        }
        if pair.client.poll_timeout().is_none() {
            pair.read(0, 1);
            pair.sent();
        }
        let next = pair.client.poll_timeout().unwrap();
        pair.pass(next.since(pair.now));
        while pair.client.poll_completion().is_some() {}
        if pair.client.needs_reset() {
            resets += 1;
            pair.client.reset_connection(pair.now);
            pair.sent();
        }
    }
    // Each has 30 s; a silence is noticed after 15 s at most.
    assert!(resets > 8, "{resets}");
}

#[test]
fn a_server_that_trickles_is_not_silent() {
    let mut pair = Pair::new();
    pair.read(0, 1);
    let xid = pair.sent()[0].xid;
    for byte in &read_reply(xid, &[1; PAGE], false)[..10] {
        pair.pass(Duration::from_millis(1500));
        assert!(!pair.client.needs_reset());
        pair.receive(&[*byte]).unwrap();
    }
}

#[test]
fn one_forgotten_call_among_answered_ones_is_noticed() {
    let mut pair = Pair::new();
    pair.read(0, 1);
    pair.sent();
    for _ in 0..15 {
        pair.pass(Duration::from_secs(1));
        assert!(!pair.client.needs_reset());
        pair.read(1, 1);
        let xid = pair.sent()[0].xid;
        pair.receive(&read_reply(xid, &[1; PAGE], false)).unwrap();
        assert_eq!(pair.completed().result, Ok(()));
    }
    pair.pass(Duration::from_secs(1));
    assert!(pair.client.needs_reset());
}

#[test]
fn a_request_never_sent_times_out_with_its_frames() {
    let mut pair = Pair::new();
    let ticket = pair.write(7, 1);
    pair.pass(Duration::from_secs(30));
    let done = pair.completed();
    assert_eq!(
        (done.ticket, done.result),
        (ticket, Err(RequestError::Unsent))
    );
    assert_eq!(done.io.frames[0], page(7));
    assert!(!pair.client.needs_reset());
}

/// Patience longer than the deadline, so that silence does not come first.
fn patient() -> Pair {
    Pair::with(ClientConfig {
        rpc_timeout: Duration::from_secs(100),
        ..ClientConfig::default()
    })
}

#[test]
fn frames_half_filled_come_back_only_after_the_connection_was_reset() {
    let mut pair = patient();
    pair.read(0, 2);
    let xid = pair.sent()[0].xid;
    let reply = read_reply(xid, &[1; 1024], false);
    pair.receive(&reply[..400]).unwrap();
    pair.pass(Duration::from_secs(30));
    assert!(pair.client.poll_completion().is_none());
    assert!(pair.client.needs_reset());
    pair.client.reset_connection(pair.now);
    assert_eq!(pair.completed().result, Err(RequestError::TimedOut));
    assert!(pair.sent().is_empty(), "it is not sent again");
}

#[test]
fn frames_half_sent_come_back_only_after_the_connection_was_reset() {
    let mut pair = patient();
    pair.write(0, 2);
    assert_eq!(pair.client.poll_transmit(pair.now, &mut [0; 400]), 400);
    pair.pass(Duration::from_secs(30));
    assert!(pair.client.poll_completion().is_none());
    assert_eq!(pair.client.poll_transmit(pair.now, &mut [0; 400]), 0);
    pair.client.reset_connection(pair.now);
    assert_eq!(pair.completed().result, Err(RequestError::TimedOut));
}

#[test]
fn a_read_that_timed_out_unanswered_leaves_the_connection_alone() {
    let mut pair = patient();
    pair.read(0, 1);
    let late = pair.sent()[0].xid;
    pair.pass(Duration::from_secs(29));
    pair.read(1, 1);
    let other = pair.sent()[0].xid;
    pair.pass(Duration::from_secs(1));
    assert_eq!(pair.completed().result, Err(RequestError::TimedOut));
    assert!(!pair.client.needs_reset());
    pair.receive(&read_reply(late, &[1; PAGE], false)).unwrap();
    pair.receive(&read_reply(other, &[2; PAGE], false)).unwrap();
    assert_eq!(pair.completed().io.frames[0], page(2));
}

#[test]
fn zeros_need_no_frames() {
    let mut pair = Pair::new();
    assert!(pair.client.submit_zeros(4096, 1000, pair.now));
    let call = pair.sent().remove(0);
    assert_eq!((call.offset, call.payload), (4096, vec![0; 1000]));
    pair.receive(&write_reply(call.xid, 1000, StableHow::FileSync, BOOT_1))
        .unwrap();
    assert!(pair.client.poll_completion().is_none());
    assert_eq!(pair.client.poll_zeros(), Some(Ok(1000)));
}

#[test]
fn a_request_costs_little_beside_its_frames() {
    use core::mem::size_of;
    let request = size_of::<Option<(u32, Request<Frame>)>>();
    assert!(
        request - size_of::<SwapIo<Frame>>() <= 128,
        "{request} bytes"
    );
    // Three buffers: for a request's header, for a call, and for the head of a reply. And three timers.
    assert!(size_of::<Client<Frame, 1>>() <= 2720);
}

#[cfg(feature = "ablation")]
mod ablation {
    use super::*;

    fn without(mechanism: Mechanism) -> Pair {
        let mut pair = Pair::new();
        pair.client.ablate(mechanism);
        pair
    }

    /// A write of one page, and the first answer to it.
    fn answered(mechanism: Mechanism, count: usize, committed: StableHow) -> Pair {
        let mut pair = without(mechanism);
        pair.write(2, 1);
        let xid = pair.sent()[0].xid;
        pair.receive(&write_reply(xid, count as u32, committed, BOOT_1))
            .unwrap();
        pair
    }

    #[test]
    fn s2_without_its_mechanisms_a_write_completes_early() {
        let mut pair = answered(Mechanism::Stability, PAGE, StableHow::Unstable);
        assert_eq!(pair.completed().result, Ok(()));

        let mut pair = answered(Mechanism::ShortCounts, 100, StableHow::FileSync);
        assert_eq!(pair.completed().result, Ok(()));

        let mut pair = answered(Mechanism::Verifier, PAGE, StableHow::Unstable);
        let commit = pair.sent().remove(0);
        assert_eq!(commit.procedure, COMMIT);
        pair.receive(&commit_reply(commit.xid, BOOT_2)).unwrap();
        assert_eq!(pair.completed().result, Ok(()));

        let mut pair = answered(Mechanism::Verifier, 256, StableHow::Unstable);
        let rest = pair.sent().remove(0);
        pair.receive(&write_reply(rest.xid, 256, StableHow::FileSync, BOOT_2))
            .unwrap();
        assert_eq!(pair.sent()[0].procedure, COMMIT, "nothing is written again");
    }

    #[test]
    fn s3_without_it_a_write_that_was_lost_looks_like_any_other() {
        let mut pair = without(Mechanism::StrayWrites);
        pair.write(2, 1);
        let _ = pair.sent();
        pair.client.reset_connection(pair.now);
        let done = finished(&mut pair);
        assert_eq!((done.result, done.stray), (Ok(()), false));
    }

    #[test]
    fn s4_without_its_mechanisms_a_read_brings_rubbish_or_never_ends() {
        let mut pair = without(Mechanism::FileEnd);
        pair.read(7, 1);
        let xid = pair.sent()[0].xid;
        pair.receive(&read_reply(xid, &[1; 100], true)).unwrap();
        let done = pair.completed();
        assert_eq!(done.result, Ok(()));
        assert_eq!(done.io.frames[0][100..], [7; PAGE - 100]);

        let mut pair = without(Mechanism::Deadline);
        pair.read(0, 1);
        assert_eq!(pair.client.poll_timeout(), None);
        pair.pass(Duration::from_secs(3600));
        assert!(pair.client.poll_completion().is_none());
        assert_eq!(pair.sent().len(), 1, "it can still be sent");
    }

    #[test]
    fn s7_without_resending_a_call_waits_for_its_deadline() {
        let mut pair = without(Mechanism::Resend);
        pair.write(1, 1);
        pair.read(5, 1);
        assert_eq!(pair.sent().len(), 2);
        pair.read(6, 1);
        assert_eq!(pair.client.poll_transmit(pair.now, &mut [0; 8]), 8);
        pair.client.reset_connection(pair.now);
        assert!(pair.sent().is_empty());
        let deadline = Instant::ZERO + Duration::from_secs(30);
        assert_eq!(pair.client.poll_timeout(), Some(deadline));
        pair.read(7, 1);
        assert_eq!(pair.sent().len(), 1, "a new one is sent");
        pair.pass(Duration::from_secs(30));
        assert!(pair.sent().is_empty());
        for _ in 0..3 {
            assert_eq!(pair.completed().result, Err(RequestError::TimedOut));
        }
    }

    #[test]
    fn s8_without_classes_the_oldest_goes_first() {
        let mut pair = without(Mechanism::DemandFirst);
        pair.submit(IoOp::Write, 1, 1, IoClass::Writeback);
        pair.read(2, 1);
        let order = pair.sent();
        assert_eq!([order[0].procedure, order[1].procedure], [WRITE, READ]);
    }
}

mod properties {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Whatever a server sends, nothing panics and nothing is lost.
        #[test]
        fn any_bytes_leave_every_request_in_place(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
            marked: bool,
            cut in 1usize..50,
        ) {
            let mut pair = Pair::new();
            pair.read(0, 1);
            pair.write(1, 1);
            let xid = pair.sent()[0].xid;
            let stream = match marked {
                // Behind a good head it gets further.
                true => record(xid, &[], &bytes),
                false => bytes,
            };
            for piece in stream.chunks(cut) {
                if pair.receive(piece).is_err() {
                    pair.client.reset_connection(pair.now);
                    break;
                }
            }
            pair.pass(Duration::from_secs(31));
            pair.client.reset_connection(pair.now);
            let mut frames = 0;
            while let Some(done) = pair.client.poll_completion() {
                frames += done.io.frames.len();
            }
            prop_assert_eq!(frames, 2);
            prop_assert_eq!(pair.client.in_flight(), 0);
        }
    }
}
