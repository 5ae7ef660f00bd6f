//! The data types of RFC 1813 section 2.5 and 2.6.

use core::fmt;

use crate::xdr::{Reader, Writer, XdrError};

/// The longest file handle, in bytes (`NFS3_FHSIZE`).
pub const FH_MAX: usize = 64;

/// The longest file name that this crate sends, in bytes: that of a swap file, and the suffix of
/// its lease.
pub const NAME_MAX: usize = 134;

/// Names one boot of a server: when it changes, unstable writes may be lost (RFC 1813 section
/// 3.3.7).
pub type WriteVerifier = [u8; 8];

/// A file handle: opaque, and valid for as long as the file exists.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Fh(heapless::Vec<u8, FH_MAX>);

impl Fh {
    /// The handle of nothing.
    pub(crate) const EMPTY: Fh = Fh(heapless::Vec::new());

    /// A handle of these bytes; `None` beyond [`FH_MAX`].
    #[must_use]
    pub fn new(bytes: &[u8]) -> Option<Self> {
        heapless::Vec::from_slice(bytes).ok().map(Fh)
    }

    /// Its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Writes the handle.
    ///
    /// # Errors
    ///
    /// [`XdrError::NoRoom`].
    pub fn emit(&self, writer: &mut Writer<'_>) -> Result<(), XdrError> {
        writer.opaque(&self.0)
    }

    /// Reads a handle.
    ///
    /// # Errors
    ///
    /// It is truncated or longer than [`FH_MAX`].
    pub fn parse(reader: &mut Reader<'_>) -> Result<Self, XdrError> {
        Fh::new(reader.opaque(FH_MAX)?).ok_or(XdrError::TooLong)
    }
}

macro_rules! statuses {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $text:literal;)*) => {
        /// Why the server refused a call (RFC 1813 section 2.6).
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[cfg_attr(feature = "defmt", derive(defmt::Format))]
        #[non_exhaustive]
        pub enum Nfsstat3 {
            $($(#[$doc])* $name,)*
            /// A code that RFC 1813 does not define.
            Other(u32),
        }

        impl Nfsstat3 {
            const fn from_code(code: u32) -> Self {
                match code {
                    $($code => Nfsstat3::$name,)*
                    other => Nfsstat3::Other(other),
                }
            }

            /// Its number on the wire.
            #[must_use]
            pub const fn code(self) -> u32 {
                match self {
                    $(Nfsstat3::$name => $code,)*
                    Nfsstat3::Other(code) => code,
                }
            }
        }

        impl fmt::Display for Nfsstat3 {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $(Nfsstat3::$name => f.write_str($text),)*
                    Nfsstat3::Other(code) => write!(f, "unknown NFS status {code}"),
                }
            }
        }
    };
}

