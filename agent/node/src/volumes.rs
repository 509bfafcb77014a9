//! A pod's volumes on the node: made, kept up to date, removed.
//!
//! Layout below the agent's folder, as kubelet's:
//! `pods/UID/volumes/PLUGIN/NAME`, `pods/UID/etc-hosts`,
//! `pods/UID/containers/NAME/ATTEMPT` (termination message).
//!
//! Source: kubelet `pkg/volume/*`, `volumeutil/atomic_writer.go`.

mod files;

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use k8s_openapi::api::core::v1::{HostPathVolumeSource, Pod, Volume};
use kube::Client;
use nix::mount::{MntFlags, MsFlags};

use crate::env::{EnvError, Facts};

/// Why a volume can't be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VolumeError {
    #[error("volume {volume:?}: {what}")]
    Wrong { volume: String, what: String },
    #[error("volume {volume:?}: {what}: {source}")]
    Io {
        volume: String,
        what: String,
        #[source]
        source: std::io::Error,
    },
    #[error("volume {volume:?}: {source}")]
    Object {
        volume: String,
        #[source]
        source: EnvError,
    },
}

/// Host paths of a pod's volumes, by volume name.
pub(crate) type VolumePaths = BTreeMap<String, PathBuf>;

/// The folder of one pod.
pub(crate) fn pod_dir(data_dir: &Path, uid: &str) -> PathBuf {
    data_dir.join("pods").join(uid)
}

fn volume_dir(data_dir: &Path, uid: &str, plugin: &str, name: &str) -> PathBuf {
    pod_dir(data_dir, uid).join("volumes").join(plugin).join(name)
}

/// Where each volume of the pod is, whether or not it was made yet.
pub(crate) fn paths(data_dir: &Path, pod: &Pod) -> VolumePaths {
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    let volumes = pod.spec.iter().flat_map(|s| s.volumes.iter().flatten());
    let place = |volume: &Volume| match (&volume.host_path, plugin(volume)) {
        (Some(host), _) => Some(PathBuf::from(&host.path)),
        (None, Some(plugin)) => Some(volume_dir(data_dir, uid, plugin, &volume.name)),
        (None, None) => None,
    };
    volumes.filter_map(|v| Some((v.name.clone(), place(v)?))).collect()
}

fn plugin(volume: &Volume) -> Option<&'static str> {
    match volume {
        Volume { empty_dir: Some(_), .. } => Some("kubernetes.io~empty-dir"),
        Volume { config_map: Some(_), .. } => Some("kubernetes.io~configmap"),
        Volume { secret: Some(_), .. } => Some("kubernetes.io~secret"),
        Volume { projected: Some(_), .. } => Some("kubernetes.io~projected"),
        Volume { downward_api: Some(_), .. } => Some("kubernetes.io~downward-api"),
        _ => None,
    }
}

/// Makes the pod's volumes, or brings them up to date.
pub(crate) async fn prepare(client: &Client, data_dir: &Path, pod: &Pod, facts: &Facts<'_>) -> Result<(), VolumeError> {
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    let group = pod.spec.as_ref().and_then(|s| s.security_context.as_ref()).and_then(|c| c.fs_group);
    for volume in pod.spec.iter().flat_map(|s| s.volumes.iter().flatten()) {
        if let Some(host) = &volume.host_path {
            check_host_path(&volume.name, host)?;
            continue;
        }
        let Some(plugin) = plugin(volume) else {
            let what = "this kind of volume is not supported by this node".to_owned();
            return Err(VolumeError::Wrong { volume: volume.name.clone(), what });
        };
        let dir = volume_dir(data_dir, uid, plugin, &volume.name);
        if volume.empty_dir.is_some() {
            empty_dir(volume, &dir, group)?;
            continue;
        }
        let wanted = files::wanted(client, pod, volume, facts)
            .await
            .map_err(|source| VolumeError::Object { volume: volume.name.clone(), source })?;
        let volume = volume.name.clone();
        files::publish(&dir, &wanted, group).map_err(|source| VolumeError::Io {
            volume,
            what: format!("writing {}", dir.display()),
            source,
        })?;
    }
    Ok(())
}

