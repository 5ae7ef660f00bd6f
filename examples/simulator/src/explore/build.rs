//! Builds the reduced system on the stack, and looks at what remains of it.

use core::mem::ManuallyDrop;
use std::collections::VecDeque;
use std::rc::Rc;

use mempool::{
    Buddy, Budget, FRAME_SIZE, FrameEntry, ReserveBacking, ReserveNode, SingleTask, SizedCache,
    Watermarks, Zone,
};
use netreserve::{
    FlowTable, Ingress, Medium, Protocol, ProtocolMemory, QueueEntry, Reserved, SkbPool, Slot,
    SocketTable,
};
use nfs_swap::nfs3::StableHow;
use nfs_swap::transport::smoltcp::{SmoltcpConfig, SmoltcpTcp};
use nfs_swap::{SwapFile, SwapFileConfig, SwapUrl};
use smoltcp::iface::SocketStorage;
use smoltcp::wire::{EthernetAddress, Ipv4Cidr};
use swapspace::{ExplicitTable, FaultEntry, PageEntry, Pager, PagerTables, RequestEntry, SwapArea};

use super::Setup;
use super::card::{Card, SharedPort};
use super::system::{Parts, System};
use crate::Mechanism;
use crate::guard::Guard;
use crate::kernel::{span, time};
use crate::memory::{Truth, Watched, WatchedCache};
use crate::mmu::PAGE;
use crate::rng::Rng;
use crate::server::nfs::{Existing, NfsServer, ServerConfig};
use crate::server::{self, Host};
use crate::stack::{Layer, Ledger, Tap};
use crate::verdict::Findings;
use crate::world::card_address;

/// Bytes of a packet buffer: two lie in a frame.
pub(super) const SKB: usize = 2016;

/// Slots of the swap file.
pub(super) const SLOTS: u32 = 4;

/// Port of the socket that strangers send to.
pub(super) const STRANGE_PORT: u16 = 7000;

/// Bytes of the swap connection's buffers: a WRITE fits.
const WINDOW: usize = 8192;

/// Pages of the program: one that goes out, one for which it goes.
const PAGES: usize = 2;

/// Frames besides the reserve and the rings: a few for pages, the rest for whoever takes them.
const ORDINARY: usize = 4;

/// Packets that a socket may hold: more than there are.
const SOCKET_SKBS: usize = 32;

/// Longer than anything is waited for: a request ends with its answer.
const DEADLINE: u64 = 100_000_000_000;

/// What the crates ask for: frames behind both reserves. The receive side asks for all of them.
pub(super) const fn budget(smallest: bool, rings: [usize; 2]) -> Budget {
    let [rx, tx] = rings;
    match smallest {
        true => netreserve::min_budget(SKB, 0),
        false => netreserve::budget(rx, tx, SKB, 0),
    }
}

/// What may be charged to them, in bytes.
const fn limits(smallest: bool, rings: [usize; 2]) -> [usize; 2] {
    let [rx, tx] = rings;
    match smallest {
        true => [netreserve::MIN_RX_SKBS * SKB, netreserve::MIN_TX_SKBS * SKB],
        false => [netreserve::rx_limit(rx, SKB), netreserve::tx_limit(tx, SKB)],
    }
}

