//! The steps from an export's path to a file that can be swapped to, and back again.

mod leasing;

use core::task::{Poll, ready};

use swapspace::{CLUSTER_FRAMES, Geometry, Instant, PageFrame};

use super::config::{FileMode, SwapFileConfig};
use super::lease::Own;
use crate::ablation::{Ablation, Mechanism};
use crate::client::{CallError, Client};
use crate::error::{ProtocolError, RequestError, Stage, SwapFileError};
use crate::mount::{self, Mnt, Umnt};
use crate::nfs3::{
    self, Access, AccessRights, Create, CreateHow, Fattr3, Fh, FileKind, Fsinfo, FsinfoReply,
    Getattr, Lookup, Nfsstat3, Remove, Sattr3, Setattr,
};
use crate::portmap::{self, GetPort};
use crate::rpc::Procedure;
use crate::url::NFS_PORT;
use leasing::Leasing;

/// Only its owner may read what was in memory.
const SWAP_FILE_MODE: u32 = 0o600;

/// Bytes of zeros in one WRITE, unless the server takes less.
const ZEROS_MAX: u32 = 256 * 1024;
/// Such WRITEs in flight at once: enough to keep a server busy, and few enough for a slow one to
/// answer each within its deadline.
const ZEROS_IN_FLIGHT: usize = 4;
/// Bytes in one WRITE, and one at a time, where a connection was lost with the former: a path that
/// loses packets in bursts bears that.
const ZEROS_GENTLE: u32 = 8 * 1024;

/// What came of a try to go on.
#[derive(Debug)]
pub(super) enum Progress {
    /// Nothing can be done before the server answers, or time passes.
    Waiting,
    /// There is more to do at once.
    Moved,
    /// There is nothing more to do.
    Finished(Result<(), SwapFileError>),
}

/// What an activation that failed may have left on the server, when it could not be removed again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Leftover {
    Nothing,
    /// CREATE was asked for and not answered: an empty file, perhaps.
    Perhaps,
    /// A file of ours that is not filled.
    File(Fh),
}

#[derive(Debug)]
pub(super) struct Setup {
    stage: Stage,
    nfs_port: Option<u16>,
    mount_port: Option<u16>,
    root: Fh,
    file: Fh,
    limits: FsinfoReply,
    /// Whether the file is there because we created it.
    created: bool,
    /// The file was there when CREATE was repeated: it may be ours, from the first time.
    perhaps_created: bool,
    /// CREATE said that the name exists.
    exists: bool,
    /// CREATE was asked for and not answered yet.
    creating: bool,
    /// The file is ready: it is nobody's leftover any more.
    ready: bool,
    /// What the activation before this one left behind.
    leftover: Leftover,
    lease: Leasing,
    /// The file is removed in order to be made afresh.
    anew: bool,
    /// Which has happened: the file is filled more gently now.
    gentle: bool,
    /// Bytes of zeros submitted, and bytes known to be stable.
    zeros_submitted: u64,
    zeros_done: u64,
    /// What went wrong, while we clean up behind it.
    failure: Option<SwapFileError>,
    /// The server asked to be left alone until then.
    not_before: Option<Instant>,
    /// When something last went ahead.
    moved_at: Instant,
    ablation: Ablation,
}

impl Setup {
    /// At the first step of activation.
    pub(super) fn new(
        config: &SwapFileConfig,
        ablation: Ablation,
        leftover: Leftover,
        lease: Own,
        now: Instant,
    ) -> Self {
        let nfs_port = config.port.or(config.mount_port.map(|_| NFS_PORT));
        let mount_port = config.mount_port.or(config.port);
        Setup {
            stage: match (mount_port, nfs_port) {
                (Some(_), Some(_)) => Stage::Mount,
                _ => Stage::Portmap,
            },
            nfs_port,
            mount_port,
            root: Fh::default(),
            file: Fh::default(),
            limits: FsinfoReply {
                read_max: 0,
                write_max: 0,
                file_size_max: 0,
            },
            created: false,
            perhaps_created: false,
            exists: false,
            creating: false,
            ready: false,
            leftover,
            lease: Leasing::new(lease),
            anew: false,
            gentle: false,
            zeros_submitted: 0,
            zeros_done: 0,
            failure: None,
            not_before: None,
            moved_at: now,
            ablation,
        }
    }

