//! Answers: objects and lists in the form that was negotiated.

use api::resources::Resource;
use api::status::Status;
use bytes::Bytes;
use serde_json::{Map, Value, json};

use crate::negotiate::{Encoding, Form, Shape};
use crate::table::{self, Include};

/// An answer's bytes and what they are.
#[derive(Debug, Clone)]
pub struct Rendered {
    /// The `Content-Type`.
    pub content_type: String,
    /// The encoded answer.
    pub body: Bytes,
}

/// What rendering needs to know besides the object.
#[derive(Debug, Clone, Copy)]
pub struct View {
    /// Encoding and shape.
    pub form: Form,
    /// How much of each object a table row carries.
    pub include: Include,
    /// Now, in seconds since the epoch, for ages.
    pub now: i64,
}

impl View {
    /// Whether the answer is the object's own JSON, which can be spliced from stored bytes.
    pub fn is_plain(&self) -> bool {
        self.form == Form { encoding: Encoding::Json, shape: Shape::Object }
    }
}

/// The `Content-Type` of a form.
pub fn content_type(form: Form) -> String {
    form.encoding.media_type().to_owned()
}

/// The tree that is served for one object: itself, its table or its metadata.
pub fn shaped(resource: &Resource, view: View, object: Value) -> Value {
    match view.form.shape {
        Shape::Object => object,
        Shape::PartialMetadata(version) => table::partial(&object, version),
        Shape::Table(version) => {
            let row = table::row(resource, &object, view.now, view.include, version);
            let metadata = json!({"resourceVersion": object.pointer("/metadata/resourceVersion")});
            table_document(resource, version, metadata, vec![row])
        }
    }
}

fn table_document(resource: &Resource, version: &str, metadata: Value, rows: Vec<Value>) -> Value {
    json!({"kind": "Table", "apiVersion": format!("meta.k8s.io/{version}"), "metadata": metadata,
        "columnDefinitions": table::column_definitions(resource), "rows": rows})
}

/// The tree that is served for a list.
pub fn shaped_list(resource: &Resource, view: View, metadata: Value, objects: Vec<Value>) -> Value {
    match view.form.shape {
        Shape::Object => {
            json!({"kind": list_kind(resource), "apiVersion": resource.api_version(), "metadata": metadata, "items": objects})
        }
        Shape::PartialMetadata(version) => {
            let items: Vec<Value> = objects.iter().map(|o| table::partial(o, version)).collect();
            json!({"kind": "PartialObjectMetadataList", "apiVersion": format!("meta.k8s.io/{version}"),
                "metadata": metadata, "items": items})
        }
        Shape::Table(version) => {
            let rows = objects.iter().map(|o| table::row(resource, o, view.now, view.include, version)).collect();
            table_document(resource, version, metadata, rows)
        }
    }
}

/// The kind of a list of the resource.
pub fn list_kind(resource: &Resource) -> String {
    format!("{}List", resource.kind)
}

/// Metadata of a list.
pub fn list_metadata(revision: i64, continue_token: Option<String>, remaining: Option<i64>) -> Value {
    let mut metadata = Map::new();
    metadata.insert("resourceVersion".into(), revision.to_string().into());
    if let Some(token) = continue_token {
        metadata.insert("continue".into(), token.into());
    }
    if let Some(remaining) = remaining {
        metadata.insert("remainingItemCount".into(), remaining.into());
    }
    metadata.into()
}

/// Encodes a tree.
///
/// # Errors
/// 406 if the tree's kind has no protobuf form.
pub fn encode(encoding: Encoding, tree: &Value) -> Result<Rendered, Status> {
    let body = match encoding {
        Encoding::Json => serde_json::to_vec(tree).unwrap_or_default(),
        Encoding::Yaml => api::yaml::to_string(tree).into_bytes(),
        Encoding::Protobuf => protobuf(tree)?,
    };
    Ok(Rendered { content_type: encoding.media_type().to_owned(), body: body.into() })
}

/// Encodes a tree as protobuf in Kubernetes' envelope.
///
/// # Errors
/// 406 if its kind has no protobuf form.
pub fn protobuf(tree: &Value) -> Result<Vec<u8>, Status> {
    let text = |field: &str| tree.get(field).and_then(Value::as_str).unwrap_or("");
    let (api_version, kind) = (text("apiVersion"), text("kind"));
    api::protobuf::encode_object(tree)
        .map_err(|error| Status::not_acceptable(format!("{api_version} {kind} can't be encoded as protobuf: {error}")))
}
