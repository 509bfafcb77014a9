//! Text cases: affinity in JSON against three nodes.

use super::*;
use expect_test::{Expect, expect};
use serde_json::{Value, json};

fn check(required: Value, expected: Expect) {
    let spec = json!({"containers": [], "affinity": {"nodeAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": required}}}});
    let required = Required::read(&serde_json::from_value(spec).unwrap());
    let nodes = [("a", "zone=x,size=3"), ("b", "zone=y"), ("c", "")];
    let matching: Vec<&str> =
        nodes.iter().filter(|(name, text)| required.matches(name, &labels(text))).map(|(name, _)| *name).collect();
    expected.assert_eq(&format!("{matching:?} only {:?}", required.only()));
}

fn labels(text: &str) -> Labels {
    text.split(',').filter_map(|p| p.split_once('=')).map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
}

fn by_label(operator: &str, values: &[&str]) -> Value {
    json!({"matchExpressions": [{"key": "zone", "operator": operator, "values": values}]})
}

fn by_name(values: &[&str]) -> Value {
    json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": values}]})
}

#[test]
fn terms_are_alternatives() {
    check(json!([by_label("In", &["x"]), by_label("DoesNotExist", &[])]), expect![[r#"["a", "c"] only None"#]]);
}

#[test]
fn an_empty_or_unreadable_term_matches_nothing() {
    check(json!([{}, by_label("In", &[]), by_label("In", &["y"])]), expect![[r#"["b"] only None"#]]);
    check(json!([]), expect!["[] only None"]);
}

#[test]
fn names_narrow_the_search() {
    check(json!([by_name(&["a"]), by_name(&["c"])]), expect![[r#"["a", "c"] only Some({"a", "c"})"#]]);
    check(json!([by_name(&["a"]), by_label("Exists", &[])]), expect![[r#"["a", "b"] only None"#]]);
    check(
        json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["a"]},
            {"key": "metadata.name", "operator": "In", "values": ["b"]}]}]),
        expect!["[] only Some({})"],
    );
}

#[test]
fn selector_and_terms_both_hold() {
    let spec = json!({"containers": [], "nodeSelector": {"zone": "x"}});
    let required = Required::read(&serde_json::from_value(spec).unwrap());
    assert!(required.matches("a", &labels("zone=x")) && !required.matches("b", &labels("zone=y")));
}

#[test]
fn preferences_add_their_weights() {
    let term = |weight: i32, value: &str| json!({"weight": weight, "preference": by_label("In", &[value])});
    let read = |preferred: Value| {
        let spec = json!({"containers": [], "affinity": {"nodeAffinity": {
            "preferredDuringSchedulingIgnoredDuringExecution": preferred}}});
        Preferred::read(&serde_json::from_value(spec).unwrap())
    };
    let preferred = read(json!([term(5, "x"), term(7, "x"), term(20, "y"), {"weight": 50, "preference": {}}])).unwrap();
    assert_eq!(["zone=x", "zone=y", ""].map(|text| preferred.score("a", &labels(text))), [12, 20, 0]);
    assert!(read(json!([{"weight": 1, "preference": by_label("In", &[])}])).is_err());
}
