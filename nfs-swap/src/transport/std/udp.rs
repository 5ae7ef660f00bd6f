//! UDP through `std::net`.

extern crate alloc;
extern crate std;

use alloc::boxed::Box;
use alloc::vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use core::time::Duration;
use std::io::{self, ErrorKind};
use std::net::UdpSocket;

use swapspace::Instant;

use super::{reason, resolve};
use crate::rpc::{Framing, UDP_PAYLOAD_MAX};
use crate::transport::{Link, LinkDown, Transport};

/// Bytes of a buffer that no datagram fills.
const BUFFER: usize = 64 * 1024;

/// A non-blocking UDP socket for one host.
///
/// Its two buffers of 64 KiB are the only heap that it ever takes, when it is made. The host is
/// resolved then, too: swapping looks up no names (S5). Nothing blocks.
///
/// The socket is connected, so that the system lets in nothing but what the server sends from its
/// port, and tells when nobody listens there. That news only counts until the server has been heard:
/// afterwards it is one that reboots, and the client goes on asking.
///
/// To wait for something to happen, poll [the descriptor](std::os::fd) for reading, and for writing
/// too while [`wants_write`](Self::wants_write); or call [`wait_readable`](Self::wait_readable)
/// where a simple driver is enough.
///
/// ```no_run
/// use nfs_swap::transport::std::StdUdp;
///
/// let transport = StdUdp::resolve("nas.local")?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct StdUdp {
    host: IpAddr,
    socket: Result<UdpSocket, LinkDown>,
    peer: SocketAddr,
    /// Whether the peer has sent anything to this socket.
    heard: bool,
    strangers: u64,
    rx: Box<[u8]>,
    tx: Box<[u8]>,
    /// Bytes of the datagram that waits in `tx`; 0 if none does.
    waiting: usize,
}

impl StdUdp {
    /// A transport to `host`, without a socket yet.
    #[must_use]
    pub fn new(host: IpAddr) -> Self {
        StdUdp {
            host,
            socket: Err(LinkDown::Idle),
            peer: SocketAddr::new(host, 0),
            heard: false,
            strangers: 0,
            rx: vec![0; BUFFER].into_boxed_slice(),
            tx: vec![0; BUFFER].into_boxed_slice(),
            waiting: 0,
        }
    }

    /// A transport to the host of this name or address. May block while it looks up the name.
    ///
    /// # Errors
    ///
    /// There is no such host.
    pub fn resolve(host: &str) -> io::Result<Self> {
        resolve(host).map(StdUdp::new)
    }

    /// The socket, while there is one: for poll(2).
    #[must_use]
    pub fn socket(&self) -> Option<&UdpSocket> {
        self.socket.as_ref().ok()
    }

    /// Whether a datagram waits for the socket to take it.
    #[must_use]
    pub fn wants_write(&self) -> bool {
        self.socket.is_ok() && self.waiting > 0
    }

    /// Blocks until something can be read, or `timeout` has passed. Returns at once when a datagram
    /// waits to be sent, or there is no socket.
    ///
    /// # Errors
    ///
    /// The socket refuses to be waited upon.
    pub fn wait_readable(&mut self, timeout: Duration) -> io::Result<()> {
        let idle = self.waiting == 0 && !timeout.is_zero();
        let Some(socket) = self.socket().filter(|_| idle) else {
            return Ok(());
        };
        socket.set_nonblocking(false)?;
        socket.set_read_timeout(Some(timeout))?;
        let waited = socket.peek(&mut [0]);
        socket.set_nonblocking(true)?;
        // An error that is told once is told to us, and not to the next `recv`.
        if let Err(error) = waited
            && !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
        {
            self.take(&error);
        }
        Ok(())
    }

    /// What an error of the socket means. Nobody listens there, it may say: of a server that has
    /// been heard on this socket, not for long.
    fn take(&mut self, error: &io::Error) {
        let passing = matches!(
            error.kind(),
            ErrorKind::Interrupted | ErrorKind::ConnectionRefused
        );
        if !passing || error.kind() == ErrorKind::ConnectionRefused && !self.heard {
            self.socket = Err(reason(error));
        }
    }

    fn flush(&mut self) {
        while let Ok(socket) = &self.socket
            && self.waiting > 0
        {
            match socket.send(&self.tx[..self.waiting]) {
                Ok(_) => self.waiting = 0,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) => self.take(&error),
            }
        }
    }

    /// The length of the next datagram from the peer, which is in `rx` then.
    fn fetch(&mut self) -> Option<usize> {
        loop {
            let socket = self.socket.as_ref().ok()?;
            match socket.recv_from(&mut self.rx) {
                // One from elsewhere may have come before the socket was connected.
                Ok((_, from)) if !same(from, self.peer) => self.strangers += 1,
                Ok((0, _)) => self.heard = true,
                Ok((len, _)) => {
                    self.heard = true;
                    return Some(len);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
                Err(error) => self.take(&error),
            }
        }
    }
}

impl Transport for StdUdp {
    fn framing(&self) -> Framing {
        Framing::datagrams(UDP_PAYLOAD_MAX)
    }

    fn strangers(&self) -> u64 {
        self.strangers
    }

