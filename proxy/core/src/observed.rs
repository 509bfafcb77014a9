//! Parsing at the edge: Services and EndpointSlices become the ports that are served.
//!
//! Nothing that comes out of here can break a script: names are checked, addresses and numbers are typed.

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;

use k8s_openapi::api::core::v1::{Service, ServiceSpec};
use k8s_openapi::api::discovery::v1::EndpointSlice;

/// Names of namespaces and services are at most this long: bytes of a DNS label.
const NAME_BYTES_MAX: usize = 63;
/// How long a client stays with its endpoint if the service doesn't say: three hours.
const AFFINITY_SECONDS_DEFAULT: u32 = 10_800;
/// A day, the longest that the API allows.
const AFFINITY_SECONDS_MAX: u32 = 86_400;

/// A transport with ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    fn read(text: Option<&str>) -> Option<Self> {
        match text {
            None | Some("" | "TCP") => Some(Self::Tcp),
            Some("UDP") => Some(Self::Udp),
            Some("SCTP") => Some(Self::Sctp),
            Some(_) => None,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        })
    }
}

/// Namespace and name of a Service.
pub type ServiceName = (String, String);

/// Why a Service, or a port of it, isn't served.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Reason {
    /// It has addresses, none of them IPv4.
    #[error("it has no IPv4 address")]
    NotIpv4,
    /// Its namespace or name isn't a DNS label.
    #[error("its name is not a DNS label")]
    Name,
    /// A port's number or protocol, or the time of affinity, can't be.
    #[error("{0}")]
    Value(String),
    /// Another Service has the address and port, or the node port.
    #[error("{what} belongs to {owner}")]
    Taken {
        /// An address with a port, or a node port.
        what: String,
        /// Who has it.
        owner: String,
    },
}

/// One port of a Service: what clients call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Port {
    pub(crate) service: ServiceName,
    /// The name by which slices know it; empty for the only one.
    pub(crate) name: String,
    pub(crate) protocol: Protocol,
    pub(crate) address: Ipv4Addr,
    pub(crate) port: u16,
    pub(crate) node_port: Option<u16>,
    /// internalTrafficPolicy is Local.
    pub(crate) internal_local: bool,
    /// externalTrafficPolicy is Local.
    pub(crate) external_local: bool,
    /// Seconds for which a client stays with an endpoint.
    pub(crate) affinity: Option<u32>,
}

/// Where a port is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// On this node.
    pub(crate) local: bool,
    pub(crate) ready: bool,
    /// Ending, but still answering.
    pub(crate) draining: bool,
}

/// The endpoints of a port, by address and port: slices may repeat one while it moves between them.
pub(crate) type Endpoints = BTreeMap<(Ipv4Addr, u16), Endpoint>;

fn is_label(text: &str) -> bool {
    let fits = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    !text.is_empty() && text.len() <= NAME_BYTES_MAX && text.bytes().all(fits)
}

fn number_of(value: i32, what: &str) -> Result<u16, Reason> {
    let number = u16::try_from(value).ok().filter(|n| *n != 0);
    number.ok_or_else(|| Reason::Value(format!("{what} {value} is not a port")))
}

