//! What `up` runs: every component with its command line.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context, Result};

use super::UpArgs;
use super::cluster::{Cluster, Layout, own_address};
use super::runtime::Chosen;
use super::supervise::Component;
use crate::pki::{self, Names, Pki};

/// Range of the cluster IPs; its first usable address is the API's own.
const SERVICE_NETWORK: &str = "10.96.0.0/16";
const API_SERVICE_IP: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);
/// Where this machine's pods get addresses from.
const POD_NETWORK: &str = "10.244.0.0/24";

/// Writes certificates and kubeconfig; lists what to run, in order of start.
pub(crate) fn make(layout: &Layout, cluster: &Cluster, args: &UpArgs, chosen: &Chosen) -> Result<Vec<Component>> {
    let address = own_address();
    let mut addresses = vec![IpAddr::V4(Ipv4Addr::LOCALHOST)];
    if !addresses.contains(&address) {
        addresses.push(address);
    }
    let names = Names { node: cluster.node.clone(), addresses, service_ip: IpAddr::V4(API_SERVICE_IP) };
    let pki = pki::ensure(&layout.pki(), &names)?;
    let server = format!("https://127.0.0.1:{}", args.port);
    let admin = pki::kubeconfig(&server, &pki.cluster_ca, "kubernetes-admin", &pki.admin)?;
    pki::write_private(&layout.kubeconfig(), &admin)?;
    let members = (0..cluster.members.len()).map(|index| member(layout, cluster, &pki, index));
    let mut components = members.collect::<Result<Vec<_>>>()?;
    components.push(control_plane(layout, cluster, args, &pki, address)?);
    if *chosen != Chosen::None {
        let user = format!("system:node:{}", cluster.node);
        let kubeconfig = pki::kubeconfig(&server, &pki.cluster_ca, &user, &pki.node)?;
        pki::write_private(&layout.pki().join("node.kubeconfig"), &kubeconfig)?;
    }
    match chosen {
        Chosen::None => {}
        Chosen::Hollow { nodes } => components.push(hollow_agent(layout, *nodes, address)?),
        Chosen::Containerd { cni_bin_dir } => {
            components.push(containerd(layout, cni_bin_dir)?);
            components.push(agent(layout, cluster, &pki, address)?);
        }
    }
    Ok(components)
}

fn component(layout: &Layout, name: &str, command: Vec<String>) -> Component {
    Component { name: name.to_owned(), command, log: layout.log(name) }
}

fn own() -> Result<String> {
    Ok(std::env::current_exe().context("finding this program's own file")?.display().to_string())
}

fn text(path: &std::path::Path) -> String {
    path.display().to_string()
}

fn peer_url(port: u16) -> String {
    format!("https://127.0.0.1:{port}")
}

fn member(layout: &Layout, cluster: &Cluster, pki: &Pki, index: usize) -> Result<Component> {
    let member = &cluster.members[index];
    let peers: Vec<String> = cluster.members.iter().map(|m| format!("{}={}", m.name, peer_url(m.peer_port))).collect();
    let (client, peer) = (peer_url(member.client_port), peer_url(member.peer_port));
    let (cert, key, ca) = (text(&pki.store_member.cert), text(&pki.store_member.key), text(&pki.store_ca));
    let flags = [
        ("name", member.name.clone()),
        ("data-dir", text(&layout.member(&member.name))),
        ("listen-client-urls", client.clone()),
        ("advertise-client-urls", client),
        ("listen-peer-urls", peer.clone()),
        ("initial-advertise-peer-urls", peer),
        ("initial-cluster", peers.join(",")),
        ("initial-cluster-token", cluster.token.clone()),
        // Objects may be 3 MiB, as large as a request to the API.
        ("max-request-bytes", (4 * 1024 * 1024).to_string()),
        ("cert-file", cert.clone()),
        ("key-file", key.clone()),
        ("trusted-ca-file", ca.clone()),
        ("peer-cert-file", cert),
        ("peer-key-file", key),
        ("peer-trusted-ca-file", ca),
        // Like the other components' logs; a member's last line is shown to people.
        ("log-format", "console".to_owned()),
    ];
    let mut command = vec![own()?, "store".to_owned()];
    command.extend(flags.into_iter().map(|(flag, value)| format!("--{flag}={value}")));
    command.extend(["--client-cert-auth".to_owned(), "--peer-client-cert-auth".to_owned()]);
    Ok(component(layout, &member.name, command))
}

