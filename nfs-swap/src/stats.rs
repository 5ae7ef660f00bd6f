//! Counters of one client, for whoever watches a system under pressure.

use core::fmt;

/// What a client has done since it was made. All counters only grow, `in_flight_peak` included.
///
/// Its `Display` is a small table, one counter to a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Stats {
    /// Calls put on the wire, repetitions included.
    pub calls: u64,
    /// Calls put on the wire again: after a lost connection, or because the answer to a datagram was
    /// overdue.
    pub resent: u64,
    /// Replies to calls of ours.
    pub replies: u64,
    /// Replies that nobody waits for: late ones, or foreign ones. They are skipped.
    pub foreign: u64,
    /// Datagrams that were no whole reply to the call that they named, cut off for example. They are
    /// dropped.
    pub malformed: u64,
    /// Datagrams from elsewhere than the server. They are dropped.
    pub strangers: u64,
    /// Connections dropped because the server sent nonsense.
    pub protocol_errors: u64,
    /// Connections dropped because the server said nothing for too long.
    pub silences: u64,
    /// Connections lost or dropped for any reason.
    pub resets: u64,
    /// READs that returned less than asked for, and were continued.
    pub short_reads: u64,
    /// WRITEs that stored less than was sent, and were continued.
    pub short_writes: u64,
    /// COMMITs sent.
    pub commits: u64,
    /// Requests written again because the write verifier changed: the server rebooted.
    pub verifier_changes: u64,
    /// Calls put off because the server asked for time (`NFS3ERR_JUKEBOX`).
    pub jukebox: u64,
    /// Requests tried again after a fault of the server.
    pub server_faults: u64,
    /// Requests that ended without an answer at their deadline.
    pub timed_out: u64,
    /// Bytes sent.
    pub bytes_out: u64,
    /// Bytes received.
    pub bytes_in: u64,
    /// The most requests in flight at once.
    pub in_flight_peak: u16,
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in [
            ("calls", self.calls),
            ("calls resent", self.resent),
            ("replies", self.replies),
            ("foreign replies", self.foreign),
            ("malformed replies", self.malformed),
            ("from strangers", self.strangers),
            ("protocol errors", self.protocol_errors),
            ("silences", self.silences),
            ("connection resets", self.resets),
            ("short reads", self.short_reads),
            ("short writes", self.short_writes),
            ("commits", self.commits),
            ("verifier changes", self.verifier_changes),
            ("put off (jukebox)", self.jukebox),
            ("server faults", self.server_faults),
            ("timed out", self.timed_out),
            ("bytes out", self.bytes_out),
            ("bytes in", self.bytes_in),
            ("in flight, peak", u64::from(self.in_flight_peak)),
        ] {
            writeln!(f, "{name:<18} {value:>14}")?;
        }
        Ok(())
    }
}
