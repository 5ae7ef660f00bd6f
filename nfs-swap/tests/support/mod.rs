//! What the tests over real sockets share: a clock, and loops that wait for a swap file.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::result_large_err,
    clippy::std_instead_of_alloc,
    reason = "hosted; each test uses its part; what is refused carries its frames"
)]

pub mod scripted;

use core::net::SocketAddr;
use core::task::Poll;
use core::time::Duration;
use std::sync::LazyLock;

use nfs_swap::transport::Transport;
use nfs_swap::transport::std::{StdTcp, StdUdp};
use nfs_swap::{SwapFile, SwapFileConfig, SwapFileError, SwapUrl};
use swapspace::{
    AddressSpace, Completion, Geometry, Instant, IoClass, IoOp, Refused, Slot, SwapIo, Ticket,
};

pub const PAGE: usize = 4096;

pub type Frame = Box<[u8]>;
pub type Swap<T = StdTcp> = SwapFile<Frame, T, 8>;

/// A transport over a real socket, which can be waited upon.
pub trait Socket: Transport {
    fn to_host(host: &str) -> Self;
    fn is_open(&self) -> bool;
    fn wait(&mut self, timeout: Duration);
}

impl Socket for StdTcp {
    fn to_host(host: &str) -> Self {
        StdTcp::resolve(host, Duration::from_secs(1)).unwrap()
    }

    fn is_open(&self) -> bool {
        self.stream().is_some()
    }

    fn wait(&mut self, timeout: Duration) {
        self.wait_readable(timeout).unwrap();
    }
}

impl Socket for StdUdp {
    fn to_host(host: &str) -> Self {
        StdUdp::resolve(host).unwrap()
    }

    fn is_open(&self) -> bool {
        self.socket().is_some()
    }

    fn wait(&mut self, timeout: Duration) {
        self.wait_readable(timeout).unwrap();
    }
}

pub fn now() -> Instant {
    static BOOT: LazyLock<std::time::Instant> = LazyLock::new(std::time::Instant::now);
    Instant::ZERO + BOOT.elapsed()
}

pub fn url(server: SocketAddr) -> String {
    format!("nfs://{server}/export/swap")
}

pub fn config(url: &str, slots: u32) -> SwapFileConfig {
    SwapFileConfig::new(&SwapUrl::parse(url).unwrap(), slots).unwrap()
}

pub fn swap(url: &str, config: SwapFileConfig) -> Swap {
    swap_over(url, config)
}

pub fn swap_over<T: Socket>(url: &str, config: SwapFileConfig) -> Swap<T> {
    let host = SwapUrl::parse(url).unwrap().host;
    SwapFile::new(T::to_host(host), config)
}

/// Waits until there may be something to do, and returns the time.
pub fn wait<T: Socket>(swap: &mut Swap<T>) -> Instant {
    let limit = Duration::from_millis(20);
    let due = swap.next_deadline();
    let timeout = due.map_or(limit, |due| due.since(now()).min(limit));
    if swap.transport().is_open() {
        swap.transport_mut().wait(timeout);
    } else {
        // Nothing can wake us but the deadline of the next try to connect.
        std::thread::park_timeout(timeout);
    }
    now()
}

pub fn activate<T: Socket>(swap: &mut Swap<T>) -> Result<Geometry, SwapFileError> {
    loop {
        if let Poll::Ready(result) = swap.swap_activate(now()) {
            return result;
        }
        wait(swap);
    }
}

pub fn deactivate<T: Socket>(swap: &mut Swap<T>) -> Result<(), SwapFileError> {
    loop {
        if let Poll::Ready(result) = swap.swap_deactivate(now()) {
            return result;
        }
        wait(swap);
    }
}

/// A page that says which one it is.
pub fn page(slot: u32, version: u32) -> Frame {
    let words = (0..PAGE as u32 / 4).map(|i| i ^ slot << 12 ^ version << 24);
    words.flat_map(u32::to_le_bytes).collect()
}

pub fn submit<T: Socket>(
    swap: &mut Swap<T>,
    op: IoOp,
    slot: u32,
    frames: impl IntoIterator<Item = Frame>,
) -> Result<Ticket, Refused<Frame>> {
    let class = match op {
        IoOp::Read => IoClass::Demand,
        IoOp::Write => IoClass::Reclaim,
    };
    let frames = frames.into_iter().collect();
    swap.submit(SwapIo::new(op, Slot(slot), class, frames), now())
}

pub fn complete<T: Socket>(swap: &mut Swap<T>) -> Completion<Frame, SwapFileError> {
    loop {
        if let Some(completion) = swap.poll(now()) {
            return completion;
        }
        wait(swap);
    }
}

pub fn write<T: Socket>(swap: &mut Swap<T>, slot: u32, frame: Frame) -> Result<(), SwapFileError> {
    submit(swap, IoOp::Write, slot, [frame]).unwrap();
    complete(swap).result
}

pub fn read<T: Socket>(swap: &mut Swap<T>, slot: u32) -> Result<Frame, SwapFileError> {
    submit(swap, IoOp::Read, slot, [vec![0xaa; PAGE].into()]).unwrap();
    let mut done = complete(swap);
    done.result.map(|()| done.io.frames.remove(0))
}
