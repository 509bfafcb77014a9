//! YAML output. Reading is part of [`crate::decode`].

use serde_json::Value;

/// The tree as a YAML document.
#[must_use]
pub fn to_string(tree: &Value) -> String {
    // A tree of JSON values has string keys and plain scalars: all of it is YAML.
    serde_norway::to_string(tree).unwrap_or_default()
}
