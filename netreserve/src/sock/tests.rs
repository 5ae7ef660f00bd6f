use alloc::vec::Vec;
use std::sync::Mutex as StdMutex;

use mempool::{FrameAllocator, Gfp};

use super::*;
use crate::testbed::{LOCAL, Machine, SERVER, SKB, STRANGER, SWAP, leak, machine, packet};
use crate::{SkbAllocError, Verdict};

const ROOM: VmioRoom = VmioRoom { rx: 4, tx: 2 };

fn udp(m: &Machine, port: u16, mark: usize) -> Result<SocketId, DropReason> {
    let skb = m.skb(&packet(Protocol::Udp, STRANGER, LOCAL, mark));
    m.sockets
        .deliver(Protocol::Udp, port, skb)
        .map_err(|(reason, _)| reason)
}

#[test]
fn a_queue_is_first_in_first_out_and_bounded_by_truesize() {
    let m = machine();
    let id = m.sockets.bind(Protocol::Udp, 9, 3 * SKB).unwrap();
    for mark in 0..3 {
        assert_eq!(udp(&m, 9, mark), Ok(id));
    }
    assert_eq!(udp(&m, 9, 0), Err(DropReason::RcvbufFull));
    assert_eq!(m.sockets.rmem(id), Some(3 * SKB));
    let order: Vec<_> = core::iter::from_fn(|| m.sockets.recv(id))
        .map(|skb| skb.len() - packet(Protocol::Udp, STRANGER, LOCAL, 0).len())
        .collect();
    assert_eq!(order, [0, 1, 2]);
    assert_eq!((m.sockets.rmem(id), m.sockets.queued()), (Some(0), 0));
    m.assert_quiescent();
}

#[test]
fn each_protocol_has_a_limit_of_its_own() {
    let m = machine();
    let ids = [9, 10].map(|port| m.sockets.bind(Protocol::Udp, port, 20 * SKB).unwrap());
    for port in [9, 10] {
        for _ in 0..16 {
            udp(&m, port, 0).unwrap();
        }
    }
    assert_eq!(udp(&m, 9, 0), Err(DropReason::ProtocolMemoryFull));
    let tcp = m.sockets.bind(Protocol::Tcp, 9, SKB).unwrap();
    let skb = m.skb(&packet(Protocol::Tcp, STRANGER, LOCAL, 0));
    assert_eq!(m.sockets.deliver(Protocol::Tcp, 9, skb).ok(), Some(tcp));
    let stats = m.sockets.stats();
    assert_eq!((stats.sockets, stats.waiting, stats.queued), (3, 3, 33));
    assert_eq!((stats.rmem, stats.peak), (33 * SKB, 33 * SKB));
    assert_eq!(m.sockets.total_rmem(), 33 * SKB);

    assert_eq!(ids.map(|id| m.sockets.close(id)), [Some(16), Some(16)]);
    assert_eq!(m.sockets.close(tcp), Some(1));
    m.assert_quiescent();
}

#[test]
fn the_fullest_socket_is_named() {
    let m = machine();
    for (port, count) in [(9, 1), (10, 3), (11, 2)] {
        m.sockets.bind(Protocol::Udp, port, 8 * SKB).unwrap();
        for _ in 0..count {
            udp(&m, port, 0).unwrap();
        }
    }
    let fullest = m.sockets.stats().fullest.unwrap();
    assert_eq!(
        (fullest.port, fullest.queued, fullest.rmem),
        (10, 3, 3 * SKB)
    );
}

#[test]
fn a_closed_socket_is_gone_even_when_its_port_is_bound_again() {
    let m = machine();
    let old = m.sockets.bind(Protocol::Udp, 9, SKB).unwrap();
    assert_eq!(m.sockets.close(old), Some(0));
    assert_eq!(udp(&m, 9, 0), Err(DropReason::NoSocket));
    let new = m.sockets.bind(Protocol::Udp, 9, SKB).unwrap();
    udp(&m, 9, 0).unwrap();
    assert!(m.sockets.recv(old).is_none() && m.sockets.close(old).is_none());
    assert_eq!(
        (m.sockets.rmem(old), m.sockets.rmem(new)),
        (None, Some(SKB))
    );
    assert!(m.sockets.recv(new).is_some());
}

