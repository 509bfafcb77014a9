//! The `scale` subresource: replicas of a workload, whatever its kind.

use std::sync::Arc;

use api::status::Status;
use apiserver_core::{lifecycle, meta, options};
use http::{Response, StatusCode};
use serde_json::{Value, json};

use crate::app::App;
use crate::http::{Body, Call};
use crate::read::{self, answer_object, storage_status};
use crate::router::{Target, view};
use crate::write::{apply_patch, modify_with, receive, with_warnings};

/// The Scale of a workload. Source: `autoscaling/v1` ScaleStatus.
fn scale_of(object: &Value) -> Value {
    let metadata: serde_json::Map<String, Value> = ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"]
        .into_iter()
        .filter_map(|f| Some((f.to_owned(), meta::metadata(object)?.get(f)?.clone())))
        .collect();
    let replicas = |pointer: &str| object.pointer(pointer).and_then(Value::as_i64).unwrap_or(0);
    json!({"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata,
        "spec": {"replicas": replicas("/spec/replicas")},
        "status": {"replicas": replicas("/status/replicas"), "selector": selector_text(object)}})
}

/// The selector in text form. A ReplicationController's is a plain map.
fn selector_text(object: &Value) -> String {
    let plain = meta::string_map(object, "/spec/selector").map(|(k, v)| format!("{k}={v}"));
    let labels = meta::string_map(object, "/spec/selector/matchLabels").map(|(k, v)| format!("{k}={v}"));
    let mut parts: Vec<String> = plain.chain(labels).collect();
    for expression in meta::items(object, "/spec/selector/matchExpressions") {
        let values: Vec<&str> = meta::items(expression, "/values").iter().filter_map(Value::as_str).collect();
        let key = meta::text(expression, "/key");
        parts.push(match meta::text(expression, "/operator") {
            "In" => format!("{key} in ({})", values.join(",")),
            "NotIn" => format!("{key} notin ({})", values.join(",")),
            "Exists" => key.to_owned(),
            _ => format!("!{key}"),
        });
    }
    parts.join(",")
}

/// Puts a Scale's replicas into the workload.
fn with_scale(object: &Value, scale: &Value) -> Result<Value, Status> {
    let replicas = scale.pointer("/spec/replicas").and_then(Value::as_i64).unwrap_or(0);
    if replicas < 0 {
        let cause = api::status::Cause::new(
            "FieldValueInvalid",
            "spec.replicas",
            format!("Invalid value: {replicas}: must be greater than or equal to 0"),
        );
        return Err(Status::invalid("autoscaling", "Scale", meta::name(object), vec![cause]));
    }
    let mut changed = object.clone();
    changed["spec"]["replicas"] = replicas.into();
    // The version a Scale was read at guards the write.
    let seen = meta::resource_version(scale);
    if !seen.is_empty() {
        meta::set(&mut changed, "resourceVersion", seen.to_owned());
    }
    Ok(changed)
}

/// `GET …/scale`.
pub(crate) async fn get(app: &Arc<App>, call: &Call, target: &Target) -> Result<Response<Body>, Status> {
    let found = app.storage.get(&target.key()).await.map_err(storage_status)?.ok_or_else(|| target.not_found())?;
    let scale = scale_of(&read::decode(target.resource, &found)?);
    answer_object(target.sub.unwrap_or(target.resource), view(call)?, StatusCode::OK, scale)
}

async fn write(
    app: &Arc<App>,
    call: &Call,
    target: &Target,
    change: impl FnMut(&Value) -> Result<Value, Status>,
) -> Result<Response<Body>, Status> {
    let (view, dry_run, resource) = (view(call)?, options::dry_run(&call.query)?, target.resource);
    let prepare = |old: &Value, new: &mut Value| lifecycle::prepare_update(resource, lifecycle::Part::Main, old, new);
    let updated = modify_with(app, target, dry_run, None, change, prepare).await?;
    answer_object(target.sub.unwrap_or(resource), view, StatusCode::OK, scale_of(&updated))
}

/// `PUT …/scale`.
pub(crate) async fn update(app: &Arc<App>, call: &Call, target: &Target) -> Result<Response<Body>, Status> {
    let received = receive(call, target.sub.unwrap_or(target.resource))?;
    let response = write(app, call, target, |old| with_scale(old, &received.object)).await?;
    Ok(with_warnings(response, &received.warnings))
}

/// `PATCH …/scale`.
pub(crate) async fn patch(app: &Arc<App>, call: &Call, target: &Target) -> Result<Response<Body>, Status> {
    let sub = target.sub.unwrap_or(target.resource);
    write(app, call, target, |old| {
        let (scale, _) = apply_patch(call, sub, &scale_of(old))?;
        with_scale(old, &scale)
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scale_shows_and_sets_replicas() {
        let deployment = json!({"metadata": {"name": "d", "resourceVersion": "3"},
            "spec": {"replicas": 2, "selector": {"matchLabels": {"a": "b"}}}, "status": {"replicas": 1}});
        let scale = scale_of(&deployment);
        assert_eq!(scale["status"], json!({"replicas": 1, "selector": "a=b"}));
        let mut wanted = scale;
        wanted["spec"]["replicas"] = 5.into();
        assert_eq!(with_scale(&deployment, &wanted).expect("valid")["spec"]["replicas"], 5);
        wanted["spec"]["replicas"] = (-1).into();
        assert!(with_scale(&deployment, &wanted).is_err());
    }
}