    /// What is left on the server now that everything has ended.
    pub(super) fn leftover(&self) -> Leftover {
        if self.ready {
            Leftover::Nothing
        } else if self.created && self.file != Fh::default() {
            Leftover::File(self.file.clone())
        } else if self.created || self.creating {
            Leftover::Perhaps
        } else {
            // Not reached: neither CREATE nor the file of an earlier try.
            self.leftover.clone()
        }
    }

    /// What of the lease is ours, or may be, now that everything has ended.
    pub(super) const fn lease_left(&self) -> Own {
        self.lease.own()
    }

    /// Activation has ended well.
    pub(super) const fn set_ready(&mut self) {
        self.ready = true;
    }

    /// Goes to the first step of deactivation.
    pub(super) fn put_away(&mut self, config: &SwapFileConfig, now: Instant) {
        let remove = self.created && config.remove_on_deactivate;
        let stage = match self.lease_lost() {
            // Another machine's by now, the file included.
            Some(_) => Stage::Unmount,
            None if remove && self.lease.is_held() => Stage::Renew,
            None if remove => Stage::Remove,
            None => self.farewell(),
        };
        self.enter(stage, now);
        self.lease.enter(stage);
    }

    /// Goes to the first step of giving an activation up, the connection having been dropped.
    pub(super) fn abandon(&mut self, now: Instant) {
        self.enter(
            if self.created {
                Stage::Remove
            } else {
                self.farewell()
            },
            now,
        );
    }

    /// What is left to do when the file is as it is to be.
    const fn farewell(&self) -> Stage {
        match self.lease.is_held() {
            true => Stage::Release,
            false => Stage::Unmount,
        }
    }

    pub(super) const fn stage(&self) -> Stage {
        self.stage
    }

    /// The port that the present step talks to.
    pub(super) fn port(&self) -> u16 {
        match self.stage {
            Stage::Portmap => portmap::PORT,
            Stage::Mount | Stage::Unmount => self.mount_port.unwrap_or(NFS_PORT),
            _ => self.nfs_port.unwrap_or(NFS_PORT),
        }
    }

    /// Starts the time that the present step has.
    pub(super) const fn start_clock(&mut self, now: Instant) {
        self.moved_at = now;
    }

    pub(super) const fn started_at(&self) -> Instant {
        self.moved_at
    }

    /// When the present step has had all its time.
    pub(super) fn gives_up_at(&self, config: &SwapFileConfig) -> Instant {
        self.moved_at
            + match self.stage {
                // A courtesy; not worth a long wait.
                Stage::Unmount => config.client.rpc_timeout.min(config.activation_timeout),
                Stage::Release if self.failure.is_some() => {
                    config.client.rpc_timeout.min(config.activation_timeout)
                }
                _ => config.activation_timeout,
            }
    }

    /// Whether it waits because the server asked for time.
    pub(super) const fn is_put_off(&self) -> bool {
        self.not_before.is_some()
    }

    /// Until when the server asked to be left alone.
    pub(super) const fn put_off_until(&self) -> Option<Instant> {
        self.not_before
    }

    /// When to go on at the latest.
    pub(super) fn wakes_at(&self, config: &SwapFileConfig) -> Instant {
        let end = self.gives_up_at(config);
        self.not_before
            .map_or(end, |not_before| not_before.min(end))
    }

    /// The shape of the file; it has passed all steps of activation.
    pub(super) fn geometry<const N: usize>(&self, config: &SwapFileConfig) -> Geometry {
        let pages = self.transfer_max() / config.page_size;
        Geometry {
            slots: config.slots,
            page_size: config.page_size,
            max_frames: pages.min(CLUSTER_FRAMES as u32) as u8,
            max_in_flight: u16::try_from(N).unwrap_or(u16::MAX),
        }
    }

