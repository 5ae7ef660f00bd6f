//! What a client may rely on, and what it must not.

mod common;

use core::net::SocketAddr;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::os::unix::fs::symlink;
use std::process::{Child, Command, Stdio};

use nfs_server::{Config, Server};
use nfs3_types::mount::mountstat3;
use nfs3_types::nfs3::stable_how::{DATA_SYNC, FILE_SYNC, UNSTABLE};
use nfs3_types::nfs3::{createhow3, createverf3, nfsstat3, sattr3};
use tempfile::TempDir;

use common::Client;

fn start(change: impl FnOnce(&mut Config)) -> (TempDir, Server) {
    let directory = tempfile::tempdir().unwrap();
    let mut config = Config::new(directory.path());
    change(&mut config);
    let server = Server::start(config).unwrap();
    (directory, server)
}

#[test]
fn unstable_data_is_seen_until_a_reboot_loses_it_and_changes_the_verifier() {
    let (directory, mut server) = start(|_| {});
    let (mut client, root) = Client::mount(server.addr());
    let file = client.create(&root, "swap");

    let stable = client.write(&file, 0, &[1; 4096], FILE_SYNC).unwrap();
    assert_eq!(stable.committed, FILE_SYNC);
    let lost = client.write(&file, 100, &[2; 8000], UNSTABLE).unwrap();
    assert_eq!((lost.committed, lost.count), (UNSTABLE, 8000));
    assert_eq!(lost.verf, stable.verf, "one life, one verifier");
    assert_eq!(client.getattr(&file).unwrap().size, 8100);
    let seen = client.read(&file, 0, 10_000).unwrap();
    assert_eq!(seen, [vec![1; 100], vec![2; 8000]].concat());
    assert_eq!(fs::read(directory.path().join("swap")).unwrap(), [1; 4096]);

    server.reboot().unwrap();
    let mut client = Client::connect(server.addr());
    assert_eq!(client.read(&file, 0, 10_000).unwrap(), [1; 4096]);
    let again = client.write(&file, 0, &[3], FILE_SYNC).unwrap();
    assert_ne!(again.verf, stable.verf);
    assert_eq!(client.commit(&file, 0, 0), again.verf);
}

#[test]
fn committed_data_survives_and_the_rest_does_not() {
    let (_directory, mut server) = start(|_| {});
    let (mut client, root) = Client::mount(server.addr());
    let file = client.create(&root, "swap");
    client.set_len(&file, 3 * 4096).unwrap();
    for page in 0..3 {
        let data = [page + 1; 4096];
        client
            .write(&file, 4096 * u64::from(page), &data, UNSTABLE)
            .unwrap();
    }
    client.commit(&file, 4096, 4096);

    server.reboot().unwrap();
    let seen = Client::connect(server.addr())
        .read(&file, 0, 3 * 4096)
        .unwrap();
    assert_eq!(seen, [[0; 4096], [2; 4096], [0; 4096]].concat());
}

#[test]
fn a_commit_of_count_zero_reaches_to_the_end() {
    let (_directory, mut server) = start(|_| {});
    let (mut client, root) = Client::mount(server.addr());
    let file = client.create(&root, "swap");
    client.write(&file, 0, &[1; 8], UNSTABLE).unwrap();
    client.write(&file, 5000, &[2; 8], UNSTABLE).unwrap();
    client.commit(&file, 100, 0);

    server.reboot().unwrap();
    let mut client = Client::connect(server.addr());
    assert_eq!(client.read(&file, 0, 8).unwrap(), [0; 8]);
    assert_eq!(client.read(&file, 5000, 8).unwrap(), [2; 8]);
}

#[test]
fn a_stable_write_over_unstable_data_stays() {
    for stable in [DATA_SYNC, FILE_SYNC] {
        let (_directory, mut server) = start(|_| {});
        let (mut client, root) = Client::mount(server.addr());
        let file = client.create(&root, "swap");
        client.write(&file, 0, &[1; 30], UNSTABLE).unwrap();
        client.write(&file, 10, &[2; 10], stable).unwrap();
        let whole = [[1; 10], [2; 10], [1; 10]].concat();
        assert_eq!(client.read(&file, 0, 99).unwrap(), whole);

        server.reboot().unwrap();
        let seen = Client::connect(server.addr()).read(&file, 0, 99).unwrap();
        assert_eq!(seen, [[0; 10], [2; 10]].concat());
    }
}

