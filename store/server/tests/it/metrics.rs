//! Dashboards and alerts made for etcd find what they look for.

use crate::cluster::{Cluster, eventually};
use crate::operating::page;

/// What the rules and dashboards of etcd's mixin (`contrib/mixin/mixin.libsonnet`) and other common ones ask for.
const ASKED_FOR: &[(&str, &str)] = &[
    // The mixin's alerts.
    ("etcd_server_has_leader", "gauge"),
    ("etcd_server_leader_changes_seen_total", "counter"),
    ("etcd_network_peer_sent_failures_total", "counter"),
    ("etcd_network_peer_round_trip_time_seconds", "histogram"),
    ("etcd_server_proposals_failed_total", "counter"),
    ("etcd_disk_wal_fsync_duration_seconds", "histogram"),
    ("etcd_disk_backend_commit_duration_seconds", "histogram"),
    ("etcd_server_quota_backend_bytes", "gauge"),
    ("etcd_mvcc_db_total_size_in_bytes", "gauge"),
    ("etcd_mvcc_db_total_size_in_use_in_bytes", "gauge"),
    ("grpc_server_handled_total", "counter"),
    ("grpc_server_handling_seconds", "histogram"),
    // The mixin's dashboard beyond those.
    ("grpc_server_started_total", "counter"),
    ("etcd_network_client_grpc_received_bytes_total", "counter"),
    ("etcd_network_client_grpc_sent_bytes_total", "counter"),
    ("etcd_network_peer_received_bytes_total", "counter"),
    ("etcd_network_peer_sent_bytes_total", "counter"),
    ("etcd_server_proposals_pending", "gauge"),
    ("etcd_server_proposals_committed_total", "gauge"),
    ("etcd_server_proposals_applied_total", "gauge"),
    ("process_resident_memory_bytes", "gauge"),
    // Others: etcd's operation guide, Kubernetes' and OpenShift's dashboards and rules.
    ("etcd_server_is_leader", "gauge"),
    ("etcd_server_is_learner", "gauge"),
    ("etcd_server_id", "gauge"),
    ("etcd_server_version", "gauge"),
    ("etcd_cluster_version", "gauge"),
    ("etcd_server_slow_apply_total", "counter"),
    ("etcd_server_slow_read_indexes_total", "counter"),
    ("etcd_server_read_indexes_failed_total", "counter"),
    ("etcd_server_heartbeat_send_failures_total", "counter"),
    ("etcd_server_health_success", "gauge"),
    ("etcd_server_health_failures", "gauge"),
    ("etcd_server_healthcheck", "gauge"),
    ("etcd_server_healthchecks_total", "counter"),
    ("etcd_network_active_peers", "gauge"),
    ("etcd_network_disconnected_peers_total", "counter"),
    ("etcd_snap_db_fsync_duration_seconds", "histogram"),
    ("etcd_snap_db_save_total_duration_seconds", "histogram"),
    ("etcd_mvcc_put_total", "counter"),
    ("etcd_mvcc_delete_total", "counter"),
    ("etcd_mvcc_txn_total", "counter"),
    ("etcd_mvcc_range_total", "counter"),
    ("etcd_debugging_mvcc_keys_total", "gauge"),
    ("etcd_debugging_mvcc_current_revision", "gauge"),
    ("etcd_debugging_mvcc_compact_revision", "gauge"),
    ("etcd_debugging_mvcc_events_total", "counter"),
    ("etcd_debugging_mvcc_pending_events_total", "gauge"),
    ("etcd_debugging_mvcc_slow_watcher_total", "gauge"),
    ("etcd_debugging_mvcc_watcher_total", "gauge"),
    ("etcd_debugging_mvcc_watch_stream_total", "gauge"),
    ("etcd_debugging_lease_granted_total", "counter"),
    ("etcd_debugging_lease_revoked_total", "counter"),
    ("etcd_debugging_lease_renewed_total", "counter"),
    ("os_fd_used", "gauge"),
    ("os_fd_limit", "gauge"),
    ("process_cpu_seconds_total", "counter"),
    ("process_open_fds", "gauge"),
    ("process_max_fds", "gauge"),
    ("process_virtual_memory_bytes", "gauge"),
    ("process_start_time_seconds", "gauge"),
];

/// Why a page hasn't got this metric, of this type and with a value.
fn lacks(page: &str, name: &str, kind: &str) -> Option<String> {
    let family = if kind == "counter" { name.trim_end_matches("_total") } else { name };
    let typed = format!("# TYPE {family} {kind}");
    let sample = if kind == "histogram" { format!("{name}_bucket") } else { name.to_owned() };
    let is_sample =
        |line: &str| line.strip_prefix(&sample).is_some_and(|rest| rest.starts_with('{') || rest.starts_with(' '));
    match () {
        () if !page.lines().any(|line| line == typed) => Some(format!("no {typed:?}")),
        () if !page.lines().any(is_sample) => Some(format!("no value of {sample}")),
        () => None,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_dashboards_and_alerts_of_etcd_ask_for_is_there() {
    let mut cluster = Cluster::started(3).await;
    let leader = cluster.wait_for_leader().await;
    cluster.client(leader).await.put("k", "v", None).await.expect("a put");
    let url = cluster.url(leader);
    for path in ["/readyz", "/livez", "/health"] {
        assert_eq!(page(&url, path).await.0, 200, "{path}");
    }
    // A peer that goes makes for connections lost and messages not sent, of a leader's at least.
    cluster.stop((leader + 1) % 3).await;
    eventually("all metrics", || async {
        let (_, body) = page(&url, "/metrics").await;
        let lacking: Vec<_> = ASKED_FOR.iter().filter_map(|(name, kind)| lacks(&body, name, kind)).collect();
        if lacking.is_empty() { Ok(()) } else { Err(lacking.join("\n")) }
    })
    .await;
    let (_, body) = page(&url, "/metrics").await;
    for line in [
        "etcd_server_healthcheck{type=\"readyz\",name=\"linearizable_read\"} 1",
        "etcd_server_healthchecks_total{type=\"livez\",name=\"serializable_read\",status=\"success\"} 1",
        "etcd_server_health_success 1",
        "etcd_server_health_failures 0",
    ] {
        assert!(body.lines().any(|found| found == line), "{line}");
    }
    let put = "grpc_server_handling_seconds_count{grpc_type=\"unary\",grpc_service=\"etcdserverpb.KV\",grpc_method=\"Put\"} 1";
    assert!(body.contains(put), "{body}");
}

/// Each member measures its way to each other one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_measure_their_ways_to_each_other() {
    let cluster = Cluster::started(3).await;
    for at in 0..3 {
        let url = cluster.url(at);
        eventually("two round trips", || async {
            let (_, body) = page(&url, "/metrics").await;
            let counts =
                body.lines().filter_map(|l| l.strip_prefix("etcd_network_peer_round_trip_time_seconds_count{To="));
            let measured = counts.filter(|rest| !rest.ends_with(" 0")).count();
            if measured == 2 { Ok(()) } else { Err(format!("{measured} ways measured")) }
        })
        .await;
    }
}
