//! Exclusive use of a swap file: whose lease it is, who may take it, and what a race comes to.

mod support;

use core::task::Poll;
use core::time::Duration;
use std::path::PathBuf;

use nfs_server::{Config, Server};
use nfs_swap::{LeaseConfig, LeaseHolder, LeasePolicy, Owner, SwapFileConfig, SwapFileError};
use support::scripted::{Answer, Call, READ, Scripted, WRITE, reply};
use support::{PAGE, Swap, activate, complete, config, deactivate, now, page, read, submit};
use support::{swap, url, wait, write};
use swapspace::{AddressSpace, IoOp, SubmitError};

const SLOTS: u32 = 4;

struct Rig {
    server: Server,
    url: String,
    directory: tempfile::TempDir,
}

impl Rig {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let server = Server::start(Config::new(directory.path())).unwrap();
        let url = url(server.addr());
        Rig {
            server,
            url,
            directory,
        }
    }

    fn lease(&self) -> PathBuf {
        self.directory.path().join("swap.lease")
    }

    fn swap(&self, lease: LeaseConfig) -> Swap {
        self.swap_with(lease, |_| {})
    }

    fn swap_with(&self, lease: LeaseConfig, change: impl FnOnce(&mut SwapFileConfig)) -> Swap {
        let mut config = config(&self.url, SLOTS);
        config.lease = Some(lease);
        config.client.rpc_timeout = Duration::from_millis(200);
        change(&mut config);
        swap(&self.url, config)
    }
}

fn lease(owner: &str, boot_id: u128) -> LeaseConfig {
    LeaseConfig::new(Owner::new(owner).unwrap(), boot_id)
}

fn in_use(owner: &str, boot_id: u128) -> SwapFileError {
    let owner = Owner::new(owner).unwrap();
    SwapFileError::InUse { owner, boot_id }
}

fn renew(swap: &mut Swap) -> Result<(), SwapFileError> {
    loop {
        if let Poll::Ready(result) = swap.renew_lease(now()) {
            return result;
        }
        wait(swap);
    }
}

#[test]
fn s6_another_machine_is_refused_by_name_as_long_as_the_file_is_active() {
    let rig = Rig::new();
    let mut ours = rig.swap(lease("us", 1));
    let mut theirs = rig.swap(lease("them", 2));
    activate(&mut ours).unwrap();
    let error = activate(&mut theirs).unwrap_err();
    assert_eq!(error, in_use("us", 1));
    assert!(
        error.to_string().contains("in use by us (boot 0000"),
        "{error}"
    );
    // A nested activation is under the same lease.
    activate(&mut ours).unwrap();
    deactivate(&mut ours).unwrap();
    assert_eq!(activate(&mut theirs), Err(in_use("us", 1)));
    write(&mut ours, 1, page(1, 1)).unwrap();

    deactivate(&mut ours).unwrap();
    assert!(!rig.lease().exists());
    activate(&mut theirs).unwrap();
    assert_eq!(theirs.lease_taken_from(), None);
    assert_eq!(read(&mut theirs, 1), Ok(page(1, 1)));
    assert_eq!(activate(&mut ours), Err(in_use("them", 2)));
    deactivate(&mut theirs).unwrap();
}

#[test]
fn without_a_lease_there_is_no_file_beside_the_file() {
    let rig = Rig::new();
    let mut swap = swap(&rig.url, config(&rig.url, SLOTS));
    activate(&mut swap).unwrap();
    assert!(!rig.lease().exists());
    assert_eq!(renew(&mut swap), Ok(()));
    deactivate(&mut swap).unwrap();
}

#[test]
fn s6_what_we_left_behind_in_a_crash_is_taken_over_by_our_next_boot() {
    let rig = Rig::new();
    let mut crashed = rig.swap(lease("us", 1));
    activate(&mut crashed).unwrap();
    drop(crashed);
    assert!(rig.lease().exists());

    let mut next = rig.swap(lease("us", 2));
    activate(&mut next).unwrap();
    let (owner, boot_id) = (Owner::new("us").unwrap(), 1);
    assert_eq!(
        next.lease_taken_from(),
        Some(LeaseHolder { owner, boot_id })
    );
    deactivate(&mut next).unwrap();
    assert!(!rig.lease().exists());
}

#[test]
fn s6_a_second_swap_file_of_the_same_boot_is_refused() {
    let rig = Rig::new();
    let mut first = rig.swap(lease("us", 1));
    let mut second = rig.swap(lease("us", 1));
    activate(&mut first).unwrap();
    assert_eq!(activate(&mut second), Err(in_use("us", 1)));
    deactivate(&mut first).unwrap();
    assert!(!rig.lease().exists());
}

