//! A swap file over a smoltcp stack of its own: a wire in memory, a router at its other end, and
//! behind that the real server.

extern crate alloc;

mod support;

use alloc::collections::VecDeque;
use alloc::rc::Rc;
use core::cell::RefCell;
use core::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;

use netreserve::{Flow, FlowTable, Slot};
use nfs_server::{Config, Server};
use nfs_swap::transport::LinkDown;
use nfs_swap::transport::smoltcp::{SmoltcpConfig, SmoltcpTcp, VmioFlows};
use nfs_swap::transport::{Link, Transport};
use nfs_swap::{SwapFile, SwapFileConfig, SwapFileError, SwapUrl};
use smoltcp::iface::{Interface, PollIngressSingleResult, SocketHandle, SocketSet, SocketStorage};
use smoltcp::phy::{self, Device, DeviceCapabilities, Medium};
use smoltcp::socket::tcp;
use smoltcp::wire::{
    EthernetAddress, EthernetFrame, EthernetProtocol, IpCidr, IpProtocol, Ipv4Cidr, Ipv4Packet,
    TcpPacket,
};
use support::{Frame, PAGE, now, page};
use swapspace::{AddressSpace, Instant, IoClass, IoOp, SwapIo, conformance};

const MACHINE: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);
const ROUTER: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
const NFS: u16 = 2049;

/// What the machine did, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Event {
    Tag(u16),
    Untag(u16),
    /// A TCP packet left from this local port.
    Sent(u16),
}

type Log = Rc<RefCell<Vec<Event>>>;
type Queue = Rc<RefCell<VecDeque<Vec<u8>>>>;

/// One end of the wire.
struct End {
    inbox: Queue,
    outbox: Queue,
    log: Option<Log>,
}

struct Rx(Vec<u8>);

struct Tx<'a>(&'a mut End);

impl phy::RxToken for Rx {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

impl phy::TxToken for Tx<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut frame = vec![0; len];
        let result = f(&mut frame);
        if let (Some(log), Some(port)) = (&self.0.log, tcp_source(&frame)) {
            log.borrow_mut().push(Event::Sent(port));
        }
        self.0.outbox.borrow_mut().push_back(frame);
        result
    }
}

impl Device for End {
    type RxToken<'a> = Rx;
    type TxToken<'a> = Tx<'a>;

    fn receive(&mut self, _: smoltcp::time::Instant) -> Option<(Rx, Tx<'_>)> {
        let frame = self.inbox.borrow_mut().pop_front()?;
        Some((Rx(frame), Tx(self)))
    }

    fn transmit(&mut self, _: smoltcp::time::Instant) -> Option<Tx<'_>> {
        Some(Tx(self))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.max_transmission_unit = 1514;
        capabilities.medium = Medium::Ethernet;
        capabilities
    }
}

fn tcp_source(frame: &[u8]) -> Option<u16> {
    let ethernet = EthernetFrame::new_checked(frame).ok()?;
    if ethernet.ethertype() != EthernetProtocol::Ipv4 {
        return None;
    }
    let ip = Ipv4Packet::new_checked(ethernet.payload()).ok()?;
    let tcp = (ip.next_header() == IpProtocol::Tcp).then(|| TcpPacket::new_checked(ip.payload()));
    Some(tcp?.ok()?.src_port())
}

fn time(now: Instant) -> smoltcp::time::Instant {
    smoltcp::time::Instant::from_micros(now.as_micros() as i64)
}

/// The router: takes one connection at a time and carries it on to the server.
struct Router {
    device: End,
    interface: Interface,
    sockets: SocketSet<'static>,
    listener: SocketHandle,
    server: SocketAddr,
    upstream: Option<TcpStream>,
    pending: Vec<u8>,
}

impl Router {
    fn new(mut device: End, server: SocketAddr) -> Self {
        let config = smoltcp::iface::Config::new(EthernetAddress([2, 0, 0, 0, 0, 2]).into());
        let mut interface = Interface::new(config, &mut device, time(now()));
        interface.update_ip_addrs(|addresses| {
            addresses.push(IpCidr::new(ROUTER.into(), 24)).unwrap();
        });
        let buffer = || tcp::SocketBuffer::new(vec![0; 65_536]);
        let mut sockets = SocketSet::new(vec![]);
        let listener = sockets.add(tcp::Socket::new(buffer(), buffer()));
        Router {
            device,
            interface,
            sockets,
            listener,
            server,
            upstream: None,
            pending: vec![],
        }
    }

    fn run(&mut self) {
        // Packet by packet, so that a reset and the SYN behind it find the listener ready again.
        self.listen_again();
        while self
            .interface
            .poll_ingress_single(time(now()), &mut self.device, &mut self.sockets)
            != PollIngressSingleResult::None
        {
            self.listen_again();
        }
        let socket = self.sockets.get_mut::<tcp::Socket<'_>>(self.listener);
        if socket.state() == tcp::State::Established && self.upstream.is_none() {
            match TcpStream::connect(self.server) {
                Ok(stream) => {
                    stream.set_nonblocking(true).unwrap();
                    self.upstream = Some(stream);
                }
                Err(_) => socket.abort(),
            }
        }
        if let Some(stream) = &mut self.upstream
            && forward(socket, stream, &mut self.pending).is_err()
        {
            socket.abort();
        }
        self.interface
            .poll(time(now()), &mut self.device, &mut self.sockets);
    }

