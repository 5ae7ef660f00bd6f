//! One run: the outside world, a machine, a program, and what came of it.

mod error;

use core::hash::{BuildHasher, Hasher};
use core::sync::atomic::Ordering;
use std::hash::RandomState;
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant as Clock;

use mempool::{Budget, FRAME_SIZE, Frame, FrameAllocator, Reserve};
use netreserve::Reserved;
use nfs_swap::transport::smoltcp::{SmoltcpConfig, SmoltcpTcp};
use nfs_swap::{SwapFileConfig, SwapUrl};
use smoltcp::iface::SocketStorage;
use smoltcp::wire::Ipv4Cidr;
use swapspace::{
    ExplicitTable, FaultEntry, Instant, PageEntry, PageTable, Pager, PagerTables, RequestEntry,
    SwapArea,
};

pub(crate) use self::error::RunError;
use crate::args::Args;
use crate::explicit::Mailbox;
use crate::flood::{Flood, FloodConfig, FloodStats};
use crate::gateway::Gateway;
use crate::interrupt::Interrupt;
use crate::machine::{End, Findings, GOODBYE, Machine, MachineError, Parts, REQUESTS, Swap};
use crate::memory::{Memory, RX_RING, SKB_SIZE, TX_RING};
use crate::network::Network;
use crate::nic::VirtualNic;
use crate::output::tell;
use crate::page_table::{Calling, Clients, FaultTable, Faulting, PagerOf};
use crate::program::{Control, Task, Window};
use crate::report::{
    Component, Emergency, Flood as FloodReport, Frames, Outcome, Percentiles, Setup, Verdict,
    Wire as WireReport,
};
use crate::store::Store;
use crate::uffd::{Region, Uffd};
use crate::via::ViaGateway;
use crate::wire::{GATEWAY_IP, MACHINE_IP, MACHINE_MAC, PREFIX_LEN, Wire};

/// Faults that can wait at once: as many as there can be threads.
const FAULTS: usize = 256;

/// Runs the program as `args` say.
///
/// # Errors
///
/// [`RunError`] if it could not start. What happens later is told by the outcome.
pub(crate) fn run(args: &Args) -> Result<Outcome, RunError> {
    let interrupt = Interrupt::catch()?;
    afford(args.ram)?;
    let mut memory = Memory::boot(args)?;
    let store = match &args.server {
        Some(url) => Store::at(url)?,
        None => Store::own()?,
    };
    let uffd = if args.explicit { None } else { open_uffd() };
    let pages = args.working_set / FRAME_SIZE;

    let wire = Arc::new(Wire::new()?);
    let gateway = Arc::new(Gateway::start(Arc::clone(&wire))?);
    let network = Network::new(args, &memory);
    let (nic, rings) = VirtualNic::new(Arc::clone(&wire), MACHINE_MAC.0);
    let device =
        Reserved::new(nic, network.pool, network.ingress).expect("buffers hold a frame of the MTU");
    let boot = Clock::now();
    let link = SmoltcpTcp::new(
        device,
        SmoltcpConfig {
            hardware: MACHINE_MAC,
            address: Ipv4Cidr::new(MACHINE_IP, PREFIX_LEN),
            gateway: None,
            server: GATEWAY_IP,
            local_ports: 49152..=65535,
            seed: random(),
        },
        network.flows,
        core::mem::take(&mut memory.stream[0]),
        core::mem::take(&mut memory.stream[1]),
        Box::leak(Box::new([SocketStorage::EMPTY])),
        Instant::ZERO,
    );
    let link = ViaGateway::new(link, gateway, store.address.ip());
    let swap = Swap::new(link, swap_config(args, &store, pages));

    let control = Arc::new(Control::new(args.threads)?);
    let parts = Parts {
        memory,
        wire,
        rings,
        pool: network.pool,
        ingress: network.ingress,
        sockets: network.sockets,
        control,
        interrupt,
        boot,
        deadline: args.deadline,
    };
    let plan = Plan {
        args,
        store: &store,
        network: &network,
    };
    match uffd {
        Some(uffd) => {
            let (region, shares) = Region::new(uffd, pages, args.threads)?;
            let windows = shares.into_iter().map(Window::Faulting).collect();
            let pager = pager(
                parts.memory.zone,
                swap,
                FaultTable::new(region, pages),
                pages,
            );
            plan.carry_out(
                "userfaultfd",
                Machine::new(parts, pager, Faulting::default()),
                windows,
            )
        }
        None => {
            let (mailbox, clients) = Mailbox::new(pages, args.threads)?;
            let windows = clients.into_iter().map(Window::Explicit).collect();
            let pager = pager(parts.memory.zone, swap, ExplicitTable, pages);
            plan.carry_out(
                "explicit calls",
                Machine::new(parts, pager, Calling::new(mailbox)),
                windows,
            )
        }
    }
}

