//! etcd's source: fetched once, checked, laid under ours, built.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::list::Skipped;
use super::{Places, SUITES};
use crate::must;

/// Debian's package of etcd's source, tests and fixtures included, with Debian's changes for its versions of
/// what etcd needs.
const PACKAGE: &str = "golang-etcd-server-dev";
const VERSION: &str = "3.4.23-4";
const SHA256: &str = "d296370c539f7e6df608cca64cfbae1c330f03944af49e3b33af5d565cee9d49";
/// Where Debian keeps Go's packages.
const GOCODE: &str = "/usr/share/gocode";
/// The programs of etcd's functional tester.
const FUNCTIONAL: [&str; 3] = ["etcd-agent", "etcd-tester", "etcd-runner"];
/// Debian's, of etcd 3.4.
const ETCDCTL: &str = "/usr/bin/etcdctl";

/// Fetches and builds what isn't there yet.
pub(super) fn prepare(ours: &Path, cache: &Path, keelson: &Path, listed: &[Skipped]) -> Result<Places> {
    let folder = cache.join("interop/etcd-3.4");
    let gopath = folder.join("gopath");
    let places = Places {
        etcd: gopath.join("src/go.etcd.io/etcd"),
        gopath: format!("{}:{GOCODE}", gopath.display()),
        gocache: folder.join("gocache"),
        programs: folder.join("programs"),
        logs: folder.join("logs"),
        data: folder.join("data"),
        keelson: keelson.to_owned(),
    };
    // Some tests start a cluster already when they are asked for their names.
    std::fs::create_dir_all(&places.data).context("making a folder for the tests' data")?;
    let package = fetch(&folder)?;
    let overlay = overlay(ours)?;
    let stamp = stamp(&overlay, listed);
    let stamped = folder.join("stamp");
    if std::fs::read_to_string(&stamped).is_ok_and(|old| old == stamp) {
        link(&places)?;
        return Ok(places);
    }
    println!("== building etcd's tests");
    unpack(&package, &gopath)?;
    lay(ours, &overlay, listed, &places.etcd)?;
    build(&places)?;
    link(&places)?;
    std::fs::write(&stamped, stamp).context("noting what was built")?;
    Ok(places)
}

/// Builds our load by etcd's Go client; returns the program.
pub(super) fn build_load(ours: &Path, cache: &Path) -> Result<PathBuf> {
    let folder = cache.join("interop/load-3.4");
    std::fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    let gopath = folder.join("gopath");
    let package = fetch(&cache.join("interop/etcd-3.4"))?;
    if !gopath.exists() {
        unpack(&package, &gopath)?;
    }
    let (etcd, program) = (gopath.join("src/go.etcd.io/etcd"), folder.join("load"));
    std::fs::create_dir_all(etcd.join("load")).context("making a folder for the load's source")?;
    std::fs::copy(ours.join("load/main.go"), etcd.join("load/main.go")).context("laying the load's source")?;
    let mut build = go_in(&etcd, &format!("{}:{GOCODE}", gopath.display()), &folder.join("gocache"), "build");
    must(build.arg("-o").arg(&program).arg("./load"))?;
    Ok(program)
}

fn fetch(folder: &Path) -> Result<PathBuf> {
    let file = folder.join(format!("{PACKAGE}_{VERSION}_all.deb"));
    std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    if !file.exists() {
        println!("fetching: {PACKAGE} {VERSION} (etcd's tests)");
        let asked = Command::new("apt-get")
            .args(["download", &format!("{PACKAGE}={VERSION}")])
            .current_dir(folder)
            .status()
            .context("running apt-get download")?;
        if !asked.success() {
            bail!(
                "Debian's {PACKAGE} {VERSION} isn't to be had here; it is in Debian 12 (bookworm). From elsewhere, put \
                 it at {}",
                file.display()
            );
        }
    }
    let sum = Command::new("sha256sum").arg(&file).output().context("running sha256sum")?;
    if !String::from_utf8_lossy(&sum.stdout).starts_with(SHA256) {
        bail!("{} isn't the file that it should be; remove it and try again", file.display());
    }
    Ok(file)
}

