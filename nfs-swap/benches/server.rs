//! Pages to and from a real NFS server, as fast as they go: one line of figures.
//!
//!     cargo bench -p nfs-swap --features std --bench server -- URL MIB OP PATTERN BLOCK DEPTH LIMIT
//!
//! OP is `read` or `write`, PATTERN `seq` or `rand`; BLOCK is in bytes, a power of two; DEPTH, up to 64, is how
//! many requests are in flight; LIMIT is seconds (`1.5s`) or requests (`20000`). The file has MIB MiB; it is made
//! if it is not there, and stays. `docs/benchmarks/nfs/run.sh` runs this beside other clients.

use core::task::Poll;
use core::time::Duration;
use std::process::ExitCode;
use std::time::Instant as Clock;

use nfs_swap::transport::std::StdTcp;
use nfs_swap::{SwapFile, SwapFileConfig, SwapUrl};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use swapspace::{AddressSpace, Instant, IoClass, IoOp, Slot, SwapIo, Ticket};

type Error = Box<dyn core::error::Error>;
type Frame = Box<[u8]>;
type Swap = SwapFile<Frame, StdTcp, DEPTH_MAX>;

const DEPTH_MAX: usize = 64;

/// When to stop.
#[derive(Clone, Copy)]
enum Limit {
    Time(Duration),
    Requests(u64),
}

struct Arguments {
    url: String,
    mib: u32,
    op: IoOp,
    random: bool,
    block: u32,
    depth: usize,
    limit: Limit,
}

