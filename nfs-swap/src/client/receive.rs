//! From bytes to replies: the head of a reply is staged, the payload of a READ goes straight into
//! its frames, and a reply takes effect when its record has ended well.

use swapspace::{Instant, PageFrame};

use super::Client;
use super::control::CONTROL_MAX;
use super::request::{Call, Phase, Request};
use crate::ablation::Mechanism;
use crate::error::{ProtocolError, RequestError};
use crate::nfs3::{Commit, Nfsstat3, Read, ReadHead, StableHow, Write, WriteReply, WriteVerifier};
use crate::rpc::{Procedure, RecordReader, Reject, ReplyHeader};
use crate::xdr::{Reader, XdrError, padding};

/// What a reply says, payload apart.
#[derive(Debug, Clone, Copy)]
pub(super) enum Reply {
    Rejected(Reject),
    Refused(Nfsstat3),
    Read(ReadHead),
    Write(WriteReply),
    Commit(WriteVerifier),
}

/// What the next bytes of the present record are.
#[derive(Debug, Clone, Copy)]
enum State {
    /// Its head, `missing` bytes of it at least.
    Head { missing: usize },
    /// The rest of a reply to the control call.
    Control,
    /// Payload for byte `pos` of a request on, and then padding.
    Payload { pos: usize, left: usize, pad: usize },
    /// Nobody waits for it.
    Skip,
}

/// Bytes that say whose reply it is: xid and message type.
const XID_AND_TYPE: usize = 8;

#[derive(Debug)]
pub(super) struct Incoming {
    record: RecordReader,
    state: State,
    stage: heapless::Vec<u8, CONTROL_MAX>,
    /// The request that the present record answers, and what it says.
    reply: Option<(usize, Reply)>,
}

impl Incoming {
    /// Ready for replies with up to `payload` bytes of payload.
    pub(super) const fn new(payload: u32) -> Self {
        Incoming {
            record: RecordReader::new((CONTROL_MAX as u32).saturating_add(payload)),
            state: State::Head {
                missing: XID_AND_TYPE,
            },
            stage: heapless::Vec::new(),
            reply: None,
        }
    }

    pub(super) fn reset(&mut self) {
        self.record.next_record();
        self.next_reply();
    }

    fn next_reply(&mut self) {
        self.stage.clear();
        self.reply = None;
        self.state = State::Head {
            missing: XID_AND_TYPE,
        };
    }

    /// Whether a reply to the request in slot `index` is half received.
    pub(super) fn is_for(&self, index: usize) -> bool {
        self.reply.is_some_and(|(slot, _)| slot == index)
    }
}

impl<F: PageFrame, const N: usize> Client<F, N> {
    /// Takes the next bytes of the stream from the server, cut anyhow. Ask for completions, and
    /// for bytes to send, afterwards. O(bytes).
    ///
    /// # Errors
    ///
    /// The server sent nonsense: drop the connection, call
    /// [`reset_connection`](Self::reset_connection), and connect again.
    pub fn handle_input(&mut self, now: Instant, mut bytes: &[u8]) -> Result<(), ProtocolError> {
        if self.broken {
            return Err(ProtocolError::NotReset);
        }
        if !bytes.is_empty() {
            self.heard = now;
            self.stats.bytes_in += bytes.len() as u64;
        }
        self.take_input(now, &mut bytes).inspect_err(|_| {
            self.stats.protocol_errors += 1;
            self.broken = true;
        })
    }

    fn take_input(&mut self, now: Instant, input: &mut &[u8]) -> Result<(), ProtocolError> {
        loop {
            let want = match self.incoming.state {
                State::Head { missing } => missing,
                State::Payload { left, pad, .. } => (left + pad).max(1),
                State::Control | State::Skip => usize::MAX,
            };
            let bytes = self.incoming.record.read(input, want)?;
            if !bytes.is_empty() {
                self.take_piece(bytes)?;
            }
            if self.incoming.record.at_end() {
                self.end_record(now)?;
                self.incoming.record.next_record();
                self.incoming.next_reply();
            } else if bytes.is_empty() {
                return Ok(());
            }
        }
    }

