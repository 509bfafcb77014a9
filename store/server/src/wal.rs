//! The log's files: the core's segments in a folder.

mod segment;
mod spare;

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};

use raft::eraftpb::ConfState;
use store_core::replica::Log;
use store_core::wal::{self, Damage, Segments};

use segment::{Segment, open_direct};
use spare::Spare;

/// A segment this large is followed by another.
const SEGMENT_BYTES: u64 = 32 << 20;
/// After so many bytes the next one is made, if the open one grows: who writes next to nothing needs no disk for it;
const SPARE_BEHIND_GROWN_BYTES: u64 = 1 << 20;
/// and after so many, if it doesn't.
const SPARE_BEHIND_BYTES: u64 = 16 << 20;
/// The file that is made.
const SPARE: &str = "next";

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
    let spare = dir.join(SPARE);
    let spare = Spare::new(spare.clone(), SEGMENT_BYTES).map_err(io(&spare))?;
    Wal::open(Folder { dir: dir.to_owned(), open: None, spare }, SEGMENT_BYTES, applied, conf_state)
}

/// The folder, the segment that is appended to, and the next.
pub(crate) struct Folder {
    dir: PathBuf,
    open: Option<Segment>,
    spare: Spare,
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
        let prepared = if path.exists() { None } else { self.spare.take(&path) };
        let is_prepared = prepared.is_some();
        let made = prepared.map_or_else(|| open_direct(OpenOptions::new().write(true).create_new(true), &path), Ok);
        let file = made.map_err(io(&path))?;
        // The name itself must survive a power cut.
        File::open(&self.dir).and_then(|d| d.sync_all()).map_err(io(&self.dir))?;
        self.open = Some(Segment::new(path, file, is_prepared));
        Ok(())
    }

    fn append(&mut self, header: &[u8], content: &[u8]) -> Result<(), WalError> {
        // A log that is open has created its segment.
        let Some(segment) = &mut self.open else { return Ok(()) };
        segment.append([header, content]).map_err(io(&segment.path))?;
        let behind = if segment.is_prepared { SPARE_BEHIND_BYTES } else { SPARE_BEHIND_GROWN_BYTES };
        if segment.length() >= behind {
            self.spare.prepare();
        }
        Ok(())
    }

    fn prefers_next(&self) -> bool {
        self.spare.is_ready() && self.open.as_ref().is_some_and(|segment| !segment.is_prepared)
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

    /// A log that grows goes over to the segment that was made beforehand; what stands in both is read back.
    #[test]
    fn a_segment_made_beforehand_is_gone_over_to() {
        let dir = tempfile::tempdir().expect("a folder");
        let open = || open(dir.path(), (0, 0), ConfState::from((vec![1], vec![]))).expect("opened");
        let size = |number| std::fs::metadata(dir.path().join(format!("{number:016x}.log"))).map(|file| file.len());
        let (mut wal, _) = open();
        let mut index = 0;
        while size(2).is_err() {
            // Slower than a spare is made, so that it is there long before a segment is full.
            std::thread::sleep(std::time::Duration::from_millis(1));
            index += 1;
            wal.push(&[Entry { index, term: 1, data: vec![7; 8 << 10].into(), ..Entry::default() }], None);
            wal.flush(true).expect("written");
        }
        let grown = size(1).expect("there");
        assert!((SPARE_BEHIND_GROWN_BYTES..SEGMENT_BYTES).contains(&grown), "{grown}");
        assert_eq!(size(2).expect("there"), SEGMENT_BYTES);
        drop(wal);
        let (wal, log) = open();
        assert!(log.entries().map(|entry| entry.index).eq(1..=index));
        assert_eq!(wal.into_segments().numbers().expect("read"), [1, 2, 3]);
        assert!(!dir.path().join(SPARE).exists());
    }
}