/// Our files by their paths below etcd's source.
fn overlay(ours: &Path) -> Result<BTreeMap<PathBuf, Vec<u8>>> {
    let mut files = BTreeMap::new();
    for suite in &SUITES {
        let dir = ours.join(suite.package);
        // Not every suite needs something of ours.
        for entry in std::fs::read_dir(&dir).into_iter().flatten() {
            let path = entry.with_context(|| format!("reading {}", dir.display()))?.path();
            let name = path.file_name().context("a file without a name")?;
            files.insert(Path::new(suite.package).join(name), std::fs::read(&path)?);
        }
    }
    files.insert("changes.patch".into(), std::fs::read(ours.join("changes.patch")).context("reading our changes")?);
    Ok(files)
}

fn stamp(overlay: &BTreeMap<PathBuf, Vec<u8>>, listed: &[Skipped]) -> String {
    let mut hasher = DefaultHasher::new();
    overlay.hash(&mut hasher);
    listed.iter().filter_map(Skipped::file).for_each(|file| file.hash(&mut hasher));
    format!("{VERSION} {:x}", hasher.finish())
}

/// Removes a folder, if it is there.
pub(super) fn remove(dir: &Path) -> Result<()> {
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", dir.display()))
        }
        _ => Ok(()),
    }
}

fn unpack(package: &Path, gopath: &Path) -> Result<()> {
    let unpacked = gopath.with_extension("new");
    remove(gopath)?;
    remove(&unpacked)?;
    must(Command::new("dpkg-deb").arg("-x").arg(package).arg(&unpacked))?;
    std::fs::rename(unpacked.join(GOCODE.trim_start_matches('/')), gopath).context("placing etcd's source")?;
    remove(&unpacked)
}

/// Puts our files over etcd's.
fn lay(ours: &Path, overlay: &BTreeMap<PathBuf, Vec<u8>>, listed: &[Skipped], etcd: &Path) -> Result<()> {
    must(Command::new("patch").args(["-p1", "--silent", "--input"]).arg(ours.join("changes.patch")).current_dir(etcd))?;
    for file in listed.iter().filter_map(Skipped::file) {
        std::fs::remove_file(etcd.join(file)).with_context(|| format!("leaving out {file}"))?;
    }
    for (path, bytes) in overlay {
        std::fs::write(etcd.join(path), bytes).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

/// Puts programs where the e2e tests look for them: under etcd's name, ours is its store.
fn link(places: &Places) -> Result<()> {
    let bin = places.etcd.join("bin");
    std::fs::create_dir_all(&bin).with_context(|| format!("making {}", bin.display()))?;
    for (name, program) in [("etcd", places.keelson.as_path()), ("etcdctl", Path::new(ETCDCTL))] {
        let link = bin.join(name);
        if std::fs::read_link(&link).is_ok_and(|old| old == program) {
            continue;
        }
        // What is there leads elsewhere, or nowhere.
        let _ = std::fs::remove_file(&link);
        std::os::unix::fs::symlink(program, &link).with_context(|| format!("linking {}", link.display()))?;
    }
    Ok(())
}

fn go(places: &Places, what: &str) -> Command {
    go_in(&places.etcd, &places.gopath, &places.gocache, what)
}

fn go_in(etcd: &Path, gopath: &str, gocache: &Path, what: &str) -> Command {
    let mut command = Command::new("go");
    command.arg(what).current_dir(etcd).env("GOPATH", gopath).env("GOCACHE", gocache);
    command.envs([("GO111MODULE", "off"), ("GOFLAGS", ""), ("CGO_ENABLED", "0")]);
    command
}

fn build(places: &Places) -> Result<()> {
    std::fs::create_dir_all(&places.programs).context("making a folder for the tests' programs")?;
    for suite in &SUITES {
        let program = places.programs.join(suite.name);
        must(go(places, "test").args(["-c", "-vet=off", "-o"]).arg(program).arg(format!("./{}", suite.package)))?;
    }
    let mut functional = go(places, "build");
    functional.arg("-o").arg(format!("{}/", places.programs.display()));
    must(functional.args(FUNCTIONAL.map(|program| format!("./functional/cmd/{program}"))))
}
