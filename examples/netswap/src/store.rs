//! Where the pages go: a server in this process, or one at a URL; and the way there.

use core::fmt;
use core::net::SocketAddr;
use std::io;
use std::net::ToSocketAddrs;

use nfs_server::{Config, Server};
use nfs_swap::transport::Protocol;
use nfs_swap::{NFS_PORT, SwapUrl, UrlError};
use tempfile::TempDir;

/// A server to swap to.
pub(crate) struct Store {
    /// Its URL, as the machine is told it.
    pub(crate) url: String,
    /// What people are told.
    pub(crate) name: String,
    /// Its address; the port is that of NFS.
    pub(crate) address: SocketAddr,
    /// Lives as long as it serves; with the directory that it serves from.
    _own: Option<(Server, TempDir)>,
}

impl Store {
    /// Starts a server in this process over a new temporary directory.
    ///
    /// # Errors
    ///
    /// The system has no port, thread or directory left.
    pub(crate) fn own() -> Result<Store, StoreError> {
        let directory = tempfile::tempdir().map_err(StoreError::Own)?;
        let server = Server::start(Config::new(directory.path())).map_err(StoreError::Own)?;
        let address = server.addr();
        Ok(Store {
            url: format!("nfs://{address}/export/swap"),
            name: format!("an NFSv3 server in this process ({address})"),
            address,
            _own: Some((server, directory)),
        })
    }

    /// Finds the server of a URL; it is not asked anything yet.
    ///
    /// # Errors
    ///
    /// The URL is malformed, or its host has no address.
    pub(crate) fn at(url: &str) -> Result<Store, StoreError> {
        let bad = |error| StoreError::Url {
            url: url.into(),
            error,
        };
        let parsed = SwapUrl::parse(url).map_err(bad)?;
        if parsed.protocol != Protocol::Tcp {
            return Err(StoreError::Protocol { url: url.into() });
        }
        let resolve = |error| StoreError::Resolve {
            host: parsed.host.into(),
            error,
        };
        let address = (parsed.host, parsed.port.unwrap_or(NFS_PORT))
            .to_socket_addrs()
            .map_err(resolve)?
            .next()
            .ok_or_else(|| resolve(io::ErrorKind::NotFound.into()))?;
        Ok(Store {
            url: url.into(),
            name: url.into(),
            address,
            _own: None,
        })
    }
}

/// Why there is no server to swap to.
#[derive(Debug)]
pub(crate) enum StoreError {
    /// The one in this process did not start.
    Own(io::Error),
    /// The URL is malformed.
    Url { url: String, error: UrlError },
    /// The gateway carries TCP only.
    Protocol { url: String },
    /// The host has no address.
    Resolve { host: String, error: io::Error },
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoreError::Own(error) => {
                write!(
                    f,
                    "the NFS server in this process did not start: {error}; name another with --server"
                )
            }
            StoreError::Url { url, error } => {
                write!(f, "--server {url}: {error} (nfs://HOST[:PORT]/EXPORT/FILE)")
            }
            StoreError::Protocol { url } => {
                write!(
                    f,
                    "--server {url}: the demonstration speaks TCP; leave proto=udp out"
                )
            }
            StoreError::Resolve { host, error } => {
                write!(
                    f,
                    "--server: cannot resolve {host}: {error}; check the name, or give an address"
                )
            }
        }
    }
}

impl core::error::Error for StoreError {}
