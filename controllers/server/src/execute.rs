//! Making writes: each kind's path comes from the table of resources.

use controllers_core::write::{Propagation, Target, Write};
use http::{Method, Request};
use kube::Client;
use serde_json::{Value, json};

use crate::elect::Reign;

/// Why a write wasn't made. The key is looked at again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExecuteError {
    #[error("no resource serves {0}")]
    Kind(String),
    #[error("{0}")]
    Request(#[from] http::Error),
    #[error("{0}")]
    Api(#[from] Box<kube::Error>),
    #[error("another process leads, or may")]
    Deposed,
    #[error("the object isn't there any more as it was shown, or is being deleted")]
    Outdated,
}

impl From<kube::Error> for ExecuteError {
    fn from(error: kube::Error) -> Self {
        Self::Api(Box::new(error))
    }
}

/// Who writes, and for how long it may.
#[derive(Clone)]
pub(crate) struct Writer {
    pub(crate) client: Client,
    pub(crate) reign: Reign,
}

/// What a write made or ended, for those who wait to see it.
#[derive(Debug, Default, Clone)]
pub(crate) struct Made {
    /// Names of created objects.
    pub(crate) created: Vec<String>,
    /// UIDs of deleted ones.
    pub(crate) deleted: Vec<String>,
    /// Names of those that were created earlier and are gone.
    pub(crate) gone: Vec<String>,
}

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or("")
}

/// The path of a kind's collection.
pub(crate) fn collection(api_version: &str, kind: &str, namespace: &str) -> Result<String, ExecuteError> {
    let (group, version) = api::gvk::split_api_version(api_version);
    let resource = api::resources::by_kind(group, version, kind);
    let resource = resource.ok_or_else(|| ExecuteError::Kind(format!("{api_version} {kind}")))?;
    let root = if group.is_empty() { format!("/api/{version}") } else { format!("/apis/{api_version}") };
    let scope = if namespace.is_empty() { String::new() } else { format!("/namespaces/{namespace}") };
    Ok(format!("{root}{scope}/{}", resource.name))
}

fn path(target: &Target) -> Result<String, ExecuteError> {
    Ok(format!("{}/{}", collection(&target.api_version, &target.kind, &target.namespace)?, target.name))
}

fn object_path(object: &Value) -> Result<String, ExecuteError> {
    let (version, kind) = (text(object, "/apiVersion"), text(object, "/kind"));
    let collection = collection(version, kind, text(object, "/metadata/namespace"))?;
    Ok(format!("{collection}/{}", text(object, "/metadata/name")))
}

async fn send(client: &Client, method: Method, path: &str, media: &str, body: &Value) -> Result<Value, ExecuteError> {
    let request = Request::builder().method(method).uri(path).header(http::header::CONTENT_TYPE, media);
    Ok(client.request(request.body(body.to_string().into_bytes())?).await?)
}

fn has_code(error: &ExecuteError, code: u16) -> bool {
    matches!(error, ExecuteError::Api(error) if matches!(&**error, kube::Error::Api(status) if status.code == code))
}

const JSON: &str = "application/json";
const MERGE: &str = "application/merge-patch+json";

fn policy(propagation: Propagation) -> &'static str {
    match propagation {
        Propagation::Background => "Background",
        Propagation::Foreground => "Foreground",
        Propagation::Orphan => "Orphan",
    }
}

/// Deletes the object of the UID under conditions. One that doesn't meet them is gone, another of the name, or a later version: that
/// one is shown yet, and decided upon anew.
async fn delete(
    client: &Client,
    target: &Target,
    uid: &str,
    mut options: Value,
    made: &mut Made,
) -> Result<(), ExecuteError> {
    options["kind"] = json!("DeleteOptions");
    options["apiVersion"] = json!("v1");
    match send(client, Method::DELETE, &path(target)?, JSON, &options).await {
        Ok(_) => made.deleted.push(uid.to_owned()),
        Err(error) if has_code(&error, 404) || has_code(&error, 409) => {}
        Err(error) => return Err(error),
    }
    Ok(())
}

/// Reads an object anew: it must be there, the same, and not about to go.
async fn confirm(client: &Client, target: &Target, uid: &str) -> Result<(), ExecuteError> {
    let found: Value = client.request(Request::get(path(target)?).body(Vec::new())?).await?;
    let is_same = text(&found, "/metadata/uid") == uid && text(&found, "/metadata/deletionTimestamp").is_empty();
    if is_same { Ok(()) } else { Err(ExecuteError::Outdated) }
}

/// Makes one write; what is done already counts as done.
async fn make(client: &Client, write: &Write, made: &mut Made) -> Result<(), ExecuteError> {
    match write {
        Write::Create(object) => {
            let path =
                collection(text(object, "/apiVersion"), text(object, "/kind"), text(object, "/metadata/namespace"))?;
            match send(client, Method::POST, &path, JSON, object).await {
                Ok(created) => made.created.push(text(&created, "/metadata/name").to_owned()),
                Err(error) if has_code(&error, 409) && !text(object, "/metadata/name").is_empty() => {}
                Err(error) => return Err(error),
            }
        }
        Write::Update(object) => {
            send(client, Method::PUT, &object_path(object)?, JSON, object).await?;
        }
        Write::UpdateStatus(object) => {
            send(client, Method::PUT, &format!("{}/status", object_path(object)?), JSON, object).await?;
        }
        Write::Finalize(object) => {
            send(client, Method::PUT, &format!("{}/finalize", object_path(object)?), JSON, object).await?;
        }
        Write::Patch(target, patch) => {
            send(client, Method::PATCH, &path(target)?, MERGE, patch).await?;
        }
        Write::PatchStatus(target, patch) => {
            send(client, Method::PATCH, &format!("{}/status", path(target)?), MERGE, patch).await?;
        }
        Write::Delete(target, uid, propagation) => {
            let options = json!({"propagationPolicy": policy(*propagation), "preconditions": {"uid": uid}});
            delete(client, target, uid, options, made).await?;
        }
        Write::DeleteAtOnce(target, uid) => {
            let options = json!({"gracePeriodSeconds": 0, "preconditions": {"uid": uid}});
            delete(client, target, uid, options, made).await?;
        }
        Write::DeleteAt(target, uid, version, propagation) => {
            let conditions = json!({"uid": uid, "resourceVersion": version});
            let options = json!({"propagationPolicy": policy(*propagation), "preconditions": conditions});
            delete(client, target, uid, options, made).await?;
        }
        Write::Confirm(target, uid) => confirm(client, target, uid).await?,
        Write::DeleteAll(api_version, kind, namespace) => {
            send(client, Method::DELETE, &collection(api_version, kind, namespace)?, JSON, &json!({})).await?;
        }
    }
    Ok(())
}

/// Makes writes in order and stops at the first that fails; what was made is told either way.
pub(crate) async fn execute(writer: &Writer, writes: &[Write]) -> (Made, Result<(), ExecuteError>) {
    let mut made = Made::default();
    for write in writes {
        if !writer.reign.may_act() {
            return (made, Err(ExecuteError::Deposed));
        }
        match make(&writer.client, write, &mut made).await {
            Ok(()) => {}
            // An object that is gone needs no more writes; its end is on its way to us.
            Err(error) if has_code(&error, 404) => return (made, Ok(())),
            Err(error) => return (made, Err(error)),
        }
    }
    (made, Ok(()))
}
