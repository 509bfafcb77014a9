//! What a member counts, in Prometheus' text form, under etcd's names where the meaning is the
//! same: dashboards and alerts made for etcd work.
//!
//! What happens is counted as it happens; what is, is asked for when somebody scrapes.
//! Source: etcd `server/etcdserver/metrics.go`, `server/storage/mvcc/metrics.go`, `server/storage/wal/metrics.go`.

mod grpc;
mod health;
mod peers;
mod process;
mod watching;

use prometheus_client::encoding::text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

pub(crate) use grpc::{Grpc, Watched};
pub(crate) use health::Health;
pub(crate) use peers::Links;
pub(crate) use watching::Watching;

/// Labels whose names are not Rust's.
type Labels = Vec<(String, String)>;

fn label(name: &str, value: &str) -> Labels {
    vec![(name.to_owned(), value.to_owned())]
}

/// The metrics of a member.
pub(crate) struct Metrics {
    registry: Registry,
    gauges: Gauges,
    /// Seconds that syncing the log took.
    pub(crate) log_sync: Histogram,
    /// Seconds that making the state durable took.
    pub(crate) state_flush: Histogram,
    pub(crate) leader_changes: Counter,
    pub(crate) failed_proposals: Counter,
    pub(crate) slow_applies: Counter,
    pub(crate) disk_stalls: Counter,
    pub(crate) slow_read_indexes: Counter,
    pub(crate) failed_read_indexes: Counter,
    /// Seconds that syncing a file of a snapshot took, and receiving a whole one.
    pub(crate) snapshot_sync: Histogram,
    pub(crate) snapshot_save: Histogram,
    pub(crate) puts: Counter,
    pub(crate) deletes: Counter,
    pub(crate) txns: Counter,
    pub(crate) ranges: Counter,
    pub(crate) leases_granted: Counter,
    pub(crate) leases_ended: Counter,
    pub(crate) leases_renewed: Counter,
    pub(crate) peers: Links,
    pub(crate) health: Health,
    pub(crate) grpc: Grpc,
    pub(crate) watching: Watching,
}

/// What a member is at the moment.
#[derive(Debug, Clone, Default)]
pub(crate) struct Now {
    pub(crate) has_leader: bool,
    pub(crate) is_leader: bool,
    pub(crate) is_learner: bool,
    pub(crate) committed: u64,
    pub(crate) applied: u64,
    pub(crate) pending_proposals: u64,
    pub(crate) revision: i64,
    pub(crate) compacted: i64,
    pub(crate) keys: u64,
    pub(crate) bytes_on_disk: i64,
    pub(crate) bytes_live: u64,
    /// Bytes that may be live; below 0 without a limit.
    pub(crate) quota: i64,
}

/// Where [`Now`] and the process are put when somebody asks.
#[derive(Default)]
struct Gauges {
    has_leader: Gauge,
    is_leader: Gauge,
    is_learner: Gauge,
    committed: Gauge,
    applied: Gauge,
    pending_proposals: Gauge,
    revision: Gauge,
    compacted: Gauge,
    keys: Gauge,
    bytes_on_disk: Gauge,
    bytes_live: Gauge,
    quota: Gauge,
    process: process::Process,
}

impl Gauges {
    fn register(&self, registry: &mut Registry) {
        let all = [
            ("etcd_server_has_leader", "Whether a leader is known", &self.has_leader),
            ("etcd_server_is_leader", "Whether this member leads", &self.is_leader),
            ("etcd_server_is_learner", "Whether this member only learns", &self.is_learner),
            ("etcd_server_proposals_committed_total", "The commit index", &self.committed),
            ("etcd_server_proposals_applied_total", "The applied index", &self.applied),
            ("etcd_server_proposals_pending", "Proposals that wait for their answer", &self.pending_proposals),
            ("etcd_debugging_mvcc_current_revision", "The newest revision", &self.revision),
            ("etcd_debugging_mvcc_compact_revision", "The compacted revision", &self.compacted),
            ("etcd_debugging_mvcc_keys_total", "Keys that are there", &self.keys),
            ("etcd_mvcc_db_total_size_in_bytes", "Bytes of the state on disk", &self.bytes_on_disk),
            ("etcd_mvcc_db_total_size_in_use_in_bytes", "Bytes that compaction hasn't hidden", &self.bytes_live),
            ("etcd_server_quota_backend_bytes", "Bytes of those that there may be", &self.quota),
        ];
        for (name, help, gauge) in all {
            registry.register(name, help, gauge.clone());
        }
        self.process.register(registry);
    }

