use super::*;
use expect_test::expect;

fn defaulted(group: &str, kind: &str, object: Value) -> Value {
    defaulted_in(group, "v1", kind, object)
}

fn defaulted_in(group: &str, version: &str, kind: &str, mut object: Value) -> Value {
    let ty = crate::schema::kind_type(group, version, kind).unwrap_or_else(|| panic!("{kind}"));
    apply(ty, &mut object);
    let once = object.clone();
    apply(ty, &mut object);
    assert_eq!(once, object, "applying twice changes nothing");
    object
}

#[test]
fn a_deployment_is_filled_in_down_to_its_containers() {
    let object = json!({"spec": {"selector": {}, "template": {"spec": {"containers": [
        {"name": "a", "image": "localhost:5000/x", "ports": [{"containerPort": 80}], "resources": {"limits": {"cpu": "1"}},
         "livenessProbe": {"httpGet": {"port": 80}}}],
        "volumes": [{"name": "v"}, {"name": "c", "configMap": {"name": "m"}}]}}}});
    expect![[r#"{"spec":{"selector":{},"template":{"spec":{"containers":[{"name":"a","image":"localhost:5000/x","ports":[{"containerPort":80,"protocol":"TCP"}],"resources":{"limits":{"cpu":"1"},"requests":{"cpu":"1"}},"livenessProbe":{"httpGet":{"port":80,"path":"/","scheme":"HTTP"},"timeoutSeconds":1,"periodSeconds":10,"successThreshold":1,"failureThreshold":3},"imagePullPolicy":"Always","terminationMessagePath":"/dev/termination-log","terminationMessagePolicy":"File"}],"volumes":[{"name":"v","emptyDir":{}},{"name":"c","configMap":{"name":"m","defaultMode":420}}],"restartPolicy":"Always","terminationGracePeriodSeconds":30,"dnsPolicy":"ClusterFirst","securityContext":{},"schedulerName":"default-scheduler","enableServiceLinks":true}},"replicas":1,"revisionHistoryLimit":10,"progressDeadlineSeconds":600,"strategy":{"type":"RollingUpdate","rollingUpdate":{"maxUnavailable":"25%","maxSurge":"25%"}}}}"#]]
    .assert_eq(&defaulted("apps", "Deployment", object).to_string());
}

#[test]
fn what_is_set_stays() {
    let object = json!({"spec": {"replicas": 0, "strategy": {"type": "Recreate"}}});
    let out = defaulted("apps", "Deployment", object);
    assert_eq!((&out["spec"]["replicas"], &out["spec"]["strategy"]), (&json!(0), &json!({"type": "Recreate"})));
}

#[test]
fn a_service_knows_its_type_and_target() {
    let out = defaulted("", "Service", json!({"spec": {"ports": [{"port": 80}]}}));
    assert_eq!(out["spec"]["ports"][0], json!({"port": 80, "protocol": "TCP", "targetPort": 80}));
    assert_eq!(out["spec"]["type"], "ClusterIP");
    assert!(out["spec"].get("externalTrafficPolicy").is_none());
}

#[test]
fn an_autoscaler_that_says_little_looks_at_the_cpu() {
    let object = json!({"spec": {"maxReplicas": 5, "behavior": {"scaleDown": {"selectPolicy": "Disabled"}}}});
    let out = defaulted_in("autoscaling", "v2", "HorizontalPodAutoscaler", object);
    assert_eq!(out["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"], 80);
    let behavior = &out["spec"]["behavior"];
    assert_eq!(
        (&behavior["scaleDown"]["selectPolicy"], &behavior["scaleUp"]["selectPolicy"]),
        (&json!("Disabled"), &json!("Max"))
    );
    assert_eq!(behavior["scaleUp"]["policies"].as_array().map(Vec::len), Some(2));
}

#[test]
fn a_template_lends_its_labels() {
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": []}});
    let out =
        defaulted("", "ReplicationController", json!({"metadata": {"name": "r"}, "spec": {"template": template}}));
    assert_eq!((&out["spec"]["selector"], &out["metadata"]["labels"]), (&json!({"a": "b"}), &json!({"a": "b"})));
    let out = defaulted("batch", "Job", json!({"metadata": {"labels": {"own": "1"}}, "spec": {"template": template}}));
    assert_eq!(out["metadata"]["labels"], json!({"own": "1"}));
}

#[test]
fn limits_come_from_the_largest_and_requests_from_limits() {
    let item = json!({"type": "Container", "max": {"cpu": "2"}, "min": {"memory": "1Mi"}});
    let out = defaulted("", "LimitRange", json!({"spec": {"limits": [item]}}));
    let item = &out["spec"]["limits"][0];
    assert_eq!(
        (&item["default"], &item["defaultRequest"]),
        (&json!({"cpu": "2"}), &json!({"cpu": "2", "memory": "1Mi"}))
    );
}

#[test]
fn a_claim_begins_pending() {
    assert_eq!(defaulted("", "PersistentVolumeClaim", json!({"spec": {}}))["status"]["phase"], "Pending");
    assert_eq!(defaulted("", "PersistentVolume", json!({"spec": {}}))["status"]["phase"], "Pending");
}
