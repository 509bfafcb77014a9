//! Where a search is: what the keys hold, and which operations were taken.

use std::collections::HashMap;

use super::super::numbered::{Act, Effects, Is, Key, Numbered, Op, Seen, Value};
use super::super::words;
use super::Told;

/// What a key holds. Writes are told apart by who wrote, in which branch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cell {
    value: Value,
    /// Of a write that was acknowledged.
    revision: Option<u64>,
    writer: u64,
}

/// A place to come back to.
pub(super) struct Mark {
    trail: usize,
    readings: usize,
    fingerprint: u128,
}

pub(super) struct Place<'a> {
    all: &'a Numbered<'a>,
    told: &'a Told,
    cells: HashMap<Key, Cell>,
    /// What was there before each change.
    trail: Vec<(Key, Option<Cell>)>,
    /// How many operations that aren't taken yet found a value that only one operation can put.
    readers: HashMap<(Key, Value), usize>,
    /// What those taken found.
    readings: Vec<(Key, Value)>,
    fingerprint: u128,
}

/// Values that one operation alone can put, and how many operations found each.
fn readers(all: &Numbered<'_>, group: &[usize]) -> HashMap<(Key, Value), usize> {
    let mut writers: HashMap<(Key, Value), usize> = HashMap::new();
    for at in group {
        for (key, value) in all.ops[*at].writes() {
            value.into_iter().for_each(|value| *writers.entry((key, value)).or_default() += 1);
        }
    }
    let mut readers: HashMap<(Key, Value), usize> = HashMap::new();
    for at in group {
        for (act, seen) in all.ops[*at].done() {
            if let Seen::Found(value, _) = seen
                && writers.get(&(act.key(), value)) == Some(&1)
            {
                *readers.entry((act.key(), value)).or_default() += 1;
            }
        }
    }
    readers
}

/// Spreads a number over 128 bits (splitmix64, twice).
fn spread(number: u64) -> u128 {
    let mix = |mut x: u64| {
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    };
    let high = mix(number.wrapping_add(0x9e37_79b9_7f4a_7c15));
    let low = mix(number.wrapping_mul(0xd134_2543_de82_ef95).wrapping_add(0x3c6e_f372_fe94_f82b));
    u128::from(high) << 64 | u128::from(low)
}

impl<'a> Place<'a> {
    pub(super) fn new(all: &'a Numbered<'_>, told: &'a Told, group: &[usize]) -> Self {
        let readers = readers(all, group);
        let (cells, trail, readings) = Default::default();
        Self { all, told, cells, trail, readers, readings, fingerprint: 0 }
    }

    pub(super) fn mark(&self) -> Mark {
        Mark { trail: self.trail.len(), readings: self.readings.len(), fingerprint: self.fingerprint }
    }

    pub(super) fn back_to(&mut self, mark: Mark) {
        for (key, cell) in self.trail.drain(mark.trail..).rev() {
            match cell {
                Some(cell) => self.cells.insert(key, cell),
                None => self.cells.remove(&key),
            };
        }
        for reading in self.readings.drain(mark.readings..) {
            self.readers.entry(reading).and_modify(|left| *left += 1);
        }
        self.fingerprint = mark.fingerprint;
    }

    /// Of what is taken and what the keys hold.
    pub(super) fn fingerprint(&self) -> u128 {
        self.fingerprint
    }

    /// Of a key's state. Values that nobody ever read or compared with are all the same.
    fn print(&self, key: Key, cell: Option<Cell>) -> u128 {
        let Some(cell) = cell else { return 0 };
        let is_compared = cell.revision.is_some_and(|revision| self.told.compared.contains(&revision));
        let matters = is_compared || self.told.seen.contains(&cell.value);
        spread(1 << 63 | u64::from(key.0) << 40 ^ if matters { cell.writer } else { 1 << 39 })
    }

    /// False if somebody who isn't taken yet found what was there.
    fn set(&mut self, key: Key, cell: Option<Cell>) -> bool {
        let before = match cell {
            Some(cell) => self.cells.insert(key, cell),
            None => self.cells.remove(&key),
        };
        self.fingerprint ^= self.print(key, before) ^ self.print(key, cell);
        self.trail.push((key, before));
        before.is_none_or(|before| self.readers.get(&(key, before.value)).is_none_or(|left| *left == 0))
    }

