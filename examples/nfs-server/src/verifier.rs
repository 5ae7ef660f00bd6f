//! The write verifier of this boot, put into the replies that carry one.
//!
//! `nfs3_server` uses the generation of its file handles as the write verifier. Handles must
//! outlive a reboot, so the generation is a constant, and the verifier has to be written over it:
//! it is the last field of every successful WRITE and COMMIT reply (RFC 1813, 3.3.7 and 3.3.21).
//! A [`Relay`] carries one connection and touches nothing else.

use std::collections::HashSet;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use nfs3_server::nfs3_types::nfs3::{self, NFS_PROGRAM};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

/// Bytes carried at once, in each direction.
const CHUNK: usize = 128 << 10;

/// Bytes in a write verifier.
const VERIFIER: usize = 8;

/// Words at the head of a call: xid, message type, RPC version, program, version, procedure.
const CALL_WORDS: usize = 6;

/// Words at the head of a reply: xid, message type, reply status, two of an empty verifier (the
/// other kind: RFC 5531, 8.2), accept status, and the NFS status.
const REPLY_WORDS: usize = 7;

/// One connection between a client and `nfs3_server`.
#[derive(Debug)]
pub(crate) struct Relay {
    verifier: [u8; VERIFIER],
    /// Calls in flight whose replies carry a verifier. The two directions are two futures.
    writes: Mutex<HashSet<u32>>,
}

impl Relay {
    /// A relay that says `verifier`.
    pub(crate) fn new(verifier: [u8; VERIFIER]) -> Relay {
        Relay {
            verifier,
            writes: Mutex::new(HashSet::new()),
        }
    }

    /// Carries bytes both ways until one side closes.
    pub(crate) async fn run(&self, mut client: TcpStream, mut server: TcpStream) -> io::Result<()> {
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        let mut calls = Records::<CALL_WORDS>::new();
        let mut replies = Records::<REPLY_WORDS>::new();
        tokio::select! {
            done = carry(from_client, to_server, |bytes| self.calls(&mut calls, bytes)) => done,
            done = carry(from_server, to_client, |bytes| self.replies(&mut replies, bytes)) => done,
        }
    }

    /// Notes which calls are WRITE and COMMIT.
    fn calls(&self, records: &mut Records<CALL_WORDS>, bytes: &mut [u8]) {
        records.feed(bytes, |head, piece| {
            if piece.ends_head {
                let [xid, _, _, program, _, procedure] = head;
                let writes = [NFS_PROGRAM::NFSPROC3_WRITE, NFS_PROGRAM::NFSPROC3_COMMIT];
                if program == nfs3::PROGRAM && writes.map(|p| p as u32).contains(&procedure) {
                    self.writes().insert(xid);
                }
            }
        });
    }

    /// Puts the verifier into the replies to those calls, if they tell of success.
    fn replies(&self, records: &mut Records<REPLY_WORDS>, bytes: &mut [u8]) {
        const REPLY: u32 = 1;
        records.feed(bytes, |head, mut piece| {
            let [xid, kind, rest @ ..] = head;
            let success = kind == REPLY && rest == [0; REPLY_WORDS - 2];
            if success && piece.last && piece.has_head && self.writes().contains(&xid) {
                piece.overwrite_tail(&self.verifier);
            }
            if piece.has_head && piece.ends_record() {
                self.writes().remove(&xid);
            }
        });
    }

    fn writes(&self) -> MutexGuard<'_, HashSet<u32>> {
        self.writes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Copies one direction, through `look`, until it ends.
async fn carry(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut look: impl FnMut(&mut [u8]),
) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK];
    loop {
        let n = from.read(&mut chunk).await?;
        if n == 0 {
            return Ok(());
        }
        look(&mut chunk[..n]);
        to.write_all(&chunk[..n]).await?;
    }
}

/// Follows the record marks of a stream (RFC 5531, 11) and keeps the first `WORDS` words of the
/// record that is passing.
#[derive(Debug)]
struct Records<const WORDS: usize> {
    mark: [u8; 4],
    mark_len: usize,
    /// Bytes of the fragment that have not passed.
    left: usize,
    last: bool,
    head: [[u8; 4]; WORDS],
    head_len: usize,
}

/// Consecutive bytes of one fragment.
struct Piece<'a> {
    bytes: &'a mut [u8],
    /// Bytes of the fragment behind these.
    behind: usize,
    /// Whether the fragment is the record's last.
    last: bool,
    /// Whether the head is complete with these bytes or before.
    has_head: bool,
    /// Whether it is complete with these bytes.
    ends_head: bool,
}

impl<const WORDS: usize> Records<WORDS> {
    fn new() -> Records<WORDS> {
        Records {
            mark: [0; 4],
            mark_len: 0,
            left: 0,
            last: false,
            head: [[0; 4]; WORDS],
            head_len: 0,
        }
    }

