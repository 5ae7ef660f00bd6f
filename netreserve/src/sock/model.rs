//! Two sockets in random order of everything, against plain queues and a count of charges.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::net::{Ipv4Addr, SocketAddrV4};

use proptest::prelude::*;

use super::*;
use crate::testbed::{Hog, Machine, SERVER, SKB, leak, machine};

const CASES: u32 = 256;
const OPS: usize = 400;
const RCVBUF: usize = 3;
const SNDBUF: usize = 2;
const PROTOCOL: usize = 5;
const ENTRIES: usize = 6;
/// Room and entries do not always suffice for both.
const ROOMS: [VmioRoom; 3] = [
    VmioRoom { rx: 2, tx: 1 },
    VmioRoom { rx: 4, tx: 2 },
    VmioRoom { rx: 0, tx: 0 },
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Packet {
    mark: u8,
    emergency: bool,
    vmio: bool,
}

#[derive(Default)]
struct Model {
    queue: VecDeque<Packet>,
    backlog: VecDeque<Packet>,
    owned: bool,
    taken: usize,
    vmio: Option<VmioRoom>,
}

impl Model {
    fn held(&self, vmio: bool) -> usize {
        let all = self.queue.iter().chain(&self.backlog);
        all.filter(|packet| packet.vmio == vmio).count()
    }

    fn emergency(&self) -> usize {
        let all = self.queue.iter().chain(&self.backlog);
        all.filter(|packet| packet.emergency).count()
    }
}

/// An skb on its way to the card, with the clones that share it.
struct Sent {
    skbs: Vec<Skb<'static>>,
    socket: usize,
    serial: usize,
    vmio: bool,
    emergency: bool,
}

struct World {
    m: Machine,
    hog: Option<Hog>,
    table: &'static SocketTable<'static>,
    ids: [SocketId; 2],
    serials: [usize; 2],
    guards: [Option<OwnedSocket<'static, 'static>>; 2],
    models: [Model; 2],
    sent: Vec<Sent>,
    mark: u8,
}

#[derive(Debug, Clone, Copy)]
enum Op {
    Deliver,
    DeliverVmio,
    Recv,
    Set,
    Clear,
    Lock,
    Release,
    Abandon,
    Send,
    CloneSent,
    Free,
    Pressure,
    Close,
}

#[rustfmt::skip]
const DRAWN: [Op; 24] = [
    Op::Deliver, Op::Deliver, Op::Deliver, Op::Deliver, Op::DeliverVmio, Op::DeliverVmio,
    Op::DeliverVmio, Op::DeliverVmio, Op::Recv, Op::Recv, Op::Recv, Op::Set, Op::Set, Op::Clear,
    Op::Lock, Op::Lock, Op::Release, Op::Abandon, Op::Send, Op::Send, Op::CloneSent, Op::Free,
    Op::Pressure, Op::Close,
];

fn flow(socket: usize) -> Flow {
    let local = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 1), 700 + socket as u16);
    Flow::udp(local, SERVER)
}

impl World {
    fn new() -> World {
        let m = machine();
        let entries: Vec<_> = (0..ENTRIES).map(|_| QueueEntry::EMPTY).collect();
        let limit = ProtocolMemory::each(PROTOCOL * SKB);
        let table = SocketTable::new(leak([const { Slot::EMPTY }; 4]), entries.leak(), limit);
        let table: &'static SocketTable<'static> = leak(table.with_flows(m.flows));
        let ids = [0, 1].map(|socket| bind(table, socket));
        World {
            m,
            hog: None,
            table,
            ids,
            serials: [0; 2],
            guards: [None, None],
            models: Default::default(),
            sent: Vec::new(),
            mark: 0,
        }
    }

    fn spare(&self) -> usize {
        let used: usize = self
            .models
            .iter()
            .map(|m| m.held(true) + m.held(false))
            .sum();
        let promised = |m: &Model| m.vmio.map_or(0, |room| room.rx - m.held(true));
        ENTRIES - used - self.models.iter().map(promised).sum::<usize>()
    }