    fn transfer_max(&self) -> u32 {
        self.limits.read_max.min(self.limits.write_max)
    }

    /// Goes on as far as one step.
    pub(super) fn advance<F: PageFrame, const N: usize>(
        &mut self,
        client: &mut Client<F, N>,
        config: &SwapFileConfig,
        now: Instant,
    ) -> Progress {
        match self.step(client, config, now) {
            Poll::Pending => Progress::Waiting,
            Poll::Ready(Ok(Some(stage))) => {
                self.enter(stage, now);
                Progress::Moved
            }
            Poll::Ready(Ok(None)) => Progress::Finished(self.failure.map_or(Ok(()), Err)),
            Poll::Ready(Err(error)) => self.fail(error, now),
        }
    }

    /// The present step has failed: cleans up behind it, if there is anything to clean up.
    pub(super) fn fail(&mut self, error: SwapFileError, now: Instant) -> Progress {
        let failed_before = self.failure.is_some();
        let next = match self.stage {
            Stage::Unmount => return Progress::Finished(self.failure.map_or(Ok(()), Err)),
            // What is left there is protected by the lease, until an activation makes it afresh.
            Stage::Remove if !failed_before && self.ready => Some(self.farewell()),
            Stage::Renew | Stage::Remove | Stage::Release if !failed_before => Some(Stage::Unmount),
            Stage::Renew | Stage::Remove | Stage::Release => None,
            _ if self.created => Some(Stage::Remove),
            _ => self.lease.is_held().then_some(Stage::Release),
        };
        let error = *self.failure.get_or_insert(error);
        match next {
            Some(stage) => {
                self.enter(stage, now);
                Progress::Moved
            }
            None => Progress::Finished(Err(error)),
        }
    }

    fn enter(&mut self, stage: Stage, now: Instant) {
        if self.stage != stage {
            self.lease.enter(stage);
        }
        self.stage = stage;
        self.moved_at = now;
        self.not_before = None;
    }

