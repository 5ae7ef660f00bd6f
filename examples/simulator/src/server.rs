//! The host that the machine swaps to: a TCP/IP stack of its own, and NFS servers behind it.

pub(crate) mod nfs;

use core::net::Ipv4Addr;
use std::collections::VecDeque;

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{self, Device, DeviceCapabilities, Medium};
use smoltcp::socket::tcp;
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpCidr};

use self::nfs::{Manners, NfsServer};
use crate::packet;
use crate::scenario::Micros;

/// Connections that each port takes at once.
const BACKLOG: usize = 3;

/// Bytes of each buffer of a connection.
const BUFFER: usize = 65_536;

/// A connection that is silent for so long is dropped, so that a dead client does not occupy it.
const DEAD: Duration = Duration::from_secs(30);

/// The longest record that a client may send: a cluster of pages and its head.
const RECORD_MAX: usize = 1 << 20;

/// Where the host is.
pub(crate) const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);

/// A call that has been read and not executed.
#[derive(Debug)]
pub(crate) struct Call {
    /// The life of the host in which it was read.
    pub(crate) boot: u64,
    connection: usize,
    incarnation: u64,
    record: Vec<u8>,
}

impl Call {
    /// Whether it is a WRITE of NFS, by its head: program and procedure.
    pub(crate) fn is_write(&self) -> bool {
        let head = [100_003_u32, 3, 7].map(u32::to_be_bytes).concat();
        self.record.get(12..24) == Some(&head[..])
    }
}

pub(crate) struct Host {
    lane: Lane,
    interface: Interface,
    sockets: SocketSet<'static>,
    connections: Vec<Connection>,
    /// Ports, and the server behind each.
    ports: Vec<(u16, usize)>,
    pub(crate) servers: Vec<NfsServer>,
    boot: u64,
    seed: u64,
    incarnations: u64,
}

struct Connection {
    handle: SocketHandle,
    port: u16,
    server: usize,
    /// Which of the connections, one after another, that this socket served.
    incarnation: u64,
    input: Vec<u8>,
    output: VecDeque<u8>,
}

impl Host {
    pub(crate) fn new(
        servers: Vec<NfsServer>,
        ports: Vec<(u16, usize)>,
        mtu: usize,
        seed: u64,
    ) -> Host {
        let mut lane = Lane {
            mtu,
            inbox: VecDeque::new(),
            outbox: VecDeque::new(),
        };
        let interface = interface(&mut lane, hardware(0), seed);
        let mut host = Host {
            lane,
            interface,
            sockets: SocketSet::new(Vec::new()),
            connections: Vec::new(),
            ports,
            servers,
            boot: 0,
            seed,
            incarnations: 0,
        };
        host.listen();
        host
    }

    pub(crate) const fn boot(&self) -> u64 {
        self.boot
    }

    /// The hardware address now.
    pub(crate) fn hardware(&self) -> [u8; 6] {
        let HardwareAddress::Ethernet(address) = self.interface.hardware_addr() else {
            unreachable!("the server is at an Ethernet");
        };
        address.0
    }

    /// A packet arrives.
    pub(crate) fn arrive(&mut self, frame: Vec<u8>) {
        self.lane.inbox.push_back(frame);
    }

    /// The next packet to send.
    pub(crate) fn take_sent(&mut self) -> Option<Vec<u8>> {
        self.lane.outbox.pop_front()
    }

    /// Lets everything move. Calls that were read come out in `calls`; returns when to run again.
    pub(crate) fn run(&mut self, now: Micros, calls: &mut Vec<Call>) -> Option<Micros> {
        let time = Instant::from_micros(now as i64);
        loop {
            self.interface.poll(time, &mut self.lane, &mut self.sockets);
            let mut moved = false;
            for index in 0..self.connections.len() {
                moved |= self.serve(index, calls);
            }
            self.keep_listening();
            if !moved {
                break;
            }
        }
        let at = self.interface.poll_at(time, &self.sockets)?;
        Some((at.total_micros().max(0) as u64).max(now + 1))
    }

