//! What can go wrong: with a request, with a connection, with a whole swap file.

use core::fmt;

use swapspace::{ErrorKind, SpaceError};

use crate::mount::MountStatus;
use crate::nfs3::{FileKind, Nfsstat3};
use crate::rpc::{RecordError, Reject};
use crate::swapfile::{LeaseHolder, Owner};
use crate::transport::LinkDown;
use crate::xdr::XdrError;

/// Why a request failed. Its frames are as [`swapspace::Completion`] says, and it can be submitted
/// again: no error is remembered, except where somebody cut the file off.
///
/// What the server may say, and what comes of it:
///
/// | from the server | what is done | how the request ends | [kind](ErrorKind) |
/// |---|---|---|---|
/// | nothing, or the connection is lost | connects and asks again | [`TimedOut`](Self::TimedOut), or [`Unsent`](Self::Unsent) if nothing had left, by the deadline; never, with [`Timeouts::Hard`] | `TimedOut`, `Unsent` |
/// | garbage | drops the connection, connects and asks again | as above | as above |
/// | `JUKEBOX` | asks again after [`retry_delay`] | [`TimedOut`](Self::TimedOut) by the deadline | `TimedOut` |
/// | `SERVERFAULT`, or `SYSTEM_ERR` of RPC | asks again after [`retry_delay`], [`fault_retries`] times | [`Nfs`](Self::Nfs), [`Rejected`](Self::Rejected) | `Io` |
/// | `IO` | | [`Nfs`](Self::Nfs) | `Io` |
/// | `NOSPC`, `DQUOT`, `FBIG` | | [`Nfs`](Self::Nfs) | `NoSpace` |
/// | `ROFS` | | [`Nfs`](Self::Nfs) | `ReadOnly` |
/// | `STALE`, `BADHANDLE`, `NOENT`, `NXIO`, `NODEV` | | [`Nfs`](Self::Nfs) | `Gone` |
/// | `ACCES`, `PERM` | | [`Nfs`](Self::Nfs) | `Denied` |
/// | any other status | | [`Nfs`](Self::Nfs) | `Io` |
/// | RPC refuses the credential | | [`Rejected`](Self::Rejected) | `Denied` |
/// | RPC refuses otherwise | | [`Rejected`](Self::Rejected) | `Io` |
/// | less than a page, at the end of the file | | [`FileEnded`](Self::FileEnded) | `Gone` |
/// | fewer bytes than asked for, otherwise | asks for the rest | | |
///
/// Where nothing is done, the server has decided, and another try is for the pager to judge.
///
/// [`retry_delay`]: crate::ClientConfig::retry_delay
/// [`fault_retries`]: crate::ClientConfig::fault_retries
/// [`Timeouts::Hard`]: crate::Timeouts::Hard
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum RequestError {
    /// No answer within the deadline. A write may still be carried out, at any later time.
    TimedOut,
    /// There was no connection within the deadline: nothing of the request was sent.
    Unsent,
    /// The RPC layer of the server refused the call.
    Rejected(Reject),
    /// NFS refused the call.
    Nfs(Nfsstat3),
    /// The file ends before the page does: somebody truncated it.
    FileEnded,
    /// The request was cancelled before its call left, or before the reply to a READ came.
    Cancelled,
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RequestError::TimedOut => {
                f.write_str("no answer within the deadline; check the server and the network")
            }
            RequestError::Unsent => {
                f.write_str("not sent within the deadline; check the server and the network")
            }
            RequestError::Rejected(reject) => write!(f, "{reject}"),
            RequestError::Nfs(status) => write!(f, "{status}"),
            RequestError::Cancelled => f.write_str("cancelled"),
            RequestError::FileEnded => {
                f.write_str("the swap file was truncated; deactivate it and create it afresh")
            }
        }
    }
}

impl core::error::Error for RequestError {}

impl SpaceError for RequestError {
    fn kind(&self) -> ErrorKind {
        match self {
            RequestError::TimedOut => ErrorKind::TimedOut,
            RequestError::Unsent => ErrorKind::Unsent,
            RequestError::Rejected(Reject::AuthError(_)) => ErrorKind::Denied,
            RequestError::Rejected(_) => ErrorKind::Io,
            RequestError::Nfs(status) => status_kind(*status),
            RequestError::FileEnded => ErrorKind::Gone,
            RequestError::Cancelled => ErrorKind::Cancelled,
        }
    }
}

