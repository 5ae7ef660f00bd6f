//! The one call that is not a request: mounting, looking up, and the like, before and after
//! swapping. Its arguments and then its results are kept in one small buffer.

use core::fmt;
use core::task::Poll;

use swapspace::{Instant, PageFrame};

use super::Client;
use crate::error::ProtocolError;
use crate::rpc::{CallHeader, Framing, Procedure, Reject, ReplyHeader, record_mark};
use crate::xdr::{Reader, Writer, XdrError};

/// Bytes of the longest call, record mark included, and of the longest reply: that of LOOKUP, with
/// a verifier of 400 bytes, which RFC 5531 allows, and the longest handle.
pub(super) const CONTROL_MAX: usize = 704;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Idle,
    Queued,
    Sending,
    Sent(Instant),
    Answered,
}

#[derive(Debug)]
pub(super) struct Control {
    phase: Phase,
    xid: u32,
    /// How often it was put on the wire.
    copies: u32,
    /// When it is to be sent again, if it goes by datagrams.
    repeat_at: Option<Instant>,
    /// Whether a reply without its mark is a whole one to this call.
    check: fn(&[u8]) -> Result<(), ProtocolError>,
    /// The record to send, then the reply without its mark.
    buf: heapless::Vec<u8, CONTROL_MAX>,
}

impl Control {
    pub(super) const fn new() -> Self {
        Control {
            phase: Phase::Idle,
            xid: 0,
            copies: 0,
            repeat_at: None,
            check: |_| Err(ProtocolError::NotAReply),
            buf: heapless::Vec::new(),
        }
    }

    pub(super) fn reset(&mut self) {
        if matches!(self.phase, Phase::Sending | Phase::Sent(_)) {
            self.repeat();
        }
    }

    /// Queues it again.
    pub(super) const fn repeat(&mut self) {
        self.phase = Phase::Queued;
        self.repeat_at = None;
    }

    /// To be sent again then, unless it is answered before.
    pub(super) const fn repeat_at(&mut self, at: Instant) {
        self.repeat_at = Some(at);
    }

    pub(super) const fn repeats(&self) -> Option<Instant> {
        match self.phase {
            Phase::Sent(_) => self.repeat_at,
            _ => None,
        }
    }

    pub(super) const fn copies(&self) -> u32 {
        self.copies
    }

    /// The record to send next, if there is one; and whether it was sent before.
    pub(super) fn begin(&mut self) -> Option<bool> {
        if self.phase != Phase::Queued {
            return None;
        }
        self.phase = Phase::Sending;
        self.copies = self.copies.saturating_add(1);
        Some(self.copies > 1)
    }

    pub(super) fn record(&self) -> &[u8] {
        &self.buf
    }

    pub(super) fn sent(&mut self, now: Instant) {
        self.phase = Phase::Sent(now);
    }

    pub(super) const fn sent_at(&self) -> Option<Instant> {
        match self.phase {
            Phase::Sent(at) => Some(at),
            _ => None,
        }
    }

    pub(super) const fn is_answered(&self) -> bool {
        matches!(self.phase, Phase::Answered)
    }

    pub(super) fn awaits(&self, xid: u32) -> bool {
        self.xid == xid && self.sent_at().is_some()
    }

    /// Takes a reply, unless the call was forgotten while it came in.
    pub(super) fn answer(&mut self, reply: &heapless::Vec<u8, CONTROL_MAX>) {
        if reply.starts_with(&self.xid.to_be_bytes()) && self.sent_at().is_some() {
            self.buf.clone_from(reply);
            self.phase = Phase::Answered;
        }
    }

    /// Whether a copy of it is out and not answered.
    pub(super) const fn is_out(&self) -> bool {
        match self.phase {
            Phase::Sent(_) => true,
            Phase::Queued => self.copies > 0,
            Phase::Idle | Phase::Sending | Phase::Answered => false,
        }
    }

    /// Whether a datagram with this xid may answer it.
    pub(super) const fn may_be_answered(&self, xid: u32) -> bool {
        self.xid == xid && self.is_out()
    }

