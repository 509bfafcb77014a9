//! Text cases: `command argument…`, with a line for each `next`.

use expect_test::{Expect, expect};

use super::*;

fn check(text: &str, expected: Expect) {
    let mut bindings = Bindings::default();
    let mut out = String::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let number = |at: usize| words.get(at).map(|word| word.parse::<u64>().unwrap());
        match words[0] {
            "assume" => bindings.assume(words[1], words[2], number(3).unwrap()),
            "next" => {
                let now = number(1).unwrap_or(0);
                let ready = bindings.ready(now);
                let next = bindings.next(now);
                assert_eq!(ready, next.is_some());
                let next = next.map_or("-".to_owned(), |s| format!("{} to {} knowing {}", s.uid, s.node, s.known));
                out.push_str(&format!("{next}, due {:?}\n", bindings.next_due()));
            }
            "answered" => {
                let assumed = bindings.answered(words[1], words[2], number(3));
                out.push_str(&format!("{line}: {}\n", if assumed { "assumed" } else { "not assumed" }));
            }
            "repeat" => bindings.repeat(words[1], number(2).unwrap()),
            "remove" => assert!(bindings.remove(words[1])),
            "gone" => out.push_str(&format!("stranded: {:?}\n", bindings.node_gone(words[1]))),
            other => panic!("{other}"),
        }
        sound(&bindings);
    }
    expected.assert_eq(&out);
}

/// B1, and every pod in one place.
fn sound(bindings: &Bindings) {
    for (uid, assumed) in &bindings.assumed {
        let waits = bindings.lanes.values().flat_map(|lane| &lane.waiting).filter(|other| *other == uid).count();
        let pauses = bindings.paused.iter().filter(|(_, other)| other == uid).count();
        let sent = bindings
            .lanes
            .get(&assumed.node)
            .is_some_and(|lane| lane.on_its_way.as_ref().is_some_and(|(sent, _)| sent == uid));
        let expected = match assumed.phase {
            Phase::Waiting => (1, 0, false),
            Phase::OnItsWay => (0, 0, true),
            Phase::Paused(_) => (0, 1, false),
            Phase::Bound => (0, 0, false),
        };
        assert_eq!((waits, pauses, sent), expected, "{uid}");
    }
    for (node, lane) in &bindings.lanes {
        let is_free = lane.on_its_way.is_none() && !lane.waiting.is_empty();
        assert_eq!(bindings.free.contains(node), is_free, "{node}");
    }
}

/// B1, B2: the next binding to a node waits for the answer, and knows of it; those to others don't wait.
#[test]
fn one_binding_to_each_node() {
    check(
        "assume p a 5
         assume q a 5
         assume r b 5
         next
         next
         next
         answered p a 9
         next
         answered r b",
        expect![[r#"
            p to a knowing 5, due None
            r to b knowing 5, due None
            -, due None
            answered p a 9: assumed
            q to a knowing 9, due None
            answered r b: assumed
        "#]],
    );
}

/// B2: what was decided before somebody else's pod was known doesn't tell of it, whatever was bound since.
#[test]
fn an_older_decision_tells_what_it_knew() {
    check(
        "assume p a 5
         next
         answered p a
         repeat p 0
         assume q a 7
         next
         answered q a 8
         next 1000
         answered p a
         assume r a 8
         next",
        expect![[r#"
            p to a knowing 5, due None
            answered p a: assumed
            q to a knowing 7, due Some(1000)
            answered q a 8: assumed
            p to a knowing 5, due None
            answered p a: assumed
            r to a knowing 8, due None
        "#]],
    );
}

/// B3: the same again, after pauses that grow.
#[test]
fn what_was_not_answered_is_asked_again() {
    check(
        "assume p a 1
         next
         answered p a
         repeat p 0
         next 999
         next 1000
         answered p a
         repeat p 1000
         next 2999
         next 3000
         answered p a 4",
        expect![[r#"
            p to a knowing 1, due None
            answered p a: assumed
            -, due Some(1000)
            p to a knowing 1, due None
            answered p a: assumed
            -, due Some(3000)
            p to a knowing 1, due None
            answered p a 4: assumed
        "#]],
    );
}

/// The answer to what isn't assumed any more frees the node all the same.
#[test]
fn a_pod_that_was_shown_frees_its_node_with_the_answer() {
    check(
        "assume p a 1
         assume q a 1
         assume r a 1
         next
         remove p
         remove q
         next
         answered p a 3
         next",
        expect![[r#"
            p to a knowing 1, due None
            -, due None
            answered p a 3: not assumed
            r to a knowing 3, due None
        "#]],
    );
}

#[test]
fn what_was_not_sent_to_a_node_that_went_is_not_sent() {
    check(
        "assume p a 1
         assume q a 1
         assume r a 1
         next
         answered p a
         repeat p 0
         next
         gone a
         next 1000
         answered q a",
        expect![[r#"
            p to a knowing 1, due None
            answered p a: assumed
            q to a knowing 1, due Some(1000)
            stranded: ["p", "r"]
            -, due None
            answered q a: assumed
        "#]],
    );
}
