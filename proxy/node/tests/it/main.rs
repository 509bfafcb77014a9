//! The proxy in a real kernel: namespaces for a node, pods and somebody outside; packets, not rules, are looked at.
//!
//! Needs root, `nft` and `ip`.

mod api;
mod kernel;
mod network;

use std::net::Ipv4Addr;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use api::{FakeApi, Kind};
use network::{Answer, BRIDGE, NODE, Network, OUTSIDE, POD_PORT, PODS, pod_address};
use proxy_node::{Config, RunError};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

const WEB: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
const EMPTY: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 11);
const PATIENCE: Duration = Duration::from_secs(10);

fn config() -> Config {
    Config {
        node_name: "node".to_owned(),
        node_ip: NODE.to_string(),
        pod_cidr: "10.244.0.0/16".to_owned(),
        check_every: Duration::from_millis(100),
        ..Config::default()
    }
}

/// A proxy on a thread of the node's namespace.
struct Proxy {
    shutdown: CancellationToken,
    thread: Option<JoinHandle<Result<(), RunError>>>,
}

impl Proxy {
    fn start(network: &Network, api: &FakeApi, config: Config, before: fn()) -> Self {
        let shutdown = CancellationToken::new();
        let (api, token) = (api.clone(), shutdown.clone());
        let thread = network.inside("node", move || {
            before();
            runtime().block_on(async move { proxy_node::run(api.client(), config, token).await })
        });
        Self { shutdown, thread: Some(thread) }
    }

    fn stop(mut self) {
        self.shutdown.cancel();
        let ended = self.thread.take().map(|thread| thread.join().expect("a proxy that doesn't panic"));
        assert!(matches!(ended, Some(Ok(()))), "{ended:?}");
    }
}

