//! What is known of a node is what is on it.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::scenario::{node, pod, run};
use seeded_bugs::assert_noticed;

fn load(cluster: &Cluster, name: &str) -> (usize, i64, i64) {
    let info = cluster.node(name).unwrap();
    (info.pod_count(), info.requested().cpu_milli, info.non_zero().cpu_milli)
}

/// C1, C2: a pod counts where it is now, whether it or its node came first.
#[test]
fn pods_wait_for_their_node() {
    let mut cluster = Cluster::new();
    cluster.add_pod(&pod(&["p", "cpu=1"]), "a").unwrap();
    cluster.add_pod(&pod(&["q"]), "a").unwrap();
    cluster.upsert_node(&node(&["a"])).unwrap();
    assert_eq!(load(&cluster, "a"), (2, 1000, 1100));
    cluster.upsert_node(&node(&["b"])).unwrap();
    cluster.add_pod(&pod(&["p", "cpu=2"]), "b").unwrap();
    assert_eq!((load(&cluster, "a"), load(&cluster, "b")), ((1, 0, 100), (1, 2000, 2000)));
    cluster.remove_node("b");
    assert_eq!(cluster.place_of("p"), Some("b"));
    cluster.upsert_node(&node(&["b"])).unwrap();
    assert_eq!(load(&cluster, "b"), (1, 2000, 2000));
    assert!(cluster.remove_pod("p") && !cluster.remove_pod("p"));
    assert_eq!(load(&cluster, "b"), (0, 0, 0));
}

/// C1: a sum that hit the limit is right again when the pod is gone.
#[test]
fn absurd_requests_do_no_lasting_harm() {
    let mut cluster = Cluster::new();
    cluster.upsert_node(&node(&["a"])).unwrap();
    for name in ["p", "q"] {
        cluster.add_pod(&pod(&[name, "memory=9223372036854775807"]), "a").unwrap();
    }
    cluster.add_pod(&pod(&["r", "cpu=1"]), "a").unwrap();
    cluster.remove_pod("p");
    cluster.remove_pod("q");
    assert_eq!(load(&cluster, "a"), (1, 1000, 1000));
}

/// C3: the list follows additions and removals only.
#[test]
fn the_order_is_kept_through_changes() {
    let mut cluster = Cluster::new();
    run(
        &mut cluster,
        "node a label.topology.kubernetes.io/zone=1
         node b label.topology.kubernetes.io/zone=1
         node c label.topology.kubernetes.io/zone=2",
    );
    assert_eq!(*cluster.order(), ["a", "c", "b"]);
    run(&mut cluster, "node a label.topology.kubernetes.io/zone=2");
    assert_eq!(*cluster.order(), ["a", "c", "b"]);
    run(&mut cluster, "node d label.topology.kubernetes.io/zone=1");
    assert_eq!(*cluster.order(), ["b", "c", "d", "a"]);
    run(&mut cluster, "remove b");
    assert_eq!(*cluster.order(), ["d", "c", "a"]);
}

#[test]
fn what_cannot_be_read_changes_nothing() {
    let mut cluster = Cluster::new();
    cluster.upsert_node(&node(&["a"])).unwrap();
    assert!(cluster.upsert_node(&node(&["a", "cpu=4x"])).is_err());
    assert!(cluster.add_pod(&pod(&["p", "cpu=x"]), "a").is_err());
    assert_eq!(load(&cluster, "a"), (0, 0, 0));
    assert_eq!(cluster.node("a").unwrap().node().allocatable.resources.cpu_milli, 4000);
}

/// What happens to a cluster: of four nodes and six pods, by their numbers.
#[derive(Debug, Clone, Copy)]
enum Change {
    /// A node comes, or changes its zone.
    Node(u8, u8),
    NodeGoes(u8),
    /// A pod with so many tenths of a core and Gi is on a node, wherever it was before.
    Pod(u8, u8, u8, u8),
    PodGoes(u8),
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let change = prop_oneof![
        (0_u8..4, 0_u8..3).prop_map(|(name, zone)| Change::Node(name, zone)),
        (0_u8..4).prop_map(Change::NodeGoes),
        (0_u8..6, 0_u8..4, 0_u8..30, 0_u8..8)
            .prop_map(|(name, node, cpu, memory)| Change::Pod(name, node, cpu, memory)),
        (0_u8..6).prop_map(Change::PodGoes),
    ];
    proptest::collection::vec(change, 1..60)
}

