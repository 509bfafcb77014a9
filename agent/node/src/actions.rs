//! Carrying actions out: each is one or a few calls to the runtime, the API or the file system.
//!
//! Nothing is decided here. An action that turns out to be done already is done.

mod images;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use agent_core::machine::Note;
use agent_core::runtime::{Action, ObservedPod, Outcome};
use k8s_cri::v1 as cri;
use k8s_openapi::api::core::v1::{Container, Lifecycle, LifecycleHandler, Pod};
use kube::api::{DeleteParams, Preconditions};
use kube::{Api, Client};

use crate::cri::{Cri, CriError};
use crate::env::{self, Facts};
use crate::events::Recorder;
use crate::spec::{self, Made, NodeFacts};
use crate::{probes, volumes};

/// What actions are carried out with; shared by all.
pub(crate) struct Hands {
    pub(crate) cri: Cri,
    pub(crate) client: Client,
    pub(crate) node: NodeFacts,
    pub(crate) events: Recorder,
}

/// An action that failed: the word for the status, and the text for a person.
struct Failure {
    reason: &'static str,
    message: String,
}

fn failure(reason: &'static str, error: &dyn std::error::Error) -> Failure {
    let mut message = error.to_string();
    let mut source = error.source();
    while let Some(next) = source {
        let text = next.to_string();
        if !message.contains(&text) {
            message = format!("{message}: {text}");
        }
        source = next.source();
    }
    Failure { reason, message }
}

fn all_containers(pod: &Pod) -> impl Iterator<Item = &Container> {
    pod.spec.iter().flat_map(|s| s.init_containers.iter().flatten().chain(&s.containers))
}

fn find<'a>(pod: &'a Pod, name: &str) -> Option<&'a Container> {
    all_containers(pod).find(|c| c.name == name)
}

fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}

impl Hands {
    /// Carries one action out. `observed` is what the decision was made from.
    pub(crate) async fn perform(&self, pod: &Pod, observed: &ObservedPod, action: &Action) -> Outcome {
        match self.attempt(pod, observed, action).await {
            Ok(()) => Outcome::Done,
            Err(Failure { reason, message }) => {
                tracing::debug!(pod = pod.metadata.name, ?action, reason, message, "an action failed");
                Outcome::failed(reason, message)
            }
        }
    }

    pub(crate) fn note(&self, pod: &Pod, note: &Note) {
        self.events.pod(pod, note.container.as_deref(), note.warning, note.reason, &note.message);
    }

    async fn attempt(&self, pod: &Pod, observed: &ObservedPod, action: &Action) -> Result<(), Failure> {
        match action {
            Action::PrepareVolumes => self.prepare_volumes(pod, observed).await,
            Action::RunSandbox { attempt } => self.run_sandbox(pod, *attempt).await,
            Action::EnsureImage { container, image } => self.ensure_image(pod, container, image).await,
            Action::CreateContainer { container, sandbox_id, attempt } => {
                self.create_container(pod, observed, container, sandbox_id, *attempt).await
            }
            Action::StartContainer { container, id } => self.start_container(pod, observed, container, id).await,
            Action::StopContainer { container, id, grace_seconds, why } => {
                self.stop_container(pod, observed, container, id, *grace_seconds, why).await
            }
            Action::RemoveContainer { id, .. } => {
                let request = cri::RemoveContainerRequest { container_id: id.clone() };
                gone(self.cri.runtime().remove_container(request).await)
            }
            Action::StopSandbox { id } => {
                let request = cri::StopPodSandboxRequest { pod_sandbox_id: id.clone() };
                gone(self.cri.runtime().stop_pod_sandbox(request).await)
            }
            Action::RemoveSandbox { id } => {
                let request = cri::RemovePodSandboxRequest { pod_sandbox_id: id.clone() };
                gone(self.cri.runtime().remove_pod_sandbox(request).await)
            }
            Action::Probe { container, id, kind } => {
                let Some(spec) = find(pod, container) else { return Ok(()) };
                let ip = self.pod_ip(pod, observed);
                probes::run(&self.cri, spec, id, *kind, &ip)
                    .await
                    .map_err(|message| Failure { reason: "Unhealthy", message })
            }
            Action::CleanUp => self.clean_up(pod).await,
            Action::DeleteObject => self.delete_object(pod).await,
        }
    }

