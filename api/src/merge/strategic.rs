//! Strategic merge patch: RFC 7396 with lists that merge by key.
//!
//! Directives: `$patch: replace|delete|merge`, `$retainKeys`,
//! `$setElementOrder/LIST`, `$deleteFromPrimitiveList/LIST`.
//!
//! Invariants
//!   M1  No directive reaches the result.
//!   M2  Elements that the patch doesn't name stay, in their order.
//! Source: apimachinery `pkg/util/strategicpatch/patch.go`.

use serde_json::{Map, Value};

use super::PatchError;
use crate::schema::{Element, Field, Shape, TypeId};

const PATCH: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const SET_ORDER: &str = "$setElementOrder/";
const DELETE_FROM: &str = "$deleteFromPrimitiveList/";

/// Merges `patch` into an object of type `ty`.
///
/// # Errors
/// [`PatchError::Apply`] for a directive or an element that can't be understood.
pub fn strategic(ty: TypeId, object: &mut Value, patch: &Value) -> Result<(), PatchError> {
    let Value::Object(changes) = patch else {
        return Err(PatchError::Apply("a strategic merge patch must be an object".to_owned()));
    };
    let Value::Object(map) = object else {
        return Err(PatchError::Apply("only an object can be patched".to_owned()));
    };
    merge_maps(Some(ty), map, changes)
}

fn bad<T>(why: impl Into<String>) -> Result<T, PatchError> {
    Err(PatchError::Apply(why.into()))
}

fn inner_type(shape: Shape) -> Option<TypeId> {
    if let Element::Ref(ty) = shape.element() { Some(ty) } else { None }
}

/// Merges the members of a patch into a map. Without a type (free-form content) lists are replaced.
fn merge_maps(ty: Option<TypeId>, map: &mut Map<String, Value>, patch: &Map<String, Value>) -> Result<(), PatchError> {
    match patch.get(PATCH).map(|d| d.as_str().unwrap_or("")) {
        None | Some("merge") => {}
        Some("replace") => {
            *map = cleaned_map(patch);
            return Ok(());
        }
        Some("delete") => {
            map.clear();
            return Ok(());
        }
        Some(other) => return bad(format!("Unknown patch type found: {other}")),
    }
    retain_keys(map, patch)?;
    for (key, change) in patch {
        if key == PATCH || key == RETAIN_KEYS || key.starts_with(SET_ORDER) {
            continue;
        }
        if let Some(list) = key.strip_prefix(DELETE_FROM) {
            delete_from(map, list, change)?;
            continue;
        }
        merge_member(ty, map, key, change, patch)?;
    }
    // Orders without changes of the list itself still apply.
    for (key, order) in patch {
        if let Some(list) = key.strip_prefix(SET_ORDER) {
            let field = ty.and_then(|ty| ty.field(list));
            if let (Some(Value::Array(items)), Some(order)) = (map.get_mut(list), order.as_array()) {
                reorder(field, items, order);
            }
        }
    }
    Ok(())
}

fn merge_member(
    ty: Option<TypeId>,
    map: &mut Map<String, Value>,
    key: &str,
    change: &Value,
    patch: &Map<String, Value>,
) -> Result<(), PatchError> {
    let field = ty.and_then(|ty| ty.field(key));
    match change {
        Value::Null => {
            map.shift_remove(key);
        }
        Value::Object(changes) => {
            let replaces = field.is_some_and(|f| f.patch_strategy.replace);
            // A member of a map (labels) has the map's own element as its schema.
            let inner = field.and_then(|f| if matches!(f.shape, Shape::One(_)) { inner_type(f.shape) } else { None });
            let slot = map.entry(key).or_insert_with(|| Value::Object(Map::new()));
            if replaces {
                *slot = Value::Object(cleaned_map(changes));
                return Ok(());
            }
            let deletes = changes.get(PATCH).and_then(Value::as_str) == Some("delete");
            if !slot.is_object() {
                *slot = Value::Object(Map::new());
            }
            match (field.map(|f| f.shape), slot) {
                (Some(Shape::Map(element)), Value::Object(target)) => merge_map_values(element, target, changes)?,
                (_, Value::Object(target)) => merge_maps(inner, target, changes)?,
                _ => {}
            }
            if deletes {
                map.shift_remove(key);
            }
        }
        Value::Array(items) => match field {
            Some(field) if field.patch_strategy.merge => {
                let slot = map.entry(key).or_insert_with(|| Value::Array(Vec::new()));
                if !slot.is_array() {
                    *slot = Value::Array(Vec::new());
                }
                if let Value::Array(target) = slot {
                    merge_lists(field, target, items)?;
                    // A list without an explicit order keeps what it had first.
                    if !patch.contains_key(&format!("{SET_ORDER}{key}")) {
                        return Ok(());
                    }
                }
            }
            _ => {
                map.insert(key.to_owned(), cleaned(change));
            }
        },
        scalar => {
            map.insert(key.to_owned(), scalar.clone());
        }
    }
    Ok(())
}

