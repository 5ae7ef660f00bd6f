//! One life of the server: from the listeners to the last reset connection.

use core::hash::{BuildHasher, Hasher};
use core::net::{Ipv4Addr, SocketAddr};
use core::time::Duration;
use std::collections::hash_map::RandomState;
use std::io;
use std::net::TcpListener;
use std::thread::{self, JoinHandle};

use nfs3_server::tcp::{NFSTcp, NFSTcpListener};
use tokio::net::{TcpListener as AsyncListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;

use crate::Config;
use crate::export::Export;
use crate::verifier::Relay;

/// The generation in every file handle. It never changes: a handle must outlive the server.
const HANDLE_GENERATION: u64 = u64::from_be_bytes(*b"nfs-swap");

/// How long to wait when the system has no descriptor for a new connection.
const ACCEPT_RETRY: Duration = Duration::from_millis(10);

/// A thread that serves until this is dropped.
#[derive(Debug)]
pub(crate) struct Boot {
    addr: SocketAddr,
    /// Dropped to stop the thread.
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Boot {
    /// Starts a life with an empty memory.
    pub(crate) fn start(config: &Config) -> io::Result<Boot> {
        let name = config.export.trim_matches('/');
        if name.is_empty() || !config.export.starts_with('/') {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "the export must be an absolute path other than /",
            ));
        }
        let export = Export::open(config)?;

        // The standard library sets SO_REUSEADDR, so connections of an earlier life do not matter.
        let listener = TcpListener::bind(config.bind)?;
        listener.set_nonblocking(true)?;
        let addr = listener.local_addr()?;

        // One thread: calls are short, and no call then waits for another's lock or for a second
        // thread to wake up.
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (listener, mut inner) = runtime.block_on(async {
            let inner = NFSTcpListener::bind_with_generation(
                &format!("{}:0", Ipv4Addr::LOCALHOST),
                export,
                HANDLE_GENERATION,
            )
            .await?;
            io::Result::Ok((AsyncListener::from_std(listener)?, inner))
        })?;
        inner.with_export_name(name);

        let (stop, stopped) = oneshot::channel();
        let thread = thread::Builder::new()
            .name(String::from("nfs-server"))
            .spawn(move || run(&runtime, listener, inner, stopped))?;
        Ok(Boot {
            addr,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Where it listens.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }
}

impl Drop for Boot {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // A panic of the server has been printed; its connections are gone all the same.
            let _ = thread.join();
        }
    }
}

/// Serves until stopped. Dropping the runtime then drops every connection as it stands.
fn run(
    runtime: &Runtime,
    listener: AsyncListener,
    inner: NFSTcpListener<Export>,
    stopped: oneshot::Receiver<()>,
) {
    let inner_addr = SocketAddr::new(inner.get_listen_ip(), inner.get_listen_port());
    runtime.block_on(async move {
        tokio::select! {
            _ = stopped => {}
            _ = inner.handle_forever() => {}
            () = accept(listener, inner_addr, new_verifier()) => {}
        }
    });
}

/// Takes connections, each into a task of its own.
async fn accept(listener: AsyncListener, inner: SocketAddr, verifier: [u8; 8]) {
    loop {
        match listener.accept().await {
            Ok((client, _)) => {
                tokio::spawn(serve(client, inner, verifier));
            }
            Err(_) => tokio::time::sleep(ACCEPT_RETRY).await,
        }
    }
}

/// Serves one connection. When it fails there is nobody left to tell.
async fn serve(client: TcpStream, inner: SocketAddr, verifier: [u8; 8]) -> io::Result<()> {
    // A killed server resets its connections and leaves none behind in TIME_WAIT.
    client.set_zero_linger()?;
    client.set_nodelay(true)?;
    // Not so this one: `nfs3_server` panics when it accepts a connection that is reset already.
    let server = TcpStream::connect(inner).await?;
    server.set_nodelay(true)?;
    Relay::new(verifier).run(client, server).await
}

/// A number that no other life has: the keys of a fresh hasher are random.
fn new_verifier() -> [u8; 8] {
    RandomState::new().build_hasher().finish().to_be_bytes()
}
