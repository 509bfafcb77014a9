//! Choosing among the best: what Go's heap would put at its root.
//!
//! Source: scheduler `schedule_one.go` (`newSortedNodeScores`), Go `container/heap`.

#[cfg(test)]
mod tests;

/// The index of the winner: of those with the highest total, the one that comes first when the
/// implicit binary heap over the list is walked root, left subtree, right subtree.
///
/// `heap.Init` sifts down from the last inner node to the root and moves an entry up only if it is
/// strictly better than its parent, the left one if both children are equal; so at each node the
/// walk meets the winner of the subtree: the node itself, else the left side's, else the right's.
#[must_use]
pub fn winner(totals: &[i64]) -> Option<usize> {
    let best = *totals.iter().max()?;
    let mut pending = vec![0];
    while let Some(at) = pending.pop() {
        match totals.get(at) {
            None => {}
            Some(total) if *total == best => return Some(at),
            Some(_) => pending.extend([2 * at + 2, 2 * at + 1]),
        }
    }
    None
}
