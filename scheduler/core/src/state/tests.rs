//! Text cases: what is seen and answered, and the acts that follow.

use expect_test::{Expect, expect};
use serde_json::{Value, json};

use super::*;

fn pod(name: &str, options: &[&str]) -> Pod {
    let option = |key: &str| options.iter().filter_map(|o| o.split_once('=')).find(|(k, _)| *k == key).map(|(_, v)| v);
    let gates: Vec<Value> = option("gate").iter().map(|gate| json!({"name": gate})).collect();
    serde_json::from_value(json!({
        "metadata": {"name": name, "namespace": "ns", "uid": name, "labels": {"v": option("v").unwrap_or("1")},
            "deletionTimestamp": option("deleted")},
        "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": option("cpu").unwrap_or("1")}}}],
            "nodeName": option("node"), "schedulingGates": gates, "priority": 0,
            "schedulerName": option("by").unwrap_or("default-scheduler")},
        "status": {"phase": option("phase").unwrap_or("Pending")},
    }))
    .unwrap()
}

fn node(name: &str, cpu: &str) -> Node {
    serde_json::from_value(json!({"metadata": {"name": name},
        "status": {"allocatable": {"cpu": cpu, "memory": "8Gi", "pods": "10"}}}))
    .unwrap()
}

struct Run {
    state: State,
    binding: BTreeMap<String, (Arc<Pod>, String)>,
}

impl Run {
    fn show(&mut self, act: Option<Act>) -> String {
        match act {
            None => "-".to_owned(),
            Some(Act::Warn(warning)) => format!("warn: {warning}"),
            Some(Act::Bind { pod, node, known }) => {
                let known = if known == 0 { String::new() } else { format!(" knowing {known}") };
                let shown = format!("bind {} to {node}{known}", place(&pod));
                self.binding.insert(uid(&pod).to_owned(), (pod, node));
                shown
            }
            Some(Act::Tell(tell)) => {
                let how = format!(
                    "{}{}",
                    if tell.condition { " condition" } else { "" },
                    if tell.event { " event" } else { "" }
                );
                format!("tell {}{how}: {}: {}", place(&tell.pod), tell.reason, tell.message)
            }
        }
    }

    fn step(&mut self, line: &str) -> String {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (now, name) = (words[0].parse().unwrap(), words.get(2).copied().unwrap_or(""));
        let act = match words[1] {
            "pod" => self.state.see(Seen::Pod(Box::new(pod(name, &words[3..]))), now),
            "gone" => self.state.see(Seen::PodGone(name.to_owned()), now),
            "node" => self.state.see(Seen::Node(Box::new(node(name, words[3]))), now),
            "node-gone" => self.state.see(Seen::NodeGone(name.to_owned()), now),
            "up-to" => self.state.see(Seen::PodsUpTo(name.parse().unwrap()), now),
            "decide" => self.state.decide(now),
            answer => {
                let (pod, node) = self.binding.remove(name).unwrap();
                let revision = words.get(3).map(|word| word.parse().unwrap());
                let result = match answer {
                    "bound" => Ok(revision),
                    "refused" => Err(BindFailure::Refused),
                    "outdated" => Err(BindFailure::Outdated(revision.unwrap())),
                    "unanswered" => Err(BindFailure::Unanswered("no answer".to_owned())),
                    "failed" => Err(BindFailure::Failed("no".to_owned())),
                    other => panic!("{other}"),
                };
                self.state.bound(&pod, &node, result, now)
            }
        };
        self.show(act)
    }
}

fn check(text: &str, expected: Expect) {
    let mut run = Run { state: State::new("default-scheduler".to_owned()), binding: BTreeMap::new() };
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let out: Vec<String> = lines.map(|line| format!("{line} → {}\n", run.step(line))).collect();
    expected.assert_eq(&out.concat());
}

