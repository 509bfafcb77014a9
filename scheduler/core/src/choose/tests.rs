//! The rule against the heap itself.

use super::winner;
use proptest::prelude::*;
use seeded_bugs::assert_noticed;

/// What a heap may do with equals.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Bug {
    TakesTheRight,
    SwapsEquals,
}

/// Go's `heap.Init` over (total, index), then the root. `Less` is "has the higher total".
fn root_after_init(totals: &[i64], bug: Option<Bug>) -> Option<usize> {
    let mut heap: Vec<(i64, usize)> = totals.iter().copied().enumerate().map(|(i, t)| (t, i)).collect();
    let n = heap.len();
    for start in (0..n / 2).rev() {
        let mut at = start;
        loop {
            let left = 2 * at + 1;
            if left >= n {
                break;
            }
            let right = left + 1;
            // What is as high as another counts as higher with a bug.
            let ahead = |with: Bug| i64::from(bug == Some(with));
            let is_right = right < n && heap[right].0 + ahead(Bug::TakesTheRight) > heap[left].0;
            let child = if is_right { right } else { left };
            if heap[child].0 + ahead(Bug::SwapsEquals) <= heap[at].0 {
                break;
            }
            heap.swap(at, child);
            at = child;
        }
    }
    heap.first().map(|(_, index)| *index)
}

#[test]
fn the_first_in_preorder_wins() {
    assert_eq!(winner(&[]), None);
    assert_eq!(winner(&[7]), Some(0));
    assert_eq!(winner(&[5, 5, 5]), Some(0));
    // Index 3 is below index 1 and so before index 2.
    assert_eq!(winner(&[1, 2, 9, 9]), Some(3));
}

/// Few distinct totals, so that ties are common.
fn totals() -> impl Strategy<Value = Vec<i64>> {
    proptest::collection::vec(0_i64..4, 0..200)
}

fn is_the_root(totals: Vec<i64>, bug: Option<Bug>) -> Result<(), TestCaseError> {
    prop_assert_eq!(winner(&totals), root_after_init(&totals, bug));
    Ok(())
}

proptest! {
    /// Whatever the totals, and however many are the same.
    #[test]
    fn the_rule_is_what_the_heap_does(totals in totals()) {
        is_the_root(totals, None)?;
    }
}

/// A heap that treats equals otherwise is found.
#[test]
fn a_wrong_heap_is_noticed() {
    assert_noticed(&[Bug::TakesTheRight, Bug::SwapsEquals], &totals(), is_the_root);
}
