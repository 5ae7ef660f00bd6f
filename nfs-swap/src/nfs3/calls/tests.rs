//! Encoders and decoders against `nfs3_types`, an independent implementation.

extern crate alloc;
extern crate std;

use alloc::vec::Vec;
use std::io::Cursor;

use nfs3_types::nfs3 as peer;
use nfs3_types::xdr_codec::Unpack;
use proptest::prelude::*;

use super::*;
use crate::nfs3::FileKind;

/// The arguments of `call` as the peer reads them; `payload` follows them.
fn arguments<T: Unpack>(call: &impl Procedure, payload: &[u8]) -> T {
    let mut buf = [0; 512];
    let mut writer = Writer::new(&mut buf);
    call.encode(&mut writer).unwrap();
    writer.bytes(payload).unwrap();
    let len = writer.len();
    let (arguments, read) = T::unpack(&mut Cursor::new(&buf[..len])).unwrap();
    assert_eq!(read, len, "the peer reads them to the end");
    arguments
}

fn fh(handle: &peer::nfs_fh3) -> &[u8] {
    &handle.data.0
}

proptest! {
    #[test]
    fn a_peer_reads_the_arguments_that_we_write(
        handle in proptest::collection::vec(any::<u8>(), 1..=64),
        name in "[a-z]{1,128}",
        offset: u64,
        size: u64,
        data in proptest::collection::vec(any::<u8>(), 0..4).prop_map(|words| {
            words.into_iter().flat_map(|byte| [byte; 4]).collect::<Vec<_>>()
        }),
    ) {
        let file = &Fh::new(&handle).unwrap();
        let count = data.len() as u32;

        let args: peer::GETATTR3args = arguments(&Getattr { file }, &[]);
        prop_assert_eq!(fh(&args.object), &handle);

        let args: peer::FSINFO3args = arguments(&Fsinfo { root: file }, &[]);
        prop_assert_eq!(fh(&args.fsroot), &handle);

        let rights = AccessRights::READ_MODIFY;
        let args: peer::ACCESS3args = arguments(&Access { file, rights }, &[]);
        prop_assert_eq!((fh(&args.object), args.access), (&handle[..], 5));

        let args: peer::READ3args = arguments(&Read { file, offset, count }, &[]);
        prop_assert_eq!((fh(&args.file), args.offset, args.count), (&handle[..], offset, count));

        let args: peer::COMMIT3args = arguments(&Commit { file, offset, count }, &[]);
        prop_assert_eq!((fh(&args.file), args.offset, args.count), (&handle[..], offset, count));

        let stable = StableHow::DataSync;
        let args: peer::WRITE3args<'_> = arguments(&Write { file, offset, count, stable }, &data);
        prop_assert_eq!((fh(&args.file), args.offset, args.count), (&handle[..], offset, count));
        prop_assert_eq!(args.stable, peer::stable_how::DATA_SYNC);
        prop_assert_eq!(&args.data.0[..], &data[..]);

        let args: peer::LOOKUP3args<'_> = arguments(&Lookup { dir: file, name: &name }, &[]);
        prop_assert_eq!((fh(&args.what.dir), &args.what.name.0.0[..]), (&handle[..], name.as_bytes()));

        let args: peer::REMOVE3args<'_> = arguments(&Remove { dir: file, name: &name }, &[]);
        prop_assert_eq!((fh(&args.object.dir), &args.object.name.0.0[..]), (&handle[..], name.as_bytes()));

        let attributes = Sattr3 { mode: None, size: Some(size) };
        let args: peer::SETATTR3args = arguments(&Setattr { file, attributes, guard: None }, &[]);
        prop_assert_eq!(args.new_attributes.size, peer::Nfs3Option::Some(size));
        prop_assert_eq!(args.new_attributes.mode, peer::Nfs3Option::None);
        prop_assert_eq!(args.guard, peer::Nfs3Option::None);
        let guard = Some(NfsTime3 { seconds: 7, nanoseconds: count });
        let args: peer::SETATTR3args = arguments(&Setattr { file, attributes, guard }, &[]);
        prop_assert_eq!(args.guard, peer::Nfs3Option::Some(peer::nfstime3 { seconds: 7, nseconds: count }));

        let attributes = Sattr3 { mode: Some(0o600), size: None };
        let guarded = Create { dir: file, name: &name, how: CreateHow::Guarded, attributes };
        let args: peer::CREATE3args<'_> = arguments(&guarded, &[]);
        let peer::createhow3::GUARDED(sattr) = args.how else { panic!("not guarded") };
        prop_assert_eq!(sattr.mode, peer::Nfs3Option::Some(0o600));
        let unchecked = Create { how: CreateHow::Unchecked, ..guarded };
        let args: peer::CREATE3args<'_> = arguments(&unchecked, &[]);
        prop_assert!(matches!(args.how, peer::createhow3::UNCHECKED(_)));
    }
}

#[test]
fn a_name_too_long_is_refused() {
    let dir = &Fh::new(b"dir").unwrap();
    let name = core::str::from_utf8(&[b'x'; NAME_MAX + 1]).unwrap();
    let encoded = Lookup { dir, name }.encode(&mut Writer::new(&mut [0; 512]));
    assert_eq!(encoded, Err(XdrError::TooLong));
}

