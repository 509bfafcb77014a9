//! Writes: create, update, patch, delete.
//!
//! Each reads what is stored, lets the core decide, and commits with the
//! version it read as guard; a conflict with another writer is tried again
//! unless the client named the version it had seen.

use std::sync::Arc;

use api::decode::{self, Validation};
use api::merge;
use api::resources::Resource;
use api::status::Status;
use apiserver_core::fence::Fence;
use apiserver_core::lifecycle::{self, Deletion, Part};
use apiserver_core::negotiate::{self, Encoding};
use apiserver_core::options::{self, DeleteOptions, ListOptions};
use apiserver_core::{fence, meta, storage_form, stored};
use http::{HeaderValue, Response, StatusCode, header};
use serde_json::{Value, json};

use crate::app::{App, fresh_uid, moment};
use crate::http::{Body, Call, reply};
use crate::read::{self, answer_object, storage_status};
use crate::router::{Target, view};
use crate::storage::{Change, SideKey, StorageError, Stored, Write};
use crate::{admission, claims};

/// How often a write is tried again after another writer came first.
const CONFLICTS_MAX: usize = 8;

/// A decoded body and what was remarkable about it.
pub(crate) struct Received {
    pub(crate) object: Value,
    pub(crate) warnings: Vec<String>,
}

fn validation(call: &Call) -> Result<Validation, Status> {
    match call.query.filled("fieldValidation") {
        None | Some("Warn") => Ok(Validation::Warn),
        Some("Ignore") => Ok(Validation::Ignore),
        Some("Strict") => Ok(Validation::Strict),
        Some(other) => {
            let why = format!(
                "fieldValidation: Unsupported value: {other:?}: supported values: \"Ignore\", \"Strict\", \"Warn\""
            );
            Err(Status::invalid_options("CreateOptions", &why))
        }
    }
}

/// Decodes a request's body as an object of the resource.
pub(crate) fn receive(call: &Call, resource: &Resource) -> Result<Received, Status> {
    let encoding = negotiate::body_encoding(call.header(header::CONTENT_TYPE)).ok_or_else(unsupported_body)?;
    let validation = validation(call)?;
    let bad = |error: &dyn std::fmt::Display| {
        Status::bad_request(format!(
            "{} in version {:?} cannot be handled as a {}: {error}",
            resource.kind, resource.version, resource.kind
        ))
    };
    let decoded = match encoding {
        Encoding::Json => decode::json(&call.body, resource.ty, validation).map_err(|e| bad(&e))?,
        Encoding::Yaml => decode::yaml(&call.body, resource.ty, validation).map_err(|e| bad(&e))?,
        Encoding::Protobuf => {
            let object = api::protobuf::decode_object(&call.body).map_err(|e| bad(&e))?;
            decode::Decoded { object, warnings: Vec::new() }
        }
    };
    let mut object = decoded.object;
    check_kind(resource, &mut object)?;
    Ok(Received { object, warnings: decoded.warnings })
}

fn unsupported_body() -> Status {
    Status::unsupported_media_type(
        "the body of the request was in an unknown format - accepted media types include: application/json, application/yaml, application/vnd.kubernetes.protobuf",
    )
}

/// A body that says what it is must be what the path says; one that doesn't is told.
fn check_kind(resource: &Resource, object: &mut Value) -> Result<(), Status> {
    let (wanted_version, wanted_kind) = (resource.kind_api_version(), resource.kind);
    let text = |field: &str| object.get(field).and_then(Value::as_str).unwrap_or("").to_owned();
    let (version, kind) = (text("apiVersion"), text("kind"));
    if !version.is_empty() && version != wanted_version {
        return Err(Status::bad_request(format!(
            "the API version in the data ({version}) does not match the expected API version ({wanted_version})"
        )));
    }
    if !kind.is_empty() && kind != wanted_kind {
        return Err(Status::bad_request(format!(
            "{kind} in version {:?} cannot be handled as a {wanted_kind}: converting ({version}, Kind={kind}) to ({wanted_version}, Kind={wanted_kind}): unknown conversion",
            resource.version
        )));
    }
    if let Some(map) = object.as_object_mut() {
        map.insert("apiVersion".to_owned(), wanted_version.into());
        map.insert("kind".to_owned(), wanted_kind.into());
    }
    Ok(())
}

