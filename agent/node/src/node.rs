//! The node object: registered, its lease renewed, its conditions kept true.
//!
//! Source: kubelet `kubelet_node_status.go`; KEP-589 (leases).

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::machine::Machine;

/// How long a lease holds without renewal, and how often it is renewed.
pub(crate) const LEASE_SECONDS: i32 = 40;
pub(crate) const RENEW_EVERY: Duration = Duration::from_secs(10);
/// A status that doesn't change is written this often all the same.
const REPORT_EVERY: Duration = Duration::from_secs(300);
/// Pods of a node.
const PODS_MAX: u32 = 110;
/// Pause between attempts to register.
const AGAIN: Duration = Duration::from_millis(500);

/// What is said of a node.
#[derive(Debug, Clone)]
pub(crate) struct Described {
    pub(crate) name: String,
    pub(crate) address: IpAddr,
    pub(crate) port: u16,
    pub(crate) pod_network: String,
    pub(crate) machine: Machine,
    /// Such as `containerd://1.6.20`.
    pub(crate) runtime: String,
    pub(crate) hollow: bool,
}

/// Why the node isn't ready, and the images it has, as the status shows them.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Health {
    pub(crate) not_ready: Option<String>,
    pub(crate) images: Vec<Value>,
}

impl Described {
    fn labels(&self) -> BTreeMap<&str, &str> {
        let arch = self.machine.architecture;
        let mut labels = BTreeMap::from([
            ("kubernetes.io/hostname", self.name.as_str()),
            ("kubernetes.io/os", "linux"),
            ("kubernetes.io/arch", arch),
            ("beta.kubernetes.io/os", "linux"),
            ("beta.kubernetes.io/arch", arch),
        ]);
        if self.hollow {
            labels.insert("keelson.io/hollow", "true");
        }
        labels
    }

    fn object(&self) -> Value {
        json!({
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": self.name, "labels": self.labels()},
            "spec": {"podCIDR": self.pod_network, "podCIDRs": [self.pod_network]},
        })
    }

    /// `old` holds the conditions so far, whose transition times are kept.
    fn status(&self, health: &Health, old: &[Value], now: Timestamp) -> Value {
        let amounts = json!({
            "cpu": self.machine.cpus.to_string(),
            "memory": format!("{}Ki", self.machine.memory_bytes / 1024),
            "ephemeral-storage": format!("{}Ki", self.machine.disk_bytes / 1024),
            "pods": PODS_MAX.to_string(),
        });
        json!({
            "capacity": amounts,
            "allocatable": amounts,
            "addresses": [
                {"type": "InternalIP", "address": self.address.to_string()},
                {"type": "Hostname", "address": self.name},
            ],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": self.port}},
            "conditions": conditions(health, old, now),
            "images": health.images,
            "nodeInfo": {
                "architecture": self.machine.architecture,
                "operatingSystem": "linux",
                "osImage": self.machine.os_image,
                "kernelVersion": self.machine.kernel,
                "machineID": self.machine.machine_id,
                "systemUUID": self.machine.machine_id,
                "bootID": self.machine.boot_id,
                "containerRuntimeVersion": self.runtime,
                "kubeletVersion": concat!("v1.36.2-keelson.", env!("CARGO_PKG_VERSION")),
                "kubeProxyVersion": "",
            },
        })
    }
}

