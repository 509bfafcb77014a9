//! Cells of every kind but pods and workloads.

use serde_json::Value;

use super::{pod, workload};
use crate::meta::{self, items, string_map, text};

const NONE: &str = "<none>";
const UNKNOWN: &str = "<unknown>";
const UNSET: &str = "<unset>";

/// The cell of a column of a kind.
pub(super) fn cell(kind: &str, column: &str, object: &Value, now: i64) -> Value {
    match column {
        "Name" => return meta::name(object).into(),
        "Age" => return age(object, now).into(),
        _ => {}
    }
    match kind {
        "Pod" => pod::cell(column, object, now),
        "Deployment"
        | "ReplicaSet"
        | "ReplicationController"
        | "StatefulSet"
        | "DaemonSet"
        | "Job"
        | "CronJob"
        | "PodTemplate"
        | "ControllerRevision"
        | "Scale" => workload::cell(kind, column, object, now),
        "Service" | "Endpoints" | "EndpointSlice" | "Ingress" | "IngressClass" | "NetworkPolicy" | "ServiceCIDR"
        | "IPAddress" => network(kind, column, object),
        "Node" => node(column, object),
        "Event" => event(column, object, now),
        "PersistentVolume"
        | "PersistentVolumeClaim"
        | "StorageClass"
        | "VolumeAttachment"
        | "CSINode"
        | "CSIDriver"
        | "CSIStorageCapacity"
        | "VolumeAttributesClass" => storage(kind, column, object),
        _ => other(kind, column, object),
    }
}

/// The age of an object, or `<unknown>`.
fn age(object: &Value, now: i64) -> String {
    since(meta::field(object, "creationTimestamp"), now)
}

/// Time since a timestamp, or `<unknown>`.
pub(super) fn since(timestamp: &str, now: i64) -> String {
    match timestamp.parse::<jiff::Timestamp>() {
        Ok(then) => duration(now - then.as_second()),
        Err(_) => UNKNOWN.to_owned(),
    }
}

/// A duration in the short form of kubectl. Source: apimachinery `duration.HumanDuration`.
pub fn duration(seconds: i64) -> String {
    const MINUTE: i64 = 60;
    const HOUR: i64 = 60 * MINUTE;
    const DAY: i64 = 24 * HOUR;
    const YEAR: i64 = 365 * DAY;
    let two = |big: i64, big_unit: &str, small: i64, small_unit: &str| {
        if small == 0 { format!("{big}{big_unit}") } else { format!("{big}{big_unit}{small}{small_unit}") }
    };
    match seconds {
        i64::MIN..-1 => "<invalid>".to_owned(),
        -1..0 => "0s".to_owned(),
        0..120 => format!("{seconds}s"),
        120..600 => two(seconds / MINUTE, "m", seconds % MINUTE, "s"),
        600..10_800 => format!("{}m", seconds / MINUTE),
        10_800..28_800 => two(seconds / HOUR, "h", seconds % HOUR / MINUTE, "m"),
        28_800..172_800 => format!("{}h", seconds / HOUR),
        172_800..691_200 => two(seconds / DAY, "d", seconds % DAY / HOUR, "h"),
        691_200..63_072_000 => format!("{}d", seconds / DAY),
        63_072_000..252_288_000 => two(seconds / YEAR, "y", seconds % YEAR / DAY, "d"),
        _ => format!("{}y", seconds / YEAR),
    }
}

pub(super) fn or(value: &str, empty: &str) -> Value {
    if value.is_empty() { empty.into() } else { value.into() }
}

pub(super) fn number(object: &Value, pointer: &str) -> i64 {
    object.pointer(pointer).and_then(Value::as_i64).unwrap_or(0)
}

fn joined<'a>(values: impl Iterator<Item = &'a str>, empty: &str) -> Value {
    let list: Vec<&str> = values.collect();
    or(&list.join(","), empty)
}

/// `a=b,c=d` of a map, or `<none>`.
pub(super) fn map_cell(object: &Value, pointer: &str) -> Value {
    let list: Vec<String> = string_map(object, pointer).map(|(k, v)| format!("{k}={v}")).collect();
    or(&list.join(","), NONE)
}

