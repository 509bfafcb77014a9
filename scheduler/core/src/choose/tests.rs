//! The rule against the heap itself.

use super::winner;
use proptest::prelude::*;

/// Go's `heap.Init` over (total, index), then the root. `Less` is "has the higher total".
fn root_after_init(totals: &[i64]) -> Option<usize> {
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
            let child = if right < n && heap[right].0 > heap[left].0 { right } else { left };
            if heap[child].0 <= heap[at].0 {
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

proptest! {
    /// Few distinct totals, so that ties are common.
    #[test]
    fn the_rule_is_what_the_heap_does(totals in proptest::collection::vec(0_i64..4, 0..200)) {
        prop_assert_eq!(winner(&totals), root_after_init(&totals));
    }
}
