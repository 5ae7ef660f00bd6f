//! The calls by which the lease is taken, renewed and given back.

use core::task::{Poll, ready};
use core::time::Duration;

use swapspace::{Instant, PageFrame};

use super::{Setup, Stage};
use crate::client::Client;
use crate::error::SwapFileError;
use crate::nfs3::{
    Commit, Create, CreateHow, Fh, Lookup, NAME_MAX, NfsTime3, Nfsstat3, Read, ReadSmall, Remove,
    Sattr3, Setattr, SmallFile, StableHow, Write, WriteReply, WriteSmall, WriteVerifier,
};
use crate::swapfile::config::SwapFileConfig;
use crate::swapfile::lease::{
    LEASE_LEN, LeaseConfig, LeaseHolder, Own, Record, SUFFIX, Seen, Verdict, judge,
};

/// Every machine may read whose the file is.
const LEASE_MODE: u32 = 0o644;

/// A lease that changes under our hands so many times is not worth another try.
const RACES_MAX: u8 = 8;

/// A lease that is waited for is looked at so many times at least.
const LOOKS: u32 = 4;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Makes the lease, if there is none.
    Create,
    Lookup,
    /// Looks at what is in it.
    Inspect,
    /// Empties it, if nobody has touched it since.
    Claim,
    /// Writes our name into it.
    Write,
    Commit(WriteVerifier),
    /// Looks whether our name stands in it.
    ReadBack,
    Remove,
}

/// What is known of the lease, and what is to be done next about it.
#[derive(Debug)]
pub(super) struct Leasing {
    step: Step,
    file: Fh,
    own: Own,
    /// CREATE or SETATTR was asked for and not answered yet.
    asked: bool,
    /// The lease was made by us just now: nobody else's name can be in it.
    fresh: bool,
    /// What was seen last, when it was last changed, and since when we have seen it so.
    seen: Option<(Seen, Option<NfsTime3>)>,
    since: Instant,
    sequence: u64,
    races: u8,
    taken_from: Option<LeaseHolder>,
    lost: Option<SwapFileError>,
}

impl Leasing {
    /// At the first step; `own` is what the activation before this one left behind.
    pub(super) const fn new(own: Own) -> Self {
        Leasing {
            step: Step::Create,
            file: Fh::EMPTY,
            own,
            asked: false,
            fresh: false,
            seen: None,
            since: Instant::ZERO,
            sequence: 0,
            races: 0,
            taken_from: None,
            lost: None,
        }
    }

    /// What the next activation has to know.
    pub(super) const fn own(&self) -> Own {
        match self.own {
            Own::Nothing if self.asked => Own::Perhaps,
            own => own,
        }
    }

    pub(super) const fn is_held(&self) -> bool {
        matches!(self.own, Own::Held)
    }

    /// Goes to the first step of taking the lease, or of giving it back.
    pub(super) fn enter(&mut self, stage: Stage) {
        self.step = match stage {
            Stage::Lease => Step::Create,
            _ if self.file == Fh::EMPTY => Step::Remove,
            _ => Step::Inspect,
        };
    }

    fn look_again(&mut self, step: Step) -> Result<(), SwapFileError> {
        self.races += 1;
        self.step = step;
        match self.races > RACES_MAX {
            true => Err(SwapFileError::LeaseUnclear),
            false => Ok(()),
        }
    }

    /// Notes what is in the lease. Whether its holder has renewed it since the last look: it lives.
    fn note(&mut self, small: &SmallFile, now: Instant) -> (Seen, bool) {
        let seen = Seen::parse(&small.bytes);
        let ctime = small.attributes.map(|attributes| attributes.ctime);
        let before = self.seen.map(|(before, _)| before);
        if self.seen != Some((seen, ctime)) {
            self.seen = Some((seen, ctime));
            self.since = now;
        }
        let holder = before.and_then(|before| before.holder());
        let renewed = holder.is_some() && holder == seen.holder() && before != Some(seen);
        (seen, renewed)
    }

    fn record(&self, ours: &LeaseConfig) -> Record {
        ours.record(self.sequence)
    }
}

