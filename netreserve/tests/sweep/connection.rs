//! A connection of two real stacks, of which one has nothing but the reserve, through every failure.

use core::cell::RefCell;
use core::net::Ipv4Addr;
use std::collections::VecDeque;
use std::rc::Rc;

use netreserve::{Nic, PhyNic, Reserved, Skb, SkbPool};
use smoltcp::iface::{Config, Interface, SocketSet};
use smoltcp::phy::{self, Device, DeviceCapabilities, Medium};
use smoltcp::socket::tcp;
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{EthernetAddress, IpCidr};

use crate::inject::{Run, sweep};
use crate::machine::{Machine, RING, machine};
use crate::packets::*;

const MTU: usize = 1500;
/// Bytes that the peer sends back, in segments of which the window holds a few.
const BYTES: usize = 5_000;
const BUFFER: usize = 2_048;
/// Memory comes back after so many steps in which nothing moved.
const IDLE: usize = 12;
/// More, and it is stuck.
const STEPS: usize = 2_000;

type Wire = Rc<RefCell<VecDeque<Vec<u8>>>>;

/// What an end of the cable hands to smoltcp, copied.
struct Port {
    incoming: Wire,
    outgoing: Wire,
}

impl Device for Port {
    type RxToken<'a> = Received;
    type TxToken<'a> = Sending<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Received, Sending<'_>)> {
        let frame = self.incoming.borrow_mut().pop_front()?;
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

struct Sending<'a>(&'a Wire);

impl phy::TxToken for Sending<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut frame = vec![0; len];
        let result = f(&mut frame);
        self.0.borrow_mut().push_back(frame);
        result
    }
}

/// A card with rings: what arrives while no buffer is posted is lost.
struct Card {
    wire: Port,
    posted: Vec<Skb<'static>>,
    arrived: VecDeque<Skb<'static>>,
    sending: VecDeque<Skb<'static>>,
    lost: usize,
}

impl Card {
    fn send(&mut self) {
        let sent = self.sending.drain(..).map(|skb| skb.data().to_vec());
        self.wire.outgoing.borrow_mut().extend(sent);
    }
}

impl Nic<'static> for Card {
    fn receive(&mut self, pool: &SkbPool<'static>) -> Option<Skb<'static>> {
        while self.posted.len() + self.arrived.len() < RING
            && let Ok(skb) = pool.alloc_rx()
        {
            self.posted.push(skb);
        }
        for frame in self.wire.incoming.borrow_mut().drain(..) {
            match self.posted.pop() {
                Some(mut skb) => {
                    skb.put(frame.len()).unwrap().copy_from_slice(&frame);
                    self.arrived.push_back(skb);
                }
                None => self.lost += 1,
            }
        }
        self.arrived.pop_front()
    }

    fn transmit(&mut self, skb: Skb<'static>) -> Result<(), Skb<'static>> {
        if self.sending.len() == RING {
            return Err(skb);
        }
        self.sending.push_back(skb);
        Ok(())
    }

    fn tx_ready(&mut self) -> bool {
        self.send();
        self.sending.len() < RING
    }

    fn mtu(&self) -> usize {
        MTU
    }

    fn rx_posted(&self) -> Option<usize> {
        Some(self.posted.len() + self.arrived.len())
    }

    fn hardware_addr(&self) -> [u8; 6] {
        MAC
    }
}

/// A stack with one socket.
struct Stack {
    interface: Interface,
    sockets: SocketSet<'static>,
    socket: smoltcp::iface::SocketHandle,
}

impl Stack {
    fn new(device: &mut impl Device, mac: [u8; 6], addr: Ipv4Addr) -> Stack {
        let config = Config::new(EthernetAddress(mac).into());
        let mut interface = Interface::new(config, device, Instant::ZERO);
        interface.update_ip_addrs(|addrs| addrs.push(IpCidr::new(addr.into(), 24)).unwrap());
        let buffer = || tcp::SocketBuffer::new(vec![0; BUFFER]);
        let mut sockets = SocketSet::new(vec![]);
        let socket = sockets.add(tcp::Socket::new(buffer(), buffer()));
        Stack {
            interface,
            sockets,
            socket,
        }
    }

    fn tcp(&mut self) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(self.socket)
    }

    fn delay(&mut self, now: Instant) -> Duration {
        let delay = self.interface.poll_delay(now, &self.sockets);
        delay.unwrap_or(Duration::from_millis(100))
    }
}

fn byte(at: usize) -> u8 {
    (at * 7 % 251) as u8
}

