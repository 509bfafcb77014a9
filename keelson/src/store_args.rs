//! etcd's flags and `ETCD_*` variables, for what the store has.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{ArgAction, Args, Subcommand};
use store_server::{AuthToken, Config, Tls, TlsVersion, go_duration, parse_retention};

use crate::logging::Format;
use crate::store_import::ImportArgs;
use crate::store_snapshot::SnapshotCommand;

/// How a new folder begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum ClusterState {
    New,
    Existing,
}

/// What there is to do beside running a member.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum StoreTool {
    /// Backups of the store
    Snapshot {
        #[command(subcommand)]
        command: SnapshotCommand,
    },
    /// Make a backup of a running etcd's keys, revisions and leases kept, to restore members from
    Import(ImportArgs),
}

/// Arguments of `keelson store`, named as etcd's.
#[derive(Debug, Clone, Args)]
// The last of a flag given twice counts, as in etcd.
#[command(args_conflicts_with_subcommands = true, args_override_self = true)]
pub(crate) struct StoreArgs {
    #[command(subcommand)]
    pub(crate) tool: Option<StoreTool>,
    /// Name of this member
    #[arg(long, env = "ETCD_NAME", default_value = "default")]
    name: String,
    /// Folder for log and state [default: NAME.etcd]
    #[arg(long, env = "ETCD_DATA_DIR")]
    data_dir: Option<PathBuf>,
    /// URLs to serve clients on
    #[arg(
        long,
        env = "ETCD_LISTEN_CLIENT_URLS",
        value_delimiter = ',',
        action = ArgAction::Set,
        default_value = "http://localhost:2379"
    )]
    listen_client_urls: Vec<String>,
    /// URLs that clients are told of
    #[arg(
        long,
        env = "ETCD_ADVERTISE_CLIENT_URLS",
        value_delimiter = ',',
        action = ArgAction::Set,
        default_value = "http://localhost:2379"
    )]
    advertise_client_urls: Vec<String>,
    /// URLs to serve peers on
    #[arg(
        long,
        env = "ETCD_LISTEN_PEER_URLS",
        value_delimiter = ',',
        action = ArgAction::Set,
        default_value = "http://localhost:2380"
    )]
    listen_peer_urls: Vec<String>,
    /// URL by which peers reach this member
    #[arg(
        long,
        env = "ETCD_INITIAL_ADVERTISE_PEER_URLS",
        value_delimiter = ',',
        action = ArgAction::Set,
        default_value = "http://localhost:2380"
    )]
    initial_advertise_peer_urls: Vec<String>,
    /// Every member, NAME=URL separated by commas [default: NAME=initial-advertise-peer-urls]
    #[arg(long, env = "ETCD_INITIAL_CLUSTER")]
    initial_cluster: Option<String>,
    /// Whether a new folder founds a cluster, or joins one that runs already
    #[arg(long, env = "ETCD_INITIAL_CLUSTER_STATE", default_value = "new")]
    initial_cluster_state: ClusterState,
    /// Refuse changes of members after which the cluster might have no quorum
    #[arg(
        long,
        env = "ETCD_STRICT_RECONFIG_CHECK",
        default_value = "true",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        action = ArgAction::Set,
        value_parser = switch
    )]
    strict_reconfig_check: bool,
    /// Tells clusters apart that happen to have the same URLs
    #[arg(long, env = "ETCD_INITIAL_CLUSTER_TOKEN", default_value = "etcd-cluster")]
    initial_cluster_token: String,
    /// Milliseconds between heartbeats
    #[arg(long, env = "ETCD_HEARTBEAT_INTERVAL", default_value_t = 100)]
    heartbeat_interval: u64,
    /// Milliseconds without a leader before an election
    #[arg(long, env = "ETCD_ELECTION_TIMEOUT", default_value_t = 1000)]
    election_timeout: u64,
    /// Seconds between two notes in the log of what is left of leases that live longer
    #[arg(long, env = "ETCD_LEASE_CHECKPOINT_INTERVAL", default_value_t = 300)]
    lease_checkpoint_interval: u64,
    /// Largest request, bytes, at most 32 MiB
    #[arg(long, env = "ETCD_MAX_REQUEST_BYTES", default_value_t = 1_572_864)]
    max_request_bytes: usize,
    /// Operations in a transaction
    #[arg(long, env = "ETCD_MAX_TXN_OPS", default_value_t = 128)]
    max_txn_ops: usize,
    /// Live bytes of keys, values and leases beyond which nothing is added; 0 for 8 GiB, -1 for no limit
    #[arg(long, env = "ETCD_QUOTA_BACKEND_BYTES", default_value_t = 0, allow_negative_numbers = true)]
    quota_backend_bytes: i64,
    /// Bytes that large answers under way may hold together; one alone may be larger
    #[arg(long, env = "ETCD_MAX_ANSWER_BYTES", default_value_t = 256 << 20)]
    max_answer_bytes: usize,
    /// Serve JSON over HTTP beside gRPC, below /v3/
    #[arg(
        long,
        env = "ETCD_ENABLE_GRPC_GATEWAY",
        default_value = "true",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        action = ArgAction::Set,
        value_parser = switch
    )]
    enable_grpc_gateway: bool,
    /// Serving certificate for clients
    #[arg(long, env = "ETCD_CERT_FILE")]
    cert_file: Option<PathBuf>,
    /// Key of the serving certificate
    #[arg(long, env = "ETCD_KEY_FILE")]
    key_file: Option<PathBuf>,
    /// CA of clients' certificates
    #[arg(long, env = "ETCD_TRUSTED_CA_FILE")]
    trusted_ca_file: Option<PathBuf>,
    /// Demand client certificates, whose common names are then users' names
    #[arg(
        long,
        env = "ETCD_CLIENT_CERT_AUTH",
        default_value = "false",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        action = ArgAction::Set,
        value_parser = switch
    )]
    client_cert_auth: bool,
    /// Clients' certificates that their CA has revoked: its lists, in PEM's form
    #[arg(long, env = "ETCD_CLIENT_CRL_FILE")]
    client_crl_file: Option<PathBuf>,
    /// Hosts for one of which a client's certificate must be good
    #[arg(long, env = "ETCD_CLIENT_CERT_ALLOWED_HOSTNAME", value_delimiter = ',', action = ArgAction::Set)]
    client_cert_allowed_hostname: Vec<String>,
    /// Certificate towards peers
    #[arg(long, env = "ETCD_PEER_CERT_FILE")]
    peer_cert_file: Option<PathBuf>,
    /// Key of the certificate towards peers
    #[arg(long, env = "ETCD_PEER_KEY_FILE")]
    peer_key_file: Option<PathBuf>,
    /// CA of peers' certificates
    #[arg(long, env = "ETCD_PEER_TRUSTED_CA_FILE")]
    peer_trusted_ca_file: Option<PathBuf>,
    /// Demand certificates of peers
    #[arg(
        long,
        env = "ETCD_PEER_CLIENT_CERT_AUTH",
        default_value = "false",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        action = ArgAction::Set,
        value_parser = switch
    )]
    peer_client_cert_auth: bool,
    /// Certificate to dial peers with [default: the certificate towards peers]
    #[arg(long, env = "ETCD_PEER_CLIENT_CERT_FILE")]
    peer_client_cert_file: Option<PathBuf>,
    /// Its key
    #[arg(long, env = "ETCD_PEER_CLIENT_KEY_FILE")]
    peer_client_key_file: Option<PathBuf>,
    /// Peers' certificates that their CA has revoked: its lists, in PEM's form
    #[arg(long, env = "ETCD_PEER_CRL_FILE")]
    peer_crl_file: Option<PathBuf>,
    /// Common names of which a peer's certificate must have one
    #[arg(long, env = "ETCD_PEER_CERT_ALLOWED_CN", value_delimiter = ',', action = ArgAction::Set)]
    peer_cert_allowed_cn: Vec<String>,
    /// Hosts for one of which a peer's certificate must be good
    #[arg(long, env = "ETCD_PEER_CERT_ALLOWED_HOSTNAME", value_delimiter = ',', action = ArgAction::Set)]
    peer_cert_allowed_hostname: Vec<String>,
    /// Cipher suites of TLS 1.2, for clients and peers [default: all that are safe]
    #[arg(long, env = "ETCD_CIPHER_SUITES", value_delimiter = ',', action = ArgAction::Set)]
    cipher_suites: Vec<String>,
    /// Oldest TLS spoken: TLS1.2 or TLS1.3
    #[arg(long, env = "ETCD_TLS_MIN_VERSION", default_value = "TLS1.2", value_parser = tls_version)]
    tls_min_version: TlsVersion,
    /// Newest TLS spoken: TLS1.2 or TLS1.3
    #[arg(long, env = "ETCD_TLS_MAX_VERSION", default_value = "", value_parser = tls_version_max)]
    tls_max_version: TlsVersion,
    /// How users prove who they are: simple, or jwt,pub-key=FILE,priv-key=FILE,sign-method=METHOD,ttl=5m
    #[arg(long, env = "ETCD_AUTH_TOKEN", default_value = "simple")]
    auth_token: String,
    /// Seconds that a simple token is good without being used
    #[arg(long, env = "ETCD_AUTH_TOKEN_TTL", default_value_t = 300)]
    auth_token_ttl: u64,
    /// How slowly passwords are hashed, 4 to 31
    #[arg(long, env = "ETCD_BCRYPT_COST", default_value_t = 10)]
    bcrypt_cost: u32,
    /// How --auto-compaction-retention is meant: periodic or revision
    #[arg(long, env = "ETCD_AUTO_COMPACTION_MODE", default_value = "periodic")]
    auto_compaction_mode: String,
    /// What compaction without being asked keeps: hours or a duration such as 5m, or a number of revisions; 0: all
    #[arg(long, env = "ETCD_AUTO_COMPACTION_RETENTION", default_value = "0")]
    auto_compaction_retention: String,
    /// URLs to serve health and metrics on, without the rest
    #[arg(long, env = "ETCD_LISTEN_METRICS_URLS", value_delimiter = ',', action = ArgAction::Set)]
    listen_metrics_urls: Vec<String>,
    /// Requests that a client may have under way on one connection
    #[arg(long, env = "ETCD_MAX_CONCURRENT_STREAMS", default_value_t = u32::MAX)]
    max_concurrent_streams: u32,
    /// How often clients' connections are tried, such as 2h; 0: never
    #[arg(long, env = "ETCD_GRPC_KEEPALIVE_INTERVAL", default_value = "2h", value_parser = duration)]
    grpc_keepalive_interval: Duration,
    /// How long a client may take to answer that, such as 20s
    #[arg(long, env = "ETCD_GRPC_KEEPALIVE_TIMEOUT", default_value = "20s", value_parser = duration)]
    grpc_keepalive_timeout: Duration,
    /// How often clients may try their connections, such as 5s; who does it more often is cut off
    #[arg(long, env = "ETCD_GRPC_KEEPALIVE_MIN_TIME", default_value = "5s", value_parser = duration)]
    grpc_keepalive_min_time: Duration,
    /// Requests that take longer are logged with what they waited for, such as 100ms; 0: none
    #[arg(
        long,
        alias = "experimental-warning-apply-duration",
        env = "ETCD_WARNING_APPLY_DURATION",
        default_value = "100ms",
        value_parser = duration
    )]
    warning_apply_duration: Duration,
    /// How often idle watchers that asked for it are told their progress, such as 10m
    #[arg(
        long,
        alias = "experimental-watch-progress-notify-interval",
        env = "ETCD_WATCH_PROGRESS_NOTIFY_INTERVAL",
        default_value = "10m",
        value_parser = duration
    )]
    watch_progress_notify_interval: Duration,
    /// A file that each step of consensus is written to, for `models validate trace`; slows the member down
    #[arg(long, value_name = "FILE")]
    trace_raft: Option<PathBuf>,
    /// What is logged: debug, info, warn or error; KEELSON_LOG says more
    #[arg(long, env = "ETCD_LOG_LEVEL", default_value = "info", value_parser = ["debug", "info", "warn", "error"])]
    pub(crate) log_level: String,
    /// Form of the log's lines: objects as zap writes them, or text for people
    #[arg(long, env = "ETCD_LOG_FORMAT", default_value = "json")]
    pub(crate) log_format: Format,
    /// Where the log goes: default (stderr), stderr, stdout or files, separated by commas
    #[arg(long, env = "ETCD_LOG_OUTPUTS", value_delimiter = ',', action = ArgAction::Set, default_value = "default")]
    pub(crate) log_outputs: Vec<String>,
}