    fn pod_ip(&self, pod: &Pod, observed: &ObservedPod) -> String {
        if pod.spec.as_ref().is_some_and(spec::host_network) {
            return self.node.address.to_string();
        }
        observed.newest_sandbox().and_then(|s| s.ips.first().cloned()).unwrap_or_default()
    }

    async fn prepare_volumes(&self, pod: &Pod, observed: &ObservedPod) -> Result<(), Failure> {
        let (host_ip, pod_ip) = (self.node.address.to_string(), self.pod_ip(pod, observed));
        let facts = self.facts(&host_ip, &pod_ip);
        let prepared = volumes::prepare(&self.client, &self.node.data_dir, pod, &facts).await;
        prepared.map_err(|error| {
            let failure = failure("ContainerCreating", &error);
            self.events.pod(pod, None, true, "FailedMount", &format!("MountVolume.SetUp failed: {}", failure.message));
            failure
        })
    }

    fn facts<'a>(&self, host_ip: &'a str, pod_ip: &'a str) -> Facts<'a> {
        Facts { host_ip, pod_ip, node_capacity: (self.node.milli_cpus, self.node.memory_bytes) }
    }

    async fn run_sandbox(&self, pod: &Pod, attempt: u32) -> Result<(), Failure> {
        let config = spec::sandbox(pod, attempt, &self.node);
        let made = async {
            std::fs::create_dir_all(&config.log_directory).map_err(|e| failure("FailedCreatePodSandBox", &e))?;
            let runtime_handler = String::new();
            let request = cri::RunPodSandboxRequest { config: Some(config.clone()), runtime_handler };
            self.cri
                .runtime()
                .run_pod_sandbox(request)
                .await
                .map_err(|e| failure("FailedCreatePodSandBox", &CriError::from(e)))
        };
        made.await.map(|_| ()).inspect_err(|failure: &Failure| {
            let text = format!("Failed to create pod sandbox: {}", failure.message);
            self.events.pod(pod, None, true, "FailedCreatePodSandBox", &text);
        })
    }

    async fn create_container(
        &self,
        pod: &Pod,
        observed: &ObservedPod,
        name: &str,
        sandbox_id: &str,
        attempt: u32,
    ) -> Result<(), Failure> {
        let Some(container) = find(pod, name) else { return Ok(()) };
        let created = self.try_create(pod, observed, container, sandbox_id, attempt).await;
        match created {
            Ok(()) => {
                self.events.pod(pod, Some(name), false, "Created", &format!("Created container: {name}"));
                Ok(())
            }
            Err(failure) => {
                self.events.pod(pod, Some(name), true, "Failed", &format!("Error: {}", failure.message));
                Err(failure)
            }
        }
    }

    async fn try_create(
        &self,
        pod: &Pod,
        observed: &ObservedPod,
        container: &Container,
        sandbox_id: &str,
        attempt: u32,
    ) -> Result<(), Failure> {
        const CONFIG: &str = "CreateContainerConfigError";
        let (host_ip, pod_ip) = (self.node.address.to_string(), self.pod_ip(pod, observed));
        let env = env::resolve(&self.client, pod, container, &self.facts(&host_ip, &pod_ip))
            .await
            .map_err(|e| failure(CONFIG, &e))?;
        let paths = volumes::paths(&self.node.data_dir, pod);
        let sub_paths = sub_paths(container, &paths, &env).map_err(|e| failure(CONFIG, &e))?;
        let hosts_file = self.write_files(pod, &container.name, attempt, &pod_ip).map_err(|e| failure(CONFIG, &e))?;
        let image_id = self.image_for(container).await?;
        refuse_root(pod, container, &image_id).map_err(|message| Failure { reason: CONFIG, message })?;
        let made = Made {
            attempt,
            image_id: &image_id.id,
            env: &env,
            volumes: &paths,
            sub_paths: &sub_paths,
            hosts_file: hosts_file.as_deref(),
        };
        let sandbox_attempt = observed.sandboxes.iter().find(|s| s.id == sandbox_id).map_or(0, |s| s.attempt);
        let request = cri::CreateContainerRequest {
            pod_sandbox_id: sandbox_id.to_owned(),
            config: Some(spec::container(pod, container, &self.node, &made)),
            sandbox_config: Some(spec::sandbox(pod, sandbox_attempt, &self.node)),
        };
        let answer = self.cri.runtime().create_container(request).await;
        answer.map(|_| ()).map_err(|e| failure("CreateContainerError", &CriError::from(e)))
    }

