//! The log's files: segments of checksummed frames, one sync for each.
//!
//! A frame holds the records of one flush; it is synced before the next is written. A record
//! is a kind, a length, a payload. A segment begins with where the log stood before it, so
//! that older ones can be deleted.
//!
//! Invariants
//!   F1  What was synced is read back, or opening fails: a torn last frame of the last
//!       segment is cut off, damage anywhere else is refused and named.
//!   F2  Entries that replace others stand behind them; reading lets the last win.

mod frame;

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use protobuf::Message as _;
use raft::eraftpb::{ConfState, Entry, HardState};
use store_core::replica::Log;

/// A segment this large is followed by another.
const SEGMENT_BYTES: u64 = 32 << 20;
/// What needs no sync waits for what does, up to this much.
const UNSYNCED_BYTES_MAX: usize = 1 << 20;

const KIND_START: u8 = 1;
const KIND_ENTRY: u8 = 2;
const KIND_HARD_STATE: u8 = 3;

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
pub(crate) struct Wal {
    dir: PathBuf,
    file: File,
    path: PathBuf,
    written: u64,
    buffer: Vec<u8>,
    /// Last entry of the open segment, and its term.
    last: (u64, u64),
    hard_state: HardState,
    /// Closed segments, oldest first, with their last entry.
    closed: Vec<(PathBuf, u64)>,
}

fn pair(a: u64, b: u64) -> [u8; 16] {
    let mut out = [0; 16];
    out[..8].copy_from_slice(&a.to_le_bytes());
    out[8..].copy_from_slice(&b.to_le_bytes());
    out
}

fn unpair(payload: &[u8]) -> Option<(u64, u64)> {
    let a = payload.get(..8)?.try_into().ok()?;
    let b = payload.get(8..16)?.try_into().ok()?;
    Some((u64::from_le_bytes(a), u64::from_le_bytes(b)))
}

