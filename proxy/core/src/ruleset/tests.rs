//! What is built for one Service each, as the script that adds it to an empty table.

use expect_test::{Expect, expect};
use serde_json::{Value, from_value, json};

use super::*;
use crate::transaction::between;

pub(crate) fn node(masquerade_neighbours: bool) -> Node {
    Node {
        name: "here".to_owned(),
        addresses: [Ipv4Addr::new(192, 168, 0, 1)].into(),
        pods: "10.244.0.0/16".parse().expect("a range"),
        masquerade_neighbours,
    }
}

/// A Service `web` with one port `http`, changed by `spec`.
fn service(spec: Value) -> Service {
    let mut all = json!({"type": "NodePort", "clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1"],
        "ports": [{"name": "http", "port": 80, "nodePort": 30080, "protocol": "TCP"}]});
    for (key, value) in spec.as_object().expect("an object") {
        all[key] = value.clone();
    }
    from_value(json!({"metadata": {"namespace": "default", "name": "web"}, "spec": all})).expect("a Service")
}

/// A slice from words such as `2:here`, `3:there:ending`, `4:here:unready`: the address's last number, the node, the state.
fn slice(endpoints: &str) -> EndpointSlice {
    let endpoint = |word: &str| {
        let mut parts = word.split(':');
        let (number, node, state) = (parts.next(), parts.next(), parts.next());
        let conditions = match state {
            None => json!({}),
            Some("ending") => json!({"ready": false, "serving": true, "terminating": true}),
            Some("unready") => json!({"ready": false, "serving": false, "terminating": false}),
            Some(other) => panic!("state {other}"),
        };
        json!({"addresses": [format!("10.244.0.{}", number.expect("a number"))], "nodeName": node, "conditions": conditions})
    };
    let endpoints: Vec<Value> = endpoints.split_whitespace().map(endpoint).collect();
    from_value(json!({"addressType": "IPv4", "endpoints": endpoints,
        "metadata": {"namespace": "default", "name": "web-x", "labels": {"kubernetes.io/service-name": "web"}},
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}]}))
    .expect("a slice")
}

fn script(node: &Node, services: &[Service], slices: &[EndpointSlice]) -> String {
    let built = build(node, services, slices);
    let nothing = build(node, [], []).ruleset;
    let mut text = between(&nothing, &built.ruleset).to_string();
    for ((namespace, name), reason) in &built.skipped {
        text += &format!("skipped {namespace}/{name}: {reason}\n");
    }
    text.replace("ip keelson ", "")
}

fn check(spec: Value, endpoints: &str, expected: Expect) {
    expected.assert_eq(&script(&node(false), &[service(spec)], &[slice(endpoints)]));
}

