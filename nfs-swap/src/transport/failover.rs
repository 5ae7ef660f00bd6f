//! Several addresses of one server, one after another.

use swapspace::Instant;

use super::{Link, LinkDown, Transport};
use crate::rpc::Framing;

/// A transport over `N` others, each to another address of the same server: when a connection is
/// lost or does not come about, the next one goes to the next address, and after the last to the
/// first.
///
/// Whoever connects to the same port again has lost the connection before; that is how it is known
/// that the present address is no good. A file that is deactivated and activated again may so begin
/// at another address, where it is as well off.
///
/// All of the transports frame messages alike. Every address must lead to the same file system: a file handle of one is used at all the others.
/// Where it is not valid, requests end with `NFS3ERR_STALE` or `NFS3ERR_BADHANDLE`, which is
/// [`Gone`](swapspace::ErrorKind::Gone). Pages that were written over one address and not yet
/// committed are written again if the other belongs to another boot of the server.
///
#[cfg_attr(feature = "std", doc = "```no_run")]
#[cfg_attr(not(feature = "std"), doc = "```ignore")]
/// use core::time::Duration;
/// use nfs_swap::transport::Failover;
/// use nfs_swap::transport::std::StdTcp;
/// use nfs_swap::{SwapFile, SwapFileConfig, SwapUrl};
///
/// let url = SwapUrl::parse("nfs://10.0.2.2:2049/srv/swap/node1")?;
/// let config = SwapFileConfig::new(&url, 65_536)?;
/// let address = |host: &str| StdTcp::resolve(host, Duration::from_secs(1));
/// let transport = Failover::new([address(url.host)?, address("10.0.3.2")?]);
/// let swap = SwapFile::<Box<[u8]>, _, 32>::new(transport, config);
/// # Ok::<(), Box<dyn core::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Failover<T, const N: usize> {
    transports: [T; N],
    current: usize,
    /// What the last connection went to.
    port: Option<u16>,
}

impl<T: Transport, const N: usize> Failover<T, N> {
    /// A transport that begins with the first of these.
    ///
    /// # Panics
    ///
    /// If there is none.
    #[must_use]
    pub const fn new(transports: [T; N]) -> Self {
        assert!(N > 0, "a server has one address at least");
        Failover {
            transports,
            current: 0,
            port: None,
        }
    }

    /// Which of the transports is in use.
    #[must_use]
    pub const fn current(&self) -> usize {
        self.current
    }

    /// The transport in use.
    #[must_use]
    pub const fn transport(&self) -> &T {
        &self.transports[self.current]
    }

    /// The transport in use, to wait upon it.
    #[must_use]
    pub const fn transport_mut(&mut self) -> &mut T {
        &mut self.transports[self.current]
    }
}

impl<T: Transport, const N: usize> Transport for Failover<T, N> {
    fn framing(&self) -> Framing {
        self.transports[0].framing()
    }

    fn strangers(&self) -> u64 {
        self.transports.iter().map(Transport::strangers).sum()
    }

    fn connect(&mut self, port: u16, now: Instant) -> Result<(), LinkDown> {
        if self.port == Some(port) {
            self.transport_mut().close();
            self.current = (self.current + 1) % N;
        }
        self.port = Some(port);
        self.transport_mut().connect(port, now)
    }

    fn poll(&mut self, now: Instant) -> Link {
        self.transport_mut().poll(now)
    }

    fn send(&mut self, fill: &mut dyn FnMut(&mut [u8]) -> usize) -> usize {
        self.transport_mut().send(fill)
    }

    fn recv(&mut self, consume: &mut dyn FnMut(&[u8]) -> usize) -> usize {
        self.transport_mut().recv(consume)
    }

    fn next_deadline(&self) -> Option<Instant> {
        self.transport().next_deadline()
    }

    fn close(&mut self) {
        self.transport_mut().close();
    }

    fn addresses(&self) -> usize {
        let each = self.transports.iter().map(Transport::addresses);
        each.sum()
    }
}
