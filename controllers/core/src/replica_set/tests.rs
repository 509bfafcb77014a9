use super::*;
use serde_json::from_value;

fn set(replicas: i32) -> Arc<ReplicaSet> {
    let set = json!({"metadata": {"name": "web", "namespace": "a", "uid": "set"}, "spec": {"replicas": replicas,
        "selector": {"matchLabels": {"app": "web"}},
        "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    Arc::new(from_value(set).expect("a ReplicaSet"))
}

fn pod(name: &str, ready: bool, owner: Option<&str>) -> Arc<Pod> {
    let owners = owner.map(
        |uid| json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": uid, "controller": true}]),
    );
    let pod = json!({"metadata": {"name": name, "namespace": "a", "uid": name, "labels": {"app": "web"}, "ownerReferences": owners},
        "spec": {"containers": [], "nodeName": "n"},
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" },
            "lastTransitionTime": "2026-01-01T00:00:00Z"}]}});
    Arc::new(from_value(pod).expect("a Pod"))
}

fn look(set: Arc<ReplicaSet>, pods: Vec<Arc<Pod>>) -> Vec<String> {
    let observed = Observed { set, pods, creating: 0, deleting: Vec::new(), now: 1_800_000_000 };
    reconcile(&observed)
        .iter()
        .map(|write| match write {
            Write::Create(object) => format!("create {}", object["metadata"]["generateName"].as_str().unwrap_or("")),
            Write::Delete(target, ..) => format!("delete {}", target.name),
            Write::Patch(target, patch) => format!("patch {} {}", target.name, patch["metadata"]["ownerReferences"]),
            Write::UpdateStatus(object) => format!("status {}", object["status"]["replicas"]),
            other => format!("{other:?}"),
        })
        .collect()
}

#[test]
fn missing_pods_are_made() {
    assert_eq!(look(set(2), vec![pod("p", true, Some("set"))]), ["create web-", "status 1"]);
}

#[test]
fn of_too_many_the_unready_goes_first() {
    let pods = vec![pod("a", true, Some("set")), pod("b", false, Some("set"))];
    assert_eq!(look(set(1), pods), ["delete b", "status 2"]);
}

/// R1.
#[test]
fn another_controllers_pods_are_left_alone() {
    assert!(look(set(0), vec![pod("p", true, Some("other"))]).is_empty());
}

#[test]
fn an_orphan_is_adopted_and_counts() {
    let writes = look(set(1), vec![pod("p", true, None)]);
    assert!(writes[0].starts_with("patch p [{\"apiVersion\":\"apps/v1\""), "{writes:?}");
    assert_eq!(writes[1..], ["status 1"]);
}

#[test]
fn a_creation_not_seen_yet_is_not_repeated() {
    let observed = Observed { set: set(2), pods: vec![], creating: 2, deleting: Vec::new(), now: 0 };
    assert!(reconcile(&observed).is_empty());
}
