//! A swap file under load on a server that is not ours, while things happen to the server and to the
//! file: each has its documented end, nothing hangs, and no byte is wrong.
//!
//! `NFS_SWAP_GANESHA` names the script that runs the server (`.ci/ganesha.sh`; root). Each test has
//! a server and a tmpfs of its own, one after another.

mod support;

use core::time::Duration;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

use nfs_swap::{FileMode, LeaseConfig, LeasePolicy, Owner, SwapFileConfig, SwapFileError};
use support::{PAGE, Swap, activate, complete, config, deactivate, now, page, read, submit, swap};
use support::{wait, write};
use swapspace::{AddressSpace, ErrorKind, IoOp, SpaceError};

const SLOTS: u32 = 64;
/// Requests in flight at once.
const DEEP: u32 = 8;

struct Ganesha {
    script: String,
    state: tempfile::TempDir,
    size: &'static str,
    _one_at_a_time: MutexGuard<'static, ()>,
}

impl Ganesha {
    /// A server over a tmpfs of `size`; `None`, and a hint, where there is no script to start one.
    fn start(size: &'static str) -> Option<Self> {
        static PORT: Mutex<()> = Mutex::new(());
        let Ok(script) = std::env::var("NFS_SWAP_GANESHA") else {
            // Past the harness, which hides what a passing test prints.
            let hint = "\nNOT TESTED: no nfs-ganesha; set NFS_SWAP_GANESHA=.../.ci/ganesha.sh\n";
            std::io::stderr().write_all(hint.as_bytes()).unwrap();
            return None;
        };
        let server = Ganesha {
            script,
            state: tempfile::tempdir().unwrap(),
            size,
            _one_at_a_time: PORT.lock().unwrap_or_else(PoisonError::into_inner),
        };
        server.tell("start");
        Some(server)
    }

    fn command(&self, words: &str) -> Command {
        let mut command = Command::new("bash");
        command
            .arg(&self.script)
            .args(words.split(' '))
            .env("GANESHA_DIR", self.state.path())
            .env("GANESHA_PORT", "20590")
            .env("GANESHA_SIZE", self.size);
        command
    }

    fn tell(&self, words: &str) {
        let status = self.command(words).status().unwrap();
        assert!(status.success(), "{words}: {status}");
    }

    fn ask(&self, words: &str) -> String {
        let output = self.command(words).output().unwrap();
        assert!(output.status.success(), "{words}: {}", output.status);
        String::from(String::from_utf8(output.stdout).unwrap().trim())
    }

    fn path(&self, name: &str) -> PathBuf {
        PathBuf::from(self.ask("dir")).join(name)
    }

    fn swap(&self, change: impl FnOnce(&mut SwapFileConfig)) -> Swap {
        let url = self.ask("url swap");
        let mut config = config(&url, SLOTS);
        config.client.rpc_timeout = Duration::from_millis(300);
        change(&mut config);
        swap(&url, config)
    }
}

impl Drop for Ganesha {
    fn drop(&mut self) {
        // A test that failed may have left it stopped, or dead.
        let _ = self.command("resume").output();
        let _ = self.command("clean").output();
    }
}

/// Which version each slot holds.
type Model = [u32; SLOTS as usize];

/// Writes every slot and reads it back, as many requests at a time as go; `happens` while the `n`th
/// batch of writes is in flight.
fn load(swap: &mut Swap, model: &mut Model, n: u32, mut happens: impl FnMut(&mut Swap)) {
    for first in (0..SLOTS).step_by(DEEP as usize) {
        for slot in first..first + DEEP {
            model[slot as usize] += 1;
            let version = model[slot as usize];
            submit(swap, IoOp::Write, slot, [page(slot, version)]).unwrap();
        }
        if first / DEEP == n {
            happens(swap);
        }
        for _ in 0..DEEP {
            assert_eq!(complete(swap).result, Ok(()));
        }
    }
    verify(swap, model, 0..SLOTS);
}

