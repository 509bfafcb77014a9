//! Three members, each in a network namespace of its own on one bridge, and the clients at the bridge itself.
//!
//! ```text
//! m0, m1, m2: 10.77.0.11-13 ── br0 10.77.0.1 [hub: clients]
//! ```
//! Members are cut off from each other by rules where packets come in. Clients reach everybody all the time.

use std::fs::File;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns};

pub(super) const MEMBERS: usize = 3;
/// Of namespaces and folders; the process's number follows, and that of the network in it.
const PREFIX: &str = "ksp";

/// Networks that this process has made.
static MADE: AtomicU32 = AtomicU32::new(0);

/// Namespaces and file systems; they go with the value.
pub(super) struct Network {
    prefix: String,
    mounts: Vec<std::path::PathBuf>,
}

pub(super) fn address(member: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, 11 + u8::try_from(member).expect("few members"))
}

fn must(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output();
    let output = output.unwrap_or_else(|error| {
        panic!("{program} can't be run ({error}): install nftables and iproute2 (apt-get install nftables iproute2)")
    });
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {}: {complaint}", arguments.join(" "));
}

fn ip(arguments: &str) {
    must("ip", &arguments.split_whitespace().collect::<Vec<_>>());
}

/// Whether a name was given by a process that is no more.
fn is_left_over(name: &str) -> bool {
    let process = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
    process
        .is_some_and(|p| !p.is_empty() && p.bytes().all(|b| b.is_ascii_digit()) && !Path::new("/proc").join(p).exists())
}

/// What killed runs left.
fn sweep() {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    for path in mounts.lines().filter_map(|line| line.split_whitespace().nth(1)) {
        if Path::new(path).iter().any(|part| is_left_over(&part.to_string_lossy())) {
            // Another run may sweep at the same time.
            let _ = umount2(path, MntFlags::MNT_DETACH);
        }
    }
    let names = Command::new("ip").args(["netns", "list"]).output().map(|output| output.stdout).unwrap_or_default();
    for name in String::from_utf8_lossy(&names).lines().filter_map(|line| line.split_whitespace().next()) {
        if is_left_over(name) {
            let _ = Command::new("ip").args(["netns", "del", name]).output();
        }
    }
}

impl Network {
    pub(super) fn new() -> Self {
        must("nft", &["--version"]);
        sweep();
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let network = Self { prefix: format!("{PREFIX}{}-{number}-", std::process::id()), mounts: Vec::new() };
        let hub = network.name("hub");
        ip(&format!("netns add {hub}"));
        ip(&format!("-n {hub} link set lo up"));
        ip(&format!("-n {hub} link add br0 type bridge"));
        ip(&format!("-n {hub} address add 10.77.0.1/24 dev br0"));
        ip(&format!("-n {hub} link set br0 up"));
        for member in 0..MEMBERS {
            let name = network.member(member);
            ip(&format!("netns add {name}"));
            ip(&format!("-n {name} link set lo up"));
            ip(&format!("-n {hub} link add m{member} type veth peer name eth0 netns {name}"));
            ip(&format!("-n {hub} link set m{member} master br0 up"));
            ip(&format!("-n {name} address add {}/24 dev eth0", address(member)));
            ip(&format!("-n {name} link set eth0 up"));
        }
        network
    }

    /// A name that sweeping knows.
    pub(super) fn name(&self, what: &str) -> String {
        format!("{}{what}", self.prefix)
    }

    fn member(&self, member: usize) -> String {
        self.name(&format!("m{member}"))
    }

    /// Mounts a small file system of its own on a folder.
    pub(super) fn mount(&mut self, folder: &Path, bytes: u64) {
        std::fs::create_dir_all(folder).expect("a folder");
        let size = format!("size={bytes}");
        mount(Some("tmpfs"), folder, Some("tmpfs"), MsFlags::empty(), Some(size.as_str()))
            .expect("mounting needs root");
        self.mounts.push(folder.to_owned());
    }

    /// Runs something on a thread in a member's namespace.
    pub(super) fn at<T: Send + 'static>(
        &self,
        member: usize,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> JoinHandle<T> {
        inside(self.member(member), work)
    }

    /// What `from` sends doesn't arrive at `to` any more.
    pub(super) fn cut(&self, from: usize, to: usize) {
        let rule = format!(
            "add table ip faults; add chain ip faults input {{ type filter hook input priority 0; }}; \
             add rule ip faults input ip saddr {} drop",
            address(from)
        );
        must("ip", &["netns", "exec", &self.member(to), "nft", &rule]);
    }

    /// Everything arrives again.
    pub(super) fn heal(&self) {
        for member in 0..MEMBERS {
            let rules = "add table ip faults; delete table ip faults";
            must("ip", &["netns", "exec", &self.member(member), "nft", rules]);
        }
    }
}

/// Runs something on a thread in a namespace. Threads and processes that it starts are there as well.
pub(super) fn inside<T: Send + 'static>(namespace: String, work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    std::thread::spawn(move || {
        let namespace = File::open(format!("/run/netns/{namespace}")).expect("a namespace");
        setns(namespace, CloneFlags::CLONE_NEWNET).expect("entering a namespace needs root");
        work()
    })
}

impl Drop for Network {
    fn drop(&mut self) {
        for folder in &self.mounts {
            let _ = umount2(folder, MntFlags::MNT_DETACH);
        }
        let members = (0..MEMBERS).map(|member| self.member(member));
        for name in members.chain([self.name("hub")]) {
            let _ = Command::new("ip").args(["netns", "del", &name]).output();
        }
    }
}
