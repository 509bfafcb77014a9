//! The process as the kernel sees it, under the names that every Prometheus client uses.

use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Clock ticks a second in `/proc`: 100 on every Linux that Rust runs on.
const TICKS: f64 = 100.0;
const PAGE_BYTES: i64 = 4096;

#[derive(Default)]
pub(super) struct Process {
    resident: Gauge,
    virtual_memory: Gauge,
    open_files: Gauge,
    max_files: Gauge,
    cpu: Counter<f64, AtomicU64>,
    started: Gauge<f64, AtomicU64>,
}

impl Process {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register("process_resident_memory_bytes", "Resident memory", self.resident.clone());
        registry.register("process_virtual_memory_bytes", "Virtual memory", self.virtual_memory.clone());
        registry.register("process_open_fds", "Open files", self.open_files.clone());
        registry.register("process_max_fds", "Files that may be open", self.max_files.clone());
        registry.register("os_fd_used", "Open files", self.open_files.clone());
        registry.register("os_fd_limit", "Files that may be open", self.max_files.clone());
        registry.register("process_cpu_seconds", "CPU time of user and system", self.cpu.clone());
        registry.register("process_start_time_seconds", "Start, in seconds since 1970", self.started.clone());
    }

    /// Looks again; what the kernel doesn't tell stays as it was.
    pub(super) fn look(&self) {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let stat = read("/proc/self/stat");
        // Fields behind the name, which may hold blanks itself.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let number = |at: usize| fields.get(at).and_then(|field| field.parse::<i64>().ok());
        if let (Some(user), Some(system)) = (number(11), number(12)) {
            // Counted by the kernel: it only grows.
            self.cpu.inner().store(((user + system) as f64 / TICKS).to_bits(), Ordering::Relaxed);
        }
        if let (Some(size), Some(pages)) = (number(20), number(21)) {
            self.virtual_memory.set(size);
            self.resident.set(pages * PAGE_BYTES);
        }
        let booted = read("/proc/stat");
        let booted = booted.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse::<f64>().ok());
        if let Some((booted, ticks)) = booted.zip(number(19)) {
            self.started.set(booted + ticks as f64 / TICKS);
        }
        if let Ok(files) = std::fs::read_dir("/proc/self/fd") {
            self.open_files.set(files.count() as i64);
        }
        let limits = read("/proc/self/limits");
        let max = limits.lines().find_map(|line| line.strip_prefix("Max open files")?.split_whitespace().next());
        if let Some(max) = max.and_then(|max| max.parse().ok()) {
            self.max_files.set(max);
        }
    }
}
