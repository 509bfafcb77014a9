//! What holds on any cluster.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::scenario::{node, pod};
use seeded_bugs::assert_noticed;

/// What a scheduler may get wrong.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Bug {
    /// It doesn't know what the pod asks for.
    ForgetsCpu,
    /// It doesn't know how the pod is to be spread.
    ForgetsSpread,
    /// It takes every taint for one that is tolerated.
    ForgetsTaints,
    /// It rejects a node that has a core left.
    KeepsACore,
    /// Each scan begins at the first node.
    BeginsAnew,
    /// The next scan leaves one node out.
    LeavesOneOut,
    /// A pod that comes again isn't counted.
    ForgetsWhoCameAgain,
    /// A pod isn't counted where it was put.
    ForgetsThePlaced,
}

type Nodes = Vec<(u8, u8, bool)>;
type Pods = Vec<(u8, u8, bool)>;

/// A node: CPU in cores, zone, whether tainted.
fn nodes(max: usize) -> impl Strategy<Value = Nodes> {
    proptest::collection::vec((1_u8..8, 0_u8..3, proptest::bool::weighted(0.2)), 1..max)
}

/// A pod: CPU in tenths, memory in Gi, whether spread by zone.
fn pods(max: usize) -> impl Strategy<Value = Pods> {
    proptest::collection::vec((0_u8..30, 0_u8..8, any::<bool>()), 1..max)
}

fn cluster(nodes: &[(u8, u8, bool)]) -> Cluster {
    let mut cluster = Cluster::new();
    for (at, (cpu, zone, tainted)) in nodes.iter().enumerate() {
        let (name, cpu, zone) = (format!("n{at}"), format!("cpu={cpu}"), format!("label.zone=z{zone}"));
        let mut words = vec![name.as_str(), &cpu, &zone, "memory=16Gi", "pods=12"];
        words.extend(tainted.then_some("taint=k:v:NoSchedule"));
        cluster.upsert_node(&node(&words)).unwrap();
    }
    cluster
}

fn wanted(at: usize, wants: (u8, u8, bool)) -> Pod {
    asked(at, wants, None)
}

/// The pod as the scheduler is told of it.
fn asked(at: usize, (cpu, memory, spread): (u8, u8, bool), bug: Option<Bug>) -> Pod {
    let cpu = match bug {
        Some(Bug::ForgetsCpu) => 0,
        Some(Bug::KeepsACore) => cpu + 10,
        _ => cpu,
    };
    let (name, cpu, memory) =
        (format!("p{at}"), format!("cpu={}m", u32::from(cpu) * 100), format!("memory={memory}Gi"));
    let mut words = vec![name.as_str(), &cpu, &memory, "label.app=x"];
    words.extend((spread && bug != Some(Bug::ForgetsSpread)).then_some("spread=zone:2:hard:app=x"));
    words.extend((bug == Some(Bug::ForgetsTaints)).then_some("tolerate=k:Exists::"));
    pod(&words)
}

fn fits(cluster: &Cluster) -> bool {
    cluster.nodes().all(|info| {
        let (has, used) = (&info.node().allocatable, info.requested());
        used.cpu_milli <= has.resources.cpu_milli && used.memory <= has.resources.memory && info.pod_count() <= 12
    })
}

/// Matching pods in each zone that has a node.
fn by_zone(cluster: &Cluster) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for info in cluster.nodes() {
        *counts.entry(info.node().labels["zone"].clone()).or_default() += info.pod_count();
    }
    counts
}

fn fits_wherever_placed((nodes, pods): (Nodes, Pods), bug: Option<Bug>) -> Result<(), TestCaseError> {
    let mut cluster = cluster(&nodes);
    for (at, wants) in pods.iter().enumerate() {
        let Ok(decision) = schedule(&mut cluster, &asked(at, *wants, bug), &SpreadDefaults::default()) else {
            continue;
        };
        cluster.add_pod(&wanted(at, *wants), &decision.node).unwrap();
        prop_assert!(fits(&cluster));
        let info = cluster.node(&decision.node).unwrap();
        prop_assert!(info.node().taints.is_empty());
        if wants.2 {
            let counts = by_zone(&cluster);
            prop_assert!(counts[&info.node().labels["zone"]] - counts.values().min().unwrap() <= 2);
        }
    }
    Ok(())
}

