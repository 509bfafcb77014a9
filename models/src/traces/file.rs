//! Traces as members write them: lines of JSON.

use std::io::{BufRead, Write};

use store_core::trace::{Event, Line};

/// One member's trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    /// What it is called where it is spoken of: its file.
    pub name: String,
    /// Whose it is.
    pub member: u64,
    /// Its events, with the numbers of their lines, from 1.
    pub events: Vec<(usize, Event)>,
}

/// Why a trace can't be judged.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// Reading.
    #[error("reading {name}")]
    Read {
        /// The file.
        name: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// A line that isn't an event.
    #[error("{name}, line {line}: not an event of a trace")]
    Line {
        /// The file.
        name: String,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// A line that isn't where it belongs.
    #[error("{name}, line {line}: {what}")]
    Order {
        /// The file.
        name: String,
        /// The line, from 1.
        line: usize,
        /// What was to be expected.
        what: String,
    },
    /// A trace without a single event: nothing to judge.
    #[error("{name} holds no event of a trace")]
    Empty {
        /// The file.
        name: String,
    },
    /// Two traces of one member.
    #[error(
        "{first} and {second} are both of member {member:x}: give what it did as one trace, in the order of its lives"
    )]
    Twice {
        /// The member.
        member: u64,
        /// One file.
        first: String,
        /// The other.
        second: String,
    },
}

impl Trace {
    /// Reads a member's trace, of all its lives. A line that a killed member didn't finish is passed over: nothing that it
    /// would have told of left the member.
    ///
    /// # Errors
    /// [`TraceError`], but never [`TraceError::Twice`].
    pub fn read(name: &str, input: &mut dyn BufRead) -> Result<Self, TraceError> {
        let mut trace = Self { name: name.to_owned(), member: 0, events: Vec::new() };
        let (mut expected, mut torn) = (0, None);
        for (at, text) in input.split(b'\n').enumerate() {
            let line = at + 1;
            let text = text.map_err(|source| TraceError::Read { name: name.to_owned(), source })?;
            let order = |what: String| TraceError::Order { name: name.to_owned(), line, what };
            let Line { member, number, event } = match serde_json::from_slice(&text) {
                Ok(line) => line,
                Err(_) if text.is_empty() => continue,
                Err(source) => {
                    if let Some((line, source)) = torn.replace((line, source)) {
                        return Err(TraceError::Line { name: name.to_owned(), line, source });
                    }
                    continue;
                }
            };
            let is_start = matches!(event, Event::Start { .. });
            if let Some((line, source)) = torn.take()
                && !is_start
            {
                return Err(TraceError::Line { name: name.to_owned(), line, source });
            }
            if trace.events.is_empty() {
                trace.member = member;
            }
            if member != trace.member {
                return Err(order(format!("an event of member {member:x} in the trace of {:x}", trace.member)));
            }
            expected = if is_start { 0 } else { expected };
            if number != expected {
                return Err(order(format!(
                    "event {number} of this life, where {expected} is the next: a line is missing"
                )));
            }
            expected = number + 1;
            trace.events.push((line, event));
        }
        if trace.events.is_empty() {
            return Err(TraceError::Empty { name: trace.name });
        }
        Ok(trace)
    }
}

impl Trace {
    /// Writes it as a member does.
    ///
    /// # Errors
    /// What `out` says.
    pub fn write(&self, out: &mut dyn Write) -> std::io::Result<()> {
        let mut number = 0;
        for (_, event) in &self.events {
            number = if matches!(event, Event::Start { .. }) { 0 } else { number + 1 };
            let line = Line { member: self.member, number, event: event.clone() };
            serde_json::to_writer(&mut *out, &line)?;
            out.write_all(b"\n")?;
        }
        Ok(())
    }
}