    fn read(&mut self, key: Key, value: Value) {
        if let Some(left) = self.readers.get_mut(&(key, value)) {
            *left -= 1;
            self.readings.push((key, value));
        }
    }

    fn holds(&self, key: Key, is: Is) -> bool {
        let cell = self.cells.get(&key);
        match is {
            Is::Absent => cell.is_none(),
            Is::Value(value) => cell.is_some_and(|cell| cell.value == value),
            Is::At(revision) => cell.is_some_and(|cell| match cell.revision {
                Some(known) => known == revision,
                None if self.told.acknowledged.contains(&revision) => false,
                None => self.told.values.get(&(key, revision)) == Some(&cell.value),
            }),
        }
    }

    fn succeeds(&self, op: &Op) -> bool {
        op.compares.iter().all(|(key, is)| self.holds(*key, *is))
    }

    /// Does an answered operation again; false, half done, if it would be answered otherwise.
    pub(super) fn redo(&mut self, at: usize) -> bool {
        let all = self.all;
        let op = &all.ops[at];
        let Some(answered) = op.answered() else { return false };
        if self.succeeds(op) != answered.succeeded {
            return false;
        }
        let writer = (at as u64) << 1 | u64::from(answered.succeeded);
        for (act, seen) in op.done() {
            let cell = self.cells.get(&act.key());
            let agrees = match seen {
                Seen::Found(value, revision) => {
                    cell.is_some_and(|cell| cell.value == value && cell.revision.is_none_or(|known| known == revision))
                }
                Seen::Absent => cell.is_none(),
                Seen::Deleted(any) => cell.is_some() == any,
                Seen::Put => true,
            };
            if !agrees {
                return false;
            }
            let is_free = match (act, seen) {
                (Act::Put(key, value), _) => {
                    self.set(key, Some(Cell { value, revision: Some(answered.revision), writer }))
                }
                (Act::Delete(key), _) => self.set(key, None),
                (Act::Get(key), Seen::Found(value, _)) => {
                    self.read(key, value);
                    true
                }
                (Act::Get(_), _) => true,
            };
            if !is_free {
                return false;
            }
        }
        self.fingerprint ^= spread(at as u64);
        true
    }

    /// Whether an answered operation would be answered the same now.
    pub(super) fn would_redo(&mut self, at: usize) -> bool {
        let mark = self.mark();
        let possible = self.redo(at);
        self.back_to(mark);
        possible
    }

    /// What an operation would write now: each key and the value.
    pub(super) fn effects(&self, at: usize) -> Effects {
        let op = &self.all.ops[at];
        let effect = |act: &Act| match act {
            Act::Put(key, value) => Some((*key, Some(*value))),
            Act::Delete(key) => self.cells.get(key).map(|_| (*key, None)),
            Act::Get(_) => None,
        };
        op.branches[usize::from(self.succeeds(op))].iter().filter_map(effect).collect()
    }

    /// Does an unknown operation; false if it changes nothing, or too early.
    pub(super) fn carry_out(&mut self, at: usize) -> bool {
        let effects = self.effects(at);
        let writer = (at as u64) << 1 | u64::from(self.succeeds(&self.all.ops[at]));
        let mut is_free = true;
        for (key, value) in &effects {
            is_free &= self.set(*key, value.map(|value| Cell { value, revision: None, writer }));
        }
        self.fingerprint ^= spread(at as u64);
        is_free && !effects.is_empty()
    }

    /// What the keys hold, in words.
    pub(super) fn shown(&self) -> String {
        const SHOWN: usize = 5;
        let mut cells: Vec<_> = self.cells.iter().collect();
        cells.sort_by_key(|(key, _)| **key);
        let shown = cells.iter().take(SHOWN).map(|(key, cell)| {
            format!("{} = {}", self.all.key_name(**key), words::state(self.all, Some((cell.value, cell.revision))))
        });
        let shown: Vec<String> = shown.collect();
        if shown.is_empty() { "nothing".to_owned() } else { shown.join(", ") }
    }
}
