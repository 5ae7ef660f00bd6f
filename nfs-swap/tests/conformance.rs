//! The contract of `AddressSpace` over real servers and real sockets.

mod support;

use std::io::Write;

use nfs_server::{Config, Server};
use nfs_swap::nfs3::StableHow;
use nfs_swap::transport::Protocol;
use nfs_swap::transport::std::{StdTcp, StdUdp};
use nfs_swap::{SwapFileConfig, SwapUrl};
use support::{
    PAGE, Socket, Swap, activate, config, deactivate, page, read, swap_over, url, wait, write,
};
use swapspace::conformance;

fn conforms<T: Socket>(url: &str, change: impl FnOnce(&mut SwapFileConfig)) {
    let mut config = config(url, 256);
    config.remove_on_deactivate = true;
    change(&mut config);
    let mut swap: Swap<T> = swap_over(url, config);
    let report = conformance(&mut swap, || vec![0; PAGE].into(), wait);
    let report = report.unwrap_or_else(|violation| panic!("{violation}"));
    assert_eq!(report.deepest, 8, "every request slot was in use at once");
}

fn server() -> (Server, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(Config::new(directory.path())).unwrap();
    (server, directory)
}

#[test]
fn a_swap_file_keeps_the_contract() {
    let (server, _directory) = server();
    conforms::<StdTcp>(&url(server.addr()), |_| {});
}

#[test]
fn a_swap_file_that_commits_keeps_the_contract() {
    let (server, _directory) = server();
    conforms::<StdTcp>(&url(server.addr()), |config| {
        config.client.stable = StableHow::Unstable
    });
}

/// Any server that `NFS_SWAP_URL` leads to; its file is created and removed.
#[test]
fn a_swap_file_on_a_server_outside_keeps_the_contract() {
    let Ok(url) = std::env::var("NFS_SWAP_URL") else {
        // Past the harness, which hides what a passing test prints.
        let hint = "\nNOT TESTED: no outside server; set NFS_SWAP_URL=nfs://HOST/EXPORT/FILE\n";
        std::io::stderr().write_all(hint.as_bytes()).unwrap();
        return;
    };
    match SwapUrl::parse(&url).unwrap().protocol {
        Protocol::Tcp => outside::<StdTcp>(&url),
        Protocol::Udp => outside::<StdUdp>(&url),
    }
}

fn outside<T: Socket>(url: &str) {
    conforms::<T>(url, |_| {});
    conforms::<T>(url, |config| config.client.stable = StableHow::Unstable);

    // What one connection wrote, another one reads.
    let mut config = config(url, 2048);
    config.remove_on_deactivate = true;
    let mut first: Swap<T> = swap_over(url, config.clone());
    activate(&mut first).unwrap();
    for slot in 0..2048 {
        write(&mut first, slot, page(slot, 1)).unwrap();
    }
    let mut second: Swap<T> = swap_over(url, config);
    activate(&mut second).unwrap();
    for slot in 0..2048 {
        assert_eq!(read(&mut second, slot), Ok(page(slot, 1)));
    }
    deactivate(&mut second).unwrap();
    deactivate(&mut first).unwrap();
}
