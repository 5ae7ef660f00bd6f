//! Replies of a portmapper, a MOUNT and an NFS server, well formed or not, read by our decoders and
//! by `nfs3_types`.
//!
//! Where both understand the bytes, they must agree on the meaning and on the length; what
//! `nfs3_types` writes, ours must understand. Nothing may panic, whatever the bytes, and a record
//! must be the same however the stream is cut.
#![no_main]

use std::fmt::Debug;
use std::io::Cursor;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use nfs_swap::mount::{Mnt, Umnt};
use nfs_swap::nfs3::{
    Access, Commit, Create, Fattr3, FileKind, Fsinfo, Getattr, Lookup, Nfsstat3, Read, Remove,
    Setattr, StableHow, Write,
};
use nfs_swap::portmap::GetPort;
use nfs_swap::rpc::{Procedure, RecordReader, Reject, ReplyHeader};
use nfs_swap::xdr::Reader;
use nfs3_types::mount::{mountres3, mountstat3};
use nfs3_types::nfs3::{self as other, Nfs3Option, Nfs3Result};
use nfs3_types::rpc::{accept_stat_data, msg_body, rejected_reply, reply_body, rpc_msg};
use nfs3_types::xdr_codec::{Opaque, Pack, Unpack, Void};

/// The longest record taken from a stream.
const RECORD_MAX: u32 = 4096;

