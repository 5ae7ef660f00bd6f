//! TCP and UDP through `std::net`, for hosts and tests.

mod udp;

extern crate alloc;
extern crate std;

use alloc::boxed::Box;
use alloc::vec;
use core::net::{IpAddr, SocketAddr};
use core::time::Duration;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};

use swapspace::Instant;

use super::{Link, LinkDown, Transport};

pub use udp::StdUdp;

/// Bytes of each of the two buffers.
const BUFFER: usize = 64 * 1024;

/// A non-blocking TCP connection to one host.
///
/// Its two buffers of 64 KiB are the only heap that it ever takes, when it is made. The host is
/// resolved then, too: swapping looks up no names (S5).
///
/// [`connect`](Transport::connect) alone may block, for as long as `connect_timeout`: the standard
/// library has no other way. To wait for something to happen, poll [the descriptor](std::os::fd)
/// for reading, and for writing too while [`wants_write`](Self::wants_write); or call
/// [`wait_readable`](Self::wait_readable) where a simple driver is enough.
///
/// The local port is an ephemeral one; export with `insecure` where the server wants a privileged
/// one.
///
/// ```no_run
/// use core::time::Duration;
/// use nfs_swap::transport::std::StdTcp;
///
/// let transport = StdTcp::resolve("nas.local", Duration::from_secs(1))?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct StdTcp {
    host: IpAddr,
    connect_timeout: Duration,
    stream: Result<TcpStream, LinkDown>,
    rx: Buffer,
    tx: Buffer,
}

#[derive(Debug)]
struct Buffer {
    bytes: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Buffer {
    fn new() -> Self {
        Buffer {
            bytes: vec![0; BUFFER].into_boxed_slice(),
            start: 0,
            end: 0,
        }
    }

    fn filled(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    fn refill(&mut self, len: usize) {
        self.start = 0;
        self.end = len.min(self.bytes.len());
    }

    fn consume(&mut self, len: usize) {
        self.start = (self.start + len).min(self.end);
    }
}

impl StdTcp {
    /// A transport to `host`, not connected yet.
    #[must_use]
    pub fn new(host: IpAddr, connect_timeout: Duration) -> Self {
        StdTcp {
            host,
            connect_timeout,
            stream: Err(LinkDown::Idle),
            rx: Buffer::new(),
            tx: Buffer::new(),
        }
    }

    /// A transport to the host of this name or address. May block while it looks up the name.
    ///
    /// # Errors
    ///
    /// There is no such host.
    pub fn resolve(host: &str, connect_timeout: Duration) -> io::Result<Self> {
        resolve(host).map(|host| StdTcp::new(host, connect_timeout))
    }

    /// The connection, while there is one: for poll(2).
    #[must_use]
    pub fn stream(&self) -> Option<&TcpStream> {
        self.stream.as_ref().ok()
    }

    /// Whether bytes wait for the socket to take them.
    #[must_use]
    pub fn wants_write(&self) -> bool {
        self.stream.is_ok() && !self.tx.filled().is_empty()
    }

    /// Blocks until something can be read, the connection ends, or `timeout` has passed. Returns
    /// at once when bytes wait to be written, or there is no connection.
    ///
    /// # Errors
    ///
    /// The socket refuses to be waited upon.
    pub fn wait_readable(&mut self, timeout: Duration) -> io::Result<()> {
        let idle = self.rx.filled().is_empty() && self.tx.filled().is_empty();
        let Some(stream) = self.stream().filter(|_| idle && !timeout.is_zero()) else {
            return Ok(());
        };
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(timeout))?;
        // Whatever it says, the next `recv` finds it out again.
        let _ = stream.peek(&mut [0]);
        stream.set_nonblocking(true)
    }

    fn lose(&mut self, error: &io::Error) {
        self.stream = Err(reason(error));
    }

    fn flush(&mut self) {
        while let Ok(stream) = &mut self.stream {
            if self.tx.filled().is_empty() {
                return;
            }
            match stream.write(self.tx.filled()) {
                Ok(written) => self.tx.consume(written),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => self.lose(&error),
            }
        }
    }

    fn fetch(&mut self) {
        while let Ok(stream) = &mut self.stream {
            match stream.read(&mut self.rx.bytes) {
                Ok(0) => self.stream = Err(LinkDown::Closed),
                Ok(len) => return self.rx.refill(len),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => self.lose(&error),
            }
        }
    }
}

impl Transport for StdTcp {
    fn connect(&mut self, port: u16, _now: Instant) -> Result<(), LinkDown> {
        self.close();
        let address = SocketAddr::new(self.host, port);
        let connected = TcpStream::connect_timeout(&address, self.connect_timeout)
            .and_then(|stream| {
                stream.set_nodelay(true)?;
                stream.set_nonblocking(true)?;
                Ok(stream)
            })
            .map_err(|error| reason(&error));
        let outcome = connected.as_ref().map(|_| ()).map_err(|down| *down);
        self.stream = connected;
        outcome
    }