fn status_kind(status: Nfsstat3) -> ErrorKind {
    match status {
        Nfsstat3::NoSpc | Nfsstat3::DQuot | Nfsstat3::FBig => ErrorKind::NoSpace,
        Nfsstat3::RoFs => ErrorKind::ReadOnly,
        Nfsstat3::Stale
        | Nfsstat3::NoEnt
        | Nfsstat3::BadHandle
        | Nfsstat3::NxIo
        | Nfsstat3::NoDev => ErrorKind::Gone,
        Nfsstat3::Acces | Nfsstat3::Perm => ErrorKind::Denied,
        _ => ErrorKind::Io,
    }
}

/// The server sent nonsense. The connection cannot be used any more: drop it, call
/// [`Client::reset_connection`](crate::Client::reset_connection), and connect again. No request
/// is lost by that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum ProtocolError {
    /// A record mark makes no sense.
    Record(RecordError),
    /// A reply to a call of ours is malformed.
    Malformed(XdrError),
    /// A message that is not a reply.
    NotAReply,
    /// Bytes behind the end of a reply.
    TrailingBytes,
    /// A reply longer than any that the call can have.
    TooLong,
    /// READ or WRITE reports more bytes than it was asked for.
    TooMany,
    /// The connection failed earlier and was not reset.
    NotReset,
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ProtocolError::Record(error) => write!(f, "{error}"),
            ProtocolError::Malformed(error) => write!(f, "malformed reply: {error}"),
            ProtocolError::NotAReply => f.write_str("a message that is not a reply"),
            ProtocolError::TrailingBytes => f.write_str("bytes behind the end of a reply"),
            ProtocolError::TooLong => f.write_str("a reply longer than any to its call"),
            ProtocolError::TooMany => f.write_str("more bytes reported than were asked for"),
            ProtocolError::NotReset => f.write_str("the connection failed and was not reset"),
        }
    }
}

impl core::error::Error for ProtocolError {}

impl From<RecordError> for ProtocolError {
    fn from(error: RecordError) -> Self {
        ProtocolError::Record(error)
    }
}

/// A step of preparing a swap file or of putting it away: says where an error arose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Stage {
    /// Asking the portmapper for a port.
    Portmap,
    /// Mounting the export.
    Mount,
    /// Asking for the limits of the file system.
    Fsinfo,
    /// Taking the lease of the file.
    Lease,
    /// Renewing the lease.
    Renew,
    /// Looking the file up.
    Lookup,
    /// Asking for the size of the file.
    Getattr,
    /// Asking what may be done with the file.
    Access,
    /// Creating the file.
    Create,
    /// Giving the new file its size.
    Resize,
    /// Filling the new file, so that it has no holes.
    Preallocate,
    /// Checking the new file.
    Verify,
    /// Removing the file that we created.
    Remove,
    /// Giving the lease back.
    Release,
    /// Telling the server that the export is no longer in use.
    Unmount,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Stage::Portmap => "asking the portmapper",
            Stage::Mount => "mounting the export",
            Stage::Fsinfo => "asking for the server's limits",
            Stage::Lease => "taking the lease of the swap file",
            Stage::Renew => "renewing the lease of the swap file",
            Stage::Lookup => "looking up the swap file",
            Stage::Getattr => "asking for the swap file's attributes",
            Stage::Access => "asking for access to the swap file",
            Stage::Create => "creating the swap file",
            Stage::Resize => "setting the swap file's size",
            Stage::Preallocate => "filling the swap file",
            Stage::Verify => "checking the swap file",
            Stage::Remove => "removing the swap file",
            Stage::Release => "giving back the lease of the swap file",
            Stage::Unmount => "unmounting the export",
        })
    }
}

