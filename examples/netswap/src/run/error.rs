//! Why a run could not start.

use core::fmt;
use std::io;

use crate::machine::MachineError;
use crate::memory::TooSmall;
use crate::store::StoreError;

/// Why a run could not start.
#[derive(Debug)]
pub(crate) enum RunError {
    /// The memory cannot hold its reserve.
    TooSmall(TooSmall),
    /// There is no server.
    Store(StoreError),
    /// The system does not have the memory of the machine.
    NoMemory { ram: usize },
    /// The server cannot be used.
    Server { url: String, error: MachineError },
    /// The machine could not go on.
    Machine(MachineError),
    /// The system refused a thread, a descriptor or memory.
    System(io::Error),
    /// A bug in the program that was to be swapped.
    TaskPanicked,
}

impl From<TooSmall> for RunError {
    fn from(error: TooSmall) -> Self {
        RunError::TooSmall(error)
    }
}

impl From<StoreError> for RunError {
    fn from(error: StoreError) -> Self {
        RunError::Store(error)
    }
}

impl From<MachineError> for RunError {
    fn from(error: MachineError) -> Self {
        RunError::Machine(error)
    }
}

impl From<io::Error> for RunError {
    fn from(error: io::Error) -> Self {
        RunError::System(error)
    }
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RunError::TooSmall(error) => error.fmt(f),
            RunError::Store(error) => error.fmt(f),
            RunError::NoMemory { ram } => {
                let mib = ram >> 20;
                write!(
                    f,
                    "the system has no {mib} MiB for the machine; give less --ram"
                )
            }
            RunError::Server { url, error } => {
                write!(f, "{url}: {error}")?;
                if error.may_leave_the_file() {
                    f.write_str("; the swap file may be left there")?;
                }
                Ok(())
            }
            RunError::Machine(error) => error.fmt(f),
            RunError::System(error) => {
                write!(
                    f,
                    "the system refused: {error}; give fewer --threads or less --working-set"
                )
            }
            RunError::TaskPanicked => f.write_str("a task of the program panicked: a bug"),
        }
    }
}

impl core::error::Error for RunError {}
