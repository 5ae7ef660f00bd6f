//! A swap file against a real server in this process: what activation refuses, what survives, what is left behind.

mod support;

use core::time::Duration;

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use nfs_server::{Config, Server};
use nfs_swap::mount::MountStatus;
use nfs_swap::nfs3::{Nfsstat3, StableHow};
use nfs_swap::{FileMode, RequestError, Stage, SwapFileConfig, SwapFileError};
use support::{
    PAGE, Swap, activate, complete, config, deactivate, page, read, submit, swap, url, write,
};
use swapspace::{AddressSpace, IoOp, SubmitError};

/// A server over a directory of its own.
struct Rig {
    server: Server,
    url: String,
    directory: tempfile::TempDir,
}

impl Rig {
    fn new() -> Self {
        Rig::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut Config)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut config = Config::new(directory.path());
        change(&mut config);
        let server = Server::start(config).unwrap();
        let url = url(server.addr());
        Rig {
            server,
            url,
            directory,
        }
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("swap")
    }

    fn swap(&self, slots: u32, change: impl FnOnce(&mut SwapFileConfig)) -> Swap {
        let mut config = config(&self.url, slots);
        change(&mut config);
        swap(&self.url, config)
    }

    fn refuses(&self, slots: u32, change: impl FnOnce(&mut SwapFileConfig)) -> SwapFileError {
        activate(&mut self.swap(slots, change)).unwrap_err()
    }
}

#[test]
fn what_is_written_is_read_back_in_clusters() {
    let rig = Rig::new();
    let mut swap = rig.swap(64, |_| {});
    let geometry = activate(&mut swap).unwrap();
    assert_eq!(
        (geometry.slots, geometry.page_size, geometry.max_frames),
        (64, 4096, 8)
    );
    for slot in (0..64).step_by(8) {
        submit(
            &mut swap,
            IoOp::Write,
            slot,
            (slot..slot + 8).map(|slot| page(slot, 1)),
        )
        .unwrap();
    }
    for _ in 0..8 {
        assert_eq!(complete(&mut swap).result, Ok(()));
    }
    for slot in (0..64).step_by(8) {
        let frames = (0..8).map(|_| vec![0; PAGE].into());
        submit(&mut swap, IoOp::Read, slot, frames).unwrap();
    }
    for _ in 0..8 {
        let done = complete(&mut swap);
        assert_eq!(done.result, Ok(()));
        for (slot, frame) in (done.io.slot.0..).zip(&done.io.frames) {
            assert_eq!(*frame, page(slot, 1));
        }
    }
    deactivate(&mut swap).unwrap();
}

#[test]
fn a_created_file_has_its_size_and_no_holes_and_stays() {
    let rig = Rig::new();
    let mut swap = rig.swap(1000, |_| {});
    activate(&mut swap).unwrap();
    write(&mut swap, 999, page(999, 1)).unwrap();
    deactivate(&mut swap).unwrap();
    let file = rig.file().metadata().unwrap();
    assert_eq!(file.len(), 1000 * PAGE as u64);
    assert!(file.blocks() * 512 >= file.len());

    let mut swap = rig.swap(1000, |config| config.mode = FileMode::Attach);
    activate(&mut swap).unwrap();
    assert_eq!(read(&mut swap, 999), Ok(page(999, 1)));
    deactivate(&mut swap).unwrap();
}

#[test]
fn a_created_file_is_removed_on_demand_and_a_found_one_never() {
    let rig = Rig::new();
    let mut swap = rig.swap(4, |config| config.remove_on_deactivate = true);
    activate(&mut swap).unwrap();
    assert!(rig.file().exists());
    deactivate(&mut swap).unwrap();
    assert!(!rig.file().exists());

    std::fs::write(rig.file(), vec![1; 4 * PAGE]).unwrap();
    activate(&mut swap).unwrap();
    deactivate(&mut swap).unwrap();
    assert!(rig.file().exists());
}

#[test]
fn activation_nests() {
    let rig = Rig::new();
    let mut swap = rig.swap(4, |_| {});
    let geometry = activate(&mut swap).unwrap();
    assert_eq!(activate(&mut swap), Ok(geometry));
    deactivate(&mut swap).unwrap();
    write(&mut swap, 1, page(1, 1)).unwrap();
    deactivate(&mut swap).unwrap();
    let refused = submit(&mut swap, IoOp::Write, 1, [page(1, 2)]).unwrap_err();
    assert_eq!(refused.error, SubmitError::Inactive);
    assert_eq!(refused.io.frames[0], page(1, 2));
    activate(&mut swap).unwrap();
    assert_eq!(read(&mut swap, 1), Ok(page(1, 1)));
    deactivate(&mut swap).unwrap();
}

#[cfg(feature = "ablation")]
#[test]
fn s6_without_nesting_the_first_deactivation_ends_all() {
    let rig = Rig::new();
    let mut swap = rig.swap(4, |_| {});
    swap.ablate(nfs_swap::Mechanism::Nesting);
    activate(&mut swap).unwrap();
    activate(&mut swap).unwrap();
    deactivate(&mut swap).unwrap();
    let refused = submit(&mut swap, IoOp::Write, 1, [page(1, 1)]).unwrap_err();
    assert_eq!(refused.error, SubmitError::Inactive);
}

#[test]
fn deactivation_waits_for_what_is_in_flight() {
    let rig = Rig::new();
    let mut swap = rig.swap(8, |config| config.remove_on_deactivate = true);
    activate(&mut swap).unwrap();
    submit(&mut swap, IoOp::Write, 1, [page(1, 1)]).unwrap();
    for _ in 0..1000 {
        assert!(swap.swap_deactivate(support::now()).is_pending());
    }
    assert!(rig.file().exists());
    assert!(submit(&mut swap, IoOp::Write, 2, [page(2, 1)]).is_err());
    assert_eq!(complete(&mut swap).result, Ok(()));
    deactivate(&mut swap).unwrap();
    assert!(!rig.file().exists());
}

