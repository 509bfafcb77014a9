//! How many are under way, and no more.

use crate::sync::{AtomicUsize, Ordering};

/// Lets in as many as there is room for.
///
/// Invariant
///   N1  At most `max` are in at once, and whoever asks while there is room gets in.
#[derive(Debug)]
pub struct Bound {
    inside: AtomicUsize,
    max: usize,
}

impl Bound {
    /// Room for so many.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self { inside: AtomicUsize::new(0), max }
    }

    /// Lets one in, if there is room; then [`Bound::leave`] is to follow.
    #[must_use]
    pub fn enter(&self) -> bool {
        // Nothing else is told by this number, so it needs no order with other memory.
        let more = |inside| (inside < self.max).then_some(inside + 1);
        self.inside.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    /// One that was let in leaves.
    pub fn leave(&self) {
        self.inside.fetch_sub(1, Ordering::Relaxed);
    }

    /// How many are in.
    #[must_use]
    pub fn inside(&self) -> usize {
        self.inside.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::{Arc, in_every_order, thread};

    /// N1, by `enter`.
    fn holds(enter: fn(&Bound) -> bool) {
        let bound = Arc::new(Bound::new(1));
        let others: Vec<_> = (0..2)
            .map(|_| {
                let bound = Arc::clone(&bound);
                thread::spawn(move || {
                    let entered = enter(&bound);
                    if entered {
                        assert!(bound.inside() <= 1, "more than there is room for");
                        bound.leave();
                    }
                    entered
                })
            })
            .collect();
        let entered = others.into_iter().map(|one| one.join().expect("no panic")).filter(|e| *e).count();
        assert!(entered >= 1, "somebody finds it empty");
        assert_eq!(bound.inside(), 0);
        assert!(enter(&bound) && !enter(&bound));
    }

    #[test]
    fn as_many_enter_as_there_is_room_for() {
        in_every_order(|| holds(Bound::enter));
    }

    /// What was shipped before: whoever is refused was counted for a moment.
    #[cfg(feature = "loom")]
    #[test]
    #[should_panic(expected = "more than there is room for")]
    fn who_is_refused_and_counted_for_a_moment_is_found() {
        in_every_order(|| {
            holds(|bound| {
                if bound.inside.fetch_add(1, Ordering::Relaxed) >= bound.max {
                    bound.inside.fetch_sub(1, Ordering::Relaxed);
                    return false;
                }
                true
            });
        });
    }

    #[cfg(feature = "loom")]
    #[test]
    #[should_panic(expected = "left")]
    fn looking_first_and_counting_later_is_found() {
        in_every_order(|| {
            holds(|bound| {
                let inside = bound.inside.load(Ordering::Relaxed);
                if inside >= bound.max {
                    return false;
                }
                bound.inside.store(inside + 1, Ordering::Relaxed);
                true
            });
        });
    }
}
