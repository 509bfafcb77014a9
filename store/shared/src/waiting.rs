//! Who waits for an answer.

use std::collections::HashMap;

use crate::sync::Mutex;

/// Everybody whose request is on its way, by number; `T` is how they are told.
///
/// Requests begin and are given up on many threads; one thread answers them, another learns that leaders change. What an
/// older leader was given, and the next one doesn't have, will never be answered.
///
/// Invariants
///   Q1  Whoever begins is handed out once, to be told, or gives up: never both, and never twice.
///   Q2  [`Waiting::take_older`] hands out all that began before the last change of leaders, and nobody who began after it.
///   Q3  [`Waiting::close`] hands out all that began, and nobody begins any more: nobody waits for who has ended.
#[derive(Debug)]
pub struct Waiting<T> {
    table: Mutex<Table<T>>,
    max: usize,
}

#[derive(Debug)]
struct Table<T> {
    /// Changes of leaders so far.
    leaders: u64,
    /// Each with the changes of leaders before it began.
    waiters: HashMap<u64, (T, u64)>,
    is_closed: bool,
}

/// Why somebody doesn't begin to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// As many wait as may.
    Full,
    /// Nobody will be answered any more.
    Closed,
}

impl<T> Waiting<T> {
    /// Nobody yet, and room for so many.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self { table: Mutex::new(Table { leaders: 0, waiters: HashMap::new(), is_closed: false }), max }
    }

    /// Somebody begins to wait; returns the changes of leaders so far.
    ///
    /// # Errors
    /// [`Refused::Full`]; [`Refused::Closed`] (Q3).
    pub fn begin(&self, number: u64, told: T) -> Result<u64, Refused> {
        let mut table = self.table.lock();
        if table.is_closed {
            return Err(Refused::Closed);
        }
        if table.waiters.len() >= self.max {
            return Err(Refused::Full);
        }
        let leaders = table.leaders;
        table.waiters.insert(number, (told, leaders));
        Ok(leaders)
    }

    /// Takes one out, to be told or because it gave up.
    pub fn take(&self, number: u64) -> Option<T> {
        self.table.lock().waiters.remove(&number).map(|(told, _)| told)
    }

    /// Another leads, or nobody.
    pub fn leader_changed(&self) {
        self.table.lock().leaders += 1;
    }

    /// Changes of leaders so far.
    #[must_use]
    pub fn leaders(&self) -> u64 {
        self.table.lock().leaders
    }

    /// Takes out all that began before the last change of leaders (Q2).
    #[must_use]
    pub fn take_older(&self) -> Vec<T> {
        let mut table = self.table.lock();
        let leaders = table.leaders;
        table.waiters.extract_if(|_, (_, began)| *began < leaders).map(|(_, (told, _))| told).collect()
    }

    /// Takes out all, for good (Q3).
    #[must_use]
    pub fn close(&self) -> Vec<T> {
        let mut table = self.table.lock();
        table.is_closed = true;
        table.waiters.drain().map(|(_, (told, _))| told).collect()
    }

    /// How many wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.table.lock().waiters.len()
    }

    /// Whether nobody does.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::{Arc, in_every_order, thread};

    /// Q1: a request gives up while it is answered and while leaders change.
    #[test]
    fn each_is_handed_out_once() {
        in_every_order(|| {
            let waiting = Arc::new(Waiting::new(2));
            waiting.begin(1, "one").expect("room");
            let answers = {
                let waiting = Arc::clone(&waiting);
                thread::spawn(move || usize::from(waiting.take(1).is_some()))
            };
            let changes = {
                let waiting = Arc::clone(&waiting);
                thread::spawn(move || {
                    waiting.leader_changed();
                    waiting.take_older().len()
                })
            };
            let gave_up = usize::from(waiting.take(1).is_some());
            let told = answers.join().expect("no panic") + changes.join().expect("no panic");
            assert_eq!(told + gave_up, 1);
            assert!(waiting.is_empty());
        });
    }

    /// Q2: who begins beside a change of leaders is handed out exactly if it was told that it began before.
    #[test]
    fn the_older_ones_are_handed_out_and_no_other() {
        in_every_order(|| {
            let waiting = Arc::new(Waiting::new(1));
            let begins = {
                let waiting = Arc::clone(&waiting);
                thread::spawn(move || waiting.begin(1, ()).expect("room"))
            };
            waiting.leader_changed();
            let older = waiting.take_older().len();
            let began = begins.join().expect("no panic");
            assert_eq!((older, waiting.len()), if began == 0 { (1, 0) } else { (0, 1) });
            assert_eq!(waiting.begin(2, ()), if began == 0 { Ok(1) } else { Err(Refused::Full) });
        });
    }

    /// Somebody begins while nobody is answered any more; two threads may find that at once.
    fn ends(close: impl Fn(&Waiting<()>) -> Vec<()> + Copy + Send + 'static) {
        let waiting = Arc::new(Waiting::new(1));
        let begins = {
            let waiting = Arc::clone(&waiting);
            thread::spawn(move || waiting.begin(1, ()))
        };
        let other = {
            let waiting = Arc::clone(&waiting);
            thread::spawn(move || close(&waiting).len())
        };
        let told = close(&waiting).len() + other.join().expect("no panic");
        let began = begins.join().expect("no panic");
        assert!(waiting.is_empty(), "somebody waits for ever");
        assert_eq!((told, began.is_ok()), (usize::from(began.is_ok()), told == 1), "told what never began, or twice");
    }

    /// Q3.
    #[test]
    fn nobody_waits_for_who_has_ended() {
        in_every_order(|| ends(Waiting::close));
    }

    /// What was shipped before: all were taken out, and others could begin behind them.
    #[cfg(feature = "loom")]
    #[test]
    #[should_panic(expected = "somebody waits for ever")]
    fn taking_all_out_without_closing_is_found() {
        in_every_order(|| ends(|waiting| waiting.table.lock().waiters.drain().map(|(_, (told, _))| told).collect()));
    }

    #[cfg(feature = "loom")]
    #[test]
    #[should_panic(expected = "somebody waits for ever")]
    fn closing_behind_what_is_taken_out_is_found() {
        in_every_order(|| {
            ends(|waiting| {
                let told = waiting.table.lock().waiters.drain().map(|(_, (told, _))| told).collect();
                waiting.table.lock().is_closed = true;
                told
            });
        });
    }
}