fn control_plane(layout: &Layout, cluster: &Cluster, args: &UpArgs, pki: &Pki, address: IpAddr) -> Result<Component> {
    let endpoints: Vec<String> = cluster.members.iter().map(|m| peer_url(m.client_port)).collect();
    let flags = [
        ("listen", format!("0.0.0.0:{}", args.port)),
        ("advertise-address", address.to_string()),
        ("store", endpoints.join(",")),
        ("store-ca-file", text(&pki.store_ca)),
        ("store-cert-file", text(&pki.store_client.cert)),
        ("store-key-file", text(&pki.store_client.key)),
        ("tls-cert-file", text(&pki.apiserver.cert)),
        ("tls-key-file", text(&pki.apiserver.key)),
        ("client-ca-file", text(&pki.cluster_ca)),
        ("kubelet-cert-file", text(&pki.kubelet_client.cert)),
        ("kubelet-key-file", text(&pki.kubelet_client.key)),
        ("service-network", SERVICE_NETWORK.to_owned()),
        // There is one, and it isn't to wait for the end of a lease that it held when it was killed.
        ("leader-elect", "false".to_owned()),
    ];
    let mut command = vec![own()?, "server".to_owned()];
    command.extend(flags.into_iter().map(|(flag, value)| format!("--{flag}={value}")));
    Ok(component(layout, "control-plane", command))
}

fn containerd(layout: &Layout, cni_bin_dir: &str) -> Result<Component> {
    let places = layout.containerd();
    agent_node::containerd::write_config(&places, cni_bin_dir, agent_node::image::pause::REFERENCE, POD_NETWORK)
        .with_context(|| format!("configuring containerd in {}", places.root.display()))?;
    crate::image::stage_pause(layout)?;
    let command = vec!["containerd".to_owned(), "--config".to_owned(), text(&places.config())];
    Ok(component(layout, "containerd", command))
}

fn agent(layout: &Layout, cluster: &Cluster, pki: &Pki, address: IpAddr) -> Result<Component> {
    let flags = [
        ("kubeconfig", text(&layout.pki().join("node.kubeconfig"))),
        ("data-dir", text(&layout.agent())),
        ("node-name", cluster.node.clone()),
        ("node-ip", address.to_string()),
        ("pod-network", POD_NETWORK.to_owned()),
        ("container-runtime-endpoint", text(&layout.containerd().socket())),
        ("images-dir", text(&layout.images())),
        ("port", cluster.agent_port.to_string()),
        ("tls-cert-file", text(&pki.agent.cert)),
        ("tls-key-file", text(&pki.agent.key)),
        ("client-ca-file", text(&pki.cluster_ca)),
    ];
    let mut command = vec![own()?, "agent".to_owned()];
    command.extend(flags.into_iter().map(|(flag, value)| format!("--{flag}={value}")));
    Ok(component(layout, "agent", command))
}

fn hollow_agent(layout: &Layout, nodes: u32, address: IpAddr) -> Result<Component> {
    let flags = [
        ("kubeconfig", text(&layout.pki().join("node.kubeconfig"))),
        ("data-dir", text(&layout.agent())),
        ("node-ip", address.to_string()),
        ("hollow-nodes", nodes.to_string()),
    ];
    let mut command = vec![own()?, "agent".to_owned()];
    command.extend(flags.into_iter().map(|(flag, value)| format!("--{flag}={value}")));
    Ok(component(layout, "agent", command))
}
