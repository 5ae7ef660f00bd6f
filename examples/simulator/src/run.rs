//! One run: builds the machine on the stack, lets everything happen, and looks at what remains.

mod host;
mod machine;
mod off;
mod panics;
mod remains;
mod swapper;

use core::mem::ManuallyDrop;

use mempool::{Gfp, Pool, ReserveBacking, ReserveNode, SingleTask, SizedCache, Watermarks, Zone};
use netreserve::{
    FlowTable, Ingress, Medium, ProtocolMemory, QueueEntry, SkbPool, Slot, SocketTable,
};
use swapspace::ExplicitTable;

use self::host::host;
use self::machine::{Memory, SOCKETS, bind, connect};
use self::off::Off;
pub use self::panics::quiet_panics;
use self::remains::Remains;
use self::swapper::{Site, Storage};
use crate::cpus;
use crate::disk::{self, Disk};
use crate::holders;
use crate::kernel::{Kernel, Parts, REQUESTS};
use crate::memory::{Drivers, Interrupts, Truth, Watched, WatchedCache};
use crate::mmu::{Hardware, Mmu};
use crate::rng::Rng;
use crate::scenario::{FaultKind, Scenario, Sizes};
use crate::trace::Trace;
use crate::verdict::{Counts, Findings, Outcome};
use crate::world::{World, card_address, target};

/// Entries of the socket queues: more packets than any limit lets in.
const QUEUE: usize = 512;

/// Streams of the seed.
const ALLOCATORS: [u64; 2] = [20, 23];
const INTERRUPTS: u64 = 21;
const DISK: u64 = 24;

const _: () = assert!(REQUESTS == 64, "requests are drawn up to 64");

/// Runs a scenario from the first event to the last.
#[must_use]
pub fn run(scenario: &Scenario, trace: Trace) -> Outcome {
    panics::catch(|| match scenario.machine.mmu {
        true => simulate::<Hardware>(scenario, trace),
        false => simulate::<ExplicitTable>(scenario, trace),
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
    holders::run(*seed, scenario.without, &findings);
    cpus::run(*seed, scenario.without, &findings);

    // Memory: one zone, or one for pages and one for packets.
    let (task, truth) = (SingleTask::new(), Truth::default());
    let mut memory = [sizes.pages, sizes.packets.max(64)].map(Memory::new);
    let sources = memory.each_mut().map(Memory::buddy);
    let zones = sources
        .each_ref()
        .map(|source| <Zone<'_>>::new(source, &task, sizes.marks).expect("the marks fit"))
        .map(|zone| zone.with_pressure(&truth));
    off.mempool(|mechanism| zones.iter().for_each(|zone| zone.ablate(mechanism)));
    let zone = &zones[0];
    let token = zone.claim_memalloc().expect("nobody claimed it before");
    let watched = [0, 1].map(|number| {
        let rng = Rng::new(*seed, ALLOCATORS[number]);
        Watched::new(&zones[number], token, &truth, rng, findings.clone())
    });
    let own = usize::from(machine.packet_zone());
    let (packets, packet_memory) = (&zones[own], &watched[own]);
    let interrupts = Interrupts::new(&watched[0], &task, Rng::new(*seed, INTERRUPTS));

    let mut disk_memory = Memory::new(disk::FRAMES);
    let disk_source = disk_memory.buddy();
    let disk_zone = <Zone<'_>>::new(&disk_source, &task, Watermarks::default());
    let disk_zone = disk_zone.expect("there are no marks");
    disk_zone.grow(disk::RESERVE).expect("it is all free");
    let mut elements = [const { None }; disk::MINIMUM];
    let pool: Pool<'_, '_, _> = Pool::new("disk", &disk_zone, &mut elements);
    off.mempool(|mechanism| pool.ablate(mechanism));
    pool.fill(Gfp::KERNEL).expect("it is all free");
    let rng = Rng::new(*seed, DISK);
    let disk = Disk::new(&disk_zone, &pool, token, rng, findings.clone());

    // The reserve, of computed size.
    let root = <ReserveNode<'_>>::root("total", packets);
    let nodes: Vec<[ReserveNode<'_>; 2]> = (0..machine.swappers)
        .map(|_| [ReserveNode::new("rx"), ReserveNode::new("tx")])
        .collect();
    off.mempool(|mechanism| {
        root.ablate(mechanism);
        let nodes = nodes.iter().flatten();
        nodes.for_each(|node| node.ablate(mechanism));
    });
    connect(&nodes, &root, machine.limits(), sizes.reserve);
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
    let (bound, ports) = bind(&sockets, scenario);
    let pools: Vec<SkbPool<'_>> = nodes
        .iter()
        .map(|[rx, tx]| SkbPool::new(&watched_cache, rx, tx, &flows, token))
        .collect();
    let ladders: Vec<Ingress<'_>> = (0..machine.swappers)
        .map(|card| match machine.medium {
            Medium::Ip => Ingress::over_ip(&flows, &sockets),
            _ => Ingress::new(&flows, &sockets, card_address(card).1),
        })
        .collect();
    off.netreserve(|mechanism| {
        pools.iter().for_each(|pool| pool.ablate(mechanism));
        ladders.iter().for_each(|ladder| ladder.ablate(mechanism));
    });

    // The swap areas, and the kernel that drives them.
    let parts = Parts {
        machine,
        mode: scenario.mode,
        zone,
        packets,
        memory: &watched[0],
        packet_memory,
        truth: &truth,
        token,
        interrupts: &interrupts,
        disk: &disk,
        cache: &cache,
        root: &root,
        sockets: &sockets,
        flows: &flows,
        findings: findings.clone(),
        lossless: !corrupts(scenario),
    };
    let mut storage: Vec<Storage<'_, '_>> = (0..machine.swappers)
        .map(|_| Storage::new(scenario, sizes.slots))
        .collect();
    let mut swappers = Vec::new();
    for (number, storage) in storage.iter_mut().enumerate() {
        let site = Site {
            number,
            nodes: &nodes[number],
            pool: &pools[number],
            ingress: &ladders[number],
            storage,
        };
        swappers.push(site.build::<M>(scenario, sizes.slots, &parts));
    }
    let mut kernel = Kernel::new(parts, swappers, program, &bound, *seed);

    let targets = (0..machine.swappers).map(|card| target(card, ports.clone()));
    let host = host(scenario, sizes.slots);
    let mut world = World::new(scenario, host, targets.collect(), findings.clone(), trace);
    world.run(&mut kernel);
    let now = world.now();
    let counts = count(&kernel, &world);

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
            zones: &zones,
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

/// Whether anybody damages packets.
fn corrupts(scenario: &Scenario) -> bool {
    let corrupt = |kind| matches!(kind, FaultKind::Corrupt(_));
    scenario.script.iter().any(|fault| corrupt(fault.kind))
}

/// What happened how often, as long as the parts that counted it are there.
fn count<M: Mmu>(kernel: &Kernel<'_, '_, M>, world: &World<'_>) -> Counts {
    let mut counts = kernel.counts;
    for swapper in &kernel.swappers {
        let (pager, ingress) = (swapper.pager.stats(), swapper.ingress.stats());
        counts.pages_in += pager.pages_in;
        counts.pages_out += pager.pages_out;
        counts.emergency += ingress.received_emergency;
        counts.dropped += ingress.dropped.total();
        counts.reconnects += swapper.ledger.connections();
    }
    let packets = kernel.parts.packets.stats();
    counts.unrelated = world.unrelated;
    counts.reserve = packets.reserve as u64;
    counts.reserve_peak = packets.reserve_peak as u64;
    counts
}
