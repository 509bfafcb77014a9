//! The state file: what runs from a data folder, for `status` and `down`.

use std::fs::File;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use super::cluster::Layout;
use super::supervise::Health;

/// What runs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Running {
    pub(crate) pid: i32,
    /// When the process began, in the kernel's ticks: tells it from a later one of the same number.
    started: u64,
    pub(crate) port: u16,
    pub(crate) ready: bool,
    pub(crate) components: Vec<Health>,
}

/// A component that has ended so often before the cluster was ready won't make it.
const ATTEMPTS_MAX: u32 = 5;

/// The state file of this process.
pub(crate) struct State {
    layout: Layout,
    running: Running,
}

impl State {
    pub(crate) fn new(layout: &Layout, port: u16) -> Result<Self> {
        let pid = i32::try_from(std::process::id()).context("this process's number")?;
        let started = start_ticks(pid).context("reading this process's start time")?;
        let running = Running { pid, started, port, ready: false, components: Vec::new() };
        let state = Self { layout: layout.clone(), running };
        state.write()?;
        Ok(state)
    }

    /// Takes in a component's report; prints what a person waiting wants to see.
    pub(crate) fn set(&mut self, health: Health, starting: bool) -> Result<()> {
        match (health.pid, health.restarts) {
            (Some(pid), 0) if starting => println!("  {:<13} process {pid}", health.name),
            (Some(pid), n) => println!("  {:<13} process {pid}, restart {n}", health.name),
            (None, _) => println!(
                "  {:<13} ended ({}), see {}",
                health.name,
                health.last_end,
                self.layout.log(&health.name).display()
            ),
        }
        match self.running.components.iter_mut().find(|c| c.name == health.name) {
            Some(slot) => *slot = health,
            None => self.running.components.push(health),
        }
        self.write()
    }

    /// What keeps ending, if the cluster can't become ready without it.
    pub(crate) fn hopeless(&self) -> Option<&Health> {
        hopeless(&self.running.components)
    }

    pub(crate) fn ready(&mut self) -> Result<()> {
        self.running.ready = true;
        self.write()
    }

    fn write(&self) -> Result<()> {
        let path = self.layout.state();
        let temporary = path.with_extension("tmp");
        std::fs::write(&temporary, serde_json::to_vec_pretty(&self.running)?)
            .and_then(|()| std::fs::rename(&temporary, &path))
            .with_context(|| format!("writing {}", path.display()))
    }

    pub(crate) fn remove(&self) {
        // A stale file is recognised by its process anyway; `down` then looks for containers that were left.
        let _ = std::fs::remove_file(self.layout.state());
    }
}

/// One component that keeps ending, or the first of a majority of the store's members that do.
fn hopeless(components: &[Health]) -> Option<&Health> {
    let fails = |health: &&Health| health.pid.is_none() && health.restarts >= ATTEMPTS_MAX;
    let (stores, others): (Vec<&Health>, Vec<&Health>) = components.iter().partition(|h| h.name.starts_with("store-"));
    let failing: Vec<&Health> = stores.iter().copied().filter(fails).collect();
    let majority = failing.first().copied().filter(|_| failing.len() * 2 > stores.len());
    majority.or_else(|| others.into_iter().find(fails))
}

/// Field 22 of `/proc/PID/stat`; the name in field 2 may hold anything but ends with the last parenthesis.
fn start_ticks(pid: i32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    // A zombie has ended; its parent just hasn't looked.
    if matches!(rest.split_whitespace().next()?, "Z" | "X") {
        return None;
    }
    rest.split_whitespace().nth(19)?.parse().ok()
}

/// What runs from the folder, if it really does.
pub(crate) fn running(layout: &Layout) -> Result<Option<Running>> {
    let path = layout.state();
    let Ok(text) = std::fs::read_to_string(&path) else { return Ok(None) };
    let Ok(running) = serde_json::from_str::<Running>(&text) else {
        return Ok(None);
    };
    Ok((start_ticks(running.pid) == Some(running.started)).then_some(running))
}

/// Makes sure that one `up` at a time works on a folder. The lock ends with the process.
pub(crate) fn lock(layout: &Layout) -> Result<Flock<File>> {
    let path = layout.lock();
    let file = File::create(&path).with_context(|| format!("opening {}", path.display()))?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(lock),
        Err(_) => bail!("another `keelson up` runs from {}; stop it with `keelson down`", layout.root.display()),
    }
}

/// How long `down` waits for everything to end.
const DOWN_MAX: Duration = Duration::from_secs(90);

/// What `stop` found and how it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// It stopped its components, and its pods with them.
    InOrder,
    /// Nothing ran, or it was killed before or while it was asked to stop: its containers may still run.
    CutOff,
}

/// Stops what runs from the folder.
///
/// # Errors
/// It can't be signalled, or is still there after [`DOWN_MAX`].
pub(crate) async fn stop(layout: &Layout) -> Result<Ended> {
    let Some(running_now) = running(layout)? else { return Ok(Ended::CutOff) };
    match kill(Pid::from_raw(running_now.pid), Signal::SIGTERM) {
        // It ended in this moment.
        Ok(()) | Err(Errno::ESRCH) => {}
        Err(error) => return Err(error).with_context(|| format!("stopping process {}", running_now.pid)),
    }
    let deadline = Instant::now() + DOWN_MAX;
    while running(layout)?.is_some() {
        if Instant::now() > deadline {
            bail!("process {} has not ended after {DOWN_MAX:?}", running_now.pid);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // Removing its state file is the last thing it does.
    Ok(if layout.state().exists() { Ended::CutOff } else { Ended::InOrder })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(failing: &[&str]) -> Option<String> {
        let component = |name: &&str| {
            let fails = failing.contains(name);
            let (pid, restarts) = if fails { (None, ATTEMPTS_MAX) } else { (Some(7), 1) };
            Health { name: (*name).to_owned(), pid, restarts, last_end: String::new() }
        };
        let all: Vec<Health> = ["store-1", "store-2", "store-3", "agent"].iter().map(component).collect();
        hopeless(&all).map(|health| health.name.clone())
    }

    #[test]
    fn the_store_goes_on_with_a_majority_and_nothing_without_the_rest() {
        assert_eq!(names(&[]), None);
        assert_eq!(names(&["store-3"]), None);
        assert_eq!(names(&["store-2", "store-3"]).as_deref(), Some("store-2"));
        assert_eq!(names(&["store-3", "agent"]).as_deref(), Some("agent"));
    }
}
