use super::*;
use proptest::prelude::*;
use seeded_bugs::assert_noticed;
use serde_json::json;

fn check(kind: (&str, &str), mut object: Value, patch: Value, expected: Value) {
    let ty = crate::schema::kind_type(kind.0, "v1", kind.1);
    let result = strategic(ty.unwrap_or_else(|| panic!("{kind:?}")), &mut object, &patch);
    assert_eq!(result.map(|()| object), Ok(expected), "patch {patch}");
}

fn pod(containers: Value) -> Value {
    json!({"spec": {"containers": containers}})
}

#[test]
fn containers_merge_by_name() {
    check(
        ("", "Pod"),
        pod(json!([{"name": "a", "image": "1"}, {"name": "b", "image": "1"}])),
        pod(json!([{"name": "b", "image": "2"}, {"name": "c", "image": "3"}])),
        pod(json!([{"name": "a", "image": "1"}, {"name": "b", "image": "2"}, {"name": "c", "image": "3"}])),
    );
}

#[test]
fn directives_delete_replace_and_order() {
    let two = json!([{"name": "a", "image": "1"}, {"name": "b", "image": "1"}]);
    check(
        ("", "Pod"),
        pod(two.clone()),
        pod(json!([{"name": "a", "$patch": "delete"}])),
        pod(json!([{"name": "b", "image": "1"}])),
    );
    check(
        ("", "Pod"),
        pod(two.clone()),
        pod(json!([{"$patch": "replace"}, {"name": "z"}])),
        pod(json!([{"name": "z"}])),
    );
    check(
        ("", "Pod"),
        pod(two),
        json!({"spec": {"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}], "containers": [{"name": "b", "image": "2"}]}}),
        pod(json!([{"name": "b", "image": "2"}, {"name": "a", "image": "1"}])),
    );
    check(
        ("", "Pod"),
        json!({"metadata": {"finalizers": ["a", "b"]}}),
        json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"], "finalizers": ["c"]}}),
        json!({"metadata": {"finalizers": ["b", "c"]}}),
    );
}

#[test]
fn retained_keys_drop_the_others() {
    check(
        ("apps", "Deployment"),
        json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}}),
        json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}}),
        json!({"spec": {"strategy": {"type": "Recreate"}}}),
    );
}

#[test]
fn nulls_remove_and_maps_merge() {
    check(
        ("", "ConfigMap"),
        json!({"metadata": {"labels": {"a": "1", "b": "2"}}, "data": {"x": "1"}}),
        json!({"metadata": {"labels": {"a": null, "c": "3"}}, "data": null}),
        json!({"metadata": {"labels": {"b": "2", "c": "3"}}}),
    );
}

#[test]
fn an_element_without_its_key_is_refused() {
    let ty = crate::schema::kind_type("", "v1", "Pod").expect("Pod");
    assert!(strategic(ty, &mut pod(json!([])), &pod(json!([{"image": "x"}]))).is_err());
}

#[test]
fn a_json_patch_is_applied_whole_or_not_at_all() {
    let mut object = json!({"a": 1});
    let patch = br#"[{"op":"replace","path":"/a","value":2},{"op":"test","path":"/a","value":3}]"#;
    assert!(matches!(json_patch(&mut object, patch), Err(PatchError::Rejected(_))));
    assert_eq!(object, json!({"a": 1}));
}

/// Found by fuzzing: undoing this one panicked in the library.
#[test]
fn a_json_patch_that_moves_the_root_is_refused_and_changes_nothing() {
    let before = json!({"a": [1, 2], "b": {"c": "d"}});
    let mut object = before.clone();
    let patch = br#"[{"op": "add", "path": "/b/e", "value": "d"}, {"op": "move", "from": "/a/0", "path": ""},
        {"op": "move", "from": "/a/0", "path": "/f"}]"#;
    assert!(matches!(json_patch(&mut object, patch), Err(PatchError::Rejected(_))));
    assert_eq!(object, before);
}

/// Each copy puts the object into itself: what is nested too deeply takes the stack of whoever walks it.
#[test]
fn a_json_patch_that_nests_without_an_end_is_stopped() {
    let copies: Vec<Value> = (0..200).map(|_| json!({"op": "copy", "from": "", "path": "/a"})).collect();
    let mut object = json!({"a": 1});
    let refused = json_patch(&mut object, &serde_json::to_vec(&copies).unwrap()).unwrap_err();
    assert!(refused.to_string().contains("127 levels"), "{refused}");
    assert_eq!(object, json!({"a": 1}));
    json_patch(&mut object, &serde_json::to_vec(&copies[..126]).unwrap()).unwrap();
    assert!(serde_json::from_str::<Value>(&object.to_string()).is_ok(), "what is allowed is read again");
}

/// Each copy doubles the object.
#[test]
fn a_json_patch_that_copies_copies_is_stopped() {
    let before = json!({"a": "x".repeat(1000)});
    let copies: Vec<Value> = (0..40).map(|at| json!({"op": "copy", "from": "", "path": format!("/{at}")})).collect();
    let mut object = before.clone();
    let refused = json_patch(&mut object, &serde_json::to_vec(&copies).unwrap()).unwrap_err();
    assert!(refused.to_string().contains("exceeding the limit 3145728"), "{refused}");
    assert_eq!(object, before);
}

fn tree() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![Just(Value::Null), any::<bool>().prop_map(Value::from), "[ab]{0,2}".prop_map(Value::from)];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::btree_map("[abc]", inner, 0..4).prop_map(|m| Value::Object(m.into_iter().collect())),
        ]
    })
}

/// What a merge may get wrong.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Bug {
    /// What the patch says is null stays.
    PassesOverNulls,
    /// Objects within the object are replaced.
    IsShallow,
}

fn without_nulls(patch: &Value) -> Value {
    let Value::Object(members) = patch else { return patch.clone() };
    let some = members.iter().filter(|(_, value)| !value.is_null());
    Value::Object(some.map(|(key, value)| (key.clone(), without_nulls(value))).collect())
}

/// The library's merge.
fn merge_of_the_library(object: &mut Value, patch: &Value, bug: Option<Bug>) {
    match (bug, object.as_object_mut(), patch.as_object()) {
        (Some(Bug::PassesOverNulls), ..) => return json_patch::merge(object, &without_nulls(patch)),
        (Some(Bug::IsShallow), Some(members), Some(patch)) => members.retain(|key, _| !patch.contains_key(key)),
        _ => {}
    }
    json_patch::merge(object, patch);
}

fn is_the_librarys((mut object, patch): (Value, Value), bug: Option<Bug>) -> Result<(), TestCaseError> {
    let mut reference = object.clone();
    merge_of_the_library(&mut reference, &patch, bug);
    merge_patch(&mut object, &patch);
    prop_assert_eq!(object, reference);
    Ok(())
}

proptest! {
    /// Our merge patch is the library's.
    #[test]
    fn merge_patch_is_rfc_7396(case in (tree(), tree())) {
        is_the_librarys(case, None)?;
    }
}

/// A library that merges otherwise is found.
#[test]
fn a_wrong_merge_is_noticed() {
    assert_noticed(&[Bug::PassesOverNulls, Bug::IsShallow], &(tree(), tree()), is_the_librarys);
}
