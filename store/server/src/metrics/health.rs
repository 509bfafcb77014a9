//! Health checks that were made, under etcd's names.
//!
//! Source of the names: etcd 3.6 `server/etcdserver/api/etcdhttp/health.go`.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Check {
    r#type: &'static str,
    name: &'static str,
}

#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Made {
    r#type: &'static str,
    name: &'static str,
    status: &'static str,
}

/// What came of health checks.
pub(crate) struct Health {
    last: Family<Check, Gauge>,
    made: Family<Made, Counter>,
    /// Of `/health`. Their names don't end as counters' do, so that they can't be written as such.
    good: Gauge,
    bad: Gauge,
}

impl Health {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let new =
            Self { last: Family::default(), made: Family::default(), good: Gauge::default(), bad: Gauge::default() };
        registry.register("etcd_server_healthcheck", "What each check came to last", new.last.clone());
        registry.register("etcd_server_healthchecks", "Checks made, by what they came to", new.made.clone());
        registry.register("etcd_server_health_success", "Times that /health was well", new.good.clone());
        registry.register("etcd_server_health_failures", "Times that /health was not", new.bad.clone());
        new
    }

    /// A check of `/livez` or `/readyz` was made.
    pub(crate) fn checked(&self, kind: &'static str, name: &'static str, is_well: bool) {
        let status = if is_well { "success" } else { "error" };
        self.last.get_or_create(&Check { r#type: kind, name }).set(i64::from(is_well));
        self.made.get_or_create(&Made { r#type: kind, name, status }).inc();
    }

    /// `/health` was asked for.
    pub(crate) fn asked(&self, is_well: bool) {
        if is_well {
            self.good.inc()
        } else {
            self.bad.inc()
        };
    }
}
