//! Counting, keys and arguments.

use std::time::Duration;

use clap::Parser;

use super::load::Load;
use super::report::Measured;
use super::{Args, KEY_BYTES, Outcome, endpoints};

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    args: Args,
}

fn load(line: &str) -> Load {
    Load::new(&Cli::parse_from(line.split(' ')).args)
}

#[test]
fn keys_have_one_length_and_a_seed_gives_one_sequence() {
    let (a, b, c) = (load("bench put"), load("bench put"), load("bench put --keys-seed 2"));
    let sequence = |load: &Load| -> Vec<Vec<u8>> {
        let mut rng = load.keys.rng(3);
        (0..20).map(|_| load.keys.key(load.keys.random(&mut rng))).collect()
    };
    assert!(sequence(&a).iter().all(|key| key.len() == KEY_BYTES));
    assert_eq!(sequence(&a), sequence(&b));
    assert!(sequence(&a).iter().all(|key| !key.starts_with(c.keys.prefix())), "loads of two seeds don't meet");
}

#[test]
fn keys_are_in_the_order_of_their_numbers_and_tell_them() {
    let keys = load("bench put").keys;
    for number in [0, 1, 9, 10, 9_999, 19_999_999] {
        assert_eq!(keys.number(&keys.key(number)), Some(number));
        assert!(keys.key(number) < keys.key(number + 1));
    }
    assert_eq!(keys.number(b"somebody else's"), None);
}

#[test]
fn values_are_of_the_size_asked_for_and_differ() {
    let keys = load("bench put --value-size 100").keys;
    let mut rng = keys.rng(0);
    let (a, b) = (keys.value(&mut rng), keys.value(&mut rng));
    assert_eq!((a.len(), b.len()), (100, 100));
    assert_ne!(a, b);
}

#[test]
fn the_newest_acknowledgement_of_a_key_counts() {
    let load = load("bench put");
    for revision in [5, 7, 6] {
        load.acknowledge(3, revision);
    }
    assert_eq!((load.keys.acknowledged(3), load.keys.acknowledged(4), load.written()), (7, 0, 3));
}

#[test]
fn a_load_ends_with_its_operations() {
    let puts = load("bench put --total 3");
    assert_eq!((0..10).filter_map(|_| puts.take()).collect::<Vec<_>>(), [0, 1, 2]);
    let creations = load("bench create --total 7");
    assert_eq!(creations.keys.count(), 7, "each creation has a key of its own");
}

#[test]
fn connections_leave_no_member_out() {
    let all = ["a", "b", "c"].map(str::to_owned);
    assert_eq!(endpoints(&all, 0, 2), all, "two connections reach three members only if each asks all");
    let asked: Vec<_> = (0..4).map(|number| endpoints(&all, number, 4).join(",")).collect();
    assert_eq!(asked, ["a", "b", "c", "a"]);
}

#[test]
fn an_outcome_is_one_json_object_and_failures_make_it_bad() {
    let args = Cli::parse_from("bench put --total 3".split(' ')).args;
    let mut measured = Measured::new();
    measured.record(Duration::from_millis(2));
    let mut outcome = Outcome::new(&args, &Load::new(&args), Duration::from_secs(2), Duration::from_millis(1));
    outcome.take(&measured);
    let json: serde_json::Value = serde_json::from_str(&outcome.json()).unwrap_or_default();
    assert_eq!((json["workload"].as_str(), json["done"].as_u64()), (Some("put"), Some(1)));
    assert!((json["per_second"].as_f64().unwrap_or(0.0) - 0.5).abs() < 1e-9, "{json}");
    assert!(outcome.verdict().is_ok());
    outcome.lost = 1;
    assert!(outcome.verdict().is_err());
}

#[test]
fn errors_are_counted_by_kind_and_kinds_are_bounded() {
    let mut measured = Measured::new();
    measured.record(Duration::from_millis(1));
    for n in 0..100 {
        measured.fail(format!("kind {n}"));
    }
    let mut sum = Measured::new();
    sum.add(&measured);
    sum.add(&measured);
    assert_eq!((sum.done(), sum.failed()), (2, 200));
    assert!(sum.kinds() <= 17, "{}", sum.kinds());
}

#[test]
fn arguments_out_of_bounds_are_refused() {
    for line in ["bench put --clients 0", "bench put --clients 1001", "bench put --value-size 4", "bench put --cert a"]
    {
        assert!(Cli::try_parse_from(line.split(' ')).is_err(), "{line}");
    }
}