impl Setup {
    /// Who had left the lease behind that this activation took over.
    pub(in crate::swapfile) const fn lease_taken_from(&self) -> Option<LeaseHolder> {
        self.lease.taken_from
    }

    /// Whether the lease was found in other hands since.
    pub(in crate::swapfile) const fn lease_lost(&self) -> Option<SwapFileError> {
        self.lease.lost
    }

    /// Makes the lease ours; what is next is to look the swap file up.
    pub(super) fn take_lease<F: PageFrame, const N: usize>(
        &mut self,
        client: &mut Client<F, N>,
        config: &SwapFileConfig,
        now: Instant,
    ) -> Poll<Result<Stage, SwapFileError>> {
        let Some(ours) = &config.lease else {
            return Poll::Ready(Ok(Stage::Lookup));
        };
        match self.lease.step {
            Step::Create | Step::Remove => ready!(self.create_lease(client, config, now))?,
            Step::Lookup => {
                let (dir, name) = (&self.root.clone(), &lease_name(config));
                match ready!(self.try_nfs_call(client, &Lookup { dir, name }, now))? {
                    Ok(file) => {
                        self.lease.file = file;
                        self.lease.step = match self.lease.fresh {
                            true => Step::Write,
                            false => Step::Inspect,
                        };
                    }
                    Err(Nfsstat3::NoEnt) => self.lease.look_again(Step::Create)?,
                    Err(status) => return Poll::Ready(Err(self.refused(status))),
                }
            }
            Step::Inspect => {
                let small = match ready!(self.read_lease(client, now))? {
                    Ok(small) => small,
                    Err(Nfsstat3::Stale | Nfsstat3::NoEnt) => {
                        self.lease.look_again(Step::Create)?;
                        return Poll::Ready(Ok(Stage::Lease));
                    }
                    Err(status) => return Poll::Ready(Err(self.refused(status))),
                };
                ready!(self.inspect(&small, ours, config, now))?;
            }
            Step::Claim => ready!(self.claim_lease(client, ours, now))?,
            Step::Write => {
                let reply = ready!(self.write_lease(client, ours, now))?;
                if reply.count as usize != LEASE_LEN {
                    self.lease.look_again(Step::Write)?;
                } else if reply.committed == StableHow::Unstable {
                    self.lease.step = Step::Commit(reply.verifier);
                } else {
                    self.lease.step = Step::ReadBack;
                }
            }
            Step::Commit(verifier) => {
                let file = &self.lease.file.clone();
                let (offset, count) = (0, LEASE_LEN as u32);
                let call = Commit {
                    file,
                    offset,
                    count,
                };
                match ready!(self.nfs_call(client, &call, now))? == verifier {
                    true => self.lease.step = Step::ReadBack,
                    false => self.lease.look_again(Step::Write)?,
                }
            }
            Step::ReadBack => {
                let read = ready!(self.read_lease(client, now))?;
                let seen = read.map_or(Seen::Empty, |small| Seen::parse(&small.bytes));
                if seen == Seen::Held(self.lease.record(ours)) {
                    return Poll::Ready(Ok(Stage::Lookup));
                }
                self.lease.own = Own::Nothing;
                return Poll::Ready(Err(in_use(seen)));
            }
        }
        Poll::Ready(Ok(Stage::Lease))
    }

    fn create_lease<F: PageFrame, const N: usize>(
        &mut self,
        client: &mut Client<F, N>,
        config: &SwapFileConfig,
        now: Instant,
    ) -> Poll<Result<(), SwapFileError>> {
        let call = Create {
            dir: &self.root.clone(),
            name: &lease_name(config),
            how: CreateHow::Guarded,
            attributes: Sattr3 {
                mode: Some(LEASE_MODE),
                size: None,
            },
        };
        self.lease.asked = true;
        let created = ready!(self.try_nfs_call(client, &call, now))?;
        self.lease.asked = false;
        let lease = &mut self.lease;
        match created {
            Ok(file) => {
                lease.own = Own::Held;
                lease.fresh = true;
                lease.sequence = 1;
                lease.step = match &file {
                    Some(_) => Step::Write,
                    None => Step::Lookup,
                };
                lease.file = file.unwrap_or(Fh::EMPTY);
            }
            Err(Nfsstat3::Exist) => {
                if lease.own == Own::Nothing && client.call_was_repeated() {
                    lease.own = Own::Perhaps;
                }
                lease.step = Step::Lookup;
            }
            Err(status) => return Poll::Ready(Err(self.refused(status))),
        }
        Poll::Ready(Ok(()))
    }

