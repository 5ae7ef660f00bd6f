//! Calls and replies as datagrams: each whole in one, sent again when it is not answered in time,
//! and dropped without harm when nobody waits for it.

use core::fmt;

use swapspace::{Instant, PageFrame};

use super::Client;
use super::receive::{Reply, parse_reply};
use super::request::{Call, Phase, Request};
use super::transmit::Source;
use crate::rpc::{Framing, RetransmitConfig, RetransmitTimer};
use crate::xdr::{Reader, padding};

/// What a server takes for calls of one class says little about another: a READ may be answered from
/// memory, a stable WRITE waits for the disk, and a call of MOUNT goes to another program.
#[derive(Debug)]
pub(super) struct Timers {
    control: RetransmitTimer,
    read: RetransmitTimer,
    write: RetransmitTimer,
}

impl Timers {
    pub(super) fn new(config: RetransmitConfig, seed: u32) -> Self {
        let timer = |class| RetransmitTimer::new(config, seed.wrapping_add(class));
        Timers {
            control: timer(0),
            read: timer(1),
            write: timer(2),
        }
    }

    pub(super) const fn restart(&mut self) {
        self.control.restart();
        self.read.restart();
        self.write.restart();
    }

    const fn of(&mut self, call: Call) -> &mut RetransmitTimer {
        match call {
            Call::Read => &mut self.read,
            Call::Write | Call::Commit => &mut self.write,
        }
    }
}

/// A buffer into which not every datagram fits. Nothing was written, and nothing is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct BufferTooSmall {
    /// Bytes that it must have: `send_max` of the [framing](Framing::Datagram).
    pub needs: usize,
}

impl fmt::Display for BufferTooSmall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let needs = self.needs;
        write!(f, "the buffer for a datagram must have {needs} bytes")
    }
}

impl core::error::Error for BufferTooSmall {}

/// Why a datagram was dropped.
enum Unwanted {
    /// Nobody waits for it.
    Foreign,
    /// It is no whole reply to the call that it names.
    Malformed,
}

impl<F: PageFrame, const N: usize> Client<F, N> {
    /// Writes the next datagram to the server, whole, into `buf` and returns its length; 0 when
    /// nothing is left to send. Call it until then after every `submit`, `start_call`,
    /// `handle_datagram`, `handle_timeout` and `reset_connection`. The order is that of
    /// [`poll_transmit`](Self::poll_transmit). O(N), plus one copy of the bytes.
    ///
    /// # Errors
    ///
    /// [`BufferTooSmall`], unless there is room for the longest datagram.
    ///
    /// # Panics
    ///
    /// If the client speaks through a stream.
    pub fn poll_datagram(&mut self, now: Instant, buf: &mut [u8]) -> Result<usize, BufferTooSmall> {
        let (needs, _) = self.limits();
        // No call is longer: `open`, `submit_zeros` and `start_call` see to that.
        let room = buf.get_mut(..needs).ok_or(BufferTooSmall { needs })?;
        if self.broken {
            return Ok(0);
        }
        if !self.is_owed() {
            // The server's silence begins.
            self.heard = now;
        }
        let Some(source) = self.begin_record(now) else {
            return Ok(0);
        };
        self.outgoing.skip_mark();
        let len = self.continue_record(source, now, room);
        match source {
            Source::Control => {
                let wait = self.timers.control.wait(self.control.copies());
                self.control.repeat_at(now + wait);
            }
            Source::Request(index) => {
                if let Some(request) = self.requests.get_mut(index) {
                    let wait = self.timers.of(request.call).wait(request.copies);
                    request.retry_at = Some(now + wait);
                }
            }
        }
        self.stats.bytes_out += len as u64;
        Ok(len)
    }

