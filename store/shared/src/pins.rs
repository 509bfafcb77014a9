//! What readers still need, so that it isn't collected.

use std::collections::BTreeMap;

use crate::sync::Mutex;

/// The revisions of open reads, each with how many there are.
///
/// Whoever opens a read holds the state that it reads, so that nothing is collected between choosing the revision and
/// pinning it; whoever collects holds the state for itself.
///
/// Invariant
///   R1  While a read is open, nothing that its revision sees is collected.
#[derive(Debug, Default)]
pub struct Pins(Mutex<BTreeMap<i64, usize>>);

/// An open read.
#[derive(Debug)]
pub struct Pin<'a> {
    pins: &'a Pins,
    revision: i64,
}

impl Pins {
    /// Opens a read; the state is held meanwhile (R1).
    pub fn pin(&self, revision: i64) -> Pin<'_> {
        *self.0.lock().entry(revision).or_default() += 1;
        Pin { pins: self, revision }
    }

    /// Whether a read is open at a revision before this one.
    #[must_use]
    pub fn any_before(&self, revision: i64) -> bool {
        self.0.lock().range(..revision).next().is_some()
    }
}

impl Drop for Pin<'_> {
    fn drop(&mut self) {
        let mut open = self.pins.0.lock();
        if let Some(number) = open.get_mut(&self.revision) {
            *number -= 1;
            if *number == 0 {
                open.remove(&self.revision);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::{Arc, RwLock, in_every_order, thread};

    /// A key with versions of revisions 1 and 2, which is compacted to 2 and collected.
    struct State {
        compacted: i64,
        versions: Vec<i64>,
    }

    fn collect(state: &RwLock<State>, pins: &Pins) {
        state.write().compacted = 2;
        // Some other time.
        let mut state = state.write();
        if !pins.any_before(state.compacted) {
            state.versions.retain(|version| *version == 2);
        }
    }

    /// R1: whoever reads at a revision finds it, unless it was compacted when he began.
    fn holds(pin_holding: bool) {
        let shared = Arc::new((RwLock::new(State { compacted: 0, versions: vec![1, 2] }), Pins::default()));
        let readers: Vec<_> = (0..2)
            .map(|_| {
                let shared = Arc::clone(&shared);
                thread::spawn(move || {
                    let (state, pins) = &*shared;
                    let held = state.read();
                    if held.compacted > 1 {
                        return;
                    }
                    let held = pin_holding.then_some(held);
                    let _pin = pins.pin(1);
                    drop(held);
                    assert!(state.read().versions.contains(&1), "collected under a reader");
                })
            })
            .collect();
        collect(&shared.0, &shared.1);
        readers.into_iter().for_each(|reader| reader.join().expect("no panic"));
        assert!(!shared.1.any_before(i64::MAX), "no read is open any more");
    }

    #[test]
    fn what_a_reader_needs_is_not_collected() {
        in_every_order(|| holds(true));
    }

    #[cfg(feature = "loom")]
    #[test]
    #[should_panic(expected = "collected under a reader")]
    fn pinning_after_the_state_was_let_go_is_found() {
        in_every_order(|| holds(false));
    }
}