fn main() -> ExitCode {
    // Cargo adds `--bench`; without more, there is no server to measure against.
    let given: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| a != "--bench")
        .collect();
    if given.is_empty() {
        println!("NOT MEASURED: no server given");
        return ExitCode::SUCCESS;
    }
    match Arguments::parse(&given).and_then(|arguments| run(&arguments)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

impl Arguments {
    fn parse(given: &[String]) -> Result<Self, Error> {
        let [url, mib, op, pattern, block, depth, limit] = given else {
            return Err("wanted: URL MIB OP PATTERN BLOCK DEPTH LIMIT".into());
        };
        let arguments = Arguments {
            url: url.clone(),
            mib: mib.parse()?,
            op: match op.as_str() {
                "read" => IoOp::Read,
                "write" => IoOp::Write,
                _ => return Err("OP is read or write".into()),
            },
            random: match pattern.as_str() {
                "rand" => true,
                "seq" => false,
                _ => return Err("PATTERN is seq or rand".into()),
            },
            block: block.parse()?,
            depth: depth.parse()?,
            limit: match limit.strip_suffix('s') {
                Some(seconds) => Limit::Time(Duration::try_from_secs_f64(seconds.parse()?)?),
                None => Limit::Requests(limit.parse()?),
            },
        };
        let sized = arguments.block.is_power_of_two() && arguments.block >= 512;
        if !sized || !(1..=DEPTH_MAX).contains(&arguments.depth) {
            return Err("BLOCK is a power of two, DEPTH is 1 to 64".into());
        }
        Ok(arguments)
    }
}

fn run(arguments: &Arguments) -> Result<(), Error> {
    let start = Clock::now();
    let now = || Instant::ZERO + start.elapsed();
    let url = SwapUrl::parse(&arguments.url)?;
    let slots = u64::from(arguments.mib) * (1 << 20) / u64::from(arguments.block);
    let slots = u32::try_from(slots)?;
    let mut config = SwapFileConfig::new(&url, slots)?;
    config.page_size = arguments.block;
    // The server may not have the zeros on its disk yet.
    config.allow_holes = true;
    config.client.xid_seed = std::process::id();
    let transport = StdTcp::resolve(url.host, Duration::from_secs(1))?;
    let mut swap = Swap::new(transport, config);
    let activated = loop {
        match swap.swap_activate(now()) {
            Poll::Ready(result) => break result,
            Poll::Pending => wait(&swap),
        }
    };
    activated?;

    let mut load = Load::new(arguments, slots);
    let begin = Clock::now();
    while load.goes_on(begin) || load.in_flight() > 0 {
        while load.goes_on(begin) && load.in_flight() < arguments.depth {
            load.submit(&mut swap, now(), arguments.op)?;
        }
        if !load.take(&mut swap, now())? {
            wait(&swap);
        }
    }
    let seconds = begin.elapsed().as_secs_f64();
    load.print(arguments, seconds);
    loop {
        match swap.swap_deactivate(now()) {
            Poll::Ready(result) => return Ok(result?),
            Poll::Pending => wait(&swap),
        }
    }
}

/// Until the socket has something, or room. A clock that runs on its own is looked at every 10 ms.
fn wait(swap: &Swap) {
    let transport = swap.transport();
    let Some(stream) = transport.stream() else {
        return;
    };
    let mut events = PollFlags::IN;
    events.set(PollFlags::OUT, transport.wants_write());
    let timeout = Timespec {
        tv_sec: 0,
        tv_nsec: 10_000_000,
    };
    // An interrupted wait is one that ended early.
    let _ = poll(&mut [PollFd::new(stream, events)], Some(&timeout));
}

/// What is asked for, and how long each answer took.
struct Load {
    random: bool,
    limit: Limit,
    slots: u32,
    next: u32,
    rng: u64,
    submitted: u64,
    done: u64,
    idle: Vec<Frame>,
    open: Vec<(Ticket, Clock)>,
    /// In units of 100 ns, as many as there is room for.
    latencies: Vec<u32>,
}

impl Load {
    fn new(arguments: &Arguments, slots: u32) -> Self {
        Load {
            random: arguments.random,
            limit: arguments.limit,
            slots,
            next: 0,
            rng: 88_172_645_463_325_252,
            submitted: 0,
            done: 0,
            idle: vec![vec![0xa5; arguments.block as usize].into_boxed_slice(); arguments.depth],
            open: Vec::with_capacity(DEPTH_MAX),
            latencies: Vec::with_capacity(1 << 20),
        }
    }

    fn in_flight(&self) -> usize {
        self.open.len()
    }

    fn goes_on(&self, begin: Clock) -> bool {
        match self.limit {
            Limit::Time(limit) => begin.elapsed() < limit,
            Limit::Requests(requests) => self.submitted < requests,
        }
    }

    /// The generator of libnfs_bench.c, so that both visit the same slots.
    fn slot(&mut self) -> Slot {
        if self.random {
            self.rng ^= self.rng << 13;
            self.rng ^= self.rng >> 7;
            self.rng ^= self.rng << 17;
            Slot((self.rng % u64::from(self.slots)) as u32)
        } else {
            self.next = (self.next + 1) % self.slots;
            Slot(self.next)
        }
    }

    fn submit(&mut self, swap: &mut Swap, now: Instant, op: IoOp) -> Result<(), Error> {
        let slot = self.slot();
        let class = match op {
            IoOp::Read => IoClass::Demand,
            IoOp::Write => IoClass::Reclaim,
        };
        let frames = self.idle.pop().into_iter().collect();
        let io = SwapIo::new(op, slot, class, frames);
        let ticket = swap.submit(io, now).map_err(|refused| refused.error)?;
        self.open.push((ticket, Clock::now()));
        self.submitted += 1;
        Ok(())
    }

    /// Takes whatever is finished. Whether anything was.
    fn take(&mut self, swap: &mut Swap, now: Instant) -> Result<bool, Error> {
        let before = self.done;
        while let Some(completion) = swap.poll(now) {
            completion.result?;
            let mut open = self.open.iter();
            let place = open.position(|(ticket, _)| *ticket == completion.ticket);
            let (_, since) = self.open.swap_remove(place.ok_or("an unknown ticket")?);
            if self.latencies.len() < self.latencies.capacity() {
                self.latencies
                    .push((since.elapsed().as_nanos() / 100) as u32);
            }
            self.idle.extend(completion.io.frames);
            self.done += 1;
        }
        Ok(self.done > before)
    }

    fn print(&mut self, arguments: &Arguments, seconds: f64) {
        self.latencies.sort_unstable();
        let at = |share: f64| {
            let index = (self.latencies.len() as f64 * share) as usize;
            f64::from(self.latencies.get(index).copied().unwrap_or(0)) / 10.0
        };
        let iops = self.done as f64 / seconds;
        println!(
            "client=nfs-swap op={} pat={} block={} depth={} iops={:.0} MBps={:.1} p50_us={:.1} p99_us={:.1}",
            if arguments.op == IoOp::Read {
                "read"
            } else {
                "write"
            },
            if arguments.random { "rand" } else { "seq" },
            arguments.block,
            arguments.depth,
            iops,
            iops * f64::from(arguments.block) / 1e6,
            at(0.5),
            at(0.99),
        );
    }
}
