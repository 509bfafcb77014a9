//! The trace of a member's part in consensus: lines of JSON that `models validate trace` judges.
//!
//! Invariants
//!   T1  What a line tells of leaves the member after the line was given to the system: a killed member's trace lacks
//!       nothing that others may have heard of.
//!   T2  Lines are whole, unless the member was killed in the middle of one; then the next life begins on a new line.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use store_core::trace::{Event, Line};

/// A trace that can't be kept. The member ends: one that lacks lines proves nothing.
#[derive(Debug, thiserror::Error)]
#[error("writing the trace {}", path.display())]
pub struct TraceError {
    path: PathBuf,
    /// What the system said.
    pub(crate) source: std::io::Error,
}

/// A member's trace, which several threads write.
pub(crate) struct Trace {
    member: u64,
    path: PathBuf,
    lines: Mutex<Lines>,
}

struct Lines {
    file: File,
    /// The next line's.
    number: u64,
}

impl Trace {
    /// Goes on where the member's last life ended, or begins a trace.
    pub(crate) fn open(path: &Path, member: u64) -> Result<Self, TraceError> {
        let file = open(path).map_err(|source| TraceError { path: path.to_owned(), source })?;
        Ok(Self { member, path: path.to_owned(), lines: Mutex::new(Lines { file, number: 0 }) })
    }

    /// T1: comes before what the events tell of is done.
    pub(crate) fn write(&self, events: impl IntoIterator<Item = Event>) -> Result<(), TraceError> {
        let Lines { file, number } = &mut *self.lines.lock();
        let mut text = Vec::new();
        for event in events {
            let line = Line { member: self.member, number: *number, event };
            *number += 1;
            serde_json::to_writer(&mut text, &line).map_err(|error| self.failed(error.into()))?;
            text.push(b'\n');
        }
        file.write_all(&text).map_err(|error| self.failed(error))
    }

    fn failed(&self, source: std::io::Error) -> TraceError {
        TraceError { path: self.path.clone(), source }
    }
}

fn open(path: &Path) -> std::io::Result<File> {
    let mut file = File::options().read(true).append(true).create(true).open(path)?;
    if file.metadata()?.len() > 0 {
        let mut last = [0];
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
        if last != *b"\n" {
            file.write_all(b"\n")?;
        }
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// T2.
    #[test]
    fn a_line_that_was_cut_off_ends_before_the_next_life() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("trace");
        for _ in 0..2 {
            let trace = Trace::open(&path, 7).expect("a file");
            trace.write([1, 2].map(|step| Event::Durable { step })).expect("room");
        }
        let mut file = File::options().append(true).open(&path).expect("the trace");
        file.write_all(b"{\"member\":7,").expect("room");
        Trace::open(&path, 7).expect("a file").write([Event::Durable { step: 3 }]).expect("room");
        let text = std::fs::read_to_string(&path).expect("the trace");
        let lines: Vec<Option<Line>> = text.lines().map(|line| serde_json::from_str(line).ok()).collect();
        let numbers: Vec<_> = lines.iter().map(|line| line.as_ref().map(|line| line.number)).collect();
        assert_eq!(numbers, [Some(0), Some(1), Some(0), Some(1), None, Some(0)]);
        assert_eq!(lines[5], Some(Line { member: 7, number: 0, event: Event::Durable { step: 3 } }));
    }

    #[test]
    fn what_cannot_be_written_is_told() {
        let Ok(trace) = Trace::open(Path::new("/dev/full"), 1) else { panic!("the device is there") };
        let error = trace.write([Event::Durable { step: 1 }]).expect_err("no room");
        assert_eq!(error.to_string(), "writing the trace /dev/full");
    }
}
