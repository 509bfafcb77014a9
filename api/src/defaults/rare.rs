//! Defaults of groups that few objects are of.

use serde_json::{Map, Value, json};

use super::{child, set, set_number, text};

/// Source: `pkg/apis/autoscaling/v2/defaults.go`.
pub(super) fn autoscaling(name: &str, map: &mut Map<String, Value>) {
    if name != "HorizontalPodAutoscalerSpec" {
        return;
    }
    set(map, "minReplicas", 1);
    if map.get("metrics").and_then(Value::as_array).is_none_or(Vec::is_empty) {
        let target = json!({"type": "Utilization", "averageUtilization": 80});
        map.insert("metrics".to_owned(), json!([{"type": "Resource", "resource": {"name": "cpu", "target": target}}]));
    }
    // Who says anything about behaviour gets all of it.
    if let Some(behavior) = map.get_mut("behavior").and_then(Value::as_object_mut) {
        let all_at_once = json!({"type": "Percent", "value": 100, "periodSeconds": 15});
        if let Some(up) = child(behavior, "scaleUp") {
            set(up, "stabilizationWindowSeconds", 0);
            set(up, "selectPolicy", "Max");
            set(up, "policies", json!([{"type": "Pods", "value": 4, "periodSeconds": 15}, all_at_once]));
        }
        if let Some(down) = child(behavior, "scaleDown") {
            set(down, "selectPolicy", "Max");
            set(down, "policies", json!([all_at_once]));
        }
    }
}

/// Source: `pkg/apis/flowcontrol/v1/defaults.go`.
pub(super) fn flowcontrol(name: &str, map: &mut Map<String, Value>) {
    match name {
        "FlowSchemaSpec" => set_number(map, "matchingPrecedence", 1000),
        "LimitedPriorityLevelConfiguration" => {
            set(map, "nominalConcurrencyShares", 30);
            set(map, "lendablePercent", 0);
        }
        "ExemptPriorityLevelConfiguration" => {
            set(map, "nominalConcurrencyShares", 0);
            set(map, "lendablePercent", 0);
        }
        "QueuingConfiguration" => {
            set_number(map, "handSize", 8);
            set_number(map, "queues", 64);
            set_number(map, "queueLengthLimit", 50);
        }
        _ => {}
    }
}

/// Source: `pkg/apis/resource/v1/defaults.go`.
pub(super) fn devices(name: &str, map: &mut Map<String, Value>) {
    match name {
        "ExactDeviceRequest" | "DeviceSubRequest" => {
            set(map, "allocationMode", "ExactCount");
            if text(map, "allocationMode") == "ExactCount" {
                set_number(map, "count", 1);
            }
        }
        "DeviceToleration" => set(map, "operator", "Equal"),
        _ => {}
    }
}

/// A container's limits default to the largest allowed, its requests to its limits, then to the least allowed.
/// Source: `SetDefaults_LimitRangeItem` in `pkg/apis/core/v1/defaults.go`.
pub(super) fn limit_range(map: &mut Map<String, Value>) {
    if text(map, "type") != "Container" {
        return;
    }
    for (from, to) in [("max", "default"), ("default", "defaultRequest"), ("min", "defaultRequest")] {
        let known = map.get(from).and_then(Value::as_object).cloned().unwrap_or_default();
        if let Some(target) = child(map, to) {
            for (resource, amount) in known {
                target.entry(resource).or_insert(amount);
            }
        }
    }
}
