//! NFS version 3 (RFC 1813): the part of it that a swap file needs.

mod calls;
mod small;
mod types;

pub use calls::{
    Access, AccessRights, Commit, Create, CreateHow, Fsinfo, FsinfoReply, Getattr, Lookup, PROGRAM,
    Read, ReadHead, Remove, Setattr, Write, WriteReply,
};
pub(crate) use small::{ReadSmall, SmallFile, WriteSmall};
pub use types::{
    FH_MAX, Fattr3, Fh, FileKind, NAME_MAX, NfsTime3, Nfsstat3, Sattr3, StableHow, WriteVerifier,
};
