//! An object's life as the API sees it: created, changed, deleted.
//!
//! Pure: the clock, the uid and the random suffix come from the caller. What is
//! special about a kind is in [`crate::kinds`].
//!
//! Invariants
//!   L1  uid, creationTimestamp and name never change after creation.
//!   L2  deletionTimestamp, once set, is never unset or moved later.
//!   L3  `generation` grows exactly when the desired state changes.
//!   L4  An object with finalizers is not removed.
//! Source: apiserver `registry/rest` BeforeCreate, BeforeUpdate, BeforeDelete.

use api::resources::Resource;
use api::status::Status;
use serde_json::Value;

use crate::kinds;
use crate::meta;
use crate::options::{DeleteOptions, Propagation};

/// What the world outside adds to a request.
#[derive(Debug, Clone)]
pub struct Moment {
    /// Now, RFC 3339 in whole seconds, UTC.
    pub now: String,
    /// Now, in seconds since the epoch.
    pub unix: i64,
    /// A fresh uid.
    pub uid: String,
    /// Random bytes for a generated name.
    pub random: [u8; 5],
}

/// Which part of an object a write may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Everything but status.
    Main,
    /// Status alone.
    Status,
}

/// The resource as error messages name it.
fn qualified(resource: &Resource) -> (&str, &str) {
    (resource.group, resource.name)
}

/// Makes a received object ready to be stored for the first time.
///
/// `namespace` is the request's, empty for cluster-scoped resources. The object
/// was decoded and pruned by its schema.
///
/// # Errors
/// 400 for a namespace that contradicts the path, 422 for invalid content.
pub fn prepare_create(resource: &Resource, namespace: &str, moment: &Moment, object: &mut Value) -> Result<(), Status> {
    set_namespace(resource, namespace, object)?;
    if !meta::resource_version(object).is_empty() {
        return Err(Status::bad_request("resourceVersion should not be set on objects to be created"));
    }
    generate_name(object, &moment.random);
    for field in ["deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "managedFields", "generation"] {
        meta::unset(object, field);
    }
    meta::set(object, "uid", moment.uid.as_str());
    meta::set(object, "creationTimestamp", moment.now.as_str());
    drop_empty_lists(object);
    kinds::on_create(resource, object);
    if let Some(ty) = resource.ty {
        api::defaults::apply(ty, object);
    }
    if kinds::has_generation(resource) {
        meta::set(object, "generation", 1);
    }
    kinds::finish(resource, object);
    kinds::validate(resource, object)
}

fn set_namespace(resource: &Resource, namespace: &str, object: &mut Value) -> Result<(), Status> {
    if !resource.namespaced {
        meta::unset(object, "namespace");
        return Ok(());
    }
    let own = meta::namespace(object);
    if !own.is_empty() && own != namespace {
        return Err(Status::bad_request(format!(
            "the namespace of the provided object does not match the namespace sent on the request: {own:?} and {namespace:?}"
        )));
    }
    meta::set(object, "namespace", namespace);
    Ok(())
}

/// Fills `metadata.name` from `generateName`. Source: `names.SimpleNameGenerator`.
fn generate_name(object: &mut Value, random: &[u8; 5]) {
    let base = meta::field(object, "generateName");
    if base.is_empty() || !meta::name(object).is_empty() {
        return;
    }
    let name = api::names::generate(base, *random);
    meta::set(object, "name", name);
}

/// Empty lists and maps in metadata are absent ones.
fn drop_empty_lists(object: &mut Value) {
    for field in ["finalizers", "ownerReferences", "labels", "annotations"] {
        let empty = match meta::metadata(object).and_then(|m| m.get(field)) {
            Some(Value::Array(list)) => list.is_empty(),
            Some(Value::Object(map)) => map.is_empty(),
            Some(Value::Null) => true,
            _ => false,
        };
        if empty {
            meta::unset(object, field);
        }
    }
}