fn verify(swap: &mut Swap, model: &Model, slots: core::ops::Range<u32>) {
    for slot in slots {
        let version = model[slot as usize];
        assert_eq!(read(swap, slot), Ok(page(slot, version)), "slot {slot}");
    }
}

#[test]
fn a_server_that_is_killed_and_comes_back_costs_no_request() {
    let Some(server) = Ganesha::start("16m") else {
        return;
    };
    let mut swap = server.swap(|_| {});
    activate(&mut swap).unwrap();
    let mut model = [0; SLOTS as usize];
    for n in [1, 5] {
        let resent = swap.stats().resent;
        load(&mut swap, &mut model, n, |swap| {
            // So that it has them, and answers none.
            server.tell("pause");
            assert!(swap.poll(now()).is_none());
            server.tell("kill9");
            server.tell("start");
        });
        assert!(swap.stats().resent >= resent + u64::from(DEEP));
    }
    deactivate(&mut swap).unwrap();
}

#[test]
fn a_server_that_is_paused_costs_no_request() {
    let Some(server) = Ganesha::start("16m") else {
        return;
    };
    let mut swap = server.swap(|_| {});
    activate(&mut swap).unwrap();
    let mut model = [0; SLOTS as usize];
    load(&mut swap, &mut model, 3, |swap| {
        server.tell("pause");
        let resets = swap.stats().resets;
        while swap.stats().resets == resets {
            assert!(swap.poll(now()).is_none());
            wait(swap);
        }
        server.tell("resume");
    });
    deactivate(&mut swap).unwrap();
}

/// Writes slot 0 until that ends in `kind`, or well if there is none.
fn write_until(swap: &mut Swap, model: &mut Model, kind: Option<ErrorKind>) {
    loop {
        let version = model[0] + 1;
        let result = write(swap, 0, page(0, version));
        if result.is_ok() {
            model[0] = version;
        }
        match result {
            Ok(()) if kind.is_none() => return,
            Err(error) if Some(error.kind()) == kind => return,
            // The server has not read its exports again yet.
            Ok(()) => {}
            Err(error) => assert_eq!(error.kind(), ErrorKind::ReadOnly, "{error}"),
        }
    }
}

#[test]
fn an_export_that_becomes_read_only_refuses_page_outs_by_name_and_serves_page_ins() {
    let Some(server) = Ganesha::start("16m") else {
        return;
    };
    let mut swap = server.swap(|_| {});
    activate(&mut swap).unwrap();
    let mut model = [0; SLOTS as usize];
    load(&mut swap, &mut model, 0, |_| server.tell("access RW"));
    server.tell("access RO");
    write_until(&mut swap, &mut model, Some(ErrorKind::ReadOnly));
    verify(&mut swap, &model, 0..SLOTS);
    server.tell("access RW");
    write_until(&mut swap, &mut model, None);
    load(&mut swap, &mut model, SLOTS, |_| {});
    deactivate(&mut swap).unwrap();
}

#[test]
fn a_full_server_refuses_page_outs_by_name_until_there_is_room() {
    let Some(server) = Ganesha::start("256k") else {
        return;
    };
    let ballast = server.path("ballast");
    fs::write(&ballast, vec![0; 128 * 1024]).unwrap();
    let file = File::create(server.path("swap")).unwrap();
    file.set_len(u64::from(SLOTS) * PAGE as u64).unwrap();
    // A file with holes is refused by default, for this very reason.
    let error = activate(&mut server.swap(|_| {})).unwrap_err();
    assert!(matches!(error, SwapFileError::Holes { .. }), "{error}");

    let mut swap = server.swap(|config| {
        config.mode = FileMode::Attach;
        config.allow_holes = true;
    });
    activate(&mut swap).unwrap();
    let mut model = [0; SLOTS as usize];
    let full = (0..SLOTS).find(|&slot| {
        let result = write(&mut swap, slot, page(slot, 1));
        model[slot as usize] = u32::from(result.is_ok());
        result.is_err_and(|error| {
            assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
            true
        })
    });
    let full = full.expect("there is no room for all of it");
    verify(&mut swap, &model, 0..full);
    fs::remove_file(ballast).unwrap();
    assert_eq!(write(&mut swap, full, page(full, 2)), Ok(()));
    assert_eq!(read(&mut swap, full), Ok(page(full, 2)));
    deactivate(&mut swap).unwrap();
}

