//! Tells a deadlock from a slow server, by what waits for what.
//!
//! Two things must come together. Nothing has moved for a while: no fault was answered, no page
//! came or went. And the waiting runs in a circle: the program waits for a frame or a page, the
//! pages wait for replies, the replies (or the requests) wait for packet buffers, and the buffers
//! lie in sockets that the program would have to read. A server that is merely dead makes no
//! circle: the machine could receive its answer at any time.

use core::time::Duration;
use std::time::Instant;

use crate::report::{Deadlock, Wait};

/// How long nothing must have moved before anybody asks why.
pub(crate) const PATIENCE: Duration = Duration::from_secs(4);

/// What moves when a run makes progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Progress {
    pub(crate) faults_answered: u64,
    pub(crate) pages_in: u64,
    pub(crate) pages_out: u64,
}

/// Remembers when something moved last.
#[derive(Debug)]
pub(crate) struct Watchdog {
    last: Progress,
    moved: Instant,
}

impl Watchdog {
    pub(crate) fn new() -> Self {
        Watchdog {
            last: Progress::default(),
            moved: Instant::now(),
        }
    }

    /// For how long nothing has moved. Without a fault that waits, nothing needs to.
    pub(crate) fn still(&mut self, progress: Progress, waiting: usize) -> Duration {
        if progress != self.last || waiting == 0 {
            self.last = progress;
            self.moved = Instant::now();
        }
        self.moved.elapsed()
    }
}

/// The state of everybody who can wait or be waited for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Scene {
    /// Threads of the program that wait for a page.
    pub(crate) faults_waiting: usize,
    /// Of those, the ones that wait for a frame; the others wait for a read.
    pub(crate) waiting_for_frame: usize,
    /// Pages of the program in frames.
    pub(crate) resident: usize,
    /// Of those, the ones that must be written before their frame is free.
    pub(crate) dirty: usize,
    /// Requests to the server in flight: reads, writes.
    pub(crate) reads: usize,
    pub(crate) writes: usize,
    /// Free frames, and those that an atomic allocation must leave.
    pub(crate) free: usize,
    pub(crate) floor: usize,
    /// Frames of the reserve: set aside, and in use.
    pub(crate) reserve: usize,
    pub(crate) reserve_in_use: usize,
    /// Buffers in the receive ring, and packets that wait for one.
    pub(crate) rx_posted: usize,
    pub(crate) rx_waiting: usize,
    /// Transmit buffers could not be had since something moved last.
    pub(crate) tx_refused: u64,
    /// Sockets with something in them, their packets, and the fullest one.
    pub(crate) sockets: usize,
    pub(crate) socket_skbs: usize,
    pub(crate) fullest: Option<(&'static str, u16, usize)>,
    /// Emergency packets charged to the reserve: posted, being sent, or (without the filter) lying
    /// in sockets.
    pub(crate) charged: usize,
    pub(crate) socket_emergency: usize,
    /// Slabs that were carved from reserve frames.
    pub(crate) reserve_slabs: usize,
}

impl Scene {
    /// The circle of waiting, if there is one.
    pub(crate) fn deadlock(&self) -> Option<Deadlock> {
        let cannot_receive = self.rx_posted == 0 && self.rx_waiting > 0;
        let cannot_send = self.tx_refused > 0;
        if self.faults_waiting == 0 || self.socket_skbs == 0 || !(cannot_receive || cannot_send) {
            return None;
        }
        let wait = |who: String, waits_for: String| Wait { who, waits_for };
        let mut chain = Vec::new();
        chain.push(wait(
            format!(
                "the program ({} threads in a page fault)",
                self.faults_waiting
            ),
            if self.waiting_for_frame > 0 {
                format!("a frame: {} are free, all below the mark", self.free)
            } else {
                String::from("its pages to be read")
            },
        ));
        if self.waiting_for_frame > 0 {
            chain.push(wait(
                format!(
                    "frames ({} of {} resident pages are dirty)",
                    self.dirty, self.resident
                ),
                String::from("page-outs to complete"),
            ));
        }
        chain.push(wait(
            format!("{} writes and {} reads in flight", self.writes, self.reads),
            match (cannot_send, cannot_receive) {
                (true, true) => "buffers to send them and to receive the replies",
                (true, false) => "transmit buffers to send them",
                _ => "replies, for which the NIC has no receive buffer",
            }
            .into(),
        ));
        if cannot_receive {
            chain.push(wait(
                format!("{} packets at the NIC, replies among them", self.rx_waiting),
                format!(
                    "a receive buffer: the ring is empty, {} frames are free",
                    self.free
                ),
            ));
        }
        chain.push(wait(
            format!(
                "packet buffers ({} in {} sockets)",
                self.socket_skbs, self.sockets
            ),
            String::from("their reader, the program"),
        ));
        Some(Deadlock {
            holder: self.holder(),
            chain,
        })
    }

