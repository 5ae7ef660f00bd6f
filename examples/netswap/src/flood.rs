//! Traffic that has nothing to do with the swap: what the rest of a network may send at any time.
//!
//! Mostly UDP datagrams and TCP segments to ports of the machine that its tasks read when they get
//! around to it, and some of everything else: ARP from strangers, pings, fragments that never
//! become whole, ports which nobody has, and frames that are no frames. All of it carries right
//! checksums, except where being wrong is the point. A seed decides what comes in which order; the
//! clock only decides when. The frames come in bursts of a tenth of a second's worth.

mod packet;
mod rng;

use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Instant;

use self::packet::Sender;
use crate::wire::event::{Wait, poll};
use crate::wire::{EventFd, Wire};

/// What is due goes out in bursts, back to back, this far apart: a machine that sheds load as fast
/// as it comes on average must also survive when it comes all at once, as it does from many senders
/// that answer one question.
const BURST_EVERY: Duration = Duration::from_millis(100);

/// How long to wait for the machine to be short of memory.
const HOLD_BACK: Duration = Duration::from_secs(3);

/// What to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FloodConfig {
    /// Frames per second; 0 for none.
    pub(crate) pps: u32,
    /// Decides what comes in which order.
    pub(crate) seed: u64,
    /// UDP ports of the machine that somebody has.
    pub(crate) udp_ports: Vec<u16>,
    /// TCP ports of the machine that somebody has.
    pub(crate) tcp_ports: Vec<u16>,
}

/// What was sent so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct FloodStats {
    /// Frames on the wire.
    pub(crate) sent: u64,
    /// Frames for which the wire had no room.
    pub(crate) refused: u64,
}

/// The running thread. Dropping it stops it.
#[derive(Debug)]
pub(crate) struct Flood {
    counters: Arc<Counters>,
    stop: Arc<EventFd>,
    thread: Option<JoinHandle<()>>,
}

impl Flood {
    /// Starts to send once `begin` is set, or three seconds later: packets that come while there is
    /// memory to spare only fill the sockets up before it matters.
    ///
    /// # Errors
    ///
    /// If the system has no descriptor or thread left.
    pub(crate) fn start(
        wire: Arc<Wire>,
        config: FloodConfig,
        begin: Arc<EventFd>,
    ) -> io::Result<Flood> {
        let counters = Arc::new(Counters::default());
        let stop = Arc::new(EventFd::new()?);
        let (counted, stopped) = (Arc::clone(&counters), Arc::clone(&stop));
        let thread = thread::Builder::new()
            .name(String::from("flood"))
            .spawn(move || {
                let mut waits = [begin.as_fd(), stopped.as_fd()].map(Wait::readable);
                // If waiting fails, so will everything else.
                let _ = poll(&mut waits, Some(HOLD_BACK));
                run(&wire, &config, &counted, &stopped);
            })?;
        Ok(Flood {
            counters,
            stop,
            thread: Some(thread),
        })
    }

    /// What was sent so far.
    pub(crate) fn stats(&self) -> FloodStats {
        self.counters.snapshot()
    }

    /// Stops it; nothing is sent any more when this returns.
    pub(crate) fn stop(mut self) -> FloodStats {
        self.join();
        self.stats()
    }

    fn join(&mut self) {
        self.stop.ring();
        if let Some(thread) = self.thread.take() {
            // A panic there has been printed, and is no reason for another one here.
            let _ = thread.join();
        }
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.join();
    }
}

fn run(wire: &Wire, config: &FloodConfig, counters: &Counters, stop: &EventFd) {
    let mut sender = Sender::new(config.seed, &config.udp_ports, &config.tcp_ports);
    let mut pace = Pace::new(config.pps, Instant::now());
    loop {
        for _ in 0..pace.due(Instant::now()) {
            let (_, frame) = sender.next_frame();
            counters.count(wire.send_unrelated(frame));
        }
        let mut waits = [Wait::readable(stop.as_fd())];
        // If waiting fails, so will everything else: better no flood than one that spins.
        if poll(&mut waits, pace.until_next(Instant::now())).is_err() || waits[0].is_ready() {
            return;
        }
    }
}

/// Frames against the clock.
#[derive(Debug)]
struct Pace {
    pps: u32,
    /// When the next burst is due.
    next: Instant,
    /// Frames due so far, in parts of which a frame has [`Pace::PARTS`], less those that were sent.
    owed: u64,
}

impl Pace {
    const PARTS: u64 = 1_000_000;

    fn new(pps: u32, now: Instant) -> Pace {
        Pace {
            pps,
            next: now,
            owed: 0,
        }
    }