#[derive(Debug, Arbitrary)]
enum Input<'a> {
    Header(&'a [u8]),
    Reply { procedure: Which, bytes: &'a [u8] },
    WellFormed(Made<'a>),
    Stream { bytes: &'a [u8], cuts: [u8; 4] },
}

#[derive(Debug, Clone, Copy, Arbitrary)]
enum Which {
    GetPort,
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

/// A successful reply.
#[derive(Debug, Arbitrary)]
enum Made<'a> {
    Getattr(Attributes),
    Lookup {
        handle: Handle,
        object: Option<Attributes>,
        dir: Option<Attributes>,
    },
    Read {
        file: Option<Attributes>,
        eof: bool,
        data: &'a [u8],
    },
    Write {
        wcc: Wcc,
        count: u32,
        committed: u8,
        verifier: [u8; 8],
    },
    Create {
        handle: Option<Handle>,
        object: Option<Attributes>,
        wcc: Wcc,
    },
    Fsinfo {
        root: Option<Attributes>,
        read: u32,
        write: u32,
        size: u64,
    },
    Commit {
        wcc: Wcc,
        verifier: [u8; 8],
    },
    Access {
        object: Option<Attributes>,
        rights: u32,
    },
    Setattr(Wcc),
    Refused {
        status: u8,
        wcc: Wcc,
    },
}

#[derive(Debug, Clone, Copy, Arbitrary)]
struct Attributes {
    kind: u8,
    mode: u32,
    size: u64,
    used: u64,
}

#[derive(Debug, Clone, Copy, Arbitrary)]
struct Wcc {
    before: Option<u64>,
    after: Option<Attributes>,
}

#[derive(Debug, Clone, Copy, Arbitrary)]
struct Handle {
    bytes: [u8; 64],
    len: u8,
}

fuzz_target!(|input: Input<'_>| {
    match input {
        Input::Header(bytes) => header(bytes),
        Input::Reply { procedure, bytes } => {
            reply(procedure, bytes);
        }
        Input::WellFormed(made) => well_formed(made),
        Input::Stream { bytes, cuts } => stream(bytes, cuts),
    }
});

fn header(bytes: &[u8]) {
    let mut reader = Reader::new(bytes);
    let Ok(ours) = ReplyHeader::parse(&mut reader) else {
        return;
    };
    // Some codes are not listed in `nfs3_types`.
    let Ok((theirs, len)) = rpc_msg::unpack(&mut Cursor::new(bytes)) else {
        return;
    };
    assert_eq!(
        (ours.xid, bytes.len() - reader.remaining().len()),
        (theirs.xid, len)
    );
    let msg_body::REPLY(body) = theirs.body else {
        panic!("a call was taken for a reply")
    };
    let verdict = match body {
        reply_body::MSG_ACCEPTED(reply) => match reply.reply_data {
            accept_stat_data::SUCCESS => Ok(()),
            accept_stat_data::PROG_UNAVAIL => Err(Reject::ProgramUnavailable),
            accept_stat_data::PROG_MISMATCH { low, high } => {
                Err(Reject::ProgramMismatch { low, high })
            }
            accept_stat_data::PROC_UNAVAIL => Err(Reject::ProcedureUnavailable),
            accept_stat_data::GARBAGE_ARGS => Err(Reject::GarbageArguments),
            accept_stat_data::SYSTEM_ERR => Err(Reject::SystemError),
        },
        reply_body::MSG_DENIED(rejected_reply::RPC_MISMATCH { low, high }) => {
            Err(Reject::RpcMismatch { low, high })
        }
        reply_body::MSG_DENIED(rejected_reply::AUTH_ERROR(stat)) => {
            Err(Reject::AuthError(stat as u32))
        }
    };
    assert_eq!(ours.verdict, verdict);
}

/// Who understood a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    /// Ours did not understand it.
    Refused,
    /// Ours alone did.
    Ours,
    /// Both did, and agree.
    Both,
}

fn reply(procedure: Which, bytes: &[u8]) -> Seen {
    match procedure {
        Which::GetPort => {
            compare::<GetPort, u32>(bytes, |ours, theirs| ours.map_or(0, u32::from) == *theirs)
        }
        Which::Umnt => {
            assert!(
                Umnt::decode(&mut Reader::new(bytes)).is_ok(),
                "UMNT has no results"
            );
            Seen::Ours
        }
        Which::Mnt => {
            compare::<Mnt<'_>, mountres3<'_>>(bytes, |ours, theirs| match (ours, theirs) {
                (Ok(ours), mountres3::Ok(theirs)) => {
                    let flavors = &theirs.auth_flavors;
                    let auth_sys = flavors.is_empty() || flavors.contains(&1);
                    ours.root.as_bytes() == theirs.fhandle.0.as_ref() && ours.auth_sys == auth_sys
                }
                (Err(ours), mountres3::Err(theirs)) => {
                    *theirs as u32 != mountstat3::MNT3_OK as u32
                        && ours.to_string().contains(&theirs.to_string())
                }
                _ => false,
            })
        }
        Which::Getattr => {
            results::<Getattr<'_>, _, other::GETATTR3resok, Void>(bytes, |ours, theirs| {
                same_attributes(ours, &theirs.obj_attributes)
            })
        }
        Which::Setattr => results::<Setattr<'_>, _, other::SETATTR3resok, other::SETATTR3resfail>(
            bytes,
            |(), _| true,
        ),
        Which::Lookup => results::<Lookup<'_>, _, other::LOOKUP3resok, other::LOOKUP3resfail>(
            bytes,
            |ours, theirs| ours.as_bytes() == theirs.object.data.as_ref(),
        ),
        Which::Access => results::<Access<'_>, _, other::ACCESS3resok, other::ACCESS3resfail>(
            bytes,
            |ours, theirs| ours.0 == theirs.access,
        ),
        Which::Read => read(bytes),
        Which::Write => results::<Write<'_>, _, other::WRITE3resok, other::WRITE3resfail>(
            bytes,
            |ours, theirs| {
                let committed = match ours.committed {
                    StableHow::Unstable => other::stable_how::UNSTABLE,
                    StableHow::DataSync => other::stable_how::DATA_SYNC,
                    StableHow::FileSync => other::stable_how::FILE_SYNC,
                };
                (ours.count, committed, ours.verifier)
                    == (theirs.count, theirs.committed, theirs.verf.0)
            },
        ),
        Which::Create => results::<Create<'_>, _, other::CREATE3resok, other::CREATE3resfail>(
            bytes,
            |ours, theirs| match (ours, &theirs.obj) {
                (Some(ours), Nfs3Option::Some(theirs)) => ours.as_bytes() == theirs.data.as_ref(),
                (None, Nfs3Option::None) => true,
                _ => false,
            },
        ),
        Which::Remove => {
            results::<Remove<'_>, _, other::REMOVE3resok, other::REMOVE3resfail>(bytes, |(), _| {
                true
            })
        }
        Which::Fsinfo => results::<Fsinfo<'_>, _, other::FSINFO3resok, other::FSINFO3resfail>(
            bytes,
            |ours, theirs| {
                (ours.read_max, ours.write_max, ours.file_size_max)
                    == (theirs.rtmax, theirs.wtmax, theirs.maxfilesize)
            },
        ),
        Which::Commit => results::<Commit<'_>, _, other::COMMIT3resok, other::COMMIT3resfail>(
            bytes,
            |ours, theirs| *ours == theirs.verf.0,
        ),
    }
}