fn has_no_node_if_rejected((nodes, pods): (Nodes, Pods), bug: Option<Bug>) -> Result<(), TestCaseError> {
    let mut cluster = cluster(&nodes);
    for (at, wants) in pods.iter().enumerate() {
        let pod = wanted(at, *wants);
        match schedule(&mut cluster, &asked(at, *wants, bug), &SpreadDefaults::default()) {
            Ok(decision) => cluster.add_pod(&pod, &decision.node).unwrap(),
            Err(Failure::Unfit(diagnosis)) => {
                prop_assert_eq!(diagnosis.rejections.len(), nodes.len());
                let incoming = Incoming::read(&pod).unwrap();
                let spread = Spread::count(&cluster, &incoming);
                prop_assert!(cluster.nodes().all(|info| filter(&incoming, info, &spread).is_err()));
            }
            Err(other) => prop_assert!(false, "{}", other),
        }
    }
    Ok(())
}

/// So many nodes, and those of them, in their order, that are open to all.
fn partly_tainted(count: usize, tainted: usize) -> (Cluster, Vec<String>) {
    let mut cluster = Cluster::new();
    for at in 0..count {
        let name = format!("n{at}");
        let mut words = vec![name.as_str()];
        words.extend((tainted > 0 && at % 5 < tainted - 1).then_some("taint=k:v:NoSchedule"));
        cluster.upsert_node(&node(&words)).unwrap();
    }
    let order = cluster.order().to_vec();
    let is_open = |name: &&String| cluster.node(name).unwrap().node().taints.is_empty();
    let open = order.iter().filter(is_open).cloned().collect();
    (cluster, open)
}

fn moves_its_window((extra, tainted): (usize, usize), bug: Option<Bug>) -> Result<(), TestCaseError> {
    let (mut cluster, open) = partly_tainted(100 + extra, tainted);
    let most = feasible_to_find(100 + extra).min(open.len());
    let mut at = 0;
    for turn in 0..6 {
        let decision = schedule(&mut cluster, &wanted(turn, (1, 1, false)), &SpreadDefaults::default()).unwrap();
        let seen: Vec<&String> = decision.scored.iter().map(|scored| &scored.node).collect();
        let expected: Vec<&String> = (0..most).map(|step| &open[(at + step) % open.len()]).collect();
        prop_assert_eq!(&seen, &expected);
        at = match bug {
            Some(Bug::BeginsAnew) => 0,
            Some(Bug::LeavesOneOut) => (at + most + 1) % open.len(),
            _ => (at + most) % open.len(),
        };
        let order = cluster.order();
        let begins = order[cluster.next_start()..].iter().chain(order.iter()).find(|name| open.contains(name));
        prop_assert_eq!(begins, Some(&open[at]));
    }
    Ok(())
}

/// The nodes of a cluster come to another, as they are.
fn bring_nodes(from: &Cluster, to: &mut Cluster) {
    for info in from.nodes() {
        let mut words = vec![info.node().name.clone()];
        words.push(format!("cpu={}m", info.node().allocatable.resources.cpu_milli));
        words.push(format!("label.zone={}", info.node().labels["zone"]));
        words.extend(["memory=16Gi".to_owned(), "pods=12".to_owned()]);
        words.extend((!info.node().taints.is_empty()).then(|| "taint=k:v:NoSchedule".to_owned()));
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        to.upsert_node(&node(&words)).unwrap();
    }
}

