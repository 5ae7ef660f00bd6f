//! The connection under a swap file: established, lost, and established again.

use core::time::Duration;

use swapspace::{Instant, PageFrame};

use crate::client::Client;
use crate::error::ProtocolError;
use crate::transport::{Link, LinkDown, Transport};

const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(2);

/// Buffers that one call takes from the transport before it lets the caller do something else.
const RECV_ROUNDS: usize = 64;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// No connection, and none to be made before the given time.
    Down {
        retry_at: Instant,
    },
    /// Being established, until the given time at the latest.
    Connecting {
        give_up_at: Instant,
    },
    Up,
}

#[derive(Debug)]
pub(super) struct Wire<T> {
    pub(super) transport: T,
    port: Option<u16>,
    phase: Phase,
    connect_timeout: Duration,
    backoff: Duration,
    been_up: bool,
    /// Tries to connect to the present port.
    tries: usize,
    /// When bytes were left with the transport, so that it must be polled again at once.
    unfinished: Option<Instant>,
    /// Why the connection was lost the last time.
    pub(super) lost: Option<LinkDown>,
    /// What was wrong with the stream the last time, until somebody looks.
    pub(super) nonsense: Option<ProtocolError>,
}

impl<T: Transport> Wire<T> {
    pub(super) const fn new(transport: T, connect_timeout: Duration) -> Self {
        Wire {
            transport,
            port: None,
            phase: Phase::Down {
                retry_at: Instant::ZERO,
            },
            connect_timeout,
            backoff: BACKOFF_MIN,
            been_up: false,
            tries: 0,
            unfinished: None,
            lost: None,
            nonsense: None,
        }
    }

    pub(super) fn is_up(&self) -> bool {
        self.phase == Phase::Up
    }

    /// Whether no connection to the present port has ever come about, at any address.
    pub(super) fn never_up(&self) -> bool {
        !self.been_up && self.tries >= self.transport.addresses()
    }

    /// Chooses the port; a connection to another one is dropped.
    pub(super) fn aim<F: PageFrame, const N: usize>(
        &mut self,
        port: u16,
        client: &mut Client<F, N>,
        now: Instant,
    ) {
        if self.port != Some(port) {
            self.hang_up(client, now);
            self.port = Some(port);
        }
    }

    /// Drops the connection for good, until a port is chosen again.
    pub(super) fn hang_up<F: PageFrame, const N: usize>(
        &mut self,
        client: &mut Client<F, N>,
        now: Instant,
    ) {
        self.transport.close();
        if !matches!(self.phase, Phase::Down { .. }) {
            client.reset_connection(now);
        }
        self.port = None;
        self.phase = Phase::Down { retry_at: now };
        self.backoff = BACKOFF_MIN;
        self.been_up = false;
        self.tries = 0;
        self.unfinished = None;
        self.lost = None;
        self.nonsense = None;
    }

    /// Moves bytes both ways as far as they go now, and keeps the connection up. Returns whether
    /// the client has seen anything that its owner may act on.
    pub(super) fn pump<F: PageFrame, const N: usize>(
        &mut self,
        client: &mut Client<F, N>,
        now: Instant,
    ) -> bool {
        let before = *client.stats();
        self.unfinished = None;
        self.connect(client, now);
        match self.transport.poll(now) {
            Link::Up => {
                if !self.is_up() {
                    self.phase = Phase::Up;
                    // For a datagram there is a way at once, and a server perhaps not.
                    self.been_up |= !self.transport.framing().is_datagram();
                }
                self.exchange(client, now);
            }
            Link::Connecting => {
                if let Phase::Connecting { give_up_at } = self.phase
                    && give_up_at <= now
                {
                    self.lose(LinkDown::TimedOut, client, now);
                }
            }
            Link::Down(why) => {
                if !matches!(self.phase, Phase::Down { .. }) {
                    self.lose(why, client, now);
                }
            }
        }
        client.handle_timeout(now);
        if client.needs_reset() {
            self.lose(LinkDown::TimedOut, client, now);
        } else if self.is_up()
            && self.transport.framing().is_datagram()
            && self.send_datagrams(client, now)
        {
            // What was overdue has gone out again.
            self.carry_away(client, now);
        }
        let after = client.stats();
        if after.replies != before.replies {
            self.backoff = BACKOFF_MIN;
            self.been_up = true;
        }
        after.replies != before.replies
            || after.timed_out != before.timed_out
            || after.resets != before.resets
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let own = match self.phase {
            Phase::Down { retry_at } => self.port.map(|_| retry_at),
            Phase::Connecting { give_up_at } => Some(give_up_at),
            Phase::Up => None,
        };
        let transport = self.transport.next_deadline();
        [own, transport, self.unfinished]
            .into_iter()
            .flatten()
            .min()
    }

