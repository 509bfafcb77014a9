//! The log's files: the core's segments in a folder.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use raft::eraftpb::ConfState;
use store_core::replica::Log;
use store_core::wal::{self, Damage, Segments};

/// A segment this large is followed by another.
const SEGMENT_BYTES: u64 = 32 << 20;

/// Why the log can't be used.
#[derive(Debug, thiserror::Error)]
pub enum WalError {
    /// The disk refuses.
    #[error("using {path}")]
    Io {
        /// File or folder.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// What was written isn't what is read.
    #[error("{path} is damaged at byte {offset}: {why}; restore this member's folder from a copy")]
    Damaged {
        /// The segment.
        path: String,
        /// Where.
        offset: usize,
        /// What is wrong.
        why: &'static str,
    },
}

fn io(path: &Path) -> impl FnOnce(std::io::Error) -> WalError + '_ {
    move |source| WalError::Io { path: path.display().to_string(), source }
}

/// The open log.
pub(crate) type Wal = wal::Wal<Folder>;

/// Opens the log in a folder, or begins one at the position of the state.
///
/// `applied` (index and term) is what the state has durably applied.
pub(crate) fn open(dir: &Path, applied: (u64, u64), conf_state: ConfState) -> Result<(Wal, Log), WalError> {
    std::fs::create_dir_all(dir).map_err(io(dir))?;
    Wal::open(Folder { dir: dir.to_owned(), open: None }, SEGMENT_BYTES, applied, conf_state)
}

/// The folder, and the segment that is appended to.
pub(crate) struct Folder {
    dir: PathBuf,
    open: Option<(PathBuf, File)>,
}

impl Folder {
    fn path(&self, number: u64) -> PathBuf {
        self.dir.join(format!("{number:016x}.log"))
    }
}

fn number_of(path: &Path) -> Option<u64> {
    let is_segment = path.extension().is_some_and(|extension| extension == "log");
    path.file_stem().filter(|_| is_segment)?.to_str().and_then(|stem| u64::from_str_radix(stem, 16).ok())
}

impl Segments for Folder {
    type Error = WalError;

    fn numbers(&mut self) -> Result<Vec<u64>, WalError> {
        let entries = std::fs::read_dir(&self.dir).map_err(io(&self.dir))?.flatten();
        let mut numbers: Vec<u64> = entries.filter_map(|entry| number_of(&entry.path())).collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    fn read(&mut self, number: u64) -> Result<Vec<u8>, WalError> {
        let path = self.path(number);
        std::fs::read(&path).map_err(io(&path))
    }

    fn cut(&mut self, number: u64, bytes: usize) -> Result<(), WalError> {
        let path = self.path(number);
        tracing::warn!(file = %path.display(), offset = bytes, "the log's end was torn and is cut off");
        let file = OpenOptions::new().write(true).open(&path).map_err(io(&path))?;
        file.set_len(bytes as u64).and_then(|()| file.sync_all()).map_err(io(&path))
    }

    fn create(&mut self, number: u64) -> Result<(), WalError> {
        let path = self.path(number);
        let file = OpenOptions::new().create_new(true).append(true).open(&path).map_err(io(&path))?;
        // The name itself must survive a power cut.
        File::open(&self.dir).and_then(|d| d.sync_all()).map_err(io(&self.dir))?;
        self.open = Some((path, file));
        Ok(())
    }

    fn append(&mut self, header: &[u8], content: &[u8]) -> Result<(), WalError> {
        // A log that is open has created its segment.
        let Some((path, file)) = &mut self.open else { return Ok(()) };
        file.write_all(header).map_err(io(path))?;
        file.write_all(content).map_err(io(path))?;
        file.sync_data().map_err(io(path))
    }

    fn remove(&mut self, number: u64) -> Result<(), WalError> {
        let path = self.path(number);
        std::fs::remove_file(&path).map_err(io(&path))
    }

    fn damaged(&self, Damage { segment, offset, why }: Damage) -> WalError {
        WalError::Damaged { path: self.path(segment).display().to_string(), offset, why }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use raft::eraftpb::Entry;

    #[test]
    fn files_are_found_again_under_their_numbers() {
        let dir = tempfile::tempdir().expect("a folder");
        let open = || open(dir.path(), (0, 0), ConfState::from((vec![1], vec![]))).expect("opened");
        let (mut wal, _) = open();
        wal.push(&[Entry { index: 1, term: 1, ..Entry::default() }], None);
        wal.flush(true).expect("written");
        drop(wal);
        // What isn't a segment is left alone.
        std::fs::write(dir.path().join("notes.log"), "of somebody").expect("written");
        let (wal, log) = open();
        assert_eq!(log.entries().map(|e| (e.index, e.term)).collect::<Vec<_>>(), [(1, 1)]);
        assert_eq!(wal.into_segments().numbers().expect("read"), [1, 2]);
    }
}