    /// Executes a call and sends the reply, `times` over; what is wrong with the call, if anything
    /// is.
    pub(crate) fn execute(
        &mut self,
        call: &Call,
        manners: &Manners,
        garbage: bool,
        times: usize,
    ) -> Result<nfs::Call, String> {
        let Some(connection) = self.connections.get_mut(call.connection) else {
            return Err("a call without a connection".into());
        };
        let reply = self.servers[connection.server].answer(&call.record, manners);
        let mut reply = reply.map_err(|garbled| format!("{garbled:?}"))?;
        if connection.incarnation != call.incarnation {
            // It was carried out, and nobody hears of it.
            return Ok(reply.call);
        }
        if garbage {
            for (i, byte) in reply.bytes.iter_mut().enumerate().skip(8).step_by(3) {
                *byte ^= 0x5a_u8.wrapping_add(i as u8);
            }
        }
        for _ in 0..times {
            let mark = 0x8000_0000 | reply.bytes.len() as u32;
            connection.output.extend(mark.to_be_bytes());
            connection.output.extend(&reply.bytes);
        }
        Ok(reply.call)
    }

    /// The power goes: connections and calls are forgotten without a word.
    pub(crate) fn reboot(&mut self) {
        self.boot += 1;
        self.sockets = SocketSet::new(Vec::new());
        self.connections.clear();
        self.lane.inbox.clear();
        self.lane.outbox.clear();
        let address = HardwareAddress::Ethernet(EthernetAddress(self.hardware()));
        self.interface = interface(&mut self.lane, address, self.seed ^ self.boot);
        for server in &mut self.servers {
            server.reboot(self.boot);
        }
        self.listen();
    }

    /// Another card takes over.
    pub(crate) fn move_to(&mut self, number: u8) {
        self.interface.set_hardware_addr(hardware(number));
    }

    /// Every connection is closed.
    pub(crate) fn hang_up(&mut self) {
        for connection in &mut self.connections {
            self.sockets
                .get_mut::<tcp::Socket<'_>>(connection.handle)
                .close();
        }
    }

    fn listen(&mut self) {
        for (port, server) in self.ports.clone() {
            for _ in 0..BACKLOG {
                let buffer = || tcp::SocketBuffer::new(vec![0; BUFFER]);
                let mut socket = tcp::Socket::new(buffer(), buffer());
                socket.set_nagle_enabled(false);
                socket.set_ack_delay(None);
                socket.set_timeout(Some(DEAD));
                socket.set_keep_alive(Some(DEAD / 3));
                socket
                    .listen(port)
                    .expect("the port is not 0 and the socket new");
                self.incarnations += 1;
                self.connections.push(Connection {
                    handle: self.sockets.add(socket),
                    port,
                    server,
                    incarnation: self.incarnations,
                    input: Vec::new(),
                    output: VecDeque::new(),
                });
            }
        }
    }

    /// Sockets whose connection has ended listen again; if none listens, the oldest connection
    /// makes room.
    fn keep_listening(&mut self) {
        for connection in &mut self.connections {
            let socket = self.sockets.get_mut::<tcp::Socket<'_>>(connection.handle);
            if socket.state() == tcp::State::Closed {
                self.incarnations += 1;
                connection.renew(socket, self.incarnations);
            }
        }
        for (port, _) in self.ports.clone() {
            let mut own = self.connections.iter_mut().filter(|c| c.port == port);
            let sockets = &self.sockets;
            let listens = |c: &Connection| {
                sockets.get::<tcp::Socket<'_>>(c.handle).state() == tcp::State::Listen
            };
            if own.any(|connection| listens(connection)) {
                continue;
            }
            let own = self.connections.iter_mut().filter(|c| c.port == port);
            let oldest = own
                .min_by_key(|c| c.incarnation)
                .expect("each port has connections");
            let socket = self.sockets.get_mut::<tcp::Socket<'_>>(oldest.handle);
            socket.abort();
        }
    }

