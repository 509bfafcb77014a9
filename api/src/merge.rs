//! Patches: RFC 6902, RFC 7396 and Kubernetes' strategic merge.

mod strategic;
#[cfg(test)]
mod tests;

pub use strategic::strategic;

use json_patch::PatchOperation;
use serde_json::Value;

use crate::resources::Resource;
use crate::status::{Cause, Status};

/// Operations a JSON patch may hold, as in Kubernetes.
const OPERATIONS_MAX: usize = 10_000;
/// Levels of objects and lists in each other; a deeper one could not be read again.
const NESTING_MAX: usize = 127;
/// What a JSON patch may copy in all: as much as a request may bring. Copies of copies would grow without a bound.
const COPIED_BYTES_MAX: usize = 3 << 20;

/// Why a patch can't be applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    /// It isn't a patch.
    #[error("error decoding patch: {0}")]
    Syntax(String),
    /// It doesn't fit the object.
    #[error("{0}")]
    Apply(String),
    /// A `test` operation failed or a path isn't there.
    #[error("the server rejected our request due to an error in our request: {0}")]
    Rejected(String),
}

impl PatchError {
    /// The answer to the client: 400, 413 or 422 as upstream gives them.
    #[must_use]
    pub fn to_status(&self, resource: &Resource, name: &str) -> Status {
        match self {
            PatchError::Syntax(_) | PatchError::Apply(_) => Status::bad_request(self.to_string()),
            PatchError::Rejected(why) => {
                let cause = Cause::new("FieldValueInvalid", "patch", format!("Invalid value: {why}"));
                Status::invalid(resource.group, resource.kind, name, vec![cause])
            }
        }
    }
}

/// Applies a JSON patch.
///
/// # Errors
/// See [`PatchError`]; the object is then unchanged.
pub fn json_patch(object: &mut Value, patch: &[u8]) -> Result<(), PatchError> {
    let patch: json_patch::Patch = serde_json::from_slice(patch).map_err(|e| PatchError::Syntax(e.to_string()))?;
    if patch.0.len() > OPERATIONS_MAX {
        return Err(PatchError::Apply(format!(
            "The allowed maximum operations in a JSON patch is {OPERATIONS_MAX}, got {}",
            patch.0.len()
        )));
    }
    // On a copy: the library's own undoing panics after some patches that move what they moved already.
    let mut changed = object.clone();
    let mut copied = 0;
    for operation in &patch.0 {
        copied += bounded(&changed, operation, copied)?;
        let one = std::slice::from_ref(operation);
        json_patch::patch_unsafe(&mut changed, one).map_err(|e| PatchError::Rejected(e.to_string()))?;
    }
    *object = changed;
    Ok(())
}

/// Refuses what would copy too much in all, or nest too deeply; returns what is copied.
fn bounded(object: &Value, operation: &PatchOperation, copied: usize) -> Result<usize, PatchError> {
    let (path, value) = match operation {
        PatchOperation::Add(add) => (&add.path, Some(&add.value)),
        PatchOperation::Replace(replace) => (&replace.path, Some(&replace.value)),
        PatchOperation::Copy(copy) => (&copy.path, object.pointer(copy.from.as_str())),
        PatchOperation::Move(moved) => (&moved.path, object.pointer(moved.from.as_str())),
        PatchOperation::Remove(_) | PatchOperation::Test(_) => return Ok(0),
    };
    if path.count() + value.map_or(0, nesting) > NESTING_MAX {
        return Err(PatchError::Rejected(format!("an object may be nested {NESTING_MAX} levels deep")));
    }
    let bytes = match operation {
        PatchOperation::Copy(_) => value.map_or(0, |value| value.to_string().len()),
        _ => 0,
    };
    let all = copied + bytes;
    if all > COPIED_BYTES_MAX {
        return Err(PatchError::Rejected(format!(
            "Unable to complete the copy, the accumulated size increase of copy is {all}, exceeding the limit {COPIED_BYTES_MAX}"
        )));
    }
    Ok(bytes)
}

fn nesting(value: &Value) -> usize {
    let deepest = match value {
        Value::Array(list) => list.iter().map(nesting).max(),
        Value::Object(map) => map.values().map(nesting).max(),
        _ => return 0,
    };
    1 + deepest.unwrap_or(0)
}

/// Applies a JSON merge patch (RFC 7396). Keeps the order of the object's keys.
pub fn merge_patch(object: &mut Value, patch: &Value) {
    let Value::Object(changes) = patch else {
        *object = patch.clone();
        return;
    };
    if !object.is_object() {
        *object = Value::Object(serde_json::Map::new());
    }
    let Value::Object(map) = object else { return };
    for (key, change) in changes {
        if change.is_null() {
            map.shift_remove(key);
        } else {
            merge_patch(map.entry(key.clone()).or_insert(Value::Null), change);
        }
    }
}
