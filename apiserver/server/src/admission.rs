//! What must hold of the cluster before an object may be created.
//!
//! Source: Kubernetes' NamespaceLifecycle admission.

use api::resources::Resource;
use api::status::Status;
use apiserver_core::{meta, storage_form, stored};

use crate::app::App;
use crate::read::storage_status;

/// Checks that the namespace exists and isn't being emptied.
pub(crate) async fn on_create(app: &App, resource: &Resource, namespace: &str) -> Result<(), Status> {
    if !resource.namespaced {
        return Ok(());
    }
    let Some(namespaces) = api::resources::find("", "v1", "namespaces") else {
        return Err(Status::internal("the schema has no namespaces".to_owned()));
    };
    let found = app.storage.get(&storage_form::key(namespaces, "", namespace)).await.map_err(storage_status)?;
    let found = found.ok_or_else(|| Status::not_found("", "namespaces", namespace))?;
    let object = stored::decode(&found.value, found.revision).map_err(|e| Status::internal(e.to_string()))?;
    // Events tell what happens while a namespace is emptied; nothing else may be added.
    if meta::is_deleting(&object) && resource.name != "events" {
        let why = format!("unable to create new content in namespace {namespace} because it is being terminated");
        return Err(Status::forbidden(resource.group, resource.name, "", &why));
    }
    Ok(())
}