/// Adds `Warning` headers. Source: RFC 7234 §5.5, as Kubernetes uses it.
pub(crate) fn with_warnings(mut response: Response<Body>, warnings: &[String]) -> Response<Body> {
    for warning in warnings {
        let quoted = warning.replace('\\', "\\\\").replace('"', "\\\"");
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{quoted}\"")) {
            response.headers_mut().append(header::WARNING, value);
        }
    }
    response
}

fn encode(resource: &'static Resource, object: &Value) -> bytes::Bytes {
    let native = storage_form::storage_resource(resource);
    let mut object = object.clone();
    storage_form::convert(resource, native, &mut object);
    stored::encode(&object, &native.api_version(), native.kind)
}

async fn lease(app: &App, resource: &Resource) -> Result<i64, Status> {
    if resource.name == "events" { app.event_lease().await.map_err(storage_status) } else { Ok(0) }
}

/// `POST` to a collection.
pub(crate) async fn create(app: &Arc<App>, call: &Call, target: &Target) -> Result<Response<Body>, Status> {
    let resource = target.resource;
    let view = view(call)?;
    let dry_run = options::dry_run(&call.query)?;
    if resource.namespaced && target.namespace.is_empty() {
        return Err(Status::method_not_allowed(resource.group, resource.name, "create"));
    }
    let received = receive(call, resource)?;
    let mut attempts = 0;
    loop {
        let mut object = received.object.clone();
        lifecycle::prepare_create(resource, &target.namespace, &moment(), &mut object)?;
        admission::on_create(app, resource, &target.namespace).await?;
        let created = insert(app, resource, object, dry_run).await;
        // A generated name that is taken is generated anew.
        let generated =
            !meta::field(&received.object, "generateName").is_empty() && meta::name(&received.object).is_empty();
        attempts += 1;
        match created {
            Err(status) if status.is_already_exists() && generated && attempts < CONFLICTS_MAX => {}
            created => {
                let response = answer_object(resource, view, StatusCode::CREATED, created?)?;
                return Ok(with_warnings(response, &received.warnings));
            }
        }
    }
}

/// Stores a prepared object; returns it as it is served.
pub(crate) async fn insert(
    app: &App,
    resource: &'static Resource,
    mut object: Value,
    dry_run: bool,
) -> Result<Value, Status> {
    let name = meta::name(&object).to_owned();
    let key = storage_form::key(resource, meta::namespace(&object), &name);
    // Of all that were attempted: any of them may be the one that is there.
    let mut uids = Vec::new();
    for _ in 0..CONFLICTS_MAX {
        let mut attempt = object.clone();
        let claim = claims::fill(app, resource, &mut attempt).await?;
        if dry_run {
            let exists = app.storage.get(&key).await.map_err(storage_status)?.is_some();
            return if exists {
                Err(Status::already_exists(resource.group, resource.name, &name))
            } else {
                Ok(attempt)
            };
        }
        let lease = lease(app, resource).await?;
        let change = Change::Put { value: encode(resource, &attempt), lease };
        let fence = fence::of_write(resource, None, &attempt, None);
        let write = Write { key: key.clone(), expected: 0, change, claim, release: Vec::new(), fence };
        uids.push(meta::uid(&attempt).to_owned());
        let created = app.storage.create(write, |change| {
            meta::set(&mut attempt, "uid", fresh_uid());
            uids.push(meta::uid(&attempt).to_owned());
            *change = Change::Put { value: encode(resource, &attempt), lease };
        });
        match created.await {
            Ok(revision) => {
                meta::set(&mut attempt, "resourceVersion", revision.to_string());
                return Ok(attempt);
            }
            Err(StorageError::Conflict(Some(found))) => {
                let found = read::decode(resource, &found)?;
                let is_ours = uids.iter().any(|uid| uid == meta::uid(&found));
                return if is_ours {
                    Ok(found)
                } else {
                    Err(Status::already_exists(resource.group, resource.name, &name))
                };
            }
            // Not the object but a claimed key is taken: choose another, or say which.
            Err(StorageError::Conflict(None)) => {
                claims::explain(app, resource, &object).await?;
                meta::set(&mut object, "uid", fresh_uid());
            }
            Err(other) => return Err(storage_status(other)),
        }
    }
    Err(Status::conflict(resource.group, resource.name, &name, "an address or port could not be claimed; try again"))
}

