//! NodeResourcesFit: whether what a pod asks for is left, and how much would be.
//!
//! Source: scheduler plugin `noderesources`: `fit.go`, `least_allocated.go`.

use std::borrow::Cow;

use crate::cluster::NodeInfo;
use crate::resources::Requests;

/// What a node lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lack {
    /// One for each resource.
    pub reasons: Vec<Cow<'static, str>>,
    /// Whether the node could never have it, so that evicting pods doesn't help.
    pub hopeless: bool,
}

/// NodeResourcesFit's filter.
///
/// # Errors
/// [`Lack`] says what is missing.
pub fn fits(requests: &Requests, node: &NodeInfo) -> Result<(), Lack> {
    let offered = &node.node().allocatable;
    let (has, used, wants) = (&offered.resources, node.requested(), &requests.exact);
    let mut lack = Lack { reasons: Vec::new(), hopeless: false };
    if i64::try_from(node.pod_count()).unwrap_or(i64::MAX).saturating_add(1) > offered.pods {
        lack.reasons.push("Too many pods".into());
    }
    let known = [
        (wants.cpu_milli, has.cpu_milli, used.cpu_milli, "Insufficient cpu"),
        (wants.memory, has.memory, used.memory, "Insufficient memory"),
        (wants.ephemeral_storage, has.ephemeral_storage, used.ephemeral_storage, "Insufficient ephemeral-storage"),
    ];
    let known = known.into_iter().map(|(wants, has, used, reason)| (wants, has, used, Cow::Borrowed(reason)));
    let scalars = wants
        .scalars
        .iter()
        .map(|(name, wants)| (*wants, has.scalar(name), used.scalar(name), Cow::Owned(format!("Insufficient {name}"))));
    for (wants, has, used, reason) in known.chain(scalars) {
        if wants > 0 && wants > has.saturating_sub(used) {
            lack.reasons.push(reason);
            lack.hopeless |= wants > has;
        }
    }
    if lack.reasons.is_empty() { Ok(()) } else { Err(lack) }
}

/// NodeResourcesFit's score, LeastAllocated: the mean share of CPU and memory left, 0..=100.
#[must_use]
pub fn least_allocated(requests: &Requests, node: &NodeInfo) -> i64 {
    let (has, used, adds) = (&node.node().allocatable.resources, node.non_zero(), requests.scored);
    let left = |has: i64, used: i64| if used > has { 0 } else { i128::from(has - used) * 100 / i128::from(has) };
    let shares: Vec<i128> = [
        (has.cpu_milli, used.cpu_milli.saturating_add(adds.cpu_milli)),
        (has.memory, used.memory.saturating_add(adds.memory)),
    ]
    .into_iter()
    .filter(|(has, _)| *has != 0)
    .map(|(has, used)| left(has, used))
    .collect();
    let mean = shares.iter().sum::<i128>().checked_div(shares.len() as i128).unwrap_or(0);
    // Each share is at most 100.
    i64::try_from(mean).unwrap_or(100)
}