fn empty_dir(volume: &Volume, dir: &Path, group: Option<i64>) -> Result<(), VolumeError> {
    let io = |source: std::io::Error| VolumeError::Io {
        volume: volume.name.clone(),
        what: format!("making {}", dir.display()),
        source,
    };
    let fresh = !dir.exists();
    std::fs::create_dir_all(dir).map_err(io)?;
    let source = volume.empty_dir.as_ref();
    let in_memory = source.and_then(|s| s.medium.as_deref()) == Some("Memory");
    if in_memory && !is_mount_point(dir) {
        let limit = source.and_then(|s| s.size_limit.as_ref()).and_then(agent_core::resources::units);
        let options = limit.filter(|bytes| *bytes > 0).map_or_else(String::new, |bytes| format!("size={bytes}"));
        nix::mount::mount(Some("tmpfs"), dir, Some("tmpfs"), MsFlags::empty(), Some(options.as_str()))
            .map_err(|errno| io(errno.into()))?;
    }
    if fresh || in_memory {
        set_mode(dir, 0o777).map_err(io)?;
        files::give_to(dir, group).map_err(io)?;
    }
    Ok(())
}

pub(crate) fn set_mode(path: &Path, mode: u32) -> std::io::Result<()> {
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode))
}

fn is_mount_point(dir: &Path) -> bool {
    mounts_below(dir).iter().any(|at| at == dir)
}

/// Mount points at or below a folder, the deepest first.
pub(crate) fn mounts_below(dir: &Path) -> Vec<PathBuf> {
    // proc(5): the fifth field, with octal escapes for blanks.
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let unescape = |text: &str| text.replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\");
    let points = table.lines().filter_map(|line| line.split(' ').nth(4)).map(|p| PathBuf::from(unescape(p)));
    let mut below: Vec<PathBuf> = points.filter(|point| point.starts_with(dir)).collect();
    below.sort_by_key(|point| std::cmp::Reverse(point.components().count()));
    below
}

/// Source: KEP-less, `hostPath.type` of the API's reference.
fn check_host_path(volume: &str, source: &HostPathVolumeSource) -> Result<(), VolumeError> {
    use std::os::unix::fs::FileTypeExt as _;
    let path = Path::new(&source.path);
    let wrong = |what: &str| {
        Err(VolumeError::Wrong { volume: volume.to_owned(), what: format!("hostPath {}: {what}", path.display()) })
    };
    if path.components().any(|c| c == Component::ParentDir) || !path.is_absolute() {
        return wrong("must be an absolute path without ..");
    }
    let io = |source| VolumeError::Io { volume: volume.to_owned(), what: format!("making {}", path.display()), source };
    let kind = std::fs::metadata(path).map(|m| m.file_type()).ok();
    match source.type_.as_deref().unwrap_or_default() {
        "" => {
            // As a container runtime does for a bind mount whose source is missing.
            if kind.is_none() { std::fs::create_dir_all(path).map_err(io) } else { Ok(()) }
        }
        "DirectoryOrCreate" if kind.is_none() => std::fs::create_dir_all(path).map_err(io),
        "FileOrCreate" if kind.is_none() => std::fs::File::create(path).map(|_| ()).map_err(io),
        "Directory" | "DirectoryOrCreate" if kind.is_none_or(|k| !k.is_dir()) => wrong("is not a directory"),
        "File" | "FileOrCreate" if kind.is_none_or(|k| !k.is_file()) => wrong("is not a file"),
        "Socket" if kind.is_none_or(|k| !k.is_socket()) => wrong("is not a socket"),
        "CharDevice" if kind.is_none_or(|k| !k.is_char_device()) => wrong("is not a character device"),
        "BlockDevice" if kind.is_none_or(|k| !k.is_block_device()) => wrong("is not a block device"),
        "Directory" | "DirectoryOrCreate" | "File" | "FileOrCreate" | "Socket" | "CharDevice" | "BlockDevice" => Ok(()),
        other => wrong(&format!("type {other:?} is unknown")),
    }
}