statuses! {
    /// Not the owner.
    Perm = 1, "not owner (NFS3ERR_PERM)";
    /// No such file.
    NoEnt = 2, "no such file or directory (NFS3ERR_NOENT)";
    /// A hard error of the server's storage.
    Io = 5, "I/O error on the server (NFS3ERR_IO)";
    /// No such device.
    NxIo = 6, "no such device (NFS3ERR_NXIO)";
    /// Permission denied.
    Acces = 13, "permission denied (NFS3ERR_ACCES)";
    /// The file is there already.
    Exist = 17, "file exists (NFS3ERR_EXIST)";
    /// A hard link across devices.
    XDev = 18, "cross-device link (NFS3ERR_XDEV)";
    /// No such device.
    NoDev = 19, "no such device (NFS3ERR_NODEV)";
    /// Not a directory.
    NotDir = 20, "not a directory (NFS3ERR_NOTDIR)";
    /// A directory.
    IsDir = 21, "is a directory (NFS3ERR_ISDIR)";
    /// Invalid argument.
    Inval = 22, "invalid argument (NFS3ERR_INVAL)";
    /// Larger than the server's limit for files.
    FBig = 27, "file too large (NFS3ERR_FBIG)";
    /// No space left on the server.
    NoSpc = 28, "no space left on the server (NFS3ERR_NOSPC)";
    /// A read-only file system.
    RoFs = 30, "read-only file system (NFS3ERR_ROFS)";
    /// Too many hard links.
    MLink = 31, "too many links (NFS3ERR_MLINK)";
    /// The name is too long for the server.
    NameTooLong = 63, "name too long (NFS3ERR_NAMETOOLONG)";
    /// A directory that is not empty.
    NotEmpty = 66, "directory not empty (NFS3ERR_NOTEMPTY)";
    /// The quota is used up.
    DQuot = 69, "quota used up (NFS3ERR_DQUOT)";
    /// The file no longer exists.
    Stale = 70, "stale file handle: the file no longer exists (NFS3ERR_STALE)";
    /// Too many levels of remote in path.
    Remote = 71, "too many levels of remote (NFS3ERR_REMOTE)";
    /// Not a handle of this server.
    BadHandle = 10001, "bad file handle (NFS3ERR_BADHANDLE)";
    /// An update lost a race.
    NotSync = 10002, "update synchronization mismatch (NFS3ERR_NOT_SYNC)";
    /// A stale directory cookie.
    BadCookie = 10003, "bad cookie (NFS3ERR_BAD_COOKIE)";
    /// Not supported by the server.
    NotSupp = 10004, "operation not supported (NFS3ERR_NOTSUPP)";
    /// A buffer or request is too small.
    TooSmall = 10005, "buffer too small (NFS3ERR_TOOSMALL)";
    /// The server failed for reasons of its own.
    ServerFault = 10006, "server fault (NFS3ERR_SERVERFAULT)";
    /// A file type that the server does not have.
    BadType = 10007, "type not supported (NFS3ERR_BADTYPE)";
    /// Try again later.
    Jukebox = 10008, "server busy, try again later (NFS3ERR_JUKEBOX)";
}

impl core::error::Error for Nfsstat3 {}

impl Nfsstat3 {
    /// Reads a status: `Ok(())` is `NFS3_OK`.
    ///
    /// # Errors
    ///
    /// It is truncated.
    pub fn parse(reader: &mut Reader<'_>) -> Result<Result<(), Self>, XdrError> {
        Ok(match reader.u32()? {
            0 => Ok(()),
            code => Err(Self::from_code(code)),
        })
    }
}

/// How durable a write must be before the server answers (RFC 1813 section 3.3.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum StableHow {
    /// Not at all: a COMMIT must follow.
    Unstable,
    /// The data, and what is needed to find it, are on stable storage.
    DataSync,
    /// The data and all metadata are on stable storage.
    FileSync,
}

impl StableHow {
    pub(super) fn parse(reader: &mut Reader<'_>) -> Result<Self, XdrError> {
        match reader.u32()? {
            0 => Ok(StableHow::Unstable),
            1 => Ok(StableHow::DataSync),
            2 => Ok(StableHow::FileSync),
            _ => Err(XdrError::BadValue),
        }
    }

    pub(super) const fn code(self) -> u32 {
        match self {
            StableHow::Unstable => 0,
            StableHow::DataSync => 1,
            StableHow::FileSync => 2,
        }
    }
}

/// What a file is (`ftype3`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum FileKind {
    /// A regular file: the only kind that can hold swap.
    Regular,
    /// A directory.
    Directory,
    /// A block device.
    BlockDevice,
    /// A character device.
    CharDevice,
    /// A symbolic link.
    Symlink,
    /// A socket.
    Socket,
    /// A named pipe.
    Fifo,
}

impl FileKind {
    fn parse(reader: &mut Reader<'_>) -> Result<Self, XdrError> {
        Ok(match reader.u32()? {
            1 => FileKind::Regular,
            2 => FileKind::Directory,
            3 => FileKind::BlockDevice,
            4 => FileKind::CharDevice,
            5 => FileKind::Symlink,
            6 => FileKind::Socket,
            7 => FileKind::Fifo,
            _ => return Err(XdrError::BadValue),
        })
    }
}

impl fmt::Display for FileKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FileKind::Regular => "regular file",
            FileKind::Directory => "directory",
            FileKind::BlockDevice => "block device",
            FileKind::CharDevice => "character device",
            FileKind::Symlink => "symbolic link",
            FileKind::Socket => "socket",
            FileKind::Fifo => "named pipe",
        })
    }
}

/// Attributes of a file: the ones that matter here of `fattr3`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Fattr3 {
    /// What it is.
    pub kind: FileKind,
    /// Permission bits.
    pub mode: u32,
    /// Length in bytes.
    pub size: u64,
    /// Bytes of storage in use; less than `size` when there are holes.
    pub used: u64,
    /// When the file or its attributes changed last, by the server's clock.
    pub ctime: NfsTime3,
}

