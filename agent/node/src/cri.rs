//! The container runtime, over CRI v1 on a unix socket.
//!
//! Nothing is remembered that the runtime doesn't hold: what a pod is, which
//! restart a container counts and which image its spec named are labels and
//! annotations, so that a restarted agent finds its pods again.
//!
//! Source: `k8s.io/cri-api` `api.proto`; label names as kubelet's.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use agent_core::runtime::{Container, ContainerState, ObservedPod, Sandbox};
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use k8s_cri::v1 as cri;
use k8s_cri::v1::image_service_client::ImageServiceClient;
use k8s_cri::v1::runtime_service_client::RuntimeServiceClient;
use tokio::net::UnixStream;
use tokio::sync::Mutex;
use tonic::transport::{Channel, Endpoint, Uri};

pub(crate) const POD_NAME: &str = "io.kubernetes.pod.name";
pub(crate) const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
pub(crate) const POD_UID: &str = "io.kubernetes.pod.uid";
pub(crate) const CONTAINER_NAME: &str = "io.kubernetes.container.name";
/// The image as the spec names it.
pub(crate) const IMAGE: &str = "io.keelson.container.image";
/// Where a container's termination message is, on the node.
pub(crate) const MESSAGE_FILE: &str = "io.keelson.container.message-file";

/// Calls that wait for the runtime alone; pulls and stops take their own time.
const CALL_MAX: Duration = Duration::from_secs(120);
/// Bytes of a termination message that are shown.
const MESSAGE_BYTES_MAX: u64 = 4096;
/// Bytes of one answer: a list of all containers of a large node.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Why a call to the runtime failed.
#[derive(Debug, thiserror::Error)]
pub enum CriError {
    /// The socket doesn't answer.
    #[error("the container runtime at {socket} doesn't answer")]
    Unreachable {
        /// The socket.
        socket: PathBuf,
        /// Why not.
        #[source]
        source: tonic::transport::Error,
    },
    /// The runtime refused.
    #[error("{}", .0.message())]
    Refused(#[from] Box<tonic::Status>),
}

impl From<tonic::Status> for CriError {
    fn from(status: tonic::Status) -> Self {
        Self::Refused(Box::new(status))
    }
}

impl CriError {
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused(status) if status.code() == tonic::Code::NotFound)
    }
}

/// One pod as the runtime has it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Found {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) pod: ObservedPod,
}

/// What is asked once and never changes: addresses of a sandbox, times and exit of a container.
#[derive(Default)]
struct Details {
    ips: HashMap<String, Vec<String>>,
    containers: HashMap<(String, i32), Container>,
}

/// A connection to the runtime; clones share it.
#[derive(Clone)]
pub(crate) struct Cri {
    channel: Channel,
    details: Arc<Mutex<Details>>,
}

