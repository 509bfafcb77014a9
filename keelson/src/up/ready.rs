//! When the cluster is ready: the API answers, which it does once the store has a leader.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use kube::Client;

use super::READY_MAX;
use super::cluster::Layout;

const ASK_EVERY: Duration = Duration::from_millis(20);

/// Waits until the API answers.
pub(super) async fn wait(layout: &Layout) -> Result<()> {
    let client = client(layout).await?;
    let answers = async {
        while !api_answers(&client).await {
            tokio::time::sleep(ASK_EVERY).await;
        }
    };
    match tokio::time::timeout(READY_MAX, answers).await {
        Ok(()) => Ok(()),
        Err(_) => bail!("the API did not answer in {READY_MAX:?}"),
    }
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
