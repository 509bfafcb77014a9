//! Histories of a store's clients, and whether they are linearizable.
//!
//! Problem. A store under faults must behave as if each operation happened at one moment between its call and
//!          its answer, whoever was cut off, killed or stopped meanwhile. Tests of single answers don't show that.
//! Idea.    Clients record what they asked and what came of it. Two checks that share no judgement look at the whole:
//!          `revisions` orders everything by the revisions that the store gave out, across keys and transactions;
//!          `search` looks for any order of each key's operations, by values.
//!
//! Order of reading: `operation` (what is recorded), `file` (how it is kept), `revisions`, `search`.

mod file;
mod numbered;
mod operation;
mod revisions;
mod search;
#[cfg(test)]
mod tests;
mod words;

use std::io::Write;
use std::time::{Duration, Instant};

pub use file::ReadError;
pub use operation::{Answer, Change, Compare, Given, History, Operation, Outcome, Request, Step, Target};
pub use revisions::check as check_revisions;
pub use search::{STEPS_MAX, check as check_search};

use numbered::Numbered;

/// What a check says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// There is an order that explains everything.
    Linearizable,
    /// There is none.
    Violated(Violation),
    /// The bound came first; why.
    Unknown(String),
}

/// The first thing that can't be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// In words.
    pub what: String,
    /// The operations around it; the first of the history is number 1.
    pub around: Vec<usize>,
}

/// What both checks say of a history.
#[derive(Debug)]
pub struct Report {
    /// By revisions.
    pub by_revisions: Verdict,
    /// By search, key by key.
    pub by_search: Verdict,
    /// Keys of the history.
    pub keys: usize,
    /// How long each check took.
    pub took: (Duration, Duration),
}

/// Runs both checks.
pub fn check(history: &History) -> Report {
    let fault = |(at, operation): (usize, &Operation)| operation.fault().map(|what| (at + 1, what));
    if let Some((number, what)) = history.operations.iter().enumerate().find_map(fault) {
        let violation = Violation { what: format!("operation {number} can't be: {what}"), around: vec![number] };
        let verdict = Verdict::Violated(violation);
        return Report { by_revisions: verdict.clone(), by_search: verdict, keys: 0, took: Default::default() };
    }
    let all = Numbered::new(history);
    let begun = Instant::now();
    let by_revisions = revisions::check_numbered(&all);
    let middle = Instant::now();
    let by_search = search::check_numbered(&all, STEPS_MAX);
    Report { by_revisions, by_search, keys: all.keys_count(), took: (middle - begun, middle.elapsed()) }
}

impl Report {
    /// Whether one of them found a violation.
    pub fn is_violated(&self) -> bool {
        [&self.by_revisions, &self.by_search].iter().any(|verdict| matches!(verdict, Verdict::Violated(_)))
    }

    /// Whether both found an order that explains everything.
    pub fn holds(&self) -> bool {
        self.by_revisions == Verdict::Linearizable && self.by_search == Verdict::Linearizable
    }

    /// Tells what was found.
    ///
    /// # Errors
    /// What the output says.
    pub fn print(&self, history: &History, out: &mut dyn Write) -> std::io::Result<()> {
        let count = |of: fn(&Outcome) -> bool| history.operations.iter().filter(|o| of(&o.outcome)).count();
        writeln!(
            out,
            "{} operations on {} keys: {} answered, {} failed, {} with unknown outcome; {} changes told by the store",
            history.operations.len(),
            self.keys,
            count(|outcome| matches!(outcome, Outcome::Ok(_))),
            count(|outcome| matches!(outcome, Outcome::Failed(_))),
            count(|outcome| matches!(outcome, Outcome::Unknown(_))),
            history.changes.len()
        )?;
        let verdicts = [("by revisions", &self.by_revisions, self.took.0), ("by search", &self.by_search, self.took.1)];
        for (name, verdict, took) in verdicts {
            let took = format!("({:.3} s)", took.as_secs_f64());
            match verdict {
                Verdict::Linearizable => writeln!(out, "{name}: linearizable {took}")?,
                Verdict::Unknown(why) => writeln!(out, "{name}: undecided: {why} {took}")?,
                Verdict::Violated(violation) => {
                    writeln!(out, "{name}: VIOLATED {took}\n{}", violation.words(history))?;
                }
            }
        }
        Ok(())
    }
}

impl Violation {
    /// What can't be, and a line on each operation around it.
    pub fn words(&self, history: &History) -> String {
        let line = |number: &usize| words::line(&history.operations[number - 1], *number);
        let lines = self.around.iter().map(line);
        std::iter::once(self.what.clone()).chain(lines).collect::<Vec<_>>().join("\n")
    }
}
