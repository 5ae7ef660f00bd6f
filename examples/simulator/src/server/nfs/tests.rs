//! Calls are written, and replies read, by `nfs3_types`: all of a reply, and nothing behind it.

use nfs3_types::mount::{MOUNT_PROGRAM, mountres3};
use nfs3_types::nfs3::{
    self, ACCESS3args, ACCESS3res, COMMIT3args, COMMIT3res, CREATE3args, CREATE3res, FSINFO3args,
    FSINFO3res, GETATTR3args, GETATTR3res, LOOKUP3args, LOOKUP3res, NFS_PROGRAM, Nfs3Option,
    Nfs3Result, READ3args, READ3res, REMOVE3args, REMOVE3res, SETATTR3args, SETATTR3res,
    WRITE3args, WRITE3res, WRITE3resok, createhow3, diropargs3, fattr3, ftype3, nfs_fh3, nfsstat3,
    sattr3, stable_how,
};
use nfs3_types::portmap::{self, PMAP_PROG, mapping};
use nfs3_types::rpc::{
    accept_stat_data, auth_unix, call_body, msg_body, opaque_auth, reply_body, rpc_msg,
};
use nfs3_types::xdr_codec::{Opaque, Pack, Unpack, Void};
use nfs3_types::{mount, rpc};

use super::*;

const PAGE: u32 = 4096;
const XID: u32 = 0xC0FF_EE00;
const GOOD: Manners = Manners {
    short: false,
    unstable: false,
    refuse: None,
    promise_more: false,
};

fn server() -> NfsServer {
    server_with(|_| {})
}

fn server_with(change: impl FnOnce(&mut ServerConfig)) -> NfsServer {
    let mut config = ServerConfig {
        export: "/srv/swap".into(),
        file: "node1".into(),
        transfer_max: 16 * PAGE,
        capacity: None,
        existing: None,
        port: 2049,
    };
    change(&mut config);
    NfsServer::new(config, 7)
}

fn packed(value: &impl Pack) -> Vec<u8> {
    let mut bytes = Vec::new();
    write(&mut bytes, value);
    bytes
}

fn record(program: (u32, u32), procedure: u32, args: &impl Pack) -> Vec<u8> {
    let credential = auth_unix {
        machinename: Opaque::borrowed(b"swap1"),
        gids: vec![1, 2, 3],
        ..auth_unix::default()
    };
    let head = rpc_msg {
        xid: XID,
        body: msg_body::CALL(call_body {
            rpcvers: rpc::RPC_VERSION_2,
            prog: program.0,
            vers: program.1,
            proc: procedure,
            cred: opaque_auth::auth_unix(&credential),
            verf: opaque_auth::default(),
        }),
    };
    [packed(&head), packed(args)].concat()
}

fn nfs(procedure: NFS_PROGRAM, args: &impl Pack) -> Vec<u8> {
    record((nfs3::PROGRAM, nfs3::VERSION), procedure as u32, args)
}

/// The results in a successful reply.
fn results<T: Unpack>(reply: &Reply) -> T {
    let mut rest = &reply.bytes[..];
    let (head, _) = rpc_msg::unpack(&mut rest).expect("the head of a reply");
    assert_eq!((head.xid, reply.call.xid), (XID, XID));
    let msg_body::REPLY(reply_body::MSG_ACCEPTED(accepted)) = head.body else {
        panic!("{head:?}");
    };
    assert!(matches!(accepted.reply_data, accept_stat_data::SUCCESS));
    let (results, _) = T::unpack(&mut rest).expect("results");
    assert_eq!(rest, [], "bytes behind the results");
    results
}

fn ask<T: Unpack>(server: &mut NfsServer, record: &[u8], manners: &Manners) -> T {
    results(&server.answer(record, manners).expect("a call"))
}

fn root(server: &mut NfsServer) -> nfs_fh3 {
    let path = dirpath(Opaque::borrowed(b"/srv/swap"));
    let number = MOUNT_PROGRAM::MOUNTPROC3_MNT as u32;
    let call = record((mount::PROGRAM, mount::VERSION), number, &path);
    match ask(server, &call, &GOOD) {
        mountres3::Ok(mounted) => {
            assert_eq!(mounted.auth_flavors, [1]);
            nfs_fh3 {
                data: mounted.fhandle.0,
            }
        }
        mountres3::Err(status) => panic!("{status}"),
    }
}

