//! A server with two addresses, over real sockets: one goes away, requests go on over the other.

mod support;

use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use core::task::Poll;
use core::time::Duration;
use std::io;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use nfs_server::{Config, Server};
use nfs_swap::nfs3::Nfsstat3;
use nfs_swap::transport::std::StdTcp;
use nfs_swap::transport::{Failover, LinkDown};
use nfs_swap::{RequestError, SwapFile, SwapFileError};
use support::{Frame, PAGE, config, now, page};
use swapspace::{AddressSpace, ErrorKind, IoClass, IoOp, Slot, SpaceError, SwapIo};

type Swap = SwapFile<Frame, Failover<StdTcp, 2>, 8>;

/// An address of a server: what connects there is handed on.
struct Address {
    host: Ipv4Addr,
    port: u16,
    /// Streams to cut; `None` when the address is gone.
    streams: Arc<Mutex<Option<Vec<TcpStream>>>>,
    listens: Option<thread::JoinHandle<()>>,
}

impl Address {
    fn new(host: Ipv4Addr, port: u16, server: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind((host, port))?;
        let port = listener.local_addr()?.port();
        let streams = Arc::new(Mutex::new(Some(vec![])));
        let open = Arc::clone(&streams);
        let listens = thread::spawn(move || {
            for stream in listener.incoming() {
                match &mut *open.lock().unwrap() {
                    Some(open) => open.extend(hand_on(stream.unwrap(), server).unwrap()),
                    None => return,
                }
            }
        });
        Ok(Address {
            host,
            port,
            streams,
            listens: Some(listens),
        })
    }

    /// Cuts every connection, and refuses new ones.
    fn kill(&mut self) {
        for stream in self.streams.lock().unwrap().take().into_iter().flatten() {
            // It may have ended by itself.
            let _ = stream.shutdown(Shutdown::Both);
        }
        // Wakes the thread, which sees that it is over.
        let _ = TcpStream::connect((self.host, self.port));
        if let Some(thread) = self.listens.take() {
            thread.join().unwrap();
        }
    }
}

impl Drop for Address {
    fn drop(&mut self) {
        self.kill();
    }
}

fn hand_on(client: TcpStream, server: SocketAddr) -> io::Result<[TcpStream; 2]> {
    let server = TcpStream::connect(server)?;
    for stream in [&client, &server] {
        stream.set_nodelay(true)?;
    }
    for (from, to) in [(&client, &server), (&server, &client)] {
        let (mut from, mut to) = (from.try_clone()?, to.try_clone()?);
        thread::spawn(move || {
            let _ = io::copy(&mut from, &mut to);
            let _ = to.shutdown(Shutdown::Both);
        });
    }
    Ok([client, server])
}

const HOSTS: [Ipv4Addr; 2] = [Ipv4Addr::new(127, 0, 0, 2), Ipv4Addr::new(127, 0, 0, 3)];

/// Two addresses on one port, which lead to these servers.
fn addresses(servers: [SocketAddr; 2]) -> [Address; 2] {
    for _ in 0..100 {
        let first = Address::new(HOSTS[0], 0, servers[0]).unwrap();
        if let Ok(second) = Address::new(HOSTS[1], first.port, servers[1]) {
            return [first, second];
        }
    }
    panic!("no port is free at both addresses");
}

fn server() -> (Server, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(Config::new(directory.path())).unwrap();
    (server, directory)
}

fn swap(port: u16) -> Swap {
    let url = format!("nfs://{}:{port}/export/swap", HOSTS[0]);
    let transports = HOSTS.map(|host| StdTcp::new(IpAddr::V4(host), Duration::from_secs(1)));
    SwapFile::new(Failover::new(transports), config(&url, 8))
}

fn until<R>(swap: &mut Swap, mut ready: impl FnMut(&mut Swap) -> Poll<R>) -> R {
    loop {
        if let Poll::Ready(result) = ready(swap) {
            return result;
        }
        let limit = Duration::from_millis(20);
        let due = swap.next_deadline();
        let timeout = due.map_or(limit, |due| due.since(now()).min(limit));
        let transport = swap.transport_mut().transport_mut();
        match transport.stream() {
            Some(_) => transport.wait_readable(timeout).unwrap(),
            None => thread::park_timeout(timeout),
        }
    }
}

fn activate(swap: &mut Swap) -> Result<(), SwapFileError> {
    until(swap, |swap| swap.swap_activate(now())).map(drop)
}

fn transfer(swap: &mut Swap, op: IoOp, frame: Frame) -> Result<Frame, SwapFileError> {
    let frames = [frame].into_iter().collect();
    let io = SwapIo::new(op, Slot(3), IoClass::Demand, frames);
    swap.submit(io, now()).unwrap();
    let mut done = until(swap, |swap| {
        swap.poll(now()).map_or(Poll::Pending, Poll::Ready)
    });
    done.result.map(|()| done.io.frames.remove(0))
}

fn reads_what_it_writes(swap: &mut Swap, version: u32) {
    transfer(swap, IoOp::Write, page(3, version)).unwrap();
    let read = transfer(swap, IoOp::Read, vec![0; PAGE].into());
    assert_eq!(read, Ok(page(3, version)));
}

#[test]
fn requests_go_on_over_the_other_address_and_back_again() {
    let (server, _directory) = server();
    let [mut first, mut second] = addresses([server.addr(); 2]);
    let mut swap = swap(first.port);
    activate(&mut swap).unwrap();
    reads_what_it_writes(&mut swap, 1);
    assert_eq!(swap.transport().current(), 0);

    first.kill();
    reads_what_it_writes(&mut swap, 2);
    assert_eq!(swap.transport().current(), 1);

    let _first = Address::new(first.host, first.port, server.addr()).unwrap();
    second.kill();
    reads_what_it_writes(&mut swap, 3);
    assert_eq!(swap.transport().current(), 0);
    until(&mut swap, |swap| swap.swap_deactivate(now())).unwrap();
}

#[test]
fn activation_tries_every_address_before_it_gives_up() {
    let (server, _directory) = server();
    let [mut first, mut second] = addresses([server.addr(); 2]);
    let port = first.port;
    first.kill();
    let mut swap = swap(port);
    activate(&mut swap).unwrap();
    assert_eq!(swap.transport().current(), 1);
    until(&mut swap, |swap| swap.swap_deactivate(now())).unwrap();

    second.kill();
    let why = LinkDown::Refused;
    assert_eq!(
        activate(&mut swap),
        Err(SwapFileError::Connect { port, why })
    );
}

#[test]
fn an_address_of_another_server_is_gone_by_name() {
    let (ours, _directory) = server();
    let (theirs, _their_directory) = server();
    let [mut first, _second] = addresses([ours.addr(), theirs.addr()]);
    let mut swap = swap(first.port);
    activate(&mut swap).unwrap();
    reads_what_it_writes(&mut swap, 1);
    first.kill();
    let error = transfer(&mut swap, IoOp::Write, page(3, 2)).unwrap_err();
    assert!(matches!(
        error,
        SwapFileError::Request(RequestError::Nfs(Nfsstat3::Stale | Nfsstat3::BadHandle))
    ));
    assert_eq!(error.kind(), ErrorKind::Gone);
}
