//! A member's settings, under etcd's names.

mod tls;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use store_core::auto_compaction::Retention;
use store_core::wire::Member;

pub use tls::{Tls, TlsVersion};

/// How users prove who they are between requests.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum AuthToken {
    /// By a random token that every member knows.
    #[default]
    Simple,
    /// By a signed token.
    Jwt(JwtSettings),
}

/// Keys and method of signed tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JwtSettings {
    /// To check tokens with; a PEM file. Not used by HS256 and its like.
    pub public_key: Option<PathBuf>,
    /// To make tokens with; a PEM file, or the secret of HS256 and its like.
    pub private_key: Option<PathBuf>,
    /// RS256, PS256, ES256, EdDSA, HS256 and their like.
    pub sign_method: String,
    /// How long a token is good.
    pub ttl: Duration,
}

/// A duration the way Go writes it: `5m`, `1h30m`, `300s`, `1.5h`; `None` for nothing else, nor for no time at all.
#[must_use]
pub fn go_duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(digits);
        let letters = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, next) = tail.split_at(letters);
        let scale = match unit {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 0.001,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        seconds += number.parse::<f64>().ok()? * scale;
        rest = next;
    }
    Duration::try_from_secs_f64(seconds).ok().filter(|duration| !duration.is_zero())
}

/// What stays of the past, the way etcd writes it: a mode, and hours, a duration or a number of revisions; `None`
/// for all of it.
///
/// # Errors
/// What isn't understood.
pub fn parse_retention(mode: &str, text: &str) -> Result<Option<Retention>, ConfigError> {
    let wrong = |what: &str| refuse(format!("--auto-compaction-retention: {text:?} is no {what}"));
    match (mode, text.parse::<i64>()) {
        ("periodic" | "revision", Ok(0)) => Ok(None),
        ("revision", Ok(count)) if count > 0 => Ok(Some(Retention::Revision(count))),
        ("revision", _) => wrong("number of revisions"),
        ("periodic", Ok(hours)) => match u64::try_from(hours).ok().and_then(|hours| hours.checked_mul(3_600_000)) {
            Some(milliseconds) => Ok(Some(Retention::Periodic(milliseconds))),
            None => wrong("number of hours"),
        },
        ("periodic", Err(_)) if matches!(text, "0ms" | "0s" | "0m" | "0h") => Ok(None),
        ("periodic", Err(_)) => match go_duration(text).map(|kept| u64::try_from(kept.as_millis())) {
            Some(Ok(milliseconds)) if milliseconds > 0 => Ok(Some(Retention::Periodic(milliseconds))),
            _ => wrong("duration"),
        },
        _ => refuse(format!("--auto-compaction-mode: {mode:?} is neither periodic nor revision")),
    }
}

impl AuthToken {
    /// Reads etcd's way to say it: `simple`, or `jwt,pub-key=FILE,priv-key=FILE,sign-method=RS256,ttl=5m`.
    ///
    /// # Errors
    /// What isn't understood.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let (kind, options) = text.split_once(',').unwrap_or((text, ""));
        let mut known = BTreeMap::new();
        for option in options.split(',').filter(|option| !option.is_empty()) {
            let pair = option.split_once('=').filter(|(_, value)| !value.contains('='));
            let Some((name, value)) = pair else {
                return refuse(format!("--auth-token: {option:?} is not NAME=VALUE"));
            };
            if known.insert(name, value).is_some() {
                return refuse(format!("--auth-token: {name} is given twice"));
            }
        }
        match kind {
            "simple" => Ok(Self::Simple),
            "jwt" => {
                let ttl = known.get("ttl").copied().unwrap_or("5m");
                let Some(ttl) = go_duration(ttl) else {
                    return refuse(format!("--auth-token: {ttl:?} is no duration"));
                };
                let Some(sign_method) = known.get("sign-method") else {
                    return refuse("--auth-token: jwt needs a sign-method");
                };
                let path = |name: &str| known.get(name).map(PathBuf::from);
                let (public_key, private_key) = (path("pub-key"), path("priv-key"));
                Ok(Self::Jwt(JwtSettings { public_key, private_key, sign_method: (*sign_method).to_owned(), ttl }))
            }
            _ => refuse(format!("--auth-token: {kind:?} is neither simple nor jwt")),
        }
    }
}

