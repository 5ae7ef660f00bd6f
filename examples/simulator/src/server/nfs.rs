//! A portmapper, a MOUNT and an NFS server over one file in memory.
//!
//! One RPC record goes in, one reply comes out; there is no I/O, no clock and no chance in it. It is
//! strict: what RFC 1813 and RFC 5531 do not allow a client to send is [`Garbled`]. It has no cache
//! of replies, so a repeated CREATE or REMOVE is carried out again. What it may do differently from
//! one call to the next is in [`Manners`].
//!
//! Nobody's permissions are checked. Owners, groups and times that a client sets are ignored.

mod call;
mod disk;
mod procedures;
#[cfg(test)]
mod tests;

use nfs3_types::mount::dirpath;
use nfs3_types::nfs3::{COMMIT3args, READ3args, WRITE3args, nfsstat3};
use nfs3_types::rpc::{
    accept_stat_data, accepted_reply, msg_body, opaque_auth, reply_body, rpc_msg,
};
use nfs3_types::xdr_codec::Void;

pub(crate) use self::call::{Call, Garbled, Procedure};
use self::call::{read, write};
use self::disk::{File, SIZE_MAX};

/// The id of the exported directory; files have higher ones.
const ROOT: u64 = 1;

/// What the server is told to do wrong, or differently, at the moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Manners {
    /// READ and WRITE answer with about half the bytes asked for, never with none: READ with any
    /// number, WRITE with a multiple of 1000 or else of 4, as long as there is one.
    pub(crate) short: bool,
    /// WRITE keeps data unstable, and says so, whatever was asked for: the client must COMMIT.
    pub(crate) unstable: bool,
    /// READ, WRITE and COMMIT do nothing, and answer with this status (not `NFS3_OK`).
    pub(crate) refuse: Option<nfsstat3>,
    /// WRITE makes data stable, and says so, whatever was asked for; `unstable` goes first.
    pub(crate) promise_more: bool,
}

/// What to serve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ServerConfig {
    /// The path that can be mounted.
    pub(crate) export: String,
    /// The only name that a file in it may have.
    pub(crate) file: String,
    /// The most bytes in one READ or WRITE; longer ones are answered short.
    pub(crate) transfer_max: u32,
    /// Bytes of file data that fit, holes not counted; `None` for any number.
    pub(crate) capacity: Option<u64>,
    /// The file that is there at the start.
    pub(crate) existing: Option<Existing>,
    /// What the portmapper says for MOUNT and NFS, both.
    pub(crate) port: u16,
}

/// A file of zeros that is there at the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Existing {
    /// Its length.
    pub(crate) size: u64,
    /// Bytes of storage that it takes, at most its length: what is missing is a hole at its end.
    pub(crate) used: u64,
}

/// An answer, and to what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reply {
    /// An RPC record without its mark.
    pub(crate) bytes: Vec<u8>,
    /// What was asked.
    pub(crate) call: Call,
}

/// The server, with its disk.
#[derive(Debug, Clone)]
pub(crate) struct NfsServer {
    config: ServerConfig,
    /// The write verifier: tells clients of a reboot.
    boot: u64,
    file: Option<File>,
    /// The id of the latest file.
    last_id: u64,
    /// Counts changes, in place of a clock.
    changes: u32,
    /// The change that the directory last had.
    root_changed: u32,
}

impl NfsServer {
    /// A server in its first boot, which is named by `boot`.
    pub(crate) fn new(config: ServerConfig, boot: u64) -> Self {
        let id = ROOT + 1;
        let existing = config.existing;
        NfsServer {
            config,
            boot,
            file: existing.map(|Existing { size, used }| File::new(id, size, used)),
            last_id: id,
            changes: 0,
            root_changed: 0,
        }
    }

    /// Carries out one call: an RPC record without its mark.
    ///
    /// # Errors
    ///
    /// [`Garbled`]: the record is no call that a client may send, and has no reply.
    pub(crate) fn answer(&mut self, record: &[u8], manners: &Manners) -> Result<Reply, Garbled> {
        let (mut call, args) = call::parse(record)?;
        let mut bytes = Vec::new();
        write(&mut bytes, &success(call.xid));
        self.carry_out(&mut call, args, manners, &mut bytes)?;
        Ok(Reply { bytes, call })
    }

