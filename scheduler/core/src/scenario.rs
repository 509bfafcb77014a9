//! Clusters and pods as text, for tests.
//!
//! ```text
//! node NAME [cpu=4] [memory=32Gi] [pods=110] [taint=key:value:effect] [image=name:bytes] [closed=true] [label.KEY=VALUE]…
//! pod NAME NODE [options of a pod]…
//! schedule NAME [ns=default] [cpu=1] [memory=1Gi] [priority=5] [tolerate=key:operator:value:effect] [select.KEY=VALUE]
//!          [port=80] [image=name] [spread=key:maxSkew:hard|soft:label=value] [nominated=NODE] [preempts=Never]
//!          [default.KEY=VALUE] [label.KEY=VALUE] [resource.NAME=AMOUNT] [gate=NAME] [node=NODE] [only=NODE,NODE]…
//! remove NODE
//! delete POD
//! ```
//! `schedule` places the pod; what it came to is a line of the output.

use k8s_openapi::api::core::v1::{Node, Pod};
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::labels::Labels;
use crate::oracle::{Decision, schedule};
use crate::spread::SpreadDefaults;

type Options<'a> = Vec<(&'a str, &'a str)>;

fn options<'a>(words: &[&'a str]) -> Options<'a> {
    words.iter().map(|word| word.split_once('=').unwrap_or((word, ""))).collect()
}

fn all<'a>(options: &Options<'a>, key: &str) -> Vec<&'a str> {
    options.iter().filter(|(k, _)| *k == key).map(|(_, value)| *value).collect()
}

fn one<'a>(options: &Options<'a>, key: &str) -> Option<&'a str> {
    all(options, key).first().copied()
}

fn prefixed(options: &Options<'_>, prefix: &str) -> Labels {
    let named = options.iter().filter_map(|(key, value)| Some((key.strip_prefix(prefix)?, value)));
    named.map(|(key, value)| (key.to_owned(), (*value).to_owned())).collect()
}

fn part(text: &str, at: usize) -> &str {
    text.split(':').nth(at).unwrap_or("")
}

pub(crate) fn node(words: &[&str]) -> Node {
    let options = options(&words[1..]);
    let taint = |text: &&str| json!({"key": part(text, 0), "value": part(text, 1), "effect": part(text, 2)});
    let image = |text: &&str| {
        let (name, bytes) = text.rsplit_once(':').unwrap();
        json!({"names": [name], "sizeBytes": bytes.parse::<i64>().unwrap()})
    };
    let mut allocatable = json!({"cpu": one(&options, "cpu").unwrap_or("4"),
        "memory": one(&options, "memory").unwrap_or("32Gi"), "pods": one(&options, "pods").unwrap_or("110")});
    for (name, amount) in prefixed(&options, "resource.") {
        allocatable[name] = json!(amount);
    }
    serde_json::from_value(json!({
        "metadata": {"name": words[0], "labels": prefixed(&options, "label.")},
        "spec": {"unschedulable": one(&options, "closed").is_some(),
            "taints": all(&options, "taint").iter().map(taint).collect::<Vec<_>>()},
        "status": {"allocatable": allocatable, "images": all(&options, "image").iter().map(image).collect::<Vec<_>>()},
    }))
    .unwrap()
}

fn spread(text: &&str) -> Value {
    let (label, value) = part(text, 3).split_once('=').unwrap();
    let when = if part(text, 2) == "hard" { "DoNotSchedule" } else { "ScheduleAnyway" };
    json!({"topologyKey": part(text, 0), "maxSkew": part(text, 1).parse::<i32>().unwrap(),
        "whenUnsatisfiable": when, "labelSelector": {"matchLabels": {label: value}}})
}

fn requests(options: &Options<'_>) -> Value {
    let mut requests = json!({});
    for name in ["cpu", "memory"] {
        if let Some(amount) = one(options, name) {
            requests[name] = json!(amount);
        }
    }
    for (name, amount) in prefixed(options, "resource.") {
        requests[name] = json!(amount);
    }
    requests
}

pub(crate) fn pod(words: &[&str]) -> Pod {
    let options = options(&words[1..]);
    let toleration = |text: &&str| json!({"key": part(text, 0), "operator": part(text, 1), "value": part(text, 2), "effect": part(text, 3)});
    let ports: Vec<Value> = all(&options, "port")
        .iter()
        .map(|port| json!({"containerPort": 1, "hostPort": port.parse::<i32>().unwrap()}))
        .collect();
    let mut spec = json!({
        "containers": [{"name": "c", "image": one(&options, "image").unwrap_or("x"), "ports": ports,
            "resources": {"requests": requests(&options)}}],
        "priority": one(&options, "priority").unwrap_or("0").parse::<i32>().unwrap(),
        "nodeSelector": prefixed(&options, "select."),
        "tolerations": all(&options, "tolerate").iter().map(toleration).collect::<Vec<_>>(),
        "topologySpreadConstraints": all(&options, "spread").iter().map(spread).collect::<Vec<_>>(),
        "preemptionPolicy": one(&options, "preempts").unwrap_or("PreemptLowerPriority"),
        "schedulingGates": all(&options, "gate").iter().map(|name| json!({"name": name})).collect::<Vec<_>>(),
        "nodeName": one(&options, "node"),
    });
    if let Some(names) = one(&options, "only") {
        let term = |name: &str| json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": [name]}]});
        spec["affinity"] = json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
            {"nodeSelectorTerms": names.split(',').map(term).collect::<Vec<_>>()}}});
    }
    serde_json::from_value(json!({
        "metadata": {"name": words[0], "uid": words[0], "namespace": one(&options, "ns").unwrap_or("default"),
            "labels": prefixed(&options, "label.")},
        "spec": spec,
        "status": {"nominatedNodeName": one(&options, "nominated")},
    }))
    .unwrap()
}

fn show(decision: &Decision) -> String {
    let scores: Vec<String> = decision.scored.iter().map(|node| format!("{} {}", node.node, node.total)).collect();
    format!("{} of {} ({})", decision.node, decision.evaluated, scores.join(", "))
}

/// Runs a text; the output has a line for each `schedule`.
pub(crate) fn run(cluster: &mut Cluster, text: &str) -> String {
    let mut out = String::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[0] {
            "node" => cluster.upsert_node(&node(&words[1..])).unwrap(),
            "remove" => cluster.remove_node(words[1]),
            "pod" => {
                let wire = pod(&[&words[1..2], &words[3..]].concat());
                cluster.add_pod(&wire, words[2]).unwrap();
            }
            "delete" => assert!(cluster.remove_pod(words[1]), "{line}"),
            "schedule" => {
                let defaults = SpreadDefaults::of([&prefixed(&options(&words[2..]), "default.")], None);
                let wire = pod(&words[1..]);
                let shown = match schedule(cluster, &wire, &defaults) {
                    Ok(decision) => {
                        cluster.add_pod(&wire, &decision.node).unwrap();
                        show(&decision)
                    }
                    Err(failure) => failure.to_string(),
                };
                out.push_str(&format!("{}: {shown}\n", words[1]));
            }
            other => panic!("{other} is no command"),
        }
    }
    out
}
