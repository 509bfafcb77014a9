//! A node's start: the runtime, the pod network, the server, then node and pods.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kube::Client;
use tokio_util::sync::CancellationToken;

use crate::actions::Hands;
use crate::config::{Config, ConfigError, Runtime, Serving};
use crate::cri::{Cri, CriError};
use crate::events::Recorder;
use crate::network::{self, NetworkError};
use crate::node::{self, Described, Health, Kept};
use crate::server::{self, ServeError, Shared};
use crate::spec::NodeFacts;
use crate::{hollow, machine, pods, rotation};

/// How long the runtime may take to answer after it was started.
const RUNTIME_MAX: Duration = Duration::from_secs(60);
const RUNTIME_AGAIN: Duration = Duration::from_millis(20);
/// Images that the node's status names. Source: kubelet `nodeStatusMaxImages`.
const IMAGES_MAX: usize = 50;

/// Why a node agent doesn't run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Settings that can't work.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The data folder can't be used.
    #[error("can't use {0} for pods' data")]
    Folder(PathBuf, #[source] std::io::Error),
    /// The runtime didn't answer in time.
    #[error("the container runtime did not answer within {RUNTIME_MAX:?}: {0}")]
    Runtime(String),
    /// The pod network can't be had.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// Logs and exec can't be served.
    #[error(transparent)]
    Serve(#[from] ServeError),
}

/// Runs the node, or the nodes, until `shutdown`. Containers go on running after it.
///
/// # Errors
/// [`RunError`] if the node can't start; later faults are shown in the node's status and tried again.
pub async fn run(client: Client, config: Config, shutdown: CancellationToken) -> Result<(), RunError> {
    config.validate()?;
    std::fs::create_dir_all(&config.data_dir).map_err(|e| RunError::Folder(config.data_dir.clone(), e))?;
    let machine = machine::read(&config.data_dir);
    match &config.runtime {
        Runtime::Hollow { count } => {
            hollow::run(client, *count, config.address, machine, shutdown).await;
            Ok(())
        }
        Runtime::Cri { node, socket, serving } => {
            let Some(cri) = connect(socket, &shutdown).await? else { return Ok(()) };
            run_node(client, &config, node, cri, serving, machine, shutdown).await
        }
    }
}

/// Waits for the runtime; `None` if `shutdown` came first.
async fn connect(socket: &std::path::Path, shutdown: &CancellationToken) -> Result<Option<Cri>, RunError> {
    let begun = Instant::now();
    loop {
        let answered: Result<Cri, CriError> = async {
            let cri = Cri::connect(socket).await?;
            cri.version().await?;
            Ok(cri)
        }
        .await;
        match answered {
            Ok(cri) => return Ok(Some(cri)),
            Err(error) if begun.elapsed() > RUNTIME_MAX => return Err(RunError::Runtime(error.to_string())),
            Err(error) => tracing::debug!(%error, "waiting for the container runtime"),
        }
        tokio::select! {
            () = shutdown.cancelled() => return Ok(None),
            () = tokio::time::sleep(RUNTIME_AGAIN) => {}
        }
    }
}

async fn run_node(
    client: Client,
    config: &Config,
    name: &str,
    cri: Cri,
    serving: &Serving,
    machine: machine::Machine,
    shutdown: CancellationToken,
) -> Result<(), RunError> {
    network::set_up(&config.pod_network).await?;
    let shared = Shared { cri: cri.clone(), data_dir: config.data_dir.clone(), shutdown: shutdown.clone() };
    server::start(serving, shared).await?;
    let (runtime, version) = cri.version().await.map_err(|e| RunError::Runtime(e.to_string()))?;
    tracing::info!(runtime, version, node = name, "the container runtime answers");
    let facts = NodeFacts {
        name: name.to_owned(),
        address: config.address,
        data_dir: config.data_dir.clone(),
        dns_servers: config.dns_servers.clone(),
        memory_bytes: i64::try_from(machine.memory_bytes).unwrap_or(i64::MAX),
        milli_cpus: i64::try_from(machine.cpus * 1000).unwrap_or(i64::MAX),
    };
    let described = Described {
        name: name.to_owned(),
        address: config.address,
        port: serving.port,
        pod_network: config.pod_network.clone(),
        machine,
        runtime: format!("{runtime}://{version}"),
        hollow: false,
    };
    let events = Recorder::start(client.clone(), name, shutdown.clone());
    let hands = Arc::new(Hands { cri: cri.clone(), client: client.clone(), node: facts, events: events.clone() });
    tokio::spawn(rotation::run(cri.clone(), config.data_dir.clone(), shutdown.clone()));
    let first = health(&cri).await;
    let Some(kept) = Kept::register(&client, described, first, &shutdown).await else { return Ok(()) };
    events.node(name, false, "Starting", "Starting the node agent.");
    let ask = || health(&cri);
    tokio::join!(node::keep(client, kept, ask, shutdown.clone()), pods::run(hands, shutdown.clone()),);
    Ok(())
}

async fn health(cri: &Cri) -> Health {
    let not_ready = match cri.not_ready().await {
        Ok(said) => said.map(|what| format!("container runtime is not ready: {what}")),
        Err(error) => Some(format!("container runtime is down: {error}")),
    };
    Health { not_ready, images: images(cri).await.unwrap_or_default() }
}

/// The largest images, as the node's status names them: the scheduler's ImageLocality reads it.
async fn images(cri: &Cri) -> Result<Vec<serde_json::Value>, CriError> {
    let answer = cri.images().list_images(k8s_cri::v1::ListImagesRequest { filter: None }).await?;
    let mut images = answer.into_inner().images;
    images.sort_by_key(|image| (std::cmp::Reverse(image.size), image.id.clone()));
    let named = |image: k8s_cri::v1::Image| {
        let names: Vec<String> = image.repo_digests.into_iter().chain(image.repo_tags).collect();
        serde_json::json!({"names": names, "sizeBytes": image.size})
    };
    Ok(images.into_iter().take(IMAGES_MAX).map(named).collect())
}
