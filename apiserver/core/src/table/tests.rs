use super::*;
use expect_test::{Expect, expect};

fn check(plural: &str, group: &str, object: Value, expected: Expect) {
    let resource = api::resources::find(group, "v1", plural).unwrap_or_else(|| panic!("{plural}"));
    let row = row(resource, &object, 1_767_225_600 + 90, Include::None, "v1");
    let cells: Vec<String> = row["cells"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|c| c.as_str().map_or_else(|| c.to_string(), str::to_owned))
        .collect();
    let columns = column_definitions(resource).as_array().map_or(0, Vec::len);
    assert_eq!(cells.len(), columns);
    expected.assert_eq(&cells.join(" | "));
}

fn metadata(name: &str) -> Value {
    json!({"name": name, "creationTimestamp": "2026-01-01T00:00:00Z"})
}

#[test]
fn a_running_pod() {
    let pod = json!({"metadata": metadata("p"), "spec": {"nodeName": "n", "containers": [{"name": "c"}]},
        "status": {"phase": "Running", "podIP": "10.0.0.1", "containerStatuses": [{"name": "c", "ready": true, "restartCount": 2,
            "state": {"running": {}}, "lastState": {"terminated": {"finishedAt": "2026-01-01T00:01:00Z"}}}]}});
    check("pods", "", pod, expect!["p | 1/1 | Running | 2 (30s ago) | 90s | 10.0.0.1 | n | <none> | <none>"]);
}

#[test]
fn a_pod_says_why_it_waits() {
    let pod = json!({"metadata": metadata("p"), "spec": {"containers": [{"name": "c"}], "initContainers": [{"name": "i"}]},
        "status": {"phase": "Pending", "containerStatuses": [{"name": "c", "state": {"waiting": {"reason": "PodInitializing"}}}],
            "initContainerStatuses": [{"name": "i", "state": {"waiting": {"reason": "CrashLoopBackOff"}}}]}});
    check("pods", "", pod, expect!["p | 0/1 | Init:CrashLoopBackOff | 0 | 90s | <none> | <none> | <none> | <none>"]);
}

#[test]
fn workloads_services_nodes() {
    let deployment = json!({"metadata": metadata("d"), "spec": {"replicas": 3, "selector": {"matchLabels": {"a": "b"}},
        "template": {"spec": {"containers": [{"name": "c", "image": "i:1"}]}}}, "status": {"readyReplicas": 2, "updatedReplicas": 3, "availableReplicas": 2}});
    check("deployments", "apps", deployment, expect!["d | 2/3 | 3 | 2 | 90s | c | i:1 | a=b"]);
    let service = json!({"metadata": metadata("s"), "spec": {"type": "NodePort", "clusterIP": "10.96.0.9",
        "ports": [{"port": 80, "nodePort": 30001, "protocol": "TCP"}], "selector": {"a": "b"}}});
    check("services", "", service, expect!["s | NodePort | 10.96.0.9 | <none> | 80:30001/TCP | 90s | a=b"]);
    let node = json!({"metadata": metadata("n"), "spec": {"unschedulable": true},
        "status": {"conditions": [{"type": "Ready", "status": "True"}], "addresses": [{"type": "InternalIP", "address": "10.1.1.1"}],
            "nodeInfo": {"kubeletVersion": "v1.36.0", "osImage": "Debian", "kernelVersion": "6.1", "containerRuntimeVersion": "containerd://1.6"}}});
    check(
        "nodes",
        "",
        node,
        expect![
            "n | Ready,SchedulingDisabled | <none> | 90s | v1.36.0 | 10.1.1.1 | <none> | Debian | 6.1 | containerd://1.6"
        ],
    );
}

#[test]
fn durations_are_kubectls() {
    let shown: Vec<String> =
        [-5, 0, 119, 120, 125, 600, 10_799, 10_800, 11_000, 172_800, 700_000, 70_000_000].map(duration).into();
    assert_eq!(shown, ["<invalid>", "0s", "119s", "2m", "2m5s", "10m", "179m", "3h", "3h3m", "2d", "8d", "2y80d"]);
}
