//! ONC RPC version 2 (RFC 5531): headers, record marking, the table of calls in flight, and when to
//! send one again.

mod framing;
mod message;
mod record;
mod slots;
mod timer;

pub use framing::{Framing, UDP_PAYLOAD_MAX};
pub use message::{
    CallHeader, Credential, MACHINE_NAME_MAX, Procedure, Program, Reject, ReplyHeader,
};
pub use record::{RecordError, RecordReader, record_mark};
pub use slots::SlotTable;
pub use timer::{RetransmitConfig, RetransmitTimer};
