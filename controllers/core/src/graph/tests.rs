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
    assert!(matches!(graph.after_check("rs", &gone(&["d"])), Verdict::Act(w) if matches!(&w[..], [Write::Delete(..)])));
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
        matches!(graph.look("rs"), Verdict::Act(w) if matches!(&w[..], [Write::Delete(_, _, Propagation::Foreground)]))
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