/// Makes a new version of a stored object ready to be stored.
///
/// `old` carries its resourceVersion. `new` was decoded and pruned; on return it
/// holds what is to be stored.
///
/// # Errors
/// 409 if the writer saw another version, 422 for invalid content or a change of
/// what can't change.
pub fn prepare_update(resource: &Resource, part: Part, old: &Value, new: &mut Value) -> Result<(), Status> {
    let (group, plural) = qualified(resource);
    let seen = meta::resource_version(new);
    if !seen.is_empty() && seen != "0" && seen != meta::resource_version(old) {
        return Err(Status::conflict(group, plural, meta::name(old), OUTDATED));
    }
    if !meta::uid(new).is_empty() && meta::uid(new) != meta::uid(old) {
        let why = format!(
            "Precondition failed: UID in precondition: {}, UID in object meta: {}",
            meta::uid(new),
            meta::uid(old)
        );
        return Err(Status::conflict(group, plural, meta::name(old), &why));
    }
    keep_identity(resource, old, new);
    drop_empty_lists(new);
    match part {
        Part::Status => take_only_status(old, new),
        Part::Main if kinds::has_status(resource) => keep_field(old, new, "status"),
        Part::Main => {}
    }
    kinds::on_update(resource, part, old, new);
    if let Some(ty) = resource.ty {
        api::defaults::apply(ty, new);
    }
    kinds::finish(resource, new);
    if part == Part::Main && kinds::has_generation(resource) {
        bump_generation(old, new);
    }
    kinds::validate(resource, new)?;
    kinds::validate_update(resource, part, old, new)
}

const OUTDATED: &str = "the object has been modified; please apply your changes to the latest version and try again";