/// READ: ours stops before the payload.
fn read(bytes: &[u8]) -> Seen {
    let mut reader = Reader::new(bytes);
    let Ok(ours) = Read::decode(&mut reader) else {
        return Seen::Refused;
    };
    if ours.is_ok_and(|head| head.count as usize > reader.remaining().len()) {
        // The payload has not come yet; `nfs3_types` would make room for all of it.
        return Seen::Ours;
    }
    let Ok((theirs, len)) = other::READ3res::unpack(&mut Cursor::new(bytes)) else {
        return Seen::Ours;
    };
    let mut consumed = bytes.len() - reader.remaining().len();
    match (ours, theirs) {
        (Ok(ours), Nfs3Result::Ok(theirs)) => {
            assert_eq!((ours.count, ours.eof), (theirs.count, theirs.eof));
            assert_eq!(
                &reader.remaining()[..ours.count as usize],
                theirs.data.as_ref()
            );
            consumed += ours.count.next_multiple_of(4) as usize;
        }
        (Err(ours), Nfs3Result::Err((theirs, _))) => assert_eq!(ours.code(), theirs as u32),
        (ours, theirs) => panic!("{ours:?} is not {theirs:?}"),
    }
    assert_eq!(consumed, len);
    Seen::Both
}

fn results<P, T, A, B>(bytes: &[u8], same: impl Fn(&T, &A) -> bool) -> Seen
where
    P: Procedure<Reply = Result<T, Nfsstat3>>,
    T: Debug,
    A: Unpack + Debug,
    B: Unpack + Debug,
{
    compare::<P, Nfs3Result<A, B>>(bytes, |ours, theirs| match (ours, theirs) {
        (Ok(ours), Nfs3Result::Ok(theirs)) => same(ours, theirs),
        (Err(ours), Nfs3Result::Err((theirs, _))) => ours.code() == *theirs as u32,
        _ => false,
    })
}

fn compare<P, O>(bytes: &[u8], same: impl Fn(&P::Reply, &O) -> bool) -> Seen
where
    P: Procedure<Reply: Debug>,
    O: Unpack + Debug,
{
    let mut reader = Reader::new(bytes);
    // `nfs3_types` makes room for whatever length it is told: it is asked second.
    let Ok(ours) = P::decode(&mut reader) else {
        return Seen::Refused;
    };
    let Ok((theirs, len)) = O::unpack(&mut Cursor::new(bytes)) else {
        return Seen::Ours;
    };
    assert!(same(&ours, &theirs), "{ours:?} is not {theirs:?}");
    assert_eq!(
        bytes.len() - reader.remaining().len(),
        len,
        "{ours:?} has another length"
    );
    Seen::Both
}

fn same_attributes(ours: &Fattr3, theirs: &other::fattr3) -> bool {
    let kind = match ours.kind {
        FileKind::Regular => other::ftype3::NF3REG,
        FileKind::Directory => other::ftype3::NF3DIR,
        FileKind::BlockDevice => other::ftype3::NF3BLK,
        FileKind::CharDevice => other::ftype3::NF3CHR,
        FileKind::Symlink => other::ftype3::NF3LNK,
        FileKind::Socket => other::ftype3::NF3SOCK,
        FileKind::Fifo => other::ftype3::NF3FIFO,
        _ => return false,
    };
    (kind, ours.mode, ours.size, ours.used) == (theirs.type_, theirs.mode, theirs.size, theirs.used)
}

