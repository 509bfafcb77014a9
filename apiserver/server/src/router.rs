//! From a path and a method to the handler that answers.

use std::sync::Arc;

use api::resources::{self, Resource};
use api::status::Status;
use apiserver_core::request::{self, ResourcePath};
use apiserver_core::{discovery, negotiate};
use http::{Method, Response};

use crate::app::App;
use crate::http::{Body, Call};
use crate::{docs, kubelet, read, scale, subresource, watch, write};

/// A request for a resource, resolved.
pub(crate) struct Target {
    pub(crate) resource: &'static Resource,
    /// The subresource's own entry, if one is named.
    pub(crate) sub: Option<&'static Resource>,
    /// Empty for cluster-scoped resources and for all namespaces.
    pub(crate) namespace: String,
    pub(crate) name: Option<String>,
}

impl Target {
    /// The object's name; collections were routed elsewhere.
    pub(crate) fn name(&self) -> &str {
        self.name.as_deref().unwrap_or("")
    }

    pub(crate) fn key(&self) -> String {
        apiserver_core::storage_form::key(self.resource, &self.namespace, self.name())
    }

    /// The 404 for the object.
    pub(crate) fn not_found(&self) -> Status {
        Status::not_found(self.resource.group, self.resource.name, self.name())
    }
}

/// Answers an authenticated request.
pub(crate) async fn route(app: Arc<App>, call: Call) -> Result<Response<Body>, Status> {
    let Some(path) = request::parse(&call.path) else {
        return docs::answer(&app, &call).await;
    };
    let target = resolve(path)?;
    let (verb, name) = (verb(&call, &target), target.resource.name);
    let result = dispatch(&app, call, target, verb).await;
    let code = result.as_ref().map_or_else(Status::code, |response| response.status().as_u16());
    app.metrics.count(verb, name, code);
    result
}

/// The 404 of a path that nothing serves. Kubernetes answers plain text here too.
pub(crate) fn unknown_path() -> Status {
    Status::not_found_generic("the server could not find the requested resource")
}

fn resolve(path: ResourcePath) -> Result<Target, Status> {
    let resource = resources::find(&path.group, &path.version, &path.resource).filter(|r| discovery::is_served(r));
    // `bindings` stands at the top too: an older form of pods/binding.
    let resource = resource.ok_or_else(unknown_path)?;
    let sub = match &path.subresource {
        None => None,
        Some(sub) => {
            let found = resources::find_subresource(&path.group, &path.version, &path.resource, sub);
            Some(found.filter(|r| discovery::is_served(r)).ok_or_else(unknown_path)?)
        }
    };
    if !resource.namespaced && path.namespace.is_some() {
        return Err(unknown_path());
    }
    if resource.namespaced && path.name.is_some() && path.namespace.is_none() {
        return Err(unknown_path());
    }
    Ok(Target { resource, sub, namespace: path.namespace.unwrap_or_default(), name: path.name })
}

/// The verb, as discovery and metrics call it.
fn verb(call: &Call, target: &Target) -> &'static str {
    match (&call.method, target.name.is_some()) {
        (&Method::GET | &Method::HEAD, true) => "get",
        (&Method::GET | &Method::HEAD, false) if call.query.flag("watch") => "watch",
        (&Method::GET | &Method::HEAD, false) => "list",
        (&Method::POST, _) => "create",
        (&Method::PUT, true) => "update",
        (&Method::PATCH, true) => "patch",
        (&Method::DELETE, true) => "delete",
        (&Method::DELETE, false) => "deletecollection",
        _ => "unknown",
    }
}

async fn dispatch(app: &Arc<App>, call: Call, target: Target, verb: &'static str) -> Result<Response<Body>, Status> {
    if let Some(sub) = target.sub {
        return dispatch_sub(app, call, target, sub, verb).await;
    }
    if !target.resource.has_verb(verb) {
        return Err(Status::method_not_allowed(target.resource.group, target.resource.name, verb));
    }
    match verb {
        "get" => read::get(app, &call, &target).await,
        "list" => read::list(app, &call, &target).await,
        "watch" => watch::watch(app, &call, &target).await,
        "create" if target.resource.name == "selfsubjectreviews" => subresource::self_review(&call, &target),
        "create" if target.name.is_none() => write::create(app, &call, &target).await,
        "update" => write::update(app, &call, &target).await,
        "patch" => write::patch(app, &call, &target).await,
        "delete" => write::delete(app, &call, &target).await,
        "deletecollection" => write::delete_collection(app, &call, &target).await,
        _ => Err(Status::method_not_allowed(target.resource.group, target.resource.name, verb)),
    }
}

async fn dispatch_sub(
    app: &Arc<App>,
    call: Call,
    target: Target,
    sub: &'static Resource,
    verb: &'static str,
) -> Result<Response<Body>, Status> {
    match (sub.subresource.unwrap_or(""), verb) {
        ("status", "get") => read::get(app, &call, &target).await,
        ("status", "update") => write::update(app, &call, &target).await,
        ("status", "patch") => write::patch(app, &call, &target).await,
        ("scale", "get") => scale::get(app, &call, &target).await,
        ("scale", "update") => scale::update(app, &call, &target).await,
        ("scale", "patch") => scale::patch(app, &call, &target).await,
        ("binding", "create") => subresource::bind(app, &call, &target).await,
        ("finalize", "update") => subresource::finalize(app, &call, &target).await,
        ("log", "get") => kubelet::logs(app, &call, &target).await,
        ("exec", "get" | "create") => kubelet::stream(app, call, &target, "exec").await,
        ("attach", "get" | "create") => kubelet::stream(app, call, &target, "attach").await,
        _ => Err(Status::method_not_allowed(
            target.resource.group,
            &format!("{}/{}", sub.name, sub.subresource.unwrap_or("")),
            verb,
        )),
    }
}

/// The form of the answer, or the 406 that says what could be had.
pub(crate) fn view(call: &Call) -> Result<apiserver_core::render::View, Status> {
    let accept = call.header(http::header::ACCEPT);
    let form = negotiate::form(accept).ok_or_else(|| {
        Status::not_acceptable(
            "only the following media types are accepted: application/json, application/yaml, application/vnd.kubernetes.protobuf",
        )
    })?;
    let include = apiserver_core::table::Include::parse(call.query.get("includeObject"))
        .ok_or_else(|| Status::bad_request("unrecognized includeObject value"))?;
    Ok(apiserver_core::render::View { form, include, now: crate::app::unix_now() })
}