    fn holder(&self) -> String {
        let mut holder = format!(
            "{} sockets hold {} packet buffers ({} frames) for readers that are asleep",
            self.sockets,
            self.socket_skbs,
            self.socket_skbs.div_ceil(2),
        );
        if let Some((protocol, port, skbs)) = self.fullest {
            holder += &format!("; the fullest is {protocol} port {port} with {skbs}");
        }
        if self.reserve == 0 {
            holder += "; no reserve is set aside that they could not take";
        }
        if self.socket_emergency > 0 {
            holder += &format!(
                "; {} of those packets lie in the reserve, of whose {} frames {} are in use",
                self.socket_emergency, self.reserve, self.reserve_in_use,
            );
        } else if self.reserve_slabs > self.charged {
            holder += &format!(
                "; {} slabs carved from the reserve serve {} charged buffers, ordinary callers hold the \
                 rest of the objects, and {} of the reserve's {} frames with them",
                self.reserve_slabs, self.charged, self.reserve_in_use, self.reserve,
            );
        }
        holder
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stuck() -> Scene {
        Scene {
            faults_waiting: 2,
            waiting_for_frame: 1,
            resident: 2000,
            dirty: 2000,
            writes: 8,
            free: 24,
            rx_posted: 0,
            rx_waiting: 100,
            sockets: 16,
            socket_skbs: 3000,
            fullest: Some(("UDP", 7001, 400)),
            ..Scene::default()
        }
    }

    #[test]
    fn a_circle_is_named_from_the_program_to_the_sockets() {
        let deadlock = stuck().deadlock().expect("it is one");
        assert!(
            deadlock.holder.contains("UDP port 7001"),
            "{}",
            deadlock.holder
        );
        assert!(
            deadlock
                .chain
                .first()
                .is_some_and(|w| w.who.starts_with("the program"))
        );
        assert!(
            deadlock
                .chain
                .last()
                .is_some_and(|w| w.waits_for.contains("the program"))
        );
    }

    #[test]
    fn a_dead_server_is_no_deadlock() {
        let able = Scene {
            rx_posted: 64,
            rx_waiting: 0,
            ..stuck()
        };
        assert_eq!(able.deadlock(), None);
    }

    #[test]
    fn full_sockets_alone_are_no_deadlock() {
        assert_eq!(
            Scene {
                faults_waiting: 0,
                ..stuck()
            }
            .deadlock(),
            None
        );
        assert_eq!(
            Scene {
                socket_skbs: 0,
                ..stuck()
            }
            .deadlock(),
            None
        );
    }

    #[test]
    fn progress_resets_the_clock() {
        let mut dog = Watchdog::new();
        dog.moved -= PATIENCE;
        assert!(dog.still(Progress::default(), 1) >= PATIENCE);
        let moved = Progress {
            pages_in: 1,
            ..Progress::default()
        };
        assert!(dog.still(moved, 1) < PATIENCE);
        dog.moved -= PATIENCE;
        assert!(
            dog.still(moved, 0) < PATIENCE,
            "nobody waits: nothing needs to move"
        );
    }
}
