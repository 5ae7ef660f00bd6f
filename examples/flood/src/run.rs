//! One run: the flood, the swap connection beside it, and the promises.

use netreserve::{IngressStats, PoolStats, Reserved};
use smoltcp::time::{Duration, Instant};

use crate::args::Args;
use crate::card::Card;
use crate::machine::{BUDGET, Machine, RING, SKB, swap};
use crate::peer::{Client, Server};
use crate::rng::Rng;
use crate::traffic::Flood;

/// Virtual time between two frames of a full wire.
const FRAME_TIME: Duration = Duration::from_micros(1);
/// Without a reply for so long the connection is called stuck: more than TCP's longest patience here.
const PATIENCE: Duration = Duration::from_secs(120);
/// Frames between two breaths of the machine.
const BREATH: u64 = 997;

/// What came of it.
pub(crate) struct Outcome {
    pub(crate) flood: Flood,
    pub(crate) sent: u64,
    pub(crate) virtual_time: Duration,
    pub(crate) ingress: IngressStats,
    pub(crate) pool: PoolStats,
    pub(crate) card: [u64; 2],
    unclaimed_emergencies: u64,
    pub(crate) answered: u64,
    pub(crate) verified: u64,
    pub(crate) from_server: u64,
    /// Of the reserve in frames, and of both nodes in bytes: the most at once.
    pub(crate) peak: usize,
    pub(crate) node_peaks: [usize; 2],
    pub(crate) lowest_free: usize,
    pub(crate) reserve: usize,
    /// What did not hold.
    pub(crate) broken: Vec<String>,
}

pub(crate) fn run(args: &Args) -> Outcome {
    let mut m = Machine::new(&args.without);
    let mut rng = Rng::new(args.seed ^ 0x5eed);
    let mut flood = Flood::new(args.seed);
    m.take_memory();
    m.flows.add(swap()).expect("there is room for one");

    let mut device =
        Reserved::new(Card::default(), m.pool, m.ingress).expect("a buffer holds a frame");
    for m in netreserve::Mechanism::ALL {
        if args.without.iter().any(|name| name == m.name()) {
            device.ablate(m);
        }
    }
    let mut client = Client::new(&mut device);
    let mut server = Server::new();
    let (mut now, mut progress) = (Instant::ZERO, (0, Instant::ZERO));
    let (mut sent, mut from_server, mut breath) = (0, 0, 0);
    let mut broken = Vec::new();
    loop {
        client.stack.poll(now, &mut device);
        let flooding = sent < args.packets;
        client.work(flooding);
        client.stack.poll(now, &mut device);
        // What leaves the card, and what comes of it.
        for frame in device.nic_mut().sent() {
            server.deliver(frame);
        }
        server.work(now);

        // The wire brings what the flood and the server sent, in some order. A switch in front of the card
        // holds what no buffer is posted for, within reason: what gets lost on the wire is nobody's
        // fault here. Where no buffer is posted any more, everything is lost.
        let room = device.nic().room();
        let replies = server
            .waiting()
            .min(if room == 0 { usize::MAX } else { room });
        let strangers = match (flooding, room) {
            (false, _) => 0,
            // One at least: it does not wait for the replies.
            (true, room) => {
                let most = (args.packets - sent).min(room as u64) as usize;
                rng.below(most.saturating_sub(replies) + 1).max(1)
            }
        };
        let mut left = [replies, strangers];
        while left != [0, 0] {
            let reply = rng.below(left[0] + left[1]) < left[0];
            left[usize::from(!reply)] -= 1;
            if reply {
                from_server += 1;
                if let Some(frame) = server.next_frame() {
                    device.nic_mut().arrive(&frame);
                }
            } else {
                sent += 1;
                device.nic_mut().arrive(flood.packet());
            }
        }
        now += FRAME_TIME * (replies + strangers).max(1) as u32;
        if sent - breath >= BREATH {
            breath = sent;
            m.breathe(&mut rng);
            let emergency = m.ingress.sockets().stats().emergency;
            if emergency > 0 && broken.is_empty() {
                broken.push(format!("N2: {emergency} emergency skbs lie in sockets"));
            }
        }

        if client.answered != progress.0 {
            progress = (client.answered, now);
        }
        if now - progress.1 > PATIENCE {
            let (asked, answered) = (client.asked, client.answered);
            broken.push(format!(
                "stuck: {answered} of {asked} requests answered, and none for {PATIENCE}"
            ));
            break;
        }
        if !flooding && client.asked == client.answered {
            break;
        }
        // Where nothing can move, time is all that passes.
        if room == 0 || replies + strangers == 0 {
            now += Duration::from_millis(1);
        }
    }
    let connected = client.connected();
    client.abort();
    client.stack.poll(now, &mut device);
    let card = [device.nic().missed, device.nic().unclaimed];
    let unclaimed_emergencies = device.nic().unclaimed_emergencies;
    drop(device);
    m.flows.remove(swap()).expect("it was added");
    m.shut_down();

    let zone = m.zone.stats();
    let mut outcome = Outcome {
        flood,
        sent,
        virtual_time: now - Instant::ZERO,
        ingress: m.ingress.stats(),
        pool: m.pool.stats(),
        card,
        unclaimed_emergencies,
        answered: client.answered,
        verified: client.verified,
        from_server,
        peak: zone.reserve_peak,
        node_peaks: [m.rx.peak(), m.tx.peak()],
        lowest_free: zone.min_free,
        reserve: zone.reserve,
        broken,
    };
    if !connected {
        outcome.broken.push("the connection is gone".into());
    }
    outcome
        .broken
        .extend(client.wrong.into_iter().chain(server.wrong));
    outcome.judge(&m);
    outcome
}

