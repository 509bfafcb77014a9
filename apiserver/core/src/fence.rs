//! Fences: whether a node was given a pod that whoever binds another one didn't know of.
//!
//! Problem. Two schedulers decide at the same time, or one whose binding went unanswered decides again: each node has room
//!          for what each of them knows, and not for both.
//! Idea.    Beside its pods each node has a key in the store that is written in every transaction that gives it a pod:
//!          its revision is that pod's. A binding may tell in `target.resourceVersion` up to which revision its author
//!          knew pods; the transaction that binds asks whether the node was given none since.
//!
//! A binding that doesn't tell (kube-scheduler's, kubectl's) is never refused by it, but those that do will notice. What
//! frees room writes no fence. kube-apiserver has no such key and looks at no such field: there it asks nothing.
//!
//! Invariants
//!   F1  A fence's revision is that of the last write that gave its node a pod, or a pod on it more.
//!   F2  Fences are never deleted, so they never go back: a binding that was refused once is refused for ever.
//! Checked by: `check scheduler` of models.

use api::resources::Resource;
use api::status::{Cause, Status};
use serde_json::Value;

use crate::meta;

/// The reason that a refused binding gives in `details.causes`; its message is the fence's revision.
pub const REASON: &str = "NodeLoadChanged";
const FIELD: &str = "target.resourceVersion";

/// What a write does to a node's fence: it writes it, and may ask first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fence {
    /// Whose it is.
    pub node: String,
    /// The revision up to which the writer knew the node's pods. `None`: it doesn't ask.
    pub known: Option<i64>,
}

/// Up to which revision a binding's author knew pods.
///
/// # Errors
/// 400 if that is no revision.
pub fn known(binding: &Value) -> Result<Option<i64>, Status> {
    let text = meta::text(binding, "/target/resourceVersion");
    match text.parse::<i64>() {
        _ if text.is_empty() => Ok(None),
        // One more is asked for.
        Ok(known) if (0..i64::MAX).contains(&known) => Ok(Some(known)),
        _ => Err(Status::bad_request(format!("{FIELD}: Invalid value: {text:?}: must be a resource version"))),
    }
}

/// The fence that a write of an object is to write: that of a node which it gives a pod, or a pod on it more.
/// `known`: what the writer knew, if it asks.
#[must_use]
pub fn of_write(resource: &Resource, old: Option<&Value>, new: &Value, known: Option<i64>) -> Option<Fence> {
    if (resource.group, resource.name) != ("", "pods") {
        return None;
    }
    let node = meta::text(new, "/spec/nodeName");
    // The spec has the node, and all that a pod asks for; that some of its changes ask for no more doesn't matter.
    let is_same = old.is_some_and(|old| old.get("spec") == new.get("spec"));
    (!node.is_empty() && !is_same).then(|| Fence { node: node.to_owned(), known })
}

impl Fence {
    /// Its key in the store.
    #[must_use]
    pub fn key(&self) -> String {
        format!("/registry/fences/nodes/{}", self.node)
    }

    /// Whether it lets the write through while its key is at a revision; 0: there is none yet.
    #[must_use]
    pub fn admits(&self, revision: i64) -> bool {
        self.known.is_none_or(|known| revision <= known)
    }

    /// 409: it doesn't.
    #[must_use]
    pub fn refusal(&self, pod: &str, revision: i64) -> Status {
        let Self { node, known } = self;
        let why = format!(
            "node {node:?} was given a pod at resource version {revision}; this binding knew those up to {}",
            known.unwrap_or(0)
        );
        Status::conflict("", "pods/binding", pod, &why).with_cause(&Cause::new(REASON, FIELD, revision.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pods() -> &'static Resource {
        api::resources::find("", "v1", "pods").expect("pods are in the schema")
    }

    #[test]
    fn only_what_gives_a_node_more_writes_its_fence() {
        let pod = |node: &str, cpu: &str, phase: &str| {
            let containers = json!([{"name": "c", "resources": {"requests": {"cpu": cpu}}}]);
            json!({"metadata": {"name": "p"}, "spec": {"nodeName": node, "containers": containers}, "status": {"phase": phase}})
        };
        let node = |old: Option<Value>, new: Value| of_write(pods(), old.as_ref(), &new, None).map(|fence| fence.node);
        assert_eq!(node(None, pod("", "1", "Pending")), None);
        assert_eq!(node(None, pod("a", "1", "Pending")).as_deref(), Some("a"));
        assert_eq!(node(Some(pod("", "1", "Pending")), pod("a", "1", "Pending")).as_deref(), Some("a"));
        assert_eq!(node(Some(pod("a", "1", "Pending")), pod("a", "2", "Pending")).as_deref(), Some("a"));
        assert_eq!(node(Some(pod("a", "1", "Pending")), pod("a", "1", "Running")), None);
        let maps = api::resources::find("", "v1", "configmaps").expect("maps are in the schema");
        assert_eq!(of_write(maps, None, &pod("a", "1", "Pending"), None), None);
    }

    /// F2: who told what he knew passes while nothing came after it; who didn't, always.
    #[test]
    fn who_knows_all_passes() {
        let fence = |known| Fence { node: "a".to_owned(), known };
        assert!(fence(Some(0)).admits(0) && fence(Some(7)).admits(7) && fence(None).admits(8));
        assert!(!fence(Some(7)).admits(8));
        let refusal = fence(Some(7)).refusal("p", 8).to_json();
        assert_eq!((&refusal["code"], &refusal["reason"]), (&json!(409), &json!("Conflict")));
        assert_eq!(refusal["details"]["causes"], json!([{"reason": REASON, "message": "8", "field": FIELD}]));
    }

    #[test]
    fn a_binding_tells_what_its_author_knew_or_nothing() {
        let told = |version: Value| known(&json!({"target": {"name": "a", "resourceVersion": version}}));
        assert_eq!(told(json!(null)).ok(), Some(None));
        assert_eq!(told(json!("17")).ok(), Some(Some(17)));
        assert_eq!(told(json!("x")).map_err(|status| status.code()), Err(400));
        assert_eq!(told(json!("-1")).map_err(|status| status.code()), Err(400));
    }
}