/// A duration the way Go writes it; some form of 0 is none.
fn duration(text: &str) -> Result<Duration, String> {
    if matches!(text, "0" | "0s") {
        return Ok(Duration::ZERO);
    }
    go_duration(text).ok_or_else(|| format!("{text:?} is no duration such as 5s, 10m or 2h"))
}

/// Go's forms of yes and no: etcd's switches take a value, and kubeadm gives them one.
fn switch(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err("a switch is true or false".to_owned()),
    }
}

fn tls_version(text: &str) -> Result<TlsVersion, String> {
    match text {
        "TLS1.2" | "" => Ok(TlsVersion::V12),
        "TLS1.3" => Ok(TlsVersion::V13),
        _ => Err("there are TLS1.2 and TLS1.3".to_owned()),
    }
}

/// The same, the newest if none is said.
fn tls_version_max(text: &str) -> Result<TlsVersion, String> {
    if text.is_empty() { Ok(TlsVersion::V13) } else { tls_version(text) }
}

impl StoreArgs {
    fn client_tls(&self) -> Tls {
        Tls {
            cert_file: self.cert_file.clone(),
            key_file: self.key_file.clone(),
            trusted_ca_file: self.trusted_ca_file.clone(),
            client_cert_auth: self.client_cert_auth,
            crl_file: self.client_crl_file.clone(),
            allowed_hostnames: self.client_cert_allowed_hostname.clone(),
            min_version: Some(self.tls_min_version),
            max_version: Some(self.tls_max_version),
            cipher_suites: self.cipher_suites.clone(),
            ..Tls::default()
        }
    }

