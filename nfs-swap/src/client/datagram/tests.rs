//! The client in datagrams, against a server that the test plays by hand, in virtual time.

extern crate alloc;
extern crate std;

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use core::task::Poll;
use core::time::Duration;

use swapspace::{Completion, Geometry, IoClass, IoOp, Slot, SwapIo, Ticket};

use super::*;
use crate::client::ClientConfig;
use crate::error::RequestError;
use crate::nfs3::{Access, AccessRights, Fh};
use crate::rpc::UDP_PAYLOAD_MAX;

const PAGE: usize = 512;
const MS: Duration = Duration::from_millis(1);

type Frame = Box<[u8]>;

struct Pair {
    client: Client<Frame, 4>,
    now: Instant,
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn reply(xid: u32, words: &[u32], payload: &[u8]) -> Vec<u8> {
    let head = [xid, 1, 0, 0, 0, 0];
    let words = head.iter().chain(words);
    let mut body: Vec<u8> = words.flat_map(|word| word.to_be_bytes()).collect();
    body.extend_from_slice(payload);
    body.resize(body.len() + padding(payload.len()), 0);
    body
}

fn read_reply(xid: u32, data: &[u8]) -> Vec<u8> {
    let count = data.len() as u32;
    reply(xid, &[0, 0, count, 0, count], data)
}

fn write_reply(xid: u32, count: u32) -> Vec<u8> {
    reply(xid, &[0, 0, 0, count, 2, 1, 1], &[])
}

impl Pair {
    fn new() -> Self {
        let mut client = Client::new(ClientConfig {
            framing: Framing::datagrams(UDP_PAYLOAD_MAX),
            ..ClientConfig::default()
        });
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

    fn submit(&mut self, op: IoOp, slot: u32) -> Ticket {
        let frames = [vec![slot as u8; PAGE].into_boxed_slice()].into_iter();
        let io = SwapIo::new(op, Slot(slot), IoClass::Demand, frames.collect());
        self.client.submit(io, self.now).expect("admitted")
    }

    /// The datagrams that leave now.
    fn sent(&mut self) -> Vec<Vec<u8>> {
        let mut buf = vec![0; UDP_PAYLOAD_MAX];
        let mut datagrams = vec![];
        loop {
            match self.client.poll_datagram(self.now, &mut buf).unwrap() {
                0 => return datagrams,
                len => datagrams.push(buf[..len].to_vec()),
            }
        }
    }

    /// The xids of what leaves now.
    fn xids(&mut self) -> Vec<u32> {
        self.sent().iter().map(|call| word(call, 0)).collect()
    }

    fn receive(&mut self, datagram: &[u8]) {
        self.client.handle_datagram(self.now, datagram);
    }

    fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
        self.client.handle_timeout(self.now);
    }

