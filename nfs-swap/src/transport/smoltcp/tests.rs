//! Against a smoltcp peer at the other end of a wire, in virtual time.

extern crate alloc;
extern crate std;

use alloc::collections::VecDeque;
use alloc::rc::Rc;
use alloc::vec;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};

use smoltcp::phy::{self, DeviceCapabilities, Medium};
use smoltcp::wire::Ipv4Address;

use super::*;

const MACHINE: Ipv4Address = Ipv4Address::new(10, 0, 2, 15);
const SERVER: Ipv4Address = Ipv4Address::new(10, 0, 2, 2);
const PORT: u16 = 2049;

type Queue = Rc<RefCell<VecDeque<Vec<u8>>>>;

/// One end of the wire, which may have nothing to send with.
#[derive(Clone, Default)]
struct End {
    inbox: Queue,
    outbox: Queue,
    blocked: Rc<Cell<bool>>,
}

struct Rx(Vec<u8>);

struct Tx(Queue);

impl phy::RxToken for Rx {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

impl phy::TxToken for Tx {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut frame = vec![0; len];
        let result = f(&mut frame);
        self.0.borrow_mut().push_back(frame);
        result
    }
}

impl Device for End {
    type RxToken<'a> = Rx;
    type TxToken<'a> = Tx;

    fn receive(&mut self, _: smoltcp::time::Instant) -> Option<(Rx, Tx)> {
        if self.blocked.get() {
            return None;
        }
        let frame = self.inbox.borrow_mut().pop_front()?;
        Some((Rx(frame), Tx(self.outbox.clone())))
    }

    fn transmit(&mut self, _: smoltcp::time::Instant) -> Option<Tx> {
        (!self.blocked.get()).then(|| Tx(self.outbox.clone()))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.max_transmission_unit = 1514;
        capabilities.medium = Medium::Ethernet;
        capabilities
    }
}

/// The server's stack, with one socket that listens.
struct Peer {
    device: End,
    interface: Interface,
    sockets: SocketSet<'static>,
}

impl Peer {
    /// Switched on, knowing nothing of any connection.
    fn new(mut device: End) -> Self {
        let config = Config::new(EthernetAddress([2, 0, 0, 0, 0, 2]).into());
        let mut interface = Interface::new(config, &mut device, timestamp(Instant::ZERO));
        interface.update_ip_addrs(|addresses| {
            addresses.push(IpCidr::new(SERVER.into(), 24)).unwrap();
        });
        let buffer = || tcp::SocketBuffer::new(vec![0; 4096]);
        let mut socket = tcp::Socket::new(buffer(), buffer());
        socket.listen(PORT).unwrap();
        let mut sockets = SocketSet::new(vec![]);
        sockets.add(socket);
        Peer {
            device,
            interface,
            sockets,
        }
    }

    fn run(&mut self, now: Instant) {
        let (device, sockets) = (&mut self.device, &mut self.sockets);
        self.interface.poll(timestamp(now), device, sockets);
    }
}

fn ends() -> [End; 2] {
    let machine = End::default();
    let server = End {
        inbox: machine.outbox.clone(),
        outbox: machine.inbox.clone(),
        ..End::default()
    };
    [machine, server]
}

/// Runs `test` with a transport over `device`.
fn with_transport(device: End, test: impl FnOnce(&mut SmoltcpTcp<'_, End, ()>)) {
    let config = SmoltcpConfig {
        hardware: EthernetAddress([2, 0, 0, 0, 0, 1]),
        address: Ipv4Cidr::new(MACHINE, 24),
        gateway: None,
        server: SERVER,
        local_ports: 600..=603,
        seed: 7,
    };
    let (mut rx, mut tx) = (vec![0; 4096], vec![0; 4096]);
    let mut storage = [SocketStorage::EMPTY];
    let mut transport = SmoltcpTcp::new(
        device,
        config,
        (),
        &mut rx,
        &mut tx,
        &mut storage,
        Instant::ZERO,
    );
    test(&mut transport);
}

/// Lets both ends move, and time pass from one deadline to the next, until the link is as asked for.
/// Returns when that was.
fn until(
    transport: &mut SmoltcpTcp<'_, End, ()>,
    peer: &mut Peer,
    mut now: Instant,
    reached: impl Fn(Link) -> bool,
) -> Instant {
    for _ in 0..1000 {
        let link = transport.poll(now);
        if reached(link) {
            return now;
        }
        peer.run(now);
        let arrived = !transport.device().inbox.borrow().is_empty();
        if !arrived {
            now = transport
                .next_deadline()
                .expect("something is due")
                .max(now);
        }
    }
    panic!("it never came to that");
}

#[test]
fn a_server_that_forgot_a_quiet_connection_is_noticed() {
    let [machine, server] = ends();
    with_transport(machine, |transport| {
        let mut peer = Peer::new(server.clone());
        transport.connect(PORT, Instant::ZERO).unwrap();
        let up = until(transport, &mut peer, Instant::ZERO, |link| link == Link::Up);
        // Its power was away for a moment: nothing of ours is on its way, and it says nothing.
        let mut peer = Peer::new(server);
        let down = until(transport, &mut peer, up, |link| link != Link::Up);
        assert_eq!(transport.poll(down), Link::Down(LinkDown::Reset));
        assert!(
            down.since(up) <= 2 * KEEP_ALIVE,
            "after {:?}",
            down.since(up)
        );
    });
}

#[test]
fn a_device_that_cannot_send_is_asked_again_soon_and_not_at_once() {
    let [machine, server] = ends();
    let blocked = machine.blocked.clone();
    with_transport(machine, |transport| {
        let mut peer = Peer::new(server);
        blocked.set(true);
        let mut now = Instant::from_micros(1_000_000);
        transport.connect(PORT, now).unwrap();
        for _ in 0..10 {
            assert_eq!(transport.poll(now), Link::Connecting);
            let next = transport.next_deadline();
            assert_eq!(next, Some(now + BLOCKED_RETRY));
            now = now + BLOCKED_RETRY;
        }
        blocked.set(false);
        until(transport, &mut peer, now, |link| link == Link::Up);
    });
}
