//! The queue against a naive model: a list of pods that each step looks through.

use proptest::prelude::*;

use super::*;
use seeded_bugs::assert_noticed;

const MS: u64 = 400;

#[derive(Debug, Clone)]
struct Pod {
    uid: String,
    priority: i32,
    since: u64,
    turn: u64,
    failures: u32,
    place: Place,
}

/// What a queue may get wrong.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Bug {
    /// Of two with the same priority, the later goes first.
    LaterGoesFirst,
    /// What happened during a flight doesn't count.
    ForgetsWhatWasMissed,
    /// Who waits after an error is taken early as well.
    ErrorsArePatient,
}

/// Places as the queue has them, without any of its indexes.
#[derive(Debug, Default)]
struct Naive {
    pods: Vec<Pod>,
    turns: u64,
    bug: Option<Bug>,
}

impl Naive {
    fn pod(&mut self, uid: &str) -> Option<&mut Pod> {
        self.pods.iter_mut().find(|pod| pod.uid == uid)
    }

    fn activate(&mut self, uid: &str, now: u64) {
        self.turns += 1;
        let turn = self.turns;
        let pod = self.pod(uid).expect("it is there");
        (pod.since, pod.turn, pod.place) = (now, turn, Place::Active);
    }

    fn requeue(&mut self, uid: &str, now: u64) {
        let pod = self.pod(uid).expect("it is there");
        let until = pod.since + pause_ms(pod.failures);
        if until > now {
            pod.place = Place::Backoff { until, error: false };
        } else {
            self.activate(uid, now);
        }
    }

    fn add(&mut self, uid: &str, priority: i32, now: u64) {
        match self.pod(uid) {
            None => {
                let place = Place::Active;
                self.pods.push(Pod { uid: uid.to_owned(), priority, since: now, turn: 0, failures: 0, place });
                self.activate(uid, now);
            }
            Some(pod) => {
                pod.priority = priority;
                match &mut pod.place {
                    Place::InFlight(missed) => missed.push(Happening::PodChanged),
                    Place::Parked(_) => self.requeue(uid, now),
                    Place::Active | Place::Backoff { .. } => {}
                }
            }
        }
    }

    /// Pods in a place, with that by which they go.
    fn by<K: Ord>(&self, key: impl Fn(&Pod) -> Option<K>) -> Vec<String> {
        let mut found: Vec<(K, String)> = self.pods.iter().filter_map(|p| Some((key(p)?, p.uid.clone()))).collect();
        found.sort();
        found.into_iter().map(|(_, uid)| uid).collect()
    }

    fn take(&mut self, now: u64) -> Option<String> {
        let due = self.by(|pod| match pod.place {
            Place::Backoff { until, .. } if until <= now => Some((until, pod.uid.clone())),
            _ => None,
        });
        due.iter().for_each(|uid| self.activate(uid, now));
        let later = self.bug == Some(Bug::LaterGoesFirst);
        let age = |number: u64| if later { u64::MAX - number } else { number };
        let rank = |pod: &Pod| (Reverse(pod.priority), age(pod.since), age(pod.turn));
        let active = self.by(|pod| (pod.place == Place::Active).then(|| rank(pod)));
        let errors = self.bug == Some(Bug::ErrorsArePatient);
        let patient = self.by(|pod| match pod.place {
            Place::Backoff { until, error } if !error || errors => Some((until, pod.uid.clone())),
            _ => None,
        });
        let uid = active.into_iter().chain(patient).next()?;
        self.pod(&uid)?.place = Place::InFlight(Vec::new());
        Some(uid)
    }

    /// The pod is back from its flight, in vain: what it missed.
    fn land(&mut self, uid: &str, now: u64) -> Option<Vec<Happening>> {
        let pod = self.pod(uid)?;
        let Place::InFlight(missed) = &pod.place else { return None };
        let missed = missed.clone();
        (pod.failures, pod.since) = (pod.failures + 1, now);
        Some(missed)
    }

    fn rejected(&mut self, uid: &str, waits_for: WaitsFor, now: u64) {
        let Some(missed) = self.land(uid, now) else { return };
        let again = self.bug != Some(Bug::ForgetsWhatWasMissed)
            && missed.iter().any(|happening| waits_for.helped_by(*happening));
        self.pod(uid).expect("it landed").place = Place::Parked(waits_for);
        if again {
            self.requeue(uid, now);
        }
    }

    fn failed(&mut self, uid: &str, now: u64) {
        if self.land(uid, now).is_some() {
            let pod = self.pod(uid).expect("it landed");
            pod.place = Place::Backoff { until: now + pause_ms(pod.failures), error: true };
        }
    }

