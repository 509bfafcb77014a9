//! What a data folder remembers of its cluster: ports, member names, the node.
//!
//! Chosen at the first start and kept: the store's membership holds peer URLs.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

/// Where store ports are looked for: above etcd's own, below the node ports of services.
const STORE_PORTS_FROM: u16 = 12379;
/// Each cluster begins somewhere in this many ports, so that two that start together seldom meet.
const STORE_PORTS_SPREAD: u16 = 15_000;
/// Members of the store of a new cluster that asks for no number.
const STORE_MEMBERS: usize = 3;

/// A member of the store.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Member {
    pub(crate) name: String,
    pub(crate) client_port: u16,
    pub(crate) peer_port: u16,
}

/// The remembered settings.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Cluster {
    pub(crate) token: String,
    pub(crate) members: Vec<Member>,
    pub(crate) node: String,
    /// Where the node serves logs and exec.
    pub(crate) agent_port: u16,
}

/// Places in a data folder.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    pub(crate) root: PathBuf,
}

impl Layout {
    pub(crate) fn pki(&self) -> PathBuf {
        self.root.join("pki")
    }
    pub(crate) fn logs(&self) -> PathBuf {
        self.root.join("logs")
    }
    pub(crate) fn log(&self, component: &str) -> PathBuf {
        self.logs().join(format!("{component}.log"))
    }
    pub(crate) fn state(&self) -> PathBuf {
        self.root.join("state.json")
    }
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.root.join("kubeconfig")
    }
    pub(crate) fn member(&self, name: &str) -> PathBuf {
        self.root.join("store").join(name)
    }
    fn cluster(&self) -> PathBuf {
        self.root.join("cluster.json")
    }
    pub(crate) fn containerd(&self) -> agent_node::containerd::Layout {
        agent_node::containerd::Layout::new(&self.root)
    }
    /// Archives that wait to be imported.
    pub(crate) fn images(&self) -> PathBuf {
        self.root.join("images")
    }
    /// Pods' volumes and logs.
    pub(crate) fn agent(&self) -> PathBuf {
        self.root.join("agent")
    }
    pub(crate) fn lock(&self) -> PathBuf {
        self.root.join("lock")
    }
}

/// Reads what the folder remembers.
pub(crate) fn load(layout: &Layout) -> Result<Cluster> {
    let path = layout.cluster();
    let text = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| {
        format!("{} is damaged: restore it, or remove the folder with `keelson down --purge`", path.display())
    })
}

/// Reads what the folder remembers, or chooses and remembers.
pub(crate) fn load_or_create(layout: &Layout, store_members: Option<usize>) -> Result<Cluster> {
    let path = layout.cluster();
    if path.exists() {
        let cluster = load(layout)?;
        if let Some(asked) = store_members
            && asked != cluster.members.len()
        {
            bail!(
                "the data in {} belongs to {} store member(s), not {asked}: leave out --store-members, or choose another --data-dir",
                layout.root.display(),
                cluster.members.len()
            );
        }
        return Ok(cluster);
    }
    let mut taken = Vec::new();
    let token = uuid::Uuid::new_v4();
    let spread = u16::from_be_bytes([token.as_bytes()[0], token.as_bytes()[1]]) % STORE_PORTS_SPREAD;
    let from = STORE_PORTS_FROM + spread;
    let mut next = || free_port(from, &mut taken);
    let members = (1..=store_members.unwrap_or(STORE_MEMBERS))
        .map(|i| Ok(Member { name: format!("store-{i}"), client_port: next()?, peer_port: next()? }))
        .collect::<Result<Vec<_>>>()?;
    let agent_port = next()?;
    let cluster = Cluster { token: token.to_string(), members, node: host_name()?, agent_port };
    let text = serde_json::to_string_pretty(&cluster)?;
    std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    Ok(cluster)
}

fn free_port(from: u16, taken: &mut Vec<u16>) -> Result<u16> {
    let is_free = |port: u16| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok();
    let found = (from..from.saturating_add(2000)).find(|port| !taken.contains(port) && is_free(*port));
    let port = found.with_context(|| format!("no free port between {from} and {}", from.saturating_add(2000)))?;
    taken.push(port);
    Ok(port)
}

/// Refuses a port that somebody else listens on.
fn check_port(port: u16, what: &str, hint: &str) -> Result<()> {
    match TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)) {
        Ok(_) => Ok(()),
        Err(error) => bail!("port {port} ({what}) is not free: {error}; {hint}"),
    }
}

/// Refuses ports that are in use before anything is started.
pub(crate) fn check_ports(cluster: &Cluster, api_port: u16) -> Result<()> {
    check_port(api_port, "the Kubernetes API", "stop what uses it or choose another with --port")?;
    let hint = "stop what uses it; the port belongs to this data folder";
    for member in &cluster.members {
        check_port(member.client_port, &format!("{}'s clients", member.name), hint)?;
        check_port(member.peer_port, &format!("{}'s peers", member.name), hint)?;
    }
    check_port(cluster.agent_port, "logs and exec", hint)
}

/// The node's name: the host's, as Kubernetes takes it.
fn host_name() -> Result<String> {
    let name = nix::unistd::gethostname().context("reading the host's name")?.to_string_lossy().to_lowercase();
    Ok(name.trim_end_matches('.').to_owned())
}

/// The address by which the machine reaches others; loopback if it reaches none.
pub(crate) fn own_address() -> IpAddr {
    // Connecting a UDP socket sends nothing: it only chooses a route.
    let route = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).and_then(|socket| {
        socket.connect(SocketAddr::from(([192, 0, 2, 1], 9)))?;
        socket.local_addr()
    });
    route.map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |address| address.ip())
}

/// Where data is kept unless told otherwise.
pub(crate) fn default_data_dir() -> PathBuf {
    if nix::unistd::geteuid().is_root() {
        return PathBuf::from("/var/lib/keelson");
    }
    let home = std::env::var_os("HOME").map_or_else(|| PathBuf::from("."), PathBuf::from);
    std::env::var_os("XDG_DATA_HOME").map_or_else(|| home.join(".local/share"), PathBuf::from).join("keelson")
}

/// Makes the folder; says what to do if it can't be used.
pub(crate) fn open_folder(root: &Path) -> Result<Layout> {
    let advice = || format!("can't use {} as data folder: choose another with --data-dir", root.display());
    std::fs::create_dir_all(root).with_context(advice)?;
    let root = root.canonicalize().with_context(advice)?;
    let layout = Layout { root };
    std::fs::create_dir_all(layout.logs()).with_context(advice)?;
    Ok(layout)
}