    fn fits(&self, socket: usize) -> bool {
        let protocol: usize = self.models.iter().map(|m| m.held(false)).sum();
        self.models[socket].held(false) < RCVBUF && protocol < PROTOCOL
    }

    fn skb(&mut self) -> Option<Skb<'static>> {
        let mut skb = self.m.pool.alloc_rx().ok()?;
        self.mark = self.mark.wrapping_add(1);
        skb.put(1).unwrap()[0] = self.mark;
        Some(skb)
    }

    fn packet(&self, skb: &Skb<'_>, vmio: bool) -> Packet {
        Packet {
            mark: self.mark,
            emergency: skb.is_emergency(),
            vmio,
        }
    }

    fn deliver(&mut self, socket: usize) {
        let Some(skb) = self.skb() else { return };
        let packet = self.packet(&skb, false);
        let (spare, fits) = (self.spare(), self.fits(socket));
        let protocol: usize = self.models.iter().map(|m| m.held(false)).sum();
        let model = &mut self.models[socket];
        let expected = if packet.emergency {
            Some(DropReason::EmergencyUdp)
        } else if model.vmio.is_some() {
            Some(DropReason::NoSocket)
        } else if model.owned && (!fits || spare == 0 || model.taken >= RCVBUF) {
            Some(DropReason::BacklogFull)
        } else if model.held(false) >= RCVBUF {
            Some(DropReason::RcvbufFull)
        } else if protocol >= PROTOCOL {
            Some(DropReason::ProtocolMemoryFull)
        } else if spare == 0 {
            Some(DropReason::QueueFull)
        } else {
            None
        };
        let result = self.table.deliver(Protocol::Udp, 700 + socket as u16, skb);
        assert_eq!(result.err().map(|(reason, _)| reason), expected);
        if expected.is_none() {
            model.admit(packet);
        }
    }

    fn deliver_vmio(&mut self, socket: usize) {
        let Some(skb) = self.skb() else { return };
        let packet = self.packet(&skb, true);
        let model = &mut self.models[socket];
        let expected = match model.vmio {
            None => Some(None),
            Some(room) if model.owned && model.taken >= room.rx => {
                Some(Some(DropReason::BacklogFull))
            }
            Some(room) if model.held(true) >= room.rx => Some(Some(match model.owned {
                true => DropReason::BacklogFull,
                false => DropReason::VmioFull,
            })),
            Some(_) => None,
        };
        let result = self.table.deliver_vmio(flow(socket), skb);
        assert_eq!(result.err().map(|(reason, _)| reason), expected);
        if expected.is_none() {
            model.admit(packet);
        }
    }

    fn recv(&mut self, socket: usize) {
        let skb = self.table.recv(self.ids[socket]);
        let packet = self.models[socket].queue.pop_front();
        let got = skb.map(|skb| (skb.data()[0], skb.is_emergency()));
        assert_eq!(got, packet.map(|packet| (packet.mark, packet.emergency)));
    }

    fn set(&mut self, socket: usize, room: VmioRoom) {
        let enough = self.spare() >= room.rx;
        let model = &mut self.models[socket];
        let expected = match (model.vmio, enough) {
            (Some(_), _) => Err(VmioError::Present),
            (None, false) => Err(VmioError::NoEntries),
            (None, true) => Ok(()),
        };
        let result = self.table.set_vmio(self.ids[socket], flow(socket), room);
        assert_eq!(result, expected);
        if result.is_ok() {
            model.vmio = Some(room);
            assert!(self.m.flows.contains(flow(socket)));
        }
    }

    /// What has no room, or lies in the reserve, goes; in the order of the queue, then the backlog.
    fn settle(&mut self, socket: usize) -> Option<Settled> {
        self.models[socket].vmio.take()?;
        let mut settled = Settled::default();
        let model = &mut self.models[socket];
        let lists = [&mut model.queue, &mut model.backlog].map(core::mem::take);
        let others = self.models[1 - socket].held(false);
        let mut held = lists.iter().flatten().filter(|packet| !packet.vmio).count();
        let [queue, backlog] = lists.map(|mut list| {
            list.retain_mut(|packet| {
                if !packet.vmio {
                    return true;
                }
                let stays = !packet.emergency && held < RCVBUF && held + others < PROTOCOL;
                packet.vmio = false;
                held += usize::from(stays);
                *(if stays {
                    &mut settled.kept
                } else {
                    &mut settled.dropped
                }) += 1;
                stays
            });
            list
        });
        (self.models[socket].queue, self.models[socket].backlog) = (queue, backlog);
        Some(settled)
    }

    fn clear(&mut self, socket: usize) {
        let expected = self.settle(socket);
        assert_eq!(self.table.clear_vmio(self.ids[socket]), expected);
        assert!(!self.m.flows.contains(flow(socket)));
    }

    fn lock(&mut self, socket: usize) {
        let guard = self.table.lock_sock(self.ids[socket]);
        let model = &mut self.models[socket];
        assert_eq!(guard.is_some(), !model.owned);
        if let Some(guard) = guard {
            self.guards[socket] = Some(guard);
            (model.owned, model.taken) = (true, 0);
        }
    }

    fn release(&mut self, socket: usize, keeps: bool) {
        let Some(guard) = self.guards[socket].take() else {
            return;
        };
        let context = MemallocContext::new(self.m.zone, self.m.token, self.m.task);
        let (task, mut seen) = (self.m.task, Vec::new());
        let model = &mut self.models[socket];
        // Of a socket that was closed, nothing.
        let vmio = model.owned && model.vmio.is_some();
        let result = guard.release(&context, |skb| {
            assert_eq!(mempool::TaskContext::memalloc(task), vmio, "M1");
            seen.push(skb.data()[0]);
            keeps.then_some(skb)
        });
        let processed = result.expect("no interrupt runs");
        if !model.owned {
            assert_eq!(processed, Processed::default());
            return;
        }
        model.owned = false;
        let backlog = core::mem::take(&mut model.backlog);
        assert!(backlog.iter().map(|packet| packet.mark).eq(seen));
        if keeps {
            assert_eq!(processed.queued, backlog.len());
            model.queue.extend(backlog);
        } else {
            assert_eq!(processed.handled, backlog.len());
        }
    }

    fn abandon(&mut self, socket: usize) {
        let model = &mut self.models[socket];
        if self.guards[socket].take().is_some() && model.owned {
            let backlog = core::mem::take(&mut model.backlog);
            model.queue.extend(backlog);
            model.owned = false;
        }
    }

    fn in_flight(&self, socket: usize, vmio: bool) -> usize {
        let serial = self.serials[socket];
        let own = |sent: &&Sent| sent.socket == socket && sent.serial == serial;
        self.sent
            .iter()
            .filter(own)
            .filter(|s| s.vmio == vmio)
            .count()
    }

    fn send(&mut self, socket: usize) {
        let full = self.in_flight(socket, false) >= SNDBUF;
        let room = self.models[socket].vmio;
        let within = self.in_flight(socket, true);
        let free = room.is_some_and(|room| within < room.tx);
        match self.table.alloc_send(self.ids[socket], self.m.pool) {
            Ok(mut skb) => {
                let info = self.table.info(self.ids[socket]).unwrap();
                let vmio = info.vmio_sent > within;
                // The room is for those who have nothing else.
                assert!(if vmio {
                    free && (full || self.hog.is_some())
                } else {
                    !full
                });
                assert!(vmio || !skb.is_emergency(), "N4");
                // To write to it does not make it anybody's less.
                skb.put(8).unwrap().fill(7);
                assert!(room.is_some() || !skb.is_emergency(), "M7");
                let emergency = skb.is_emergency();
                let (skbs, serial) = (Vec::from([skb]), self.serials[socket]);
                self.sent.push(Sent {
                    skbs,
                    socket,
                    serial,
                    vmio,
                    emergency,
                });
            }
            Err(SendError::SndbufFull) => assert!(full && room.is_none()),
            Err(SendError::VmioFull) => {
                let starved = self.hog.is_some() && within > 0;
                assert!(room.is_some() && !free && (full || starved));
            }
            Err(SendError::Alloc(_)) => assert!(self.hog.is_some() && (!full || free)),
            Err(error) => panic!("{error}"),
        }
    }

    fn close(&mut self, socket: usize) {
        let held = self.models[socket].held(true) + self.models[socket].held(false);
        assert_eq!(self.table.close(self.ids[socket]), Some(held));
        assert!(self.table.info(self.ids[socket]).is_none());
        assert!(!self.m.flows.contains(flow(socket)));
        self.models[socket] = Model::default();
        self.ids[socket] = bind(self.table, socket);
        self.serials[socket] += 1;
    }

    fn check(&self) {
        for socket in 0..2 {
            let (info, model) = (
                self.table.info(self.ids[socket]).unwrap(),
                &self.models[socket],
            );
            assert_eq!(
                (info.queued, info.backlog),
                (model.queue.len(), model.backlog.len())
            );
            assert_eq!(info.rmem, model.held(false) * SKB);
            assert_eq!(
                (info.vmio_queued, info.vmio),
                (model.held(true), model.vmio)
            );
            assert_eq!(info.emergency, model.emergency());
            assert_eq!(info.wmem, self.in_flight(socket, false) * SKB);
            assert_eq!(info.vmio_sent, self.in_flight(socket, true));
        }
        let stats = self.table.stats();
        assert_eq!(stats.wmem, self.sent.len() * SKB);
        assert_eq!(stats.rmem, self.table.total_rmem());
        assert_eq!(stats.emergency, 0, "N2");
        let received: usize = self.models.iter().map(Model::emergency).sum();
        let sent = self.sent.iter().filter(|sent| sent.emergency).count();
        assert_eq!(
            (self.m.rx.usage(), self.m.tx.usage()),
            (received * SKB, sent * SKB)
        );
    }
}

