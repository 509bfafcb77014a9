//! Those who use the cluster: they make, change and delete workloads and pods.

use api::status::Status;
use apiserver_core::lifecycle::Part;
use apiserver_core::options::{DeleteOptions, Propagation};
use serde_json::{Value, json};

use super::apiserver::Place;
use super::client::Client;
use super::hub::Wanted;
use super::informer::{Informer, Seen};
use super::objects::Kind;
use super::tasks::{Mailbox, Process};
use crate::queue::{MS, SECOND};

/// The namespace of all workloads.
pub(crate) const NAMESPACE: &str = "d";
/// Names of each kind.
const NAMES: u64 = 3;
/// Containers of single pods at most.
const REPLICAS_MAX: u64 = 4;

fn spec(client: &Client, policy: &str) -> Value {
    let sim = &client.sim;
    let cpu = *sim.one_of(&["250m", "500m", "1", "2"]);
    let containers: Vec<Value> = ["c", "d"]
        .iter()
        .take(if sim.once_in(4) { 2 } else { 1 })
        .map(|name| json!({"name": name, "image": "i", "resources": {"requests": {"cpu": cpu}}}))
        .collect();
    json!({"containers": containers, "restartPolicy": policy, "terminationGracePeriodSeconds": sim.between(1, 4)})
}

fn pod(client: &Client, name: &str) -> Value {
    let policy = *client.sim.one_of(&["Always", "Always", "OnFailure", "Never"]);
    json!({"metadata": {"name": name, "namespace": NAMESPACE}, "spec": spec(client, policy)})
}

fn workload(client: &Client, name: &str) -> Value {
    let labels = json!({"app": name});
    let replicas = client.sim.below(REPLICAS_MAX + 1);
    json!({
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": labels},
        "spec": {"replicas": replicas, "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": spec(client, "Always")}},
    })
}

/// One user, until all is to be calm.
pub(crate) async fn use_cluster(client: Client) {
    let sim = client.sim.clone();
    let mean = sim.between(300 * MS, 2 * SECOND);
    loop {
        sim.sleep(sim.around(mean)).await;
        if sim.calm.get() {
            return;
        }
        let (kind, letter) =
            *sim.one_of(&[(Kind::Pod, 'p'), (Kind::ReplicaSet, 'r'), (Kind::ReplicaSet, 'r'), (Kind::Deployment, 'w')]);
        let place = Place::new(kind, NAMESPACE, &format!("{letter}{}", sim.below(NAMES)));
        // What becomes of it others will see.
        let _ = act(&client, place).await;
    }
}

async fn act(client: &Client, place: Place) -> Result<(), super::apiserver::Failure> {
    let sim = &client.sim;
    match sim.below(11) {
        0..4 => {
            let object = match place.kind {
                Kind::Pod => pod(client, &place.name),
                _ => workload(client, &place.name),
            };
            client.create(place.kind, NAMESPACE, object).await?;
        }
        4..6 if place.kind != Kind::Pod => {
            let patch = json!({"spec": {"replicas": sim.below(REPLICAS_MAX + 1)}});
            client.patch(place, Part::Main, patch).await?;
        }
        6 if place.kind == Kind::Deployment => {
            let annotations = json!({"version": sim.below(3).to_string()});
            let patch = json!({"spec": {"template": {"metadata": {"annotations": annotations}}}});
            client.patch(place, Part::Main, patch).await?;
        }
        4..8 => {
            let propagation = *sim.one_of(&[
                None,
                Some(Propagation::Background),
                Some(Propagation::Foreground),
                Some(Propagation::Orphan),
            ]);
            let grace = sim.once_in(4).then(|| sim.below(3).cast_signed());
            client
                .delete(place, DeleteOptions { propagation, grace_period_seconds: grace, ..DeleteOptions::default() })
                .await?;
        }
        8 => {
            // Any pod, whosever it is.
            let (pods, _) = client.list(Wanted { kind: Kind::Pod, field: None }).await?;
            if pods.is_empty() {
                return Err(super::apiserver::Failure::Status(Status::internal("there are no pods")));
            }
            let pod = sim.one_of(&pods);
            let grace = sim.once_in(5).then_some(0);
            let options = DeleteOptions { grace_period_seconds: grace, ..DeleteOptions::default() };
            client.delete(Place::new(Kind::Pod, NAMESPACE, pod.name()), options).await?;
        }
        9 => replace(client).await?,
        _ => {
            let (nodes, _) = client.list(Wanted { kind: Kind::Node, field: None }).await?;
            if !nodes.is_empty() {
                let node = sim.one_of(&nodes);
                let patch = json!({"spec": {"unschedulable": sim.once_in(2)}});
                client.patch(Place::new(Kind::Node, "", node.name()), Part::Main, patch).await?;
            }
        }
    }
    Ok(())
}

/// Puts another pod in the place of any, at once, under the same name and on the same node: whoever acts upon the one must not hit the
/// other.
async fn replace(client: &Client) -> Result<(), super::apiserver::Failure> {
    let (pods, _) = client.list(Wanted { kind: Kind::Pod, field: None }).await?;
    if pods.is_empty() {
        return Ok(());
    }
    let pod = client.sim.one_of(&pods);
    let mut spec = pod.value["spec"].clone();
    // Whoever names a node isn't asked whether it has room.
    for container in spec["containers"].as_array_mut().into_iter().flatten() {
        container["resources"]["requests"]["cpu"] = json!("0");
    }
    let labels = &pod.value["metadata"]["labels"];
    let object = json!({"metadata": {"name": pod.name(), "namespace": NAMESPACE, "labels": labels}, "spec": spec});
    let at_once = DeleteOptions { grace_period_seconds: Some(0), ..DeleteOptions::default() };
    client.delete(Place::new(Kind::Pod, NAMESPACE, pod.name()), at_once).await?;
    client.create(Kind::Pod, NAMESPACE, object).await.map(drop)
}

/// Somebody who deletes pods as soon as he sees them, now and then.
pub(crate) async fn snipe(client: Client, process: Process) {
    let (sim, seen) = (client.sim.clone(), Mailbox::default());
    let (informer, tell) = (Informer::new(&client, "a user", Wanted { kind: Kind::Pod, field: None }), seen.clone());
    let tell = move |change: Seen| {
        if let Seen::Applied(pod) = change {
            tell.send(pod);
        }
    };
    sim.spawn(process, informer.run(tell));
    loop {
        let pod = seen.receive().await;
        let is_new = apiserver_core::meta::text(&pod.value, "/spec/nodeName").is_empty();
        if !sim.calm.get() && is_new && sim.once_in(6) {
            let at_once = DeleteOptions { grace_period_seconds: Some(0), ..DeleteOptions::default() };
            let _ = client.delete(Place::new(Kind::Pod, NAMESPACE, pod.name()), at_once).await;
        }
    }
}