#[test]
fn a_lease_that_could_not_be_given_back_is_ours_again() {
    let mut rig = Rig::new();
    let mut swap = rig.swap_with(lease("us", 1), |config| {
        config.activation_timeout = Duration::from_millis(200);
    });
    activate(&mut swap).unwrap();
    rig.server.kill();
    assert!(deactivate(&mut swap).is_err());
    rig.server.reboot().unwrap();
    assert!(rig.lease().exists());
    activate(&mut swap).unwrap();
    assert_eq!(swap.lease_taken_from(), None);
    deactivate(&mut swap).unwrap();
    assert!(!rig.lease().exists());
}

#[test]
fn a_refused_file_leaves_no_lease() {
    let rig = Rig::new();
    std::fs::write(rig.directory.path().join("swap"), [1]).unwrap();
    let mut swap = rig.swap(lease("us", 1));
    let error = activate(&mut swap).unwrap_err();
    assert!(matches!(error, SwapFileError::TooSmall { .. }), "{error}");
    assert!(!rig.lease().exists());
}

#[test]
fn s5_requests_make_no_call_for_the_lease() {
    let rig = Rig::new();
    let mut swap = rig.swap(lease("us", 1));
    activate(&mut swap).unwrap();
    let before = swap.stats().calls;
    for slot in 0..SLOTS {
        write(&mut swap, slot, page(slot, 1)).unwrap();
        read(&mut swap, slot).unwrap();
    }
    assert_eq!(swap.stats().calls - before, u64::from(2 * SLOTS));
    // Renewal is a READ and a WRITE, when its owner asks for it, and no request waits for it.
    submit(&mut swap, IoOp::Write, 0, [page(0, 2)]).unwrap();
    renew(&mut swap).unwrap();
    assert_eq!(complete(&mut swap).result, Ok(()));
    assert_eq!(swap.stats().calls - before, u64::from(2 * SLOTS) + 3);
    deactivate(&mut swap).unwrap();
}

#[test]
fn a_holder_that_falls_silent_is_replaced_and_takes_no_more_requests_when_it_learns_of_it() {
    let rig = Rig::new();
    let mut silent = rig.swap(LeaseConfig {
        renews_every: Some(Duration::from_millis(20)),
        ..lease("silent", 1)
    });
    let mut heir = rig.swap(LeaseConfig {
        policy: LeasePolicy::TakeOverAfter(Duration::from_millis(60)),
        ..lease("heir", 2)
    });
    activate(&mut silent).unwrap();
    renew(&mut silent).unwrap();
    activate(&mut heir).unwrap();
    let from = heir.lease_taken_from().unwrap();
    assert_eq!((from.owner.as_str(), from.boot_id), ("silent", 1));

    let (owner, boot_id) = (Owner::new("heir").unwrap(), 2);
    let to = Some(LeaseHolder { owner, boot_id });
    let lost = SwapFileError::LeaseLost { to };
    assert_eq!(renew(&mut silent), Err(lost));
    assert_eq!(
        activate(&mut silent),
        Err(lost),
        "and it cannot be nested in"
    );
    let refused = submit(&mut silent, IoOp::Write, 0, [page(0, 1)]).unwrap_err();
    assert_eq!(refused.error, SubmitError::Inactive);
    deactivate(&mut silent).unwrap();
    assert!(rig.lease().exists(), "it is the heir's");
    renew(&mut heir).unwrap();
    deactivate(&mut heir).unwrap();
    assert!(!rig.lease().exists());
}

#[test]
fn a_holder_that_never_learned_of_it_leaves_the_lease_to_its_heir() {
    let rig = Rig::new();
    let mut first = rig.swap(lease("first", 1));
    let mut heir = rig.swap(LeaseConfig {
        policy: LeasePolicy::TakeOver,
        ..lease("heir", 2)
    });
    activate(&mut first).unwrap();
    activate(&mut heir).unwrap();
    let error = deactivate(&mut first).unwrap_err();
    assert!(matches!(error, SwapFileError::LeaseLost { .. }), "{error}");
    assert!(rig.lease().exists());
    deactivate(&mut heir).unwrap();
}

