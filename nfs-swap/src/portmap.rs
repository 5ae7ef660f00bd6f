//! The portmapper, version 2 (RFC 1833 section 3): which port a program listens on.

use crate::rpc::{Procedure, Program};
use crate::transport::Protocol;
use crate::xdr::{Reader, Writer, XdrError};

/// The portmapper itself.
pub const PROGRAM: Program = Program {
    number: 100_000,
    version: 2,
};

/// Where the portmapper listens.
pub const PORT: u16 = 111;

/// GETPORT: the port of a program.
#[derive(Debug, Clone, Copy)]
pub struct GetPort {
    /// The program looked for.
    pub program: Program,
    /// What it is to be served over.
    pub protocol: Protocol,
}

impl Procedure for GetPort {
    const PROGRAM: Program = PROGRAM;
    const NUMBER: u32 = 3;
    /// `None` when the program is not registered.
    type Reply = Option<u16>;

    fn encode(&self, writer: &mut Writer<'_>) -> Result<(), XdrError> {
        writer.u32(self.program.number)?;
        writer.u32(self.program.version)?;
        writer.u32(match self.protocol {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
        })?;
        writer.u32(0)
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self::Reply, XdrError> {
        match u16::try_from(reader.u32()?) {
            Ok(0) => Ok(None),
            Ok(port) => Ok(Some(port)),
            Err(_) => Err(XdrError::BadValue),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_zero_means_not_registered() {
        let decode = |port: u32| GetPort::decode(&mut Reader::new(&port.to_be_bytes()));
        assert_eq!(decode(0), Ok(None));
        assert_eq!(decode(2049), Ok(Some(2049)));
        assert_eq!(decode(65_536), Err(XdrError::BadValue));
    }
}