#[test]
fn entries_bound_all_queues_together() {
    let m = machine();
    let entries = [QueueEntry::EMPTY, QueueEntry::EMPTY];
    let table = SocketTable::new(
        crate::testbed::leak([Slot::EMPTY]),
        crate::testbed::leak(entries),
        ProtocolMemory::each(usize::MAX),
    );
    let id = table.bind(Protocol::Udp, 9, usize::MAX).unwrap();
    assert_eq!(
        table.bind(Protocol::Udp, 10, 1).unwrap_err(),
        BindError::Full
    );
    let deliver = || {
        let skb = m.skb(&[]);
        table
            .deliver(Protocol::Udp, 9, skb)
            .map_err(|(reason, _)| reason)
    };
    for _ in 0..3 {
        assert_eq!((deliver(), deliver()), (Ok(id), Ok(id)));
        assert_eq!(deliver(), Err(DropReason::QueueFull));
        assert!(table.recv(id).is_some() && table.recv(id).is_some());
        assert!(table.recv(id).is_none());
    }
}

#[test]
fn n2_an_emergency_skb_is_refused_and_comes_back() {
    let m = machine();
    m.flows.add(SWAP).unwrap();
    m.sockets.bind(Protocol::Tcp, 9, 8 * SKB).unwrap();
    let _hog = m.exhaust();
    let skb = m.skb(&packet(Protocol::Tcp, STRANGER, LOCAL, 0));
    let (reason, skb) = m.sockets.deliver(Protocol::Tcp, 9, skb).unwrap_err();
    assert_eq!(
        (reason, skb.is_emergency()),
        (DropReason::EmergencyTcp, true)
    );
    assert_eq!(m.sockets.queued(), 0);
}

/// A socket of the swap connection's port, serving the VM.
fn vmio(m: &Machine, rcvbuf: usize) -> SocketId {
    let id = m.sockets.bind(Protocol::Tcp, 700, rcvbuf).unwrap();
    m.sockets.set_vmio(id, SWAP, ROOM).unwrap();
    id
}

/// A packet of the swap connection comes in.
fn from_server(m: &Machine) -> Verdict<'static> {
    m.ingress
        .receive(m.skb(&packet(Protocol::Tcp, SERVER, LOCAL, 8)))
}

#[test]
fn n7_a_vmio_socket_gets_its_packets_whatever_the_others_hold() {
    let m = machine();
    let id = vmio(&m, 0);
    // Others hold all that the protocol may, and all entries but those promised.
    m.sockets.bind(Protocol::Tcp, 9, 64 * SKB).unwrap();
    let flood = || {
        let skb = m.skb(&packet(Protocol::Tcp, STRANGER, LOCAL, 0));
        m.sockets
            .deliver(Protocol::Tcp, 9, skb)
            .map_err(|(reason, _)| reason)
    };
    while flood().is_ok() {}
    assert_eq!(flood(), Err(DropReason::ProtocolMemoryFull));
    let _hog = m.exhaust();
    for _ in 0..ROOM.rx {
        assert!(matches!(from_server(&m), Verdict::Delivered(to) if to == id));
    }
    let info = m.sockets.info(id).unwrap();
    assert_eq!((info.vmio_queued, info.emergency, info.rmem), (4, 4, 0));
    // And no more than it was given room for (N4).
    let full = from_server(&m);
    assert!(
        matches!(full, Verdict::Dropped(DropReason::VmioFull)),
        "{full:?}"
    );
    assert_eq!(m.rx.usage(), ROOM.rx * SKB);
    assert_eq!(m.ingress.stats().vmio_dropped, 1);
}