    /// Carries out the present step; the next one comes back, or `None` behind the last.
    fn step<F: PageFrame, const N: usize>(
        &mut self,
        client: &mut Client<F, N>,
        config: &SwapFileConfig,
        now: Instant,
    ) -> Poll<Result<Option<Stage>, SwapFileError>> {
        let (root, file) = (&self.root.clone(), &self.file.clone());
        let name = &config.file;
        Poll::Ready(Ok(Some(match self.stage {
            Stage::Portmap => ready!(self.find_port(client, now))?,
            Stage::Mount => ready!(self.mount(client, config, now))?,
            Stage::Fsinfo => {
                self.limits = ready!(self.nfs_call(client, &Fsinfo { root }, now))?;
                let most = client.config().framing.payload_max();
                self.limits.read_max = self.limits.read_max.min(most);
                self.limits.write_max = self.limits.write_max.min(most);
                self.check_limits(config)?;
                Stage::Lease
            }
            Stage::Lease => ready!(self.take_lease(client, config, now))?,
            Stage::Lookup => {
                let found = ready!(self.try_nfs_call(client, &Lookup { dir: root, name }, now))?;
                match found {
                    // A server that knows the name in one call and not in the other: what is
                    // there is no file for us, and asking again would go on for ever.
                    Err(Nfsstat3::NoEnt) if self.exists => {
                        self.stage = Stage::Create;
                        return Poll::Ready(Err(self.refused(Nfsstat3::Exist)));
                    }
                    Err(Nfsstat3::NoEnt) if config.mode == FileMode::CreateIfMissing => {
                        Stage::Create
                    }
                    found => {
                        let file = found.map_err(|status| self.refused(status))?;
                        self.found(file, client, config)
                    }
                }
            }
            Stage::Create => ready!(self.create(client, config, now))?,
            Stage::Resize => {
                let attributes = Sattr3 {
                    mode: None,
                    size: Some(config.size()),
                };
                ready!(self.nfs_call(
                    client,
                    &Setattr {
                        file,
                        attributes,
                        guard: None
                    },
                    now
                ))?;
                Stage::Preallocate
            }
            Stage::Preallocate => {
                ready!(self.fill(client, config, now))?;
                // Late zeros must find no file. But where datagrams are lost every now and then, a file
                // made afresh would fare no better, and they are waited for.
                let stray = client.zeros_are_stray();
                let loses = client.config().framing.is_datagram();
                self.anew = stray && !(loses && self.gentle);
                if self.anew {
                    Stage::Remove
                } else if stray && self.not_before.is_none_or(|quiet_until| quiet_until > now) {
                    let quiet = config.client.rpc_timeout.min(config.activation_timeout / 2);
                    self.not_before.get_or_insert(now + quiet);
                    return Poll::Pending;
                } else {
                    Stage::Verify
                }
            }
            Stage::Getattr | Stage::Verify => {
                let attributes = ready!(self.nfs_call(client, &Getattr { file }, now))?;
                if self.perhaps_created && attributes.size == 0 {
                    // Nobody has put anything into it since.
                    (self.created, self.perhaps_created) = (true, false);
                    return Poll::Ready(Ok(Some(Stage::Resize)));
                }
                self.check_file(attributes, config)?;
                Stage::Access
            }
            Stage::Access => {
                let rights = AccessRights::READ_MODIFY;
                let granted = ready!(self.nfs_call(client, &Access { file, rights }, now))?;
                return Poll::Ready(match granted.contains(rights) {
                    true => Ok(None),
                    false => Err(SwapFileError::NoAccess),
                });
            }
            Stage::Remove => {
                ready!(self.remove(client, config, now))?;
                if self.failure.is_some() {
                    let release = self.lease.is_held().then_some(Stage::Release);
                    return Poll::Ready(Ok(release));
                }
                if core::mem::take(&mut self.anew) {
                    self.gentle = true;
                    (self.zeros_submitted, self.zeros_done) = (0, 0);
                    Stage::Create
                } else {
                    self.farewell()
                }
            }
            Stage::Release => return self.release_lease(client, config, now),
            // Before the file is removed; while it is active, renewal has a driver of its own.
            Stage::Renew => {
                if let Some(ours) = &config.lease {
                    ready!(self.renew_lease(client, ours, now))?;
                }
                Stage::Remove
            }
            Stage::Unmount => {
                if self.root != Fh::default() {
                    let path = &config.export;
                    ready!(self.call(client, &Umnt { path }, now))?;
                }
                return Poll::Ready(Ok(None));
            }
        })))
    }

    fn find_port<F: PageFrame, const N: usize>(
        &mut self,
        client: &mut Client<F, N>,
        now: Instant,
    ) -> Poll<Result<Stage, SwapFileError>> {
        let protocol = client.config().framing.protocol();
        if self.mount_port.is_none() {
            let program = mount::PROGRAM;
            let port = ready!(self.call(client, &GetPort { program, protocol }, now))?;
            let program = program.number;
            self.mount_port = Some(port.ok_or(SwapFileError::NotRegistered { program })?);
            Poll::Ready(Ok(Stage::Portmap))
        } else {
            let program = nfs3::PROGRAM;
            let port = ready!(self.call(client, &GetPort { program, protocol }, now))?;
            self.nfs_port = Some(port.unwrap_or(NFS_PORT));
            Poll::Ready(Ok(Stage::Mount))
        }
    }

    fn mount<F: PageFrame, const N: usize>(
        &mut self,
        client: &mut Client<F, N>,
        config: &SwapFileConfig,
        now: Instant,
    ) -> Poll<Result<Stage, SwapFileError>> {
        let path = &config.export;
        let mounted = ready!(self.call(client, &Mnt { path }, now))?;
        let mounted = mounted.map_err(SwapFileError::Mount)?;
        self.root = mounted.root;
        Poll::Ready(match mounted.auth_sys {
            true => Ok(Stage::Fsinfo),
            false => Err(SwapFileError::NoAuthSys),
        })
    }

