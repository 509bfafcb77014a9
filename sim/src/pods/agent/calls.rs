//! An agent's calls to its runtime: they take their time, fail, lose their answers, and go on when the agent is gone.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use agent_core::runtime::{Action, Outcome};
use apiserver_core::options::DeleteOptions;
use k8s_openapi::api::core::v1::Pod;

use super::super::apiserver::Place;
use super::super::client::Client;
use super::super::machine::Machine;
use super::super::objects::Kind;
use super::super::tasks::Slot;
use crate::mutant::Mutant;
use crate::queue::{MS, SECOND};

fn failed(why: &str) -> Outcome {
    Outcome::failed("RuntimeError", why)
}

/// Carries an action out.
pub(super) async fn perform(
    client: &Client,
    machine: &Rc<RefCell<Machine>>,
    pod: &Arc<Pod>,
    action: &Action,
) -> Outcome {
    match action {
        Action::DeleteObject => delete(client, pod).await,
        Action::PrepareVolumes | Action::EnsureImage { .. } | Action::CleanUp | Action::Probe { .. } => {
            let wait = client.sim.below(20 * MS);
            client.sim.sleep(wait).await;
            if client.sim.breaks_once_in(200) { failed("it failed") } else { Outcome::Done }
        }
        _ => call(client, machine, pod, action).await,
    }
}

async fn call(client: &Client, machine: &Rc<RefCell<Machine>>, pod: &Arc<Pod>, action: &Action) -> Outcome {
    let sim = &client.sim;
    let time = match action {
        Action::RunSandbox { .. } => sim.between(20 * MS, 300 * MS),
        Action::StopContainer { grace_seconds, .. } => sim.below(grace_seconds.unsigned_abs() * SECOND + 1),
        _ => sim.between(MS, 50 * MS),
    };
    if sim.breaks_once_in(100) {
        sim.sleep(time).await;
        return failed("it failed");
    }
    // Nobody may wait for it any more: it takes effect all the same, later perhaps, or never.
    let is_lost = sim.breaks_once_in(150);
    let late = if is_lost { sim.below(3 * SECOND) } else { 0 };
    let slot = Slot::default();
    if !(is_lost && sim.once_in(3)) {
        let (machine, pod, action, filled) = (machine.clone(), pod.clone(), action.clone(), slot.clone());
        sim.later(time + late, move || {
            let text = |text: &Option<String>| text.clone().unwrap_or_default();
            let meta = &pod.metadata;
            let (namespace, name, uid) = (text(&meta.namespace), text(&meta.name), text(&meta.uid));
            let done = machine.borrow_mut().carry_out((&namespace, &name, &uid), &action);
            filled.fill(done.map_or_else(|_| failed("it was refused"), |()| Outcome::Done));
        });
    }
    if is_lost {
        sim.sleep(time).await;
        return failed("the runtime doesn't answer");
    }
    slot.wait().await
}

/// Deletes the pod object for good; one that is another's by now stays.
async fn delete(client: &Client, pod: &Pod) -> Outcome {
    let meta = &pod.metadata;
    let uid = meta.uid.clone().filter(|_| !client.sim.has(Mutant::DeleteWithoutUid));
    let options = DeleteOptions { grace_period_seconds: Some(0), uid, ..DeleteOptions::default() };
    let place = Place::new(Kind::Pod, meta.namespace.as_deref().unwrap_or(""), meta.name.as_deref().unwrap_or(""));
    match client.delete(place, options).await {
        Err(failure) if !failure.is(404) && !failure.is(409) => failed("the API doesn't answer"),
        Err(_) => Outcome::Done,
        Ok(hit) => {
            client.is_meant(&hit, meta.uid.as_deref().unwrap_or(""));
            Outcome::Done
        }
    }
}
