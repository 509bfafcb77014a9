//! Ending everything that runs: when a cluster is stopped, and after one that was cut off.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use k8s_cri::v1 as cri;
use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::cri::{Cri, CriError};

/// Why not everything was stopped.
#[derive(Debug, thiserror::Error)]
pub enum StopError {
    /// The runtime doesn't answer or refuses.
    #[error("can't stop the pods")]
    Runtime(#[from] CriError),
    /// A process doesn't go.
    #[error("process {pid} of a container's shim doesn't end: {what}")]
    Shim {
        /// Its process id.
        pid: i32,
        /// What the system says.
        what: String,
    },
    /// A pod's network doesn't go.
    #[error("the network of a pod, {0}, can't be removed; end what uses it, then: ip netns delete")]
    Network(PathBuf, #[source] std::io::Error),
}

/// Where containerd names pods' networks. Source: containerd `pkg/netns`.
const NETWORKS: &str = "/var/run/netns";

/// Stops and removes every pod of the runtime at `socket`, giving containers `grace` to end.
///
/// # Errors
/// [`StopError::Runtime`] if the runtime doesn't answer or refuses.
pub async fn stop_all(socket: &Path, grace: Duration) -> Result<(), StopError> {
    let cri = Cri::connect(socket).await?;
    let running = cri.observe_all().await?;
    let stops = running.values().map(|found| stop_pod(&cri, found, grace));
    for result in futures::future::join_all(stops).await {
        result?;
    }
    Ok(())
}

async fn stop_pod(cri: &Cri, found: &crate::cri::Found, grace: Duration) -> Result<(), CriError> {
    let timeout = i64::try_from(grace.as_secs()).unwrap_or(i64::MAX);
    let running = found.pod.containers.iter().filter(|c| c.state == agent_core::runtime::ContainerState::Running);
    let stops = running.map(|container| async {
        let request = cri::StopContainerRequest { container_id: container.id.clone(), timeout };
        cri.runtime().stop_container(request).await
    });
    for stopped in futures::future::join_all(stops).await {
        stopped?;
    }
    for sandbox in &found.pod.sandboxes {
        let pod_sandbox_id = sandbox.id.clone();
        cri.runtime().stop_pod_sandbox(cri::StopPodSandboxRequest { pod_sandbox_id: pod_sandbox_id.clone() }).await?;
        cri.runtime().remove_pod_sandbox(cri::RemovePodSandboxRequest { pod_sandbox_id }).await?;
    }
    Ok(())
}

/// Ends the shims that a containerd with this socket left running when it was cut off, and with them
/// their containers and networks. Returns how many there were.
///
/// # Errors
/// [`StopError`] of what doesn't go.
pub fn end_orphans(socket: &Path) -> Result<usize, StopError> {
    let shims = shims(socket);
    let networks = networks(shims.iter().flat_map(|(_, children)| children));
    for (pid, children) in &shims {
        // Containers first: a shim's children outlive it.
        for pid in children.iter().chain([pid]) {
            match kill(Pid::from_raw(*pid), Signal::SIGKILL) {
                Ok(()) | Err(nix::errno::Errno::ESRCH) => {}
                Err(errno) => return Err(StopError::Shim { pid: *pid, what: errno.to_string() }),
            }
        }
    }
    for network in networks {
        let removed = umount2(&network, MntFlags::MNT_DETACH).map_err(std::io::Error::from);
        removed.and_then(|()| std::fs::remove_file(&network)).map_err(|e| StopError::Network(network, e))?;
    }
    Ok(shims.len())
}

/// Where the networks of these processes are named. A name keeps a network, and the host's end of its link, beyond the
/// last process in it; the runtime that would remove it is gone.
fn networks<'a>(pids: impl Iterator<Item = &'a i32>) -> Vec<PathBuf> {
    let of = |path: &Path| std::fs::metadata(path).ok().map(|found| (found.dev(), found.ino()));
    let own = of(Path::new("/proc/self/ns/net"));
    // A pod on the host's network has none of its own.
    let theirs = pids.filter_map(|pid| of(&PathBuf::from(format!("/proc/{pid}/ns/net")))).filter(|it| Some(*it) != own);
    let theirs: BTreeSet<(u64, u64)> = theirs.collect();
    let named = std::fs::read_dir(NETWORKS).into_iter().flatten().flatten().map(|entry| entry.path());
    named.filter(|path| of(path).is_some_and(|network| theirs.contains(&network))).collect()
}

/// Shims whose command line names the socket, each with its children.
fn shims(socket: &Path) -> Vec<(i32, Vec<i32>)> {
    let socket = socket.display().to_string();
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids: Vec<i32> = entries.filter_map(|e| e.file_name().to_str()?.parse().ok()).collect();
    let is_ours = |pid: &&i32| {
        let line = std::fs::read(PathBuf::from(format!("/proc/{pid}/cmdline"))).unwrap_or_default();
        let mut words = line.split(|b| *b == 0).map(String::from_utf8_lossy);
        let program = words.next().unwrap_or_default().into_owned();
        let words: Vec<_> = words.collect();
        let addressed = words.windows(2).any(|pair| pair[0] == "-address" && pair[1] == socket);
        program.contains("containerd-shim") && addressed
    };
    let ours: Vec<i32> = pids.iter().filter(is_ours).copied().collect();
    ours.iter().map(|shim| (*shim, pids.iter().copied().filter(|pid| parent(*pid) == Some(*shim)).collect())).collect()
}

fn parent(pid: i32) -> Option<i32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()
}
