//! Paths and operations of the served resources.

use std::collections::BTreeSet;

use api::resources::{self, Resource};
use api::schema::TypeId;
use serde_json::{Map, Value, json};

use super::schemas::{Dialect, list_name, reference};
use crate::discovery;

/// The paths of a group version; `None` if nothing of it is served.
/// Adds the types that the operations refer to.
pub(super) fn paths(
    group: &str,
    version: &str,
    dialect: Dialect,
    types: &mut BTreeSet<TypeId>,
) -> Option<Map<String, Value>> {
    let mut out = Map::new();
    let served = resources::of_group_version(group, version).filter(|r| discovery::is_served(r));
    for resource in served {
        let Some(ty) = resource.ty else { continue };
        types.insert(ty);
        let root = if group.is_empty() { format!("/api/{version}") } else { format!("/apis/{group}/{version}") };
        let scope = if resource.namespaced { "/namespaces/{namespace}" } else { "" };
        let collection = format!("{root}{scope}/{}", resource.name);
        let place = match resource.subresource {
            Some(sub) => format!("{collection}/{{name}}/{sub}"),
            None => format!("{collection}/{{name}}"),
        };
        if resource.subresource.is_none() {
            merge(&mut out, collection, operations(resource, ty, dialect, &COLLECTION_VERBS));
        }
        let verbs: &[_] = if resource.subresource.is_some() { &SUB_VERBS } else { &OBJECT_VERBS };
        merge(&mut out, place, operations(resource, ty, dialect, verbs));
    }
    (!out.is_empty()).then_some(out)
}

fn merge(out: &mut Map<String, Value>, path: String, mut item: Map<String, Value>) {
    if item.is_empty() {
        return;
    }
    let mut parameters = Vec::new();
    for name in ["name", "namespace"] {
        if path.contains(&format!("{{{name}}}")) {
            parameters.push(name);
        }
    }
    let dialect = if item.values().any(|op| op.get("produces").is_some()) { Dialect::V2 } else { Dialect::V3 };
    if !parameters.is_empty() {
        let list: Vec<Value> = parameters.iter().map(|name| parameter("path", name, true, dialect)).collect();
        item.insert("parameters".into(), list.into());
    }
    out.insert(path, item.into());
}

/// (HTTP method, verb in the table, action in the OpenAPI extension).
type Verb = (&'static str, &'static str, &'static str);
const COLLECTION_VERBS: [Verb; 3] =
    [("get", "list", "list"), ("post", "create", "post"), ("delete", "deletecollection", "deletecollection")];
const OBJECT_VERBS: [Verb; 4] =
    [("get", "get", "get"), ("put", "update", "put"), ("patch", "patch", "patch"), ("delete", "delete", "delete")];
const SUB_VERBS: [Verb; 4] =
    [("get", "get", "get"), ("put", "update", "put"), ("patch", "patch", "patch"), ("post", "create", "post")];

fn operations(resource: &Resource, ty: TypeId, dialect: Dialect, verbs: &[Verb]) -> Map<String, Value> {
    let mut out = Map::new();
    for (method, verb, action) in verbs {
        if resource.has_verb(verb) {
            out.insert((*method).to_owned(), operation(resource, ty, dialect, method, action));
        }
    }
    out
}

fn operation(resource: &Resource, ty: TypeId, dialect: Dialect, method: &str, action: &str) -> Value {
    let (group, version) =
        (resource.kind_group.unwrap_or(resource.group), resource.kind_version.unwrap_or(resource.version));
    let answer = if action == "list" { list_name(ty) } else { ty.full_name() };
    let kind = json!({"group": group, "version": version, "kind": resource.kind});
    let sub = resource.subresource.map(capital).unwrap_or_default();
    let id = format!(
        "{action}{}{}{}{sub}",
        capital(resource.group.split('.').next().unwrap_or("")),
        capital(resource.version),
        resource.kind
    );
    let mut parameters: Vec<Value> =
        query_parameters(action).iter().map(|name| parameter("query", name, false, dialect)).collect();
    let body = matches!(method, "post" | "put" | "patch");
    let media = if method == "patch" { &PATCH_MEDIA[..] } else { &MEDIA[..] };
    let mut out = json!({"operationId": id, "tags": [format!("{}_{}", resource.group, resource.version)],
        "x-kubernetes-action": action, "x-kubernetes-group-version-kind": kind});
    match dialect {
        Dialect::V2 => {
            if body {
                parameters.push(
                    json!({"in": "body", "name": "body", "required": true, "schema": body_schema(method, ty, dialect)}),
                );
            }
            out["consumes"] = if method == "patch" { json!(PATCH_MEDIA) } else { json!(["*/*"]) };
            out["produces"] = json!(MEDIA);
            out["responses"] = json!({"200": {"description": "OK", "schema": reference(&answer, dialect)}});
        }
        Dialect::V3 => {
            if body {
                let content: Map<String, Value> = media
                    .iter()
                    .map(|m| ((*m).to_owned(), json!({"schema": body_schema(method, ty, dialect)})))
                    .collect();
                out["requestBody"] = json!({"content": content, "required": true});
            }
            let content = json!({"application/json": {"schema": reference(&answer, dialect)}});
            out["responses"] = json!({"200": {"description": "OK", "content": content}});
        }
    }
    if !parameters.is_empty() {
        out["parameters"] = parameters.into();
    }
    out
}

const MEDIA: [&str; 3] = ["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"];
const PATCH_MEDIA: [&str; 3] =
    ["application/json-patch+json", "application/merge-patch+json", "application/strategic-merge-patch+json"];

fn body_schema(method: &str, ty: TypeId, dialect: Dialect) -> Value {
    if method == "patch" { json!({"type": "object"}) } else { reference(&ty.full_name(), dialect) }
}

fn query_parameters(action: &str) -> &'static [&'static str] {
    match action {
        "list" => &[
            "allowWatchBookmarks",
            "continue",
            "fieldSelector",
            "labelSelector",
            "limit",
            "resourceVersion",
            "resourceVersionMatch",
            "sendInitialEvents",
            "timeoutSeconds",
            "watch",
        ],
        "post" | "put" => &["dryRun", "fieldManager", "fieldValidation"],
        "patch" => &["dryRun", "fieldManager", "fieldValidation", "force"],
        "delete" => &["dryRun", "gracePeriodSeconds", "orphanDependents", "propagationPolicy"],
        "deletecollection" => &[
            "continue",
            "dryRun",
            "fieldSelector",
            "gracePeriodSeconds",
            "labelSelector",
            "limit",
            "propagationPolicy",
        ],
        _ => &[],
    }
}

fn parameter(place: &str, name: &str, required: bool, dialect: Dialect) -> Value {
    let ty = match name {
        "limit" | "timeoutSeconds" | "gracePeriodSeconds" => "integer",
        "watch" | "allowWatchBookmarks" | "sendInitialEvents" | "force" | "orphanDependents" => "boolean",
        _ => "string",
    };
    let mut out = json!({"in": place, "name": name});
    if required {
        out["required"] = true.into();
    }
    match dialect {
        Dialect::V2 => {
            out["type"] = ty.into();
            out["uniqueItems"] = true.into();
        }
        Dialect::V3 => out["schema"] = json!({"type": ty, "uniqueItems": true}),
    }
    out
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}
