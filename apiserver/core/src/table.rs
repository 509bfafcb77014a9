//! Tables: how `kubectl get` sees objects.
//!
//! Columns come from the facts table; a cell's text is made here, one function
//! a kind. A kind without printers of its own has Name and Created At, as in
//! Kubernetes. Source: `pkg/printers/internalversion/printers.go`.

mod cells;
mod pod;
mod workload;

pub use cells::duration;

use api::columns::{self, Column};
use api::resources::Resource;
use serde_json::{Value, json};

use crate::meta;

/// How much of each object a table row carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Include {
    /// Cells alone.
    None,
    /// PartialObjectMetadata.
    Metadata,
    /// The whole object.
    Object,
}

impl Include {
    /// Reads `includeObject`; `None` if the value is unknown.
    pub fn parse(text: Option<&str>) -> Option<Self> {
        match text {
            None | Some("" | "Metadata") => Some(Include::Metadata),
            Some("None") => Some(Include::None),
            Some("Object") => Some(Include::Object),
            Some(_) => None,
        }
    }
}

/// The table's columns, as the client reads them.
pub fn column_definitions(resource: &Resource) -> Value {
    let columns = columns::columns(resource.kind);
    if columns.is_empty() {
        return json!([
            {"name": "Name", "type": "string", "format": "name", "description": "", "priority": 0},
            {"name": "Created At", "type": "date", "format": "", "description": "", "priority": 0},
        ]);
    }
    let definition = |c: &Column| json!({"name": c.name, "type": c.ty, "format": c.format, "description": "", "priority": c.priority});
    columns.iter().map(definition).collect::<Vec<_>>().into()
}

/// The row of one object. `now`: seconds since the epoch, for ages.
pub fn row(resource: &Resource, object: &Value, now: i64, include: Include, version: &str) -> Value {
    let columns = columns::columns(resource.kind);
    let cells: Vec<Value> = if columns.is_empty() {
        vec![meta::name(object).into(), meta::field(object, "creationTimestamp").into()]
    } else {
        columns.iter().map(|c| cells::cell(resource.kind, c.name, object, now)).collect()
    };
    let object = match include {
        Include::None => Value::Null,
        Include::Object => object.clone(),
        Include::Metadata => partial(object, version),
    };
    let mut row = json!({"cells": cells});
    if !object.is_null() {
        row["object"] = object;
    }
    row
}

/// An object's metadata alone, as PartialObjectMetadata.
pub fn partial(object: &Value, version: &str) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": format!("meta.k8s.io/{version}"),
        "metadata": object.get("metadata")})
}

#[cfg(test)]
mod tests;