    fn inspect(
        &mut self,
        small: &SmallFile,
        ours: &LeaseConfig,
        config: &SwapFileConfig,
        now: Instant,
    ) -> Poll<Result<(), SwapFileError>> {
        let lease = &mut self.lease;
        let (seen, renewed) = lease.note(small, now);
        if renewed && seen.holder() != Some(ours.holder()) {
            return Poll::Ready(Err(in_use(seen)));
        }
        let unmoved = now.since(lease.since);
        let patience = config.client.rpc_timeout;
        match judge(seen, ours, lease.own, unmoved, patience) {
            Verdict::Claim => {
                lease.step = Step::Claim;
                Poll::Ready(Ok(()))
            }
            Verdict::Wait(needed) => {
                let left = needed.saturating_sub(unmoved);
                let look = (needed / LOOKS).min(config.activation_timeout / 2);
                self.not_before = Some(now + left.min(look.max(Duration::from_micros(1))));
                // We wait, and the server has answered.
                self.moved_at = now;
                Poll::Pending
            }
            Verdict::Refuse(error) => {
                if seen.holder().is_some() {
                    lease.own = Own::Nothing;
                }
                Poll::Ready(Err(error))
            }
        }
    }

    /// Empties a lease that nobody has touched since we looked at it: of several who do, the server
    /// lets one succeed.
    fn claim_lease<F: PageFrame, const N: usize>(
        &mut self,
        client: &mut Client<F, N>,
        ours: &LeaseConfig,
        now: Instant,
    ) -> Poll<Result<(), SwapFileError>> {
        let (seen, guard) = self.lease.seen.unwrap_or((Seen::Empty, None));
        let call = Setattr {
            file: &self.lease.file.clone(),
            attributes: Sattr3 {
                mode: None,
                size: Some(0),
            },
            guard,
        };
        self.lease.asked = true;
        let claimed = ready!(self.try_nfs_call(client, &call, now))?;
        let lease = &mut self.lease;
        lease.asked = false;
        match claimed {
            Ok(()) => {
                lease.own = Own::Held;
                lease.taken_from = seen.holder().filter(|holder| *holder != ours.holder());
                lease.sequence = match seen {
                    Seen::Held(record) => record.sequence.wrapping_add(1),
                    _ => 1,
                };
                lease.step = Step::Write;
            }
            Err(Nfsstat3::NotSync) => {
                // Somebody was faster; or we were, and our answer was lost.
                if lease.own == Own::Nothing && client.call_was_repeated() {
                    lease.own = Own::Perhaps;
                }
                lease.seen = None;
                lease.look_again(Step::Inspect)?;
            }
            Err(Nfsstat3::Stale | Nfsstat3::NoEnt) => lease.look_again(Step::Create)?,
            Err(status) => return Poll::Ready(Err(self.refused(status))),
        }
        Poll::Ready(Ok(()))
    }

    /// Removes the lease, if it is ours still.
    pub(super) fn release_lease<F: PageFrame, const N: usize>(
        &mut self,
        client: &mut Client<F, N>,
        config: &SwapFileConfig,
        now: Instant,
    ) -> Poll<Result<Option<Stage>, SwapFileError>> {
        let next = match self.failure.is_some() && !self.ready {
            true => None,
            false => Some(Stage::Unmount),
        };
        if self.lease.step == Step::Inspect {
            match ready!(self.read_lease(client, now))? {
                Ok(small) => match Seen::parse(&small.bytes).holder() {
                    holder if holder == config.lease.map(|ours| ours.holder()) => {}
                    // Our name is not in it yet.
                    None if small.bytes.is_empty() => {}
                    to => {
                        self.lease.own = Own::Nothing;
                        self.failure.get_or_insert(SwapFileError::LeaseLost { to });
                        return Poll::Ready(Ok(next));
                    }
                },
                Err(Nfsstat3::Stale | Nfsstat3::NoEnt) => {
                    self.lease.own = Own::Nothing;
                    return Poll::Ready(Ok(next));
                }
                Err(status) => return Poll::Ready(Err(self.refused(status))),
            }
            self.lease.step = Step::Remove;
            return Poll::Ready(Ok(Some(Stage::Release)));
        }
        let (dir, name) = (&self.root.clone(), &lease_name(config));
        match ready!(self.try_nfs_call(client, &Remove { dir, name }, now))? {
            // The answer to an earlier try may have been lost.
            Ok(()) | Err(Nfsstat3::NoEnt | Nfsstat3::Stale) => {
                self.lease.own = Own::Nothing;
                Poll::Ready(Ok(next))
            }
            Err(status) => Poll::Ready(Err(self.refused(status))),
        }
    }

