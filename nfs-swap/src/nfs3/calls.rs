//! The procedures of RFC 1813 section 3.3 that a swap file needs.
//!
//! READ and WRITE carry their payload apart: [`Write::encode`] ends right before the data, and
//! [`Read::decode`] too, so that the payload moves between socket and frame without a stop.

use super::types::{
    Fattr3, Fh, NAME_MAX, NfsTime3, Nfsstat3, Sattr3, StableHow, WriteVerifier,
    size_of_post_op_attr, size_of_wcc_data, skip_post_op_attr, skip_wcc_data,
};
use crate::rpc::{Procedure, Program};
use crate::xdr::{Reader, Writer, XdrError};

/// The NFS program.
pub const PROGRAM: Program = Program {
    number: 100_003,
    version: 3,
};

fn name(writer: &mut Writer<'_>, name: &str) -> Result<(), XdrError> {
    if name.len() > NAME_MAX {
        return Err(XdrError::TooLong);
    }
    writer.opaque(name.as_bytes())
}

/// The status, and what stands behind it: `ok` after success, `fail` after anything else.
fn outcome<T>(
    reader: &mut Reader<'_>,
    ok: impl FnOnce(&mut Reader<'_>) -> Result<T, XdrError>,
    fail: impl FnOnce(&mut Reader<'_>) -> Result<(), XdrError>,
) -> Result<Result<T, Nfsstat3>, XdrError> {
    match Nfsstat3::parse(reader)? {
        Ok(()) => ok(reader).map(Ok),
        Err(status) => fail(reader).map(|()| Err(status)),
    }
}

/// GETATTR: the attributes of a file.
#[derive(Debug, Clone, Copy)]
pub struct Getattr<'a> {
    /// The file.
    pub file: &'a Fh,
}

impl Procedure for Getattr<'_> {
    const PROGRAM: Program = PROGRAM;
    const NUMBER: u32 = 1;
    type Reply = Result<Fattr3, Nfsstat3>;

    fn encode(&self, writer: &mut Writer<'_>) -> Result<(), XdrError> {
        self.file.emit(writer)
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self::Reply, XdrError> {
        outcome(reader, Fattr3::parse, |_| Ok(()))
    }
}

/// SETATTR: changes attributes.
#[derive(Debug, Clone, Copy)]
pub struct Setattr<'a> {
    /// The file.
    pub file: &'a Fh,
    /// What to change.
    pub attributes: Sattr3,
    /// Only if the file was last changed then; else the answer is [`Nfsstat3::NotSync`]. Of several
    /// callers with the same guard, one succeeds.
    pub guard: Option<NfsTime3>,
}

impl Procedure for Setattr<'_> {
    const PROGRAM: Program = PROGRAM;
    const NUMBER: u32 = 2;
    type Reply = Result<(), Nfsstat3>;

    fn encode(&self, writer: &mut Writer<'_>) -> Result<(), XdrError> {
        self.file.emit(writer)?;
        self.attributes.emit(writer)?;
        writer.bool(self.guard.is_some())?;
        self.guard.map_or(Ok(()), |ctime| {
            writer.u32(ctime.seconds)?;
            writer.u32(ctime.nanoseconds)
        })
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self::Reply, XdrError> {
        outcome(reader, skip_wcc_data, skip_wcc_data)
    }
}

/// LOOKUP: the handle of a name in a directory.
#[derive(Debug, Clone, Copy)]
pub struct Lookup<'a> {
    /// The directory.
    pub dir: &'a Fh,
    /// At most [`NAME_MAX`] bytes.
    pub name: &'a str,
}

impl Procedure for Lookup<'_> {
    const PROGRAM: Program = PROGRAM;
    const NUMBER: u32 = 3;
    type Reply = Result<Fh, Nfsstat3>;

    fn encode(&self, writer: &mut Writer<'_>) -> Result<(), XdrError> {
        self.dir.emit(writer)?;
        name(writer, self.name)
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self::Reply, XdrError> {
        let ok = |reader: &mut Reader<'_>| {
            let file = Fh::parse(reader)?;
            skip_post_op_attr(reader)?;
            skip_post_op_attr(reader)?;
            Ok(file)
        };
        outcome(reader, ok, skip_post_op_attr)
    }
}

/// What a caller may do with a file, as a set of `ACCESS3_*` bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct AccessRights(pub u32);