#[test]
fn n2_a_vmio_socket_is_connected_and_nobody_else_reaches_it() {
    let m = machine();
    let id = vmio(&m, 64 * SKB);
    let stranger = || m.skb(&packet(Protocol::Tcp, STRANGER, LOCAL, 0));
    let refused = m.ingress.receive(stranger());
    assert!(
        matches!(refused, Verdict::Unclaimed(_, DropReason::NoSocket)),
        "{refused:?}"
    );
    let _hog = m.exhaust();
    let dropped = m.ingress.receive(stranger());
    assert!(
        matches!(dropped, Verdict::Dropped(DropReason::EmergencyTcp)),
        "{dropped:?}"
    );
    assert_eq!(m.sockets.info(id).unwrap().queued, 0);
}

#[test]
fn n7_clearing_vmio_on_a_live_socket_settles_its_accounting() {
    let m = machine();
    let id = vmio(&m, SKB);
    let before = (m.rx.usage(), m.sockets.rmem(id));
    assert!(matches!(from_server(&m), Verdict::Delivered(_)));
    let ordinary = m.sockets.info(id).unwrap();
    assert_eq!((ordinary.queued, ordinary.emergency), (1, 0));
    let hog = m.exhaust();
    for _ in 0..2 {
        assert!(matches!(from_server(&m), Verdict::Delivered(_)));
    }
    assert_eq!((m.rx.usage(), m.sockets.rmem(id)), (2 * SKB, Some(0)));
    drop(hog);
    assert!(matches!(from_server(&m), Verdict::Delivered(_)));

    // One ordinary skb fits into `rcvbuf`; the other does not, and emergency ones never do.
    let settled = m.sockets.clear_vmio(id).unwrap();
    assert_eq!((settled.kept, settled.dropped), (1, 3));
    assert_eq!((m.rx.usage(), m.sockets.rmem(id)), (0, Some(SKB)));
    assert_eq!(m.sockets.stats().dropped, 3);
    assert!(!m.flows.any() && m.sockets.clear_vmio(id).is_none());
    assert!(m.sockets.recv(id).is_some() && m.sockets.recv(id).is_none());
    assert_eq!((m.rx.usage(), m.sockets.rmem(id)), before);

    // It is a socket like others again, and its entries are everybody's.
    assert!(
        m.sockets
            .set_vmio(id, SWAP, VmioRoom { rx: 64, tx: 0 })
            .is_ok()
    );
    assert_eq!(m.sockets.close(id), Some(0));
    m.assert_quiescent();
}

#[test]
fn vmio_is_refused_by_name_and_changes_nothing() {
    let m = machine();
    let id = m.sockets.bind(Protocol::Tcp, 700, SKB).unwrap();
    let set = |flow, rx| m.sockets.set_vmio(id, flow, VmioRoom { rx, tx: 0 });
    assert_eq!(set(Flow::udp(LOCAL, SERVER), 1), Err(VmioError::OtherPort));
    assert_eq!(set(SWAP, 65), Err(VmioError::NoEntries));
    m.flows.add(SWAP).unwrap();
    assert_eq!(
        set(SWAP, 1),
        Err(VmioError::Flow(crate::FlowError::Present))
    );
    m.flows.remove(SWAP).unwrap();
    assert_eq!(m.sockets.info(id).unwrap().vmio, None);
    set(SWAP, 64).unwrap();
    assert_eq!(set(SWAP, 1), Err(VmioError::Present));
    m.sockets.close(id);
    assert_eq!(set(SWAP, 1), Err(VmioError::NoSocket));
    let table = SocketTable::new(&mut [], &mut [], ProtocolMemory::each(0));
    assert_eq!(table.set_vmio(id, SWAP, ROOM), Err(VmioError::NoFlows));
}

/// Who was told that he can send again.
#[derive(Default)]
struct Told(StdMutex<Vec<SocketId>>);

impl SendWaiters for Told {
    fn writable(&self, socket: SocketId) {
        self.0.lock().unwrap().push(socket);
    }
}

impl Told {
    fn take(&self) -> Vec<SocketId> {
        core::mem::take(&mut self.0.lock().unwrap())
    }
}

