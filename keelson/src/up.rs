//! `keelson up`: a whole cluster on one machine, supervised.
//!
//! Order of start: the store's members, the control plane, containerd, the node agent;
//! stopped in reverse, pods between agent and containerd. Each is a process of its own,
//! so that one's death is nobody else's.

pub(crate) mod cluster;
mod plan;
mod ready;
pub(crate) mod runtime;
pub(crate) mod state;
pub(crate) mod supervise;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use clap::Args;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use cluster::Layout;
use runtime::{Chosen, RuntimeChoice};
use state::State;

/// Arguments of `keelson up`.
#[derive(Debug, Clone, Args)]
pub(crate) struct UpArgs {
    /// Folder for all data [default: /var/lib/keelson, or ~/.local/share/keelson without root]
    #[arg(long)]
    data_dir: Option<PathBuf>,
    /// Members of the store, 1 to 7, an odd number [default: as the folder has them, 3 for a new one]
    #[arg(long)]
    store_members: Option<usize>,
    /// Port of the Kubernetes API
    #[arg(long, default_value_t = 6443)]
    port: u16,
    /// What runs the pods
    #[arg(long, value_enum, default_value_t = RuntimeChoice::Auto)]
    runtime: RuntimeChoice,
    /// Simulated nodes, with --runtime hollow [default: 1]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=i64::from(agent_node::config::HOLLOW_NODES_MAX)))]
    nodes: Option<u32>,
    /// Return once the cluster is ready and leave it running
    #[arg(long)]
    detach: bool,
}

/// How long the cluster may take to become ready before `up` says what it waits for.
const READY_MAX: Duration = Duration::from_secs(120);
/// How long containers get to end when the cluster is stopped.
const PODS_GRACE: Duration = Duration::from_secs(3);

pub(crate) use ready::{client, is_ready};

/// The folder given, or the default.
pub(crate) fn data_dir(given: Option<&PathBuf>) -> PathBuf {
    given.cloned().unwrap_or_else(cluster::default_data_dir)
}

/// Runs `keelson up`.
pub(crate) async fn up(args: UpArgs) -> Result<()> {
    if let Some(members) = args.store_members.filter(|n| !matches!(n, 1 | 3 | 5 | 7)) {
        bail!("--store-members {members} would not make a majority any safer: choose 1, 3, 5 or 7");
    }
    let layout = cluster::open_folder(&data_dir(args.data_dir.as_ref()))?;
    if args.detach { detach(&layout, &args).await } else { foreground(&layout, &args).await }
}