impl AccessRights {
    /// Reading, and changing what is there: what swapping takes.
    pub const READ_MODIFY: AccessRights = AccessRights(0x0001 | 0x0004);

    /// Whether all of `other` is granted.
    #[must_use]
    pub const fn contains(self, other: AccessRights) -> bool {
        self.0 & other.0 == other.0
    }
}

/// ACCESS: what the caller may do with a file.
#[derive(Debug, Clone, Copy)]
pub struct Access<'a> {
    /// The file.
    pub file: &'a Fh,
    /// What to ask about.
    pub rights: AccessRights,
}

impl Procedure for Access<'_> {
    const PROGRAM: Program = PROGRAM;
    const NUMBER: u32 = 4;
    type Reply = Result<AccessRights, Nfsstat3>;

    fn encode(&self, writer: &mut Writer<'_>) -> Result<(), XdrError> {
        self.file.emit(writer)?;
        writer.u32(self.rights.0)
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self::Reply, XdrError> {
        let ok = |reader: &mut Reader<'_>| {
            skip_post_op_attr(reader)?;
            reader.u32().map(AccessRights)
        };
        outcome(reader, ok, skip_post_op_attr)
    }
}

/// READ: bytes of a file.
#[derive(Debug, Clone, Copy)]
pub struct Read<'a> {
    /// The file.
    pub file: &'a Fh,
    /// Where, in bytes.
    pub offset: u64,
    /// How many bytes.
    pub count: u32,
}

/// The head of READ's results; `count` bytes of payload follow it, and their padding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadHead {
    /// Bytes read, perhaps fewer than asked for.
    pub count: u32,
    /// Whether they reach the end of the file.
    pub eof: bool,
    /// Length of the file in bytes, if the server says it.
    pub size: Option<u64>,
}

impl Procedure for Read<'_> {
    const PROGRAM: Program = PROGRAM;
    const NUMBER: u32 = 6;
    type Reply = Result<ReadHead, Nfsstat3>;

    fn encode(&self, writer: &mut Writer<'_>) -> Result<(), XdrError> {
        self.file.emit(writer)?;
        writer.u64(self.offset)?;
        writer.u32(self.count)
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self::Reply, XdrError> {
        let ok = |reader: &mut Reader<'_>| {
            let size = size_of_post_op_attr(reader)?;
            let (count, eof) = (reader.u32()?, reader.bool()?);
            if reader.u32()? != count {
                return Err(XdrError::BadValue);
            }
            Ok(ReadHead { count, eof, size })
        };
        outcome(reader, ok, skip_post_op_attr)
    }
}

/// WRITE: stores bytes in a file; the payload follows the arguments.
#[derive(Debug, Clone, Copy)]
pub struct Write<'a> {
    /// The file.
    pub file: &'a Fh,
    /// Where, in bytes.
    pub offset: u64,
    /// How many bytes.
    pub count: u32,
    /// How durable they must be before the server answers.
    pub stable: StableHow,
}

/// The results of WRITE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WriteReply {
    /// Bytes stored, perhaps fewer than were sent.
    pub count: u32,
    /// How durable they are, perhaps less than was asked for.
    pub committed: StableHow,
    /// The server's boot.
    pub verifier: WriteVerifier,
    /// Length of the file in bytes before the call, if the server says it.
    pub size_before: Option<u64>,
}

impl Procedure for Write<'_> {
    const PROGRAM: Program = PROGRAM;
    const NUMBER: u32 = 7;
    type Reply = Result<WriteReply, Nfsstat3>;

    fn encode(&self, writer: &mut Writer<'_>) -> Result<(), XdrError> {
        self.file.emit(writer)?;
        writer.u64(self.offset)?;
        writer.u32(self.count)?;
        writer.u32(self.stable.code())?;
        writer.u32(self.count)
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self::Reply, XdrError> {
        let ok = |reader: &mut Reader<'_>| {
            let size_before = size_of_wcc_data(reader)?;
            Ok(WriteReply {
                count: reader.u32()?,
                committed: StableHow::parse(reader)?,
                verifier: reader.array()?,
                size_before,
            })
        };
        outcome(reader, ok, skip_wcc_data)
    }
}

/// How CREATE treats a name that exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CreateHow {
    /// Takes the file that is there.
    Unchecked,
    /// Fails with [`Nfsstat3::Exist`].
    Guarded,
}