fn with_waiters(m: &Machine) -> (&'static SocketTable<'static>, &'static Told) {
    let told: &'static Told = leak(Told::default());
    let slots = leak([const { Slot::EMPTY }; 4]);
    let entries: Vec<_> = (0..8).map(|_| QueueEntry::EMPTY).collect();
    let table = SocketTable::new(slots, entries.leak(), ProtocolMemory::each(8 * SKB));
    (leak(table.with_flows(m.flows).with_waiters(told)), told)
}

#[test]
fn n4_what_a_socket_sent_is_bounded_until_the_card_frees_it_and_its_sender_is_told() {
    let m = machine();
    let (sockets, told) = with_waiters(&m);
    let id = sockets.bind(Protocol::Udp, 9, 2 * SKB).unwrap();
    let send = || sockets.alloc_send(id, m.pool);
    let (mut first, second) = (send().unwrap(), send().unwrap());
    first.reserve(64).unwrap();
    first.put(8).unwrap().fill(7);
    first.push(4).unwrap().fill(8);
    assert!((SKB - 72 - Skb::SHARE_ROOM..SKB - 72).contains(&first.tailroom()));
    assert_eq!(send().unwrap_err(), SendError::SndbufFull);
    assert_eq!(sockets.info(id).unwrap().wmem, 2 * SKB);

    // A clone in the ring counts for as long as it lies there, once; a copy that takes its place too.
    let clone = first.try_clone().unwrap();
    let expanded = m.pool.expand(clone, 64).unwrap();
    assert_eq!(sockets.info(id).unwrap().wmem, 3 * SKB);
    drop(first);
    assert_eq!(sockets.info(id).unwrap().wmem, 2 * SKB);
    assert!(told.take().is_empty(), "there is no room yet");
    drop(expanded);
    assert_eq!(told.take(), [id]);
    drop(second);
    assert!(told.take().is_empty(), "nobody was refused since");

    // What another stack allocated is counted when it becomes the socket's.
    sockets.set_sndbuf(id, 0).unwrap();
    let skb = m.pool.alloc_tx().unwrap();
    let (error, skb) = sockets.own_send(id, skb).unwrap_err();
    assert_eq!(error, SendError::SndbufFull);
    sockets.set_sndbuf(id, SKB).unwrap();
    assert_eq!(told.take(), [id]);
    let skb = sockets.own_send(id, skb).unwrap();
    // It is not any more when it is received here.
    sockets.deliver(Protocol::Udp, 9, skb).unwrap();
    let info = sockets.info(id).unwrap();
    assert_eq!((info.wmem, info.rmem), (0, SKB));

    // Of a closed socket nothing counts, and the end of its packets is nobody's.
    let late = send().unwrap();
    assert_eq!(send().unwrap_err(), SendError::SndbufFull);
    sockets.close(id);
    assert_eq!(
        (send().unwrap_err(), sockets.stats().wmem),
        (SendError::NoSocket, SKB)
    );
    drop(late);
    assert_eq!((sockets.stats().wmem, told.take().len()), (0, 0));
    m.assert_quiescent();
}

