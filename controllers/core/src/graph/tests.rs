use super::*;

fn object(name: &str, owners: &[&str], finalizers: &[&str], deleting: bool) -> Object {
    let owner = |uid: &&str| OwnerReference {
        api_version: "v1".into(),
        kind: "K".into(),
        name: (*uid).into(),
        uid: (*uid).into(),
        controller: None,
        block_owner_deletion: Some(true),
    };
    Object {
        target: Target { api_version: "v1".into(), kind: "K".into(), namespace: "a".into(), name: name.into() },
        uid: name.into(),
        version: "1".into(),
        owners: owners.iter().map(owner).collect(),
        finalizers: finalizers.iter().map(|f| (*f).to_owned()).collect(),
        deleting,
    }
}

fn graph(objects: &[Object]) -> Graph {
    let mut graph = Graph::default();
    for object in objects {
        graph.observe(object.clone());
    }
    graph
}

fn gone(uids: &[&str]) -> BTreeSet<String> {
    uids.iter().map(|u| (*u).to_owned()).collect()
}

#[test]
fn dependents_of_a_lost_owner_are_collected_after_a_check() {
    let mut graph = graph(&[object("d", &[], &[], false), object("rs", &["d"], &[], false)]);
    assert_eq!(graph.look("rs"), Verdict::Keep);
    assert_eq!(graph.forget("d"), ["rs"]);
    assert!(matches!(graph.look("rs"), Verdict::Check(owners) if owners.len() == 1), "G2");
    assert!(
        matches!(graph.after_check("rs", &gone(&["d"])), Verdict::Act(w) if matches!(&w[..], [Write::DeleteAt(..)]))
    );
    assert_eq!(graph.after_check("rs", &gone(&[])), Verdict::Keep);
}

/// G1.
#[test]
fn a_second_owner_keeps_the_object() {
    let graph = graph(&[object("a", &[], &[], false), object("x", &["a", "b"], &[], false)]);
    let verdict = graph.after_check("x", &gone(&["b"]));
    assert!(
        matches!(&verdict, Verdict::Act(w) if matches!(&w[..], [Write::Patch(_, p)] if p["metadata"]["ownerReferences"].as_array().is_some_and(|l| l.len() == 1))),
        "{verdict:?}"
    );
}

/// G3.
#[test]
fn the_foreground_goes_from_the_leaves_up() {
    let mut graph = graph(&[
        object("d", &[], &[FOREGROUND], true),
        object("rs", &["d"], &[], false),
        object("p", &["rs"], &[], false),
    ]);
    assert_eq!(graph.look("d"), Verdict::Keep, "rs blocks it");
    assert!(
        matches!(graph.look("rs"), Verdict::Act(w) if matches!(&w[..], [Write::DeleteAt(_, _, _, Propagation::Foreground)]))
    );
    graph.observe(object("rs", &["d"], &[FOREGROUND], true));
    assert!(matches!(graph.look("p"), Verdict::Act(_)));
    assert_eq!(graph.forget("p"), ["rs"]);
    assert!(
        matches!(graph.look("rs"), Verdict::Act(w) if matches!(&w[..], [Write::Patch(_, p)] if p["metadata"]["finalizers"].is_null()))
    );
    assert_eq!(graph.forget("rs"), ["d"]);
    assert!(matches!(graph.look("d"), Verdict::Act(_)));
}

#[test]
fn orphans_lose_their_owner_first() {
    let graph = graph(&[object("d", &[], &[ORPHAN], true), object("rs", &["d"], &[], false)]);
    let Verdict::Act(writes) = graph.look("d") else { panic!("expected writes") };
    assert!(
        matches!(&writes[..], [Write::Patch(rs, _), Write::Patch(d, _)] if rs.name == "rs" && d.name == "d"),
        "{writes:?}"
    );
}

fn patched<'a>(verdict: &'a Verdict, field: &str) -> &'a Value {
    let Verdict::Act(writes) = verdict else { panic!("expected writes, got {verdict:?}") };
    let [Write::Patch(_, patch)] = &writes[..] else { panic!("expected a patch, got {writes:?}") };
    assert_eq!(patch["metadata"]["resourceVersion"], "1", "G4: {patch}");
    &patch["metadata"][field]
}

/// G4.
#[test]
fn writes_count_for_the_version_that_was_decided_upon() {
    let graph = graph(&[
        object("x", &["a"], &[], false),
        object("y", &["x", "a"], &[], false),
        object("o", &[], &[ORPHAN, "other"], true),
    ]);
    let Verdict::Act(writes) = graph.after_check("x", &gone(&["a"])) else { panic!("expected a deletion") };
    assert!(matches!(&writes[..], [Write::DeleteAt(_, uid, version, _)] if uid == "x" && version == "1"), "{writes:?}");
    assert_eq!(patched(&graph.after_check("y", &gone(&["a"])), "ownerReferences").as_array().map(Vec::len), Some(1));
    assert_eq!(patched(&graph.look("o"), "finalizers"), &json!(["other"]));
}

/// Or an owner that waits in the foreground would wait for ever.
#[test]
fn who_has_another_owner_does_not_hold_up_one_that_waits() {
    let graph = graph(&[
        object("d", &[], &[FOREGROUND], true),
        object("e", &[], &[], false),
        object("x", &["d", "e"], &[], false),
        object("y", &["d", "e", "f"], &[], false),
    ]);
    assert_eq!(patched(&graph.look("x"), "ownerReferences")[0]["uid"], "e");
    assert_eq!(patched(&graph.after_check("y", &gone(&["f"])), "ownerReferences")[0]["uid"], "e");
}

/// G5.
#[test]
fn who_loses_an_owner_lets_it_go() {
    let mut graph = graph(&[object("d", &[], &[FOREGROUND], true), object("x", &["d"], &[], false)]);
    assert_eq!(graph.look("d"), Verdict::Keep);
    assert_eq!(graph.observe(object("x", &[], &[], false)), ["d"]);
    assert!(patched(&graph.look("d"), "finalizers").is_null());
}
