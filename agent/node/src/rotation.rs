//! Keeps containers' logs bounded: one that is full is put aside and the runtime opens a new one.

use std::path::PathBuf;
use std::time::Duration;

use k8s_cri::v1 as cri;
use tokio_util::sync::CancellationToken;

use crate::cri::{CONTAINER_NAME, Cri, CriError, POD_NAME, POD_NAMESPACE, POD_UID};
use crate::server::logs::{LOG_BYTES_MAX, aside};
use crate::spec;

/// Source: kubelet `containerLogMonitorInterval`.
const LOOK_EVERY: Duration = Duration::from_secs(10);

pub(crate) async fn run(cri: Cri, data_dir: PathBuf, shutdown: CancellationToken) {
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
        if let Err(error) = look(&cri, &data_dir).await {
            tracing::warn!(%error, "logs could not be rotated");
        }
    }
}

async fn look(cri: &Cri, data_dir: &std::path::Path) -> Result<(), CriError> {
    let state = cri::ContainerStateValue { state: cri::ContainerState::ContainerRunning as i32 };
    let filter = cri::ContainerFilter { state: Some(state), ..Default::default() };
    let running = cri.runtime().list_containers(cri::ListContainersRequest { filter: Some(filter) }).await?;
    for container in running.into_inner().containers {
        let label = |key: &str| container.labels.get(key).map(String::as_str).unwrap_or_default();
        let attempt = container.metadata.as_ref().map_or(0, |m| m.attempt);
        let dir = spec::log_dir(data_dir, label(POD_NAMESPACE), label(POD_NAME), label(POD_UID));
        let path = dir.join(spec::log_file(label(CONTAINER_NAME), attempt));
        if !std::fs::metadata(&path).is_ok_and(|m| m.len() > LOG_BYTES_MAX) {
            continue;
        }
        match std::fs::rename(&path, aside(&path)) {
            Ok(()) => {
                let request = cri::ReopenContainerLogRequest { container_id: container.id.clone() };
                cri.runtime().reopen_container_log(request).await?;
            }
            Err(error) => tracing::warn!(%error, path = %path.display(), "a log could not be put aside"),
        }
    }
    Ok(())
}
