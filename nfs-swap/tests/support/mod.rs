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

use nfs_swap::transport::std::StdTcp;
use nfs_swap::{SwapFile, SwapFileConfig, SwapFileError, SwapUrl};
use swapspace::{
    AddressSpace, Completion, Geometry, Instant, IoClass, IoOp, Refused, Slot, SwapIo, Ticket,
};

pub const PAGE: usize = 4096;

pub type Frame = Box<[u8]>;
pub type Swap = SwapFile<Frame, StdTcp, 8>;

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
    let host = SwapUrl::parse(url).unwrap().host;
    let transport = StdTcp::resolve(host, Duration::from_secs(1)).unwrap();
    SwapFile::new(transport, config)
}

/// Waits until there may be something to do, and returns the time.
pub fn wait(swap: &mut Swap) -> Instant {
    let limit = Duration::from_millis(20);
    let due = swap.next_deadline();
    let timeout = due.map_or(limit, |due| due.since(now()).min(limit));
    if swap.transport().stream().is_some() {
        swap.transport_mut().wait_readable(timeout).unwrap();
    } else {
        // Nothing can wake us but the deadline of the next try to connect.
        std::thread::park_timeout(timeout);
    }
    now()
}

pub fn activate(swap: &mut Swap) -> Result<Geometry, SwapFileError> {
    loop {
        if let Poll::Ready(result) = swap.swap_activate(now()) {
            return result;
        }
        wait(swap);
    }
}

pub fn deactivate(swap: &mut Swap) -> Result<(), SwapFileError> {
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

pub fn submit(
    swap: &mut Swap,
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

pub fn complete(swap: &mut Swap) -> Completion<Frame, SwapFileError> {
    loop {
        if let Some(completion) = swap.poll(now()) {
            return completion;
        }
        wait(swap);
    }
}

pub fn write(swap: &mut Swap, slot: u32, frame: Frame) -> Result<(), SwapFileError> {
    submit(swap, IoOp::Write, slot, [frame]).unwrap();
    complete(swap).result
}

pub fn read(swap: &mut Swap, slot: u32) -> Result<Frame, SwapFileError> {
    submit(swap, IoOp::Read, slot, [vec![0xaa; PAGE].into()]).unwrap();
    let mut done = complete(swap);
    done.result.map(|()| done.io.frames.remove(0))
}
