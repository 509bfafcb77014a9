//! Namespaces: what each one gets, and how one is emptied.
//!
//! Invariants
//!   N1  A namespace is let go only when nothing is left in it.
//!   N2  Nothing is created in a namespace that is being emptied.
//! Source: `pkg/controller/namespace/deletion`, `serviceaccount`, `certificates/rootcacertpublisher`.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, Namespace, ServiceAccount};
use serde_json::json;

use crate::owner::is_deleting;
use crate::write::{Target, Write, json};

/// The ConfigMap by which pods know the cluster's CA.
pub const ROOT_CA: &str = "kube-root-ca.crt";
/// The key in it.
const ROOT_CA_KEY: &str = "ca.crt";
/// The finalizer that keeps a namespace until it is empty.
const FINALIZER: &str = "kubernetes";

/// What the controller sees of a namespace.
#[derive(Debug, Clone)]
pub struct Observed {
    /// The namespace itself.
    pub namespace: Arc<Namespace>,
    /// Its `default` ServiceAccount.
    pub service_account: Option<Arc<ServiceAccount>>,
    /// Its root CA ConfigMap.
    pub root_ca: Option<Arc<ConfigMap>>,
    /// The cluster's CA certificate, PEM.
    pub root_ca_pem: String,
}

/// One kind of object left in a namespace that is being emptied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remaining {
    /// `apiVersion` of the kind.
    pub api_version: String,
    /// The kind.
    pub kind: String,
    /// How many objects.
    pub count: usize,
    /// How many of them wait for finalizers of their own, or for a node.
    pub deleting: usize,
}

/// Gives a living namespace its ServiceAccount and its CA.
pub fn reconcile(observed: &Observed) -> Vec<Write> {
    let metadata = &observed.namespace.metadata;
    if is_deleting(metadata) {
        return Vec::new();
    }
    let name = metadata.name.as_deref().unwrap_or("");
    let mut writes = Vec::new();
    if observed.service_account.is_none() {
        writes.push(Write::Create(json!({"apiVersion": "v1", "kind": "ServiceAccount",
            "metadata": {"name": "default", "namespace": name}})));
    }
    match &observed.root_ca {
        None => writes.push(Write::Create(json!({"apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": ROOT_CA, "namespace": name, "annotations": {"kubernetes.io/description":
                "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes clusters."}},
            "data": {ROOT_CA_KEY: observed.root_ca_pem}}))),
        Some(map) if map.data.as_ref().and_then(|d| d.get(ROOT_CA_KEY)) != Some(&observed.root_ca_pem) => {
            let patch = json!({"data": {ROOT_CA_KEY: observed.root_ca_pem}});
            writes.push(Write::Patch(Target::of::<ConfigMap>(&map.metadata), patch));
        }
        Some(_) => {}
    }
    writes
}

/// Empties a namespace that is being deleted: one deletion for each kind that is left,
/// and, once nothing is, the end of its finalizer (N1).
pub fn empty(namespace: &Namespace, remaining: &[Remaining]) -> Vec<Write> {
    if !is_deleting(&namespace.metadata) {
        return Vec::new();
    }
    let name = namespace.metadata.name.clone().unwrap_or_default();
    if !remaining.is_empty() {
        let waiting = remaining.iter().filter(|r| r.count > r.deleting);
        return waiting.map(|r| Write::DeleteAll(r.api_version.clone(), r.kind.clone(), name.clone())).collect();
    }
    let mut finished = namespace.clone();
    let spec = finished.spec.get_or_insert_default();
    let finalizers = spec.finalizers.get_or_insert_default();
    let before = finalizers.len();
    finalizers.retain(|f| f != FINALIZER);
    if finalizers.len() == before {
        return Vec::new();
    }
    let mut object = json(&finished);
    object["kind"] = "Namespace".into();
    vec![Write::Finalize(object)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn namespace(deleting: bool) -> Arc<Namespace> {
        let mut object = json!({"metadata": {"name": "a"}, "spec": {"finalizers": ["kubernetes"]}});
        if deleting {
            object["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        }
        Arc::new(serde_json::from_value(object).expect("a Namespace"))
    }

    fn observed(deleting: bool) -> Observed {
        Observed { namespace: namespace(deleting), service_account: None, root_ca: None, root_ca_pem: "PEM".into() }
    }

    #[test]
    fn a_new_namespace_is_furnished() {
        let kinds: Vec<_> = reconcile(&observed(false))
            .into_iter()
            .map(|w| if let Write::Create(o) = w { o["kind"].to_string() } else { String::new() })
            .collect();
        assert_eq!(kinds, ["\"ServiceAccount\"", "\"ConfigMap\""]);
        assert!(reconcile(&observed(true)).is_empty(), "N2");
    }

    /// N1.
    #[test]
    fn a_namespace_is_let_go_when_empty() {
        let left = Remaining { api_version: "v1".into(), kind: "Pod".into(), count: 2, deleting: 1 };
        let writes = empty(&namespace(true), std::slice::from_ref(&left));
        assert_eq!(writes, [Write::DeleteAll("v1".into(), "Pod".into(), "a".into())]);
        assert!(empty(&namespace(true), &[Remaining { deleting: 2, ..left }]).is_empty());
        assert!(
            matches!(empty(&namespace(true), &[]).as_slice(), [Write::Finalize(o)] if o["spec"]["finalizers"] == json!([]))
        );
        assert!(empty(&namespace(false), &[]).is_empty());
    }
}