#[test]
fn endpoints_share_the_connections() {
    check(
        json!({}),
        "2:here 3:there 4:there",
        expect![[r#"
            add chain cluster/default/web/tcp/80
            add chain endpoint/default/web/tcp/80/10.244.0.2/8080
            add chain endpoint/default/web/tcp/80/10.244.0.3/8080
            add chain endpoint/default/web/tcp/80/10.244.0.4/8080
            add chain external/default/web/tcp/80
            add rule cluster/default/web/tcp/80 numgen random mod 3 == 0 goto endpoint/default/web/tcp/80/10.244.0.2/8080
            add rule cluster/default/web/tcp/80 numgen random mod 2 == 0 goto endpoint/default/web/tcp/80/10.244.0.3/8080
            add rule cluster/default/web/tcp/80 goto endpoint/default/web/tcp/80/10.244.0.4/8080
            add rule endpoint/default/web/tcp/80/10.244.0.2/8080 ip saddr 10.244.0.2 meta mark set meta mark or 0x4000
            add rule endpoint/default/web/tcp/80/10.244.0.2/8080 meta l4proto tcp dnat to 10.244.0.2:8080
            add rule endpoint/default/web/tcp/80/10.244.0.3/8080 ip saddr 10.244.0.3 meta mark set meta mark or 0x4000
            add rule endpoint/default/web/tcp/80/10.244.0.3/8080 meta l4proto tcp dnat to 10.244.0.3:8080
            add rule endpoint/default/web/tcp/80/10.244.0.4/8080 ip saddr 10.244.0.4 meta mark set meta mark or 0x4000
            add rule endpoint/default/web/tcp/80/10.244.0.4/8080 meta l4proto tcp dnat to 10.244.0.4:8080
            add rule external/default/web/tcp/80 meta mark set meta mark or 0x4000
            add rule external/default/web/tcp/80 goto cluster/default/web/tcp/80
            add element cluster-ips { 10.96.0.1 }
            add element services { 10.96.0.1 . tcp . 80 : goto cluster/default/web/tcp/80 }
            add element node-ports { tcp . 30080 : goto external/default/web/tcp/80 }
        "#]],
    );
}

/// Beyond some endpoints a map is quicker than a rule each.
#[test]
fn many_endpoints_share_by_a_map() {
    let words: Vec<String> = (2..12).map(|number| format!("{number}:here")).collect();
    let built = build(&node(false), &[service(json!({"type": "ClusterIP"}))], &[slice(&words.join(" "))]);
    let path = PortPath::new(&("default".to_owned(), "web".to_owned()), Protocol::Tcp, 80);
    let rules: Vec<String> = built.ruleset.chains[&path.cluster()].iter().map(ToString::to_string).collect();
    expect!["numgen random mod 10 vmap { 0 : goto endpoint/default/web/tcp/80/10.244.0.2/8080, 1 : goto endpoint/default/web/tcp/80/10.244.0.3/8080, 2 : goto endpoint/default/web/tcp/80/10.244.0.4/8080, 3 : goto endpoint/default/web/tcp/80/10.244.0.5/8080, 4 : goto endpoint/default/web/tcp/80/10.244.0.6/8080, 5 : goto endpoint/default/web/tcp/80/10.244.0.7/8080, 6 : goto endpoint/default/web/tcp/80/10.244.0.8/8080, 7 : goto endpoint/default/web/tcp/80/10.244.0.9/8080, 8 : goto endpoint/default/web/tcp/80/10.244.0.10/8080, 9 : goto endpoint/default/web/tcp/80/10.244.0.11/8080 }"].assert_eq(&rules.join("\n"));
}

#[test]
fn a_service_without_endpoints_is_refused() {
    check(
        json!({}),
        "",
        expect![[r#"
        add element cluster-ips { 10.96.0.1 }
        add element refused-node-ports { tcp . 30080 }
    "#]],
    );
    check(
        json!({}),
        "2:here:unready",
        expect![[r#"
        add element cluster-ips { 10.96.0.1 }
        add element refused-node-ports { tcp . 30080 }
    "#]],
    );
}

#[test]
fn ending_endpoints_serve_only_without_ready_ones() {
    check(
        json!({"type": "ClusterIP"}),
        "2:here:ending 3:here:unready",
        expect![[r#"
        add chain cluster/default/web/tcp/80
        add chain endpoint/default/web/tcp/80/10.244.0.2/8080
        add rule cluster/default/web/tcp/80 goto endpoint/default/web/tcp/80/10.244.0.2/8080
        add rule endpoint/default/web/tcp/80/10.244.0.2/8080 ip saddr 10.244.0.2 meta mark set meta mark or 0x4000
        add rule endpoint/default/web/tcp/80/10.244.0.2/8080 meta l4proto tcp dnat to 10.244.0.2:8080
        add element cluster-ips { 10.96.0.1 }
        add element services { 10.96.0.1 . tcp . 80 : goto cluster/default/web/tcp/80 }
    "#]],
    );
    check(
        json!({"type": "ClusterIP"}),
        "2:here:ending 3:here",
        expect![[r#"
        add chain cluster/default/web/tcp/80
        add chain endpoint/default/web/tcp/80/10.244.0.3/8080
        add rule cluster/default/web/tcp/80 goto endpoint/default/web/tcp/80/10.244.0.3/8080
        add rule endpoint/default/web/tcp/80/10.244.0.3/8080 ip saddr 10.244.0.3 meta mark set meta mark or 0x4000
        add rule endpoint/default/web/tcp/80/10.244.0.3/8080 meta l4proto tcp dnat to 10.244.0.3:8080
        add element cluster-ips { 10.96.0.1 }
        add element services { 10.96.0.1 . tcp . 80 : goto cluster/default/web/tcp/80 }
    "#]],
    );
}

#[test]
fn external_policy_local_keeps_to_this_node() {
    let local = || json!({"externalTrafficPolicy": "Local"});
    check(
        local(),
        "2:here 3:there",
        expect![[r#"
            add chain cluster/default/web/tcp/80
            add chain endpoint/default/web/tcp/80/10.244.0.2/8080
            add chain endpoint/default/web/tcp/80/10.244.0.3/8080
            add chain external/default/web/tcp/80
            add chain local/default/web/tcp/80
            add rule cluster/default/web/tcp/80 numgen random mod 2 == 0 goto endpoint/default/web/tcp/80/10.244.0.2/8080
            add rule cluster/default/web/tcp/80 goto endpoint/default/web/tcp/80/10.244.0.3/8080
            add rule endpoint/default/web/tcp/80/10.244.0.2/8080 ip saddr 10.244.0.2 meta mark set meta mark or 0x4000
            add rule endpoint/default/web/tcp/80/10.244.0.2/8080 meta l4proto tcp dnat to 10.244.0.2:8080
            add rule endpoint/default/web/tcp/80/10.244.0.3/8080 ip saddr 10.244.0.3 meta mark set meta mark or 0x4000
            add rule endpoint/default/web/tcp/80/10.244.0.3/8080 meta l4proto tcp dnat to 10.244.0.3:8080
            add rule external/default/web/tcp/80 ip saddr 10.244.0.0/16 goto cluster/default/web/tcp/80
            add rule external/default/web/tcp/80 fib saddr type local meta mark set meta mark or 0x4000
            add rule external/default/web/tcp/80 fib saddr type local goto cluster/default/web/tcp/80
            add rule external/default/web/tcp/80 goto local/default/web/tcp/80
            add rule local/default/web/tcp/80 goto endpoint/default/web/tcp/80/10.244.0.2/8080
            add element cluster-ips { 10.96.0.1 }
            add element services { 10.96.0.1 . tcp . 80 : goto cluster/default/web/tcp/80 }
            add element node-ports { tcp . 30080 : goto external/default/web/tcp/80 }
        "#]],
    );
    check(
        local(),
        "3:there",
        expect![[r#"
        add chain cluster/default/web/tcp/80
        add chain endpoint/default/web/tcp/80/10.244.0.3/8080
        add chain external/default/web/tcp/80
        add rule cluster/default/web/tcp/80 goto endpoint/default/web/tcp/80/10.244.0.3/8080
        add rule endpoint/default/web/tcp/80/10.244.0.3/8080 ip saddr 10.244.0.3 meta mark set meta mark or 0x4000
        add rule endpoint/default/web/tcp/80/10.244.0.3/8080 meta l4proto tcp dnat to 10.244.0.3:8080
        add rule external/default/web/tcp/80 ip saddr 10.244.0.0/16 goto cluster/default/web/tcp/80
        add rule external/default/web/tcp/80 fib saddr type local meta mark set meta mark or 0x4000
        add rule external/default/web/tcp/80 fib saddr type local goto cluster/default/web/tcp/80
        add rule external/default/web/tcp/80 drop
        add element cluster-ips { 10.96.0.1 }
        add element services { 10.96.0.1 . tcp . 80 : goto cluster/default/web/tcp/80 }
        add element node-ports { tcp . 30080 : goto external/default/web/tcp/80 }
    "#]],
    );
}

#[test]
fn internal_policy_local_keeps_to_this_node() {
    let local = || json!({"type": "ClusterIP", "internalTrafficPolicy": "Local"});
    check(
        local(),
        "2:here 3:there",
        expect![[r#"
        add chain endpoint/default/web/tcp/80/10.244.0.2/8080
        add chain local/default/web/tcp/80
        add rule endpoint/default/web/tcp/80/10.244.0.2/8080 ip saddr 10.244.0.2 meta mark set meta mark or 0x4000
        add rule endpoint/default/web/tcp/80/10.244.0.2/8080 meta l4proto tcp dnat to 10.244.0.2:8080
        add rule local/default/web/tcp/80 goto endpoint/default/web/tcp/80/10.244.0.2/8080
        add element cluster-ips { 10.96.0.1 }
        add element services { 10.96.0.1 . tcp . 80 : goto local/default/web/tcp/80 }
    "#]],
    );
    check(
        local(),
        "3:there",
        expect![[r#"
        add element cluster-ips { 10.96.0.1 }
        add element services { 10.96.0.1 . tcp . 80 : drop }
    "#]],
    );
    check(
        local(),
        "",
        expect![[r#"
        add element cluster-ips { 10.96.0.1 }
    "#]],
    );
}

#[test]
fn clients_stay_with_their_endpoint() {
    check(
        json!({"type": "ClusterIP", "sessionAffinity": "ClientIP",
            "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 60}}}),
        "2:here 3:there",
        expect![[r#"
            add set clients60/default/web/tcp/80/10.244.0.2/8080 { type ipv4_addr; size 65535; flags dynamic, timeout; timeout 60s; }
            add set clients60/default/web/tcp/80/10.244.0.3/8080 { type ipv4_addr; size 65535; flags dynamic, timeout; timeout 60s; }
            add chain cluster/default/web/tcp/80
            add chain endpoint/default/web/tcp/80/10.244.0.2/8080
            add chain endpoint/default/web/tcp/80/10.244.0.3/8080
            add rule cluster/default/web/tcp/80 ip saddr @clients60/default/web/tcp/80/10.244.0.2/8080 goto endpoint/default/web/tcp/80/10.244.0.2/8080
            add rule cluster/default/web/tcp/80 ip saddr @clients60/default/web/tcp/80/10.244.0.3/8080 goto endpoint/default/web/tcp/80/10.244.0.3/8080
            add rule cluster/default/web/tcp/80 numgen random mod 2 == 0 goto endpoint/default/web/tcp/80/10.244.0.2/8080
            add rule cluster/default/web/tcp/80 goto endpoint/default/web/tcp/80/10.244.0.3/8080
            add rule endpoint/default/web/tcp/80/10.244.0.2/8080 ip saddr 10.244.0.2 meta mark set meta mark or 0x4000
            add rule endpoint/default/web/tcp/80/10.244.0.2/8080 update @clients60/default/web/tcp/80/10.244.0.2/8080 { ip saddr }
            add rule endpoint/default/web/tcp/80/10.244.0.2/8080 meta l4proto tcp dnat to 10.244.0.2:8080
            add rule endpoint/default/web/tcp/80/10.244.0.3/8080 ip saddr 10.244.0.3 meta mark set meta mark or 0x4000
            add rule endpoint/default/web/tcp/80/10.244.0.3/8080 update @clients60/default/web/tcp/80/10.244.0.3/8080 { ip saddr }
            add rule endpoint/default/web/tcp/80/10.244.0.3/8080 meta l4proto tcp dnat to 10.244.0.3:8080
            add element cluster-ips { 10.96.0.1 }
            add element services { 10.96.0.1 . tcp . 80 : goto cluster/default/web/tcp/80 }
        "#]],
    );
}

/// Without the bridge's help a neighbour's answer must come back through the node.
#[test]
fn neighbours_are_masqueraded_if_asked_for() {
    let services = [service(json!({"type": "ClusterIP"}))];
    expect![[r#"
        add chain cluster/default/web/tcp/80
        add chain endpoint/default/web/tcp/80/10.244.0.2/8080
        add chain endpoint/default/web/tcp/80/10.244.0.3/8080
        add rule cluster/default/web/tcp/80 numgen random mod 2 == 0 goto endpoint/default/web/tcp/80/10.244.0.2/8080
        add rule cluster/default/web/tcp/80 goto endpoint/default/web/tcp/80/10.244.0.3/8080
        add rule endpoint/default/web/tcp/80/10.244.0.2/8080 ip saddr 10.244.0.2 meta mark set meta mark or 0x4000
        add rule endpoint/default/web/tcp/80/10.244.0.2/8080 ip saddr 10.244.0.0/16 meta mark set meta mark or 0x4000
        add rule endpoint/default/web/tcp/80/10.244.0.2/8080 meta l4proto tcp dnat to 10.244.0.2:8080
        add rule endpoint/default/web/tcp/80/10.244.0.3/8080 ip saddr 10.244.0.3 meta mark set meta mark or 0x4000
        add rule endpoint/default/web/tcp/80/10.244.0.3/8080 meta l4proto tcp dnat to 10.244.0.3:8080
        add element cluster-ips { 10.96.0.1 }
        add element services { 10.96.0.1 . tcp . 80 : goto cluster/default/web/tcp/80 }
    "#]]
    .assert_eq(&script(&node(true), &services, &[slice("2:here 3:there")]));
}

/// An endpoint that two slices have counts once; it is ready if either says so.
#[test]
fn slices_may_overlap() {
    let slices = [slice("2:here:unready"), slice("2:here"), slice("2:here:ending")];
    expect![[r#"
        add chain cluster/default/web/tcp/80
        add chain endpoint/default/web/tcp/80/10.244.0.2/8080
        add rule cluster/default/web/tcp/80 goto endpoint/default/web/tcp/80/10.244.0.2/8080
        add rule endpoint/default/web/tcp/80/10.244.0.2/8080 ip saddr 10.244.0.2 meta mark set meta mark or 0x4000
        add rule endpoint/default/web/tcp/80/10.244.0.2/8080 meta l4proto tcp dnat to 10.244.0.2:8080
        add element cluster-ips { 10.96.0.1 }
        add element services { 10.96.0.1 . tcp . 80 : goto cluster/default/web/tcp/80 }
    "#]]
    .assert_eq(&script(&node(false), &[service(json!({"type": "ClusterIP"}))], &slices));
}

#[test]
fn protocols_are_kept_apart() {
    let ports = json!([{"name": "http", "port": 53, "protocol": "UDP"}, {"name": "http", "port": 53, "protocol": "SCTP"},
        {"name": "http", "port": 53, "protocol": "TCP"}]);
    check(
        json!({"type": "ClusterIP", "ports": ports}),
        "2:here",
        expect![[r#"
        add chain cluster/default/web/tcp/53
        add chain endpoint/default/web/tcp/53/10.244.0.2/8080
        add rule cluster/default/web/tcp/53 goto endpoint/default/web/tcp/53/10.244.0.2/8080
        add rule endpoint/default/web/tcp/53/10.244.0.2/8080 ip saddr 10.244.0.2 meta mark set meta mark or 0x4000
        add rule endpoint/default/web/tcp/53/10.244.0.2/8080 meta l4proto tcp dnat to 10.244.0.2:8080
        add element cluster-ips { 10.96.0.1 }
        add element services { 10.96.0.1 . tcp . 53 : goto cluster/default/web/tcp/53 }
    "#]],
    );
}

#[test]
fn what_is_not_for_the_proxy_leaves_no_trace() {
    for spec in [json!({"clusterIP": "None"}), json!({"clusterIP": ""}), json!({"type": "ExternalName"})] {
        check(spec, "2:here", expect![""]);
    }
    let mut other = service(json!({}));
    other.metadata.labels = Some([("service.kubernetes.io/service-proxy-name".to_owned(), "x".to_owned())].into());
    assert_eq!(script(&node(false), &[other], &[slice("2:here")]), "");
}

#[test]
fn what_can_not_be_served_is_named() {
    check(
        json!({"clusterIP": "fd00::1", "clusterIPs": ["fd00::1"]}),
        "2:here",
        expect![[r#"
        skipped default/web: it has no IPv4 address
    "#]],
    );
    check(
        json!({"ports": [{"port": 70000}]}),
        "2:here",
        expect![[r#"
        skipped default/web: port 70000 is not a port
    "#]],
    );
    check(
        json!({"ports": [{"port": 80, "protocol": "tcp; flush ruleset"}]}),
        "2:here",
        expect![[r#"
        skipped default/web: protocol "tcp; flush ruleset" is unknown
    "#]],
    );
    check(
        json!({"ports": [{"port": 80}, {"port": 80}]}),
        "2:here",
        expect![[r#"
        skipped default/web: port 80/tcp is there twice
    "#]],
    );
    let affinity = json!({"clientIP": {"timeoutSeconds": 0}});
    check(
        json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": affinity}),
        "2:here",
        expect![[r#"
        skipped default/web: session affinity of 0 s
    "#]],
    );
    let mut named = service(json!({}));
    named.metadata.name = Some("a\nflush ruleset".to_owned());
    expect![[r#"
        skipped default/a
        flush ruleset: its name is not a DNS label
    "#]]
    .assert_eq(&script(&node(false), &[named], &[]));
}

/// The first by name gets it, whatever the order of arrival.
#[test]
fn an_address_has_one_owner() {
    let mut second = service(json!({}));
    second.metadata.name = Some("zebra".to_owned());
    let services = [second, service(json!({}))];
    expect![[r#"
        add chain cluster/default/web/tcp/80
        add chain endpoint/default/web/tcp/80/10.244.0.2/8080
        add chain external/default/web/tcp/80
        add rule cluster/default/web/tcp/80 goto endpoint/default/web/tcp/80/10.244.0.2/8080
        add rule endpoint/default/web/tcp/80/10.244.0.2/8080 ip saddr 10.244.0.2 meta mark set meta mark or 0x4000
        add rule endpoint/default/web/tcp/80/10.244.0.2/8080 meta l4proto tcp dnat to 10.244.0.2:8080
        add rule external/default/web/tcp/80 meta mark set meta mark or 0x4000
        add rule external/default/web/tcp/80 goto cluster/default/web/tcp/80
        add element cluster-ips { 10.96.0.1 }
        add element services { 10.96.0.1 . tcp . 80 : goto cluster/default/web/tcp/80 }
        add element node-ports { tcp . 30080 : goto external/default/web/tcp/80 }
        skipped default/zebra: 10.96.0.1:80/tcp belongs to default/web
        skipped default/zebra: node port 30080/tcp belongs to default/web
    "#]]
    .assert_eq(&script(&node(false), &services, &[slice("2:here")]));
}

/// Endpoints that would reach the node itself, or everybody.
#[test]
fn endpoints_with_special_addresses_are_left_out() {
    let mut special = slice("2:here 3:here 4:here 5:here");
    let addresses = ["127.0.0.1", "169.254.169.254", "224.0.0.1", "fd00::1"];
    for (endpoint, address) in special.endpoints.iter_mut().flatten().zip(addresses) {
        endpoint.addresses = vec![address.to_owned()];
    }
    let built = build(&node(false), &[service(json!({}))], &[special]);
    assert!(built.ruleset.chains.is_empty());
}
