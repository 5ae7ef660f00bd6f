//! What each procedure does (RFC 1833 section 3, RFC 1813 section 3.3 and 5.2).

use nfs3_types::mount::{self, dirpath, fhandle3, mountres3, mountres3_ok, mountstat3};
use nfs3_types::nfs3::{
    self, ACCESS3args, ACCESS3res, ACCESS3resfail, ACCESS3resok, COMMIT3args, COMMIT3res,
    COMMIT3resfail, COMMIT3resok, CREATE3args, CREATE3res, CREATE3resfail, CREATE3resok,
    FSINFO3args, FSINFO3res, FSINFO3resfail, FSINFO3resok, GETATTR3args, GETATTR3res,
    GETATTR3resok, LOOKUP3args, LOOKUP3res, LOOKUP3resfail, LOOKUP3resok, Nfs3Option, Nfs3Result,
    READ3args, READ3res, READ3resfail, READ3resok, REMOVE3args, REMOVE3res, REMOVE3resfail,
    REMOVE3resok, SETATTR3args, SETATTR3res, SETATTR3resfail, SETATTR3resok, WRITE3args, WRITE3res,
    WRITE3resfail, WRITE3resok, createhow3, diropargs3, fattr3, ftype3, nfs_fh3, nfsstat3,
    nfstime3, post_op_attr, pre_op_attr, sattr3, specdata3, stable_how, wcc_attr, wcc_data,
    writeverf3,
};
use nfs3_types::portmap::{self, mapping};
use nfs3_types::rpc::auth_flavor;
use nfs3_types::xdr_codec::{Opaque, Pack, Unpack, Void};

use super::disk::{File, SIZE_MAX};
use super::{Manners, NfsServer, ROOT};

/// What our file handles start with. Its length is odd, so that handles have padding.
const HANDLE_MARK: &[u8] = b"sim";

impl NfsServer {
    /// GETPORT: both programs share a port, and TCP is all there is; 0 says no.
    pub(super) fn get_port(&self, args: &mapping) -> u32 {
        match (args.prog, args.vers, args.prot) {
            (mount::PROGRAM, mount::VERSION, portmap::IPPROTO_TCP)
            | (nfs3::PROGRAM, nfs3::VERSION, portmap::IPPROTO_TCP) => self.config.port.into(),
            _ => 0,
        }
    }

    /// MNT: the root of the export, for AUTH_SYS.
    pub(super) fn mount(&self, path: &dirpath<'_>) -> mountres3<'static> {
        if *path.0 != *self.config.export.as_bytes() {
            return mountres3::Err(mountstat3::MNT3ERR_NOENT);
        }
        mountres3::Ok(mountres3_ok {
            fhandle: fhandle3(handle(ROOT).data),
            auth_flavors: vec![auth_flavor::AUTH_UNIX as u32],
        })
    }

    /// GETATTR.
    pub(super) fn getattr(&self, args: &GETATTR3args) -> GETATTR3res {
        match self.attributes(&args.object) {
            Ok(obj_attributes) => Nfs3Result::Ok(GETATTR3resok { obj_attributes }),
            Err(status) => Nfs3Result::Err((status, Void)),
        }
    }

    /// SETATTR: mode and size; a change of size is stable at once.
    pub(super) fn setattr(&mut self, args: &SETATTR3args) -> SETATTR3res {
        let before = self.before(&args.object);
        let outcome = self.try_setattr(args);
        let obj_wcc = self.wcc(before, &args.object);
        match outcome {
            Ok(()) => Nfs3Result::Ok(SETATTR3resok { obj_wcc }),
            Err(status) => Nfs3Result::Err((status, SETATTR3resfail { obj_wcc })),
        }
    }

    /// Carries SETATTR out.
    fn try_setattr(&mut self, args: &SETATTR3args) -> Result<(), nfsstat3> {
        let now = self.tick();
        let file = self.file_mut(&args.object)?;
        if matches!(args.guard, Nfs3Option::Some(guard) if guard != time(file.changed)) {
            return Err(nfsstat3::NFS3ERR_NOT_SYNC);
        }
        check_size(&args.new_attributes)?;
        set(file, &args.new_attributes);
        file.changed = now;
        Ok(())
    }

    /// LOOKUP.
    pub(super) fn lookup(&self, args: &LOOKUP3args<'_>) -> LOOKUP3res {
        let dir_attributes = option(self.attributes(&args.what.dir).ok());
        match self.find(&args.what) {
            Ok(file) => Nfs3Result::Ok(LOOKUP3resok {
                object: handle(file.id),
                obj_attributes: Nfs3Option::Some(file_attributes(file)),
                dir_attributes,
            }),
            Err(status) => Nfs3Result::Err((status, LOOKUP3resfail { dir_attributes })),
        }
    }

    /// ACCESS: grants whatever makes sense for the object.
    pub(super) fn access(&self, args: &ACCESS3args) -> ACCESS3res {
        match self.attributes(&args.object) {
            Ok(attributes) => Nfs3Result::Ok(ACCESS3resok {
                access: args.access & rights(attributes.type_),
                obj_attributes: Nfs3Option::Some(attributes),
            }),
            Err(status) => Nfs3Result::Err((status, ACCESS3resfail::default())),
        }
    }

    /// READ.
    pub(super) fn read(&self, args: &READ3args, manners: &Manners) -> READ3res<'static> {
        let file_attributes = option(self.attributes(&args.file).ok());
        match self.try_read(args, manners) {
            Ok((data, eof)) => Nfs3Result::Ok(READ3resok {
                file_attributes,
                count: data.len() as u32,
                eof,
                data: Opaque::owned(data),
            }),
            Err(status) => Nfs3Result::Err((status, READ3resfail { file_attributes })),
        }
    }

