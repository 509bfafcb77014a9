//! Looking at an image archive that somebody hands in, before a runtime is asked to import it.
//!
//! Two kinds are known: an OCI image layout and what `docker save` writes; both in a tar, plain or gzipped. What
//! `docker save` writes today is both at once and read as the former, as containerd does.
//!
//! Source: OCI image-spec `image-layout.md`; containerd `core/images/archive/importer.go`.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, Read};

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::registry::full_name;

#[cfg(test)]
mod tests;

/// Files in an archive; a large image has some dozens.
const ENTRIES_MAX: usize = 10_000;
/// Bytes of one JSON document.
const DOCUMENT_BYTES_MAX: u64 = 4 << 20;
/// Bytes of all that may be JSON documents.
const DOCUMENTS_BYTES_MAX: u64 = 64 << 20;
/// Bytes of all that is said of a file before its content: its name may have a file of its own.
const HEADERS_BYTES_MAX: u64 = 1 << 20;
/// Indexes in indexes.
const DEPTH_MAX: u32 = 4;

const NAME: &str = "io.containerd.image.name";
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// What is wrong with an archive.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// It isn't a tar, or not all of it.
    #[error("it is not a tar archive, or it is cut off")]
    Read(#[source] io::Error),
    /// A tar of something else.
    #[error("it has neither index.json nor manifest.json: `docker save NAME:TAG -o FILE` makes an image archive")]
    NoImage,
    /// A file that it should have isn't there.
    #[error("{missing} is missing, which {by} names")]
    Missing {
        /// The file.
        missing: String,
        /// Who needs it.
        by: String,
    },
    /// A file's content isn't what its name says.
    #[error("{0} is damaged: its content has another digest")]
    Damaged(String),
    /// A document that can't be understood.
    #[error("{file}: {reason}")]
    Document {
        /// The document.
        file: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A bound of this check.
    #[error("it has more than {0}")]
    TooLarge(&'static str),
    /// Images, but nothing to call them by.
    #[error("no image in it has a name: `docker save` must be given NAME:TAG, not an image id")]
    Unnamed,
}

/// Checks an archive: every file that is named is there, and what is named by its digest has it.
///
/// Gives the references under which its images will be known.
///
/// # Errors
/// [`ArchiveError`] says what is wrong.
pub fn check(archive: impl Read) -> Result<Vec<String>, ArchiveError> {
    let contents = Contents::read(archive)?;
    let mut names = if contents.present.contains_key("index.json") {
        contents.oci_names()?
    } else if contents.present.contains_key("manifest.json") {
        contents.docker_names()?
    } else {
        return Err(ArchiveError::NoImage);
    };
    if names.is_empty() {
        return Err(ArchiveError::Unnamed);
    }
    names.sort();
    names.dedup();
    Ok(names)
}

/// Gives no more than is left.
struct Metered<'a, R> {
    inner: R,
    left: &'a Cell<u64>,
}

impl<R: Read> Read for Metered<'_, R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let size = usize::try_from(self.left.get()).unwrap_or(usize::MAX).min(bytes.len());
        if size == 0 && !bytes.is_empty() {
            return Err(io::Error::other("more than 1 MiB is said of a file before it begins"));
        }
        let count = self.inner.read(&mut bytes[..size])?;
        self.left.set(self.left.get() - count as u64);
        Ok(count)
    }
}

/// What is in an archive: all names, and the content of what may be JSON.
#[derive(Default)]
struct Contents {
    present: BTreeMap<String, Option<Vec<u8>>>,
}

impl Contents {
    fn read(mut archive: impl Read) -> Result<Self, ArchiveError> {
        let mut start = Vec::new();
        archive.by_ref().take(2).read_to_end(&mut start).map_err(ArchiveError::Read)?;
        let is_gzip = start == [0x1f, 0x8b];
        let whole = io::Cursor::new(start).chain(archive);
        if is_gzip { Self::read_tar(flate2::read::MultiGzDecoder::new(whole)) } else { Self::read_tar(whole) }
    }

    fn read_tar(archive: impl Read) -> Result<Self, ArchiveError> {
        let mut contents = Self::default();
        let mut document_bytes = 0;
        // Reading from where the last read stopped needs no larger blocks than these.
        let (inner, left) = (io::BufReader::with_capacity(1 << 16, archive), Cell::new(HEADERS_BYTES_MAX));
        let mut archive = tar::Archive::new(Metered { inner, left: &left });
        for entry in archive.entries().map_err(ArchiveError::Read)? {
            left.set(u64::MAX);
            let mut entry = entry.map_err(ArchiveError::Read)?;
            let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            let path = path.trim_start_matches("./").trim_matches('/').to_owned();
            let document = read_entry(&mut entry, &path)?;
            document_bytes += document.as_ref().map_or(0, |d| d.len() as u64);
            contents.present.insert(path, document);
            if contents.present.len() > ENTRIES_MAX {
                return Err(ArchiveError::TooLarge("10000 files"));
            }
            if document_bytes > DOCUMENTS_BYTES_MAX {
                return Err(ArchiveError::TooLarge("64 MiB of documents"));
            }
            // What comes next is kept in memory until a file begins.
            left.set(HEADERS_BYTES_MAX);
        }
        Ok(contents)
    }

    fn needed(&self, file: &str, by: &str) -> Result<(), ArchiveError> {
        if self.present.contains_key(file) {
            return Ok(());
        }
        Err(ArchiveError::Missing { missing: file.to_owned(), by: by.to_owned() })
    }

