//! `keelson store snapshot`: backups, and members out of them.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use etcd_client::{Certificate, Client, ConnectOptions, Identity, TlsOptions};
use store_server::{Config, RestoreOptions};

use crate::store_args::founding_cluster;

/// Backups of the store
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum SnapshotCommand {
    /// Save a backup of a running member
    Save {
        /// The file to write
        file: PathBuf,
        #[command(flatten)]
        access: Access,
    },
    /// Check a backup as a whole and show what it holds
    Status {
        /// The backup
        file: PathBuf,
    },
    /// Make a member's folder out of a backup: of a new cluster with the backup's keys
    Restore {
        /// The backup
        file: PathBuf,
        #[command(flatten)]
        founding: Founding,
    },
}

/// How a member is reached, as etcdctl's flags say it.
#[derive(Debug, Clone, Args)]
pub(crate) struct Access {
    /// URLs of members
    #[arg(long, env = "ETCDCTL_ENDPOINTS", value_delimiter = ',', default_value = "http://127.0.0.1:2379")]
    endpoints: Vec<String>,
    #[command(flatten)]
    credentials: Credentials,
}

/// Who asks, and whom to trust, as etcdctl's flags say it.
#[derive(Debug, Clone, Args)]
pub(crate) struct Credentials {
    /// CA of the members' certificates
    #[arg(long, env = "ETCDCTL_CACERT")]
    cacert: Option<PathBuf>,
    /// Own certificate
    #[arg(long, env = "ETCDCTL_CERT", requires = "key")]
    cert: Option<PathBuf>,
    /// Key of the own certificate
    #[arg(long, env = "ETCDCTL_KEY", requires = "cert")]
    key: Option<PathBuf>,
    /// NAME:PASSWORD
    #[arg(long, env = "ETCDCTL_USER")]
    user: Option<String>,
}

/// The new cluster, as etcd's flags say it.
#[derive(Debug, Clone, Args)]
pub(crate) struct Founding {
    /// Name of this member
    #[arg(long, default_value = "default")]
    name: String,
    /// The folder to make [default: NAME.etcd]
    #[arg(long)]
    data_dir: Option<PathBuf>,
    /// Every member, NAME=URL separated by commas [default: NAME=initial-advertise-peer-urls]
    #[arg(long)]
    initial_cluster: Option<String>,
    /// Tells the new cluster from the old one
    #[arg(long, default_value = "etcd-cluster")]
    initial_cluster_token: String,
    /// URLs by which peers will reach this member
    #[arg(long, value_delimiter = ',', default_value = "http://localhost:2380")]
    initial_advertise_peer_urls: Vec<String>,
    /// Raise the revision by so much, so that clients that saw later ones don't see it go back
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(i64).range(0..), requires = "mark_compacted")]
    bump_revision: i64,
    /// Nobody may watch from a revision before the raised one; needed with --bump-revision
    #[arg(long, requires = "bump_revision")]
    mark_compacted: bool,
}

impl Credentials {
    /// How to connect to members at these URLs.
    pub(crate) fn options(&self, endpoints: &[String]) -> Result<ConnectOptions> {
        let read = |path: &Path| std::fs::read(path).with_context(|| format!("reading {}", path.display()));
        let mut options = ConnectOptions::new();
        let mut tls = TlsOptions::new();
        if let Some(path) = &self.cacert {
            tls = tls.ca_certificate(Certificate::from_pem(read(path)?));
        }
        if let Some((cert, key)) = self.cert.as_ref().zip(self.key.as_ref()) {
            tls = tls.identity(Identity::from_pem(read(cert)?, read(key)?));
        }
        if endpoints.iter().any(|url| url.starts_with("https://")) {
            options = options.with_tls(tls);
        }
        if let Some(user) = &self.user {
            let (name, password) = user.split_once(':').context("--user: NAME:PASSWORD is wanted")?;
            options = options.with_user(name, password);
        }
        Ok(options)
    }
}

impl Access {
    /// Connects.
    async fn connect(&self) -> Result<Client> {
        let options = self.credentials.options(&self.endpoints)?;
        let shown = self.endpoints.join(", ");
        Client::connect(&self.endpoints, Some(options)).await.with_context(|| format!("connecting to {shown}"))
    }
}

/// Runs a command.
pub(crate) async fn run(command: SnapshotCommand) -> Result<()> {
    match command {
        SnapshotCommand::Save { file, access } => save(&file, &access).await,
        SnapshotCommand::Status { file } => {
            let status = store_server::backup_status(&file)?;
            println!("{:08x}, {}, {}, {} bytes", status.hash, status.revision, status.keys, status.size);
            Ok(())
        }
        SnapshotCommand::Restore { file, founding } => restore(&file, founding),
    }
}

async fn save(file: &Path, access: &Access) -> Result<()> {
    let mut client = access.connect().await?;
    let mut pieces = client.snapshot().await.context("asking for a snapshot")?;
    let part = file.with_extension("part");
    let using = || format!("writing {}", part.display());
    let mut out = std::fs::File::create(&part).with_context(using)?;
    let (mut bytes, mut shown) = (0u64, 0);
    while let Some(piece) = pieces.message().await.context("receiving the snapshot")? {
        out.write_all(piece.blob()).with_context(using)?;
        bytes += piece.blob().len() as u64;
        let percent = bytes * 100 / (bytes + piece.remaining_bytes()).max(1);
        if percent >= shown + 10 {
            shown = percent - percent % 10;
            eprintln!("{shown} % of {} MiB", (bytes + piece.remaining_bytes()) >> 20);
        }
    }
    // A snapshot is blocks of 512 bytes and a SHA-256 behind them.
    if bytes % 512 != 32 {
        bail!("the snapshot was cut off after {bytes} bytes; {} is kept for a look", part.display());
    }
    out.sync_all().with_context(using)?;
    std::fs::rename(&part, file).with_context(|| format!("renaming {}", part.display()))?;
    println!("saved {} bytes to {}", bytes, file.display());
    Ok(())
}

fn restore(file: &Path, founding: Founding) -> Result<()> {
    let own = &founding.initial_advertise_peer_urls;
    let config = Config {
        initial_cluster: founding_cluster(founding.initial_cluster.as_deref(), &founding.name, own)?,
        data_dir: founding.data_dir.unwrap_or_else(|| PathBuf::from(format!("{}.etcd", founding.name))),
        name: founding.name,
        initial_cluster_token: founding.initial_cluster_token,
        ..Config::default()
    };
    let options = RestoreOptions { bump_revision: founding.bump_revision };
    let header = store_server::restore(file, &config, &options)?;
    println!(
        "restored {} keys at revision {} to {}; start it with --name {} --data-dir {}",
        header.keys,
        header.revision + options.bump_revision,
        config.data_dir.display(),
        config.name,
        config.data_dir.display()
    );
    Ok(())
}
