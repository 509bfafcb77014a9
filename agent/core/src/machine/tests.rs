use super::model::{Bug, Node};
use super::*;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use proptest::prelude::*;
use seeded_bugs::assert_noticed;

fn settle(node: &mut Node, steps: usize) {
    for _ in 0..steps {
        node.step(None);
    }
}

fn delete(node: &mut Node) {
    node.pod.metadata.deletion_timestamp = Some(Time(node.now));
    node.pod.metadata.deletion_grace_period_seconds = Some(5);
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
    delete(&mut node);
    settle(&mut node, 30);
    assert!(node.object_deleted && node.observed.is_empty());
}

/// At each step, after how many calls the agent is killed; and at which the pod is deleted.
fn life() -> impl Strategy<Value = (Vec<Option<usize>>, usize)> {
    (prop::collection::vec(prop::option::of(0..3usize), 0..25), 0..30usize)
}

fn reaches_its_end((crashes, delete_at): (Vec<Option<usize>>, usize), bug: Option<Bug>) -> Result<(), TestCaseError> {
    let mut node = Node::new("Always");
    node.bug = bug;
    for (at, crash) in crashes.iter().enumerate() {
        if at == delete_at {
            delete(&mut node);
        }
        node.step(*crash);
    }
    settle(&mut node, 60);
    if node.pod.metadata.deletion_timestamp.is_some() {
        prop_assert!(node.object_deleted && node.observed.is_empty());
    } else {
        prop_assert_eq!(node.running(), vec!["a", "b"]);
    }
    Ok(())
}

proptest! {
    /// M1, M2, M4 (asserted by the modelled runtime) wherever the agent is killed, and both ends are reached.
    #[test]
    fn a_forgetful_agent_neither_doubles_nor_leaks(life in life()) {
        reaches_its_end(life, None)?;
    }
}

/// A second container, a second sandbox and one that is left over are found.
#[test]
fn a_wrong_runtime_is_noticed() {
    let bugs = [Bug::HidesCreated, Bug::HidesSandboxes, Bug::KeepsSandboxes];
    assert_noticed(&bugs, &life(), reaches_its_end);
}