/// Why a swap file cannot be used, or why a request to it failed. Each message is one line which
/// names the problem and the remedy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum SwapFileError {
    /// No connection to the server.
    Connect {
        /// The port.
        port: u16,
        /// What happened.
        why: LinkDown,
    },
    /// The server stopped answering.
    TimedOut {
        /// Where.
        stage: Stage,
    },
    /// The RPC layer of the server refused a call.
    Rpc {
        /// Where.
        stage: Stage,
        /// Why.
        reject: Reject,
    },
    /// NFS refused a call.
    Nfs {
        /// Where.
        stage: Stage,
        /// Why.
        status: Nfsstat3,
    },
    /// The server answered with something that makes no sense.
    BadReply {
        /// Where.
        stage: Stage,
        /// How.
        error: ProtocolError,
    },
    /// The portmapper does not know the program.
    NotRegistered {
        /// The program's number.
        program: u32,
    },
    /// The server does not hand out the export.
    Mount(MountStatus),
    /// The export demands more than AUTH_SYS.
    NoAuthSys,
    /// One page does not fit into one READ or WRITE.
    TransferTooSmall {
        /// The server's limit, in bytes.
        limit: u32,
        /// Bytes in a page.
        page_size: u32,
    },
    /// The server's file system does not hold files that long.
    TooLarge {
        /// Its limit, in bytes.
        limit: u64,
        /// Bytes wanted.
        needs: u64,
    },
    /// The name belongs to something else.
    NotRegular(FileKind),
    /// The file is there, but too short.
    TooSmall {
        /// Bytes there.
        has: u64,
        /// Bytes wanted.
        needs: u64,
    },
    /// The file has holes: a page-out could find the server full.
    Holes {
        /// Bytes of storage in use.
        used: u64,
        /// Length in bytes.
        size: u64,
    },
    /// The server does not let us read and write the file.
    NoAccess,
    /// Another machine swaps to the file, or another swap file of this system.
    InUse {
        /// Which machine.
        owner: Owner,
        /// Which boot of it.
        boot_id: u128,
    },
    /// The lease file beside the swap file says nobody's name, and has not for a while.
    LeaseUnclear,
    /// The lease of an active swap file was found in other hands: what is in the file may be another
    /// machine's now.
    LeaseLost {
        /// Whose, if it says.
        to: Option<LeaseHolder>,
    },
    /// A request to an active swap file failed.
    Request(RequestError),
    /// The swap file is being put away.
    Deactivating,
}

impl fmt::Display for SwapFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SwapFileError::Connect { port, why } => write!(
                f,
                "cannot connect to port {port}: {why}; check that the NFS server runs and that \
                 the URL names its port"
            ),
            SwapFileError::TimedOut { stage } => {
                write!(
                    f,
                    "no answer while {stage}; check the server and the network"
                )
            }
            SwapFileError::Rpc { stage, reject } => write!(
                f,
                "refused while {stage}: {reject}; check that this port serves NFSv3 and MOUNT v3"
            ),
            SwapFileError::Nfs { stage, status } => {
                write!(f, "failed while {stage}: {status}; {}", remedy(*status))
            }
            SwapFileError::BadReply { stage, error } => write!(
                f,
                "nonsense while {stage}: {error}; check that this port serves NFSv3"
            ),
            SwapFileError::NotRegistered { program } => write!(
                f,
                "the portmapper knows no port of program {program}; start the NFS server, or \
                 name the ports in the URL (nfs://HOST:PORT/...?mountport=N)"
            ),
            SwapFileError::Mount(status) => write!(
                f,
                "the server refuses the export: {status}; check the path and the export's list of \
                 clients"
            ),
            SwapFileError::NoAuthSys => {
                f.write_str("the export does not take AUTH_SYS; export it with sec=sys")
            }
            SwapFileError::TransferTooSmall { limit, page_size } => write!(
                f,
                "the server and the transport move at most {limit} bytes in one call, a page has \
                 {page_size}; raise the server's transfer size, or use TCP"
            ),
            SwapFileError::TooLarge { limit, needs } => write!(
                f,
                "the server holds files of up to {limit} bytes, {needs} are needed; ask for less"
            ),
            SwapFileError::NotRegular(kind) => {
                write!(f, "the name belongs to a {kind}; name a regular file")
            }
            SwapFileError::TooSmall { has, needs } => write!(
                f,
                "the swap file is too small: has {has} bytes, needs {needs}; ask for less, or \
                 remove it and let it be created"
            ),
            SwapFileError::Holes { used, size } => write!(
                f,
                "the swap file has holes ({used} of {size} bytes allocated); fill it, or allow \
                 holes if the server compresses"
            ),
            SwapFileError::NoAccess => f.write_str(
                "the server does not grant read and write access to the swap file; check its \
                 owner and mode, the uid, and that the export is writable",
            ),
            SwapFileError::InUse { owner, boot_id } => write!(
                f,
                "the swap file is in use by {}; deactivate it there, or, if that machine is gone, \
                 remove FILE.lease or take it over with LeasePolicy::TakeOver",
                LeaseHolder {
                    owner: *owner,
                    boot_id: *boot_id
                }
            ),
            SwapFileError::LeaseUnclear => f.write_str(
                "the lease of the swap file names no holder; make sure that no machine uses the \
                 file, and remove FILE.lease",
            ),
            SwapFileError::LeaseLost { to: Some(holder) } => write!(
                f,
                "the lease of the swap file was taken over by {holder}; deactivate the file here, \
                 and trust no page of it"
            ),
            SwapFileError::LeaseLost { to: None } => f.write_str(
                "the lease of the swap file is gone; deactivate the file, and find out who \
                 removed FILE.lease",
            ),
            SwapFileError::Request(error) => write!(f, "{error}"),
            SwapFileError::Deactivating => {
                f.write_str("the swap file is being put away; activate it again afterwards")
            }
        }
    }
}

