//! The program as a user meets it: command line in, exit status and last line out.
//!
//! Each test runs the real binary. Servers are real ones (`nfs-server`), or sockets that misbehave.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::thread;

use nfs_server::{Config, Server};
use serde_json::Value;

/// A machine that a debug build moves quickly, four times smaller than its program.
const SMALL: [&str; 6] = ["--ram", "6M", "--working-set", "24M", "--flood", "3000"];

fn netswap(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_netswap"));
    command
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn url(server: &Server, path: &str) -> String {
    format!("nfs://{}/{path}", server.addr())
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The last line of standard output.
fn report(output: &Output) -> Value {
    let out = text(&output.stdout);
    let line = out.lines().last().unwrap_or_default();
    serde_json::from_str(line)
        .unwrap_or_else(|e| panic!("no JSON ({e}):\n{out}\n{}", text(&output.stderr)))
}

fn assert_verified(output: &Output) -> Value {
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let report = report(output);
    assert_eq!(report["verdict"], "verified", "{report}");
    assert_eq!(
        (&report["mismatches"], &report["charges_left"]),
        (&0.into(), &0.into())
    );
    assert!(
        report["pages_verified"].as_u64() >= Some(6144),
        "every page at least: {report}"
    );
    report
}

/// Refused with status 2 and one line that holds all of `words`.
fn assert_refused(output: &Output, words: &[&str]) {
    let complaint = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{complaint}");
    let lines: Vec<_> = complaint
        .lines()
        .filter(|l| l.starts_with("netswap:"))
        .collect();
    assert_eq!(
        lines.len(),
        1,
        "one line that names the problem: {complaint}"
    );
    for word in words {
        assert!(lines[0].contains(word), "{word:?} is not in {:?}", lines[0]);
    }
}

#[test]
fn a_small_machine_verifies_every_page() {
    let output = netswap(&SMALL)
        .args(["--seconds", "2", "--json"])
        .output()
        .unwrap();
    let report = assert_verified(&output);
    assert!(report["pages_out"].as_u64() > Some(0) && report["pages_in"].as_u64() > Some(0));
}

#[test]
fn explicit_paging_verifies_every_page_too() {
    let output = netswap(&SMALL)
        .args(["--seconds", "2", "--json", "--explicit"])
        .output()
        .unwrap();
    assert_verified(&output);
    assert!(
        text(&output.stderr).contains("explicit"),
        "it says how it pages"
    );
}

#[test]
fn a_report_is_one_self_contained_page() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("run.html");
    let output = netswap(&SMALL)
        .args(["--seconds", "1", "--report", file.to_str().unwrap()])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let page = fs::read_to_string(&file).unwrap();
    assert!(page.contains("<svg") && !page.contains("http://") && !page.contains("https://"));
}

/// Reads progress lines until one shows pages going out.
fn wait_for_page_outs(progress: &mut impl BufRead) {
    loop {
        let mut line = String::new();
        assert_ne!(
            progress.read_line(&mut line).unwrap(),
            0,
            "the run ended too early"
        );
        let columns: Vec<&str> = line.split_whitespace().collect();
        let is_row = columns
            .first()
            .is_some_and(|c| c.ends_with('s') && c.len() > 1);
        let out = columns.get(3).and_then(|c| c.parse::<u64>().ok());
        if is_row && out > Some(0) {
            return;
        }
    }
}

/// Starts a run against `server` and returns once it swaps.
fn start_swapping(server: &Server, seconds: &str) -> (Child, BufReader<std::process::ChildStderr>) {
    let url = url(server, "export/swap");
    let mut child = netswap(&SMALL)
        .args(["--seconds", seconds, "--json", "--server", &url])
        .spawn()
        .unwrap();
    let mut progress = BufReader::new(child.stderr.take().unwrap());
    wait_for_page_outs(&mut progress);
    (child, progress)
}

fn finish(child: Child, mut progress: BufReader<std::process::ChildStderr>) -> Output {
    let rest = thread::spawn(move || {
        let mut rest = Vec::new();
        progress.read_to_end(&mut rest).map(|_| rest)
    });
    let mut output = child.wait_with_output().unwrap();
    output.stderr = rest.join().unwrap().unwrap();
    output
}

#[test]
fn a_server_that_dies_and_comes_back_loses_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let mut server = Server::start(Config::new(directory.path())).unwrap();
    let (child, mut progress) = start_swapping(&server, "6");
    server.kill();
    // A whole second without a server, seen from inside: the next line but one has no page-out.
    let mut line = String::new();
    progress.read_line(&mut line).unwrap();
    progress.read_line(&mut line).unwrap();
    server.reboot().unwrap();
    wait_for_page_outs(&mut progress);
    assert_verified(&finish(child, progress));
    assert_eq!(
        fs::read_dir(directory.path()).unwrap().count(),
        0,
        "the swap file is gone"
    );
}