#[test]
fn n7_a_vmio_sender_goes_on_beyond_his_send_buffer_and_is_bounded_by_his_room() {
    let m = machine();
    let (sockets, told) = with_waiters(&m);
    let id = sockets.bind(Protocol::Tcp, 700, SKB).unwrap();
    let send = || sockets.alloc_send(id, m.pool);
    let ordinary = send().unwrap();
    assert_eq!(send().unwrap_err(), SendError::SndbufFull);
    sockets.set_vmio(id, SWAP, ROOM).unwrap();
    assert_eq!(told.take(), [id], "there is room now");
    let hog = m.exhaust();
    let mut beyond: Vec<_> = (0..ROOM.tx).map(|_| send().unwrap()).collect();
    assert!(beyond.iter().all(Skb::is_emergency));
    assert_eq!(send().unwrap_err(), SendError::VmioFull);
    beyond.pop();
    assert_eq!(told.take(), [id]);
    beyond.extend(send());
    // Whoever waits for room is told that there is none to wait for any more.
    assert_eq!(send().unwrap_err(), SendError::VmioFull);
    // When it serves the VM no longer, what is on its way ends as it would have.
    sockets.clear_vmio(id).unwrap();
    assert_eq!(told.take(), [id]);
    let info = sockets.info(id).unwrap();
    assert_eq!((info.wmem, info.vmio_sent), (SKB, 2));
    assert_eq!(send().unwrap_err(), SendError::SndbufFull);
    drop(beyond);
    assert_eq!((m.tx.usage(), sockets.info(id).unwrap().vmio_sent), (0, 0));
    drop(ordinary);
    let hog = (hog, m.exhaust());
    // An ordinary sender never gets anything of the reserve (M7), and nothing stays counted.
    assert!(matches!(
        send(),
        Err(SendError::Alloc(SkbAllocError::Memory(_)))
    ));
    assert_eq!(sockets.info(id).unwrap().wmem, 0);
    drop(hog);
    assert!(send().is_ok());
}

/// The budget knows the room; a send buffer may be as large as it likes, and change at any time.
#[test]
fn n4_a_vmio_sender_has_no_more_of_the_reserve_than_his_room_however_large_his_send_buffer() {
    let m = machine();
    let (sockets, told) = with_waiters(&m);
    let id = sockets.bind(Protocol::Tcp, 700, 64 * SKB).unwrap();
    sockets.set_vmio(id, SWAP, ROOM).unwrap();
    let send = || sockets.alloc_send(id, m.pool);
    let counts = || {
        sockets
            .info(id)
            .map(|info| (info.wmem / SKB, info.vmio_sent))
    };
    // While there is ordinary memory, the room stays free.
    let ordinary: Vec<_> = (0..4).map(|_| send().unwrap()).collect();
    assert_eq!(counts(), Some((4, 0)));
    let hog = m.exhaust();
    let mut sent: Vec<_> = (0..ROOM.tx).map(|_| send().unwrap()).collect();
    assert!(sent.iter().all(Skb::is_emergency));
    for _ in 0..3 {
        assert_eq!(send().unwrap_err(), SendError::VmioFull);
    }
    assert_eq!((counts(), m.tx.usage()), (Some((4, 2)), ROOM.tx * SKB));
    assert!(told.take().is_empty(), "a refusal is no room");

    // What the reserve gave to others may have no other place either.
    let (error, skb) = sockets
        .own_send(id, m.pool.alloc_tx().unwrap())
        .unwrap_err();
    assert_eq!((error, skb.is_emergency()), (SendError::VmioFull, true));
    let other = sockets.bind(Protocol::Udp, 9, 64 * SKB).unwrap();
    let (error, skb) = sockets.own_send(other, skb).unwrap_err();
    assert_eq!((error, skb.is_emergency()), (SendError::NotVmio, true));
    sent.pop();
    assert_eq!(told.take(), [id]);
    sent.push(sockets.own_send(id, skb).unwrap());
    assert_eq!(counts(), Some((4, 2)));

    // Nor does a copy that takes the place of a clone lie in the send buffer.
    let clone = sent[0].try_clone().unwrap();
    let copy = m.pool.expand(clone, 64).unwrap();
    assert!(copy.is_emergency());
    assert_eq!(counts(), Some((4, 3)));
    drop(copy);

    // Without room it is want of memory, and nobody waits for what never comes.
    drop((hog, ordinary, sent));
    sockets.clear_vmio(id).unwrap();
    sockets
        .set_vmio(id, SWAP, VmioRoom { rx: 1, tx: 0 })
        .unwrap();
    let hog = m.exhaust();
    assert!(matches!(
        send(),
        Err(SendError::Alloc(SkbAllocError::Memory(_)))
    ));
    assert_eq!((counts(), sockets.stats().wmem), (Some((0, 0)), 0));
    drop(hog);
    assert!(send().is_ok_and(|skb| !skb.is_emergency()));
    for socket in [id, other] {
        sockets.close(socket);
    }
    m.assert_quiescent();
}

