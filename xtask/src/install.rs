//! What the machine must have: said, with the reason, and installed.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// A need and Debian's package that meets it.
pub(crate) struct Need {
    /// A program on PATH, or a file if it begins with a slash; `*` stands for any version.
    looked_for: &'static str,
    package: &'static str,
    why: &'static str,
}

const fn need(looked_for: &'static str, package: &'static str, why: &'static str) -> Need {
    Need { looked_for, package, why }
}

const LIBCLANG: Need = need("/usr/lib/llvm-*/lib/libclang.so", "libclang-dev", "generates the bindings of RocksDB");
const CXX: Need = need("clang++", "clang", "compiles RocksDB, in two thirds of g++'s time");
const CC: Need = need("cc", "gcc", "links programs and compiles the allocator");
const PROTOC: Need = need("protoc", "protobuf-compiler", "compiles the messages of the etcd-client crate");
const PROTOS: Need =
    need("/usr/include/google/protobuf/any.proto", "libprotobuf-dev", "holds messages that etcd's import");
const KUBECTL: Need = need("kubectl", "kubernetes-client", "talks to the cluster");

const CONTAINERD: Need = need("containerd", "containerd", "runs containers");
const RUNC: Need = need("runc", "runc", "starts a container's process");
const CNI: Need = need("/usr/lib/cni/bridge", "containernetworking-plugins", "gives pods their network");
const NFT: Need = need("nft", "nftables", "leads services' addresses to pods");
const IP: Need = need("ip", "iproute2", "removes the pods' bridge when the cluster stops");
const BUSYBOX: Need = need("busybox", "busybox-static", "is what the demo image is made from");

/// To build and run a cluster.
pub(crate) const FOR_UP: &[Need] = &[LIBCLANG, CXX, CC, PROTOC, PROTOS, KUBECTL];

/// For pods that are more than hollow.
pub(crate) const FOR_CONTAINERS: &[Need] = &[CONTAINERD, RUNC, CNI, NFT, IP, BUSYBOX];

/// To run the tests as well.
pub(crate) const FOR_TESTS: &[Need] = &[
    LIBCLANG,
    CXX,
    CC,
    PROTOC,
    PROTOS,
    KUBECTL,
    CONTAINERD,
    RUNC,
    CNI,
    NFT,
    IP,
    BUSYBOX,
    need("docker-registry", "docker-registry", "serves an image that a test pulls"),
    need("script", "bsdutils", "gives kubectl exec -it a terminal"),
    need("pgrep", "procps", "finds processes that should have ended"),
    need("strace", "strace", "tells when a member syncs its log"),
    need("etcd", "etcd-server", "is the store that the apiserver's tests run on"),
    need("etcdctl", "etcd-client", "is what the store's tests use it with"),
    need("curl", "curl", "asks the HTTP endpoints"),
];

/// To measure the store beside etcd.
pub(crate) const FOR_COMPARISON: &[Need] =
    &[need("/usr/bin/etcd", "etcd-server", "is what the store is compared with")];

/// To count instructions.
pub(crate) const FOR_COUNTING: &[Need] = &[need("valgrind", "valgrind", "counts the instructions of a write's stages")];

/// To run etcd's own tests. etcd's package brings the Go packages that it needs.
pub(crate) const FOR_INTEROP: &[Need] = &[
    need("go", "golang-go", "compiles etcd's tests"),
    need("/usr/share/gocode/src/go.etcd.io/etcd/raft/doc.go", "golang-etcd-server-dev", "holds what etcd's tests use"),
    need(
        "/usr/share/gocode/src/github.com/stretchr/testify/doc.go",
        "golang-github-stretchr-testify-dev",
        "is used by etcd's tests",
    ),
    need("/usr/bin/etcdctl", "etcd-client", "is what etcd's tests drive"),
    need("patch", "patch", "changes etcd's tests"),
    need("curl", "curl", "asks the HTTP endpoints"),
];

/// To build Kubernetes.
pub(crate) const FOR_KUBERNETES: &[Need] = &[need("go", "golang-go", "compiles Kubernetes")];

fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = std::env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    dirs.map(|dir| dir.join(program)).any(|file| file.is_file())
}

/// Whether a file is there; one component may hold a `*` at its end.
fn is_there(pattern: &str) -> bool {
    let Some((before, after)) = pattern.split_once('*') else { return Path::new(pattern).exists() };
    let before = Path::new(before);
    let (Some(dir), Some(start)) = (before.parent(), before.file_name().and_then(|n| n.to_str())) else { return false };
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut matching = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(start));
    matching.any(|entry| entry.path().join(after.trim_start_matches('/')).exists())
}

fn is_met(need: &Need) -> bool {
    if need.looked_for.starts_with('/') { is_there(need.looked_for) } else { on_path(need.looked_for) }
}

/// Installs what is missing by apt-get; without root, says what to install.
pub(crate) fn ensure(needs: &[Need]) -> Result<()> {
    let missing: Vec<&Need> = needs.iter().filter(|need| !is_met(need)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    for need in &missing {
        println!("missing: {} ({})", need.package, need.why);
    }
    let packages: Vec<&str> = missing.iter().map(|need| need.package).collect();
    if !is_root() || !on_path("apt-get") {
        bail!("install what is missing and try again: sudo apt-get install {}", packages.join(" "));
    }
    apt_get(&["update"])?;
    let mut arguments = vec!["install", "-y", "--no-install-recommends"];
    arguments.extend(&packages);
    apt_get(&arguments)?;
    match missing.iter().find(|need| !is_met(need)) {
        None => Ok(()),
        Some(need) => bail!("{} was installed, yet {} isn't there", need.package, need.looked_for),
    }
}

/// Whether this process may install and run containers.
pub(crate) fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|m| std::os::unix::fs::MetadataExt::uid(&m) == 0)
}

/// Debian's own kubectl, of an old version, unpacked into `dir` beside whatever kubectl is installed.
/// Without Debian's archive it is left out.
pub(crate) fn debian_kubectl(dir: &Path) -> Result<Option<PathBuf>> {
    let program = dir.join("usr/bin/kubectl");
    if program.is_file() {
        return Ok(Some(program));
    }
    if !on_path("apt-get") || !on_path("dpkg-deb") {
        return Ok(None);
    }
    println!("fetching: kubernetes-client (the oldest kubectl that is tested)");
    std::fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
    let fetched = Command::new("apt-get").args(["download", "kubernetes-client"]).current_dir(dir).status();
    if !fetched.context("running apt-get download")?.success() {
        apt_get(&["update"])?;
        let again = Command::new("apt-get").args(["download", "kubernetes-client"]).current_dir(dir).status();
        if !again.context("running apt-get download")?.success() {
            bail!("apt-get download kubernetes-client failed");
        }
    }
    let entries = std::fs::read_dir(dir).with_context(|| format!("reading {}", dir.display()))?;
    let archive = entries.flatten().map(|e| e.path()).find(|p| p.extension().is_some_and(|e| e == "deb"));
    let archive = archive.context("apt-get download left no package")?;
    let status = Command::new("dpkg-deb").arg("-x").arg(&archive).arg(dir).status().context("running dpkg-deb")?;
    if !status.success() || !program.is_file() {
        bail!("{} holds no kubectl", archive.display());
    }
    Ok(Some(program))
}

fn apt_get(arguments: &[&str]) -> Result<()> {
    let status = Command::new("apt-get").args(arguments).env("DEBIAN_FRONTEND", "noninteractive").status();
    let status = status.context("running apt-get")?;
    if status.success() { Ok(()) } else { bail!("apt-get {} ended with {status}", arguments.join(" ")) }
}
