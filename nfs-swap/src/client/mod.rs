//! The client: one connection to one file, many requests in flight, no I/O of its own.
//!
//! It owns the requests, their frames included, and turns them into a stream of bytes, or into
//! datagrams, and back.
//! It never opens a connection, reads a clock or waits: its owner does, and tells it.

mod control;
mod datagram;
mod receive;
mod request;
mod transmit;

use core::time::Duration;

use swapspace::{
    Completion, Geometry, Instant, IoClass, PageFrame, Refused, SubmitError, SwapIo, Ticket,
};

use crate::ablation::{Ablation, Mechanism};
use crate::error::RequestError;
use crate::nfs3::{Fh, StableHow};
use crate::rpc::{Credential, Framing, RetransmitConfig, SlotTable};
use crate::stats::Stats;
use control::Control;
use datagram::Timers;
use receive::Incoming;
use request::{Body, Call, Phase, Request};
use transmit::Outgoing;

pub use control::CallError;
pub use datagram::BufferTooSmall;

/// A silent connection is given at most this many times the first RPC timeout: longer than a peer's TCP
/// waits between two tries, which is a minute or two. A connection that is always dropped before the
/// next try would begin every reply anew, and never end one.
const BACKOFF_MAX: u32 = 64;

/// A call that was lost alone, while others are answered, is given this many times the patience.
const FORGOTTEN: u32 = 8;

/// When a call is due that is never to be made, or a request that is to wait for ever.
const END_OF_TIME: Instant = Instant::from_micros(u64::MAX);

/// What the end of a request's time is. Activation and deactivation end in either case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Timeouts {
    /// Every request ends within [`ClientConfig::deadline`], as an error if need be.
    #[default]
    Soft,
    /// A request waits for the server for ever, unless it has a
    /// [deadline of its own](swapspace::SwapIo::deadline), or the file is put away: then it ends
    /// within [`ClientConfig::deadline`]. For machines that cannot go on without their pages
    /// anyhow. Whatever the server refuses ends at once, as ever.
    Hard,
}

/// How a client behaves. [`Default`] suits a server on the local network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientConfig {
    /// Who calls.
    pub credential: Credential,
    /// How long a request may take in all, reconnecting included: 30 s by default.
    pub deadline: Duration,
    /// Whether requests end by `deadline` at all: [`Timeouts::Soft`] by default.
    pub timeouts: Timeouts,
    /// How long a connection may be silent while a reply is due, before it is dropped; doubles
    /// with every silence in a row, up to 64 times and up to half of `deadline`: 2 s by default.
    /// For datagrams that means a new socket, and the next address; `retransmit` says when a call
    /// is sent again, long before.
    pub rpc_timeout: Duration,
    /// Whether it speaks through a stream or in datagrams: a stream by default. A
    /// [`SwapFile`](crate::SwapFile) does as its transport does.
    pub framing: Framing,
    /// When a call that went as a datagram is sent again.
    pub retransmit: RetransmitConfig,
    /// How long to wait after `NFS3ERR_JUKEBOX`, and before another try after a fault of the
    /// server: 100 ms by default.
    pub retry_delay: Duration,
    /// How often a request is tried again after `NFS3ERR_SERVERFAULT` or an RPC `SYSTEM_ERR`, which
    /// may be a server that was short of memory for a moment: 3 times by default.
    pub fault_retries: u8,
    /// What to ask of a WRITE: [`StableHow::FileSync`] by default. Anything less that the server
    /// delivers is followed by a COMMIT before the request completes.
    pub stable: StableHow,
    /// Where transaction ids start: random bits, different from boot to boot. A server may take a
    /// new call for one that it has answered already if both come from the same port with the same
    /// id. 1 by default, for want of a source of randomness.
    pub xid_seed: u32,
}

impl Default for ClientConfig {
    fn default() -> Self {
        ClientConfig {
            credential: Credential::default(),
            deadline: Duration::from_secs(30),
            timeouts: Timeouts::Soft,
            rpc_timeout: Duration::from_secs(2),
            framing: Framing::Stream,
            retransmit: RetransmitConfig::default(),
            retry_delay: Duration::from_millis(100),
            fault_retries: 3,
            stable: StableHow::FileSync,
            xid_seed: 1,
        }
    }
}

/// The file that requests go to.
#[derive(Debug, Clone)]
struct File {
    handle: Fh,
    geometry: Geometry,
    /// Bytes from the start that were never cut off, as far as the server has told. Where somebody
    /// truncated the file and a later write made it longer again, there are zeros, and no pages.
    intact: u64,
}