fn remedy(status: Nfsstat3) -> &'static str {
    match status {
        Nfsstat3::NoSpc | Nfsstat3::DQuot => "free space on the server, or ask for less",
        Nfsstat3::FBig => "ask for less",
        Nfsstat3::RoFs => "export the directory writable",
        Nfsstat3::Acces | Nfsstat3::Perm => "check uid, gid and the export's squash options",
        Nfsstat3::NoEnt => "create the file, or allow it to be created",
        Nfsstat3::Stale | Nfsstat3::BadHandle => "activate the swap file again",
        _ => "see the server's log",
    }
}

impl core::error::Error for SwapFileError {}

impl From<RequestError> for SwapFileError {
    fn from(error: RequestError) -> Self {
        SwapFileError::Request(error)
    }
}

impl SpaceError for SwapFileError {
    fn kind(&self) -> ErrorKind {
        match self {
            SwapFileError::Request(error) => error.kind(),
            SwapFileError::Nfs { status, .. } => status_kind(*status),
            SwapFileError::Connect { .. } | SwapFileError::TimedOut { .. } => ErrorKind::TimedOut,
            SwapFileError::Mount(MountStatus::NoEnt) => ErrorKind::Gone,
            SwapFileError::Mount(_) | SwapFileError::NoAuthSys | SwapFileError::NoAccess => {
                ErrorKind::Denied
            }
            SwapFileError::TooLarge { .. }
            | SwapFileError::TooSmall { .. }
            | SwapFileError::Holes { .. } => ErrorKind::NoSpace,
            SwapFileError::BadReply { .. } => ErrorKind::Corrupt,
            SwapFileError::Deactivating => ErrorKind::Cancelled,
            SwapFileError::LeaseLost { .. } => ErrorKind::Gone,
            SwapFileError::NotRegular(_)
            | SwapFileError::InUse { .. }
            | SwapFileError::LeaseUnclear => ErrorKind::Denied,
            SwapFileError::Rpc { .. }
            | SwapFileError::NotRegistered { .. }
            | SwapFileError::TransferTooSmall { .. } => ErrorKind::Io,
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate alloc;
    extern crate std;

    use super::*;
    use alloc::string::ToString;

    #[test]
    fn every_nfs_status_tells_the_pager_what_it_means() {
        let kind = |status| RequestError::Nfs(status).kind();
        assert_eq!(kind(Nfsstat3::NoSpc), ErrorKind::NoSpace);
        assert_eq!(kind(Nfsstat3::DQuot), ErrorKind::NoSpace);
        assert_eq!(kind(Nfsstat3::RoFs), ErrorKind::ReadOnly);
        assert_eq!(kind(Nfsstat3::Stale), ErrorKind::Gone);
        assert_eq!(kind(Nfsstat3::NoEnt), ErrorKind::Gone);
        assert_eq!(kind(Nfsstat3::BadHandle), ErrorKind::Gone);
        assert_eq!(kind(Nfsstat3::Acces), ErrorKind::Denied);
        assert_eq!(kind(Nfsstat3::Perm), ErrorKind::Denied);
        assert_eq!(kind(Nfsstat3::Io), ErrorKind::Io);
        assert_eq!(kind(Nfsstat3::ServerFault), ErrorKind::Io);
    }

    #[test]
    fn a_message_is_one_line_with_problem_and_remedy() {
        let error = SwapFileError::TooSmall {
            has: 4096,
            needs: 8192,
        };
        assert_eq!(
            error.to_string(),
            "the swap file is too small: has 4096 bytes, needs 8192; ask for less, or remove it \
             and let it be created"
        );
        let error = SwapFileError::Nfs {
            stage: Stage::Preallocate,
            status: Nfsstat3::NoSpc,
        };
        assert!(error.to_string().contains("filling the swap file"));
        assert!(error.to_string().contains("free space on the server"));
    }
}
