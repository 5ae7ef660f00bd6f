//! TCP through smoltcp, on a stack of its own.
//!
//! Paging must not wait for a stack that ordinary traffic shares: re-entered from a fault it would
//! hang, and a flood could take its buffers. So this transport owns a device, an interface and one
//! socket, all in memory from the caller, and nothing else runs on them. With
//! `netreserve::smoltcp::Reserved` as the device it also owns its share of the packet reserve.

use core::fmt;
use core::net::{Ipv4Addr, SocketAddrV4};
use core::ops::RangeInclusive;
use core::time::Duration;

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet, SocketStorage};
use smoltcp::phy::{Device, Medium};
use smoltcp::socket::tcp;
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpCidr, Ipv4Cidr};

use netreserve::{Flow, FlowTable};
use swapspace::Instant;

use super::{Link, LinkDown, Transport};
use crate::ablation::{Ablation, Mechanism};

/// How soon to try again when the device could not send what is due. Whoever hears that it has room
/// again polls at once.
const BLOCKED_RETRY: Duration = Duration::from_millis(1);

/// How long the connection is quiet before the server is asked whether it is still there: it may have
/// lost its power with nothing of ours on its way, and would never say so.
const KEEP_ALIVE: Duration = Duration::from_secs(8);

/// Where connections of the swap path are made known, so that their packets may use the reserve
/// and are not dropped when memory is short (VMIO).
///
/// `()` is for systems without a reserve.
pub trait VmioFlows {
    /// A TCP connection begins; called before its first packet (S7).
    ///
    /// # Errors
    ///
    /// [`LinkDown::Local`] if there is no room for it; the connection is not made then.
    fn tag(&mut self, local: SocketAddrV4, remote: SocketAddrV4) -> Result<(), LinkDown>;

    /// It has ended; called after its last packet.
    fn untag(&mut self, local: SocketAddrV4, remote: SocketAddrV4);
}

impl VmioFlows for () {
    fn tag(&mut self, _: SocketAddrV4, _: SocketAddrV4) -> Result<(), LinkDown> {
        Ok(())
    }

    fn untag(&mut self, _: SocketAddrV4, _: SocketAddrV4) {}
}

impl VmioFlows for &FlowTable<'_> {
    fn tag(&mut self, local: SocketAddrV4, remote: SocketAddrV4) -> Result<(), LinkDown> {
        self.add(Flow::tcp(local, remote)).or(Err(LinkDown::Local))
    }

    fn untag(&mut self, local: SocketAddrV4, remote: SocketAddrV4) {
        // Absent is what is wanted.
        let _ = self.remove(Flow::tcp(local, remote));
    }
}

/// How a [`SmoltcpTcp`] is addressed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SmoltcpConfig {
    /// Ethernet address of the device; nobody asks for it where the medium is IP.
    pub hardware: EthernetAddress,
    /// Our address and network.
    pub address: Ipv4Cidr,
    /// The router to the server, if it is on another network. Where there is a reserve, it must
    /// be a peer in the flow table too: `FlowTable::add_peer`.
    pub gateway: Option<Ipv4Addr>,
    /// The NFS server.
    pub server: Ipv4Addr,
    /// Local ports, taken in turn, a new one for each connection: 49152 to 65535 usually, 512 to
    /// 1023 for a server that insists on privileged ports.
    pub local_ports: RangeInclusive<u16>,
    /// Random bits, different from boot to boot: sequence numbers and the first port follow from
    /// them.
    pub seed: u64,
}

