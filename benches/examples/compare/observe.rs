//! What members cost: CPU, memory, syncs, disk; and what the machine is.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::cluster::Cluster;

const ANSWER_MAX: Duration = Duration::from_secs(10);
/// Syncs that the machine is tried with.
const SYNCS: usize = 200;
const SYNCED: [u8; 4096] = [7; 4096];

/// All members at one moment.
#[derive(Default, Clone)]
pub(crate) struct Usage {
    /// CPU seconds, all members together.
    cpu: f64,
    /// Resident MiB of the largest member.
    pub(crate) resident: f64,
    /// Of it what isn't mapped from files, such as the program itself.
    pub(crate) anonymous: f64,
    /// Syncs of logs, all members together: upper bound in seconds (as bits, for order) → syncs up to it.
    syncs: BTreeMap<u64, f64>,
    members: f64,
}

/// What an operation cost.
#[derive(Default, Clone, Copy)]
pub(crate) struct Cost {
    /// CPU of all members together, µs an operation.
    pub(crate) members_cpu: f64,
    /// CPU of all members, in cores.
    pub(crate) cores: f64,
    /// Writes that one sync of a member's log covers.
    pub(crate) writes_per_sync: f64,
    /// Median of a sync, ms.
    pub(crate) sync: f64,
}

impl Usage {
    pub(crate) fn of(running: &[(u16, u32)]) -> Self {
        let mut usage = Self { members: running.len() as f64, ..Self::default() };
        for (port, pid) in running {
            usage.cpu += benches::store::cpu(&pid.to_string()).as_secs_f64();
            usage.resident = usage.resident.max(memory(*pid, "VmRSS:"));
            usage.anonymous = usage.anonymous.max(memory(*pid, "RssAnon:"));
            // A member that says nothing of its syncs is measured without them.
            for line in metrics(*port).unwrap_or_default().lines() {
                if let Some(rest) = line.strip_prefix("etcd_disk_wal_fsync_duration_seconds_bucket{")
                    && let Some((labels, count)) = rest.rsplit_once(' ')
                    && let Some(bound) = labels.split("le=\"").nth(1).and_then(|b| b.split('"').next())
                    && let (Ok(bound), Ok(count)) = (bound.replace("+Inf", "inf").parse::<f64>(), count.parse::<f64>())
                {
                    *usage.syncs.entry(bound.to_bits()).or_default() += count;
                }
            }
        }
        usage
    }

    /// What so many operations cost since, of which so many were writes.
    pub(crate) fn cost_since(&self, before: &Self, operations: u64, writes: u64, seconds: f64) -> Cost {
        let cpu = self.cpu - before.cpu;
        let since =
            |(bound, count): (&u64, &f64)| (f64::from_bits(*bound), count - before.syncs.get(bound).unwrap_or(&0.0));
        let syncs: Vec<(f64, f64)> = self.syncs.iter().map(since).collect();
        let all = syncs.last().map_or(0.0, |(_, count)| *count);
        Cost {
            members_cpu: cpu * 1e6 / (operations as f64).max(1.0),
            cores: cpu / seconds.max(1e-9),
            writes_per_sync: writes as f64 * self.members / all.max(1.0),
            sync: median(&syncs) * 1000.0,
        }
    }
}

/// Of a cumulated histogram, linear within the bucket as Prometheus does.
fn median(buckets: &[(f64, f64)]) -> f64 {
    let rank = buckets.last().map_or(0.0, |(_, count)| count / 2.0);
    if rank == 0.0 {
        return 0.0;
    }
    let (mut low, mut below) = (0.0, 0.0);
    for (bound, count) in buckets {
        if *count >= rank && *count > below {
            return if bound.is_finite() { low + (bound - low) * (rank - below) / (count - below) } else { low };
        }
        (low, below) = (*bound, *count);
    }
    0.0
}

fn memory(pid: u32, kind: &str) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(kind));
    let kib = line.and_then(|l| l.split_whitespace().next()?.parse::<f64>().ok());
    kib.unwrap_or(0.0) / 1024.0
}

/// HTTP/1.0, so that the answer comes in one piece and ends with the connection.
fn metrics(port: u16) -> Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(ANSWER_MAX))?;
    stream.write_all(format!("GET /metrics HTTP/1.0\r\nHost: 127.0.0.1:{port}\r\n\r\n").as_bytes())?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

/// MiB of all files under a folder.
pub(crate) fn size(dir: &Path) -> f64 {
    let Ok(entries) = std::fs::read_dir(dir) else { return 0.0 };
    let of = |path: PathBuf| {
        if path.is_dir() { size(&path) } else { path.metadata().map_or(0.0, |m| m.len() as f64 / f64::from(1 << 20)) }
    };
    entries.flatten().map(|entry| of(entry.path())).sum()
}

/// MiB on the disk of the first member.
pub(crate) fn disk(cluster: &Cluster) -> f64 {
    size(&cluster.data_dir(0))
}

/// Lines about the machine, for the report.
pub(crate) fn machine(dir: &Path) -> Result<Vec<String>> {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let model = cpuinfo.lines().find_map(|l| l.strip_prefix("model name")?.split_once(": ").map(|(_, m)| m));
    let kib = read("/proc/meminfo").split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok());
    Ok(vec![
        format!("{cores} cores ({}), {} GiB of memory", model.unwrap_or("unknown"), kib.unwrap_or(0) >> 20),
        format!("Linux {}", read("/proc/sys/kernel/osrelease").trim()),
        format!("load of the last minute before the start: {}", read("/proc/loadavg").split(' ').next().unwrap_or("?")),
        format!("fdatasync of 4 KiB alone: p50 {:.2} ms", sync_median(dir)? * 1000.0),
    ])
}

/// Seconds of one of many syncs of a growing file.
fn sync_median(dir: &Path) -> Result<f64> {
    let path = dir.join("syncs");
    let mut file = std::fs::File::create(&path).with_context(|| format!("making {}", path.display()))?;
    let mut took = Vec::new();
    for _ in 0..SYNCS {
        file.write_all(&SYNCED)?;
        let begun = Instant::now();
        file.sync_data()?;
        took.push(begun.elapsed().as_secs_f64());
    }
    std::fs::remove_file(&path)?;
    took.sort_by(f64::total_cmp);
    Ok(took[SYNCS / 2])
}
