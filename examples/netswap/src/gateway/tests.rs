//! The machine is a `smoltcp` stack here, and the servers are real sockets.

use core::net::{Ipv4Addr, SocketAddr};
use core::time::Duration;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{self, DeviceCapabilities, Medium};
use smoltcp::socket::tcp::{self, Socket, State};
use smoltcp::time::Instant as NetInstant;
use smoltcp::wire::IpCidr;

use super::{CONNECTIONS, Forward, Gateway, connect};
use crate::wire::event::{Wait, poll};
use crate::wire::{FRAME_MAX, GATEWAY_IP, MACHINE_IP, MACHINE_MAC, PREFIX_LEN, Wire};

const PORT: u16 = 2049;
const PATIENCE: Duration = Duration::from_secs(20);

/// The machine's card: no rings, no reserve, only the wire.
struct Card(Arc<Wire>);

struct RxToken(Vec<u8>);

struct TxToken<'a>(&'a Wire);

impl phy::Device for Card {
    type RxToken<'a> = RxToken;
    type TxToken<'a> = TxToken<'a>;

    fn receive(&mut self, _now: NetInstant) -> Option<(RxToken, TxToken<'_>)> {
        let mut frame = Vec::new();
        self.0
            .take_for_machine(|bytes| frame.extend_from_slice(bytes))
            .then(|| (RxToken(frame), TxToken(&self.0)))
    }

    fn transmit(&mut self, _now: NetInstant) -> Option<TxToken<'_>> {
        Some(TxToken(&self.0))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = 1514;
        capabilities
    }
}

impl phy::RxToken for RxToken {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

impl phy::TxToken for TxToken<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut frame = [0; FRAME_MAX];
        let result = f(&mut frame[..len]);
        assert!(self.0.send_from_machine(&frame[..len]));
        result
    }
}

struct Machine {
    wire: Arc<Wire>,
    card: Card,
    interface: Interface,
    sockets: SocketSet<'static>,
    start: Instant,
    next_port: u16,
}

impl Machine {
    fn new(wire: &Arc<Wire>) -> Machine {
        let mut card = Card(Arc::clone(wire));
        let config = Config::new(MACHINE_MAC.into());
        let mut interface = Interface::new(config, &mut card, NetInstant::ZERO);
        interface.update_ip_addrs(|addresses| {
            addresses
                .push(IpCidr::new(MACHINE_IP.into(), PREFIX_LEN))
                .unwrap();
        });
        Machine {
            wire: Arc::clone(wire),
            card,
            interface,
            sockets: SocketSet::new(Vec::new()),
            start: Instant::now(),
            next_port: 50_000,
        }
    }

    /// Starts to connect.
    fn connect(&mut self, port: u16) -> SocketHandle {
        let buffer = || tcp::SocketBuffer::new(vec![0; 64 << 10]);
        let mut socket = Socket::new(buffer(), buffer());
        socket.set_nagle_enabled(false);
        self.next_port += 1;
        socket
            .connect(self.interface.context(), (GATEWAY_IP, port), self.next_port)
            .unwrap();
        self.sockets.add(socket)
    }

    /// Runs the stack until `done` gives something.
    fn until<T>(&mut self, mut done: impl FnMut(&mut SocketSet<'static>) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let now = NetInstant::from_micros(self.start.elapsed().as_micros() as i64);
            self.interface.poll(now, &mut self.card, &mut self.sockets);
            if let Some(result) = done(&mut self.sockets) {
                // What `done` did to a socket leaves before we return.
                self.interface.poll(now, &mut self.card, &mut self.sockets);
                return result;
            }
            assert!(Instant::now() < deadline, "nothing happened");
            let delay = self.interface.poll_delay(now, &self.sockets);
            let mut waits = [Wait::readable(self.wire.machine_fd())];
            let patience = Duration::from_millis(10);
            poll(
                &mut waits,
                Some(delay.map_or(patience, Duration::from).min(patience)),
            )
            .unwrap();
        }
    }

    fn until_state(&mut self, handle: SocketHandle, wanted: State) {
        self.until(|sockets| {
            let state = sockets.get::<Socket<'_>>(handle).state();
            (state == wanted).then_some(())
        });
    }

    fn established(&mut self, port: u16) -> SocketHandle {
        let handle = self.connect(port);
        self.until_state(handle, State::Established);
        handle
    }

    /// Sends all of `data`, and receives until `wanted` bytes came back.
    fn exchange(&mut self, handle: SocketHandle, data: &[u8], wanted: usize) -> Vec<u8> {
        let (mut sent, mut got) = (0, Vec::new());
        self.until(|sockets| {
            let socket = sockets.get_mut::<Socket<'_>>(handle);
            if socket.can_send() && sent < data.len() {
                sent += socket.send_slice(&data[sent..]).unwrap();
            }
            while socket.can_recv() {
                socket
                    .recv(|bytes| {
                        got.extend_from_slice(bytes);
                        (bytes.len(), ())
                    })
                    .unwrap();
            }
            (sent == data.len() && got.len() >= wanted).then_some(())
        });
        got
    }
}

