//! What is under the client: the little that a [`SwapFile`](crate::SwapFile) needs of TCP or UDP.

mod failover;
#[cfg(feature = "smoltcp")]
pub mod smoltcp;
#[cfg(feature = "std")]
pub mod std;

use core::fmt;

use swapspace::Instant;

use crate::rpc::Framing;

pub use failover::Failover;

/// What carries the calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Protocol {
    /// A stream; what is lost on the way is TCP's to repeat.
    #[default]
    Tcp,
    /// Datagrams; what is lost on the way is the client's to repeat.
    Udp,
}

/// The state of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Link {
    /// There is none, or no longer.
    Down(LinkDown),
    /// It is being established.
    Connecting,
    /// Bytes can flow.
    Up,
}

/// Why there is no connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum LinkDown {
    /// Nobody asked for one.
    Idle,
    /// Nobody listens on that port.
    Refused,
    /// The host does not answer.
    TimedOut,
    /// There is no way to the host.
    Unreachable,
    /// The server closed the connection.
    Closed,
    /// The connection was reset.
    Reset,
    /// What the server sent made no sense, and the connection was dropped.
    Nonsense,
    /// This machine lacks something: an address, a port, an entry for the flow.
    Local,
}

impl fmt::Display for LinkDown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            LinkDown::Idle => "not connected",
            LinkDown::Refused => "connection refused",
            LinkDown::TimedOut => "the host does not answer",
            LinkDown::Unreachable => "no route to the host",
            LinkDown::Closed => "the server closed the connection",
            LinkDown::Reset => "connection reset",
            LinkDown::Nonsense => "the server sent nonsense",
            LinkDown::Local => "this machine lacks the means (address, port or flow entry)",
        })
    }
}

impl core::error::Error for LinkDown {}

/// One connection to one host, driven by its owner; never blocks once it is up.
///
/// The owner connects, then polls; while the link is up it moves bytes with `send` and `recv`,
/// each called until it returns 0, and polls again to let the medium carry them away.
///
/// Where the [framing](Self::framing) is of datagrams, a connection is a socket of its own and a
/// filter that lets in nothing but what the server sends from that port; it is up at once, because
/// nobody answers. `send` and `recv` move one whole datagram at each call then, and an empty one is
/// no datagram.
pub trait Transport {
    /// How messages are told apart; the same for as long as the transport lives. A transport around
    /// another one must pass this on.
    fn framing(&self) -> Framing {
        Framing::Stream
    }

    /// Datagrams that came from elsewhere than the server, and were dropped.
    fn strangers(&self) -> u64 {
        0
    }

    /// Starts to connect to `port` of the host that the transport was made for. Any older
    /// connection is dropped first.
    ///
    /// # Errors
    ///
    /// It is already clear that there will be no connection.
    fn connect(&mut self, port: u16, now: Instant) -> Result<(), LinkDown>;

    /// Drives the medium, and says how the connection stands.
    #[must_use = "a link that is down must be connected again"]
    fn poll(&mut self, now: Instant) -> Link;

    /// Lets `fill` write the next bytes of the stream into whatever room there is; it returns how
    /// many it wrote. Returns the same number, or 0 without a call when there is no room. For a
    /// datagram there is room when there are `send_max` bytes.
    fn send(&mut self, fill: &mut dyn FnMut(&mut [u8]) -> usize) -> usize;

    /// Hands bytes that have arrived to `consume`; it returns how many it used. Returns the same
    /// number, or 0 without a call when nothing has arrived. Of a datagram nothing is left over.
    fn recv(&mut self, consume: &mut dyn FnMut(&[u8]) -> usize) -> usize;

    /// When `poll` must be called at the latest, if nothing arrives before.
    fn next_deadline(&self) -> Option<Instant>;

    /// Drops the connection at once, without a farewell that could take time.
    fn close(&mut self);

    /// How many addresses `connect` tries, one with each call, before it begins anew: activation
    /// gives up when all have failed.
    fn addresses(&self) -> usize {
        1
    }
}