/// Whether the system has so many bytes; to find out later would be the end of the process.
fn afford(ram: usize) -> Result<(), RunError> {
    let mut memory = Vec::<u8>::new();
    memory
        .try_reserve_exact(ram + FRAME_SIZE)
        .map_err(|_| RunError::NoMemory { ram })
}

/// Says so when the system refuses.
fn open_uffd() -> Option<Uffd> {
    Uffd::open()
        .inspect_err(|error| {
            tell(format_args!(
                "The system refuses userfaultfd ({error}): paging by explicit calls instead."
            ));
        })
        .ok()
}

/// Different from run to run: what `--seed` decides is what the program does, and not what the
/// server might take for a repetition of an earlier run.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

fn swap_config(args: &Args, store: &Store, pages: usize) -> SwapFileConfig {
    let url = SwapUrl::parse(&store.url).expect("the store has checked its URL");
    // A page that is written again has two slots for a moment.
    let slots = pages + REQUESTS * swapspace::CLUSTER_FRAMES;
    let mut config =
        SwapFileConfig::new(&url, slots as u32).expect("a parsed URL fits into a configuration");
    config.remove_on_deactivate = true;
    config.client.xid_seed = random() as u32;
    config.client.deadline = url.deadline.unwrap_or(args.deadline);
    config.activation_timeout = args.deadline;
    config
}

fn pager<T: PageTable>(
    zone: &'static dyn FrameAllocator,
    swap: Swap,
    table: T,
    pages: usize,
) -> PagerOf<Swap, T> {
    let slots = (pages + REQUESTS * swapspace::CLUSTER_FRAMES) as u32;
    let map = vec![0; SwapArea::<Frame<'static>, Swap>::map_len(slots)].leak();
    let entries: Vec<PageEntry<'static>> = (0..pages).map(|_| PageEntry::EMPTY).collect();
    let tables = PagerTables {
        pages: entries.leak(),
        faults: (0..FAULTS)
            .map(|_| FaultEntry::EMPTY)
            .collect::<Vec<_>>()
            .leak(),
        requests: (0..REQUESTS)
            .map(|_| RequestEntry::EMPTY)
            .collect::<Vec<_>>()
            .leak(),
    };
    Pager::new(zone, SwapArea::new(swap, map), table, tables)
}

/// A machine that is ready, and what to do with it.
struct Plan<'a> {
    args: &'a Args,
    store: &'a Store,
    network: &'a Network,
}

