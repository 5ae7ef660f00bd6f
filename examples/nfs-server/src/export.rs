//! The exported directory as `nfs3_server` sees it: names, handles, attributes and limits.
//!
//! Everything is behind one lock, which no call holds across an await: the server has one thread,
//! and each call is over before the next one starts.

mod attributes;

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::UNIX_EPOCH;

use nfs3_server::nfs3_types::nfs3::{
    FSF3_CANSETTIME, FSF3_HOMOGENEOUS, FSINFO3resok, Nfs3Option, createverf3, fattr3, filename3,
    nfspath3, nfsstat3, nfstime3, sattr3, stable_how,
};
use nfs3_server::vfs::{
    DirEntry, DirEntryPlus, FileHandle, NextResult, NfsFileSystem, NfsReadFileSystem,
    ReadDirIterator, ReadDirPlusIterator, VFSCapabilities,
};

use self::attributes::{attributes, set_attributes, status};
use crate::Config;
use crate::file::OpenFile;

/// Bytes that one READ returns or one WRITE takes.
const MAX_TRANSFER: u32 = 1 << 20;

/// Files kept open. One with unstable data is never closed for another.
const MAX_OPEN: usize = 256;

/// Bytes in a file name.
const MAX_NAME: usize = 255;

/// Offsets are signed in the system below.
const MAX_FILE_SIZE: u64 = i64::MAX as u64;

/// A directory, and the files of it that are open.
#[derive(Debug)]
pub(crate) struct Export {
    root: PathBuf,
    root_id: FileId,
    read_only: bool,
    capacity: Option<u64>,
    lose_unstable: bool,
    fdatasync: bool,
    open: Mutex<HashMap<FileId, OpenFile>>,
}