/// Where a container's `subPath` is, made if missing; it may not lead out of the volume.
pub(crate) fn sub_path(volume: &Path, sub: &str) -> std::io::Result<PathBuf> {
    let refuse = |what: &str| std::io::Error::new(std::io::ErrorKind::InvalidInput, format!("subPath {sub:?} {what}"));
    let relative = Path::new(sub);
    if !relative.components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir)) {
        return Err(refuse("must be a relative path without .."));
    }
    let path = volume.join(relative);
    if !path.exists() {
        std::fs::create_dir_all(&path)?;
    }
    // Symbolic links of the volume's content are followed here, once, and the end is what is mounted.
    let (real, root) = (path.canonicalize()?, volume.canonicalize()?);
    if !real.starts_with(&root) {
        return Err(refuse("leads out of its volume"));
    }
    Ok(real)
}

/// Removes everything of a pod. What is mounted is unmounted first: nothing is removed through a mount.
pub(crate) fn remove(data_dir: &Path, uid: &str) -> std::io::Result<()> {
    remove_tree(&pod_dir(data_dir, uid))
}

/// Removes what is left of pods that went while no agent ran: volumes, with secrets in them, and logs. Returns whose it was.
pub(crate) fn sweep(data_dir: &Path, is_known: impl Fn(&str) -> bool) -> std::io::Result<Vec<String>> {
    let mut gone = Vec::new();
    for uid in names(&data_dir.join("pods"))? {
        if !is_known(&uid) {
            remove(data_dir, &uid)?;
            gone.push(uid);
        }
    }
    let logs = data_dir.join("logs");
    for name in names(&logs)? {
        // `NAMESPACE_NAME_UID`, none of which has that line in it. What has another form isn't the agent's.
        let parts: Vec<&str> = name.split('_').collect();
        if parts.len() == 3 && !is_known(parts[2]) {
            std::fs::remove_dir_all(logs.join(&name))?;
        }
    }
    Ok(gone)
}

/// The names of what is in a folder; none if it isn't there.
fn names(dir: &Path) -> std::io::Result<Vec<String>> {
    let entries = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}

/// Removes a folder after unmounting what is mounted below it.
///
/// # Errors
/// What the system refuses; nothing was removed if something stays mounted.
pub fn remove_tree(dir: &Path) -> std::io::Result<()> {
    unmount_below(dir)?;
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Unmounts what is mounted at or below a folder.
///
/// # Errors
/// What the system refuses, or the first mount that stays.
pub fn unmount_below(dir: &Path) -> std::io::Result<()> {
    for point in mounts_below(dir) {
        nix::mount::umount2(&point, MntFlags::MNT_DETACH).map_err(std::io::Error::from)?;
    }
    match mounts_below(dir).first() {
        Some(point) => Err(std::io::Error::other(format!("{} is still mounted", point.display()))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_knows_is_swept_away() {
        let dir = tempfile::tempdir().expect("a folder");
        for left in ["pods/u1/volumes/secret/s", "pods/u2/volumes", "logs/ns_p_u1/c", "logs/ns_p_u2/c", "logs/other"] {
            std::fs::create_dir_all(dir.path().join(left)).expect("made");
        }
        assert_eq!(sweep(dir.path(), |uid| uid == "u2").expect("swept"), ["u1"]);
        let left = |folder: &str| names(&dir.path().join(folder)).expect("read");
        assert_eq!((left("pods"), left("logs").len()), (vec!["u2".to_owned()], 2), "a name of another form stays");
        assert_eq!(sweep(&dir.path().join("nothing"), |_| false).expect("nothing there"), [""; 0]);
    }

    #[test]
    fn a_sub_path_stays_in_its_volume() {
        let dir = tempfile::tempdir().expect("a folder");
        let volume = dir.path().join("v");
        std::fs::create_dir_all(&volume).expect("made");
        assert!(sub_path(&volume, "a/b").expect("inside").ends_with("v/a/b"));
        assert!(sub_path(&volume, "../x").is_err());
        std::os::unix::fs::symlink("/etc", volume.join("link")).expect("linked");
        let error = sub_path(&volume, "link").expect_err("it leads to /etc");
        assert!(error.to_string().contains("leads out"), "{error}");
    }
}