#[test]
fn a_file_is_removed_under_our_lease_and_not_under_another_machine_s() {
    let rig = Rig::new();
    let file = rig.directory.path().join("swap");
    let removes = |config: &mut SwapFileConfig| config.remove_on_deactivate = true;
    let mut swap = rig.swap_with(lease("us", 1), removes);
    activate(&mut swap).unwrap();
    deactivate(&mut swap).unwrap();
    assert!(!file.exists() && !rig.lease().exists());

    // Whether the first holder has learned that it is no longer the holder, or not.
    for learns in [true, false] {
        let mut first = rig.swap_with(lease("first", 1), removes);
        activate(&mut first).unwrap();
        let mut heir = rig.swap(LeaseConfig {
            policy: LeasePolicy::TakeOver,
            ..lease("heir", 2)
        });
        activate(&mut heir).unwrap();
        if learns {
            renew(&mut first).unwrap_err();
        }
        let ended = deactivate(&mut first);
        assert_eq!(ended.is_ok(), learns, "{ended:?}");
        write(&mut heir, 1, page(1, 1)).unwrap();
        deactivate(&mut heir).unwrap();
        assert!(file.exists() && !rig.lease().exists());
        std::fs::remove_file(&file).unwrap();
    }
}

#[test]
fn a_holder_that_renews_its_lease_keeps_it() {
    let rig = Rig::new();
    let mut holder = rig.swap(LeaseConfig {
        renews_every: Some(Duration::from_millis(1)),
        ..lease("holder", 1)
    });
    let mut other = rig.swap(LeaseConfig {
        policy: LeasePolicy::TakeOverAfter(Duration::from_millis(200)),
        ..lease("other", 2)
    });
    activate(&mut holder).unwrap();
    let refused = loop {
        if let Poll::Ready(result) = other.swap_activate(now()) {
            break result;
        }
        renew(&mut holder).unwrap();
    };
    assert_eq!(refused, Err(in_use("holder", 1)));
    deactivate(&mut holder).unwrap();
}

/// Activates both, a step of each in turn.
fn race(swaps: &mut [Swap; 2]) -> [Result<(), SwapFileError>; 2] {
    let mut results = [None; 2];
    while results.contains(&None) {
        for (swap, result) in swaps.iter_mut().zip(&mut results) {
            if result.is_none()
                && let Poll::Ready(ended) = swap.swap_activate(now())
            {
                *result = Some(ended.map(drop));
            }
        }
    }
    results.map(Option::unwrap)
}

#[test]
fn s6_of_two_that_race_for_a_lease_one_gets_it() {
    let rig = Rig::new();
    for round in 0..40 {
        // Where there is none, and where there is a stale one.
        if round % 2 == 1 {
            let mut crashed = rig.swap(LeaseConfig {
                renews_every: Some(Duration::from_millis(1)),
                ..lease("crashed", 1)
            });
            activate(&mut crashed).unwrap();
        }
        let racer = |name| {
            rig.swap(LeaseConfig {
                policy: LeasePolicy::TakeOverAfter(Duration::from_millis(5)),
                ..lease(name, 2)
            })
        };
        let mut swaps = [racer("a"), racer("b")];
        let results = race(&mut swaps);
        let [winner, loser] = match results[0].is_ok() {
            true => ["a", "b"],
            false => ["b", "a"],
        };
        let error = results.into_iter().find_map(Result::err);
        assert_eq!(
            error,
            Some(in_use(winner, 2)),
            "round {round}, and not {loser}"
        );
        for swap in swaps
            .iter_mut()
            .zip(results)
            .filter(|(_, ended)| ended.is_ok())
        {
            renew(swap.0).unwrap();
        }
        for swap in &mut swaps {
            let _ = deactivate(swap);
        }
        assert!(!rig.lease().exists());
    }
}

#[test]
fn a_lease_without_a_name_is_given_time_and_then_left_alone() {
    let rig = Rig::new();
    std::fs::write(rig.lease(), b"").unwrap();
    let unclear = Err(SwapFileError::LeaseUnclear);
    let mut swap = rig.swap(lease("us", 1));
    assert_eq!(activate(&mut swap), unclear);
    assert!(rig.lease().exists());

    let mut swap = rig.swap(LeaseConfig {
        policy: LeasePolicy::TakeOver,
        ..lease("us", 1)
    });
    activate(&mut swap).unwrap();
    deactivate(&mut swap).unwrap();
    assert!(!rig.lease().exists());

    std::fs::write(rig.lease(), vec![b'x'; PAGE]).unwrap();
    assert_eq!(activate(&mut swap), unclear);
    assert_eq!(std::fs::read(rig.lease()).unwrap(), vec![b'x'; PAGE]);
}

const SETATTR: u32 = 2;
const LOOKUP: u32 = 3;
const CREATE: u32 = 8;
const REMOVE: u32 = 12;

