//! The swap connection: requests and replies over TCP, between two real stacks.

use core::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{self, Device, DeviceCapabilities, Medium};
use smoltcp::socket::tcp;
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, IpCidr, Ipv4Address};

use crate::machine::MTU;
use crate::traffic::{LOCAL, MAC, SERVER, SERVER_MAC};

const BUFFER: usize = 16 << 10;
/// Bytes of a request: its number, and how long its reply is to be.
const REQUEST: usize = 16;
/// A request is followed by a page, or answered with one.
const PAGE: usize = 4096;
/// Requests that wait for their replies.
const IN_FLIGHT: u64 = 4;

/// A stack with one socket.
pub(crate) struct Stack {
    interface: Interface,
    sockets: SocketSet<'static>,
    socket: SocketHandle,
}

impl Stack {
    fn new(device: &mut impl Device, mac: [u8; 6], addr: Ipv4Address) -> Stack {
        let config = Config::new(EthernetAddress(mac).into());
        let mut interface = Interface::new(config, device, Instant::ZERO);
        interface.update_ip_addrs(|addrs| {
            let addr = IpCidr::new(addr.into(), 24);
            addrs.push(addr).expect("there is room for one");
        });
        let buffer = || tcp::SocketBuffer::new(vec![0; BUFFER]);
        let mut socket = tcp::Socket::new(buffer(), buffer());
        socket.set_nagle_enabled(false);
        socket.set_ack_delay(None);
        let mut sockets = SocketSet::new(vec![]);
        let socket = sockets.add(socket);
        Stack {
            interface,
            sockets,
            socket,
        }
    }

    pub(crate) fn poll(&mut self, now: Instant, device: &mut impl Device) {
        self.interface.poll(now, device, &mut self.sockets);
    }

    fn tcp(&mut self) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(self.socket)
    }
}

/// What byte `at` of the data of request `number` is.
fn byte(number: u64, at: usize) -> u8 {
    (number.wrapping_mul(31) as usize + at * 7 + (at >> 8)) as u8
}

/// Pages are written and read in turns.
fn lengths(number: u64) -> (usize, usize) {
    if number.is_multiple_of(3) {
        (PAGE, 4)
    } else {
        (0, PAGE)
    }
}

/// The machine's end.
pub(crate) struct Client {
    pub(crate) stack: Stack,
    /// Requests begun.
    pub(crate) asked: u64,
    /// Replies read to their end.
    pub(crate) answered: u64,
    /// Bytes of the current reply that were read.
    read: usize,
    /// What of the last request still has to be written.
    unsent: VecDeque<u8>,
    /// Bytes that were compared with what they had to be.
    pub(crate) verified: u64,
    /// The first byte that was not.
    pub(crate) wrong: Option<String>,
}

impl Client {
    pub(crate) fn new(device: &mut impl Device) -> Client {
        let mut stack = Stack::new(device, MAC, *LOCAL.ip());
        let Stack {
            interface,
            sockets,
            socket,
        } = &mut stack;
        let remote = (*SERVER.ip(), SERVER.port());
        sockets
            .get_mut::<tcp::Socket<'_>>(*socket)
            .connect(interface.context(), remote, LOCAL.port())
            .expect("a fresh socket");
        Client {
            stack,
            asked: 0,
            answered: 0,
            read: 0,
            unsent: VecDeque::new(),
            verified: 0,
            wrong: None,
        }
    }

    /// Reads replies, and asks again as long as `more` is wanted.
    pub(crate) fn work(&mut self, more: bool) {
        let tcp = self
            .stack
            .sockets
            .get_mut::<tcp::Socket<'_>>(self.stack.socket);
        while tcp.can_recv() {
            let (number, from) = (self.answered, self.read);
            let left = lengths(number).1 - from;
            let wrong = &mut self.wrong;
            let read = tcp.recv(|bytes| {
                let n = bytes.len().min(left);
                for (at, got) in (from..).zip(&bytes[..n]) {
                    if *got != byte(number, at) {
                        wrong.get_or_insert(format!("byte {at} of reply {number} is {got:#x}"));
                    }
                }
                (n, n)
            });
            let Ok(read) = read else { break };
            self.verified += read as u64;
            self.read += read;
            if read == left {
                self.answered += 1;
                self.read = 0;
            }
        }
        while tcp.can_send() {
            if self.unsent.is_empty() {
                if !more || self.asked - self.answered >= IN_FLIGHT {
                    break;
                }
                let number = self.asked;
                let (data, reply) = lengths(number);
                self.unsent.extend(number.to_be_bytes());
                self.unsent.extend((data as u32).to_be_bytes());
                self.unsent.extend((reply as u32).to_be_bytes());
                self.unsent.extend((0..data).map(|at| byte(number, at)));
                self.asked += 1;
            }
            let (next, _) = self.unsent.as_slices();
            match tcp.send_slice(next) {
                Ok(0) | Err(_) => break,
                Ok(n) => drop(self.unsent.drain(..n)),
            }
        }
    }

