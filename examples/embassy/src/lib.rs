//! A second stack over the reserve: `embassy-net`, driven by the card's interrupts.
//!
//! ```text
//!  client ── embassy-net ── ReservedDriver ── Card ◀── the wire ◀── flood
//!    │            │             │               │          │
//!    └─ executor ─┘◀── NicWaker ◀── interrupts ─┘       echo server (smoltcp)
//! ```
//! The machine has no ordinary memory left before the first packet is sent. What arrives needs a buffer of
//! the reserve, and most of what arrives is for a socket whose owner never reads. Time is virtual, and a task
//! is polled when it was woken and not otherwise, so that a forgotten waker is a hang.

mod card;
mod executor;
mod machine;
mod peer;

use core::cell::Cell;
use core::fmt;
use core::net::{Ipv4Addr, SocketAddrV4};
use std::rc::Rc;
use std::sync::{Mutex, PoisonError};

use embassy_net::tcp::TcpSocket;
use embassy_net::{Config, Ipv4Cidr, Stack, StackResources, StaticConfigV4};
use embassy_time::{Duration, MockDriver};
use netreserve::{Flow, Medium, NicWaker, Reserved, ReservedDriver};

use card::{Card, LATENCY, Wire};
use executor::Executor;
use machine::Machine;
use peer::Peer;

/// Bytes that the client sends, and that the server sends back.
pub const BYTES: usize = 40_000;

const LOCAL: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const SERVER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 2), 2049);
/// From which `embassy-net` makes the first local port.
const SEED: u64 = 48_127;
const LOCAL_PORT: u16 = 1025 + (SEED % 64_510) as u16;

/// The clock of `embassy-time` is one for the whole process.
static CLOCK: Mutex<()> = Mutex::new(());

/// What is different in a run.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// What the card's frames begin with.
    pub medium: Medium,
    /// Packets of the flood in each millisecond; the card has buffers for eight at once.
    pub flood: usize,
    /// Whether emergency packets that do not serve the VM are dropped.
    pub vmio_filter: bool,
    /// Whether the card tells when something has happened.
    pub interrupts: bool,
    /// Virtual seconds after which it is not waited for any more.
    pub patience: u64,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            medium: Medium::Ethernet,
            flood: 20,
            vmio_filter: true,
            interrupts: true,
            patience: 60,
        }
    }
}

/// What became of a run.
#[derive(Debug, Clone, Copy)]
pub struct Outcome {
    /// Bytes that came back to the client, as they were sent.
    pub echoed: usize,
    /// Virtual milliseconds.
    pub milliseconds: u64,
    /// Packets received into memory of the reserve.
    pub emergency: u64,
    /// Of these, dropped.
    pub dropped: u64,
    /// Packets that lie at the sleeper's socket.
    pub delivered: u64,
    /// Packets for which the card had no buffer.
    pub lost: u64,
    /// Times that the network stack was polled in the run.
    pub polls: u64,
    /// The same in a second of silence after it.
    pub idle_polls: u64,
    /// Bytes of both reserves that are charged when all is over.
    pub charged: usize,
}

impl Outcome {
    /// Whether the client got all of it.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.echoed == BYTES
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} of {BYTES} bytes came back in {} ms; {} packets in reserve memory, {} of them dropped, \
             {} at a socket that nobody reads; {} found no buffer; {} polls of the stack, {} in a second \
             of silence",
            self.echoed,
            self.milliseconds,
            self.emergency,
            self.dropped,
            self.delivered,
            self.lost,
            self.polls,
            self.idle_polls
        )
    }
}

