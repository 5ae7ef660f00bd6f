//! Calls: what a record asks for, read strictly.
//!
//! `nfs3_types` makes room for whatever length it is told, and overlooks padding that is not zero.
//! Here, lengths are looked at first, and what was read is written again to compare.

use core::fmt;

use nfs3_types::nfs3::{self, NFS_PROGRAM};
use nfs3_types::rpc::{auth_flavor, auth_unix, call_body, msg_type};
use nfs3_types::xdr_codec::{Pack, Unpack};
use nfs3_types::{mount, portmap};

/// Why a record is no call that a server would carry out: a bug of the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Garbled(pub(crate) String);

impl fmt::Display for Garbled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl core::error::Error for Garbled {}

/// What was asked, for traces and checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Call {
    /// Names the call; a repeated call has the same.
    pub(crate) xid: u32,
    /// What to do.
    pub(crate) procedure: Procedure,
    /// Of READ, WRITE and COMMIT: where in the file. Otherwise 0.
    pub(crate) offset: u64,
    /// Of READ, WRITE and COMMIT: how many bytes. Otherwise 0.
    pub(crate) count: u32,
}

/// The procedures that are served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Procedure {
    /// Of any of the three programs.
    Null,
    /// Of the portmapper.
    GetPort,
    /// Of MOUNT, as is the next; the others are of NFS.
    Mnt,
    Umnt,
    Getattr,
    Setattr,
    Lookup,
    Access,
    Read,
    Write,
    Create,
    Remove,
    Fsinfo,
    Commit,
}

impl fmt::Display for Procedure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Procedure::Null => "NULL",
            Procedure::GetPort => "GETPORT",
            Procedure::Mnt => "MNT",
            Procedure::Umnt => "UMNT",
            Procedure::Getattr => "GETATTR",
            Procedure::Setattr => "SETATTR",
            Procedure::Lookup => "LOOKUP",
            Procedure::Access => "ACCESS",
            Procedure::Read => "READ",
            Procedure::Write => "WRITE",
            Procedure::Create => "CREATE",
            Procedure::Remove => "REMOVE",
            Procedure::Fsinfo => "FSINFO",
            Procedure::Commit => "COMMIT",
        })
    }
}

/// Reads the head of a call; its arguments come back, not yet looked at but for their lengths.
pub(super) fn parse(mut record: &[u8]) -> Result<(Call, &[u8]), Garbled> {
    lengths("the head of a call", record, HEAD)?;
    let xid = read_some("xid", &mut record)?;
    match read_some("message type", &mut record)? {
        msg_type::CALL => {}
        msg_type::REPLY => return Err(Garbled("a reply where a call was due".into())),
    }
    let head: call_body<'static> = read_some("the head of a call", &mut record)?;
    if head.rpcvers != nfs3_types::rpc::RPC_VERSION_2 {
        return Err(Garbled(format!("RPC version {}", head.rpcvers)));
    }
    check_credential(&head)?;
    let procedure = Procedure::of(&head)?;
    lengths(procedure, record, procedure.layout())?;
    let call = Call {
        xid,
        procedure,
        offset: 0,
        count: 0,
    };
    Ok((call, record))
}

/// Reads all of `bytes` as one value.
pub(super) fn read<T: Pack + Unpack>(
    what: impl fmt::Display,
    mut bytes: &[u8],
) -> Result<T, Garbled> {
    let value = read_some(&what, &mut bytes)?;
    match bytes.len() {
        0 => Ok(value),
        more => Err(Garbled(format!("{what}: {more} bytes too many"))),
    }
}

/// Writes a value behind others.
pub(super) fn write(bytes: &mut Vec<u8>, value: &impl Pack) {
    value.pack(bytes).expect("a vector has room");
}

/// Reads one value off the front.
fn read_some<T: Pack + Unpack>(what: impl fmt::Display, bytes: &mut &[u8]) -> Result<T, Garbled> {
    let all = *bytes;
    let (value, _) = T::unpack(bytes).map_err(|error| Garbled(format!("{what}: {error}")))?;
    let mut again = Vec::with_capacity(all.len() - bytes.len());
    write(&mut again, &value);
    match again == all[..all.len() - bytes.len()] {
        true => Ok(value),
        false => Err(Garbled(format!("{what}: padding that is not zero"))),
    }
}

/// The credential must be well formed; anybody may do anything.
fn check_credential(head: &call_body<'_>) -> Result<(), Garbled> {
    let (what, body) = ("AUTH_SYS credential", head.cred.body.as_ref());
    match head.cred.flavor {
        auth_flavor::AUTH_NULL if body.is_empty() => Ok(()),
        auth_flavor::AUTH_UNIX => {
            lengths(what, body, CREDENTIAL)?;
            read::<auth_unix>(what, body).map(drop)
        }
        _ => Err(Garbled(
            "a credential that is neither AUTH_SYS nor AUTH_NONE".into(),
        )),
    }
}