    /// The hosts file and an empty termination message; returns the hosts file, if the pod has its own.
    fn write_files(&self, pod: &Pod, container: &str, attempt: u32, ip: &str) -> std::io::Result<Option<PathBuf>> {
        let data = &self.node.data_dir;
        let message = spec::message_file(data, uid(pod), container, attempt);
        if let Some(dir) = message.parent() {
            std::fs::create_dir_all(dir)?;
        }
        std::fs::write(&message, "")?;
        // Any user of the container may write it.
        volumes::set_mode(&message, 0o666)?;
        let (namespace, name) = (pod.metadata.namespace.as_deref(), pod.metadata.name.as_deref());
        let logs = spec::log_dir(data, namespace.unwrap_or_default(), name.unwrap_or_default(), uid(pod));
        std::fs::create_dir_all(logs.join(container))?;
        if pod.spec.as_ref().is_some_and(spec::host_network) {
            return Ok(None);
        }
        let hosts = volumes::pod_dir(data, uid(pod)).join("etc-hosts");
        std::fs::write(&hosts, spec::hosts(pod, ip, &spec::host_name(pod, &self.node)))?;
        volumes::set_mode(&hosts, 0o644)?;
        Ok(Some(hosts))
    }

    async fn start_container(&self, pod: &Pod, observed: &ObservedPod, name: &str, id: &str) -> Result<(), Failure> {
        let request = cri::StartContainerRequest { container_id: id.to_owned() };
        if let Err(status) = self.cri.runtime().start_container(request).await {
            let failure = failure("RunContainerError", &CriError::from(status));
            self.events.pod(pod, Some(name), true, "Failed", &format!("Error: {}", failure.message));
            return Err(failure);
        }
        self.events.pod(pod, Some(name), false, "Started", &format!("Started container: {name}"));
        let hook = find(pod, name).and_then(|c| c.lifecycle.as_ref()).and_then(|l: &Lifecycle| l.post_start.clone());
        let Some(hook) = hook else { return Ok(()) };
        let Err(message) = self.hook(pod, observed, name, id, &hook, Duration::from_secs(120)).await else {
            return Ok(());
        };
        self.events.pod(pod, Some(name), true, "FailedPostStartHook", &message);
        // As kubelet does: a container whose hook failed is killed, and restarts by its policy.
        let request = cri::StopContainerRequest { container_id: id.to_owned(), timeout: 2 };
        let _ = self.cri.runtime().stop_container(request).await;
        Err(Failure { reason: "PostStartHookError", message })
    }

    async fn stop_container(
        &self,
        pod: &Pod,
        observed: &ObservedPod,
        name: &str,
        id: &str,
        grace_seconds: i64,
        why: &str,
    ) -> Result<(), Failure> {
        self.events.pod(pod, Some(name), false, "Killing", why);
        let begun = std::time::Instant::now();
        let hook = find(pod, name).and_then(|c| c.lifecycle.as_ref()).and_then(|l| l.pre_stop.clone());
        if let Some(hook) = hook {
            let most = Duration::from_secs(grace_seconds.unsigned_abs());
            if let Err(message) = self.hook(pod, observed, name, id, &hook, most).await {
                self.events.pod(pod, Some(name), true, "FailedPreStopHook", &message);
            }
        }
        let spent = i64::try_from(begun.elapsed().as_secs()).unwrap_or(i64::MAX);
        // Two seconds at least, so that a hook's overrun is not a kill.
        let timeout = grace_seconds.saturating_sub(spent).max(if spent > 0 { 2 } else { grace_seconds.max(0) });
        let request = cri::StopContainerRequest { container_id: id.to_owned(), timeout };
        let mut call = tonic::Request::new(request);
        call.set_timeout(Duration::from_secs(timeout.unsigned_abs()) + Duration::from_secs(60));
        gone(self.cri.runtime().stop_container(call).await)
    }