/// Builds the system, lets `work` do something with it, and takes it apart again; `true` if all
/// memory must have come back by then.
pub(super) fn with_system<R>(
    setup: &Setup,
    findings: &Findings,
    work: impl FnOnce(&mut System<'_, '_>) -> (R, bool),
) -> R {
    let rings = setup.rings;
    let without = setup.without;
    let (task, truth) = (SingleTask::new(), Truth::default());
    let total = setup.computed() + rings[0] + rings[1] + ORDINARY;
    let mut memory = vec![0; (total + 1) * FRAME_SIZE];
    // Aligned, so that there are as many frames each time.
    let start = memory.as_ptr().align_offset(FRAME_SIZE);
    let memory = &mut memory[start..start + total * FRAME_SIZE];
    let mut table = vec![FrameEntry::EMPTY; total];
    let source = <Buddy<'_>>::new(memory, &mut table).expect("an entry for each frame");
    // Without a mark above it, the reserve is all that there is in an emergency.
    let zone = <Zone<'_>>::new(&source, &task, Watermarks::default());
    let zone = zone.expect("there are no marks").with_pressure(&truth);
    let token = zone.claim_memalloc().expect("nobody claimed it before");
    let watched = Watched::new(&zone, token, &truth, Rng::new(0, 0), findings.clone());

    let root = <ReserveNode<'_>>::root("total", &zone);
    let nodes = [ReserveNode::new("rx"), ReserveNode::new("tx")];
    let limits = limits(setup.smallest, rings);
    let budgets = [budget(setup.smallest, rings), Budget::ZERO];
    let cache = <SizedCache<'_>>::new("skb", &watched, SKB, 0).expect("packets fit into a slab");
    if let Some(Mechanism::Mempool(mechanism)) = without {
        zone.ablate(mechanism);
        root.ablate(mechanism);
        nodes.iter().for_each(|node| node.ablate(mechanism));
        cache.ablate(mechanism);
    }
    for ((node, limit), budget) in nodes.iter().zip(limits).zip(budgets) {
        node.set_limit(limit, budget.frames())
            .expect("a node without a parent takes any");
        node.connect(&root).expect("the memory was sized for it");
    }
    zone.shrink(setup.missing.min(root.pages()));
    let packets = WatchedCache {
        cache: &cache,
        memory: &watched,
        findings: findings.clone(),
    };

    let (mut flow_slots, mut peer_slots) = ([const { Slot::EMPTY }; 2], [const { Slot::EMPTY }; 2]);
    let flows = FlowTable::new(&mut flow_slots, &mut peer_slots);
    let mut socket_slots = [const { Slot::EMPTY }; 1];
    // The table wants its storage for good, and empties it itself.
    let mut entries = ManuallyDrop::new([const { QueueEntry::EMPTY }; SOCKET_SKBS]);
    let limit = ProtocolMemory::each(SOCKET_SKBS * SKB);
    let sockets = SocketTable::new(&mut socket_slots, &mut entries[..], limit);
    let stranger = sockets.bind(Protocol::Udp, STRANGE_PORT, SOCKET_SKBS * SKB);
    let stranger = stranger.expect("the port is free");
    let pool = SkbPool::new(&packets, &nodes[0], &nodes[1], &flows, token);
    let (address, hardware) = card_address(0);
    let ladder = Ingress::new(&flows, &sockets, hardware);

    let port = SharedPort::default();
    let card = Card {
        port: port.clone(),
        rings,
        hardware,
        flows: &flows,
        findings: findings.clone(),
        rx: VecDeque::new(),
        tx: VecDeque::new(),
        strange: Vec::new(),
    };
    let mut device = Reserved::new(card, &pool, &ladder).expect("a packet fits into a buffer");
    if let Some(Mechanism::Netreserve(mechanism)) = without {
        sockets.ablate(mechanism);
        pool.ablate(mechanism);
        ladder.ablate(mechanism);
        device.ablate(mechanism);
    }
    let device = Guard::new(
        device,
        Medium::Ethernet,
        server::ADDRESS,
        findings.clone(),
        true,
    );
    let config = SmoltcpConfig {
        hardware: EthernetAddress(hardware),
        address: Ipv4Cidr::new(address, 24),
        gateway: None,
        server: server::ADDRESS,
        local_ports: 49_152..=65_535,
        seed: 1,
    };
    let mut windows = [vec![0; WINDOW], vec![0; WINDOW]];
    let [rx, tx] = &mut windows;
    let mut tcp_sockets = [SocketStorage::EMPTY];
    let mut pages = [const { PageEntry::EMPTY }; PAGES];
    let mut faults = [FaultEntry::EMPTY; PAGES];
    let mut requests = [RequestEntry::EMPTY; 1];
    let mut map = vec![0; SwapArea::<(), ()>::map_len(SLOTS)];
    let mut tcp = SmoltcpTcp::new(device, config, &flows, rx, tx, &mut tcp_sockets, time(0));
    let ledger = Rc::new(Ledger::default());
    let off = match without {
        Some(Mechanism::NfsSwap(mechanism)) => Some(mechanism),
        _ => None,
    };
    off.iter().for_each(|mechanism| tcp.ablate(*mechanism));
    let tap = Tap::new(tcp, ledger.clone(), findings.clone());
    let mut file = SwapFile::new(tap, file_config(setup));
    off.iter().for_each(|mechanism| file.ablate(*mechanism));
    let layer = Layer::new(file, ledger, Rng::new(0, 1), findings.clone());
    let mut area = SwapArea::new(layer, &mut map);
    let tables = PagerTables {
        pages: &mut pages,
        faults: &mut faults,
        requests: &mut requests,
    };
    let off = match without {
        Some(Mechanism::Swapspace(mechanism)) => Some(mechanism),
        _ => None,
    };
    off.iter().for_each(|mechanism| area.ablate(*mechanism));
    let mut pager = Pager::new(&watched, area, ExplicitTable, tables);
    off.iter().for_each(|mechanism| pager.ablate(*mechanism));

    let parts = Parts {
        zone: &zone,
        memory: &watched,
        cache: &cache,
        token,
        nodes: &nodes,
        sockets: &sockets,
        stranger,
        ladder: &ladder,
        findings: findings.clone(),
    };
    let mut system = System::new(setup, parts, pager, port, host());
    let (result, over) = work(&mut system);
    drop(system);
    sockets.close(stranger);
    cache.shrink();
    if over {
        let stats = zone.stats();
        findings.check(
            stats.free == stats.total && stats.reserve_in_use == 0,
            "leak",
            || {
                format!(
                    "when all is over, {} of {} frames are free",
                    stats.free, stats.total
                )
            },
        );
        for node in &nodes {
            findings.check(node.usage() == 0, "M6", || {
                format!(
                    "{} bytes are still charged to '{}'",
                    node.usage(),
                    node.name()
                )
            });
        }
    }
    result
}

fn file_config(setup: &Setup) -> SwapFileConfig {
    let url = SwapUrl::parse("nfs://10.0.2.2/export/swap").expect("a URL");
    let mut config = SwapFileConfig::new(&url, SLOTS).expect("its parts are short");
    config.port = Some(2049);
    config.client.deadline = span(DEADLINE);
    if setup.unstable {
        config.client.stable = StableHow::Unstable;
    }
    config
}

fn host() -> Host {
    let size = u64::from(SLOTS) * PAGE as u64;
    let config = ServerConfig {
        export: "/export".into(),
        file: "swap".into(),
        transfer_max: PAGE as u32,
        capacity: None,
        existing: Some(Existing { size, used: size }),
        port: 2049,
    };
    Host::new(vec![NfsServer::new(config, 0)], vec![(2049, 0)], 1500, 1)
}
