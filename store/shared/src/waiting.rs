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
}

/// As many wait as may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

impl<T> Waiting<T> {
    /// Nobody yet, and room for so many.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self { table: Mutex::new(Table { leaders: 0, waiters: HashMap::new() }), max }
    }

    /// Somebody begins to wait; returns the changes of leaders so far.
    ///
    /// # Errors
    /// [`Full`].
    pub fn begin(&self, number: u64, told: T) -> Result<u64, Full> {
        let mut table = self.table.lock();
        if table.waiters.len() >= self.max {
            return Err(Full);
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

    /// Takes out all.
    #[must_use]
    pub fn take_all(&self) -> Vec<T> {
        self.table.lock().waiters.drain().map(|(_, (told, _))| told).collect()
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
            assert_eq!(waiting.begin(2, ()), if began == 0 { Ok(1) } else { Err(Full) });
        });
    }
}
