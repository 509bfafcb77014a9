//! How an object lies in the store: JSON in one canonical order, so that an
//! answer can be spliced from the stored bytes without decoding them.
//!
//! Stored bytes begin `{"kind":K,"apiVersion":V,"metadata":{"name":…` and never
//! hold a resourceVersion: that is the store's mod revision, put in when read.
//!
//! Invariants
//!   S1  `metadata` is the third key and is never empty (it has a name).
//!   S2  No `metadata.resourceVersion` in stored bytes.

use crate::meta;
use bytes::{BufMut, Bytes, BytesMut};
use serde_json::{Map, Value};

/// Encodes an object for the store, without its resourceVersion.
///
/// # Panics
/// If the object has no `metadata.name`: callers validate names before they store.
pub fn encode(object: &Value, api_version: &str, kind: &str) -> Bytes {
    assert!(!meta::name(object).is_empty(), "S1: an object without a name reached the store");
    let mut ordered = Map::new();
    ordered.insert("kind".into(), kind.into());
    ordered.insert("apiVersion".into(), api_version.into());
    let mut metadata = Map::new();
    metadata.insert("name".into(), meta::name(object).into());
    for (key, value) in meta::metadata(object).into_iter().flatten() {
        if key != "name" && key != "resourceVersion" {
            metadata.insert(key.clone(), value.clone());
        }
    }
    ordered.insert("metadata".into(), metadata.into());
    for (key, value) in object.as_object().into_iter().flatten() {
        if !matches!(key.as_str(), "kind" | "apiVersion" | "metadata") {
            ordered.insert(key.clone(), value.clone());
        }
    }
    // Writing a tree of JSON values to memory cannot fail.
    Bytes::from(serde_json::to_vec(&Value::Object(ordered)).unwrap_or_default())
}

/// Decodes stored bytes and puts the resourceVersion in.
///
/// # Errors
/// If the bytes are not a JSON object: the store was written by something else.
pub fn decode(stored: &[u8], revision: i64) -> Result<Value, serde_json::Error> {
    let mut object: Value = serde_json::from_slice(stored)?;
    meta::set(&mut object, "resourceVersion", revision.to_string());
    Ok(object)
}

/// Where the stored bytes' metadata begins, just behind its brace.
fn metadata_start(stored: &[u8]) -> Option<usize> {
    const OPEN: &[u8] = b"\"metadata\":{";
    // kind and apiVersion come first and are short: metadata opens early or the form is another.
    let head = &stored[..stored.len().min(256)];
    let at = head.windows(OPEN.len()).position(|w| w == OPEN)?;
    Some(at + OPEN.len())
}

/// Appends the object as it is served: stored bytes with the resourceVersion spliced in.
pub fn write_served(stored: &[u8], revision: i64, out: &mut BytesMut) {
    match metadata_start(stored) {
        Some(at) => {
            out.reserve(stored.len() + 48);
            out.put_slice(&stored[..at]);
            out.put_slice(b"\"resourceVersion\":\"");
            out.put_slice(revision.to_string().as_bytes());
            out.put_slice(b"\",");
            out.put_slice(&stored[at..]);
        }
        // Not ours by form, yet JSON: take the long way.
        None => match decode(stored, revision) {
            Ok(object) => out.put_slice(object.to_string().as_bytes()),
            Err(_) => out.put_slice(b"null"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn splicing_equals_decoding() {
        let object = json!({"apiVersion": "v1", "spec": {"metadata": {"x": 1}}, "kind": "Pod",
            "metadata": {"labels": {"a": "b"}, "name": "p", "resourceVersion": "7"}});
        let stored = encode(&object, "v1", "Pod");
        assert!(stored.starts_with(br#"{"kind":"Pod","apiVersion":"v1","metadata":{"name":"p","labels""#));
        let mut out = BytesMut::new();
        write_served(&stored, 42, &mut out);
        let spliced: Value = serde_json::from_slice(&out).expect("valid JSON");
        assert_eq!(spliced, decode(&stored, 42).expect("valid JSON"));
        assert_eq!(meta::resource_version(&spliced), "42");
    }
}
