//! What both checks say of histories that can be, of histories that can't, and of every order of tiny ones.

mod brute;
mod mutants;
mod sequential;

use expect_test::{Expect, expect};
use proptest::prelude::*;

use super::*;
use sequential::{Shape, noise, recorded};

pub(super) fn answered(revision: u64, steps: &[Given]) -> Outcome {
    Outcome::Ok(Answer { revision, succeeded: true, steps: steps.to_vec() })
}

pub(super) fn found(value: &str, revision: u64) -> Given {
    Given::Found(value.to_owned(), revision)
}

pub(super) fn unknown() -> Outcome {
    Outcome::Unknown("deadline exceeded".to_owned())
}

/// Operations, each with its call and return in nanoseconds, a client each.
pub(super) fn history(operations: Vec<(u64, u64, Request, Outcome)>) -> History {
    let operation = |(client, (called, returned, request, outcome))| Operation {
        client: u32::try_from(client).expect("few"),
        called,
        returned,
        request,
        outcome,
    };
    let operations = operations.into_iter().enumerate().map(operation).collect();
    History { begins_at: 1, operations, changes: Vec::new() }
}

fn words(verdict: &Verdict, history: &History) -> String {
    match verdict {
        Verdict::Linearizable => "linearizable".to_owned(),
        Verdict::Unknown(why) => format!("unknown: {why}"),
        Verdict::Violated(violation) => violation.words(history),
    }
}

/// What the main check says, and then the search.
fn says(operations: Vec<(u64, u64, Request, Outcome)>, expected: Expect) {
    let history = history(operations);
    let report = check(&history);
    let said = [&report.by_revisions, &report.by_search].map(|verdict| words(verdict, &history)).join("\n--\n");
    expected.assert_eq(&said);
}

