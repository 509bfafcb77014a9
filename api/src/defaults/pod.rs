//! Defaults of pods and of what they consist of.

use serde_json::{Map, Value, json};

use super::{child, set, set_number};

/// The mode of files that volumes make: 0644.
const FILE_MODE: i64 = 0o644;

pub(super) fn of_type(name: &str, map: &mut Map<String, Value>) {
    match name {
        "PodSpec" => spec(map),
        "Container" | "EphemeralContainer" => container(map),
        "ContainerPort" => set(map, "protocol", "TCP"),
        "Probe" => {
            set_number(map, "timeoutSeconds", 1);
            set_number(map, "periodSeconds", 10);
            set_number(map, "successThreshold", 1);
            set_number(map, "failureThreshold", 3);
        }
        "HTTPGetAction" => {
            set(map, "path", "/");
            set(map, "scheme", "HTTP");
        }
        "GRPCAction" if !map.contains_key("service") => {
            map.insert("service".to_owned(), "".into());
        }
        "ObjectFieldSelector" => set(map, "apiVersion", "v1"),
        "Volume" if map.keys().all(|key| key == "name") => {
            map.insert("emptyDir".to_owned(), json!({}));
        }
        "SecretVolumeSource" | "ConfigMapVolumeSource" | "DownwardAPIVolumeSource" | "ProjectedVolumeSource" => {
            set(map, "defaultMode", FILE_MODE);
        }
        "ServiceAccountTokenProjection" => set(map, "expirationSeconds", 3600),
        "HostPathVolumeSource" if !map.contains_key("type") => {
            map.insert("type".to_owned(), "".into());
        }
        "ISCSIVolumeSource" => set(map, "iscsiInterface", "default"),
        "ResourceFieldSelector" => set(map, "divisor", "0"),
        "TopologySpreadConstraint" | "Toleration" => {}
        _ => {}
    }
}

fn spec(map: &mut Map<String, Value>) {
    set(map, "restartPolicy", "Always");
    set(map, "terminationGracePeriodSeconds", 30);
    set(map, "dnsPolicy", "ClusterFirst");
    child(map, "securityContext");
    set(map, "schedulerName", "default-scheduler");
    if !map.contains_key("enableServiceLinks") {
        map.insert("enableServiceLinks".to_owned(), true.into());
    }
    // An older name of the same field; whichever is set fills the other.
    let account =
        ["serviceAccountName", "serviceAccount"].iter().find_map(|f| map.get(*f).filter(|v| *v != "").cloned());
    if let Some(account) = account {
        set(map, "serviceAccountName", account.clone());
        set(map, "serviceAccount", account);
    }
}

fn container(map: &mut Map<String, Value>) {
    let image = map.get("image").and_then(Value::as_str).unwrap_or("");
    set(map, "imagePullPolicy", pull_policy(image));
    set(map, "terminationMessagePath", "/dev/termination-log");
    set(map, "terminationMessagePolicy", "File");
    let Some(resources) = child(map, "resources") else { return };
    let Some(limits) = resources.get("limits").and_then(Value::as_object).cloned() else { return };
    if let Some(requests) = child(resources, "requests") {
        for (resource, limit) in limits {
            requests.entry(resource).or_insert(limit);
        }
        if requests.is_empty() {
            resources.remove("requests");
        }
    }
}

/// A tag that may move is pulled each time. Source: `SetDefaults_Container`, `parsers.ParseImageName`.
fn pull_policy(image: &str) -> &'static str {
    if image.contains('@') {
        return "IfNotPresent";
    }
    // A colon before the last slash belongs to a registry's port.
    let last = image.rsplit('/').next().unwrap_or("");
    match last.split_once(':') {
        None | Some((_, "latest")) => "Always",
        Some(_) => "IfNotPresent",
    }
}

/// On the host's network a container's ports are the host's.
pub(super) fn after_children(map: &mut Map<String, Value>) {
    if map.get("hostNetwork") != Some(&Value::Bool(true)) {
        return;
    }
    for list in ["containers", "initContainers"] {
        for one in map.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            for port in one
                .get_mut("ports")
                .and_then(Value::as_array_mut)
                .into_iter()
                .flatten()
                .filter_map(Value::as_object_mut)
            {
                if let Some(number) = port.get("containerPort").and_then(Value::as_i64) {
                    set_number(port, "hostPort", number);
                }
            }
        }
    }
}