/// One NFS connection, sans-IO, with up to `N` requests in flight.
///
/// Its owner moves the bytes: what [`poll_transmit`](Self::poll_transmit) writes goes to the
/// server, what comes from there goes to [`handle_input`](Self::handle_input). Payload is copied
/// once each way, between the frames and the owner's buffer.
///
/// Over [datagrams](Framing::Datagram) [`poll_datagram`](Self::poll_datagram) and
/// [`handle_datagram`](Self::handle_datagram) stand in for the two. A call that is not answered in
/// the time that this server takes is sent again under its old xid, and no reply can do harm.
///
/// When the connection is lost, or [`needs_reset`](Self::needs_reset) says that it must be
/// dropped, the owner connects again and calls [`reset_connection`](Self::reset_connection):
/// every call in flight is sent again under its old xid. A request completes when it is answered
/// or when its deadline has passed, never twice, and always with its frames.
///
/// A write that [timed out](RequestError::TimedOut) may still be carried out by the server later,
/// as with every NFS client, and so may the first copy of one that was sent again: its completion
/// is [stray](Completion::stray), however it ended. Put nothing else into the slots of either, as
/// long as that server runs. A write that ends [`Unsent`](RequestError::Unsent) leaves no such
/// doubt.
///
/// ```
/// use nfs_swap::nfs3::Fh;
/// use nfs_swap::{Client, ClientConfig};
/// use swapspace::{Geometry, Instant, IoClass, IoOp, Slot, SwapIo};
///
/// let mut client = Client::<Box<[u8]>, 4>::new(ClientConfig::default());
/// let geometry = Geometry { slots: 16, page_size: 4096, max_frames: 8, max_in_flight: 4 };
/// client.open(Fh::new(b"from LOOKUP").unwrap(), geometry);
///
/// let page = vec![7; 4096].into_boxed_slice();
/// let frames = [page].into_iter().collect();
/// let io = SwapIo::new(IoOp::Write, Slot(3), IoClass::Reclaim, frames);
/// client.submit(io, Instant::ZERO).unwrap();
///
/// let mut buf = [0; 8192];
/// let len = client.poll_transmit(Instant::ZERO, &mut buf);
/// assert!(buf[..len].ends_with(&[7; 4096]), "the page leaves in one WRITE record");
/// ```
#[derive(Debug)]
pub struct Client<F, const N: usize> {
    config: ClientConfig,
    file: Option<File>,
    /// Whether requests are admitted.
    open: bool,
    /// A copy of a write of zeros to this file may be left.
    stray_zeros: bool,
    requests: SlotTable<Request<F>, N>,
    control: Control,
    outgoing: Outgoing,
    incoming: Incoming,
    /// Requests that are done and not yet fetched.
    finished: usize,
    /// Order of admission.
    age: u32,
    /// When the server last gave a sign of life, or the connection began.
    heard: Instant,
    /// How long it may be silent now.
    patience: Duration,
    broken: bool,
    timers: Timers,
    stats: Stats,
    ablation: Ablation,
}

impl<F: PageFrame, const N: usize> Client<F, N> {
    /// A client without a file; it can make [calls](Self::start_call).
    #[must_use]
    pub fn new(config: ClientConfig) -> Self {
        Client {
            requests: SlotTable::new(config.xid_seed),
            patience: config.rpc_timeout,
            file: None,
            open: false,
            stray_zeros: false,
            control: Control::new(),
            outgoing: Outgoing::new(),
            incoming: Incoming::new(0),
            finished: 0,
            age: 0,
            heard: Instant::ZERO,
            broken: false,
            timers: Timers::new(config.retransmit, config.xid_seed),
            stats: Stats::default(),
            ablation: Ablation::NONE,
            config,
        }
    }

    /// How the client behaves.
    #[must_use]
    pub const fn config(&self) -> &ClientConfig {
        &self.config
    }

    /// What it has done.
    #[must_use]
    pub const fn stats(&self) -> &Stats {
        &self.stats
    }

    /// Switches a mechanism of this client off, for good. A mechanism of another object changes
    /// nothing.
    #[cfg(feature = "ablation")]
    pub fn ablate(&mut self, mechanism: Mechanism) {
        self.ablation.ablate(mechanism);
    }