#[test]
fn a_stale_read_is_named_with_what_it_missed() {
    says(
        vec![
            (0, 10, Request::put("a", "one"), answered(2, &[Given::Put])),
            (20, 30, Request::put("a", "two"), answered(3, &[Given::Put])),
            (40, 50, Request::get("a"), answered(3, &[found("one", 2)])),
        ],
        expect![[r#"
            operation 3 (get a) found a = "one" of revision 2 at revision 3, without what operation 2 (put a = "two") did at revision 3
                   1  client 0   0.000000000 s to 0.000000010 s  put a = "one": put (revision 2)
                   2  client 1   0.000000020 s to 0.000000030 s  put a = "two": put (revision 3)
                   3  client 2   0.000000040 s to 0.000000050 s  get a: found "one" of revision 2 (revision 3)
            --
            a: no order explains what operation 2 (put a = "two") gave (put (revision 3)): at best 1 of 3 operations come before it, and leave a = "one" of revision 2
                   1  client 0   0.000000000 s to 0.000000010 s  put a = "one": put (revision 2)
                   2  client 1   0.000000020 s to 0.000000030 s  put a = "two": put (revision 3)"#]],
    );
}

#[test]
fn a_read_at_an_old_revision_is_out_of_time() {
    says(
        vec![
            (0, 10, Request::put("a", "one"), answered(2, &[Given::Put])),
            (20, 30, Request::put("b", "two"), answered(3, &[Given::Put])),
            (40, 50, Request::get("a"), answered(2, &[found("one", 2)])),
        ],
        expect![[r#"
            operation 2 (put b = "two") returned before operation 3 (get a) was called (0.000000030 s before 0.000000040 s), and comes behind it by revisions, 3 behind 2
                   1  client 0   0.000000000 s to 0.000000010 s  put a = "one": put (revision 2)
                   3  client 2   0.000000040 s to 0.000000050 s  get a: found "one" of revision 2 (revision 2)
                   2  client 1   0.000000020 s to 0.000000030 s  put b = "two": put (revision 3)
            --
            linearizable"#]],
    );
}

#[test]
fn a_revision_that_nobody_took_is_named() {
    says(
        vec![
            (0, 10, Request::put("a", "one"), answered(2, &[Given::Put])),
            (0, 10, Request::delete("b"), unknown()),
            (20, 30, Request::put("a", "two"), answered(4, &[Given::Put])),
        ],
        expect![[r#"
            revision 3 was taken, but by no acknowledged write, and no write with unknown outcome that was called in time can have done it
                   1  client 0   0.000000000 s to 0.000000010 s  put a = "one": put (revision 2)
                   3  client 2   0.000000020 s to 0.000000030 s  put a = "two": put (revision 4)
            --
            linearizable"#]],
    );
}

/// Only a compare tells it: none of the answers holds a value.
#[test]
fn a_swap_that_another_one_forestalled_must_not_hold() {
    says(
        vec![
            (0, 10, Request::swap("a", 0, "one"), answered(2, &[Given::Put])),
            (20, 30, Request::swap("a", 0, "two"), answered(3, &[Given::Put])),
        ],
        expect![[r#"
            operation 2 (if a isn't there then put a = "two", else get a) found no a at revision 2: what operation 1 (if a isn't there then put a = "one", else get a) put at revision 2 is gone, and nobody deleted it
                   1  client 0   0.000000000 s to 0.000000010 s  if a isn't there then put a = "one", else get a: it held, put (revision 2)
                   2  client 1   0.000000020 s to 0.000000030 s  if a isn't there then put a = "two", else get a: it held, put (revision 3)
            --
            a: no order explains what operation 2 (if a isn't there then put a = "two", else get a) gave (it held, put (revision 3)): at best 1 of 2 operations come before it, and leave a = "one" of revision 2
                   1  client 0   0.000000000 s to 0.000000010 s  if a isn't there then put a = "one", else get a: it held, put (revision 2)
                   2  client 1   0.000000020 s to 0.000000030 s  if a isn't there then put a = "two", else get a: it held, put (revision 3)"#]],
    );
}

#[test]
fn an_unknown_write_that_was_read_has_happened_for_good() {
    let begun = || {
        vec![
            (0, 10, Request::put("a", "one"), answered(2, &[Given::Put])),
            (20, 30, Request::put("a", "two"), unknown()),
            (40, 50, Request::get("a"), answered(3, &[found("two", 3)])),
        ]
    };
    let last = |outcome| [begun(), vec![(60, 70, Request::get("a"), outcome)]].concat();
    says(
        last(answered(3, &[found("two", 3)])),
        expect![[r#"
        linearizable
        --
        linearizable"#]],
    );
    says(
        last(answered(3, &[found("one", 2)])),
        expect![[r#"
            operation 4 (get a) found a = "one" of revision 2 at revision 3, without what somebody did at revision 3
                   1  client 0   0.000000000 s to 0.000000010 s  put a = "one": put (revision 2)
                   4  client 3   0.000000060 s to 0.000000070 s  get a: found "one" of revision 2 (revision 3)
                   3  client 2   0.000000040 s to 0.000000050 s  get a: found "two" of revision 3 (revision 3)
            --
            a: no order explains what operation 3 (get a) gave (found "two" of revision 3 (revision 3)): at best 1 of 4 operations come before it, and leave a = "one" of revision 2
                   1  client 0   0.000000000 s to 0.000000010 s  put a = "one": put (revision 2)
                   3  client 2   0.000000040 s to 0.000000050 s  get a: found "two" of revision 3 (revision 3)"#]],
    );
}

/// The unknown deletion must go between; the unknown put fits as well, and mustn't.
#[test]
fn unknown_writes_go_where_later_answers_need_them() {
    says(
        vec![
            (0, 10, Request::put("a", "one"), answered(2, &[Given::Put])),
            (0, 11, Request::put("a", "two"), unknown()),
            (0, 12, Request::delete("a"), unknown()),
            (0, 13, Request::put("b", "three"), unknown()),
            (20, 30, Request::put("c", "four"), answered(5, &[Given::Put])),
            (40, 50, Request::get("a"), answered(5, &[Given::Absent])),
        ],
        expect![[r#"
            linearizable
            --
            linearizable"#]],
    );
}

#[test]
fn a_history_comes_back_from_its_file() {
    let raw: Vec<u64> = noise(1).take(300).collect();
    let mut history = recorded(&raw, &Shape::wild());
    history.operations[7].outcome = Outcome::Failed("etcdserver: \"too many requests\"".to_owned());
    let mut lines = Vec::new();
    history.write(&mut lines).expect("written");
    assert_eq!(History::read(&mut lines.as_slice()).expect("read"), history);
}

/// Errors name the line.
#[test]
fn what_is_no_history_is_refused() {
    const HEAD: &str = "{\"head\":{\"form\":1,\"begins_at\":1}}\n";
    const PUT: &str = "{\"operation\":{\"client\":0,\"called\":1,\"returned\":2,\"request\":{\"success\":[{\"put\":[\"a\",\"1\"]}]},\
                       \"outcome\":{\"ok\":{\"revision\":2,\"succeeded\":true,\"steps\":[\"put\"]}}}}\n";
    let refused = |text: &str, expected: Expect| {
        let error = History::read(&mut text.as_bytes()).expect_err("no history");
        expected.assert_eq(&format!("{error}"));
    };
    History::read(&mut format!("{HEAD}{PUT}").as_bytes()).expect("a history");
    refused("", expect![[r#"line 1: the file must begin with {"head":{"form":1,"begins_at":…}}"#]]);
    refused("{\"head\":{\"form\":2,\"begins_at\":1}}\n", expect!["line 1: form 2 is unknown; this program reads 1"]);
    refused(&format!("{HEAD}{PUT}{{}}\n"), expect!["line 3: it is no head, operation or change"]);
    refused(
        &format!("{HEAD}{PUT}").replace("\"returned\":2", "\"returned\":0"),
        expect!["line 2: it returned at 0 ns, before it was called at 1 ns"],
    );
    refused(
        &format!("{HEAD}{PUT}").replace("[\"put\"]", "[{\"deleted\":1}]"),
        expect![[r#"line 2: Deleted(1) is no answer to Put("a", "1")"#]],
    );
    refused(&format!("{HEAD}{PUT}").replace("[\"put\"]", "[]"), expect!["line 2: 1 steps were done and 0 answered"]);
    refused(&format!("{HEAD}{HEAD}"), expect!["line 2: a second head"]);
    let change = "{\"change\":{\"revision\":2,\"events\":[[\"a\",\"1\"]]}}\n";
    refused(&format!("{HEAD}{change}{change}"), expect!["line 3: revision 2 comes after 2"]);
    refused(&format!("{HEAD}{change}{PUT}"), expect!["line 3: an operation behind the store's changes"]);
}

/// The bound comes before the end, and isn't taken for an answer.
#[test]
fn a_search_cut_short_is_undecided() {
    let history = recorded(&noise(3).take(100).collect::<Vec<_>>(), &Shape::calm());
    assert!(matches!(check_search(&history, 20), Verdict::Unknown(_)));
    assert_eq!(check_search(&history, STEPS_MAX), Verdict::Linearizable);
}

/// A hundred thousand operations, one in a hundred with unknown outcome: both checks within their bounds.
#[test]
fn a_long_history_takes_few_steps() {
    let raw: Vec<u64> = noise(11).take(100_000).collect();
    // What the store tells of its changes takes the guessing away; without it, unknown writes are tried.
    let many_keys = recorded(&raw, &Shape { keys: 1_000, ..Shape::large() });
    let few_keys = recorded(&raw, &Shape { keys: 8, ..Shape::large() });
    let untold = recorded(&raw, &Shape { keys: 100, told: false, ..Shape::large() });
    for history in [many_keys, few_keys, untold] {
        let report = check(&history);
        println!("{} keys: {:?}", report.keys, report.took);
        assert!(report.holds(), "{report:?}");
        assert_eq!(check_search(&history, 1_000_000), Verdict::Linearizable);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// What a sequential store gave is linearizable, however calls overlap and whatever wasn't answered.
    #[test]
    fn what_a_store_gave_is_accepted(raw in prop::collection::vec(any::<u64>(), 1..80), told in any::<bool>()) {
        for shape in [Shape::wild(), Shape::calm()] {
            let history = recorded(&raw, &Shape { told, ..shape });
            let report = check(&history);
            prop_assert!(report.holds(), "{}\n{}", words(&report.by_revisions, &history), words(&report.by_search, &history));
        }
    }
}