    fn take_piece(&mut self, bytes: &[u8]) -> Result<(), ProtocolError> {
        let incoming = &mut self.incoming;
        match &mut incoming.state {
            State::Head { missing } => {
                let staged = incoming.stage.extend_from_slice(bytes);
                staged.map_err(|_| ProtocolError::TooLong)?;
                *missing -= bytes.len();
                if *missing == 0 {
                    self.parse_head()?;
                }
            }
            State::Control => {
                let staged = incoming.stage.extend_from_slice(bytes);
                staged.map_err(|_| ProtocolError::TooLong)?;
            }
            State::Payload { pos, left, pad } => {
                let (payload, rest) = bytes.split_at(bytes.len().min(*left));
                let at = *pos;
                *pos += payload.len();
                *left -= payload.len();
                *pad = pad
                    .checked_sub(rest.len())
                    .ok_or(ProtocolError::TrailingBytes)?;
                if let Some(request) = incoming
                    .reply
                    .and_then(|(index, _)| self.requests.get_mut(index))
                {
                    request.copy_in(at, payload);
                }
            }
            State::Skip => {}
        }
        Ok(())
    }

    /// Looks at the staged head: whose reply it is, and what it says; or asks for more of it.
    fn parse_head(&mut self) -> Result<(), ProtocolError> {
        let mut reader = Reader::new(&self.incoming.stage);
        let xid = reader.u32().map_err(ProtocolError::Malformed)?;
        if reader.u32() != Ok(1) {
            return Err(ProtocolError::NotAReply);
        }
        if self.control.awaits(xid) {
            self.incoming.state = State::Control;
            return Ok(());
        }
        let awaited = |request: &Request<F>| matches!(request.phase, Phase::Sent(_));
        let index = self.requests.find(xid);
        let Some((index, request)) = index
            .and_then(|index| Some((index, self.requests.get(index)?)))
            .filter(|(_, request)| awaited(request))
        else {
            self.stats.foreign += 1;
            self.incoming.state = State::Skip;
            return Ok(());
        };
        match parse_reply(&mut Reader::new(&self.incoming.stage), request.call) {
            Ok(reply) => {
                let count = reply.count();
                if count > request.left() {
                    return Err(ProtocolError::TooMany);
                }
                let payload = match reply {
                    Reply::Read(_) => count as usize,
                    _ => 0,
                };
                self.incoming.state = State::Payload {
                    pos: request.done as usize,
                    left: payload,
                    pad: padding(payload),
                };
                self.incoming.reply = Some((index, reply));
                Ok(())
            }
            Err(XdrError::Truncated { missing }) => {
                self.incoming.state = State::Head { missing };
                Ok(())
            }
            Err(error) => Err(ProtocolError::Malformed(error)),
        }
    }

    fn end_record(&mut self, now: Instant) -> Result<(), ProtocolError> {
        let missing = match self.incoming.state {
            State::Head { missing } => missing,
            State::Payload { left, pad, .. } => left + pad,
            State::Control | State::Skip => 0,
        };
        if missing > 0 {
            return Err(ProtocolError::Malformed(XdrError::Truncated { missing }));
        }
        if matches!(self.incoming.state, State::Skip) {
            return Ok(());
        }
        self.stats.replies += 1;
        self.patience = self.config.rpc_timeout;
        match self.incoming.reply {
            Some((index, reply)) => self.apply(index, reply, now),
            None => self.control.answer(&self.incoming.stage),
        }
        Ok(())
    }