/// A server that runs `serve` on each connection, one after another.
fn server(serve: impl Fn(TcpStream) + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let addr = listener.local_addr().unwrap();
    thread::spawn(move || {
        listener
            .incoming()
            .for_each(|stream| serve(stream.unwrap()))
    });
    addr
}

fn echo(mut stream: TcpStream) {
    stream.set_nodelay(true).unwrap();
    let mut buffer = vec![0; 64 << 10];
    while let Ok(n @ 1..) = stream.read(&mut buffer) {
        if stream.write_all(&buffer[..n]).is_err() {
            break;
        }
    }
}

/// An address where nobody listens.
fn dead_address() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap()
}

fn routed(wire: &Arc<Wire>, forwards: &[Forward]) -> Gateway {
    let gateway = Gateway::start(Arc::clone(wire)).unwrap();
    forwards
        .iter()
        .for_each(|&forward| gateway.forward(forward));
    gateway
}

fn start(to: SocketAddr) -> (Arc<Wire>, Gateway, Machine) {
    let wire = Arc::new(Wire::new().unwrap());
    let gateway = routed(&wire, &[Forward { port: PORT, to }]);
    let machine = Machine::new(&wire);
    (wire, gateway, machine)
}

/// The forward is asked for and the connection started while the gateway is busy with others.
#[test]
fn a_port_is_open_for_whatever_is_sent_after_it_was_asked_for() {
    let to = server(drop);
    let (_wire, gateway, mut machine) = start(to);
    machine.established(PORT);
    for port in 3000..3400 {
        gateway.forward(Forward { port, to });
        let handle = machine.connect(port);
        let state = machine.until(|sockets| {
            let state = sockets.get::<Socket<'_>>(handle).state();
            (state != State::SynSent).then_some(state)
        });
        assert_ne!(state, State::Closed, "port {port} was refused");
        machine.sockets.remove(handle);
    }
    drop(gateway);
}

#[test]
fn more_bytes_than_fit_into_any_buffer_go_both_ways_unharmed() {
    let (wire, gateway, mut machine) = start(server(echo));
    let data: Vec<u8> = (0..3_000_000_u32).map(|i| (i / 7) as u8).collect();
    let handle = machine.established(PORT);
    let got = machine.exchange(handle, &data, data.len());
    assert!(got == data);

    let stats = gateway.stop().unwrap();
    assert_eq!((stats.accepted, stats.reset), (1, 1), "reset by the stop");
    assert_eq!((stats.to_server, stats.from_server), (3_000_000, 3_000_000));
    let wire = wire.stats();
    assert_eq!((wire.refused, wire.transmit_refused), (0, 0));
}

#[test]
fn an_idle_gateway_sleeps_and_a_round_trip_wakes_it_a_few_times() {
    let (_wire, gateway, mut machine) = start(server(echo));
    let handle = machine.established(PORT);
    for round in 0..200_u32 {
        let got = machine.exchange(handle, &round.to_be_bytes(), 4);
        assert_eq!(got, round.to_be_bytes());
    }
    // Request, reply, their acknowledgements, and a delayed one.
    let wakeups = gateway.stop().unwrap().wakeups;
    assert!(wakeups < 200 * 6 + 50, "{wakeups}");
}

#[test]
fn a_server_that_is_gone_behind_a_half_closed_stream_does_not_keep_the_gateway_awake() {
    let (kill, killed) = std::sync::mpsc::channel();
    let (reset, was_reset) = std::sync::mpsc::channel();
    let half_closed = server(move |stream| {
        stream.shutdown(Shutdown::Write).unwrap();
        killed.recv().unwrap();
        connect::reset(stream);
        reset.send(()).unwrap();
    });
    let wire = Arc::new(Wire::new().unwrap());
    let forwards = [(PORT, half_closed), (PORT + 1, server(echo))];
    let forwards = forwards.map(|(port, to)| Forward { port, to });
    let gateway = routed(&wire, &forwards);
    let mut machine = Machine::new(&wire);
    let dead = machine.established(PORT);
    machine.until_state(dead, State::CloseWait);
    kill.send(()).unwrap();
    was_reset.recv().unwrap();

    let handle = machine.established(PORT + 1);
    for _ in 0..200 {
        machine.exchange(handle, b"ping", 4);
    }
    let wakeups = gateway.stop().unwrap().wakeups;
    assert!(wakeups < 200 * 6 + 50, "{wakeups}");
}

#[test]
fn a_server_that_refuses_resets_the_machine_and_may_be_tried_again() {
    let (_wire, gateway, mut machine) = start(dead_address());
    for _ in 0..3 * CONNECTIONS {
        let handle = machine.connect(PORT);
        machine.until_state(handle, State::Closed);
        machine.sockets.remove(handle);
    }
    let stats = gateway.stop().unwrap();
    assert_eq!(stats.refused, 3 * CONNECTIONS as u64);
}