    fn poll(&mut self, _now: Instant) -> Link {
        self.flush();
        match &self.stream {
            Ok(_) => Link::Up,
            Err(down) => Link::Down(*down),
        }
    }

    fn send(&mut self, fill: &mut dyn FnMut(&mut [u8]) -> usize) -> usize {
        self.flush();
        if self.stream.is_err() || !self.tx.filled().is_empty() {
            return 0;
        }
        let filled = fill(&mut self.tx.bytes);
        self.tx.refill(filled);
        self.flush();
        filled
    }

    fn recv(&mut self, consume: &mut dyn FnMut(&[u8]) -> usize) -> usize {
        if self.rx.filled().is_empty() {
            self.fetch();
        }
        if self.rx.filled().is_empty() {
            return 0;
        }
        let consumed = consume(self.rx.filled());
        self.rx.consume(consumed);
        consumed
    }

    fn next_deadline(&self) -> Option<Instant> {
        None
    }

    fn close(&mut self) {
        self.stream = Err(LinkDown::Idle);
        self.rx.refill(0);
        self.tx.refill(0);
    }
}

/// The first address of this name. May block.
fn resolve(host: &str) -> io::Result<IpAddr> {
    let first = (host, 0).to_socket_addrs()?.next();
    let address = first.ok_or_else(|| io::Error::from(ErrorKind::NotFound))?;
    Ok(address.ip())
}

fn reason(error: &io::Error) -> LinkDown {
    match error.kind() {
        ErrorKind::ConnectionRefused => LinkDown::Refused,
        ErrorKind::TimedOut | ErrorKind::WouldBlock => LinkDown::TimedOut,
        ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => LinkDown::Unreachable,
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::ConnectionAborted => {
            LinkDown::Reset
        }
        _ => LinkDown::Local,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::Ipv4Addr;
    use std::net::TcpListener;

    fn transport() -> StdTcp {
        StdTcp::new(Ipv4Addr::LOCALHOST.into(), Duration::from_secs(1))
    }

    #[test]
    fn a_port_without_a_listener_refuses() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let mut transport = transport();
        assert_eq!(
            transport.connect(port, Instant::ZERO),
            Err(LinkDown::Refused)
        );
        assert_eq!(transport.poll(Instant::ZERO), Link::Down(LinkDown::Refused));
    }

    #[test]
    fn a_close_by_the_peer_is_seen_after_the_last_byte() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let mut transport = transport();
        let port = listener.local_addr().unwrap().port();
        transport.connect(port, Instant::ZERO).unwrap();
        let (mut peer, _) = listener.accept().unwrap();
        peer.write_all(b"bye").unwrap();
        drop(peer);

        let mut got = vec![];
        while transport.poll(Instant::ZERO) == Link::Up {
            transport.wait_readable(Duration::from_secs(5)).unwrap();
            transport.recv(&mut |bytes| {
                got.push(bytes[0]);
                1
            });
        }
        assert_eq!(got, b"bye");
        assert_eq!(transport.poll(Instant::ZERO), Link::Down(LinkDown::Closed));
    }

    #[test]
    fn no_more_is_taken_than_the_socket_accepts() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let mut transport = transport();
        let port = listener.local_addr().unwrap().port();
        transport.connect(port, Instant::ZERO).unwrap();
        let (_deaf, _) = listener.accept().unwrap();
        while transport.send(&mut |buf| buf.len()) > 0 {}
        assert!(transport.wants_write());
        assert_eq!(transport.poll(Instant::ZERO), Link::Up);
    }
}