/// A TCP connection on an interface of its own.
///
/// Nagle's algorithm and delayed acknowledgements are off. The caller gives the buffers: the
/// receive buffer is the TCP window, so the two bound what is under way.
///
/// ```
/// use nfs_swap::transport::smoltcp::{SmoltcpConfig, SmoltcpTcp};
/// use smoltcp::iface::SocketStorage;
/// use smoltcp::phy::{Loopback, Medium};
/// use smoltcp::wire::{EthernetAddress, Ipv4Cidr};
/// use swapspace::Instant;
///
/// let config = SmoltcpConfig {
///     hardware: EthernetAddress([2, 0, 0, 0, 0, 1]),
///     address: Ipv4Cidr::new([10, 0, 2, 15].into(), 24),
///     gateway: Some([10, 0, 2, 2].into()),
///     server: [10, 0, 2, 2].into(),
///     local_ports: 49152..=65535,
///     seed: 0x5eed,
/// };
/// let (mut rx, mut tx) = (vec![0; 65536], vec![0; 65536]);
/// let mut storage = [SocketStorage::EMPTY];
/// let device = Loopback::new(Medium::Ethernet); // yours
/// let flows = (); // or `&flow_table`
/// let transport =
///     SmoltcpTcp::new(device, config, flows, &mut rx, &mut tx, &mut storage, Instant::ZERO);
/// ```
pub struct SmoltcpTcp<'a, D: Device, V: VmioFlows> {
    device: D,
    interface: Interface,
    sockets: SocketSet<'a>,
    handle: SocketHandle,
    config: SmoltcpConfig,
    next_port: u16,
    flows: V,
    /// The connection that is tagged.
    tagged: Option<(SocketAddrV4, SocketAddrV4)>,
    /// The connection that is to be tagged once it is up.
    #[cfg(feature = "ablation")]
    untagged: Option<(SocketAddrV4, SocketAddrV4)>,
    ablation: Ablation,
    link: Link,
    now: Instant,
    wake: Option<Instant>,
}

impl<'a, D: Device, V: VmioFlows> SmoltcpTcp<'a, D, V> {
    /// A transport over `device`, not connected yet; `sockets` needs room for one socket.
    ///
    /// # Panics
    ///
    /// If `device` is not an Ethernet device, `sockets` is empty, or `config.local_ports` is.
    #[must_use]
    pub fn new(
        mut device: D,
        config: SmoltcpConfig,
        flows: V,
        rx: &'a mut [u8],
        tx: &'a mut [u8],
        sockets: &'a mut [SocketStorage<'a>],
        now: Instant,
    ) -> Self {
        assert!(!config.local_ports.is_empty(), "a connection needs a port");
        let hardware = match device.capabilities().medium {
            Medium::Ip => HardwareAddress::Ip,
            _ => config.hardware.into(),
        };
        let mut iface_config = Config::new(hardware);
        iface_config.random_seed = config.seed;
        let mut interface = Interface::new(iface_config, &mut device, timestamp(now));
        interface.update_ip_addrs(|addresses| {
            // A new interface has room for one address, and below for one route.
            let _ = addresses.push(IpCidr::Ipv4(config.address));
        });
        if let Some(gateway) = config.gateway {
            let _ = interface.routes_mut().add_default_ipv4_route(gateway);
        }
        let mut socket = tcp::Socket::new(tcp::SocketBuffer::new(rx), tcp::SocketBuffer::new(tx));
        // Whether the server is still there, while it owes a reply or nothing at all.
        socket.set_keep_alive(Some(smoltcp::time::Duration::from_micros(
            KEEP_ALIVE.as_micros() as u64,
        )));
        socket.set_nagle_enabled(false);
        socket.set_ack_delay(None);
        let mut sockets = SocketSet::new(sockets);
        let ports = u64::from(config.local_ports.end() - config.local_ports.start()) + 1;
        SmoltcpTcp {
            handle: sockets.add(socket),
            next_port: config.local_ports.start() + (config.seed % ports) as u16,
            device,
            interface,
            sockets,
            config,
            flows,
            tagged: None,
            #[cfg(feature = "ablation")]
            untagged: None,
            ablation: Ablation::NONE,
            link: Link::Down(LinkDown::Idle),
            now,
            wake: None,
        }
    }

    /// The device, to ask its driver what to wait for.
    pub const fn device(&self) -> &D {
        &self.device
    }

    /// The device, to serve its interrupts.
    pub const fn device_mut(&mut self) -> &mut D {
        &mut self.device
    }

    fn socket(&mut self) -> &mut tcp::Socket<'a> {
        self.sockets.get_mut(self.handle)
    }

    /// Lets packets flow both ways.
    fn run(&mut self) {
        let time = timestamp(self.now);
        self.interface
            .poll(time, &mut self.device, &mut self.sockets);
        let wake = self.interface.poll_at(time, &self.sockets);
        let wake = wake.map(|at| Instant::from_micros(at.total_micros().max(0) as u64));
        // What is due now was tried just now: the device has no room, or no memory.
        self.wake = wake.map(|at| at.max(self.now + BLOCKED_RETRY));
    }

    /// Switches a mechanism of this transport off, for good. A mechanism of another object changes
    /// nothing.
    #[cfg(feature = "ablation")]
    pub fn ablate(&mut self, mechanism: Mechanism) {
        self.ablation.ablate(mechanism);
    }

    fn tag(&mut self, local: SocketAddrV4, remote: SocketAddrV4) -> Result<(), LinkDown> {
        self.flows.tag(local, remote)?;
        self.tagged = Some((local, remote));
        Ok(())
    }

    fn untag(&mut self) {
        #[cfg(feature = "ablation")]
        {
            self.untagged = None;
        }
        if let Some((local, remote)) = self.tagged.take() {
            self.flows.untag(local, remote);
        }
    }

    fn take_port(&mut self) -> u16 {
        let ports = &self.config.local_ports;
        let port = self.next_port;
        self.next_port = if port == *ports.end() {
            *ports.start()
        } else {
            port + 1
        };
        port
    }
}

