//! The lease of a swap file: a small file beside it that says whose it is.
//!
//! What is here is a record and the rules by which one is judged; the calls are made by activation,
//! deactivation and renewal.

use core::fmt;
use core::time::Duration;

use crate::error::SwapFileError;
use crate::xdr::{Reader, Writer, XdrError};

/// What a lease is called: the name of the swap file, and this.
pub(super) const SUFFIX: &str = ".lease";

/// The longest name of an owner, in bytes.
pub const OWNER_MAX: usize = 32;

const MAGIC: [u8; 8] = *b"NETSWAPL";
const VERSION: u32 = 1;

/// Bytes of a record. It has one size, so that a cut-off one is recognised.
pub(super) const LEASE_LEN: usize = 80;

/// An owner that renews its lease is given so many periods before it counts as gone.
const PERIODS: u32 = 3;

/// The name of a machine that swaps, 1 to [`OWNER_MAX`] bytes without control characters. No two
/// machines may have the same: by it a machine knows its own lease after a crash.
///
/// ```
/// use nfs_swap::Owner;
///
/// assert_eq!(Owner::new("node1").unwrap().as_str(), "node1");
/// assert_eq!(Owner::new(""), None);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Owner {
    len: u8,
    bytes: [u8; OWNER_MAX],
}

impl Owner {
    /// An owner of this name; `None` if it is empty, too long, or has control characters.
    #[must_use]
    pub fn new(name: &str) -> Option<Self> {
        if name.is_empty() || name.len() > OWNER_MAX || name.contains(char::is_control) {
            return None;
        }
        let mut bytes = [0; OWNER_MAX];
        bytes[..name.len()].copy_from_slice(name.as_bytes());
        let len = name.len() as u8;
        Some(Owner { len, bytes })
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // What `new` has taken is the whole of a `str`.
        core::str::from_utf8(&self.bytes[..usize::from(self.len)]).unwrap_or_default()
    }
}

impl fmt::Debug for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(feature = "defmt")]
impl defmt::Format for Owner {
    fn format(&self, f: defmt::Formatter<'_>) {
        defmt::write!(f, "{=str}", self.as_str());
    }
}

/// Who holds, or held, a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct LeaseHolder {
    /// The machine.
    pub owner: Owner,
    /// One boot of it.
    pub boot_id: u128,
}

impl fmt::Display for LeaseHolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (boot {:032x})", self.owner, self.boot_id)
    }
}

/// What to do about the lease of another machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum LeasePolicy {
    /// Refuse the file, naming the holder.
    Refuse,
    /// Take the lease over if its counter has not moved for this long, which activation waits. A
    /// holder that does not [renew](LeaseConfig::renews_every) its lease, or not three times within
    /// that time, is refused: its silence would mean nothing.
    TakeOverAfter(Duration),
    /// Take it over, whoever holds it: for an operator who knows that the holder is gone.
    TakeOver,
}

