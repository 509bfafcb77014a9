//! Pod rows: readiness, the status word, restarts. Source: printers `printPod`.

use serde_json::Value;

use super::cells::{or, since};
use crate::meta::{self, items, text};

pub(super) fn cell(column: &str, pod: &Value, now: i64) -> Value {
    match column {
        "Ready" => {
            let (ready, total) = ready(pod);
            format!("{ready}/{total}").into()
        }
        "Status" => status(pod).into(),
        "Restarts" => restarts(pod, now).into(),
        "IP" => or(text(pod, "/status/podIP"), "<none>"),
        "Node" => or(text(pod, "/spec/nodeName"), "<none>"),
        "Nominated Node" => or(text(pod, "/status/nominatedNodeName"), "<none>"),
        "Readiness Gates" => readiness_gates(pod),
        _ => "<unknown>".into(),
    }
}

fn flag(value: &Value, pointer: &str) -> bool {
    value.pointer(pointer).and_then(Value::as_bool).unwrap_or(false)
}

fn number(value: &Value, pointer: &str) -> i64 {
    value.pointer(pointer).and_then(Value::as_i64).unwrap_or(0)
}

/// Init containers that go on running beside the main ones.
fn is_sidecar(pod: &Value, name: &str) -> bool {
    items(pod, "/spec/initContainers").iter().any(|c| text(c, "/name") == name && text(c, "/restartPolicy") == "Always")
}

fn ready(pod: &Value) -> (usize, usize) {
    let sidecars = || items(pod, "/status/initContainerStatuses").iter().filter(|s| is_sidecar(pod, text(s, "/name")));
    let running = |s: &&Value| flag(s, "/ready") && s.pointer("/state/running").is_some();
    let ready = items(pod, "/status/containerStatuses").iter().filter(running).count()
        + sidecars().filter(|s| flag(s, "/started") && flag(s, "/ready")).count();
    let total = items(pod, "/spec/containers").len()
        + items(pod, "/spec/initContainers").iter().filter(|c| text(c, "/restartPolicy") == "Always").count();
    (ready, total)
}

/// What a terminated container is called.
fn ended(state: &Value) -> String {
    let reason = text(state, "/reason");
    if !reason.is_empty() {
        return reason.to_owned();
    }
    match number(state, "/signal") {
        0 => format!("ExitCode:{}", number(state, "/exitCode")),
        signal => format!("Signal:{signal}"),
    }
}

/// The word in the STATUS column.
fn status(pod: &Value) -> String {
    let mut word = text(pod, "/status/phase").to_owned();
    let reason = text(pod, "/status/reason");
    if !reason.is_empty() {
        word = reason.to_owned();
    }
    if items(pod, "/status/conditions")
        .iter()
        .any(|c| text(c, "/type") == "PodScheduled" && text(c, "/reason") == "SchedulingGated")
    {
        word = "SchedulingGated".to_owned();
    }
    let initializing = init_word(pod);
    match &initializing {
        Some(init) => word = init.clone(),
        None => word = container_word(pod, word),
    }
    if meta::is_deleting(pod) {
        return if reason == "NodeLost" { "Unknown".to_owned() } else { "Terminating".to_owned() };
    }
    word
}

fn init_word(pod: &Value) -> Option<String> {
    let total = items(pod, "/spec/initContainers").len();
    for (index, status) in items(pod, "/status/initContainerStatuses").iter().enumerate() {
        let sidecar = is_sidecar(pod, text(status, "/name"));
        if let Some(state) = status.pointer("/state/terminated") {
            if number(state, "/exitCode") == 0 {
                continue;
            }
            return Some(format!("Init:{}", ended(state)));
        }
        if sidecar && flag(status, "/started") {
            continue;
        }
        let waiting = text(status, "/state/waiting/reason");
        if !waiting.is_empty() && waiting != "PodInitializing" {
            return Some(format!("Init:{waiting}"));
        }
        return Some(format!("Init:{index}/{total}"));
    }
    None
}

fn container_word(pod: &Value, phase: String) -> String {
    let mut word = phase;
    let mut running = false;
    for status in items(pod, "/status/containerStatuses").iter().rev() {
        let waiting = text(status, "/state/waiting/reason");
        if !waiting.is_empty() {
            word = waiting.to_owned();
        } else if let Some(state) = status.pointer("/state/terminated") {
            word = ended(state);
        } else if flag(status, "/ready") && status.pointer("/state/running").is_some() {
            running = true;
        }
    }
    if word == "Completed" && running {
        let ready = items(pod, "/status/conditions")
            .iter()
            .any(|c| text(c, "/type") == "Ready" && text(c, "/status") == "True");
        return if ready { "Running" } else { "NotReady" }.to_owned();
    }
    word
}

fn restarts(pod: &Value, now: i64) -> String {
    let mut count = 0;
    let mut last = "";
    for status in items(pod, "/status/containerStatuses") {
        count += number(status, "/restartCount");
        let finished = text(status, "/lastState/terminated/finishedAt");
        // RFC 3339 times in UTC order as text.
        if finished > last {
            last = finished;
        }
    }
    if count == 0 || last.is_empty() { count.to_string() } else { format!("{count} ({} ago)", since(last, now)) }
}

fn readiness_gates(pod: &Value) -> Value {
    let gates = items(pod, "/spec/readinessGates");
    if gates.is_empty() {
        return "<none>".into();
    }
    let met = |gate: &&Value| {
        let ty = text(gate, "/conditionType");
        items(pod, "/status/conditions").iter().any(|c| text(c, "/type") == ty && text(c, "/status") == "True")
    };
    format!("{}/{}", gates.iter().filter(met).count(), gates.len()).into()
}