/// What `nfs3_types` writes is understood, and means the same.
fn well_formed(made: Made<'_>) {
    let (procedure, bytes) = made.pack();
    assert_eq!(reply(procedure, &bytes), Seen::Both, "{procedure:?}");
    // Anything shorter is refused, and by no panic. Of READ, the payload is not ours to miss.
    if !matches!(procedure, Which::Read) {
        for len in 0..bytes.len() {
            assert_eq!(
                reply(procedure, &bytes[..len]),
                Seen::Refused,
                "{procedure:?} of {len}"
            );
        }
    }
}

impl Made<'_> {
    fn pack(self) -> (Which, Vec<u8>) {
        match self {
            Made::Getattr(attributes) => {
                let obj_attributes = attributes.into();
                (Which::Getattr, ok(other::GETATTR3resok { obj_attributes }))
            }
            Made::Lookup {
                handle,
                object,
                dir,
            } => {
                let reply = other::LOOKUP3resok {
                    object: handle.into(),
                    obj_attributes: option(object),
                    dir_attributes: option(dir),
                };
                (Which::Lookup, ok(reply))
            }
            Made::Read { file, eof, data } => {
                let reply = other::READ3resok {
                    file_attributes: option(file),
                    count: data.len() as u32,
                    eof,
                    data: Opaque::borrowed(data),
                };
                (Which::Read, ok(reply))
            }
            Made::Write {
                wcc,
                count,
                committed,
                verifier,
            } => {
                let committed = match committed % 3 {
                    0 => other::stable_how::UNSTABLE,
                    1 => other::stable_how::DATA_SYNC,
                    _ => other::stable_how::FILE_SYNC,
                };
                let verf = other::writeverf3(verifier);
                let file_wcc = wcc.into();
                (
                    Which::Write,
                    ok(other::WRITE3resok {
                        file_wcc,
                        count,
                        committed,
                        verf,
                    }),
                )
            }
            Made::Create {
                handle,
                object,
                wcc,
            } => {
                let reply = other::CREATE3resok {
                    obj: option(handle),
                    obj_attributes: option(object),
                    dir_wcc: wcc.into(),
                };
                (Which::Create, ok(reply))
            }
            Made::Fsinfo {
                root,
                read,
                write,
                size,
            } => {
                let reply = other::FSINFO3resok {
                    obj_attributes: option(root),
                    rtmax: read,
                    rtpref: 1,
                    rtmult: 2,
                    wtmax: write,
                    wtpref: 3,
                    wtmult: 4,
                    dtpref: 5,
                    maxfilesize: size,
                    time_delta: other::nfstime3 {
                        seconds: 6,
                        nseconds: 7,
                    },
                    properties: 8,
                };
                (Which::Fsinfo, ok(reply))
            }
            Made::Commit { wcc, verifier } => {
                let verf = other::writeverf3(verifier);
                (
                    Which::Commit,
                    ok(other::COMMIT3resok {
                        file_wcc: wcc.into(),
                        verf,
                    }),
                )
            }
            Made::Access { object, rights } => {
                let obj_attributes = option(object);
                (
                    Which::Access,
                    ok(other::ACCESS3resok {
                        obj_attributes,
                        access: rights,
                    }),
                )
            }
            Made::Setattr(wcc) => (
                Which::Setattr,
                ok(other::SETATTR3resok {
                    obj_wcc: wcc.into(),
                }),
            ),
            Made::Refused { status, wcc } => {
                let statuses = [
                    other::nfsstat3::NFS3ERR_PERM,
                    other::nfsstat3::NFS3ERR_IO,
                    other::nfsstat3::NFS3ERR_NOSPC,
                    other::nfsstat3::NFS3ERR_STALE,
                    other::nfsstat3::NFS3ERR_JUKEBOX,
                ];
                let status = statuses[usize::from(status) % statuses.len()];
                let fail = other::WRITE3resfail {
                    file_wcc: wcc.into(),
                };
                let reply: other::WRITE3res = Nfs3Result::Err((status, fail));
                (Which::Write, packed(&reply))
            }
        }
    }
}

