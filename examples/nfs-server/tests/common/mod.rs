//! A plain NFSv3 client: one call, one reply, and the types of `nfs3_types`.

use core::net::SocketAddr;
use std::io::{self, Cursor, Read, Write};
use std::net::TcpStream;

use nfs3_types::mount::{self, MOUNT_PROGRAM, dirpath, mountres3, mountstat3};
use nfs3_types::nfs3::*;
use nfs3_types::rpc::{
    accept_stat_data, auth_unix, call_body, msg_body, opaque_auth, reply_body, rpc_msg,
};
use nfs3_types::xdr_codec::{Opaque, Pack, Unpack};

/// A connection to the server.
pub(crate) struct Client {
    stream: TcpStream,
    xid: u32,
}

impl Client {
    pub(crate) fn connect(addr: SocketAddr) -> Client {
        Client {
            stream: TcpStream::connect(addr).unwrap(),
            xid: 0,
        }
    }

    /// Connects and mounts.
    pub(crate) fn mount(addr: SocketAddr) -> (Client, nfs_fh3) {
        let mut client = Client::connect(addr);
        let root = client.mnt("/export").unwrap();
        (client, root)
    }

    pub(crate) fn mnt(&mut self, export: &str) -> Result<nfs_fh3, mountstat3> {
        let path = dirpath(Opaque::borrowed(export.as_bytes()));
        let proc = MOUNT_PROGRAM::MOUNTPROC3_MNT as u32;
        match self.call(mount::PROGRAM, proc, &path).unwrap() {
            mountres3::Ok(mounted) => Ok(nfs_fh3 {
                data: mounted.fhandle.0,
            }),
            mountres3::Err(status) => Err(status),
        }
    }

    pub(crate) fn lookup(&mut self, dir: &nfs_fh3, name: &str) -> Result<nfs_fh3, nfsstat3> {
        let what = target(dir, name);
        let found: LOOKUP3res = self.nfs(NFS_PROGRAM::NFSPROC3_LOOKUP, &LOOKUP3args { what });
        status(found).map(|ok| ok.object)
    }

    pub(crate) fn create(&mut self, dir: &nfs_fh3, name: &str) -> nfs_fh3 {
        self.try_create(dir, name, createhow3::UNCHECKED(sattr3::default()))
            .unwrap()
    }

    pub(crate) fn try_create(
        &mut self,
        dir: &nfs_fh3,
        name: &str,
        how: createhow3,
    ) -> Result<nfs_fh3, nfsstat3> {
        let where_ = target(dir, name);
        let args = CREATE3args { where_, how };
        let created: CREATE3res = self.nfs(NFS_PROGRAM::NFSPROC3_CREATE, &args);
        status(created).map(|ok| ok.obj.unwrap())
    }

    pub(crate) fn remove(&mut self, dir: &nfs_fh3, name: &str) -> Result<(), nfsstat3> {
        let object = target(dir, name);
        let removed: REMOVE3res = self.nfs(NFS_PROGRAM::NFSPROC3_REMOVE, &REMOVE3args { object });
        status(removed).map(drop)
    }

    pub(crate) fn getattr(&mut self, file: &nfs_fh3) -> Result<fattr3, nfsstat3> {
        let object = file.clone();
        let found: GETATTR3res = self.nfs(NFS_PROGRAM::NFSPROC3_GETATTR, &GETATTR3args { object });
        status(found).map(|ok| ok.obj_attributes)
    }

    pub(crate) fn set_len(&mut self, file: &nfs_fh3, len: u64) -> Result<(), nfsstat3> {
        let args = SETATTR3args {
            object: file.clone(),
            new_attributes: sattr3 {
                size: Nfs3Option::Some(len),
                ..sattr3::default()
            },
            guard: Nfs3Option::None,
        };
        let set: SETATTR3res = self.nfs(NFS_PROGRAM::NFSPROC3_SETATTR, &args);
        status(set).map(drop)
    }

    pub(crate) fn read(
        &mut self,
        file: &nfs_fh3,
        offset: u64,
        count: u32,
    ) -> Result<Vec<u8>, nfsstat3> {
        let args = READ3args {
            file: file.clone(),
            offset,
            count,
        };
        let read: READ3res<'static> = self.nfs(NFS_PROGRAM::NFSPROC3_READ, &args);
        status(read).map(|ok| ok.data.into_owned())
    }

