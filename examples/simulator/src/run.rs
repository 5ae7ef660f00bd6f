//! One run: builds the machine on the stack, lets everything happen, and looks at what remains.

use core::cell::RefCell;
use core::mem::ManuallyDrop;
use core::panic::AssertUnwindSafe;
use std::collections::VecDeque;
use std::panic::catch_unwind;

use mempool::{
    Buddy, Budget, FRAME_SIZE, FrameEntry, ReserveBacking, ReserveNode, SingleTask, SizedCache,
    Zone,
};
use netreserve::{
    FlowTable, Ingress, Protocol, ProtocolMemory, QueueEntry, Reserved, SkbPool, Slot, SocketId,
    SocketTable,
};
use nfs_swap::nfs3::StableHow;
use nfs_swap::transport::smoltcp::{SmoltcpConfig, SmoltcpTcp};
use nfs_swap::{SwapFile, SwapFileConfig, SwapUrl};
use smoltcp::iface::SocketStorage;
use smoltcp::wire::{EthernetAddress, Ipv4Cidr};
use swapspace::{ExplicitTable, FaultEntry, PageEntry, Pager, PagerTables, RequestEntry, SwapArea};

use crate::Mechanism;
use crate::guard::Guard;
use crate::kernel::{Kernel, Parts, Phase, REQUESTS, Swapper, span, time};
use crate::memory::{Drivers, Interrupts, Truth, Watched, WatchedCache};
use crate::mmu::{Hardware, Mmu, PAGE};
use crate::nic::{Card, Port};
use crate::rng::Rng;
use crate::scenario::{FaultKind, File, Machine, Scenario, Sizes};
use crate::server::nfs::{Existing, NfsServer, ServerConfig};
use crate::server::{self, Host};
use crate::stack::{Layer, Ledger, Tap};
use crate::trace::Trace;
use crate::verdict::{Counts, Findings, Outcome, Violation};
use crate::world::{World, card_address, target};

/// Entries of the socket queues: more packets than any limit lets in.
const QUEUE: usize = 512;

/// Sockets of each protocol.
const SOCKETS: usize = 8;

/// Faults that wait at once.
const FAULTS: usize = 8;

/// Streams of the seed.
const ALLOCATOR: u64 = 20;
const INTERRUPTS: u64 = 21;
const LAYER: u64 = 22;
const CARD: u64 = 30;

std::thread_local! {
    /// Where the last panic happened.
    static PLACE: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Keeps panics from being printed: [`run`] makes violations of them, with their place.
pub fn quiet_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string);
        PLACE.set(place.unwrap_or_default());
    }));
}

/// Runs a scenario from the first event to the last.
#[must_use]
pub fn run(scenario: &Scenario, trace: Trace) -> Outcome {
    let simulation = || match scenario.machine.mmu {
        true => simulate::<Hardware>(scenario, trace),
        false => simulate::<ExplicitTable>(scenario, trace),
    };
    catch_unwind(AssertUnwindSafe(simulation)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        let what = format!("{} ({})", text.unwrap_or("without a word"), PLACE.take());
        Outcome {
            violation: Some(Violation {
                rule: "panic",
                what,
                at: 0,
            }),
            hash: 0,
            took: 0,
            events: 0,
            counts: Counts::default(),
        }
    })
}