fn is_what_is_there((nodes, pods, seed): (Nodes, Pods, u64), bug: Option<Bug>) -> Result<(), TestCaseError> {
    let place = |at: usize| format!("n{}", (at * 7) % nodes.len());
    let mut forward = cluster(&nodes);
    for (at, wants) in pods.iter().enumerate() {
        forward.add_pod(&wanted(at, *wants), &place(at)).unwrap();
    }
    let mut backward = Cluster::new();
    for (at, wants) in pods.iter().enumerate().rev() {
        backward.add_pod(&wanted(at, *wants), "elsewhere").unwrap();
        backward.add_pod(&wanted(at, *wants), &place(at)).unwrap();
        if seed >> (at % 64) & 1 == 1 {
            backward.remove_pod(&format!("p{at}"));
            if bug != Some(Bug::ForgetsWhoCameAgain) {
                backward.add_pod(&wanted(at, *wants), &place(at)).unwrap();
            }
        }
    }
    bring_nodes(&cluster(&nodes), &mut backward);
    prop_assert!(forward.nodes().eq(backward.nodes()));
    Ok(())
}

fn decides_the_same((nodes, pods): (Nodes, Pods), bug: Option<Bug>) -> Result<(), TestCaseError> {
    let (mut one, mut other) = (cluster(&nodes), cluster(&nodes));
    for (at, wants) in pods.iter().enumerate() {
        let pod = wanted(at, *wants);
        let a = schedule(&mut one, &pod, &SpreadDefaults::default());
        let b = schedule(&mut other, &pod, &SpreadDefaults::default());
        prop_assert_eq!(&a, &b);
        if let Ok(decision) = a {
            let in_range = |s: &Scored| {
                let low = [s.taint_toleration, s.node_affinity, s.least_allocated];
                let high = [s.topology_spread, s.balanced_allocation, s.image_locality];
                low.iter().chain(&high).all(|score| (0..=100).contains(score))
            };
            prop_assert!(decision.scored.iter().all(in_range));
            let names: BTreeSet<&String> = decision.scored.iter().map(|s| &s.node).collect();
            prop_assert_eq!(names.len(), decision.scored.len());
            one.add_pod(&pod, &decision.node).unwrap();
            if bug != Some(Bug::ForgetsThePlaced) {
                other.add_pod(&pod, &decision.node).unwrap();
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Nodes are never asked for more than they have; tainted ones get nothing; a pod that is
    /// spread never makes its zone lead by more than its skew.
    #[test]
    fn placements_fit(case in (nodes(8), pods(60))) {
        fits_wherever_placed(case, None)?;
    }

    /// A rejected pod really has no node: each one, asked alone, rejects it.
    #[test]
    fn rejections_are_complete(case in (nodes(6), pods(40))) {
        has_no_node_if_rejected(case, None)?;
    }

    /// O1: a scan takes `feasible_to_find` nodes, and the next one begins right after them.
    #[test]
    fn the_window_moves_on(case in (0_usize..400, 0_usize..5)) {
        moves_its_window(case, None)?;
    }

    /// In which order pods were added or removed again doesn't matter, nor when the node came.
    #[test]
    fn the_state_is_what_is_there(case in (nodes(5), pods(30), any::<u64>())) {
        is_what_is_there(case, None)?;
    }

    /// O2, and that scores stay within their range.
    #[test]
    fn decisions_repeat(case in (nodes(8), pods(30))) {
        decides_the_same(case, None)?;
    }
}

/// A scheduler that doesn't look at something, begins elsewhere or forgets a pod is found.
#[test]
fn a_wrong_scheduler_is_noticed() {
    let blind = [Bug::ForgetsCpu, Bug::ForgetsSpread, Bug::ForgetsTaints];
    assert_noticed(&blind, &(nodes(8), pods(60)), fits_wherever_placed);
    assert_noticed(&[Bug::KeepsACore], &(nodes(6), pods(40)), has_no_node_if_rejected);
    assert_noticed(&[Bug::BeginsAnew, Bug::LeavesOneOut], &(0_usize..400, 0_usize..5), moves_its_window);
    assert_noticed(&[Bug::ForgetsWhoCameAgain], &(nodes(5), pods(30), any::<u64>()), is_what_is_there);
    assert_noticed(&[Bug::ForgetsThePlaced], &(nodes(8), pods(30)), decides_the_same);
}
