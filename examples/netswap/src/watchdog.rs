//! Tells a deadlock from a slow server, by what waits for what.
//!
//! Two things must come together. Nothing has moved for a while: no fault was answered, no page
//! came or went. And the waiting runs in a circle: the program waits for a frame or a page, the
//! pages wait for replies, the replies (or the requests) wait for packet buffers, and the buffers
//! lie in sockets that the program would have to read. A server that is merely dead makes no
//! circle: the machine could receive its answer at any time, and each attempt to connect again
//! shows that it can.

use core::time::Duration;
use std::time::Instant;

use crate::report::{Deadlock, Wait};

/// How long nothing must have moved before anybody asks why.
pub(crate) const PATIENCE: Duration = Duration::from_secs(4);
/// How long no packet must have come (or gone) before the machine is called unable to receive (or
/// send): longer than the longest pause between two attempts to connect, 2 s, for the reserve is
/// open to packets only while there is a connection.
const DEAF: Duration = Duration::from_secs(3);

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
    progress: Last<Progress>,
    received: Last<u64>,
    sent: Last<u64>,
}

impl Watchdog {
    pub(crate) fn new() -> Self {
        Watchdog {
            progress: Last::new(),
            received: Last::new(),
            sent: Last::new(),
        }
    }

    /// Takes note of how things stand, packets received and sent since the start included. Without
    /// a fault that waits, nothing needs to move.
    pub(crate) fn look(
        &mut self,
        progress: Progress,
        waiting: usize,
        received: u64,
        sent: u64,
    ) -> Stillness {
        if waiting == 0 {
            self.progress.since = Instant::now();
        }
        Stillness {
            progress: self.progress.unchanged(progress),
            received: self.received.unchanged(received),
            sent: self.sent.unchanged(sent),
        }
    }
}

/// For how long nothing has moved, come or gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Stillness {
    pub(crate) progress: Duration,
    pub(crate) received: Duration,
    pub(crate) sent: Duration,
}

/// A value, and since when it has been what it is.
#[derive(Debug)]
struct Last<T> {
    value: T,
    since: Instant,
}

impl<T: Default + PartialEq> Last<T> {
    fn new() -> Self {
        Last {
            value: T::default(),
            since: Instant::now(),
        }
    }

    fn unchanged(&mut self, value: T) -> Duration {
        if value != self.value {
            *self = Last {
                value,
                since: Instant::now(),
            };
        }
        self.since.elapsed()
    }
}

/// The state of everybody who can wait or be waited for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Scene {
    pub(crate) still: Stillness,
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
    /// Free frames.
    pub(crate) free: usize,
    /// Frames of the reserve.
    pub(crate) reserve: usize,
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
    /// Emergency packets that may be charged for receiving.
    pub(crate) rx_limit: usize,
    /// Slabs that were carved from reserve frames.
    pub(crate) reserve_slabs: usize,
}

impl Scene {
    /// The circle of waiting, if there is one.
    pub(crate) fn deadlock(&self) -> Option<Deadlock> {
        let cannot_receive =
            self.still.received >= DEAF && self.rx_posted == 0 && self.rx_waiting > 0;
        let cannot_send = self.still.sent >= DEAF && self.tx_refused > 0;
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
            "{} packet buffers ({} frames) in {} sockets whose readers are asleep",
            self.socket_skbs,
            self.socket_skbs.div_ceil(2),
            self.sockets,
        );
        if let Some((protocol, port, skbs)) = self.fullest {
            holder += &format!("; the fullest is {protocol} port {port} with {skbs}");
        }
        if self.reserve == 0 {
            holder += "; there is no reserve that they could not have taken";
        }
        if self.socket_emergency > 0 {
            holder += &format!(
                "; {} of those packets lie in the reserve, where receiving may have {}",
                self.socket_emergency, self.rx_limit,
            );
        } else if self.reserve_slabs > self.charged {
            holder += &format!(
                "; among them are objects of {} slabs carved from the reserve, which serve {} charged \
                 buffers only: ordinary callers took the rest, and with it the reserve of {} frames",
                self.reserve_slabs, self.charged, self.reserve,
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
            still: Stillness {
                progress: PATIENCE,
                received: PATIENCE,
                sent: PATIENCE,
            },
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

        // Between two attempts to connect the ring is empty; during the last one it was not.
        let mut between = stuck();
        between.still.received = Duration::from_secs(2);
        assert_eq!(between.deadlock(), None);
    }

    #[test]
    fn a_machine_that_cannot_send_is_as_stuck_as_one_that_cannot_receive() {
        let mute = Scene {
            rx_posted: 64,
            tx_refused: 7,
            ..stuck()
        };
        let chain = mute.deadlock().expect("it is one").chain;
        assert!(chain.iter().any(|w| w.waits_for.contains("transmit")));
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
    fn whatever_moves_resets_its_own_clock() {
        let mut dog = Watchdog::new();
        for since in [
            &mut dog.progress.since,
            &mut dog.received.since,
            &mut dog.sent.since,
        ] {
            *since -= PATIENCE;
        }
        let nothing = Progress::default();
        let still = dog.look(nothing, 1, 0, 0);
        assert!([still.progress, still.received, still.sent].map(|t| t >= PATIENCE) == [true; 3]);

        let still = dog.look(nothing, 1, 1, 0);
        assert!(still.received < PATIENCE && still.sent >= PATIENCE);
        assert!(still.progress >= PATIENCE, "a packet alone is no progress");

        let moved = Progress {
            pages_in: 1,
            ..nothing
        };
        assert!(dog.look(moved, 1, 1, 0).progress < PATIENCE);
        dog.progress.since -= PATIENCE;
        let idle = dog.look(moved, 0, 1, 0);
        assert!(
            idle.progress < PATIENCE,
            "nobody waits: nothing needs to move"
        );
    }
}