    fn create<F: PageFrame, const N: usize>(
        &mut self,
        client: &mut Client<F, N>,
        config: &SwapFileConfig,
        now: Instant,
    ) -> Poll<Result<Stage, SwapFileError>> {
        let call = Create {
            dir: &self.root.clone(),
            name: &config.file,
            how: CreateHow::Guarded,
            attributes: Sattr3 {
                mode: Some(SWAP_FILE_MODE),
                size: None,
            },
        };
        self.creating = true;
        let created = ready!(self.try_nfs_call(client, &call, now))?;
        self.creating = false;
        match created {
            Ok(file) => {
                self.created = true;
                Poll::Ready(Ok(match file {
                    Some(file) => self.found(file, client, config),
                    None => Stage::Lookup,
                }))
            }
            // Somebody was faster, and the file is theirs; or we were, and our answer was lost.
            Err(Nfsstat3::Exist) => {
                self.exists = true;
                self.perhaps_created = client.call_was_repeated();
                Poll::Ready(Ok(Stage::Lookup))
            }
            Err(status) => Poll::Ready(Err(self.refused(status))),
        }
    }

    /// The file is there; what is next depends on whose it is.
    fn found<F: PageFrame, const N: usize>(
        &mut self,
        file: Fh,
        client: &mut Client<F, N>,
        config: &SwapFileConfig,
    ) -> Stage {
        client.open(file.clone(), self.geometry::<N>(config));
        match core::mem::replace(&mut self.leftover, Leftover::Nothing) {
            // Zeros may still be on their way into it.
            Leftover::File(ours) if ours == file => (self.created, self.anew) = (true, true),
            Leftover::File(_) => {}
            Leftover::Perhaps => self.perhaps_created |= !self.created,
            Leftover::Nothing => {}
        }
        self.file = file;
        match self.created {
            true if self.anew => Stage::Remove,
            true => Stage::Resize,
            false => Stage::Getattr,
        }
    }

    /// Writes zeros from one end of the file to the other, as many at a time as there are slots.
    fn fill<F: PageFrame, const N: usize>(
        &mut self,
        client: &mut Client<F, N>,
        config: &SwapFileConfig,
        now: Instant,
    ) -> Poll<Result<(), SwapFileError>> {
        while let Some(result) = client.poll_zeros() {
            self.zeros_done += u64::from(result.map_err(|error| self.failed(error))?);
            self.moved_at = now;
        }
        let size = config.size();
        let (most, in_flight) = match self.gentle {
            false => (ZEROS_MAX, ZEROS_IN_FLIGHT),
            true => (ZEROS_GENTLE, 1),
        };
        let most = self.limits.write_max.min(most.max(config.page_size));
        while self.zeros_submitted < size && client.in_flight() < in_flight {
            let left = size - self.zeros_submitted;
            let len = u32::try_from(left).unwrap_or(u32::MAX).min(most);
            if !client.submit_zeros(self.zeros_submitted, len, now) {
                break;
            }
            self.zeros_submitted += u64::from(len);
        }
        match self.zeros_done == size {
            true => Poll::Ready(Ok(())),
            false => Poll::Pending,
        }
    }

    fn remove<F: PageFrame, const N: usize>(
        &mut self,
        client: &mut Client<F, N>,
        config: &SwapFileConfig,
        now: Instant,
    ) -> Poll<Result<(), SwapFileError>> {
        while client.poll_zeros().is_some() {
            self.moved_at = now;
        }
        if client.in_flight() > 0 {
            return Poll::Pending;
        }
        let call = Remove {
            dir: &self.root.clone(),
            name: &config.file,
        };
        match ready!(self.try_nfs_call(client, &call, now))? {
            // The answer to an earlier try may have been lost, or somebody was faster.
            Ok(()) | Err(Nfsstat3::NoEnt | Nfsstat3::Stale) => {
                self.created = false;
                self.file = Fh::default();
                Poll::Ready(Ok(()))
            }
            Err(status) => Poll::Ready(Err(self.refused(status))),
        }
    }

