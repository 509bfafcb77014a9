//! `keelson server`: the control plane in one process.
//!
//! The controllers talk to the apiserver through a client that is its own service: no
//! socket, no TLS, the same code as across a network.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use apiserver_server::{Config, KubeletClient, StoreConfig, StoreTls};
use clap::Args;
use tokio_util::sync::CancellationToken;

/// Arguments of `keelson server`.
#[derive(Debug, Clone, Args)]
pub(crate) struct ServerArgs {
    /// Address and port to serve the API on
    #[arg(long, default_value = "0.0.0.0:6443")]
    listen: SocketAddr,
    /// Address that the `kubernetes` Service leads to
    #[arg(long)]
    advertise_address: IpAddr,
    /// URLs of the etcd v3 store, separated by commas
    #[arg(long, value_delimiter = ',', required = true)]
    store: Vec<String>,
    /// CA of the store's certificates
    #[arg(long)]
    store_ca_file: Option<PathBuf>,
    /// Client certificate for the store
    #[arg(long, requires = "store_key_file")]
    store_cert_file: Option<PathBuf>,
    /// Key of the client certificate for the store
    #[arg(long)]
    store_key_file: Option<PathBuf>,
    /// Serving certificate
    #[arg(long)]
    tls_cert_file: PathBuf,
    /// Serving key
    #[arg(long)]
    tls_key_file: PathBuf,
    /// CA of client certificates and of node agents
    #[arg(long)]
    client_ca_file: PathBuf,
    /// Static bearer tokens, a line `token,user,uid[,"group,group"]` each
    #[arg(long)]
    token_auth_file: Option<PathBuf>,
    /// Client certificate shown to node agents
    #[arg(long, requires = "kubelet_key_file")]
    kubelet_cert_file: Option<PathBuf>,
    /// Key of the client certificate shown to node agents
    #[arg(long)]
    kubelet_key_file: Option<PathBuf>,
    /// Range of cluster IPs
    #[arg(long, default_value = "10.96.0.0/16", value_parser = network)]
    service_network: (Ipv4Addr, u8),
    /// Serve the API alone, without scheduler and controllers
    #[arg(long)]
    api_only: bool,
    /// Of several control planes over one store, only one that holds the lease kube-system/kube-controller-manager runs
    /// its controllers. A lone one needs no lease: without it, it also goes on at once after it was killed
    #[arg(long, default_value_t = true, num_args = 0..=1, default_missing_value = "true", action = clap::ArgAction::Set)]
    leader_elect: bool,
}

fn network(text: &str) -> Result<(Ipv4Addr, u8), String> {
    let parsed = text.split_once('/').and_then(|(ip, prefix)| Some((ip.parse().ok()?, prefix.parse().ok()?)));
    parsed.ok_or_else(|| format!("{text:?} is not an IPv4 network such as 10.96.0.0/16"))
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))
}

fn config(args: &ServerArgs) -> Result<Config> {
    let tls = match &args.store_ca_file {
        None => None,
        Some(ca) => {
            let identity_pem = match (&args.store_cert_file, &args.store_key_file) {
                (Some(cert), Some(key)) => Some((read(cert)?, read(key)?)),
                _ => None,
            };
            Some(StoreTls { ca_pem: read(ca)?, identity_pem })
        }
    };
    let kubelet = match (&args.kubelet_cert_file, &args.kubelet_key_file) {
        (Some(cert), Some(key)) => {
            Some(KubeletClient { cert: cert.clone(), key: key.clone(), ca: args.client_ca_file.clone() })
        }
        _ => None,
    };
    let (service_network, service_prefix) = args.service_network;
    Ok(Config {
        listen: args.listen,
        advertise: args.advertise_address,
        tls_cert: args.tls_cert_file.clone(),
        tls_key: args.tls_key_file.clone(),
        client_ca: args.client_ca_file.clone(),
        token_file: args.token_auth_file.clone(),
        kubelet,
        store: StoreConfig { endpoints: args.store.clone(), tls },
        service_network,
        service_prefix,
        node_ports: (30000, 32767),
        event_ttl: 3600,
    })
}

/// Runs the control plane until `shutdown`.
pub(crate) async fn run(args: ServerArgs, shutdown: CancellationToken) -> Result<()> {
    let root_ca = read(&args.client_ca_file)?;
    let apiserver = tokio::select! {
        started = apiserver_server::start(config(&args)?, shutdown.clone()) => started.context("starting the apiserver")?,
        // It may wait long for a store that has no leader.
        () = shutdown.cancelled() => return Ok(()),
    };
    tracing::info!(address = %apiserver.address(), "serving the API");
    if !args.api_only {
        let config = controllers_server::Config { root_ca, leader_elect: args.leader_elect };
        let controllers = apiserver.client("system:kube-controller-manager");
        let controllers = controllers_server::run(controllers, config, shutdown.clone());
        let scheduler = apiserver.client("system:kube-scheduler");
        let scheduler = scheduler_server::run(scheduler, scheduler_server::Config::default(), shutdown.clone());
        // They end only at shutdown, or by a fault that the supervisor answers with a restart.
        tokio::try_join!(async { controllers.await.context("controllers") }, async {
            scheduler.await.context("scheduler")
        })?;
    }
    apiserver.join().await;
    Ok(())
}
