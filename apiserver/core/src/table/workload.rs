//! Rows of workloads.

use serde_json::Value;

use super::cells::{map_cell, number, or, selector_cell, since};
use crate::meta::{items, text};

pub(super) fn cell(kind: &str, column: &str, object: &Value, now: i64) -> Value {
    let template = if kind == "CronJob" {
        "/spec/jobTemplate/spec/template"
    } else if kind == "PodTemplate" {
        "/template"
    } else {
        "/spec/template"
    };
    let containers = |field: &str| {
        let list = items(object, &format!("{template}/spec/containers"));
        list.iter().map(|c| text(c, &format!("/{field}"))).collect::<Vec<_>>().join(",").into()
    };
    match column {
        "Containers" => return containers("name"),
        "Images" => return containers("image"),
        "Selector" if kind == "ReplicationController" => return map_cell(object, "/spec/selector"),
        "Selector" => {
            return selector_cell(
                object,
                if kind == "CronJob" { "/spec/jobTemplate/spec/selector" } else { "/spec/selector" },
            );
        }
        "Pod Labels" => return map_cell(object, "/template/metadata/labels"),
        _ => {}
    }
    match kind {
        "Job" => job(column, object, now),
        "CronJob" => cron_job(column, object, now),
        "DaemonSet" => daemon_set(column, object),
        "ControllerRevision" => revision(column, object),
        _ => replicated(kind, column, object),
    }
}

fn replicated(kind: &str, column: &str, object: &Value) -> Value {
    let status = |field: &str| number(object, &format!("/status/{field}"));
    let desired = object.pointer("/spec/replicas").and_then(Value::as_i64).unwrap_or(1);
    match (kind, column) {
        ("Deployment" | "StatefulSet", "Ready") => format!("{}/{desired}", status("readyReplicas")).into(),
        ("Deployment", "Up-to-date") => status("updatedReplicas").to_string().into(),
        ("Deployment", "Available") => status("availableReplicas").to_string().into(),
        (_, "Desired") => desired.into(),
        (_, "Current") => status("replicas").into(),
        (_, "Ready") => status("readyReplicas").into(),
        ("Scale", "Available") => status("replicas").into(),
        _ => "<unknown>".into(),
    }
}

fn daemon_set(column: &str, object: &Value) -> Value {
    let status = |field: &str| number(object, &format!("/status/{field}")).into();
    match column {
        "Desired" => status("desiredNumberScheduled"),
        "Current" => status("currentNumberScheduled"),
        "Ready" => status("numberReady"),
        "Up-to-date" => status("updatedNumberScheduled"),
        "Available" => status("numberAvailable"),
        "Node Selector" => map_cell(object, "/spec/template/spec/nodeSelector"),
        _ => "<unknown>".into(),
    }
}

fn job(column: &str, object: &Value, now: i64) -> Value {
    let condition = |ty: &str| {
        items(object, "/status/conditions").iter().any(|c| text(c, "/type") == ty && text(c, "/status") == "True")
    };
    match column {
        "Status" => match () {
            () if condition("Complete") => "Complete",
            () if condition("Failed") => "Failed",
            () if crate::meta::is_deleting(object) => "Terminating",
            () if condition("Suspended") => "Suspended",
            () if condition("FailureTarget") => "FailureTarget",
            () if condition("SuccessCriteriaMet") => "SuccessCriteriaMet",
            () => "Running",
        }
        .into(),
        "Completions" => {
            let done = number(object, "/status/succeeded");
            match object.pointer("/spec/completions").and_then(Value::as_i64) {
                Some(wanted) => format!("{done}/{wanted}").into(),
                None => match number(object, "/spec/parallelism") {
                    0 | 1 => format!("{done}/1").into(),
                    many => format!("{done}/1 of {many}").into(),
                },
            }
        }
        "Duration" => {
            let start = text(object, "/status/startTime");
            let end = text(object, "/status/completionTime").parse::<jiff::Timestamp>().map_or(now, |t| t.as_second());
            if start.is_empty() { "".into() } else { since(start, end).into() }
        }
        _ => "<unknown>".into(),
    }
}

fn cron_job(column: &str, object: &Value, now: i64) -> Value {
    match column {
        "Schedule" => text(object, "/spec/schedule").into(),
        "Timezone" => or(text(object, "/spec/timeZone"), "<none>"),
        "Suspend" => if object.pointer("/spec/suspend") == Some(&Value::Bool(true)) { "True" } else { "False" }.into(),
        "Active" => items(object, "/status/active").len().into(),
        "Last Schedule" => match text(object, "/status/lastScheduleTime") {
            "" => "<none>".into(),
            last => since(last, now).into(),
        },
        _ => "<unknown>".into(),
    }
}

fn revision(column: &str, object: &Value) -> Value {
    match column {
        "Controller" => {
            let owner = items(object, "/metadata/ownerReferences")
                .iter()
                .find(|o| o.get("controller") == Some(&Value::Bool(true)));
            let named = owner.map(|o| format!("{}/{}", text(o, "/kind").to_lowercase(), text(o, "/name")));
            or(&named.unwrap_or_default(), "<none>")
        }
        "Revision" => number(object, "/revision").to_string().into(),
        _ => "<unknown>".into(),
    }
}
