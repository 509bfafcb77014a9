//! Watch: each watcher is a cursor into what was published.
//!
//! What was published is in a [`Ring`] as far as it is recent, each change encoded once for all watchers; what is older
//! the shell reads from disk. A [`Slice`] is what a watcher is given at once.
//! A [`Cursor`] says what comes next. The shell gives a watcher its turn so, up to a revision `to` that is published:
//! while [`Cursor::is_behind`] it looks whether the cursor [`Cursor::is_overtaken`] by compaction, then reads a slice,
//! then looks again, for what was read while compaction came may have holes; then it says what was [`Cursor::given`].
//! Watchers of one stream that stand at the same place may be given their turns together: what is recent is [`Heard`] for
//! all of them at once.
//!
//! Invariants
//!   W1  A watcher is given each matching change once, in order of revision, and a
//!       revision is never split over two slices.
//!   W2  A cursor behind the compacted revision ends, and isn't given anything more.
//!   W3  Progress is told only when the watcher has been given all up to it, and no more.
//! Checked by: models/src/watch.rs, with compaction, snapshots and clients that go on elsewhere.
//! Source: etcd `server/storage/mvcc/watchable_store.go`.

mod audience;
mod heard;
mod ring;

pub use audience::Audience;
pub use heard::Heard;
pub use ring::{LOOKED_AT_MAX, Ring, Slice, Told};

/// A watcher's place in history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cursor {
    /// First revision not given yet.
    next: i64,
    ended: bool,
}

impl Cursor {
    /// Of a watcher from revision `start` on, which may be to come; 0: from the next one after what is published.
    #[must_use]
    pub fn new(start: i64, published: i64) -> Self {
        Self { next: if start > 0 { start } else { published + 1 }, ended: false }
    }

    /// The first revision that isn't given yet.
    #[must_use]
    pub fn next(&self) -> i64 {
        self.next
    }

    /// Whether compaction ended it (W2).
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// Compaction overtook it (W2).
    pub fn end(&mut self) {
        self.ended = true;
    }

    /// Whether there is anything to read for it in what is published up to `to`.
    #[must_use]
    pub fn is_behind(&self, to: i64) -> bool {
        !self.ended && self.next <= to
    }

    /// Whether what it would be given next may be compacted away (W2). What the compacted revision itself changed
    /// isn't.
    #[must_use]
    pub fn is_overtaken(&self, compacted: i64) -> bool {
        self.next < compacted
    }

    /// It was given all that it wants up to a revision (W1).
    ///
    /// # Panics
    /// If it had been given more already.
    pub fn given(&mut self, reached: i64) {
        assert!(reached + 1 >= self.next, "W1: a cursor at {} can't go back to {reached}", self.next);
        self.next = reached + 1;
    }

    /// Whether it may be told that it has all up to a revision (W3). Not one that begins later: its client has seen
    /// more, from another member, and would go back.
    #[must_use]
    pub fn has_all(&self, reached: i64) -> bool {
        !self.ended && self.next == reached + 1
    }

    /// Whether a stream may be told so of all its watchers at once (W3), as etcd does: of all that haven't ended, and
    /// there must be one.
    pub fn have_all<'a>(cursors: impl Iterator<Item = &'a Cursor>, reached: i64) -> bool {
        let mut live = cursors.filter(|cursor| !cursor.ended).peekable();
        live.peek().is_some() && live.all(|cursor| cursor.has_all(reached))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_goes_forward_and_ends_where_compaction_overtakes_it() {
        let mut cursor = Cursor::new(0, 4);
        assert_eq!((cursor.is_behind(4), cursor.is_behind(5)), (false, true));
        assert_eq!((cursor.is_overtaken(5), cursor.is_overtaken(6)), (false, true));
        cursor.given(6);
        assert_eq!((cursor.next(), cursor.is_overtaken(7)), (7, false));
        cursor.end();
        assert!(!cursor.is_behind(9) && !cursor.has_all(6));
    }

    /// W3.
    #[test]
    fn progress_is_told_when_all_is_given_and_never_of_less_than_was_asked_for() {
        let (now, past, future) = (Cursor::new(0, 4), Cursor::new(3, 4), Cursor::new(7, 4));
        assert_eq!([now, past, future].map(|cursor| cursor.has_all(4)), [true, false, false]);
        let mut ended = past;
        ended.end();
        let told = |cursors: &[Cursor]| Cursor::have_all(cursors.iter(), 4);
        assert_eq!([told(&[now]), told(&[now, ended]), told(&[now, past])], [true, true, false]);
        assert_eq!([told(&[now, future]), told(&[ended]), told(&[])], [false; 3]);
    }
}