#[test]
fn a_server_that_never_comes_back_is_an_error_and_no_hang() {
    let directory = tempfile::tempdir().unwrap();
    let mut server = Server::start(Config::new(directory.path())).unwrap();
    let url = url(&server, "export/swap");
    let mut child = netswap(&SMALL)
        .args(["--seconds", "60", "--deadline", "6", "--server", &url])
        .spawn()
        .unwrap();
    let mut progress = BufReader::new(child.stderr.take().unwrap());
    wait_for_page_outs(&mut progress);
    server.kill();
    let output = finish(child, progress);
    assert_refused(&output, &["deadline", "may be left"]);
}

#[test]
fn an_interrupted_run_puts_its_file_away() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(Config::new(directory.path())).unwrap();
    for signal in ["-INT", "-TERM", "-HUP"] {
        let (child, progress) = start_swapping(&server, "60");
        let pid = child.id().to_string();
        let killed = Command::new("kill").args([signal, &pid]).status().unwrap();
        assert!(killed.success());
        assert_refused(&finish(child, progress), &["interrupted"]);
        assert_eq!(listing(directory.path()), [], "after {signal}");
    }
}

#[test]
fn a_deadlock_is_explained_and_leaves_nothing_behind() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(Config::new(directory.path())).unwrap();
    for (mechanism, holder) in [
        ("reserve", "reserve"),
        ("vmio-filter", "socket"),
        ("slab-admission", "slab"),
    ] {
        let url = url(&server, "export/swap");
        let output = netswap(&["--without", mechanism, "--json", "--server", &url])
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(3), "{}", text(&output.stderr));
        let report = report(&output);
        assert_eq!(report["verdict"], "no-progress");
        let held_by = report["deadlock"]["holder"].as_str().unwrap();
        assert!(held_by.contains(holder), "{held_by}");
        assert_eq!(listing(directory.path()), [], "without {mechanism}");
    }
}

/// Nobody listens to what it says: it goes on, and puts its file away.
#[test]
fn output_that_nobody_reads_ends_no_run() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(Config::new(directory.path())).unwrap();
    let mut child = netswap(&SMALL)
        .args(["--seconds", "2", "--server", &url(&server, "export/swap")])
        .spawn()
        .unwrap();
    drop((child.stdout.take(), child.stderr.take()));
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_eq!(listing(directory.path()), []);
}

#[test]
fn an_older_report_survives_a_run_that_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let [old, new] = ["old.html", "new.html"].map(|name| directory.path().join(name));
    fs::write(&old, "old").unwrap();
    for file in [&old, &new] {
        let output = netswap(&["--ram", "64K", "--report", file.to_str().unwrap()])
            .output()
            .unwrap();
        assert_refused(&output, &["--ram"]);
    }
    assert_eq!(fs::read_to_string(&old).unwrap(), "old");
    assert!(!new.exists());
}

/// A server that does `answer` with each connection.
fn misbehaving(answer: impl Fn(TcpStream) + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            answer(stream);
        }
    });
    format!("nfs://{address}/export/swap")
}