/// Which part of the object a target's subresource may change.
fn part(target: &Target) -> Part {
    match target.sub.and_then(|s| s.subresource) {
        Some("status") => Part::Status,
        _ => Part::Main,
    }
}

/// `PUT` of an object or its status.
pub(crate) async fn update(app: &Arc<App>, call: &Call, target: &Target) -> Result<Response<Body>, Status> {
    let resource = target.resource;
    let view = view(call)?;
    let dry_run = options::dry_run(&call.query)?;
    let received = receive(call, resource)?;
    let name = meta::name(&received.object);
    if !name.is_empty() && name != target.name() {
        return Err(Status::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({})",
            target.name()
        )));
    }
    let namespace = meta::namespace(&received.object);
    if resource.namespaced && !namespace.is_empty() && namespace != target.namespace {
        return Err(Status::bad_request(format!(
            "the namespace of the object ({namespace}) does not match the namespace on the URL ({})",
            target.namespace
        )));
    }
    let updated = modify(app, target, dry_run, |_| Ok(received.object.clone())).await?;
    Ok(with_warnings(answer_object(resource, view, StatusCode::OK, updated)?, &received.warnings))
}

/// `PATCH` of an object or its status.
pub(crate) async fn patch(app: &Arc<App>, call: &Call, target: &Target) -> Result<Response<Body>, Status> {
    let view = view(call)?;
    let dry_run = options::dry_run(&call.query)?;
    let mut warnings = Vec::new();
    let updated = modify(app, target, dry_run, |old| {
        let (patched, told) = apply_patch(call, target.resource, old)?;
        warnings = told;
        Ok(patched)
    })
    .await?;
    Ok(with_warnings(answer_object(target.resource, view, StatusCode::OK, updated)?, &warnings))
}

/// Applies the body as a patch of the kind its content type names.
pub(crate) fn apply_patch(call: &Call, resource: &Resource, old: &Value) -> Result<(Value, Vec<String>), Status> {
    let content_type = call.header(header::CONTENT_TYPE).split(';').next().unwrap_or("").trim();
    let mut object = old.clone();
    let parse = || -> Result<Value, Status> {
        serde_json::from_slice(&call.body).map_err(|e| Status::bad_request(format!("error decoding patch: {e}")))
    };
    match content_type {
        "application/json-patch+json" => {
            merge::json_patch(&mut object, &call.body).map_err(|e| e.to_status(resource, meta::name(old)))?;
        }
        "application/merge-patch+json" => merge::merge_patch(&mut object, &parse()?),
        "application/strategic-merge-patch+json" => {
            let ty = resource.ty.ok_or_else(|| unsupported_patch("strategic merge needs a schema"))?;
            merge::strategic(ty, &mut object, &parse()?).map_err(|e| e.to_status(resource, meta::name(old)))?;
        }
        other => return Err(unsupported_patch(other)),
    }
    // What the patch wrote is checked as a body would be.
    let mut warnings = Vec::new();
    if let Some(ty) = resource.ty {
        let validation = validation(call)?;
        warnings = decode::check(ty, &mut object, validation).map_err(|error| {
            Status::bad_request(format!(
                "{} in version {:?} cannot be handled as a {}: {error}",
                resource.kind, resource.version, resource.kind
            ))
        })?;
    }
    check_kind(resource, &mut object)?;
    if meta::name(&object) != meta::name(old) {
        return Err(Status::bad_request(format!(
            "the name of the object ({}) does not match the name on the URL ({})",
            meta::name(&object),
            meta::name(old)
        )));
    }
    Ok((object, warnings))
}

