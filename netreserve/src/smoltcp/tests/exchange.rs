//! Real stacks at both ends of the cable, and a flood between them.

use core::net::SocketAddr;

use super::*;

const BYTES: usize = 20_000;
const ROUND: Duration = Duration::from_millis(5);
/// Frames of the flood in each round: more than the card has buffers for.
const FLOOD: usize = 12;
/// Where the flood goes to: a socket whose owner never reads.
const SLEEPER: u16 = 7000;

#[derive(Debug, Clone, Copy)]
pub(super) enum Version {
    V4,
    V6,
}

impl Version {
    /// Ours, and the server's.
    fn addresses(self) -> [IpAddress; 2] {
        match self {
            Version::V4 => [*LOCAL.ip(), *SERVER.ip()].map(IpAddress::Ipv4),
            Version::V6 => {
                [1, 2].map(|host| Ipv6Address::new(0xfd00, 0, 0, 0, 0, 0, 0, host).into())
            }
        }
    }
}

struct Host {
    interface: Interface,
    sockets: SocketSet<'static>,
    tcp: Vec<SocketHandle>,
}

impl Host {
    fn new(
        device: &mut impl Device,
        mac: [u8; 6],
        address: IpAddress,
        buffer: usize,
        n: usize,
    ) -> Host {
        let hardware = match device.capabilities().medium {
            phy::Medium::Ethernet => HardwareAddress::Ethernet(EthernetAddress(mac)),
            _ => HardwareAddress::Ip,
        };
        let mut interface = Interface::new(Config::new(hardware), device, Instant::ZERO);
        interface.update_ip_addrs(|addrs| addrs.push(IpCidr::new(address, 24)).unwrap());
        let mut sockets = SocketSet::new(vec![]);
        let storage = || tcp::SocketBuffer::new(vec![0; buffer]);
        let tcp = (0..n).map(|_| {
            let mut socket = tcp::Socket::new(storage(), storage());
            socket.set_nagle_enabled(false);
            sockets.add(socket)
        });
        let tcp = tcp.collect();
        Host {
            interface,
            sockets,
            tcp,
        }
    }

    fn socket(&mut self, i: usize) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(self.tcp[i])
    }
}

/// What happened.
pub(super) struct Outcome {
    m: Machine,
    medium: Medium,
    /// Bytes that came back on each connection.
    echoed: Vec<usize>,
    done: Instant,
}

