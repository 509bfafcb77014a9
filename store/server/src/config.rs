//! A member's settings, under etcd's names.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use store_core::wire::Member;

/// A certificate, its key and the CA of the other side; PEM files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tls {
    /// Own certificate.
    pub cert_file: Option<PathBuf>,
    /// Own key.
    pub key_file: Option<PathBuf>,
    /// Who signs the other side's certificates.
    pub trusted_ca_file: Option<PathBuf>,
    /// Whether clients must show a certificate.
    pub client_cert_auth: bool,
}

/// Settings of a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The member's name in `initial_cluster`.
    pub name: String,
    /// Folder for log and state.
    pub data_dir: PathBuf,
    /// Where clients are served.
    pub listen_client_urls: Vec<String>,
    /// What clients are told of this member.
    pub advertise_client_urls: Vec<String>,
    /// Where peers are served.
    pub listen_peer_urls: Vec<String>,
    /// Every member's name and peer URLs, as a new folder begins.
    pub initial_cluster: BTreeMap<String, Vec<String>>,
    /// Whether a new folder joins a cluster that runs already.
    pub joins_existing: bool,
    /// Whether changes of members are refused that the cluster can't bear.
    pub strict_reconfig_check: bool,
    /// Tells clusters apart that happen to have the same URLs.
    pub initial_cluster_token: String,
    /// Time between heartbeats.
    pub heartbeat_interval: Duration,
    /// Time without a leader before an election.
    pub election_timeout: Duration,
    /// Largest request, bytes.
    pub max_request_bytes: usize,
    /// TLS towards clients.
    pub client_tls: Tls,
    /// TLS between peers.
    pub peer_tls: Tls,
}

/// A setting that can't work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(String);

impl ConfigError {
    pub(crate) fn of(why: impl Into<String>) -> Self {
        Self(why.into())
    }
}

fn refuse<T>(why: impl Into<String>) -> Result<T, ConfigError> {
    Err(ConfigError(why.into()))
}

impl Default for Config {
    fn default() -> Self {
        let (client, peer) = ("http://localhost:2379".to_owned(), "http://localhost:2380".to_owned());
        Self {
            name: "default".to_owned(),
            data_dir: PathBuf::from("default.etcd"),
            listen_client_urls: vec![client.clone()],
            advertise_client_urls: vec![client],
            listen_peer_urls: vec![peer.clone()],
            initial_cluster: [("default".to_owned(), vec![peer])].into(),
            joins_existing: false,
            strict_reconfig_check: true,
            initial_cluster_token: "etcd-cluster".to_owned(),
            heartbeat_interval: Duration::from_millis(100),
            election_timeout: Duration::from_millis(1000),
            max_request_bytes: 1_572_864,
            client_tls: Tls::default(),
            peer_tls: Tls::default(),
        }
    }
}

/// Where a URL leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    Tcp { secure: bool, address: String },
    Unix { secure: bool, path: PathBuf },
}

/// Where clients are served, by `http://`, `https://`, `unix://` or `unixs://`.
pub(crate) fn place(url: &str) -> Result<Place, ConfigError> {
    for (scheme, secure) in [("unix://", false), ("unixs://", true)] {
        match url.strip_prefix(scheme) {
            Some("") => return refuse(format!("{url:?} names no file")),
            Some(path) => return Ok(Place::Unix { secure, path: PathBuf::from(path) }),
            None => {}
        }
    }
    let (secure, address) = url_parts(url)?;
    Ok(Place::Tcp { secure, address: address.to_owned() })
}

/// Scheme and `host:port` of a URL.
pub(crate) fn url_parts(url: &str) -> Result<(bool, &str), ConfigError> {
    let (tls, rest) = match (url.strip_prefix("https://"), url.strip_prefix("http://")) {
        (Some(rest), _) => (true, rest),
        (_, Some(rest)) => (false, rest),
        _ => return refuse(format!("{url:?} is not a URL of http:// or https://")),
    };
    let rest = rest.trim_end_matches('/');
    match rest.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => Ok((tls, rest)),
        _ => refuse(format!("{url:?} names no port")),
    }
}

impl Config {
    /// Checks settings against each other.
    ///
    /// # Errors
    /// The first setting that can't work, and why.
    pub fn validate(&self) -> Result<(), ConfigError> {
        if self.election_timeout < self.heartbeat_interval * 5 {
            return refuse(format!(
                "--election-timeout[{}ms] should be at least as 5 times as --heartbeat-interval[{}ms]",
                self.election_timeout.as_millis(),
                self.heartbeat_interval.as_millis()
            ));
        }
        if self.heartbeat_interval.is_zero() {
            return refuse("--heartbeat-interval must be > 0");
        }
        for url in self.listen_client_urls.iter().chain(&self.listen_peer_urls) {
            let (Place::Tcp { secure: tls, .. } | Place::Unix { secure: tls, .. }) = place(url)?;
            let settings = if self.listen_client_urls.contains(url) { &self.client_tls } else { &self.peer_tls };
            if tls && (settings.cert_file.is_none() || settings.key_file.is_none()) {
                return refuse(format!("{url} needs a certificate and a key"));
            }
        }
        for url in self.initial_cluster.values().flatten() {
            url_parts(url)?;
        }
        Ok(())
    }

    /// Checks what only a new folder needs: one that was used before remembers who it is.
    ///
    /// # Errors
    /// What is missing.
    pub fn validate_founding(&self) -> Result<(), ConfigError> {
        if self.initial_cluster.contains_key(&self.name) {
            return Ok(());
        }
        let known: Vec<&str> = self.initial_cluster.keys().map(String::as_str).collect();
        refuse(format!("couldn't find local name {:?} in the initial cluster ({})", self.name, known.join(", ")))
    }

    /// The peer URLs of this member, as a new folder begins.
    pub(crate) fn own_peer_urls(&self) -> Vec<String> {
        self.initial_cluster.get(&self.name).cloned().unwrap_or_default()
    }

    /// The members that a new cluster begins with.
    pub(crate) fn founders(&self) -> Vec<Member> {
        let member = |(name, urls): (&String, &Vec<String>)| Member {
            id: member_id(urls, &self.initial_cluster_token, &[]),
            name: name.clone(),
            peer_ur_ls: urls.clone(),
            ..Member::default()
        };
        self.initial_cluster.iter().map(member).collect()
    }

    /// The number of a cluster that begins with these founders.
    pub(crate) fn cluster_id(&self) -> u64 {
        let mut ids: Vec<u64> = self.founders().iter().map(|member| member.id).collect();
        ids.sort_unstable();
        digest(ids.iter().map(|id| id.to_be_bytes().to_vec()))
    }
}

/// A member's number: of its peer URLs, its cluster's token, and whatever else tells it from an earlier one there.
pub(crate) fn member_id(peer_urls: &[String], token: &str, salt: &[u8]) -> u64 {
    let mut urls = peer_urls.to_vec();
    urls.sort_unstable();
    digest([urls.join(",").into_bytes(), token.as_bytes().to_vec(), salt.to_vec()])
}

fn digest(parts: impl IntoIterator<Item = Vec<u8>>) -> u64 {
    let mut digest = Sha256::new();
    parts.into_iter().for_each(|part| digest.update(part));
    // Never 0, which means "nobody" in raft. A digest has 32 bytes, so the first eight are there.
    u64::from_be_bytes(digest.finalize()[..8].try_into().unwrap_or([1; 8])).max(1)
}
