//! EndpointSlices: the addresses behind each Service.
//!
//! Invariants
//!   E1  Each ready pod that a Service selects is in exactly one slice per port mapping.
//!   E2  A slice holds at most [`ENDPOINTS_MAX`] endpoints.
//!   E3  Endpoints that didn't change stay in their slice, so that a change is one small write.
//! Source: KEP-752; `staging/src/k8s.io/endpointslice/reconciler.go`.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, Service, ServicePort};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::{Value, json};

use crate::owner::{controlled_by, is_deleting};
use crate::write::{Propagation, Target, Write, json};

/// Endpoints in one slice.
pub const ENDPOINTS_MAX: usize = 100;
const SERVICE_NAME: &str = "kubernetes.io/service-name";
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
/// The name under which this controller's slices are known, as upstream's.
const MANAGER: &str = "endpointslice-controller.k8s.io";

/// What the controller sees of a Service.
#[derive(Debug, Clone)]
pub struct Observed {
    /// The Service itself.
    pub service: Arc<Service>,
    /// Every pod of its namespace.
    pub pods: Vec<Arc<Pod>>,
    /// Every slice of its namespace.
    pub slices: Vec<Arc<EndpointSlice>>,
}

/// Ports as resolved for one pod, in JSON: the key by which pods share slices.
type Ports = String;

/// Decides what to write for a Service's slices.
pub fn reconcile(observed: &Observed) -> Vec<Write> {
    let service = &observed.service;
    let Some(spec) = &service.spec else { return Vec::new() };
    let selector = spec.selector.as_ref().filter(|s| !s.is_empty());
    let own = |slice: &&Arc<EndpointSlice>| {
        let labels = slice.metadata.labels.as_ref();
        labels.and_then(|l| l.get(SERVICE_NAME)) == service.metadata.name.as_ref()
            && labels.and_then(|l| l.get(MANAGED_BY)).map(String::as_str) == Some(MANAGER)
            && !is_deleting(&slice.metadata)
    };
    let existing: Vec<&Arc<EndpointSlice>> = observed.slices.iter().filter(own).collect();
    // A Service without selector has endpoints that somebody else manages.
    let Some(selector) =
        selector.filter(|_| !is_deleting(&service.metadata) && spec.type_.as_deref() != Some("ExternalName"))
    else {
        return existing.into_iter().map(|slice| delete(slice)).collect();
    };
    let mut wanted: BTreeMap<Ports, BTreeMap<String, Value>> = BTreeMap::new();
    for pod in observed.pods.iter().filter(|pod| selected(selector, pod)) {
        if let Some((address, endpoint)) = endpoint(service, pod) {
            wanted.entry(ports(service, pod).to_string()).or_default().insert(address, endpoint);
        }
    }
    if wanted.is_empty() {
        // An empty slice tells that the Service is known and has nobody.
        wanted.entry(ports_without_pods(service).to_string()).or_default();
    }
    place(service, wanted, &existing)
}

fn selected(selector: &BTreeMap<String, String>, pod: &Pod) -> bool {
    selector.iter().all(|(k, v)| pod.metadata.labels.as_ref().and_then(|l| l.get(k)) == Some(v))
}

/// The pod's address and endpoint; `None` if it has no address or has ended.
fn endpoint(service: &Service, pod: &Pod) -> Option<(String, Value)> {
    let status = pod.status.as_ref()?;
    let address = status.pod_ip.clone().filter(|ip| !ip.is_empty())?;
    if matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")) {
        return None;
    }
    let publish = service.spec.as_ref().is_some_and(|s| s.publish_not_ready_addresses == Some(true));
    let is_ready = status.conditions.iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True");
    let terminating = is_deleting(&pod.metadata);
    let serving = is_ready;
    let mut endpoint = json!({
        "addresses": [address],
        "conditions": {"ready": publish || (serving && !terminating), "serving": serving, "terminating": terminating},
        "targetRef": {"kind": "Pod", "namespace": pod.metadata.namespace, "name": pod.metadata.name, "uid": pod.metadata.uid}});
    let spec = pod.spec.as_ref()?;
    if let Some(node) = &spec.node_name {
        endpoint["nodeName"] = node.as_str().into();
    }
    if let (Some(hostname), true) = (&spec.hostname, spec.subdomain.as_ref() == service.metadata.name.as_ref()) {
        endpoint["hostname"] = hostname.as_str().into();
    }
    Some((address, endpoint))
}

