//! The program as its users run it.

use std::process::{Command, Output};

fn sim(arguments: &str) -> (Output, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_sim")).args(arguments.split(' ')).output().expect("sim runs");
    let said = String::from_utf8(output.stdout.clone()).expect("text");
    (output, said)
}

#[test]
fn what_holds_ends_with_zero_and_what_it_was_worth() {
    let (output, said) = sim("--seed 5 --runs 2");
    assert!(output.status.success(), "{said}");
    assert!(said.starts_with("seed 5\n2 runs of kv: ") && said.contains("2 runs of pods: "), "{said}");
    assert!(said.contains(" of clusters in "), "{said}");
}

#[test]
fn what_fails_is_told_with_the_command_that_does_it_again() {
    let (output, said) = sim("--seed 1 --runs 50 --workload kv --mutant read-alone");
    assert_eq!(output.status.code(), Some(1), "{said}");
    let again = said.lines().find_map(|line| line.strip_prefix("again: cargo run -p sim --release -- "));
    let (output, repeated) = sim(again.expect("the command is told"));
    assert_eq!(output.status.code(), Some(1), "{repeated}");
    let what = |said: &str| said.lines().find(|line| line.starts_with("  at ")).map(str::to_owned);
    assert_eq!(what(&repeated), what(&said));
}
