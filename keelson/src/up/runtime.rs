//! What runs the pods: chosen by what was asked for and what the machine has.

use std::fs::File;
use std::path::{Path, PathBuf};

use agent_node::containerd;
use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use nix::fcntl::{Flock, FlockArg};

/// `--runtime`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum RuntimeChoice {
    /// containerd if this machine has what it needs, else hollow
    Auto,
    /// A containerd of the cluster's own
    Containerd,
    /// Nodes that only say that their pods run
    Hollow,
    /// No nodes
    None,
}

impl RuntimeChoice {
    /// As the command line takes it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Containerd => "containerd",
            Self::Hollow => "hollow",
            Self::None => "none",
        }
    }
}

/// What it came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Chosen {
    Containerd {
        /// Where CNI's plugins are.
        cni_bin_dir: &'static str,
    },
    Hollow {
        nodes: u32,
    },
    None,
}

/// A program that containers need, and Debian's package of it.
const PROGRAMS: [(&str, &str); 5] =
    [("containerd", "containerd"), ("ctr", "containerd"), ("runc", "runc"), ("nft", "nftables"), ("ip", "iproute2")];

/// Chooses; the text says what and why, for a person.
pub(crate) fn choose(asked: RuntimeChoice, nodes: Option<u32>) -> Result<(Chosen, String)> {
    let hollow = Chosen::Hollow { nodes: nodes.unwrap_or(1) };
    if nodes.is_some_and(|n| n != 1) && matches!(asked, RuntimeChoice::Containerd | RuntimeChoice::None) {
        bail!("--nodes is for --runtime hollow: this machine is one node");
    }
    match asked {
        RuntimeChoice::None => Ok((Chosen::None, "none: pods stay Pending".to_owned())),
        RuntimeChoice::Hollow => Ok((hollow, "hollow: pods only say that they run".to_owned())),
        RuntimeChoice::Auto if nodes.is_some_and(|n| n > 1) => {
            Ok((hollow, "hollow, because --nodes asks for more than this machine".to_owned()))
        }
        RuntimeChoice::Containerd => match missing() {
            Ok(cni_bin_dir) => Ok((Chosen::Containerd { cni_bin_dir }, "containerd".to_owned())),
            Err(why) => bail!("--runtime containerd can't work here: {why}"),
        },
        RuntimeChoice::Auto => Ok(match missing() {
            Ok(cni_bin_dir) => {
                (Chosen::Containerd { cni_bin_dir }, "containerd, because this machine has it".to_owned())
            }
            Err(why) => (hollow, format!("hollow (pods only say that they run), because {why}")),
        }),
    }
}

/// Where CNI's plugins are, or what containers lack here and how to get it.
fn missing() -> Result<&'static str, String> {
    if !nix::unistd::geteuid().is_root() {
        return Err("containers need root".to_owned());
    }
    let mut lacking: Vec<(&str, &str)> = PROGRAMS.into_iter().filter(|(program, _)| find(program).is_none()).collect();
    let cni = containerd::cni_bin_dir();
    if cni.is_none() {
        lacking.push(("CNI's plugins", "containernetworking-plugins"));
    }
    match (cni, lacking.is_empty()) {
        (Some(dir), true) => Ok(dir),
        _ => {
            let names: Vec<&str> = lacking.iter().map(|(name, _)| *name).collect();
            let mut packages: Vec<&str> = lacking.iter().map(|(_, package)| *package).collect();
            packages.dedup();
            Err(format!("{} missing; on Debian: apt-get install {}", names.join(", "), packages.join(" ")))
        }
    }
}

/// A program on PATH or where administrators' programs are.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs: Vec<PathBuf> = std::env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from)).collect();
    dirs.iter().map(|dir| dir.join(program)).find(|file| file.is_file())
}

/// Where a cluster with containers says that it has the machine's bridge, rules and service network.
const MACHINE_LOCK: &str = "/run/keelson-node.lock";

/// Makes sure that one cluster at a time runs containers on this machine. The lock ends with the process.
pub(crate) fn lock_machine(data_dir: &Path) -> Result<Flock<File>> {
    let open = std::fs::OpenOptions::new().create(true).truncate(false).read(true).write(true).open(MACHINE_LOCK);
    let file = open.with_context(|| format!("opening {MACHINE_LOCK}"))?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(mut lock) => {
            use std::io::Write as _;
            lock.set_len(0).context("writing the machine's lock")?;
            write!(lock, "{}", data_dir.display()).context("writing the machine's lock")?;
            Ok(lock)
        }
        Err(_) => {
            let other = std::fs::read_to_string(MACHINE_LOCK).unwrap_or_default();
            bail!(
                "another cluster runs containers on this machine ({other}): stop it with `keelson down --data-dir {other}`, or use --runtime hollow"
            )
        }
    }
}

/// Removes what containers leave on the machine: mounts, network rules and the bridge.
pub(crate) async fn tear_down(data_dir: &Path) {
    if let Err(error) = agent_node::unmount_below(data_dir) {
        eprintln!("not everything below {} could be unmounted: {error}", data_dir.display());
    }
    if let Err(error) = proxy_node::cleanup(&proxy_node::Config::default()).await {
        eprintln!("the rules of services could not be removed: {error}");
    }
    if let Err(error) = agent_node::network::tear_down().await {
        eprintln!("the rules of the pod network could not be removed: {error}");
    }
    let Some(ip) = find("ip") else { return };
    // It isn't there if no pod ever ran.
    let removed = tokio::process::Command::new(ip).args(["link", "delete", containerd::BRIDGE]).output().await;
    if let Err(error) = removed {
        eprintln!("the bridge could not be removed: {error}");
    }
}