    fn done(&mut self) -> Option<Completion<Frame, RequestError>> {
        self.client.poll_completion()
    }
}

#[test]
fn a_call_is_one_datagram_without_a_mark() {
    let mut pair = Pair::new();
    pair.submit(IoOp::Write, 7);
    pair.submit(IoOp::Read, 8);
    let sent = pair.sent();
    assert_eq!(sent.len(), 2);
    assert_eq!(word(&sent[0], 4), 0, "a call, right behind its xid");
    assert!(sent[0].ends_with(&[7; PAGE]));
}

#[test]
fn a_buffer_too_small_is_refused_and_nothing_is_lost() {
    let mut pair = Pair::new();
    pair.submit(IoOp::Write, 7);
    let refused = pair
        .client
        .poll_datagram(pair.now, &mut vec![0; UDP_PAYLOAD_MAX - 1]);
    let needs = UDP_PAYLOAD_MAX;
    assert_eq!(refused, Err(BufferTooSmall { needs }));
    assert_eq!(pair.sent().len(), 1);
    assert_eq!(pair.client.stats().calls, 1);
}

#[test]
fn a_lost_datagram_costs_milliseconds_and_keeps_its_xid() {
    let mut pair = Pair::new();
    for _ in 0..32 {
        pair.submit(IoOp::Read, 1);
        let xid = pair.xids()[0];
        pair.now = pair.now + MS;
        pair.receive(&read_reply(xid, &[1; PAGE]));
        pair.done().unwrap().result.unwrap();
    }
    pair.submit(IoOp::Read, 2);
    let first = pair.xids();
    let due = pair.client.poll_timeout().unwrap();
    assert!(due.since(pair.now) <= 6 * MS, "the floor and its jitter");
    pair.pass(4 * MS);
    assert!(pair.xids().is_empty(), "not before its time");
    pair.pass(due.since(pair.now));
    assert_eq!(pair.xids(), first);
    pair.receive(&read_reply(first[0], &[2; PAGE]));
    let done = pair.done().unwrap();
    assert_eq!(done.result, Ok(()));
    assert_eq!(done.io.frames[0][0], 2);
    assert_eq!(pair.client.stats().resent, 1);
}

#[test]
fn repetitions_become_rarer_and_end_with_the_deadline() {
    let mut pair = Pair::new();
    pair.client.patience = Duration::from_secs(60);
    pair.submit(IoOp::Read, 1);
    let mut gaps = vec![];
    while pair.done().is_none() {
        pair.sent();
        let due = pair.client.poll_timeout().unwrap();
        gaps.push(due.since(pair.now));
        pair.pass(due.since(pair.now));
    }
    assert!(gaps[1] >= gaps[0] * 3 / 2 && gaps[3] >= gaps[2] * 3 / 2);
    assert!(gaps.iter().all(|gap| *gap <= 2250 * MS), "{gaps:?}");
    assert_eq!(pair.now.since(Instant::ZERO), Duration::from_secs(30));
    assert!((15..=24).contains(&gaps.len()), "{}", gaps.len());
}

#[test]
fn a_reply_to_a_call_sent_twice_is_no_sample() {
    let mut pair = Pair::new();
    pair.submit(IoOp::Read, 1);
    pair.sent();
    pair.pass(120 * MS);
    let xid = pair.xids()[0];
    pair.pass(1 * MS);
    pair.receive(&read_reply(xid, &[1; PAGE]));
    assert!(pair.done().is_some());
    assert_eq!(pair.client.timers.read.timeout(), 100 * MS);
}

#[test]
fn reads_and_writes_are_timed_apart() {
    let mut pair = Pair::new();
    pair.submit(IoOp::Read, 1);
    let xid = pair.xids()[0];
    pair.pass(2 * MS);
    pair.receive(&read_reply(xid, &[1; PAGE]));
    assert_eq!(pair.client.timers.read.timeout(), 6 * MS);
    assert_eq!(pair.client.timers.write.timeout(), 100 * MS);
}

#[test]
fn s3_a_write_that_was_sent_twice_is_stray_and_no_other() {
    let mut pair = Pair::new();
    pair.submit(IoOp::Write, 1);
    let xid = pair.xids()[0];
    pair.receive(&write_reply(xid, PAGE as u32));
    assert!(!pair.done().unwrap().stray);

    pair.submit(IoOp::Write, 1);
    let xid = pair.xids()[0];
    pair.pass(300 * MS);
    assert_eq!(pair.xids(), [xid]);
    pair.receive(&write_reply(xid, PAGE as u32));
    let done = pair.done().unwrap();
    assert!(done.result.is_ok() && done.stray);

    // The second copy had not left when the first was answered.
    pair.submit(IoOp::Write, 1);
    let xid = pair.xids()[0];
    pair.pass(300 * MS);
    pair.receive(&write_reply(xid, PAGE as u32));
    assert!(!pair.done().unwrap().stray);
    assert!(pair.sent().is_empty());
}

#[test]
fn s3_a_write_is_stray_when_it_is_cancelled_before_its_second_copy() {
    let mut pair = Pair::new();
    let ticket = pair.submit(IoOp::Write, 1);
    pair.sent();
    pair.pass(300 * MS);
    pair.client.cancel(ticket);
    let done = pair.done().unwrap();
    assert_eq!(done.result, Err(RequestError::Cancelled));
    assert!(done.stray);
}

#[test]
fn a_second_reply_changes_nothing() {
    let mut pair = Pair::new();
    pair.submit(IoOp::Read, 1);
    let xid = pair.xids()[0];
    pair.receive(&read_reply(xid, &[1; PAGE]));
    // Finished and not fetched yet: the frames are as good as given back.
    pair.receive(&read_reply(xid, &[2; PAGE]));
    assert_eq!(pair.done().unwrap().io.frames[0][0], 1);
    pair.submit(IoOp::Read, 5);
    let again = pair.xids()[0];
    assert_ne!(again, xid);
    pair.receive(&read_reply(xid, &[3; PAGE]));
    assert!(pair.done().is_none());
    pair.receive(&read_reply(again, &[4; PAGE]));
    assert_eq!(pair.done().unwrap().io.frames[0][0], 4);
    assert_eq!(pair.client.stats().foreign, 2);
}

#[test]
fn a_repeated_reply_to_a_short_write_is_not_applied_twice() {
    let mut pair = Pair::new();
    pair.submit(IoOp::Write, 1);
    let xid = pair.xids()[0];
    pair.receive(&write_reply(xid, 200));
    pair.receive(&write_reply(xid, 200));
    let sent = pair.sent();
    assert_eq!(sent.len(), 1);
    assert!(sent[0].ends_with(&[1; 312]));
    pair.receive(&write_reply(word(&sent[0], 0), 312));
    assert_eq!(pair.done().unwrap().result, Ok(()));
    assert_eq!(pair.client.stats().foreign, 1);
}

#[test]
fn s4_no_cut_of_a_reply_is_accepted_and_no_byte_of_it_kept() {
    let mut pair = Pair::new();
    pair.submit(IoOp::Read, 9);
    let xid = pair.xids()[0];
    let whole = read_reply(xid, &[1; PAGE]);
    for cut in 0..whole.len() {
        pair.receive(&whole[..cut]);
    }
    let mut long = whole.clone();
    long.extend([0; 4]);
    pair.receive(&long);
    pair.receive(&read_reply(xid, &[1; PAGE + 4]));
    pair.receive(&vec![1; UDP_PAYLOAD_MAX + 1]);
    assert_eq!(pair.client.stats().replies, 0);
    assert_eq!(pair.client.stats().malformed, whole.len() as u64 + 3);
    assert!(pair.done().is_none() && !pair.client.needs_reset());
    let ticket = pair.client.requests.get(0).map(|request| request.ticket);
    pair.client.cancel(Ticket(ticket.unwrap()));
    assert_eq!(pair.done().unwrap().io.frames[0][..], [9; PAGE]);
}

#[test]
fn s4_a_late_reply_touches_no_frame_that_was_given_back() {
    let mut pair = Pair::new();
    pair.submit(IoOp::Read, 1);
    let xid = pair.xids()[0];
    pair.pass(Duration::from_secs(30));
    let late = pair.done().unwrap();
    assert_eq!(late.result, Err(RequestError::TimedOut));
    pair.submit(IoOp::Read, 2);
    pair.receive(&read_reply(xid, &[9; PAGE]));
    assert!(pair.done().is_none());
    assert_eq!(pair.client.stats().foreign, 1);
    let request = pair.client.requests.get(0).unwrap();
    assert_eq!(request.copies, 0);
}

#[test]
fn a_write_that_is_out_of_time_ends_at_once_and_drops_no_connection() {
    let mut pair = Pair::new();
    pair.submit(IoOp::Write, 1);
    pair.client.patience = Duration::from_secs(60);
    pair.sent();
    pair.pass(Duration::from_secs(30));
    assert_eq!(pair.done().unwrap().result, Err(RequestError::TimedOut));
    assert!(!pair.client.needs_reset());
}

#[test]
fn a_server_that_is_silent_for_long_is_asked_over_a_new_socket() {
    let mut pair = Pair::new();
    pair.pass(Duration::from_secs(9));
    pair.submit(IoOp::Read, 1);
    let xid = pair.xids()[0];
    // A reply that is none is no sign of life.
    pair.pass(1999 * MS);
    pair.receive(&read_reply(xid ^ 0x8000_0000, &[1; PAGE]));
    assert_eq!(pair.xids(), [xid]);
    assert!(!pair.client.needs_reset());
    pair.pass(2 * MS);
    assert!(pair.client.needs_reset());
    assert!(pair.sent().is_empty());
    pair.client.reset_connection(pair.now);
    assert_eq!(pair.xids(), [xid]);
    assert_eq!(pair.client.stats().silences, 1);
    assert_eq!(pair.client.patience, Duration::from_secs(4));
}

#[test]
fn zeros_that_were_sent_twice_or_not_answered_are_stray() {
    for pass in [300 * MS, Duration::from_secs(30)] {
        let mut pair = Pair::new();
        assert!(pair.client.submit_zeros(0, PAGE as u32, pair.now));
        pair.sent();
        assert!(!pair.client.zeros_are_stray());
        pair.pass(pass);
        pair.sent();
        assert!(pair.client.zeros_are_stray(), "{pass:?}");
    }
}

#[test]
fn what_does_not_fit_into_a_datagram_is_refused() {
    let mut pair = Pair::new();
    let most = Framing::datagrams(UDP_PAYLOAD_MAX).payload_max();
    assert!(!pair.client.submit_zeros(0, most + 1, pair.now));
    assert!(pair.client.submit_zeros(0, most, pair.now));
    assert!(pair.sent()[0].len() <= UDP_PAYLOAD_MAX);
}

#[test]
fn a_reply_longer_than_was_bargained_for_is_dropped() {
    let mut pair = Pair::new();
    pair.client.config.framing = Framing::Datagram {
        send_max: UDP_PAYLOAD_MAX,
        recv_max: 500,
    };
    pair.submit(IoOp::Read, 1);
    let xid = pair.xids()[0];
    pair.receive(&read_reply(xid, &[1; PAGE]));
    assert!(pair.done().is_none());
    assert_eq!(pair.client.stats().malformed, 1);
}

#[test]
fn the_call_beside_the_requests_is_repeated_and_only_a_whole_reply_counts() {
    let mut pair = Pair::new();
    let file = Fh::new(b"file").unwrap();
    let rights = AccessRights::READ_MODIFY;
    let call = Access {
        file: &file,
        rights,
    };
    pair.client.start_call(&call).unwrap();
    let xid = pair.xids()[0];
    assert!(!pair.client.call_was_repeated());
    let due = pair.client.poll_timeout().unwrap();
    pair.pass(due.since(pair.now));
    assert_eq!(pair.xids(), [xid]);
    assert!(pair.client.call_was_repeated());
    let whole = reply(xid, &[0, 0, 5], &[]);
    for cut in 0..whole.len() {
        pair.receive(&whole[..cut]);
        assert!(pair.client.poll_call::<Access<'_>>().is_pending());
    }
    pair.receive(&whole);
    pair.receive(&whole);
    let Poll::Ready(granted) = pair.client.poll_call::<Access<'_>>() else {
        panic!("it was answered");
    };
    assert_eq!(granted, Ok(Ok(rights)));
    assert_eq!(pair.client.stats().foreign, 1);
}

#[test]
fn a_new_connection_repeats_what_is_out_and_times_it_anew() {
    let mut pair = Pair::new();
    pair.submit(IoOp::Read, 1);
    let xid = pair.xids()[0];
    pair.pass(MS);
    pair.client.reset_connection(pair.now);
    assert_eq!(pair.xids(), [xid]);
    pair.receive(&read_reply(xid, &[1; PAGE]));
    assert_eq!(pair.done().unwrap().result, Ok(()));
}
