//! Running nft.

use std::io;
use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

/// A transaction that takes longer has failed: the largest tried, of 10 000 services, takes three seconds.
const NFT_MAX: Duration = Duration::from_secs(60);
/// Bytes of nft's complaints that are kept.
const COMPLAINT_BYTES_MAX: usize = 1000;
/// Where nft is when PATH doesn't tell.
const USUAL_FOLDERS: [&str; 2] = ["/usr/sbin", "/sbin"];

/// Why nft didn't do it.
#[derive(Debug, thiserror::Error)]
pub enum NftError {
    /// Install the package nftables.
    #[error("nft is neither on PATH nor in {}: install nftables", USUAL_FOLDERS.join(", "))]
    Missing,
    /// It doesn't start, or its pipes broke.
    #[error("running {command}")]
    Run {
        /// What was started.
        command: String,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// Nothing of the script has taken effect.
    #[error("nft refused the script: {complaint}")]
    Refused {
        /// What nft wrote.
        complaint: String,
    },
    /// It was killed; whether the script has taken effect isn't known.
    #[error("nft took longer than {} s", NFT_MAX.as_secs())]
    TooSlow,
}

/// The command that speaks to the kernel.
pub(crate) struct Nft {
    program: String,
    arguments: Vec<String>,
}

impl Nft {
    /// By the configured command, or where nft usually is.
    pub(crate) fn find(command: &[String]) -> Result<Self, NftError> {
        if let [program, arguments @ ..] = command {
            return Ok(Self { program: program.clone(), arguments: arguments.to_vec() });
        }
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folders = std::env::split_paths(&path).chain(USUAL_FOLDERS.map(PathBuf::from));
        let found = folders.map(|folder| folder.join("nft")).find(|file| file.is_file()).ok_or(NftError::Missing)?;
        Ok(Self { program: found.to_string_lossy().into_owned(), arguments: Vec::new() })
    }

    /// Hands a script to the kernel: all of it takes effect, or nothing.
    pub(crate) async fn apply(&self, script: String) -> Result<(), NftError> {
        let output = self.output(&["-f", "-"], script).await?;
        if output.status.success() {
            return Ok(());
        }
        let complaint: Vec<u8> = output.stderr.into_iter().take(COMPLAINT_BYTES_MAX).collect();
        Err(NftError::Refused { complaint: String::from_utf8_lossy(&complaint).trim().to_owned() })
    }

    /// Whether the table is still there.
    pub(crate) async fn has_table(&self) -> Result<bool, NftError> {
        // The smallest set: for this nft reads nothing else, while it reads every set for a list of tables.
        let arguments = ["list", "set", "ip", "keelson", "node-ips"];
        Ok(self.output(&arguments, String::new()).await?.status.success())
    }

    async fn output(&self, arguments: &[&str], input: String) -> Result<Output, NftError> {
        let failed = |source| NftError::Run { command: self.program.clone(), source };
        let mut child = Command::new(&self.program)
            .args(&self.arguments)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        let stdin = child.stdin.take();
        // Both at once: neither side may wait for a full pipe. A write fails if nft stops early; its status tells why.
        let write = async move {
            if let Some(mut stdin) = stdin
                && let Err(error) = stdin.write_all(input.as_bytes()).await
            {
                tracing::debug!(%error, "nft stopped reading");
            }
        };
        let both = async { futures::join!(write, child.wait_with_output()).1 };
        tokio::time::timeout(NFT_MAX, both).await.map_err(|_| NftError::TooSlow)?.map_err(failed)
    }
}
