//! The wire between the cards and the server, and all that is on it besides the swap.

use core::net::Ipv4Addr;

use netreserve::Medium;

use super::modem::Incoming;
use super::{Event, World};
use crate::flood::{self, Target};
use crate::kernel::Kernel;
use crate::mmu::Mmu;
use crate::packet;
use crate::scenario::{FaultKind, Micros, Mode, SECOND, Traffic};
use crate::server;

/// Without progress for so long, the background becomes sparse: it has done what it could.
const STILL: Micros = 2 * SECOND;

/// The address of the card of that number.
pub(crate) const fn card_address(card: usize) -> (Ipv4Addr, [u8; 6]) {
    let last = 15 + card as u8;
    (Ipv4Addr::new(10, 0, 2, last), [2, 0, 10, 0, 2, last])
}

/// What the flood knows of the card of that number.
pub(crate) fn target(card: usize, ports: Vec<u16>) -> Target {
    let (address, hardware) = card_address(card);
    Target {
        hardware,
        address,
        server: server::ADDRESS,
        ports,
        connection: (50_000, 2049),
    }
}

impl World<'_> {
    /// The card of that number begins to send a packet.
    pub(super) fn transmit(&mut self, card: usize, frame: Vec<u8>) {
        // A gigabit a second, or a tenth of it.
        let slow = if self.scenario.seed.is_multiple_of(5) {
            10
        } else {
            1
        };
        let took = slow * (1 + frame.len() as Micros / 125);
        let free = self.transmitter[card].max(self.now()) + took;
        self.transmitter[card] = free;
        self.agenda.at(free, Event::Sent(card, frame));
    }

    /// The card of that number has sent it.
    pub(super) fn sent<M>(&mut self, card: usize, frame: Vec<u8>, kernel: &Kernel<'_, '_, M>) {
        let now = self.now();
        self.trace.event(now, 3, card as u64);
        self.trace.packet(now, "->  ", &frame);
        kernel.swappers[card].port.borrow_mut().complete();
        if let Some(tcp) = packet::tcp(&frame) {
            self.targets[card].connection = (tcp.source.port(), tcp.destination.port());
        }
        self.carry(frame, Event::ToServer, card);
        let delay = self.kernel.range(1, 60);
        self.plan_kernel(now + delay);
    }

    /// A packet reaches the server.
    pub(super) fn reach_server(&mut self, card: usize, frame: Vec<u8>) {
        self.trace.event(self.agenda.now(), 2, card as u64);
        self.host.arrive(frame);
        self.run_host();
    }

    /// The server sends a packet.
    pub(super) fn answer(&mut self, frame: Vec<u8>) {
        let card = self.target_of(&frame);
        self.carry(frame, Event::ToMachine, card);
    }

    /// A packet reaches the machine.
    pub(super) fn reach_machine<M>(
        &mut self,
        card: usize,
        frame: Vec<u8>,
        kernel: &Kernel<'_, '_, M>,
    ) {
        let now = self.now();
        self.trace.event(now, 1, card as u64);
        self.trace.packet(now, "  <-", &frame);
        let frame = match self.decapsulate(card, frame) {
            Incoming::Card(frame) => frame,
            Incoming::Answer(answer) => return self.carry(answer, Event::ToServer, card),
            Incoming::Nothing => return,
        };
        if kernel.swappers[card].port.borrow_mut().arrive(frame) {
            let delay = self.kernel.range(1, 40);
            self.plan_kernel(now + delay);
        } else {
            self.trace
                .note(now, || "     no buffer: the card lost it".into());
        }
    }

    pub(super) fn flood(&mut self, number: usize) {
        let FaultKind::Flood(traffic, gap) = self.scenario.script[number].kind else {
            return;
        };
        if !self.weather.is_active(number) {
            return;
        }
        self.send_unrelated(traffic);
        self.agenda.after(gap.max(1).into(), Event::Flood(number));
    }

    pub(super) fn background<M: Mmu>(&mut self, kernel: &Kernel<'_, '_, M>) {
        let still = self.now() - kernel.still_since() > STILL;
        let gap = self.scenario.program.background * if still { 64 } else { 1 };
        self.send_unrelated(Traffic::Mixed);
        self.agenda.after(gap, Event::Background);
    }

    fn send_unrelated(&mut self, traffic: Traffic) {
        self.unrelated += 1;
        let card = self.flood.index(self.targets.len());
        let target = &self.targets[card];
        let mtu = usize::from(self.scenario.machine.mtu);
        let frame = flood::packet(&mut self.flood, traffic, target, mtu);
        self.agenda.after(1, Event::ToMachine(card, frame));
    }

    /// Which card a packet of the server is for; a broadcast is for the first, or for the modem whose
    /// card it asks for.
    fn target_of(&self, frame: &[u8]) -> usize {
        let asked = match self.scenario.machine.medium {
            Medium::Ip => packet::arp_target(frame),
            _ => None,
        };
        let mut cards = self.targets.iter();
        let own =
            |target: &Target| frame.starts_with(&target.hardware) || asked == Some(target.address);
        cards.position(own).unwrap_or(0)
    }

    /// Carries a packet over the wire between a card and the server, to where `arrival` says.
    fn carry(&mut self, frame: Vec<u8>, arrival: fn(usize, Vec<u8>) -> Event, card: usize) {
        let rng = &mut self.wire;
        if self.weather.partition(card) || rng.chance(self.weather.loss()) {
            let now = self.agenda.now();
            self.trace
                .note(now, || format!("     lost: {}", packet::describe(&frame)));
            return;
        }
        let copies = if rng.chance(self.weather.duplicate()) {
            2
        } else {
            1
        };
        for _ in 0..copies {
            let mut frame = frame.clone();
            let beyond = self.scenario.mode == Mode::Beyond;
            let damaged = frame.len() > packet::ETHERNET && rng.chance(self.weather.corrupt());
            if damaged && (beyond || packet::is_protected(&frame)) {
                // smoltcp looks at no checksum in builds for a fuzzer, and would take it for intact: this
                // is where it ends then.
                if cfg!(fuzzing) {
                    continue;
                }
                let at = rng.range(packet::ETHERNET as u64, frame.len() as u64 - 1);
                frame[at as usize] ^= 1 << rng.below(8);
            }
            let jitter = Micros::from(self.weather.jitter());
            let delay = 60 + rng.range(0, jitter);
            self.agenda.after(delay, arrival(card, frame));
        }
    }
}
