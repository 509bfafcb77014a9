//! The log on disk: segments of checksummed frames, one sync for each.
//!
//! A frame holds the records of one flush; it is synced before the next is written. A record
//! is a kind, a length, a payload. A segment begins with where the log stood before it, so
//! that older ones can be deleted. The shell keeps the segments ([`Segments`]).
//!
//! Invariants
//!   F1  What was synced is read back, or opening fails: a torn last frame of the last
//!       segment is cut off, damage anywhere else is refused and named.
//!   F2  Entries that replace others stand behind them; reading lets the last win. A segment that doesn't begin where
//!       the one before it ends begins the log anew.
//! Checked by: sim/, byte by byte under power cuts.

mod frame;
#[cfg(test)]
mod tests;

use protobuf::Message as _;
use raft::eraftpb::{ConfState, Entry, HardState};

use crate::replica::Log;

/// What needs no sync waits for what does, up to this much.
const UNSYNCED_BYTES_MAX: usize = 1 << 20;

const KIND_START: u8 = 1;
const KIND_ENTRY: u8 = 2;
const KIND_HARD_STATE: u8 = 3;

/// The segments, kept by the shell under their numbers. What is done is durable on return; what is removed goes with
/// the next `create` at the latest, in order.
pub trait Segments {
    /// Why the disk can't be used.
    type Error;

    /// The numbers of those that are there, ascending.
    ///
    /// # Errors
    /// If the disk refuses; so of all that follow.
    fn numbers(&mut self) -> Result<Vec<u64>, Self::Error>;

    /// All of a segment; behind what was appended there may be zeros.
    ///
    /// # Errors
    /// If the disk refuses.
    fn read(&mut self, number: u64) -> Result<Vec<u8>, Self::Error>;

    /// Cuts the torn end of a segment off, durably.
    ///
    /// # Errors
    /// If the disk refuses.
    fn cut(&mut self, number: u64, bytes: usize) -> Result<(), Self::Error>;

    /// Begins a new segment, which is appended to from now on, durably.
    ///
    /// # Errors
    /// If the disk refuses, or it is there.
    fn create(&mut self, number: u64) -> Result<(), Self::Error>;

    /// Appends header and content of a frame, and syncs.
    ///
    /// # Errors
    /// If the disk refuses.
    fn append(&mut self, header: &[u8], content: &[u8]) -> Result<(), Self::Error>;

    /// Whether the next segment would be a better one already, though the open one isn't full.
    fn prefers_next(&self) -> bool {
        false
    }

    /// Deletes a segment.
    ///
    /// # Errors
    /// If the disk refuses.
    fn remove(&mut self, number: u64) -> Result<(), Self::Error>;

    /// How the shell says that what was written isn't what is read.
    fn damaged(&self, damage: Damage) -> Self::Error;
}

/// What was written isn't what is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Damage {
    /// The segment.
    pub segment: u64,
    /// Where.
    pub offset: usize,
    /// What is wrong.
    pub why: &'static str,
}