    fn set(&self, now: &Now) {
        self.has_leader.set(i64::from(now.has_leader));
        self.is_leader.set(i64::from(now.is_leader));
        self.is_learner.set(i64::from(now.is_learner));
        self.committed.set(now.committed.cast_signed());
        self.applied.set(now.applied.cast_signed());
        self.pending_proposals.set(now.pending_proposals.cast_signed());
        self.revision.set(now.revision);
        self.compacted.set(now.compacted);
        self.keys.set(now.keys.cast_signed());
        self.bytes_on_disk.set(now.bytes_on_disk);
        self.bytes_live.set(now.bytes_live.cast_signed());
        self.quota.set(now.quota);
        self.process.look();
    }
}

fn counter(registry: &mut Registry, name: &str, help: &str) -> Counter {
    let counter = Counter::default();
    registry.register(name, help, counter.clone());
    counter
}

fn seconds(registry: &mut Registry, name: &str, help: &str) -> Histogram {
    // etcd's: a millisecond to eight seconds.
    let histogram = Histogram::new(exponential_buckets(0.001, 2.0, 14));
    registry.register(name, help, histogram.clone());
    histogram
}

impl Metrics {
    /// Everything at zero; `id` and `version` say whose it is.
    pub(crate) fn new(id: u64, version: &str) -> Self {
        let mut own = Registry::default();
        let registry = &mut own;
        let gauges = Gauges::default();
        gauges.register(registry);
        let facts = [
            ("etcd_server_version", "The version of the API", label("server_version", version)),
            ("etcd_cluster_version", "The version of the API", label("cluster_version", "3.6")),
            ("etcd_server_id", "The member's number", label("server_id", &format!("{id:x}"))),
        ];
        for (name, help, labels) in facts {
            let family = Family::<Labels, Gauge>::default();
            family.get_or_create(&labels).set(1);
            registry.register(name, help, family);
        }
        Self {
            gauges,
            log_sync: seconds(registry, "etcd_disk_wal_fsync_duration_seconds", "Syncing the log"),
            state_flush: seconds(registry, "etcd_disk_backend_commit_duration_seconds", "Making the state durable"),
            leader_changes: counter(registry, "etcd_server_leader_changes_seen", "Leaders that were followed"),
            failed_proposals: counter(registry, "etcd_server_proposals_failed", "Proposals of unknown outcome"),
            disk_stalls: counter(
                registry,
                "keelson_store_disk_stalls",
                "Times that this member led while its log's disk hung, and asked another to lead",
            ),
            slow_applies: counter(registry, "etcd_server_slow_apply", "Batches whose application took over 100 ms"),
            slow_read_indexes: counter(registry, "etcd_server_slow_read_indexes", "Reads whose index came late"),
            failed_read_indexes: counter(registry, "etcd_server_read_indexes_failed", "Reads whose index never came"),
            snapshot_sync: seconds(registry, "etcd_snap_db_fsync_duration_seconds", "Syncing a snapshot's file"),
            snapshot_save: seconds(registry, "etcd_snap_db_save_total_duration_seconds", "Receiving a snapshot"),
            puts: counter(registry, "etcd_mvcc_put", "Puts"),
            deletes: counter(registry, "etcd_mvcc_delete", "Deletions"),
            txns: counter(registry, "etcd_mvcc_txn", "Transactions"),
            ranges: counter(registry, "etcd_mvcc_range", "Reads"),
            leases_granted: counter(registry, "etcd_debugging_lease_granted", "Leases granted"),
            leases_ended: counter(registry, "etcd_debugging_lease_revoked", "Leases that ended"),
            leases_renewed: counter(registry, "etcd_debugging_lease_renewed", "Leases renewed, by the leader"),
            peers: Links::new(registry, id),
            health: Health::new(registry),
            grpc: Grpc::new(registry),
            watching: Watching::new(registry),
            registry: own,
        }
    }

    /// All of it, as it is now.
    pub(crate) fn render(&self, now: &Now) -> String {
        self.gauges.set(now);
        let mut out = String::new();
        // Writing to a string can't fail.
        let _ = text::encode(&mut out, &self.registry);
        out
    }
}
