//! The program as its users run it.

use std::process::{Command, Output};

fn models(arguments: &str) -> (Output, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_models")).args(arguments.split(' ')).output().expect("models runs");
    let said = String::from_utf8(output.stdout.clone()).expect("text");
    (output, said)
}

#[test]
fn a_check_that_holds_ends_with_zero() {
    let (output, said) = models("check replica --nodes 3 --terms 1 --proposals 1 --crashes 0 --timeouts 1");
    assert!(output.status.success(), "{said}");
}

#[test]
fn a_check_that_fails_tells_the_steps() {
    let (output, said) = models("check replica --scenario single-voter-learner --mutant lead-before-durable");
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("on the wire"), "{said}");
}

#[test]
fn a_walk_that_fails_tells_the_command_that_does_it_again() {
    let (output, said) = models("walk replica --seed 1 --episodes 500 --mutant count-before-durable");
    assert_eq!(output.status.code(), Some(1), "{said}");
    let again = said.lines().rev().find_map(|line| line.split_once("cargo run -p models --release -- "));
    let (output, said) = models(again.expect("the command is told").1.trim());
    assert_eq!(output.status.code(), Some(1), "{said}");
}

#[test]
fn what_can_not_be_combined_is_refused() {
    let (output, _) = models("check replica --stalls 1 --audit");
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("cannot be used with"));
}
