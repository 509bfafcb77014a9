//! When the cluster is ready: the API answers, which it does once the store has a leader,
//! and a node is there to run pods.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::Node;
use kube::Client;

use super::READY_MAX;
use super::cluster::Layout;

const ASK_EVERY: Duration = Duration::from_millis(20);

/// Waits until the API answers and, with `nodes`, a node is ready.
pub(super) async fn wait(layout: &Layout, nodes: bool) -> Result<()> {
    let client = client(layout).await?;
    let answers = async {
        while !api_answers(&client).await {
            tokio::time::sleep(ASK_EVERY).await;
        }
    };
    let begun = tokio::time::Instant::now();
    if tokio::time::timeout(READY_MAX, answers).await.is_err() {
        bail!("the API did not answer in {READY_MAX:?}");
    }
    let node = async {
        while nodes && !has_node(&client).await {
            tokio::time::sleep(ASK_EVERY).await;
        }
    };
    match tokio::time::timeout(READY_MAX.saturating_sub(begun.elapsed()), node).await {
        Ok(()) => Ok(()),
        Err(_) => bail!("no node was ready in {READY_MAX:?}"),
    }
}

async fn has_node(client: &Client) -> bool {
    let nodes = kube::Api::<Node>::all(client.clone());
    let listed = tokio::time::timeout(Duration::from_secs(2), nodes.list(&kube::api::ListParams::default())).await;
    let Ok(Ok(list)) = listed else { return false };
    list.items.iter().any(is_ready)
}

/// Whether a node says that it can run pods.
pub(crate) fn is_ready(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|s| s.conditions.as_ref());
    conditions.into_iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True")
}

/// A client with the administrator's kubeconfig.
pub(crate) async fn client(layout: &Layout) -> Result<Client> {
    let path = layout.kubeconfig();
    let kubeconfig =
        kube::config::Kubeconfig::read_from(&path).with_context(|| format!("reading {}", path.display()))?;
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &kube::config::KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}

async fn api_answers(client: &Client) -> bool {
    let Ok(request) = http::Request::get("/readyz").body(Vec::new()) else { return false };
    let answer = tokio::time::timeout(Duration::from_secs(2), client.request_text(request)).await;
    matches!(answer, Ok(Ok(_)))
}
