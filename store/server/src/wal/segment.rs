//! The segment that is appended to: whole blocks, past the system's page cache.
//!
//! A frame seldom ends with a block, so the last block is kept and written again with what follows; behind its end it
//! has zeros, which the log's reader takes for the end. Written twice are only bytes that stay as they are, and a
//! sector reaches the disk whole: what was synced isn't at risk.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Result};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;

/// What disks take past the page cache: at least their sectors, which are 512 or 4,096 bytes.
const BLOCK_BYTES: usize = 4096;
/// Memory that one large frame needed isn't kept beyond this.
const BUFFER_BYTES_KEPT: usize = 1 << 20;

/// Opens a file for writing past the page cache, if its file system can; it is made if `options` say so.
pub(super) fn open_direct(options: &mut OpenOptions, path: &Path) -> Result<File> {
    match options.custom_flags(OFlag::O_DIRECT.bits()).open(path) {
        Err(error) if error.kind() == ErrorKind::InvalidInput => options.custom_flags(0).open(path),
        opened => opened,
    }
}

/// Memory that begins at a multiple of a block's size, as writing past the page cache asks for.
#[derive(Default)]
pub(super) struct Blocks {
    memory: Vec<u8>,
    /// Where in the memory it begins.
    begin: usize,
    length: usize,
}

impl Blocks {
    pub(super) fn zeros(length: usize) -> Self {
        let mut blocks = Self::default();
        blocks.reserve(length);
        blocks.length = length;
        blocks
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.memory[self.begin..self.begin + self.length]
    }

    /// Makes room for so many bytes in all; those behind the end are zeros.
    fn reserve(&mut self, length: usize) {
        if self.memory.len() - self.begin >= length && !self.memory.is_empty() {
            return;
        }
        let memory = vec![0; length.next_power_of_two() + BLOCK_BYTES];
        let begin = memory.as_ptr().align_offset(BLOCK_BYTES);
        let kept = std::mem::replace(self, Self { memory, begin, length: self.length });
        self.memory[begin..begin + kept.length].copy_from_slice(kept.bytes());
    }

    fn push(&mut self, bytes: &[u8]) {
        self.reserve((self.length + bytes.len()).next_multiple_of(BLOCK_BYTES));
        let end = self.begin + self.length;
        self.memory[end..end + bytes.len()].copy_from_slice(bytes);
        self.length += bytes.len();
    }

    /// All of it, and zeros up to the end of its last block.
    fn filled(&self) -> &[u8] {
        &self.memory[self.begin..self.begin + self.length.next_multiple_of(BLOCK_BYTES)]
    }

    /// Lets go of all blocks that are full; returns how many bytes they had.
    fn drop_full(&mut self) -> usize {
        let full = self.length / BLOCK_BYTES * BLOCK_BYTES;
        let range = self.begin..self.begin + self.length;
        self.memory.copy_within(range.start + full..range.end, range.start);
        self.length -= full;
        self.memory[self.begin + self.length..range.end].fill(0);
        if self.memory.len() > BUFFER_BYTES_KEPT {
            let rest = self.bytes().to_vec();
            *self = Self::default();
            self.push(&rest);
        }
        full
    }
}

/// The open file.
pub(super) struct Segment {
    pub(super) path: PathBuf,
    file: File,
    /// Where in the file the blocks begin.
    place: u64,
    blocks: Blocks,
    /// It was made in its full length beforehand.
    pub(super) is_prepared: bool,
}

impl Segment {
    /// A segment that nothing is in yet.
    pub(super) fn new(path: PathBuf, file: File, is_prepared: bool) -> Self {
        Self { path, file, place: 0, blocks: Blocks::default(), is_prepared }
    }

    /// Bytes that were appended.
    pub(super) fn length(&self) -> u64 {
        self.place + self.blocks.length as u64
    }

    /// Appends, and syncs.
    pub(super) fn append(&mut self, parts: [&[u8]; 2]) -> Result<()> {
        parts.into_iter().for_each(|part| self.blocks.push(part));
        match self.file.write_all_at(self.blocks.filled(), self.place) {
            // It can be opened so and not written: larger sectors.
            Err(error) if error.kind() == ErrorKind::InvalidInput => {
                tracing::info!(file = %self.path.display(), "the log can't be written past the page cache");
                self.file = OpenOptions::new().write(true).open(&self.path)?;
                self.file.write_all_at(self.blocks.filled(), self.place)?;
            }
            written => written?,
        }
        self.file.sync_data()?;
        self.place += self.blocks.drop_full() as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_appended_stands_in_the_file_in_order_and_zeros_behind_it() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("segment");
        let file = open_direct(OpenOptions::new().write(true).create_new(true), &path).expect("made");
        let mut segment = Segment::new(path.clone(), file, false);
        let mut whole = Vec::new();
        for (number, length) in [1, 4095, 1, 4096, 10_000, 3 << 20, 5, 0, 70_000].into_iter().enumerate() {
            let (header, content) = (vec![number as u8 + 1; 12], vec![0x80 | number as u8; length]);
            segment.append([&header, &content]).expect("written");
            whole.extend([header, content].concat());
            let bytes = std::fs::read(&path).expect("read");
            assert_eq!(segment.length(), whole.len() as u64);
            assert!(bytes[..whole.len()] == whole, "after {length} bytes");
            assert!(bytes.len() - whole.len() < BLOCK_BYTES && bytes[whole.len()..].iter().all(|byte| *byte == 0));
        }
        assert!(segment.blocks.memory.len() <= BUFFER_BYTES_KEPT, "the large frame's memory is given back");
    }

    #[test]
    fn memory_begins_where_a_block_may() {
        for length in [1, 4096, 5000, 1 << 20] {
            let blocks = Blocks::zeros(length);
            assert_eq!(blocks.bytes().as_ptr().align_offset(BLOCK_BYTES), 0);
            assert_eq!(blocks.bytes(), vec![0; length]);
        }
    }
}