/// L1, L2: what a writer can't change is taken from the stored object.
fn keep_identity(resource: &Resource, old: &Value, new: &mut Value) {
    const KEPT: [&str; 6] =
        ["name", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation"];
    for field in KEPT.into_iter().chain(resource.namespaced.then_some("namespace")) {
        match meta::metadata(old).and_then(|m| m.get(field)) {
            Some(value) => meta::set(new, field, value.clone()),
            None => meta::unset(new, field),
        }
    }
    for field in ["selfLink", "resourceVersion", "managedFields"] {
        meta::unset(new, field);
    }
}

fn keep_field(old: &Value, new: &mut Value, field: &str) {
    let Some(map) = new.as_object_mut() else { return };
    match old.get(field) {
        Some(value) => {
            map.insert(field.to_owned(), value.clone());
        }
        None => {
            map.shift_remove(field);
        }
    }
}

/// A status write changes status, and nothing else but labels and annotations would be kept by
/// Kubernetes' own strategies; it resets all of them, and so does this.
fn take_only_status(old: &Value, new: &mut Value) {
    let status = new.get("status").cloned();
    let mut taken = old.clone();
    meta::unset(&mut taken, "resourceVersion");
    if let Some(map) = taken.as_object_mut() {
        match status {
            Some(status) => {
                map.insert("status".to_owned(), status);
            }
            None => {
                map.shift_remove("status");
            }
        }
    }
    *new = taken;
}

/// L3: everything but metadata and status is desired state.
fn bump_generation(old: &Value, new: &mut Value) {
    let desired = |object: &Value| {
        let mut map = object.as_object().cloned().unwrap_or_default();
        for field in ["metadata", "status", "kind", "apiVersion"] {
            map.remove(field);
        }
        map
    };
    let generation = meta::metadata(old).and_then(|m| m.get("generation")).and_then(Value::as_i64).unwrap_or(1);
    let bump = i64::from(desired(old) != desired(new));
    meta::set(new, "generation", generation + bump);
}

/// Whether two versions differ in more than their resourceVersion: a write that changes nothing isn't made.
pub fn differs(old: &Value, new: &Value) -> bool {
    let strip = |object: &Value| {
        let mut object = object.clone();
        meta::unset(&mut object, "resourceVersion");
        object
    };
    strip(old) != strip(new)
}

/// What a deletion does.
#[derive(Debug, Clone, PartialEq)]
pub enum Deletion {
    /// The object goes now.
    Remove,
    /// The object is marked and stays until its finalizers or its node let it go.
    Mark(Box<Value>),
    /// It is marked already and nothing changes.
    Nothing,
}

/// Decides what a deletion does to a stored object.
///
/// # Errors
/// 409 if a precondition doesn't hold.
pub fn decide_delete(
    resource: &Resource,
    options: &DeleteOptions,
    moment: &Moment,
    object: &Value,
) -> Result<Deletion, Status> {
    check_preconditions(resource, options, object)?;
    let mut marked = object.clone();
    let wanted = add_finalizer(resource, options, &mut marked);
    let grace = kinds::grace(resource, options.grace_period_seconds, object);
    let held = !meta::finalizers(&marked).is_empty() || kinds::holds_itself(resource, object);
    if meta::is_deleting(object) {
        let remaining = meta::deletion_grace(object).unwrap_or(0);
        if grace == 0 && !held {
            return Ok(Deletion::Remove);
        }
        // L2: a grace period can only be shortened.
        if grace >= remaining && !wanted {
            return Ok(Deletion::Nothing);
        }
        set_deletion(&mut marked, moment, grace.min(remaining));
        return Ok(Deletion::Mark(Box::new(marked)));
    }
    if grace == 0 && !held {
        return Ok(Deletion::Remove);
    }
    set_deletion(&mut marked, moment, grace);
    kinds::on_mark(resource, &mut marked);
    Ok(Deletion::Mark(Box::new(marked)))
}

fn check_preconditions(resource: &Resource, options: &DeleteOptions, object: &Value) -> Result<(), Status> {
    let (group, plural) = qualified(resource);
    let check = |what: &str, wanted: &Option<String>, have: &str| match wanted {
        Some(wanted) if wanted != have => {
            let why = format!("Precondition failed: {what} in precondition: {wanted}, {what} in object meta: {have}");
            Err(Status::conflict(group, plural, meta::name(object), &why))
        }
        _ => Ok(()),
    };
    check("UID", &options.uid, meta::uid(object))?;
    check("ResourceVersion", &options.resource_version, meta::resource_version(object))
}

/// Finalizers that a propagation policy asks for; the garbage collector removes them.
/// Returns whether the list changed. Source: registry `store.go` deletionFinalizersForGarbageCollection.
fn add_finalizer(resource: &Resource, options: &DeleteOptions, object: &mut Value) -> bool {
    let wanted = match options.propagation {
        Some(Propagation::Foreground) => Some("foregroundDeletion"),
        Some(Propagation::Orphan) => Some("orphan"),
        Some(Propagation::Background) => None,
        None => {
            let kept = meta::finalizers(object).into_iter().find(|f| matches!(*f, "foregroundDeletion" | "orphan"));
            match kept {
                Some("orphan") => Some("orphan"),
                Some(_) => Some("foregroundDeletion"),
                None => None,
            }
        }
    };
    if !kinds::is_collected(resource) {
        return false;
    }
    let before: Vec<String> = meta::finalizers(object).into_iter().map(str::to_owned).collect();
    let mut after: Vec<String> =
        before.iter().filter(|f| !matches!(f.as_str(), "foregroundDeletion" | "orphan")).cloned().collect();
    after.extend(wanted.map(str::to_owned));
    if before == after {
        return false;
    }
    if after.is_empty() {
        meta::unset(object, "finalizers");
    } else {
        meta::set(object, "finalizers", after);
    }
    true
}

fn set_deletion(object: &mut Value, moment: &Moment, grace: i64) {
    let at = jiff::Timestamp::from_second(moment.unix.saturating_add(grace)).unwrap_or(jiff::Timestamp::MAX);
    meta::set(object, "deletionTimestamp", at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
    meta::set(object, "deletionGracePeriodSeconds", grace);
    if let Some(generation) = meta::metadata(object).and_then(|m| m.get("generation")).and_then(Value::as_i64) {
        meta::set(object, "generation", generation + 1);
    }
}

/// L4: whether an object that was just updated is now to be removed.
pub fn is_finished(resource: &Resource, object: &Value) -> bool {
    meta::is_deleting(object)
        && meta::finalizers(object).is_empty()
        && !kinds::holds_itself(resource, object)
        && meta::deletion_grace(object).unwrap_or(0) == 0
}
