//! What pods belong to: services and controllers, whose selectors spread pods that don't say how.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use crate::labels::Labels;
use crate::spread::{OwnerSelector, SpreadDefaults};

/// Kinds whose selectors count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum GroupKind {
    /// A Service: all that select a pod count.
    Service,
    /// A ReplicationController: counts for pods that it controls, as do the others.
    ReplicationController,
    /// A ReplicaSet.
    ReplicaSet,
    /// A StatefulSet.
    StatefulSet,
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Group {
    /// What it is.
    pub kind: GroupKind,
    /// Where it is, and what it selects in.
    pub namespace: String,
    /// What it is called there.
    pub name: String,
}

/// What it selects.
#[derive(Debug, Clone)]
pub enum GroupSelector {
    /// Pods with these labels.
    Labels(Labels),
    /// Pods that this says.
    Selector(LabelSelector),
}

/// All that are known.
#[derive(Debug, Clone, Default)]
pub struct Groups {
    /// Selectors of services, by namespace and name.
    services: BTreeMap<String, BTreeMap<String, Labels>>,
    controllers: BTreeMap<Group, GroupSelector>,
}

impl Groups {
    /// A group is as it is now; without a selector it selects nothing.
    pub fn set(&mut self, group: Group, selector: Option<GroupSelector>) {
        match (group.kind, selector) {
            (GroupKind::Service, Some(GroupSelector::Labels(labels))) => {
                self.services.entry(group.namespace).or_default().insert(group.name, labels);
            }
            (GroupKind::Service, _) => {
                if let Some(services) = self.services.get_mut(&group.namespace) {
                    services.remove(&group.name);
                    if services.is_empty() {
                        self.services.remove(&group.namespace);
                    }
                }
            }
            (_, Some(selector)) => {
                self.controllers.insert(group, selector);
            }
            (_, None) => {
                self.controllers.remove(&group);
            }
        }
    }

    /// How a pod that doesn't say is spread.
    ///
    /// Source: scheduler `plugins/helper/spread.go` DefaultSelector.
    #[must_use]
    pub fn defaults(&self, pod: &Pod) -> SpreadDefaults {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let labels = pod.metadata.labels.as_ref();
        let has = |(key, value): (&String, &String)| labels.and_then(|l| l.get(key)) == Some(value);
        let services = self.services.get(namespace).into_iter().flat_map(BTreeMap::values);
        let owner = controller(pod).and_then(|group| self.controllers.get(&group)).map(|selector| match selector {
            GroupSelector::Labels(labels) => OwnerSelector::Labels(labels),
            GroupSelector::Selector(selector) => OwnerSelector::Selector(selector),
        });
        SpreadDefaults::of(services.filter(|selector| selector.iter().all(has)), owner)
    }
}

fn controller(pod: &Pod) -> Option<Group> {
    let owner = pod.metadata.owner_references.iter().flatten().find(|owner| owner.controller == Some(true))?;
    let kind = match (owner.api_version.as_str(), owner.kind.as_str()) {
        ("v1", "ReplicationController") => GroupKind::ReplicationController,
        ("apps/v1", "ReplicaSet") => GroupKind::ReplicaSet,
        ("apps/v1", "StatefulSet") => GroupKind::StatefulSet,
        _ => return None,
    };
    Some(Group { kind, namespace: pod.metadata.namespace.clone().unwrap_or_default(), name: owner.name.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn services_and_the_controller_select() {
        let mut groups = Groups::default();
        let service =
            |name: &str| Group { kind: GroupKind::Service, namespace: "ns".to_owned(), name: name.to_owned() };
        let labels = |key: &str| Labels::from([(key.to_owned(), "1".to_owned())]);
        groups.set(service("a"), Some(GroupSelector::Labels(labels("a"))));
        groups.set(service("b"), Some(GroupSelector::Labels(labels("b"))));
        let set = Group { kind: GroupKind::ReplicaSet, namespace: "ns".to_owned(), name: "set".to_owned() };
        let selector = LabelSelector { match_labels: Some(labels("c")), ..LabelSelector::default() };
        groups.set(set, Some(GroupSelector::Selector(selector.clone())));
        let pod: Pod = serde_json::from_value(json!({"metadata": {"namespace": "ns", "labels": {"a": "1", "c": "1"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "set", "uid": "u", "controller": true}]}}))
        .unwrap();
        let expected = SpreadDefaults::of([&labels("a")], Some(OwnerSelector::Selector(&selector)));
        assert_eq!(groups.defaults(&pod), expected);
        groups.set(service("a"), None);
        assert_eq!(groups.defaults(&pod), SpreadDefaults::of([], Some(OwnerSelector::Selector(&selector))));
        assert_eq!(groups.defaults(&Pod::default()), SpreadDefaults::default());
    }
}
