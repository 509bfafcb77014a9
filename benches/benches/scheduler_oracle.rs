//! Deciding for one pod, the plain way: the oracle that faster schedulers are compared with.
//!
//! Limit: as kube-scheduler, it looks at all of 100 nodes and at 42 % of 1,000, and for each filters,
//! scores six plugins and keeps a name: ≈ 0.5 µs of comparisons and one allocation of ≈ 50 ns for
//! each string it keeps. So ≈ 0.1 ms at 100 nodes and 0.4 ms at 1,000. kube-scheduler places
//! 326 pods a second on this kind of machine: what is left of its 3 ms is the API.

use std::collections::BTreeMap;
use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use k8s_openapi::api::core::v1::{
    Container, Node, NodeSpec, NodeStatus, Pod, PodSpec, ResourceRequirements, TopologySpreadConstraint,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use scheduler_core::{Cluster, SpreadDefaults, schedule};

const ZONES: usize = 3;
/// Pods that run on each node before anything is measured.
const PODS_A_NODE: usize = 10;

fn labels(pairs: &[(&str, String)]) -> Option<BTreeMap<String, String>> {
    Some(pairs.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect())
}

fn quantities(cpu: &str, memory: &str, pods: Option<&str>) -> Option<BTreeMap<String, Quantity>> {
    let pairs = [("cpu", Some(cpu)), ("memory", Some(memory)), ("pods", pods)];
    Some(pairs.iter().filter_map(|(key, value)| Some(((*key).to_owned(), Quantity((*value)?.to_owned())))).collect())
}

fn node(number: usize) -> Node {
    let name = format!("node-{number:05}");
    let zone = format!("zone-{}", number % ZONES);
    Node {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            labels: labels(&[("kubernetes.io/hostname", name), ("topology.kubernetes.io/zone", zone)]),
            ..ObjectMeta::default()
        },
        spec: Some(NodeSpec::default()),
        status: Some(NodeStatus {
            allocatable: quantities("32", "64Gi", Some("110")),
            capacity: quantities("32", "64Gi", Some("110")),
            ..NodeStatus::default()
        }),
    }
}

/// A pod of one of ten applications.
fn pod(number: usize, spread: bool) -> Pod {
    let app = labels(&[("app", format!("app-{}", number % 10))]);
    let constraint = TopologySpreadConstraint {
        max_skew: 1,
        topology_key: "topology.kubernetes.io/zone".to_owned(),
        when_unsatisfiable: "ScheduleAnyway".to_owned(),
        label_selector: Some(LabelSelector { match_labels: app.clone(), ..LabelSelector::default() }),
        ..TopologySpreadConstraint::default()
    };
    Pod {
        metadata: ObjectMeta {
            name: Some(format!("pod-{number}")),
            namespace: Some("default".to_owned()),
            uid: Some(format!("uid-{number}")),
            labels: app,
            ..ObjectMeta::default()
        },
        spec: Some(PodSpec {
            containers: vec![Container {
                name: "main".to_owned(),
                image: Some("registry.example/app:1".to_owned()),
                resources: Some(ResourceRequirements {
                    requests: quantities("100m", "200Mi", None),
                    ..ResourceRequirements::default()
                }),
                ..Container::default()
            }],
            topology_spread_constraints: spread.then(|| vec![constraint]),
            ..PodSpec::default()
        }),
        ..Pod::default()
    }
}

fn filled(nodes: usize) -> Cluster {
    let mut cluster = Cluster::new();
    for number in 0..nodes {
        cluster.upsert_node(&node(number)).expect("a node that can be read");
    }
    for number in 0..nodes * PODS_A_NODE {
        let name = format!("node-{:05}", number % nodes);
        cluster.add_pod(&pod(number, false), &name).expect("a pod that can be read");
    }
    cluster
}

fn scheduler_oracle(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("scheduler_oracle");
    group.sample_size(20);
    // The first is the smoke size.
    for nodes in [100, 1_000] {
        let mut cluster = filled(nodes);
        for (name, spread) in [("basic", false), ("spread", true)] {
            let incoming = pod(usize::MAX / 2, spread);
            group.bench_function(format!("{name}/{nodes}"), |bencher| {
                bencher.iter(|| {
                    let decision = schedule(&mut cluster, black_box(&incoming), &SpreadDefaults::default());
                    assert!(decision.is_ok(), "there is room everywhere");
                    decision
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, scheduler_oracle);
criterion_main!(benches);
