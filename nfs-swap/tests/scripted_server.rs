//! A swap file against servers that misbehave, over real sockets.

extern crate alloc;

mod support;

use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, Ordering};
use core::task::Poll;
use core::time::Duration;
use std::collections::HashSet;
use std::sync::Mutex;

use nfs_swap::mount::MountStatus;
use nfs_swap::nfs3::{FileKind, Nfsstat3};
use nfs_swap::rpc::Reject;
use nfs_swap::transport::std::StdTcp;
use nfs_swap::transport::{Link, LinkDown, Transport};
use nfs_swap::{RequestError, Stage, SwapFile, SwapFileConfig, SwapFileError, Timeouts};
use support::scripted::{Answer, Call, READ, Scripted, WRITE, reply};
use support::{
    Frame, Swap, activate, complete, config, deactivate, page, read, submit, swap, url, write,
};
use swapspace::{AddressSpace, ErrorKind, Instant, IoClass, IoOp, Slot, SpaceError, SwapIo};

const NFS: u32 = 100_003;
const MOUNT: u32 = 100_005;
const FSINFO: u32 = 19;

/// A swap file of 16 pages that does not wait for long.
fn impatient(server: &Scripted) -> (String, SwapFileConfig) {
    let url = url(server.address);
    let mut config = config(&url, 16);
    config.client.deadline = Duration::from_millis(600);
    config.client.rpc_timeout = Duration::from_millis(100);
    config.client.retry_delay = Duration::from_millis(5);
    config.activation_timeout = Duration::from_millis(300);
    (url, config)
}

