//! ONC RPC version 2 (RFC 5531): headers, record marking, and the table of calls in flight.

mod message;
mod record;
mod slots;

pub use message::{
    CallHeader, Credential, MACHINE_NAME_MAX, Procedure, Program, Reject, ReplyHeader,
};
pub use record::{RecordError, RecordReader, record_mark};
pub use slots::SlotTable;
