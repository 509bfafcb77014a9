//! Registries: which one an image is of, and who one is there.
//!
//! Invariants
//!   R1  A credential goes to the registry that it is written for, and to no other.
//! Checked by: the tests below, fuzz/fuzz_targets/image.rs.
//! Source: `distribution/reference`; `.dockerconfigjson` as kubelet's `credentialprovider` reads it.

use std::collections::BTreeMap;

use base64::Engine as _;
use serde::Deserialize;

/// Who one is at a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credential {
    /// By name.
    pub username: String,
    /// And password.
    pub password: String,
    /// Both, as they are sent.
    pub auth: String,
}

#[derive(Deserialize)]
struct DockerConfig {
    #[serde(default)]
    auths: BTreeMap<String, DockerAuth>,
}

#[derive(Deserialize)]
struct DockerAuth {
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
    #[serde(default)]
    auth: String,
}

/// Entries of a `.dockerconfigjson` for the image's registry; none if it can't be read.
#[must_use]
pub fn matching(config: &[u8], image: &str) -> Vec<Credential> {
    let Ok(config) = serde_json::from_slice::<DockerConfig>(config) else { return Vec::new() };
    let registry = registry(image);
    let fits = |server: &str| {
        let bare = server.trim_start_matches("https://").trim_start_matches("http://");
        let host = bare.split('/').next().unwrap_or_default();
        host == registry || registry == "docker.io" && host == "index.docker.io"
    };
    let entries = config.auths.into_iter().filter(|(server, _)| fits(server));
    entries
        .map(|(_, DockerAuth { username, password, auth })| Credential { username, password, auth })
        .filter(|a| !a.auth.is_empty() || !a.username.is_empty())
        .map(|mut auth| {
            if auth.auth.is_empty() {
                let pair = format!("{}:{}", auth.username, auth.password);
                auth.auth = base64::engine::general_purpose::STANDARD.encode(pair);
            }
            auth
        })
        .collect()
}

/// The registry of an image: the first part is a host if it looks like one.
#[must_use]
pub fn registry(image: &str) -> &str {
    split(image).map_or("docker.io", |(host, _)| host)
}

/// A name as docker shortens it, in full: `busybox:1` is `docker.io/library/busybox:1`.
#[must_use]
pub fn full_name(short: &str) -> String {
    match short.contains('/') {
        _ if split(short).is_some() => short.to_owned(),
        true => format!("docker.io/{short}"),
        false => format!("docker.io/library/{short}"),
    }
}

/// Host and the rest, of a name that has a host. Source: `splitDockerDomain`.
fn split(name: &str) -> Option<(&str, &str)> {
    name.split_once('/').filter(|(host, _)| host.contains(['.', ':']) || *host == "localhost")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_go_to_their_registry_alone() {
        let config = br#"{"auths": {"https://index.docker.io/v1/": {"auth": "YTpi"}, "localhost:5000": {"username": "u", "password": "p"}}}"#;
        let auths = |image: &str| matching(config, image).into_iter().map(|a| a.auth).collect::<Vec<_>>();
        assert_eq!(auths("nginx:1"), ["YTpi"]);
        assert_eq!(auths("localhost:5000/x/y@sha256:1"), ["dTpw"]);
        assert!(auths("ghcr.io/x").is_empty());
        assert!(matching(b"{", "nginx").is_empty());
    }

    #[test]
    fn a_full_name_names_the_same_registry() {
        for (short, full) in [
            ("busybox:1", "docker.io/library/busybox:1"),
            ("me/app", "docker.io/me/app"),
            ("localhost/y", "localhost/y"),
            ("h:1/y", "h:1/y"),
        ] {
            assert_eq!(full_name(short), full);
            assert_eq!(registry(full), registry(short));
        }
    }
}
