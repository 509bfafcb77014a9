//! OpenAPI v2 in gnostic's protobuf form, which kubectl before 1.29 insists on.
//!
//! Field numbers are those of gnostic's `openapiv2/OpenAPIv2.proto`; only what
//! our own v2 document holds is written.

use serde_json::{Map, Value};

/// A protobuf message being written. All messages here are length-delimited.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push((value as u8 & 0x7f) | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn bytes(&mut self, field: u64, bytes: &[u8]) {
        self.varint(field << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn message(&mut self, field: u64, inner: Message) {
        self.bytes(field, &inner.0);
    }

    /// A string field of `object`, if it is there.
    fn text(&mut self, field: u64, object: &Value, name: &str) {
        if let Some(text) = object.get(name).and_then(Value::as_str) {
            self.bytes(field, text.as_bytes());
        }
    }

    fn texts(&mut self, field: u64, object: &Value, name: &str) {
        for text in object.get(name).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str) {
            self.bytes(field, text.as_bytes());
        }
    }

    fn flag(&mut self, field: u64, object: &Value, name: &str) {
        if object.get(name).and_then(Value::as_bool) == Some(true) {
            self.varint(field << 3);
            self.varint(1);
        }
    }

    /// `x-…` members as NamedAny with YAML values; JSON is YAML.
    fn extensions(&mut self, field: u64, object: &Value) {
        for (name, value) in members(object).filter(|(name, _)| name.starts_with("x-")) {
            let mut any = Message::default();
            any.bytes(2, value.to_string().as_bytes());
            let mut named = Message::default();
            named.bytes(1, name.as_bytes());
            named.message(2, any);
            self.message(field, named);
        }
    }
}

fn members(object: &Value) -> impl Iterator<Item = (&String, &Value)> {
    object.as_object().into_iter().flat_map(Map::iter)
}

/// `NamedX { name = 1; value = 2 }`.
fn named(name: &str, value: Message) -> Message {
    let mut out = Message::default();
    out.bytes(1, name.as_bytes());
    out.message(2, value);
    out
}

/// Encodes a v2 document.
pub(super) fn document(v2: &Value) -> Vec<u8> {
    let mut out = Message::default();
    out.text(1, v2, "swagger");
    let mut info = Message::default();
    info.text(1, &v2["info"], "title");
    info.text(2, &v2["info"], "version");
    out.message(2, info);
    let mut paths = Message::default();
    for (path, item) in members(&v2["paths"]) {
        paths.message(2, named(path, path_item(item)));
    }
    out.message(8, paths);
    let mut definitions = Message::default();
    for (name, schema) in members(&v2["definitions"]) {
        definitions.message(1, named(name, schema_message(schema)));
    }
    out.message(9, definitions);
    out.0
}

fn path_item(item: &Value) -> Message {
    let mut out = Message::default();
    for (method, field) in [("get", 2), ("put", 3), ("post", 4), ("delete", 5), ("patch", 8)] {
        if let Some(operation) = item.get(method) {
            out.message(field, operation_message(operation));
        }
    }
    parameters(&mut out, 9, item);
    out
}

fn operation_message(operation: &Value) -> Message {
    let mut out = Message::default();
    out.texts(1, operation, "tags");
    out.text(5, operation, "operationId");
    out.texts(6, operation, "produces");
    out.texts(7, operation, "consumes");
    parameters(&mut out, 8, operation);
    let mut responses = Message::default();
    for (code, response) in members(&operation["responses"]) {
        let mut body = Message::default();
        body.text(1, response, "description");
        if let Some(schema) = response.get("schema") {
            let mut item = Message::default();
            item.message(1, schema_message(schema));
            body.message(2, item);
        }
        let mut value = Message::default();
        value.message(1, body);
        responses.message(1, named(code, value));
    }
    out.message(9, responses);
    out.extensions(13, operation);
    out
}

fn parameters(out: &mut Message, field: u64, object: &Value) {
    for parameter in object.get("parameters").and_then(Value::as_array).into_iter().flatten() {
        let mut inner = Message::default();
        match parameter["in"].as_str() {
            Some("body") => inner.message(1, body_parameter(parameter)),
            Some("path") => inner.message(2, oneof(4, plain_parameter(parameter, 5, 20))),
            _ => inner.message(2, oneof(3, plain_parameter(parameter, 6, 20))),
        }
        out.message(field, oneof(1, inner));
    }
}

fn oneof(field: u64, inner: Message) -> Message {
    let mut out = Message::default();
    out.message(field, inner);
    out
}

fn body_parameter(parameter: &Value) -> Message {
    let mut out = Message::default();
    out.text(2, parameter, "name");
    out.text(3, parameter, "in");
    out.flag(4, parameter, "required");
    out.message(5, schema_message(&parameter["schema"]));
    out
}

/// A query or path parameter: the two messages differ in the number of `type`.
fn plain_parameter(parameter: &Value, type_field: u64, unique_field: u64) -> Message {
    let mut out = Message::default();
    out.flag(1, parameter, "required");
    out.text(2, parameter, "in");
    out.text(4, parameter, "name");
    out.text(type_field, parameter, "type");
    out.flag(if type_field == 5 { unique_field - 1 } else { unique_field }, parameter, "uniqueItems");
    out
}

fn schema_message(schema: &Value) -> Message {
    let mut out = Message::default();
    out.text(1, schema, "$ref");
    out.text(2, schema, "format");
    out.text(4, schema, "description");
    out.texts(19, schema, "required");
    if let Some(additional) = schema.get("additionalProperties") {
        out.message(21, oneof(1, schema_message(additional)));
    }
    if schema.get("type").is_some() {
        let mut ty = Message::default();
        ty.text(1, schema, "type");
        out.message(22, ty);
    }
    if let Some(items) = schema.get("items") {
        out.message(23, oneof(1, schema_message(items)));
    }
    if let Some(properties) = schema.get("properties") {
        let mut all = Message::default();
        for (name, property) in members(properties) {
            all.message(1, named(name, schema_message(property)));
        }
        out.message(25, all);
    }
    out.extensions(31, schema);
    out
}
