//! What to swap to, and how.

use core::time::Duration;

use super::lease::LeaseConfig;
use crate::client::ClientConfig;
use crate::mount::PATH_MAX;
use crate::url::{FILE_MAX, SwapUrl, UrlError};

/// What to do about a swap file that does not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum FileMode {
    /// Fail: somebody else was to create it.
    Attach,
    /// Create it with mode 0600 and fill it, so that a page-out never finds the server full. If
    /// that fails, it is removed again.
    CreateIfMissing,
}

/// What to swap to, and how.
///
/// ```
/// use nfs_swap::{FileMode, SwapFileConfig, SwapUrl};
///
/// let url = SwapUrl::parse("nfs://10.0.2.2:2049/srv/swap/node1?deadline=20")?;
/// let config = SwapFileConfig {
///     mode: FileMode::Attach,
///     ..SwapFileConfig::new(&url, 65_536)?
/// };
/// assert_eq!(config.client.deadline.as_secs(), 20);
/// # Ok::<(), nfs_swap::UrlError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SwapFileConfig {
    /// Path of the export.
    pub export: heapless::String<PATH_MAX>,
    /// Name of the file in it.
    pub file: heapless::String<FILE_MAX>,
    /// Port of NFS. If neither port is given, the portmapper is asked for both.
    pub port: Option<u16>,
    /// Port of MOUNT; that of NFS unless given.
    pub mount_port: Option<u16>,
    /// Pages wanted.
    pub slots: u32,
    /// Bytes in a page: a power of two; 4096 by default.
    pub page_size: u32,
    /// Whether the file may be created: by default it may.
    pub mode: FileMode,
    /// Whether deactivation removes the file, if activation created it: by default it does not.
    pub remove_on_deactivate: bool,
    /// Whether an existing file may use less storage than its length, as it does with holes, and
    /// on file systems that compress: by default it may not.
    pub allow_holes: bool,
    /// How long activation and deactivation wait for the next sign of progress: 10 s by default.
    pub activation_timeout: Duration,
    /// The lease that keeps other machines off the file. `None` by default, because it takes a name
    /// and a boot id, which only the caller has; give them wherever the file could be reached by a
    /// second machine. Two that swap to one file destroy each other's memory.
    pub lease: Option<LeaseConfig>,
    /// How requests behave.
    pub client: ClientConfig,
}

impl SwapFileConfig {
    /// The defaults, for `slots` pages at `url`.
    ///
    /// # Errors
    ///
    /// [`UrlError::TooLong`], for a URL that was not [parsed](SwapUrl::parse).
    pub fn new(url: &SwapUrl<'_>, slots: u32) -> Result<Self, UrlError> {
        let mut client = ClientConfig::default();
        client.deadline = url.deadline.unwrap_or(client.deadline);
        client.credential.uid = url.uid.unwrap_or(client.credential.uid);
        client.credential.gid = url.gid.unwrap_or(client.credential.gid);
        Ok(SwapFileConfig {
            export: heapless::String::try_from(url.export).or(Err(UrlError::TooLong))?,
            file: heapless::String::try_from(url.file).or(Err(UrlError::TooLong))?,
            port: url.port,
            mount_port: url.mount_port,
            slots,
            page_size: 4096,
            mode: FileMode::CreateIfMissing,
            remove_on_deactivate: false,
            allow_holes: false,
            activation_timeout: Duration::from_secs(10),
            lease: None,
            client,
        })
    }

    /// Bytes wanted.
    pub(super) fn size(&self) -> u64 {
        u64::from(self.slots) * u64::from(self.page_size)
    }
}
