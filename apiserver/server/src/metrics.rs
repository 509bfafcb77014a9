//! Counters of the apiserver, in Prometheus' text form under upstream's names.

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Labels of a request.
#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(crate) struct RequestLabels {
    pub(crate) verb: &'static str,
    pub(crate) resource: String,
    pub(crate) code: u16,
}

/// The counters.
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    pub(crate) watchers: Gauge,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut registry = Registry::default();
        let requests = Family::<RequestLabels, Counter>::default();
        let watchers = Gauge::default();
        registry.register("apiserver_request", "Requests by verb, resource and answer code", requests.clone());
        registry.register("apiserver_longrunning_requests", "Watches being served", watchers.clone());
        Self { registry, requests, watchers }
    }

    /// Counts an answered request. `resource` comes from the table, so that labels stay few.
    pub(crate) fn count(&self, verb: &'static str, resource: &str, code: u16) {
        let labels = RequestLabels { verb, resource: resource.to_owned(), code };
        self.requests.get_or_create(&labels).inc();
    }

    pub(crate) fn render(&self) -> String {
        let mut out = String::new();
        // Writing to a string can't fail.
        let _ = text::encode(&mut out, &self.registry);
        out
    }
}