    /// Requests that were admitted and not yet fetched.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.requests.len()
    }

    /// Directs requests to a file; `max_in_flight` of the geometry is `N` whatever it says, and
    /// `max_frames` no more than fits into one datagram, if need be. Call it only while no request
    /// is in flight.
    pub fn open(&mut self, handle: Fh, mut geometry: Geometry) {
        let most = self.config.framing.payload_max() / geometry.page_size.max(1);
        let most = u8::try_from(most).unwrap_or(u8::MAX);
        geometry.max_frames = geometry.max_frames.min(most);
        let payload = geometry
            .page_size
            .saturating_mul(geometry.max_frames.into());
        self.incoming = Incoming::new(payload);
        self.file = Some(File {
            handle,
            geometry,
            intact: u64::MAX,
        });
        self.open = true;
        self.stray_zeros = false;
    }

    /// Refuses requests from now on; those in flight go on.
    pub fn close(&mut self) {
        self.open = false;
    }

    /// Admits a request, or gives it back. Nothing else is needed for it to finish (S1). O(N).
    ///
    /// # Errors
    ///
    /// [`Refused`] holds the reason and the request.
    pub fn submit(&mut self, io: SwapIo<F>, now: Instant) -> Result<Ticket, Refused<F>> {
        let (offset, len) = match self.check(&io) {
            Ok(range) => range,
            Err(error) => return Err(Refused { error, io }),
        };
        match self.admit(Body::Pages(io), offset, len, now) {
            Ok(ticket) => Ok(ticket),
            Err(Body::Pages(io)) => Err(Refused {
                error: SubmitError::Busy,
                io,
            }),
            Err(Body::Zeros) => unreachable!("the body that comes back is the one handed in"),
        }
    }

    /// Admits a write of `len` zeros at byte `offset`, which needs no memory; `false` when every
    /// request slot is taken, no file is open, or so many do not fit into a datagram. Its end shows in [`poll_zeros`](Self::poll_zeros).
    #[must_use = "false means that nothing will be written"]
    pub fn submit_zeros(&mut self, offset: u64, len: u32, now: Instant) -> bool {
        let fits = len <= self.config.framing.payload_max();
        self.open && fits && self.admit(Body::Zeros, offset, len, now).is_ok()
    }

    fn admit(
        &mut self,
        body: Body<F>,
        offset: u64,
        len: u32,
        now: Instant,
    ) -> Result<Ticket, Body<F>> {
        let own = match &body {
            Body::Pages(io) => io.deadline,
            Body::Zeros => None,
        };
        let limit = match (self.config.timeouts, &body) {
            (Timeouts::Hard, Body::Pages(_)) => END_OF_TIME,
            _ => now + self.config.deadline,
        };
        let deadline = own.into_iter().fold(limit, Instant::min);
        let request = Request::new(body, offset, len, deadline, self.age);
        let ticket = self.requests.insert(request).map_err(|back| back.body)?;
        if let Some(request) = self
            .requests
            .find(ticket)
            .and_then(|i| self.requests.get_mut(i))
        {
            request.ticket = ticket;
        }
        self.age = self.age.wrapping_add(1);
        let in_flight = u16::try_from(self.requests.len()).unwrap_or(u16::MAX);
        self.stats.in_flight_peak = self.stats.in_flight_peak.max(in_flight);
        Ok(Ticket(ticket))
    }

    /// The bytes of the file that a request is about, if it is well formed.
    fn check(&self, io: &SwapIo<F>) -> Result<(u64, u32), SubmitError> {
        let Some(File { geometry, .. }) = self.file.as_ref().filter(|_| self.open) else {
            return Err(SubmitError::Inactive);
        };
        let page_size = geometry.page_size;
        let wrong_size = |frame: &F| frame.as_ref().len() != page_size as usize;
        if io.frames.is_empty()
            || io.frames.len() > usize::from(geometry.max_frames)
            || io.frames.iter().any(wrong_size)
        {
            return Err(SubmitError::BadFrames);
        }
        let frames = io.frames.len() as u32;
        if u64::from(io.slot.0) + u64::from(frames) > u64::from(geometry.slots) {
            return Err(SubmitError::OutOfRange);
        }
        let offset = u64::from(io.slot.0) * u64::from(page_size);
        Ok((offset, frames * page_size))
    }

    /// Ends a request that its owner does not want any more, unless a call of it is on its way: a
    /// READ that was sent is forgotten at once, as long as no byte of its reply has come; a WRITE is
    /// answered soon, and ends then. An unknown ticket does nothing. O(N).
    pub fn cancel(&mut self, ticket: Ticket) {
        let Some(index) = self.index_of(ticket) else {
            return;
        };
        let receiving = self.incoming.is_for(index);
        let idle = |request: &Request<F>| match request.phase {
            Phase::Queued(_) => true,
            Phase::Sent(_) => request.call == Call::Read && !receiving,
            Phase::Sending | Phase::Done(_) => false,
        };
        if let Some(request) = self.requests.get_mut(index)
            && idle(request)
        {
            request.stray |= request.is_out() && request.call == Call::Write;
            self.finish(index, Err(RequestError::Cancelled));
        }
    }

    /// Raises the class of a request whose call has not left yet (S8). An unknown ticket does
    /// nothing. O(N).
    pub fn expedite(&mut self, ticket: Ticket, class: IoClass) {
        if let Some(request) = self.index_of(ticket).and_then(|i| self.requests.get_mut(i)) {
            request.class = request.class.max(class);
        }
    }

    /// Ends every request in flight by `deadline`, whatever it was admitted with. O(N).
    pub fn end_by(&mut self, deadline: Instant) {
        for index in 0..N {
            if let Some(request) = self.requests.get_mut(index) {
                request.deadline = request.deadline.min(deadline);
            }
        }
    }

    /// A request changes its xid with every new call; its ticket stays.
    fn index_of(&self, ticket: Ticket) -> Option<usize> {
        let mut requests = self.requests.iter();
        let found = requests.find(|(_, request)| request.ticket == ticket.0);
        found.map(|(index, _)| index)
    }

    /// Whether something is finished and waits to be fetched: a request, or the call.
    pub(crate) fn has_news(&self) -> bool {
        self.finished > 0 || self.control.is_answered()
    }

    /// A finished request, in no particular order. Call it until `None` after every
    /// `handle_input`, `handle_timeout` and `reset_connection`. O(N) when there is one, else O(1).
    #[must_use = "the completion holds the frames"]
    pub fn poll_completion(&mut self) -> Option<Completion<F, RequestError>> {
        let (request, result) = self.take_finished(false)?;
        let done = request.pages_done(result);
        match request.body {
            Body::Pages(io) => Some(Completion {
                ticket: Ticket(request.ticket),
                io,
                result,
                done,
                stray: request.stray && !self.ablation.off(Mechanism::StrayWrites),
            }),
            Body::Zeros => None,
        }
    }

    /// The end of a write of zeros: how many bytes, or why not.
    #[must_use = "a failed write must be noticed"]
    pub fn poll_zeros(&mut self) -> Option<Result<u32, RequestError>> {
        let (request, result) = self.take_finished(true)?;
        Some(result.map(|()| request.len))
    }

    /// Whether a copy of a write of zeros, made since [`open`](Self::open), may still be carried out:
    /// the file must not be used then, but made afresh.
    #[must_use]
    pub const fn zeros_are_stray(&self) -> bool {
        self.stray_zeros
    }

    fn take_finished(&mut self, zeros: bool) -> Option<(Request<F>, Result<(), RequestError>)> {
        if self.finished == 0 {
            return None;
        }
        let (index, result) =
            self.requests
                .iter()
                .find_map(|(index, request)| match request.phase {
                    Phase::Done(result) if matches!(request.body, Body::Zeros) == zeros => {
                        Some((index, result))
                    }
                    _ => None,
                })?;
        self.finished -= 1;
        Some((self.requests.remove(index)?, result))
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due. O(N).
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let requests = self
            .requests
            .iter()
            .filter(|(_, request)| !request.is_done());
        let wakes = requests.flat_map(|(_, request)| {
            let not_before = match request.phase {
                Phase::Queued(not_before) => not_before,
                _ => None,
            };
            let expires = self.expires() && request.deadline != END_OF_TIME;
            [expires.then_some(request.deadline), not_before]
        });
        wakes
            .flatten()
            .chain(self.silence_ends())
            .chain(self.repeats())
            .min()
    }

    /// Ends requests whose deadline has passed, and notices that the server has fallen silent, or
    /// that a datagram must be sent again: ask for bytes to send afterwards.
    /// Ask [`needs_reset`](Self::needs_reset) afterwards. O(N).
    pub fn handle_timeout(&mut self, now: Instant) {
        for index in 0..N {
            let expires = self.expires();
            let overdue =
                |request: &Request<F>| expires && !request.is_done() && request.deadline <= now;
            if self.requests.get(index).is_some_and(overdue) {
                self.expire(index);
            } else if let Some(request) = self.requests.get_mut(index)
                && request.is_ready(now)
            {
                // The pause that the server asked for is over.
                request.phase = Phase::Queued(None);
            }
        }
        self.repeat_overdue(now);
        if !self.broken && self.silence_ends().is_some_and(|end| end <= now) {
            self.stats.silences += 1;
            let ClientConfig {
                rpc_timeout,
                deadline,
                ..
            } = self.config;
            // A call must be able to outlast a silence, or none would ever be seen to be the end.
            let most = rpc_timeout.saturating_mul(BACKOFF_MAX).min(deadline / 2);
            self.patience = self.patience.saturating_mul(2).min(most.max(rpc_timeout));
            self.broken = true;
        }
    }

    /// Whether the connection must be dropped: the server sent nonsense or fell silent, or a
    /// request ended in the middle of its record.
    #[must_use]
    pub const fn needs_reset(&self) -> bool {
        self.broken
    }

    /// Tells the client that its connection is gone: the next byte to send or to receive is the
    /// first of a new one. All calls in flight will be sent again. O(N).
    pub fn reset_connection(&mut self, now: Instant) {
        self.stats.resets += 1;
        self.outgoing.reset();
        self.incoming.reset();
        self.control.reset();
        self.timers.restart();
        self.heard = now;
        self.broken = false;
        for index in 0..N {
            let Some(request) = self.requests.get_mut(index) else {
                continue;
            };
            let under_way = request.is_out();
            // A second COMMIT does no harm, and what it commits was answered.
            request.stray |= under_way && request.call == Call::Write;
            let zeros = matches!(request.body, Body::Zeros) && request.stray;
            self.stray_zeros |= zeros && !self.ablation.off(Mechanism::StrayWrites);
            if request.expired {
                let error = request.overdue();
                self.stats.timed_out += 1;
                self.finish(index, Err(error));
            } else if !under_way {
                continue;
            } else if self.ablation.off(Mechanism::Resend) {
                request.phase = Phase::Queued(Some(END_OF_TIME));
            } else {
                request.phase = Phase::Queued(None);
                request.retry_at = None;
            }
        }
    }

    /// Forgets the writes of zeros. Call it after [`reset_connection`](Self::reset_connection).
    pub fn forget_zeros(&mut self) {
        for index in 0..N {
            let Some(request) = self.requests.get(index) else {
                continue;
            };
            if matches!(request.body, Body::Zeros) {
                self.finished -= usize::from(request.is_done());
                self.requests.remove(index);
            }
        }
    }

    fn expires(&self) -> bool {
        !self.ablation.off(Mechanism::Deadline)
    }

    /// Ends a request whose deadline has passed, at once if nothing is under way that still needs
    /// its frames, else when the connection has been reset.
    fn expire(&mut self, index: usize) {
        let receiving = self.incoming.is_for(index);
        let Some(request) = self.requests.get_mut(index) else {
            return;
        };
        // A write that was sent may sit unread in the server's socket: dropping the connection
        // takes it back from there, though not from a server that has read it.
        let reset = match request.phase {
            // No datagram comes back.
            _ if self.config.framing.is_datagram() => false,
            Phase::Sending => true,
            Phase::Sent(_) => receiving || request.call == Call::Write,
            Phase::Queued(_) | Phase::Done(_) => false,
        };
        if reset {
            request.expired = true;
            self.broken = true;
        } else {
            let zeros = matches!(request.body, Body::Zeros) && request.is_out();
            self.stray_zeros |= zeros && !self.ablation.off(Mechanism::StrayWrites);
            let error = request.overdue();
            self.stats.timed_out += 1;
            self.finish(index, Err(error));
        }
    }

    fn finish(&mut self, index: usize, result: Result<(), RequestError>) {
        if let Some(request) = self.requests.get_mut(index) {
            request.phase = Phase::Done(result);
            self.finished += 1;
        }
    }

    /// Queues the next call of a request, under a new xid.
    fn next_call(&mut self, index: usize, not_before: Option<Instant>) {
        self.requests.renew(index);
        if let Some(request) = self.requests.get_mut(index) {
            request.phase = Phase::Queued(not_before);
            request.copies = 0;
            request.retry_at = None;
        }
    }

    /// When a silent server has used up our patience; `None` while nothing is due from it.
    fn silence_ends(&self) -> Option<Instant> {
        if self.config.framing.is_datagram() {
            // A call that was lost alone is repeated.
            return self.is_owed().then(|| self.heard + self.patience);
        }
        let requests = self
            .requests
            .iter()
            .filter_map(|(_, request)| match request.phase {
                Phase::Sent(at) => Some(at),
                _ => None,
            });
        let oldest = requests
            .chain(self.control.sent_at())
            .chain(self.outgoing.started_at())
            .min()?;
        let silent = oldest.max(self.heard) + self.patience;
        // A call may also be lost alone, while others are answered.
        let forgotten = oldest + self.patience.saturating_mul(FORGOTTEN);
        Some(silent.min(forgotten))
    }
}

#[cfg(test)]
mod tests;
