//! Text cases: `now command argument…`, with a line for each `take`.

mod naive;

use expect_test::{Expect, expect};

use super::*;

fn check(text: &str, expected: Expect) {
    let mut queue = Queue::default();
    let mut out = String::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let now: u64 = words[0].parse().unwrap();
        let uid = words.get(2).copied().unwrap_or("");
        match words[1] {
            "add" => queue.add(uid, words.get(3).map_or(0, |p| p.parse().unwrap()), now),
            "remove" => queue.remove(uid),
            "take" => {
                let ready = queue.ready(now);
                let taken = queue.take(now);
                assert_eq!(ready, taken.is_some());
                out.push_str(&format!("{now} {}, due {:?}\n", taken.as_deref().unwrap_or("-"), queue.next_due()));
            }
            "rejected" => queue.rejected(uid, waits_for(words[3]), now),
            "failed" => queue.failed(uid, now),
            "flush" => queue.flush(now),
            other => queue.happened(happening(other), now),
        }
        one_place_each(&queue);
    }
    expected.assert_eq(&out);
}

fn waits_for(text: &str) -> WaitsFor {
    match text {
        "itself" => WaitsFor::Itself,
        "fit" => WaitsFor::Nodes([Plugin::NodeResourcesFit].into()),
        "taint" => WaitsFor::Nodes([Plugin::TaintToleration].into()),
        "spread" => WaitsFor::Nodes([Plugin::PodTopologySpread].into()),
        "node" => WaitsFor::Nodes(BTreeSet::new()),
        other => panic!("{other}"),
    }
}

fn happening(text: &str) -> Happening {
    match text {
        "node-added" => Happening::NodeAdded,
        "node-tainted" => Happening::NodeChanged { labels: false, taints: true, allocatable: false },
        "node-grown" => Happening::NodeChanged { labels: false, taints: false, allocatable: true },
        "pod-placed" => Happening::PodPlaced,
        "pod-removed" => Happening::PodRemoved,
        other => panic!("{other}"),
    }
}

/// Q1.
fn one_place_each(queue: &Queue) {
    let places = queue.active.len() + queue.backoff.len() + queue.parked.len() + queue.in_flight.len();
    assert_eq!(places, queue.len());
    assert!(queue.parked_for_spread.iter().all(|uid| queue.parked.contains_key(uid)));
    for (uid, entry) in &queue.entries {
        let there = match &entry.place {
            Place::Active => queue.active.contains(&entry.rank(uid)),
            Place::Backoff { until, .. } => queue.backoff.contains(&(*until, uid.clone())),
            Place::Parked(_) => queue.parked.contains_key(uid),
            Place::InFlight(_) => queue.in_flight.contains(uid),
        };
        assert!(there, "{uid}: {:?}", entry.place);
    }
}

/// Q3.
#[test]
fn priority_then_age() {
    check(
        "0 add a
         0 add b
         1 add c 5
         1 add d
         2 add d 9
         2 take
         2 take
         2 take
         2 take
         2 take",
        expect![[r#"
            2 d, due None
            2 c, due None
            2 a, due None
            2 b, due None
            2 -, due None
        "#]],
    );
}

/// A parked pod comes back only for what may help it.
#[test]
fn parked_until_it_may_help() {
    check(
        "0 add a
         0 add b
         0 take
         0 take
         0 rejected a fit
         0 rejected b taint
         20000 pod-placed
         20000 take
         20000 pod-removed
         20000 take
         20000 take
         20000 node-tainted
         20000 take",
        expect![[r#"
            0 a, due None
            0 b, due None
            20000 -, due None
            20000 a, due None
            20000 -, due None
            20000 b, due None
        "#]],
    );
}

/// The pause doubles up to ten seconds; it is kept only while there is something else to do.
#[test]
fn pauses_double() {
    let mut queue = Queue::default();
    queue.add("a", 0, 0);
    let mut now = 0;
    let mut pauses = Vec::new();
    for _ in 0..6 {
        assert_eq!(queue.take(now).as_deref(), Some("a"));
        queue.failed("a", now);
        assert_eq!(queue.take(now), None);
        let due = queue.next_due().unwrap();
        pauses.push(due - now);
        now = due;
    }
    assert_eq!(pauses, [1000, 2000, 4000, 8000, 10_000, 10_000]);
    check(
        "0 add a
         0 take
         0 rejected a fit
         10 node-added
         10 add b
         10 take
         10 take
         10 take",
        expect![[r#"
            0 a, due None
            10 b, due Some(1000)
            10 a, due None
            10 -, due None
        "#]],
    );
}

/// Q2.
#[test]
fn what_happens_in_flight_is_not_missed() {
    check(
        "0 add a
         0 add b
         0 add c
         0 take
         0 take
         0 take
         0 node-grown
         0 add c
         0 rejected a fit
         0 rejected b taint
         0 rejected c itself
         2000 take
         2000 take
         2000 take",
        expect![[r#"
            0 a, due None
            0 b, due None
            0 c, due None
            2000 a, due None
            2000 c, due None
            2000 -, due None
        "#]],
    );
}

/// Nothing is parked for ever, and what is gone isn't taken.
#[test]
fn flushed_and_removed() {
    check(
        "0 add a
         0 add b
         0 take
         0 take
         0 rejected a itself
         0 rejected b spread
         1 node-added
         1 remove b
         299000 flush
         299000 take
         300001 flush
         300001 take
         300001 remove a
         300001 failed a
         300001 take",
        expect![[r#"
            0 a, due None
            0 b, due None
            299000 -, due None
            300001 a, due None
            300001 -, due None
        "#]],
    );
}
