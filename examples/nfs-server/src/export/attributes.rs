//! Attributes and errors: what the system calls them, and what NFS does.

use core::time::Duration;
use std::fs::{FileTimes, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::time::{SystemTime, UNIX_EPOCH};

use nfs3_server::nfs3_types::nfs3::{
    Nfs3Option, fattr3, ftype3, nfsstat3, nfstime3, sattr3, set_atime, set_mtime, specdata3,
};

use crate::file::OpenFile;

/// What NFS says of a file that is `len` bytes long.
pub(super) fn attributes(metadata: &Metadata, len: u64) -> fattr3 {
    let type_ = if metadata.is_dir() {
        ftype3::NF3DIR
    } else {
        ftype3::NF3REG
    };
    fattr3 {
        type_,
        mode: metadata.mode() & 0o7777,
        nlink: u32::try_from(metadata.nlink()).unwrap_or(u32::MAX),
        uid: metadata.uid(),
        gid: metadata.gid(),
        size: len,
        used: metadata.blocks() * 512,
        rdev: specdata3::default(),
        fsid: metadata.dev(),
        fileid: metadata.ino(),
        atime: time(metadata.atime(), metadata.atime_nsec()),
        mtime: time(metadata.mtime(), metadata.mtime_nsec()),
        ctime: time(metadata.ctime(), metadata.ctime_nsec()),
    }
}

fn time(seconds: i64, nanoseconds: i64) -> nfstime3 {
    nfstime3 {
        seconds: u32::try_from(seconds).unwrap_or(0),
        nseconds: u32::try_from(nanoseconds).unwrap_or(0),
    }
}

/// Changes what the client asked to change.
pub(super) fn set_attributes(file: &mut OpenFile, new: &sattr3) -> io::Result<()> {
    if let Nfs3Option::Some(len) = new.size {
        file.set_len(len)?;
    }
    if let Nfs3Option::Some(mode) = new.mode {
        file.file()
            .set_permissions(Permissions::from_mode(mode & 0o7777))?;
    }
    let owner = (number(&new.uid), number(&new.gid));
    if owner != (None, None) {
        fchown(file.file(), owner.0, owner.1)?;
    }
    let mut times = FileTimes::new();
    times = match new.atime {
        set_atime::DONT_CHANGE => times,
        set_atime::SET_TO_SERVER_TIME => times.set_accessed(SystemTime::now()),
        set_atime::SET_TO_CLIENT_TIME(at) => times.set_accessed(system_time(at)),
    };
    times = match new.mtime {
        set_mtime::DONT_CHANGE => times,
        set_mtime::SET_TO_SERVER_TIME => times.set_modified(SystemTime::now()),
        set_mtime::SET_TO_CLIENT_TIME(at) => times.set_modified(system_time(at)),
    };
    file.file().set_times(times)
}

fn number(value: &Nfs3Option<u32>) -> Option<u32> {
    match value {
        Nfs3Option::Some(value) => Some(*value),
        Nfs3Option::None => None,
    }
}

fn system_time(time: nfstime3) -> SystemTime {
    UNIX_EPOCH + Duration::new(u64::from(time.seconds), time.nseconds.min(999_999_999))
}

/// The NFS status that comes closest to a system's error.
pub(super) fn status(error: &io::Error) -> nfsstat3 {
    use io::ErrorKind;
    match error.kind() {
        ErrorKind::NotFound => nfsstat3::NFS3ERR_NOENT,
        ErrorKind::PermissionDenied => nfsstat3::NFS3ERR_ACCES,
        ErrorKind::AlreadyExists => nfsstat3::NFS3ERR_EXIST,
        ErrorKind::StorageFull => nfsstat3::NFS3ERR_NOSPC,
        ErrorKind::QuotaExceeded => nfsstat3::NFS3ERR_DQUOT,
        ErrorKind::FileTooLarge => nfsstat3::NFS3ERR_FBIG,
        ErrorKind::ReadOnlyFilesystem => nfsstat3::NFS3ERR_ROFS,
        ErrorKind::IsADirectory => nfsstat3::NFS3ERR_ISDIR,
        ErrorKind::NotADirectory => nfsstat3::NFS3ERR_NOTDIR,
        ErrorKind::InvalidInput => nfsstat3::NFS3ERR_INVAL,
        _ => nfsstat3::NFS3ERR_IO,
    }
}
