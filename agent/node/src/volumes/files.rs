//! Volumes that are files from API objects, replaced all at once.
//!
//! A reader sees either all old or all new files: files lie in a folder of their own,
//! `..data` links to it, and a new folder is made whole before the link is renamed over.

use std::collections::BTreeMap;
use std::io;
use std::path::{Component, Path, PathBuf};

use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{
    ConfigMap, Container, DownwardAPIVolumeFile, KeyToPath, Pod, Secret, ServiceAccount, ServiceAccountTokenProjection,
    Volume, VolumeProjection,
};
use kube::api::PostParams;
use kube::{Api, Client};

use crate::env::{self, EnvError, Facts};

const DEFAULT_MODE: i32 = 0o644;
const TOKEN_MODE: i32 = 0o600;
const DATA: &str = "..data";
const DATA_NEXT: &str = "..data_tmp";

/// A file of a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct File {
    bytes: Vec<u8>,
    mode: i32,
}

/// Files by path below the volume.
pub(super) type Files = BTreeMap<PathBuf, File>;

/// What the volume is to hold.
pub(super) async fn wanted(client: &Client, pod: &Pod, volume: &Volume, facts: &Facts<'_>) -> Result<Files, EnvError> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    if let Some(source) = &volume.config_map {
        let map = env::config_map(client, namespace, &source.name, source.optional).await?;
        let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
        return select(map_files(map), source.items.as_deref(), mode, source.optional);
    }
    if let Some(source) = &volume.secret {
        let name = source.secret_name.as_deref().unwrap_or_default();
        let secret = env::secret(client, namespace, name, source.optional).await?;
        let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
        return select(secret_files(secret), source.items.as_deref(), mode, source.optional);
    }
    if let Some(source) = &volume.downward_api {
        return downward(pod, source.items.as_deref(), source.default_mode.unwrap_or(DEFAULT_MODE), facts);
    }
    let mut files = Files::new();
    let Some(projected) = &volume.projected else { return Ok(files) };
    let mode = projected.default_mode.unwrap_or(DEFAULT_MODE);
    for source in projected.sources.iter().flatten() {
        files.extend(projection(client, pod, source, mode, facts).await?);
    }
    Ok(files)
}

async fn projection(
    client: &Client,
    pod: &Pod,
    source: &VolumeProjection,
    mode: i32,
    facts: &Facts<'_>,
) -> Result<Files, EnvError> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    if let Some(source) = &source.config_map {
        let map = env::config_map(client, namespace, &source.name, source.optional).await?;
        return select(map_files(map), source.items.as_deref(), mode, source.optional);
    }
    if let Some(source) = &source.secret {
        let secret = env::secret(client, namespace, &source.name, source.optional).await?;
        return select(secret_files(secret), source.items.as_deref(), mode, source.optional);
    }
    if let Some(source) = &source.downward_api {
        return downward(pod, source.items.as_deref(), mode, facts);
    }
    match &source.service_account_token {
        Some(source) => token(client, pod, source).await,
        None => Err(EnvError::Wrong("a projected source is not supported by this node".to_owned())),
    }
}

fn map_files(map: Option<ConfigMap>) -> BTreeMap<String, Vec<u8>> {
    let map = map.unwrap_or_default();
    let text = map.data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.into_bytes()));
    text.chain(map.binary_data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.0))).collect()
}

fn secret_files(secret: Option<Secret>) -> BTreeMap<String, Vec<u8>> {
    secret.and_then(|s| s.data).unwrap_or_default().into_iter().map(|(key, value)| (key, value.0)).collect()
}

/// All entries under their keys, or the listed ones under their paths.
fn select(
    mut entries: BTreeMap<String, Vec<u8>>,
    items: Option<&[KeyToPath]>,
    mode: i32,
    optional: Option<bool>,
) -> Result<Files, EnvError> {
    let Some(items) = items.filter(|i| !i.is_empty()) else {
        let file = |(key, bytes): (String, Vec<u8>)| Ok((safe(&key)?, File { bytes, mode }));
        return entries.into_iter().map(file).collect();
    };
    let mut files = Files::new();
    for item in items {
        match entries.remove(&item.key) {
            Some(bytes) => {
                files.insert(safe(&item.path)?, File { bytes, mode: item.mode.unwrap_or(mode) });
            }
            None if optional == Some(true) => {}
            None => return Err(EnvError::Wrong(format!("references non-existent key: {}", item.key))),
        }
    }
    Ok(files)
}

fn downward(
    pod: &Pod,
    items: Option<&[DownwardAPIVolumeFile]>,
    mode: i32,
    facts: &Facts<'_>,
) -> Result<Files, EnvError> {
    let mut files = Files::new();
    for item in items.unwrap_or_default() {
        let text = match (&item.field_ref, &item.resource_field_ref) {
            (Some(field), _) => env::pod_field(pod, field, facts)?,
            (None, Some(field)) => env::resource_field(pod, &Container::default(), field, facts.node_capacity)?,
            (None, None) => String::new(),
        };
        files.insert(safe(&item.path)?, File { bytes: text.into_bytes(), mode: item.mode.unwrap_or(mode) });
    }
    Ok(files)
}