/// A label selector in its text form, or `<none>`.
pub(super) fn selector_cell(object: &Value, pointer: &str) -> Value {
    let mut list: Vec<String> =
        string_map(object, &format!("{pointer}/matchLabels")).map(|(k, v)| format!("{k}={v}")).collect();
    for expression in items(object, &format!("{pointer}/matchExpressions")) {
        let key = text(expression, "/key");
        let values: Vec<&str> = items(expression, "/values").iter().filter_map(Value::as_str).collect();
        list.push(match text(expression, "/operator") {
            "In" => format!("{key} in ({})", values.join(",")),
            "NotIn" => format!("{key} notin ({})", values.join(",")),
            "Exists" => key.to_owned(),
            _ => format!("!{key}"),
        });
    }
    or(&list.join(","), NONE)
}

fn port_numbers<'a>(ports: &'a [Value]) -> impl Iterator<Item = String> + 'a {
    ports.iter().map(|p| number(p, "/port").to_string())
}

fn network(kind: &str, column: &str, object: &Value) -> Value {
    match (kind, column) {
        ("Service", "Type") => or(text(object, "/spec/type"), "ClusterIP"),
        ("Service", "Cluster-IP") => or(text(object, "/spec/clusterIP"), NONE),
        ("Service", "External-IP") => external_ip(object),
        ("Service", "Port(s)") => service_ports(object),
        ("Service", "Selector") => map_cell(object, "/spec/selector"),
        ("Endpoints", "Endpoints") => endpoints(object),
        ("EndpointSlice", "AddressType") => text(object, "/addressType").into(),
        ("EndpointSlice", "Ports") => {
            let ports: Vec<String> = port_numbers(items(object, "/ports")).collect();
            limited(&ports, UNSET)
        }
        ("EndpointSlice", "Endpoints") => {
            let all = items(object, "/endpoints").iter().flat_map(|e| items(e, "/addresses"));
            let addresses: Vec<String> = all.filter_map(Value::as_str).map(str::to_owned).collect();
            limited(&addresses, UNSET)
        }
        ("Ingress", "Class") => or(text(object, "/spec/ingressClassName"), NONE),
        ("Ingress", "Hosts") => {
            joined(items(object, "/spec/rules").iter().map(|r| text(r, "/host")).filter(|h| !h.is_empty()), "*")
        }
        ("Ingress", "Address") => balancer(object),
        ("Ingress", "Ports") => if items(object, "/spec/tls").is_empty() { "80" } else { "80, 443" }.into(),
        ("IngressClass", "Controller") => text(object, "/spec/controller").into(),
        ("IngressClass", "Parameters") => or(text(object, "/spec/parameters/name"), NONE),
        ("NetworkPolicy", "Pod-Selector") => selector_cell(object, "/spec/podSelector"),
        ("ServiceCIDR", "CIDRs") => joined(items(object, "/spec/cidrs").iter().filter_map(Value::as_str), ""),
        ("IPAddress", "ParentRef") => {
            let parent = |f: &str| text(object, &format!("/spec/parentRef/{f}")).to_owned();
            [parent("resource"), parent("namespace"), parent("name")].join("/").into()
        }
        _ => UNKNOWN.into(),
    }
}

/// At most three, then how many more. Source: printers `formatEndpoints`, `printEndpointSlice`.
fn limited(values: &[String], empty: &str) -> Value {
    const SHOWN: usize = 3;
    if values.is_empty() {
        return empty.into();
    }
    let head = values[..values.len().min(SHOWN)].join(",");
    match values.len().saturating_sub(SHOWN) {
        0 => head.into(),
        more => format!("{head} + {more} more...").into(),
    }
}

fn balancer(object: &Value) -> Value {
    let address = |i: &'_ Value| {
        let ip = text(i, "/ip");
        if ip.is_empty() { text(i, "/hostname").to_owned() } else { ip.to_owned() }
    };
    let all: Vec<String> = items(object, "/status/loadBalancer/ingress").iter().map(address).collect();
    all.join(",").into()
}

fn external_ip(service: &Value) -> Value {
    let external = || joined(items(service, "/spec/externalIPs").iter().filter_map(Value::as_str), NONE);
    match text(service, "/spec/type") {
        "ExternalName" => text(service, "/spec/externalName").into(),
        "LoadBalancer" => match balancer(service) {
            Value::String(ip) if !ip.is_empty() => ip.into(),
            _ => "<pending>".into(),
        },
        _ => external(),
    }
}

fn service_ports(service: &Value) -> Value {
    let port = |p: &Value| {
        let protocol = p.get("protocol").and_then(Value::as_str).unwrap_or("TCP");
        match number(p, "/nodePort") {
            0 => format!("{}/{protocol}", number(p, "/port")),
            node => format!("{}:{node}/{protocol}", number(p, "/port")),
        }
    };
    let all: Vec<String> = items(service, "/spec/ports").iter().map(port).collect();
    or(&all.join(","), NONE)
}