fn simulate<M: Mmu>(scenario: &Scenario, trace: Trace) -> Outcome {
    let Scenario {
        seed,
        machine,
        program,
        ..
    } = scenario;
    let sizes = Sizes::of(scenario);
    let (skb_size, skb_order) = machine.skb();
    let findings = Findings::default();
    let off = Off(scenario.without);

    // Memory: one zone, or one for pages and one for packets.
    let (task, truth) = (SingleTask::new(), Truth::default());
    let mut memory = frames(sizes.pages);
    let mut table = vec![FrameEntry::EMPTY; sizes.pages];
    let source = <Buddy<'_>>::new(aligned(&mut memory, sizes.pages), &mut table);
    let source = source.expect("the table has an entry for each frame");
    let zone = <Zone<'_>>::new(&source, &task, sizes.marks).expect("the marks fit");
    let own = sizes.packets.max(64);
    let mut packet_memory = frames(own);
    let mut packet_table = vec![FrameEntry::EMPTY; own];
    let packet_source = <Buddy<'_>>::new(aligned(&mut packet_memory, own), &mut packet_table);
    let packet_source = packet_source.expect("the table has an entry for each frame");
    let packet_zone = <Zone<'_>>::new(&packet_source, &task, sizes.marks).expect("the marks fit");
    let packets = if machine.packet_zone() {
        &packet_zone
    } else {
        &zone
    };
    off.mempool(|mechanism| {
        zone.ablate(mechanism);
        packet_zone.ablate(mechanism);
    });
    let token = zone.claim_memalloc().expect("nobody claimed it before");
    let watch = |zone, stream| {
        Watched::new(
            zone,
            token,
            &truth,
            Rng::new(*seed, stream),
            findings.clone(),
        )
    };
    let watched = watch(&zone, ALLOCATOR);
    let watched_packets = watch(&packet_zone, ALLOCATOR + 1);
    let packet_memory = if machine.packet_zone() {
        &watched_packets
    } else {
        &watched
    };
    let interrupts = Interrupts::new(&watched, &task, Rng::new(*seed, INTERRUPTS));

    // The reserve, of computed size.
    let root = <ReserveNode<'_>>::root("total", packets);
    let nodes: Vec<[ReserveNode<'_>; 2]> = (0..machine.swappers)
        .map(|_| [ReserveNode::new("rx"), ReserveNode::new("tx")])
        .collect();
    off.mempool(|mechanism| root.ablate(mechanism));
    let limits = machine.limits();
    for pair in &nodes {
        for ((node, limit), budget) in pair.iter().zip(limits).zip([sizes.reserve, Budget::ZERO]) {
            off.mempool(|mechanism| node.ablate(mechanism));
            node.set_limit(limit, budget.frames())
                .expect("a node without a parent takes any");
            node.connect(&root).expect("the memory was sized for it");
        }
    }
    if machine.missing > 0 {
        packets.shrink(machine.missing.min(root.pages()));
    }
    let cache = <SizedCache<'_>>::new("skb", packet_memory, skb_size, skb_order);
    let cache = cache.expect("packets fit into their slabs");
    off.mempool(|mechanism| cache.ablate(mechanism));
    let watched_cache = WatchedCache {
        cache: &cache,
        memory: packet_memory,
        findings: findings.clone(),
    };

    // The network: flows, sockets, and for each swapper a pool and a drop ladder.
    let (mut flow_slots, mut peer_slots) = ([const { Slot::EMPTY }; 8], [const { Slot::EMPTY }; 4]);
    let flows = FlowTable::new(&mut flow_slots, &mut peer_slots);
    let mut socket_slots = [const { Slot::EMPTY }; 4 * SOCKETS];
    // The table wants its storage for good, and empties it itself.
    let mut entries = ManuallyDrop::new([const { QueueEntry::EMPTY }; QUEUE]);
    let limit = ProtocolMemory::each(machine.socket_skbs * skb_size);
    let sockets = SocketTable::new(&mut socket_slots, &mut entries[..], limit);
    off.netreserve(|mechanism| sockets.ablate(mechanism));
    let mut bound: Vec<SocketId> = Vec::new();
    let mut ports = Vec::new();
    for number in 0..program.sockets.min(SOCKETS) {
        for protocol in Protocol::ALL {
            let port = 7000 + number as u16;
            let rcvbuf = (machine.socket_skbs / program.sockets).max(1) * skb_size;
            bound.push(
                sockets
                    .bind(protocol, port, rcvbuf)
                    .expect("the port is free"),
            );
            ports.push(port);
        }
    }
    let pools: Vec<SkbPool<'_>> = nodes
        .iter()
        .map(|[rx, tx]| SkbPool::new(&watched_cache, rx, tx, &flows, token))
        .collect();
    let ladders: Vec<Ingress<'_>> = (0..machine.swappers)
        .map(|card| Ingress::new(&flows, &sockets, card_address(card).1))
        .collect();
    off.netreserve(|mechanism| {
        pools.iter().for_each(|pool| pool.ablate(mechanism));
        ladders.iter().for_each(|ladder| ladder.ablate(mechanism));
    });

    // The storage of the pagers.
    let map = SwapArea::<(), ()>::map_len(sizes.slots);
    let mut storage: Vec<Storage<'_>> = (0..machine.swappers)
        .map(|_| Storage {
            pages: (0..program.pages).map(|_| PageEntry::EMPTY).collect(),
            faults: vec![FaultEntry::EMPTY; FAULTS],
            requests: vec![RequestEntry::EMPTY; machine.requests],
            map: vec![0; map],
        })
        .collect();
    let mut windows = vec![[vec![0; machine.window], vec![0; machine.window]]; machine.swappers];
    let mut tcp_sockets: Vec<_> = (0..machine.swappers)
        .map(|_| [SocketStorage::EMPTY])
        .collect();

    let mut swappers = Vec::new();
    let given = storage.iter_mut().zip(&mut windows).zip(&mut tcp_sockets);
    for (number, ((storage, [rx, tx]), sockets)) in given.enumerate() {
        let port = Port::shared(machine.fifo);
        let (address, hardware) = card_address(number);
        let card = Card {
            port: port.clone(),
            rings: machine.rings,
            mtu: machine.mtu.into(),
            hardware,
            server: server::ADDRESS,
            flows: &flows,
            memory: packet_memory,
            skb_size,
            slab_order: skb_order,
            interrupts: &interrupts,
            findings: findings.clone(),
            reserve: &nodes[number][0],
            ingress: &ladders[number],
            rng: Rng::new(*seed, CARD + number as u64),
            refused: None,
            others: VecDeque::new(),
            rx: VecDeque::new(),
            tx: VecDeque::new(),
            sent: 0,
            window_scale: 0,
        };
        let mut device = Reserved::new(card, &pools[number], &ladders[number])
            .expect("a packet of the card fits into a buffer");
        off.netreserve(|mechanism| device.ablate(mechanism));
        let device = Guard::new(
            device,
            server::ADDRESS,
            findings.clone(),
            !corrupts(scenario),
        );
        let config = SmoltcpConfig {
            hardware: EthernetAddress(hardware),
            address: Ipv4Cidr::new(address, 24),
            gateway: None,
            server: server::ADDRESS,
            local_ports: 49_152..=65_535,
            seed: seed ^ number as u64,
        };
        let Storage {
            pages,
            faults,
            requests,
            map,
        } = storage;
        let mut tcp = SmoltcpTcp::new(device, config, &flows, rx, tx, sockets, time(0));
        let ledger = std::rc::Rc::new(Ledger::default());
        off.nfs_swap(|mechanism| tcp.ablate(mechanism));
        let tap = Tap::new(tcp, ledger.clone(), findings.clone());
        let mut file = SwapFile::new(tap, file_config(scenario, number, sizes.slots));
        off.nfs_swap(|mechanism| file.ablate(mechanism));
        let rng = Rng::new(*seed, LAYER + number as u64);
        let layer = Layer::new(file, ledger.clone(), rng, findings.clone());
        let mut area = SwapArea::new(layer, map);
        off.swapspace(|mechanism| area.ablate(mechanism));
        let tables = PagerTables {
            pages,
            faults,
            requests,
        };
        let mut pager = Pager::new(&watched, area, M::with_pages(program.pages), tables);
        off.swapspace(|mechanism| pager.ablate(mechanism));
        let [rx, tx] = &nodes[number];
        swappers.push(Swapper {
            pager,
            port,
            nodes: [rx, tx],
            pool: &pools[number],
            ingress: &ladders[number],
            ledger,
            truth: vec![0; program.pages],
            phase: Phase::Activating { not_before: 0 },
            spins: 0,
            progress: 0,
            open: false,
            failed_allocations: 0,
            cut: false,
        });
    }

    let parts = Parts {
        machine,
        mode: scenario.mode,
        zone: &zone,
        packets,
        memory: &watched,
        packet_memory,
        truth: &truth,
        token,
        interrupts: &interrupts,
        cache: &cache,
        root: &root,
        sockets: &sockets,
        flows: &flows,
        findings: findings.clone(),
        lossless: !corrupts(scenario),
    };
    let mut kernel = Kernel::new(parts, swappers, program, &bound, *seed);
    let targets = (0..machine.swappers).map(|card| target(card, ports.clone()));
    let host = host(scenario, sizes.slots);
    let mut world = World::new(scenario, host, targets.collect(), findings.clone(), trace);
    world.run(&mut kernel);
    let now = world.now();

    let mut counts = kernel.counts;
    for swapper in &kernel.swappers {
        let (pager, ingress) = (swapper.pager.stats(), swapper.ingress.stats());
        counts.pages_in += pager.pages_in;
        counts.pages_out += pager.pages_out;
        counts.emergency += ingress.received_emergency;
        counts.dropped += ingress.dropped.total();
        counts.reconnects += swapper.ledger.connections();
    }
    counts.unrelated = world.unrelated;
    counts.reserve = packets.stats().reserve as u64;
    counts.reserve_peak = packets.stats().reserve_peak as u64;

    // The machine goes off; what its parts still hold goes back.
    let was_over = kernel.is_over();
    let clean = kernel.has_started() && kernel.is_clean();
    drop(kernel);
    while interrupts.release_one() {}
    for socket in bound {
        sockets.close(socket);
    }
    cache.shrink();
    if was_over && findings.is_empty() {
        world.check_server(clean);
        let remains = Remains {
            zones: [&zone, &packet_zone],
            nodes: &nodes,
            flows: &flows,
            findings: &findings,
        };
        remains.check();
    }
    Outcome {
        violation: findings.first(now),
        hash: world.trace.hash(),
        took: now,
        events: world.trace.events(),
        counts,
    }
}

/// What a swapper keeps its books in.
struct Storage<'m> {
    pages: Vec<PageEntry<'m>>,
    faults: Vec<FaultEntry>,
    requests: Vec<RequestEntry>,
    map: Vec<u32>,
}