    fn connect(&mut self, port: u16, _now: Instant) -> Result<(), LinkDown> {
        self.close();
        self.peer = SocketAddr::new(self.host, port);
        let any: IpAddr = match self.host {
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        self.socket = UdpSocket::bind((any, 0))
            .and_then(|socket| {
                socket.connect(self.peer)?;
                socket.set_nonblocking(true)?;
                Ok(socket)
            })
            .map_err(|error| reason(&error));
        self.socket.as_ref().map(|_| ()).map_err(|down| *down)
    }

    fn poll(&mut self, _now: Instant) -> Link {
        self.flush();
        match &self.socket {
            Ok(_) => Link::Up,
            Err(down) => Link::Down(*down),
        }
    }

    fn send(&mut self, fill: &mut dyn FnMut(&mut [u8]) -> usize) -> usize {
        self.flush();
        if self.socket.is_err() || self.waiting > 0 {
            return 0;
        }
        let filled = fill(&mut self.tx).min(self.tx.len());
        self.waiting = filled;
        self.flush();
        filled
    }

    fn recv(&mut self, consume: &mut dyn FnMut(&[u8]) -> usize) -> usize {
        match self.fetch() {
            Some(len) => {
                consume(&self.rx[..len]);
                len
            }
            None => 0,
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        None
    }

    fn close(&mut self) {
        self.socket = Err(LinkDown::Idle);
        self.heard = false;
        self.waiting = 0;
    }
}

/// Whether two addresses are the same as far as a server is concerned.
fn same(a: SocketAddr, b: SocketAddr) -> bool {
    (a.ip(), a.port()) == (b.ip(), b.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer() -> (UdpSocket, u16) {
        let peer = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = peer.local_addr().unwrap().port();
        (peer, port)
    }

    fn transport(port: u16) -> StdUdp {
        let mut transport = StdUdp::new(Ipv4Addr::LOCALHOST.into());
        transport.connect(port, Instant::ZERO).unwrap();
        assert_eq!(transport.poll(Instant::ZERO), Link::Up);
        transport
    }

    fn say(transport: &mut StdUdp, words: &[u8]) -> usize {
        transport.send(&mut |buf| {
            buf[..words.len()].copy_from_slice(words);
            words.len()
        })
    }

    fn hear(transport: &mut StdUdp) -> alloc::vec::Vec<u8> {
        transport.wait_readable(Duration::from_secs(5)).unwrap();
        let mut heard = vec![];
        transport.recv(&mut |bytes| {
            heard.extend_from_slice(bytes);
            bytes.len()
        });
        heard
    }

    #[test]
    fn datagrams_stay_whole_and_apart() {
        let (peer, port) = peer();
        let mut transport = transport(port);
        let long = vec![7; UDP_PAYLOAD_MAX];
        assert_eq!(say(&mut transport, b"one"), 3);
        assert_eq!(say(&mut transport, &long), long.len());
        let mut buf = vec![0; BUFFER];
        let (len, from) = peer.recv_from(&mut buf).unwrap();
        assert_eq!(&buf[..len], b"one");
        assert_eq!(peer.recv(&mut buf).unwrap(), long.len());
        for message in [&b"two"[..], b"", &long, b"three"] {
            peer.send_to(message, from).unwrap();
        }
        assert_eq!(hear(&mut transport), b"two");
        assert_eq!(hear(&mut transport), long, "an empty one is none");
        assert_eq!(hear(&mut transport), b"three");
    }

    #[test]
    fn a_stranger_is_not_heard() {
        let (peer, port) = peer();
        let mut transport = transport(port);
        say(&mut transport, b"call");
        let (_, from) = peer.recv_from(&mut [0; 8]).unwrap();
        let (stranger, _) = self::peer();
        stranger.send_to(b"forged", from).unwrap();
        peer.send_to(b"reply", from).unwrap();
        assert_eq!(hear(&mut transport), b"reply");
    }

    #[test]
    fn what_came_from_elsewhere_before_the_socket_was_connected_is_dropped() {
        let (peer, port) = peer();
        let mut transport = transport(port);
        say(&mut transport, b"call");
        let (_, from) = peer.recv_from(&mut [0; 8]).unwrap();
        // As if it had been connected to another one since.
        transport.peer.set_port(port ^ 1);
        peer.send_to(b"early", from).unwrap();
        assert!(hear(&mut transport).is_empty());
        assert_eq!(transport.strangers(), 1);
    }

    #[test]
    fn nobody_there_is_an_error_until_the_server_was_heard() {
        let (gone, port) = peer();
        drop(gone);
        let mut first = transport(port);
        say(&mut first, b"call");
        hear(&mut first);
        assert_eq!(
            first.poll(Instant::ZERO),
            Link::Down(LinkDown::Refused),
            "the system told"
        );

        let (server, port) = peer();
        let mut second = transport(port);
        say(&mut second, b"call");
        let (_, from) = server.recv_from(&mut [0; 8]).unwrap();
        server.send_to(b"reply", from).unwrap();
        assert_eq!(hear(&mut second), b"reply");
        drop(server);
        say(&mut second, b"call");
        hear(&mut second);
        assert_eq!(second.poll(Instant::ZERO), Link::Up);
    }
}