#[test]
fn what_somebody_cuts_off_is_gone_by_name_and_the_rest_is_not() {
    let Some(server) = Ganesha::start("16m") else {
        return;
    };
    let mut swap = server.swap(|_| {});
    activate(&mut swap).unwrap();
    let mut model = [0; SLOTS as usize];
    load(&mut swap, &mut model, SLOTS, |_| {});
    let file = File::options().write(true).open(server.path("swap"));
    let half = SLOTS / 2;
    file.unwrap()
        .set_len(u64::from(half) * PAGE as u64)
        .unwrap();
    for slot in half..SLOTS {
        let error = read(&mut swap, slot).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Gone, "{error}");
    }
    verify(&mut swap, &model, 0..half);
    deactivate(&mut swap).unwrap();
    // It remembers the old size for a while: the file was cut off behind its back.
    server.tell("kill9");
    server.tell("start");
    let error = activate(&mut swap).unwrap_err();
    assert!(matches!(error, SwapFileError::TooSmall { .. }), "{error}");
}

/// The server may keep it open for a while, and then the pages are still there.
#[test]
fn a_file_that_somebody_removes_is_gone_by_name_when_the_server_has_let_go_of_it() {
    let Some(server) = Ganesha::start("16m") else {
        return;
    };
    let mut swap = server.swap(|_| {});
    activate(&mut swap).unwrap();
    let mut model = [0; SLOTS as usize];
    load(&mut swap, &mut model, SLOTS, |_| {});
    fs::remove_file(server.path("swap")).unwrap();
    // Another file under the same name is not ours.
    fs::write(server.path("swap"), vec![0; SLOTS as usize * PAGE]).unwrap();
    for (slot, version) in (0..).zip(model) {
        match read(&mut swap, slot) {
            Ok(frame) => assert_eq!(frame, page(slot, version)),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Gone, "{error}"),
        }
    }
    server.tell("kill9");
    server.tell("start");
    for slot in 0..SLOTS {
        let error = read(&mut swap, slot).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Gone, "{error}");
        let error = write(&mut swap, slot, page(slot, 9)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Gone, "{error}");
    }
    deactivate(&mut swap).unwrap();
    let stranger = fs::read(server.path("swap")).unwrap();
    assert!(stranger.iter().all(|&byte| byte == 0), "nothing reached it");
}

#[test]
fn a_lease_is_kept_and_taken_over_here_too() {
    let Some(server) = Ganesha::start("16m") else {
        return;
    };
    let lease = |name, boot_id| LeaseConfig::new(Owner::new(name).unwrap(), boot_id);
    let mut first = server.swap(|config| config.lease = Some(lease("first", 1)));
    activate(&mut first).unwrap();
    let mut other = server.swap(|config| config.lease = Some(lease("other", 2)));
    let error = activate(&mut other).unwrap_err();
    assert!(matches!(error, SwapFileError::InUse { boot_id: 1, .. }));
    drop(first);

    let mut next = server.swap(|config| config.lease = Some(lease("first", 3)));
    activate(&mut next).unwrap();
    assert_eq!(next.lease_taken_from().map(|from| from.boot_id), Some(1));
    let mut heir = server.swap(|config| {
        let policy = LeasePolicy::TakeOver;
        config.lease = Some(LeaseConfig {
            policy,
            ..lease("heir", 4)
        });
    });
    activate(&mut heir).unwrap();
    let lost = loop {
        if let core::task::Poll::Ready(result) = next.renew_lease(now()) {
            break result;
        }
        wait(&mut next);
    };
    assert!(matches!(
        lost,
        Err(SwapFileError::LeaseLost { to: Some(_) })
    ));
    deactivate(&mut heir).unwrap();
    assert!(!server.path("swap.lease").exists());
}