    /// The power fails: unstable data are gone. The next boot is named by `boot`.
    pub(crate) fn reboot(&mut self, boot: u64) {
        self.boot = boot;
        if let Some(file) = &mut self.file {
            file.lose_unstable();
        }
    }

    /// Somebody else cuts the file, or makes it longer by a hole.
    pub(crate) fn truncate(&mut self, size: u64) {
        let now = self.tick();
        if let Some(file) = &mut self.file {
            file.resize(size.min(SIZE_MAX));
            file.changed = now;
        }
    }

    /// Somebody else removes the file; its handle is stale from now on.
    pub(crate) fn remove(&mut self) {
        if self.file.take().is_some() {
            self.root_changed = self.tick();
        }
    }

    /// Whether the file is there.
    pub(crate) fn exists(&self) -> bool {
        self.file.is_some()
    }

    /// Bytes that a power failure would take.
    pub(crate) fn unstable_bytes(&self) -> usize {
        self.file.as_ref().map_or(0, File::unstable_bytes)
    }

    /// What a power failure would leave of a page; `None` if it is not within the file.
    pub(crate) fn stable_page(&self, slot: u64, page_size: u32) -> Option<Vec<u8>> {
        let start = slot.checked_mul(u64::from(page_size))?;
        let end = start.checked_add(u64::from(page_size))?;
        let page = self.file.as_ref()?.read_stable(start..end);
        (page.len() as u64 == u64::from(page_size)).then_some(page)
    }
}

impl NfsServer {
    /// The time of a change that is happening now.
    fn tick(&mut self) -> u32 {
        self.changes = self.changes.wrapping_add(1);
        self.changes
    }

    /// Reads the arguments, does what they say, and writes the results.
    fn carry_out(
        &mut self,
        call: &mut Call,
        args: &[u8],
        manners: &Manners,
        results: &mut Vec<u8>,
    ) -> Result<(), Garbled> {
        let what = call.procedure;
        match what {
            Procedure::Null => write(results, &read::<Void>(what, args)?),
            Procedure::GetPort => write(results, &self.get_port(&read(what, args)?)),
            Procedure::Mnt => write(results, &self.mount(&read(what, args)?)),
            Procedure::Umnt => read::<dirpath<'static>>(what, args).map(drop)?,
            Procedure::Getattr => write(results, &self.getattr(&read(what, args)?)),
            Procedure::Setattr => write(results, &self.setattr(&read(what, args)?)),
            Procedure::Lookup => write(results, &self.lookup(&read(what, args)?)),
            Procedure::Access => write(results, &self.access(&read(what, args)?)),
            Procedure::Read => {
                let args: READ3args = read(what, args)?;
                (call.offset, call.count) = (args.offset, args.count);
                write(results, &self.read(&args, manners));
            }
            Procedure::Write => {
                let args: WRITE3args<'static> = read(what, args)?;
                (call.offset, call.count) = (args.offset, args.count);
                if args.data.len() as u64 != u64::from(args.count) {
                    return Err(Garbled("WRITE: count is not the length of the data".into()));
                }
                write(results, &self.write(args, manners));
            }
            Procedure::Create => write(results, &self.create(&read(what, args)?)),
            Procedure::Remove => write(results, &self.remove_name(&read(what, args)?)),
            Procedure::Fsinfo => write(results, &self.fsinfo(&read(what, args)?)),
            Procedure::Commit => {
                let args: COMMIT3args = read(what, args)?;
                (call.offset, call.count) = (args.offset, args.count);
                write(results, &self.commit(&args, manners));
            }
        }
        Ok(())
    }
}

/// The head of a reply whose results follow.
fn success(xid: u32) -> rpc_msg<'static, 'static> {
    rpc_msg {
        xid,
        body: msg_body::REPLY(reply_body::MSG_ACCEPTED(accepted_reply {
            verf: opaque_auth::default(),
            reply_data: accept_stat_data::SUCCESS,
        })),
    }
}