#[test]
fn a_server_that_answers_garbage_is_named() {
    let url = misbehaving(|mut stream| {
        let _ = stream.read(&mut [0; 1024]);
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
    });
    let output = netswap(&["--deadline", "4", "--server", &url])
        .output()
        .unwrap();
    assert_refused(&output, &[]);
}

#[test]
fn a_server_that_closes_in_the_middle_of_a_record_is_named() {
    let url = misbehaving(|mut stream| {
        let _ = stream.read(&mut [0; 1024]);
        // A record mark that promises 64 bytes, and four of them.
        let _ = stream.write_all(&[0x80, 0, 0, 64, 1, 2, 3, 4]);
    });
    let output = netswap(&["--deadline", "4", "--server", &url])
        .output()
        .unwrap();
    assert_refused(&output, &[]);
}

#[test]
fn a_silent_server_is_given_up_at_the_deadline() {
    let (sender, held) = std::sync::mpsc::channel();
    let url = misbehaving(move |stream| sender.send(stream).unwrap());
    let output = netswap(&["--deadline", "4", "--server", &url])
        .output()
        .unwrap();
    assert_refused(&output, &[]);
    drop(held);
}

#[test]
fn bad_words_are_refused_with_their_remedy() {
    for (args, words) in [
        (
            vec!["--server", "ftp://127.0.0.1/export/swap"],
            vec!["nfs://"],
        ),
        (vec!["--server", "nfs://127.0.0.1"], vec!["nfs://"]),
        (vec!["--ram", "64K"], vec!["--ram"]),
        (vec!["--ram", "1024G"], vec!["--ram", "64G"]),
        (vec!["--ram", "512K"], vec!["--ram", "budget"]),
        (vec!["--without", "gravity"], vec!["gravity", "vmio-filter"]),
    ] {
        assert_refused(&netswap(&args).output().unwrap(), &words);
    }
}

/// What a server makes of a run that it cannot serve: the complaint, and nothing left behind.
fn refused_by(config: Config, path: &str, words: &[&str]) {
    let root = config.root.clone();
    let before = listing(&root);
    let server = Server::start(config).unwrap();
    let url = url(&server, path);
    let output = netswap(&SMALL)
        .args(["--seconds", "1", "--server", &url])
        .output()
        .unwrap();
    assert_refused(&output, words);
    assert_eq!(listing(&root), before, "something was left behind");
}

fn listing(root: &Path) -> Vec<(String, u64)> {
    let mut files: Vec<_> = fs::read_dir(root)
        .unwrap()
        .map(|e| e.unwrap())
        .map(|e| {
            (
                e.file_name().into_string().unwrap(),
                e.metadata().unwrap().len(),
            )
        })
        .collect();
    files.sort();
    files
}

#[test]
fn nobody_listens() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("nfs://{}/export/swap", listener.local_addr().unwrap());
    drop(listener);
    let output = netswap(&["--deadline", "4", "--server", &url])
        .output()
        .unwrap();
    assert_refused(&output, &[]);
}

#[test]
fn a_missing_export_is_named() {
    let directory = tempfile::tempdir().unwrap();
    refused_by(
        Config::new(directory.path()),
        "elsewhere/swap",
        &["elsewhere"],
    );
}

#[test]
fn a_name_that_is_no_file_is_refused_at_once() {
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(directory.path().join("swap")).unwrap();
    refused_by(Config::new(directory.path()), "export/swap", &["swap"]);
}

#[test]
fn a_read_only_export_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let config = Config {
        read_only: true,
        ..Config::new(directory.path())
    };
    refused_by(config, "export/swap", &["read-only"]);
}

#[test]
fn a_file_that_is_too_small_is_named_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("swap"), [7; 4096]).unwrap();
    refused_by(Config::new(directory.path()), "export/swap", &["4096"]);
    assert_eq!(fs::read(directory.path().join("swap")).unwrap(), [7; 4096]);
}

#[test]
fn a_full_disk_is_named_and_left_clean() {
    let directory = tempfile::tempdir().unwrap();
    let config = Config {
        capacity: Some(1 << 20),
        ..Config::new(directory.path())
    };
    refused_by(config, "export/swap", &["space"]);
}