/// The values of a map with free keys, such as labels or resource limits.
fn merge_map_values(
    element: Element,
    target: &mut Map<String, Value>,
    changes: &Map<String, Value>,
) -> Result<(), PatchError> {
    let ty = if let Element::Ref(ty) = element { Some(ty) } else { None };
    if changes.get(PATCH).and_then(Value::as_str) == Some("replace") {
        *target = cleaned_map(changes);
        return Ok(());
    }
    for (key, change) in changes.iter().filter(|(key, _)| *key != PATCH) {
        match (change, target.get_mut(key)) {
            (Value::Null, _) => {
                target.shift_remove(key);
            }
            (Value::Object(inner), Some(Value::Object(existing))) => merge_maps(ty, existing, inner)?,
            _ => {
                target.insert(key.clone(), cleaned(change));
            }
        }
    }
    Ok(())
}

fn retain_keys(map: &mut Map<String, Value>, patch: &Map<String, Value>) -> Result<(), PatchError> {
    let Some(keys) = patch.get(RETAIN_KEYS) else { return Ok(()) };
    let Some(keys) = keys.as_array() else { return bad("$retainKeys must be a list") };
    for key in patch.keys().filter(|k| !k.starts_with('$')) {
        if !patch[key].is_null() && !keys.iter().any(|k| k == key) {
            return bad(format!("{key} is not in $retainKeys but in the patch"));
        }
    }
    map.retain(|key, _| keys.iter().any(|k| k == key));
    Ok(())
}

fn delete_from(map: &mut Map<String, Value>, list: &str, values: &Value) -> Result<(), PatchError> {
    let Some(values) = values.as_array() else { return bad(format!("{DELETE_FROM}{list} must be a list")) };
    if let Some(Value::Array(items)) = map.get_mut(list) {
        items.retain(|item| !values.contains(item));
    }
    Ok(())
}

fn merge_lists(field: &Field, target: &mut Vec<Value>, items: &[Value]) -> Result<(), PatchError> {
    let Some(key) = field.patch_merge_key else {
        // Scalars: a set that grows.
        for item in items.iter().filter(|item| !item.is_object()) {
            if !target.contains(item) {
                target.push(item.clone());
            }
        }
        return Ok(());
    };
    if items.iter().any(|item| item.get(PATCH).and_then(Value::as_str) == Some("replace")) {
        *target = items.iter().filter(|item| item.get(PATCH).is_none()).map(cleaned).collect();
        return Ok(());
    }
    for item in items {
        let Value::Object(changes) = item else { return bad(format!("an element of {} is not an object", field.name)) };
        let directive = changes.get(PATCH).and_then(Value::as_str).unwrap_or("merge");
        let Some(id) = changes.get(key) else {
            return bad(format!("map: {item} does not contain declared merge key: {key}"));
        };
        let at = target.iter().position(|existing| existing.get(key) == Some(id));
        match (directive, at) {
            ("delete", _) => target.retain(|existing| existing.get(key) != Some(id)),
            ("merge", Some(at)) => {
                if let Value::Object(existing) = &mut target[at] {
                    merge_maps(inner_type(field.shape), existing, changes)?;
                }
            }
            ("merge", None) => target.push(cleaned(item)),
            (other, _) => return bad(format!("Unknown patch type found: {other}")),
        }
    }
    Ok(())
}

/// Puts elements into the order the patch gives; those it doesn't name keep their place
/// relative to the element before them (M2).
fn reorder(field: Option<&Field>, items: &mut Vec<Value>, order: &[Value]) {
    let key = field.and_then(|f| f.patch_merge_key);
    let id = |item: &Value| key.map_or_else(|| item.clone(), |k| item.get(k).cloned().unwrap_or(Value::Null));
    let wanted: Vec<Value> = order.iter().map(id).collect();
    let rank = |item: &Value| wanted.iter().position(|w| *w == id(item));
    let mut ranked: Vec<(usize, Value)> = Vec::new();
    let mut others: Vec<(usize, Value)> = Vec::new();
    for (at, item) in std::mem::take(items).into_iter().enumerate() {
        match rank(&item) {
            Some(rank) => ranked.push((rank, item)),
            None => others.push((at, item)),
        }
    }
    ranked.sort_by_key(|(rank, _)| *rank);
    let mut out: Vec<Value> = ranked.into_iter().map(|(_, item)| item).collect();
    // In their own order, each at the index it had: earlier insertions shift later ones right.
    for (at, item) in others {
        let at = at.min(out.len());
        out.insert(at, item);
    }
    *items = out;
}

/// A new value without directives and nulls (M1).
fn cleaned(value: &Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(cleaned_map(map)),
        Value::Array(list) => Value::Array(list.iter().filter(|i| i.get(PATCH).is_none()).map(cleaned).collect()),
        scalar => scalar.clone(),
    }
}

fn cleaned_map(map: &Map<String, Value>) -> Map<String, Value> {
    let kept = |(key, value): &(&String, &Value)| !value.is_null() && !is_directive(key);
    map.iter().filter(kept).map(|(key, value)| (key.clone(), cleaned(value))).collect()
}

fn is_directive(key: &str) -> bool {
    key == PATCH || key == RETAIN_KEYS || key.starts_with(SET_ORDER) || key.starts_with(DELETE_FROM)
}
