//! What a controller wants written.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Serialize;
use serde_json::Value;

/// An object, named by kind.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Target {
    /// `apiVersion`, such as `apps/v1`.
    pub api_version: String,
    /// Kind, such as `Deployment`.
    pub kind: String,
    /// Namespace; empty for cluster-scoped kinds.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl Target {
    /// Names an object of a typed kind by its metadata.
    pub fn of<K: k8s_openapi::Resource>(metadata: &ObjectMeta) -> Self {
        Self {
            api_version: K::API_VERSION.to_owned(),
            kind: K::KIND.to_owned(),
            namespace: metadata.namespace.clone().unwrap_or_default(),
            name: metadata.name.clone().unwrap_or_default(),
        }
    }
}

/// How dependents of a deleted object are treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Propagation {
    /// After it.
    Background,
    /// Before it.
    Foreground,
    /// Not at all.
    Orphan,
}

/// One write. The shell makes them in order and stops at the first that fails.
#[derive(Debug, Clone, PartialEq)]
pub enum Write {
    /// Creates an object; one that exists already counts as done.
    Create(Value),
    /// Replaces an object, guarded by its resourceVersion.
    Update(Value),
    /// Replaces an object's status, guarded by its resourceVersion.
    UpdateStatus(Value),
    /// Replaces `spec.finalizers` of a namespace.
    Finalize(Value),
    /// Merges into an object (RFC 7396).
    Patch(Target, Value),
    /// Merges into an object's status.
    PatchStatus(Target, Value),
    /// Deletes an object if it still has this uid.
    Delete(Target, String, Propagation),
    /// Deletes a pod at once, if it still has this uid: nobody is left who could end it.
    DeleteAtOnce(Target, String),
    /// Deletes an object if it still has this uid and is still at this resourceVersion: what was decided upon.
    DeleteAt(Target, String, String, Propagation),
    /// Writes nothing: reads the object anew, and what follows isn't written unless it is there with this uid and isn't
    /// being deleted. What informers show may be long gone.
    Confirm(Target, String),
    /// Deletes every object of a kind in a namespace: `apiVersion`, kind, namespace.
    DeleteAll(String, String, String),
}

/// The JSON of a typed object, with kind and apiVersion.
pub fn json<K: Serialize>(object: &K) -> Value {
    // Kubernetes' types are maps of strings and plain values: nothing in them can't be JSON.
    serde_json::to_value(object).unwrap_or(Value::Null)
}
