use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicUsize, Ordering};
use std::task::Wake;

use embassy_net_driver::{RxToken as _, TxToken as _};

use super::*;
use crate::Protocol;
use crate::device::LADDER_WEIGHT;
use crate::testbed::card::{Card, MTU};
use crate::testbed::{
    LOCAL, MAC, Machine, SERVER, STRANGER, SWAP, TX_RING, leak, machine_with, packet,
};

/// A task that counts how often it is woken.
#[derive(Default)]
struct Task(AtomicUsize);

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Task {
    fn woken(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

struct Bed {
    m: Machine,
    driver: ReservedDriver<'static, Card>,
    waker: &'static NicWaker,
    task: Arc<Task>,
}

impl Bed {
    fn new(medium: Medium, frames: impl IntoIterator<Item = Vec<u8>>) -> Bed {
        let waker: &'static NicWaker = leak(NicWaker::new());
        let m = machine_with(waker);
        m.flows.add(SWAP).unwrap();
        let ladder = match medium {
            Medium::Ethernet => m.ingress,
            Medium::Ip => m.ip_ingress,
        };
        let device = Reserved::new(Card::new(medium, frames), m.pool, ladder).unwrap();
        Bed {
            m,
            driver: ReservedDriver::new(device, waker),
            waker,
            task: Arc::default(),
        }
    }

    fn receive(&mut self) -> Option<Vec<u8>> {
        let waker = self.task.clone().into();
        let (rx, _) = self.driver.receive(&mut Context::from_waker(&waker))?;
        Some(rx.consume(|frame| frame.to_vec()))
    }

    fn send(&mut self, frame: &[u8]) -> bool {
        let waker = self.task.clone().into();
        let Some(tx) = self.driver.transmit(&mut Context::from_waker(&waker)) else {
            return false;
        };
        tx.consume(frame.len(), |bytes| bytes.copy_from_slice(frame));
        true
    }
}

fn reply() -> Vec<u8> {
    packet(Protocol::Tcp, SERVER, LOCAL, 100)
}

fn request() -> Vec<u8> {
    packet(Protocol::Tcp, LOCAL, SERVER, 200)
}

#[test]
fn who_was_told_that_there_is_nothing_is_woken_once_when_there_is() {
    let mut bed = Bed::new(Medium::Ethernet, []);
    assert_eq!(bed.receive(), None);
    assert_eq!(bed.task.woken(), 0, "nothing has happened");
    bed.driver
        .device_mut()
        .nic_mut()
        .incoming
        .push_back((reply(), 0));
    bed.waker.wake();
    bed.waker.wake();
    assert_eq!(bed.task.woken(), 1);
    assert_eq!(bed.receive(), Some(reply()));
    assert_eq!(bed.task.woken(), 1, "and does not wake itself");
}

#[test]
fn a_full_ring_is_waited_for() {
    let mut bed = Bed::new(Medium::Ethernet, []);
    for _ in 0..TX_RING {
        assert!(bed.send(&request()));
    }
    assert!(!bed.send(&request()));
    assert_eq!(bed.task.woken(), 0);
    bed.driver.device_mut().nic_mut().sending.clear();
    bed.waker.wake();
    assert_eq!(bed.task.woken(), 1);
    assert!(bed.send(&request()));
}

/// A frame that cannot be answered waits (N5), and so does its task: until a charge ends.
#[test]
fn n5_a_driver_that_waits_for_the_reserve_is_woken_by_it() {
    let mut bed = Bed::new(Medium::Ethernet, [reply()]);
    let hog = bed.m.exhaust();
    let mut taken: Vec<_> = core::iter::from_fn(|| bed.m.pool.alloc_tx().ok()).collect();
    assert_eq!(bed.receive(), None);
    assert_eq!(bed.task.woken(), 0, "no busy waiting");
    taken.pop();
    assert_eq!(bed.task.woken(), 1);
    assert_eq!(bed.receive(), Some(reply()));
    drop((taken, bed.driver, hog));
    bed.m.assert_quiescent();
}

#[test]
fn after_its_share_of_a_flood_the_task_lets_others_run_and_comes_again() {
    let foreign = packet(Protocol::Udp, STRANGER, LOCAL, 10);
    let mut bed = Bed::new(Medium::Ethernet, alloc::vec![foreign; LADDER_WEIGHT + 1]);
    assert_eq!(bed.receive(), None);
    assert_eq!(bed.task.woken(), 1);
    assert_eq!(bed.receive(), None);
    assert_eq!(bed.task.woken(), 1, "the flood is over");
}

#[test]
fn the_task_that_polled_last_is_woken() {
    let mut bed = Bed::new(Medium::Ethernet, []);
    assert_eq!(bed.receive(), None);
    let first = core::mem::take(&mut bed.task);
    assert_eq!(bed.receive(), None);
    bed.waker.wake();
    assert_eq!((first.woken(), bed.task.woken()), (0, 1));
    drop(bed.driver);
    assert_eq!(
        Arc::strong_count(&first),
        1,
        "and the other one is forgotten"
    );
}

#[test]
fn what_the_card_is_the_stack_is_told() {
    let mut bed = Bed::new(Medium::Ethernet, []);
    assert_eq!(
        bed.driver.hardware_address(),
        HardwareAddress::Ethernet(MAC)
    );
    assert_eq!(bed.driver.capabilities().max_transmission_unit, MTU + 14);
    let nic = bed.driver.device_mut().nic_mut();
    nic.burst = Some(5);
    nic.offload.tcp = Offload::TX;
    nic.offload.icmpv6 = Offload::BOTH;
    let told = bed.driver.capabilities();
    assert_eq!(told.max_burst_size, Some(5));
    assert!(matches!(told.checksum.tcp, Checksum::Rx));
    assert!(matches!(told.checksum.icmpv6, Checksum::None));
    assert!(matches!(told.checksum.udp, Checksum::Both));
    assert!(matches!(told.checksum.ipv4, Checksum::Both));

    let waker = bed.task.clone().into();
    let mut cx = Context::from_waker(&waker);
    assert!(bed.driver.link_state(&mut cx) == LinkState::Up);
    bed.driver.device_mut().nic_mut().unplugged = true;
    bed.waker.wake();
    assert_eq!(bed.task.woken(), 1, "the link is an event, too");
    assert!(bed.driver.link_state(&mut cx) == LinkState::Down);

    let bed = Bed::new(Medium::Ip, []);
    assert_eq!(bed.driver.hardware_address(), HardwareAddress::Ip);
    assert_eq!(bed.driver.capabilities().max_transmission_unit, MTU);
}
