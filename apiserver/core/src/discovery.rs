//! Discovery documents: which groups, versions and resources are served.
//!
//! Only what is served is listed, so that no client is led to a 404.
//! Source: `apidiscovery.k8s.io/v2` and `meta/v1` APIResourceList.

use api::resources::{self, Resource};
use serde_json::{Value, json};

/// Subresources besides `status` that the apiserver serves.
const SERVED_SUBRESOURCES: [(&str, &str); 9] = [
    ("pods", "attach"),
    ("pods", "binding"),
    ("pods", "exec"),
    ("pods", "log"),
    ("namespaces", "finalize"),
    ("deployments", "scale"),
    ("replicasets", "scale"),
    ("statefulsets", "scale"),
    ("replicationcontrollers", "scale"),
];

/// Whether a resource of the table is served: what can be stored and listed, status, and the list above.
pub fn is_served(resource: &Resource) -> bool {
    match resource.subresource {
        None => resource.has_verb("list") && resource.has_verb("create") || resource.name == "selfsubjectreviews",
        Some("status") => true,
        Some(sub) => SERVED_SUBRESOURCES.contains(&(resource.name, sub)),
    }
}

fn served(group: &str, version: &str) -> impl Iterator<Item = &'static Resource> {
    resources::of_group_version(group, version).filter(|r| is_served(r))
}

/// Group versions that are served, in discovery order: group, then its versions, best first.
pub fn groups() -> Vec<(&'static str, Vec<&'static str>)> {
    let mut groups: Vec<(&str, Vec<&str>)> = Vec::new();
    for gv in resources::group_versions() {
        let (group, version) = (gv.group, gv.version);
        if served(group, version).next().is_none() {
            continue;
        }
        match groups.iter_mut().find(|(name, _)| *name == group) {
            Some((_, versions)) => versions.push(version),
            None => groups.push((group, vec![version])),
        }
    }
    groups
}

fn group_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

/// `GET /api`.
pub fn core_versions(server_address: &str) -> Value {
    json!({"kind": "APIVersions", "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": server_address}]})
}

/// One group, as `/apis` and `/apis/GROUP` show it.
fn group_document(name: &str, versions: &[&str]) -> Value {
    let entry = |version: &&str| json!({"groupVersion": group_version(name, version), "version": version});
    let all: Vec<Value> = versions.iter().map(entry).collect();
    json!({"name": name, "versions": all, "preferredVersion": all.first()})
}

/// `GET /apis`.
pub fn group_list() -> Value {
    let groups: Vec<Value> = groups()
        .iter()
        .filter(|(name, _)| !name.is_empty())
        .map(|(name, versions)| group_document(name, versions))
        .collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// `GET /apis/GROUP`; `None` if the group isn't served.
pub fn group(name: &str) -> Option<Value> {
    let (name, versions) = groups().into_iter().find(|(n, _)| *n == name && !n.is_empty())?;
    let mut document = group_document(name, &versions);
    document["kind"] = "APIGroup".into();
    document["apiVersion"] = "v1".into();
    Some(document)
}

/// `GET /api/v1` or `/apis/GROUP/VERSION`; `None` if it isn't served.
pub fn resource_list(group: &str, version: &str) -> Option<Value> {
    let list: Vec<Value> = served(group, version).map(resource_document).collect();
    if list.is_empty() {
        return None;
    }
    Some(json!({"kind": "APIResourceList", "apiVersion": "v1",
        "groupVersion": group_version(group, version), "resources": list}))
}

fn resource_document(resource: &Resource) -> Value {
    let mut document = json!({
        "name": resource.subresource.map_or(resource.name.to_owned(), |sub| format!("{}/{sub}", resource.name)),
        "singularName": resource.singular,
        "namespaced": resource.namespaced,
        "kind": resource.kind,
        "verbs": resource.verbs,
    });
    if !resource.short_names.is_empty() {
        document["shortNames"] = json!(resource.short_names);
    }
    if !resource.categories.is_empty() {
        document["categories"] = json!(resource.categories);
    }
    if !resource.storage_version_hash.is_empty() {
        document["storageVersionHash"] = resource.storage_version_hash.into();
    }
    if let Some(version) = resource.kind_version {
        document["group"] = resource.kind_group.unwrap_or(resource.group).into();
        document["version"] = version.into();
    }
    document
}

/// The aggregated document for `/api` (`core`) or `/apis`, in `v2` or `v2beta1`.
pub fn aggregated(core: bool, version: &str) -> Value {
    let items: Vec<Value> = groups()
        .iter()
        .filter(|(name, _)| name.is_empty() == core)
        .map(|(name, versions)| {
            let versions: Vec<Value> = versions.iter().map(|v| aggregated_version(name, v)).collect();
            let metadata = if core { json!({}) } else { json!({"name": name}) };
            json!({"metadata": metadata, "versions": versions})
        })
        .collect();
    json!({"kind": "APIGroupDiscoveryList", "apiVersion": format!("apidiscovery.k8s.io/{version}"),
        "metadata": {}, "items": items})
}

fn aggregated_version(group: &str, version: &str) -> Value {
    let subresources = |parent: &Resource| -> Vec<Value> {
        served(group, version)
            .filter(|r| r.subresource.is_some() && r.name == parent.name)
            .map(|r| json!({"subresource": r.subresource, "responseKind": response_kind(r), "verbs": r.verbs}))
            .collect()
    };
    let list: Vec<Value> = served(group, version)
        .filter(|r| r.subresource.is_none())
        .map(|resource| {
            let mut document = json!({
                "resource": resource.name,
                "responseKind": response_kind(resource),
                "scope": if resource.namespaced { "Namespaced" } else { "Cluster" },
                "singularResource": resource.singular,
                "verbs": resource.verbs,
            });
            if !resource.short_names.is_empty() {
                document["shortNames"] = json!(resource.short_names);
            }
            if !resource.categories.is_empty() {
                document["categories"] = json!(resource.categories);
            }
            let subresources = subresources(resource);
            if !subresources.is_empty() {
                document["subresources"] = subresources.into();
            }
            document
        })
        .collect();
    json!({"version": version, "freshness": "Current", "resources": list})
}

fn response_kind(resource: &Resource) -> Value {
    let (group, version) =
        (resource.kind_group.unwrap_or(resource.group), resource.kind_version.unwrap_or(resource.version));
    json!({"group": group, "version": version, "kind": resource.kind})
}
