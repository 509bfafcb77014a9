//! Transactions against the kernel itself: many random steps, each taken, the last state like a fresh table's.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use proxy_core::node::Node;
use proxy_core::ruleset::Ruleset;
use proxy_core::transaction::{afresh, between};
use serde_json::{Value, from_value, json};

use crate::network::{Network, must};

/// Numbers that look random and are the same in each run (splitmix64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % bound
    }

    fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[usize::try_from(self.below(choices.len() as u64)).expect("small")]
    }
}

fn node() -> Node {
    Node {
        name: "here".to_owned(),
        addresses: [Ipv4Addr::new(192, 168, 77, 1)].into(),
        pods: "10.244.0.0/16".parse().expect("a range"),
        masquerade_neighbours: true,
    }
}

/// A few Services with colliding addresses, all policies and protocols.
fn cluster(dice: &mut Dice) -> Ruleset {
    let mut services: Vec<Service> = Vec::new();
    let mut slices: Vec<EndpointSlice> = Vec::new();
    for name in ["a", "b", "c", "d"].into_iter().take(usize::try_from(dice.below(5)).expect("small")) {
        let protocol = dice.of(&["TCP", "UDP", "SCTP"]);
        let service = json!({"metadata": {"namespace": "default", "name": name}, "spec": {
            "clusterIP": format!("10.96.0.{}", dice.below(3) + 1), "type": dice.of(&["ClusterIP", "NodePort"]),
            "ports": [{"port": 80, "protocol": protocol, "nodePort": 30_000 + dice.below(2)}],
            "externalTrafficPolicy": dice.of(&["Local", "Cluster"]), "internalTrafficPolicy": dice.of(&["Local", "Cluster"]),
            "sessionAffinity": dice.of(&["ClientIP", "None"]),
            "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": dice.below(2) + 60}}}});
        services.push(from_value(service).expect("a Service"));
        let endpoints: Vec<Value> = (0..dice.of(&[0, 1, 2, 3, 12]))
            .map(|_| json!({"addresses": [format!("10.244.0.{}", dice.below(20) + 2)], "nodeName": dice.of(&["here", "there"])}))
            .collect();
        let slice = json!({"addressType": "IPv4", "endpoints": endpoints, "ports": [{"port": 8080, "protocol": protocol}],
            "metadata": {"namespace": "default", "name": name, "labels": {"kubernetes.io/service-name": name}}});
        slices.push(from_value(slice).expect("a slice"));
    }
    proxy_core::build(&node(), &services, &slices).ruleset
}

fn apply(namespace: &str, script: &str) -> Duration {
    let begun = Instant::now();
    let mut child = Command::new("ip")
        .args(["netns", "exec", namespace, "nft", "-f", "-"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("nft");
    child.stdin.take().expect("a pipe").write_all(script.as_bytes()).expect("a reading nft");
    let output = child.wait_with_output().expect("nft's end");
    assert!(output.status.success(), "{}\nfor the script\n{script}", String::from_utf8_lossy(&output.stderr));
    begun.elapsed()
}

/// All that the kernel has, without its own numbers and in no order but that of rules in a chain.
fn listing(namespace: &str) -> BTreeSet<String> {
    let text = must("ip", &["netns", "exec", namespace, "nft", "-j", "list", "ruleset"]);
    let mut tree: Value = serde_json::from_str(&text).expect("JSON");
    let mut position = 0;
    let mut chain = Value::Null;
    let mut parts = BTreeSet::new();
    for part in tree["nftables"].as_array_mut().expect("a list") {
        for object in part.as_object_mut().expect("an object").values_mut() {
            object.as_object_mut().expect("an object").remove("handle");
            if let Some(elements) = object.get_mut("elem").and_then(Value::as_array_mut) {
                elements.sort_by_key(Value::to_string);
            }
        }
        if let Some(rule) = part.get_mut("rule") {
            position = if rule["chain"] == chain { position + 1 } else { 0 };
            chain = rule["chain"].clone();
            rule["position"] = position.into();
        }
        parts.insert(part.to_string());
    }
    parts
}

#[test]
fn the_kernel_takes_every_step() {
    let network = Network::new();
    let (stepwise, fresh) = (network.name("node"), network.name("outside"));
    let mut dice = Dice(7);
    let mut held: Option<Ruleset> = None;
    for step in 0..80 {
        let wanted = cluster(&mut dice);
        let transaction = held.as_ref().map_or_else(|| afresh(&wanted), |held| between(held, &wanted));
        apply(&stepwise, &transaction.to_string());
        apply(&fresh, &afresh(&wanted).to_string());
        assert_eq!(listing(&stepwise), listing(&fresh), "after step {step}");
        held = Some(wanted);
    }
}

/// A thousand Services of two endpoints each: the whole table, then one endpoint more.
#[test]
fn one_change_among_many_services_is_a_small_script() {
    let network = Network::new();
    let namespace = network.name("node");
    let many = |extra: bool| {
        let services: Vec<Service> = (0..1000)
            .map(|n| {
                from_value(json!({"metadata": {"namespace": "default", "name": format!("s{n}")}, "spec": {
                "clusterIP": format!("10.96.{}.{}", n / 250, n % 250 + 1), "ports": [{"port": 80}]}}))
                .expect("a Service")
            })
            .collect();
        let slices: Vec<EndpointSlice> = (0..1000)
            .map(|n| {
                let mut endpoints = vec![
                    json!({"addresses": [format!("10.244.{}.{}", n / 250, n % 250 + 1)]}),
                    json!({"addresses": [format!("10.245.{}.{}", n / 250, n % 250 + 1)]}),
                ];
                if extra && n == 500 {
                    endpoints.push(json!({"addresses": ["10.246.0.1"]}));
                }
                from_value(json!({"addressType": "IPv4", "endpoints": endpoints, "ports": [{"port": 8080}],
                "metadata": {"namespace": "default", "name": format!("s{n}"),
                    "labels": {"kubernetes.io/service-name": format!("s{n}")}}}))
                .expect("a slice")
            })
            .collect();
        let begun = Instant::now();
        let built = proxy_core::build(&node(), &services, &slices).ruleset;
        (built, begun.elapsed())
    };
    let ((first, _), (second, built)) = (many(false), many(true));
    let whole = afresh(&first);
    let begun = Instant::now();
    let change = between(&first, &second);
    let compared = begun.elapsed();
    // A chain of two rules, and the three that spread.
    assert_eq!(change.commands().len(), 7);
    let (all, one) = (apply(&namespace, &whole.to_string()), apply(&namespace, &change.to_string()));
    println!("1000 services: built in {built:?}, compared in {compared:?}; nft: all in {all:?}, one change in {one:?}");
}