impl Export {
    /// Looks at the directory; files are opened when they are asked for.
    pub(crate) fn open(config: &Config) -> io::Result<Export> {
        let metadata = fs::metadata(&config.root)?;
        if !metadata.is_dir() {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        Ok(Export {
            root: config.root.clone(),
            root_id: FileId::of(&metadata),
            read_only: config.read_only,
            capacity: config.capacity,
            lose_unstable: config.lose_unstable,
            fdatasync: config.fdatasync,
            open: Mutex::new(HashMap::new()),
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<FileId, OpenFile>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `f` on the file of a handle, opening it if need be.
    fn with_file<T>(
        &self,
        id: FileId,
        f: impl FnOnce(&mut OpenFile) -> io::Result<T>,
    ) -> Result<T, nfsstat3> {
        if id == self.root_id {
            return Err(nfsstat3::NFS3ERR_ISDIR);
        }
        let mut open = self.lock();
        let file = self.get(&mut open, id)?;
        f(file).map_err(|error| status(&error))
    }

    /// The open file of a handle.
    ///
    /// A file that was removed behind our back is stale, even if it is still open here.
    fn get<'a>(
        &self,
        open: &'a mut HashMap<FileId, OpenFile>,
        id: FileId,
    ) -> Result<&'a mut OpenFile, nfsstat3> {
        let linked = match open.get(&id) {
            Some(file) => file.file().metadata().is_ok_and(|found| found.nlink() > 0),
            None => {
                let path = self.find(id)?;
                let _ = self.open_path(open, &path)?;
                true
            }
        };
        if !linked {
            open.remove(&id);
        }
        open.get_mut(&id).ok_or(nfsstat3::NFS3ERR_STALE)
    }

    /// Opens a regular file, unless it is open.
    fn open_path(
        &self,
        open: &mut HashMap<FileId, OpenFile>,
        path: &Path,
    ) -> Result<FileId, nfsstat3> {
        let seen = fs::symlink_metadata(path).map_err(|error| status(&error))?;
        // Whatever is not a regular file is there, and nobody's to use.
        if !seen.is_file() {
            return Err(nfsstat3::NFS3ERR_ACCES);
        }
        let id = FileId::of(&seen);
        if open.contains_key(&id) {
            return Ok(id);
        }
        let file = File::options()
            .read(true)
            .write(!self.read_only)
            .open(path)
            .map_err(|error| status(&error))?;
        self.keep_open(open, file)
    }

    /// Adds a file to the open ones, and makes room for it.
    fn keep_open(
        &self,
        open: &mut HashMap<FileId, OpenFile>,
        file: File,
    ) -> Result<FileId, nfsstat3> {
        let id = FileId::of(&file.metadata().map_err(|error| status(&error))?);
        if open.len() >= MAX_OPEN {
            open.retain(|_, file| file.has_unstable());
        }
        open.insert(id, OpenFile::new(file, self.fdatasync));
        Ok(id)
    }

    /// The path of a handle that was given out earlier, perhaps in an earlier life.
    fn find(&self, id: FileId) -> Result<PathBuf, nfsstat3> {
        let entries = fs::read_dir(&self.root).map_err(|error| status(&error))?;
        for entry in entries.flatten() {
            if let Ok(metadata) = entry.metadata()
                && FileId::of(&metadata) == id
            {
                return Ok(entry.path());
            }
        }
        Err(nfsstat3::NFS3ERR_STALE)
    }

    /// The path of a name in the root.
    fn path(&self, directory: FileId, name: &filename3<'_>) -> Result<PathBuf, nfsstat3> {
        if directory != self.root_id {
            return Err(nfsstat3::NFS3ERR_NOTDIR);
        }
        let name = name.as_ref();
        if name.len() > MAX_NAME {
            return Err(nfsstat3::NFS3ERR_NAMETOOLONG);
        }
        let forbidden = matches!(name, b"" | b"." | b"..") || name.contains(&0);
        if forbidden || name.contains(&b'/') {
            return Err(nfsstat3::NFS3ERR_INVAL);
        }
        Ok(self.root.join(OsStr::from_bytes(name)))
    }

    /// Whether a file may become `len` bytes long.
    fn admit(
        &self,
        open: &mut HashMap<FileId, OpenFile>,
        id: FileId,
        len: u64,
    ) -> Result<(), nfsstat3> {
        if len > MAX_FILE_SIZE {
            return Err(nfsstat3::NFS3ERR_FBIG);
        }
        let Some(capacity) = self.capacity else {
            return Ok(());
        };
        let (_, old) = self
            .get(open, id)?
            .metadata()
            .map_err(|error| status(&error))?;
        if len <= old {
            return Ok(());
        }
        // Growth is rare, so the sum is taken anew rather than kept.
        let used = self.used(open).map_err(|error| status(&error))?;
        if used - old + len > capacity {
            return Err(nfsstat3::NFS3ERR_NOSPC);
        }
        Ok(())
    }

    /// Bytes in all files, unstable data included.
    fn used(&self, open: &HashMap<FileId, OpenFile>) -> io::Result<u64> {
        let mut used = 0;
        for entry in fs::read_dir(&self.root)? {
            let metadata = entry?.metadata()?;
            if metadata.is_file() {
                used += match open.get(&FileId::of(&metadata)) {
                    Some(file) => file.metadata()?.1,
                    None => metadata.len(),
                };
            }
        }
        Ok(used)
    }

    /// The directory's files from a cookie on, in an order that does not depend on what happens
    /// to the others: by inode number, which is the cookie too.
    fn list(&self, directory: FileId, cookie: u64) -> Result<Listing, nfsstat3> {
        if directory != self.root_id {
            return Err(nfsstat3::NFS3ERR_NOTDIR);
        }
        let mut entries = Vec::new();
        for entry in fs::read_dir(&self.root).map_err(|error| status(&error))? {
            let entry = entry.map_err(|error| status(&error))?;
            // An entry may be gone by now.
            let Ok(metadata) = entry.metadata() else {
                continue;
            };
            if metadata.is_file() && metadata.ino() > cookie {
                entries.push((entry.file_name().into_vec(), metadata));
            }
        }
        entries.sort_by_key(|(_, metadata)| core::cmp::Reverse(metadata.ino()));
        Ok(Listing { entries })
    }
}

impl NfsReadFileSystem for Export {
    type Handle = FileId;

    fn root_dir(&self) -> FileId {
        self.root_id
    }

    async fn lookup(&self, dirid: &FileId, name: &filename3<'_>) -> Result<FileId, nfsstat3> {
        if *dirid == self.root_id && matches!(name.as_ref(), b"." | b"..") {
            return Ok(self.root_id);
        }
        let path = self.path(*dirid, name)?;
        self.open_path(&mut self.lock(), &path)
    }

    /// Only the export itself can be mounted; `nfs3_server` would take `/exportfile` for `file`.
    async fn lookup_by_path(&self, path: &str) -> Result<FileId, nfsstat3> {
        if path.is_empty() {
            Ok(self.root_id)
        } else {
            Err(nfsstat3::NFS3ERR_NOENT)
        }
    }

    async fn getattr(&self, id: &FileId) -> Result<fattr3, nfsstat3> {
        if *id == self.root_id {
            let metadata = fs::metadata(&self.root).map_err(|error| status(&error))?;
            return Ok(attributes(&metadata, metadata.len()));
        }
        let (metadata, len) = self.with_file(*id, |file| file.metadata())?;
        Ok(attributes(&metadata, len))
    }

    async fn read(
        &self,
        id: &FileId,
        offset: u64,
        count: u32,
    ) -> Result<(Vec<u8>, bool), nfsstat3> {
        let count = count.min(MAX_TRANSFER) as usize;
        self.with_file(*id, |file| file.read(offset, count))
    }

    async fn readdir(&self, dirid: &FileId, cookie: u64) -> Result<impl ReadDirIterator, nfsstat3> {
        self.list(*dirid, cookie)
    }

    async fn readdirplus(
        &self,
        dirid: &FileId,
        cookie: u64,
    ) -> Result<impl ReadDirPlusIterator<FileId>, nfsstat3> {
        self.list(*dirid, cookie)
    }

    async fn readlink(&self, _id: &FileId) -> Result<nfspath3<'_>, nfsstat3> {
        Err(nfsstat3::NFS3ERR_INVAL)
    }

    async fn fsinfo(&self, root: &FileId) -> Result<FSINFO3resok, nfsstat3> {
        Ok(FSINFO3resok {
            obj_attributes: Nfs3Option::Some(self.getattr(root).await?),
            rtmax: MAX_TRANSFER,
            rtpref: MAX_TRANSFER,
            rtmult: 4096,
            wtmax: MAX_TRANSFER,
            wtpref: MAX_TRANSFER,
            wtmult: 4096,
            dtpref: 64 << 10,
            maxfilesize: MAX_FILE_SIZE,
            time_delta: nfstime3 {
                seconds: 0,
                nseconds: 1,
            },
            properties: FSF3_HOMOGENEOUS | FSF3_CANSETTIME,
        })
    }
}

impl NfsFileSystem for Export {
    fn capabilities(&self) -> VFSCapabilities {
        if self.read_only {
            VFSCapabilities::ReadOnly
        } else {
            VFSCapabilities::ReadWrite
        }
    }

