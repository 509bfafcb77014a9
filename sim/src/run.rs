//! One run: faults for a while, then calm; and what is checked then.

use models::history::{self, Change, History, Operation, Outcome, Request, Step, Verdict};
use models::traces::{self, Trace};

use crate::member::{Member, Running};
use crate::mutant::Mutant;
use crate::panics;
use crate::queue::{SECOND, Time};
use crate::world::World;

/// For how long things break.
pub(crate) const FAULTS: Time = 30 * SECOND;
/// Within this time of calm there is a leader, all clients are answered and all members agree.
const RECOVERY: Time = 8 * SECOND;
/// For how long calm lasts: leases that nobody renews end in it.
const CALM: Time = 15 * SECOND;

/// Within this time of calm a cluster that runs pods comes to rest.
const REST: Time = 150 * SECOND;
/// For how long it must then stay so.
const STAY: Time = 3 * SECOND;

/// What is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Workload {
    /// Clients that read, write and watch keys, and hold leases.
    Kv,
    /// Apiservers, schedulers, controllers and node agents.
    Pods,
}

/// What a run was.
#[derive(Debug, Clone)]
pub struct Report {
    /// What must not be; none if all is well.
    pub violations: Vec<String>,
    /// Virtual time, in microseconds.
    pub time: u64,
    /// Events that happened.
    pub events: u64,
    /// Operations that clients recorded.
    pub operations: usize,
    /// Events that watchers were given.
    pub watched: u64,
    /// Renewals of leases that were answered.
    pub renewed: u64,
    /// Changes of objects, of a cluster that runs pods.
    pub objects: u64,
    /// Containers that were started.
    pub containers: u64,
    /// Crashes, reigns of leaders, snapshots that members took, changes of members.
    pub disturbed: (u64, u64, u64, u64),
    /// Members whose disk was found to be damaged.
    pub ruined: u64,
    /// A hash of all that was applied: the same seed gives the same.
    pub hash: u64,
    /// What each member did, by its number: [`models::traces::validate`] has judged it. None of clusters that run pods.
    pub traces: Vec<Trace>,
}

/// Runs a cluster by a seed. `members`: one to five; `None`: as the seed says.
#[must_use]
pub fn run(workload: Workload, seed: u64, members: Option<u64>, mutant: Option<Mutant>) -> Report {
    let members = members.unwrap_or([1, 2, 3, 3, 3, 3, 4, 5][(seed % 8) as usize]).clamp(1, 5);
    let mut world = World::new(workload, seed, members, mutant);
    if let Err(said) = panics::told(|| drive(&mut world)) {
        let now = world.shared.queue.now();
        world.shared.canon.violate(now, said);
    }
    let traces = traces(&mut world);
    is_raft(&mut world, &traces);
    let (_, hash) = world.shared.canon.end();
    let hash = hash.map_or(0, |hash| hash.iter().fold(0, |sum: u64, byte| sum.rotate_left(8) ^ u64::from(*byte)));
    Report {
        violations: std::mem::take(&mut world.shared.canon.violations),
        time: world.shared.queue.now(),
        events: world.shared.queue.planned(),
        operations: world.shared.operations.len(),
        watched: world.watchers.iter().map(|watcher| watcher.events).sum(),
        renewed: world.holders.iter().map(|holder| holder.renewed).sum(),
        objects: world.pods.as_ref().map_or(0, |pods| pods.changes()),
        containers: world.pods.as_ref().map_or(0, |pods| pods.started()),
        disturbed: {
            let canon = &world.shared.canon;
            let crashes = world.shared.crashes + world.pods.as_ref().map_or(0, |pods| pods.crashes);
            (crashes, canon.reigns(), canon.snapshots, canon.changes)
        },
        ruined: world.shared.ruined,
        hash: hash ^ world.shared.queue.planned().rotate_left(32),
        traces,
    }
}

fn drive(world: &mut World) {
    world.begin();
    world.run_until(FAULTS);
    if !world.shared.canon.violations.is_empty() {
        return;
    }
    world.calm_down();
    let before: Vec<u64> = world.clients.iter().map(|client| client.answered).collect();
    world.run_until(FAULTS + RECOVERY);
    if !world.shared.canon.violations.is_empty() {
        return;
    }
    recovered(world, &before);
    if world.pods.is_some() {
        return come_to_rest(world);
    }
    world.run_until(FAULTS + CALM);
    if world.shared.canon.violations.is_empty() {
        linearizable(world);
    }
}

