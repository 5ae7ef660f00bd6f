//! The other end: an echo server on a stack of its own.

use core::net::SocketAddrV4;
use std::collections::VecDeque;

use netreserve::Medium;
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{self, Device, DeviceCapabilities};
use smoltcp::socket::tcp;
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpCidr};

use crate::card::MTU;

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
const BUFFER: usize = 65_535;

pub(crate) struct Peer {
    lane: Lane,
    interface: Interface,
    sockets: SocketSet<'static>,
    tcp: SocketHandle,
}

impl Peer {
    pub(crate) fn new(medium: Medium, address: SocketAddrV4) -> Self {
        let (hardware, medium) = match medium {
            Medium::Ip => (HardwareAddress::Ip, phy::Medium::Ip),
            _ => (EthernetAddress(MAC).into(), phy::Medium::Ethernet),
        };
        let mut lane = Lane {
            medium,
            incoming: VecDeque::new(),
            outgoing: VecDeque::new(),
        };
        let mut interface = Interface::new(Config::new(hardware), &mut lane, Instant::ZERO);
        interface.update_ip_addrs(|addrs| {
            let ours = IpCidr::new((*address.ip()).into(), 24);
            addrs.push(ours).expect("the first one");
        });
        let buffer = || tcp::SocketBuffer::new(vec![0; BUFFER]);
        let mut socket = tcp::Socket::new(buffer(), buffer());
        socket.listen(address.port()).expect("it is closed");
        let mut sockets = SocketSet::new(Vec::new());
        let tcp = sockets.add(socket);
        Peer {
            lane,
            interface,
            sockets,
            tcp,
        }
    }

    pub(crate) fn arrive(&mut self, frame: Vec<u8>) {
        self.lane.incoming.push_back(frame);
    }

    /// What it sends at the millisecond `now`.
    pub(crate) fn poll(&mut self, now: u64) -> Vec<Vec<u8>> {
        let now = Instant::from_millis(i64::try_from(now).expect("no run is that long"));
        self.interface.poll(now, &mut self.lane, &mut self.sockets);
        let socket = self.sockets.get_mut::<tcp::Socket<'_>>(self.tcp);
        while socket.can_recv() && socket.can_send() {
            let room = (socket.send_capacity() - socket.send_queue()).min(1024);
            let mut bytes = [0; 1024];
            let n = socket
                .recv_slice(&mut bytes[..room])
                .expect("it can receive");
            socket.send_slice(&bytes[..n]).expect("it can send");
        }
        self.interface.poll(now, &mut self.lane, &mut self.sockets);
        self.lane.outgoing.drain(..).collect()
    }
}

struct Lane {
    medium: phy::Medium,
    incoming: VecDeque<Vec<u8>>,
    outgoing: VecDeque<Vec<u8>>,
}

struct Received(Vec<u8>);
struct Sender<'a>(&'a mut VecDeque<Vec<u8>>);

impl Device for Lane {
    type RxToken<'a> = Received;
    type TxToken<'a> = Sender<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Received, Sender<'_>)> {
        let frame = self.incoming.pop_front()?;
        Some((Received(frame), Sender(&mut self.outgoing)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Sender<'_>> {
        Some(Sender(&mut self.outgoing))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = self.medium;
        let header = match self.medium {
            phy::Medium::Ethernet => 14,
            _ => 0,
        };
        capabilities.max_transmission_unit = MTU + header;
        capabilities
    }
}

impl phy::RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

impl phy::TxToken for Sender<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut frame = vec![0; len];
        let result = f(&mut frame);
        self.0.push_back(frame);
        result
    }
}