fn start(script: impl FnMut(&Call) -> Answer + Send + 'static) -> (Scripted, Swap) {
    let server = Scripted::start(script);
    let (url, config) = impatient(&server);
    (server, swap(&url, config))
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
fn survives(swap: &mut Swap) {
    activate(swap).unwrap();
    assert_eq!(write(swap, 3, page(3, 1)), Ok(()));
    assert_eq!(read(swap, 3), Ok(page(3, 1)));
    deactivate(swap).unwrap();
}

#[test]
fn garbage_costs_a_connection_and_no_request() {
    let (_server, mut swap) = start(once(READ, |_| {
        Answer::Raw(b"HTTP/1.1 400 Bad\r\n".to_vec())
    }));
    survives(&mut swap);
    assert_eq!(swap.stats().protocol_errors, 1);
}

#[test]
fn a_close_in_the_middle_of_a_record_costs_a_connection_and_no_request() {
    let (_server, mut swap) = start(once(READ, |call| {
        let whole = reply(call, &[0, 0, 4096, 0, 4096], &page(9, 9));
        Answer::RawThenClose(whole[..2000].to_vec())
    }));
    survives(&mut swap);
    assert!(swap.stats().resent >= 1);
}

#[test]
fn a_close_before_the_answer_to_a_write_makes_it_be_written_again() {
    let (_server, mut swap) = start(once(WRITE, |_| Answer::RawThenClose(vec![])));
    survives(&mut swap);
}

#[test]
fn a_write_whose_connection_is_closed_before_its_answer_is_stray_and_no_other() {
    let (_server, mut swap) = start(once(WRITE, |_| Answer::RawThenClose(vec![])));
    activate(&mut swap).unwrap();
    for (op, stray) in [
        (IoOp::Write, true),
        (IoOp::Write, false),
        (IoOp::Read, false),
    ] {
        submit(&mut swap, op, 3, [page(3, 1)]).unwrap();
        let done = complete(&mut swap);
        assert_eq!((done.result, done.stray), (Ok(()), stray), "{op:?}");
    }
    deactivate(&mut swap).unwrap();
}

#[test]
fn a_lost_answer_is_asked_for_again_under_the_same_xid() {
    let mut first = None;
    let (_server, mut swap) = start(move |call| match call.is(WRITE) {
        true => match first.replace(call.xid) {
            None => Answer::Silence,
            Some(xid) => {
                assert_eq!(xid, call.xid);
                Answer::Normal
            }
        },
        false => Answer::Normal,
    });
    survives(&mut swap);
    assert_eq!(swap.stats().silences, 1);
}

#[test]
fn a_silent_server_surfaces_as_a_timeout_and_the_page_can_be_tried_again() {
    let mut silent = true;
    let (_server, mut swap) = start(move |call| match call.is(WRITE) && silent {
        // Silent for two connections and more, then all is well.
        true => {
            silent = call.connection < 4;
            Answer::Silence
        }
        false => Answer::Normal,
    });
    activate(&mut swap).unwrap();
    let mut kinds = vec![];
    loop {
        submit(&mut swap, IoOp::Write, 5, [page(5, 1)]).unwrap();
        let done = complete(&mut swap);
        assert_eq!(
            done.io.frames[0],
            page(5, 1),
            "the frame comes back as it was"
        );
        match done.result {
            Ok(()) => break,
            Err(error) => kinds.push(error.kind()),
        }
    }
    // The first one was sent. Later ones may have found the connection down for all their time.
    assert_eq!(kinds.first(), Some(&ErrorKind::TimedOut));
    assert!(
        kinds
            .iter()
            .all(|kind| matches!(kind, ErrorKind::TimedOut | ErrorKind::Unsent))
    );
    assert_eq!(read(&mut swap, 5), Ok(page(5, 1)));
    deactivate(&mut swap).unwrap();
}

#[test]
fn a_foreign_xid_is_skipped() {
    let (_server, mut swap) = start(once(READ, |call| {
        let foreign = Call {
            xid: call.xid ^ 0x8000_0000,
            ..call.clone()
        };
        let mut bytes = reply(&foreign, &[0, 0, 4096, 0, 4096], &page(1, 1));
        bytes.extend(reply(call, &[0, 0, 4096, 0, 4096], &page(3, 1)));
        Answer::Raw(bytes)
    }));
    survives(&mut swap);
    assert_eq!(swap.stats().foreign, 1);
}

#[test]
fn a_record_in_many_fragments_is_read() {
    let (_server, mut swap) = start(once(READ, |call| {
        let whole = reply(call, &[0, 0, 4096, 0, 4096], &page(3, 1));
        let mut bytes = vec![];
        for piece in whole[4..].chunks(700) {
            bytes.extend((piece.len() as u32).to_be_bytes());
            bytes.extend(piece);
        }
        bytes.extend(0x8000_0000u32.to_be_bytes());
        Answer::Raw(bytes)
    }));
    survives(&mut swap);
    assert_eq!(swap.stats().resets, 1, "only the one at the end");
}

#[test]
fn an_unstable_answer_is_committed_and_a_new_verifier_makes_it_be_written_again() {
    let mut writes = 0;
    let (_server, mut swap) = start(move |call| {
        if call.is(WRITE) {
            writes += 1;
            if writes == 1 {
                // Less than asked for, by a server of another boot than the COMMIT will be.
                return Answer::Results(vec![0, 0, 0, call.count, 0, 7, 7]);
            }
        }
        Answer::Normal
    });
    survives(&mut swap);
    let stats = swap.stats();
    assert_eq!((stats.commits, stats.verifier_changes), (1, 1));
}

#[test]
fn a_stale_handle_is_gone_by_name() {
    let (_server, mut swap) = start(once(READ, |_| Answer::Results(vec![70, 0])));
    activate(&mut swap).unwrap();
    assert_eq!(read(&mut swap, 0).unwrap_err().kind(), ErrorKind::Gone);
    assert_eq!(
        read(&mut swap, 0).unwrap(),
        vec![0; 4096].into(),
        "and can be tried again"
    );
    deactivate(&mut swap).unwrap();
}

#[test]
fn a_server_that_speaks_something_else_is_refused_at_once() {
    let (_server, mut swap) = start(|_| Answer::Raw(b"220 mail.example.org ESMTP\r\n".to_vec()));
    let error = activate(&mut swap).unwrap_err();
    assert!(
        matches!(
            error,
            SwapFileError::BadReply {
                stage: Stage::Mount,
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn a_server_that_never_answers_is_given_up_by_name() {
    let (_server, mut swap) = start(|_| Answer::Silence);
    let error = activate(&mut swap).unwrap_err();
    assert!(
        matches!(
            error,
            SwapFileError::TimedOut {
                stage: Stage::Mount
            } | SwapFileError::Connect { .. }
        ),
        "{error}"
    );
    assert_eq!(error.kind(), ErrorKind::TimedOut);
}

#[test]
fn an_activation_can_be_given_up() {
    let (_server, mut swap) = start(|_| Answer::Silence);
    assert!(swap.swap_activate(support::now()).is_pending());
    let _ = deactivate(&mut swap);
    assert!(submit(&mut swap, IoOp::Read, 0, [page(0, 0)]).is_err());
}

#[test]
fn a_directory_is_no_swap_file() {
    let (server, mut swap) = start(|_| Answer::Normal);
    server.file.lock().unwrap().kind = 2;
    let error = activate(&mut swap).unwrap_err();
    assert_eq!(error, SwapFileError::NotRegular(FileKind::Directory));
}

#[test]
fn holes_are_refused_unless_they_are_allowed() {
    let (server, mut swap) = start(|_| Answer::Normal);
    server.file.lock().unwrap().used = 4096;
    let size = 64 * 4096;
    assert_eq!(
        activate(&mut swap),
        Err(SwapFileError::Holes { used: 4096, size })
    );

    let (url, mut config) = impatient(&server);
    config.allow_holes = true;
    let mut swap = support::swap(&url, config);
    activate(&mut swap).unwrap();
    deactivate(&mut swap).unwrap();
}

#[cfg(feature = "ablation")]
#[test]
fn s6_without_a_look_at_the_file_holes_are_taken() {
    let (server, mut swap) = start(|_| Answer::Normal);
    server.file.lock().unwrap().used = 4096;
    swap.ablate(nfs_swap::Mechanism::FileCheck);
    activate(&mut swap).unwrap();
    deactivate(&mut swap).unwrap();
}

#[test]
fn a_file_that_may_not_be_written_is_refused() {
    let (server, mut swap) = start(|_| Answer::Normal);
    server.file.lock().unwrap().access = 0x03;
    assert_eq!(activate(&mut swap), Err(SwapFileError::NoAccess));
}

#[test]
fn small_transfers_shrink_the_cluster() {
    let fsinfo = |limit: u32| {
        move |call: &Call| match call.is(FSINFO) {
            true => Answer::Results(vec![
                0, 0, limit, limit, 1, 65_536, limit, 1, 1, 0, 0, 0, 1, 0,
            ]),
            false => Answer::Normal,
        }
    };
    let (_server, mut swap) = start(fsinfo(3 * 4096));
    assert_eq!(activate(&mut swap).unwrap().max_frames, 3);
    deactivate(&mut swap).unwrap();

    let (_server, mut swap) = start(fsinfo(1024));
    let error = activate(&mut swap).unwrap_err();
    assert!(
        matches!(error, SwapFileError::TransferTooSmall { limit: 1024, .. }),
        "{error}"
    );
}

/// The scripted server, but on whatever port it is looked for; and which those were.
struct AnyPort {
    inner: StdTcp,
    port: u16,
    asked: Vec<u16>,
}

impl Transport for AnyPort {
    fn connect(&mut self, port: u16, now: Instant) -> Result<(), LinkDown> {
        self.asked.push(port);
        self.inner.connect(self.port, now)
    }

    fn poll(&mut self, now: Instant) -> Link {
        self.inner.poll(now)
    }

    fn send(&mut self, fill: &mut dyn FnMut(&mut [u8]) -> usize) -> usize {
        self.inner.send(fill)
    }

    fn recv(&mut self, consume: &mut dyn FnMut(&[u8]) -> usize) -> usize {
        self.inner.recv(consume)
    }

    fn next_deadline(&self) -> Option<Instant> {
        self.inner.next_deadline()
    }

    fn close(&mut self) {
        self.inner.close();
    }
}

/// Activates a swap file whose URL is `url`; the portmapper answers with `ports` in turn.
fn ports_asked(url: &str, ports: &'static [u32]) -> (Result<(), SwapFileError>, Vec<u16>) {
    let mut ports = ports.iter();
    let server = Scripted::start(move |call| match call.program {
        100_000 => Answer::Results(vec![*ports.next().unwrap()]),
        _ => Answer::Normal,
    });
    let transport = AnyPort {
        inner: StdTcp::new(server.address.ip(), Duration::from_secs(1)),
        port: server.address.port(),
        asked: vec![],
    };
    let mut swap = SwapFile::<Frame, _, 2>::new(transport, config(url, 16));
    let result = loop {
        if let Poll::Ready(result) = swap.swap_activate(support::now()) {
            break result.map(drop);
        }
        let _ = swap
            .transport_mut()
            .inner
            .wait_readable(Duration::from_millis(5));
    };
    (result, swap.transport().asked.clone())
}

#[test]
fn ports_come_from_the_url_or_else_from_the_portmapper() {
    for (url, portmapper, ports) in [
        ("nfs://h/e/f", &[20_048, 2050][..], &[111, 20_048, 2050][..]),
        ("nfs://h/e/f", &[20_048, 0], &[111, 20_048, 2049]),
        ("nfs://h:7000/e/f", &[], &[7000]),
        ("nfs://h/e/f?mountport=9", &[], &[9, 2049]),
        ("nfs://h:8/e/f?mountport=9", &[], &[9, 8]),
    ] {
        assert_eq!(
            ports_asked(url, portmapper),
            (Ok(()), ports.to_vec()),
            "{url}"
        );
    }
    let program = nfs_swap::mount::PROGRAM.number;
    let (result, _) = ports_asked("nfs://h/e/f", &[0]);
    assert_eq!(result, Err(SwapFileError::NotRegistered { program }));
}

#[test]
fn a_server_that_fills_up_while_the_file_is_filled_keeps_nothing_of_it() {
    let removed = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&removed);
    let mut writes = 0;
    let (_server, mut swap) = start(move |call| match (call.program, call.procedure) {
        (NFS, 3) => Answer::Results(vec![2, 0]),
        (NFS, 8) => Answer::Results(vec![0, 1, 4, 9, 0, 0, 0]),
        (NFS, 2) => Answer::Results(vec![0, 0, 0]),
        (NFS, 7) => {
            writes += 1;
            match writes {
                ..3 => Answer::Results(vec![0, 0, 0, 4096, 2, 1, 1]),
                _ => Answer::Results(vec![28, 0, 0]),
            }
        }
        (NFS, 12) => {
            flag.store(true, Ordering::SeqCst);
            Answer::Results(vec![0, 0, 0])
        }
        _ => Answer::Normal,
    });
    let (stage, status) = (Stage::Preallocate, Nfsstat3::NoSpc);
    assert_eq!(
        activate(&mut swap),
        Err(SwapFileError::Nfs { stage, status })
    );
    assert!(removed.load(Ordering::SeqCst));
}

#[test]
fn a_name_that_exists_in_one_call_and_not_in_the_other_is_refused() {
    let (_server, mut swap) = start(|call| match (call.program, call.procedure) {
        (NFS, 3) => Answer::Results(vec![2, 0]),
        (NFS, 8) => Answer::Results(vec![17, 0, 0]),
        _ => Answer::Normal,
    });
    let (stage, status) = (Stage::Create, Nfsstat3::Exist);
    assert_eq!(
        activate(&mut swap),
        Err(SwapFileError::Nfs { stage, status })
    );
}

/// Each has its own deadline, which a slow server must be able to meet.
#[test]
fn a_new_file_is_filled_by_few_writes_at_a_time_and_removed_when_they_are_not_answered() {
    let offsets = Arc::new(Mutex::new(HashSet::new()));
    let removed = Arc::new(AtomicBool::new(false));
    let (seen, flag) = (Arc::clone(&offsets), Arc::clone(&removed));
    let server = Scripted::start(move |call| match (call.program, call.procedure) {
        (NFS, 3) => Answer::Results(vec![2, 0]),
        (NFS, 8) => Answer::Results(vec![0, 1, 4, 9, 0, 0, 0]),
        (NFS, 2) => Answer::Results(vec![0, 0, 0]),
        (NFS, 7) => {
            seen.lock().unwrap().insert(call.offset);
            Answer::Silence
        }
        (NFS, 12) => {
            flag.store(true, Ordering::SeqCst);
            Answer::Results(vec![0, 0, 0])
        }
        _ => Answer::Normal,
    });
    let (url, mut config) = impatient(&server);
    config.slots = 256; // 16 writes of what the server takes
    let error = activate(&mut swap(&url, config)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    assert_eq!(offsets.lock().unwrap().len(), 4);
    assert!(removed.load(Ordering::SeqCst));
}

/// The server falls silent while the file is filled, and so the file cannot be removed either.
#[test]
fn a_file_that_a_failed_activation_left_behind_is_made_afresh_by_the_next() {
    let answers = Arc::new(AtomicBool::new(false));
    let removed = Arc::new(AtomicBool::new(false));
    let (well, flag) = (Arc::clone(&answers), Arc::clone(&removed));
    let mut exists = false;
    let (server, mut swap) = start(move |call| match (call.program, call.procedure) {
        (NFS, 7 | 12) if !well.load(Ordering::SeqCst) => Answer::Silence,
        (NFS, 3) if !exists => Answer::Results(vec![2, 0]),
        (NFS, 8) => {
            exists = true;
            // The handle that LOOKUP tells.
            Answer::Results(vec![0, 1, 4, 0x0506_0708, 0, 0, 0])
        }
        (NFS, 2) => Answer::Results(vec![0, 0, 0]),
        (NFS, 12) => {
            exists = false;
            flag.store(true, Ordering::SeqCst);
            Answer::Results(vec![0, 0, 0])
        }
        _ => Answer::Normal,
    });
    // As it was left, nobody else could use it.
    server.file.lock().unwrap().used = 0;
    let error = activate(&mut swap).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    answers.store(true, Ordering::SeqCst);
    survives(&mut swap);
    assert!(
        removed.load(Ordering::SeqCst),
        "late zeros must find no file"
    );
}

/// CREATE is carried out, its answer is lost, and the second one finds the file there.
#[test]
fn a_file_whose_creation_had_to_be_asked_for_twice_is_ours() {
    let mut creates = 0;
    let mut resized = false;
    let removed = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&removed);
    let (_server, mut swap) = start(move |call| match (call.program, call.procedure) {
        (NFS, 3) if creates == 0 => Answer::Results(vec![2, 0]),
        (NFS, 8) => {
            creates += 1;
            match creates {
                1 => Answer::RawThenClose(vec![]),
                _ => Answer::Results(vec![17, 0, 0]),
            }
        }
        (NFS, 1) if !resized => {
            let mut attributes = vec![0, 1, 0o600, 1, 0, 0];
            attributes.resize(22, 0);
            Answer::Results(attributes)
        }
        (NFS, 2) => {
            resized = true;
            Answer::Results(vec![0, 0, 0])
        }
        (NFS, 12) => {
            flag.store(true, Ordering::SeqCst);
            Answer::Results(vec![0, 0, 0])
        }
        _ => Answer::Normal,
    });
    activate(&mut swap).unwrap();
    deactivate(&mut swap).unwrap();
    assert!(!removed.load(Ordering::SeqCst), "it is to stay");
}

#[test]
fn activation_gives_a_busy_server_time() {
    let (_server, mut swap) = start(once(FSINFO, |_| Answer::Results(vec![10_008, 0])));
    survives(&mut swap);
}

/// The rows of the table at `RequestError` in which the server has decided.
#[test]
fn what_the_server_refuses_is_told_by_its_meaning_and_can_be_tried_again() {
    for (code, kind) in [
        (5, ErrorKind::Io),
        (22, ErrorKind::Io),
        (27, ErrorKind::NoSpace),
        (28, ErrorKind::NoSpace),
        (69, ErrorKind::NoSpace),
        (30, ErrorKind::ReadOnly),
        (2, ErrorKind::Gone),
        (70, ErrorKind::Gone),
        (10_001, ErrorKind::Gone),
        (13, ErrorKind::Denied),
        (1, ErrorKind::Denied),
        (999, ErrorKind::Io),
    ] {
        let mut refused = HashSet::new();
        let (_server, mut swap) = start(move |call| {
            let first = (call.is(READ) || call.is(WRITE)) && refused.insert(call.procedure);
            match first {
                true if call.is(READ) => Answer::Results(vec![code, 0]),
                true => Answer::Results(vec![code, 0, 0]),
                false => Answer::Normal,
            }
        });
        activate(&mut swap).unwrap();
        for op in [IoOp::Write, IoOp::Read] {
            submit(&mut swap, op, 3, [page(3, 1)]).unwrap();
            let done = complete(&mut swap);
            assert_eq!(done.result.unwrap_err().kind(), kind, "{code} {op:?}");
            assert_eq!(done.io.frames[0], page(3, 1), "{code} {op:?}");
            swap.submit(done.io, support::now()).unwrap();
            assert_eq!(complete(&mut swap).result, Ok(()), "{code} {op:?}");
        }
        assert_eq!(swap.stats().resets, 0, "{code}: the connection is good");
        deactivate(&mut swap).unwrap();
    }
}

#[test]
fn a_busy_server_is_asked_again_until_the_deadline() {
    let mut busy = 3;
    let (_server, mut swap) = start(move |call| match call.is(WRITE) && busy > 0 {
        true => {
            busy -= 1;
            Answer::Results(vec![10_008, 0, 0])
        }
        false => Answer::Normal,
    });
    survives(&mut swap);
    assert_eq!(swap.stats().jukebox, 3);

    let (_server, mut swap) = start(|call| match call.is(READ) {
        true => Answer::Results(vec![10_008, 0]),
        false => Answer::Normal,
    });
    activate(&mut swap).unwrap();
    assert_eq!(read(&mut swap, 3).unwrap_err().kind(), ErrorKind::TimedOut);
    deactivate(&mut swap).unwrap();
}

/// A server that fails `faults` times over each READ and WRITE, in the way of NFS or in that of RPC.
fn faulty(mut faults: u32, of_rpc: bool) -> impl FnMut(&Call) -> Answer {
    move |call| match (call.is(READ) || call.is(WRITE)) && faults > 0 {
        true => {
            faults -= 1;
            match of_rpc {
                true => {
                    let words = [0x8000_0018, call.xid, 1, 0, 0, 0, 5];
                    Answer::Raw(words.map(u32::to_be_bytes).concat())
                }
                false if call.is(READ) => Answer::Results(vec![10_006, 0]),
                false => Answer::Results(vec![10_006, 0, 0]),
            }
        }
        false => Answer::Normal,
    }
}

#[test]
fn a_fault_of_the_server_is_tried_again_a_few_times() {
    for of_rpc in [false, true] {
        let (_server, mut swap) = start(faulty(3, of_rpc));
        survives(&mut swap);
        assert_eq!(swap.stats().server_faults, 3);

        let (_server, mut swap) = start(faulty(4, of_rpc));
        activate(&mut swap).unwrap();
        let error = match of_rpc {
            true => RequestError::Rejected(Reject::SystemError),
            false => RequestError::Nfs(Nfsstat3::ServerFault),
        };
        let failed = write(&mut swap, 3, page(3, 1)).unwrap_err();
        assert_eq!(failed, SwapFileError::Request(error));
        assert_eq!(failed.kind(), ErrorKind::Io);
        // The next request has all its tries.
        assert_eq!(write(&mut swap, 3, page(3, 1)), Ok(()));
        deactivate(&mut swap).unwrap();
    }
}

#[test]
fn what_rpc_refuses_is_told_by_its_meaning() {
    for (words, kind) in [
        // AUTH_TOOWEAK, and PROC_UNAVAIL.
        (&[1, 1, 1, 5][..], ErrorKind::Denied),
        (&[1, 0, 0, 0, 3], ErrorKind::Io),
    ] {
        let (_server, mut swap) = start(once(WRITE, move |call| {
            let mark = 0x8000_0000 | (4 * (1 + words.len() as u32));
            let record = [&[mark, call.xid], words].concat();
            Answer::Raw(record.into_iter().flat_map(u32::to_be_bytes).collect())
        }));
        activate(&mut swap).unwrap();
        let error = write(&mut swap, 3, page(3, 1)).unwrap_err();
        assert_eq!(error.kind(), kind);
        deactivate(&mut swap).unwrap();
    }
}

/// Like [`start`], with requests that wait for ever.
fn start_hard(script: impl FnMut(&Call) -> Answer + Send + 'static) -> (Scripted, Swap) {
    let server = Scripted::start(script);
    let (url, mut config) = impatient(&server);
    config.client.timeouts = Timeouts::Hard;
    config.client.deadline = Duration::from_millis(100);
    config.client.rpc_timeout = Duration::from_millis(50);
    (server, swap(&url, config))
}

#[test]
fn a_hard_request_outlasts_a_server_that_is_silent_for_longer_than_any_deadline() {
    let mut silences = 6;
    let (_server, mut swap) = start_hard(move |call| match call.is(WRITE) && silences > 0 {
        true => {
            silences -= 1;
            Answer::Silence
        }
        false => Answer::Normal,
    });
    survives(&mut swap);
    // Each is a time-out of 50 ms, so that the deadline of 100 ms has passed.
    assert_eq!(swap.stats().silences, 6);
    assert_eq!(swap.stats().timed_out, 0);
}

#[test]
fn a_hard_request_keeps_to_a_deadline_of_its_own() {
    let (_server, mut swap) = start_hard(|call| match call.is(READ) {
        true => Answer::Silence,
        false => Answer::Normal,
    });
    activate(&mut swap).unwrap();
    let frames = [page(1, 1)].into_iter().collect();
    let io = SwapIo::new(IoOp::Read, Slot(1), IoClass::Demand, frames);
    let deadline = support::now() + Duration::from_millis(20);
    swap.submit(io.by(deadline), support::now()).unwrap();
    let error = complete(&mut swap).result.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    deactivate(&mut swap).unwrap();
}

#[test]
fn hard_requests_do_not_hold_up_activation_and_deactivation() {
    let (_server, mut swap) = start_hard(|_| Answer::Silence);
    assert_eq!(activate(&mut swap).unwrap_err().kind(), ErrorKind::TimedOut);

    let (_server, mut swap) = start_hard(|call| match call.is(WRITE) {
        true => Answer::Silence,
        false => Answer::Normal,
    });
    activate(&mut swap).unwrap();
    submit(&mut swap, IoOp::Write, 1, [page(1, 1)]).unwrap();
    assert!(swap.swap_deactivate(support::now()).is_pending());
    let done = complete(&mut swap);
    assert_eq!(done.result.unwrap_err().kind(), ErrorKind::TimedOut);
    assert_eq!(done.io.frames[0], page(1, 1));
    deactivate(&mut swap).unwrap();
}

#[test]
fn every_refusal_of_mount_is_named() {
    for (code, status) in [
        (1, MountStatus::Perm),
        (2, MountStatus::NoEnt),
        (5, MountStatus::Io),
        (13, MountStatus::Acces),
        (20, MountStatus::NotDir),
        (22, MountStatus::Inval),
        (63, MountStatus::NameTooLong),
        (10_004, MountStatus::NotSupp),
        (10_006, MountStatus::ServerFault),
        (77, MountStatus::Other(77)),
    ] {
        let (_server, mut swap) = start(move |_| Answer::Results(vec![code]));
        assert_eq!(activate(&mut swap), Err(SwapFileError::Mount(status)));
    }
}

#[test]
fn an_export_that_wants_kerberos_is_refused() {
    let flavours = |offered: &'static [u32]| {
        move |call: &Call| match (call.program, call.procedure) {
            (MOUNT, 1) => {
                let head = [0, 4, 9, offered.len() as u32];
                Answer::Results([&head, offered].concat())
            }
            _ => Answer::Normal,
        }
    };
    let (_server, mut swap) = start(flavours(&[390_003, 390_005]));
    assert_eq!(activate(&mut swap), Err(SwapFileError::NoAuthSys));
    let (_server, mut swap) = start(flavours(&[390_003, 1]));
    survives(&mut swap);
}

#[test]
fn the_server_is_told_of_deactivation_and_need_not_answer() {
    let told = Arc::new(Mutex::new(0));
    let count = Arc::clone(&told);
    let (_server, mut swap) = start(move |call| match (call.program, call.procedure) {
        (MOUNT, 3) => {
            // Of the export, and nothing else.
            assert_eq!(call.arguments, b"\0\0\0\x07/export\0");
            *count.lock().unwrap() += 1;
            Answer::Silence
        }
        _ => Answer::Normal,
    });
    survives(&mut swap);
    assert!(*told.lock().unwrap() >= 1);
}
