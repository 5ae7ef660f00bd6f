//! A small NFSv3 server to swap over: one directory of regular files, over TCP.
//!
//! It exists to be a strict peer. It can be killed in the middle of anything, it comes back on
//! the same port, and what it loses then is exactly what RFC 1813 lets a server lose: data written
//! `UNSTABLE` and not committed. File handles outlive a reboot, write verifiers do not, and disks
//! can be full or read-only. A client that cuts a corner is found out.
//!
//! ```
//! # fn main() -> std::io::Result<()> {
//! let directory = tempfile::tempdir()?;
//! let mut server = nfs_server::Server::start(nfs_server::Config::new(directory.path()))?;
//! let address = server.addr(); // NFS and MOUNT, program 100003 and 100005
//!
//! server.kill(); // connections are reset, new ones refused
//! server.reboot()?; // unstable data is gone, the verifier is another
//! assert_eq!(server.addr(), address);
//! # Ok(())
//! # }
//! ```
//!
//! # Parts
//!
//! - `nfs3_server` speaks RPC, MOUNT and NFS;
//! - `export` is the file system under it: names, handles, attributes, limits;
//! - `file` is one open file with its unstable data in an `overlay`;
//! - `boot` is one life of the server: a thread, its runtime, its listeners;
//! - `verifier` stands between the client and `nfs3_server` and puts this boot's verifier into
//!   the replies. `nfs3_server` has one number for both the generation of its handles and the
//!   write verifier, so alone it can either keep handles over a reboot or tell of the reboot.
//!
//! # Bounds
//!
//! Subdirectories, symbolic links, special files, RENAME, LINK, MKDIR and exclusive CREATE are not
//! supported. Of the client's credential nothing is checked: bind it to loopback. FSSTAT answers
//! constants.

#![allow(clippy::std_instead_of_alloc, reason = "this crate is hosted")]

mod boot;
mod export;
mod file;
mod overlay;
mod verifier;

use core::net::{Ipv4Addr, SocketAddr};
use std::io;
use std::path::PathBuf;

use crate::boot::Boot;

/// What to serve, and how strictly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The directory whose regular files are exported.
    pub root: PathBuf,
    /// Where to listen; port 0 takes any free port, and keeps it over reboots.
    pub bind: SocketAddr,
    /// What a client mounts, with a leading slash.
    pub export: String,
    /// Whether every change is refused with `NFS3ERR_ROFS`.
    pub read_only: bool,
    /// Bytes that all files together may be long; beyond it WRITE, SETATTR and CREATE fail with
    /// `NFS3ERR_NOSPC`. Lengths count, holes included.
    pub capacity: Option<u64>,
    /// Whether data written `UNSTABLE` is kept in memory until its COMMIT, so that it is lost when
    /// the server dies. Otherwise it goes to the file at once, as into a page cache.
    pub lose_unstable: bool,
    /// Whether stable writes and commits wait for `fdatasync`. Without it they survive the death of
    /// the server, but not that of the host: enough for tests, and much faster.
    pub fdatasync: bool,
}

impl Config {
    /// `root` as `/export` on any free port of 127.0.0.1: writable, without a limit, losing
    /// unstable data, without `fdatasync`.
    pub fn new(root: impl Into<PathBuf>) -> Config {
        Config {
            root: root.into(),
            bind: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            export: String::from("/export"),
            read_only: false,
            capacity: None,
            lose_unstable: true,
            fdatasync: false,
        }
    }
}

/// A running server, or one that was killed and can be rebooted. Dropping it kills it.
#[derive(Debug)]
pub struct Server {
    config: Config,
    boot: Option<Boot>,
}

impl Server {
    /// Starts to serve; connections are accepted when this returns.
    ///
    /// # Errors
    ///
    /// If `root` is not a directory, `export` is not an absolute path other than `/`, or the
    /// address cannot be bound.
    pub fn start(mut config: Config) -> io::Result<Server> {
        let boot = Boot::start(&config)?;
        config.bind = boot.addr();
        Ok(Server {
            config,
            boot: Some(boot),
        })
    }

    /// Where it listens, or listened before it was killed: both NFS and MOUNT.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.config.bind
    }

    /// Dies at once: every connection is reset, unanswered calls stay unanswered, unstable data is
    /// lost. The port is free when this returns. Does nothing to a dead server.
    pub fn kill(&mut self) {
        self.boot = None;
    }

    /// Dies, unless it is dead, and starts again at the same address with another write verifier.
    ///
    /// # Errors
    ///
    /// As [`Server::start`]; the server is dead then.
    pub fn reboot(&mut self) -> io::Result<()> {
        self.kill();
        self.boot = Some(Boot::start(&self.config)?);
        Ok(())
    }
}
