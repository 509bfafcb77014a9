use super::*;
use expect_test::expect;

fn defaulted(group: &str, kind: &str, mut object: Value) -> Value {
    let ty = crate::schema::kind_type(group, "v1", kind).unwrap_or_else(|| panic!("{kind}"));
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