/// A test that fails must not leave a thread in the namespace.
impl Drop for Proxy {
    fn drop(&mut self) {
        self.shutdown.cancel();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

fn service(name: &str, address: Ipv4Addr, node_port: Option<u16>, more: Value) -> Value {
    let port = |protocol: &str, node_port: Option<u16>| {
        json!({"name": protocol.to_lowercase(), "port": 80, "protocol": protocol, "targetPort": POD_PORT,
            "nodePort": node_port})
    };
    let mut spec = json!({"type": if node_port.is_some() { "NodePort" } else { "ClusterIP" }, "clusterIP": address,
        "ports": [port("TCP", node_port), port("UDP", None)]});
    for (key, value) in more.as_object().expect("an object") {
        spec[key] = value.clone();
    }
    json!({"metadata": {"namespace": "default", "name": name}, "spec": spec})
}

/// A slice with these pods, by index.
fn slice(service: &str, pods: &[usize]) -> Value {
    let endpoint = |index: &usize| json!({"addresses": [pod_address(*index)], "nodeName": "node"});
    let port = |protocol: &str| json!({"name": protocol.to_lowercase(), "port": POD_PORT, "protocol": protocol});
    json!({"addressType": "IPv4", "ports": [port("TCP"), port("UDP")],
        "endpoints": pods.iter().map(endpoint).collect::<Vec<_>>(),
        "metadata": {"namespace": "default", "name": format!("{service}-1"),
            "labels": {"kubernetes.io/service-name": service}}})
}

fn web(api: &FakeApi, pods: &[usize], more: Value) {
    api.put(Kind::Service, service("web", WEB, Some(30_080), more));
    api.put(Kind::EndpointSlice, slice("web", pods));
}

/// The pods, as each answers one that it sees as `caller`.
fn answers(pods: &[usize], caller: Ipv4Addr) -> Vec<Answer> {
    pods.iter().map(|index| Answer::From(PODS[*index].to_owned(), caller)).collect()
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < PATIENCE, "{what} doesn't happen");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn is_up(network: &Network) {
    eventually("the table", || network.nft(&["list", "tables"]).contains("table ip keelson"));
}

#[test]
fn clients_reach_every_endpoint() {
    let (network, api) = (Network::new(), FakeApi::default());
    web(&api, &[0, 1, 2], json!({}));
    let proxy = Proxy::start(&network, &api, config(), || {});
    is_up(&network);
    // The node's processes, masqueraded as what they are.
    assert_eq!(network.callees("node", (WEB, 80)), answers(&[0, 1, 2], BRIDGE));
    // A pod is seen as itself; by itself, as the node, or it would not believe the answer.
    let mut from_pod = answers(&[1, 2], pod_address(0));
    from_pod.insert(0, Answer::From("pod1".to_owned(), BRIDGE));
    assert_eq!(network.callees("pod1", (WEB, 80)), from_pod);
    assert_eq!(network.callees("outside", (NODE, 30_080)), answers(&[0, 1, 2], BRIDGE));
    assert_eq!(network.callees("pod2", (NODE, 30_080)), answers(&[0, 1, 2], BRIDGE));
    assert_eq!(network.callees("node", (NODE, 30_080)), answers(&[0, 1, 2], BRIDGE));
    assert!(matches!(network.call_udp("node", (WEB, 80)), Answer::From(_, BRIDGE)));
    assert!(matches!(network.call_udp("pod3", (WEB, 80)), Answer::From(..)));
    proxy.stop();
    // A proxy that stops leaves its rules.
    assert_eq!(network.callees("outside", (NODE, 30_080)), answers(&[0, 1, 2], BRIDGE));
}

#[test]
fn a_service_without_endpoints_refuses() {
    let (network, api) = (Network::new(), FakeApi::default());
    web(&api, &[0], json!({}));
    api.put(Kind::Service, service("empty", EMPTY, Some(30_081), json!({})));
    let proxy = Proxy::start(&network, &api, config(), || {});
    is_up(&network);
    for host in ["node", "pod1"] {
        assert_eq!(network.call(host, (EMPTY, 80)), Answer::Refused, "{host}");
        assert_eq!(network.call_udp(host, (EMPTY, 80)), Answer::Refused, "{host}");
        assert_eq!(network.call(host, (WEB, 81)), Answer::Refused, "a port that nobody has, from {host}");
    }
    assert_eq!(network.call("outside", (NODE, 30_081)), Answer::Refused);
    proxy.stop();
}

#[test]
fn changes_reach_the_kernel() {
    let (network, api) = (Network::new(), FakeApi::default());
    let proxy = Proxy::start(&network, &api, config(), || {});
    is_up(&network);
    web(&api, &[0], json!({}));
    eventually("the first endpoint", || network.call("node", (WEB, 80)) == Answer::From("pod1".to_owned(), BRIDGE));
    api.put(Kind::EndpointSlice, slice("web", &[1, 2]));
    eventually("the second slice", || network.callees("node", (WEB, 80)) == answers(&[1, 2], BRIDGE));
    api.delete(Kind::EndpointSlice, "web-1");
    eventually("a refusal", || network.call("node", (WEB, 80)) == Answer::Refused);
    api.delete(Kind::Service, "web");
    eventually("an empty table", || !network.nft(&["list", "table", "ip", "keelson"]).contains("10.96.0.10"));
    proxy.stop();
}

#[test]
fn clients_stay_with_their_endpoint() {
    let (network, api) = (Network::new(), FakeApi::default());
    web(&api, &[0, 1, 2], json!({"sessionAffinity": "ClientIP"}));
    let proxy = Proxy::start(&network, &api, config(), || {});
    is_up(&network);
    let callees = network.callees("node", (WEB, 80));
    let [Answer::From(first, _)] = callees.as_slice() else { panic!("{callees:?}") };
    let others: Vec<usize> = (0..3).filter(|index| PODS[*index] != first).collect();
    // Another endpoint's end is nothing to this client; its own endpoint's is.
    let mut two = others.clone();
    two.retain(|index| *index != others[0]);
    two.push(PODS.iter().position(|p| p == first).expect("a pod"));
    api.put(Kind::EndpointSlice, slice("web", &two));
    eventually("two endpoints", || {
        !network.nft(&["list", "table", "ip", "keelson"]).contains(&pod_address(others[0]).to_string())
    });
    assert_eq!(network.callees("node", (WEB, 80)), callees);
    api.put(Kind::EndpointSlice, slice("web", &others));
    eventually("another endpoint", || network.callees("node", (WEB, 80)).iter().all(|a| !callees.contains(a)));
    assert_eq!(network.callees("node", (WEB, 80)).len(), 1);
    proxy.stop();
}

#[test]
fn local_policies_keep_the_callers_address_or_drop() {
    let (network, api) = (Network::new(), FakeApi::default());
    web(&api, &[0, 1], json!({"externalTrafficPolicy": "Local"}));
    let proxy = Proxy::start(&network, &api, config(), || {});
    is_up(&network);
    assert_eq!(network.callees("outside", (NODE, 30_080)), answers(&[0, 1], OUTSIDE));
    let mut elsewhere = slice("web", &[2]);
    elsewhere["endpoints"][0]["nodeName"] = "another".into();
    api.put(Kind::EndpointSlice, elsewhere);
    eventually("no local endpoint", || network.call("outside", (NODE, 30_080)) == Answer::Lost);
    // What comes from the node itself may go anywhere.
    assert_eq!(network.callees("node", (NODE, 30_080)), answers(&[2], BRIDGE));
    assert_eq!(network.callees("node", (WEB, 80)), answers(&[2], BRIDGE));
    web_internal_local(&api);
    eventually("no local endpoint", || network.call("pod1", (WEB, 80)) == Answer::Lost);
    proxy.stop();
}

fn web_internal_local(api: &FakeApi) {
    api.put(Kind::Service, service("web", WEB, None, json!({"internalTrafficPolicy": "Local"})));
}

/// Where br_netfilter is missing, neighbours are masqueraded; else their answers would be lost.
#[test]
fn neighbours_answer_without_bridge_tracking() {
    let (network, api) = (Network::new(), FakeApi::default());
    web(&api, &[0, 1, 2], json!({"externalTrafficPolicy": "Local"}));
    let proxy = Proxy::start(&network, &api, config(), || {
        let setting = "/proc/sys/net/bridge/bridge-nf-call-iptables";
        if std::path::Path::new(setting).exists() {
            std::fs::write(setting, "0").expect("a setting");
        }
        hide_bridge_settings();
    });
    is_up(&network);
    assert_eq!(network.callees("pod1", (WEB, 80)), answers(&[0, 1, 2], BRIDGE));
    assert_eq!(network.callees("outside", (NODE, 30_080)), answers(&[0, 1, 2], OUTSIDE));
    proxy.stop();
}

/// For this thread there is no `/proc/sys/net/bridge`.
fn hide_bridge_settings() {
    use nix::mount::{MsFlags, mount};
    let nothing = None::<&str>;
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).expect("a mount namespace");
    mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing).expect("private mounts");
    if std::path::Path::new("/proc/sys/net/bridge").exists() {
        mount(Some("tmpfs"), "/proc/sys/net/bridge", Some("tmpfs"), MsFlags::empty(), nothing).expect("a tmpfs");
    }
}

