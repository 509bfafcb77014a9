//! NodeAffinity: node selectors, required and preferred terms.
//!
//! Source: component-helpers `scheduling/corev1/nodeaffinity`, scheduler plugin `nodeaffinity`.

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1 as wire;

use crate::labels::{Labels, Requirement, Selector, SelectorError};

/// The only field a term may look at.
const NAME: &str = "metadata.name";

/// A required term's or preference's conditions, all of which must hold.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Term {
    labels: Vec<Requirement>,
    fields: Vec<FieldRequirement>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct FieldRequirement {
    key: String,
    value: String,
    equal: bool,
}

/// Why a term can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TermError {
    /// A label's requirement.
    #[error(transparent)]
    Label(#[from] SelectorError),
    /// A field's requirement: `In` and `NotIn` with one value are all there is.
    #[error("matchFields takes In or NotIn and one value")]
    Field,
}

impl FieldRequirement {
    fn read(wire: &wire::NodeSelectorRequirement) -> Result<Self, TermError> {
        let equal = match wire.operator.as_str() {
            "In" => true,
            "NotIn" => false,
            _ => return Err(TermError::Field),
        };
        match wire.values.as_deref().unwrap_or_default() {
            [value] => Ok(Self { key: wire.key.clone(), value: value.clone(), equal }),
            _ => Err(TermError::Field),
        }
    }

    fn matches(&self, name: &str) -> bool {
        // A field that nodes don't have reads as empty.
        let have = if self.key == NAME { name } else { "" };
        (have == self.value) == self.equal
    }
}

impl Term {
    /// `None` for an empty term, which matches nothing.
    fn read(wire: &wire::NodeSelectorTerm) -> Option<Result<Self, TermError>> {
        let labels = wire.match_expressions.as_deref().unwrap_or_default();
        let fields = wire.match_fields.as_deref().unwrap_or_default();
        if labels.is_empty() && fields.is_empty() {
            return None;
        }
        let labels: Result<Vec<_>, _> = labels.iter().map(Requirement::on_node).collect();
        let fields: Result<Vec<_>, _> = fields.iter().map(FieldRequirement::read).collect();
        Some(labels.map_err(TermError::from).and_then(|labels| Ok(Self { labels, fields: fields? })))
    }

    fn matches(&self, name: &str, labels: &Labels) -> bool {
        self.labels.iter().all(|requirement| requirement.matches(labels))
            && self.fields.iter().all(|requirement| requirement.matches(name))
    }
}

/// Where a pod may go.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Required {
    selector: Option<Selector>,
    /// One of these must match, if there is a list at all; those that can't be read never do.
    terms: Option<Vec<Term>>,
    only: Option<BTreeSet<String>>,
}

impl Required {
    /// Reads a pod's node selector and required node affinity.
    #[must_use]
    pub fn read(spec: &wire::PodSpec) -> Self {
        let selector = spec.node_selector.as_ref().filter(|labels| !labels.is_empty()).map(Selector::from_labels);
        let affinity = spec.affinity.as_ref().and_then(|a| a.node_affinity.as_ref());
        let required = affinity.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
        let terms =
            required.map(|r| r.node_selector_terms.iter().filter_map(Term::read).filter_map(Result::ok).collect());
        Self { selector, terms, only: required.and_then(|r| names(&r.node_selector_terms)) }
    }

    /// NodeAffinity's filter.
    #[must_use]
    pub fn matches(&self, name: &str, labels: &Labels) -> bool {
        self.selector.as_ref().is_none_or(|selector| selector.matches(labels))
            && self.terms.as_ref().is_none_or(|terms| terms.iter().any(|term| term.matches(name, labels)))
    }

    /// NodeAffinity's PreFilter: the nodes that every term names, if every term names some. Only
    /// these are visited; an empty set means that the terms contradict themselves.
    #[must_use]
    pub fn only(&self) -> Option<&BTreeSet<String>> {
        self.only.as_ref()
    }
}

fn names(terms: &[wire::NodeSelectorTerm]) -> Option<BTreeSet<String>> {
    let mut union: Option<BTreeSet<String>> = None;
    for term in terms {
        let mut named: Option<BTreeSet<String>> = None;
        let by_name = |field: &&wire::NodeSelectorRequirement| field.key == NAME && field.operator == "In";
        for field in term.match_fields.iter().flatten().filter(by_name) {
            let values: BTreeSet<String> = field.values.iter().flatten().cloned().collect();
            named =
                Some(named.map_or_else(|| values.clone(), |before| before.intersection(&values).cloned().collect()));
        }
        union.get_or_insert_default().extend(named?);
    }
    union
}

/// Where a pod would rather go: conditions and their weights.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Preferred(Vec<(Term, i64)>);

impl Preferred {
    /// Reads a pod's preferred node affinity. Preferences without weight or conditions don't count.
    ///
    /// # Errors
    /// [`TermError`] if any other preference can't be read.
    pub fn read(spec: &wire::PodSpec) -> Result<Self, TermError> {
        let affinity = spec.affinity.as_ref().and_then(|a| a.node_affinity.as_ref());
        let preferred = affinity.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_deref());
        let mut all = Vec::new();
        for preference in preferred.unwrap_or_default().iter().filter(|p| p.weight != 0) {
            if let Some(term) = Term::read(&preference.preference) {
                all.push((term?, i64::from(preference.weight)));
            }
        }
        Ok(Self(all))
    }

    /// NodeAffinity's raw score: the weights of what matches.
    #[must_use]
    pub fn score(&self, name: &str, labels: &Labels) -> i64 {
        self.0.iter().filter(|(term, _)| term.matches(name, labels)).map(|(_, weight)| weight).sum()
    }
}