impl<D: Device, V: VmioFlows> Transport for SmoltcpTcp<'_, D, V> {
    fn connect(&mut self, port: u16, now: Instant) -> Result<(), LinkDown> {
        self.close();
        self.now = now;
        let local = SocketAddrV4::new(self.config.address.address(), self.take_port());
        let remote = SocketAddrV4::new(self.config.server, port);
        if self.ablation.off(Mechanism::TagBeforeSyn) {
            #[cfg(feature = "ablation")]
            {
                self.untagged = Some((local, remote));
            }
        } else {
            self.tag(local, remote)?;
        }
        let context = self.interface.context();
        let socket = self.sockets.get_mut::<tcp::Socket<'_>>(self.handle);
        let connected = socket.connect(
            context,
            (*remote.ip(), remote.port()),
            (*local.ip(), local.port()),
        );
        if connected.is_err() {
            self.untag();
            return Err(LinkDown::Local);
        }
        self.link = Link::Connecting;
        Ok(())
    }

    fn poll(&mut self, now: Instant) -> Link {
        self.now = now;
        self.run();
        let before = self.link;
        let socket = self.socket();
        self.link = match (before, socket.state()) {
            (Link::Down(why), _) => Link::Down(why),
            (_, tcp::State::SynSent) => Link::Connecting,
            (Link::Connecting, tcp::State::Closed) => Link::Down(LinkDown::Refused),
            (Link::Up, tcp::State::Closed) => Link::Down(LinkDown::Reset),
            _ if socket.may_recv() || socket.can_recv() => Link::Up,
            _ => Link::Down(LinkDown::Closed),
        };
        #[cfg(feature = "ablation")]
        if self.link == Link::Up
            && let Some((local, remote)) = self.untagged.take()
            && let Err(why) = self.tag(local, remote)
        {
            self.link = Link::Down(why);
        }
        self.link
    }

    fn send(&mut self, fill: &mut dyn FnMut(&mut [u8]) -> usize) -> usize {
        let socket = self.socket();
        if !socket.can_send() {
            return 0;
        }
        let filled = socket.send(|buf| {
            let filled = fill(buf).min(buf.len());
            (filled, filled)
        });
        filled.unwrap_or(0)
    }

    fn recv(&mut self, consume: &mut dyn FnMut(&[u8]) -> usize) -> usize {
        let socket = self.socket();
        if !socket.can_recv() {
            return 0;
        }
        let consumed = socket.recv(|bytes| {
            let consumed = consume(bytes).min(bytes.len());
            (consumed, consumed)
        });
        consumed.unwrap_or(0)
    }

    fn next_deadline(&self) -> Option<Instant> {
        self.wake
    }

    fn close(&mut self) {
        if self.socket().is_open() {
            self.socket().abort();
            // The reset leaves now, while the flow is still tagged.
            self.run();
        }
        self.untag();
        self.link = Link::Down(LinkDown::Idle);
    }
}

impl<D: Device, V: VmioFlows> fmt::Debug for SmoltcpTcp<'_, D, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SmoltcpTcp")
            .field("config", &self.config)
            .field("tagged", &self.tagged)
            .field("link", &self.link)
            .finish_non_exhaustive()
    }
}

fn timestamp(now: Instant) -> smoltcp::time::Instant {
    smoltcp::time::Instant::from_micros(i64::try_from(now.as_micros()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests;