/// A cluster that runs pods is as it must be, within a bound, and stays so.
fn come_to_rest(world: &mut World) {
    let mut rested = false;
    while world.shared.canon.violations.is_empty() {
        let now = world.shared.queue.now();
        let World { shared, pods, .. } = &mut *world;
        let wrong = pods.as_mut().map_or_else(Vec::new, |pods| pods.unsettled(&shared.canon));
        match (wrong.is_empty(), rested) {
            (true, true) => return,
            (false, _) if now >= FAULTS + REST => {
                for what in wrong {
                    world.shared.canon.violate(now, format!("{} s after all is well again: {what}", REST / SECOND));
                }
            }
            (is_right, _) => rested = is_right,
        }
        world.run_until(now + STAY);
    }
}

/// There is a leader, all clients were answered, members and watchers have all that was a second ago.
fn recovered(world: &mut World, before: &[u64]) {
    let now = world.shared.queue.now();
    let mut wrong = Vec::new();
    let present = world.shared.canon.members.clone();
    let here = |id: u64| present.get(id).is_some();
    let leads = |member: &&Member| member.run.as_ref().is_some_and(|run| run.replica.is_leader());
    if world.members.iter().filter(|member| here(member.id)).filter(leads).count() != 1 {
        wrong.push("there isn't one leader".to_owned());
    }
    for (number, client) in world.clients.iter().enumerate() {
        if client.answered <= before[number] {
            wrong.push(format!("client {number} isn't answered"));
        }
    }
    let ((then, _), revision) = (world.shared.canon.end(), world.shared.canon.revision());
    world.run_until(now + SECOND);
    for member in world.members.iter().filter(|member| here(member.id)) {
        let applied = member.run.as_ref().map(|run| run.state.content.applied.0);
        if applied.is_none_or(|applied| applied < then) {
            wrong.push(format!("member {} has applied {applied:?} of {then}", member.id));
        }
    }
    for (number, watcher) in world.watchers.iter().enumerate() {
        if let Some(told) = watcher.lacks(&world.shared.canon).filter(|told| told.revision <= revision) {
            wrong.push(format!("watcher {number} isn't told of {told:?}"));
        }
    }
    if !wrong.is_empty() {
        wrong.extend(world.members.iter().filter_map(|member| member.run.as_ref()).map(Running::words));
    }
    for what in wrong {
        world.shared.canon.violate(now, format!("{} s after all is well again: {what}", RECOVERY / SECOND));
    }
}

/// What clients saw has an order that explains it.
fn linearizable(world: &mut World) {
    let now = world.shared.queue.now();
    let mut history = History { begins_at: 1, operations: world.shared.operations.clone(), changes: Vec::new() };
    // Asked and not answered yet.
    history.operations.extend(world.clients.iter().filter_map(|client| client.pending(now)));
    history.operations.extend(world.holders.iter().filter_map(|holder| holder.pending(now)));
    for (revision, written) in (2..).zip(&world.shared.canon.written) {
        let events: Vec<_> = written.events.iter().map(|told| (told.key.clone(), told.value.clone())).collect();
        if events.iter().any(|(key, _)| key.starts_with('l')) && written.events.iter().any(|told| told.value.is_none())
        {
            // Leases end by themselves, or by holders, which record no more of them than this.
            let success = events.iter().map(|(key, _)| Step::Delete(key.clone())).collect();
            let request = Request { success, ..Request::default() };
            let outcome = Outcome::Unknown("a lease ended".to_owned());
            history.operations.push(Operation { client: u32::MAX, called: 0, returned: now * 1000, request, outcome });
        }
        history.changes.push(Change { revision, events });
    }
    let report = history::check(&history);
    for verdict in [report.by_revisions, report.by_search] {
        if let Verdict::Violated(violation) = verdict {
            world.shared.canon.violate(now, format!("not linearizable: {}", violation.words(&history)));
        }
    }
}

fn traces(world: &mut World) -> Vec<Trace> {
    let trace = |(member, events): (u64, Vec<_>)| Trace {
        name: format!("member-{member}"),
        member,
        events: (1..).zip(events).collect(),
    };
    world.shared.traces.take().unwrap_or_default().into_iter().map(trace).collect()
}

/// What members did is a behaviour of Raft.
fn is_raft(world: &mut World, traces: &[Trace]) {
    let now = world.shared.queue.now();
    let mut words = Vec::new();
    // Each member has one trace, and memory takes all that is said.
    let held = traces::validate(traces).is_ok_and(|verdict| verdict.print(&mut words).is_ok() && verdict.holds());
    if !held {
        world.shared.canon.violate(now, String::from_utf8_lossy(&words).into_owned());
    }
}
