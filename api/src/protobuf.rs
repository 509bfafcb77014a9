//! Protobuf, as Kubernetes writes it: objects transcoded to and from JSON by the table.
//!
//! An object on the wire is `k8s\0` and a `runtime.Unknown` that names its kind and
//! carries its message. Go writes every field that isn't a pointer, zero or not, so
//! a zero on the wire doesn't tell whether the author set it: on decoding, empty
//! strings and the zeros of fields known not to be pointers are left out, as Go's
//! JSON encoder would.
//!
//! Invariants
//!   P1  Reading never goes beyond the message it is in, nor deeper than [`DEPTH_MAX`].
//!   P2  Fields are written in tag order, maps in key order: equal objects have equal bytes.
//! Source: apimachinery `pkg/runtime/serializer/protobuf`, gogo-generated `generated.pb.go`.

mod read;
mod write;

use serde_json::Value;

use crate::gvk;
use crate::schema::{TypeId, kind_type};

/// Nesting that is read or written at most.
pub const DEPTH_MAX: usize = 100;
const MAGIC: &[u8] = b"k8s\0";

/// Why bytes are no object, or an object has no bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProtobufError {
    /// The first four bytes aren't Kubernetes'.
    #[error("provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]")]
    Magic,
    /// A message ends in the middle of a field.
    #[error("unexpected EOF")]
    Truncated,
    /// A field has another wire type than its schema.
    #[error("proto: wrong wireType = {0} for field {1}")]
    WireType(u64, u64),
    /// Nested too deeply.
    #[error("nested deeper than {DEPTH_MAX} messages")]
    Depth,
    /// A string isn't UTF-8.
    #[error("a string is not UTF-8")]
    Utf8,
    /// No such kind.
    #[error("no kind {kind:?} is registered for version {api_version:?}")]
    Kind {
        /// Its `apiVersion`.
        api_version: String,
        /// Its kind.
        kind: String,
    },
    /// A value that its schema doesn't allow.
    #[error("{0} holds a value of another type")]
    Value(String),
}

/// What the envelope says and holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope<'a> {
    /// `apiVersion` of the object.
    pub api_version: String,
    /// Its kind.
    pub kind: String,
    /// Its message.
    pub raw: &'a [u8],
}

/// Opens the envelope.
///
/// # Errors
/// See [`ProtobufError`].
pub fn decode_envelope(bytes: &[u8]) -> Result<Envelope<'_>, ProtobufError> {
    let body = bytes.strip_prefix(MAGIC).ok_or(ProtobufError::Magic)?;
    let mut envelope = Envelope { api_version: String::new(), kind: String::new(), raw: &[] };
    let mut reader = read::Reader::new(body);
    while let Some((tag, wire)) = reader.key()? {
        match (tag, wire) {
            (1, 2) => {
                let mut meta = read::Reader::new(reader.bytes()?);
                while let Some((tag, wire)) = meta.key()? {
                    match (tag, wire) {
                        (1, 2) => envelope.api_version = read::text(meta.bytes()?)?,
                        (2, 2) => envelope.kind = read::text(meta.bytes()?)?,
                        _ => meta.skip(wire)?,
                    }
                }
            }
            (2, 2) => envelope.raw = reader.bytes()?,
            _ => reader.skip(wire)?,
        }
    }
    Ok(envelope)
}

/// Puts a message into the envelope.
#[must_use]
pub fn encode_envelope(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
    let mut meta = Vec::new();
    write::bytes(1, api_version.as_bytes(), &mut meta);
    write::bytes(2, kind.as_bytes(), &mut meta);
    let mut out = MAGIC.to_vec();
    write::bytes(1, &meta, &mut out);
    write::bytes(2, raw, &mut out);
    write::bytes(3, b"", &mut out);
    write::bytes(4, b"", &mut out);
    out
}

/// Decodes a message of a type.
///
/// # Errors
/// See [`ProtobufError`].
pub fn decode(ty: TypeId, bytes: &[u8]) -> Result<Value, ProtobufError> {
    read::message(ty, bytes, 0).map(Value::Object)
}

/// Encodes an object as a message of a type. Fields that the type doesn't know are left out.
///
/// # Errors
/// See [`ProtobufError`].
pub fn encode(ty: TypeId, object: &Value) -> Result<Vec<u8>, ProtobufError> {
    let mut out = Vec::new();
    write::message(ty, object, 0, &mut out)?;
    Ok(out)
}

fn type_of(api_version: &str, kind: &str) -> Result<TypeId, ProtobufError> {
    let (group, version) = gvk::split_api_version(api_version);
    let unknown = || ProtobufError::Kind { api_version: api_version.to_owned(), kind: kind.to_owned() };
    kind_type(group, version, kind).ok_or_else(unknown)
}

/// Decodes an object in its envelope; kind and apiVersion are put in.
///
/// # Errors
/// See [`ProtobufError`].
pub fn decode_object(bytes: &[u8]) -> Result<Value, ProtobufError> {
    let envelope = decode_envelope(bytes)?;
    let ty = type_of(&envelope.api_version, &envelope.kind)?;
    let mut map = serde_json::Map::new();
    map.insert("kind".to_owned(), envelope.kind.into());
    map.insert("apiVersion".to_owned(), envelope.api_version.into());
    map.extend(read::message(ty, envelope.raw, 0)?);
    Ok(Value::Object(map))
}

/// Encodes an object in its envelope, by its own kind and apiVersion.
///
/// # Errors
/// See [`ProtobufError`].
pub fn encode_object(object: &Value) -> Result<Vec<u8>, ProtobufError> {
    let text = |field: &str| object.get(field).and_then(Value::as_str).unwrap_or("");
    let (api_version, kind) = (text("apiVersion"), text("kind"));
    let raw = encode(type_of(api_version, kind)?, object)?;
    Ok(encode_envelope(api_version, kind, &raw))
}

/// A frame of a protobuf watch: a length of four bytes, then a bare WatchEvent whose
/// object is in its envelope. Source: apimachinery `NewRawSerializer`, `LengthDelimitedFramer`.
#[must_use]
pub fn watch_frame(event: &str, object: &[u8]) -> Vec<u8> {
    let mut extension = Vec::new();
    write::bytes(1, object, &mut extension);
    let mut raw = Vec::new();
    write::bytes(1, event.as_bytes(), &mut raw);
    write::bytes(2, &extension, &mut raw);
    // An event is one object of at most a few MiB.
    let length = u32::try_from(raw.len()).unwrap_or(u32::MAX);
    let mut out = length.to_be_bytes().to_vec();
    out.extend_from_slice(&raw);
    out
}