    async fn setattr(&self, id: &FileId, new: sattr3) -> Result<fattr3, nfsstat3> {
        if *id == self.root_id {
            return Err(nfsstat3::NFS3ERR_ACCES);
        }
        let mut open = self.lock();
        if let Nfs3Option::Some(len) = new.size {
            self.admit(&mut open, *id, len)?;
        }
        let file = self.get(&mut open, *id)?;
        set_attributes(file, &new)
            .and_then(|()| file.metadata())
            .map(|(metadata, len)| attributes(&metadata, len))
            .map_err(|error| status(&error))
    }

    async fn write(
        &self,
        id: &FileId,
        offset: u64,
        data: &[u8],
        stable: stable_how,
    ) -> Result<(fattr3, stable_how), nfsstat3> {
        if *id == self.root_id {
            return Err(nfsstat3::NFS3ERR_INVAL);
        }
        let end = offset
            .checked_add(data.len() as u64)
            .ok_or(nfsstat3::NFS3ERR_FBIG)?;
        let mut open = self.lock();
        self.admit(&mut open, *id, end)?;
        let file = self.get(&mut open, *id)?;
        let written = match (stable, self.lose_unstable) {
            (stable_how::UNSTABLE, true) => {
                file.write_unstable(offset, data);
                Ok(())
            }
            (stable_how::UNSTABLE, false) => file.write_cached(offset, data),
            (stable_how::DATA_SYNC | stable_how::FILE_SYNC, _) => file.write_stable(offset, data),
        };
        written
            .and_then(|()| file.metadata())
            .map(|(metadata, len)| (attributes(&metadata, len), stable))
            .map_err(|error| status(&error))
    }

