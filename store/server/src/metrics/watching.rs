//! Watchers: how many there are, and what waits for them.
//!
//! Source of the names: etcd `server/storage/mvcc/metrics.go`.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// What is counted of watchers.
#[derive(Clone)]
pub(crate) struct Watching {
    pub(crate) streams: Gauge,
    pub(crate) watchers: Gauge,
    /// Watchers that have something to be told and wait for their client to read.
    pub(crate) slow: Gauge,
    /// Events made, whether somebody watches or not.
    pub(crate) events: Counter,
    /// Events encoded for a client that HTTP/2 hasn't taken yet.
    pub(crate) pending_events: Gauge,
    /// Their bytes.
    pub(crate) pending_bytes: Gauge,
}

impl Watching {
    pub(crate) fn new(registry: &mut Registry) -> Self {
        let mut gauge = |name: &str, help: &str| {
            let gauge = Gauge::<i64>::default();
            registry.register(name, help, gauge.clone());
            gauge
        };
        let streams = gauge("etcd_debugging_mvcc_watch_stream_total", "Streams of watchers");
        let watchers = gauge("etcd_debugging_mvcc_watcher_total", "Watchers");
        let slow = gauge("etcd_debugging_mvcc_slow_watcher_total", "Watchers whose client doesn't read as fast");
        let pending_events = gauge("etcd_debugging_mvcc_pending_events_total", "Events on their way to clients");
        let pending_bytes = gauge("keelson_store_watch_pending_bytes", "Bytes of events on their way to clients");
        let events = super::counter(registry, "etcd_debugging_mvcc_events", "Events");
        Self { streams, watchers, slow, events, pending_events, pending_bytes }
    }
}
