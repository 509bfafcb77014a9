use super::*;
use expect_test::{Expect, expect};
use serde_json::json;

fn check(plural: &str, group: &str, object: Value, expected: Expect) {
    let resource = api::resources::find(group, "v1", plural).expect("a resource of the table");
    let found = match validate(resource, &object) {
        Ok(()) => "ok".to_owned(),
        Err(status) => format!("{} {}", status.code(), status),
    };
    expected.assert_eq(&found);
}

#[test]
fn all_faults_are_told_at_once() {
    check(
        "pods",
        "",
        json!({"metadata": {"name": "Bad_Name"}, "spec": {"containers": [{"name": "a"}, {"name": "a", "image": "i"}]}}),
        expect![[
            r#"422 Pod "Bad_Name" is invalid: [metadata.name: Invalid value: "Bad_Name": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*'), spec.containers[0].image: Required value, spec.containers[1].name: Duplicate value: "a"]"#
        ]],
    );
}

#[test]
fn a_selector_must_match_its_template() {
    let pod = json!({"containers": [{"name": "c", "image": "i"}]});
    check(
        "deployments",
        "apps",
        json!({"metadata": {"name": "d"}, "spec": {"selector": {"matchLabels": {"a": "b"}},
            "template": {"metadata": {"labels": {"a": "c"}}, "spec": pod}}}),
        expect![[
            r#"422 Deployment.apps "d" is invalid: spec.template.metadata.labels: Invalid value: {"a":"c"}: `selector` does not match template `labels`"#
        ]],
    );
    check(
        "deployments",
        "apps",
        json!({"metadata": {"name": "d"}, "spec": {"selector": {"matchLabels": {"a": "b"}},
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": pod}}}),
        expect!["ok"],
    );
}

#[test]
fn a_service_needs_ports() {
    check(
        "services",
        "",
        json!({"metadata": {"name": "s"}, "spec": {}}),
        expect![[r#"422 Service "s" is invalid: spec.ports: Required value"#]],
    );
}

#[test]
fn contents_have_a_size_and_each_key_once() {
    let large = "a".repeat(1024 * 1024 + 1);
    check(
        "configmaps",
        "",
        json!({"metadata": {"name": "m"}, "data": {"a": large}}),
        expect![[r#"422 ConfigMap "m" is invalid: []: Too long: may not be more than 1048576 bytes"#]],
    );
    // Base64: these are three quarters as many bytes.
    check("secrets", "", json!({"metadata": {"name": "s"}, "data": {"a": large}}), expect!["ok"]);
    check(
        "configmaps",
        "",
        json!({"metadata": {"name": "m"}, "data": {"a": "1"}, "binaryData": {"a": "MQ=="}}),
        expect![[
            r#"422 ConfigMap "m" is invalid: binaryData[a]: Invalid value: "a": duplicate of key present in data"#
        ]],
    );
}
