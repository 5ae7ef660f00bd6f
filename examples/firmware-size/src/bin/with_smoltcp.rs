//! smoltcp over the reserve: a TCP connection with itself, through the card and back.

#![no_std]
#![no_main]

use cortex_m_rt::entry;
use cortex_m_semihosting::hprintln;
use firmware_size::machine::{self, Arena, FRAMES};
use firmware_size::{ADDRESS, LOCAL, SERVER, STRANGER, udp};
use mempool::{FRAME_SIZE, FrameEntry};
use netreserve::Flow;
use smoltcp::iface::{Config, Interface, SocketSet, SocketStorage};
use smoltcp::socket::tcp;
use smoltcp::time::Instant;
use smoltcp::wire::{HardwareAddress, IpAddress, IpCidr};

const BUFFER: usize = 2048;
/// Several times a buffer.
const BYTES: usize = 10_000;
/// Milliseconds: it takes far fewer.
const PATIENCE: i64 = 60_000;

#[entry]
fn main() -> ! {
    static mut ARENA: Arena = Arena([0; FRAMES * FRAME_SIZE]);
    static mut TABLE: [FrameEntry; FRAMES] = [FrameEntry::EMPTY; FRAMES];
    static mut BUFFERS: [[u8; BUFFER]; 4] = [[0; BUFFER]; 4];

    let [from_us, to_us, from_them, to_them] = BUFFERS;
    let flows = [Flow::tcp(LOCAL, SERVER), Flow::tcp(SERVER, LOCAL)];
    machine::run(ARENA, TABLE, &flows, |mut device| {
        let mut interface =
            Interface::new(Config::new(HardwareAddress::Ip), &mut device, Instant::ZERO);
        interface.update_ip_addrs(|addrs| {
            let _ = addrs.push(IpCidr::new(IpAddress::Ipv4(ADDRESS), 24));
        });
        let mut storage = [SocketStorage::EMPTY; 2];
        let mut sockets = SocketSet::new(&mut storage[..]);
        let mut server = socket(to_them, from_them);
        server.listen(SERVER.port()).expect("it is closed");
        let server = sockets.add(server);
        let mut client = socket(to_us, from_us);
        let remote = (IpAddress::Ipv4(ADDRESS), SERVER.port());
        client
            .connect(interface.context(), remote, LOCAL.port())
            .expect("it is closed");
        let client = sockets.add(client);

        let mut foreign = [0x55; 1000];
        udp(&mut foreign, STRANGER, LOCAL);
        let (mut sent, mut received, mut now) = (0, 0, 0);
        while received < BYTES {
            assert!(now < PATIENCE, "{received} of {BYTES} bytes came");
            device.nic_mut().arrive(&foreign);
            interface.poll(Instant::from_millis(now), &mut device, &mut sockets);
            let client = sockets.get_mut::<tcp::Socket<'_>>(client);
            while sent < BYTES && client.can_send() {
                let more = |room: &mut [u8]| {
                    let n = room.len().min(BYTES - sent);
                    (sent..)
                        .zip(&mut room[..n])
                        .for_each(|(i, byte)| *byte = i as u8);
                    (n, n)
                };
                sent += client.send(more).expect("it can send");
            }
            let server = sockets.get_mut::<tcp::Socket<'_>>(server);
            while server.can_recv() {
                let more = |bytes: &mut [u8]| {
                    let right = (received..).zip(&*bytes).all(|(i, byte)| *byte == i as u8);
                    assert!(right, "what was sent");
                    (bytes.len(), bytes.len())
                };
                received += server.recv(more).expect("it can receive");
            }
            now += 1;
        }
        hprintln!("delivered: {} bytes over TCP in {} ms", received, now);
    });
    firmware_size::success()
}

fn socket<'a>(rx: &'a mut [u8], tx: &'a mut [u8]) -> tcp::Socket<'a> {
    tcp::Socket::new(tcp::SocketBuffer::new(rx), tcp::SocketBuffer::new(tx))
}