/// Sends bytes to a peer that sends them back, under a flood, with no ordinary memory. Returns how
/// long that took.
fn talk<N: Nic<'static>>(run: &Run<'_>, m: &Machine, nic: N, near: &Wire, far: Port) -> Duration {
    let mut device = Reserved::new(nic, m.pool, m.ingress).unwrap();
    let mut client = Stack::new(&mut device, MAC, *LOCAL.ip());
    let mut far = far;
    let mut server = Stack::new(&mut far, SERVER_MAC, *SERVER.ip());
    server.tcp().listen(SERVER.port()).unwrap();
    let remote = (*SERVER.ip(), SERVER.port());
    let Stack {
        interface,
        sockets,
        socket,
    } = &mut client;
    let connected = sockets.get_mut::<tcp::Socket<'_>>(*socket);
    connected
        .connect(interface.context(), remote, LOCAL.port())
        .unwrap();

    let (mut now, mut idle) = (Instant::ZERO, 0);
    let (mut sent, mut back) = (0, 0);
    run.step("connection");
    for step in 0.. {
        assert!(
            step < STEPS,
            "stuck: {sent} bytes sent, {back} back at {now}"
        );
        let before = (sent, back, client.tcp().state());
        near.borrow_mut().push_back(udp(99, 200));
        client.interface.poll(now, &mut device, &mut client.sockets);
        // What was put into the transmit ring goes out.
        device.nic_mut().tx_ready();
        let tcp = client.tcp();
        if tcp.can_send() && sent < BYTES {
            let next: Vec<u8> = (sent..BYTES.min(sent + 700)).map(byte).collect();
            sent += tcp.send_slice(&next).unwrap();
        }
        if tcp.can_recv() {
            let at = back;
            back += tcp
                .recv(|bytes| {
                    assert!(bytes.iter().zip(at..).all(|(b, at)| *b == byte(at)));
                    (bytes.len(), bytes.len())
                })
                .unwrap();
        }
        server.interface.poll(now, &mut far, &mut server.sockets);
        let tcp = server.tcp();
        if tcp.can_recv() && tcp.can_send() {
            let mut echo = [0; BUFFER];
            let room = tcp.send_capacity() - tcp.send_queue();
            let n = tcp.recv_slice(&mut echo[..room]).unwrap();
            assert_eq!(tcp.send_slice(&echo[..n]).unwrap(), n);
        }
        if back == BYTES {
            break;
        }
        let moved = before != (sent, back, client.tcp().state());
        idle = if moved { 0 } else { idle + 1 };
        if idle == IDLE {
            run.memory_is_back();
        }
        // While something is on its way, time hardly passes.
        let soon = Duration::from_micros(100);
        now += if near.borrow().is_empty() && !device.more_pending() {
            client.delay(now).min(server.delay(now)).max(soon)
        } else {
            soon
        };
    }
    client.tcp().abort();
    client.interface.poll(now, &mut device, &mut client.sockets);
    now - Instant::ZERO
}

fn over_rings(run: &Run<'_>, m: &Machine) -> Duration {
    let [near, far] = [(); 2].map(|()| Wire::default());
    let card = Card {
        wire: Port {
            incoming: near.clone(),
            outgoing: far.clone(),
        },
        posted: Vec::new(),
        arrived: VecDeque::new(),
        sending: VecDeque::new(),
        lost: 0,
    };
    let port = Port {
        incoming: far,
        outgoing: near.clone(),
    };
    talk(run, m, card, &near, port)
}

fn over_a_lending_device(run: &Run<'_>, m: &Machine) -> Duration {
    let [near, far] = [(); 2].map(|()| Wire::default());
    let device = Port {
        incoming: near.clone(),
        outgoing: far.clone(),
    };
    let port = Port {
        incoming: far,
        outgoing: near.clone(),
    };
    talk(run, m, PhyNic::new(device, MAC).unwrap(), &near, port)
}

#[test]
fn n5_a_connection_out_of_the_reserve_gets_on_whichever_allocation_fails() {
    type Link = fn(&Run<'_>, &Machine) -> Duration;
    let links: [(&str, Link); 2] = [
        ("connection over rings", over_rings),
        ("connection over a lending device", over_a_lending_device),
    ];
    for (name, link) in links {
        let m = machine();
        let scenario = |run: &Run<'_>| {
            m.flows.add(swap()).unwrap();
            let hog = m.exhaust();
            let before = m.ingress.stats();
            let took = link(run, &m);
            // A segment that is lost on our side costs a second; so many failures may.
            let patient = run.injected() > 1;
            assert!(
                patient || took < Duration::from_secs(1),
                "a segment was lost: {took}"
            );
            let after = m.ingress.stats();
            assert_eq!(after.vmio_dropped, before.vmio_dropped);
            assert!(
                after.dropped.total() > before.dropped.total(),
                "there was a flood"
            );
            drop(hog);
            m.flows.remove(swap()).unwrap();
        };
        sweep(name, m.injector, scenario, || m.at_rest());
    }
}