    fn document(&self, file: &str, by: &str) -> Result<Value, ArchiveError> {
        self.needed(file, by)?;
        let content = self.present.get(file).and_then(Option::as_ref);
        let content = content.ok_or_else(|| bad(file, "it is not JSON, or larger than 4 MiB"))?;
        serde_json::from_slice(content).map_err(|error| bad(file, &error.to_string()))
    }

    fn oci_names(&self) -> Result<Vec<String>, ArchiveError> {
        let index = self.document("index.json", "an image layout")?;
        let mut names = Vec::new();
        for descriptor in array(&index, "manifests", "index.json")? {
            self.check_descriptor(descriptor, "index.json", DEPTH_MAX)?;
            let annotation = |key: &str| descriptor.get("annotations")?.get(key)?.as_str();
            // The standard's may be a tag only; by that alone nothing can be found.
            let full = annotation(REF_NAME).filter(|name| name.contains(['/', ':']));
            names.extend(annotation(NAME).or(full).map(str::to_owned));
        }
        Ok(names)
    }

    /// Of an index of several machines' images one must be whole; the others needn't have been saved.
    fn check_descriptor(&self, descriptor: &Value, by: &str, depth: u32) -> Result<(), ArchiveError> {
        if depth == 0 {
            return Err(bad(by, "indexes are nested too deep"));
        }
        let file = blob(descriptor, by)?;
        let document = self.document(&file, by)?;
        if document.get("manifests").is_some() {
            let mut first_error = None;
            for child in array(&document, "manifests", &file)? {
                match self.check_descriptor(child, &file, depth - 1) {
                    Ok(()) => return Ok(()),
                    Err(error) => first_error = first_error.or(Some(error)),
                }
            }
            return Err(first_error.unwrap_or_else(|| bad(&file, "it has no images")));
        }
        let config = document.get("config").ok_or_else(|| bad(&file, "it has no config"))?;
        for part in array(&document, "layers", &file)?.iter().chain([config]) {
            self.needed(&blob(part, &file)?, &file)?;
        }
        Ok(())
    }

    fn docker_names(&self) -> Result<Vec<String>, ArchiveError> {
        const FILE: &str = "manifest.json";
        let manifest = self.document(FILE, "docker save")?;
        let mut names = Vec::new();
        for image in manifest.as_array().ok_or_else(|| bad(FILE, "it is not a list"))? {
            let config =
                image.get("Config").and_then(Value::as_str).ok_or_else(|| bad(FILE, "an image has no Config"))?;
            self.needed(config, FILE)?;
            for layer in array(image, "Layers", FILE)? {
                self.needed(layer.as_str().ok_or_else(|| bad(FILE, "a layer is not a file's name"))?, FILE)?;
            }
            let tags = image.get("RepoTags").and_then(Value::as_array).into_iter().flatten();
            names.extend(tags.filter_map(Value::as_str).map(full_name));
        }
        Ok(names)
    }
}

fn bad(file: &str, reason: &str) -> ArchiveError {
    ArchiveError::Document { file: file.to_owned(), reason: reason.to_owned() }
}

fn array<'a>(document: &'a Value, field: &str, file: &str) -> Result<&'a Vec<Value>, ArchiveError> {
    let found = document.get(field).and_then(Value::as_array);
    found.ok_or_else(|| bad(file, &format!("it has no list of {field}")))
}

/// Where a descriptor's content is.
fn blob(descriptor: &Value, by: &str) -> Result<String, ArchiveError> {
    let digest = descriptor.get("digest").and_then(Value::as_str);
    let parts = digest.and_then(|digest| digest.split_once(':'));
    let (algorithm, hash) = parts.ok_or_else(|| bad(by, "a descriptor has no digest"))?;
    Ok(format!("blobs/{algorithm}/{hash}"))
}

/// Reads one file to its end: checks its digest if that is its name, keeps it if it may be JSON.
fn read_entry(entry: &mut tar::Entry<'_, impl Read>, path: &str) -> Result<Option<Vec<u8>>, ArchiveError> {
    // A few bytes of one may stand for any number of zeros; nothing that writes images makes them.
    if entry.header().entry_type().is_gnu_sparse() {
        return Err(ArchiveError::Read(io::Error::other(format!("{path} is a sparse file"))));
    }
    // Not the header's, which has no room for more than 8 GiB.
    let size = entry.size();
    let digest = path.strip_prefix("blobs/sha256/");
    let mut hash = Sha256::new();
    let mut kept = Vec::new();
    let mut is_document = None;
    let mut length = 0_u64;
    let mut buffer = [0; 1 << 14];
    loop {
        let count = entry.read(&mut buffer).map_err(ArchiveError::Read)?;
        let Some(read) = buffer.get(..count).filter(|read| !read.is_empty()) else { break };
        if digest.is_some() {
            hash.update(read);
        }
        // By how the file begins, not what was read of it last.
        let starts_like_json = || read.first().is_some_and(|byte| b"{[ \n\r\t".contains(byte));
        if *is_document.get_or_insert_with(|| size <= DOCUMENT_BYTES_MAX && starts_like_json()) {
            kept.extend_from_slice(read);
        }
        length += count as u64;
    }
    if entry.header().entry_type().is_file() {
        if length != size {
            return Err(ArchiveError::Read(io::ErrorKind::UnexpectedEof.into()));
        }
        if digest.is_some_and(|digest| digest != hexadecimal(&hash.finalize())) {
            return Err(ArchiveError::Damaged(path.to_owned()));
        }
    }
    Ok(Some(kept).filter(|kept| !kept.is_empty()))
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String doesn't fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