    pub(crate) fn connected(&mut self) -> bool {
        self.stack.tcp().may_send()
    }

    pub(crate) fn abort(&mut self) {
        self.stack.tcp().abort();
    }
}

/// The far end.
pub(crate) struct Server {
    stack: Stack,
    port: Port,
    /// Of the request that is being read: what came of its head, and how much data is still to come.
    head: Vec<u8>,
    data: usize,
    at: usize,
    number: u64,
    reply: VecDeque<u8>,
    pub(crate) wrong: Option<String>,
}

type Queue = Rc<RefCell<VecDeque<Vec<u8>>>>;

impl Server {
    pub(crate) fn new() -> Server {
        let mut port = Port::default();
        let mut stack = Stack::new(&mut port, SERVER_MAC, *SERVER.ip());
        stack.tcp().listen(SERVER.port()).expect("a fresh socket");
        Server {
            stack,
            port,
            head: Vec::new(),
            data: 0,
            at: 0,
            number: 0,
            reply: VecDeque::new(),
            wrong: None,
        }
    }

    /// A frame from the machine.
    pub(crate) fn deliver(&mut self, frame: Vec<u8>) {
        self.port.incoming.push_back(frame);
    }

    /// The next frame for the machine.
    pub(crate) fn next_frame(&mut self) -> Option<Vec<u8>> {
        self.port.outgoing.borrow_mut().pop_front()
    }

    pub(crate) fn waiting(&self) -> usize {
        self.port.outgoing.borrow().len()
    }

    pub(crate) fn work(&mut self, now: Instant) {
        self.stack.poll(now, &mut self.port);
        self.serve();
        self.stack.poll(now, &mut self.port);
    }

    fn serve(&mut self) {
        loop {
            let tcp = self
                .stack
                .sockets
                .get_mut::<tcp::Socket<'_>>(self.stack.socket);
            while !self.reply.is_empty() && tcp.can_send() {
                let (next, _) = self.reply.as_slices();
                let Ok(n) = tcp.send_slice(next) else { return };
                self.reply.drain(..n);
            }
            // Not before there is room: what was asked for is bounded by what may be sent.
            if !self.reply.is_empty() || !tcp.can_recv() {
                return;
            }
            let wanted = match self.data {
                0 => REQUEST - self.head.len(),
                data => data,
            };
            let Ok(bytes) = tcp.recv(|bytes| {
                let n = bytes.len().min(wanted);
                (n, bytes[..n].to_vec())
            }) else {
                return;
            };
            self.take(&bytes);
        }
    }

    fn take(&mut self, bytes: &[u8]) {
        if self.data == 0 {
            self.head.extend(bytes);
            if self.head.len() < REQUEST {
                return;
            }
            let word = |at: usize| {
                self.head[at..at + 4]
                    .iter()
                    .fold(0, |n, b| n << 8 | u64::from(*b))
            };
            let number = word(0) << 32 | word(4);
            let lengths = (word(8) as usize, word(12) as usize);
            if number != self.number || lengths != self::lengths(number) {
                let expected = self.number;
                self.wrong
                    .get_or_insert(format!("request {number}, {lengths:?}, and not {expected}"));
            }
            (self.data, self.at) = (lengths.0, 0);
        } else {
            for (at, got) in (self.at..).zip(bytes) {
                if *got != byte(self.number, at) {
                    let number = self.number;
                    self.wrong
                        .get_or_insert(format!("byte {at} of request {number} is {got:#x}"));
                }
            }
            self.at += bytes.len();
            self.data -= bytes.len();
        }
        if self.data == 0 {
            let number = self.number;
            self.reply
                .extend((0..lengths(number).1).map(|at| byte(number, at)));
            self.number += 1;
            self.head.clear();
        }
    }
}

/// What the far end hands to smoltcp.
#[derive(Default)]
struct Port {
    incoming: VecDeque<Vec<u8>>,
    outgoing: Queue,
}

impl Device for Port {
    type RxToken<'a> = Received;
    type TxToken<'a> = Sending<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Received, Sending<'_>)> {
        let frame = self.incoming.pop_front()?;
        Some((Received(frame), Sending(&self.outgoing)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Sending<'_>> {
        Some(Sending(&self.outgoing))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = MTU + 14;
        capabilities
    }
}

struct Received(Vec<u8>);

impl phy::RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

struct Sending<'a>(&'a Queue);

impl phy::TxToken for Sending<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut frame = vec![0; len];
        let result = f(&mut frame);
        self.0.borrow_mut().push_back(frame);
        result
    }
}