fn endpoints(object: &Value) -> Value {
    let mut all = Vec::new();
    for subset in items(object, "/subsets") {
        for address in items(subset, "/addresses") {
            for port in items(subset, "/ports") {
                all.push(format!("{}:{}", text(address, "/ip"), number(port, "/port")));
            }
        }
    }
    limited(&all, NONE)
}

fn condition<'a>(object: &'a Value, ty: &str) -> Option<&'a Value> {
    items(object, "/status/conditions").iter().find(|c| text(c, "/type") == ty)
}

fn node(column: &str, object: &Value) -> Value {
    let info = |field: &str| or(text(object, &format!("/status/nodeInfo/{field}")), UNKNOWN);
    let address = |ty: &str| {
        let found = items(object, "/status/addresses").iter().find(|a| text(a, "/type") == ty);
        or(found.map_or("", |a| text(a, "/address")), NONE)
    };
    match column {
        "Status" => {
            let ready = match condition(object, "Ready").map(|c| text(c, "/status")) {
                Some("True") => "Ready",
                Some(_) => "NotReady",
                None => "Unknown",
            };
            let cordoned = object.pointer("/spec/unschedulable") == Some(&Value::Bool(true));
            format!("{ready}{}", if cordoned { ",SchedulingDisabled" } else { "" }).into()
        }
        "Roles" => {
            let roles = string_map(object, "/metadata/labels").filter_map(|(key, value)| {
                match key.strip_prefix("node-role.kubernetes.io/") {
                    Some(role) if !role.is_empty() => Some(role),
                    _ if key == "kubernetes.io/role" => Some(value),
                    _ => None,
                }
            });
            joined(roles, NONE)
        }
        "Version" => text(object, "/status/nodeInfo/kubeletVersion").into(),
        "Internal-IP" => address("InternalIP"),
        "External-IP" => address("ExternalIP"),
        "OS-Image" => info("osImage"),
        "Kernel-Version" => info("kernelVersion"),
        "Container-Runtime" => info("containerRuntimeVersion"),
        _ => UNKNOWN.into(),
    }
}

/// Works for both event APIs: `events.k8s.io` names some fields otherwise.
fn event(column: &str, object: &Value, now: i64) -> Value {
    let first_of =
        |pointers: &[&str]| pointers.iter().map(|p| text(object, p)).find(|t| !t.is_empty()).unwrap_or("").to_owned();
    let about = |field: &str| first_of(&[&format!("/involvedObject/{field}"), &format!("/regarding/{field}")]);
    let first = first_of(&["/firstTimestamp", "/deprecatedFirstTimestamp", "/eventTime"]);
    let last = first_of(&["/series/lastObservedTime", "/lastTimestamp", "/deprecatedLastTimestamp", "/eventTime"]);
    let count = ["/series/count", "/count", "/deprecatedCount"]
        .iter()
        .find_map(|p| object.pointer(p).and_then(Value::as_i64))
        .unwrap_or(1)
        .max(1);
    match column {
        "Last Seen" => since(&last, now).into(),
        "First Seen" => since(&first, now).into(),
        "Type" => text(object, "/type").into(),
        "Reason" => text(object, "/reason").into(),
        "Object" => {
            let name = about("name");
            let kind = about("kind").to_lowercase();
            if name.is_empty() { kind.into() } else { format!("{kind}/{name}").into() }
        }
        "Subobject" => about("fieldPath").into(),
        "Source" => {
            let component = first_of(&[
                "/source/component",
                "/deprecatedSource/component",
                "/reportingComponent",
                "/reportingController",
            ]);
            let host = first_of(&["/source/host", "/deprecatedSource/host"]);
            if host.is_empty() { component.into() } else { format!("{component}, {host}").into() }
        }
        "Message" => first_of(&["/message", "/note"]).trim().into(),
        "Count" => count.to_string().into(),
        _ => UNKNOWN.into(),
    }
}

fn access_modes(object: &Value, pointer: &str) -> Value {
    let short = |mode: &'_ str| match mode {
        "ReadWriteOnce" => "RWO",
        "ReadOnlyMany" => "ROX",
        "ReadWriteMany" => "RWX",
        "ReadWriteOncePod" => "RWOP",
        _ => "?",
    };
    joined(items(object, pointer).iter().filter_map(Value::as_str).map(short), "")
}

fn bool_text(object: &Value, pointer: &str) -> bool {
    object.pointer(pointer).and_then(Value::as_bool).unwrap_or(false)
}