    fn listen_again(&mut self) {
        let socket = self.sockets.get_mut::<tcp::Socket<'_>>(self.listener);
        if !socket.is_open() {
            self.upstream = None;
            self.pending.clear();
            socket.listen(NFS).unwrap();
        }
    }
}

/// Moves bytes both ways; fails when the server has gone.
fn forward(
    socket: &mut tcp::Socket<'_>,
    stream: &mut TcpStream,
    pending: &mut Vec<u8>,
) -> std::io::Result<()> {
    let would_block = |error: std::io::Error| match error.kind() {
        ErrorKind::WouldBlock => Ok(0),
        _ => Err(error),
    };
    while socket.can_recv() {
        let sent = socket.recv(|bytes| match stream.write(bytes).or_else(would_block) {
            Ok(len) => (len, Ok(len)),
            Err(error) => (0, Err(error)),
        });
        if sent.unwrap()? == 0 {
            break;
        }
    }
    if pending.is_empty() {
        let mut buf = [0; 16_384];
        match stream.read(&mut buf) {
            Ok(0) => return Err(ErrorKind::ConnectionReset.into()),
            Ok(len) => pending.extend_from_slice(&buf[..len]),
            Err(error) => drop(would_block(error)?),
        }
    }
    if socket.can_send() {
        let sent = socket.send_slice(pending).unwrap();
        pending.drain(..sent);
    }
    Ok(())
}

/// Flows that are written down, and kept in a real table.
struct Logged<'t> {
    table: &'t FlowTable<'t>,
    log: Log,
}

impl VmioFlows for Logged<'_> {
    fn tag(&mut self, local: SocketAddrV4, remote: SocketAddrV4) -> Result<(), LinkDown> {
        VmioFlows::tag(&mut self.table, local, remote)?;
        self.log.borrow_mut().push(Event::Tag(local.port()));
        Ok(())
    }

    fn untag(&mut self, local: SocketAddrV4, remote: SocketAddrV4) {
        VmioFlows::untag(&mut self.table, local, remote);
        self.log.borrow_mut().push(Event::Untag(local.port()));
    }
}

type Swap<'a> = SwapFile<Frame, SmoltcpTcp<'a, End, Logged<'a>>, 8>;

/// Where the test keeps what the transport borrows.
struct Storage<'a> {
    rx: Vec<u8>,
    tx: Vec<u8>,
    sockets: [SocketStorage<'a>; 1],
}

impl Storage<'_> {
    fn new() -> Self {
        Storage {
            rx: vec![0; 65_536],
            tx: vec![0; 65_536],
            sockets: [SocketStorage::EMPTY],
        }
    }
}

fn wire(log: &Log) -> (End, End) {
    let (out, back) = (Queue::default(), Queue::default());
    let machine = End {
        inbox: back.clone(),
        outbox: out.clone(),
        log: Some(log.clone()),
    };
    let router = End {
        inbox: out,
        outbox: back,
        log: None,
    };
    (machine, router)
}

fn transport<'a>(
    device: End,
    table: &'a FlowTable<'a>,
    log: &Log,
    storage: &'a mut Storage<'a>,
) -> SmoltcpTcp<'a, End, Logged<'a>> {
    let config = SmoltcpConfig {
        hardware: EthernetAddress([2, 0, 0, 0, 0, 1]),
        address: Ipv4Cidr::new(MACHINE, 24),
        gateway: None,
        server: ROUTER,
        local_ports: 600..=603,
        seed: 7,
    };
    let flows = Logged {
        table,
        log: log.clone(),
    };
    let Storage { rx, tx, sockets } = storage;
    SmoltcpTcp::new(device, config, flows, rx, tx, sockets, now())
}

fn config() -> SwapFileConfig {
    let url = SwapUrl::parse("nfs://10.0.2.2:2049/export/swap").unwrap();
    SwapFileConfig::new(&url, 256).unwrap()
}

fn activate(swap: &mut Swap<'_>, router: &mut Router) -> Result<(), SwapFileError> {
    loop {
        router.run();
        if let core::task::Poll::Ready(result) = swap.swap_activate(now()) {
            return result.map(drop);
        }
    }
}

fn deactivate(swap: &mut Swap<'_>, router: &mut Router) {
    loop {
        router.run();
        if swap.swap_deactivate(now()).is_ready() {
            return;
        }
    }
}