    fn connect<F: PageFrame, const N: usize>(&mut self, client: &mut Client<F, N>, now: Instant) {
        let (Phase::Down { retry_at }, Some(port)) = (self.phase, self.port) else {
            return;
        };
        if retry_at > now {
            return;
        }
        self.tries += 1;
        match self.transport.connect(port, now) {
            Ok(()) => {
                self.phase = Phase::Connecting {
                    give_up_at: now + self.connect_timeout,
                };
            }
            Err(why) => self.lose(why, client, now),
        }
    }

    fn exchange<F: PageFrame, const N: usize>(&mut self, client: &mut Client<F, N>, now: Instant) {
        let datagrams = self.transport.framing().is_datagram();
        let mut moved = false;
        for round in 0.. {
            if round == RECV_ROUNDS {
                self.unfinished = Some(now);
                break;
            }
            let mut error = None;
            let received = self.transport.recv(&mut |bytes| {
                if datagrams {
                    client.handle_datagram(now, bytes);
                } else {
                    error = client.handle_input(now, bytes).err();
                }
                bytes.len()
            });
            if let Some(error) = error {
                self.lose(LinkDown::Nonsense, client, now);
                self.nonsense = Some(error);
                return;
            }
            if received == 0 {
                break;
            }
            moved = true;
        }
        if datagrams {
            client.count_strangers(self.transport.strangers());
            moved |= self.send_datagrams(client, now);
        } else {
            while self
                .transport
                .send(&mut |buf| client.poll_transmit(now, buf))
                > 0
            {
                moved = true;
            }
        }
        if moved {
            self.carry_away(client, now);
        }
    }

    /// Sends what there is to send; returns whether there was anything.
    fn send_datagrams<F: PageFrame, const N: usize>(
        &mut self,
        client: &mut Client<F, N>,
        now: Instant,
    ) -> bool {
        let mut moved = false;
        let mut no_room = false;
        while self.transport.send(&mut |buf| {
            let sent = client.poll_datagram(now, buf);
            no_room |= sent.is_err();
            sent.unwrap_or(0)
        }) > 0
        {
            moved = true;
        }
        if no_room {
            // Not the room that it has promised.
            self.lose(LinkDown::Local, client, now);
        }
        moved && !no_room
    }

    /// Lets the medium have what was sent.
    fn carry_away<F: PageFrame, const N: usize>(
        &mut self,
        client: &mut Client<F, N>,
        now: Instant,
    ) {
        if let Link::Down(why) = self.transport.poll(now) {
            self.lose(why, client, now);
        }
    }

    fn lose<F: PageFrame, const N: usize>(
        &mut self,
        why: LinkDown,
        client: &mut Client<F, N>,
        now: Instant,
    ) {
        self.transport.close();
        client.reset_connection(now);
        self.lost = Some(why);
        self.phase = Phase::Down {
            retry_at: now + self.backoff,
        };
        self.backoff = (self.backoff * 2).min(BACKOFF_MAX);
    }
}
