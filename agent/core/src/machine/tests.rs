use super::model::Node;
use super::*;
use proptest::prelude::*;

fn settle(node: &mut Node, steps: usize) {
    for _ in 0..steps {
        node.step(None);
    }
}

#[test]
fn a_pod_comes_up_init_containers_first() {
    let mut node = Node::new("Always");
    let mut order = Vec::new();
    for _ in 0..20 {
        for action in node.step(None).actions {
            if let Action::StartContainer { container, .. } = action {
                order.push(container);
            }
        }
    }
    assert_eq!(order[0], "init");
    assert_eq!((node.running(), node.phase()), (vec!["a", "b"], "Running"));
    let status = node.pod.status.clone().expect("a status");
    assert_eq!(status.pod_ip.as_deref(), Some("10.244.0.2"));
    assert!(status.conditions.iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True"));
}

#[test]
fn a_killed_container_restarts_and_is_counted() {
    let mut node = Node::new("Always");
    settle(&mut node, 20);
    let id = node.observed.containers.iter().find(|c| c.name == "a").expect("a").id.clone();
    node.exit(&id, 137);
    settle(&mut node, 30);
    assert_eq!(node.running(), ["a", "b"]);
    let statuses = node.pod.status.clone().and_then(|s| s.container_statuses).unwrap_or_default();
    assert_eq!(statuses.iter().find(|s| s.name == "a").map(|s| s.restart_count), Some(1));
}

#[test]
fn a_pod_that_is_not_restarted_ends() {
    let mut node = Node::new("Never");
    settle(&mut node, 20);
    for name in ["a", "b"] {
        let id = node.observed.containers.iter().find(|c| c.name == name).expect("there").id.clone();
        node.exit(&id, i32::from(name == "b"));
    }
    settle(&mut node, 10);
    assert_eq!((node.running(), node.phase()), (vec![], "Failed"));
}

/// M4.
#[test]
fn a_deleted_pod_leaves_nothing_behind() {
    let mut node = Node::new("Always");
    settle(&mut node, 20);
    let at = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(node.now);
    node.pod.metadata.deletion_timestamp = Some(at);
    node.pod.metadata.deletion_grace_period_seconds = Some(5);
    settle(&mut node, 30);
    assert!(node.object_deleted && node.observed.is_empty());
}

proptest! {
    /// M1, M2, M4 (asserted by the modelled runtime) wherever the agent is killed, and both ends are reached.
    #[test]
    fn a_forgetful_agent_neither_doubles_nor_leaks(crashes in prop::collection::vec(prop::option::of(0..3usize), 0..25), delete_at in 0..30usize) {
        let mut node = Node::new("Always");
        for (at, crash) in crashes.iter().enumerate() {
            if at == delete_at {
                node.pod.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(node.now));
                node.pod.metadata.deletion_grace_period_seconds = Some(5);
            }
            node.step(*crash);
        }
        settle(&mut node, 60);
        if node.pod.metadata.deletion_timestamp.is_some() {
            prop_assert!(node.object_deleted && node.observed.is_empty());
        } else {
            prop_assert_eq!(node.running(), vec!["a", "b"]);
        }
    }
}
