//! A containerd of our own: its configuration, and what it needs on the machine.
//!
//! It keeps its root, state and socket below the data folder, so that it neither
//! sees nor touches another containerd's containers.
//!
//! Source: containerd 1.6/1.7 `docs/cri/config.md` (configuration version 2).

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};

/// Folders in which distributions put CNI's plugins, in the order they are looked for.
pub const CNI_BIN_DIRS: [&str; 3] = ["/opt/cni/bin", "/usr/lib/cni", "/usr/libexec/cni"];
/// The bridge that pods are on.
pub const BRIDGE: &str = "keelson0";
/// Plugins that the nodes' network uses.
pub const CNI_PLUGINS: [&str; 3] = ["bridge", "host-local", "loopback"];

/// Places of a private containerd.
#[derive(Debug, Clone)]
pub struct Layout {
    /// Its folder below the data folder.
    pub root: PathBuf,
}

impl Layout {
    /// Below this data folder.
    #[must_use]
    pub fn new(data_dir: &Path) -> Self {
        Self { root: data_dir.join("containerd") }
    }

    /// The socket it listens on.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.root.join("containerd.sock")
    }

    /// Its configuration file.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.root.join("config.toml")
    }

    /// Where CNI's configuration is.
    #[must_use]
    pub fn cni_config(&self) -> PathBuf {
        self.root.join("cni")
    }

    /// Where registries are described, a folder each.
    #[must_use]
    pub fn registries(&self) -> PathBuf {
        self.root.join("certs.d")
    }
}

/// The folder that holds all of [`CNI_PLUGINS`].
#[must_use]
pub fn cni_bin_dir() -> Option<&'static str> {
    CNI_BIN_DIRS.into_iter().find(|dir| CNI_PLUGINS.iter().all(|plugin| Path::new(dir).join(plugin).is_file()))
}

/// Writes the configurations of containerd and CNI.
///
/// `sandbox_image` is what every pod's sandbox runs; `pod_network` is where pods
/// get addresses from.
///
/// # Errors
/// What the file system refuses.
pub fn write_config(layout: &Layout, cni_bin_dir: &str, sandbox_image: &str, pod_network: &str) -> io::Result<()> {
    for dir in [layout.cni_config(), layout.registries()] {
        std::fs::create_dir_all(dir)?;
    }
    std::fs::write(layout.config(), config(layout, cni_bin_dir, sandbox_image))?;
    std::fs::write(layout.cni_config().join("10-keelson.conflist"), conflist(layout, pod_network))
}

/// A TOML basic string. Paths are the only thing quoted here.
fn quoted(text: impl std::fmt::Display) -> String {
    format!("\"{}\"", text.to_string().replace('\\', "\\\\").replace('"', "\\\""))
}

fn config(layout: &Layout, cni_bin_dir: &str, sandbox_image: &str) -> String {
    let at = |name: &str| quoted(layout.root.join(name).display());
    let mut text = String::from("# Written at every start.\nversion = 2\n");
    // Writing to a string can't fail.
    let _ = write!(
        text,
        r#"root = {root}
state = {state}
disabled_plugins = ["io.containerd.internal.v1.opt", "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs", "io.containerd.internal.v1.tracing", "io.containerd.tracing.processor.v1.otlp"]

[grpc]
  address = {socket}

[ttrpc]
  address = {ttrpc}

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = {image}
  # Lowering a score needs a right that containers' hosts may lack; harmless elsewhere.
  restrict_oom_score_adj = true
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"
  enable_unprivileged_ports = true
  enable_unprivileged_icmp = true

  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"

  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"

  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = {bin}
    conf_dir = {conf}

  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = {registries}
"#,
        root = at("root"),
        state = at("state"),
        socket = at("containerd.sock"),
        ttrpc = at("containerd.sock.ttrpc"),
        image = quoted(sandbox_image),
        bin = quoted(cni_bin_dir),
        conf = at("cni"),
        registries = at("certs.d"),
    );
    text
}

/// A bridge per node. Hairpin lets a pod reach itself through a service; what leaves
/// for other networks is masqueraded by the agent's own rules, not by iptables.
fn conflist(layout: &Layout, pod_network: &str) -> String {
    let list = serde_json::json!({
        "cniVersion": "0.4.0",
        "name": "keelson",
        "plugins": [{
            "type": "bridge",
            "bridge": BRIDGE,
            "isGateway": true,
            "ipMasq": false,
            "hairpinMode": true,
            "promiscMode": false,
            "ipam": {
                "type": "host-local",
                "dataDir": layout.root.join("addresses"),
                "ranges": [[{"subnet": pod_network}]],
                "routes": [{"dst": "0.0.0.0/0"}],
            },
        }],
    });
    format!("{list:#}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_stays_in_the_folder() {
        let text = config(&Layout::new(Path::new("/d \"x\"")), "/usr/lib/cni", "keelson.local/pause:1");
        for line in text.lines().filter(|l| l.contains("/d ")) {
            assert!(line.contains("\"/d \\\"x\\\"/containerd/"), "{line}");
        }
        assert!(text.contains("sandbox_image = \"keelson.local/pause:1\""), "{text}");
    }
}
