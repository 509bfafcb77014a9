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
    assert!(
        writes[0].starts_with("Confirm(Target") && writes[0].ends_with("name: \"web\" }, \"set\")"),
        "R4: {writes:?}"
    );
    assert!(writes[1].starts_with("patch p [{\"apiVersion\":\"apps/v1\""), "{writes:?}");
    assert_eq!(writes[2..], ["status 1"]);
}

#[test]
fn a_creation_not_seen_yet_is_not_repeated() {
    let observed = Observed { set: set(2), pods: vec![], creating: 2, deleting: Vec::new(), now: 0 };
    assert!(reconcile(&observed).is_empty());
}

/// R4.
#[test]
fn owners_change_in_the_version_that_was_seen() {
    let mut orphan = Pod::clone(&pod("p", true, None));
    orphan.metadata.resource_version = Some("7".into());
    let mut strayed = Pod::clone(&pod("q", true, Some("set")));
    strayed.metadata.resource_version = Some("8".into());
    strayed.metadata.labels = None;
    let pods = vec![Arc::new(orphan), Arc::new(strayed)];
    let writes = reconcile(&Observed { set: set(1), pods, creating: 0, deleting: Vec::new(), now: 0 });
    let version = |write: &Write| match write {
        Write::Patch(_, patch) => patch["metadata"]["resourceVersion"].as_str().map(str::to_owned),
        _ => None,
    };
    assert_eq!(writes.iter().filter_map(version).collect::<Vec<_>>(), ["8", "7"]);
}

#[test]
fn an_orphan_concerns_the_sets_that_select_it() {
    let stray = |labels: Value| {
        let mut stray = Pod::clone(&pod("p", true, None));
        stray.metadata.labels = from_value(labels).expect("labels");
        stray
    };
    assert!(would_adopt(&set(1), &stray(json!({"app": "web"}))));
    assert!(!would_adopt(&set(1), &stray(json!({"app": "other"}))));
    assert!(!would_adopt(&set(1), &pod("p", true, Some("another"))));
}