/// CREATE: a new regular file.
#[derive(Debug, Clone, Copy)]
pub struct Create<'a> {
    /// The directory.
    pub dir: &'a Fh,
    /// At most [`NAME_MAX`] bytes.
    pub name: &'a str,
    /// What if it exists.
    pub how: CreateHow,
    /// Its attributes.
    pub attributes: Sattr3,
}

impl Procedure for Create<'_> {
    const PROGRAM: Program = PROGRAM;
    const NUMBER: u32 = 8;
    /// The handle, where the server hands it out.
    type Reply = Result<Option<Fh>, Nfsstat3>;

    fn encode(&self, writer: &mut Writer<'_>) -> Result<(), XdrError> {
        self.dir.emit(writer)?;
        name(writer, self.name)?;
        writer.u32(match self.how {
            CreateHow::Unchecked => 0,
            CreateHow::Guarded => 1,
        })?;
        self.attributes.emit(writer)
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self::Reply, XdrError> {
        let ok = |reader: &mut Reader<'_>| {
            let file = match reader.bool()? {
                true => Some(Fh::parse(reader)?),
                false => None,
            };
            skip_post_op_attr(reader)?;
            skip_wcc_data(reader)?;
            Ok(file)
        };
        outcome(reader, ok, skip_wcc_data)
    }
}

/// REMOVE: takes a file's name away.
#[derive(Debug, Clone, Copy)]
pub struct Remove<'a> {
    /// The directory.
    pub dir: &'a Fh,
    /// At most [`NAME_MAX`] bytes.
    pub name: &'a str,
}

impl Procedure for Remove<'_> {
    const PROGRAM: Program = PROGRAM;
    const NUMBER: u32 = 12;
    type Reply = Result<(), Nfsstat3>;

    fn encode(&self, writer: &mut Writer<'_>) -> Result<(), XdrError> {
        self.dir.emit(writer)?;
        name(writer, self.name)
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self::Reply, XdrError> {
        outcome(reader, skip_wcc_data, skip_wcc_data)
    }
}

/// FSINFO: the limits of a file system.
#[derive(Debug, Clone, Copy)]
pub struct Fsinfo<'a> {
    /// Its root.
    pub root: &'a Fh,
}

/// The results of FSINFO that matter here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FsinfoReply {
    /// The most bytes in one READ.
    pub read_max: u32,
    /// The most bytes in one WRITE.
    pub write_max: u32,
    /// The longest file, in bytes.
    pub file_size_max: u64,
}

impl Procedure for Fsinfo<'_> {
    const PROGRAM: Program = PROGRAM;
    const NUMBER: u32 = 19;
    type Reply = Result<FsinfoReply, Nfsstat3>;

    fn encode(&self, writer: &mut Writer<'_>) -> Result<(), XdrError> {
        self.root.emit(writer)
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self::Reply, XdrError> {
        let ok = |reader: &mut Reader<'_>| {
            skip_post_op_attr(reader)?;
            let read_max = reader.u32()?;
            let _read_preferred_and_multiple = reader.u64()?;
            let write_max = reader.u32()?;
            let _write_preferred_and_multiple = reader.u64()?;
            let _readdir_preferred = reader.u32()?;
            let file_size_max = reader.u64()?;
            let _time_delta_and_properties = reader.take(8 + 4)?;
            Ok(FsinfoReply {
                read_max,
                write_max,
                file_size_max,
            })
        };
        outcome(reader, ok, skip_post_op_attr)
    }
}

/// COMMIT: makes unstable writes stable.
#[derive(Debug, Clone, Copy)]
pub struct Commit<'a> {
    /// The file.
    pub file: &'a Fh,
    /// From where, in bytes.
    pub offset: u64,
    /// How many bytes.
    pub count: u32,
}

impl Procedure for Commit<'_> {
    const PROGRAM: Program = PROGRAM;
    const NUMBER: u32 = 21;
    type Reply = Result<WriteVerifier, Nfsstat3>;

    fn encode(&self, writer: &mut Writer<'_>) -> Result<(), XdrError> {
        self.file.emit(writer)?;
        writer.u64(self.offset)?;
        writer.u32(self.count)
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self::Reply, XdrError> {
        let ok = |reader: &mut Reader<'_>| {
            skip_wcc_data(reader)?;
            reader.array()
        };
        outcome(reader, ok, skip_wcc_data)
    }
}

#[cfg(test)]
mod tests;
