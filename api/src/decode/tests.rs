use super::*;
use expect_test::{Expect, expect};

fn check_json(kind: (&str, &str, &str), text: &str, validation: Validation, expected: Expect) {
    let ty = crate::schema::kind_type(kind.0, kind.1, kind.2);
    assert!(ty.is_some(), "{kind:?}");
    let shown = match json(text.as_bytes(), ty, validation) {
        Ok(decoded) => format!("{} {:?}", decoded.object, decoded.warnings),
        Err(error) => format!("error: {error}"),
    };
    expected.assert_eq(&shown);
}

const DEPLOYMENT: (&str, &str, &str) = ("apps", "v1", "Deployment");
const POD: (&str, &str, &str) = ("", "v1", "Pod");

#[test]
fn unknown_fields_are_dropped_told_or_refused() {
    let text = r#"{"spec":{"foo":1,"replicas":2,"template":{"spec":{"containers":[{"name":"c","imagee":"x"}]}}}}"#;
    check_json(
        DEPLOYMENT,
        text,
        Validation::Ignore,
        expect![[r#"{"spec":{"replicas":2,"template":{"spec":{"containers":[{"name":"c"}]}}}} []"#]],
    );
    check_json(
        DEPLOYMENT,
        text,
        Validation::Warn,
        expect![[
            r#"{"spec":{"replicas":2,"template":{"spec":{"containers":[{"name":"c"}]}}}} ["unknown field \"spec.foo\"", "unknown field \"spec.template.spec.containers[0].imagee\""]"#
        ]],
    );
    check_json(
        DEPLOYMENT,
        text,
        Validation::Strict,
        expect![[
            r#"error: strict decoding error: unknown field "spec.foo", unknown field "spec.template.spec.containers[0].imagee""#
        ]],
    );
}

#[test]
fn duplicates_are_found_and_the_last_wins() {
    let text = r#"{"spec":{"replicas":1,"replicas":2}}"#;
    check_json(
        DEPLOYMENT,
        text,
        Validation::Warn,
        expect![[r#"{"spec":{"replicas":2}} ["duplicate field \"spec.replicas\""]"#]],
    );
}

#[test]
fn types_are_checked_with_gos_words() {
    check_json(
        DEPLOYMENT,
        r#"{"spec":{"replicas":"2"}}"#,
        Validation::Ignore,
        expect!["error: json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32"],
    );
    check_json(
        DEPLOYMENT,
        r#"{"spec":[]}"#,
        Validation::Ignore,
        expect!["error: json: cannot unmarshal array into Go struct field Deployment.spec of type v1.DeploymentSpec"],
    );
    check_json(
        DEPLOYMENT,
        r#"{"spec":{"replicas":1.5}}"#,
        Validation::Ignore,
        expect![
            "error: json: cannot unmarshal number 1.5 into Go struct field DeploymentSpec.spec.replicas of type int32"
        ],
    );
}

#[test]
fn values_take_their_canonical_form() {
    let text = r#"{"metadata":{"creationTimestamp":null,"labels":{"a":null}},"spec":{"containers":[{"name":"c","resources":{"requests":{"cpu":0.5,"memory":"1024Mi"}}}]},"status":{"startTime":"2026-01-01T02:00:00+02:00"}}"#;
    check_json(
        POD,
        text,
        Validation::Strict,
        expect![[
            r#"{"metadata":{"labels":{"a":""}},"spec":{"containers":[{"name":"c","resources":{"requests":{"cpu":"500m","memory":"1Gi"}}}]},"status":{"startTime":"2026-01-01T00:00:00Z"}} []"#
        ]],
    );
}

#[test]
fn yaml_is_read_too() {
    let ty = crate::schema::kind_type("", "v1", "ConfigMap");
    let decoded = yaml(b"kind: ConfigMap\ndata:\n  a: \"1\"\n", ty, Validation::Strict).expect("valid");
    assert_eq!(decoded.object.to_string(), r#"{"kind":"ConfigMap","data":{"a":"1"}}"#);
    assert!(yaml(b"a: [", ty, Validation::Ignore).is_err());
}

#[test]
fn depth_is_bounded() {
    let deep = "[".repeat(100_000);
    assert!(json(deep.as_bytes(), None, Validation::Ignore).is_err());
}

#[test]
fn yaml_duplicates_are_found_too() {
    let ty = crate::schema::kind_type("", "v1", "ConfigMap");
    let text = b"kind: ConfigMap\ndata:\n  a: x\ndata:\n  b: y\n  b: z\n";
    let error = yaml(text, ty, Validation::Strict).expect_err("refused");
    assert_eq!(error.to_string(), r#"strict decoding error: duplicate field "data", duplicate field "data.b""#);
    assert_eq!(
        yaml(text, ty, Validation::Ignore).expect("dropped").object.to_string(),
        r#"{"kind":"ConfigMap","data":{"b":"z"}}"#
    );
}

/// Aliases, deep nesting and several documents are bounded or refused, never a panic.
#[test]
fn hostile_yaml_is_refused() {
    let ty = crate::schema::kind_type("", "v1", "ConfigMap");
    for text in ["[".repeat(100_000), "a: 1\n---\nb: 2\n".to_owned(), "!x {a: 1}".to_owned(), String::new()] {
        assert!(yaml(text.as_bytes(), ty, Validation::Ignore).is_err(), "{:.20}", text);
    }
}

#[test]
fn resource_lists_keep_thousandths() {
    let text = r#"{"spec":{"containers":[{"name":"c","resources":{"limits":{"cpu":"0.0001"}}}]}}"#;
    check_json(
        POD,
        text,
        Validation::Strict,
        expect![[r#"{"spec":{"containers":[{"name":"c","resources":{"limits":{"cpu":"1m"}}}]}} []"#]],
    );
}
