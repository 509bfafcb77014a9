//! `keelson image`: images without a registry.
//!
//! An archive is handed to the cluster's containerd, or waits in the data folder
//! until the cluster's next start.

use std::path::{Path, PathBuf};
use std::time::Duration;

use agent_node::image::{Architecture, pause};
use anyhow::{Context, Result, bail};
use clap::Subcommand;
use tokio::process::Command;
use tokio_util::sync::CancellationToken;

use crate::up::cluster::Layout;
use crate::up::{self, state};

/// How long a containerd that was just started may take to listen.
const LISTEN_MAX: Duration = Duration::from_secs(30);

/// `keelson image …`.
#[derive(Debug, Subcommand)]
pub(crate) enum ImageCommand {
    /// Import an OCI or docker archive, so that pods can use its images
    Import {
        /// The archive
        file: PathBuf,
        /// The folder given to `up`
        #[arg(long)]
        data_dir: Option<PathBuf>,
    },
    /// Write the demo image, made from this machine's busybox-static
    Demo {
        /// Where to write the archive
        file: PathBuf,
        /// The static busybox
        #[arg(long, default_value = "/bin/busybox")]
        busybox: PathBuf,
    },
}

/// Runs `keelson image …`.
pub(crate) async fn run(command: ImageCommand) -> Result<()> {
    match command {
        ImageCommand::Demo { file, busybox } => {
            let archive = agent_node::image::demo::image(&busybox)?;
            std::fs::write(&file, archive).with_context(|| format!("writing {}", file.display()))?;
            println!("wrote {} ({})", file.display(), agent_node::image::demo::REFERENCE);
            Ok(())
        }
        ImageCommand::Import { file, data_dir } => import_file(&file, &up::data_dir(data_dir.as_ref())).await,
    }
}

async fn import_file(file: &Path, data_dir: &Path) -> Result<()> {
    let names = agent_node::image::archive::check_file(file)?;
    let layout = up::cluster::open_folder(data_dir)?;
    if state::running(&layout)?.is_some() {
        let socket = layout.containerd().socket();
        if !socket.exists() {
            bail!(
                "the cluster in {} runs no containers (--runtime hollow): there is nothing to import into",
                layout.root.display()
            );
        }
        import(&socket, file).await?;
        println!("imported {}", names.join(", "));
        return Ok(());
    }
    let waiting = layout.images();
    std::fs::create_dir_all(&waiting).with_context(|| format!("making {}", waiting.display()))?;
    let name = file.file_name().with_context(|| format!("{} has no file name", file.display()))?;
    std::fs::copy(file, waiting.join(name)).with_context(|| format!("copying {}", file.display()))?;
    println!("{} will be imported at the next start from {}", names.join(", "), layout.root.display());
    Ok(())
}

/// Imports an archive into the containerd that listens on `socket`.
async fn import(socket: &Path, file: &Path) -> Result<()> {
    let output = Command::new("ctr")
        .args(["--address", &socket.display().to_string(), "--namespace", "k8s.io", "images", "import"])
        .arg(file)
        .kill_on_drop(true)
        .output()
        .await
        .context("running ctr, which is part of containerd's package")?;
    if !output.status.success() {
        bail!("importing {} failed: {}", file.display(), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// Imports the archives that wait in `dir`; each is removed once it is in.
pub(crate) async fn import_waiting(socket: &Path, dir: &Path, shutdown: &CancellationToken) -> Result<()> {
    let entries = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        entries => entries.with_context(|| format!("reading {}", dir.display()))?,
    };
    let mut archives: Vec<PathBuf> = entries.flatten().map(|e| e.path()).filter(|p| p.is_file()).collect();
    archives.sort();
    if archives.is_empty() {
        return Ok(());
    }
    let begun = std::time::Instant::now();
    while tokio::net::UnixStream::connect(socket).await.is_err() {
        if begun.elapsed() > LISTEN_MAX || shutdown.is_cancelled() {
            bail!("containerd does not listen on {}", socket.display());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    for archive in archives {
        import(socket, &archive).await?;
        std::fs::remove_file(&archive).with_context(|| format!("removing {}", archive.display()))?;
        tracing::info!(archive = %archive.display(), "imported");
    }
    Ok(())
}

/// Puts the sandbox image where the next start imports it, unless containerd has it already.
pub(crate) fn stage_pause(layout: &Layout) -> Result<()> {
    let marker = layout.containerd().root.join("pause-imported");
    if marker.exists() {
        return Ok(());
    }
    std::fs::create_dir_all(layout.images()).with_context(|| format!("making {}", layout.images().display()))?;
    let file = layout.images().join("00-pause.tar");
    let architecture = Architecture::here().context("containers are run on x86_64 and aarch64 alone")?;
    let archive = pause::image(pause::REFERENCE, architecture)?;
    std::fs::write(&file, archive).with_context(|| format!("writing {}", file.display()))?;
    // A start that is cut off before the import still finds the archive.
    std::fs::write(&marker, "").with_context(|| format!("writing {}", marker.display()))
}
