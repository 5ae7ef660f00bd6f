//! One connection of the machine, and the server's that belongs to it.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsFd;
use std::time::Instant;

use smoltcp::iface::{SocketHandle, SocketSet};
use smoltcp::socket::tcp::{self, Socket, State as Tcp};

use super::{Forward, GatewayStats, connect};
use crate::wire::event::Wait;

/// Bytes of a stream that wait for the machine, or for the server.
const BUFFER: usize = 256 << 10;

/// A pair of connections, or one half that listens.
#[derive(Debug)]
pub(super) struct Connection {
    socket: SocketHandle,
    forward: Forward,
    state: State,
    last_active: Instant,
}

#[derive(Debug)]
enum State {
    /// Nobody has connected.
    Listening,
    /// The machine has connected; the server has not answered.
    Connecting(TcpStream),
    /// Both are connected.
    Open(Open),
    /// The server's half is gone, and the machine's half has packets to send before it can listen
    /// again: the rest of the data, an end, a reset.
    Ending,
}

#[derive(Debug)]
struct Open {
    server: TcpStream,
    /// The server will send no more, and the machine's connection was told to close.
    server_done: bool,
    /// The machine will send no more, and the server has everything.
    machine_done: bool,
}

impl Connection {
    /// Listens at the port of `forward`.
    pub(super) fn listen(
        sockets: &mut SocketSet<'static>,
        forward: Forward,
        now: Instant,
    ) -> Connection {
        let buffer = || tcp::SocketBuffer::new(vec![0; BUFFER]);
        let mut socket = Socket::new(buffer(), buffer());
        // The tail of a reply must not wait for an acknowledgement.
        socket.set_nagle_enabled(false);
        listen(&mut socket, forward);
        Connection {
            socket: sockets.add(socket),
            forward,
            state: State::Listening,
            last_active: now,
        }
    }

    /// The machine's half.
    pub(super) fn socket(&self) -> SocketHandle {
        self.socket
    }

    /// Whether it listens, or will once a packet has left.
    pub(super) fn is_free(&self, socket: &Socket<'_>) -> bool {
        match self.state {
            State::Listening => true,
            State::Ending => socket.state() == Tcp::Closed,
            State::Connecting(_) | State::Open(_) => false,
        }
    }

    /// When a byte last went either way.
    pub(super) fn last_active(&self) -> Instant {
        self.last_active
    }