#[test]
fn a_truncated_file_does_not_get_its_unstable_data_back() {
    let (_directory, server) = start(|_| {});
    let (mut client, root) = Client::mount(server.addr());
    let file = client.create(&root, "swap");
    client.write(&file, 0, &[1; 30], UNSTABLE).unwrap();
    client.set_len(&file, 10).unwrap();
    client.set_len(&file, 20).unwrap();
    let seen = client.read(&file, 0, 99).unwrap();
    assert_eq!(seen, [[1; 10], [0; 10]].concat());
}

#[test]
fn unstable_data_is_kept_when_the_configuration_says_so() {
    let (_directory, mut server) = start(|config| config.lose_unstable = false);
    let (mut client, root) = Client::mount(server.addr());
    let file = client.create(&root, "swap");
    let written = client.write(&file, 0, &[1; 30], UNSTABLE).unwrap();
    assert_eq!(written.committed, UNSTABLE);
    server.reboot().unwrap();
    let mut client = Client::connect(server.addr());
    assert_eq!(client.read(&file, 0, 99).unwrap(), [1; 30]);
    assert_ne!(client.commit(&file, 0, 0), written.verf);
}

#[test]
fn handles_outlive_a_reboot_and_die_with_their_file() {
    let (directory, mut server) = start(|_| {});
    let (mut client, root) = Client::mount(server.addr());
    let file = client.create(&root, "swap");
    server.reboot().unwrap();

    let (mut client, root_again) = Client::mount(server.addr());
    assert_eq!(root_again, root);
    assert_eq!(client.lookup(&root, "swap").unwrap(), file);
    client.write(&file, 0, b"page", FILE_SYNC).unwrap();

    // Removed by a client, by the host, and by the host while the server was down.
    client.remove(&root, "swap").unwrap();
    assert_eq!(client.read(&file, 0, 4), Err(nfsstat3::NFS3ERR_STALE));
    let file = client.create(&root, "swap");
    fs::remove_file(directory.path().join("swap")).unwrap();
    assert_eq!(client.read(&file, 0, 4), Err(nfsstat3::NFS3ERR_STALE));
    let file = client.create(&root, "swap");
    server.kill();
    fs::remove_file(directory.path().join("swap")).unwrap();
    server.reboot().unwrap();
    let mut client = Client::connect(server.addr());
    assert_eq!(client.read(&file, 0, 4), Err(nfsstat3::NFS3ERR_STALE));
}

#[test]
fn a_read_only_export_can_be_read_and_nothing_else() {
    let (directory, mut server) = start(|config| config.read_only = true);
    fs::write(directory.path().join("swap"), b"page").unwrap();
    server.reboot().unwrap();
    let (mut client, root) = Client::mount(server.addr());
    let file = client.lookup(&root, "swap").unwrap();
    assert_eq!(client.read(&file, 0, 4).unwrap(), b"page");
    let refused = nfsstat3::NFS3ERR_ROFS;
    for stable in [UNSTABLE, FILE_SYNC] {
        let written = client.write(&file, 0, b"x", stable);
        assert_eq!(written.unwrap_err(), refused);
    }
    assert_eq!(client.set_len(&file, 9), Err(refused));
    assert_eq!(client.remove(&root, "swap"), Err(refused));
    let how = createhow3::UNCHECKED(sattr3::default());
    assert_eq!(client.try_create(&root, "other", how), Err(refused));
    assert_eq!(fs::read(directory.path().join("swap")).unwrap(), b"page");
}

