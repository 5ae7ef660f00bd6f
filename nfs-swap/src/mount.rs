//! The MOUNT protocol, version 3 (RFC 1813 appendix I): from the path of an export to its handle.

use core::fmt;

use crate::nfs3::Fh;
use crate::rpc::{Procedure, Program};
use crate::xdr::{Reader, Writer, XdrError};

/// The MOUNT program.
pub const PROGRAM: Program = Program {
    number: 100_005,
    version: 3,
};

/// The longest path that this crate sends, in bytes.
pub const PATH_MAX: usize = 256;

const AUTH_SYS: u32 = 1;
/// More flavours than anyone offers; the list of a sane server is far shorter.
const FLAVORS_MAX: u32 = 64;

/// Why the server does not hand out an export (`mountstat3`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum MountStatus {
    /// Not the owner.
    Perm,
    /// No such export.
    NoEnt,
    /// I/O error on the server.
    Io,
    /// Permission denied.
    Acces,
    /// Not a directory.
    NotDir,
    /// Invalid argument.
    Inval,
    /// The path is too long for the server.
    NameTooLong,
    /// Not supported.
    NotSupp,
    /// The server failed.
    ServerFault,
    /// A code that RFC 1813 does not define.
    Other(u32),
}

impl MountStatus {
    const fn from_code(code: u32) -> Self {
        match code {
            1 => MountStatus::Perm,
            2 => MountStatus::NoEnt,
            5 => MountStatus::Io,
            13 => MountStatus::Acces,
            20 => MountStatus::NotDir,
            22 => MountStatus::Inval,
            63 => MountStatus::NameTooLong,
            10_004 => MountStatus::NotSupp,
            10_006 => MountStatus::ServerFault,
            other => MountStatus::Other(other),
        }
    }
}

impl fmt::Display for MountStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            MountStatus::Perm => "not owner (MNT3ERR_PERM)",
            MountStatus::NoEnt => "no such export (MNT3ERR_NOENT)",
            MountStatus::Io => "I/O error on the server (MNT3ERR_IO)",
            MountStatus::Acces => "permission denied (MNT3ERR_ACCES)",
            MountStatus::NotDir => "not a directory (MNT3ERR_NOTDIR)",
            MountStatus::Inval => "invalid argument (MNT3ERR_INVAL)",
            MountStatus::NameTooLong => "path too long (MNT3ERR_NAMETOOLONG)",
            MountStatus::NotSupp => "not supported (MNT3ERR_NOTSUPP)",
            MountStatus::ServerFault => "server fault (MNT3ERR_SERVERFAULT)",
            MountStatus::Other(code) => return write!(f, "unknown MOUNT status {code}"),
        })
    }
}

impl core::error::Error for MountStatus {}

fn path(writer: &mut Writer<'_>, path: &str) -> Result<(), XdrError> {
    if path.len() > PATH_MAX {
        return Err(XdrError::TooLong);
    }
    writer.opaque(path.as_bytes())
}

/// MNT: the handle of an export.
#[derive(Debug, Clone, Copy)]
pub struct Mnt<'a> {
    /// At most [`PATH_MAX`] bytes.
    pub path: &'a str,
}

/// An export that the server hands out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mounted {
    /// Its root directory.
    pub root: Fh,
    /// Whether it can be used with AUTH_SYS.
    pub auth_sys: bool,
}

impl Procedure for Mnt<'_> {
    const PROGRAM: Program = PROGRAM;
    const NUMBER: u32 = 1;
    type Reply = Result<Mounted, MountStatus>;

    fn encode(&self, writer: &mut Writer<'_>) -> Result<(), XdrError> {
        path(writer, self.path)
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self::Reply, XdrError> {
        let status = reader.u32()?;
        if status != 0 {
            return Ok(Err(MountStatus::from_code(status)));
        }
        let root = Fh::parse(reader)?;
        let flavors = reader.u32()?;
        if flavors > FLAVORS_MAX {
            return Err(XdrError::TooLong);
        }
        // Servers that do not care send an empty list.
        let mut auth_sys = flavors == 0;
        for _ in 0..flavors {
            auth_sys |= reader.u32()? == AUTH_SYS;
        }
        Ok(Ok(Mounted { root, auth_sys }))
    }
}

/// UMNT: tells the server that the export is no longer in use. It has no results.
#[derive(Debug, Clone, Copy)]
pub struct Umnt<'a> {
    /// At most [`PATH_MAX`] bytes.
    pub path: &'a str,
}

impl Procedure for Umnt<'_> {
    const PROGRAM: Program = PROGRAM;
    const NUMBER: u32 = 3;
    type Reply = ();

    fn encode(&self, writer: &mut Writer<'_>) -> Result<(), XdrError> {
        path(writer, self.path)
    }

    fn decode(_: &mut Reader<'_>) -> Result<Self::Reply, XdrError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    extern crate alloc;
    extern crate std;

    use super::*;
    use proptest::prelude::*;

    fn reply(words: &[u32]) -> Result<Result<Mounted, MountStatus>, XdrError> {
        let bytes: alloc::vec::Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
        Mnt::decode(&mut Reader::new(&bytes))
    }

    #[test]
    fn an_export_without_auth_sys_is_recognised() {
        assert!(!reply(&[0, 4, 9, 1, 390_003]).unwrap().unwrap().auth_sys);
        assert!(reply(&[0, 4, 9, 2, 390_003, 1]).unwrap().unwrap().auth_sys);
        assert!(reply(&[0, 4, 9, 0]).unwrap().unwrap().auth_sys);
    }

    #[test]
    fn refusals_are_named() {
        assert_eq!(reply(&[2]), Ok(Err(MountStatus::NoEnt)));
        assert_eq!(reply(&[13]), Ok(Err(MountStatus::Acces)));
        assert_eq!(reply(&[77]), Ok(Err(MountStatus::Other(77))));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Mnt::decode(&mut Reader::new(&bytes));
        }
    }
}