fn storage(kind: &str, column: &str, object: &Value) -> Value {
    match (kind, column) {
        ("PersistentVolume", "Capacity") => text(object, "/spec/capacity/storage").into(),
        ("PersistentVolumeClaim", "Capacity") => text(object, "/status/capacity/storage").into(),
        ("PersistentVolume", "Access Modes") => access_modes(object, "/spec/accessModes"),
        ("PersistentVolumeClaim", "Access Modes") => access_modes(object, "/status/accessModes"),
        ("PersistentVolume", "Reclaim Policy") => text(object, "/spec/persistentVolumeReclaimPolicy").into(),
        (_, "Status") if meta::is_deleting(object) => "Terminating".into(),
        (_, "Status") => text(object, "/status/phase").into(),
        ("PersistentVolume", "Claim") => match text(object, "/spec/claimRef/name") {
            "" => "".into(),
            name => format!("{}/{name}", text(object, "/spec/claimRef/namespace")).into(),
        },
        (_, "StorageClass") => text(object, "/spec/storageClassName").into(),
        (_, "VolumeAttributesClass") => or(text(object, "/spec/volumeAttributesClassName"), UNSET),
        (_, "Reason") => text(object, "/status/reason").into(),
        (_, "VolumeMode") => or(text(object, "/spec/volumeMode"), UNSET),
        ("PersistentVolumeClaim", "Volume") => text(object, "/spec/volumeName").into(),
        ("StorageClass", "Provisioner") => text(object, "/provisioner").into(),
        ("StorageClass", "ReclaimPolicy") => or(text(object, "/reclaimPolicy"), "Delete"),
        ("StorageClass", "VolumeBindingMode") => or(text(object, "/volumeBindingMode"), "Immediate"),
        ("StorageClass", "AllowVolumeExpansion") => bool_text(object, "/allowVolumeExpansion").to_string().into(),
        ("VolumeAttachment", "Attacher") => text(object, "/spec/attacher").into(),
        ("VolumeAttachment", "PV") => text(object, "/spec/source/persistentVolumeName").into(),
        ("VolumeAttachment", "Node") => text(object, "/spec/nodeName").into(),
        ("VolumeAttachment", "Attached") => bool_text(object, "/status/attached").into(),
        ("CSINode", "Drivers") => items(object, "/spec/drivers").len().into(),
        ("CSIDriver", "AttachRequired") => {
            object.pointer("/spec/attachRequired").and_then(Value::as_bool).unwrap_or(true).into()
        }
        ("CSIDriver", "PodInfoOnMount") => bool_text(object, "/spec/podInfoOnMount").into(),
        ("CSIDriver", "StorageCapacity") => bool_text(object, "/spec/storageCapacity").into(),
        ("CSIStorageCapacity", "StorageClassName") => text(object, "/storageClassName").into(),
        ("CSIStorageCapacity", "Capacity") => text(object, "/capacity").into(),
        ("VolumeAttributesClass", "DriverName") => text(object, "/driverName").into(),
        _ => UNKNOWN.into(),
    }
}

fn role_ref(object: &Value) -> Value {
    format!("{}/{}", text(object, "/roleRef/kind"), text(object, "/roleRef/name")).into()
}

fn subjects(object: &Value, kind: &str) -> Value {
    let name = |s: &Value| match text(s, "/namespace") {
        "" => text(s, "/name").to_owned(),
        namespace => format!("{namespace}/{}", text(s, "/name")),
    };
    let all: Vec<String> = items(object, "/subjects").iter().filter(|s| text(s, "/kind") == kind).map(name).collect();
    all.join(", ").into()
}

fn budget(object: &Value, pointer: &str) -> Value {
    match object.pointer(pointer) {
        Some(Value::String(percent)) => percent.as_str().into(),
        Some(Value::Number(n)) => n.to_string().into(),
        _ => "N/A".into(),
    }
}