/// The ports of a Service; none if it isn't for this proxy: headless, by an external name, or for another proxy.
pub(crate) fn ports(service: &Service) -> Result<Vec<Port>, Reason> {
    let Some(spec) = &service.spec else { return Ok(Vec::new()) };
    let labels = service.metadata.labels.as_ref();
    let for_another = labels.is_some_and(|l| l.contains_key("service.kubernetes.io/service-proxy-name"));
    let cluster_ip = spec.cluster_ip.as_deref().unwrap_or_default();
    if for_another || spec.type_.as_deref() == Some("ExternalName") || cluster_ip.is_empty() || cluster_ip == "None" {
        return Ok(Vec::new());
    }
    let namespace = service.metadata.namespace.clone().unwrap_or_default();
    let name = service.metadata.name.clone().unwrap_or_default();
    if !is_label(&namespace) || !is_label(&name) {
        return Err(Reason::Name);
    }
    let mut addresses = spec.cluster_ips.iter().flatten().map(String::as_str).chain([cluster_ip]);
    let address = addresses.find_map(|a| a.parse::<Ipv4Addr>().ok()).ok_or(Reason::NotIpv4)?;
    let affinity = affinity(spec)?;
    let has_node_ports = matches!(spec.type_.as_deref(), Some("NodePort" | "LoadBalancer"));
    let mut ports: Vec<Port> = Vec::new();
    for port in spec.ports.iter().flatten() {
        let protocol = Protocol::read(port.protocol.as_deref()).ok_or_else(|| {
            Reason::Value(format!("protocol {:?} is unknown", port.protocol.as_deref().unwrap_or_default()))
        })?;
        // Chains are named by it.
        let number = number_of(port.port, "port")?;
        if ports.iter().any(|p| (p.protocol, p.port) == (protocol, number)) {
            return Err(Reason::Value(format!("port {number}/{protocol} is there twice")));
        }
        let node_port = port.node_port.filter(|n| has_node_ports && *n != 0);
        ports.push(Port {
            service: (namespace.clone(), name.clone()),
            name: port.name.clone().unwrap_or_default(),
            protocol,
            address,
            port: number,
            node_port: node_port.map(|n| number_of(n, "nodePort")).transpose()?,
            internal_local: spec.internal_traffic_policy.as_deref() == Some("Local"),
            external_local: spec.external_traffic_policy.as_deref() == Some("Local"),
            affinity,
        });
    }
    Ok(ports)
}

fn affinity(spec: &ServiceSpec) -> Result<Option<u32>, Reason> {
    if spec.session_affinity.as_deref() != Some("ClientIP") {
        return Ok(None);
    }
    let config = spec.session_affinity_config.as_ref().and_then(|c| c.client_ip.as_ref());
    let Some(seconds) = config.and_then(|c| c.timeout_seconds) else { return Ok(Some(AFFINITY_SECONDS_DEFAULT)) };
    let read = u32::try_from(seconds).ok().filter(|s| (1..=AFFINITY_SECONDS_MAX).contains(s));
    read.map(Some).ok_or_else(|| Reason::Value(format!("session affinity of {seconds} s")))
}

/// The Service that a slice is for; `None` for another family, another proxy, or nobody.
pub(crate) fn service_of(slice: &EndpointSlice) -> Option<ServiceName> {
    let labels = slice.metadata.labels.as_ref()?;
    let for_another = labels.contains_key("service.kubernetes.io/service-proxy-name");
    if slice.address_type != "IPv4" || for_another {
        return None;
    }
    let name = labels.get("kubernetes.io/service-name")?;
    Some((slice.metadata.namespace.clone().unwrap_or_default(), name.clone()))
}

/// Whether traffic may be sent there. Source: `ValidateEndpointIP` of `pkg/apis/core/validation`.
fn may_serve(address: Ipv4Addr) -> bool {
    !(address.is_unspecified()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_multicast()
        || address.is_broadcast())
}

/// The endpoints of one port, out of its Service's slices.
///
/// Missing conditions count as upstream's: ready unless said otherwise, serving like ready.
pub(crate) fn endpoints(port: &Port, slices: &[&EndpointSlice], node_name: &str) -> Endpoints {
    let mut found = Endpoints::new();
    for slice in slices {
        let matches = |p: &&k8s_openapi::api::discovery::v1::EndpointPort| {
            p.name.as_deref().unwrap_or_default() == port.name
                && Protocol::read(p.protocol.as_deref()) == Some(port.protocol)
        };
        let target = slice.ports.iter().flatten().find(matches).and_then(|p| p.port);
        let Some(target) = target.and_then(|n| number_of(n, "port").ok()) else { continue };
        for endpoint in slice.endpoints.iter().flatten() {
            // An endpoint's addresses are interchangeable, says the API; upstream takes the first.
            let address = endpoint.addresses.first().and_then(|a| a.parse::<Ipv4Addr>().ok());
            let Some(address) = address.filter(|a| may_serve(*a)) else { continue };
            let conditions = endpoint.conditions.as_ref();
            let ready = conditions.and_then(|c| c.ready).unwrap_or(true);
            let serving = conditions.and_then(|c| c.serving).unwrap_or(ready);
            let terminating = conditions.and_then(|c| c.terminating).unwrap_or(false);
            let entry = found.entry((address, target));
            let entry = entry.or_insert(Endpoint { local: false, ready: false, draining: false });
            entry.local |= endpoint.node_name.as_deref() == Some(node_name);
            entry.ready |= ready;
            entry.draining |= serving && terminating;
        }
    }
    found
}