/// The machine, switched off.
struct Remains<'a, 'z> {
    zones: [&'a Zone<'z>; 2],
    nodes: &'a [[ReserveNode<'z>; 2]],
    flows: &'a FlowTable<'z>,
    findings: &'a Findings,
}

impl Remains<'_, '_> {
    fn check(&self) {
        for zone in self.zones {
            let stats = zone.stats();
            self.findings.check(stats.free == stats.total, "leak", || {
                let missing = stats.total - stats.free;
                format!("{missing} of {} frames did not come back", stats.total)
            });
            self.findings.check(stats.reserve_in_use == 0, "M3", || {
                format!(
                    "{} frames are tagged, and nobody has them",
                    stats.reserve_in_use
                )
            });
        }
        for node in self.nodes.iter().flatten() {
            self.findings.check(node.usage() == 0, "M6", || {
                format!(
                    "{} bytes are still charged to '{}'",
                    node.usage(),
                    node.name()
                )
            });
        }
        self.findings.check(!self.flows.any(), "S7", || {
            "a flow is still tagged, and there is no connection".into()
        });
    }
}

/// The mechanism that is off, if one is.
struct Off(Option<Mechanism>);

impl Off {
    fn mempool(&self, ablate: impl FnOnce(mempool::Mechanism)) {
        if let Some(Mechanism::Mempool(mechanism)) = self.0 {
            ablate(mechanism);
        }
    }

