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

/// Binds a pod to a node. The uid makes sure that it is still the same pod.
pub(crate) async fn bind(client: &Client, pod: &Pod, node: &str) -> Result<(), BindFailure> {
    let metadata = &pod.metadata;
    let body = json!({
        "apiVersion": "v1", "kind": "Binding",
        "metadata": {"namespace": metadata.namespace, "name": metadata.name, "uid": metadata.uid},
        "target": {"apiVersion": "v1", "kind": "Node", "name": node},
    });
    match send(client, Method::POST, &path(pod, "binding"), JSON, &body).await {
        Ok(_) => Ok(()),
        Err(error) if error.is(StatusCode::NOT_FOUND) || error.is(StatusCode::CONFLICT) => {
            tracing::debug!(pod = place(pod), node, %error, "a binding was refused");
            Err(BindFailure::Refused)
        }
        Err(error) => Err(BindFailure::Failed(error.to_string())),
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
}