/// The open log.
pub struct Wal<S> {
    segments: S,
    /// A segment this large is followed by another.
    segment_bytes: u64,
    /// The open segment.
    number: u64,
    written: u64,
    buffer: Vec<u8>,
    /// Last entry of the open segment, and its term.
    last: (u64, u64),
    hard_state: HardState,
    /// Closed segments, oldest first, with their last entry.
    closed: Vec<(u64, u64)>,
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

impl<S: Segments> Wal<S> {
    /// Opens the log in the segments that are there, or begins one at the position of the state.
    ///
    /// `applied` (index and term) is what the state has durably applied.
    ///
    /// # Errors
    /// If the disk refuses, or what was written isn't what is read (F1).
    pub fn open(
        mut segments: S,
        segment_bytes: u64,
        (applied, applied_term): (u64, u64),
        conf_state: ConfState,
    ) -> Result<(Self, Log), S::Error> {
        let numbers = segments.numbers()?;
        let mut log: Option<Log> = None;
        let mut hard_state = HardState::default();
        let mut ends = Vec::new();
        for (at, number) in numbers.iter().enumerate() {
            let newest = at + 1 == numbers.len();
            // A crash may leave a segment before its first record is in it.
            let mut last = ends.last().copied().unwrap_or((applied, applied_term));
            for (kind, payload) in read_segment(&mut segments, *number, newest)? {
                let damaged = |why| segments.damaged(Damage { segment: *number, offset: 0, why });
                match kind {
                    KIND_START => {
                        let (before, term) = unpair(&payload).ok_or_else(|| damaged("a start record is short"))?;
                        last = (before, term);
                        // Else the log began anew behind a snapshot. Its older segments are gone, or a power cut
                        // brought them back.
                        if log.as_ref().map(end) != Some(last) {
                            log = Some(Log::new(before, term, conf_state.clone()));
                        }
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
        if let Some((log, number)) = log.as_ref().zip(numbers.first())
            && raft::Storage::first_index(log).unwrap_or(0) > applied + 1
        {
            let why = "it begins behind what the state holds: entries or the state are missing";
            return Err(segments.damaged(Damage { segment: *number, offset: 0, why }));
        }
        let mut log = match log {
            Some(log) if !behind => log,
            _ => Log::new(applied, applied_term, conf_state),
        };
        hard_state.commit = hard_state.commit.max(applied);
        hard_state.term = hard_state.term.max(applied_term);
        log.set_hard_state(&hard_state);
        let last =
            if behind { (applied, applied_term) } else { ends.last().copied().unwrap_or((applied, applied_term)) };
        let closed = if behind { Vec::new() } else { numbers.iter().copied().zip(ends.iter().map(|e| e.0)).collect() };
        let number = numbers.last().map_or(1, |number| number + 1);
        segments.create(number)?;
        let mut wal =
            Self { segments, segment_bytes, number, written: 0, buffer: Vec::new(), last, hard_state, closed };
        wal.begin()?;
        if behind {
            for number in numbers {
                wal.segments.remove(number)?;
            }
        }
        Ok((wal, log))
    }

    /// The first records of a segment: where the log stood, and term, vote and commit.
    fn begin(&mut self) -> Result<(), S::Error> {
        self.written = 0;
        frame::push_record(&mut self.buffer, KIND_START, &pair(self.last.0, self.last.1));
        push_message(&mut self.buffer, KIND_HARD_STATE, &self.hard_state);
        self.flush(true)
    }

    /// Adds entries and state to what the next flush writes.
    pub fn push(&mut self, entries: &[Entry], hard_state: Option<&HardState>) {
        for entry in entries {
            push_message(&mut self.buffer, KIND_ENTRY, entry);
            self.last = (entry.index, entry.term);
        }
        if let Some(hard_state) = hard_state {
            push_message(&mut self.buffer, KIND_HARD_STATE, hard_state);
            self.hard_state = hard_state.clone();
        }
    }

    /// With `sync`, what was pushed is on disk on return. Without, it may wait for the next sync: so every frame
    /// but the last is known to be on disk.
    ///
    /// # Errors
    /// If the disk refuses.
    pub fn flush(&mut self, sync: bool) -> Result<(), S::Error> {
        if sync || self.buffer.len() > UNSYNCED_BYTES_MAX {
            self.write_frame()?;
        }
        if self.written >= self.segment_bytes || self.segments.prefers_next() {
            self.rotate()?;
        }
        Ok(())
    }

    fn write_frame(&mut self) -> Result<(), S::Error> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let header = frame::header(self.number, self.written, &self.buffer);
        self.segments.append(&header, &self.buffer)?;
        self.written += (header.len() + self.buffer.len()) as u64;
        self.buffer.clear();
        self.buffer.shrink_to(1 << 20);
        Ok(())
    }

    fn rotate(&mut self) -> Result<(), S::Error> {
        // What was pushed belongs to the segment that is being closed.
        self.write_frame()?;
        self.closed.push((self.number, self.last.0));
        self.number += 1;
        self.segments.create(self.number)?;
        self.begin()
    }

    /// Begins anew behind a snapshot; everything older goes.
    ///
    /// # Errors
    /// If the disk refuses.
    pub fn reset(&mut self, index: u64, term: u64, hard_state: &HardState) -> Result<(), S::Error> {
        // What was pushed and not written is behind the snapshot as well.
        self.buffer.clear();
        self.last = (index, term);
        self.hard_state = hard_state.clone();
        self.rotate()?;
        for (number, _) in std::mem::take(&mut self.closed) {
            self.segments.remove(number)?;
        }
        Ok(())
    }

    /// Deletes segments whose entries are all durably applied.
    ///
    /// # Errors
    /// If the disk refuses.
    pub fn release(&mut self, applied: u64) -> Result<(), S::Error> {
        while self.closed.first().is_some_and(|(_, last)| *last <= applied) {
            let (number, _) = self.closed.remove(0);
            self.segments.remove(number)?;
        }
        Ok(())
    }

    /// The segments.
    pub fn segments(&mut self) -> &mut S {
        &mut self.segments
    }

    /// The segments, of a log that isn't used any more.
    pub fn into_segments(self) -> S {
        self.segments
    }
}

/// Index and term of a log's last entry.
fn end(log: &Log) -> (u64, u64) {
    let index = raft::Storage::last_index(log).unwrap_or(0);
    (index, raft::Storage::term(log, index).unwrap_or(0))
}

fn push_message(buffer: &mut Vec<u8>, kind: u8, message: &impl protobuf::Message) {
    let begin = frame::begin_record(buffer, kind);
    // Encoding to memory fails only for unset required fields, which proto3 doesn't have.
    let _ = message.write_to_vec(buffer);
    frame::end_record(buffer, begin);
}

/// Reads a segment's records (F1).
fn read_segment<S: Segments>(segments: &mut S, number: u64, newest: bool) -> Result<Vec<(u8, Vec<u8>)>, S::Error> {
    let bytes = segments.read(number)?;
    let (records, fault) = frame::read(number, &bytes);
    let Some(fault) = fault else { return Ok(records) };
    if !newest || !fault.torn {
        return Err(segments.damaged(Damage { segment: number, offset: fault.offset, why: fault.why }));
    }
    segments.cut(number, fault.offset)?;
    Ok(records)
}