    /// Takes the frames that are due: those of one burst, or none. A burst that was missed is not
    /// made up for: two at once would not be the rate that was asked for.
    fn due(&mut self, now: Instant) -> u64 {
        if self.pps == 0 || now < self.next {
            return 0;
        }
        self.next += BURST_EVERY;
        if self.next <= now {
            self.next = now + BURST_EVERY;
        }
        self.owed += u64::from(self.pps) * BURST_EVERY.as_micros() as u64;
        let frames = self.owed / Self::PARTS;
        self.owed %= Self::PARTS;
        frames
    }

    /// How long to sleep; `None` for ever.
    fn until_next(&self, now: Instant) -> Option<Duration> {
        (self.pps > 0).then(|| self.next.saturating_duration_since(now))
    }
}

#[derive(Debug, Default)]
struct Counters {
    sent: AtomicU64,
    refused: AtomicU64,
}

impl Counters {
    fn count(&self, sent: bool) {
        let counter = if sent { &self.sent } else { &self.refused };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    fn snapshot(&self) -> FloodStats {
        FloodStats {
            sent: self.sent.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use core::time::Duration;
    use std::sync::Arc;
    use std::time::Instant;

    use super::{BURST_EVERY, Flood, FloodConfig, Pace};
    use crate::wire::event::{Wait, poll};
    use crate::wire::{EventFd, Wire};

    /// One that starts at once.
    fn start(wire: &Arc<Wire>, pps: u32) -> Flood {
        let begin = EventFd::new().unwrap();
        begin.ring();
        Flood::start(Arc::clone(wire), config(pps), Arc::new(begin)).unwrap()
    }

    fn config(pps: u32) -> FloodConfig {
        FloodConfig {
            pps,
            seed: 1,
            udp_ports: vec![7, 9],
            tcp_ports: vec![80],
        }
    }

    #[test]
    fn the_rate_is_kept_however_often_the_thread_wakes() {
        for pps in [1, 3, 999, 20_000, 1_000_000] {
            for step in [7, 500, 1_300] {
                let start = Instant::now();
                let mut pace = Pace::new(pps, start);
                let mut sent = 0_u64;
                for tick in 0..10_000_000 / step {
                    sent += pace.due(start + Duration::from_micros(tick * step));
                }
                // Ten seconds; 100 bursts, the first at once.
                assert_eq!(sent, 10 * u64::from(pps), "{pps} {step}");
            }
        }
    }

    #[test]
    fn a_burst_that_was_missed_is_not_made_up_for() {
        let start = Instant::now();
        let mut pace = Pace::new(20_000, start);
        let late = start + Duration::from_secs(60);
        assert_eq!((pace.due(late), pace.due(late)), (2_000, 0));
        assert_eq!(pace.until_next(late), Some(BURST_EVERY));
    }

    #[test]
    fn frames_arrive_are_counted_and_end_with_the_stop() {
        let wire = Arc::new(Wire::new().unwrap());
        let flood = start(&wire, 50_000);
        let mut received = 0;
        while received < 2_000 {
            let mut waits = [Wait::readable(wire.machine_fd())];
            poll(&mut waits, Some(Duration::from_secs(10))).unwrap();
            assert!(waits[0].is_ready(), "the flood has dried up");
            while wire.take_for_machine(|_| ()) {
                received += 1;
            }
        }
        let stats = flood.stop();
        while wire.take_for_machine(|_| ()) {
            received += 1;
        }
        assert_eq!(stats.sent, received);
        assert_eq!(stats.refused, wire.stats().unrelated_refused);
    }

    #[test]
    fn a_machine_that_does_not_look_is_not_pushed_beyond_its_share() {
        let wire = Arc::new(Wire::new().unwrap());
        let flood = start(&wire, 1_000_000);
        let deadline = Instant::now() + Duration::from_secs(10);
        while flood.stats().refused == 0 {
            assert!(Instant::now() < deadline, "never full");
            std::thread::yield_now();
        }
        flood.stop();
        assert!(wire.has_room() && wire.send_to_machine(b"swap"));
    }

    #[test]
    fn it_holds_back_until_it_may_begin() {
        let wire = Arc::new(Wire::new().unwrap());
        let begin = Arc::new(EventFd::new().unwrap());
        let flood = Flood::start(Arc::clone(&wire), config(50_000), Arc::clone(&begin)).unwrap();
        assert_eq!(flood.stats().sent, 0);
        begin.ring();
        let mut waits = [Wait::readable(wire.machine_fd())];
        poll(&mut waits, Some(Duration::from_secs(10))).unwrap();
        assert!(flood.stop().sent > 0);
    }

    #[test]
    fn no_rate_is_no_flood() {
        let wire = Arc::new(Wire::new().unwrap());
        let flood = start(&wire, 0);
        assert_eq!(flood.stop().sent, 0);
    }
}