impl Cri {
    pub(crate) async fn connect(socket: &Path) -> Result<Self, CriError> {
        let path = socket.to_path_buf();
        // The address is never used: the connector knows where to go.
        let endpoint = Endpoint::from_static("http://runtime.invalid").timeout(CALL_MAX);
        let connector = tower::service_fn(move |_: Uri| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        });
        let channel = endpoint
            .connect_with_connector(connector)
            .await
            .map_err(|source| CriError::Unreachable { socket: socket.to_path_buf(), source })?;
        Ok(Self { channel, details: Arc::default() })
    }

    pub(crate) fn runtime(&self) -> RuntimeServiceClient<Channel> {
        RuntimeServiceClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    pub(crate) fn images(&self) -> ImageServiceClient<Channel> {
        ImageServiceClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    /// Name and version, such as `containerd` and `1.6.20`.
    pub(crate) async fn version(&self) -> Result<(String, String), CriError> {
        let version = self.runtime().version(cri::VersionRequest { version: "v1".to_owned() }).await?.into_inner();
        Ok((version.runtime_name, version.runtime_version))
    }

    /// Whether runtime and network are ready; if not, what it says.
    pub(crate) async fn not_ready(&self) -> Result<Option<String>, CriError> {
        let status = self.runtime().status(cri::StatusRequest { verbose: false }).await?.into_inner();
        let conditions = status.status.map(|s| s.conditions).unwrap_or_default();
        let bad = conditions.iter().find(|c| matches!(c.r#type.as_str(), "RuntimeReady" | "NetworkReady") && !c.status);
        Ok(bad.map(|c| format!("{}: {} {}", c.r#type, c.reason, c.message)))
    }

    /// Everything the runtime has, by pod UID.
    pub(crate) async fn observe_all(&self) -> Result<BTreeMap<String, Found>, CriError> {
        let pods = self.observe(None).await?;
        self.forget_others(&pods).await;
        Ok(pods)
    }

    /// What the runtime has of one pod.
    pub(crate) async fn observe_pod(&self, uid: &str) -> Result<ObservedPod, CriError> {
        let mut pods = self.observe(Some(uid)).await?;
        Ok(pods.remove(uid).unwrap_or_default().pod)
    }

    async fn observe(&self, uid: Option<&str>) -> Result<BTreeMap<String, Found>, CriError> {
        let selector: HashMap<String, String> =
            uid.map(|uid| (POD_UID.to_owned(), uid.to_owned())).into_iter().collect();
        let filter = cri::PodSandboxFilter { label_selector: selector.clone(), ..Default::default() };
        let sandboxes = self.runtime().list_pod_sandbox(cri::ListPodSandboxRequest { filter: Some(filter) }).await?;
        let filter = cri::ContainerFilter { label_selector: selector, ..Default::default() };
        let containers = self.runtime().list_containers(cri::ListContainersRequest { filter: Some(filter) }).await?;
        let mut pods: BTreeMap<String, Found> = BTreeMap::new();
        for sandbox in sandboxes.into_inner().items {
            let Some(uid) = sandbox.labels.get(POD_UID).cloned() else { continue };
            let found = pods.entry(uid).or_default();
            found.namespace = sandbox.labels.get(POD_NAMESPACE).cloned().unwrap_or_default();
            found.name = sandbox.labels.get(POD_NAME).cloned().unwrap_or_default();
            found.pod.sandboxes.extend(self.sandbox(sandbox).await?);
        }
        for container in containers.into_inner().containers {
            let Some(uid) = container.labels.get(POD_UID).cloned() else { continue };
            let found = pods.entry(uid).or_default();
            if found.name.is_empty() {
                found.namespace = container.labels.get(POD_NAMESPACE).cloned().unwrap_or_default();
                found.name = container.labels.get(POD_NAME).cloned().unwrap_or_default();
            }
            found.pod.containers.extend(self.container(container).await?);
        }
        Ok(pods)
    }

    /// `None` if it went between the list and now.
    async fn sandbox(&self, sandbox: cri::PodSandbox) -> Result<Option<Sandbox>, CriError> {
        let ready = sandbox.state == cri::PodSandboxState::SandboxReady as i32;
        let ips = if ready { self.sandbox_ips(&sandbox.id).await? } else { Some(Vec::new()) };
        let attempt = sandbox.metadata.map_or(0, |m| m.attempt);
        let created_at = time(sandbox.created_at).unwrap_or_default();
        Ok(ips.map(|ips| Sandbox { id: sandbox.id, attempt, ready, created_at, ips }))
    }

    async fn sandbox_ips(&self, id: &str) -> Result<Option<Vec<String>>, CriError> {
        if let Some(ips) = self.details.lock().await.ips.get(id) {
            return Ok(Some(ips.clone()));
        }
        let request = cri::PodSandboxStatusRequest { pod_sandbox_id: id.to_owned(), verbose: false };
        let status = match self.runtime().pod_sandbox_status(request).await {
            Ok(answer) => answer.into_inner().status.unwrap_or_default(),
            Err(status) if status.code() == tonic::Code::NotFound => return Ok(None),
            Err(status) => return Err(status.into()),
        };
        let network = status.network.unwrap_or_default();
        let first = (!network.ip.is_empty()).then_some(network.ip);
        let ips: Vec<String> = first.into_iter().chain(network.additional_ips.into_iter().map(|a| a.ip)).collect();
        self.details.lock().await.ips.insert(id.to_owned(), ips.clone());
        Ok(Some(ips))
    }

    /// `None` if it went between the list and now.
    async fn container(&self, listed: cri::Container) -> Result<Option<Container>, CriError> {
        let key = (listed.id.clone(), listed.state);
        if let Some(known) = self.details.lock().await.containers.get(&key) {
            return Ok(Some(known.clone()));
        }
        let status = match self.container_status(&listed.id).await {
            Ok(status) => status,
            Err(error) if error.is_not_found() => return Ok(None),
            Err(error) => return Err(error),
        };
        let container = describe(&listed, &status);
        // The state may have moved on since the list: the status is what is newer.
        let key = (listed.id, status.state);
        self.details.lock().await.containers.insert(key, container.clone());
        Ok(Some(container))
    }

    pub(crate) async fn container_status(&self, id: &str) -> Result<cri::ContainerStatus, CriError> {
        let request = cri::ContainerStatusRequest { container_id: id.to_owned(), verbose: false };
        Ok(self.runtime().container_status(request).await?.into_inner().status.unwrap_or_default())
    }

    /// Keeps the details of what still exists, so that they stay bounded by it.
    async fn forget_others(&self, pods: &BTreeMap<String, Found>) {
        let mut details = self.details.lock().await;
        let alive = |id: &str| {
            pods.values()
                .any(|f| f.pod.sandboxes.iter().any(|s| s.id == id) || f.pod.containers.iter().any(|c| c.id == id))
        };
        if details.ips.len() + details.containers.len() > 64 {
            details.ips.retain(|id, _| alive(id));
            details.containers.retain(|(id, _), _| alive(id));
        }
    }
}

fn describe(listed: &cri::Container, status: &cri::ContainerStatus) -> Container {
    let state = match cri::ContainerState::try_from(status.state) {
        Ok(cri::ContainerState::ContainerCreated) => ContainerState::Created,
        Ok(cri::ContainerState::ContainerRunning) => ContainerState::Running,
        Ok(cri::ContainerState::ContainerExited) => ContainerState::Exited,
        _ => ContainerState::Unknown,
    };
    let named = status.annotations.get(IMAGE).cloned();
    let image = named.or_else(|| status.image.as_ref().map(|i| i.image.clone())).unwrap_or_default();
    let ended = state == ContainerState::Exited;
    let written = status.annotations.get(MESSAGE_FILE).filter(|_| ended).map(|f| termination_message(Path::new(f)));
    let message = written.filter(|m| !m.is_empty()).unwrap_or_else(|| status.message.clone());
    Container {
        id: listed.id.clone(),
        sandbox_id: listed.pod_sandbox_id.clone(),
        name: listed.labels.get(CONTAINER_NAME).cloned().unwrap_or_default(),
        attempt: listed.metadata.as_ref().map_or(0, |m| m.attempt),
        state,
        created_at: time(status.created_at).unwrap_or_default(),
        started_at: time(status.started_at),
        finished_at: time(status.finished_at),
        exit_code: status.exit_code,
        reason: status.reason.clone(),
        message,
        image,
        image_ref: status.image_ref.clone(),
    }
}

fn termination_message(file: &Path) -> String {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    // A container that wrote nothing has no message.
    if let Ok(file) = std::fs::File::open(file) {
        let _ = file.take(MESSAGE_BYTES_MAX).read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// CRI counts nanoseconds; 0 is "not yet".
fn time(nanoseconds: i64) -> Option<Timestamp> {
    (nanoseconds > 0).then(|| Timestamp::from_nanosecond(nanoseconds.into()).ok()).flatten()
}
