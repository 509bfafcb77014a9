//! What this machine is, as the node's status tells.

use std::path::Path;

/// The machine.
#[derive(Debug, Clone)]
pub(crate) struct Machine {
    pub(crate) cpus: usize,
    pub(crate) memory_bytes: u64,
    pub(crate) disk_bytes: u64,
    /// As Go names it.
    pub(crate) architecture: &'static str,
    pub(crate) kernel: String,
    pub(crate) os_image: String,
    pub(crate) machine_id: String,
    pub(crate) boot_id: String,
}

fn line(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

/// Reads what the kernel and `/etc` say; `data_dir` is on the disk that pods use.
pub(crate) fn read(data_dir: &Path) -> Machine {
    let memory = line("/proc/meminfo");
    let total = memory.lines().find_map(|l| l.strip_prefix("MemTotal:"));
    let kibibytes = total.and_then(|t| t.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or(0);
    let release = line("/etc/os-release");
    let pretty = release.lines().find_map(|l| l.strip_prefix("PRETTY_NAME=")).unwrap_or("Linux");
    let disk = nix::sys::statvfs::statvfs(data_dir).map_or(0, |s| s.blocks() * s.fragment_size());
    Machine {
        cpus: std::thread::available_parallelism().map_or(1, usize::from),
        memory_bytes: kibibytes * 1024,
        disk_bytes: disk,
        architecture: match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        },
        kernel: line("/proc/sys/kernel/osrelease"),
        os_image: pretty.trim_matches('"').to_owned(),
        machine_id: line("/etc/machine-id"),
        boot_id: line("/proc/sys/kernel/random/boot_id"),
    }
}