/// `connections` to an echo server, with no ordinary memory at all from the first packet on.
pub(super) fn exchange<N: Cable>(
    medium: Medium,
    version: Version,
    connections: usize,
    prepare: impl FnOnce(&Machine, &mut Reserved<'static, N>),
    limit: Duration,
) -> Outcome {
    let m = machine();
    m.sockets.bind(Protocol::Udp, SLEEPER, usize::MAX).unwrap();
    let mut device = Reserved::new(N::over(medium), m.pool, ladder(&m, medium)).unwrap();
    let mut line = Line::new(super::super::medium(medium));
    let [ours, theirs] = version.addresses();
    let mut us = Host::new(&mut device, MAC, ours, 8192, connections);
    let mut server = Host::new(&mut line, SERVER_MAC, theirs, 65_535, connections);
    prepare(&m, &mut device);
    let hog = m.exhaust();
    let mut sleeper = LOCAL;
    sleeper.set_port(SLEEPER);
    let flood = on(medium, packet(Protocol::Udp, STRANGER, sleeper, 1000));

    let data: Vec<u8> = (0..BYTES).map(|i| (i * 7 + i / 251) as u8).collect();
    let mut flows = Vec::new();
    for i in 0..connections {
        server.socket(i).listen(2049).unwrap();
        let local = 49_152 + i as u16;
        let flow = flow((ours, local), (theirs, 2049));
        m.flows.add(flow).unwrap();
        flows.push(flow);
        let Host {
            interface,
            sockets,
            tcp,
        } = &mut us;
        let socket = sockets.get_mut::<tcp::Socket<'_>>(tcp[i]);
        socket
            .connect(interface.context(), (theirs, 2049), local)
            .unwrap();
    }

    let (mut sent, mut echoed) = (vec![0; connections], vec![0; connections]);
    let mut now = Instant::ZERO;
    while now < Instant::ZERO + limit && echoed.iter().any(|n| *n < BYTES) {
        for _ in 0..FLOOD {
            device.nic_mut().arrive(flood.clone());
        }
        loop {
            us.interface.poll(now, &mut device, &mut us.sockets);
            if !device.more_pending() {
                break;
            }
            // A real card goes on sending, too.
            let Some(frame) = device.nic_mut().take() else {
                if device.weight_exhausted() {
                    continue;
                }
                break;
            };
            line.incoming.push_back(frame);
        }
        line.incoming
            .extend(core::iter::from_fn(|| device.nic_mut().take()));
        for i in 0..connections {
            let socket = us.socket(i);
            if socket.can_send() {
                sent[i] += socket.send_slice(&data[sent[i]..]).unwrap();
            }
            while socket.can_recv() {
                socket
                    .recv(|bytes| {
                        assert_eq!(bytes, &data[echoed[i]..echoed[i] + bytes.len()]);
                        echoed[i] += bytes.len();
                        (bytes.len(), ())
                    })
                    .unwrap();
            }
        }
        server.interface.poll(now, &mut line, &mut server.sockets);
        for i in 0..connections {
            let socket = server.socket(i);
            while socket.can_recv() && socket.can_send() {
                let (mut bytes, room) = ([0; 1024], socket.send_capacity() - socket.send_queue());
                let n = socket.recv_slice(&mut bytes[..room.min(1024)]).unwrap();
                assert_eq!(socket.send_slice(&bytes[..n]), Ok(n));
            }
        }
        server.interface.poll(now, &mut line, &mut server.sockets);
        while let Some(frame) = line.outgoing.pop_front() {
            device.nic_mut().arrive(frame);
        }
        now += ROUND;
    }
    for flow in flows {
        m.flows.remove(flow).unwrap();
    }
    let stats = ladder(&m, medium).stats();
    assert!(stats.received_emergency > 0, "there is no ordinary memory");
    drop((device, hog));
    Outcome {
        m,
        medium,
        echoed,
        done: now,
    }
}

fn flow(local: (IpAddress, u16), remote: (IpAddress, u16)) -> Flow {
    let end = |(addr, port): (IpAddress, u16)| SocketAddr::new(addr.into(), port);
    Flow::tcp(end(local), end(remote))
}

impl Outcome {
    pub(super) fn assert_complete(&self) {
        assert!(
            self.echoed.iter().all(|n| *n == BYTES),
            "{:?} at {}",
            self.echoed,
            self.done
        );
        let stats = ladder(&self.m, self.medium).stats();
        assert!(stats.dropped.get(DropReason::EmergencyUdp) > 0);
        assert_eq!(stats.delivered, 0);
        self.m.assert_quiescent();
    }
}

/// A real stack, no ordinary memory at all, and a flood before and behind each question.
#[test]
fn n8_a_stack_answers_the_server_out_of_the_reserve_under_a_flood() {
    let foreign = packet(Protocol::Udp, STRANGER, LOCAL, 1000);
    let question = arp(*SERVER.ip(), *LOCAL.ip());
    let frames = (0..100).map(|i| {
        if i % 10 == 5 {
            question.clone()
        } else {
            foreign.clone()
        }
    });
    let m = machine();
    m.flows.add(SWAP).unwrap();
    let card = Card::new(Medium::Ethernet, frames);
    let mut device = Reserved::new(card, m.pool, m.ingress).unwrap();
    let hog = m.exhaust();

    let mut us = Host::new(&mut device, MAC, (*LOCAL.ip()).into(), 0, 0);
    let mut answers = 0;
    loop {
        us.interface
            .poll(Instant::ZERO, &mut device, &mut us.sockets);
        let sending = &mut device.nic_mut().sending;
        assert!(sending.iter().all(Skb::is_emergency));
        answers += sending.drain(..).count();
        if !device.more_pending() && device.nic().incoming.is_empty() {
            break;
        }
    }
    assert_eq!(answers, 10);
    let stats = m.ingress.stats();
    assert_eq!(stats.dropped.get(DropReason::EmergencyUdp), 90);
    assert_eq!((stats.control, stats.vmio_dropped), (10, 0));
    drop((device, hog));
    m.assert_quiescent();
}

const VERSIONS: [Version; 2] = [Version::V4, Version::V6];
pub(super) const LONG: Duration = Duration::from_secs(120);

#[test]
fn n2_n8_an_exchange_ends_in_reserve_memory_alone_under_a_flood() {
    for medium in MEDIA {
        for version in VERSIONS {
            exchange::<Card>(medium, version, 1, |_, _| (), LONG).assert_complete();
            exchange::<PhyNic<'static, Line>>(medium, version, 1, |_, _| (), LONG)
                .assert_complete();
        }
    }
}

/// As many connections as there are buffers, and one segment for each.
#[test]
fn n7_several_connections_over_one_device_end_as_well() {
    for (medium, version) in [(Medium::Ethernet, Version::V4), (Medium::Ip, Version::V6)] {
        exchange::<Card>(medium, version, 4, |_, _| (), LONG).assert_complete();
    }
}

#[cfg(feature = "ablation")]
#[test]
fn n2_without_the_filter_the_flood_has_the_reserve_and_the_exchange_does_not_end() {
    for medium in MEDIA {
        let off = |m: &Machine, _: &mut Reserved<'static, Card>| {
            ladder(m, medium).ablate(Mechanism::VmioFilter);
        };
        let outcome = exchange(medium, Version::V4, 1, off, LONG);
        assert!(
            outcome.echoed[0] < BYTES,
            "{} at {}",
            outcome.echoed[0],
            outcome.done
        );
        assert!(ladder(&outcome.m, medium).stats().delivered > 0);
    }
}