    /// The bytes, and whether they reach the end of the file.
    fn try_read(&self, args: &READ3args, manners: &Manners) -> Result<(Vec<u8>, bool), nfsstat3> {
        manners.refuse.map_or(Ok(()), Err)?;
        let file = self.file(&args.file)?;
        let count = args.count.min(self.config.transfer_max);
        let count = match manners.short {
            true => count.div_ceil(2),
            false => count,
        };
        let end = args.offset.saturating_add(count.into());
        Ok((file.read(args.offset..end), end >= file.size()))
    }

    /// WRITE: all of the data that it takes, or none if the disk is full.
    pub(super) fn write(&mut self, args: WRITE3args<'_>, manners: &Manners) -> WRITE3res {
        let file = args.file.clone();
        let before = self.before(&file);
        let outcome = self.try_write(args, manners);
        let file_wcc = self.wcc(before, &file);
        match outcome {
            Ok((count, committed)) => Nfs3Result::Ok(WRITE3resok {
                file_wcc,
                count,
                committed,
                verf: self.verifier(),
            }),
            Err(status) => Nfs3Result::Err((status, WRITE3resfail { file_wcc })),
        }
    }

    /// How many bytes were stored, and how durably.
    fn try_write(
        &mut self,
        args: WRITE3args<'_>,
        manners: &Manners,
    ) -> Result<(u32, stable_how), nfsstat3> {
        manners.refuse.map_or(Ok(()), Err)?;
        let (now, capacity) = (self.tick(), self.config.capacity);
        let count = args.count.min(self.config.transfer_max);
        let count = match manners.short {
            true => less(count),
            false => count,
        };
        let file = self.file_mut(&args.file)?;
        let end = args.offset.checked_add(count.into());
        let end = end
            .filter(|&end| end <= SIZE_MAX)
            .ok_or(nfsstat3::NFS3ERR_FBIG)?;
        if capacity.is_some_and(|capacity| file.used_after(&(args.offset..end)) > capacity) {
            return Err(nfsstat3::NFS3ERR_NOSPC);
        }
        let mut data = args.data.into_owned();
        data.truncate(count as usize);
        let committed = if manners.unstable {
            stable_how::UNSTABLE
        } else if manners.promise_more {
            stable_how::FILE_SYNC
        } else {
            args.stable
        };
        match committed {
            stable_how::UNSTABLE => file.write_unstable(args.offset, data),
            stable_how::DATA_SYNC | stable_how::FILE_SYNC => file.write_stable(args.offset, data),
        }
        file.changed = now;
        Ok((count, committed))
    }

    /// CREATE: the one name, guarded or not; exclusive creation is not supported.
    pub(super) fn create(&mut self, args: &CREATE3args<'_>) -> CREATE3res {
        let before = self.before(&args.where_.dir);
        let outcome = self.try_create(args);
        let dir_wcc = self.wcc(before, &args.where_.dir);
        match outcome {
            Ok(file) => {
                let obj_attributes = option(self.attributes(&file).ok());
                Nfs3Result::Ok(CREATE3resok {
                    obj: Nfs3Option::Some(file),
                    obj_attributes,
                    dir_wcc,
                })
            }
            Err(status) => Nfs3Result::Err((status, CREATE3resfail { dir_wcc })),
        }
    }

