//! From requests to bytes: which record goes next, and writing it piece by piece.

use swapspace::{Instant, PageFrame};

use super::request::{Body, Call, Phase, Request};
use super::{Client, File};
use crate::ablation::Mechanism;
use crate::nfs3::{Commit, Fh, Read, StableHow, Write};
use crate::rpc::{CallHeader, Credential, Procedure, record_mark};
use crate::xdr::{Writer, XdrError, padding};

/// Bytes of the longest record without its payload: a WRITE with a handle of 64 bytes, a machine
/// name of 32, and the record mark.
const HEADER_MAX: usize = 184;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    Control,
    Request(usize),
}

/// The record under way. There is only one, and so one buffer serves the headers of all requests.
#[derive(Debug)]
pub(super) struct Outgoing {
    source: Option<Source>,
    started: Instant,
    header: heapless::Vec<u8, HEADER_MAX>,
    /// Bytes of payload in this record, and where they start in the request.
    payload: usize,
    payload_at: usize,
    /// Bytes of the record written so far.
    sent: usize,
}

impl Outgoing {
    pub(super) const fn new() -> Self {
        Outgoing {
            source: None,
            started: Instant::ZERO,
            header: heapless::Vec::new(),
            payload: 0,
            payload_at: 0,
            sent: 0,
        }
    }

    pub(super) fn reset(&mut self) {
        self.source = None;
    }

    /// Leaves the mark of the record under way out.
    pub(super) const fn skip_mark(&mut self) {
        self.sent = MARK;
    }

    pub(super) fn started_at(&self) -> Option<Instant> {
        self.source.map(|_| self.started)
    }
}

/// Bytes of the record mark, which a datagram goes without.
pub(super) const MARK: usize = 4;

impl<F: PageFrame, const N: usize> Client<F, N> {
    /// Writes the next bytes of the stream to the server into `buf` and returns how many; 0 when
    /// nothing is left to send. Call it until then after every `submit`, `start_call`,
    /// `handle_input`, `handle_timeout` and `reset_connection`, whenever there is room.
    ///
    /// A record starts in the order of [`IoClass`](swapspace::IoClass), oldest first within a
    /// class (S8); a record that has been started is finished first. O(N) for each record, plus
    /// one copy of the bytes.
    ///
    /// # Panics
    ///
    /// If the client speaks in datagrams: they have a [method](Self::poll_datagram) of their own.
    #[must_use = "these bytes are sent once"]
    pub fn poll_transmit(&mut self, now: Instant, buf: &mut [u8]) -> usize {
        assert!(
            !self.config.framing.is_datagram(),
            "a datagram must not be cut"
        );
        let mut filled = 0;
        while filled < buf.len() && !self.broken {
            let Some(source) = self.outgoing.source.or_else(|| self.begin_record(now)) else {
                break;
            };
            filled += self.continue_record(source, now, &mut buf[filled..]);
        }
        self.stats.bytes_out += filled as u64;
        filled
    }

    pub(super) fn begin_record(&mut self, now: Instant) -> Option<Source> {
        let (source, resend) = match self.control.begin() {
            Some(resend) => (Source::Control, resend),
            None => self.begin_request(now)?,
        };
        self.outgoing.source = Some(source);
        self.outgoing.started = now;
        self.outgoing.sent = 0;
        self.stats.calls += 1;
        self.stats.resent += u64::from(resend);
        Some(source)
    }

    fn begin_request(&mut self, now: Instant) -> Option<(Source, bool)> {
        let File { handle, .. } = self.file.as_ref()?;
        // Ages wrap; seen from the newest one they do not.
        let newest = self.age;
        let ready = self
            .requests
            .iter()
            .filter(|(_, request)| request.is_ready(now));
        let by_class = !self.ablation.off(Mechanism::DemandFirst);
        let rank = |request: &Request<F>| {
            let class = by_class.then_some(request.class);
            (class, newest.wrapping_sub(request.age))
        };
        let (index, _) = ready.max_by_key(|(_, request)| rank(request))?;
        let xid = self.requests.xid(index)?;
        let request = self.requests.get_mut(index)?;
        let stable = self.config.stable;
        let header = &mut self.outgoing.header;
        // HEADER_MAX is the length of the longest (see the tests), so nothing is lost here.
        encode(
            header,
            &self.config.credential,
            xid,
            handle,
            request,
            stable,
        )
        .ok()?;
        self.outgoing.payload_at = request.done as usize;
        self.outgoing.payload = match request.call {
            Call::Write => request.left() as usize,
            Call::Read | Call::Commit => 0,
        };
        self.stats.commits += u64::from(request.call == Call::Commit);
        request.phase = Phase::Sending;
        request.sent = true;
        let resend = request.copies > 0;
        request.copies = request.copies.saturating_add(1);
        if resend && request.call == Call::Write {
            request.stray = true;
            let zeros = matches!(request.body, Body::Zeros);
            self.stray_zeros |= zeros && !self.ablation.off(Mechanism::StrayWrites);
        }
        Some((Source::Request(index), resend))
    }