/// What counters may get wrong.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Bug {
    /// A pod that goes isn't taken off.
    GoneIsCounted,
    /// A pod that comes again stays where it was.
    FirstPlaceStays,
    /// A node that goes takes its pods along.
    NodesTakePods,
}

/// What was put there last.
#[derive(Default)]
struct There {
    nodes: BTreeSet<u8>,
    /// The node, tenths of a core, Gi.
    pods: BTreeMap<u8, (u8, u8, u8)>,
    bug: Option<Bug>,
}

impl There {
    fn pod(&mut self, name: u8, is: (u8, u8, u8)) {
        if self.bug != Some(Bug::FirstPlaceStays) || !self.pods.contains_key(&name) {
            self.pods.insert(name, is);
        }
    }

    /// Says whether it was there.
    fn pod_goes(&mut self, name: u8) -> bool {
        if self.bug == Some(Bug::GoneIsCounted) {
            return self.pods.contains_key(&name);
        }
        self.pods.remove(&name).is_some()
    }

    fn node_goes(&mut self, name: u8) {
        self.nodes.remove(&name);
        if self.bug == Some(Bug::NodesTakePods) {
            self.pods.retain(|_, (at, ..)| *at != name);
        }
    }

    /// How many pods are on a node, and what they ask for.
    fn sums(&self, name: u8) -> (usize, i64, i64) {
        let here = self.pods.values().filter(|(at, ..)| *at == name);
        here.fold((0, 0, 0), |(count, cpu_milli, memory), (_, cpu, gi)| {
            (count + 1, cpu_milli + i64::from(*cpu) * 100, memory + (i64::from(*gi) << 30))
        })
    }
}

/// Does the same to both.
fn change(cluster: &mut Cluster, there: &mut There, change: Change) -> Result<(), TestCaseError> {
    match change {
        Change::Node(name, zone) => {
            let zone = format!("label.topology.kubernetes.io/zone={zone}");
            cluster.upsert_node(&node(&[&format!("n{name}"), &zone])).unwrap();
            there.nodes.insert(name);
        }
        Change::NodeGoes(name) => {
            cluster.remove_node(&format!("n{name}"));
            there.node_goes(name);
        }
        Change::Pod(name, at, cpu, memory) => {
            let (cpu_word, memory_word) = (format!("cpu={}m", u32::from(cpu) * 100), format!("memory={memory}Gi"));
            cluster.add_pod(&pod(&[&format!("p{name}"), &cpu_word, &memory_word]), &format!("n{at}")).unwrap();
            there.pod(name, (at, cpu, memory));
        }
        Change::PodGoes(name) => prop_assert_eq!(cluster.remove_pod(&format!("p{name}")), there.pod_goes(name)),
    }
    Ok(())
}

fn counts_what_is_there(changes: Vec<Change>, bug: Option<Bug>) -> Result<(), TestCaseError> {
    let (mut cluster, mut there) = (Cluster::new(), There { bug, ..There::default() });
    for next in changes {
        change(&mut cluster, &mut there, next)?;
        let nodes: BTreeSet<String> = there.nodes.iter().map(|name| format!("n{name}")).collect();
        prop_assert_eq!(cluster.order().iter().cloned().collect::<BTreeSet<_>>(), nodes);
        for (name, (at, ..)) in &there.pods {
            let place = format!("n{at}");
            prop_assert_eq!(cluster.place_of(&format!("p{name}")), Some(place.as_str()));
        }
        for name in &there.nodes {
            let info = cluster.node(&format!("n{name}")).unwrap();
            let requested = info.requested();
            prop_assert_eq!((info.pod_count(), requested.cpu_milli, requested.memory), there.sums(*name));
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// C1, C2: after any history, each node's sums are what the pods that were put there last come to.
    #[test]
    fn counters_are_what_is_there(changes in changes()) {
        counts_what_is_there(changes, None)?;
    }
}

/// A pod that is counted too long, at the wrong place or not any more is found.
#[test]
fn a_wrong_count_is_noticed() {
    let bugs = [Bug::GoneIsCounted, Bug::FirstPlaceStays, Bug::NodesTakePods];
    assert_noticed(&bugs, &changes(), counts_what_is_there);
}
