//! What a history tells of values and revisions before its orders are searched.

use std::collections::{HashMap, HashSet};

use super::super::numbered::{Is, Key, Numbered, Seen, Value};
use super::super::words::shown;

/// What answers tell of revisions.
pub(super) struct Told {
    /// Which value a get found at which revision of a key.
    pub(super) values: HashMap<(Key, u64), Value>,
    /// Revisions of acknowledged writes.
    pub(super) acknowledged: HashSet<u64>,
    /// Values that somebody read or compared with.
    pub(super) seen: HashSet<Value>,
    /// Revisions that somebody compared with.
    pub(super) compared: HashSet<u64>,
}

impl Told {
    pub(super) fn new(all: &Numbered) -> Self {
        let mut told = Self {
            values: HashMap::new(),
            acknowledged: HashSet::new(),
            seen: HashSet::new(),
            compared: HashSet::new(),
        };
        for op in &all.ops {
            if let Some(answered) = op.answered().filter(|answered| answered.wrote) {
                told.acknowledged.insert(answered.revision);
            }
            for (act, seen) in op.done() {
                if let Seen::Found(value, revision) = seen {
                    told.values.entry((act.key(), revision)).or_insert(value);
                    told.seen.insert(value);
                }
            }
            for (_, is) in &op.compares {
                match is {
                    Is::Value(value) => drop(told.seen.insert(*value)),
                    Is::At(revision) => drop(told.compared.insert(*revision)),
                    Is::Absent => {}
                }
            }
        }
        told
    }

    /// Why a group can't be judged by values: a compare with a revision of which nobody told what was written then.
    pub(super) fn puzzle(&self, all: &Numbered, group: &[usize]) -> Option<String> {
        let writes_unknown = |key: Key| {
            let mut open = group.iter().map(|at| &all.ops[*at]).filter(|op| op.is_open());
            open.any(|op| op.writes().any(|(written, _)| written == key))
        };
        group.iter().find_map(|at| {
            let unclear = |(key, is): &&(Key, Is)| match is {
                Is::At(revision) => {
                    let known = self.acknowledged.contains(revision) || self.values.contains_key(&(*key, *revision));
                    !known && writes_unknown(*key)
                }
                _ => false,
            };
            all.ops[*at].compares.iter().find(unclear)?;
            Some(format!("{} compares with a revision that no answer explains", shown(all, *at)))
        })
    }

    /// Of each unknown operation, the one called before it that does the same for all that anybody saw: a deletion of the
    /// same key, or a put of a value that was never read nor compared with.
    pub(super) fn twins(&self, all: &Numbered, open: &[usize]) -> Vec<Option<usize>> {
        let mut last: HashMap<(Key, bool), usize> = HashMap::new();
        let twin = |(number, at): (usize, &usize)| {
            let op = &all.ops[*at];
            let mut writes = op.writes();
            match (op.compares.is_empty(), writes.next(), writes.next()) {
                (true, Some((_, Some(value))), None) if self.seen.contains(&value) => None,
                (true, Some((key, value)), None) => last.insert((key, value.is_some()), number),
                _ => None,
            }
        };
        open.iter().enumerate().map(twin).collect()
    }
}
