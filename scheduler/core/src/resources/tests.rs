//! Text cases: a pod's spec in JSON → what it asks for.

use super::*;
use expect_test::{Expect, expect};
use serde_json::json;

fn check(spec: serde_json::Value, expected: Expect) {
    let spec: PodSpec = serde_json::from_value(spec).unwrap();
    let shown = match Requests::read(&spec) {
        Err(error) => error.to_string(),
        Ok(r) => format!(
            "cpu {}m memory {} storage {} {:?} | non-zero {}m {} | scored {}m {}",
            r.exact.cpu_milli,
            r.exact.memory,
            r.exact.ephemeral_storage,
            r.exact.scalars,
            r.non_zero.cpu_milli,
            r.non_zero.memory,
            r.scored.cpu_milli,
            r.scored.memory
        ),
    };
    expected.assert_eq(&shown);
}

fn asks(cpu: &str, memory: &str) -> serde_json::Value {
    json!({"name": "c", "resources": {"requests": {"cpu": cpu, "memory": memory}}})
}

fn sidecar(cpu: &str, memory: &str) -> serde_json::Value {
    let mut container = asks(cpu, memory);
    container["restartPolicy"] = json!("Always");
    container
}

#[test]
fn containers_are_summed_and_rounded_up_once() {
    check(
        json!({"containers": [asks("100m", "1Mi"), asks("0.0005", "1500m")]}),
        expect!["cpu 101m memory 1048578 storage 0 {} | non-zero 101m 1048578 | scored 101m 1048578"],
    );
}

#[test]
fn a_container_without_requests_counts_in_scores_only() {
    check(
        json!({"containers": [{"name": "c"}, asks("1", "0")]}),
        expect!["cpu 1000m memory 0 storage 0 {} | non-zero 1100m 209715200 | scored 1100m 209715200"],
    );
}

/// Sidecars count beside the containers and below the init containers after them, not those before.
#[test]
fn init_containers_and_sidecars() {
    check(
        json!({"containers": [asks("100m", "1")], "initContainers": [asks("500m", "1"), sidecar("200m", "1"), asks("450m", "1")]}),
        expect!["cpu 650m memory 2 storage 0 {} | non-zero 650m 2 | scored 650m 2"],
    );
}

#[test]
fn pod_level_requests_replace_the_sum_but_not_in_the_score() {
    check(
        json!({"containers": [asks("100m", "1Mi"), {"name": "d"}], "resources": {"requests": {"cpu": "2", "hugepages-2Mi": "4Mi"}},
            "overhead": {"cpu": "10m", "memory": "1Mi"}}),
        expect![[
            r#"cpu 2010m memory 2097152 storage 0 {"hugepages-2Mi": 4194304} | non-zero 2010m 2097152 | scored 210m 211812352"#
        ]],
    );
}

#[test]
fn only_scalars_and_the_three_known_count() {
    check(
        json!({"containers": [{"name": "c", "resources": {"requests": {"example.com/gpu": "2", "ephemeral-storage": "1Gi",
            "storage": "1Gi", "requests.example.com/x": "1", "attachable-volumes-x": "3", "hugepages-1Gi": "1Gi"}}}]}),
        expect![[
            r#"cpu 0m memory 0 storage 1073741824 {"attachable-volumes-x": 3, "example.com/gpu": 2, "hugepages-1Gi": 1073741824} | non-zero 100m 209715200 | scored 100m 209715200"#
        ]],
    );
}

#[test]
fn what_cannot_be_read_is_told() {
    check(
        json!({"containers": [asks("1x", "1")]}),
        expect![
            "resource cpu: quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
        ],
    );
}