    async fn hook(
        &self,
        pod: &Pod,
        observed: &ObservedPod,
        name: &str,
        id: &str,
        hook: &LifecycleHandler,
        most: Duration,
    ) -> Result<(), String> {
        let Some(container) = find(pod, name) else { return Ok(()) };
        let ip = self.pod_ip(pod, observed);
        let run = async {
            if let Some(exec) = &hook.exec {
                return probes::exec(&self.cri, id, exec.command.as_deref().unwrap_or_default(), most).await;
            }
            if let Some(get) = &hook.http_get {
                return probes::http_get(container, get, &ip, most).await;
            }
            if let Some(sleep) = &hook.sleep {
                tokio::time::sleep(Duration::from_secs(sleep.seconds.unsigned_abs())).await;
            }
            Ok(())
        };
        tokio::time::timeout(most, run).await.unwrap_or_else(|_| Err(format!("the hook took longer than {most:?}")))
    }

    async fn clean_up(&self, pod: &Pod) -> Result<(), Failure> {
        let (namespace, name) = (pod.metadata.namespace.as_deref(), pod.metadata.name.as_deref());
        let logs =
            spec::log_dir(&self.node.data_dir, namespace.unwrap_or_default(), name.unwrap_or_default(), uid(pod));
        volumes::remove(&self.node.data_dir, uid(pod)).map_err(|e| failure("CleanUp", &e))?;
        match std::fs::remove_dir_all(&logs) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(failure("CleanUp", &error)),
            _ => Ok(()),
        }
    }

    async fn delete_object(&self, pod: &Pod) -> Result<(), Failure> {
        delete(&self.client, pod).await.map_err(|e| failure("DeleteObject", &e))
    }
}

/// Deletes the pod object for good; one that is another's by now stays.
pub(crate) async fn delete(client: &Client, pod: &Pod) -> Result<(), kube::Error> {
    let (namespace, name) = (pod.metadata.namespace.as_deref(), pod.metadata.name.as_deref());
    let api = Api::<Pod>::namespaced(client.clone(), namespace.unwrap_or_default());
    let preconditions = Preconditions { uid: pod.metadata.uid.clone(), resource_version: None };
    let params = DeleteParams::default().grace_period(0).preconditions(preconditions);
    match api.delete(name.unwrap_or_default(), &params).await {
        Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => Ok(()),
        result => result.map(|_| ()),
    }
}

/// Of a call that makes something go: it being gone already is success.
fn gone<T>(result: Result<T, tonic::Status>) -> Result<(), Failure> {
    match result {
        Err(status) if status.code() != tonic::Code::NotFound => Err(failure("RuntimeError", &CriError::from(status))),
        _ => Ok(()),
    }
}

fn sub_paths(
    container: &Container,
    paths: &volumes::VolumePaths,
    env: &BTreeMap<String, String>,
) -> std::io::Result<BTreeMap<usize, PathBuf>> {
    let mut found = BTreeMap::new();
    for (index, mount) in container.volume_mounts.iter().flatten().enumerate() {
        let Some(volume) = paths.get(&mount.name) else {
            return Err(std::io::Error::other(format!("volume {:?} of a mount is not there", mount.name)));
        };
        let by_env = mount.sub_path_expr.as_deref().filter(|s| !s.is_empty());
        let by_env = by_env.map(|text| agent_core::env::expand(text, |name| env.get(name).map(String::as_str)));
        let sub = by_env.or_else(|| mount.sub_path.clone().filter(|s| !s.is_empty()));
        if let Some(sub) = sub {
            found.insert(index, volumes::sub_path(Path::new(volume), &sub)?);
        }
    }
    Ok(found)
}

/// `runAsNonRoot`. Source: kubelet `verifyRunAsNonRoot`.
fn refuse_root(pod: &Pod, container: &Container, image: &images::Image) -> Result<(), String> {
    let whole = pod.spec.as_ref().and_then(|s| s.security_context.as_ref());
    let own = container.security_context.as_ref();
    let asked = own.and_then(|c| c.run_as_non_root).or(whole.and_then(|c| c.run_as_non_root));
    if asked != Some(true) {
        return Ok(());
    }
    match own.and_then(|c| c.run_as_user).or(whole.and_then(|c| c.run_as_user)) {
        Some(0) => Err("container's runAsUser breaks non-root policy".to_owned()),
        Some(_) => Ok(()),
        None if image.runs_as_root => Err("container has runAsNonRoot and image will run as root".to_owned()),
        None => Ok(()),
    }
}
