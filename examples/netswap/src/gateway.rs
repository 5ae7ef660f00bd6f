//! The router of the machine's network: it takes the machine's TCP connections and carries their
//! bytes to servers of the world outside.
//!
//! One thread runs a TCP/IP stack of its own at [`GATEWAY_IP`] and, for each [`Forward`], accepts
//! connections to a port. Each gets a fresh connection to the server, and what happens on one side
//! happens on the other: data, half-close, reset. A server that is dead or slow delays nobody else.
//! The thread sleeps until a frame, a server or a timer needs it.

mod connect;
mod connection;
mod port;
#[cfg(test)]
mod tests;

use core::iter;
use core::mem;
use core::net::SocketAddr;
use core::time::Duration;
use std::io;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use smoltcp::iface::{Config, Interface, SocketSet};
use smoltcp::socket::tcp;
use smoltcp::time::Instant as NetInstant;
use smoltcp::wire::IpCidr;

use self::connection::Connection;
use self::port::Port;
use crate::wire::event::{Wait, poll};
use crate::wire::{EventFd, GATEWAY_IP, GATEWAY_MAC, PREFIX_LEN, Wire, locked};

/// Connections of the machine to one port, listening ones included. When the last one is taken, the
/// one that was silent for longest is reset: its owner has most likely forgotten it.
const CONNECTIONS: usize = 8;

/// Turns of work before the thread looks whether it should stop.
const TURNS: usize = 64;

/// When the wire is full there is nothing to wait for but time.
const FULL_WIRE_RETRY: Duration = Duration::from_millis(1);

/// Connections to this port of the gateway go to that server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Forward {
    /// The port of [`GATEWAY_IP`] that the machine connects to.
    pub(crate) port: u16,
    /// The server.
    pub(crate) to: SocketAddr,
}

/// What the gateway did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct GatewayStats {
    /// Connections that the machine opened.
    pub(crate) accepted: u64,
    /// Those of them whose server refused.
    pub(crate) refused: u64,
    /// Those that ended by a reset, by whichever side; the refused ones included.
    pub(crate) reset: u64,
    /// Bytes of the streams, to servers.
    pub(crate) to_server: u64,
    /// Bytes of the streams, from servers.
    pub(crate) from_server: u64,
    /// Times that the thread woke up.
    pub(crate) wakeups: u64,
    /// Those of them when the wire to the machine had been full.
    pub(crate) wire_full: u64,
}

/// The running thread. Dropping it stops it.
#[derive(Debug)]
pub(crate) struct Gateway {
    stop: Arc<EventFd>,
    wanted: Arc<Mutex<Vec<Forward>>>,
    thread: Option<JoinHandle<io::Result<GatewayStats>>>,
}

impl Gateway {
    /// Starts to route.
    ///
    /// # Errors
    ///
    /// If the system has no descriptor or thread left.
    pub(crate) fn start(wire: Arc<Wire>) -> io::Result<Gateway> {
        let stop = Arc::new(EventFd::new()?);
        let stopped = Arc::clone(&stop);
        let wanted = Arc::new(Mutex::new(Vec::new()));
        let forwards = Arc::clone(&wanted);
        let thread = thread::Builder::new()
            .name(String::from("gateway"))
            .spawn(move || Router::new(wire, forwards).run(&stopped))?;
        Ok(Gateway {
            stop,
            wanted,
            thread: Some(thread),
        })
    }

    /// Lets connections through; whatever the machine sends from now on finds the port open.
    ///
    /// # Panics
    ///
    /// If the port is 0.
    pub(crate) fn forward(&self, forward: Forward) {
        assert_ne!(forward.port, 0, "nobody connects to port 0");
        locked(&self.wanted).push(forward);
    }

    /// Stops, with every connection reset, and says how it went.
    ///
    /// # Errors
    ///
    /// If the thread had ended before, because the system refused to wait.
    #[cfg(test)]
    pub(crate) fn stop(mut self) -> io::Result<GatewayStats> {
        self.join()
    }

    fn join(&mut self) -> io::Result<GatewayStats> {
        self.stop.ring();
        let Some(thread) = self.thread.take() else {
            return Ok(GatewayStats::default());
        };
        thread
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the gateway panicked")))
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // Without a gateway no page moves, and that is seen elsewhere.
        let _ = self.join();
    }
}

