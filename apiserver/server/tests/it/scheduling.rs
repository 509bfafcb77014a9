//! Schedulers over the API: every pod gets a node, and no node more than it has.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Api;
use kube::api::{ListParams, PostParams};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::cluster::Cluster;

const NODES: [&str; 3] = ["a", "b", "c"];
/// Pods that a node has room for.
const ROOM: usize = 8;

/// Two of the same name decide for the same pods at the same time, and all nodes are full in the end.
#[test]
fn two_schedulers_fill_nodes_and_overcommit_none() {
    let cluster = Cluster::start();
    let shutdown = CancellationToken::new();
    let run = |_| {
        let run = scheduler_server::run(cluster.client(), scheduler_server::Config::default(), shutdown.clone());
        cluster.runtime.spawn(run)
    };
    let schedulers: Vec<_> = (0..2).map(run).collect();
    cluster.runtime.block_on(async {
        let nodes: Api<Node> = Api::all(cluster.client());
        for name in NODES {
            let allocatable = json!({"cpu": ROOM.to_string(), "memory": "8Gi", "pods": "110"});
            let node = json!({"metadata": {"name": name}, "status": {"allocatable": allocatable}});
            let node: Node = serde_json::from_value(node).expect("a node");
            nodes.create(&PostParams::default(), &node).await.expect("created");
        }
        let pods: Api<Pod> = Api::namespaced(cluster.client(), "default");
        for number in 0..NODES.len() * ROOM {
            let container = json!({"name": "c", "image": "i", "resources": {"requests": {"cpu": "1"}}});
            let pod = json!({"metadata": {"name": format!("p{number}")}, "spec": {"containers": [container]}});
            let pod: Pod = serde_json::from_value(pod).expect("a pod");
            pods.create(&PostParams::default(), &pod).await.expect("created");
        }
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let mut loads: BTreeMap<String, usize> = BTreeMap::new();
            for pod in pods.list(&ListParams::default()).await.expect("a list") {
                if let Some(node) = pod.spec.and_then(|spec| spec.node_name) {
                    *loads.entry(node).or_default() += 1;
                }
            }
            assert!(loads.values().all(|load| *load <= ROOM), "{loads:?}");
            if loads.values().sum::<usize>() == NODES.len() * ROOM {
                break;
            }
            assert!(Instant::now() < deadline, "{loads:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    shutdown.cancel();
    for scheduler in schedulers {
        cluster.runtime.block_on(scheduler).expect("no panic").expect("it ran");
    }
}
