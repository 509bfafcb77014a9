//! Small subresources: binding, finalize, and the review of oneself.

use std::sync::Arc;

use api::status::Status;
use apiserver_core::{fence, kinds, meta, options};
use http::{Response, StatusCode};
use serde_json::{Value, json};

use crate::app::{App, moment};
use crate::http::{Body, Call, reply};
use crate::read::answer_object;
use crate::router::{Target, view};
use crate::write::{modify_with, receive};

/// `POST …/pods/NAME/binding`: assigns a pod to a node.
pub(crate) async fn bind(app: &Arc<App>, call: &Call, target: &Target) -> Result<Response<Body>, Status> {
    let received = receive(call, target.sub.unwrap_or(target.resource))?;
    let dry_run = options::dry_run(&call.query)?;
    let now = moment().now;
    let known = fence::known(&received.object)?;
    let change = |pod: &Value| kinds::bind(pod, &received.object, &now);
    let bound = modify_with(app, target, dry_run, known, change, |_, _| Ok(())).await?;
    // Whoever tells what he knows learns that this is known as well.
    let metadata = if dry_run { json!({}) } else { json!({"resourceVersion": meta::resource_version(&bound)}) };
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": metadata, "status": "Success", "code": 201});
    Ok(reply(StatusCode::CREATED, "application/json", status.to_string()))
}

/// `PUT …/namespaces/NAME/finalize`: sets `spec.finalizers`, which nothing else may.
pub(crate) async fn finalize(app: &Arc<App>, call: &Call, target: &Target) -> Result<Response<Body>, Status> {
    let received = receive(call, target.resource)?;
    let finalizers = received.object.pointer("/spec/finalizers").cloned();
    let change = |old: &Value| {
        let seen = meta::resource_version(&received.object);
        if !seen.is_empty() && seen != meta::resource_version(old) {
            return Err(Status::conflict(
                "",
                "namespaces",
                target.name(),
                "the object has been modified; please apply your changes to the latest version and try again",
            ));
        }
        let mut new = old.clone();
        meta::unset(&mut new, "resourceVersion");
        match &finalizers {
            Some(list) if list.as_array().is_some_and(|l| !l.is_empty()) => new["spec"]["finalizers"] = list.clone(),
            _ => new["spec"] = json!({}),
        }
        Ok(new)
    };
    let updated = modify_with(app, target, options::dry_run(&call.query)?, None, change, |_, _| Ok(())).await?;
    answer_object(target.resource, view(call)?, StatusCode::OK, updated)
}

/// `POST …/selfsubjectreviews`: tells the caller who it is.
pub(crate) fn self_review(call: &Call, target: &Target) -> Result<Response<Body>, Status> {
    let user = &call.user;
    let mut info = json!({"username": user.name, "groups": user.groups});
    if !user.uid.is_empty() {
        info["uid"] = user.uid.as_str().into();
    }
    let review = json!({"kind": "SelfSubjectReview", "apiVersion": target.resource.api_version(),
        "metadata": {"creationTimestamp": moment().now}, "status": {"userInfo": info}});
    answer_object(target.resource, view(call)?, StatusCode::CREATED, review)
}