    /// Carries a request on by what the server said.
    pub(super) fn apply(&mut self, index: usize, reply: Reply, now: Instant) {
        if self.is_cut_off(index, reply) && !self.ablation.off(Mechanism::FileEnd) {
            self.finish(index, Err(RequestError::FileEnded));
            return;
        }
        let off = |mechanism| self.ablation.off(mechanism);
        let Some(request) = self.requests.get_mut(index) else {
            return;
        };
        match reply {
            Reply::Refused(Nfsstat3::ServerFault) | Reply::Rejected(Reject::SystemError)
                if request.faults < self.config.fault_retries =>
            {
                request.faults += 1;
                self.stats.server_faults += 1;
                self.try_later(index, now);
            }
            Reply::Rejected(reject) => self.finish(index, Err(RequestError::Rejected(reject))),
            Reply::Refused(Nfsstat3::Jukebox) => self.put_off(index, now),
            Reply::Refused(status) => self.finish(index, Err(RequestError::Nfs(status))),
            Reply::Read(ReadHead { count, eof, .. }) => {
                request.done += count;
                let ended = eof || count == 0;
                if request.left() == 0 || ended && off(Mechanism::FileEnd) {
                    self.finish(index, Ok(()));
                } else if ended {
                    self.finish(index, Err(RequestError::FileEnded));
                } else {
                    self.stats.short_reads += 1;
                    self.next_call(index, None);
                }
            }
            Reply::Write(reply) => self.apply_write(index, reply, now),
            Reply::Commit(verifier)
                if request.verifier == Some(verifier) || off(Mechanism::Verifier) =>
            {
                self.finish(index, Ok(()));
            }
            Reply::Commit(_) => self.write_again(index),
        }
    }

    /// Whether a request reaches to where the file was once cut off.
    fn is_cut_off(&mut self, index: usize, reply: Reply) -> bool {
        let size = match reply {
            Reply::Read(ReadHead { size, .. }) => size,
            Reply::Write(WriteReply { size_before, .. }) => size_before,
            _ => None,
        };
        let (Some(file), Some(request)) = (&mut self.file, self.requests.get(index)) else {
            return false;
        };
        file.intact = file.intact.min(size.unwrap_or(u64::MAX));
        let answered = !matches!(reply, Reply::Rejected(_) | Reply::Refused(_));
        answered && request.offset + u64::from(request.len) > file.intact
    }

    fn apply_write(&mut self, index: usize, reply: WriteReply, now: Instant) {
        let off = |mechanism| self.ablation.off(mechanism);
        let Some(request) = self.requests.get_mut(index) else {
            return;
        };
        // Of one boot of the server, or else what it took before may be gone.
        let rebooted =
            |earlier: WriteVerifier| earlier != reply.verifier && !off(Mechanism::Verifier);
        if request.unstable && request.verifier.is_some_and(rebooted) {
            self.write_again(index);
            return;
        }
        request.verifier = Some(reply.verifier);
        request.unstable |= reply.count > 0 && reply.committed == StableHow::Unstable;
        request.done += reply.count;
        if request.left() > 0 && !off(Mechanism::ShortCounts) {
            self.stats.short_writes += 1;
            match reply.count {
                0 => self.put_off(index, now),
                _ => self.next_call(index, None),
            }
        } else if request.unstable && !off(Mechanism::Stability) {
            request.call = Call::Commit;
            self.next_call(index, None);
        } else {
            self.finish(index, Ok(()));
        }
    }

    fn put_off(&mut self, index: usize, now: Instant) {
        self.stats.jukebox += 1;
        self.try_later(index, now);
    }

    fn try_later(&mut self, index: usize, now: Instant) {
        self.next_call(index, Some(now + self.config.retry_delay));
    }

    fn write_again(&mut self, index: usize) {
        self.stats.verifier_changes += 1;
        if let Some(request) = self.requests.get_mut(index) {
            request.rewrite();
        }
        self.next_call(index, None);
    }
}

impl Reply {
    /// Bytes that it reports moved.
    pub(super) const fn count(&self) -> u32 {
        match self {
            Reply::Read(ReadHead { count, .. }) | Reply::Write(WriteReply { count, .. }) => *count,
            _ => 0,
        }
    }
}

/// Reads a reply up to its payload.
pub(super) fn parse_reply(reader: &mut Reader<'_>, call: Call) -> Result<Reply, XdrError> {
    if let Err(reject) = ReplyHeader::parse(reader)?.verdict {
        return Ok(Reply::Rejected(reject));
    }
    let reply = match call {
        Call::Read => Read::decode(reader)?.map(Reply::Read),
        Call::Write => Write::decode(reader)?.map(Reply::Write),
        Call::Commit => Commit::decode(reader)?.map(Reply::Commit),
    };
    Ok(reply.unwrap_or_else(Reply::Refused))
}