/// A time of a file (`nfstime3`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct NfsTime3 {
    /// Seconds since 1970.
    pub seconds: u32,
    /// And nanoseconds.
    pub nanoseconds: u32,
}

/// Bytes of a `fattr3` on the wire.
const FATTR3_LEN: usize = 84;

impl Fattr3 {
    /// Reads attributes.
    ///
    /// # Errors
    ///
    /// They are truncated, or of a kind that RFC 1813 does not define.
    pub fn parse(reader: &mut Reader<'_>) -> Result<Self, XdrError> {
        let mut fields = Reader::new(reader.take(FATTR3_LEN)?);
        let kind = FileKind::parse(&mut fields)?;
        let mode = fields.u32()?;
        let _nlink_uid_gid = fields.take(12)?;
        let (size, used) = (fields.u64()?, fields.u64()?);
        let _device_file_system_file = fields.take(24)?;
        let _atime_mtime = fields.take(16)?;
        Ok(Fattr3 {
            kind,
            mode,
            size,
            used,
            ctime: NfsTime3 {
                seconds: fields.u32()?,
                nanoseconds: fields.u32()?,
            },
        })
    }
}

/// Skips a `post_op_attr`.
pub(super) fn skip_post_op_attr(reader: &mut Reader<'_>) -> Result<(), XdrError> {
    if reader.bool()? {
        reader.take(FATTR3_LEN)?;
    }
    Ok(())
}

/// Reads a `post_op_attr`.
pub(super) fn post_op_attr(reader: &mut Reader<'_>) -> Result<Option<Fattr3>, XdrError> {
    match reader.bool()? {
        true => Fattr3::parse(reader).map(Some),
        false => Ok(None),
    }
}

/// Skips a `post_op_attr`, but for the size of the file.
pub(super) fn size_of_post_op_attr(reader: &mut Reader<'_>) -> Result<Option<u64>, XdrError> {
    let attributes = match reader.bool()? {
        true => reader.take(FATTR3_LEN)?,
        false => return Ok(None),
    };
    // Behind type, mode, links, owner and group.
    Reader::new(&attributes[5 * 4..]).u64().map(Some)
}

/// Skips a `wcc_data`: size and two times before, all attributes after. The size before comes back.
pub(super) fn size_of_wcc_data(reader: &mut Reader<'_>) -> Result<Option<u64>, XdrError> {
    let mut size = None;
    if reader.bool()? {
        size = Some(reader.u64()?);
        reader.take(8 + 8)?;
    }
    skip_post_op_attr(reader)?;
    Ok(size)
}

/// Skips a `wcc_data`.
pub(super) fn skip_wcc_data(reader: &mut Reader<'_>) -> Result<(), XdrError> {
    size_of_wcc_data(reader).map(drop)
}

/// Attributes to set; `None` leaves one as it is (or to the server's default).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sattr3 {
    /// Permission bits.
    pub mode: Option<u32>,
    /// Length in bytes.
    pub size: Option<u64>,
}

impl Sattr3 {
    pub(super) fn emit(&self, writer: &mut Writer<'_>) -> Result<(), XdrError> {
        writer.bool(self.mode.is_some())?;
        self.mode.map_or(Ok(()), |mode| writer.u32(mode))?;
        // Owner and group stay.
        writer.bool(false)?;
        writer.bool(false)?;
        writer.bool(self.size.is_some())?;
        self.size.map_or(Ok(()), |size| writer.u64(size))?;
        // Both times stay.
        writer.u32(0)?;
        writer.u32(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_keeps_its_number() {
        for code in (1..=100).chain(10_000..10_010) {
            assert_eq!(Nfsstat3::from_code(code).code(), code);
        }
        assert_eq!(Nfsstat3::from_code(10_008), Nfsstat3::Jukebox);
        assert_eq!(Nfsstat3::from_code(3), Nfsstat3::Other(3));
    }

    #[test]
    fn a_handle_has_at_most_64_bytes() {
        assert!(Fh::new(&[1; FH_MAX]).is_some());
        assert!(Fh::new(&[1; FH_MAX + 1]).is_none());
    }
}