#[test]
fn a_swap_file_over_smoltcp_keeps_the_contract() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(Config::new(directory.path())).unwrap();
    let log = Log::default();
    let (machine, router) = wire(&log);
    let mut router = Router::new(router, server.addr());
    let (mut slots, mut peers) = ([const { Slot::EMPTY }; 4], [const { Slot::EMPTY }; 4]);
    let table = FlowTable::new(&mut slots, &mut peers);
    let mut storage = Storage::new();
    let mut swap: Swap<'_> =
        SwapFile::new(transport(machine, &table, &log, &mut storage), config());
    let drive = |_: &mut Swap<'_>| {
        router.run();
        now()
    };
    let report = conformance(&mut swap, || vec![0; PAGE].into(), drive);
    let report = report.unwrap_or_else(|violation| panic!("{violation}"));
    assert_eq!(report.deepest, 8);
    assert!(!table.any(), "at rest nothing is tagged (N1)");
}

/// S7, and that no flow outlives its connection.
#[test]
fn every_connection_is_tagged_before_its_first_packet_and_until_its_last() {
    let directory = tempfile::tempdir().unwrap();
    let mut server = Server::start(Config::new(directory.path())).unwrap();
    let log = Log::default();
    let (machine, router) = wire(&log);
    let mut router = Router::new(router, server.addr());
    let (mut slots, mut peers) = ([const { Slot::EMPTY }; 4], [const { Slot::EMPTY }; 4]);
    let table = FlowTable::new(&mut slots, &mut peers);
    let mut storage = Storage::new();
    let mut swap: Swap<'_> =
        SwapFile::new(transport(machine, &table, &log, &mut storage), config());
    activate(&mut swap, &mut router).unwrap();

    for round in 0..5 {
        let frames = [page(round, 1)].into_iter().collect();
        let slot = swapspace::Slot(round);
        let io = SwapIo::new(IoOp::Write, slot, IoClass::Reclaim, frames);
        server.reboot().unwrap();
        swap.submit(io, now()).unwrap();
        let done = loop {
            router.run();
            if let Some(done) = swap.poll(now()) {
                break done;
            }
        };
        assert_eq!(done.result, Ok(()));
    }
    deactivate(&mut swap, &mut router);
    assert!(!table.any());

    let mut tagged: Option<u16> = None;
    let mut connections = 0;
    for event in log.borrow().iter() {
        match *event {
            Event::Tag(port) => {
                let (local, remote) = (
                    SocketAddrV4::new(MACHINE, port),
                    SocketAddrV4::new(ROUTER, NFS),
                );
                assert!(!table.contains(Flow::tcp(local, remote)));
                assert_eq!(tagged.replace(port), None, "one connection at a time");
                connections += 1;
            }
            Event::Untag(port) => assert_eq!(tagged.take(), Some(port)),
            Event::Sent(port) => assert_eq!(tagged, Some(port), "a packet outside its flow"),
        }
    }
    assert!(connections >= 6, "{connections} connections");
    assert_eq!(tagged, None);
}

#[test]
fn a_full_flow_table_prevents_the_connection() {
    let log = Log::default();
    let (machine, _router) = wire(&log);
    let table = FlowTable::new(&mut [], &mut []);
    let mut storage = Storage::new();
    let mut transport = transport(machine, &table, &log, &mut storage);
    assert_eq!(transport.connect(NFS, now()), Err(LinkDown::Local));
    assert_eq!(transport.poll(now()), Link::Down(LinkDown::Idle));
    assert!(log.borrow().is_empty(), "no packet leaves untagged");
}

#[test]
fn a_refused_connection_is_down_by_name() {
    let log = Log::default();
    let (machine, router) = wire(&log);
    let mut router = Router::new(router, SocketAddr::from(([127, 0, 0, 1], 9)));
    let (mut slots, mut peers) = ([const { Slot::EMPTY }; 4], [const { Slot::EMPTY }; 4]);
    let table = FlowTable::new(&mut slots, &mut peers);
    let mut storage = Storage::new();
    let mut transport = transport(machine, &table, &log, &mut storage);
    transport.connect(NFS + 1, now()).unwrap();
    let mut link = Link::Connecting;
    while link == Link::Connecting {
        router.run();
        link = transport.poll(now());
    }
    assert_eq!(link, Link::Down(LinkDown::Refused));
}

#[cfg(feature = "ablation")]
#[test]
fn s7_without_its_mechanism_the_first_packets_are_untagged() {
    let log = Log::default();
    let (machine, router) = wire(&log);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut router = Router::new(router, listener.local_addr().unwrap());
    let (mut slots, mut peers) = ([const { Slot::EMPTY }; 4], [const { Slot::EMPTY }; 4]);
    let table = FlowTable::new(&mut slots, &mut peers);
    let mut storage = Storage::new();
    let mut transport = transport(machine, &table, &log, &mut storage);
    transport.ablate(nfs_swap::Mechanism::TagBeforeSyn);
    transport.connect(NFS, now()).unwrap();
    while transport.poll(now()) == Link::Connecting {
        assert!(!table.any());
        router.run();
    }
    assert_eq!(transport.poll(now()), Link::Up);
    assert!(table.any(), "now it is tagged");
    assert!(matches!(log.borrow()[0], Event::Sent(_)));
    transport.close();
    assert!(!table.any());
}
