//! Where a swap file is: `nfs://HOST[:PORT]/EXPORT/FILE[?option=value&...]`.
//!
//! The last component of the path is the file, what stands before it is the export. Nothing is
//! percent-decoded: the path reaches the server as it is written.

use core::fmt;
use core::time::Duration;

use crate::mount::PATH_MAX;
use crate::transport::Protocol;

/// The port of NFS where the URL names none.
pub const NFS_PORT: u16 = 2049;

/// The longest name of a swap file, in bytes.
pub const FILE_MAX: usize = 128;

/// Why a URL is not understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum UrlError {
    /// It does not start with `nfs://`.
    Scheme,
    /// There is no host.
    Host,
    /// The port is not a number from 1 to 65535.
    Port,
    /// There is no export or no file in the path.
    Path,
    /// The export or the file name is too long.
    TooLong,
    /// An option that does not exist.
    UnknownOption,
    /// An option whose value is not a number in range.
    BadOption,
    /// The protocol is neither `tcp` nor `udp`.
    Protocol,
}

impl fmt::Display for UrlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            UrlError::Scheme => "the URL must start with nfs://",
            UrlError::Host => "the URL names no host; write nfs://HOST/EXPORT/FILE",
            UrlError::Port => "the port must be a number from 1 to 65535",
            UrlError::Path => "the URL names no swap file; write nfs://HOST/EXPORT/FILE",
            UrlError::TooLong => "the export (256 bytes) or the file name (128 bytes) is too long",
            UrlError::UnknownOption => {
                "unknown option in the URL; there are proto, mountport, deadline, uid and gid"
            }
            UrlError::BadOption => "an option in the URL needs a number as its value",
            UrlError::Protocol => "proto in the URL must be tcp or udp",
        })
    }
}

impl core::error::Error for UrlError {}

/// A parsed URL; it borrows from the text.
///
/// ```
/// use nfs_swap::SwapUrl;
///
/// let url = SwapUrl::parse("nfs://10.0.2.2:20490/srv/swap/node1?mountport=20491&deadline=20")?;
/// assert_eq!((url.host, url.export, url.file), ("10.0.2.2", "/srv/swap", "node1"));
/// assert_eq!((url.port, url.mount_port), (Some(20490), Some(20491)));
/// # Ok::<(), nfs_swap::UrlError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SwapUrl<'a> {
    /// Name or address of the server, without brackets.
    pub host: &'a str,
    /// Port of NFS, where it is named.
    pub port: Option<u16>,
    /// Port of MOUNT, where it is named.
    pub mount_port: Option<u16>,
    /// Path of the export, with its leading slash.
    pub export: &'a str,
    /// Name of the swap file in the export.
    pub file: &'a str,
    /// What carries the calls (`proto=tcp` or `proto=udp`): TCP unless it is said. It is for whoever
    /// chooses the transport; the swap file does as its transport does.
    pub protocol: Protocol,
    /// How long a request may take, where it is said (`deadline=SECONDS`).
    pub deadline: Option<Duration>,
    /// User to act for, where it is said.
    pub uid: Option<u32>,
    /// Group to act for, where it is said.
    pub gid: Option<u32>,
}

impl<'a> SwapUrl<'a> {
    /// Reads a URL.
    ///
    /// # Errors
    ///
    /// [`UrlError`] says what is wrong with it.
    pub fn parse(text: &'a str) -> Result<Self, UrlError> {
        let rest = text.strip_prefix("nfs://").ok_or(UrlError::Scheme)?;
        let (rest, options) = rest.split_once('?').unwrap_or((rest, ""));
        let slash = rest.find('/').ok_or(UrlError::Path)?;
        let (authority, path) = rest.split_at(slash);
        let (host, port) = host_and_port(authority)?;
        let (export, file) = path.rsplit_once('/').ok_or(UrlError::Path)?;
        if file.is_empty() || matches!(file, "." | "..") {
            return Err(UrlError::Path);
        }
        let export = if export.is_empty() { "/" } else { export };
        if export.len() > PATH_MAX || file.len() > FILE_MAX {
            return Err(UrlError::TooLong);
        }
        let mut url = SwapUrl {
            host,
            port,
            mount_port: None,
            export,
            file,
            protocol: Protocol::Tcp,
            deadline: None,
            uid: None,
            gid: None,
        };
        for option in options.split('&').filter(|option| !option.is_empty()) {
            url.set(option)?;
        }
        Ok(url)
    }