    fn peer_tls(&self) -> Tls {
        Tls {
            cert_file: self.peer_cert_file.clone(),
            key_file: self.peer_key_file.clone(),
            dial_cert_file: self.peer_client_cert_file.clone(),
            dial_key_file: self.peer_client_key_file.clone(),
            trusted_ca_file: self.peer_trusted_ca_file.clone(),
            client_cert_auth: self.peer_client_cert_auth,
            crl_file: self.peer_crl_file.clone(),
            allowed_cns: self.peer_cert_allowed_cn.clone(),
            allowed_hostnames: self.peer_cert_allowed_hostname.clone(),
            ..self.client_tls()
        }
    }

    /// The settings that the arguments mean.
    pub(crate) fn into_config(self) -> Result<Config> {
        let own = &self.initial_advertise_peer_urls;
        let (client_tls, peer_tls) = (self.client_tls(), self.peer_tls());
        let keepalive = (self.grpc_keepalive_interval, self.grpc_keepalive_timeout);
        let initial_cluster = founding_cluster(self.initial_cluster.as_deref(), &self.name, own)?;
        Ok(Config {
            data_dir: self.data_dir.unwrap_or_else(|| PathBuf::from(format!("{}.etcd", self.name))),
            name: self.name,
            listen_client_urls: self.listen_client_urls,
            advertise_client_urls: self.advertise_client_urls,
            listen_peer_urls: self.listen_peer_urls,
            initial_cluster,
            joins_existing: self.initial_cluster_state == ClusterState::Existing,
            strict_reconfig_check: self.strict_reconfig_check,
            initial_cluster_token: self.initial_cluster_token,
            heartbeat_interval: Duration::from_millis(self.heartbeat_interval),
            election_timeout: Duration::from_millis(self.election_timeout),
            lease_checkpoint_interval: Duration::from_secs(self.lease_checkpoint_interval),
            max_request_bytes: self.max_request_bytes,
            max_txn_ops: self.max_txn_ops,
            quota_backend_bytes: self.quota_backend_bytes,
            max_answer_bytes: self.max_answer_bytes,
            grpc_gateway: self.enable_grpc_gateway,
            client_tls,
            peer_tls,
            auth_token: AuthToken::parse(&self.auth_token)?,
            auth_token_ttl: Duration::from_secs(self.auth_token_ttl),
            bcrypt_cost: self.bcrypt_cost,
            auto_compaction: parse_retention(&self.auto_compaction_mode, &self.auto_compaction_retention)?,
            listen_metrics_urls: self.listen_metrics_urls,
            max_concurrent_streams: self.max_concurrent_streams,
            client_keepalive: Some(keepalive).filter(|(every, _)| !every.is_zero()),
            client_keepalive_min: self.grpc_keepalive_min_time,
            warning_apply_duration: self.warning_apply_duration,
            watch_progress_notify_interval: self.watch_progress_notify_interval,
            trace_raft: self.trace_raft,
        })
    }
}

