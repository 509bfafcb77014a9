//! Building an image of one layer.
//!
//! Invariants
//!   B1  The same input gives the same bytes.
//!   B2  Every path stays inside the image's root, and is there once.

use std::collections::BTreeMap;
use std::io;

use serde_json::{Value, json};

use super::{Architecture, sha256};

#[cfg(test)]
mod tests;

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// Something in the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// From the root, without a slash in front. Folders above it are made if they aren't given.
    pub path: String,
    /// Permission bits.
    pub mode: u32,
    /// What it is.
    pub content: Content,
}

/// What a [`File`] is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// A plain file.
    Bytes(Vec<u8>),
    /// A symbolic link.
    Symlink(String),
    /// A folder.
    Folder,
}

/// How the image is run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageConfig {
    /// The machine it is for.
    pub architecture: Architecture,
    /// The program and its first arguments.
    pub entrypoint: Vec<String>,
    /// Arguments that a container may replace; the program itself if there is no entrypoint.
    pub cmd: Vec<String>,
    /// `NAME=value`.
    pub env: Vec<String>,
    /// Where it starts; empty for the root.
    pub working_dir: String,
}

impl ImageConfig {
    /// Nothing to run, and the usual PATH.
    pub fn new(architecture: Architecture) -> Self {
        let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        Self {
            architecture,
            entrypoint: Vec::new(),
            cmd: Vec::new(),
            env: vec![path.to_owned()],
            working_dir: String::new(),
        }
    }
}

/// Why an image can't be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// It must be like `registry.example/name:tag`.
    #[error("{0:?} is not a full image reference such as registry.example/name:tag")]
    Reference(String),
    /// Absolute, leaving the root, or empty.
    #[error("{0:?} is not a path inside an image")]
    Path(String),
    /// Two files for one place.
    #[error("{0:?} is given twice")]
    Twice(String),
    /// The tar format has no room for it.
    #[error("writing the archive")]
    Archive(#[from] io::Error),
}

/// Builds an image of one layer with these files, as an OCI layout in a tar that is imported under `reference`.
///
/// # Errors
/// [`BuildError`] says which input is wrong.
pub fn build(reference: &str, files: &[File], config: &ImageConfig) -> Result<Vec<u8>, BuildError> {
    let tag = tag(reference).ok_or_else(|| BuildError::Reference(reference.to_owned()))?;
    let layer = layer(files)?;
    let platform = json!({"architecture": config.architecture.name(), "os": "linux"});
    let run = json!({"Env": config.env, "Entrypoint": list(&config.entrypoint), "Cmd": list(&config.cmd),
        "WorkingDir": config.working_dir});
    let description = json!({"architecture": config.architecture.name(), "os": "linux",
        "created": "1970-01-01T00:00:00Z", "config": run,
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", sha256(&layer))]},
        "history": [{"created": "1970-01-01T00:00:00Z", "created_by": "keelson"}]});
    let description = description.to_string().into_bytes();
    let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST,
        "config": descriptor(CONFIG, &description), "layers": [descriptor(LAYER, &layer)]});
    let manifest = manifest.to_string().into_bytes();
    let mut entry = descriptor(MANIFEST, &manifest);
    entry["platform"] = platform;
    // The first is containerd's own and holds the full name; the second is the standard's.
    entry["annotations"] = json!({"io.containerd.image.name": reference, "org.opencontainers.image.ref.name": tag});
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]});

    let mut archive = tar::Builder::new(Vec::new());
    append(&mut archive, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    append(&mut archive, "index.json", index.to_string().as_bytes())?;
    for blob in [&manifest, &description, &layer] {
        append(&mut archive, &format!("blobs/sha256/{}", sha256(blob)), blob)?;
    }
    Ok(archive.into_inner()?)
}

/// The tag of a full reference: a host with a dot or port (or localhost), a path, and a tag.
fn tag(reference: &str) -> Option<&str> {
    let (name, tag) = reference.rsplit_once(':')?;
    let (host, path) = name.split_once('/')?;
    let is_host = host == "localhost" || host.contains(['.', ':']);
    let word = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let in_path = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-/".contains(c);
    let in_host = |c: char| word(c) || c == ':';
    let is_good = is_host
        && host.chars().all(in_host)
        && path.chars().all(in_path)
        && path.split('/').all(|part| !part.is_empty())
        && !tag.is_empty()
        && tag.len() <= 128
        && tag.chars().all(word);
    is_good.then_some(tag)
}

/// `null` for none, as images have it.
fn list(words: &[String]) -> Value {
    if words.is_empty() { Value::Null } else { words.into() }
}

fn descriptor(media_type: &str, content: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": format!("sha256:{}", sha256(content)), "size": content.len()})
}

/// A header without time or owner (B1).
fn header(kind: tar::EntryType, mode: u32, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header
}

fn append(archive: &mut tar::Builder<Vec<u8>>, path: &str, content: &[u8]) -> io::Result<()> {
    archive.append_data(&mut header(tar::EntryType::Regular, 0o644, content.len() as u64), path, content)
}

/// The layer's tar: sorted by path, folders before what is in them.
fn layer(files: &[File]) -> Result<Vec<u8>, BuildError> {
    let folder = File { path: String::new(), mode: 0o755, content: Content::Folder };
    let mut entries: BTreeMap<&str, &File> = BTreeMap::new();
    for file in files {
        let is_inside = file.path.split('/').all(|part| !matches!(part, "" | "." | ".."));
        if !is_inside || file.path.contains('\0') {
            return Err(BuildError::Path(file.path.clone()));
        }
        if entries.insert(&file.path, file).is_some() {
            return Err(BuildError::Twice(file.path.clone()));
        }
    }
    for file in files {
        for (end, _) in file.path.match_indices('/') {
            // Only what isn't given: a folder may have been, with a mode of its own.
            let (above, _) = file.path.split_at(end);
            let given = entries.entry(above).or_insert(&folder);
            if given.content != Content::Folder {
                return Err(BuildError::Path(file.path.clone()));
            }
        }
    }
    let mut archive = tar::Builder::new(Vec::new());
    for (path, file) in entries {
        match &file.content {
            Content::Bytes(bytes) => {
                let mut header = header(tar::EntryType::Regular, file.mode, bytes.len() as u64);
                archive.append_data(&mut header, path, bytes.as_slice())?;
            }
            Content::Symlink(target) => {
                archive.append_link(&mut header(tar::EntryType::Symlink, file.mode, 0), path, target)?;
            }
            Content::Folder => {
                let path = format!("{path}/");
                archive.append_data(&mut header(tar::EntryType::Directory, file.mode, 0), path, io::empty())?;
            }
        }
    }
    Ok(archive.into_inner()?)
}
