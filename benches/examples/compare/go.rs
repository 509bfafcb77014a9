//! Loads of etcd's own Go client, by the program in `store/interop/etcd-3.4/load`.

use std::path::Path;
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tokio::process::Command;

use super::cluster::Cluster;
use super::observe::{Usage, disk};
use super::perform::{Readings, Scale};
use super::rows::SECONDS;

/// As many requests at a time go over one connection, in the runs of etcd's benchmark tool.
const CLIENTS_PER_CONNECTION: u32 = 8;
const CONNECTIONS_MAX: u32 = 64;

/// Runs the program against the members for as long as the scale says.
pub(crate) async fn load(
    program: &Path,
    cluster: &Cluster,
    what: &str,
    clients: u32,
    scale: Scale,
) -> Result<Readings> {
    let seconds = if scale.quick { 1 } else { scale.seconds.unwrap_or(SECONDS) };
    let connections = clients.div_ceil(CLIENTS_PER_CONNECTION).min(CONNECTIONS_MAX);
    let running = cluster.running();
    let before = Usage::of(&running);
    let output = Command::new(program)
        .args(["-endpoints", &cluster.endpoints().join(","), "-what", what])
        .args(["-clients", &clients.to_string(), "-conns", &connections.to_string()])
        .args(["-seconds", &seconds.to_string()])
        .stderr(Stdio::inherit())
        .kill_on_drop(true)
        .output()
        .await
        .with_context(|| format!("running {}", program.display()))?;
    let after = Usage::of(&running);
    ensure!(output.status.success(), "the load of etcd's Go client ended with {}", output.status);
    let outcome: Value = serde_json::from_slice(&output.stdout).context("reading the load's outcome")?;
    let number = |name: &str| outcome[name].as_f64().with_context(|| format!("the load's outcome has no {name}"));
    let (done, seconds) = (number("done")?, number("seconds")?);
    let written = if what == "put" { done } else { 0.0 };
    Ok(Readings {
        per_second: done / seconds,
        writes_per_second: written / seconds,
        p50: number("p50")?,
        p99: number("p99")?,
        p999: number("p999")?,
        resident: after.resident,
        anonymous: after.anonymous,
        disk: disk(cluster),
        cost: after.cost_since(&before, done as u64, written as u64, seconds),
        client_cpu: number("cpu_seconds")? * 1e6 / done.max(1.0),
        ..Readings::default()
    })
}