/// What the thread works with.
struct Router {
    wire: Arc<Wire>,
    /// Forwards that nobody listens for yet.
    wanted: Arc<Mutex<Vec<Forward>>>,
    port: Port,
    interface: Interface,
    sockets: SocketSet<'static>,
    /// `CONNECTIONS` to each forward, in the order in which they were asked for.
    connections: Vec<Connection>,
    start: Instant,
    stats: GatewayStats,
}

impl Router {
    fn new(wire: Arc<Wire>, wanted: Arc<Mutex<Vec<Forward>>>) -> Router {
        let start = Instant::now();
        let mut port = Port::new(Arc::clone(&wire));
        let config = Config::new(GATEWAY_MAC.into());
        let mut interface = Interface::new(config, &mut port, NetInstant::ZERO);
        interface.update_ip_addrs(|addresses| {
            // The list is empty, and holds two.
            let _ = addresses.push(IpCidr::new(GATEWAY_IP.into(), PREFIX_LEN));
        });
        Router {
            wire,
            wanted,
            port,
            interface,
            sockets: SocketSet::new(Vec::new()),
            connections: Vec::new(),
            start,
            stats: GatewayStats::default(),
        }
    }

    fn run(mut self, stop: &EventFd) -> io::Result<GatewayStats> {
        loop {
            let busy = (0..TURNS).all(|_| self.turn());
            if self.wait(stop, busy)? {
                break;
            }
        }
        for connection in &mut self.connections {
            connection.reset(self.sockets.get_mut(connection.socket()), &mut self.stats);
        }
        // The resets leave, unless the wire is full.
        self.turn();
        Ok(self.stats)
    }

    /// Moves every packet and byte that can be moved; true if that made new work.
    fn turn(&mut self) -> bool {
        let now = Instant::now();
        // In this order: whatever was sent after its port was asked for finds it open.
        self.port.admit_waiting();
        for forward in mem::take(&mut *locked(&self.wanted)) {
            let listen = || Connection::listen(&mut self.sockets, forward, now);
            self.connections
                .extend(iter::repeat_with(listen).take(CONNECTIONS));
        }
        self.interface
            .poll(self.net_now(), &mut self.port, &mut self.sockets);
        let mut worked = false;
        for connection in &mut self.connections {
            let socket = self.sockets.get_mut(connection.socket());
            worked |= connection.service(socket, now, &mut self.stats);
        }
        for of_one_port in self.connections.chunks_mut(CONNECTIONS) {
            worked |= keep_listening(of_one_port, &mut self.sockets, &mut self.stats);
        }
        worked
    }

    /// Sleeps until there is work, unless there is; true if that is to stop.
    fn wait(&mut self, stop: &EventFd, busy: bool) -> io::Result<bool> {
        let mut timeout = self
            .interface
            .poll_delay(self.net_now(), &self.sockets)
            .map(Duration::from);
        let mut waits = vec![Wait::readable(stop.as_fd())];
        if self.wire.has_room() {
            waits.push(Wait::readable(self.wire.gateway_fd()));
        } else {
            // A packet that comes in may need an answer: they wait as well.
            timeout = Some(FULL_WIRE_RETRY);
            self.stats.wire_full += 1;
        }
        if busy {
            timeout = Some(Duration::ZERO);
        }
        waits.extend(self.connections.iter().filter_map(|connection| {
            connection.server_wait(self.sockets.get::<tcp::Socket<'_>>(connection.socket()))
        }));
        poll(&mut waits, timeout)?;
        self.stats.wakeups += 1;
        Ok(waits[0].is_ready())
    }

    fn net_now(&self) -> NetInstant {
        NetInstant::from_micros(self.start.elapsed().as_micros() as i64)
    }
}

/// Resets the connection that was silent for longest if none of its port is free; true if it did.
fn keep_listening(
    connections: &mut [Connection],
    sockets: &mut SocketSet<'_>,
    stats: &mut GatewayStats,
) -> bool {
    if connections
        .iter()
        .any(|c| c.is_free(sockets.get(c.socket())))
    {
        return false;
    }
    let Some(oldest) = connections.iter_mut().min_by_key(|c| c.last_active()) else {
        return false;
    };
    oldest.reset(sockets.get_mut(oldest.socket()), stats);
    true
}