impl Outcome {
    /// Every promise that can be read off the books.
    fn judge(&mut self, m: &Machine) {
        let (zone, cache, sockets) = (m.zone.stats(), m.cache.stats(), m.ingress.sockets().stats());
        let ingress = self.ingress;
        let [missed, unclaimed] = self.card;
        let sum = ingress.vmio + ingress.control + ingress.delivered + ingress.dropped.total();
        let promises = [
            (
                self.answered > 0 && self.verified > 0,
                format!("{} requests were answered", self.answered),
            ),
            (
                ingress.vmio_dropped == 0,
                format!(
                    "{} frames of the swap connection were dropped",
                    ingress.vmio_dropped
                ),
            ),
            (missed == 0, format!("{missed} frames found no buffer")),
            (
                ingress.vmio + ingress.control >= self.from_server,
                format!(
                    "{} frames of the server came, and {} were handed up",
                    self.from_server,
                    ingress.vmio + ingress.control
                ),
            ),
            (
                self.unclaimed_emergencies == 0,
                format!(
                    "N2: {} emergency skbs went to another stack",
                    self.unclaimed_emergencies
                ),
            ),
            (
                sum + unclaimed == ingress.received,
                format!(
                    "{} frames received, {} accounted for",
                    ingress.received,
                    sum + unclaimed
                ),
            ),
            (
                ingress.received + missed == self.sent + self.from_server,
                format!(
                    "{} frames came, {} received",
                    self.sent + self.from_server,
                    ingress.received
                ),
            ),
            (
                ingress.received_emergency > self.sent / 10,
                format!(
                    "only {} frames met the reserve: no test",
                    ingress.received_emergency
                ),
            ),
            (
                zone.free == zone.total && zone.reserve_in_use == 0,
                format!("{} of {} frames are back", zone.free, zone.total),
            ),
            (
                cache.in_use == 0 && sockets.rmem == 0,
                format!(
                    "{} buffers and {} bytes in sockets are left",
                    cache.in_use, sockets.rmem
                ),
            ),
            (
                m.rx.usage() == 0 && m.tx.usage() == 0,
                format!("{} and {} bytes stay charged", m.rx.usage(), m.tx.usage()),
            ),
            (
                self.peak <= BUDGET.frames(),
                format!("{} frames of a budget of {}", self.peak, BUDGET.frames()),
            ),
            (
                self.node_peaks[0] <= (RING + 2) * SKB && self.node_peaks[1] <= (RING + 2) * SKB,
                format!("{:?} bytes were charged at once", self.node_peaks),
            ),
            (
                self.pool.rx.failed == 0 && self.pool.tx.failed == 0,
                format!(
                    "{} and {} buffers could not be had",
                    self.pool.rx.failed, self.pool.tx.failed
                ),
            ),
        ];
        let broken = promises.into_iter().filter(|(holds, _)| !holds);
        self.broken.extend(broken.map(|(_, what)| what));
    }
}
