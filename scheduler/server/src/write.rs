//! Writes: bindings and conditions.

use http::{Method, Request, StatusCode};
use jiff::{Timestamp, Unit};
use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use scheduler_core::state::{BindFailure, Tell, place};
use serde_json::{Value, json};

/// Why a write wasn't made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WriteError {
    #[error("{0}")]
    Request(#[from] http::Error),
    #[error("{0}")]
    Api(#[from] Box<kube::Error>),
}

impl WriteError {
    pub(crate) fn is(&self, code: StatusCode) -> bool {
        matches!(self, Self::Api(error) if matches!(&**error, kube::Error::Api(status) if status.code == code.as_u16()))
    }
}

/// Media type of patches that merge lists by key.
pub(crate) const STRATEGIC: &str = "application/strategic-merge-patch+json";
pub(crate) const JSON: &str = "application/json";

pub(crate) async fn send(
    client: &Client,
    method: Method,
    path: &str,
    media: &str,
    body: &Value,
) -> Result<Value, WriteError> {
    let request = Request::builder().method(method).uri(path).header(http::header::CONTENT_TYPE, media);
    let request = request.body(body.to_string().into_bytes())?;
    client.request(request).await.map_err(|error| WriteError::Api(Box::new(error)))
}

/// Now, as Kubernetes writes times: whole seconds.
pub(crate) fn now() -> String {
    let now = Timestamp::now();
    now.round(Unit::Second).unwrap_or(now).to_string()
}

fn path(pod: &Pod, subresource: &str) -> String {
    let (namespace, name) = (pod.metadata.namespace.as_deref(), pod.metadata.name.as_deref());
    let (namespace, name) = (namespace.unwrap_or_default(), name.unwrap_or_default());
    format!("/api/v1/namespaces/{namespace}/pods/{name}/{subresource}")
}

/// The cause that Keelson's apiserver gives when a node's fence refuses a binding; its message is the fence's revision.
const FENCED: &str = "NodeLoadChanged";

/// A binding to a node whose pods were known up to a revision. The uid makes sure that it is still the same pod.
///
/// kube-apiserver doesn't look at the target's version: there nothing keeps two schedulers from one node.
fn binding(pod: &Pod, node: &str, known: u64) -> Value {
    let metadata = &pod.metadata;
    let mut target = json!({"apiVersion": "v1", "kind": "Node", "name": node});
    if known > 0 {
        target["resourceVersion"] = known.to_string().into();
    }
    json!({
        "apiVersion": "v1", "kind": "Binding",
        "metadata": {"namespace": metadata.namespace, "name": metadata.name, "uid": metadata.uid},
        "target": target,
    })
}

/// Binds a pod to a node; returns the revision at which it was, if that is told.
pub(crate) async fn bind(client: &Client, pod: &Pod, node: &str, known: u64) -> Result<Option<u64>, BindFailure> {
    match send(client, Method::POST, &path(pod, "binding"), JSON, &binding(pod, node, known)).await {
        Ok(answer) => Ok(answer["metadata"]["resourceVersion"].as_str().and_then(|text| text.parse().ok())),
        Err(error) => {
            tracing::debug!(pod = place(pod), node, %error, "a binding wasn't made");
            Err(failure(&error))
        }
    }
}

/// What a binding's failing means.
fn failure(error: &WriteError) -> BindFailure {
    let WriteError::Api(api) = error else { return BindFailure::Failed(error.to_string()) };
    // Without an answer that is one, it may have been made.
    let kube::Error::Api(status) = &**api else { return BindFailure::Unanswered(error.to_string()) };
    let causes = status.details.iter().flat_map(|details| &details.causes);
    let fence = causes.filter(|cause| cause.reason == FENCED).find_map(|cause| cause.message.parse().ok());
    match (status.code, fence) {
        (409, Some(revision)) => BindFailure::Outdated(revision),
        (404 | 409, None) => BindFailure::Refused,
        (408 | 500.., _) => BindFailure::Unanswered(error.to_string()),
        _ => BindFailure::Failed(error.to_string()),
    }
}

/// The patch that sets a pod's `PodScheduled` condition.
pub(crate) fn condition_patch(tell: &Tell, now: &str) -> Value {
    let old = tell.pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let old =
        old.filter(|c| c.type_ == "PodScheduled" && c.status == "False").find_map(|c| c.last_transition_time.as_ref());
    // The time of the transition stays while the status does.
    let since = old.map_or_else(|| json!(now), |time| json!(time));
    let mut condition = json!({
        "type": "PodScheduled", "status": "False", "reason": tell.reason, "message": tell.message,
        "lastProbeTime": null, "lastTransitionTime": since,
    });
    if let Some(generation) = tell.pod.metadata.generation {
        condition["observedGeneration"] = json!(generation);
    }
    json!({"metadata": {"uid": tell.pod.metadata.uid}, "status": {"conditions": [condition]}})
}

/// Writes a condition; a pod that is gone needs none.
pub(crate) async fn tell(client: &Client, tell: &Tell) -> Result<(), WriteError> {
    let patch = condition_patch(tell, &now());
    match send(client, Method::PATCH, &path(&tell.pod, "status"), STRATEGIC, &patch).await {
        Ok(_) => Ok(()),
        Err(error) if error.is(StatusCode::NOT_FOUND) || error.is(StatusCode::CONFLICT) => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;
    use std::sync::Arc;

    #[test]
    fn a_condition_keeps_its_transition_time() {
        let tell = |status: Value| {
            let pod = json!({"metadata": {"uid": "u", "generation": 3}, "status": status});
            let pod = Arc::new(serde_json::from_value(pod).unwrap());
            Tell { pod, reason: "Unschedulable", message: "m".to_owned(), condition: true, event: true }
        };
        let condition =
            json!({"type": "PodScheduled", "status": "False", "lastTransitionTime": "2024-01-01T00:00:00Z"});
        let out = [
            condition_patch(&tell(json!({})), "2025-01-01T00:00:00Z"),
            condition_patch(&tell(json!({"conditions": [condition]})), "2025-01-01T00:00:00Z"),
        ]
        .map(|patch| patch.to_string())
        .join("\n");
        expect![[r#"
            {"metadata":{"uid":"u"},"status":{"conditions":[{"type":"PodScheduled","status":"False","reason":"Unschedulable","message":"m","lastProbeTime":null,"lastTransitionTime":"2025-01-01T00:00:00Z","observedGeneration":3}]}}
            {"metadata":{"uid":"u"},"status":{"conditions":[{"type":"PodScheduled","status":"False","reason":"Unschedulable","message":"m","lastProbeTime":null,"lastTransitionTime":"2024-01-01T00:00:00Z","observedGeneration":3}]}}"#]].assert_eq(&out);
    }

    #[test]
    fn a_binding_tells_what_was_known_of_the_node() {
        let pod = json!({"metadata": {"namespace": "ns", "name": "p", "uid": "u"}});
        let pod: Pod = serde_json::from_value(pod).unwrap();
        assert_eq!(binding(&pod, "a", 17)["target"]["resourceVersion"], "17");
        assert_eq!(binding(&pod, "a", 0)["target"]["resourceVersion"], json!(null));
        assert_eq!(binding(&pod, "a", 0)["metadata"]["uid"], "u");
    }

    /// Who wasn't answered doesn't know.
    #[test]
    fn failures_mean_what_is_to_be_done() {
        let failure = |code: u16, causes: Value| {
            let status = json!({"status": "Failure", "code": code, "message": "m", "reason": "r",
                "details": {"causes": causes}});
            let status = serde_json::from_value(status).unwrap();
            failure(&WriteError::Api(Box::new(kube::Error::Api(Box::new(status)))))
        };
        let fenced = json!([{"reason": FENCED, "message": "17", "field": "target.resourceVersion"}]);
        assert_eq!(failure(409, fenced), BindFailure::Outdated(17));
        assert_eq!(failure(409, json!([])), BindFailure::Refused);
        assert_eq!(failure(404, json!([])), BindFailure::Refused);
        assert!(matches!(failure(403, json!([])), BindFailure::Failed(_)));
        for code in [408, 500, 503, 504] {
            assert!(matches!(failure(code, json!([])), BindFailure::Unanswered(_)), "{code}");
        }
    }
}