impl Wal {
    /// Opens the log in a folder, or begins one at the position of the state.
    ///
    /// `applied` and `applied_term` are what the state has durably applied.
    pub(crate) fn open(
        dir: &Path,
        applied: u64,
        applied_term: u64,
        conf_state: ConfState,
    ) -> Result<(Self, Log), WalError> {
        std::fs::create_dir_all(dir).map_err(io(dir))?;
        let mut paths: Vec<PathBuf> = std::fs::read_dir(dir)
            .map_err(io(dir))?
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|e| e == "log"))
            .collect();
        paths.sort();
        let mut log: Option<Log> = None;
        let mut hard_state = HardState::default();
        let mut ends = Vec::new();
        for (at, path) in paths.iter().enumerate() {
            let newest = at + 1 == paths.len();
            // A crash may leave a segment before its first record is in it.
            let mut last = ends.last().copied().unwrap_or((applied, applied_term));
            for (kind, payload) in read_segment(path, newest)? {
                let damaged = |why| WalError::Damaged { path: path.display().to_string(), offset: 0, why };
                match kind {
                    KIND_START => {
                        let (before, term) = unpair(&payload).ok_or_else(|| damaged("a start record is short"))?;
                        last = (before, term);
                        log.get_or_insert_with(|| Log::new(before, term, conf_state.clone()));
                    }
                    KIND_ENTRY => {
                        let entry = Entry::parse_from_bytes(&payload).map_err(|_| damaged("an entry can't be read"))?;
                        last = (entry.index, entry.term);
                        let log = log.as_mut().ok_or_else(|| damaged("entries before a start record"))?;
                        if raft::Storage::first_index(log).is_ok_and(|first| entry.index < first) {
                            // It replaces one of a segment that was deleted since: it is in the state, and all follows
                            // on it.
                            *log = Log::new(entry.index, entry.term, conf_state.clone());
                        } else {
                            log.append(&[entry]);
                        }
                    }
                    KIND_HARD_STATE => {
                        hard_state =
                            HardState::parse_from_bytes(&payload).map_err(|_| damaged("a state can't be read"))?;
                    }
                    _ => return Err(damaged("an unknown kind of record")),
                }
            }
            ends.push(last);
        }
        // A snapshot was installed and the log not yet begun anew behind it: what the log holds has been replaced.
        let behind = log.as_ref().is_none_or(|log| raft::Storage::term(log, applied).ok() != Some(applied_term));
        if let Some((log, path)) = log.as_ref().zip(paths.first())
            && raft::Storage::first_index(log).unwrap_or(0) > applied + 1
        {
            let why = "it begins behind what the state holds: entries or the state are missing";
            return Err(WalError::Damaged { path: path.display().to_string(), offset: 0, why });
        }
        let mut log = match log {
            Some(log) if !behind => log,
            _ => Log::new(applied, applied_term, conf_state),
        };
        hard_state.commit = hard_state.commit.max(applied);
        hard_state.term = hard_state.term.max(applied_term);
        log.set_hard_state(&hard_state);
        let (before, term) =
            if behind { (applied, applied_term) } else { ends.last().copied().unwrap_or((applied, applied_term)) };
        let closed = if behind { Vec::new() } else { paths.iter().cloned().zip(ends.iter().map(|e| e.0)).collect() };
        let (path, file) = create_segment(dir, next_number(&paths))?;
        let mut wal = Self {
            dir: dir.to_owned(),
            file,
            path,
            written: 0,
            buffer: Vec::new(),
            last: (before, term),
            hard_state,
            closed,
        };
        wal.begin()?;
        if behind {
            for path in &paths {
                std::fs::remove_file(path).map_err(io(path))?;
            }
        }
        Ok((wal, log))
    }

    /// The first records of a segment: where the log stood, and term, vote and commit.
    fn begin(&mut self) -> Result<(), WalError> {
        self.written = 0;
        frame::push_record(&mut self.buffer, KIND_START, &pair(self.last.0, self.last.1));
        let state = encode(&self.hard_state);
        frame::push_record(&mut self.buffer, KIND_HARD_STATE, &state);
        self.flush(true)
    }

    /// Adds entries and state to what the next flush writes.
    pub(crate) fn push(&mut self, entries: &[Entry], hard_state: Option<&HardState>) {
        for entry in entries {
            let payload = encode(entry);
            frame::push_record(&mut self.buffer, KIND_ENTRY, &payload);
            self.last = (entry.index, entry.term);
        }
        if let Some(hard_state) = hard_state {
            let payload = encode(hard_state);
            frame::push_record(&mut self.buffer, KIND_HARD_STATE, &payload);
            self.hard_state = hard_state.clone();
        }
    }

    /// With `sync`, what was pushed is on disk on return. Without, it may wait for the next sync: so every frame
    /// but the last is known to be on disk.
    pub(crate) fn flush(&mut self, sync: bool) -> Result<(), WalError> {
        if sync || self.buffer.len() > UNSYNCED_BYTES_MAX {
            self.write_frame()?;
        }
        if self.written >= SEGMENT_BYTES {
            self.rotate()?;
        }
        Ok(())
    }

    fn write_frame(&mut self) -> Result<(), WalError> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let header = frame::header(number_of(&self.path), self.written, &self.buffer);
        self.file.write_all(&header).map_err(io(&self.path))?;
        self.file.write_all(&self.buffer).map_err(io(&self.path))?;
        self.file.sync_data().map_err(io(&self.path))?;
        self.written += (header.len() + self.buffer.len()) as u64;
        self.buffer.clear();
        self.buffer.shrink_to(1 << 20);
        Ok(())
    }

    fn rotate(&mut self) -> Result<(), WalError> {
        // What was pushed belongs to the segment that is being closed.
        self.write_frame()?;
        self.closed.push((self.path.clone(), self.last.0));
        let (path, file) = create_segment(&self.dir, number_of(&self.path) + 1)?;
        (self.path, self.file) = (path, file);
        self.begin()
    }

    /// Begins anew behind a snapshot; everything older goes.
    pub(crate) fn reset(&mut self, index: u64, term: u64, hard_state: &HardState) -> Result<(), WalError> {
        // What was pushed and not written is behind the snapshot as well.
        self.buffer.clear();
        self.last = (index, term);
        self.hard_state = hard_state.clone();
        self.rotate()?;
        for (path, _) in std::mem::take(&mut self.closed) {
            std::fs::remove_file(&path).map_err(io(&path))?;
        }
        Ok(())
    }

    /// Deletes segments whose entries are all durably applied.
    pub(crate) fn release(&mut self, applied: u64) -> Result<(), WalError> {
        while self.closed.first().is_some_and(|(_, last)| *last <= applied) {
            let (path, _) = self.closed.remove(0);
            std::fs::remove_file(&path).map_err(io(&path))?;
        }
        Ok(())
    }
}

fn encode(message: &impl protobuf::Message) -> Vec<u8> {
    // Encoding to memory fails only for unset required fields, which proto3 doesn't have.
    message.write_to_bytes().unwrap_or_default()
}

fn number_of(path: &Path) -> u64 {
    path.file_stem().and_then(|s| s.to_str()).and_then(|s| u64::from_str_radix(s, 16).ok()).unwrap_or(0)
}

fn next_number(paths: &[PathBuf]) -> u64 {
    paths.last().map_or(1, |path| number_of(path) + 1)
}

fn create_segment(dir: &Path, number: u64) -> Result<(PathBuf, File), WalError> {
    let path = dir.join(format!("{number:016x}.log"));
    let file = OpenOptions::new().create_new(true).append(true).open(&path).map_err(io(&path))?;
    // The name itself must survive a power cut.
    File::open(dir).and_then(|d| d.sync_all()).map_err(io(dir))?;
    Ok((path, file))
}

/// Reads a segment's records (F1).
fn read_segment(path: &Path, newest: bool) -> Result<Vec<(u8, Vec<u8>)>, WalError> {
    let bytes = std::fs::read(path).map_err(io(path))?;
    let (records, fault) = frame::read(number_of(path), &bytes);
    let Some(fault) = fault else { return Ok(records) };
    if !newest || !fault.torn {
        return Err(WalError::Damaged { path: path.display().to_string(), offset: fault.offset, why: fault.why });
    }
    tracing::warn!(file = %path.display(), offset = fault.offset, "the log's end was torn and is cut off");
    let file = OpenOptions::new().write(true).open(path).map_err(io(path))?;
    file.set_len(fault.offset as u64).and_then(|()| file.sync_all()).map_err(io(path))?;
    Ok(records)
}

#[cfg(test)]
mod tests;
