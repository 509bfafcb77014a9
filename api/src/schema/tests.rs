//! What the table says of a few well-known types.

use super::*;

#[test]
fn table_knows_kinds_and_fields() {
    assert!(type_count() >= 757);
    let deployment = kind_type("apps", "v1", "Deployment").unwrap();
    assert_eq!(deployment.full_name(), "io.k8s.api.apps.v1.Deployment");
    let pod_spec = type_named("io.k8s.api.core.v1.PodSpec").unwrap();
    let containers = pod_spec.field("containers").unwrap();
    assert!(containers.required && containers.patch_strategy.merge);
    assert_eq!(containers.patch_merge_key, Some("name"));
    assert_eq!(&*containers.list_map_keys, ["name"]);
    assert!(pod_spec.field("Containers").is_none());
}

/// An embedded struct's members are fields of the struct around it.
#[test]
fn embedded_structs_are_flat() {
    let volume = type_named("io.k8s.api.core.v1.Volume").unwrap();
    assert!(volume.field("emptyDir").is_some() && volume.field("volumeSource").is_none());
    let rule = type_named("io.k8s.api.admissionregistration.v1.NamedRuleWithOperations").unwrap();
    assert!(rule.field("apiGroups").is_some() && rule.field("operations").is_some());
}

/// No JSON name occurs twice in a type, and every tag of a message is unique.
#[test]
fn names_and_tags_are_unique() {
    for ty in TypeId::all() {
        let mut names: Vec<_> = ty.fields().iter().map(|field| field.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ty.fields().len(), "{}", ty.full_name());
    }
}

/// Protobuf names that lack JSON's punctuation are the same fields, not further ones.
#[test]
fn punctuated_names_have_their_tags() {
    let schema = type_named("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps").unwrap();
    for name in ["$ref", "$schema", "x-kubernetes-validations", "x-kubernetes-preserve-unknown-fields"] {
        assert_ne!(schema.field(name).unwrap().tag, 0, "{name}");
    }
    assert!(schema.field("ref").is_none() && schema.field("xKubernetesValidations").is_none());
}
