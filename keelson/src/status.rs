//! `keelson status`: components, members, leader, commit index, nodes.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::Result;
use etcd_client::{Certificate, ConnectOptions, Identity, TlsOptions};
use k8s_openapi::api::core::v1::Node;
use kube::Api;

use crate::up::cluster::{Layout, load};
use crate::up::state;

const ASK_MAX: Duration = Duration::from_secs(3);

/// What runs from the folder, as a table for a person.
pub(crate) async fn describe(layout: &Layout) -> Result<String> {
    let Some(running) = state::running(layout)? else {
        return Ok(format!("nothing runs from {}\n", layout.root.display()));
    };
    let mut out = String::new();
    writeln!(
        out,
        "keelson in {}: process {}, {}",
        layout.root.display(),
        running.pid,
        if running.ready { "ready" } else { "starting" }
    )?;
    writeln!(out, "\n{:<15} {:>8} {:>9}", "COMPONENT", "PROCESS", "RESTARTS")?;
    for component in &running.components {
        let pid = component.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string());
        write!(out, "{:<15} {pid:>8} {:>9}", component.name, component.restarts)?;
        // Why something isn't there is worth the width.
        let why = if component.pid.is_none() { component.last_end.as_str() } else { "" };
        writeln!(out, "{}{why}", if why.is_empty() { "" } else { "  " })?;
    }
    writeln!(
        out,
        "\n{:<15} {:<17} {:<8} {:>6} {:>12} {:>12}",
        "STORE MEMBER", "ID", "ROLE", "TERM", "COMMIT", "BYTES"
    )?;
    for member in &load(layout)?.members {
        writeln!(out, "{}", store_line(layout, &member.name, member.client_port).await)?;
    }
    writeln!(out, "\n{:<24} STATUS", "NODE")?;
    match tokio::time::timeout(ASK_MAX, nodes(layout)).await {
        Ok(Ok(lines)) => out.push_str(&lines.concat()),
        Ok(Err(error)) => writeln!(out, "the API doesn't answer: {error:#}")?,
        Err(_) => writeln!(out, "the API doesn't answer in {ASK_MAX:?}")?,
    }
    Ok(out)
}

async fn store_line(layout: &Layout, name: &str, port: u16) -> String {
    match tokio::time::timeout(ASK_MAX, store_status(layout, port)).await {
        Ok(Ok(status)) => format!("{name:<15} {status}"),
        Ok(Err(_)) => format!("{name:<15} doesn't answer"),
        Err(_) => format!("{name:<15} doesn't answer in {ASK_MAX:?}"),
    }
}

async fn store_status(layout: &Layout, port: u16) -> Result<String> {
    let pki = layout.pki();
    let read = |name: &str| std::fs::read_to_string(pki.join(name));
    let tls = TlsOptions::new()
        .ca_certificate(Certificate::from_pem(read("store-ca.crt")?))
        .identity(Identity::from_pem(read("store-client.crt")?, read("store-client.key")?));
    let options = ConnectOptions::new().with_tls(tls).with_connect_timeout(ASK_MAX);
    let mut client = etcd_client::Client::connect([format!("https://127.0.0.1:{port}")], Some(options)).await?;
    let status = client.status().await?;
    let id = status.header().map_or(0, etcd_client::ResponseHeader::member_id);
    let role = if status.leader() == id { "leader" } else { "follower" };
    Ok(format!("{id:<17x} {role:<8} {:>6} {:>12} {:>12}", status.raft_term(), status.raft_index(), status.db_size()))
}

async fn nodes(layout: &Layout) -> Result<Vec<String>> {
    let client = crate::up::client(layout).await?;
    let nodes = Api::<Node>::all(client).list(&kube::api::ListParams::default()).await?;
    let line = |node: &Node| {
        let ready = crate::up::is_ready(node);
        format!("{:<24} {}\n", node.metadata.name.as_deref().unwrap_or(""), if ready { "Ready" } else { "NotReady" })
    };
    Ok(nodes.items.iter().map(line).collect())
}