/// A port in the order of the typed object's JSON: the text tells slices apart.
fn port_entry(port: &ServicePort, number: Option<i32>) -> Value {
    let mut entry = serde_json::Map::new();
    if let Some(protocol) = &port.app_protocol {
        entry.insert("appProtocol".to_owned(), protocol.as_str().into());
    }
    entry.insert("name".to_owned(), port.name.as_deref().unwrap_or("").into());
    if let Some(number) = number {
        entry.insert("port".to_owned(), number.into());
    }
    entry.insert("protocol".to_owned(), port.protocol.as_deref().unwrap_or("TCP").into());
    entry.into()
}

/// The Service's ports as the pod opens them; a name is looked up in the pod's containers.
fn ports(service: &Service, pod: &Pod) -> Value {
    let resolve = |port: &ServicePort| match &port.target_port {
        None => Some(port.port),
        Some(IntOrString::Int(0)) => Some(port.port),
        Some(IntOrString::Int(number)) => Some(*number),
        Some(IntOrString::String(name)) => {
            let protocol = port.protocol.as_deref().unwrap_or("TCP");
            let containers =
                pod.spec.iter().flat_map(|s| s.containers.iter().chain(s.init_containers.iter().flatten()));
            let mut opened = containers.flat_map(|c| c.ports.iter().flatten());
            opened
                .find(|p| p.name.as_ref() == Some(name) && p.protocol.as_deref().unwrap_or("TCP") == protocol)
                .map(|p| p.container_port)
        }
    };
    let all = service.spec.iter().flat_map(|s| s.ports.iter().flatten());
    all.filter_map(|port| Some(port_entry(port, Some(resolve(port)?)))).collect::<Vec<_>>().into()
}

fn ports_without_pods(service: &Service) -> Value {
    let number = |port: &ServicePort| match &port.target_port {
        Some(IntOrString::Int(number)) if *number != 0 => Some(*number),
        Some(IntOrString::String(_)) => None,
        _ => Some(port.port),
    };
    let all = service.spec.iter().flat_map(|s| s.ports.iter().flatten());
    all.filter_map(|port| Some(port_entry(port, Some(number(port)?)))).collect::<Vec<_>>().into()
}

fn delete(slice: &EndpointSlice) -> Write {
    let uid = slice.metadata.uid.clone().unwrap_or_default();
    Write::Delete(Target::of::<EndpointSlice>(&slice.metadata), uid, Propagation::Background)
}

/// Puts the wanted endpoints into the existing slices, then into new ones.
fn place(
    service: &Service,
    mut wanted: BTreeMap<Ports, BTreeMap<String, Value>>,
    existing: &[&Arc<EndpointSlice>],
) -> Vec<Write> {
    let mut writes = Vec::new();
    let mut kept: Vec<(&Arc<EndpointSlice>, Ports, Vec<Value>)> = Vec::new();
    for slice in existing {
        let tree = json(&***slice);
        let ports = tree.get("ports").cloned().unwrap_or_else(|| json!([])).to_string();
        let Some(group) = wanted.get_mut(&ports) else {
            writes.push(delete(slice));
            continue;
        };
        // E3: what is still wanted stays where it is.
        let old = tree.get("endpoints").and_then(Value::as_array).cloned().unwrap_or_default();
        let stay =
            old.iter().filter_map(|e| group.remove(e.pointer("/addresses/0")?.as_str()?)).take(ENDPOINTS_MAX).collect();
        kept.push((slice, ports, stay));
    }
    for (slice, ports, mut endpoints) in kept {
        if let Some(group) = wanted.get_mut(&ports) {
            while endpoints.len() < ENDPOINTS_MAX {
                let Some((_, endpoint)) = group.pop_first() else { break };
                endpoints.push(endpoint);
            }
            // Only the last empty slice of a mapping is worth keeping, and only if nothing else is.
            if group.is_empty() {
                wanted.remove(&ports);
            }
        }
        let mut tree = json(&**slice);
        if tree.get("endpoints").and_then(Value::as_array) != Some(&endpoints) {
            tree["endpoints"] = endpoints.into();
            writes.push(Write::Update(tree));
        }
    }
    for (ports, group) in wanted {
        let all: Vec<Value> = group.into_values().collect();
        if all.is_empty() {
            writes.push(Write::Create(new_slice(service, &ports, &[])));
        }
        writes.extend(all.chunks(ENDPOINTS_MAX).map(|chunk| Write::Create(new_slice(service, &ports, chunk))));
    }
    writes
}

