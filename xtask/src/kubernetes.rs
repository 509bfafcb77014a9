//! `cargo xtask interop kubernetes`: Kubernetes' own control plane on `keelson store`, with churn and disturbances.
//!
//! Kubernetes is Debian's source package, pinned; it brings every Go package that it needs, so that nothing but Go is
//! asked for. The programs are built once, below the cache. The run itself is the example `kubernetes` of the benches.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::must;

const VERSION: &str = "1.20.5+really1.20.2-1.1+deb12u1";
const SOURCE: &str = "kubernetes_1.20.5+really1.20.2.orig.tar.gz";
const SHA256: &str = "b83c0780efb182d928dc63d46488a847f161f04e40a94b96bf5247dd671ecdfc";
/// What is built.
const PROGRAMS: [&str; 4] = ["kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubemark"];
/// Where Go looks for Kubernetes below its folder.
const PACKAGE: &str = "k8s.io/kubernetes";
/// Hollow nodes share a machine here: each listens on loopback, and has a runtime of its own.
const CHANGES: [(&str, &str, &str); 3] = [
    ("pkg/kubemark/hollow_kubelet.go", "c.Address = \"0.0.0.0\"", "c.Address = \"127.0.0.1\""),
    (
        "pkg/kubelet/cri/remote/fake/endpoint.go",
        "const (\n\tdefaultUnixEndpoint = \"unix:///tmp/kubelet_remote.sock\"\n)",
        "import \"os\"",
    ),
    (
        "pkg/kubelet/cri/remote/fake/endpoint.go",
        "return defaultUnixEndpoint, nil",
        "return \"unix://\" + os.TempDir() + \"/kubelet_remote.sock\", nil",
    ),
];

/// The folder of Kubernetes' programs below the cache; fetches and builds what isn't there yet.
pub(crate) fn programs(cache: &Path) -> Result<PathBuf> {
    let folder = cache.join("kubernetes-1.20.2");
    let built = folder.join("bin");
    if PROGRAMS.iter().all(|program| built.join(program).is_file()) {
        return Ok(built);
    }
    println!("== building Kubernetes 1.20.2: ten minutes of two cores, once");
    let gopath = folder.join("go");
    let source = gopath.join("src").join(PACKAGE);
    if !source.join("go.mod").is_file() {
        unpack(&fetch(&folder)?, &source)?;
    }
    generate(&folder, &gopath, &source)?;
    // Whole or not at all: what was cut off is built again.
    let unfinished = folder.join("bin.new");
    std::fs::create_dir_all(&unfinished).with_context(|| format!("making {}", unfinished.display()))?;
    let version = format!("{PACKAGE}/vendor/k8s.io/component-base/version");
    let mut flags = String::from("-s -w");
    for (name, value) in [("gitVersion", "v1.20.2"), ("gitMajor", "1"), ("gitMinor", "20"), ("gitTreeState", "clean")] {
        write!(flags, " -X {version}.{name}={value}")?;
    }
    let mut build = go(&folder, &gopath, &source, "build");
    build.args(["-p", "2", "-ldflags", &flags, "-o"]).arg(format!("{}/", unfinished.display()));
    must(build.args(PROGRAMS.map(|program| format!("./cmd/{program}"))))?;
    std::fs::rename(&unfinished, &built).with_context(|| format!("placing {}", built.display()))?;
    Ok(built)
}

fn go(folder: &Path, gopath: &Path, source: &Path, what: &str) -> Command {
    let mut command = Command::new("go");
    command.arg(what).current_dir(source).env("GOPATH", gopath).env("GOCACHE", folder.join("gocache"));
    command.envs([("GO111MODULE", "off"), ("GOFLAGS", ""), ("GOPROXY", "off"), ("CGO_ENABLED", "0")]);
    command
}

/// Debian's source, checked. Debian's own lists may not name sources: this asks for one with lists of its own.
fn fetch(folder: &Path) -> Result<PathBuf> {
    let file = folder.join(SOURCE);
    let lists = folder.join("lists");
    std::fs::create_dir_all(lists.join("partial")).with_context(|| format!("making {}", lists.display()))?;
    if !file.exists() {
        println!("fetching: kubernetes {VERSION} (source, 34 MB)");
        let sources = folder.join("sources.list");
        let line = "deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] \
                    http://deb.debian.org/debian bookworm main\n";
        std::fs::write(&sources, line).with_context(|| format!("writing {}", sources.display()))?;
        let apt = || {
            let mut command = Command::new("apt-get");
            command.current_dir(folder).args(["-o", "Dir::Etc::sourceparts=/dev/null"]);
            command.arg("-o").arg(format!("Dir::Etc::sourcelist={}", sources.display()));
            command.arg("-o").arg(format!("Dir::State::lists={}", lists.display()));
            command
        };
        must(apt().arg("update"))?;
        must(apt().args(["source", "--download-only", &format!("kubernetes={VERSION}")]))?;
    }
    let sum = Command::new("sha256sum").arg(&file).output().context("running sha256sum")?;
    if !String::from_utf8_lossy(&sum.stdout).starts_with(SHA256) {
        bail!("{} isn't the file that it should be; remove it and try again", file.display());
    }
    Ok(file)
}

fn unpack(archive: &Path, source: &Path) -> Result<()> {
    let unfinished = source.with_extension("new");
    // What was cut off.
    let _ = std::fs::remove_dir_all(&unfinished);
    std::fs::create_dir_all(&unfinished).with_context(|| format!("making {}", unfinished.display()))?;
    must(Command::new("tar").arg("-xzf").arg(archive).args(["--strip-components=1", "-C"]).arg(&unfinished))?;
    for (path, old, new) in CHANGES {
        let path = unfinished.join(path);
        let text = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        if !text.contains(old) {
            bail!("{} doesn't hold {old:?}", path.display());
        }
        std::fs::write(&path, text.replace(old, new)).with_context(|| format!("writing {}", path.display()))?;
    }
    std::fs::rename(&unfinished, source).with_context(|| format!("placing {}", source.display()))
}

/// Makes the one file that Kubernetes' source leaves to its build: the description of its API.
fn generate(folder: &Path, gopath: &Path, source: &Path) -> Result<()> {
    let described = Command::new("grep")
        .args(["-rl", "--include=*.go", "+k8s:openapi-gen=", "pkg", "cmd", "staging/src/k8s.io"])
        .current_dir(source)
        .output()
        .context("running grep")?;
    let described = String::from_utf8(described.stdout).context("names of files")?;
    let mut dirs: Vec<String> = described
        .lines()
        .filter(|file| !file.contains("code-generator") && !file.contains("sample-apiserver"))
        .filter_map(|file| file.rsplit_once('/'))
        .map(|(dir, _)| format!("{PACKAGE}/{}", dir.replacen("staging/src/", "vendor/", 1)))
        .collect();
    dirs.sort();
    dirs.dedup();
    let mut generate = go(folder, gopath, source, "run");
    generate.args(["./vendor/k8s.io/kube-openapi/cmd/openapi-gen", "-O", "zz_generated.openapi"]);
    generate.args(["-p", &format!("{PACKAGE}/pkg/generated/openapi"), "-i", &dirs.join(",")]);
    generate.args(["-h", "hack/boilerplate/boilerplate.generatego.txt", "-r"]).arg(folder.join("violations.report"));
    must(generate.arg("--output-base").arg(gopath.join("src")))
}