fn unsupported_patch(found: &str) -> Status {
    Status::unsupported_media_type(format!(
        "the body of the request was in an unknown format ({found}) - accepted media types include: application/json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json"
    ))
}

/// Reads an object, changes it and commits; again if another writer came between.
pub(crate) async fn modify(
    app: &Arc<App>,
    target: &Target,
    dry_run: bool,
    change: impl FnMut(&Value) -> Result<Value, Status>,
) -> Result<Value, Status> {
    let (resource, part) = (target.resource, part(target));
    modify_with(app, target, dry_run, None, change, |old, new| lifecycle::prepare_update(resource, part, old, new))
        .await
}

/// As [`modify`], with a preparation of the caller's; refused if he tells up to which revision he knew (`known`) the pods of the
/// node in question, and it was given one since.
pub(crate) async fn modify_with(
    app: &Arc<App>,
    target: &Target,
    dry_run: bool,
    known: Option<i64>,
    mut change: impl FnMut(&Value) -> Result<Value, Status>,
    prepare: impl Fn(&Value, &mut Value) -> Result<(), Status>,
) -> Result<Value, Status> {
    let (resource, key) = (target.resource, target.key());
    let mut found = app.storage.get(&key).await.map_err(storage_status)?;
    for _ in 0..CONFLICTS_MAX {
        let current = found.take().ok_or_else(|| target.not_found())?;
        let old = read::decode(resource, &current)?;
        let mut new = change(&old)?;
        prepare(&old, &mut new)?;
        if !lifecycle::differs(&old, &new) {
            return Ok(old);
        }
        if dry_run {
            return Ok(new);
        }
        let fence = fence::of_write(resource, Some(&old), &new, known);
        match commit(app, resource, &current, &old, &mut new, fence.clone()).await {
            Ok(()) => return Ok(new),
            Err(StorageError::Conflict(now)) => found = now,
            Err(StorageError::Fenced(revision)) => {
                return Err(fence.map_or_else(
                    || storage_status(StorageError::Fenced(revision)),
                    |fence| fence.refusal(target.name(), revision),
                ));
            }
            Err(other) => return Err(storage_status(other)),
        }
    }
    let why = "the object has been modified; please apply your changes to the latest version and try again";
    Err(Status::conflict(resource.group, resource.name, target.name(), why))
}

/// Writes a new version, or removes the object if that version lets it go.
async fn commit(
    app: &App,
    resource: &'static Resource,
    current: &Stored,
    old: &Value,
    new: &mut Value,
    fence: Option<Fence>,
) -> Result<(), StorageError> {
    let claim = claims::fill(app, resource, new).await.map_err(|s| StorageError::Other(s.to_string()))?;
    let held = claims::held(resource, old);
    let kept: Vec<SideKey> = claims::held(resource, new);
    let finished = lifecycle::is_finished(resource, new);
    let write = Write {
        key: current.key.clone(),
        expected: current.revision,
        change: if finished {
            Change::Delete
        } else {
            let lease = if resource.name == "events" { app.event_lease().await? } else { 0 };
            Change::Put { value: encode(resource, new), lease }
        },
        claim: if finished { Vec::new() } else { claim.into_iter().filter(|c| !held.contains(c)).collect() },
        release: held.into_iter().filter(|h| finished || !kept.contains(h)).collect(),
        fence: fence.filter(|_| !finished),
    };
    let revision = app.storage.write(write).await?;
    meta::set(new, "resourceVersion", revision.to_string());
    Ok(())
}

/// `DELETE` of an object.
pub(crate) async fn delete(app: &Arc<App>, call: &Call, target: &Target) -> Result<Response<Body>, Status> {
    let view = view(call)?;
    let options = delete_options(call)?;
    let (deleted, gone) = remove(app, target, &options).await?;
    let resource = target.resource;
    // An object that lingers is shown; one that is gone is confirmed.
    if !gone || matches!(resource.name, "pods" | "services" | "persistentvolumeclaims" | "serviceaccounts") {
        return answer_object(resource, view, StatusCode::OK, deleted);
    }
    let details =
        json!({"name": target.name(), "group": resource.group, "kind": resource.name, "uid": meta::uid(&deleted)});
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details});
    Ok(reply(StatusCode::OK, "application/json", status.to_string()))
}