fn named(server: &mut NfsServer, name: &'static [u8]) -> diropargs3<'static> {
    diropargs3 {
        dir: root(server),
        name: name.into(),
    }
}

fn create_named(
    server: &mut NfsServer,
    name: &'static [u8],
    how: createhow3,
) -> Result<nfs_fh3, nfsstat3> {
    let args = CREATE3args {
        where_: named(server, name),
        how,
    };
    let call = nfs(NFS_PROGRAM::NFSPROC3_CREATE, &args);
    let result: CREATE3res = ask(server, &call, &GOOD);
    status(result).map(|created| created.obj.unwrap())
}

fn create(server: &mut NfsServer) -> Result<nfs_fh3, nfsstat3> {
    create_named(server, b"node1", createhow3::GUARDED(sattr3::default()))
}

fn lookup(server: &mut NfsServer, name: &'static [u8]) -> Result<nfs_fh3, nfsstat3> {
    let what = named(server, name);
    let call = nfs(NFS_PROGRAM::NFSPROC3_LOOKUP, &LOOKUP3args { what });
    let result: LOOKUP3res = ask(server, &call, &GOOD);
    status(result).map(|found| found.object)
}

fn getattr(server: &mut NfsServer, object: &nfs_fh3) -> Result<fattr3, nfsstat3> {
    let object = object.clone();
    let call = nfs(NFS_PROGRAM::NFSPROC3_GETATTR, &GETATTR3args { object });
    let result: GETATTR3res = ask(server, &call, &GOOD);
    status(result).map(|got| got.obj_attributes)
}

fn resize(server: &mut NfsServer, file: &nfs_fh3, size: u64) -> Result<(), nfsstat3> {
    let args = SETATTR3args {
        object: file.clone(),
        new_attributes: sattr3 {
            size: Nfs3Option::Some(size),
            ..sattr3::default()
        },
        guard: Nfs3Option::None,
    };
    let call = nfs(NFS_PROGRAM::NFSPROC3_SETATTR, &args);
    let result: SETATTR3res = ask(server, &call, &GOOD);
    status(result).map(drop)
}

fn write_call(file: &nfs_fh3, offset: u64, data: &[u8], stable: stable_how) -> Vec<u8> {
    let args = WRITE3args {
        file: file.clone(),
        offset,
        count: data.len() as u32,
        stable,
        data: Opaque::borrowed(data),
    };
    nfs(NFS_PROGRAM::NFSPROC3_WRITE, &args)
}

fn try_write(
    server: &mut NfsServer,
    file: &nfs_fh3,
    (offset, data): (u64, &[u8]),
    stable: stable_how,
    manners: &Manners,
) -> Result<WRITE3resok, nfsstat3> {
    let call = write_call(file, offset, data, stable);
    let result: WRITE3res = ask(server, &call, manners);
    status(result)
}

/// A WRITE that is carried out in full.
fn store(server: &mut NfsServer, file: &nfs_fh3, at: (u64, &[u8]), stable: stable_how) {
    let written = try_write(server, file, at, stable, &GOOD).expect("a WRITE");
    assert_eq!(
        (written.count as usize, written.committed),
        (at.1.len(), stable)
    );
}

/// The bytes, and whether they reach the end.
fn try_read(
    server: &mut NfsServer,
    file: &nfs_fh3,
    (offset, count): (u64, u32),
    manners: &Manners,
) -> Result<(Vec<u8>, bool), nfsstat3> {
    let args = READ3args {
        file: file.clone(),
        offset,
        count,
    };
    let call = nfs(NFS_PROGRAM::NFSPROC3_READ, &args);
    let result: READ3res<'static> = ask(server, &call, manners);
    status(result).map(|read| {
        assert_eq!(read.count as usize, read.data.len());
        (read.data.into_owned(), read.eof)
    })
}

/// All of a file that is short enough for one READ.
fn contents(server: &mut NfsServer, file: &nfs_fh3) -> Vec<u8> {
    let (bytes, eof) = try_read(server, file, (0, 16 * PAGE), &GOOD).expect("a READ");
    assert!(eof);
    bytes
}

/// The verifier.
fn try_commit(
    server: &mut NfsServer,
    file: &nfs_fh3,
    (offset, count): (u64, u32),
    manners: &Manners,
) -> Result<[u8; 8], nfsstat3> {
    let args = COMMIT3args {
        file: file.clone(),
        offset,
        count,
    };
    let call = nfs(NFS_PROGRAM::NFSPROC3_COMMIT, &args);
    let result: COMMIT3res = ask(server, &call, manners);
    status(result).map(|committed| committed.verf.0)
}

fn remove(server: &mut NfsServer, name: &'static [u8]) -> Result<(), nfsstat3> {
    let object = named(server, name);
    let call = nfs(NFS_PROGRAM::NFSPROC3_REMOVE, &REMOVE3args { object });
    let result: REMOVE3res = ask(server, &call, &GOOD);
    status(result).map(drop)
}

fn status<T, E>(result: Nfs3Result<T, E>) -> Result<T, nfsstat3> {
    match result {
        Nfs3Result::Ok(ok) => Ok(ok),
        Nfs3Result::Err((status, _)) => Err(status),
    }
}

fn garbled(record: &[u8]) -> String {
    let error = server().answer(record, &GOOD).expect_err("no call");
    error.to_string()
}

#[test]
fn ports_are_told_for_tcp_only() {
    let port = |prog, prot| -> u32 {
        let args = mapping {
            prog,
            vers: 3,
            prot,
            port: 0,
        };
        let number = PMAP_PROG::PMAPPROC_GETPORT as u32;
        let call = record((portmap::PROGRAM, portmap::VERSION), number, &args);
        ask(&mut server(), &call, &GOOD)
    };
    assert_eq!(port(nfs3::PROGRAM, portmap::IPPROTO_TCP), 2049);
    assert_eq!(port(mount::PROGRAM, portmap::IPPROTO_TCP), 2049);
    assert_eq!(port(nfs3::PROGRAM, portmap::IPPROTO_UDP), 0);
    assert_eq!(port(100_021, portmap::IPPROTO_TCP), 0);
}

#[test]
fn only_the_export_is_mounted() {
    let path = dirpath(Opaque::borrowed(b"/srv"));
    let number = |procedure: MOUNT_PROGRAM| procedure as u32;
    let program = (mount::PROGRAM, mount::VERSION);
    let call = record(program, number(MOUNT_PROGRAM::MOUNTPROC3_MNT), &path);
    let mounted: mountres3<'static> = ask(&mut server(), &call, &GOOD);
    assert!(matches!(
        mounted,
        mountres3::Err(mount::mountstat3::MNT3ERR_NOENT)
    ));
    let call = record(program, number(MOUNT_PROGRAM::MOUNTPROC3_UMNT), &path);
    let Void = ask(&mut server(), &call, &GOOD);
}

#[test]
fn null_is_answered_by_every_program() {
    let programs = [
        (portmap::PROGRAM, portmap::VERSION),
        (mount::PROGRAM, mount::VERSION),
        (nfs3::PROGRAM, nfs3::VERSION),
    ];
    for program in programs {
        let reply = server()
            .answer(&record(program, 0, &Void), &GOOD)
            .expect("a call");
        let Void = results(&reply);
        assert_eq!(reply.call.procedure.to_string(), "NULL");
    }
}

#[test]
fn the_limits_and_rights_are_told() {
    let mut server = server();
    let fsroot = root(&mut server);
    let call = nfs(NFS_PROGRAM::NFSPROC3_FSINFO, &FSINFO3args { fsroot });
    let result: FSINFO3res = ask(&mut server, &call, &GOOD);
    let limits = status(result).unwrap();
    assert_eq!((limits.rtmax, limits.wtmax), (16 * PAGE, 16 * PAGE));

    let object = create(&mut server).unwrap();
    let access = nfs3::ACCESS3_READ | nfs3::ACCESS3_MODIFY | nfs3::ACCESS3_EXECUTE;
    let call = nfs(
        NFS_PROGRAM::NFSPROC3_ACCESS,
        &ACCESS3args { object, access },
    );
    let result: ACCESS3res = ask(&mut server, &call, &GOOD);
    assert_eq!(
        status(result).unwrap().access,
        nfs3::ACCESS3_READ | nfs3::ACCESS3_MODIFY
    );
}

#[test]
fn a_repeated_create_finds_the_file_of_the_first() {
    let mut server = server();
    assert_eq!(lookup(&mut server, b"node1"), Err(nfsstat3::NFS3ERR_NOENT));
    let file = create(&mut server).unwrap();
    assert!(server.exists());
    assert_eq!(create(&mut server), Err(nfsstat3::NFS3ERR_EXIST));
    assert_eq!(lookup(&mut server, b"node1").as_ref(), Ok(&file));
    let unchecked = createhow3::UNCHECKED(sattr3::default());
    assert_eq!(
        create_named(&mut server, b"node1", unchecked),
        Ok(file.clone())
    );
    assert_eq!(getattr(&mut server, &file).unwrap().type_, ftype3::NF3REG);
}

#[test]
fn no_other_name_is_taken() {
    let mut server = server();
    let how = createhow3::GUARDED(sattr3::default());
    let created = create_named(&mut server, b"node2", how);
    assert_eq!(created, Err(nfsstat3::NFS3ERR_ACCES));
    assert_eq!(lookup(&mut server, b"node2"), Err(nfsstat3::NFS3ERR_NOENT));
    assert_eq!(remove(&mut server, b"node2"), Err(nfsstat3::NFS3ERR_NOENT));
}

#[test]
fn unstable_data_are_seen_until_a_reboot_takes_them() {
    let mut server = server();
    let file = create(&mut server).unwrap();
    store(&mut server, &file, (0, b"stable"), stable_how::FILE_SYNC);
    store(&mut server, &file, (2, b"UNSTABLE"), stable_how::UNSTABLE);
    assert_eq!(contents(&mut server, &file), b"stUNSTABLE");
    assert_eq!(server.unstable_bytes(), 8);

    server.reboot(8);
    assert_eq!(contents(&mut server, &file), b"stable");
    assert_eq!(server.unstable_bytes(), 0);
}

#[test]
fn committed_data_outlive_a_reboot() {
    let mut server = server();
    let file = create(&mut server).unwrap();
    store(&mut server, &file, (0, &[1; 12]), stable_how::UNSTABLE);
    try_commit(&mut server, &file, (4, 4), &GOOD).unwrap();
    assert_eq!(server.unstable_bytes(), 8);
    server.reboot(8);
    assert_eq!(contents(&mut server, &file), [0, 0, 0, 0, 1, 1, 1, 1]);

    store(&mut server, &file, (6, &[2; 6]), stable_how::UNSTABLE);
    try_commit(&mut server, &file, (0, 0), &GOOD).unwrap();
    server.reboot(9);
    assert_eq!(
        contents(&mut server, &file),
        [0, 0, 0, 0, 1, 1, 2, 2, 2, 2, 2, 2]
    );
}

#[test]
fn a_stable_write_over_an_unstable_one_stays() {
    let mut server = server();
    let file = create(&mut server).unwrap();
    store(&mut server, &file, (0, &[1; 8]), stable_how::UNSTABLE);
    store(&mut server, &file, (2, &[2; 4]), stable_how::DATA_SYNC);
    assert_eq!(server.unstable_bytes(), 4);
    try_commit(&mut server, &file, (0, 0), &GOOD).unwrap();
    server.reboot(8);
    assert_eq!(contents(&mut server, &file), [1, 1, 2, 2, 2, 2, 1, 1]);
}

#[test]
fn the_verifier_changes_with_each_boot_and_only_then() {
    let mut server = server();
    let file = create(&mut server).unwrap();
    let verifier = |server: &mut NfsServer| {
        let written = try_write(server, &file, (0, b"x"), stable_how::UNSTABLE, &GOOD);
        let verifier = written.unwrap().verf.0;
        assert_eq!(try_commit(server, &file, (0, 0), &GOOD), Ok(verifier));
        verifier
    };
    assert_eq!(verifier(&mut server), 7_u64.to_be_bytes());
    assert_eq!(verifier(&mut server), 7_u64.to_be_bytes());
    server.reboot(8);
    assert_eq!(verifier(&mut server), 8_u64.to_be_bytes());
}

#[test]
fn short_answers_end_where_they_say() {
    let short = Manners {
        short: true,
        ..GOOD
    };
    let mut server = server();
    let file = create(&mut server).unwrap();
    let data: Vec<u8> = (0..PAGE).map(|at| at as u8).collect();
    let mut counts = Vec::new();
    let mut done = 0;
    while done < data.len() {
        let rest = (done as u64, &data[done..]);
        let stable = stable_how::FILE_SYNC;
        let written = try_write(&mut server, &file, rest, stable, &short).unwrap();
        done += written.count as usize;
        counts.push(written.count);
        assert_eq!(getattr(&mut server, &file).unwrap().size, done as u64);
    }
    assert_eq!(counts[..5], [2000, 1000, 548, 272, 136]);
    assert_eq!(counts.last(), Some(&1));

    let mut read = Vec::new();
    while read.len() < data.len() {
        let (at, left) = (read.len() as u64, PAGE - read.len() as u32);
        let (bytes, eof) = try_read(&mut server, &file, (at, left), &short).unwrap();
        assert_eq!(bytes.len() as u32, left.div_ceil(2));
        read.extend(bytes);
        assert_eq!(eof, read.len() == data.len());
    }
    assert_eq!(read, data);
}

#[test]
fn no_transfer_is_longer_than_was_said() {
    let mut server = server_with(|config| config.transfer_max = 8);
    let file = create(&mut server).unwrap();
    let stable = stable_how::FILE_SYNC;
    let written = try_write(&mut server, &file, (0, &[1; 12]), stable, &GOOD).unwrap();
    assert_eq!(written.count, 8);
    store(&mut server, &file, (8, &[1; 4]), stable);
    assert_eq!(
        try_read(&mut server, &file, (0, 12), &GOOD),
        Ok((vec![1; 8], false))
    );
}

#[test]
fn manners_say_more_or_less_than_was_asked_for() {
    let mut server = server();
    let file = create(&mut server).unwrap();
    let unstable = Manners {
        unstable: true,
        ..GOOD
    };
    let stable = stable_how::FILE_SYNC;
    let written = try_write(&mut server, &file, (0, b"abcd"), stable, &unstable).unwrap();
    assert_eq!(written.committed, stable_how::UNSTABLE);
    assert_eq!(server.unstable_bytes(), 4);

    let more = Manners {
        promise_more: true,
        ..GOOD
    };
    let stable = stable_how::UNSTABLE;
    let written = try_write(&mut server, &file, (0, b"ef"), stable, &more).unwrap();
    assert_eq!(written.committed, stable_how::FILE_SYNC);
    assert_eq!(server.unstable_bytes(), 2);
    server.reboot(8);
    assert_eq!(contents(&mut server, &file), b"ef");
}

#[test]
fn a_refusal_does_nothing() {
    let mut server = server();
    let file = create(&mut server).unwrap();
    store(&mut server, &file, (0, b"abcd"), stable_how::UNSTABLE);
    for status in [
        nfsstat3::NFS3ERR_JUKEBOX,
        nfsstat3::NFS3ERR_IO,
        nfsstat3::NFS3ERR_STALE,
    ] {
        let rude = Manners {
            refuse: Some(status),
            ..GOOD
        };
        let stable = stable_how::FILE_SYNC;
        let written = try_write(&mut server, &file, (0, b"efgh"), stable, &rude);
        assert_eq!(written.map(|_| ()), Err(status));
        assert_eq!(try_commit(&mut server, &file, (0, 0), &rude), Err(status));
        assert_eq!(try_read(&mut server, &file, (0, 4), &rude), Err(status));
    }
    assert_eq!(server.unstable_bytes(), 4);
    assert_eq!(contents(&mut server, &file), b"abcd");
}

#[test]
fn a_handle_is_stale_when_its_file_is_gone() {
    let mut server = server();
    let file = create(&mut server).unwrap();
    server.remove();
    assert!(!server.exists());
    let stale = nfsstat3::NFS3ERR_STALE;
    let check = |server: &mut NfsServer| {
        let written = try_write(server, &file, (0, b"x"), stable_how::UNSTABLE, &GOOD);
        assert_eq!(written.map(|_| ()), Err(stale));
        assert_eq!(try_read(server, &file, (0, 1), &GOOD), Err(stale));
        assert_eq!(try_commit(server, &file, (0, 0), &GOOD), Err(stale));
        assert_eq!(resize(server, &file, 1), Err(stale));
        assert_eq!(getattr(server, &file).map(|_| ()), Err(stale));
    };
    check(&mut server);
    assert_eq!(lookup(&mut server, b"node1"), Err(nfsstat3::NFS3ERR_NOENT));

    // Another file of the same name is another file.
    let other = create(&mut server).unwrap();
    check(&mut server);
    assert_eq!(remove(&mut server, b"node1"), Ok(()));
    assert_eq!(remove(&mut server, b"node1"), Err(nfsstat3::NFS3ERR_NOENT));
    assert_eq!(getattr(&mut server, &other).map(|_| ()), Err(stale));
}

#[test]
fn a_handle_outlives_a_reboot() {
    let mut server = server();
    let file = create(&mut server).unwrap();
    server.reboot(8);
    assert!(getattr(&mut server, &file).is_ok());
}

#[test]
fn handles_are_told_apart() {
    let mut server = server();
    let root = root(&mut server);
    let read = try_read(&mut server, &root, (0, 1), &GOOD);
    assert_eq!(read, Err(nfsstat3::NFS3ERR_ISDIR));
    let foreign = nfs_fh3 {
        data: Opaque::borrowed(b"ganesha"),
    };
    let read = try_read(&mut server, &foreign, (0, 1), &GOOD);
    assert_eq!(read, Err(nfsstat3::NFS3ERR_BADHANDLE));
    let what = diropargs3 {
        dir: create(&mut server).unwrap(),
        name: b"node1"[..].into(),
    };
    let call = nfs(NFS_PROGRAM::NFSPROC3_LOOKUP, &LOOKUP3args { what });
    let found: LOOKUP3res = ask(&mut server, &call, &GOOD);
    assert_eq!(status(found).map(|_| ()), Err(nfsstat3::NFS3ERR_NOTDIR));
}

#[test]
fn a_file_that_was_cut_ends_early() {
    let mut server = server();
    let file = create(&mut server).unwrap();
    store(&mut server, &file, (0, &[1; 8]), stable_how::FILE_SYNC);
    store(&mut server, &file, (4, &[2; 4]), stable_how::UNSTABLE);
    server.truncate(5);
    let mut read = |offset, count| try_read(&mut server, &file, (offset, count), &GOOD);
    assert_eq!(read(0, 4), Ok((vec![1; 4], false)));
    assert_eq!(read(4, 4), Ok((vec![2], true)));
    assert_eq!(read(8, 4), Ok((vec![], true)));
    assert_eq!(server.unstable_bytes(), 1);
    server.truncate(8);
    assert_eq!(contents(&mut server, &file), [1, 1, 1, 1, 2, 0, 0, 0]);
}

#[test]
fn a_full_disk_takes_what_needs_no_room() {
    let mut server = server_with(|config| config.capacity = Some(8));
    let file = create(&mut server).unwrap();
    resize(&mut server, &file, 100).expect("a hole needs no room");
    store(&mut server, &file, (40, &[1; 8]), stable_how::UNSTABLE);
    let full = try_write(
        &mut server,
        &file,
        (41, &[2; 8]),
        stable_how::UNSTABLE,
        &GOOD,
    );
    assert_eq!(full.map(|_| ()), Err(nfsstat3::NFS3ERR_NOSPC));
    store(&mut server, &file, (40, &[2; 8]), stable_how::FILE_SYNC);
    let (bytes, _) = try_read(&mut server, &file, (40, 9), &GOOD).unwrap();
    assert_eq!(bytes, [2, 2, 2, 2, 2, 2, 2, 2, 0]);
    server.truncate(44);
    store(&mut server, &file, (0, &[3; 4]), stable_how::UNSTABLE);
}

#[test]
fn a_file_may_not_end_beyond_all_offsets() {
    let mut server = server();
    let file = create(&mut server).unwrap();
    for offset in [u64::MAX, disk::SIZE_MAX] {
        let written = try_write(
            &mut server,
            &file,
            (offset, b"x"),
            stable_how::UNSTABLE,
            &GOOD,
        );
        assert_eq!(written.map(|_| ()), Err(nfsstat3::NFS3ERR_FBIG));
        assert_eq!(
            try_read(&mut server, &file, (offset, 1), &GOOD),
            Ok((vec![], true))
        );
        assert!(try_commit(&mut server, &file, (offset, 9), &GOOD).is_ok());
    }
    assert_eq!(
        resize(&mut server, &file, u64::MAX),
        Err(nfsstat3::NFS3ERR_FBIG)
    );
    let how = createhow3::UNCHECKED(sattr3 {
        size: Nfs3Option::Some(u64::MAX),
        ..sattr3::default()
    });
    server.remove();
    assert_eq!(
        create_named(&mut server, b"node1", how),
        Err(nfsstat3::NFS3ERR_FBIG)
    );
    assert!(!server.exists());
    let file = create(&mut server).unwrap();
    server.truncate(u64::MAX);
    assert_eq!(getattr(&mut server, &file).unwrap().size, disk::SIZE_MAX);
}

#[test]
fn a_guard_holds_off_changes_to_what_has_changed() {
    let mut server = server();
    let object = create(&mut server).unwrap();
    let guard = getattr(&mut server, &object).unwrap().ctime;
    let args = SETATTR3args {
        object: object.clone(),
        new_attributes: sattr3 {
            mode: Nfs3Option::Some(0o640),
            ..sattr3::default()
        },
        guard: Nfs3Option::Some(guard),
    };
    let call = nfs(NFS_PROGRAM::NFSPROC3_SETATTR, &args);
    let result: SETATTR3res = ask(&mut server, &call, &GOOD);
    assert!(status(result).is_ok());
    let result: SETATTR3res = ask(&mut server, &call, &GOOD);
    assert_eq!(status(result).map(drop), Err(nfsstat3::NFS3ERR_NOT_SYNC));
    assert_eq!(getattr(&mut server, &object).unwrap().mode, 0o640);
}

#[test]
fn a_hole_uses_nothing_until_it_is_written() {
    let mut server = server();
    let file = create(&mut server).unwrap();
    let size_and_used = |server: &mut NfsServer| {
        let attributes = getattr(server, &file).unwrap();
        (attributes.size, attributes.used)
    };
    resize(&mut server, &file, 12).unwrap();
    assert_eq!(size_and_used(&mut server), (12, 0));
    store(&mut server, &file, (4, &[0; 4]), stable_how::FILE_SYNC);
    store(&mut server, &file, (4, &[0; 4]), stable_how::FILE_SYNC);
    assert_eq!(size_and_used(&mut server), (12, 4));
    store(&mut server, &file, (0, &[0; 12]), stable_how::UNSTABLE);
    assert_eq!(size_and_used(&mut server), (12, 12));
}

#[test]
fn a_file_may_be_there_at_the_start() {
    let mut server = server_with(|config| {
        config.existing = Some(Existing { size: 10, used: 6 });
    });
    assert!(server.exists());
    let file = lookup(&mut server, b"node1").unwrap();
    let attributes = getattr(&mut server, &file).unwrap();
    assert_eq!((attributes.size, attributes.used), (10, 6));
    assert_eq!(contents(&mut server, &file), [0; 10]);
    assert_eq!(create(&mut server), Err(nfsstat3::NFS3ERR_EXIST));
}

#[test]
fn checkers_see_stable_pages_within_the_file() {
    let mut server = server();
    assert_eq!(server.stable_page(0, 4), None);
    let file = create(&mut server).unwrap();
    store(&mut server, &file, (0, &[1; 7]), stable_how::FILE_SYNC);
    store(&mut server, &file, (0, &[2; 8]), stable_how::UNSTABLE);
    assert_eq!(server.stable_page(0, 4), Some(vec![1; 4]));
    assert_eq!(server.stable_page(1, 4), None, "it is not whole");
    assert_eq!(server.stable_page(u64::MAX, 4), None);
    try_commit(&mut server, &file, (4, 4), &GOOD).unwrap();
    assert_eq!(server.stable_page(0, 4), Some(vec![1; 4]));
    assert_eq!(server.stable_page(1, 4), Some(vec![2; 4]));
}

#[test]
fn a_call_is_described() {
    let mut server = server();
    let file = create(&mut server).unwrap();
    let call = write_call(&file, 4096, b"data", stable_how::UNSTABLE);
    let reply = server.answer(&call, &GOOD).unwrap();
    let call = Call {
        xid: XID,
        procedure: Procedure::Write,
        offset: 4096,
        count: 4,
    };
    assert_eq!(reply.call, call);
    assert_eq!(format!("{:>6}", call.procedure), " WRITE");
}

#[test]
fn what_no_client_may_send_is_garbled() {
    let file = handle();
    let good = write_call(&file, 0, b"data", stable_how::UNSTABLE);
    assert!(garbled(&[&good[..], &[0; 4]].concat()).contains("4 bytes too many"));
    assert!(garbled(&nfs(NFS_PROGRAM::NFSPROC3_MKDIR, &Void)).contains("procedure 9"));
    let version = record((nfs3::PROGRAM, 4), 0, &Void);
    assert!(garbled(&version).contains("version 4 of program 100003"));

    let mut padded = write_call(&file, 0, b"dat", stable_how::UNSTABLE);
    *padded.last_mut().unwrap() = 1;
    assert!(garbled(&padded).contains("padding"));

    let count = write_call(&file, 0, b"data", stable_how::UNSTABLE);
    let at = count.len() - 8 - 4 - 4;
    let count = [&count[..at], &3_u32.to_be_bytes(), &count[at + 4..]].concat();
    assert!(garbled(&count).contains("count is not the length"));

    let mut reply = server()
        .answer(&nfs(NFS_PROGRAM::NFSPROC3_NULL, &Void), &GOOD)
        .unwrap();
    reply.bytes.resize(64, 0);
    assert!(garbled(&reply.bytes).contains("a reply"));
}

/// A handle that looks like that of a file.
fn handle() -> nfs_fh3 {
    create(&mut server()).unwrap()
}

/// Calls of every kind, with what could be long in them.
fn calls() -> Vec<Vec<u8>> {
    let file = handle();
    let what = || diropargs3 {
        dir: file.clone(),
        name: b"node1"[..].into(),
    };
    let how = createhow3::GUARDED(sattr3::default());
    let create = CREATE3args {
        where_: what(),
        how,
    };
    let object = file.clone();
    vec![
        write_call(&file, 0, b"data.", stable_how::UNSTABLE),
        nfs(NFS_PROGRAM::NFSPROC3_LOOKUP, &LOOKUP3args { what: what() }),
        nfs(NFS_PROGRAM::NFSPROC3_CREATE, &create),
        nfs(NFS_PROGRAM::NFSPROC3_GETATTR, &GETATTR3args { object }),
        record(
            (mount::PROGRAM, mount::VERSION),
            1,
            &dirpath(Opaque::borrowed(b"/srv/swap")),
        ),
    ]
}

#[test]
fn a_call_that_is_cut_off_is_garbled() {
    for call in calls() {
        assert!(server().answer(&call, &GOOD).is_ok());
        for len in 0..call.len() {
            garbled(&call[..len]);
        }
    }
}

#[test]
fn no_number_in_a_call_makes_the_server_panic_or_run_out_of_memory() {
    for call in calls() {
        for at in 0..call.len() - 3 {
            for value in [u32::MAX, 0x7FFF_FFFD, 0x1000_0000, 1] {
                let mut call = call.clone();
                call[at..at + 4].copy_from_slice(&value.to_be_bytes());
                let _ = server().answer(&call, &GOOD);
            }
        }
    }
}