/// Exclusive use of a swap file, by a small file beside it, `FILE.lease`.
///
/// Activation takes the lease before it looks at the swap file; deactivation gives it back. Whoever
/// finds it held by somebody else [refuses the file](SwapFileError::InUse), or does as its
/// [policy](Self::policy) says. A crash leaves the lease behind, and the next boot of the same
/// owner takes it over ([`lease_taken_from`](crate::SwapFile::lease_taken_from) tells). Requests
/// never touch it (S5).
///
/// # How a race is decided
///
/// By the server. A lease that is not there is made by a guarded CREATE, in which one caller
/// succeeds. One that is to be taken over is emptied by a SETATTR that is guarded by the time of its
/// last change, in which one caller succeeds, too. The winner writes its name and reads it back; the
/// others see an empty lease, or the winner's. An empty one is given
/// [`rpc_timeout`](crate::ClientConfig::rpc_timeout) to be filled, then it counts as
/// [unclear](SwapFileError::LeaseUnclear), and is taken over only as the policy says, or if it may
/// be our own of a moment ago.
///
/// # What it cannot prevent
///
/// - A machine that uses the file without a lease.
/// - Two machines of one name: each takes the other for its own past.
/// - A holder whose lease was taken over, and who does not know: it goes on until it
///   [renews](crate::SwapFile::renew_lease), which tells it, and takes no more requests then.
///   [`LeasePolicy::TakeOver`] is for holders that are known to be gone, and
///   [`TakeOverAfter`](LeasePolicy::TakeOverAfter) for those that promise to renew.
/// - A winner whose WRITE is held up, in the network or a server, for so long that another finds
///   the lease empty for all the time that its policy gives.
/// - Late page-outs of an earlier holder that the server had read: as with every activation.
///
/// ```
/// use core::time::Duration;
/// use nfs_swap::{LeaseConfig, LeasePolicy, Owner, SwapFileConfig, SwapUrl};
///
/// let url = SwapUrl::parse("nfs://10.0.2.2:2049/srv/swap/node1")?;
/// let mut config = SwapFileConfig::new(&url, 65_536)?;
/// let boot_id = 0x5eed; // 128 random bits, from boot to boot
/// config.lease = Some(LeaseConfig {
///     policy: LeasePolicy::TakeOverAfter(Duration::from_secs(60)),
///     ..LeaseConfig::new(Owner::new("node1").unwrap(), boot_id)
/// });
/// # Ok::<(), nfs_swap::UrlError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct LeaseConfig {
    /// Who we are.
    pub owner: Owner,
    /// This boot: 64 random bits at least, different from boot to boot, and from one swap file to
    /// another in a system that has several. Only by it is a lease of an earlier boot told from one
    /// that is in use.
    pub boot_id: u128,
    /// What to do about another machine's lease: [`LeasePolicy::Refuse`] by default.
    pub policy: LeasePolicy,
    /// How often we promise to [renew](crate::SwapFile::renew_lease) the lease; `None`, the default,
    /// promises nothing, and then no other machine takes it over without an operator.
    pub renews_every: Option<Duration>,
}

impl LeaseConfig {
    /// A lease that yields to nobody.
    #[must_use]
    pub const fn new(owner: Owner, boot_id: u128) -> Self {
        LeaseConfig {
            owner,
            boot_id,
            policy: LeasePolicy::Refuse,
            renews_every: None,
        }
    }

    pub(super) const fn holder(&self) -> LeaseHolder {
        LeaseHolder {
            owner: self.owner,
            boot_id: self.boot_id,
        }
    }

    /// What to write into the lease for the `sequence`th time.
    pub(super) fn record(&self, sequence: u64) -> Record {
        // A promise of more than 49 days is none.
        let millis = self
            .renews_every
            .map_or(0, |period| u32::try_from(period.as_millis()).unwrap_or(0));
        Record {
            holder: self.holder(),
            sequence,
            renews_millis: millis,
        }
    }
}

/// The contents of a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) holder: LeaseHolder,
    /// Grows with every WRITE of it.
    pub(super) sequence: u64,
    /// How often its holder promises to renew it; 0 if it does not.
    renews_millis: u32,
}

impl Record {
    pub(super) fn emit(&self) -> [u8; LEASE_LEN] {
        let mut bytes = [0; LEASE_LEN];
        // All the fields are fixed, and make LEASE_LEN together (see the tests).
        let _ = self.write(&mut Writer::new(&mut bytes));
        let check = checksum(&bytes[..LEASE_LEN - 4]);
        bytes[LEASE_LEN - 4..].copy_from_slice(&check.to_be_bytes());
        bytes
    }

    fn write(&self, writer: &mut Writer<'_>) -> Result<(), XdrError> {
        let Owner { len, bytes } = self.holder.owner;
        writer.bytes(&MAGIC)?;
        writer.u32(VERSION)?;
        writer.u32(len.into())?;
        writer.bytes(&bytes)?;
        writer.bytes(&self.holder.boot_id.to_be_bytes())?;
        writer.u64(self.sequence)?;
        writer.u32(self.renews_millis)
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let (fields, check) = bytes.split_last_chunk::<4>()?;
        if bytes.len() != LEASE_LEN || checksum(fields) != u32::from_be_bytes(*check) {
            return None;
        }
        let mut reader = Reader::new(fields);
        if reader.array() != Ok(MAGIC) || reader.u32() != Ok(VERSION) {
            return None;
        }
        let len = reader.u32().ok()? as usize;
        let name: [u8; OWNER_MAX] = reader.array().ok()?;
        let name = core::str::from_utf8(name.get(..len)?).ok()?;
        Some(Record {
            holder: LeaseHolder {
                owner: Owner::new(name)?,
                boot_id: u128::from_be_bytes(reader.array().ok()?),
            },
            sequence: reader.u64().ok()?,
            renews_millis: reader.u32().ok()?,
        })
    }
}