    /// The handle of the file that was created, or was there.
    fn try_create(&mut self, args: &CREATE3args<'_>) -> Result<nfs_fh3, nfsstat3> {
        let (attributes, guarded) = match &args.how {
            createhow3::UNCHECKED(attributes) => (attributes, false),
            createhow3::GUARDED(attributes) => (attributes, true),
            createhow3::EXCLUSIVE(_) => return Err(nfsstat3::NFS3ERR_NOTSUPP),
        };
        check_size(attributes)?;
        match self.find(&args.where_) {
            Ok(_) if guarded => return Err(nfsstat3::NFS3ERR_EXIST),
            Ok(_) => {}
            Err(nfsstat3::NFS3ERR_NOENT) if self.is_ours(&args.where_) => {
                self.last_id += 1;
                self.file = Some(File::new(self.last_id, 0, 0));
                self.root_changed = self.tick();
            }
            Err(nfsstat3::NFS3ERR_NOENT) => return Err(nfsstat3::NFS3ERR_ACCES),
            Err(status) => return Err(status),
        }
        let now = self.tick();
        let file = self.file.as_mut().ok_or(nfsstat3::NFS3ERR_SERVERFAULT)?;
        set(file, attributes);
        file.changed = now;
        Ok(handle(file.id))
    }

    /// REMOVE.
    pub(super) fn remove_name(&mut self, args: &REMOVE3args<'_>) -> REMOVE3res {
        let before = self.before(&args.object.dir);
        let outcome = self.find(&args.object).map(drop);
        if outcome.is_ok() {
            self.remove();
        }
        let dir_wcc = self.wcc(before, &args.object.dir);
        match outcome {
            Ok(()) => Nfs3Result::Ok(REMOVE3resok { dir_wcc }),
            Err(status) => Nfs3Result::Err((status, REMOVE3resfail { dir_wcc })),
        }
    }

    /// FSINFO.
    pub(super) fn fsinfo(&self, args: &FSINFO3args) -> FSINFO3res {
        let transfer_max = self.config.transfer_max;
        match self.attributes(&args.fsroot) {
            Ok(attributes) => Nfs3Result::Ok(FSINFO3resok {
                obj_attributes: Nfs3Option::Some(attributes),
                rtmax: transfer_max,
                rtpref: transfer_max,
                rtmult: 1,
                wtmax: transfer_max,
                wtpref: transfer_max,
                wtmult: 1,
                dtpref: transfer_max,
                maxfilesize: SIZE_MAX,
                time_delta: time(1),
                properties: nfs3::FSF3_HOMOGENEOUS,
            }),
            Err(status) => Nfs3Result::Err((status, FSINFO3resfail::default())),
        }
    }

    /// COMMIT: the range, or all from its offset on if it is empty.
    pub(super) fn commit(&mut self, args: &COMMIT3args, manners: &Manners) -> COMMIT3res {
        let before = self.before(&args.file);
        let outcome = self.try_commit(args, manners);
        let file_wcc = self.wcc(before, &args.file);
        match outcome {
            Ok(()) => Nfs3Result::Ok(COMMIT3resok {
                file_wcc,
                verf: self.verifier(),
            }),
            Err(status) => Nfs3Result::Err((status, COMMIT3resfail { file_wcc })),
        }
    }

    /// Carries COMMIT out.
    fn try_commit(&mut self, args: &COMMIT3args, manners: &Manners) -> Result<(), nfsstat3> {
        manners.refuse.map_or(Ok(()), Err)?;
        let end = match args.count {
            0 => u64::MAX,
            count => args.offset.saturating_add(count.into()),
        };
        self.file_mut(&args.file)?.commit(&(args.offset..end));
        Ok(())
    }

    /// Names this boot.
    fn verifier(&self) -> writeverf3 {
        writeverf3(self.boot.to_be_bytes())
    }

    /// The file of a name.
    fn find(&self, what: &diropargs3<'_>) -> Result<&File, nfsstat3> {
        match id(&what.dir)? {
            ROOT if self.is_ours(what) => self.file.as_ref().ok_or(nfsstat3::NFS3ERR_NOENT),
            ROOT => Err(nfsstat3::NFS3ERR_NOENT),
            _ => Err(self
                .file(&what.dir)
                .err()
                .unwrap_or(nfsstat3::NFS3ERR_NOTDIR)),
        }
    }

    /// Whether it is the name that a file may have.
    fn is_ours(&self, what: &diropargs3<'_>) -> bool {
        what.name.as_ref() == self.config.file.as_bytes()
    }

    /// The file of a handle, if it is still there.
    fn file(&self, file: &nfs_fh3) -> Result<&File, nfsstat3> {
        let id = file_id(file)?;
        let file = self.file.as_ref().filter(|file| file.id == id);
        file.ok_or(nfsstat3::NFS3ERR_STALE)
    }

