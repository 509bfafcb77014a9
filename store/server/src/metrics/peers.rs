//! What goes to and comes from peers, under etcd's names.
//!
//! Source of the names: etcd `server/etcdserver/api/rafthttp/metrics.go`, `server/etcdserver/metrics.go`.

use std::time::{Duration, Instant};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use super::{Labels, counter, label};

/// Counters of peers; their labels are members' numbers.
pub(crate) struct Links {
    own: String,
    /// What pings' times are counted from.
    begun: Instant,
    sent: Family<Labels, Counter>,
    received: Family<Labels, Counter>,
    send_failures: Family<Labels, Counter>,
    round_trips: Family<Labels, Histogram, fn() -> Histogram>,
    active: Family<Labels, Gauge>,
    disconnected: Family<Labels, Counter>,
    /// Heartbeats that found their peer's queue full, or no connection.
    pub(crate) heartbeat_failures: Counter,
}

/// A tenth of a millisecond to three seconds.
fn round_trip() -> Histogram {
    Histogram::new(exponential_buckets(0.0001, 2.0, 16))
}

fn to(peer: u64) -> Labels {
    label("To", &format!("{peer:x}"))
}

impl Links {
    pub(super) fn new(registry: &mut Registry, own: u64) -> Self {
        let heartbeat_failures =
            counter(registry, "etcd_server_heartbeat_send_failures", "Heartbeats that could not be sent");
        let new = Self {
            own: format!("{own:x}"),
            begun: Instant::now(),
            sent: Family::default(),
            received: Family::default(),
            send_failures: Family::default(),
            round_trips: Family::new_with_constructor(round_trip),
            active: Family::default(),
            disconnected: Family::default(),
            heartbeat_failures,
        };
        registry.register("etcd_network_peer_sent_bytes", "Bytes sent to peers", new.sent.clone());
        registry.register("etcd_network_peer_received_bytes", "Bytes received from peers", new.received.clone());
        let failures = "Messages that a peer's queue, or the lack of a connection, swallowed";
        registry.register("etcd_network_peer_sent_failures", failures, new.send_failures.clone());
        let name = "etcd_network_peer_round_trip_time_seconds";
        registry.register(name, "From a ping to its answer, queues included", new.round_trips.clone());
        registry.register("etcd_network_active_peers", "Whether a peer is connected", new.active.clone());
        registry.register("etcd_network_disconnected_peers", "Connections lost", new.disconnected.clone());
        new
    }

    /// Counts bytes that are sent to a peer.
    pub(crate) fn sent(&self, peer: u64) -> Counter {
        self.sent.get_or_create_owned(&to(peer))
    }

    /// Counts bytes that are received from a peer.
    pub(crate) fn received(&self, peer: u64) -> Counter {
        self.received.get_or_create_owned(&label("From", &format!("{peer:x}")))
    }

    pub(crate) fn not_sent(&self, peer: u64) {
        self.send_failures.get_or_create(&to(peer)).inc();
    }

    fn between(&self, peer: u64) -> Labels {
        [label("Local", &self.own), label("Remote", &format!("{peer:x}"))].concat()
    }

    pub(crate) fn connected(&self, peer: u64) {
        self.active.get_or_create(&self.between(peer)).set(1);
    }

    pub(crate) fn disconnected(&self, peer: u64) {
        self.active.get_or_create(&self.between(peer)).set(0);
        self.disconnected.get_or_create(&self.between(peer)).inc();
    }

    /// The time that a ping made now carries, microseconds.
    pub(crate) fn ping(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// A ping came back; one that was never made measures nothing.
    pub(crate) fn pong(&self, peer: u64, made: u64) {
        if let Some(took) = self.ping().checked_sub(made).map(Duration::from_micros) {
            self.round_trips.get_or_create(&to(peer)).observe(took.as_secs_f64());
        }
    }
}