fn conditions(health: &Health, old: &[Value], now: Timestamp) -> Vec<Value> {
    let ready = health.not_ready.is_none();
    let message = health.not_ready.clone().unwrap_or_else(|| "the node agent is posting ready status".to_owned());
    let sound = [
        ("MemoryPressure", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
        ("DiskPressure", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
        ("PIDPressure", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
    ];
    let mut all: Vec<(&str, bool, &str, String)> =
        sound.into_iter().map(|(kind, reason, text)| (kind, false, reason, text.to_owned())).collect();
    all.push(("Ready", ready, if ready { "KubeletReady" } else { "KubeletNotReady" }, message));
    let condition = |(kind, on, reason, message): (&str, bool, &str, String)| {
        let status = if on { "True" } else { "False" };
        let same = old.iter().find(|c| c["type"] == kind && c["status"] == status);
        let since = same.map_or_else(|| json!(Time(now)), |c| c["lastTransitionTime"].clone());
        json!({
            "type": kind, "status": status, "reason": reason, "message": message,
            "lastHeartbeatTime": Time(now), "lastTransitionTime": since,
        })
    };
    all.into_iter().map(condition).collect()
}

/// Makes the node object if it isn't there, with its status.
async fn register(client: &Client, node: &Described, health: &Health) -> Result<Vec<Value>, kube::Error> {
    let api = Api::<Node>::all(client.clone());
    let object = serde_json::from_value(node.object()).map_err(kube::Error::SerdeError)?;
    let found = match api.create(&PostParams::default(), &object).await {
        Ok(made) => made,
        Err(kube::Error::Api(status)) if status.code == 409 => {
            let patch = json!({"metadata": {"labels": node.labels()}});
            api.patch(&node.name, &PatchParams::default(), &Patch::Merge(patch)).await?
        }
        Err(error) => return Err(error),
    };
    let old = found.status.and_then(|s| s.conditions).unwrap_or_default();
    let old: Vec<Value> = old.iter().filter_map(|c| serde_json::to_value(c).ok()).collect();
    report(client, node, health, &old).await
}

/// Writes the status; returns the conditions written.
async fn report(client: &Client, node: &Described, health: &Health, old: &[Value]) -> Result<Vec<Value>, kube::Error> {
    let status = node.status(health, old, Timestamp::now());
    let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
    let api = Api::<Node>::all(client.clone());
    api.patch_status(&node.name, &PatchParams::default(), &Patch::Merge(json!({"status": status}))).await?;
    Ok(conditions)
}

/// Renews the node's lease; makes it if it is missing.
async fn renew(client: &Client, name: &str) -> Result<(), kube::Error> {
    let api = Api::<Lease>::namespaced(client.clone(), "kube-node-lease");
    let now = Timestamp::now();
    let spec = json!({
        "holderIdentity": name,
        "leaseDurationSeconds": LEASE_SECONDS,
        // MicroTime has exactly six digits.
        "renewTime": now.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string(),
    });
    match api.patch(name, &PatchParams::default(), &Patch::Merge(json!({"spec": spec}))).await {
        Err(kube::Error::Api(status)) if status.code == 404 => {
            let lease = json!({"metadata": {"name": name, "namespace": "kube-node-lease"}, "spec": spec});
            let lease = serde_json::from_value(lease).map_err(kube::Error::SerdeError)?;
            api.create(&PostParams::default(), &lease).await.map(|_| ())
        }
        result => result.map(|_| ()),
    }
}

/// What became of the node object since it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shown {
    /// It says what was written.
    AsWritten,
    /// Somebody wrote other conditions: whoever took the node for silent, say.
    Otherwise,
    Gone,
}

/// Source: kubelet `tryUpdateNodeStatus`, which reads the object each time and writes what differs.
fn shown(found: Option<&Node>, written: &[Value]) -> Shown {
    let Some(node) = found else { return Shown::Gone };
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let is_there =
        |wanted: &Value| conditions.iter().any(|c| wanted["type"] == *c.type_ && wanted["status"] == *c.status);
    if written.iter().all(is_there) { Shown::AsWritten } else { Shown::Otherwise }
}

/// A node that is registered, and what was said of it last.
pub(crate) struct Kept {
    node: Described,
    conditions: Vec<Value>,
    said: Health,
    said_at: Instant,
}

impl Kept {
    /// Registers the node, trying until it works or `shutdown`.
    pub(crate) async fn register(
        client: &Client,
        node: Described,
        health: Health,
        shutdown: &CancellationToken,
    ) -> Option<Self> {
        loop {
            match register(client, &node, &health).await {
                Ok(conditions) => return Some(Self { node, conditions, said: health, said_at: Instant::now() }),
                Err(error) => tracing::info!(%error, node = node.name, "the node isn't registered yet"),
            }
            tokio::select! {
                () = shutdown.cancelled() => return None,
                () = tokio::time::sleep(AGAIN) => {}
            }
        }
    }

    /// Renews the node's lease.
    pub(crate) async fn renew(&self, client: &Client) {
        if let Err(error) = renew(client, &self.node.name).await {
            tracing::warn!(%error, node = self.node.name, "the node's lease was not renewed");
        }
    }

    /// Writes what the node object doesn't say as it is; makes the object again if it is gone.
    pub(crate) async fn report(&mut self, client: &Client, health: Health) {
        let found = Api::<Node>::all(client.clone()).get_opt(&self.node.name).await;
        // Who can't be asked shows nothing new.
        let shown = found.map_or(Shown::AsWritten, |found| shown(found.as_ref(), &self.conditions));
        let is_due = self.said_at.elapsed() >= REPORT_EVERY || health != self.said || shown == Shown::Otherwise;
        let written = match shown {
            // As kubelet does.
            Shown::Gone => register(client, &self.node, &health).await,
            _ if is_due => report(client, &self.node, &health, &self.conditions).await,
            _ => return,
        };
        match written {
            Ok(conditions) => (self.conditions, self.said, self.said_at) = (conditions, health, Instant::now()),
            Err(error) => tracing::warn!(%error, node = self.node.name, "the node's status was not written"),
        }
    }
}

/// Keeps the node's lease and status until `shutdown`. `ask` finds out how the node is.
pub(crate) async fn keep<F>(client: Client, mut node: Kept, ask: impl Fn() -> F, shutdown: CancellationToken)
where
    F: Future<Output = Health>,
{
    loop {
        // First, as finding out may take its time.
        node.renew(&client).await;
        node.report(&client, ask().await).await;
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(RENEW_EVERY) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_wrote_over_the_status_is_noticed() {
        let written = [json!({"type": "Ready", "status": "True"}), json!({"type": "DiskPressure", "status": "False"})];
        let node = |ready: &str| {
            let conditions = json!([{"type": "Ready", "status": ready}, {"type": "DiskPressure", "status": "False"}]);
            serde_json::from_value::<Node>(json!({"metadata": {}, "status": {"conditions": conditions}}))
                .expect("a node")
        };
        assert_eq!(shown(Some(&node("True")), &written), Shown::AsWritten);
        assert_eq!(shown(Some(&node("Unknown")), &written), Shown::Otherwise, "a controller took it for silent");
        assert_eq!(shown(Some(&Node::default()), &written), Shown::Otherwise);
        assert_eq!(shown(None, &written), Shown::Gone);
    }
}
