//! Reads: one object, or a list.

use std::sync::Arc;

use api::resources::Resource;
use api::status::Status;
use apiserver_core::options::{ListOptions, VersionMatch};
use apiserver_core::page::{self, Continue};
use apiserver_core::render::{self, View};
use apiserver_core::{fieldset, storage_form, stored};
use bytes::{BufMut, BytesMut};
use http::{Response, StatusCode};
use serde_json::Value;

use crate::app::App;
use crate::http::{Body, Call, reply};
use crate::router::{Target, view};
use crate::storage::{Page, StorageError, Stored};

/// Objects read from the store at once, however many are asked for.
const PAGE_OBJECTS_MAX: i64 = 1000;

/// The Status of a store's refusal that has no better meaning in the request at hand.
pub(crate) fn storage_status(error: StorageError) -> Status {
    match error {
        StorageError::Conflict(_) | StorageError::Fenced(_) => {
            Status::internal("an unguarded request met a conflict".to_owned())
        }
        StorageError::Compacted => page::expired(None),
        StorageError::Future => Status::timeout("Too large resource version", 1),
        StorageError::TooLarge => Status::request_entity_too_large("the object is larger than the store takes"),
        StorageError::Unavailable(why) => Status::service_unavailable(format!("the store can't be reached: {why}")),
        StorageError::Other(why) => Status::internal(why),
    }
}

/// Decodes what is stored, in the version that was asked for.
pub(crate) fn decode(resource: &'static Resource, found: &Stored) -> Result<Value, Status> {
    let mut object = stored::decode(&found.value, found.revision)
        .map_err(|e| Status::internal(format!("stored object {} is not JSON: {e}", found.key)))?;
    storage_form::convert(storage_form::storage_resource(resource), resource, &mut object);
    Ok(object)
}

/// Whether the resource is stored in the version it is asked for in.
pub(crate) fn is_native(resource: &'static Resource) -> bool {
    std::ptr::eq(resource, storage_form::storage_resource(resource))
}

/// An object's answer.
pub(crate) fn answer_object(
    resource: &'static Resource,
    view: View,
    code: StatusCode,
    object: Value,
) -> Result<Response<Body>, Status> {
    let rendered = render::encode(view.form.encoding, &render::shaped(resource, view, object))?;
    Ok(reply(code, &rendered.content_type, rendered.body))
}

/// `GET` of an object.
pub(crate) async fn get(app: &Arc<App>, call: &Call, target: &Target) -> Result<Response<Body>, Status> {
    let view = view(call)?;
    let found = app.storage.get(&target.key()).await.map_err(storage_status)?.ok_or_else(|| target.not_found())?;
    if view.is_plain() && is_native(target.resource) {
        let mut out = BytesMut::new();
        stored::write_served(&found.value, found.revision, &mut out);
        return Ok(reply(StatusCode::OK, "application/json", out.freeze()));
    }
    answer_object(target.resource, view, StatusCode::OK, decode(target.resource, &found)?)
}

/// The key prefix of a collection, narrowed to a namespace.
pub(crate) fn collection_prefix(target: &Target) -> String {
    let mut prefix = storage_form::prefix(target.resource);
    if !target.namespace.is_empty() {
        prefix.push_str(&target.namespace);
        prefix.push('/');
    }
    prefix
}

/// The first key behind every key with the prefix, which ends in a slash.
pub(crate) fn prefix_end(prefix: &str) -> String {
    let mut end = prefix.trim_end_matches('/').to_owned();
    end.push('0');
    end
}

/// Refuses selectors that name a field the kind doesn't offer.
pub(crate) fn check_fields(resource: &Resource, options: &ListOptions) -> Result<(), Status> {
    for field in options.fields.fields() {
        if !fieldset::is_selectable(resource, field) {
            return Err(Status::bad_request(format!(
                "Unable to find {:?} that match label selector {:?}, field selector {:?}: field label not supported: {field}",
                format!("{}, Resource={}", resource.api_version(), resource.name),
                options.labels.to_string(),
                options.fields.to_string(),
            )));
        }
    }
    Ok(())
}

/// What a list found.
pub(crate) struct Listed {
    pub(crate) items: Vec<Stored>,
    pub(crate) revision: i64,
    next: Option<Continue>,
    remaining: Option<i64>,
}