/// What comes in a stretch of XDR, as far as its length can be told before it is read.
#[derive(Debug, Clone, Copy)]
enum Part {
    /// As many bytes.
    Bytes(usize),
    /// A length, and as many bytes and their padding.
    Opaque,
    /// A length, and as many words of four bytes.
    Words,
}

/// Up to the program and procedure, then credential and verifier.
const HEAD: &[Part] = &[
    Part::Bytes(6 * 4 + 4),
    Part::Opaque,
    Part::Bytes(4),
    Part::Opaque,
];

/// Stamp, machine, user and group, more groups.
const CREDENTIAL: &[Part] = &[Part::Bytes(4), Part::Opaque, Part::Bytes(8), Part::Words];

/// Whether the lengths in `bytes` lie within it. What follows the last part is not looked at.
fn lengths(what: impl fmt::Display, bytes: &[u8], layout: &[Part]) -> Result<(), Garbled> {
    let mut rest = bytes;
    for part in layout {
        let after = match *part {
            Part::Bytes(len) => rest.get(len..),
            Part::Opaque => counted(rest, 1),
            Part::Words => counted(rest, 4),
        };
        rest = after.ok_or_else(|| {
            let (len, at) = (bytes.len(), bytes.len() - rest.len());
            Garbled(format!(
                "{what}: {len} bytes are too few for {part:?} at {at}"
            ))
        })?;
    }
    Ok(())
}

/// What follows a list of elements of `size` bytes and its padding.
fn counted(bytes: &[u8], size: usize) -> Option<&[u8]> {
    let (count, rest) = bytes.split_first_chunk()?;
    let count = usize::try_from(u32::from_be_bytes(*count)).ok()?;
    rest.get(count.checked_mul(size)?.checked_next_multiple_of(4)?..)
}

impl Procedure {
    /// What a call asks for, if it is served.
    fn of(head: &call_body<'_>) -> Result<Self, Garbled> {
        use mount::MOUNT_PROGRAM as Mount;
        use portmap::PMAP_PROG as Portmap;

        const PORTMAP: (u32, u32) = (portmap::PROGRAM, portmap::VERSION);
        const MOUNT: (u32, u32) = (mount::PROGRAM, mount::VERSION);
        const NFS: (u32, u32) = (nfs3::PROGRAM, nfs3::VERSION);

        let (program, version, number) = (head.prog, head.vers, head.proc);
        let found = match (program, version) {
            PORTMAP => match Portmap::try_from(number) {
                Ok(Portmap::PMAPPROC_NULL) => Some(Procedure::Null),
                Ok(Portmap::PMAPPROC_GETPORT) => Some(Procedure::GetPort),
                _ => None,
            },
            MOUNT => match Mount::try_from(number) {
                Ok(Mount::MOUNTPROC3_NULL) => Some(Procedure::Null),
                Ok(Mount::MOUNTPROC3_MNT) => Some(Procedure::Mnt),
                Ok(Mount::MOUNTPROC3_UMNT) => Some(Procedure::Umnt),
                _ => None,
            },
            NFS => NFS_PROGRAM::try_from(number)
                .ok()
                .and_then(Procedure::of_nfs),
            _ => None,
        };
        found.ok_or_else(|| {
            Garbled(format!(
                "procedure {number} of version {version} of program {program} is not served"
            ))
        })
    }

    /// The part of NFS that is served.
    fn of_nfs(number: NFS_PROGRAM) -> Option<Self> {
        Some(match number {
            NFS_PROGRAM::NFSPROC3_NULL => Procedure::Null,
            NFS_PROGRAM::NFSPROC3_GETATTR => Procedure::Getattr,
            NFS_PROGRAM::NFSPROC3_SETATTR => Procedure::Setattr,
            NFS_PROGRAM::NFSPROC3_LOOKUP => Procedure::Lookup,
            NFS_PROGRAM::NFSPROC3_ACCESS => Procedure::Access,
            NFS_PROGRAM::NFSPROC3_READ => Procedure::Read,
            NFS_PROGRAM::NFSPROC3_WRITE => Procedure::Write,
            NFS_PROGRAM::NFSPROC3_CREATE => Procedure::Create,
            NFS_PROGRAM::NFSPROC3_REMOVE => Procedure::Remove,
            NFS_PROGRAM::NFSPROC3_FSINFO => Procedure::Fsinfo,
            NFS_PROGRAM::NFSPROC3_COMMIT => Procedure::Commit,
            _ => return None,
        })
    }

    /// Where lengths are in the arguments. All of NFS starts with a file handle.
    fn layout(self) -> &'static [Part] {
        match self {
            Procedure::Null | Procedure::GetPort => &[],
            Procedure::Lookup | Procedure::Create | Procedure::Remove => {
                &[Part::Opaque, Part::Opaque]
            }
            Procedure::Write => &[Part::Opaque, Part::Bytes(8 + 4 + 4), Part::Opaque],
            _ => &[Part::Opaque],
        }
    }
}
