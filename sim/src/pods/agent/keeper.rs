//! The node object: registered, its lease renewed, its conditions kept true, as `agent/node/src/node.rs` does it.

use apiserver_core::lifecycle::Part;
use serde_json::{Value, json};

use super::super::apiserver::{Ask, Failure, Place};
use super::super::client::Client;
use super::super::objects::Kind;
use crate::queue::{MS, SECOND, Time};

const RENEW_EVERY: Time = 10 * SECOND;
const REPORT_EVERY: Time = 300 * SECOND;
const AGAIN: Time = 500 * MS;
const LEASES: &str = "kube-node-lease";

fn labels(name: &str) -> Value {
    json!({"kubernetes.io/hostname": name, "kubernetes.io/os": "linux"})
}

async fn register(client: &Client, name: &str, cpus: u64) -> Result<(), Failure> {
    let object = json!({"metadata": {"name": name, "labels": labels(name)}, "spec": {}});
    match client.create(Kind::Node, "", object).await {
        Err(failure) if failure.is(409) => {
            let patch = json!({"metadata": {"labels": labels(name)}});
            client.patch(Place::new(Kind::Node, "", name), Part::Main, patch).await?;
        }
        other => drop(other?),
    }
    report(client, name, cpus).await
}

async fn report(client: &Client, name: &str, cpus: u64) -> Result<(), Failure> {
    let now = client.sim.seconds();
    let amounts = json!({"cpu": cpus.to_string(), "memory": "64Gi", "pods": "110"});
    let ready = json!({"type": "Ready", "status": "True", "reason": "KubeletReady", "lastHeartbeatTime": now,
        "lastTransitionTime": now});
    let status = json!({"capacity": amounts, "allocatable": amounts, "conditions": [ready]});
    client.patch(Place::new(Kind::Node, "", name), Part::Status, json!({"status": status})).await.map(drop)
}

/// Registers, trying until it works.
pub(super) async fn register_until(client: &Client, name: &str, cpus: u64) {
    while register(client, name, cpus).await.is_err() {
        client.sim.sleep(AGAIN).await;
    }
}

async fn renew(client: &Client, name: &str) -> Result<(), Failure> {
    let time = client.sim.wall().strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string();
    let spec = json!({"holderIdentity": name, "leaseDurationSeconds": 40, "renewTime": time});
    match client.patch(Place::new(Kind::Lease, LEASES, name), Part::Main, json!({"spec": spec})).await {
        Err(failure) if failure.is(404) => {
            let lease = json!({"metadata": {"name": name, "namespace": LEASES}, "spec": spec});
            client.create(Kind::Lease, LEASES, lease).await.map(drop)
        }
        result => result.map(drop),
    }
}

fn is_ready(node: &Value) -> bool {
    let conditions = apiserver_core::meta::items(node, "/status/conditions");
    conditions.iter().any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

/// Keeps the node's lease and status.
pub(super) async fn keep(client: Client, name: &str, cpus: u64) {
    let mut said_at: Option<Time> = None;
    loop {
        // What isn't renewed now is soon.
        let _ = renew(&client, name).await;
        let now = client.sim.now();
        let is_due = said_at.is_none_or(|at| now >= at + REPORT_EVERY);
        let done = match client.object(Ask::Get(Place::new(Kind::Node, "", name))).await {
            // Somebody deleted it: it is made again.
            Err(failure) if failure.is(404) => register(&client, name, cpus).await,
            Ok(node) if !is_due && is_ready(&node) => Ok(()),
            Err(_) if !is_due => Ok(()),
            _ => report(&client, name, cpus).await.map(|()| said_at = Some(now)),
        };
        // What isn't said now is soon.
        drop(done);
        client.sim.sleep(RENEW_EVERY).await;
    }
}
