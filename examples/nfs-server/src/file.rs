//! One open file, and the difference between what a client wrote and what would survive.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::FileExt;

use crate::overlay::Overlay;

/// A regular file of the export.
#[derive(Debug)]
pub(crate) struct OpenFile {
    file: File,
    unstable: Overlay,
    fdatasync: bool,
}

impl OpenFile {
    /// Wraps an open file.
    pub(crate) fn new(file: File, fdatasync: bool) -> OpenFile {
        OpenFile {
            file,
            unstable: Overlay::default(),
            fdatasync,
        }
    }

    /// The file underneath, for its attributes.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Attributes of the file, and its length with the unstable data.
    pub(crate) fn metadata(&self) -> io::Result<(Metadata, u64)> {
        let metadata = self.file.metadata()?;
        let len = metadata.len().max(self.unstable.end());
        Ok((metadata, len))
    }

    /// Whether data would be lost if it were closed.
    pub(crate) fn has_unstable(&self) -> bool {
        !self.unstable.is_empty()
    }

    /// Up to `count` bytes at `offset`, and whether the file ends with them.
    pub(crate) fn read(&self, offset: u64, count: usize) -> io::Result<(Vec<u8>, bool)> {
        let (_, len) = self.metadata()?;
        let left = usize::try_from(len.saturating_sub(offset)).unwrap_or(usize::MAX);
        let mut data = vec![0; count.min(left)];
        if !data.is_empty() {
            // Behind the end of the file lie zeros, until unstable data covers them.
            read_up_to(&self.file, offset, &mut data)?;
            self.unstable.patch(offset, &mut data);
        }
        Ok((data, count >= left))
    }

    /// Writes into the file itself.
    pub(crate) fn write_stable(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write_all_at(data, offset)?;
        self.sync()?;
        self.unstable.remove(offset, offset + data.len() as u64);
        Ok(())
    }

    /// Writes as into a page cache: the server's death does not matter, that of the host does.
    pub(crate) fn write_cached(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write_all_at(data, offset)
    }

    /// Writes into memory, to be lost unless committed.
    pub(crate) fn write_unstable(&mut self, offset: u64, data: &[u8]) {
        self.unstable.insert(offset, data);
    }

    /// Writes unstable data that touches `start..end` into the file. What could not be written
    /// stays unstable.
    pub(crate) fn commit(&mut self, start: u64, end: u64) -> io::Result<()> {
        let extents = self.unstable.take_touching(start, end);
        let written = extents
            .iter()
            .try_for_each(|(offset, data)| self.file.write_all_at(data, *offset))
            .and_then(|()| self.sync());
        if written.is_err() {
            for (offset, data) in &extents {
                self.unstable.insert(*offset, data);
            }
        }
        written
    }

    /// Cuts or extends the file.
    pub(crate) fn set_len(&mut self, len: u64) -> io::Result<()> {
        self.file.set_len(len)?;
        self.sync()?;
        self.unstable.remove(len, u64::MAX);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        if self.fdatasync {
            self.file.sync_data()?;
        }
        Ok(())
    }
}

/// Fills `buffer` as far as the file goes.
fn read_up_to(file: &File, mut offset: u64, mut buffer: &mut [u8]) -> io::Result<()> {
    while !buffer.is_empty() {
        match file.read_at(buffer, offset) {
            Ok(0) => break,
            Ok(n) => {
                buffer = &mut buffer[n..];
                offset += n as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