impl Model {
    fn admit(&mut self, packet: Packet) {
        if self.owned {
            self.taken += 1;
            self.backlog.push_back(packet);
        } else {
            self.queue.push_back(packet);
        }
    }
}

fn bind(table: &SocketTable<'static>, socket: usize) -> SocketId {
    let port = 700 + socket as u16;
    let id = table.bind(Protocol::Udp, port, RCVBUF * SKB).unwrap();
    table.set_sndbuf(id, SNDBUF * SKB).unwrap();
    id
}

fn run(ops: Vec<(usize, usize, usize)>) {
    let mut world = World::new();
    for (op, socket, number) in ops {
        match DRAWN[op] {
            Op::Deliver => world.deliver(socket),
            Op::DeliverVmio => world.deliver_vmio(socket),
            Op::Recv => world.recv(socket),
            Op::Set => world.set(socket, ROOMS[number % ROOMS.len()]),
            Op::Clear => world.clear(socket),
            Op::Lock => world.lock(socket),
            Op::Release => world.release(socket, number.is_multiple_of(2)),
            Op::Abandon => world.abandon(socket),
            Op::Send => world.send(socket),
            Op::CloneSent => {
                let sent = world.sent.len().max(1);
                if let Some(sent) = world.sent.get_mut(number % sent) {
                    let clone = sent.skbs[0].try_clone().unwrap();
                    sent.skbs.push(clone);
                }
            }
            Op::Free => {
                let sent = world.sent.len().max(1);
                if let Some(sent) = world.sent.get_mut(number % sent) {
                    sent.skbs.swap_remove(number % sent.skbs.len());
                }
                world.sent.retain(|sent| !sent.skbs.is_empty());
            }
            Op::Pressure => {
                world.hog = match world.hog.take() {
                    Some(_) => None,
                    None => Some(world.m.exhaust()),
                };
            }
            Op::Close => world.close(socket),
        }
        world.check();
    }
    for socket in 0..2 {
        world.abandon(socket);
        world.close(socket);
    }
    (world.sent, world.hog) = (Vec::new(), None);
    assert_eq!(world.table.stats().wmem, 0);
    world.m.assert_quiescent();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(CASES))]

    #[test]
    fn n7_sockets_hold_what_the_model_says_through_vmio_on_and_off(
        ops in prop::collection::vec((0..DRAWN.len(), 0..2usize, 0..64usize), OPS)
    ) {
        run(ops);
    }
}
