//! Why a pod has no node, in kube-scheduler's words.
//!
//! Source: scheduler framework `FitError.Error`, `schedule_one.go` `handleSchedulingFailure`.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::filter::{Plugin, Rejection};
use crate::pod::Refusal;

/// Why a pod has no node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// It isn't to be scheduled, whatever nodes there are.
    Refused(Refusal),
    /// There are no nodes.
    NoNodes,
    /// No node is right for it.
    Unfit(Box<Diagnosis>),
}

/// What was found on the search for a node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Diagnosis {
    /// How many nodes there are.
    pub nodes: usize,
    /// Said before any node was looked at.
    pub before: Option<&'static str>,
    /// Why nodes that were looked at are out.
    pub rejections: BTreeMap<String, Rejection>,
    /// Why nodes that weren't looked at are out.
    pub unvisited: Option<Cow<'static, str>>,
    /// What came of trying to make room.
    pub preemption: String,
}

/// `2 Insufficient cpu, 1 node(s) were unschedulable`: how often each reason was given, sorted as text.
pub(crate) fn histogram<'a>(reasons: impl IntoIterator<Item = (&'a str, usize)>) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for (reason, times) in reasons {
        *counts.entry(reason).or_default() += times;
    }
    let mut lines: Vec<String> = counts.iter().map(|(reason, times)| format!("{times} {reason}")).collect();
    lines.sort();
    lines.join(", ")
}

impl Diagnosis {
    /// Who rejected nodes.
    #[must_use]
    pub fn plugins(&self) -> BTreeSet<Plugin> {
        let narrowed = (self.before.is_some() || self.unvisited.is_some()).then_some(Plugin::NodeAffinity);
        self.rejections.values().map(|rejection| rejection.plugin).chain(narrowed).collect()
    }
}

impl fmt::Display for Diagnosis {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "0/{} nodes are available:", self.nodes)?;
        match self.before {
            Some(reason) => write!(out, " {reason}.")?,
            None => {
                let explicit = self.rejections.values().flat_map(|rejection| &rejection.reasons);
                let unvisited = self.unvisited.iter().map(|reason| (&**reason, self.nodes - self.rejections.len()));
                let all = histogram(explicit.map(|reason| (&**reason, 1)).chain(unvisited.filter(|(_, n)| *n > 0)));
                if !all.is_empty() {
                    write!(out, " {all}.")?;
                }
            }
        }
        if self.preemption.is_empty() { Ok(()) } else { write!(out, " {}", self.preemption) }
    }
}

impl Failure {
    /// The reason of the pod's `PodScheduled` condition.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Refused(Refusal::Gated(_)) => "SchedulingGated",
            Self::Refused(Refusal::Unreadable(_)) => "SchedulerError",
            Self::Refused(Refusal::Unsupported(_)) | Self::NoNodes | Self::Unfit(_) => "Unschedulable",
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(Refusal::Gated(_)) => {
                out.write_str("Scheduling is blocked due to non-empty scheduling gates")
            }
            Self::Refused(Refusal::Unsupported(what)) => out.write_str(what),
            Self::Refused(Refusal::Unreadable(error)) => write!(out, "the pod can't be read: {error}"),
            Self::NoNodes => out.write_str("no nodes available to schedule pods"),
            Self::Unfit(diagnosis) => diagnosis.fmt(out),
        }
    }
}
