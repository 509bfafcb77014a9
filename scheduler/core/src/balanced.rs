//! NodeResourcesBalancedAllocation: prefers nodes whose CPU and memory the pod makes more evenly used.
//!
//! Source: scheduler plugin `noderesources`: `balanced_allocation.go`.

use crate::cluster::NodeInfo;
use crate::resources::Requests;

/// The score of a node: 50 and up if the balance gets better, 0..=100 in all. `None` for a pod that
/// asks for neither CPU nor memory: it changes no balance.
#[must_use]
pub fn score(requests: &Requests, node: &NodeInfo) -> Option<i64> {
    let wants = &requests.exact;
    if wants.cpu_milli == 0 && wants.memory == 0 {
        return None;
    }
    let (has, used) = (&node.node().allocatable.resources, node.requested());
    let without = balance([(used.cpu_milli, has.cpu_milli), (used.memory, has.memory)]);
    let with = balance([
        (used.cpu_milli.saturating_add(wants.cpu_milli), has.cpu_milli),
        (used.memory.saturating_add(wants.memory), has.memory),
    ]);
    Some(50 + (50 + with - without) / 2)
}

/// 100 less the standard deviation of the used shares, in hundredths.
fn balance(load: [(i64, i64); 2]) -> i64 {
    let share = |(used, has): (i64, i64)| (used as f64 / has as f64).min(1.0);
    let shares: Vec<f64> = load.into_iter().filter(|(_, has)| *has != 0).map(share).collect();
    let deviation = match shares[..] {
        [cpu, memory] => ((cpu - memory) / 2.0).abs(),
        _ => 0.0,
    };
    ((1.0 - deviation) * 100.0) as i64
}

#[cfg(test)]
mod tests {
    use super::balance;

    #[test]
    fn the_nearer_the_shares_the_better() {
        assert_eq!(balance([(1, 2), (2, 4)]), 100);
        assert_eq!(balance([(0, 2), (4, 4)]), 50);
        assert_eq!(balance([(9, 2), (0, 4)]), 50);
        assert_eq!(balance([(1, 0), (1, 4)]), 100);
        assert_eq!(balance([(1, 10), (2, 10)]), 95);
    }
}