async fn token(client: &Client, pod: &Pod, source: &ServiceAccountTokenProjection) -> Result<Files, EnvError> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let account = pod.spec.as_ref().and_then(|s| s.service_account_name.as_deref()).unwrap_or("default");
    let request = TokenRequest {
        spec: Some(TokenRequestSpec {
            audiences: Some(source.audience.iter().cloned().collect()),
            expiration_seconds: source.expiration_seconds,
            bound_object_ref: Some(BoundObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Pod".to_owned()),
                name: pod.metadata.name.clone(),
                uid: pod.metadata.uid.clone(),
            }),
        }),
        ..TokenRequest::default()
    };
    let accounts = Api::<ServiceAccount>::namespaced(client.clone(), namespace);
    let answer = accounts.create_token_request(account, &PostParams::default(), &request).await?;
    let token = answer.status.and_then(|s| s.token).unwrap_or_default();
    Ok([(safe(&source.path)?, File { bytes: token.into_bytes(), mode: TOKEN_MODE })].into())
}

/// A path that stays below the volume and out of the way of `..data`.
fn safe(path: &str) -> Result<PathBuf, EnvError> {
    let relative = Path::new(path);
    let normal = relative.components().all(|c| matches!(c, Component::Normal(_)));
    if path.is_empty() || !normal || path.starts_with("..") {
        return Err(EnvError::Wrong(format!("{path:?} is not a path below a volume")));
    }
    Ok(relative.to_path_buf())
}

/// Makes `dir` hold just `files`, all at once; does nothing if it does already.
pub(super) fn publish(dir: &Path, files: &Files, group: Option<i64>) -> io::Result<()> {
    std::fs::create_dir_all(dir)?;
    super::set_mode(dir, 0o755)?;
    let current = std::fs::read_link(dir.join(DATA)).ok();
    if let Some(current) = &current
        && holds(&dir.join(current), files)
    {
        return Ok(());
    }
    let name = fresh_name(dir);
    let next = dir.join(&name);
    for (path, file) in files {
        let at = next.join(path);
        if let Some(parent) = at.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::write(&at, &file.bytes)?;
        // With a group to give it to, the group may read: kubelet's SetVolumeOwnership.
        let extra = if group.is_some() { 0o040 } else { 0 };
        super::set_mode(&at, file.mode.unsigned_abs() | extra)?;
        give_to(&at, group)?;
    }
    std::fs::create_dir_all(&next)?;
    let staged = dir.join(DATA_NEXT);
    let _ = std::fs::remove_file(&staged);
    std::os::unix::fs::symlink(&name, &staged)?;
    std::fs::rename(&staged, dir.join(DATA))?;
    link_names(dir, files)?;
    // A folder that nothing links to is of no use any more.
    current.map_or(Ok(()), |old| std::fs::remove_dir_all(dir.join(old)))
}

fn fresh_name(dir: &Path) -> PathBuf {
    let number = (1_u32..).find(|n| !dir.join(format!("..{n}")).exists()).unwrap_or(u32::MAX);
    PathBuf::from(format!("..{number}"))
}

/// What a reader opens: each first component, linked through `..data`.
fn link_names(dir: &Path, files: &Files) -> io::Result<()> {
    let first = |path: &PathBuf| path.components().next().map(|c| PathBuf::from(c.as_os_str()));
    let wanted: std::collections::BTreeSet<PathBuf> = files.keys().filter_map(first).collect();
    for name in &wanted {
        let link = dir.join(name);
        if std::fs::symlink_metadata(&link).is_err() {
            std::os::unix::fs::symlink(Path::new(DATA).join(name), &link)?;
        }
    }
    for entry in std::fs::read_dir(dir)? {
        let name = PathBuf::from(entry?.file_name());
        let ours = name.to_string_lossy().starts_with("..");
        if !ours && !wanted.contains(&name) {
            std::fs::remove_file(dir.join(&name))?;
        }
    }
    Ok(())
}

fn holds(dir: &Path, files: &Files) -> bool {
    let count = count_files(dir);
    count == files.len()
        && files.iter().all(|(path, file)| std::fs::read(dir.join(path)).is_ok_and(|b| b == file.bytes))
}

fn count_files(dir: &Path) -> usize {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|e| if e.path().is_dir() { count_files(&e.path()) } else { 1 }).sum()
}

/// Gives a file or folder to the pod's group; a folder's new files follow it.
pub(super) fn give_to(path: &Path, group: Option<i64>) -> io::Result<()> {
    let Some(group) = group.and_then(|g| u32::try_from(g).ok()) else { return Ok(()) };
    std::os::unix::fs::lchown(path, None, Some(group))?;
    if path.is_dir() { super::set_mode(path, 0o2775) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(entries: &[(&str, &str)]) -> Files {
        let file = |text: &str| File { bytes: text.as_bytes().to_vec(), mode: DEFAULT_MODE };
        entries.iter().map(|(path, text)| (PathBuf::from(path), file(text))).collect()
    }

    #[test]
    fn a_volume_changes_all_at_once_and_forgets_what_went() {
        let dir = tempfile::tempdir().expect("a folder");
        let at = |name: &str| std::fs::read_to_string(dir.path().join(name));
        publish(dir.path(), &files(&[("a", "1"), ("sub/b", "2")]), None).expect("written");
        assert_eq!((at("a").expect("a"), at("sub/b").expect("b")), ("1".to_owned(), "2".to_owned()));
        let before = std::fs::read_link(dir.path().join(DATA)).expect("a link");
        publish(dir.path(), &files(&[("a", "1"), ("sub/b", "2")]), None).expect("the same");
        assert_eq!(std::fs::read_link(dir.path().join(DATA)).expect("a link"), before);
        publish(dir.path(), &files(&[("a", "3")]), None).expect("changed");
        assert_eq!(at("a").expect("a"), "3");
        assert!(at("sub/b").is_err());
        assert!(!dir.path().join(before).exists());
    }

    #[test]
    fn keys_cannot_lead_out_of_the_volume() {
        for path in ["", "../x", "/etc/passwd", "a/../../b", "..data"] {
            assert!(safe(path).is_err(), "{path}");
        }
    }
}
