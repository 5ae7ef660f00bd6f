//! A swap file over UDP, against servers and a network that misbehave, over real sockets.

mod support;

use core::time::Duration;
use std::collections::HashMap;

use nfs_swap::transport::LinkDown;
use nfs_swap::transport::std::StdUdp;
use nfs_swap::{SwapFileConfig, SwapFileError};
use support::scripted::{Answer, Call, READ, Scripted, WRITE, reply};
use support::{
    PAGE, Swap, activate, complete, config, deactivate, now, page, read, submit, swap_over, url,
    wait, write,
};
use swapspace::{AddressSpace, IoOp, conformance};

fn over(server: &Scripted, slots: u32, change: impl FnOnce(&mut SwapFileConfig)) -> Swap<StdUdp> {
    let url = url(server.address);
    let mut config = config(&url, slots);
    config.client.retransmit.initial = Duration::from_millis(20);
    change(&mut config);
    swap_over(&url, config)
}

fn start(script: impl FnMut(&Call) -> Answer + Send + 'static) -> (Scripted, Swap<StdUdp>) {
    let server = Scripted::start_udp(script);
    let swap = over(&server, 16, |_| {});
    (server, swap)
}

/// Answers the first call of `procedure` in another way, and is a good server for the rest.
fn once(procedure: u32, answer: impl FnOnce(&Call) -> Answer) -> impl FnMut(&Call) -> Answer {
    let mut answer = Some(answer);
    move |call| match call.is(procedure) {
        true => answer.take().map_or(Answer::Normal, |answer| answer(call)),
        false => Answer::Normal,
    }
}

/// Writes a page and reads it back, whatever happens on the way.
fn survives(swap: &mut Swap<StdUdp>) {
    activate(swap).unwrap();
    assert_eq!(write(swap, 3, page(3, 1)), Ok(()));
    assert_eq!(read(swap, 3), Ok(page(3, 1)));
}

fn good_read(call: &Call) -> Vec<u8> {
    reply(call, &[0, 0, 4096, 0, 4096], &page(3, 1))
}

#[test]
fn a_lost_call_is_sent_again_under_the_same_xid() {
    let mut xids = HashMap::new();
    let (_server, mut swap) = start(move |call| {
        // Every call is lost once, activation included.
        *xids.entry(call.xid).or_insert(0) += 1;
        match xids[&call.xid] {
            1 => Answer::Silence,
            _ => Answer::Normal,
        }
    });
    survives(&mut swap);
    let stats = *swap.stats();
    assert!(stats.resent >= 6, "{stats}");
    assert_eq!(stats.resets, 0, "{stats}");
    deactivate(&mut swap).unwrap();
}

#[test]
fn a_write_whose_answer_is_lost_is_stray() {
    let (_server, mut swap) = start(once(WRITE, |_| Answer::Silence));
    activate(&mut swap).unwrap();
    submit(&mut swap, IoOp::Write, 3, [page(3, 1)]).unwrap();
    let done = complete(&mut swap);
    assert_eq!(done.result, Ok(()));
    assert!(done.stray);
    assert_eq!(read(&mut swap, 3), Ok(page(3, 1)));
}

#[test]
fn a_repeated_reply_is_counted_and_dropped() {
    let (_server, mut swap) = start(once(READ, |call| {
        Answer::Datagrams(vec![good_read(call), good_read(call)])
    }));
    survives(&mut swap);
    assert_eq!(read(&mut swap, 4), Ok(vec![0; PAGE].into()));
    assert_eq!(swap.stats().foreign, 1);
}

#[test]
fn a_late_reply_to_an_earlier_call_does_no_harm() {
    // What is said of slot 3 is said again, much later, when slot 4 is asked for.
    let mut first = None;
    let (_server, mut swap) = start(move |call| match (call.is(READ), &first) {
        (true, None) => {
            first = Some(good_read(call));
            Answer::Normal
        }
        (true, Some(late)) => Answer::Datagrams(vec![
            late.clone(),
            reply(call, &[0, 0, 4096, 0, 4096], &page(4, 2)),
        ]),
        _ => Answer::Normal,
    });
    survives(&mut swap);
    assert_eq!(read(&mut swap, 4), Ok(page(4, 2)));
    assert_eq!(swap.stats().foreign, 1);
}

#[test]
fn replies_out_of_order_find_their_calls() {
    let mut held: Vec<Vec<u8>> = vec![];
    let (_server, mut swap) = start(move |call| {
        if !call.is(READ) {
            return Answer::Normal;
        }
        let slot = (call.offset / PAGE as u64) as u32;
        held.push(reply(call, &[0, 0, 4096, 0, 4096], &page(slot, 5)));
        match held.len() {
            4.. => Answer::Datagrams(held.drain(..).rev().collect()),
            _ => Answer::Silence,
        }
    });
    activate(&mut swap).unwrap();
    for slot in 0..4 {
        submit(&mut swap, IoOp::Read, slot, [vec![0; PAGE].into()]).unwrap();
    }
    for _ in 0..4 {
        let done = complete(&mut swap);
        assert_eq!(done.result, Ok(()));
        assert_eq!(done.io.frames[0], page(done.io.slot.0, 5));
    }
}

