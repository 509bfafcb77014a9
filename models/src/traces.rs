//! Whether traces of real members are a behaviour of Raft.
//!
//! Each member's events are in their order, and a message is received after it left: any order of all events that keeps to
//! this is as good as another, for what the specification asks about others depends on what was heard of them. So one is made
//! up, and each event in turn must be a step of the specification ([`outcomes`], [`effects`]): no search is needed.
//!
//! What must hold:
//! - an input makes of a member what Raft's actions make of it, or nothing;
//! - a term has one leader, which has all that was committed in terms before; all commit the same, and a leader first;
//! - a member says what its part allows: candidates ask with their log's end, leaders send what is in their log, an answer
//!   belongs to a message;
//! - nothing leaves a member before what it says is durable, and what is new is written;
//! - what is applied is committed and durable; a read sees all that was committed before it;
//! - a member starts with what was durable, and the first of what was handed out since;
//! - all apply the same changes of members, in the order of the log.
//!
//! Source: design after "Validating Traces of Distributed Programs Against TLA+ Specifications" (arXiv 2404.16075) and etcd's
//! raft trace validation; the specification itself: Raft thesis.

mod disk;
mod effects;
mod file;
mod log;
mod member;
mod membership;
mod outcomes;
mod spec;
#[cfg(test)]
mod tests;
mod words;

use std::collections::BTreeMap;
use std::io::Write;

use store_core::trace::{Cause, Event};

pub use file::{Trace, TraceError};
use spec::Spec;
pub use spec::{Impossible, Seen};

/// The first event that isn't a step of the specification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stuck {
    /// The member.
    pub member: u64,
    /// Its trace.
    pub name: String,
    /// The line, from 1.
    pub line: usize,
    /// The event.
    pub event: Event,
    /// What it breaks.
    pub impossible: Impossible,
    /// The member's events before it, the last one last.
    pub before: Vec<Event>,
}

/// What came of a validation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The first impossible step; `None`: the traces are a behaviour of Raft.
    pub stuck: Option<Box<Stuck>>,
    /// What came about until then.
    pub seen: Seen,
    /// Whose traces they are.
    pub members: usize,
}

impl Verdict {
    /// Whether the traces are a behaviour of Raft.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.stuck.is_none()
    }

    /// Tells it in words.
    ///
    /// # Errors
    /// What `out` says.
    pub fn print(&self, out: &mut dyn Write) -> std::io::Result<()> {
        words::print(self, out)
    }
}

/// Events of a member that a report shows before the impossible one.
const BEFORE: usize = 5;

/// Judges the traces of all members of a cluster.
///
/// # Errors
/// [`TraceError::Twice`].
pub fn validate(traces: &[Trace]) -> Result<Verdict, TraceError> {
    let mut names: BTreeMap<u64, &str> = BTreeMap::new();
    for trace in traces.iter().filter(|trace| !trace.events.is_empty()) {
        if let Some(first) = names.insert(trace.member, &trace.name) {
            let (first, second) = (first.to_owned(), trace.name.clone());
            return Err(TraceError::Twice { member: trace.member, first, second });
        }
    }
    let mut spec = Spec::default();
    let mut next = vec![0; traces.len()];
    let stuck = loop {
        let mut moved = false;
        for (trace, next) in traces.iter().zip(&mut next) {
            while let Some((_, event)) = trace.events.get(*next).filter(|(_, event)| spec.can_take(event)) {
                if let Err(impossible) = spec.take(trace.member, event) {
                    return Ok(verdict(Some(stuck(trace, *next, *impossible)), &spec, names.len()));
                }
                (*next, moved) = (*next + 1, true);
            }
        }
        if !moved {
            break traces.iter().zip(next).find(|(trace, next)| *next < trace.events.len());
        }
    };
    let stuck = stuck.map(|(trace, next)| {
        let rule = "a message that is received was sent".to_owned();
        let before = spec.members.get(&trace.member).map(|member| member.view);
        self::stuck(trace, next, Impossible { rule, before, allowed: Vec::new(), seen: None })
    });
    Ok(verdict(stuck, &spec, names.len()))
}

fn verdict(stuck: Option<Stuck>, spec: &Spec, members: usize) -> Verdict {
    Verdict { stuck: stuck.map(Box::new), seen: spec.seen, members }
}

fn stuck(trace: &Trace, at: usize, impossible: Impossible) -> Stuck {
    let before = trace.events[at.saturating_sub(BEFORE)..at].iter().map(|(_, event)| event.clone()).collect();
    let (line, event) = trace.events[at].clone();
    Stuck { member: trace.member, name: trace.name.clone(), line, event, impossible, before }
}

/// What an event is about, as a word.
fn name(event: &Event) -> &'static str {
    match event {
        Event::Start { .. } => "start",
        Event::Step(_) => "effects",
        Event::Durable { .. } => "durable",
        Event::Input { cause, .. } => match cause {
            Cause::Time => "time",
            Cause::Message(_) => "message",
            Cause::Propose(_) => "proposal",
            Cause::Changed(..) => "change of members",
            Cause::Read(_) => "read",
            Cause::Persisted(_) => "told durable",
            Cause::Applied(_) => "told applied",
        },
    }
}