    /// Takes one datagram from the server. What is late, repeated, cut off or nonsense is counted
    /// and dropped: it has no effect, and the call that it may have been about goes on. Ask for
    /// completions, and for datagrams to send, afterwards. O(bytes).
    ///
    /// The caller has made sure that it comes from the server's address and port.
    ///
    /// # Panics
    ///
    /// If the client speaks through a stream.
    pub fn handle_datagram(&mut self, now: Instant, bytes: &[u8]) {
        self.stats.bytes_in += bytes.len() as u64;
        match self.take_datagram(now, bytes) {
            Ok(()) => {
                self.stats.replies += 1;
                self.heard = now;
                self.patience = self.config.rpc_timeout;
            }
            Err(Unwanted::Foreign) => self.stats.foreign += 1,
            Err(Unwanted::Malformed) => self.stats.malformed += 1,
        }
    }

    /// How many datagrams came from elsewhere than the server, as the transport has counted.
    pub(crate) const fn count_strangers(&mut self, strangers: u64) {
        self.stats.strangers = strangers;
    }

    fn take_datagram(&mut self, now: Instant, bytes: &[u8]) -> Result<(), Unwanted> {
        let malformed = |_| Unwanted::Malformed;
        let (_, recv_max) = self.limits();
        let mut reader = Reader::new(bytes);
        let xid = reader.u32().map_err(malformed)?;
        let message_type = reader.u32().map_err(malformed)?;
        if message_type != 1 || bytes.len() > recv_max {
            return Err(Unwanted::Malformed);
        }
        if self.control.may_be_answered(xid) {
            let sent_at = self.control.sent_at();
            let answered = self.control.answer_whole(bytes);
            answered.map_err(|_| Unwanted::Malformed)?;
            if let Some(sent_at) = sent_at {
                let rtt = now.since(sent_at);
                self.timers.control.answered(rtt, self.control.copies());
            }
            return Ok(());
        }
        let index = self.requests.find(xid).ok_or(Unwanted::Foreign)?;
        let request = self.requests.get_mut(index).filter(|r| r.is_out());
        let request = request.ok_or(Unwanted::Foreign)?;
        let mut reader = Reader::new(bytes);
        let reply = parse_reply(&mut reader, request.call).map_err(malformed)?;
        let payload = match reply {
            Reply::Read(head) => head.count as usize,
            _ => 0,
        };
        // All of it is looked at before any of it counts.
        let rest = reader.remaining();
        if reply.count() > request.left() || rest.len() != payload + padding(payload) {
            return Err(Unwanted::Malformed);
        }
        request.copy_in(request.done as usize, &rest[..payload]);
        // A reply to the first copy, while the second waits to leave, comes too late for a sample.
        if let Phase::Sent(sent_at) = request.phase {
            let timer = self.timers.of(request.call);
            timer.answered(now.since(sent_at), request.copies);
        }
        self.apply(index, reply, now);
        Ok(())
    }

    /// Whether the server owes a reply.
    pub(super) fn is_owed(&self) -> bool {
        self.control.is_out() || self.requests.iter().any(|(_, request)| request.is_out())
    }

    /// When the next call is to be sent again.
    pub(super) fn repeats(&self) -> Option<Instant> {
        let requests = self.requests.iter();
        requests
            .filter_map(|(_, request)| retry_at(request))
            .chain(self.control.repeats())
            .min()
    }

    /// Queues again, under its old xid, each call whose answer is overdue.
    pub(super) fn repeat_overdue(&mut self, now: Instant) {
        for (_, request) in self.requests.iter_mut() {
            if retry_at(request).is_some_and(|at| at <= now) {
                self.timers.of(request.call).timed_out(request.copies);
                request.phase = Phase::Queued(None);
                request.retry_at = None;
            }
        }
        if self.control.repeats().is_some_and(|at| at <= now) {
            self.timers.control.timed_out(self.control.copies());
            self.control.repeat();
        }
    }

    fn limits(&self) -> (usize, usize) {
        match self.config.framing {
            Framing::Datagram { send_max, recv_max } => (send_max, recv_max),
            Framing::Stream => panic!("a stream has no datagrams"),
        }
    }
}

fn retry_at<F>(request: &Request<F>) -> Option<Instant> {
    match request.phase {
        Phase::Sent(_) => request.retry_at,
        _ => None,
    }
}

#[cfg(test)]
mod tests;
