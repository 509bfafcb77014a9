//! `keelson agent`: a node, with its service proxy, in one process.

use std::net::IpAddr;
use std::path::PathBuf;

use agent_node::{Runtime, Serving};
use anyhow::{Context, Result};
use clap::Args;
use kube::config::{KubeConfigOptions, Kubeconfig};
use tokio_util::sync::CancellationToken;

/// Arguments of `keelson agent`.
#[derive(Debug, Clone, Args)]
pub(crate) struct AgentArgs {
    /// Kubeconfig of the node's user
    #[arg(long)]
    kubeconfig: PathBuf,
    /// Folder for pods' volumes and logs
    #[arg(long, default_value = "/var/lib/keelson-agent")]
    data_dir: PathBuf,
    /// The node's name
    #[arg(long, required_unless_present = "hollow_nodes")]
    node_name: Option<String>,
    /// Address by which the API and other nodes reach this node
    #[arg(long)]
    node_ip: IpAddr,
    /// Network from which this node's pods get addresses
    #[arg(long, default_value = "10.244.0.0/24")]
    pod_network: String,
    /// Unix socket of a container runtime that speaks CRI v1
    #[arg(long, default_value = "/run/containerd/containerd.sock")]
    container_runtime_endpoint: PathBuf,
    /// Archive of the image that pods' sandboxes run, imported if it is missing
    #[arg(long)]
    images_dir: Option<PathBuf>,
    /// Port for logs and exec
    #[arg(long, default_value_t = 10250)]
    port: u16,
    /// Certificate for logs and exec
    #[arg(long, required_unless_present = "hollow_nodes")]
    tls_cert_file: Option<PathBuf>,
    /// Key of the certificate for logs and exec
    #[arg(long, required_unless_present = "hollow_nodes")]
    tls_key_file: Option<PathBuf>,
    /// CA of the apiserver's client certificate
    #[arg(long, required_unless_present = "hollow_nodes")]
    client_ca_file: Option<PathBuf>,
    /// Name servers for pods, separated by commas [default: the node's own]
    #[arg(long, value_delimiter = ',')]
    cluster_dns: Vec<String>,
    /// Leave services to another proxy
    #[arg(long)]
    no_proxy: bool,
    /// Simulate this many nodes that run nothing
    #[arg(long)]
    hollow_nodes: Option<u32>,
}

/// Runs the node until `shutdown`.
pub(crate) async fn run(args: AgentArgs, shutdown: CancellationToken) -> Result<()> {
    let path = &args.kubeconfig;
    let kubeconfig = Kubeconfig::read_from(path).with_context(|| format!("reading {}", path.display()))?;
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    let client = kube::Client::try_from(config)?;
    let runtime = runtime(&args)?;
    if let (Runtime::Cri { socket, .. }, Some(images)) = (&runtime, &args.images_dir) {
        crate::image::import_waiting(socket, images, &shutdown).await?;
    }
    let hollow = matches!(runtime, Runtime::Hollow { .. });
    let config = agent_node::Config {
        runtime,
        data_dir: args.data_dir.clone(),
        address: args.node_ip,
        pod_network: args.pod_network.clone(),
        dns_servers: args.cluster_dns.clone(),
    };
    let node = agent_node::run(client.clone(), config, shutdown.clone());
    if hollow || args.no_proxy {
        return node.await.context("node agent");
    }
    let proxy = proxy_node::Config {
        node_name: args.node_name.clone().unwrap_or_default(),
        node_ip: args.node_ip.to_string(),
        pod_cidr: args.pod_network.clone(),
        ..proxy_node::Config::default()
    };
    let proxy = proxy_node::run(client, proxy, shutdown.clone());
    // One without the other is no node: the supervisor starts both again.
    tokio::try_join!(async { node.await.context("node agent") }, async { proxy.await.context("service proxy") })?;
    Ok(())
}

fn runtime(args: &AgentArgs) -> Result<Runtime> {
    if let Some(count) = args.hollow_nodes {
        return Ok(Runtime::Hollow { count });
    }
    // The parser has seen to these: they are required without --hollow-nodes.
    let needed = |path: &Option<PathBuf>| path.clone().context("a certificate's file is missing");
    Ok(Runtime::Cri {
        node: args.node_name.clone().context("--node-name is missing")?,
        socket: args.container_runtime_endpoint.clone(),
        serving: Serving {
            port: args.port,
            cert: needed(&args.tls_cert_file)?,
            key: needed(&args.tls_key_file)?,
            client_ca: needed(&args.client_ca_file)?,
        },
    })
}
