//! What clients of a store asked for and what came of it: plain data.

use serde::{Deserialize, Serialize};

/// What happened to a store, as its clients saw it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct History {
    /// The store's revision before the first operation. None of the history's keys was there.
    pub begins_at: u64,
    /// Every operation that anybody asked of the store since; the first is number 1 in what checks say.
    pub operations: Vec<Operation>,
    /// What the store told afterwards of its changes (a watch from `begins_at + 1`), all or some or none of them, by
    /// revision. With all of them nothing has to be guessed about unknown outcomes.
    pub changes: Vec<Change>,
}

/// One request of a client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Operation {
    /// Who asked.
    pub client: u32,
    /// When the client asked: nanoseconds of one monotonic clock that all clients share.
    pub called: u64,
    /// When it had its answer or gave up: nanoseconds of the same clock.
    pub returned: u64,
    /// What it asked for.
    pub request: Request,
    /// What came of it.
    pub outcome: Outcome,
}

/// A transaction; a single get, put or delete is one without compares. A branch writes no key twice (etcd refuses that).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// Whether it only reads and may be answered from the past (etcd's `serializable`).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub serializable: bool,
    /// Whether `success` is done; it is without any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub compares: Vec<Compare>,
    /// Done if all compares hold.
    pub success: Vec<Step>,
    /// Done if not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failure: Vec<Step>,
}

/// A condition on one key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Compare {
    /// On what.
    pub key: String,
    /// What it must equal.
    pub equals: Target,
}

/// What a key is compared with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// The revision of the last write; 0 of a key that isn't there.
    ModRevision(u64),
    /// The value; a key that isn't there has none.
    Value(String),
}

/// A part of a transaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Reads a key.
    Get(String),
    /// Writes a value to a key.
    Put(String, String),
    /// Deletes a key.
    Delete(String),
}

/// What came of an operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It was answered.
    Ok(Answer),
    /// It was refused and didn't and won't happen; why.
    Failed(String),
    /// It may have happened, may happen later, or never; why nobody knows.
    Unknown(String),
}

/// The store's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    /// The header's revision: the one that a write took, or at which was read.
    pub revision: u64,
    /// Whether all compares held.
    pub succeeded: bool,
    /// What the steps of the branch that was done gave, each.
    pub steps: Vec<Given>,
}

/// What a step gave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Given {
    /// A get found this value, and the revision of its write.
    Found(String, u64),
    /// A get found nothing.
    Absent,
    /// A put is done.
    Put,
    /// How many keys a delete found.
    Deleted(u64),
}

/// What one revision changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Change {
    /// Which.
    pub revision: u64,
    /// Each key that was written and its value, none if it was deleted.
    pub events: Vec<(String, Option<String>)>,
}

impl Request {
    fn of(step: Step) -> Self {
        Self { success: vec![step], ..Self::default() }
    }

    /// Reads a key.
    pub fn get(key: &str) -> Self {
        Self::of(Step::Get(key.to_owned()))
    }

    /// Writes a value to a key.
    pub fn put(key: &str, value: &str) -> Self {
        Self::of(Step::Put(key.to_owned(), value.to_owned()))
    }

    /// Deletes a key.
    pub fn delete(key: &str) -> Self {
        Self::of(Step::Delete(key.to_owned()))
    }

    /// Writes a value if the key was last written at this revision (0: if it isn't there), reads it if not.
    pub fn swap(key: &str, mod_revision: u64, value: &str) -> Self {
        let compare = Compare { key: key.to_owned(), equals: Target::ModRevision(mod_revision) };
        Self { compares: vec![compare], failure: vec![Step::Get(key.to_owned())], ..Self::put(key, value) }
    }

    /// The steps that are done if the compares hold, or if they don't.
    pub fn branch(&self, succeeded: bool) -> &[Step] {
        if succeeded { &self.success } else { &self.failure }
    }

    /// Whether it can change anything.
    pub fn can_write(&self) -> bool {
        let writes = |step: &Step| !matches!(step, Step::Get(_));
        self.success.iter().chain(&self.failure).any(writes)
    }
}

impl Step {
    /// The key that it reads or writes.
    pub fn key(&self) -> &str {
        match self {
            Self::Get(key) | Self::Put(key, _) | Self::Delete(key) => key,
        }
    }
}

impl Operation {
    /// What is impossible about it by itself, whatever the store did.
    pub(super) fn fault(&self) -> Option<String> {
        if self.returned < self.called {
            return Some(format!("it returned at {} ns, before it was called at {} ns", self.returned, self.called));
        }
        if self.request.serializable && self.request.can_write() {
            return Some("it is serializable and writes".to_owned());
        }
        for branch in [&self.request.success, &self.request.failure] {
            let mut written: Vec<&str> =
                branch.iter().filter(|step| !matches!(step, Step::Get(_))).map(Step::key).collect();
            written.sort_unstable();
            if let Some(pair) = written.windows(2).find(|pair| pair[0] == pair[1]) {
                return Some(format!("it writes the key {:?} twice", pair[0]));
            }
        }
        let Outcome::Ok(answer) = &self.outcome else { return None };
        if !answer.succeeded && self.request.compares.is_empty() {
            return Some("it has no compares, and they didn't hold".to_owned());
        }
        let steps = self.request.branch(answer.succeeded);
        if steps.len() != answer.steps.len() {
            return Some(format!("{} steps were done and {} answered", steps.len(), answer.steps.len()));
        }
        let fits = |(step, given): (&Step, &Given)| match step {
            Step::Get(_) => matches!(given, Given::Found(..) | Given::Absent),
            Step::Put(..) => matches!(given, Given::Put),
            Step::Delete(_) => matches!(given, Given::Deleted(0 | 1)),
        };
        let odd = steps.iter().zip(&answer.steps).find(|pair| !fits(*pair));
        odd.map(|(step, given)| format!("{given:?} is no answer to {step:?}"))
    }
}
