//! Serves a directory over NFSv3 until it is killed, which may happen at any moment.

use core::net::{Ipv4Addr, SocketAddr};
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::{io, thread};

use lexopt::prelude::*;
use nfs_server::{Config, Server};

const HELP: &str = "\
nfs-server: exports the files of a directory as /export, over NFSv3 on 127.0.0.1

Usage: nfs-server --root DIR [--port P] [--read-only] [--capacity BYTES]

  --root DIR        the directory
  --port P          where NFS and MOUNT listen; 0 takes a free port [default: 0]
  --read-only       refuse every change
  --capacity BYTES  bytes that all files together may be long
  -h, --help        this text

Prints `listening on 127.0.0.1:P` once it does. Data written UNSTABLE is kept in
memory until it is committed, and lost when the server is killed.
";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("nfs-server: {error}");
            ExitCode::from(2)
        }
    }
}

fn run() -> Result<(), lexopt::Error> {
    let Some(config) = parse(lexopt::Parser::from_env())? else {
        print!("{HELP}");
        return Ok(());
    };
    let root = config.root.display().to_string();
    let server = Server::start(config).map_err(|error| format!("cannot serve {root}: {error}"))?;
    let mut out = io::stdout().lock();
    writeln!(out, "listening on {}", server.addr())
        .and_then(|()| out.flush())
        .map_err(|error| format!("cannot say where it listens: {error}"))?;
    loop {
        thread::park();
    }
}

/// The settings, or `None` when help is asked for.
fn parse(mut parser: lexopt::Parser) -> Result<Option<Config>, lexopt::Error> {
    let mut root = None;
    let mut port = 0;
    let mut read_only = false;
    let mut capacity = None;
    while let Some(arg) = parser.next()? {
        match arg {
            Long("root") => root = Some(PathBuf::from(parser.value()?)),
            Long("port") => port = parser.value()?.parse()?,
            Long("read-only") => read_only = true,
            Long("capacity") => capacity = Some(parser.value()?.parse()?),
            Short('h') | Long("help") => return Ok(None),
            _ => return Err(arg.unexpected()),
        }
    }
    let root = root.ok_or("no directory to serve: say --root DIR")?;
    Ok(Some(Config {
        bind: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
        read_only,
        capacity,
        ..Config::new(root)
    }))
}