    pub(crate) fn write(
        &mut self,
        file: &nfs_fh3,
        offset: u64,
        data: &[u8],
        stable: stable_how,
    ) -> Result<WRITE3resok, nfsstat3> {
        let args = WRITE3args {
            file: file.clone(),
            offset,
            count: data.len() as u32,
            stable,
            data: Opaque::borrowed(data),
        };
        let written: WRITE3res = self.nfs(NFS_PROGRAM::NFSPROC3_WRITE, &args);
        status(written)
    }

    pub(crate) fn commit(&mut self, file: &nfs_fh3, offset: u64, count: u32) -> writeverf3 {
        let args = COMMIT3args {
            file: file.clone(),
            offset,
            count,
        };
        let committed: COMMIT3res = self.nfs(NFS_PROGRAM::NFSPROC3_COMMIT, &args);
        status(committed).unwrap().verf
    }

    /// Names in a directory, a few to each call.
    pub(crate) fn readdir(&mut self, dir: &nfs_fh3, bytes: u32) -> Vec<String> {
        let mut names = Vec::new();
        let (mut cookie, mut cookieverf) = (0, cookieverf3::default());
        loop {
            let args = READDIR3args {
                dir: dir.clone(),
                cookie,
                cookieverf,
                count: bytes,
            };
            let listed: READDIR3res<'static> = self.nfs(NFS_PROGRAM::NFSPROC3_READDIR, &args);
            let listed = status(listed).unwrap();
            cookieverf = listed.cookieverf;
            for entry in listed.reply.entries.0 {
                cookie = entry.cookie;
                names.push(String::from_utf8(entry.name.as_ref().to_vec()).unwrap());
            }
            if listed.reply.eof {
                return names;
            }
        }
    }

    fn nfs<R: Unpack>(&mut self, procedure: NFS_PROGRAM, args: &impl Pack) -> R {
        self.call(PROGRAM, procedure as u32, args).unwrap()
    }

    /// One call and its reply.
    pub(crate) fn call<R: Unpack>(
        &mut self,
        prog: u32,
        proc: u32,
        args: &impl Pack,
    ) -> io::Result<R> {
        self.xid += 1;
        let header = rpc_msg {
            xid: self.xid,
            body: msg_body::CALL(call_body {
                rpcvers: 2,
                prog,
                vers: 3,
                proc,
                cred: opaque_auth::auth_unix(&auth_unix::default()),
                verf: opaque_auth::default(),
            }),
        };
        let mut message = vec![0; 4];
        header.pack(&mut message).unwrap();
        args.pack(&mut message).unwrap();
        let mark = (message.len() as u32 - 4) | 1 << 31;
        message[..4].copy_from_slice(&mark.to_be_bytes());
        self.stream.write_all(&message)?;

        let mut mark = [0; 4];
        self.stream.read_exact(&mut mark)?;
        let mut reply = vec![0; (u32::from_be_bytes(mark) & !(1 << 31)) as usize];
        self.stream.read_exact(&mut reply)?;
        let mut reply = Cursor::new(reply);
        let (header, _) = rpc_msg::unpack(&mut reply).unwrap();
        assert_eq!(header.xid, self.xid);
        match header.body {
            msg_body::REPLY(reply_body::MSG_ACCEPTED(accepted)) => {
                assert!(matches!(accepted.reply_data, accept_stat_data::SUCCESS));
            }
            other => panic!("{other:?}"),
        }
        Ok(R::unpack(&mut reply).unwrap().0)
    }
}

fn target<'a>(dir: &nfs_fh3, name: &'a str) -> diropargs3<'a> {
    diropargs3 {
        dir: dir.clone(),
        name: name.as_bytes().into(),
    }
}

fn status<T, E>(result: Nfs3Result<T, E>) -> Result<T, nfsstat3> {
    match result {
        Nfs3Result::Ok(ok) => Ok(ok),
        Nfs3Result::Err((status, _)) => Err(status),
    }
}