    /// Moves the bytes of a connection. Whether any moved.
    fn serve(&mut self, index: usize, calls: &mut Vec<Call>) -> bool {
        let connection = &mut self.connections[index];
        let socket = self.sockets.get_mut::<tcp::Socket<'_>>(connection.handle);
        let mut moved = false;
        while socket.can_recv() {
            let input = &mut connection.input;
            let received = socket.recv(|bytes| {
                input.extend_from_slice(bytes);
                (bytes.len(), ())
            });
            moved = true;
            if received.is_err() {
                break;
            }
        }
        while let Some(record) = connection.next_record() {
            match record {
                Some(record) => calls.push(Call {
                    boot: self.boot,
                    connection: index,
                    incarnation: connection.incarnation,
                    record,
                }),
                None => {
                    socket.abort();
                    return true;
                }
            }
        }
        while socket.can_send() && !connection.output.is_empty() {
            let (bytes, _) = connection.output.as_slices();
            let Ok(sent) = socket.send_slice(bytes) else {
                break;
            };
            if sent == 0 {
                break;
            }
            connection.output.drain(..sent);
            moved = true;
        }
        if socket.state() == tcp::State::CloseWait && connection.output.is_empty() {
            socket.close();
        }
        moved
    }
}

impl Connection {
    /// The socket is for the next connection now.
    fn renew(&mut self, socket: &mut tcp::Socket<'_>, incarnation: u64) {
        socket
            .listen(self.port)
            .expect("a closed socket can listen");
        self.incarnation = incarnation;
        self.input.clear();
        self.output.clear();
    }

    /// The next record that is complete; `Some(None)` if the stream makes no sense.
    fn next_record(&mut self) -> Option<Option<Vec<u8>>> {
        let mark = self.input.first_chunk::<4>()?;
        let mark = u32::from_be_bytes(*mark);
        let len = (mark & 0x7fff_ffff) as usize;
        if mark >> 31 == 0 || len > RECORD_MAX {
            return Some(None);
        }
        if self.input.len() < 4 + len {
            return None;
        }
        let record = self.input[4..4 + len].to_vec();
        self.input.drain(..4 + len);
        Some(Some(record))
    }
}

fn hardware(number: u8) -> HardwareAddress {
    EthernetAddress([2, 0, 0, 0, 1, number]).into()
}

fn interface(lane: &mut Lane, address: HardwareAddress, seed: u64) -> Interface {
    let mut config = Config::new(address);
    config.random_seed = seed;
    let mut interface = Interface::new(config, lane, Instant::ZERO);
    interface.update_ip_addrs(|addresses| {
        let added = addresses.push(IpCidr::new(ADDRESS.into(), 24));
        added.expect("a new interface has room for an address");
    });
    interface
}

/// The host's card: packets in memory.
struct Lane {
    mtu: usize,
    inbox: VecDeque<Vec<u8>>,
    outbox: VecDeque<Vec<u8>>,
}

struct Rx(Vec<u8>);

struct Tx<'a>(&'a mut VecDeque<Vec<u8>>);

impl phy::RxToken for Rx {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

impl phy::TxToken for Tx<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut frame = vec![0; len];
        let result = f(&mut frame);
        self.0.push_back(frame);
        result
    }
}

impl Device for Lane {
    type RxToken<'a> = Rx;
    type TxToken<'a> = Tx<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Rx, Tx<'_>)> {
        let frame = self.inbox.pop_front()?;
        Some((Rx(frame), Tx(&mut self.outbox)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Tx<'_>> {
        Some(Tx(&mut self.outbox))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = self.mtu + packet::ETHERNET;
        capabilities
    }
}