    fn set(&mut self, option: &str) -> Result<(), UrlError> {
        let (name, value) = option.split_once('=').unwrap_or((option, ""));
        let number: Result<u32, _> = value.parse();
        let number = number.map_err(|_| UrlError::BadOption);
        match name {
            "mountport" => self.mount_port = Some(self::port(value).or(Err(UrlError::BadOption))?),
            "proto" => {
                self.protocol = match value {
                    "tcp" => Protocol::Tcp,
                    "udp" => Protocol::Udp,
                    _ => return Err(UrlError::Protocol),
                }
            }
            "deadline" => {
                let seconds = number?;
                if seconds == 0 {
                    return Err(UrlError::BadOption);
                }
                self.deadline = Some(Duration::from_secs(seconds.into()));
            }
            "uid" => self.uid = Some(number?),
            "gid" => self.gid = Some(number?),
            _ => return Err(UrlError::UnknownOption),
        }
        Ok(())
    }
}

fn host_and_port(authority: &str) -> Result<(&str, Option<u16>), UrlError> {
    let (host, rest) = match authority.strip_prefix('[') {
        Some(bracketed) => bracketed.split_once(']').ok_or(UrlError::Host)?,
        None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
    };
    if host.is_empty() {
        return Err(UrlError::Host);
    }
    match rest {
        "" => Ok((host, None)),
        rest => Ok((
            host,
            Some(port(rest.strip_prefix(':').ok_or(UrlError::Port)?)?),
        )),
    }
}

fn port(text: &str) -> Result<u16, UrlError> {
    match text.parse() {
        Ok(0) | Err(_) => Err(UrlError::Port),
        Ok(port) => Ok(port),
    }
}

#[cfg(test)]
mod tests {
    extern crate alloc;
    extern crate std;

    use super::*;
    use proptest::prelude::*;

    #[test]
    fn defaults_are_left_to_the_user() {
        let url = SwapUrl::parse("nfs://nas/swap").unwrap();
        assert_eq!((url.host, url.export, url.file), ("nas", "/", "swap"));
        assert_eq!((url.port, url.mount_port, url.deadline), (None, None, None));
    }

    #[test]
    fn the_protocol_is_tcp_unless_it_is_said() {
        for (text, protocol) in [
            ("nfs://h/e/f", Protocol::Tcp),
            ("nfs://h/e/f?proto=tcp", Protocol::Tcp),
            ("nfs://h/e/f?uid=7&proto=udp", Protocol::Udp),
        ] {
            assert_eq!(SwapUrl::parse(text).unwrap().protocol, protocol, "{text}");
        }
    }

    #[test]
    fn an_ipv6_host_stands_in_brackets() {
        let url = SwapUrl::parse("nfs://[fe80::1]:2050/e/f?uid=7&gid=8").unwrap();
        assert_eq!((url.host, url.port), ("fe80::1", Some(2050)));
        assert_eq!((url.uid, url.gid), (Some(7), Some(8)));
    }

    #[test]
    fn each_mistake_has_its_name() {
        for (text, error) in [
            ("http://h/e/f", UrlError::Scheme),
            ("nfs:///e/f", UrlError::Host),
            ("nfs://[::1/e/f", UrlError::Host),
            ("nfs://h:0/e/f", UrlError::Port),
            ("nfs://h:70000/e/f", UrlError::Port),
            ("nfs://h", UrlError::Path),
            ("nfs://h/e/", UrlError::Path),
            ("nfs://h/e/..", UrlError::Path),
            ("nfs://h/e/f?speed=1", UrlError::UnknownOption),
            ("nfs://h/e/f?mountport=x", UrlError::BadOption),
            ("nfs://h/e/f?deadline=0", UrlError::BadOption),
            ("nfs://h/e/f?proto=sctp", UrlError::Protocol),
            ("nfs://h/e/f?proto", UrlError::Protocol),
        ] {
            assert_eq!(SwapUrl::parse(text), Err(error), "{text}");
        }
        let long = alloc::format!("nfs://h/e/{}", "f".repeat(129));
        assert_eq!(SwapUrl::parse(&long), Err(UrlError::TooLong));
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "(nfs://)?\\PC{0,40}") {
            let _ = SwapUrl::parse(&text);
        }
    }
}