fn other(kind: &str, column: &str, object: &Value) -> Value {
    match (kind, column) {
        ("Namespace", "Status") => text(object, "/status/phase").into(),
        ("Secret", "Type") => text(object, "/type").into(),
        ("Secret" | "ConfigMap", "Data") => {
            let count = |field: &str| object.get(field).and_then(Value::as_object).map_or(0, serde_json::Map::len);
            (count("data") + count("binaryData")).to_string().into()
        }
        ("Lease" | "LeaseCandidate", "Holder") => text(object, "/spec/holderIdentity").into(),
        ("LeaseCandidate", "LeaseName") => text(object, "/spec/leaseName").into(),
        ("LeaseCandidate", "BinaryVersion") => text(object, "/spec/binaryVersion").into(),
        ("LeaseCandidate", "EmulationVersion") => text(object, "/spec/emulationVersion").into(),
        ("RoleBinding" | "ClusterRoleBinding", "Role") => role_ref(object),
        ("RoleBinding" | "ClusterRoleBinding", "Users") => subjects(object, "User"),
        ("RoleBinding" | "ClusterRoleBinding", "Groups") => subjects(object, "Group"),
        ("RoleBinding" | "ClusterRoleBinding", "ServiceAccounts") => subjects(object, "ServiceAccount"),
        ("PodDisruptionBudget", "Min Available") => budget(object, "/spec/minAvailable"),
        ("PodDisruptionBudget", "Max Unavailable") => budget(object, "/spec/maxUnavailable"),
        ("PodDisruptionBudget", "Allowed Disruptions") => number(object, "/status/disruptionsAllowed").into(),
        ("PriorityClass", "Value") => number(object, "/value").into(),
        ("PriorityClass", "Global-Default") => bool_text(object, "/globalDefault").into(),
        ("PriorityClass", "PreemptionPolicy") => or(text(object, "/preemptionPolicy"), "PreemptLowerPriority"),
        ("RuntimeClass", "Handler") => text(object, "/handler").into(),
        ("HorizontalPodAutoscaler", "Reference") => {
            format!("{}/{}", text(object, "/spec/scaleTargetRef/kind"), text(object, "/spec/scaleTargetRef/name"))
                .into()
        }
        ("HorizontalPodAutoscaler", "MinPods") => number(object, "/spec/minReplicas").to_string().into(),
        ("HorizontalPodAutoscaler", "MaxPods") => number(object, "/spec/maxReplicas").to_string().into(),
        ("HorizontalPodAutoscaler", "Replicas") => number(object, "/status/currentReplicas").to_string().into(),
        ("ValidatingWebhook" | "MutatingWebhook", "Webhooks") => items(object, "/webhooks").len().into(),
        ("ValidatingAdmissionPolicy", "Validations") => items(object, "/spec/validations").len().into(),
        ("MutatingAdmissionPolicy", "Mutations") => items(object, "/spec/mutations").len().into(),
        (_, "ParamKind") => or(text(object, "/spec/paramKind/kind"), UNSET),
        (_, "PolicyName") => text(object, "/spec/policyName").into(),
        (_, "ParamRef") => or(text(object, "/spec/paramRef/name"), UNSET),
        ("CertificateSigningRequest" | "ClusterTrustBundle", "SignerName") => {
            or(text(object, "/spec/signerName"), NONE)
        }
        ("CertificateSigningRequest", "Requestor") => text(object, "/spec/username").into(),
        ("CertificateSigningRequest", "RequestedDuration") => match number(object, "/spec/expirationSeconds") {
            0 => NONE.into(),
            seconds => duration(seconds).into(),
        },
        ("CertificateSigningRequest", "Condition") => {
            joined(items(object, "/status/conditions").iter().map(|c| text(c, "/type")), "Pending")
        }
        ("FlowSchema", "PriorityLevel") => text(object, "/spec/priorityLevelConfiguration/name").into(),
        ("FlowSchema", "MatchingPrecedence") => number(object, "/spec/matchingPrecedence").to_string().into(),
        ("FlowSchema", "DistinguisherMethod") => or(text(object, "/spec/distinguisherMethod/type"), NONE),
        ("PriorityLevelConfiguration", "Type") => text(object, "/spec/type").into(),
        ("PriorityLevelConfiguration", "NominalConcurrencyShares") => {
            number(object, "/spec/limited/nominalConcurrencyShares").to_string().into()
        }
        ("ResourceClaim", "State") => {
            match (object.pointer("/status/allocation"), items(object, "/status/reservedFor")) {
                (None, _) => "pending".into(),
                (Some(_), []) => "allocated".into(),
                (Some(_), _) => "allocated,reserved".into(),
            }
        }
        ("ResourceSlice", "Node") => or(text(object, "/spec/nodeName"), UNSET),
        ("ResourceSlice", "Driver") => text(object, "/spec/driver").into(),
        ("ResourceSlice", "Pool") => text(object, "/spec/pool/name").into(),
        ("PodGroup", "Workload") => text(object, "/spec/podGroupTemplateRef/workload/workloadName").into(),
        _ => UNKNOWN.into(),
    }
}
