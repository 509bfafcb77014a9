//! Image archives that somebody hands in, names of images, and credentials for their registries.
#![no_main]

use std::io::Write as _;
use std::ops::Range;

use agent_core::archive::check;
use agent_core::registry::{Credential, full_name, matching, registry};
use fuzz::{choose, same};
use libfuzzer_sys::fuzz_target;
use serde::de::IgnoredAny;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// Of a tar: what stands before each file, and what both are multiples of.
const HEADER_BYTES: usize = 512;
/// What stands behind the last.
const END_BYTES: usize = 1024;

/// What is said of an archive: the names in it, or what is wrong.
fn said(archive: &[u8]) -> Result<Vec<String>, String> {
    check(archive).map_err(|error| error.to_string())
}

/// A tar of files as the input says: a byte names one, two are its length; `@` in a document becomes the digest of
/// the file made last, so that layouts hold together. Also where the files are that are named by their digest.
fn packed(mut script: &[u8]) -> (Vec<u8>, Vec<Range<usize>>) {
    let mut blobs = Vec::new();
    let mut archive = tar::Builder::new(Vec::new());
    let mut digest = "0".repeat(64);
    while let Some(([name, high, low], rest)) = script.split_first_chunk::<3>() {
        let length = usize::from(*high) << 8 | usize::from(*low);
        let (content, rest) = rest.split_at(length.min(rest.len()));
        script = rest;
        let content: Vec<u8> = content.split(|byte| *byte == b'@').collect::<Vec<_>>().join(digest.as_bytes());
        let hash = Sha256::digest(&content).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let path = match name % 6 {
            0 => "index.json".to_owned(),
            1 => "manifest.json".to_owned(),
            2 => "c.json".to_owned(),
            3 => "l/layer.tar".to_owned(),
            4 => format!("blobs/sha256/{digest}"),
            _ => format!("blobs/sha256/{hash}"),
        };
        digest = hash;
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        let begin = archive.get_ref().len() + HEADER_BYTES;
        archive.append_data(&mut header, path, content.as_slice()).expect("room in memory");
        if name % 6 == 5 && !content.is_empty() {
            blobs.push(begin..begin + content.len());
        }
    }
    (archive.into_inner().expect("room in memory"), blobs)
}

/// Gzipped it says the same.
fn archive(bytes: &[u8]) {
    let names = said(bytes);
    if !bytes.starts_with(&[0x1f, 0x8b]) {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(bytes).expect("room in memory");
        same(&said(&gzip.finish().expect("room in memory")), &names, "a gzipped archive");
    }
    if let Ok(names) = names {
        assert!(!names.is_empty() && names.is_sorted(), "{names:?}");
    }
}

/// An archive that holds together is refused when it is cut within a file or what describes it, and when a file that
/// is named by its digest is flipped.
fn harmed(script: &[u8], at: usize) {
    let (mut bytes, blobs) = packed(script);
    archive(&bytes);
    let Ok(names) = said(&bytes) else { return };
    let cut = at * (bytes.len() - END_BYTES) / 64;
    if !cut.is_multiple_of(HEADER_BYTES) {
        assert!(said(&bytes[..cut]).is_err(), "{names:?} though it was cut after {cut} of {} bytes", bytes.len());
    }
    if let Some(blob) = blobs.get(at % blobs.len().max(1)) {
        let place = blob.start + at % blob.len();
        bytes[place] ^= 1;
        let said = said(&bytes).err();
        assert!(said.is_some_and(|why| why.ends_with("is damaged: its content has another digest")), "{names:?}");
    }
}

/// Credentials are of entries for the image's registry alone, and of all of those that say anything.
fn credentials(config: &[u8], image: &str) {
    let found = matching(config, image);
    let Ok(value) = serde_json::from_slice::<Value>(config) else {
        // What nobody reads may be no text, a number too large or too deep, and does no harm.
        let is_json = serde_json::from_slice::<IgnoredAny>(config).is_ok();
        return assert!(is_json || found.is_empty(), "{found:?}");
    };
    let wanted = registry(image);
    // Whoever writes lists for objects is read by their order.
    let field = |of: &Value, name: &str, at: usize| of.get(name).or_else(|| of.get(at)).cloned().unwrap_or_default();
    let text = |of: &Value, name: &str, at: usize| field(of, name, at).as_str().unwrap_or_default().to_owned();
    let all = field(&value, "auths", 0);
    let is_of = |server: &str| {
        let host = server.trim_start_matches("https://").trim_start_matches("http://").split('/').next();
        host == Some(wanted) || wanted == "docker.io" && host == Some("index.docker.io")
    };
    let expected: Vec<(String, String)> = all
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(server, _)| is_of(server))
        .map(|(_, entry)| (text(entry, "username", 0), text(entry, "password", 1)))
        .collect();
    for Credential { username, password, auth } in found {
        assert!(!auth.is_empty(), "{username} has nothing to say");
        same(&expected.contains(&(username, password)), &true, "whose a credential is");
    }
}

/// A full name is of the same registry, and its own full name.
fn name(short: &str) {
    let full = full_name(short);
    same(&registry(&full), &registry(short), "the registry of a full name");
    same(&full_name(&full), &full, "a full name");
}

fuzz_target!(|bytes: &[u8]| {
    let Some((which, rest)) = choose(bytes) else { return };
    match which % 4 {
        0 => archive(rest),
        1 => harmed(rest, which / 4),
        2 => {
            let at = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
            let (image, config) = rest.split_at(at);
            if let Ok(image) = std::str::from_utf8(image) {
                credentials(config, image);
            }
        }
        _ => {
            if let Ok(short) = std::str::from_utf8(rest) {
                name(short);
            }
        }
    }
});