impl Plan<'_> {
    fn carry_out<C: Clients>(
        &self,
        paging: &'static str,
        mut machine: Machine<C>,
        windows: Vec<Window>,
    ) -> Result<Outcome, RunError> {
        machine.swap_on().map_err(|error| match error {
            MachineError::System(error) => RunError::System(error),
            MachineError::Interrupted => RunError::Machine(error),
            error => RunError::Server {
                url: self.store.url.clone(),
                error,
            },
        })?;
        self.announce(paging);
        let begin = Clock::now();
        let flood = self.start_flood(&machine)?;
        let tasks = self.start_program(&machine, windows)?;

        let end = machine.serve(self.args.run_time)?;
        let seconds = begin.elapsed().as_secs_f64();
        let flood = flood.stop();
        if !matches!(end, End::Done) {
            // The tasks wait in their faults until the process ends.
            machine.parts.control.abort.store(true, Ordering::Release);
        }
        let mut outcome = self.outcome(paging, seconds, &machine, &flood);
        match end {
            End::Done => {
                for task in tasks {
                    task.join().map_err(|_| RunError::TaskPanicked)?;
                }
                if let Err(error) = machine.swap_off(self.args.deadline * 2) {
                    outcome.cut_short(error.to_string());
                }
            }
            End::Deadlock(deadlock) => {
                outcome.verdict = Verdict::NoProgress;
                outcome.deadlock = Some(deadlock);
                outcome.charges_left = machine.parts.memory.charged() as u64;
                // The end of the experiment: the circle is broken, so that the file can be removed.
                self.close_sockets();
                outcome.detail = self.clean_up(&mut machine).map(String::from);
            }
            End::StoreFailed(why) => {
                outcome.cut_short(with_note(why, self.clean_up(&mut machine)));
            }
            End::Interrupted => {
                let why = String::from("interrupted");
                outcome.cut_short(with_note(why, self.clean_up(&mut machine)));
            }
        }
        let (parts, findings) = machine.power_off();
        self.settle(&mut outcome, parts, findings);
        Ok(outcome)
    }

    /// What is about to run, in a line; a run that was refused has said why instead.
    fn announce(&self, paging: &str) {
        let Args {
            ram,
            working_set,
            flood,
            without,
            ..
        } = self.args;
        let mib = |bytes: &usize| *bytes as f64 / f64::from(1 << 20);
        let without: Vec<_> = without.iter().map(|m| format!(", without {m}")).collect();
        tell(format_args!(
            "{} MiB of memory for a program of {} MiB, by {paging}, swapped to {}; \
             {flood} unrelated packets a second{}",
            mib(ram),
            mib(working_set),
            self.store.name,
            without.concat(),
        ));
    }

    /// Puts the swap file away after a run that ended too early; what is to be said if it may stay.
    fn clean_up<C: Clients>(&self, machine: &mut Machine<C>) -> Option<&'static str> {
        let left = machine.swap_off(GOODBYE).is_err() && self.args.server.is_some();
        left.then_some("the swap file may be left on the server")
    }

    fn close_sockets(&self) {
        for &socket in &self.network.owned {
            self.network.sockets.close(socket);
        }
    }

    fn start_flood<C: Clients>(&self, machine: &Machine<C>) -> io::Result<Flood> {
        let config = FloodConfig {
            pps: self.args.flood,
            seed: self.args.seed,
            udp_ports: self.network.udp_ports.clone(),
            tcp_ports: self.network.tcp_ports.clone(),
        };
        let begin = Arc::clone(&machine.parts.control.swapping);
        Flood::start(Arc::clone(&machine.parts.wire), config, begin)
    }

    /// Each socket belongs to one task.
    fn start_program<C: Clients>(
        &self,
        machine: &Machine<C>,
        windows: Vec<Window>,
    ) -> io::Result<Vec<JoinHandle<()>>> {
        let threads = windows.len();
        let tasks = windows.into_iter().enumerate().map(|(i, window)| {
            let task = Task {
                window,
                seed: self.args.seed,
                sockets: self
                    .network
                    .owned
                    .iter()
                    .copied()
                    .skip(i)
                    .step_by(threads)
                    .collect(),
                table: self.network.sockets,
                control: Arc::clone(&machine.parts.control),
            };
            task.spawn(format!("task {i}"))
        });
        tasks.collect()
    }

    /// What can be said while the machine is on.
    fn outcome<C: Clients>(
        &self,
        paging: &'static str,
        seconds: f64,
        machine: &Machine<C>,
        flood: &FloodStats,
    ) -> Outcome {
        let Parts {
            memory,
            wire,
            ingress,
            control,
            ..
        } = &machine.parts;
        let (zone, marks) = (memory.zone.stats(), memory.zone.level().marks);
        let (wire, ingress) = (wire.stats(), ingress.stats());
        Outcome {
            verdict: Verdict::Verified,
            detail: None,
            deadlock: None,
            setup: Setup {
                store: self.store.name.clone(),
                paging,
                working_set: (self.args.working_set / FRAME_SIZE) as u64,
                threads: self.args.threads,
                seed: self.args.seed,
                without: self.args.without.iter().map(|m| m.name()).collect(),
            },
            seconds,
            pages_verified: control.verified.load(Ordering::Relaxed),
            mismatches: control.mismatches.load(Ordering::Relaxed),
            faults: 0,
            pages_in: 0,
            pages_out: 0,
            fault_us: Percentiles::default(),
            frames: Frames {
                total: zone.total as u64,
                reserve: zone.reserve as u64,
                min: marks.min as u64,
                low: marks.low as u64,
                high: marks.high as u64,
                min_free: zone.min_free as u64,
            },
            emergency: Emergency {
                received: ingress.received_emergency,
                sent: ingress.sent_emergency,
                peak: ((memory.rx.peak() + memory.tx.peak()) / SKB_SIZE) as u64,
                vmio_dropped: ingress.vmio_dropped + wire.refused,
            },
            drops: ingress
                .dropped
                .iter()
                .map(|(reason, n)| (reason.name(), n))
                .collect(),
            flood: FloodReport {
                pps: self.args.flood.into(),
                sent: flood.sent,
                refused: flood.refused,
            },
            wire: WireReport {
                to_machine: wire.to_machine.bytes,
                from_machine: wire.from_machine.bytes,
            },
            budget: vec![
                component("receive", memory.rx, RX_RING, netreserve::rx_skbs),
                component("transmit", memory.tx, TX_RING, netreserve::tx_skbs),
                Component {
                    name: "reserve",
                    unit: "frames",
                    computed: zone.reserve as u64,
                    peak: zone.reserve_peak as u64,
                },
            ],
            heap_allocations: crate::heap::taken(),
            charges_left: 0,
            timeline: crate::report::Timeline::default(),
        }
    }

    /// What is known once the machine is off: whether everything went back where it came from.
    fn settle(&self, outcome: &mut Outcome, parts: Parts, findings: Findings) {
        let Findings {
            stats,
            latency,
            requests_peak,
            timeline,
        } = findings;
        outcome.faults = stats.faults_minor + stats.faults_major + stats.faults_zero;
        outcome.pages_in = stats.pages_in;
        outcome.pages_out = stats.pages_out;
        let [p50, p99, p999] = latency.map(|t| t.as_micros() as u64);
        outcome.fault_us = Percentiles { p50, p99, p999 };
        outcome.timeline = timeline;
        outcome.budget.push(Component {
            name: "requests",
            unit: "in flight",
            computed: REQUESTS as u64,
            peak: requests_peak as u64,
        });

        let Parts {
            memory, control, ..
        } = parts;
        if outcome.mismatches > 0 {
            outcome.verdict = Verdict::DataWrong;
        }
        // The rings went with the machine.
        self.close_sockets();
        memory.skbs.shrink();
        // Those of a deadlock were counted when it was found.
        if outcome.verdict != Verdict::NoProgress {
            outcome.charges_left = memory.charged() as u64;
        }
        if outcome.verdict != Verdict::Verified {
            return;
        }
        let free = memory.zone.stats().free + memory.boot_frames;
        let floor = self.floor(&memory);
        let complaint = if outcome.charges_left > 0 {
            Some(format!(
                "{} bytes are still charged to the reserve",
                outcome.charges_left
            ))
        } else if free != memory.zone.stats().total {
            Some(format!(
                "{} frames did not come back",
                memory.zone.stats().total - free
            ))
        } else if outcome.emergency.vmio_dropped > 0 {
            Some(format!(
                "{} packets of the swap traffic were dropped",
                outcome.emergency.vmio_dropped
            ))
        } else if (outcome.frames.min_free as usize) < floor {
            Some(format!(
                "{} frames were free at the least, the budget leaves {floor}",
                outcome.frames.min_free
            ))
        } else if outcome.heap_allocations > 0 {
            Some(format!(
                "the swap path took memory from the heap {} times",
                outcome.heap_allocations
            ))
        } else if control.verified.load(Ordering::Relaxed) < outcome.setup.working_set {
            Some(String::from("not every page was verified"))
        } else {
            None
        };
        if complaint.is_some() {
            outcome.verdict = Verdict::AccountingWrong;
            outcome.detail = complaint;
        } else if !self.args.without.is_empty() {
            outcome.detail = Some(String::from(
                "It got through all the same: the flood was too small, or so little memory is left to \
                 the sockets that they cannot hold enough of it. More --ram or --flood shows it.",
            ));
        }
    }

    /// The fewest frames that may ever be free: ordinary callers stop above the reserve, at what an
    /// atomic one leaves of `min`, and the entitled use no more than the reserve.
    fn floor(&self, memory: &Memory) -> usize {
        let min = memory.zone.level().marks.min;
        min - min / 2 - (min - min / 2) / 4
    }
}

fn with_note(why: String, note: Option<&str>) -> String {
    match note {
        Some(note) => format!("{why}; {note}"),
        None => why,
    }
}

/// A node of the reserve tree, its bytes in frames.
fn component(
    name: &'static str,
    node: &dyn Reserve,
    ring: usize,
    skbs: fn(usize) -> usize,
) -> Component {
    let frames = |skbs| Budget::objects(skbs, SKB_SIZE, 0).frames() as u64;
    Component {
        name,
        unit: "frames",
        computed: frames(skbs(ring)),
        peak: frames(node.peak() / SKB_SIZE),
    }
}