/// Words as replies have them: small numbers, among anything.
fn words() -> impl Strategy<Value = Vec<u8>> {
    let word = prop_oneof![
        6 => 0u32..=2,
        1 => Just(8u32),
        1 => 3u32..64,
        1 => prop::sample::select(&[5u32, 13, 28, 30, 70, 10_001, 10_008][..]),
    ];
    proptest::collection::vec(word, 0..120).prop_map(|mut words| {
        // Without this nearly every reply would be an error.
        if let Some(status) = words.first_mut().filter(|word| **word < 3) {
            *status = 0;
        }
        words.into_iter().flat_map(u32::to_be_bytes).collect()
    })
}

/// Our decoder and the peer's agree on whether `bytes` start with a reply, where it ends, and
/// (by `same`) what it says.
fn agree<P: Procedure, T: Unpack>(
    bytes: &[u8],
    same: impl FnOnce(&P::Reply, &T) -> bool,
) -> Result<(), TestCaseError> {
    let mut reader = Reader::new(bytes);
    let ours = P::decode(&mut reader);
    let theirs = T::unpack(&mut Cursor::new(bytes));
    match (&ours, &theirs) {
        (Ok(ours), Ok((theirs, read))) => {
            prop_assert_eq!(bytes.len() - reader.remaining().len(), *read);
            prop_assert!(same(ours, theirs));
        }
        (Err(_), Err(_)) => {}
        // The peer does not mind handles of more than 64 bytes.
        (Err(XdrError::TooLong), Ok(_)) => {}
        // Codes of RFC 1813 alone are known to the peer.
        (Ok(_), Err(nfs3_types::xdr_codec::Error::InvalidEnumValue(_))) => {}
        (ours, theirs) => prop_assert!(
            false,
            "we {}, they {}",
            if ours.is_ok() { "accept" } else { "refuse" },
            if theirs.is_ok() { "accept" } else { "refuse" },
        ),
    }
    Ok(())
}

fn same_status<T, U, E>(
    ours: &Result<T, Nfsstat3>,
    theirs: &peer::Nfs3Result<U, E>,
    same: impl FnOnce(&T, &U) -> bool,
) -> bool {
    match (ours, theirs) {
        (Ok(ours), peer::Nfs3Result::Ok(theirs)) => same(ours, theirs),
        (Err(status), peer::Nfs3Result::Err((code, _))) => status.code() == *code as u32,
        _ => false,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn replies_mean_to_us_what_they_mean_to_a_peer(bytes in words()) {
        agree::<Getattr<'_>, peer::GETATTR3res>(&bytes, |ours, theirs| {
            same_status(ours, theirs, |ours, theirs| {
                let theirs = &theirs.obj_attributes;
                (ours.size, ours.used, ours.mode) == (theirs.size, theirs.used, theirs.mode)
                    && (ours.kind == FileKind::Regular) == (theirs.type_ == peer::ftype3::NF3REG)
            })
        })?;
        agree::<Lookup<'_>, peer::LOOKUP3res>(&bytes, |ours, theirs| {
            same_status(ours, theirs, |ours, theirs| ours.as_bytes() == fh(&theirs.object))
        })?;
        agree::<Access<'_>, peer::ACCESS3res>(&bytes, |ours, theirs| {
            same_status(ours, theirs, |ours, theirs| ours.0 == theirs.access)
        })?;
        agree::<Write<'_>, peer::WRITE3res>(&bytes, |ours, theirs| {
            same_status(ours, theirs, |ours, theirs| {
                (ours.count, ours.verifier) == (theirs.count, theirs.verf.0)
                    && ours.committed.code() == theirs.committed as u32
            })
        })?;
        agree::<Commit<'_>, peer::COMMIT3res>(&bytes, |ours, theirs| {
            same_status(ours, theirs, |ours, theirs| *ours == theirs.verf.0)
        })?;
        agree::<Create<'_>, peer::CREATE3res>(&bytes, |ours, theirs| {
            same_status(ours, theirs, |ours, theirs| match (ours, &theirs.obj) {
                (Some(ours), peer::Nfs3Option::Some(theirs)) => ours.as_bytes() == fh(theirs),
                (None, peer::Nfs3Option::None) => true,
                _ => false,
            })
        })?;
        agree::<Remove<'_>, peer::REMOVE3res>(&bytes, |ours, theirs| {
            same_status(ours, theirs, |(), _| true)
        })?;
        agree::<Setattr<'_>, peer::SETATTR3res>(&bytes, |ours, theirs| {
            same_status(ours, theirs, |(), _| true)
        })?;
        agree::<Fsinfo<'_>, peer::FSINFO3res>(&bytes, |ours, theirs| {
            same_status(ours, theirs, |ours, theirs| {
                (ours.read_max, ours.write_max, ours.file_size_max)
                    == (theirs.rtmax, theirs.wtmax, theirs.maxfilesize)
            })
        })?;
    }

    /// READ differs in that its payload stays where it is.
    #[test]
    fn the_payload_of_a_read_starts_where_a_peer_says(bytes in words()) {
        let mut reader = Reader::new(&bytes);
        let ours = Read::decode(&mut reader);
        let theirs = peer::READ3res::unpack(&mut Cursor::new(&bytes));
        if let (Ok(Ok(head)), Ok((peer::Nfs3Result::Ok(theirs), _))) = (&ours, &theirs) {
            prop_assert_eq!((head.count, head.eof), (theirs.count, theirs.eof));
            prop_assert!(reader.remaining().starts_with(&theirs.data.0));
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let reader = || Reader::new(&bytes);
        let _ = Read::decode(&mut reader());
        let _ = Write::decode(&mut reader());
        let _ = Commit::decode(&mut reader());
        let _ = Create::decode(&mut reader());
        let _ = Lookup::decode(&mut reader());
        let _ = Getattr::decode(&mut reader());
        let _ = Fsinfo::decode(&mut reader());
    }
}