/// FNV-1a of 32 bits: against what is torn or no lease, not against malice.
fn checksum(bytes: &[u8]) -> u32 {
    let mix = |sum: u32, byte: &u8| (sum ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
    bytes.iter().fold(0x811c_9dc5, mix)
}

/// What a lease file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen {
    /// Nothing: somebody is taking it, or died over that.
    Empty,
    /// A lease.
    Held(Record),
    /// Something else.
    Foreign,
}

impl Seen {
    pub(super) fn parse(bytes: &[u8]) -> Self {
        match Record::parse(bytes) {
            _ if bytes.is_empty() => Seen::Empty,
            Some(record) => Seen::Held(record),
            None => Seen::Foreign,
        }
    }

    pub(super) const fn holder(&self) -> Option<LeaseHolder> {
        match self {
            Seen::Held(record) => Some(record.holder),
            Seen::Empty | Seen::Foreign => None,
        }
    }
}

/// What this swap file itself has to do with the lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Own {
    /// Nothing.
    Nothing,
    /// It asked for the lease, and the answer was lost.
    Perhaps,
    /// It has the lease, whether or not its name is in it yet.
    Held,
}

/// What to do about a lease that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Claim,
    /// Look again when it has been as it is for this long.
    Wait(Duration),
    Refuse(SwapFileError),
}

