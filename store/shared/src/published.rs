//! What is published, and who is told.

use std::ops::Deref;

use crate::sync::RwLock;

/// Something that one thread changes and many read, some of them because they were told that it changed.
///
/// Invariant
///   V1  Whoever was told of a change finds it, and all before it.
#[derive(Debug, Default)]
pub struct Published<T>(RwLock<T>);

impl<T> Published<T> {
    /// What is there at the beginning; nobody is told.
    pub fn new(first: T) -> Self {
        Self(RwLock::new(first))
    }

    /// What is there now. It stays as it is meanwhile.
    pub fn read(&self) -> impl Deref<Target = T> + '_ {
        self.0.read()
    }

    /// Changes what is there, then tells of it (V1).
    pub fn publish(&self, change: impl FnOnce(&mut T), tell: impl FnOnce()) {
        change(&mut self.0.write());
        // Whoever is told may read at once.
        tell();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::{Arc, Mutex, in_every_order, thread};

    /// Recent changes: those behind a revision, up to another.
    #[derive(Clone, Copy)]
    struct Recent {
        behind: usize,
        to: usize,
    }

    /// What is published, and up to where watchers were told that it goes.
    type Shared = (Published<Recent>, Mutex<usize>);

    /// One publishes two changes and begins anew behind a snapshot, two watch.
    fn holds(publish: fn(&Shared, fn(&mut Recent), usize)) {
        let shared: Arc<Shared> = Arc::new((Published::new(Recent { behind: 0, to: 0 }), Mutex::new(0)));
        let watchers: Vec<_> = (0..2)
            .map(|_| {
                let shared = Arc::clone(&shared);
                thread::spawn(move || {
                    let mut had = 0;
                    for _ in 0..2 {
                        let told = *shared.1.lock();
                        assert!(told >= had, "less than before");
                        let recent = *shared.0.read();
                        // What lies before it is read from disk.
                        assert!(recent.to >= told && recent.behind <= recent.to, "told of what isn't there");
                        had = told;
                    }
                })
            })
            .collect();
        publish(&shared, |recent| recent.to += 1, 1);
        publish(&shared, |recent| *recent = Recent { behind: 3, to: 3 }, 3);
        watchers.into_iter().for_each(|watcher| watcher.join().expect("no panic"));
    }

    #[test]
    fn whoever_is_told_finds_it() {
        in_every_order(|| {
            holds(|(recent, told), change, to| recent.publish(change, || *told.lock() = to));
        });
    }

    #[cfg(feature = "loom")]
    #[test]
    #[should_panic(expected = "told of what isn't there")]
    fn telling_first_is_found() {
        in_every_order(|| {
            holds(|(recent, told), change, to| {
                *told.lock() = to;
                recent.publish(change, || ());
            });
        });
    }
}