#[test]
fn m1_the_backlog_of_a_vmio_socket_is_processed_entitled_and_no_other_and_never_in_an_interrupt() {
    let m = machine();
    let swap = vmio(&m, SKB);
    let other = m.sockets.bind(Protocol::Udp, 9, 8 * SKB).unwrap();
    let context = MemallocContext::new(m.zone, m.token, m.task);
    let entitled = || FrameAllocator::entitled(m.zone, Gfp::ATOMIC);
    for (id, expected) in [(swap, true), (other, false)] {
        let owned = m.sockets.lock_sock(id).unwrap();
        assert!(m.sockets.lock_sock(id).is_none(), "somebody has it");
        if id == swap {
            assert!(matches!(from_server(&m), Verdict::Delivered(to) if to == id));
        } else {
            udp(&m, 9, 0).unwrap();
        }
        assert!(m.sockets.recv(id).is_none(), "it is in the backlog");

        let irq = m.task.interrupt();
        let owned = owned
            .release(&context, |_| unreachable!("not in an interrupt"))
            .unwrap_err();
        drop(irq);
        let mut ran = 0;
        let processed = owned.release(&context, |skb| {
            ran += 1;
            assert_eq!(entitled(), expected);
            let irq = m.task.interrupt();
            assert!(!entitled(), "an interrupt inherits nothing");
            drop(irq);
            Some(skb)
        });
        assert_eq!(processed.map(|p| (p.handled, p.queued)).ok(), Some((0, 1)));
        assert_eq!((ran, entitled()), (1, false));
        assert!(m.sockets.recv(id).is_some());
    }
    m.assert_quiescent();
}

#[test]
fn n4_a_backlog_is_bounded_also_while_it_is_being_processed() {
    let m = machine();
    let id = m.sockets.bind(Protocol::Udp, 9, 2 * SKB).unwrap();
    let swap = vmio(&m, 0);
    let context = MemallocContext::new(m.zone, m.token, m.task);
    let (owned, swapping) = (m.sockets.lock_sock(id), m.sockets.lock_sock(swap));
    for _ in 0..2 {
        udp(&m, 9, 0).unwrap();
    }
    assert_eq!(udp(&m, 9, 0), Err(DropReason::BacklogFull));
    let _hog = m.exhaust();
    for _ in 0..ROOM.rx {
        assert!(matches!(from_server(&m), Verdict::Delivered(_)));
    }
    assert!(matches!(
        from_server(&m),
        Verdict::Dropped(DropReason::BacklogFull)
    ));
    assert_eq!(m.ingress.stats().dropped.get(DropReason::BacklogFull), 1);
    assert_eq!(
        (m.rx.usage(), m.sockets.stats().backlog),
        (ROOM.rx * SKB, 6)
    );

    // For each packet that is processed another one comes, and this ends all the same.
    let release = |owned: Option<OwnedSocket<'static, 'static>>, most, more: &dyn Fn()| {
        let mut handled = 0;
        owned.unwrap().release(&context, |skb| {
            drop(skb);
            handled += 1;
            assert!(handled <= most, "it does not end");
            more();
            None
        })
    };
    let processed = release(swapping, ROOM.rx, &|| drop(from_server(&m))).unwrap();
    assert_eq!(processed.handled, ROOM.rx);
    drop(_hog);
    let processed = release(owned, 2, &|| {
        let _ = udp(&m, 9, 0);
    })
    .unwrap();
    assert_eq!(processed.handled, 2);
    assert_eq!(udp(&m, 9, 0), Ok(id), "it goes to the queue again");

    // Whoever gives a socket up without looking leaves its packets to the queue.
    let owned = m.sockets.lock_sock(id).unwrap();
    assert_eq!(udp(&m, 9, 0), Ok(id));
    drop(owned);
    assert_eq!(
        m.sockets.info(id).map(|i| (i.queued, i.backlog)),
        Some((2, 0))
    );
    m.sockets.close(id);
    m.assert_quiescent();
}

