//! Makes a failing sequence smaller: operations are left out while it still fails.

use std::time::Duration;

use super::operation::Operation;
use super::run::{Difference, Pair};

/// How long it may take: a small sequence is nice to have.
const PATIENCE: Duration = Duration::from_secs(60);

/// The smallest sequence found, and how it fails.
pub(crate) async fn shrink(
    pair: &mut Pair,
    prefix: &str,
    mut operations: Vec<Operation>,
    mut difference: Difference,
) -> (Vec<Operation>, Difference) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    let mut step = operations.len().div_ceil(2);
    while step > 0 {
        let (mut at, mut smaller) = (0, false);
        while at < operations.len() && tokio::time::Instant::now() < deadline {
            let mut fewer = operations.clone();
            fewer.drain(at..(at + step).min(operations.len()));
            pair.align().await;
            match pair.run(&fewer, prefix).await {
                Err(why) => (operations, difference, smaller) = (fewer, why, true),
                Ok(()) => at += step,
            }
        }
        if !smaller || step > 1 {
            step /= 2;
        }
        if tokio::time::Instant::now() >= deadline {
            break;
        }
    }
    pair.align().await;
    (operations, difference)
}
