use super::*;

fn refs(value: &Value, out: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => {
            for (key, inner) in map {
                match (key.as_str(), inner) {
                    ("$ref", Value::String(target)) => {
                        out.insert(target.rsplit('/').next().unwrap_or("").to_owned());
                    }
                    _ => refs(inner, out),
                }
            }
        }
        Value::Array(list) => list.iter().for_each(|inner| refs(inner, out)),
        _ => {}
    }
}

#[test]
fn every_reference_is_defined() {
    for (group, versions) in discovery::groups() {
        for version in versions {
            let document = v3(group, version).expect("served");
            let mut targets = BTreeSet::new();
            refs(&document, &mut targets);
            let schemas = document["components"]["schemas"].as_object().expect("schemas");
            let missing: Vec<_> = targets.iter().filter(|t| !schemas.contains_key(*t)).collect();
            assert!(missing.is_empty(), "{group}/{version}: {missing:?}");
        }
    }
}

#[test]
fn patches_declare_field_validation() {
    let document = v3("apps", "v1").expect("served");
    let patch = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
    let names: Vec<_> =
        patch["parameters"].as_array().expect("parameters").iter().map(|p| p["name"].as_str()).collect();
    assert!(names.contains(&Some("fieldValidation")), "{names:?}");
    assert_eq!(patch["x-kubernetes-group-version-kind"]["kind"], "Deployment");
}

#[test]
fn merge_keys_are_shown() {
    let document = v3("", "v1").expect("served");
    let containers = &document["components"]["schemas"]["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"];
    assert_eq!(containers["x-kubernetes-patch-merge-key"], "name");
    assert_eq!(containers["x-kubernetes-list-type"], "map");
}

/// The top level of the protobuf form parses as (field, length, bytes) and holds the parts.
#[test]
fn the_protobuf_form_is_well_formed() {
    let bytes = v2_protobuf();
    let (mut at, mut fields) = (0, Vec::new());
    let varint = |at: &mut usize| {
        let (mut value, mut shift) = (0u64, 0);
        loop {
            let byte = bytes[*at];
            *at += 1;
            value |= u64::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                return value;
            }
        }
    };
    while at < bytes.len() {
        let key = varint(&mut at);
        assert_eq!(key & 7, 2, "every field of the document is length-delimited");
        fields.push(key >> 3);
        at += varint(&mut at) as usize;
    }
    assert_eq!(fields, [1, 2, 8, 9]);
}
