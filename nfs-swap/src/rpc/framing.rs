//! How messages are told apart on the way: by record marks, or by being one datagram each.

use crate::transport::Protocol;

/// Bytes of the longest UDP payload over IPv4 (RFC 768, RFC 791): 65,535 less two headers.
pub const UDP_PAYLOAD_MAX: usize = 65_507;

/// Bytes that a READ reply or a WRITE call has beside its payload. Both are shorter: a call by
/// its record mark, and a reply by the verifier that AUTH_SYS does without.
const HEADERS_MAX: usize = 184;

/// How messages are told apart on the way.
///
/// ```
/// use nfs_swap::rpc::{Framing, UDP_PAYLOAD_MAX};
///
/// let udp = Framing::datagrams(UDP_PAYLOAD_MAX);
/// assert_eq!(udp.payload_max(), 65_320);
/// assert_eq!(Framing::Stream.payload_max(), u32::MAX);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Framing {
    /// A stream of bytes, in which each message stands behind its mark (RFC 5531 section 11).
    /// What is sent arrives, or the connection ends.
    #[default]
    Stream,
    /// One message in each datagram. Any of them may be lost, repeated, late or out of order.
    Datagram {
        /// The longest message that can be sent, in bytes.
        send_max: usize,
        /// The longest message that can be received, in bytes.
        recv_max: usize,
    },
}

impl Framing {
    /// Datagrams of up to `max` bytes both ways.
    #[must_use]
    pub const fn datagrams(max: usize) -> Self {
        Framing::Datagram {
            send_max: max,
            recv_max: max,
        }
    }

    /// Whether each message is a datagram.
    #[must_use]
    pub const fn is_datagram(self) -> bool {
        matches!(self, Framing::Datagram { .. })
    }

    /// The most bytes that one READ or WRITE can move, a multiple of 4.
    #[must_use]
    pub const fn payload_max(self) -> u32 {
        let Framing::Datagram { send_max, recv_max } = self else {
            return u32::MAX;
        };
        let max = if send_max < recv_max {
            send_max
        } else {
            recv_max
        };
        let max = max.saturating_sub(HEADERS_MAX) & !3;
        if max > u32::MAX as usize {
            u32::MAX
        } else {
            max as u32
        }
    }

    /// What carries it: to ask the portmapper.
    #[must_use]
    pub const fn protocol(self) -> Protocol {
        match self {
            Framing::Stream => Protocol::Tcp,
            Framing::Datagram { .. } => Protocol::Udp,
        }
    }
}
