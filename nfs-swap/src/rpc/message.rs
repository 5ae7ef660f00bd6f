//! Call and reply headers, with AUTH_SYS credentials (RFC 5531 sections 9 and 14).

use core::fmt;

use crate::xdr::{Reader, Writer, XdrError};

/// The longest machine name in a [`Credential`], in bytes.
pub const MACHINE_NAME_MAX: usize = 32;

const CALL: u32 = 0;
const REPLY: u32 = 1;
const RPC_VERSION: u32 = 2;
const AUTH_NONE: u32 = 0;
const AUTH_SYS: u32 = 1;
/// RFC 5531 section 8.2.
const AUTH_BODY_MAX: usize = 400;

/// A remote program and its version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Program {
    /// Its number.
    pub number: u32,
    /// Its version.
    pub version: u32,
}

/// A remote procedure: how its arguments are written and its results read.
pub trait Procedure {
    /// The program that it belongs to.
    const PROGRAM: Program;
    /// Its number in that program.
    const NUMBER: u32;
    /// What it answers.
    type Reply;

    /// Writes the arguments.
    ///
    /// # Errors
    ///
    /// [`XdrError::NoRoom`].
    fn encode(&self, writer: &mut Writer<'_>) -> Result<(), XdrError>;

    /// Reads the results.
    ///
    /// # Errors
    ///
    /// They are truncated or malformed.
    fn decode(reader: &mut Reader<'_>) -> Result<Self::Reply, XdrError>;
}

/// Who calls: an AUTH_SYS credential.
///
/// ```
/// use nfs_swap::rpc::Credential;
///
/// let root = Credential::default();
/// assert_eq!((root.uid, root.gid), (0, 0));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credential {
    /// The name of this machine.
    pub machine: heapless::String<MACHINE_NAME_MAX>,
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

impl Default for Credential {
    /// The super-user of a machine named `swap`.
    fn default() -> Self {
        Credential {
            machine: heapless::String::try_from("swap").unwrap_or_default(),
            uid: 0,
            gid: 0,
        }
    }
}

impl Credential {
    fn emit(&self, writer: &mut Writer<'_>) -> Result<(), XdrError> {
        let name = self.machine.as_bytes();
        // Stamp, counted name, uid, gid, and a list of no further groups.
        let body = 4 + (4 + name.len() + crate::xdr::padding(name.len())) + 4 + 4 + 4;
        writer.u32(AUTH_SYS)?;
        writer.u32(body as u32)?;
        writer.u32(0)?;
        writer.opaque(name)?;
        writer.u32(self.uid)?;
        writer.u32(self.gid)?;
        writer.u32(0)
    }
}

/// The head of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallHeader {
    /// Names the call; its reply carries the same.
    pub xid: u32,
    /// The program called.
    pub program: Program,
    /// The procedure called.
    pub procedure: u32,
}

impl CallHeader {
    /// The head of a call of `P`.
    #[must_use]
    pub const fn of<P: Procedure>(xid: u32) -> Self {
        CallHeader {
            xid,
            program: P::PROGRAM,
            procedure: P::NUMBER,
        }
    }

    /// Writes the head, credential and (empty) verifier included; the arguments follow it.
    ///
    /// # Errors
    ///
    /// [`XdrError::NoRoom`].
    pub fn emit(&self, credential: &Credential, writer: &mut Writer<'_>) -> Result<(), XdrError> {
        writer.u32(self.xid)?;
        writer.u32(CALL)?;
        writer.u32(RPC_VERSION)?;
        writer.u32(self.program.number)?;
        writer.u32(self.program.version)?;
        writer.u32(self.procedure)?;
        credential.emit(writer)?;
        writer.u32(AUTH_NONE)?;
        writer.u32(0)
    }
}

/// Why the RPC layer of the server refused a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Reject {
    /// The server speaks other versions of RPC.
    RpcMismatch {
        /// Lowest.
        low: u32,
        /// Highest.
        high: u32,
    },
    /// The credential was refused, with this `auth_stat`.
    AuthError(u32),
    /// The program is not served on this port.
    ProgramUnavailable,
    /// The program is served, but in other versions.
    ProgramMismatch {
        /// Lowest.
        low: u32,
        /// Highest.
        high: u32,
    },
    /// The program has no such procedure.
    ProcedureUnavailable,
    /// The server could not decode the arguments.
    GarbageArguments,
    /// The server failed, out of memory for example.
    SystemError,
}

