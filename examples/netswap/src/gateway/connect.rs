//! What the standard library's streams cannot do: connect without waiting, and end with a reset.

use core::mem::size_of;
use core::net::SocketAddr;
use core::ptr;
use std::io;
use std::net::TcpStream;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use libc::{c_int, sockaddr, socklen_t};

/// Starts to connect. The stream does not block, and can be written once it is connected.
pub(super) fn start(to: SocketAddr) -> io::Result<TcpStream> {
    let family = match to {
        SocketAddr::V4(_) => libc::AF_INET,
        SocketAddr::V6(_) => libc::AF_INET6,
    };
    let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: the call takes numbers and touches no memory of ours.
    let fd = check(unsafe { libc::socket(family, kind, 0) })?;
    // SAFETY: the kernel has just given us this descriptor; nobody else owns it.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    let connected = match to {
        SocketAddr::V4(to) => {
            let address = libc::sockaddr_in {
                sin_family: family as libc::sa_family_t,
                sin_port: to.port().to_be(),
                sin_addr: libc::in_addr {
                    s_addr: u32::from_ne_bytes(to.ip().octets()),
                },
                sin_zero: [0; 8],
            };
            let len = size_of::<libc::sockaddr_in>() as socklen_t;
            let address = ptr::from_ref(&address).cast::<sockaddr>();
            // SAFETY: `address` points to `len` bytes which live until the call returns.
            check(unsafe { libc::connect(fd.as_raw_fd(), address, len) })
        }
        SocketAddr::V6(to) => {
            let address = libc::sockaddr_in6 {
                sin6_family: family as libc::sa_family_t,
                sin6_port: to.port().to_be(),
                sin6_flowinfo: to.flowinfo(),
                sin6_addr: libc::in6_addr {
                    s6_addr: to.ip().octets(),
                },
                sin6_scope_id: to.scope_id(),
            };
            let len = size_of::<libc::sockaddr_in6>() as socklen_t;
            let address = ptr::from_ref(&address).cast::<sockaddr>();
            // SAFETY: `address` points to `len` bytes which live until the call returns.
            check(unsafe { libc::connect(fd.as_raw_fd(), address, len) })
        }
    };
    match connected {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
        _ => Ok(TcpStream::from(fd)),
    }
}

/// How a connection that [`start`] started is getting on: true once it is connected.
pub(super) fn is_connected(stream: &TcpStream) -> io::Result<bool> {
    match stream.take_error()? {
        Some(error) => Err(error),
        None => Ok(stream.peer_addr().is_ok()),
    }
}

/// Closes with a reset instead of an orderly end, and forgets data that is on its way.
pub(super) fn reset(stream: TcpStream) {
    let linger = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    let len = size_of::<libc::linger>() as socklen_t;
    let value = ptr::from_ref(&linger).cast();
    let fd = stream.as_raw_fd();
    // SAFETY: `value` points to `len` bytes which live until the call returns. If it fails, the
    // connection ends in the orderly way.
    unsafe { libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_LINGER, value, len) };
}

fn check(result: c_int) -> io::Result<c_int> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}
