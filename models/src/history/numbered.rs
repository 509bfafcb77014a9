//! A history with numbers instead of names: what both checks work on.

use std::collections::HashMap;

use super::operation::{Given, History, Operation, Outcome, Request, Step, Target};

/// A key's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Key(pub(super) u32);

/// A value's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Value(pub(super) u32);

/// What a compare wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Is {
    Absent,
    At(u64),
    Value(Value),
}

/// What was written: each key and its value, none if it was deleted.
pub(super) type Effects = Vec<(Key, Option<Value>)>;

/// A step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Act {
    Get(Key),
    Put(Key, Value),
    Delete(Key),
}

/// What a step gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen {
    Found(Value, u64),
    Absent,
    Put,
    Deleted(bool),
}

/// What is known of an operation's end.
#[derive(Debug)]
pub(super) enum Fate {
    Answered(Answered),
    Failed,
    Unknown,
}

#[derive(Debug)]
pub(super) struct Answered {
    pub(super) revision: u64,
    pub(super) succeeded: bool,
    pub(super) seen: Vec<Seen>,
    /// Whether it changed anything, and so took its revision.
    pub(super) wrote: bool,
}

#[derive(Debug)]
pub(super) struct Op {
    pub(super) called: u64,
    /// Never, if the outcome is unknown.
    pub(super) returned: u64,
    pub(super) serializable: bool,
    pub(super) compares: Vec<(Key, Is)>,
    /// What is done if the compares don't hold, and if they do.
    pub(super) branches: [Vec<Act>; 2],
    pub(super) fate: Fate,
}

impl Op {
    pub(super) fn answered(&self) -> Option<&Answered> {
        match &self.fate {
            Fate::Answered(answered) => Some(answered),
            _ => None,
        }
    }

    /// Whether it can have happened without anybody having been told, and mattered.
    pub(super) fn is_open(&self) -> bool {
        matches!(self.fate, Fate::Unknown) && self.writes().next().is_some()
    }

    /// What it may write, in either branch.
    pub(super) fn writes(&self) -> impl Iterator<Item = (Key, Option<Value>)> {
        self.branches.iter().flatten().filter_map(|act| act.write())
    }

    /// Whether more than one key is in it.
    pub(super) fn spans_keys(&self) -> bool {
        let mut keys = self.keys();
        let first = keys.next();
        keys.any(|key| Some(key) != first)
    }

    /// The steps done and what they gave.
    pub(super) fn done(&self) -> impl Iterator<Item = (Act, Seen)> {
        let pairs = self.answered().map(|a| self.branches[usize::from(a.succeeded)].iter().zip(&a.seen));
        pairs.into_iter().flatten().map(|(act, seen)| (*act, *seen))
    }

    /// The keys that it changed, as far as it was answered.
    pub(super) fn wrote(&self) -> impl Iterator<Item = (Key, Option<Value>)> {
        self.done().filter(|(_, seen)| !matches!(seen, Seen::Deleted(false))).filter_map(|(act, _)| act.write())
    }

    /// Every key in it.
    pub(super) fn keys(&self) -> impl Iterator<Item = Key> {
        let compared = self.compares.iter().map(|(key, _)| *key);
        compared.chain(self.branches.iter().flatten().map(|act| act.key()))
    }
}

impl Act {
    pub(super) fn key(self) -> Key {
        match self {
            Self::Get(key) | Self::Put(key, _) | Self::Delete(key) => key,
        }
    }

    fn write(self) -> Option<(Key, Option<Value>)> {
        match self {
            Self::Get(_) => None,
            Self::Put(key, value) => Some((key, Some(value))),
            Self::Delete(key) => Some((key, None)),
        }
    }
}

/// A history by numbers.
pub(super) struct Numbered<'h> {
    pub(super) history: &'h History,
    pub(super) ops: Vec<Op>,
    /// Revision and what it changed, as the store told afterwards.
    pub(super) changes: Vec<(u64, Effects)>,
    keys: Names<'h>,
    values: Names<'h>,
}

/// Numbers of names, in the order of their coming.
#[derive(Default)]
struct Names<'h> {
    numbers: HashMap<&'h str, u32>,
    names: Vec<&'h str>,
}

impl<'h> Names<'h> {
    fn number(&mut self, name: &'h str) -> u32 {
        *self.numbers.entry(name).or_insert_with(|| {
            self.names.push(name);
            u32::try_from(self.names.len() - 1).expect("fewer than the lines that are read")
        })
    }
}

impl<'h> Numbered<'h> {
    pub(super) fn new(history: &'h History) -> Self {
        let (keys, values) = <(Names, Names)>::default();
        let mut all = Self { history, ops: Vec::new(), changes: Vec::new(), keys, values };
        all.ops = history.operations.iter().map(|operation| all.op(operation)).collect();
        let change = |all: &mut Self, (key, value): &'h (String, Option<String>)| {
            (all.key(key), value.as_ref().map(|value| all.value(value)))
        };
        all.changes = history
            .changes
            .iter()
            .map(|told| (told.revision, told.events.iter().map(|event| change(&mut all, event)).collect()))
            .collect();
        all
    }

    pub(super) fn keys_count(&self) -> usize {
        self.keys.names.len()
    }

    pub(super) fn key_name(&self, key: Key) -> &'h str {
        self.keys.names[key.0 as usize]
    }

    pub(super) fn value_name(&self, value: Value) -> &'h str {
        self.values.names[value.0 as usize]
    }

    fn key(&mut self, name: &'h str) -> Key {
        Key(self.keys.number(name))
    }

    fn value(&mut self, name: &'h str) -> Value {
        Value(self.values.number(name))
    }

    fn branch(&mut self, steps: &'h [Step]) -> Vec<Act> {
        let act = |step: &'h Step| match step {
            Step::Get(key) => Act::Get(self.key(key)),
            Step::Put(key, value) => Act::Put(self.key(key), self.value(value)),
            Step::Delete(key) => Act::Delete(self.key(key)),
        };
        steps.iter().map(act).collect()
    }

    fn compares(&mut self, request: &'h Request) -> Vec<(Key, Is)> {
        let compare = |compare: &'h super::operation::Compare| {
            let is = match &compare.equals {
                Target::ModRevision(0) => Is::Absent,
                Target::ModRevision(revision) => Is::At(*revision),
                Target::Value(value) => Is::Value(self.value(value)),
            };
            (self.key(&compare.key), is)
        };
        request.compares.iter().map(compare).collect()
    }

    fn op(&mut self, operation: &'h Operation) -> Op {
        let request = &operation.request;
        let fate = match &operation.outcome {
            Outcome::Failed(_) => Fate::Failed,
            Outcome::Unknown(_) => Fate::Unknown,
            Outcome::Ok(answer) => {
                let seen = |given: &'h Given| match given {
                    Given::Found(value, revision) => Seen::Found(self.value(value), *revision),
                    Given::Absent => Seen::Absent,
                    Given::Put => Seen::Put,
                    Given::Deleted(count) => Seen::Deleted(*count > 0),
                };
                let seen: Vec<Seen> = answer.steps.iter().map(seen).collect();
                let wrote = seen.iter().any(|seen| matches!(seen, Seen::Put | Seen::Deleted(true)));
                Fate::Answered(Answered { revision: answer.revision, succeeded: answer.succeeded, seen, wrote })
            }
        };
        Op {
            called: operation.called,
            returned: if matches!(fate, Fate::Unknown) { u64::MAX } else { operation.returned },
            serializable: request.serializable,
            compares: self.compares(request),
            branches: [self.branch(&request.failure), self.branch(&request.success)],
            fate,
        }
    }
}
