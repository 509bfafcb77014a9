//! Reading and writing `metadata` of an object tree.

use serde_json::{Map, Value};

/// The `metadata` map, if the object has one.
pub fn metadata(object: &Value) -> Option<&Map<String, Value>> {
    object.get("metadata")?.as_object()
}

/// The `metadata` map; made if absent (or not a map).
pub fn metadata_mut(object: &mut Value) -> &mut Map<String, Value> {
    if !object.is_object() {
        *object = Value::Object(Map::new());
    }
    object_entry(object, "metadata")
}

/// The map under `key`; made if absent (or not a map). `object` must be a map.
fn object_entry<'a>(object: &'a mut Value, key: &str) -> &'a mut Map<String, Value> {
    let slot = &mut object[key];
    if !slot.is_object() {
        *slot = Value::Object(Map::new());
    }
    match slot {
        Value::Object(map) => map,
        _ => unreachable!("the slot was just made a map"),
    }
}

/// A string field of `metadata`; empty if absent.
pub fn field<'a>(object: &'a Value, name: &str) -> &'a str {
    metadata(object).and_then(|m| m.get(name)).and_then(Value::as_str).unwrap_or("")
}

/// `metadata.name`; empty if absent.
pub fn name(object: &Value) -> &str {
    field(object, "name")
}

/// `metadata.namespace`; empty if absent.
pub fn namespace(object: &Value) -> &str {
    field(object, "namespace")
}

/// `metadata.uid`; empty if absent.
pub fn uid(object: &Value) -> &str {
    field(object, "uid")
}

/// `metadata.resourceVersion`; empty if absent.
pub fn resource_version(object: &Value) -> &str {
    field(object, "resourceVersion")
}

/// Whether `metadata.deletionTimestamp` is set.
pub fn is_deleting(object: &Value) -> bool {
    !field(object, "deletionTimestamp").is_empty()
}

/// `metadata.finalizers`.
pub fn finalizers(object: &Value) -> Vec<&str> {
    metadata(object)
        .and_then(|m| m.get("finalizers"))
        .and_then(Value::as_array)
        .map(|list| list.iter().filter_map(Value::as_str).collect())
        .unwrap_or_default()
}

/// `metadata.deletionGracePeriodSeconds`, if set.
pub fn deletion_grace(object: &Value) -> Option<i64> {
    metadata(object)?.get("deletionGracePeriodSeconds")?.as_i64()
}

/// Sets a field of `metadata`.
pub fn set(object: &mut Value, name: &str, value: impl Into<Value>) {
    metadata_mut(object).insert(name.to_owned(), value.into());
}

/// Removes a field of `metadata`; keeps the order of the others.
pub fn unset(object: &mut Value, name: &str) {
    metadata_mut(object).shift_remove(name);
}

/// A string at a JSON pointer; empty if absent.
pub fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or("")
}

/// The elements of the list at a JSON pointer; empty if absent.
pub fn items<'a>(object: &'a Value, pointer: &str) -> &'a [Value] {
    object.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The keys and string values of the map at a JSON pointer.
pub fn string_map<'a>(object: &'a Value, pointer: &str) -> impl Iterator<Item = (&'a str, &'a str)> {
    object
        .pointer(pointer)
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .filter_map(|(k, v)| Some((k.as_str(), v.as_str()?)))
}