    /// Looks whether the lease is still ours, and moves its counter on.
    pub(in crate::swapfile) fn renew_lease<F: PageFrame, const N: usize>(
        &mut self,
        client: &mut Client<F, N>,
        ours: &LeaseConfig,
        now: Instant,
    ) -> Poll<Result<(), SwapFileError>> {
        if self.stage != Stage::Renew {
            self.enter(Stage::Renew, now);
        }
        if self.lease.step == Step::Inspect {
            let to = match ready!(self.read_lease(client, now))? {
                Ok(small) => match Seen::parse(&small.bytes) {
                    Seen::Held(record) if record.holder == ours.holder() => {
                        self.lease.sequence = record.sequence.wrapping_add(1);
                        self.lease.step = Step::Write;
                        None
                    }
                    seen => Some(seen.holder()),
                },
                Err(Nfsstat3::Stale | Nfsstat3::NoEnt) => Some(None),
                Err(status) => return Poll::Ready(Err(self.refused(status))),
            };
            if let Some(to) = to {
                let lost = SwapFileError::LeaseLost { to };
                self.lease.own = Own::Nothing;
                self.lease.lost = Some(lost);
                return Poll::Ready(Err(lost));
            }
        }
        let written = ready!(self.write_lease(client, ours, now));
        self.lease.step = Step::Inspect;
        Poll::Ready(written.map(drop))
    }

    fn read_lease<F: PageFrame, const N: usize>(
        &mut self,
        client: &mut Client<F, N>,
        now: Instant,
    ) -> Poll<Result<Result<SmallFile, Nfsstat3>, SwapFileError>> {
        // One byte more than a lease has: what is longer is none.
        let call = ReadSmall(Read {
            file: &self.lease.file.clone(),
            offset: 0,
            count: LEASE_LEN as u32 + 1,
        });
        self.try_nfs_call(client, &call, now)
    }

    fn write_lease<F: PageFrame, const N: usize>(
        &mut self,
        client: &mut Client<F, N>,
        ours: &LeaseConfig,
        now: Instant,
    ) -> Poll<Result<WriteReply, SwapFileError>> {
        let payload = &self.lease.record(ours).emit();
        let call = Write {
            file: &self.lease.file.clone(),
            offset: 0,
            count: LEASE_LEN as u32,
            stable: StableHow::FileSync,
        };
        self.nfs_call(client, &WriteSmall { call, payload }, now)
    }
}

fn in_use(seen: Seen) -> SwapFileError {
    match seen.holder() {
        Some(LeaseHolder { owner, boot_id }) => SwapFileError::InUse { owner, boot_id },
        None => SwapFileError::LeaseUnclear,
    }
}

fn lease_name(config: &SwapFileConfig) -> heapless::String<NAME_MAX> {
    let mut name = heapless::String::new();
    // NAME_MAX is the longest name of a swap file and the suffix (see the tests).
    let _ = name.push_str(&config.file);
    let _ = name.push_str(SUFFIX);
    name
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::url::FILE_MAX;

    #[test]
    fn the_longest_name_and_one_byte_too_many_fit() {
        assert_eq!(FILE_MAX + SUFFIX.len(), NAME_MAX);
        let bytes = heapless::Vec::new();
        let small = SmallFile {
            bytes,
            attributes: None,
        };
        assert!(LEASE_LEN < small.bytes.capacity());
    }
}