    fn netreserve(&self, ablate: impl FnOnce(netreserve::Mechanism)) {
        if let Some(Mechanism::Netreserve(mechanism)) = self.0 {
            ablate(mechanism);
        }
    }

    fn swapspace(&self, ablate: impl FnOnce(swapspace::Mechanism)) {
        if let Some(Mechanism::Swapspace(mechanism)) = self.0 {
            ablate(mechanism);
        }
    }

    fn nfs_swap(&self, ablate: impl FnOnce(nfs_swap::Mechanism)) {
        if let Some(Mechanism::NfsSwap(mechanism)) = self.0 {
            ablate(mechanism);
        }
    }
}

/// So many frames, and one more to align them in.
fn frames(count: usize) -> Vec<u8> {
    vec![0; (count + ALIGN) * FRAME_SIZE]
}

/// Frames to which memory is aligned, so that runs are: those of the largest slab.
const ALIGN: usize = 8;

fn aligned(memory: &mut [u8], count: usize) -> &mut [u8] {
    let skip = memory.as_ptr().align_offset(ALIGN * FRAME_SIZE);
    &mut memory[skip..skip + count * FRAME_SIZE]
}

fn corrupts(scenario: &Scenario) -> bool {
    let corrupt = |kind| matches!(kind, FaultKind::Corrupt(_));
    scenario.script.iter().any(|fault| corrupt(fault.kind))
}

fn file_config(scenario: &Scenario, number: usize, slots: u32) -> SwapFileConfig {
    let Machine {
        unstable, deadline, ..
    } = scenario.machine;
    let url = SwapUrl::parse("nfs://10.0.2.2/export/swap").expect("a URL");
    let mut config = SwapFileConfig::new(&url, slots).expect("its parts are short");
    config.page_size = PAGE as u32;
    config.remove_on_deactivate = scenario.removes_file();
    config.client.xid_seed = scenario.seed as u32;
    config.client.deadline = span(deadline);
    if unstable {
        config.client.stable = StableHow::Unstable;
    }
    // The portmapper knows the first server; others are named by their port.
    let portmapper = number == 0 && scenario.seed % 4 == 1;
    config.port = (!portmapper).then_some(port(number));
    config
}

const fn port(number: usize) -> u16 {
    2049 + number as u16
}

fn host(scenario: &Scenario, slots: u32) -> Host {
    let size = u64::from(slots) * PAGE as u64;
    let existing = match scenario.machine.file {
        File::Missing => None,
        File::Good => Some((size, size)),
        File::Short => Some((size - 1, size - 1)),
        File::Holes => Some((size, size - PAGE as u64)),
    };
    let servers = (0..scenario.machine.swappers).map(|number| {
        let config = ServerConfig {
            export: "/export".into(),
            file: "swap".into(),
            transfer_max: [1, 4, 16, 256][scenario.seed as usize % 4] * PAGE as u32,
            capacity: None,
            existing: existing.map(|(size, used)| Existing { size, used }),
            port: port(number),
        };
        NfsServer::new(config, 0)
    });
    let mut ports: Vec<_> = (0..scenario.machine.swappers)
        .map(|n| (port(n), n))
        .collect();
    ports.push((111, 0));
    Host::new(
        servers.collect(),
        ports,
        scenario.machine.mtu.into(),
        scenario.seed,
    )
}

const _: () = assert!(REQUESTS == 64, "requests are drawn up to 64");