/// `GET` of a collection.
pub(crate) async fn list(app: &Arc<App>, call: &Call, target: &Target) -> Result<Response<Body>, Status> {
    let view = view(call)?;
    let options = ListOptions::parse(&call.query, false)?;
    check_fields(target.resource, &options)?;
    let listed = collect(app, target, &options).await?;
    let metadata = render::list_metadata(listed.revision, listed.next.as_ref().map(Continue::encode), listed.remaining);
    if view.is_plain() && is_native(target.resource) {
        return Ok(splice(target.resource, &metadata, &listed.items));
    }
    let objects: Result<Vec<Value>, Status> = listed.items.iter().map(|found| decode(target.resource, found)).collect();
    let tree = render::shaped_list(target.resource, view, metadata, objects?);
    let rendered = render::encode(view.form.encoding, &tree)?;
    Ok(reply(StatusCode::OK, &rendered.content_type, rendered.body))
}

/// A list in JSON, put together from stored bytes without decoding them.
fn splice(resource: &Resource, metadata: &Value, items: &[Stored]) -> Response<Body> {
    let size: usize = items.iter().map(|i| i.value.len() + 64).sum();
    let mut out = BytesMut::with_capacity(size + 256);
    let head = format!(
        r#"{{"kind":"{}","apiVersion":"{}","metadata":{metadata},"items":["#,
        render::list_kind(resource),
        resource.api_version()
    );
    out.put_slice(head.as_bytes());
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            out.put_u8(b',');
        }
        stored::write_served(&item.value, item.revision, &mut out);
    }
    out.put_slice(b"]}");
    reply(StatusCode::OK, "application/json", out.freeze())
}

/// Reads a collection: pages from the store until the limit is reached or all is seen.
pub(crate) async fn collect(app: &App, target: &Target, options: &ListOptions) -> Result<Listed, Status> {
    let prefix = collection_prefix(target);
    let end = prefix_end(&prefix);
    let token = options.continue_token.as_deref().map(Continue::decode).transpose()?;
    let mut revision = match (&token, options.version_match, options.resource_version) {
        (Some(token), _, _) => token.revision.max(0),
        (None, Some(VersionMatch::Exact), Some(version)) => version,
        // Kubernetes' own rule: a page of a given revision without a match is exact.
        (None, None, Some(version)) if version > 0 && options.limit > 0 => version,
        _ => 0,
    };
    let mut start = match &token {
        Some(token) => format!("{prefix}{}", token.start),
        None => prefix.clone(),
    };
    let mut listed = Listed { items: Vec::new(), revision: 0, next: None, remaining: None };
    let selects = !options.labels.is_everything() || !options.fields.is_everything();
    loop {
        let wanted = options.limit.saturating_sub(listed.items.len() as i64);
        let size = if options.limit > 0 && !selects { wanted.min(PAGE_OBJECTS_MAX) } else { PAGE_OBJECTS_MAX };
        let page = app.storage.list(&start, &end, size, revision).await.map_err(|error| match error {
            StorageError::Compacted => page::expired(token.as_ref()),
            other => storage_status(other),
        })?;
        revision = page.revision;
        listed.revision = revision;
        if let (None, Some(least)) = (&token, options.resource_version)
            && least > revision
        {
            return Err(Status::too_large_version(least, revision));
        }
        let (more, count, read) = (page.more, page.count, page.items.len());
        let looked = take(target.resource, options, page, &mut listed)?;
        let Some(last) = looked.last else { break };
        start = format!("{last}\0");
        let full = options.limit > 0 && listed.items.len() as i64 >= options.limit;
        if full && (more || looked.count < read) {
            listed.next = Some(Continue { revision, start: start[prefix.len()..].to_owned() });
            listed.remaining = (!selects).then_some(count - looked.count as i64);
        }
        if full || !more {
            break;
        }
    }
    Ok(listed)
}

/// How far into a page a list got.
struct Looked {
    count: usize,
    last: Option<String>,
}

/// Adds a page's matching objects, up to the limit.
fn take(resource: &'static Resource, options: &ListOptions, page: Page, listed: &mut Listed) -> Result<Looked, Status> {
    let selects = !options.labels.is_everything() || !options.fields.is_everything();
    let mut looked = Looked { count: 0, last: None };
    for item in page.items {
        if options.limit > 0 && listed.items.len() as i64 >= options.limit {
            break;
        }
        looked.count += 1;
        looked.last = Some(item.key.clone());
        if !selects || fieldset::matches(resource, options, &decode(resource, &item)?) {
            listed.items.push(item);
        }
    }
    Ok(looked)
}