/// Sends bytes to an echo server until they are all back, or patience is at its end.
///
/// # Panics
///
/// If other bytes come back.
#[must_use]
pub fn exchange(options: &Options) -> Outcome {
    // One that panicked leaves nothing behind that matters: the clock is set back.
    let _clock = CLOCK.lock().unwrap_or_else(PoisonError::into_inner);
    let clock = MockDriver::get();
    clock.reset();

    let waker: &'static NicWaker = Box::leak(Box::new(NicWaker::new()));
    let machine = Machine::new(options, waker);
    let flow = Flow::tcp(SocketAddrV4::new(LOCAL, LOCAL_PORT), SERVER);
    machine.flows.add(flow).expect("the table is empty");
    let wire = Wire::new(options.medium);
    let device = Reserved::new(Card::new(&wire), machine.pool, machine.ingress)
        .expect("buffers hold a frame of the MTU");

    let resources = Box::leak(Box::new(StackResources::<2>::new()));
    let (stack, mut runner) = embassy_net::new(
        ReservedDriver::new(device, waker),
        Config::ipv4_static(StaticConfigV4 {
            address: Ipv4Cidr::new(LOCAL, 24),
            gateway: None,
            dns_servers: Default::default(),
        }),
        resources,
        SEED,
    );
    let echoed = Rc::new(Cell::new(0));
    let mut executor = Executor::default();
    let network = executor.spawn(async move { runner.run().await });
    executor.spawn(client(stack, echoed.clone()));

    let hog = machine.exhaust();
    let mut peer = Peer::new(options.medium, SERVER);
    let mut milliseconds = 0;
    let mut tick = |executor: &mut Executor, flood: usize| {
        executor.run();
        let interrupt = |executor: &mut Executor, happened: bool| {
            if happened && options.interrupts {
                waker.wake();
            }
            executor.run();
        };
        interrupt(executor, wire.send(&mut peer));
        for burst in wire.coming(&mut peer, milliseconds, flood).chunks(LATENCY) {
            let arrived = burst.iter().filter(|frame| wire.arrive(frame)).count();
            interrupt(executor, arrived > 0);
        }
        milliseconds += 1;
        clock.advance(Duration::from_millis(1));
        milliseconds
    };
    while echoed.get() < BYTES && tick(&mut executor, options.flood) < options.patience * 1000 {}
    let polls = executor.polls(network);
    let took = tick(&mut executor, 0);
    // The last acknowledgements.
    let mut silence = |executor: &mut Executor| {
        let before = executor.polls(network);
        for _ in 0..1000 {
            tick(executor, 0);
        }
        executor.polls(network) - before
    };
    silence(&mut executor);
    let idle_polls = silence(&mut executor);

    let stats = machine.ingress.stats();
    let lost = wire.lost();
    drop((executor, wire, hog));
    machine.flows.remove(flow).expect("it was added");
    Outcome {
        echoed: echoed.get(),
        milliseconds: took,
        emergency: stats.received_emergency,
        dropped: stats.dropped.total(),
        delivered: stats.delivered,
        lost,
        polls,
        idle_polls,
        charged: machine.charged(),
    }
}

/// Sends a piece, and waits until it is back.
async fn client(stack: Stack<'static>, echoed: Rc<Cell<usize>>) {
    let (mut rx, mut tx) = ([0; 8192], [0; 4096]);
    let mut socket = TcpSocket::new(stack, &mut rx, &mut tx);
    socket.connect(SERVER).await.expect("the server listens");
    let local = socket.local_endpoint().expect("it is connected");
    assert_eq!(local.port, LOCAL_PORT, "the flow was tagged before it");
    let mut done = 0;
    while done < BYTES {
        let piece: Vec<u8> = (done..BYTES.min(done + 6000)).map(byte).collect();
        let (mut reader, mut writer) = socket.split();
        let mut sent = 0;
        let mut back = vec![0; piece.len()];
        let mut received = 0;
        while received < piece.len() {
            if sent < piece.len() {
                sent += writer
                    .write(&piece[sent..])
                    .await
                    .expect("the connection holds");
            }
            if sent == piece.len() {
                let n = reader.read(&mut back[received..]).await;
                received += n.expect("the connection holds");
            }
        }
        assert_eq!(back, piece);
        done += piece.len();
        echoed.set(done);
    }
}

fn byte(i: usize) -> u8 {
    (i * 7 + i / 251) as u8
}