impl fmt::Display for Reject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reject::RpcMismatch { low, high } => {
                write!(f, "the server speaks RPC versions {low} to {high} only")
            }
            Reject::AuthError(stat) => write!(f, "the server refuses AUTH_SYS (auth_stat {stat})"),
            Reject::ProgramUnavailable => f.write_str("the program is not served on this port"),
            Reject::ProgramMismatch { low, high } => {
                write!(f, "the program is served in versions {low} to {high} only")
            }
            Reject::ProcedureUnavailable => f.write_str("the program has no such procedure"),
            Reject::GarbageArguments => f.write_str("the server could not decode the arguments"),
            Reject::SystemError => f.write_str("the server failed (RPC SYSTEM_ERR)"),
        }
    }
}

impl core::error::Error for Reject {}

/// The head of a reply; after `Ok` the results follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplyHeader {
    /// The call that is answered.
    pub xid: u32,
    /// Whether it was carried out.
    pub verdict: Result<(), Reject>,
}

impl ReplyHeader {
    /// Reads the head.
    ///
    /// # Errors
    ///
    /// It is truncated, malformed, or the head of a call.
    pub fn parse(reader: &mut Reader<'_>) -> Result<Self, XdrError> {
        let xid = reader.u32()?;
        if reader.u32()? != REPLY {
            return Err(XdrError::BadValue);
        }
        let verdict = match reader.u32()? {
            0 => accepted(reader)?,
            1 => Err(denied(reader)?),
            _ => return Err(XdrError::BadValue),
        };
        Ok(ReplyHeader { xid, verdict })
    }
}

fn accepted(reader: &mut Reader<'_>) -> Result<Result<(), Reject>, XdrError> {
    let _verifier_flavor = reader.u32()?;
    let _verifier = reader.opaque(AUTH_BODY_MAX)?;
    Ok(match reader.u32()? {
        0 => Ok(()),
        1 => Err(Reject::ProgramUnavailable),
        2 => Err(Reject::ProgramMismatch {
            low: reader.u32()?,
            high: reader.u32()?,
        }),
        3 => Err(Reject::ProcedureUnavailable),
        4 => Err(Reject::GarbageArguments),
        5 => Err(Reject::SystemError),
        _ => return Err(XdrError::BadValue),
    })
}

fn denied(reader: &mut Reader<'_>) -> Result<Reject, XdrError> {
    match reader.u32()? {
        0 => Ok(Reject::RpcMismatch {
            low: reader.u32()?,
            high: reader.u32()?,
        }),
        1 => Ok(Reject::AuthError(reader.u32()?)),
        _ => Err(XdrError::BadValue),
    }
}

#[cfg(test)]
mod tests {
    extern crate alloc;
    extern crate std;

    use super::*;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    fn words(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_be_bytes()).collect()
    }

    fn verdict(bytes: &[u32]) -> Result<(), Reject> {
        let bytes = words(bytes);
        let mut reader = Reader::new(&bytes);
        let header = ReplyHeader::parse(&mut reader).unwrap();
        assert_eq!(header.xid, 7);
        assert!(reader.remaining().is_empty());
        header.verdict
    }

    #[test]
    fn every_reject_is_named() {
        assert_eq!(verdict(&[7, 1, 0, 0, 0, 0]), Ok(()));
        assert_eq!(
            verdict(&[7, 1, 0, 0, 0, 1]),
            Err(Reject::ProgramUnavailable)
        );
        assert_eq!(
            verdict(&[7, 1, 0, 0, 0, 2, 4, 5]),
            Err(Reject::ProgramMismatch { low: 4, high: 5 })
        );
        assert_eq!(
            verdict(&[7, 1, 0, 0, 0, 3]),
            Err(Reject::ProcedureUnavailable)
        );
        assert_eq!(verdict(&[7, 1, 0, 0, 0, 4]), Err(Reject::GarbageArguments));
        assert_eq!(verdict(&[7, 1, 0, 0, 0, 5]), Err(Reject::SystemError));
        assert_eq!(
            verdict(&[7, 1, 1, 0, 1, 3]),
            Err(Reject::RpcMismatch { low: 1, high: 3 })
        );
        assert_eq!(verdict(&[7, 1, 1, 1, 5]), Err(Reject::AuthError(5)));
    }

    #[test]
    fn a_verifier_with_a_body_is_skipped() {
        assert_eq!(verdict(&[7, 1, 0, 6, 8, 1, 2, 0]), Ok(()));
    }

    #[test]
    fn a_call_is_no_reply() {
        let bytes = words(&[7, 0, 0, 0, 0, 0]);
        let parsed = ReplyHeader::parse(&mut Reader::new(&bytes));
        assert_eq!(parsed, Err(XdrError::BadValue));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = ReplyHeader::parse(&mut Reader::new(&bytes));
        }
    }
}
