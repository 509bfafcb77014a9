//! A log as the specification has it: marks behind a place that it begins at.

use store_core::trace::Mark;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Log {
    /// Index and term of what is before the first entry.
    base: (u64, u64),
    marks: Vec<Mark>,
}

impl Log {
    pub(super) fn new(base: (u64, u64), marks: Vec<Mark>) -> Self {
        Self { base, marks }
    }

    pub(super) fn base(&self) -> (u64, u64) {
        self.base
    }

    /// Index and term of the last entry.
    pub(super) fn last(&self) -> (u64, u64) {
        (self.base.0 + self.marks.len() as u64, self.marks.last().map_or(self.base.1, |mark| mark.0))
    }

    /// The entry at an index; `None` if it isn't known.
    pub(super) fn get(&self, index: u64) -> Option<Mark> {
        let at = index.checked_sub(self.base.0 + 1)?;
        self.marks.get(usize::try_from(at).ok()?).copied()
    }

    pub(super) fn term(&self, index: u64) -> Option<u64> {
        if index == self.base.0 { Some(self.base.1) } else { self.get(index).map(|mark| mark.0) }
    }

    /// The entries from an index on.
    pub(super) fn since(&self, from: u64) -> &[Mark] {
        let at = usize::try_from(from.saturating_sub(self.base.0 + 1)).unwrap_or(usize::MAX);
        self.marks.get(at..).unwrap_or_default()
    }

    /// Puts entries at an index; they replace what is there. `false` if they would leave a gap, or be before the base.
    pub(super) fn put(&mut self, from: u64, marks: &[Mark]) -> bool {
        if from <= self.base.0 || from > self.last().0 + 1 {
            return false;
        }
        self.marks.truncate(usize::try_from(from - self.base.0 - 1).unwrap_or(usize::MAX));
        self.marks.extend_from_slice(marks);
        true
    }

    /// Whether both logs say the same wherever both know, and end alike.
    pub(super) fn agrees(&self, other: &Self) -> bool {
        let first = self.base.0.max(other.base.0);
        self.last() == other.last()
            && self.term(first) == other.term(first)
            && self.since(first + 1) == other.since(first + 1)
    }
}