/// The node that the budget computes lets every holder be full, and holds nobody up before.
#[test]
fn n4_every_holder_can_be_full_at_once_within_the_computed_limit() {
    use crate::{RxHolders, testbed::RX_RING};

    let m = machine();
    let holders = RxHolders {
        sockets: ROOM.rx,
        ..RxHolders::ring(RX_RING)
    };
    m.rx.set_limit(holders.limit(SKB), holders.budget(SKB, 0).frames())
        .unwrap();
    let id = vmio(&m, 0);
    let context = MemallocContext::new(m.zone, m.token, m.task);
    let owned = m.sockets.lock_sock(id).unwrap();
    let _hog = m.exhaust();
    for _ in 0..ROOM.rx {
        assert!(matches!(from_server(&m), Verdict::Delivered(_)));
    }
    let ring: Vec<_> = (0..RX_RING + 1)
        .map(|_| m.pool.alloc_rx().unwrap())
        .collect();
    let mut in_hand = Vec::new();
    owned
        .release(&context, |skb| {
            // One more can come for the first that is looked at, and then nothing is left.
            if in_hand.is_empty() {
                in_hand.push(m.pool.alloc_rx().unwrap());
                assert_eq!(m.rx.usage(), m.rx.limit() - SKB);
                in_hand.push(m.pool.alloc_rx().unwrap());
                assert!(m.pool.alloc_rx().is_err());
            }
            Some(skb)
        })
        .unwrap();
    assert_eq!(m.rx.usage(), holders.limit(SKB));
    drop((ring, in_hand));
}

#[test]
fn n7_what_is_being_processed_when_vmio_is_cleared_does_not_come_back() {
    let m = machine();
    let id = vmio(&m, 8 * SKB);
    let context = MemallocContext::new(m.zone, m.token, m.task);
    let owned = m.sockets.lock_sock(id).unwrap();
    let hog = m.exhaust();
    for _ in 0..3 {
        assert!(matches!(from_server(&m), Verdict::Delivered(_)));
    }
    let mut cleared = Settled::default();
    let processed = owned.release(&context, |skb| {
        assert!(skb.is_emergency());
        cleared = m.sockets.clear_vmio(id).unwrap();
        Some(skb)
    });
    let processed = processed.unwrap();
    assert_eq!((cleared.dropped, processed.dropped), (2, 1));
    assert_eq!((processed.queued, m.sockets.stats().dropped), (0, 3));
    drop(hog);
    m.assert_quiescent();
}

/// Whatever the order, the tag and the socket's books agree: a tag without a socket would show as a flow
/// that is present already.
#[test]
fn n7_vmio_that_is_set_and_cleared_at_once_leaves_no_tag_behind() {
    let m = machine();
    let id = m.sockets.bind(Protocol::Tcp, 700, SKB).unwrap();
    let done = core::sync::atomic::AtomicBool::new(false);
    let order = core::sync::atomic::Ordering::Relaxed;
    let odd = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(order) {
                m.sockets.clear_vmio(id);
            }
        });
        let tries = (0..200_000).map(|_| m.sockets.set_vmio(id, SWAP, ROOM));
        let odd = tries
            .filter(|set| !matches!(set, Ok(()) | Err(VmioError::Present)))
            .count();
        done.store(true, order);
        odd
    });
    assert_eq!(odd, 0, "tries that found a tag without a socket");
    m.sockets.close(id).unwrap();
    m.assert_quiescent();
}

#[test]
fn n7_a_socket_that_is_being_closed_cannot_serve_the_vm_any_more() {
    let m = machine();
    let id = m.sockets.bind(Protocol::Tcp, 700, SKB).unwrap();
    // As far as `close` gets before somebody else comes in between.
    m.sockets.state.lock().shut(id).unwrap();
    let set = m.sockets.set_vmio(id, SWAP, ROOM);
    assert_eq!((set, m.flows.count()), (Err(VmioError::NoSocket), 0));
    m.sockets.close(id).unwrap();
    m.assert_quiescent();
}