    /// Takes the next bytes of the stream, and shows the head so far with each piece of a record.
    fn feed(&mut self, mut bytes: &mut [u8], mut visit: impl FnMut([u32; WORDS], Piece<'_>)) {
        while !bytes.is_empty() {
            if self.left == 0 && !self.take_mark(&mut bytes) {
                continue;
            }
            let (piece, rest) = bytes.split_at_mut(self.left.min(bytes.len()));
            bytes = rest;
            self.left -= piece.len();
            let ends_head = self.take_head(piece);
            visit(
                self.head.map(u32::from_be_bytes),
                Piece {
                    bytes: piece,
                    behind: self.left,
                    last: self.last,
                    has_head: self.head_len == 4 * WORDS,
                    ends_head,
                },
            );
            if self.left == 0 && self.last {
                self.head_len = 0;
            }
        }
    }

    /// Takes bytes of a record mark; true once there is one, of a fragment that is not empty.
    fn take_mark(&mut self, bytes: &mut &mut [u8]) -> bool {
        while self.mark_len < 4 {
            let Some((first, rest)) = core::mem::take(bytes).split_first_mut() else {
                return false;
            };
            self.mark[self.mark_len] = *first;
            self.mark_len += 1;
            *bytes = rest;
        }
        self.mark_len = 0;
        let mark = u32::from_be_bytes(self.mark);
        self.last = mark >> 31 == 1;
        self.left = (mark & !(1 << 31)) as usize;
        if self.left == 0 && self.last {
            self.head_len = 0;
        }
        self.left > 0
    }

    /// Keeps what belongs to the head; true if that completes it.
    fn take_head(&mut self, bytes: &[u8]) -> bool {
        let head = self.head.as_flattened_mut();
        let n = bytes.len().min(head.len() - self.head_len);
        head[self.head_len..][..n].copy_from_slice(&bytes[..n]);
        self.head_len += n;
        n > 0 && self.head_len == head.len()
    }
}

impl Piece<'_> {
    fn ends_record(&self) -> bool {
        self.last && self.behind == 0
    }

    /// Puts `tail` at the end of the fragment, as far as that lies in these bytes.
    fn overwrite_tail(&mut self, tail: &[u8]) {
        let tail_here = tail.iter().rev().skip(self.behind);
        for (byte, &new) in self.bytes.iter_mut().rev().zip(tail_here) {
            *byte = new;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{CALL_WORDS, REPLY_WORDS, Records, Relay};

    const WRITE: u32 = 7;
    const READ: u32 = 6;
    const COMMIT: u32 = 21;
    const NFS: u32 = 100_003;
    const MOUNT: u32 = 100_005;
    const OLD: [u32; 2] = [0x0101_0101; 2];
    const NEW: [u8; 8] = [0x77; 8];
    const NEW_WORDS: [u32; 2] = [0x7777_7777; 2];

    /// Fragments of a stream.
    fn record(fragments: &[&[u32]]) -> Vec<u8> {
        let mut stream = Vec::new();
        for (i, words) in fragments.iter().enumerate() {
            let last = u32::from(i + 1 == fragments.len()) << 31;
            stream.extend_from_slice(&(last | (4 * words.len() as u32)).to_be_bytes());
            stream.extend(words.iter().flat_map(|word| word.to_be_bytes()));
        }
        stream
    }

    fn call(xid: u32, program: u32, procedure: u32) -> Vec<u8> {
        record(&[&[xid, 0, 2, program, 3, procedure, 0, 0, 0, 0, 9, 9]])
    }

    fn reply(xid: u32, accept: u32, status: u32, end: [u32; 2]) -> Vec<u8> {
        record(&[&[xid, 1, 0, 0, 0, accept, status, 5, 5, end[0], end[1]]])
    }

    /// Carries both streams in pieces of `size` bytes; gives what the client gets.
    fn carry(calls: &[Vec<u8>], replies: &[Vec<u8>], size: usize) -> Vec<u8> {
        let relay = Relay::new(NEW);
        let (sent, mut got) = (calls.concat(), replies.concat());
        let mut passed = sent.clone();
        let mut records = Records::<CALL_WORDS>::new();
        for piece in passed.chunks_mut(size) {
            relay.calls(&mut records, piece);
        }
        assert_eq!(passed, sent, "calls pass as they are");
        let mut records = Records::<REPLY_WORDS>::new();
        for piece in got.chunks_mut(size) {
            relay.replies(&mut records, piece);
        }
        assert!(relay.writes().is_empty(), "answered calls are forgotten");
        got
    }

    #[test]
    fn only_successful_writes_and_commits_get_the_verifier_however_the_stream_is_cut() {
        let calls = [
            call(1, NFS, WRITE),
            call(2, NFS, READ),
            call(3, NFS, COMMIT),
            call(4, NFS, WRITE),
            call(5, NFS, WRITE),
            // Procedure numbers mean something else in another program.
            call(6, MOUNT, WRITE),
        ];
        let replies = [
            reply(3, 0, 0, OLD),
            reply(2, 0, 0, OLD),
            reply(4, 0, 28, OLD),
            reply(5, 4, 0, OLD),
            reply(6, 0, 0, OLD),
            reply(1, 0, 0, OLD),
        ];
        let mut wanted = replies.clone();
        wanted[0] = reply(3, 0, 0, NEW_WORDS);
        wanted[5] = reply(1, 0, 0, NEW_WORDS);
        for size in 1..=replies.concat().len() {
            assert_eq!(carry(&calls, &replies, size), wanted.concat(), "{size}");
        }
    }

    #[test]
    fn a_call_in_several_fragments_is_recognised() {
        let calls = [record(&[&[1, 0, 2], &[], &[NFS, 3], &[COMMIT, 0, 0]])];
        for size in 1..=calls[0].len() {
            let got = carry(&calls, &[reply(1, 0, 0, OLD)], size);
            assert_eq!(got, reply(1, 0, 0, NEW_WORDS), "{size}");
        }
    }

    #[test]
    fn records_too_short_for_a_head_pass() {
        let short = [record(&[&[1, 1]]), record(&[&[]]), reply(1, 0, 0, OLD)];
        assert_eq!(
            carry(&[call(1, NFS, WRITE)], &short, 3),
            [&short[0][..], &short[1], &reply(1, 0, 0, NEW_WORDS)].concat()
        );
    }
}