/// Starts `keelson up` in the background and waits until it is ready.
async fn detach(layout: &Layout, args: &UpArgs) -> Result<()> {
    use std::os::unix::process::CommandExt as _;
    if let Some(running) = state::running(layout)? {
        bail!("already running from {} as process {}; stop it with `keelson down`", layout.root.display(), running.pid);
    }
    let log_path = layout.log("up");
    let log = std::fs::File::create(&log_path).with_context(|| format!("writing {}", log_path.display()))?;
    let own = std::env::current_exe().context("finding this program's own file")?;
    let mut command = std::process::Command::new(own);
    command.arg("up").arg("--data-dir").arg(&layout.root);
    command.args(args.store_members.iter().flat_map(|n| ["--store-members".to_owned(), n.to_string()]));
    command.args(["--port", &args.port.to_string()]);
    command.args(["--runtime", args.runtime.as_str()]);
    command.args(args.nodes.iter().flat_map(|n| ["--nodes".to_owned(), n.to_string()]));
    command.stdin(std::process::Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0);
    let mut child = command.spawn().context("starting in the background")?;
    let deadline = Instant::now() + READY_MAX + Duration::from_secs(10);
    let mut shown = 0;
    while Instant::now() < deadline {
        let text = std::fs::read_to_string(&log_path).unwrap_or_default();
        print!("{}", &text[shown.min(text.len())..]);
        shown = text.len();
        if let Some(status) = child.try_wait().context("watching the background process")? {
            bail!("the cluster did not start ({status}); its log is {}", log_path.display());
        }
        if state::running(layout)?.is_some_and(|s| s.ready) {
            let text = std::fs::read_to_string(&log_path).unwrap_or_default();
            print!("{}", &text[shown.min(text.len())..]);
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    bail!("not ready after {READY_MAX:?}; it goes on trying in the background: see {}", log_path.display())
}

async fn foreground(layout: &Layout, args: &UpArgs) -> Result<()> {
    let begun = Instant::now();
    let _lock = state::lock(layout)?;
    println!("keelson {} with data in {}", env!("CARGO_PKG_VERSION"), layout.root.display());
    let cluster = cluster::load_or_create(layout, args.store_members)?;
    cluster::check_ports(&cluster, args.port)?;
    let (chosen, why) = runtime::choose(args.runtime, args.nodes)?;
    println!("runtime: {why}");
    let containers = matches!(chosen, Chosen::Containerd { .. });
    let _machine = if containers { Some(runtime::lock_machine(&layout.root)?) } else { None };
    let plan = plan::make(layout, &cluster, args, &chosen)?;

    let stop = CancellationToken::new();
    let signals = tokio::spawn(stop_on_signal(stop.clone()));
    let (reports, mut inbox) = mpsc::channel(64);
    let mut state = State::new(layout, args.port)?;
    let mut running = Vec::new();
    // Each waits for what it needs by itself: starting together is what makes the start fast.
    for component in plan {
        let token = CancellationToken::new();
        let name = component.name.clone();
        running.push((name, token.clone(), tokio::spawn(supervise::run(component, token, reports.clone()))));
    }
    let ready = ready::wait(layout, chosen != Chosen::None);
    tokio::pin!(ready);
    let mut waiting = true;
    let mut outcome = Ok(());
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(health) = inbox.recv() => {
                state.set(health, waiting)?;
                if waiting && let Some(failed) = state.hopeless() {
                    outcome = Err(anyhow!("{} ends as often as it is started: {}", failed.name, failed.last_end));
                    break;
                }
            }
            result = ready.as_mut(), if waiting => {
                waiting = false;
                match result {
                    Ok(()) => {
                        println!("ready in {:.1} s", begun.elapsed().as_secs_f64());
                        println!("export KUBECONFIG={}", layout.kubeconfig().display());
                        // Last: who waits in the background returns on it, with all that is shown.
                        state.ready()?;
                    }
                    Err(error) => {
                        eprintln!("not ready: {error:#}");
                        eprintln!("logs are in {}; still trying, Ctrl-C stops everything", layout.logs().display());
                    }
                }
            }
        }
    }
    println!("stopping");
    drop(inbox);
    // Reverse order: nothing loses what it depends on while it ends.
    for (name, token, task) in running.into_iter().rev() {
        if name == "containerd" {
            stop_pods(layout).await;
        }
        token.cancel();
        let _ = task.await;
    }
    if containers {
        runtime::tear_down(&layout.root).await;
    }
    signals.abort();
    state.remove();
    println!("stopped");
    outcome
}

/// Stops what containerd runs; what it can't is ended without it.
async fn stop_pods(layout: &Layout) {
    let socket = layout.containerd().socket();
    if let Err(error) = agent_node::stop_all(&socket, PODS_GRACE).await {
        eprintln!("{:#}; ending their processes", anyhow::Error::new(error));
        end_orphans(layout);
    }
}

/// Ends containers that outlived the cluster that ran them. Returns how many pods had any.
pub(crate) fn end_orphans(layout: &Layout) -> usize {
    agent_node::end_orphans(&layout.containerd().socket()).unwrap_or_else(|error| {
        eprintln!("{error}");
        0
    })
}

async fn stop_on_signal(stop: CancellationToken) {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        tracing::error!("signals can't be received; stop the process with kill -9");
        return;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    stop.cancel();
}

/// Removes a folder that `up` made, and nothing else.
pub(crate) fn purge(layout: &Layout) -> Result<()> {
    // A folder without our own file in it isn't ours to remove.
    cluster::load(layout).context("this doesn't look like a cluster's folder; not removing it")?;
    // Nothing is removed through a mount.
    agent_node::remove_tree(&layout.root).with_context(|| format!("removing {}", layout.root.display()))
}