    async fn create(
        &self,
        dirid: &FileId,
        name: &filename3<'_>,
        attr: sattr3,
    ) -> Result<(FileId, fattr3), nfsstat3> {
        let path = self.path(*dirid, name)?;
        let id = {
            let mut open = self.lock();
            // Not `create(true)`: that would follow a symbolic link out of the export.
            match File::options()
                .read(true)
                .write(true)
                .create_new(true)
                .open(&path)
            {
                Ok(file) => self.keep_open(&mut open, file)?,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    match self.open_path(&mut open, &path) {
                        Err(nfsstat3::NFS3ERR_NOENT | nfsstat3::NFS3ERR_ACCES) => {
                            return Err(nfsstat3::NFS3ERR_EXIST);
                        }
                        found => found?,
                    }
                }
                Err(error) => return Err(status(&error)),
            }
        };
        let attributes = self.setattr(&id, attr).await?;
        Ok((id, attributes))
    }

    /// The verifier would have to be kept over a reboot; RFC 1813 allows to refuse.
    async fn create_exclusive(
        &self,
        _dirid: &FileId,
        _name: &filename3<'_>,
        _verifier: createverf3,
    ) -> Result<FileId, nfsstat3> {
        Err(nfsstat3::NFS3ERR_NOTSUPP)
    }

    async fn mkdir(
        &self,
        _dirid: &FileId,
        _name: &filename3<'_>,
    ) -> Result<(FileId, fattr3), nfsstat3> {
        Err(nfsstat3::NFS3ERR_NOTSUPP)
    }

    async fn remove(&self, dirid: &FileId, name: &filename3<'_>) -> Result<(), nfsstat3> {
        let path = self.path(*dirid, name)?;
        let mut open = self.lock();
        let id = self.open_path(&mut open, &path)?;
        fs::remove_file(&path).map_err(|error| status(&error))?;
        open.remove(&id);
        Ok(())
    }

    async fn rename<'a>(
        &self,
        _from_dirid: &FileId,
        _from: &filename3<'a>,
        _to_dirid: &FileId,
        _to: &filename3<'a>,
    ) -> Result<(), nfsstat3> {
        Err(nfsstat3::NFS3ERR_NOTSUPP)
    }

    async fn symlink<'a>(
        &self,
        _dirid: &FileId,
        _name: &filename3<'a>,
        _target: &nfspath3<'a>,
        _attr: &sattr3,
    ) -> Result<(FileId, fattr3), nfsstat3> {
        Err(nfsstat3::NFS3ERR_NOTSUPP)
    }

    async fn commit(&self, id: &FileId, offset: u64, count: u32) -> Result<(), nfsstat3> {
        let end = match count {
            0 => u64::MAX,
            count => offset.saturating_add(u64::from(count)),
        };
        self.with_file(*id, |file| file.commit(offset, end))
    }
}

/// What a handle holds besides the generation: enough to find the file again after a reboot, and
/// to see that an inode number was used again for another file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct FileId([u8; 16]);

impl FileId {
    fn of(metadata: &Metadata) -> FileId {
        // Some file systems know no time of birth; there a used-again number goes unnoticed.
        let born = metadata
            .created()
            .ok()
            .and_then(|born| born.duration_since(UNIX_EPOCH).ok())
            .map_or(0, |age| age.as_nanos() as u64);
        let mut id = [0; 16];
        id[..8].copy_from_slice(&metadata.ino().to_be_bytes());
        id[8..].copy_from_slice(&born.to_be_bytes());
        FileId(id)
    }
}

impl FileHandle for FileId {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    fn from_bytes(bytes: &[u8]) -> Option<FileId> {
        bytes.try_into().ok().map(FileId)
    }
}

/// What is left of a directory listing; the next entry is the last one.
#[derive(Debug)]
struct Listing {
    entries: Vec<(Vec<u8>, Metadata)>,
}

impl ReadDirIterator for Listing {
    async fn next(&mut self) -> NextResult<DirEntry> {
        match self.entries.pop() {
            None => NextResult::Eof,
            Some((name, metadata)) => NextResult::Ok(DirEntry {
                fileid: metadata.ino(),
                name: name.into(),
                cookie: metadata.ino(),
            }),
        }
    }
}

impl ReadDirPlusIterator<FileId> for Listing {
    async fn next(&mut self) -> NextResult<DirEntryPlus<FileId>> {
        match self.entries.pop() {
            None => NextResult::Eof,
            Some((name, metadata)) => NextResult::Ok(DirEntryPlus {
                fileid: metadata.ino(),
                name: name.into(),
                cookie: metadata.ino(),
                // The length in the listing would not show unstable data: let the client ask.
                name_attributes: None,
                name_handle: Some(FileId::of(&metadata)),
            }),
        }
    }
}
