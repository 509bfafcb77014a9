//! Writes at a fixed rate, for watchers of whom each wants all of them.
//!
//! Writers wait for their answers, so that a store that can't keep up gets fewer writes than aimed at.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use super::OPERATION_MAX;
use super::load::Load;
use super::operation::Operator;
use super::report::Measured;
use super::rpc::Channel;
use super::watchers::stamp;

/// Writes for the load's time, so many times a second; what failed.
pub(super) async fn run(load: &Arc<Load>, channels: &[Channel], rate: u32, origin: Instant) -> Result<Measured> {
    let deadline = Instant::now() + load.time;
    let between = Duration::from_secs(1) * load.clients / rate;
    let mut writers = JoinSet::new();
    for (number, channel) in (0..load.clients).zip(channels.iter().cycle()) {
        let first = Instant::now() + between * number / load.clients;
        let operator = Operator::new(Arc::clone(load), channel, number);
        writers.spawn(write(Arc::clone(load), operator, (first, between, deadline), origin));
    }
    let mut failures = Measured::new();
    while let Some(writer) = writers.join_next().await {
        failures.add(&writer?);
    }
    Ok(failures)
}

async fn write(
    load: Arc<Load>,
    mut operator: Operator,
    (first, between, deadline): (Instant, Duration, Instant),
    origin: Instant,
) -> Measured {
    let mut failures = Measured::new();
    let mut ticks = tokio::time::interval_at(first.into(), between.max(Duration::from_micros(1)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    loop {
        let tick = ticks.tick().await;
        if tick.into_std() >= deadline || Instant::now() >= deadline || load.take().is_none() {
            return failures;
        }
        let (number, mut value) = (operator.random_key(), operator.value());
        stamp(&mut value, origin);
        match tokio::time::timeout(OPERATION_MAX, operator.put_value(number, value)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                failures.fail(format!("writing: {error}"));
            }
            Err(_) => {
                failures.fail(format!("writing: no answer within {OPERATION_MAX:?}"));
            }
        }
    }
}