/// S1: the second pod sees the first one where it was assumed.
#[test]
fn assumed_pods_count() {
    check(
        "0 node a 1
         0 pod p
         0 pod q
         0 decide
         0 decide
         1 bound p
         1 pod p node=a
         1 decide
         2 gone p
         2 decide
         3 bound q",
        expect![[r#"
            0 node a 1 → -
            0 pod p → -
            0 pod q → -
            0 decide → bind ns/p to a
            0 decide → tell ns/q condition event: Unschedulable: 0/1 nodes are available: 1 Insufficient cpu. no new claims to deallocate, preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod.
            1 bound p → -
            1 pod p node=a → -
            1 decide → -
            2 gone p → -
            2 decide → bind ns/q to a
            3 bound q → -
        "#]],
    );
}

/// S2: a failed binding gives the room back; the pod is tried again after a pause.
#[test]
fn a_failed_binding_is_taken_back() {
    check(
        "0 node a 1
         0 pod p
         0 decide
         5 failed p
         5 decide
         5 pod q
         5 decide
         6 refused q
         7 gone q
         1005 decide
         1005 failed p
         1006 gone p
         9000 decide",
        expect![[r#"
            0 node a 1 → -
            0 pod p → -
            0 decide → bind ns/p to a
            5 failed p → tell ns/p event: SchedulerError: no
            5 decide → -
            5 pod q → -
            5 decide → bind ns/q to a
            6 refused q → -
            7 gone q → -
            1005 decide → bind ns/p to a
            1005 failed p → tell ns/p event: SchedulerError: no
            1006 gone p → -
            9000 decide → -
        "#]],
    );
}

/// S2: what wasn't answered keeps its room, and is asked again until the API shows it.
#[test]
fn an_unanswered_binding_keeps_its_room() {
    check(
        "0 node a 1
         0 up-to 5
         0 pod p
         0 pod q
         0 decide
         5 unanswered p
         5 decide
         1005 decide
         1006 refused p
         2000 decide
         2001 pod p node=a
         9000 decide",
        expect![[r#"
            0 node a 1 → -
            0 up-to 5 → -
            0 pod p → -
            0 pod q → -
            0 decide → bind ns/p to a knowing 5
            5 unanswered p → tell ns/p event: SchedulerError: no answer
            5 decide → tell ns/q condition event: Unschedulable: 0/1 nodes are available: 1 Insufficient cpu. no new claims to deallocate, preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod.
            1005 decide → bind ns/p to a knowing 5
            1006 refused p → -
            2000 decide → -
            2001 pod p node=a → -
            9000 decide → -
        "#]],
    );
}

/// S2: but not on a node that went.
#[test]
fn an_unanswered_binding_to_a_node_that_went_is_over() {
    check(
        "0 node a 1
         0 pod p
         0 decide
         1 node b 1
         2 unanswered p
         3 node-gone a
         3 decide",
        expect![[r#"
            0 node a 1 → -
            0 pod p → -
            0 decide → bind ns/p to a
            1 node b 1 → -
            2 unanswered p → tell ns/p event: SchedulerError: no answer
            3 node-gone a → -
            3 decide → bind ns/p to b
        "#]],
    );
}

/// S5: a refused decision is made again once what it didn't know was shown.
#[test]
fn an_outdated_decision_waits_for_the_watch() {
    check(
        "0 node a 1
         0 up-to 5
         0 pod p
         0 decide
         1 outdated p 7
         1 decide
         2 pod q node=a
         2 up-to 6
         2 decide
         3 up-to 7
         3 decide
         4 node b 1
         2000 decide
         2001 outdated p 7
         2001 decide",
        expect![[r#"
            0 node a 1 → -
            0 up-to 5 → -
            0 pod p → -
            0 decide → bind ns/p to a knowing 5
            1 outdated p 7 → -
            1 decide → -
            2 pod q node=a → -
            2 up-to 6 → -
            2 decide → -
            3 up-to 7 → -
            3 decide → tell ns/p condition event: Unschedulable: 0/1 nodes are available: 1 Insufficient cpu. no new claims to deallocate, preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod.
            4 node b 1 → -
            2000 decide → bind ns/p to b knowing 7
            2001 outdated p 7 → -
            2001 decide → bind ns/p to b knowing 7
        "#]],
    );
}

/// A pod that is being deleted before it has a node never gets one.
#[test]
fn an_assumed_pod_that_is_deleted_gives_its_room_back() {
    check(
        "0 node a 1
         0 pod p
         0 pod q
         0 decide
         0 pod p deleted=2024-01-01T00:00:00Z
         0 decide
         1 refused p
         1 decide",
        expect![[r#"
            0 node a 1 → -
            0 pod p → -
            0 pod q → -
            0 decide → bind ns/p to a
            0 pod p deleted=2024-01-01T00:00:00Z → -
            0 decide → -
            1 refused p → -
            1 decide → bind ns/q to a
        "#]],
    );
}

/// S2, S3: what the API shows wins, whatever becomes of the binding.
#[test]
fn the_api_wins() {
    check(
        "0 node a 1
         0 node b 1
         0 pod p
         0 decide
         1 pod p node=b
         1 failed p
         1 pod q
         1 decide
         1 pod r
         1 decide",
        expect![[r#"
            0 node a 1 → -
            0 node b 1 → -
            0 pod p → -
            0 decide → bind ns/p to a
            1 pod p node=b → -
            1 failed p → -
            1 pod q → -
            1 decide → bind ns/q to a
            1 pod r → -
            1 decide → tell ns/r condition event: Unschedulable: 0/2 nodes are available: 2 Insufficient cpu. no new claims to deallocate, preemption: 0/2 nodes are available: 2 No preemption victims found for incoming pod.
        "#]],
    );
}

/// Updates of a pod that is being bound don't schedule it twice.
#[test]
fn an_assumed_pod_is_left_alone() {
    check(
        "0 node a 4
         0 pod p
         0 decide
         0 pod p v=2
         0 decide
         1 bound p
         1 pod p v=3
         1 decide",
        expect![[r#"
            0 node a 4 → -
            0 pod p → -
            0 decide → bind ns/p to a
            0 pod p v=2 → -
            0 decide → -
            1 bound p → -
            1 pod p v=3 → -
            1 decide → -
        "#]],
    );
}

#[test]
fn others_pods_are_ignored() {
    check(
        "0 node a 4
         0 pod p by=other
         0 pod q deleted=2024-01-01T00:00:00Z
         0 pod r node=a
         0 pod s phase=Failed
         0 decide",
        expect![[r#"
            0 node a 4 → -
            0 pod p by=other → -
            0 pod q deleted=2024-01-01T00:00:00Z → -
            0 pod r node=a → -
            0 pod s phase=Failed → -
            0 decide → -
        "#]],
    );
}

/// S4, and no attempt before the gates are gone.
#[test]
fn gates_hold_pods_back() {
    check(
        "0 node a 4
         0 pod p gate=g
         0 pod p gate=g
         0 decide
         1 pod p
         1 decide",
        expect![[r#"
            0 node a 4 → -
            0 pod p gate=g → tell ns/p condition: SchedulingGated: Scheduling is blocked due to non-empty scheduling gates
            0 pod p gate=g → -
            0 decide → -
            1 pod p → -
            1 decide → bind ns/p to a
        "#]],
    );
}

/// S4: a pod waits for what may help; what was said isn't said again, but the event counts up.
#[test]
fn a_pod_without_a_node_waits() {
    check(
        "0 pod p cpu=2
         0 decide
         0 node a 1
         0 decide
         0 decide
         5000 node b 1
         5000 decide
         30000 node b 2
         30000 decide",
        expect![[r#"
            0 pod p cpu=2 → -
            0 decide → tell ns/p condition event: Unschedulable: no nodes available to schedule pods
            0 node a 1 → -
            0 decide → tell ns/p condition event: Unschedulable: 0/1 nodes are available: 1 Insufficient cpu. no new claims to deallocate, preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling.
            0 decide → -
            5000 node b 1 → -
            5000 decide → tell ns/p condition event: Unschedulable: 0/2 nodes are available: 2 Insufficient cpu. no new claims to deallocate, preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling.
            30000 node b 2 → -
            30000 decide → bind ns/p to b
        "#]],
    );
}