fn delete_options(call: &Call) -> Result<DeleteOptions, Status> {
    if call.body.is_empty() {
        return DeleteOptions::parse(&call.query, None);
    }
    let encoding = negotiate::body_encoding(call.header(header::CONTENT_TYPE)).ok_or_else(unsupported_body)?;
    let bad = |error: &dyn std::fmt::Display| Status::bad_request(format!("decoding DeleteOptions: {error}"));
    let ty = api::schema::kind_type("", "v1", "DeleteOptions");
    let body = match encoding {
        Encoding::Json => decode::json(&call.body, ty, Validation::Ignore).map_err(|e| bad(&e))?.object,
        Encoding::Yaml => decode::yaml(&call.body, ty, Validation::Ignore).map_err(|e| bad(&e))?.object,
        Encoding::Protobuf => api::protobuf::decode_object(&call.body).map_err(|e| bad(&e))?,
    };
    DeleteOptions::parse(&call.query, Some(&body))
}

/// Deletes an object or marks it; returns it, and whether it is gone.
pub(crate) async fn remove(app: &Arc<App>, target: &Target, options: &DeleteOptions) -> Result<(Value, bool), Status> {
    let (resource, key) = (target.resource, target.key());
    let mut found = app.storage.get(&key).await.map_err(storage_status)?;
    for _ in 0..CONFLICTS_MAX {
        let current = found.take().ok_or_else(|| target.not_found())?;
        let old = read::decode(resource, &current)?;
        let (change, mut result) = match lifecycle::decide_delete(resource, options, &moment(), &old)? {
            Deletion::Nothing => return Ok((old, false)),
            Deletion::Remove => (Change::Delete, old.clone()),
            Deletion::Mark(marked) => (Change::Put { value: encode(resource, &marked), lease: 0 }, *marked),
        };
        let gone = matches!(change, Change::Delete);
        if options.dry_run {
            return Ok((result, gone));
        }
        let release = if gone { claims::held(resource, &old) } else { Vec::new() };
        let write =
            Write { key: key.clone(), expected: current.revision, change, claim: Vec::new(), release, fence: None };
        match app.storage.write(write).await {
            Ok(revision) => {
                meta::set(&mut result, "resourceVersion", revision.to_string());
                return Ok((result, gone));
            }
            Err(StorageError::Conflict(now)) => found = now,
            Err(other) => return Err(storage_status(other)),
        }
    }
    Err(Status::conflict(
        resource.group,
        resource.name,
        target.name(),
        "the object is being changed too often; try again",
    ))
}

/// `DELETE` of a collection: each object that matches, one by one.
pub(crate) async fn delete_collection(app: &Arc<App>, call: &Call, target: &Target) -> Result<Response<Body>, Status> {
    let options = delete_options(call)?;
    let list_options = ListOptions::parse(&call.query, false)?;
    read::check_fields(target.resource, &list_options)?;
    let listed = read::collect(app, target, &list_options).await?;
    let mut deleted = Vec::with_capacity(listed.items.len());
    for item in &listed.items {
        let object = read::decode(target.resource, item)?;
        let one = Target {
            resource: target.resource,
            sub: None,
            namespace: meta::namespace(&object).to_owned(),
            name: Some(meta::name(&object).to_owned()),
        };
        match remove(app, &one, &options).await {
            Ok((object, _)) => deleted.push(object),
            // Somebody else was faster.
            Err(status) if status.code() == 404 => {}
            Err(status) => return Err(status),
        }
    }
    let metadata = apiserver_core::render::list_metadata(listed.revision, None, None);
    let tree = apiserver_core::render::shaped_list(target.resource, view(call)?, metadata, deleted);
    let rendered = apiserver_core::render::encode(view(call)?.form.encoding, &tree)?;
    Ok(reply(StatusCode::OK, &rendered.content_type, rendered.body))
}
