//! Counting, keys and arguments.

use std::time::Duration;

use clap::Parser;

use super::load::Load;
use super::report::Measured;
use super::{Args, KEY_BYTES};

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
    let sequence = |load: &Load| -> Vec<String> {
        let mut rng = load.rng(3);
        (0..20).map(|_| load.random_key(&mut rng)).collect()
    };
    assert!(sequence(&a).iter().all(|key| key.len() == KEY_BYTES));
    assert_eq!(sequence(&a), sequence(&b));
    assert!(sequence(&a).iter().all(|key| !key.starts_with(&c.prefix())), "loads of two seeds don't meet");
}

#[test]
fn a_load_ends_with_its_operations() {
    let load = load("bench put --total 3");
    let taken = (0..10).filter(|_| load.take()).count();
    assert_eq!(taken, 3);
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