/// Somebody flushes everything; later only our table is removed.
#[test]
fn the_table_comes_back_and_goes_alone() {
    let (network, api) = (Network::new(), FakeApi::default());
    web(&api, &[0], json!({}));
    let proxy = Proxy::start(&network, &api, config(), || {});
    is_up(&network);
    network.nft(&["flush", "ruleset"]);
    eventually("the table again", || network.call("node", (WEB, 80)) == Answer::From("pod1".to_owned(), BRIDGE));
    proxy.stop();
    network.nft(&["add", "table", "ip", "other"]);
    for _ in 0..2 {
        let cleaned = network.inside("node", || runtime().block_on(proxy_node::cleanup(&config())));
        cleaned.join().expect("a thread").expect("nothing to fail");
        assert_eq!(network.nft(&["list", "tables"]).trim(), "table ip other");
    }
}

/// An nft that fails for a while: tried again, and then everything is there.
#[test]
fn failures_are_tried_again() {
    let (network, api) = (Network::new(), FakeApi::default());
    web(&api, &[0], json!({}));
    let flag = std::env::temp_dir().join(network.name("flag"));
    let tried = std::env::temp_dir().join(network.name("tried"));
    let refuse = format!("touch {}; echo not yet >&2; exit 1", tried.display());
    let script = format!("test -e {} || {{ {refuse}; }}; exec nft \"$@\"", flag.display());
    let nft_command = ["sh", "-c", script.as_str(), "nft"].map(str::to_owned).to_vec();
    let proxy = Proxy::start(&network, &api, Config { nft_command, ..config() }, || {});
    eventually("a first attempt", || tried.exists());
    assert_eq!(network.nft(&["list", "tables"]), "");
    std::fs::write(&flag, "").expect("a flag");
    is_up(&network);
    assert_eq!(network.callees("node", (WEB, 80)), answers(&[0], BRIDGE));
    std::fs::remove_file(&flag).expect("the flag");
    std::fs::remove_file(&tried).expect("the mark");
    web(&api, &[1], json!({}));
    eventually("a refused change", || tried.exists());
    std::fs::write(&flag, "").expect("a flag");
    eventually("the second endpoint", || network.callees("node", (WEB, 80)) == answers(&[1], BRIDGE));
    std::fs::remove_file(&flag).expect("the flag");
    std::fs::remove_file(&tried).expect("the mark");
    proxy.stop();
}

/// A wrong setting or a missing nft is told at once.
#[test]
fn what_can_not_run_says_so() {
    let network = Network::new();
    let api = FakeApi::default();
    let ended = Proxy::start(&network, &api, Config { pod_cidr: "all".to_owned(), ..config() }, || {});
    let thread = { ended }.thread.take().expect("a thread");
    let error = thread.join().expect("no panic").expect_err("a wrong setting").to_string();
    assert_eq!(error, "pod_cidr: \"all\" is not a range of IPv4 addresses such as 10.244.0.0/16");
}