#[test]
fn the_capacity_bounds_all_files_together() {
    let (_directory, server) = start(|config| config.capacity = Some(10_000));
    let (mut client, root) = Client::mount(server.addr());
    let full = nfsstat3::NFS3ERR_NOSPC;
    let one = client.create(&root, "one");
    client.set_len(&one, 6_000).unwrap();
    let two = client.create(&root, "two");
    client.write(&two, 0, &[1; 4_000], UNSTABLE).unwrap();

    assert_eq!(client.set_len(&one, 6_001), Err(full));
    for stable in [UNSTABLE, FILE_SYNC] {
        assert_eq!(
            client.write(&two, 1, &[1; 4_000], stable).unwrap_err(),
            full
        );
    }
    client.write(&two, 0, &[2; 4_000], FILE_SYNC).unwrap();
    client.set_len(&one, 5_999).unwrap();
    client.write(&two, 1, &[1; 4_000], FILE_SYNC).unwrap();
    client.remove(&root, "one").unwrap();
    client.write(&two, 9_999, &[1], UNSTABLE).unwrap();
    assert_eq!(
        client.write(&two, 10_000, &[1], UNSTABLE).unwrap_err(),
        full
    );
}

#[test]
fn only_the_export_itself_can_be_mounted() {
    let (directory, server) = start(|_| {});
    fs::write(directory.path().join("file"), b"").unwrap();
    let mut client = Client::connect(server.addr());
    let root = client.mnt("/export").unwrap();
    assert_eq!(client.mnt("/export/").unwrap(), root);
    // The third: whoever compares prefixes would take it for a file of the export.
    for wrong in [
        "/",
        "/wrong",
        "/exportfile",
        "/export/file",
        "/export/..",
        "",
        "export",
    ] {
        let refused = client.mnt(wrong).unwrap_err();
        assert!(
            matches!(refused, mountstat3::MNT3ERR_NOENT),
            "{wrong}: {refused:?}"
        );
    }
}

#[test]
fn no_name_leads_out_of_the_directory() {
    let (directory, server) = start(|_| {});
    fs::create_dir(directory.path().join("sub")).unwrap();
    symlink("/etc/passwd", directory.path().join("link")).unwrap();
    let (mut client, root) = Client::mount(server.addr());
    assert_eq!(client.lookup(&root, "..").unwrap(), root);
    for name in ["link", "sub"] {
        assert_eq!(client.lookup(&root, name), Err(nfsstat3::NFS3ERR_ACCES));
    }
    let absent = client.lookup(&root, "absent");
    assert_eq!(absent, Err(nfsstat3::NFS3ERR_NOENT));
    for name in ["../etc", "/etc", "sub/x", ""] {
        assert_eq!(client.lookup(&root, name), Err(nfsstat3::NFS3ERR_INVAL));
    }
    let how = createhow3::UNCHECKED(sattr3::default());
    let created = client.try_create(&root, "link", how);
    assert_eq!(created, Err(nfsstat3::NFS3ERR_EXIST));
    assert!(client.readdir(&root, 4096).is_empty());
}

#[test]
fn creating_what_exists_keeps_it_or_fails_as_asked() {
    let (_directory, server) = start(|_| {});
    let (mut client, root) = Client::mount(server.addr());
    let guarded = || createhow3::GUARDED(sattr3::default());
    let file = client.try_create(&root, "swap", guarded()).unwrap();
    client.write(&file, 0, b"page", FILE_SYNC).unwrap();
    assert_eq!(client.create(&root, "swap"), file);
    assert_eq!(client.read(&file, 0, 9).unwrap(), b"page");
    let again = client.try_create(&root, "swap", guarded());
    assert_eq!(again, Err(nfsstat3::NFS3ERR_EXIST));
    let exclusive = createhow3::EXCLUSIVE(createverf3::default());
    let refused = client.try_create(&root, "other", exclusive);
    assert_eq!(refused, Err(nfsstat3::NFS3ERR_NOTSUPP));
}