#[test]
fn a_port_without_a_server_is_refused() {
    let (_wire, gateway, mut machine) = start(dead_address());
    let handle = machine.connect(PORT + 1);
    machine.until_state(handle, State::Closed);
    assert_eq!(gateway.stop().unwrap().accepted, 0);
}

#[test]
fn a_server_that_closes_ends_the_stream_after_its_last_byte() {
    let (_wire, _gateway, mut machine) = start(server(|mut stream| {
        stream.write_all(&[7; 100_000]).unwrap();
    }));
    let handle = machine.established(PORT);
    assert_eq!(machine.exchange(handle, &[], 100_000), [7; 100_000]);
    machine.until_state(handle, State::CloseWait);
    machine.until(|sockets| {
        sockets.get_mut::<Socket<'_>>(handle).close();
        Some(())
    });
    machine.until_state(handle, State::Closed);
}

#[test]
fn a_server_that_dies_with_unread_data_resets_the_machine() {
    let (_wire, _gateway, mut machine) = start(server(|mut stream| {
        // Closing with unread data is a reset.
        stream.read_exact(&mut [0]).unwrap();
    }));
    let handle = machine.established(PORT);
    machine.exchange(handle, &[1; 1000], 0);
    machine.until_state(handle, State::Closed);
}

#[test]
fn the_machine_may_close_its_half_and_still_get_the_answer() {
    let (_wire, gateway, mut machine) = start(server(|mut stream| {
        let mut question = Vec::new();
        stream.read_to_end(&mut question).unwrap();
        assert_eq!(question, [3; 5000]);
        stream.write_all(b"answer").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
    }));
    for _ in 0..2 * CONNECTIONS {
        let handle = machine.established(PORT);
        machine.exchange(handle, &[3; 5000], 0);
        machine.until(|sockets| {
            sockets.get_mut::<Socket<'_>>(handle).close();
            Some(())
        });
        assert_eq!(machine.exchange(handle, &[], 6), b"answer");
        machine.until_state(handle, State::TimeWait);
    }
    assert_eq!(gateway.stop().unwrap().reset, 0);
}

#[test]
fn a_reset_by_the_machine_reaches_the_server() {
    let (told, seen) = std::sync::mpsc::channel();
    let (_wire, _gateway, mut machine) = start(server(move |mut stream| {
        stream.write_all(b"!").unwrap();
        told.send(stream.read(&mut [0; 8]).map_err(|error| error.kind()))
            .unwrap();
    }));
    let handle = machine.established(PORT);
    machine.exchange(handle, &[], 1);
    machine.until(|sockets| {
        sockets.get_mut::<Socket<'_>>(handle).abort();
        Some(())
    });
    assert_eq!(
        seen.recv_timeout(PATIENCE).unwrap(),
        Err(ErrorKind::ConnectionReset)
    );
}

#[test]
fn a_machine_that_forgets_its_connections_can_always_open_another() {
    let (accepted, connections) = std::sync::mpsc::channel();
    let (_wire, gateway, mut machine) = start(server(move |stream| {
        accepted.send(stream).unwrap();
    }));
    for _ in 0..4 * CONNECTIONS {
        let handle = machine.established(PORT);
        let mut stream = connections.recv_timeout(PATIENCE).unwrap();
        machine.exchange(handle, b"question", 0);
        let mut question = [0; 8];
        stream.read_exact(&mut question).unwrap();
        assert_eq!(&question, b"question");
        // Neither end is closed: the socket is gone, the stream still open.
        machine.sockets.remove(handle);
        core::mem::forget(stream);
    }
    let stats = gateway.stop().unwrap();
    assert_eq!(stats.accepted, 4 * CONNECTIONS as u64);
    assert_eq!(stats.refused, 0);
}

#[test]
fn a_server_that_does_not_read_stops_nobody_else() {
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let wire = Arc::new(Wire::new().unwrap());
    let forwards = [
        Forward {
            port: PORT,
            to: server(echo),
        },
        Forward {
            port: PORT + 1,
            to: silent.local_addr().unwrap(),
        },
    ];
    let gateway = routed(&wire, &forwards);
    let mut machine = Machine::new(&wire);
    let stuck = machine.established(PORT + 1);
    // Until every buffer on the way is full.
    let mut full = 0;
    machine.until(|sockets| {
        let socket = sockets.get_mut::<Socket<'_>>(stuck);
        full = if socket.can_send() { 0 } else { full + 1 };
        let _ = socket.send_slice(&[5; 4096]);
        (full > 20).then_some(())
    });
    let handle = machine.established(PORT);
    let data = vec![6; 100_000];
    assert!(machine.exchange(handle, &data, data.len()) == data);
    drop(gateway);
}
