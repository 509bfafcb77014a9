//! OpenAPI documents, made from the schema table: v3 per group version, v2 whole.
//!
//! kubectl reads them for `explain`, for client-side validation before 1.27's
//! server-side one, and for the merge keys that `apply` patches by. They are made
//! when asked for and not kept: an immutable hash lets clients cache them.
//!
//! Invariant: every `$ref` in a document points into the same document.

mod gnostic;
mod operations;
mod schemas;

use std::collections::BTreeSet;

use api::schema::TypeId;
use serde_json::{Map, Value, json};

use crate::discovery;

pub(crate) use schemas::Dialect;

/// Bumped when the documents change though the table doesn't.
const REVISION: &str = "1";

/// The hash in a document's URL and ETag: it changes when the program's documents may have.
pub fn hash(document: &str) -> String {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in [env!("CARGO_PKG_VERSION"), REVISION, document].join("\0").bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    format!("{hash:016X}")
}

fn path_of(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

/// `GET /openapi/v3`: where the documents of the group versions are.
pub fn v3_index() -> Value {
    let mut paths = Map::new();
    for (group, versions) in discovery::groups() {
        for version in versions {
            let path = path_of(group, version);
            let url = format!("/openapi/v3/{path}?hash={}", hash(&format!("{group}/{version}")));
            paths.insert(path, json!({"serverRelativeURL": url}));
        }
    }
    json!({"paths": paths})
}

/// `GET /openapi/v3/…`: the document of a group version; `None` if it isn't served.
pub fn v3(group: &str, version: &str) -> Option<Value> {
    let mut roots = BTreeSet::new();
    let paths = operations::paths(group, version, Dialect::V3, &mut roots)?;
    let schemas = schemas::closure(&roots, Dialect::V3);
    Some(json!({"openapi": "3.0.0", "info": {"title": "Kubernetes", "version": "v1.36.0"},
        "paths": paths, "components": {"schemas": schemas}}))
}

/// `GET /openapi/v2` as JSON.
pub fn v2() -> Value {
    let mut roots: BTreeSet<TypeId> = BTreeSet::new();
    let mut paths = Map::new();
    for (group, versions) in discovery::groups() {
        for version in versions {
            paths.extend(operations::paths(group, version, Dialect::V2, &mut roots).unwrap_or_default());
        }
    }
    let definitions = schemas::closure(&roots, Dialect::V2);
    json!({"swagger": "2.0", "info": {"title": "Kubernetes", "version": "v1.36.0"},
        "paths": paths, "definitions": definitions})
}

/// `GET /openapi/v2` as gnostic protobuf.
pub fn v2_protobuf() -> Vec<u8> {
    gnostic::document(&v2())
}

#[cfg(test)]
mod tests;
