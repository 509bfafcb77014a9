//! Histories as files: JSON, a line for each thing.
//!
//! ```text
//! {"head":{"form":1,"begins_at":1}}
//! {"operation":{"client":0,"called":10,"returned":30,"request":{"success":[{"put":["a","v1"]}]},"outcome":{"ok":{…}}}}
//! {"change":{"revision":2,"events":[["a","v1"]]}}
//! ```
//! First the head, then the operations (number n stands in line n + 1), then what the store told of its changes.

use std::io::{BufRead, Read as _, Write};

use serde::{Deserialize, Serialize};

use super::operation::{Change, History, Operation};

/// A longer line is refused: requests of a store are 1.5 MiB at most, and those of a test are small.
const LINE_BYTES_MAX: u64 = 4 << 20;
/// More lines are refused: about a gigabyte in memory.
const LINES_MAX: usize = 5_000_000;
/// The only form there is.
const FORM: u32 = 1;

/// Why a history can't be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file can't be read.
    #[error("line {line}: it can't be read")]
    Input {
        /// Where.
        line: usize,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// A line isn't what it should be.
    #[error("line {line}: it is no head, operation or change")]
    Json {
        /// Which.
        line: usize,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// A line holds what can't be.
    #[error("line {line}: {what}")]
    Impossible {
        /// Which.
        line: usize,
        /// What is wrong with it.
        what: String,
    },
    /// More than is read.
    #[error("line {line}: {what} are read at most: split the history, or record less")]
    TooLarge {
        /// Where it is exceeded.
        line: usize,
        /// The bound.
        what: String,
    },
}

/// What a line holds.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line<O, C> {
    Head(Head),
    Operation(O),
    Change(C),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    form: u32,
    begins_at: u64,
}

impl History {
    /// Writes it as lines.
    ///
    /// # Errors
    /// What the output says.
    pub fn write(&self, out: &mut dyn Write) -> std::io::Result<()> {
        let mut line = |line: Line<&Operation, &Change>| writeln!(out, "{}", serde_json::to_string(&line)?);
        line(Line::Head(Head { form: FORM, begins_at: self.begins_at }))?;
        self.operations.iter().try_for_each(|operation| line(Line::Operation(operation)))?;
        self.changes.iter().try_for_each(|change| line(Line::Change(change)))
    }

    /// Reads it from lines.
    ///
    /// # Errors
    /// [`ReadError`], which names the line.
    pub fn read(input: &mut dyn BufRead) -> Result<Self, ReadError> {
        let mut lines = Lines { input, number: 0, text: Vec::new() };
        let Some(Line::Head(head)) = lines.next()? else {
            return Err(impossible(1, "the file must begin with {\"head\":{\"form\":1,\"begins_at\":…}}"));
        };
        if head.form != FORM {
            return Err(impossible(1, &format!("form {} is unknown; this program reads {FORM}", head.form)));
        }
        let mut history = Self { begins_at: head.begins_at, ..Self::default() };
        while let Some(line) = lines.next()? {
            let added = match line {
                Line::Head(_) => Err("a second head".to_owned()),
                Line::Operation(operation) => history.add(operation),
                Line::Change(change) => history.add_change(change),
            };
            added.map_err(|what| impossible(lines.number, &what))?;
        }
        Ok(history)
    }

    fn add(&mut self, operation: Operation) -> Result<(), String> {
        if !self.changes.is_empty() {
            return Err("an operation behind the store's changes".to_owned());
        }
        operation.fault().map_or(Ok(()), Err)?;
        self.operations.push(operation);
        Ok(())
    }

    fn add_change(&mut self, change: Change) -> Result<(), String> {
        let before = self.changes.last().map_or(self.begins_at, |last| last.revision);
        if change.revision <= before {
            return Err(format!("revision {} comes after {before}", change.revision));
        }
        self.changes.push(change);
        Ok(())
    }
}

fn impossible(line: usize, what: &str) -> ReadError {
    ReadError::Impossible { line, what: what.to_owned() }
}

/// Lines within bounds.
struct Lines<'i> {
    input: &'i mut dyn BufRead,
    number: usize,
    text: Vec<u8>,
}

impl Lines<'_> {
    /// The next line; none at the end.
    fn next(&mut self) -> Result<Option<Line<Operation, Change>>, ReadError> {
        self.number += 1;
        let line = self.number;
        self.text.clear();
        let mut bounded = (&mut *self.input).take(LINE_BYTES_MAX + 1);
        let read = bounded.read_until(b'\n', &mut self.text).map_err(|source| ReadError::Input { line, source })?;
        if read as u64 > LINE_BYTES_MAX {
            return Err(ReadError::TooLarge { line, what: format!("{LINE_BYTES_MAX} bytes a line") });
        }
        if line > LINES_MAX && read > 0 {
            return Err(ReadError::TooLarge { line, what: format!("{LINES_MAX} lines") });
        }
        if read == 0 {
            return Ok(None);
        }
        serde_json::from_slice(&self.text).map(Some).map_err(|source| ReadError::Json { line, source })
    }
}
