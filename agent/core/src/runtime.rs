//! What the runtime has, what is asked of it, what came of it.
//!
//! These are the agent's own nouns; the shell translates them from and to CRI.
//! Invariant: an [`Action`] names everything by the ids that were observed, so
//! carrying it out late, twice, or after the agent's restart harms nothing.

use std::collections::BTreeMap;

use jiff::Timestamp;

/// State of a container as CRI tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ContainerState {
    /// Created, never started.
    Created,
    /// Its process runs.
    Running,
    /// Its process ended.
    Exited,
    /// The runtime cannot say; treated as ended.
    Unknown,
}

/// One sandbox (a pod's network namespace and cgroup) in the runtime.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Sandbox {
    /// The runtime's id.
    pub id: String,
    /// Counts the pod's sandboxes from 0.
    pub attempt: u32,
    /// Whether its process and network are there.
    pub ready: bool,
    /// When it was made.
    pub created_at: Timestamp,
    /// Its addresses, first the primary; empty on the host network.
    pub ips: Vec<String>,
}

/// One container in the runtime.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Container {
    /// The runtime's id.
    pub id: String,
    /// The sandbox it belongs to.
    pub sandbox_id: String,
    /// Name in the pod's spec.
    pub name: String,
    /// Counts this container's restarts from 0.
    pub attempt: u32,
    /// Its state.
    pub state: ContainerState,
    /// When it was made.
    pub created_at: Timestamp,
    /// When its process started, if it did.
    pub started_at: Option<Timestamp>,
    /// When its process ended, if it did.
    pub finished_at: Option<Timestamp>,
    /// Exit code, if it ended.
    pub exit_code: i32,
    /// Why it ended, in one word (`Completed`, `Error`, `OOMKilled`).
    pub reason: String,
    /// Termination message.
    pub message: String,
    /// The image as the spec named it when the container was made.
    pub image: String,
    /// The image's digest reference.
    pub image_ref: String,
}

/// Everything the runtime has of one pod.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct ObservedPod {
    /// Its sandboxes.
    pub sandboxes: Vec<Sandbox>,
    /// Its containers.
    pub containers: Vec<Container>,
}

impl ObservedPod {
    /// Whether the runtime has nothing of this pod.
    pub fn is_empty(&self) -> bool {
        self.sandboxes.is_empty() && self.containers.is_empty()
    }

    /// The newest sandbox.
    pub fn newest_sandbox(&self) -> Option<&Sandbox> {
        self.sandboxes.iter().max_by_key(|s| (s.attempt, s.created_at))
    }

    /// Containers by name, each name's newest first.
    pub fn by_name(&self) -> BTreeMap<&str, Vec<&Container>> {
        let mut map: BTreeMap<&str, Vec<&Container>> = BTreeMap::new();
        for container in &self.containers {
            map.entry(&container.name).or_default().push(container);
        }
        for list in map.values_mut() {
            list.sort_by_key(|c| std::cmp::Reverse((c.attempt, c.created_at)));
        }
        map
    }
}

/// Which probe of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProbeKind {
    /// Holds the other two back until it has succeeded.
    Startup,
    /// Its failure restarts the container.
    Liveness,
    /// Its failure takes the pod out of services.
    Readiness,
}

impl ProbeKind {
    /// All kinds.
    pub const ALL: [ProbeKind; 3] = [Self::Startup, Self::Liveness, Self::Readiness];

    /// As messages name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Liveness => "Liveness",
            Self::Readiness => "Readiness",
        }
    }
}

/// A call for the shell to make.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// Bring the pod's volumes up (or up to date) under the data folder.
    PrepareVolumes,
    /// Make sandbox number `attempt`.
    RunSandbox {
        /// The sandbox's number.
        attempt: u32,
    },
    /// Make the image of this container present, as its pull policy says.
    EnsureImage {
        /// Name in the spec.
        container: String,
        /// The image wanted.
        image: String,
    },
    /// Create a container in the sandbox.
    CreateContainer {
        /// Name in the spec.
        container: String,
        /// The sandbox to create it in.
        sandbox_id: String,
        /// The restart count it will carry.
        attempt: u32,
    },
    /// Start a created container.
    StartContainer {
        /// Name in the spec.
        container: String,
        /// The runtime's id.
        id: String,
    },
    /// Stop a container: its preStop hook, SIGTERM, and SIGKILL after the grace.
    StopContainer {
        /// Name in the spec.
        container: String,
        /// The runtime's id.
        id: String,
        /// How long it may take to end by itself.
        grace_seconds: i64,
        /// What the event says.
        why: String,
    },
    /// Forget an ended container.
    RemoveContainer {
        /// Name in the spec.
        container: String,
        /// The runtime's id.
        id: String,
    },
    /// Take a sandbox's network and process down.
    StopSandbox {
        /// The runtime's id.
        id: String,
    },
    /// Forget a stopped sandbox.
    RemoveSandbox {
        /// The runtime's id.
        id: String,
    },
    /// Run a probe once.
    Probe {
        /// Name in the spec.
        container: String,
        /// The runtime's id.
        id: String,
        /// Which of its probes.
        kind: ProbeKind,
    },
    /// Remove the pod's volumes and folders.
    CleanUp,
    /// Delete the pod object: everything of it is gone from this node.
    DeleteObject,
}

/// What an action works on. Two actions of one subject never run together.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// The pod as a whole.
    Pod,
    /// One container of it.
    Container(String),
    /// One probe of one container.
    Probe(String, ProbeKind),
    /// The end of one container, which outranks whatever else goes on with it.
    Stop(String),
    /// The volumes, refreshed beside everything else.
    Volumes,
}

impl Action {
    /// What the action works on.
    pub fn subject(&self) -> Subject {
        match self {
            Self::PrepareVolumes => Subject::Volumes,
            Self::RunSandbox { .. }
            | Self::StopSandbox { .. }
            | Self::RemoveSandbox { .. }
            | Self::CleanUp
            | Self::DeleteObject => Subject::Pod,
            Self::EnsureImage { container, .. }
            | Self::CreateContainer { container, .. }
            | Self::StartContainer { container, .. }
            | Self::RemoveContainer { container, .. } => Subject::Container(container.clone()),
            Self::StopContainer { id, .. } => Subject::Stop(id.clone()),
            Self::Probe { container, kind, .. } => Subject::Probe(container.clone(), *kind),
        }
    }
}

/// What came of an action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It was done.
    Done,
    /// It failed; `reason` is the one word a container's waiting state shows.
    Failed {
        /// One word, such as `ErrImagePull`.
        reason: String,
        /// What went wrong, for a person.
        message: String,
    },
}

impl Outcome {
    /// A failure.
    pub fn failed(reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Failed { reason: reason.into(), message: message.into() }
    }
}