    fn happened(&mut self, happening: Happening, now: u64) {
        for pod in &mut self.pods {
            if let Place::InFlight(missed) = &mut pod.place {
                missed.push(happening);
            }
        }
        let helped = self.by(|pod| match &pod.place {
            Place::Parked(waits_for) if waits_for.helped_by(happening) => Some(pod.turn),
            _ => None,
        });
        helped.iter().for_each(|uid| self.requeue(uid, now));
    }

    fn flush(&mut self, now: u64) {
        let old = self.by(|pod| match &pod.place {
            Place::Parked(_) if now - pod.since > PARKED_MAX_MS => Some(pod.uid.clone()),
            _ => None,
        });
        old.iter().for_each(|uid| self.requeue(uid, now));
    }
}

#[derive(Debug, Clone)]
enum Step {
    Add(u8, i32),
    Remove(u8),
    Take,
    Rejected(u8, &'static str),
    Failed(u8),
    Again(u8),
    Happened(&'static str),
    Flush,
}

/// Each with how many times 400 ms pass before it.
fn step() -> impl Strategy<Value = (u64, Step)> {
    let uid = || 0..6_u8;
    let step = prop_oneof![
        4 => (uid(), 0..3_i32).prop_map(|(uid, priority)| Step::Add(uid, priority)),
        1 => uid().prop_map(Step::Remove),
        6 => Just(Step::Take),
        4 => (uid(), prop::sample::select(vec!["itself", "fit", "taint", "spread", "node"]))
            .prop_map(|(uid, plugins)| Step::Rejected(uid, plugins)),
        2 => uid().prop_map(Step::Failed),
        1 => uid().prop_map(Step::Again),
        3 => prop::sample::select(vec!["node-added", "node-tainted", "node-grown", "pod-placed", "pod-removed"])
            .prop_map(Step::Happened),
        1 => Just(Step::Flush),
    ];
    (prop_oneof![8 => 0..6_u64, 1 => Just(PARKED_MAX_MS / MS + 1)], step)
}

fn name(uid: u8) -> String {
    format!("p{uid}")
}

/// Does the same to both.
fn take_step(queue: &mut Queue, naive: &mut Naive, step: &Step, now: u64) -> Result<(), TestCaseError> {
    match *step {
        Step::Add(uid, priority) => {
            queue.add(&name(uid), priority, now);
            naive.add(&name(uid), priority, now);
        }
        Step::Remove(uid) => {
            queue.remove(&name(uid));
            naive.pods.retain(|pod| pod.uid != name(uid));
        }
        Step::Take => prop_assert_eq!(queue.take(now), naive.take(now)),
        Step::Rejected(uid, plugins) => {
            queue.rejected(&name(uid), waits_for(plugins), now);
            naive.rejected(&name(uid), waits_for(plugins), now);
        }
        Step::Failed(uid) => {
            queue.failed(&name(uid), now);
            naive.failed(&name(uid), now);
        }
        Step::Again(uid) => {
            queue.again(&name(uid), now);
            if matches!(naive.pod(&name(uid)), Some(Pod { place: Place::InFlight(_), .. })) {
                naive.activate(&name(uid), now);
            }
        }
        Step::Happened(what) => {
            queue.happened(happening(what), now);
            naive.happened(happening(what), now);
        }
        Step::Flush => {
            queue.flush(now);
            naive.flush(now);
        }
    }
    Ok(())
}

fn is_a_list(steps: Vec<(u64, Step)>, bug: Option<Bug>) -> Result<(), TestCaseError> {
    let (mut queue, mut naive, mut now) = (Queue::default(), Naive { bug, ..Naive::default() }, 0);
    for (pause, step) in steps {
        now += pause * MS;
        take_step(&mut queue, &mut naive, &step, now)?;
        one_place_each(&queue);
        prop_assert_eq!(queue.len(), naive.pods.len());
        let due = naive.pods.iter().filter_map(|pod| match pod.place {
            Place::Backoff { until, .. } => Some(until),
            _ => None,
        });
        prop_assert_eq!(queue.next_due(), due.min());
    }
    Ok(())
}

proptest! {
    /// Q1–Q3: whatever happens, the same pod comes next, and the same pauses end.
    #[test]
    fn the_queue_is_a_list_that_is_looked_through(steps in prop::collection::vec(step(), 0..120)) {
        is_a_list(steps, None)?;
    }
}

/// A list in another order, or that forgets what happened, is found.
#[test]
fn a_wrong_list_is_noticed() {
    let bugs = [Bug::LaterGoesFirst, Bug::ForgetsWhatWasMissed, Bug::ErrorsArePatient];
    assert_noticed(&bugs, &prop::collection::vec(step(), 0..120), is_a_list);
}