fn new_slice(service: &Service, ports: &str, endpoints: &[Value]) -> Value {
    let name = service.metadata.name.as_deref().unwrap_or("");
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.insert(SERVICE_NAME.to_owned(), name.to_owned());
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    if service.spec.as_ref().is_some_and(|s| s.cluster_ip.as_deref() == Some("None")) {
        labels.insert("service.kubernetes.io/headless".to_owned(), String::new());
    }
    json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"generateName": format!("{name}-"), "namespace": service.metadata.namespace, "labels": labels,
            "ownerReferences": [controlled_by::<Service>(&service.metadata)]},
        "addressType": "IPv4",
        "endpoints": endpoints,
        // Made by us from a tree a moment ago.
        "ports": serde_json::from_str::<Value>(ports).unwrap_or_else(|_| json!([]))})
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::from_value;

    fn service() -> Arc<Service> {
        let service = json!({"metadata": {"name": "web", "namespace": "a", "uid": "s"},
            "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": "http", "protocol": "TCP"}]}});
        Arc::new(from_value(service).expect("a Service"))
    }

    fn pod(index: usize, ready: bool) -> Arc<Pod> {
        let pod = json!({"metadata": {"name": format!("p{index}"), "namespace": "a", "uid": format!("u{index}"), "labels": {"app": "web"}},
            "spec": {"nodeName": "n", "containers": [{"name": "c", "ports": [{"name": "http", "containerPort": 8080}]}]},
            "status": {"phase": "Running", "podIP": format!("10.0.{}.{}", index / 250, index % 250 + 1),
                "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}]}});
        Arc::new(from_value(pod).expect("a Pod"))
    }

    fn apply(slices: &mut Vec<Arc<EndpointSlice>>, writes: Vec<Write>) {
        for write in writes {
            match write {
                Write::Create(mut object) => {
                    object["metadata"]["name"] = format!("web-{}", slices.len()).into();
                    slices.push(Arc::new(from_value(object).expect("a slice")));
                }
                Write::Update(object) => {
                    let changed: EndpointSlice = from_value(object).expect("a slice");
                    for slice in slices.iter_mut().filter(|s| s.metadata.name == changed.metadata.name) {
                        *slice = Arc::new(changed.clone());
                    }
                }
                Write::Delete(target, ..) => slices.retain(|s| s.metadata.name.as_ref() != Some(&target.name)),
                other => panic!("unexpected {other:?}"),
            }
        }
    }

    /// E1, E2, E3, and rest.
    #[test]
    fn many_pods_share_slices() {
        let mut pods: Vec<_> = (0..250).map(|i| pod(i, true)).collect();
        let mut slices = Vec::new();
        let look = |pods: &[Arc<Pod>], slices: &[Arc<EndpointSlice>]| {
            reconcile(&Observed { service: service(), pods: pods.to_vec(), slices: slices.to_vec() })
        };
        let writes = look(&pods, &slices);
        apply(&mut slices, writes);
        let sizes = |slices: &[Arc<EndpointSlice>]| {
            slices.iter().map(|s| s.endpoints.as_ref().map_or(0, Vec::len)).collect::<Vec<_>>()
        };
        assert_eq!(sizes(&slices), [100, 100, 50]);
        assert!(look(&pods, &slices).is_empty());
        pods[7] = pod(7, false);
        let writes = look(&pods, &slices);
        assert_eq!(writes.len(), 1, "one pod's change is one slice's write");
        apply(&mut slices, writes);
        assert_eq!(sizes(&slices), [100, 100, 50]);
    }

    #[test]
    fn a_named_port_is_looked_up_in_the_pod() {
        let writes = reconcile(&Observed { service: service(), pods: vec![pod(0, true)], slices: vec![] });
        let [Write::Create(slice)] = writes.as_slice() else { panic!("{writes:?}") };
        assert_eq!(slice["ports"], json!([{"name": "", "protocol": "TCP", "port": 8080}]));
        assert_eq!(slice["endpoints"][0]["conditions"]["ready"], true);
    }
}