#[test]
fn a_wrong_export_is_named() {
    let rig = Rig::new();
    let error = rig.refuses(4, |config| config.export = "/elsewhere".try_into().unwrap());
    assert_eq!(error, SwapFileError::Mount(MountStatus::NoEnt));
}

#[test]
fn a_port_without_a_server_is_named() {
    let mut rig = Rig::new();
    rig.server.kill();
    let error = rig.refuses(4, |_| {});
    let port = rig.server.addr().port();
    assert!(
        matches!(error, SwapFileError::Connect { port: named, .. } if named == port),
        "{error}"
    );
}

#[test]
fn a_missing_file_is_named_where_it_may_not_be_created() {
    let rig = Rig::new();
    let error = rig.refuses(4, |config| config.mode = FileMode::Attach);
    let (stage, status) = (Stage::Lookup, Nfsstat3::NoEnt);
    assert_eq!(error, SwapFileError::Nfs { stage, status });
}

#[test]
fn a_read_only_export_is_refused() {
    let rig = Rig::with(|config| config.read_only = true);
    let error = rig.refuses(4, |_| {});
    let (stage, status) = (Stage::Create, Nfsstat3::RoFs);
    assert_eq!(error, SwapFileError::Nfs { stage, status });

    std::fs::write(rig.file(), vec![1; 4 * PAGE]).unwrap();
    assert_eq!(rig.refuses(4, |_| {}), SwapFileError::NoAccess);
}

#[test]
fn a_file_too_small_is_refused_and_left_alone() {
    let rig = Rig::new();
    std::fs::write(rig.file(), vec![1; 4 * PAGE]).unwrap();
    let (has, needs) = (4 * PAGE as u64, 5 * PAGE as u64);
    assert_eq!(
        rig.refuses(5, |_| {}),
        SwapFileError::TooSmall { has, needs }
    );
    assert_eq!(std::fs::read(rig.file()).unwrap(), vec![1; 4 * PAGE]);
}

#[test]
fn a_full_server_is_named_and_nothing_is_left_behind() {
    let rig = Rig::with(|config| config.capacity = Some(1 << 20));
    let error = rig.refuses(4096, |_| {});
    assert!(
        matches!(
            error,
            SwapFileError::Nfs {
                status: Nfsstat3::NoSpc,
                ..
            }
        ),
        "{error}"
    );
    assert!(!rig.file().exists());
}

#[test]
fn a_server_that_dies_and_comes_back_loses_no_request() {
    let mut rig = Rig::new();
    let mut swap = rig.swap(8, |_| {});
    activate(&mut swap).unwrap();
    write(&mut swap, 0, page(0, 1)).unwrap();
    rig.server.kill();
    submit(&mut swap, IoOp::Write, 1, [page(1, 1)]).unwrap();
    submit(&mut swap, IoOp::Read, 0, [vec![0; PAGE].into()]).unwrap();
    // It notices, and fails to reconnect at least once.
    while swap.stats().resets < 2 {
        let now = support::wait(&mut swap);
        assert!(swap.poll(now).is_none());
    }
    rig.server.reboot().unwrap();
    for _ in 0..2 {
        let done = complete(&mut swap);
        assert_eq!(done.result, Ok(()));
        assert_eq!(done.io.frames[0], page(done.io.slot.0, 1));
    }
    assert_eq!(read(&mut swap, 1), Ok(page(1, 1)));
    deactivate(&mut swap).unwrap();
}

#[test]
fn a_server_that_stays_away_is_a_timeout_and_the_page_can_be_tried_again() {
    let mut rig = Rig::new();
    let mut swap = rig.swap(8, |config| {
        config.client.deadline = Duration::from_millis(200)
    });
    activate(&mut swap).unwrap();
    rig.server.kill();
    submit(&mut swap, IoOp::Write, 1, [page(1, 1)]).unwrap();
    let mut done = complete(&mut swap);
    // Whether the connection was seen to be gone before the write was handed to it.
    assert!(matches!(
        done.result,
        Err(SwapFileError::Request(
            RequestError::TimedOut | RequestError::Unsent
        ))
    ));
    rig.server.reboot().unwrap();
    // The pause before the next connection may be longer than this short deadline.
    while done.result.is_err() {
        swap.submit(done.io, support::now()).unwrap();
        done = complete(&mut swap);
    }
    assert_eq!(read(&mut swap, 1), Ok(page(1, 1)));
    deactivate(&mut swap).unwrap();
}

#[test]
fn what_an_unstable_server_lost_in_a_reboot_is_written_again() {
    let mut rig = Rig::new();
    let mut swap = rig.swap(64, |config| config.client.stable = StableHow::Unstable);
    activate(&mut swap).unwrap();
    for version in 1..=8 {
        for slot in (0..64).step_by(8) {
            let frames = (slot..slot + 8).map(|slot| page(slot, version));
            submit(&mut swap, IoOp::Write, slot, frames).unwrap();
        }
        // Somewhere in the middle of all that.
        for _ in 0..version {
            assert_eq!(complete(&mut swap).result, Ok(()));
        }
        rig.server.reboot().unwrap();
        for _ in version..8 {
            assert_eq!(complete(&mut swap).result, Ok(()));
        }
        rig.server.reboot().unwrap();
        for slot in 0..64 {
            assert_eq!(
                read(&mut swap, slot),
                Ok(page(slot, version)),
                "slot {slot}"
            );
        }
    }
    assert!(swap.stats().commits > 0);
    deactivate(&mut swap).unwrap();
}