/// Members by name, from `--initial-cluster`; without it, the own one alone.
pub(crate) fn founding_cluster(
    given: Option<&str>,
    name: &str,
    own: &[String],
) -> Result<BTreeMap<String, Vec<String>>> {
    let mut members = BTreeMap::<String, Vec<String>>::new();
    let Some(given) = given else {
        members.insert(name.to_owned(), own.to_vec());
        return Ok(members);
    };
    for part in given.split(',') {
        let pair = part.split_once('=');
        let (name, url) = pair.with_context(|| format!("--initial-cluster: {part:?} is not NAME=URL"))?;
        members.entry(name.to_owned()).or_default().push(url.to_owned());
    }
    Ok(members)
}

/// Go's flags take one dash or two; clap takes two. Only the store is written the Go way.
pub(crate) fn go_flags(arguments: Vec<String>) -> Vec<String> {
    if arguments.get(1).map(String::as_str) != Some("store") {
        return arguments;
    }
    let longer = |argument: String| match argument.strip_prefix('-') {
        Some(rest) if rest.len() > 1 && !rest.starts_with('-') => format!("-{argument}"),
        _ => argument,
    };
    arguments.into_iter().map(longer).collect()
}

#[cfg(test)]
mod tests {
    use super::go_flags;

    #[test]
    fn one_dash_is_as_good_as_two() {
        let given = ["keelson", "store", "-name=a", "--data-dir", "d", "-h"].map(str::to_owned).to_vec();
        assert_eq!(go_flags(given), ["keelson", "store", "--name=a", "--data-dir", "d", "-h"]);
    }
}
