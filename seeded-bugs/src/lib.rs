//! Property tests that can fail: each is run with bugs in what it compares with, and has to notice them.

use std::fmt::Debug;

use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestError, TestRng, TestRunner};

/// Asserts that a property fails with each of these bugs, on cases that are the same in every run.
///
/// # Panics
/// If it holds with one of them in all cases.
pub fn assert_noticed<B: Copy + Debug, S: Strategy>(
    bugs: &[B],
    cases: &S,
    property: impl Fn(S::Value, Option<B>) -> Result<(), TestCaseError>,
) {
    let config =
        ProptestConfig { cases: 2000, max_shrink_iters: 0, failure_persistence: None, ..ProptestConfig::default() };
    for bug in bugs {
        let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
        let outcome = TestRunner::new_with_rng(config.clone(), rng).run(cases, |case| property(case, Some(*bug)));
        assert!(matches!(outcome, Err(TestError::Fail(..))), "{bug:?} isn't noticed: {outcome:?}");
    }
}