/// Bytes of keys, values and leases that may be live if nothing else is said: etcd's largest advice.
const QUOTA_BYTES: u64 = 8 << 30;

/// The largest request that may be allowed: half of what peers take at once.
const REQUEST_BYTES_MAX: usize = 32 << 20;

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
    /// How often the leader notes in the log what is left of leases that live longer.
    pub lease_checkpoint_interval: Duration,
    /// Largest request, bytes; at most 32 MiB.
    pub max_request_bytes: usize,
    /// Operations in a transaction, those of transactions inside it included.
    pub max_txn_ops: usize,
    /// Bytes of keys, values and leases beyond which nothing is added; 0 for 8 GiB, below 0 for no limit.
    pub quota_backend_bytes: i64,
    /// What large answers under way may hold together, bytes; one alone may be larger.
    pub max_answer_bytes: usize,
    /// Whether clients may speak JSON instead of gRPC.
    pub grpc_gateway: bool,
    /// TLS towards clients.
    pub client_tls: Tls,
    /// TLS between peers.
    pub peer_tls: Tls,
    /// How users prove who they are between requests.
    pub auth_token: AuthToken,
    /// How long a simple token is good without being used.
    pub auth_token_ttl: Duration,
    /// How slowly passwords are hashed: one more doubles the time.
    pub bcrypt_cost: u32,
    /// What is compacted without being asked for; `None`: nothing.
    pub auto_compaction: Option<Retention>,
    /// Where health and metrics are served without the rest.
    pub listen_metrics_urls: Vec<String>,
    /// Requests that a client may have under way on one connection.
    pub max_concurrent_streams: u32,
    /// How often clients' connections are tried, and how long an answer may take; `None`: never.
    pub client_keepalive: Option<(Duration, Duration)>,
    /// How often clients may try the connection; zero for gRPC's five minutes.
    pub client_keepalive_min: Duration,
    /// Requests that take longer are told of; zero: none.
    pub warning_apply_duration: Duration,
    /// How often an idle watcher that asked for it is told its progress.
    pub watch_progress_notify_interval: Duration,
    /// Where each step of consensus is written down, to be judged; the file is made, or gone on with.
    pub trace_raft: Option<PathBuf>,
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
            lease_checkpoint_interval: Duration::from_secs(300),
            max_request_bytes: 1_572_864,
            max_txn_ops: 128,
            quota_backend_bytes: 0,
            max_answer_bytes: 256 << 20,
            grpc_gateway: true,
            client_tls: Tls::default(),
            peer_tls: Tls::default(),
            auth_token: AuthToken::Simple,
            auth_token_ttl: Duration::from_secs(300),
            bcrypt_cost: 10,
            auto_compaction: None,
            listen_metrics_urls: Vec::new(),
            max_concurrent_streams: u32::MAX,
            client_keepalive: Some((Duration::from_secs(7200), Duration::from_secs(20))),
            client_keepalive_min: Duration::from_secs(5),
            warning_apply_duration: Duration::from_millis(100),
            watch_progress_notify_interval: Duration::from_secs(600),
            trace_raft: None,
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
        if self.lease_checkpoint_interval.is_zero() {
            return refuse("--lease-checkpoint-interval must be > 0");
        }
        if !(4..=31).contains(&self.bcrypt_cost) {
            return refuse("--bcrypt-cost must be between 4 and 31");
        }
        if self.auth_token_ttl.is_zero() {
            return refuse("--auth-token-ttl must be > 0");
        }
        if self.max_request_bytes > REQUEST_BYTES_MAX {
            // A larger one would be taken here, and by no peer.
            return refuse(format!("--max-request-bytes must be at most {REQUEST_BYTES_MAX}"));
        }
        if self.max_concurrent_streams == 0 {
            return refuse("--max-concurrent-streams must be > 0");
        }
        if self.watch_progress_notify_interval.is_zero() {
            return refuse("--watch-progress-notify-interval must be > 0");
        }
        self.client_tls.validate("client")?;
        self.peer_tls.validate("peer")?;
        let for_clients = self.listen_client_urls.iter().chain(&self.listen_metrics_urls);
        let for_clients = for_clients.map(|url| (url, &self.client_tls));
        for (url, settings) in for_clients.chain(self.listen_peer_urls.iter().map(|url| (url, &self.peer_tls))) {
            let (Place::Tcp { secure: tls, .. } | Place::Unix { secure: tls, .. }) = place(url)?;
            if tls && (settings.cert_file.is_none() || settings.key_file.is_none()) {
                return refuse(format!("{url} needs a certificate and a key"));
            }
        }
        for url in self.initial_cluster.values().flatten() {
            url_parts(url)?;
        }
        Ok(())
    }

    /// The shortest lease, seconds: one and a half elections, so that a change of leader ends none unseen.
    ///
    /// Source: etcd `server/etcdserver/server.go`, `minTTL`.
    pub(crate) fn lease_ttl_min(&self) -> i64 {
        let milliseconds = self.election_timeout.as_millis() * 3 / 2;
        i64::try_from(milliseconds.div_ceil(1000)).unwrap_or(i64::MAX)
    }

    /// Bytes of keys, values and leases that may be live; `None` for any number.
    pub(crate) fn quota(&self) -> Option<u64> {
        match u64::try_from(self.quota_backend_bytes) {
            Ok(0) => Some(QUOTA_BYTES),
            limit => limit.ok(),
        }
    }

    /// The largest message: a request and what gRPC adds to it. Answers that come in pieces keep to it too.
    pub(crate) fn max_message_bytes(&self) -> usize {
        self.max_request_bytes.saturating_add(512 * 1024)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_chosen_the_way_etcd_writes_it() {
        assert_eq!(AuthToken::parse("simple"), Ok(AuthToken::Simple));
        let jwt = AuthToken::parse("jwt,pub-key=/a.pem,priv-key=/b.pem,sign-method=RS256,ttl=1h30m");
        let settings = JwtSettings {
            public_key: Some("/a.pem".into()),
            private_key: Some("/b.pem".into()),
            sign_method: "RS256".to_owned(),
            ttl: Duration::from_secs(5400),
        };
        assert_eq!(jwt, Ok(AuthToken::Jwt(settings)));
        let wrong =
            ["", "other", "jwt", "jwt,sign-method", "jwt,sign-method=a,sign-method=b", "jwt,sign-method=a,ttl=5"];
        for text in wrong {
            assert!(AuthToken::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn no_request_may_be_larger_than_what_peers_take() {
        let of = |max_request_bytes| Config { max_request_bytes, ..Config::default() };
        assert_eq!(of(REQUEST_BYTES_MAX).validate(), Ok(()));
        let refused = of(REQUEST_BYTES_MAX + 1).validate().expect_err("too large");
        assert_eq!(refused.to_string(), "--max-request-bytes must be at most 33554432");
    }

    #[test]
    fn retentions_are_written_the_way_etcd_does() {
        let periodic = |ms| Ok(Some(Retention::Periodic(ms)));
        let table = [
            ("periodic", "0", Ok(None)),
            ("periodic", "0s", Ok(None)),
            ("periodic", "1", periodic(3_600_000)),
            ("periodic", "5m", periodic(300_000)),
            ("revision", "0", Ok(None)),
            ("revision", "1000", Ok(Some(Retention::Revision(1000)))),
        ];
        for (mode, text, retention) in table {
            assert_eq!(parse_retention(mode, text), retention, "{mode} {text}");
        }
        for (mode, text) in
            [("periodic", "-1"), ("periodic", "x"), ("periodic", ""), ("revision", "5m"), ("never", "1")]
        {
            assert!(parse_retention(mode, text).is_err(), "{mode} {text}");
        }
    }

    #[test]
    fn durations_are_written_the_way_go_does() {
        let table = [("5m", Some(300_000)), ("1.5h", Some(5_400_000)), ("1m30s", Some(90_000)), ("250ms", Some(250))];
        for (text, millis) in table.into_iter().chain(["", "5", "m", "5x", "-5m", "0s", "5m3"].map(|text| (text, None)))
        {
            assert_eq!(go_duration(text), millis.map(Duration::from_millis), "{text}");
        }
    }
}