/// Judges a lease which has been `seen` as it is for `unmoved`. An empty one is given `patience`.
pub(super) fn judge(
    seen: Seen,
    ours: &LeaseConfig,
    own: Own,
    unmoved: Duration,
    patience: Duration,
) -> Verdict {
    let after = |needed| match unmoved >= needed {
        true => Verdict::Claim,
        false => Verdict::Wait(needed),
    };
    match (seen, ours.policy) {
        (Seen::Foreign, _) => Verdict::Refuse(SwapFileError::LeaseUnclear),
        // A lost answer is no proof that the lease is ours: whoever else made it fills it soon.
        (Seen::Empty, _) if own != Own::Nothing => after(patience),
        (Seen::Empty, LeasePolicy::TakeOver) => after(patience),
        (Seen::Empty, LeasePolicy::TakeOverAfter(time)) => after(time.max(patience)),
        (Seen::Empty, LeasePolicy::Refuse) => match after(patience) {
            Verdict::Claim => Verdict::Refuse(SwapFileError::LeaseUnclear),
            wait => wait,
        },
        (Seen::Held(record), policy) => {
            let LeaseHolder { owner, boot_id } = record.holder;
            let in_use = Verdict::Refuse(SwapFileError::InUse { owner, boot_id });
            if owner == ours.owner {
                // Of this boot, and not of this swap file: of another one in this system.
                return match boot_id == ours.boot_id && own == Own::Nothing {
                    true => in_use,
                    false => Verdict::Claim,
                };
            }
            match policy {
                LeasePolicy::Refuse => in_use,
                LeasePolicy::TakeOver => Verdict::Claim,
                LeasePolicy::TakeOverAfter(time) => {
                    let promised = Duration::from_millis(record.renews_millis.into());
                    match promised.is_zero() || promised.saturating_mul(PERIODS) > time {
                        true => in_use,
                        false => after(time),
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn lease(name: &str, boot_id: u128) -> LeaseConfig {
        LeaseConfig::new(Owner::new(name).unwrap(), boot_id)
    }

    fn renewing(name: &str, period: Duration) -> Seen {
        let renews_every = Some(period);
        let config = LeaseConfig {
            renews_every,
            ..lease(name, 9)
        };
        Seen::Held(config.record(5))
    }

    fn verdict(seen: Seen, policy: LeasePolicy, own: Own, unmoved: Duration) -> Verdict {
        let ours = LeaseConfig {
            policy,
            ..lease("us", 1)
        };
        judge(seen, &ours, own, unmoved, SECOND)
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let name = core::str::from_utf8(&[b'n'; OWNER_MAX]).unwrap();
        for config in [lease("us", u128::MAX), lease(name, 7)] {
            let record = config.record(u64::MAX);
            assert_eq!(Seen::parse(&record.emit()), Seen::Held(record));
        }
    }

    #[test]
    fn the_fields_of_a_record_fill_it() {
        let mut bytes = [0; LEASE_LEN];
        let mut writer = Writer::new(&mut bytes);
        lease("us", 1).record(1).write(&mut writer).unwrap();
        assert_eq!(writer.len(), LEASE_LEN - 4);
    }

    #[test]
    fn every_bit_of_a_record_counts() {
        let bytes = lease("us", 1).record(1).emit();
        for bit in 0..LEASE_LEN * 8 {
            let mut bytes = bytes;
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Seen::parse(&bytes), Seen::Foreign, "bit {bit}");
        }
        assert_eq!(Seen::parse(&bytes[..LEASE_LEN - 1]), Seen::Foreign);
        assert_eq!(Seen::parse(&[]), Seen::Empty);
    }

    #[test]
    fn an_owner_has_a_name_that_can_be_printed() {
        assert_eq!(Owner::new("a\x1b[2J"), None);
        assert_eq!(Owner::new(""), None);
        let name = core::str::from_utf8(&[b'n'; OWNER_MAX + 1]).unwrap();
        assert_eq!(Owner::new(name), None);
    }

    #[test]
    fn our_lease_of_another_boot_is_taken_over_and_one_of_this_boot_is_in_use() {
        let (refuse, none) = (LeasePolicy::Refuse, Duration::ZERO);
        let past = Seen::Held(lease("us", 2).record(1));
        assert_eq!(verdict(past, refuse, Own::Nothing, none), Verdict::Claim);
        let present = Seen::Held(lease("us", 1).record(1));
        assert!(matches!(
            verdict(present, refuse, Own::Nothing, none),
            Verdict::Refuse(SwapFileError::InUse { boot_id: 1, .. })
        ));
        assert_eq!(verdict(present, refuse, Own::Held, none), Verdict::Claim);
    }

    #[test]
    fn another_machine_is_refused_unless_the_policy_says_else() {
        let (other, none) = (renewing("other", SECOND), Duration::ZERO);
        let after = LeasePolicy::TakeOverAfter(4 * SECOND);
        let in_use = |verdict| matches!(verdict, Verdict::Refuse(SwapFileError::InUse { .. }));
        let judge = |seen, policy, unmoved| verdict(seen, policy, Own::Nothing, unmoved);
        assert!(in_use(judge(other, LeasePolicy::Refuse, 99 * SECOND)));
        assert_eq!(judge(other, LeasePolicy::TakeOver, none), Verdict::Claim);
        assert_eq!(judge(other, after, none), Verdict::Wait(4 * SECOND));
        assert_eq!(judge(other, after, 4 * SECOND), Verdict::Claim);
        // Its silence means nothing.
        let silent = Seen::Held(lease("other", 9).record(1));
        assert!(in_use(judge(silent, after, 99 * SECOND)));
        let slow = renewing("other", 2 * SECOND);
        assert!(in_use(judge(slow, after, 99 * SECOND)));
    }

    #[test]
    fn an_empty_lease_is_waited_for() {
        let empty = |policy, own, unmoved| verdict(Seen::Empty, policy, own, unmoved);
        let (refuse, none) = (LeasePolicy::Refuse, Duration::ZERO);
        let wait = Verdict::Wait(SECOND);
        assert_eq!(empty(refuse, Own::Nothing, none), wait);
        assert_eq!(empty(refuse, Own::Perhaps, none), wait);
        assert_eq!(empty(LeasePolicy::TakeOver, Own::Nothing, none), wait);
        let unclear = Verdict::Refuse(SwapFileError::LeaseUnclear);
        assert_eq!(empty(refuse, Own::Nothing, SECOND), unclear);
        assert_eq!(empty(refuse, Own::Perhaps, SECOND), Verdict::Claim);
        let after = LeasePolicy::TakeOverAfter(2 * SECOND);
        assert_eq!(
            empty(after, Own::Nothing, SECOND),
            Verdict::Wait(2 * SECOND)
        );
    }

    #[test]
    fn what_is_no_lease_is_never_taken() {
        let takes = LeasePolicy::TakeOver;
        let unclear = Verdict::Refuse(SwapFileError::LeaseUnclear);
        assert_eq!(verdict(Seen::Foreign, takes, Own::Held, SECOND), unclear);
    }
}
