//! Processes: start them, restart what dies, stop them all.
//!
//! Invariants
//!   P1  A component is restarted after a pause that doubles from 0.2 s to 10 s
//!       and is forgotten once it has run for half a minute.
//!   P2  A child dies with this process, even by kill -9 (`keelson supervised`
//!       asks the kernel for it), so a start never meets its own orphans.
//!   P3  Only children of this process are signalled.

use std::fs::OpenOptions;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

const RESTART_FIRST: Duration = Duration::from_millis(200);
const RESTART_MOST: Duration = Duration::from_secs(10);
const SETTLED: Duration = Duration::from_secs(30);
/// How long a component may take to end before it is killed.
const STOP_MAX: Duration = Duration::from_secs(10);
/// A log larger than this at a start is put aside once, so that logs stay bounded.
const LOG_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// As much of a log's end is looked at for its last line.
const WORDS_BYTES_MAX: u64 = 4096;

/// What to run.
#[derive(Debug, Clone)]
pub(crate) struct Component {
    pub(crate) name: String,
    /// Program and arguments.
    pub(crate) command: Vec<String>,
    pub(crate) log: PathBuf,
}

/// How a component is doing, as `keelson status` shows it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Health {
    pub(crate) name: String,
    pub(crate) pid: Option<i32>,
    pub(crate) restarts: u32,
    /// Why it ended last, empty if it never did.
    pub(crate) last_end: String,
}

/// Runs one component until `stop`; reports each change.
pub(crate) async fn run(component: Component, stop: CancellationToken, reports: mpsc::Sender<Health>) {
    let mut health = Health { name: component.name.clone(), pid: None, restarts: 0, last_end: String::new() };
    let mut pause = RESTART_FIRST;
    while !stop.is_cancelled() {
        let started = Instant::now();
        match start(&component) {
            Err(error) => health.last_end = format!("{error:#}"),
            Ok(mut child) => {
                health.pid = child.id().and_then(|id| i32::try_from(id).ok());
                report(&reports, &health).await;
                health.last_end = tokio::select! {
                    ended = child.wait() => {
                        let status = ended.map_or_else(|e| e.to_string(), |status| status.to_string());
                        format!("{status}: {}", last_words(&component.log))
                    }
                    () = stop.cancelled() => {
                        end(&mut child).await;
                        return;
                    }
                };
                health.pid = None;
            }
        }
        if started.elapsed() >= SETTLED {
            pause = RESTART_FIRST;
        }
        health.restarts += 1;
        report(&reports, &health).await;
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        pause = (pause * 2).min(RESTART_MOST);
    }
}

async fn report(reports: &mpsc::Sender<Health>, health: &Health) {
    // Nobody listening any more means that everything is being stopped.
    let _ = reports.send(health.clone()).await;
}

fn start(component: &Component) -> Result<Child> {
    let log = open_log(&component.log)?;
    let own = std::env::current_exe().context("finding this program's own file")?;
    Command::new(own)
        .arg("supervised")
        .arg(std::process::id().to_string())
        .args(&component.command)
        .stdin(Stdio::null())
        .stdout(log.try_clone().context("sharing the log")?)
        .stderr(log)
        // Signals of a terminal's Ctrl-C go to this process alone; it stops its children in order.
        .process_group(0)
        .spawn()
        .with_context(|| format!("starting {}", component.command.first().map_or("", String::as_str)))
}

fn open_log(path: &Path) -> Result<std::fs::File> {
    if std::fs::metadata(path).is_ok_and(|m| m.len() > LOG_BYTES_MAX) {
        std::fs::rename(path, path.with_extension("log.1"))
            .with_context(|| format!("putting {} aside", path.display()))?;
    }
    OpenOptions::new().create(true).append(true).open(path).with_context(|| format!("opening {}", path.display()))
}

/// The last line of a log, where a program that can't go on says why.
fn last_words(log: &Path) -> String {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = std::fs::File::open(log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(WORDS_BYTES_MAX)))?;
        let mut bytes = Vec::new();
        file.take(WORDS_BYTES_MAX).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    // Without its log there is still its status.
    let text = String::from_utf8_lossy(&read().unwrap_or_default()).into_owned();
    text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it said nothing").trim().to_owned()
}

/// Asks a child to end, then makes it.
async fn end(child: &mut Child) {
    if let Some(pid) = child.id().and_then(|id| i32::try_from(id).ok()) {
        // It may have ended by itself in this moment.
        let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
    }
    if tokio::time::timeout(STOP_MAX, child.wait()).await.is_err() {
        tracing::warn!("a component did not end in {STOP_MAX:?}; killing it");
        let _ = child.kill().await;
    }
}

/// `keelson supervised PARENT PROGRAM …`: becomes the program, bound to the parent's life (P2).
pub(crate) fn become_supervised(parent: i32, command: &[String]) -> Result<()> {
    use std::os::unix::process::CommandExt as _;
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).context("binding to the parent's life")?;
    // The parent may have died before the kernel was asked.
    if nix::unistd::getppid().as_raw() != parent {
        anyhow::bail!("the process that started this one is gone");
    }
    let (program, arguments) = command.split_first().context("no program to run")?;
    let error = std::process::Command::new(program).args(arguments).exec();
    Err(error).with_context(|| format!("running {program}"))
}