    fn check_limits(&self, config: &SwapFileConfig) -> Result<(), SwapFileError> {
        let (limit, page_size) = (self.transfer_max(), config.page_size);
        if limit < page_size {
            return Err(SwapFileError::TransferTooSmall { limit, page_size });
        }
        // Some servers do not know theirs and say 0.
        let (limit, needs) = (self.limits.file_size_max, config.size());
        if limit != 0 && limit < needs {
            return Err(SwapFileError::TooLarge { limit, needs });
        }
        Ok(())
    }

    fn check_file(&self, file: Fattr3, config: &SwapFileConfig) -> Result<(), SwapFileError> {
        if self.ablation.off(Mechanism::FileCheck) {
            return Ok(());
        }
        let (has, needs) = (file.size, config.size());
        if file.kind != FileKind::Regular {
            return Err(SwapFileError::NotRegular(file.kind));
        }
        if has < needs {
            return Err(SwapFileError::TooSmall { has, needs });
        }
        // What we have just filled has none; a server may count late, or compress zeros.
        if !self.created && !config.allow_holes && file.used < file.size {
            let (used, size) = (file.used, file.size);
            return Err(SwapFileError::Holes { used, size });
        }
        Ok(())
    }

    /// One call, and its answer when it has come.
    fn call<P: Procedure, F: PageFrame, const N: usize>(
        &mut self,
        client: &mut Client<F, N>,
        call: &P,
        now: Instant,
    ) -> Poll<Result<P::Reply, SwapFileError>> {
        let stage = self.stage;
        let bad_reply = |error| SwapFileError::BadReply { stage, error };
        if self.not_before.is_some_and(|not_before| not_before > now) {
            return Poll::Pending;
        }
        self.not_before = None;
        if !client.is_calling() {
            let started = client.start_call(call);
            started.map_err(|error| bad_reply(ProtocolError::Malformed(error)))?;
        }
        let reply = ready!(client.poll_call::<P>());
        Poll::Ready(reply.map_err(|error| match error {
            CallError::Rejected(reject) => SwapFileError::Rpc { stage, reject },
            CallError::BadReply(error) => bad_reply(error),
        }))
    }

    /// One call of NFS; a server that asks for time gets it.
    fn try_nfs_call<R, P, F: PageFrame, const N: usize>(
        &mut self,
        client: &mut Client<F, N>,
        call: &P,
        now: Instant,
    ) -> Poll<Result<Result<R, Nfsstat3>, SwapFileError>>
    where
        P: Procedure<Reply = Result<R, Nfsstat3>>,
    {
        let reply = ready!(self.call(client, call, now))?;
        if matches!(reply, Err(Nfsstat3::Jukebox)) {
            self.not_before = Some(now + client.config().retry_delay);
            return Poll::Pending;
        }
        Poll::Ready(Ok(reply))
    }

    /// One call of NFS that must succeed.
    fn nfs_call<R, P, F: PageFrame, const N: usize>(
        &mut self,
        client: &mut Client<F, N>,
        call: &P,
        now: Instant,
    ) -> Poll<Result<R, SwapFileError>>
    where
        P: Procedure<Reply = Result<R, Nfsstat3>>,
    {
        let reply = ready!(self.try_nfs_call(client, call, now))?;
        Poll::Ready(reply.map_err(|status| self.refused(status)))
    }

    const fn refused(&self, status: Nfsstat3) -> SwapFileError {
        let stage = self.stage;
        SwapFileError::Nfs { stage, status }
    }

    const fn failed(&self, error: RequestError) -> SwapFileError {
        let stage = self.stage;
        match error {
            RequestError::TimedOut | RequestError::Unsent => SwapFileError::TimedOut { stage },
            RequestError::Rejected(reject) => SwapFileError::Rpc { stage, reject },
            RequestError::Nfs(status) => SwapFileError::Nfs { stage, status },
            RequestError::FileEnded | RequestError::Cancelled => SwapFileError::Request(error),
        }
    }
}