    /// What to wait for on the server's side.
    pub(super) fn server_wait(&self, socket: &Socket<'_>) -> Option<Wait<'_>> {
        match &self.state {
            State::Listening | State::Ending => None,
            State::Connecting(server) => Some(Wait::new(server.as_fd(), false, true)),
            State::Open(open) => {
                let read = !open.server_done && socket.can_send();
                let write = socket.can_recv();
                // A descriptor with nothing to wait for would report a dead peer again and again.
                (read || write).then(|| Wait::new(open.server.as_fd(), read, write))
            }
        }
    }

    /// Does what can be done without waiting; true if the machine's side should be polled again.
    pub(super) fn service(
        &mut self,
        socket: &mut Socket<'_>,
        now: Instant,
        stats: &mut GatewayStats,
    ) -> bool {
        match &mut self.state {
            State::Listening => {
                if socket.is_listening() {
                    return false;
                }
                self.last_active = now;
                stats.accepted += 1;
                match connect::start(self.forward.to) {
                    Ok(server) => self.state = State::Connecting(server),
                    Err(_) => self.refuse(socket, stats),
                }
                true
            }
            State::Connecting(server) => {
                if was_reset(socket) {
                    self.reset(socket, stats);
                    return true;
                }
                match connect::is_connected(server) {
                    Ok(false) => return false,
                    Ok(true) => self.open(socket, stats),
                    Err(_) => self.refuse(socket, stats),
                }
                true
            }
            State::Open(open) => {
                let moved = match open.carry(socket, stats) {
                    Ok(moved) => moved,
                    Err(_) => {
                        self.reset(socket, stats);
                        return true;
                    }
                };
                if moved {
                    self.last_active = now;
                }
                if open.server_done && open.machine_done {
                    self.state = State::Ending;
                } else if was_reset(socket) {
                    self.reset(socket, stats);
                } else {
                    return moved;
                }
                true
            }
            State::Ending => {
                // A closed socket that knows its peer has a reset to send.
                if socket.state() != Tcp::Closed || socket.remote_endpoint().is_some() {
                    return false;
                }
                self.state = State::Listening;
                listen(socket, self.forward);
                true
            }
        }
    }

    /// Ends both halves at once. Does nothing to one that listens.
    pub(super) fn reset(&mut self, socket: &mut Socket<'_>, stats: &mut GatewayStats) {
        match core::mem::replace(&mut self.state, State::Ending) {
            State::Listening => self.state = State::Listening,
            State::Ending => socket.abort(),
            State::Connecting(server) | State::Open(Open { server, .. }) => {
                connect::reset(server);
                socket.abort();
                stats.reset += 1;
            }
        }
    }

    /// The server cannot be reached.
    fn refuse(&mut self, socket: &mut Socket<'_>, stats: &mut GatewayStats) {
        self.state = State::Ending;
        socket.abort();
        stats.refused += 1;
        stats.reset += 1;
    }

    /// The server has answered.
    fn open(&mut self, socket: &mut Socket<'_>, stats: &mut GatewayStats) {
        match core::mem::replace(&mut self.state, State::Ending) {
            State::Connecting(server) if server.set_nodelay(true).is_ok() => {
                self.state = State::Open(Open {
                    server,
                    server_done: false,
                    machine_done: false,
                });
            }
            _ => self.refuse(socket, stats),
        }
    }
}

impl Open {
    /// Moves bytes both ways; true if there were any, or an end.
    fn carry(&mut self, socket: &mut Socket<'_>, stats: &mut GatewayStats) -> io::Result<bool> {
        let was_done = self.server_done;
        let to_server = self.write_out(socket)?;
        let from_server = self.read_in(socket)?;
        stats.to_server += to_server;
        stats.from_server += from_server;
        let mut moved = to_server + from_server > 0 || self.server_done != was_done;

        let sent_all = matches!(
            socket.state(),
            Tcp::CloseWait | Tcp::LastAck | Tcp::Closing | Tcp::TimeWait
        );
        if sent_all && !self.machine_done && !socket.can_recv() {
            self.server.shutdown(Shutdown::Write)?;
            self.machine_done = true;
            moved = true;
        }
        Ok(moved)
    }

    fn write_out(&mut self, socket: &mut Socket<'_>) -> io::Result<u64> {
        let mut bytes = 0;
        while socket.can_recv() {
            let written = socket.recv(|data| match self.server.write(data) {
                Ok(n) => (n, Ok(n)),
                Err(error) => (0, Err(error)),
            });
            match written {
                Ok(Ok(n)) => bytes += n as u64,
                Ok(Err(error)) if error.kind() == ErrorKind::WouldBlock => break,
                Ok(Err(error)) if error.kind() == ErrorKind::Interrupted => {}
                Ok(Err(error)) => return Err(error),
                Err(_) => break,
            }
        }
        Ok(bytes)
    }

    fn read_in(&mut self, socket: &mut Socket<'_>) -> io::Result<u64> {
        let mut bytes = 0;
        while !self.server_done && socket.can_send() {
            let read = socket.send(|buffer| match self.server.read(buffer) {
                Ok(n) => (n, Ok(n)),
                Err(error) => (0, Err(error)),
            });
            match read {
                Ok(Ok(0)) => {
                    self.server_done = true;
                    socket.close();
                }
                Ok(Ok(n)) => bytes += n as u64,
                Ok(Err(error)) if error.kind() == ErrorKind::WouldBlock => break,
                Ok(Err(error)) if error.kind() == ErrorKind::Interrupted => {}
                Ok(Err(error)) => return Err(error),
                Err(_) => break,
            }
        }
        Ok(bytes)
    }
}

/// Whether the machine has reset its half. One whose handshake was not over listens again then.
fn was_reset(socket: &Socket<'_>) -> bool {
    matches!(socket.state(), Tcp::Closed | Tcp::Listen)
}

/// Makes a socket listen whose connection is over.
fn listen(socket: &mut Socket<'_>, forward: Forward) {
    socket
        .listen(forward.port)
        .expect("the socket is not open, and the port not 0");
}