#[test]
fn cut_oversized_and_senseless_replies_are_dropped_and_the_call_is_repeated() {
    for bad in 0..4 {
        let (_server, mut swap) = start(once(READ, move |call| {
            let mut record = good_read(call);
            match bad {
                0 => record.truncate(2000),
                1 => record.truncate(4 + 6),
                2 => record.extend([0; 512]),
                _ => record = b"MARKHTTP/1.1 400 Bad\r\n".to_vec(),
            }
            Answer::Raw(record)
        }));
        survives(&mut swap);
        let stats = swap.stats();
        assert_eq!(
            (stats.malformed, stats.resets),
            (1, 0),
            "case {bad}: {stats}"
        );
        assert!(stats.resent >= 1);
    }
}

#[test]
fn a_foreign_xid_is_counted_and_dropped() {
    let (_server, mut swap) = start(once(READ, |call| {
        let foreign = Call {
            xid: call.xid ^ 0x8000_0000,
            ..call.clone()
        };
        Answer::Datagrams(vec![good_read(&foreign), good_read(call)])
    }));
    survives(&mut swap);
    assert_eq!(swap.stats().foreign, 1);
}

#[test]
fn a_reply_from_elsewhere_is_not_heard() {
    let (_server, mut swap) = start(once(READ, |call| {
        Answer::FromElsewhere(reply(call, &[0, 0, 4096, 0, 4096], &page(9, 9)))
    }));
    survives(&mut swap);
}

#[test]
fn a_port_without_a_server_is_named() {
    let gone = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = gone.local_addr().unwrap();
    drop(gone);
    let url = url(address);
    let mut swap: Swap<StdUdp> = swap_over(&url, config(&url, 16));
    let (port, why) = (address.port(), LinkDown::Refused);
    assert_eq!(
        activate(&mut swap).unwrap_err(),
        SwapFileError::Connect { port, why }
    );
    // At once, and not after all the time that activation has.
    assert!(swap.stats().resets <= 2);
}

#[test]
fn what_is_overdue_leaves_in_the_same_poll() {
    let mut lost = 1;
    let (_server, mut swap) = start(move |call| match call.is(READ) && lost > 0 {
        true => {
            lost -= 1;
            Answer::Silence
        }
        false => Answer::Normal,
    });
    activate(&mut swap).unwrap();
    submit(&mut swap, IoOp::Read, 3, [vec![0; PAGE].into()]).unwrap();
    assert!(swap.poll(now()).is_none());
    let before = swap.stats().bytes_out;
    // Long before it could be due by the clock.
    let due = now() + Duration::from_millis(200);
    assert!(swap.poll(due).is_none());
    assert_eq!(swap.stats().resent, 1);
    assert!(swap.stats().bytes_out > before);
}

#[test]
fn a_cluster_is_no_longer_than_a_datagram_carries() {
    let server = Scripted::start_udp(|call| match call.is(19) {
        // FSINFO promises transfers of a megabyte.
        true => {
            let most = 1 << 20;
            let words = [0, 0, most, most, 1, most, most, 1, 4096, 0, 0, 0, 1, 0x1b];
            Answer::Results(words.to_vec())
        }
        false => Answer::Normal,
    });
    let mut swap = over(&server, 16, |config| config.page_size = 16_384);
    let geometry = activate(&mut swap).unwrap();
    let bytes = u32::from(geometry.max_frames) * geometry.page_size;
    assert!(geometry.max_frames >= 1 && bytes <= 65_320);
}

#[test]
fn a_network_that_loses_repeats_and_reorders_keeps_the_contract() {
    let mut random = 0x2545_f491_u32;
    let mut held: Option<Vec<u8>> = None;
    let state = Scripted::start_udp(|_| Answer::Silence).file;
    let file = state.clone();
    let server = Scripted::start_udp(move |call| {
        random ^= random << 13;
        random ^= random >> 17;
        random ^= random << 5;
        if random.is_multiple_of(10) {
            return Answer::Silence;
        }
        let good = Scripted::good(&file, call);
        match random % 10 {
            // Done, and the answer is lost.
            1 => Answer::Silence,
            2 => Answer::Datagrams(vec![good.clone(), good]),
            3 => {
                let mut cut = good.clone();
                cut.truncate(good.len() - 1);
                Answer::Datagrams(vec![cut, good])
            }
            4 => Answer::Datagrams(held.replace(good).into_iter().collect()),
            _ => {
                let late = held.take().into_iter();
                Answer::Datagrams(vec![good].into_iter().chain(late).collect())
            }
        }
    });
    let mut swap = over(&server, 64, |_| {});
    let report = conformance(&mut swap, || vec![0; PAGE].into(), wait);
    let report = report.unwrap_or_else(|violation| panic!("{violation}"));
    assert_eq!(report.deepest, 8, "every request slot was in use at once");
    let stats = *swap.stats();
    assert!(
        stats.resent > 0 && stats.foreign > 0 && stats.malformed > 0,
        "{stats}"
    );
}