    /// The file of a handle, to change it.
    fn file_mut(&mut self, file: &nfs_fh3) -> Result<&mut File, nfsstat3> {
        let id = file_id(file)?;
        let file = self.file.as_mut().filter(|file| file.id == id);
        file.ok_or(nfsstat3::NFS3ERR_STALE)
    }

    /// Of a file or the directory.
    fn attributes(&self, object: &nfs_fh3) -> Result<fattr3, nfsstat3> {
        match id(object)? {
            ROOT => Ok(attributes(ROOT, ftype3::NF3DIR, 0o755, self.root_changed)),
            _ => self.file(object).map(file_attributes),
        }
    }

    /// What [`wcc`](Self::wcc) needs to know from before a change.
    fn before(&self, object: &nfs_fh3) -> pre_op_attr {
        option(self.attributes(object).ok().map(|attributes| wcc_attr {
            size: attributes.size,
            mtime: attributes.mtime,
            ctime: attributes.ctime,
        }))
    }

    /// What a change, or the lack of it, has made of an object.
    fn wcc(&self, before: pre_op_attr, object: &nfs_fh3) -> wcc_data {
        let after: post_op_attr = option(self.attributes(object).ok());
        wcc_data { before, after }
    }
}

/// A file handle: the mark and the id.
fn handle(id: u64) -> nfs_fh3 {
    nfs_fh3 {
        data: Opaque::owned([HANDLE_MARK, &id.to_be_bytes()].concat()),
    }
}

/// The id in a handle.
fn id(handle: &nfs_fh3) -> Result<u64, nfsstat3> {
    let id = handle.data.strip_prefix(HANDLE_MARK);
    let id = id.and_then(|id| id.try_into().ok()).map(u64::from_be_bytes);
    id.ok_or(nfsstat3::NFS3ERR_BADHANDLE)
}

/// The id in the handle of a file.
fn file_id(handle: &nfs_fh3) -> Result<u64, nfsstat3> {
    match id(handle)? {
        ROOT => Err(nfsstat3::NFS3ERR_ISDIR),
        id => Ok(id),
    }
}

/// The attributes of a file.
fn file_attributes(file: &File) -> fattr3 {
    fattr3 {
        size: file.size(),
        used: file.used(),
        ..attributes(file.id, ftype3::NF3REG, file.mode, file.changed)
    }
}

/// The attributes of an empty object.
fn attributes(id: u64, type_: ftype3, mode: u32, changed: u32) -> fattr3 {
    fattr3 {
        type_,
        mode,
        nlink: 1,
        uid: 0,
        gid: 0,
        size: 0,
        used: 0,
        rdev: specdata3::default(),
        fsid: 1,
        fileid: id,
        atime: time(changed),
        mtime: time(changed),
        ctime: time(changed),
    }
}

/// Whether a file may be as long as is asked for; before anything is changed.
fn check_size(attributes: &sattr3) -> Result<(), nfsstat3> {
    match attributes.size {
        Nfs3Option::Some(size) if size > SIZE_MAX => Err(nfsstat3::NFS3ERR_FBIG),
        _ => Ok(()),
    }
}

/// Sets the mode and size that are given.
fn set(file: &mut File, attributes: &sattr3) {
    if let Nfs3Option::Some(size) = attributes.size {
        file.resize(size);
    }
    if let Nfs3Option::Some(mode) = attributes.mode {
        file.mode = mode;
    }
}

/// Everything that makes sense for a file or a directory.
const fn rights(kind: ftype3) -> u32 {
    let both = nfs3::ACCESS3_READ | nfs3::ACCESS3_MODIFY | nfs3::ACCESS3_EXTEND;
    match kind {
        ftype3::NF3DIR => both | nfs3::ACCESS3_LOOKUP | nfs3::ACCESS3_DELETE,
        _ => both,
    }
}

/// About half of a count, as [`Manners::short`] says of WRITE.
const fn less(count: u32) -> u32 {
    match count / 2 {
        half @ 1000.. => half - half % 1000,
        half @ 4.. => half - half % 4,
        1.. => 1,
        0 => count,
    }
}

/// A moment on the server's counter.
const fn time(changed: u32) -> nfstime3 {
    nfstime3 {
        seconds: changed,
        nseconds: 0,
    }
}

/// `nfs3_types` has an option of its own.
fn option<T: Pack + Unpack>(value: Option<T>) -> Nfs3Option<T> {
    value.map_or(Nfs3Option::None, Nfs3Option::Some)
}
