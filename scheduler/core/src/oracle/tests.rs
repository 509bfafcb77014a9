//! Text cases of whole decisions.

use expect_test::{Expect, expect};

use super::*;
use crate::scenario::run;

fn check(text: &str, expected: Expect) {
    expected.assert_eq(&run(&mut Cluster::new(), text));
}

/// The emptiest node gets the pod; of equal ones the first in the heap's order.
#[test]
fn load_is_levelled() {
    check(
        "node a
         node b
         node c
         pod x a cpu=1 memory=8Gi
         schedule p cpu=1 memory=8Gi
         schedule q cpu=1 memory=8Gi
         schedule r cpu=1 memory=8Gi
         schedule s cpu=100m
         schedule t",
        expect![[r#"
            p: b of 3 (a 425, b 450, c 450)
            q: c of 3 (a 425, b 425, c 450)
            r: a of 3 (a 425, b 425, c 425)
            s: b of 3 (a 422, b 447, c 447)
            t: c of 3 (a 348, b 371, c 373)
        "#]],
    );
}

#[test]
fn reasons_are_upstreams() {
    check(
        "schedule p
         node a cpu=1
         node b taint=dedicated:gpu:NoSchedule
         node c closed=true
         schedule q cpu=2 memory=64Gi
         schedule r select.disk=ssd
         node d pods=1
         pod x d
         schedule s cpu=2 resource.example.com/gpu=1
         schedule t cpu=900m
         schedule u cpu=900m
         schedule v cpu=900m preempts=Never",
        expect![[r#"
            p: no nodes available to schedule pods
            q: 0/3 nodes are available: 1 Insufficient cpu, 1 Insufficient memory, 1 node(s) had untolerated taint(s), 1 node(s) were unschedulable. no new claims to deallocate, preemption: 0/3 nodes are available: 3 Preemption is not helpful for scheduling.
            r: 0/3 nodes are available: 1 node(s) didn't match Pod's node affinity/selector, 1 node(s) had untolerated taint(s), 1 node(s) were unschedulable. no new claims to deallocate, preemption: 0/3 nodes are available: 3 Preemption is not helpful for scheduling.
            s: 0/4 nodes are available: 1 Insufficient cpu, 1 Too many pods, 1 node(s) had untolerated taint(s), 1 node(s) were unschedulable, 2 Insufficient example.com/gpu. no new claims to deallocate, preemption: 0/4 nodes are available: 4 Preemption is not helpful for scheduling.
            t: a of 4 ()
            u: 0/4 nodes are available: 1 Insufficient cpu, 1 Too many pods, 1 node(s) had untolerated taint(s), 1 node(s) were unschedulable. no new claims to deallocate, preemption: 0/4 nodes are available: 2 No preemption victims found for incoming pod, 2 Preemption is not helpful for scheduling.
            v: 0/4 nodes are available: 1 Insufficient cpu, 1 Too many pods, 1 node(s) had untolerated taint(s), 1 node(s) were unschedulable. no new claims to deallocate, preemption: not eligible due to preemptionPolicy=Never.
        "#]],
    );
}

#[test]
fn pods_in_the_way() {
    check(
        "node a
         node b
         pod low a cpu=3 priority=1
         pod high b cpu=3 priority=9
         schedule p cpu=2 priority=5
         schedule q cpu=2 priority=1
         schedule r cpu=4 priority=10 node=b",
        expect![[r#"
            p: 0/2 nodes are available: 2 Insufficient cpu. preemption: not supported yet; evicting pods of lower priority would help on 1 node(s).
            q: 0/2 nodes are available: 2 Insufficient cpu. no new claims to deallocate, preemption: 0/2 nodes are available: 2 No preemption victims found for incoming pod.
            r: 0/2 nodes are available: 1 Insufficient cpu, 1 node(s) didn't match the requested node name. preemption: not supported yet; evicting pods of lower priority would help on 1 node(s).
        "#]],
    );
}

#[test]
fn host_ports_conflict() {
    check(
        "node a
         node b
         schedule p port=80
         schedule q port=80
         schedule r port=80",
        expect![[r#"
            p: a of 2 (a 398, b 398)
            q: b of 2 ()
            r: 0/2 nodes are available: 2 node(s) didn't have free ports for the requested pod ports. no new claims to deallocate, preemption: 0/2 nodes are available: 2 No preemption victims found for incoming pod.
        "#]],
    );
}

#[test]
fn tainted_and_preferred() {
    check(
        "node a taint=x:y:PreferNoSchedule
         node b
         node c taint=x:y:PreferNoSchedule taint=z:z:PreferNoSchedule
         schedule p
         schedule q tolerate=x:Exists::
         schedule r tolerate=:Exists::",
        expect![[r#"
            p: b of 3 (a 248, b 398, c 98)
            q: a of 3 (a 398, b 396, c 98)
            r: c of 3 (a 396, b 396, c 398)
        "#]],
    );
}

#[test]
fn hard_spread() {
    check(
        "node a label.zone=a
         node b label.zone=b
         node c
         schedule p label.app=x spread=zone:1:hard:app=x
         schedule q label.app=x spread=zone:1:hard:app=x
         schedule r label.app=x spread=zone:1:hard:app=x
         node b label.zone=b closed=true
         schedule s label.app=x spread=zone:1:hard:app=x
         schedule t label.app=x spread=zone:1:hard:app=x",
        expect![[r#"
            p: a of 3 (a 398, b 398)
            q: b of 3 ()
            r: a of 3 (a 396, b 396)
            s: 0/3 nodes are available: 1 node(s) didn't match pod topology spread constraints, 1 node(s) didn't match pod topology spread constraints (missing required label), 1 node(s) were unschedulable. no new claims to deallocate, preemption: 0/3 nodes are available: 1 No preemption victims found for incoming pod, 2 Preemption is not helpful for scheduling.
            t: 0/3 nodes are available: 1 node(s) didn't match pod topology spread constraints, 1 node(s) didn't match pod topology spread constraints (missing required label), 1 node(s) were unschedulable. no new claims to deallocate, preemption: 0/3 nodes are available: 1 No preemption victims found for incoming pod, 2 Preemption is not helpful for scheduling.
        "#]],
    );
}

/// A node without the labels has nothing counted against it, as upstream.
#[test]
fn default_spread_is_by_host_and_zone() {
    check(
        "node a label.kubernetes.io/hostname=a label.topology.kubernetes.io/zone=1
         node b label.kubernetes.io/hostname=b label.topology.kubernetes.io/zone=1
         node c label.kubernetes.io/hostname=c label.topology.kubernetes.io/zone=2
         schedule p label.app=x default.app=x
         schedule q label.app=x default.app=x
         schedule r label.app=x default.app=x
         schedule s label.app=x default.app=x
         schedule t label.app=x
         node d
         schedule u label.app=x default.app=x",
        expect![[r#"
            p: a of 3 (a 598, c 598, b 598)
            q: c of 3 (a 528, c 598, b 574)
            r: b of 3 (a 550, c 550, b 598)
            s: c of 3 (a 576, c 596, b 576)
            t: a of 3 (a 396, c 395, b 396)
            u: d of 4 (a 395, c 409, d 598, b 410)
        "#]],
    );
}

#[test]
fn images_attract() {
    check(
        "node a
         node b image=app:1:2000000000
         schedule p image=app:1
         schedule q image=app",
        expect![[r#"
            p: b of 2 (a 398, b 493)
            q: a of 2 (a 398, b 396)
        "#]],
    );
}

/// Only named nodes are visited; a nominated one is tried alone.
#[test]
fn named_nodes() {
    check(
        "node a
         node b
         node c cpu=1
         schedule p only=b
         schedule q only=b,c cpu=2
         schedule r only=x
         schedule s only=c cpu=2
         schedule t nominated=c
         schedule u nominated=c cpu=2",
        expect![[r#"
            p: b of 1 ()
            q: b of 2 ()
            r: 0/3 nodes are available: 3 node(s) didn't satisfy plugin(s) [NodeAffinity]. no new claims to deallocate, preemption: 0/3 nodes are available: 3 Preemption is not helpful for scheduling.
            s: 0/3 nodes are available: 1 Insufficient cpu, 2 node(s) didn't satisfy plugin(s) [NodeAffinity]. no new claims to deallocate, preemption: 0/3 nodes are available: 3 Preemption is not helpful for scheduling.
            t: c of 1 ()
            u: a of 3 (b 411, a 436)
        "#]],
    );
}

#[test]
fn gates_and_what_is_not_supported() {
    check(
        "node a\n schedule p gate=g",
        expect![[r#"
        p: Scheduling is blocked due to non-empty scheduling gates
    "#]],
    );
    let refuse = |spec: serde_json::Value| {
        let mut cluster = Cluster::new();
        let pod = serde_json::json!({"metadata": {"uid": "u"}, "spec": spec});
        let failure = schedule(&mut cluster, &serde_json::from_value(pod).unwrap(), &SpreadDefaults::default());
        let failure = failure.unwrap_err();
        format!("{}: {failure}", failure.reason())
    };
    let term = serde_json::json!([{"topologyKey": "zone"}]);
    let out = [
        refuse(
            serde_json::json!({"containers": [], "affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": term}}}),
        ),
        refuse(
            serde_json::json!({"containers": [], "affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": term}}}),
        ),
        refuse(
            serde_json::json!({"containers": [], "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]}),
        ),
        refuse(serde_json::json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": "x"}}}]})),
    ];
    expect![[r#"
        Unschedulable: required pod affinity is not supported yet
        Unschedulable: required pod anti-affinity is not supported yet
        Unschedulable: volumes that claim storage are not supported yet
        SchedulerError: the pod can't be read: resource cpu: quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"#]].assert_eq(&out.join("\n"));
}

#[test]
fn how_many_are_enough() {
    let numbers = [1, 99, 100, 150, 1000, 5000, 10_000, 100_000].map(feasible_to_find);
    assert_eq!(numbers, [1, 99, 100, 100, 420, 500, 500, 5000]);
}
