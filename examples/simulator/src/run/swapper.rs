//! A swap area with all that belongs to it: card, connection, file and pager.

use std::collections::VecDeque;
use std::rc::Rc;

use mempool::ReserveNode;
use netreserve::{Ingress, RefillPolicy, Reserved, RxRing, SkbPool};
use nfs_swap::nfs3::StableHow;
use nfs_swap::transport::smoltcp::{SmoltcpConfig, SmoltcpTcp};
use nfs_swap::{SwapFile, SwapFileConfig, SwapUrl};
use smoltcp::iface::SocketStorage;
use smoltcp::wire::{EthernetAddress, Ipv4Cidr};
use swapspace::{FaultEntry, PageEntry, Pager, PagerTables, RequestEntry, SwapArea};

use super::host::port;
use super::off::Off;
use crate::guard::Guard;
use crate::kernel::{Parts, Phase, Swapper, span, time};
use crate::mmu::{Mmu, PAGE};
use crate::nic::{Card, Port, SharedPort};
use crate::rng::Rng;
use crate::scenario::{Machine, Scenario};
use crate::server;
use crate::stack::{Layer, Ledger, Tap};
use crate::world::card_address;

/// Faults that wait at once.
const FAULTS: usize = 8;

/// Streams of the seed.
const LAYER: u64 = 22;
const CARD: u64 = 30;
const REFILL: u64 = 50;

/// What a swapper keeps its books and its packets in.
pub(super) struct Storage<'s, 'm> {
    pages: Vec<PageEntry<'m>>,
    faults: Vec<FaultEntry>,
    requests: Vec<RequestEntry>,
    map: Vec<u32>,
    /// Of the connection, receiving and sending.
    windows: [Vec<u8>; 2],
    sockets: [SocketStorage<'s>; 1],
}

/// Where a swapper is to be built.
pub(super) struct Site<'s, 'm> {
    pub(super) number: usize,
    pub(super) nodes: &'m [ReserveNode<'m>; 2],
    pub(super) pool: &'m SkbPool<'m>,
    pub(super) ingress: &'m Ingress<'m>,
    pub(super) storage: &'s mut Storage<'s, 'm>,
}

impl Storage<'_, '_> {
    pub(super) fn new(scenario: &Scenario, slots: u32) -> Self {
        let (machine, program) = (&scenario.machine, &scenario.program);
        Storage {
            pages: (0..program.pages).map(|_| PageEntry::EMPTY).collect(),
            faults: vec![FaultEntry::EMPTY; FAULTS],
            requests: vec![RequestEntry::EMPTY; machine.requests],
            map: vec![0; SwapArea::<(), ()>::map_len(slots)],
            windows: [vec![0; machine.window], vec![0; machine.window]],
            sockets: [SocketStorage::EMPTY],
        }
    }
}

impl<'s, 'm> Site<'s, 'm> {
    /// Builds it, from the card up.
    pub(super) fn build<M: Mmu>(
        self,
        scenario: &Scenario,
        slots: u32,
        parts: &Parts<'m>,
    ) -> Swapper<'s, 'm, M> {
        let off = Off(scenario.without);
        let rng = |stream| Rng::new(scenario.seed, stream + self.number as u64);
        let findings = &parts.findings;
        let port = Port::shared(parts.machine.fifo);
        let card = self.card(port.clone(), rng(CARD), rng(REFILL), parts);
        let mut device = Reserved::new(card, self.pool, self.ingress)
            .expect("a packet of the card fits into a buffer");
        off.netreserve(|mechanism| device.ablate(mechanism));
        let device = Guard::new(
            device,
            parts.machine.medium,
            server::ADDRESS,
            findings.clone(),
            parts.lossless,
        );

        let config = connection(scenario, self.number);
        let Storage {
            pages,
            faults,
            requests,
            map,
            windows: [rx, tx],
            sockets,
        } = self.storage;
        let mut tcp = SmoltcpTcp::new(device, config, parts.flows, rx, tx, sockets, time(0));
        off.nfs_swap(|mechanism| tcp.ablate(mechanism));
        let ledger = Rc::new(Ledger::default());
        let tap = Tap::new(tcp, ledger.clone(), findings.clone());
        let mut file = SwapFile::new(tap, file_config(scenario, self.number, slots));
        off.nfs_swap(|mechanism| file.ablate(mechanism));
        let layer = Layer::new(file, ledger.clone(), rng(LAYER), findings.clone());

        let mut area = SwapArea::new(layer, map);
        off.swapspace(|mechanism| area.ablate(mechanism));
        let tables = PagerTables {
            pages,
            faults,
            requests,
        };
        let table = M::with_pages(scenario.program.pages);
        let mut pager = Pager::new(parts.memory, area, table, tables);
        off.swapspace(|mechanism| pager.ablate(mechanism));
        let [rx, tx] = self.nodes;
        Swapper {
            pager,
            port,
            nodes: [rx, tx],
            pool: self.pool,
            ingress: self.ingress,
            ledger,
            truth: vec![0; scenario.program.pages],
            phase: Phase::Activating { not_before: 0 },
            spins: 0,
            progress: 0,
            open: false,
            failed_allocations: 0,
            cut: false,
        }
    }

    fn card(&self, port: SharedPort, rng: Rng, mut refill: Rng, parts: &Parts<'m>) -> Card<'m> {
        let machine = parts.machine;
        let (skb_size, slab_order) = machine.skb();
        // From a refill for each packet to one when nothing more can come.
        let size = machine.rings[0];
        let low = refill.pick(&[size - 1, size / 2, size / 4, 0]);
        let policy = RefillPolicy {
            size,
            low: low.min(size - 1),
        };
        Card {
            port,
            medium: machine.medium,
            rings: machine.rings,
            mtu: machine.mtu.into(),
            hardware: card_address(self.number).1,
            server: server::ADDRESS,
            flows: parts.flows,
            memory: parts.packet_memory,
            skb_size,
            slab_order,
            interrupts: parts.interrupts,
            findings: parts.findings.clone(),
            reserve: &self.nodes[0],
            ingress: self.ingress,
            rng,
            refused: None,
            others: VecDeque::new(),
            rx: RxRing::new(policy),
            tx: VecDeque::new(),
            sent: 0,
            received: 0,
            window_scale: 0,
        }
    }
}

fn connection(scenario: &Scenario, number: usize) -> SmoltcpConfig {
    let (address, hardware) = card_address(number);
    SmoltcpConfig {
        hardware: EthernetAddress(hardware),
        address: Ipv4Cidr::new(address, 24),
        gateway: None,
        server: server::ADDRESS,
        local_ports: 49_152..=65_535,
        seed: scenario.seed ^ number as u64,
    }
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