#[test]
fn a_listing_in_pieces_shows_every_file_once() {
    let (directory, server) = start(|_| {});
    let mut wanted: Vec<String> = (0..300).map(|n| format!("file-{n}")).collect();
    for name in &wanted {
        fs::write(directory.path().join(name), b"").unwrap();
    }
    let (mut client, root) = Client::mount(server.addr());
    for bytes in [512, 1 << 16] {
        let mut seen = client.readdir(&root, bytes);
        seen.sort();
        wanted.sort();
        assert_eq!(seen, wanted, "{bytes}");
    }
}

#[test]
fn more_files_than_are_kept_open_keep_their_unstable_data() {
    let (_directory, server) = start(|_| {});
    let (mut client, root) = Client::mount(server.addr());
    let first = client.create(&root, "first");
    client.write(&first, 0, b"page", UNSTABLE).unwrap();
    for n in 0..600 {
        client.create(&root, &n.to_string());
    }
    assert_eq!(client.read(&first, 0, 4).unwrap(), b"page");
}

#[test]
fn a_killed_server_resets_its_connections_refuses_new_ones_and_frees_the_port() {
    let (_directory, mut server) = start(|_| {});
    let addr = server.addr();
    for _ in 0..20 {
        let (mut client, root) = Client::mount(addr);
        server.kill();
        server.kill();
        assert!(TcpStream::connect(addr).is_err());
        let object = nfs3_types::nfs3::GETATTR3args { object: root };
        let dead = client.call::<nfs3_types::nfs3::GETATTR3res>(100_003, 1, &object);
        assert!(dead.is_err());
        server.reboot().unwrap();
        assert_eq!(server.addr(), addr);
    }
}

#[test]
fn connections_that_are_reset_at_once_do_not_harm_the_server() {
    let (_directory, server) = start(|_| {});
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .unwrap();
    for _ in 0..300 {
        let connected = tokio::net::TcpStream::connect(server.addr());
        let stream = runtime.block_on(connected).unwrap();
        stream.set_zero_linger().unwrap();
    }
    Client::mount(server.addr());
}

#[test]
fn nonsense_costs_the_connection_only() {
    let (_directory, server) = start(|_| {});
    let mut stream = TcpStream::connect(server.addr()).unwrap();
    std::io::Write::write_all(&mut stream, &[0x80, 0, 0, 4, 1, 2, 3, 4]).unwrap();
    let read = std::io::Read::read(&mut stream, &mut [0; 4]);
    assert!(matches!(read, Ok(0) | Err(_)));
    Client::mount(server.addr());
}

#[test]
fn what_cannot_be_served_is_refused_at_the_start() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    fs::write(&file, b"").unwrap();
    assert!(Server::start(Config::new(&file)).is_err());
    assert!(Server::start(Config::new(directory.path().join("absent"))).is_err());
    for export in ["/", "", "export"] {
        let mut config = Config::new(directory.path());
        config.export = String::from(export);
        assert!(Server::start(config).is_err(), "{export}");
    }
}

/// The binary, killed when dropped.
struct Process(Child, SocketAddr);

impl Process {
    fn start(root: &TempDir, port: u16) -> Process {
        let mut child = Command::new(env!("CARGO_BIN_EXE_nfs-server"))
            .arg("--root")
            .arg(root.path())
            .args(["--port", &port.to_string()])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        out.read_line(&mut line).unwrap();
        let addr = line.trim_end().strip_prefix("listening on ").unwrap();
        let addr = addr.parse().unwrap();
        Process(child, addr)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[test]
fn the_binary_can_be_killed_and_started_again_at_the_same_port() {
    let directory = tempfile::tempdir().unwrap();
    let process = Process::start(&directory, 0);
    let addr = process.1;
    let (mut client, root) = Client::mount(addr);
    let file = client.create(&root, "swap");
    let kept = client.write(&file, 0, b"kept", FILE_SYNC).unwrap();
    client.write(&file, 4, b"lost", UNSTABLE).unwrap();
    drop(process);

    let process = Process::start(&directory, addr.port());
    assert_eq!(process.1, addr);
    let mut client = Client::connect(addr);
    assert_eq!(client.read(&file, 0, 8).unwrap(), b"kept");
    assert_ne!(client.commit(&file, 0, 0), kept.verf);
}