const CTIME: [u32; 2] = [0x6543_2100, 7];

/// A lease as version 1 has it; machines of different releases must understand each other.
fn record(owner: &str, boot_id: u128) -> Vec<u8> {
    let mut bytes = b"NETSWAPL".to_vec();
    bytes.extend([1u32, owner.len() as u32].map(u32::to_be_bytes).concat());
    bytes.extend(owner.bytes().chain(core::iter::repeat(0)).take(32));
    bytes.extend(boot_id.to_be_bytes());
    bytes.extend(1u64.to_be_bytes());
    bytes.extend(0u32.to_be_bytes());
    let mix = |sum: u32, byte: &u8| (sum ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
    let check = bytes.iter().fold(0x811c_9dc5, mix);
    bytes.extend(check.to_be_bytes());
    bytes
}

/// The answer to a READ of a lease that holds `bytes`, with the time of its last change.
fn holds(call: &Call, bytes: &[u8]) -> Answer {
    let mut words = vec![0, 1, 1, 0o644];
    words.resize(2 + 19, 0);
    words.extend(CTIME);
    let len = bytes.len() as u32;
    words.extend([len, 1, len]);
    Answer::Raw(reply(call, &words, bytes))
}

fn scripted(
    lease: LeaseConfig,
    script: impl FnMut(&Call) -> Answer + Send + 'static,
) -> (Scripted, Swap) {
    let server = Scripted::start(script);
    let url = url(server.address);
    let mut config = config(&url, SLOTS);
    config.client.rpc_timeout = Duration::from_millis(100);
    config.lease = Some(lease);
    (server, swap(&url, config))
}

#[test]
fn s6_of_two_that_take_over_a_lease_at_once_the_server_lets_one_succeed() {
    let mut taken = false;
    let taker = LeaseConfig {
        policy: LeasePolicy::TakeOver,
        ..lease("stale", 2)
    };
    let (_server, mut swap) = scripted(taker, move |call| match call.procedure {
        _ if call.is(CREATE) => Answer::Results(vec![17, 0, 0]),
        _ if call.is(READ) && taken => holds(call, &record("stale", 3)),
        _ if call.is(READ) => holds(call, &record("stale", 1)),
        _ if call.is(SETATTR) => {
            // Only if it was last changed when we looked; the other one has changed it since.
            let guard = [1, CTIME[0], CTIME[1]].map(u32::to_be_bytes).concat();
            assert!(call.arguments.ends_with(&guard));
            match core::mem::replace(&mut taken, true) {
                false => Answer::Results(vec![10_002, 0, 0]),
                true => Answer::Results(vec![1, 0, 0]),
            }
        }
        _ if call.is(WRITE) => panic!("written without a claim"),
        _ => Answer::Normal,
    });
    let error = activate(&mut swap).unwrap_err();
    // What it found then was claimed under the guard again, and in vain.
    assert!(matches!(error, SwapFileError::Nfs { .. }), "{error}");
}

#[test]
fn s6_who_does_not_read_its_own_name_back_has_not_got_the_lease() {
    let (_server, mut swap) = scripted(lease("us", 1), |call| match call.procedure {
        _ if call.is(CREATE) => Answer::Results(vec![0, 1, 4, 9, 0, 0, 0]),
        _ if call.is(READ) => holds(call, &record("rival", 5)),
        _ if call.is(REMOVE) => panic!("the lease is the rival's"),
        _ => Answer::Normal,
    });
    assert_eq!(activate(&mut swap), Err(in_use("rival", 5)));
}

#[test]
fn a_lease_whose_creation_had_to_be_asked_for_twice_is_ours_when_nobody_fills_it() {
    let (mut creates, mut contents) = (0, vec![]);
    let (_server, mut swap) = scripted(lease("us", 1), move |call| match call.procedure {
        _ if call.is(CREATE) => {
            creates += 1;
            match creates {
                1 => Answer::RawThenClose(vec![]),
                _ => Answer::Results(vec![17, 0, 0]),
            }
        }
        _ if call.is(LOOKUP) => Answer::Normal,
        _ if call.is(SETATTR) => Answer::Results(vec![0, 0, 0]),
        _ if call.is(WRITE) => {
            contents = call.data.clone();
            assert_eq!(contents, record("us", 1));
            Answer::Normal
        }
        _ if call.is(READ) => holds(call, &contents),
        _ if call.is(REMOVE) => Answer::Results(vec![0, 0, 0]),
        _ => Answer::Normal,
    });
    activate(&mut swap).unwrap();
    deactivate(&mut swap).unwrap();
}
