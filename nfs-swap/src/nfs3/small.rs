//! READ and WRITE of a file of a few bytes, as one call each, payload and all: for what is kept
//! beside a swap file, and not for pages.

use super::calls::{PROGRAM, Read, Write, WriteReply};
use super::types::{Fattr3, Nfsstat3, post_op_attr, skip_post_op_attr};
use crate::rpc::{Procedure, Program};
use crate::xdr::{Reader, Writer, XdrError};

/// The most bytes that [`ReadSmall`] takes.
const SMALL_MAX: usize = 128;

/// The beginning of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SmallFile {
    pub(crate) bytes: heapless::Vec<u8, SMALL_MAX>,
    /// Its attributes at the same moment, if the server tells them.
    pub(crate) attributes: Option<Fattr3>,
}

/// READ with its payload.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ReadSmall<'a>(pub(crate) Read<'a>);

impl Procedure for ReadSmall<'_> {
    const PROGRAM: Program = PROGRAM;
    const NUMBER: u32 = Read::NUMBER;
    type Reply = Result<SmallFile, Nfsstat3>;

    fn encode(&self, writer: &mut Writer<'_>) -> Result<(), XdrError> {
        self.0.encode(writer)
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self::Reply, XdrError> {
        if let Err(status) = Nfsstat3::parse(reader)? {
            skip_post_op_attr(reader)?;
            return Ok(Err(status));
        }
        let attributes = post_op_attr(reader)?;
        let (count, _eof) = (reader.u32()?, reader.bool()?);
        let payload = reader.opaque(SMALL_MAX)?;
        if payload.len() != count as usize {
            return Err(XdrError::BadValue);
        }
        let bytes = heapless::Vec::from_slice(payload).or(Err(XdrError::TooLong))?;
        Ok(Ok(SmallFile { bytes, attributes }))
    }
}

/// WRITE with its payload.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WriteSmall<'a> {
    /// Its `count` is the length of `payload`.
    pub(crate) call: Write<'a>,
    pub(crate) payload: &'a [u8],
}

impl Procedure for WriteSmall<'_> {
    const PROGRAM: Program = PROGRAM;
    const NUMBER: u32 = Write::NUMBER;
    type Reply = Result<WriteReply, Nfsstat3>;

    fn encode(&self, writer: &mut Writer<'_>) -> Result<(), XdrError> {
        self.call.encode(writer)?;
        writer.bytes(self.payload)?;
        writer.bytes(&[0; 3][..crate::xdr::padding(self.payload.len())])
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self::Reply, XdrError> {
        Write::decode(reader)
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use proptest::prelude::*;

    use super::*;
    use crate::nfs3::{Fh, StableHow};

    #[test]
    fn a_small_file_comes_with_its_bytes() {
        let reply = [0u32, 0, 5, 1, 5].map(u32::to_be_bytes).concat();
        let reply = [&reply[..], b"lease\0\0\0"].concat();
        let read = ReadSmall::decode(&mut Reader::new(&reply))
            .unwrap()
            .unwrap();
        assert_eq!((&read.bytes[..], read.attributes), (&b"lease"[..], None));
    }

    #[test]
    fn a_payload_is_padded() {
        let file = &Fh::new(b"file").unwrap();
        let (count, stable) = (5, StableHow::FileSync);
        let call = Write {
            file,
            offset: 0,
            count,
            stable,
        };
        let mut buf = [0xff; 64];
        let mut writer = Writer::new(&mut buf);
        let payload = b"lease";
        WriteSmall { call, payload }.encode(&mut writer).unwrap();
        let len = writer.len();
        assert!(buf[..len].ends_with(b"\0\0\0\x05lease\0\0\0"));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = ReadSmall::decode(&mut Reader::new(&bytes));
        }
    }
}
