//! What is known of a node is what is on it.

use super::*;
use crate::scenario::{node, pod, run};

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
