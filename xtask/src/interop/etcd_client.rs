//! `cargo xtask interop etcd-client`: the tests of the crate `etcd-client` against `keelson store`.
//!
//! They are those of the version that this workspace uses, with that version's own lock file. They know one address,
//! etcd's: the member and they get a network of their own.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use super::source::remove;
use crate::must;

/// What the tests run in: a member at etcd's address, in a network that has nothing but loopback. They expect that a
/// user root is there, and wait four seconds for the end of a token.
const IN_A_NETWORK: &str = r#"
ip link set lo up
"$KEELSON" store --data-dir "$DATA" --auth-token-ttl 3 > "$DATA.log" 2>&1 &
member=$!
trap 'kill $member; wait $member' EXIT
until etcdctl endpoint health 2> /dev/null; do
    kill -0 $member || exit 1
done
etcdctl user add root:rootpwd && etcdctl user grant-role root root || exit 1
"$CARGO" test --tests --locked --offline -- --include-ignored --skip test_cluster
"#;

/// Runs them, also those that ask for etcd 3.7; fails if one fails. One is left out: it waits for somebody to start a
/// member on another machine.
pub(crate) fn etcd_client(root: &Path, cache: &Path, keelson: &Path) -> Result<()> {
    let begun = Instant::now();
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let packaged = packaged(&cargo, root)?;
    let name = packaged.file_name().context("the crate's folder has no name")?;
    let work = cache.join("interop").join(name);
    remove(&work)?;
    std::fs::create_dir_all(&work).with_context(|| format!("making {}", work.display()))?;
    let source = work.join("source");
    must(Command::new("cp").arg("-r").arg(&packaged).arg(&source))?;
    let built = cache.join("interop/etcd-client-target");
    println!("== the tests of {}", name.display());
    must(
        Command::new(&cargo)
            .args(["test", "--tests", "--locked", "--no-run"])
            .current_dir(&source)
            .env("CARGO_TARGET_DIR", &built),
    )?;
    let data = work.join("member");
    let status = Command::new("timeout")
        .args(["--kill-after=10", "300", "unshare", "--net", "sh", "-c", IN_A_NETWORK])
        .current_dir(&source)
        .env("CARGO", &cargo)
        .env("CARGO_TARGET_DIR", &built)
        .env("KEELSON", keelson)
        .env("DATA", &data)
        .env("ETCDCTL_API", "3")
        .status()
        .context("running timeout")?;
    if !status.success() {
        bail!("tests of etcd-client failed; the member's log: {}.log", data.display());
    }
    println!("== the tests of {}: {:.0} s", name.display(), begun.elapsed().as_secs_f64());
    Ok(())
}

/// Where cargo keeps the source of the version that is used here.
fn packaged(cargo: &std::ffi::OsStr, root: &Path) -> Result<PathBuf> {
    let asked = Command::new(cargo).args(["metadata", "--format-version=1", "--locked"]).current_dir(root).output();
    let told = asked.context("running cargo metadata")?.stdout;
    let metadata: serde_json::Value = serde_json::from_slice(&told).context("what cargo metadata tells")?;
    let packages = metadata["packages"].as_array().context("cargo metadata tells no packages")?;
    let manifest =
        packages.iter().find(|package| package["name"] == "etcd-client").map(|found| &found["manifest_path"]);
    let manifest = manifest.and_then(|path| path.as_str()).context("etcd-client isn't used here any more")?;
    Ok(Path::new(manifest).parent().context("a manifest without a folder")?.to_path_buf())
}