    /// Writes the next bytes of the record under way; closes it when it is complete.
    pub(super) fn continue_record(
        &mut self,
        source: Source,
        now: Instant,
        buf: &mut [u8],
    ) -> usize {
        let outgoing = &mut self.outgoing;
        let (header, payload) = match source {
            Source::Control => (self.control.record(), 0),
            Source::Request(_) => (&outgoing.header[..], outgoing.payload),
        };
        let len = header.len() + payload + padding(payload);
        let mut filled = 0;
        while filled < buf.len() && outgoing.sent < len {
            let out = &mut buf[filled..];
            let copied = if let Some(rest) = header.get(outgoing.sent..).filter(|h| !h.is_empty()) {
                let n = rest.len().min(out.len());
                out[..n].copy_from_slice(&rest[..n]);
                n
            } else {
                let pos = outgoing.sent - header.len();
                match source {
                    Source::Request(index) if pos < payload => {
                        let n = out.len().min(payload - pos);
                        let request = self.requests.get(index);
                        let at = outgoing.payload_at + pos;
                        request.map_or(n, |request| request.copy_out(at, &mut out[..n]))
                    }
                    _ => {
                        let n = out.len().min(len - outgoing.sent);
                        out[..n].fill(0);
                        n
                    }
                }
            };
            outgoing.sent += copied;
            filled += copied;
        }
        if outgoing.sent == len {
            outgoing.source = None;
            match source {
                Source::Control => self.control.sent(now),
                Source::Request(index) => {
                    if let Some(request) = self.requests.get_mut(index) {
                        request.phase = Phase::Sent(now);
                    }
                }
            }
        }
        filled
    }
}

/// Writes everything of a request's next record that is not payload.
fn encode<F: PageFrame>(
    header: &mut heapless::Vec<u8, HEADER_MAX>,
    credential: &Credential,
    xid: u32,
    file: &Fh,
    request: &Request<F>,
    stable: StableHow,
) -> Result<(), XdrError> {
    let offset = request.offset + u64::from(request.done);
    let count = request.left();
    match request.call {
        Call::Read => {
            let call = Read {
                file,
                offset,
                count,
            };
            encode_call(header, credential, xid, &call, 0)
        }
        Call::Write => {
            let call = Write {
                file,
                offset,
                count,
                stable,
            };
            encode_call(header, credential, xid, &call, count)
        }
        Call::Commit => {
            let call = Commit {
                file,
                offset: request.offset,
                count: request.len,
            };
            encode_call(header, credential, xid, &call, 0)
        }
    }
}

fn encode_call<P: Procedure>(
    header: &mut heapless::Vec<u8, HEADER_MAX>,
    credential: &Credential,
    xid: u32,
    call: &P,
    payload: u32,
) -> Result<(), XdrError> {
    header.clear();
    header
        .resize_default(HEADER_MAX)
        .map_err(|_| XdrError::NoRoom)?;
    let (mark, body) = header.split_at_mut(4);
    let mut writer = Writer::new(body);
    CallHeader::of::<P>(xid).emit(credential, &mut writer)?;
    call.encode(&mut writer)?;
    let len = writer.len();
    let record = len + payload as usize + padding(payload as usize);
    mark.copy_from_slice(&record_mark(record as u32));
    header.truncate(4 + len);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nfs3::FH_MAX;
    use crate::rpc::MACHINE_NAME_MAX;

    #[test]
    fn the_longest_header_fits_exactly() {
        let name = [b'm'; MACHINE_NAME_MAX];
        let machine = core::str::from_utf8(&name).unwrap();
        let credential = Credential {
            machine: heapless::String::try_from(machine).unwrap(),
            uid: 0,
            gid: 0,
        };
        let call = Write {
            file: &Fh::new(&[1; FH_MAX]).unwrap(),
            offset: 0,
            count: 0,
            stable: StableHow::FileSync,
        };
        let mut header = heapless::Vec::new();
        encode_call(&mut header, &credential, 1, &call, 0).unwrap();
        assert_eq!(header.len(), HEADER_MAX);
    }
}
