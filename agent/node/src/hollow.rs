//! Nodes without a runtime, for scale tests and for machines that can't run containers.
//!
//! What a pod's status should be is decided in `agent_core::hollow` from the object
//! alone; here it is watched for and written. One watch serves all nodes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use agent_core::hollow::{self, Step};
use futures::StreamExt as _;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::api::{Patch, PatchParams};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::actions;
use crate::machine::Machine;
use crate::node::{self, Described, Health, Kept};

/// Writes on their way at once.
const WRITES_MAX: usize = 64;
/// Addresses of hollow pods: shared address space (RFC 6598), which nothing routes.
const POD_ADDRESSES: (Ipv4Addr, u32) = (Ipv4Addr::new(100, 64, 0, 1), (1 << 22) - 2);

/// Names of `count` nodes.
fn names(count: u32) -> BTreeSet<String> {
    (0..count).map(|n| format!("hollow-{n}")).collect()
}

/// Runs `count` hollow nodes until `shutdown`.
pub(crate) async fn run(client: Client, count: u32, address: IpAddr, machine: Machine, shutdown: CancellationToken) {
    let names = names(count);
    let describe = |name: &String| Described {
        name: name.clone(),
        address,
        port: 0,
        pod_network: format!("{}/10", Ipv4Addr::new(100, 64, 0, 0)),
        machine: machine.clone(),
        runtime: concat!("hollow://", env!("CARGO_PKG_VERSION")).to_owned(),
        hollow: true,
    };
    let nodes: Vec<Described> = names.iter().map(describe).collect();
    tokio::join!(keep_nodes(client.clone(), nodes, shutdown.clone()), keep_pods(client, names, address, shutdown),);
}

/// Registers the nodes, then keeps their leases and statuses, spread over the interval.
async fn keep_nodes(client: Client, nodes: Vec<Described>, shutdown: CancellationToken) {
    let mut kept = Vec::with_capacity(nodes.len());
    for described in nodes {
        let Some(node) = Kept::register(&client, described, Health::default(), &shutdown).await else { return };
        node.renew(&client).await;
        kept.push(node);
    }
    if kept.is_empty() {
        return;
    }
    tracing::info!(nodes = kept.len(), "hollow nodes are registered");
    let mut turns = tokio::time::interval(node::RENEW_EVERY / u32::try_from(kept.len()).unwrap_or(u32::MAX));
    loop {
        for node in &mut kept {
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = turns.tick() => {}
            }
            node.renew(&client).await;
            node.report(&client, Health::default()).await;
        }
    }
}

struct Pods {
    names: BTreeSet<String>,
    address: IpAddr,
    known: BTreeMap<String, Pod>,
    /// When to look at a pod again.
    due: BTreeSet<(Timestamp, String)>,
    addresses_used: u32,
}

enum Write {
    Status(Box<Pod>, Box<PodStatus>),
    Delete(Box<Pod>),
}

async fn keep_pods(client: Client, names: BTreeSet<String>, address: IpAddr, shutdown: CancellationToken) {
    let config = watcher::Config::default().fields("spec.nodeName!=");
    let mut stream = watcher(Api::<Pod>::all(client.clone()), config).boxed();
    let mut pods = Pods { names, address, known: BTreeMap::new(), due: BTreeSet::new(), addresses_used: 0 };
    let permits = Arc::new(Semaphore::new(WRITES_MAX));
    let mut writes = JoinSet::new();
    loop {
        let wake = pods.next_wake();
        let planned = tokio::select! {
            () = shutdown.cancelled() => return,
            Some(_) = writes.join_next() => continue,
            () = tokio::time::sleep(wake) => pods.step_due(),
            event = stream.next() => match event {
                None => return,
                Some(Ok(event)) => pods.handle(event),
                Some(Err(error)) => {
                    tracing::debug!(%error, "the watch of pods was interrupted");
                    tokio::time::sleep(Duration::from_millis(200)).await;
                    continue;
                }
            },
        };
        if let Some(write) = planned {
            // Bounded: the watch is not read on while all permits are out.
            let Ok(permit) = permits.clone().acquire_owned().await else { return };
            let client = client.clone();
            writes.spawn(async move {
                carry_out(&client, write).await;
                drop(permit);
            });
        }
    }
}

impl Pods {
    fn handle(&mut self, event: Event<Pod>) -> Option<Write> {
        match event {
            Event::Apply(pod) | Event::InitApply(pod) => {
                let ours = pod.spec.as_ref().and_then(|s| s.node_name.as_ref()).is_some_and(|n| self.names.contains(n));
                if ours { self.step(pod) } else { None }
            }
            Event::Delete(pod) => {
                self.known.remove(pod.metadata.uid.as_deref().unwrap_or_default());
                None
            }
            Event::Init => {
                self.known.clear();
                self.due.clear();
                None
            }
            Event::InitDone => None,
        }
    }

    fn step(&mut self, pod: Pod) -> Option<Write> {
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let ip = self.pod_ip(&pod);
        let step = hollow::step(&pod, Timestamp::now(), &self.address.to_string(), &ip);
        let write = match step {
            Step::Publish(status) => Some(Write::Status(Box::new(pod.clone()), status)),
            Step::Delete => Some(Write::Delete(Box::new(pod.clone()))),
            Step::WaitUntil(at) => {
                self.due.insert((at, uid.clone()));
                None
            }
            Step::Rest => None,
        };
        // Only what is waited for needs to be known later.
        if matches!(write, None | Some(Write::Status(..))) && self.due.iter().any(|(_, u)| *u == uid) {
            self.known.insert(uid, pod);
        }
        write
    }

    fn pod_ip(&mut self, pod: &Pod) -> String {
        if let Some(ip) = pod.status.as_ref().and_then(|s| s.pod_ip.clone()) {
            return ip;
        }
        if pod.spec.as_ref().and_then(|s| s.host_network) == Some(true) {
            return self.address.to_string();
        }
        // Counted on; after four million pods addresses come round again.
        self.addresses_used = (self.addresses_used + 1) % POD_ADDRESSES.1;
        Ipv4Addr::from(u32::from(POD_ADDRESSES.0) + self.addresses_used).to_string()
    }

    fn next_wake(&self) -> Duration {
        let wait = self.due.first().map(|(at, _)| at.duration_since(Timestamp::now()));
        let wait = wait.map_or(Duration::from_secs(60), |w| Duration::try_from(w).unwrap_or(Duration::ZERO));
        wait + Duration::from_millis(1)
    }

    /// The first pod whose moment has come.
    fn step_due(&mut self) -> Option<Write> {
        let first = self.due.first().filter(|(at, _)| *at <= Timestamp::now()).cloned()?;
        self.due.remove(&first);
        let pod = self.known.remove(&first.1)?;
        self.step(pod)
    }
}

async fn carry_out(client: &Client, write: Write) {
    let result = match &write {
        Write::Delete(pod) => actions::delete(client, pod).await,
        Write::Status(pod, status) => {
            let api = Api::<Pod>::namespaced(client.clone(), pod.metadata.namespace.as_deref().unwrap_or_default());
            let patch = serde_json::json!({"metadata": {"uid": pod.metadata.uid}, "status": status});
            let name = pod.metadata.name.as_deref().unwrap_or_default();
            match api.patch_status(name, &PatchParams::default(), &Patch::Merge(patch)).await {
                Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => Ok(()),
                result => result.map(|_| ()),
            }
        }
    };
    if let Err(error) = result {
        tracing::warn!(%error, "a hollow pod was not written");
    }
}