    /// Takes a reply that came as a datagram, if it is whole and makes sense.
    pub(super) fn answer_whole(&mut self, reply: &[u8]) -> Result<(), ProtocolError> {
        (self.check)(reply)?;
        let reply = heapless::Vec::from_slice(reply);
        self.buf = reply.map_err(|_| ProtocolError::TooLong)?;
        self.phase = Phase::Answered;
        Ok(())
    }
}

/// Why a call outside the requests failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum CallError {
    /// The RPC layer of the server refused it.
    Rejected(Reject),
    /// The reply makes no sense.
    BadReply(ProtocolError),
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CallError::Rejected(reject) => write!(f, "{reject}"),
            CallError::BadReply(error) => write!(f, "{error}"),
        }
    }
}

impl core::error::Error for CallError {}

impl<F: PageFrame, const N: usize> Client<F, N> {
    /// Starts a call beside the requests, in place of any earlier one. It is sent before them. If
    /// the earlier one is half sent, the connection [must be reset](Self::needs_reset).
    ///
    /// # Errors
    ///
    /// The arguments are too long, for a datagram perhaps; no call is outstanding then.
    pub fn start_call<P: Procedure>(&mut self, call: &P) -> Result<(), XdrError> {
        let xid = self.requests.outside_xid();
        let control = &mut self.control;
        self.broken |= control.phase == Phase::Sending;
        control.phase = Phase::Idle;
        let room = control.buf.capacity();
        control.buf.clear();
        control
            .buf
            .resize_default(room)
            .map_err(|_| XdrError::NoRoom)?;
        let (mark, record) = control.buf.split_at_mut(4);
        let mut writer = Writer::new(record);
        CallHeader::of::<P>(xid).emit(&self.config.credential, &mut writer)?;
        call.encode(&mut writer)?;
        let len = writer.len();
        mark.copy_from_slice(&record_mark(len as u32));
        if let Framing::Datagram { send_max, .. } = self.config.framing
            && len > send_max
        {
            return Err(XdrError::NoRoom);
        }
        control.buf.truncate(4 + len);
        control.xid = xid;
        control.copies = 0;
        control.repeat_at = None;
        control.check = check::<P>;
        control.phase = Phase::Queued;
        Ok(())
    }

    /// Whether a call was started and its result not fetched.
    #[must_use]
    pub fn is_calling(&self) -> bool {
        self.control.phase != Phase::Idle
    }

    /// Whether the call that was started last was sent more than once, so that its answer may be
    /// that to the second of two that were carried out.
    pub(crate) const fn call_was_repeated(&self) -> bool {
        self.control.copies > 1
    }

    /// The result of the call that was started, which must be a `P`. Poll again after every
    /// `handle_input`.
    ///
    /// # Errors
    ///
    /// [`CallError`] inside says why it failed.
    pub fn poll_call<P: Procedure>(&mut self) -> Poll<Result<P::Reply, CallError>> {
        if self.control.phase != Phase::Answered {
            return Poll::Pending;
        }
        self.control.phase = Phase::Idle;
        Poll::Ready(decode::<P>(&self.control.buf))
    }

    /// Forgets the call, whatever its state; half sent, it costs the connection.
    pub(crate) fn abandon_call(&mut self) {
        self.broken |= self.control.phase == Phase::Sending;
        self.control.phase = Phase::Idle;
    }

    /// Forgets the call. If it is under way, reset the connection first.
    pub fn cancel_call(&mut self) {
        self.control.phase = Phase::Idle;
    }
}

/// A reply that refuses the call is a whole one, too.
fn check<P: Procedure>(reply: &[u8]) -> Result<(), ProtocolError> {
    match decode::<P>(reply) {
        Ok(_) | Err(CallError::Rejected(_)) => Ok(()),
        Err(CallError::BadReply(error)) => Err(error),
    }
}

fn decode<P: Procedure>(reply: &[u8]) -> Result<P::Reply, CallError> {
    let malformed = |error| CallError::BadReply(ProtocolError::Malformed(error));
    let mut reader = Reader::new(reply);
    let header = ReplyHeader::parse(&mut reader).map_err(malformed)?;
    header.verdict.map_err(CallError::Rejected)?;
    let reply = P::decode(&mut reader).map_err(malformed)?;
    if !reader.remaining().is_empty() {
        return Err(CallError::BadReply(ProtocolError::TrailingBytes));
    }
    Ok(reply)
}