fn ok<T: Pack>(reply: T) -> Vec<u8> {
    packed(&Nfs3Result::<T, Void>::Ok(reply))
}

fn packed(reply: &impl Pack) -> Vec<u8> {
    let mut bytes = Vec::new();
    reply.pack(&mut bytes).expect("a vector has room");
    bytes
}

fn option<T: Into<U>, U: Pack + Unpack>(value: Option<T>) -> Nfs3Option<U> {
    value.map_or(Nfs3Option::None, |value| Nfs3Option::Some(value.into()))
}

impl From<Attributes> for other::fattr3 {
    fn from(attributes: Attributes) -> Self {
        let kinds = [
            other::ftype3::NF3REG,
            other::ftype3::NF3DIR,
            other::ftype3::NF3BLK,
            other::ftype3::NF3CHR,
            other::ftype3::NF3LNK,
            other::ftype3::NF3SOCK,
            other::ftype3::NF3FIFO,
        ];
        let time = |seconds| other::nfstime3 {
            seconds,
            nseconds: 999_999_999,
        };
        other::fattr3 {
            type_: kinds[usize::from(attributes.kind) % kinds.len()],
            mode: attributes.mode,
            nlink: 1,
            uid: 2,
            gid: 3,
            size: attributes.size,
            used: attributes.used,
            rdev: other::specdata3 {
                specdata1: 4,
                specdata2: 5,
            },
            fsid: 6,
            fileid: 7,
            atime: time(8),
            mtime: time(9),
            ctime: time(10),
        }
    }
}

impl From<Wcc> for other::wcc_data {
    fn from(wcc: Wcc) -> Self {
        let time = other::nfstime3 {
            seconds: 1,
            nseconds: 2,
        };
        let before = wcc.before.map(|size| other::wcc_attr {
            size,
            mtime: time,
            ctime: time,
        });
        other::wcc_data {
            before: option(before),
            after: option(wcc.after),
        }
    }
}

impl From<Handle> for other::nfs_fh3 {
    fn from(handle: Handle) -> Self {
        let len = usize::from(handle.len) % (handle.bytes.len() + 1);
        other::nfs_fh3 {
            data: Opaque::owned(handle.bytes[..len].to_vec()),
        }
    }
}

/// The records of a stream do not depend on how it is cut.
fn stream(bytes: &[u8], cuts: [u8; 4]) {
    assert_eq!(records(bytes, [u8::MAX; 4]), records(bytes, cuts));
}

/// The records, and whether the stream made sense to its end.
fn records(mut bytes: &[u8], cuts: [u8; 4]) -> (Vec<Vec<u8>>, bool) {
    let mut reader = RecordReader::new(RECORD_MAX);
    let mut records = vec![Vec::new()];
    let mut cuts = cuts.iter().cycle().map(|&cut| usize::from(cut).max(1));
    while !bytes.is_empty() {
        let (mut piece, rest) = bytes.split_at(cuts.next().unwrap_or(1).min(bytes.len()));
        bytes = rest;
        loop {
            let want = cuts.next().unwrap_or(1);
            let Ok(read) = reader.read(&mut piece, want) else {
                return (records, false);
            };
            assert!(read.len() <= want);
            let record = records.last_mut().expect("never empty");
            record.extend_from_slice(read);
            assert!(record.len() <= RECORD_MAX as usize);
            if reader.at_end() {
                reader.next_record();
                records.push(Vec::new());
            } else if read.is_empty() {
                assert!(piece.is_empty(), "bytes are left, and nothing is read");
                break;
            }
        }
    }
    (records, true)
}
