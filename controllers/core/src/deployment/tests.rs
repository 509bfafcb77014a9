use super::*;
use serde_json::from_value;

fn deployment(spec: Value) -> Arc<Deployment> {
    let mut object = json!({"metadata": {"name": "web", "namespace": "a", "uid": "d", "generation": 1}, "spec": {
        "replicas": 4, "selector": {"matchLabels": {"app": "web"}},
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 1}},
        "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "i:2"}]}}}});
    for (key, value) in spec.as_object().into_iter().flatten() {
        object["spec"][key] = value.clone();
    }
    Arc::new(from_value(object).expect("a Deployment"))
}

/// The simulated world: sets appear, pods become available at once.
struct World {
    deployment: Arc<Deployment>,
    sets: Vec<Arc<ReplicaSet>>,
    made: usize,
}

impl World {
    fn new(deployment: Arc<Deployment>) -> Self {
        Self { deployment, sets: Vec::new(), made: 0 }
    }

    fn writes(&self) -> Vec<Write> {
        reconcile(&Observed {
            deployment: self.deployment.clone(),
            sets: self.sets.clone(),
            pods_remain: Vec::new(),
            now: "2026-01-01T00:00:00Z".into(),
            unix: 1_767_225_600,
        })
    }

    fn apply(&mut self, write: &Write) {
        match write {
            Write::Create(object) => {
                let mut set: ReplicaSet = from_value(object.clone()).expect("a ReplicaSet");
                self.made += 1;
                set.metadata.uid = Some(format!("rs{}", self.made));
                set.metadata.creation_timestamp = format!("2026-01-01T00:00:{:02}Z", self.made)
                    .parse()
                    .ok()
                    .map(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time);
                self.sets.push(Arc::new(set));
            }
            Write::Patch(target, patch) if target.kind == "ReplicaSet" => {
                for set in self.sets.iter_mut().filter(|s| s.metadata.name.as_ref() == Some(&target.name)) {
                    let mut tree = json(&**set);
                    merge(&mut tree, patch);
                    *set = Arc::new(from_value(tree).expect("a ReplicaSet"));
                }
            }
            Write::Patch(_, patch) => {
                let mut tree = json(&*self.deployment);
                merge(&mut tree, patch);
                self.deployment = Arc::new(from_value(tree).expect("a Deployment"));
            }
            Write::UpdateStatus(object) => {
                self.deployment = Arc::new(from_value(object.clone()).expect("a Deployment"))
            }
            Write::Delete(target, ..) => self.sets.retain(|s| s.metadata.name.as_ref() != Some(&target.name)),
            other => panic!("unexpected {other:?}"),
        }
    }

    /// Every set gets the pods it asks for; those of images in `broken` never become available.
    fn settle(&mut self, broken: &str) {
        for set in &mut self.sets {
            let mut tree = json(&**set);
            let replicas = tree["spec"]["replicas"].as_i64().unwrap_or(0);
            let image = tree.pointer("/spec/template/spec/containers/0/image").and_then(Value::as_str).unwrap_or("");
            let up = if image == broken { 0 } else { replicas };
            tree["status"] = json!({"replicas": replicas, "readyReplicas": up, "availableReplicas": up});
            *set = Arc::new(from_value(tree).expect("a ReplicaSet"));
        }
    }

    fn sizes(&self) -> Vec<i32> {
        self.sets.iter().map(|s| replicas(s)).collect()
    }

    /// Runs until nothing is written; checks D1 and D2 at each step.
    fn run(&mut self, broken: &str) -> Vec<Vec<i32>> {
        let mut steps = Vec::new();
        for _ in 0..50 {
            let writes = self.writes();
            if writes.is_empty() {
                return steps;
            }
            for write in &writes {
                self.apply(write);
            }
            if steps.last() != Some(&self.sizes()) {
                steps.push(self.sizes());
            }
            let (surge, unavailable) = bounds(&self.deployment);
            let wanted = self.deployment.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1);
            assert!(self.sizes().iter().sum::<i32>() <= wanted + surge, "D1: {steps:?}");
            let before: i32 = self.sets.iter().map(|s| available(s).min(replicas(s))).sum();
            let was: i32 = self.sets.iter().map(|s| available(s)).sum();
            assert!(before >= (wanted - unavailable).min(was), "D2: {steps:?}");
            self.settle(broken);
        }
        panic!("no rest after 50 steps: {steps:?}");
    }
}

fn merge(target: &mut Value, patch: &Value) {
    api::merge::merge_patch(target, patch);
}

#[test]
fn a_first_rollout_goes_straight_up() {
    let mut world = World::new(deployment(json!({})));
    assert_eq!(world.run(""), [[4]]);
    let status = world.deployment.status.clone().expect("status");
    assert_eq!(status.available_replicas, Some(4));
    let progressing = existing_reason(&world, "Progressing");
    assert_eq!(progressing, "NewReplicaSetAvailable");
}

fn existing_reason(world: &World, ty: &str) -> String {
    let conditions = world.deployment.status.clone().and_then(|s| s.conditions).unwrap_or_default();
    conditions.iter().find(|c| c.type_ == ty).and_then(|c| c.reason.clone()).unwrap_or_default()
}

#[test]
fn a_rollout_moves_within_its_bounds() {
    let mut world = World::new(deployment(json!({})));
    world.run("");
    let mut tree = json(&*world.deployment);
    tree["spec"]["template"]["spec"]["containers"][0]["image"] = "i:3".into();
    world.deployment = Arc::new(from_value(tree).expect("a Deployment"));
    let steps = world.run("");
    assert_eq!(steps.last(), Some(&vec![0, 4]), "{steps:?}");
    assert_eq!(
        world.deployment.metadata.annotations.as_ref().and_then(|a| a.get(REVISION)).map(String::as_str),
        Some("2")
    );
}

#[test]
fn a_broken_image_stops_the_rollout_with_most_pods_serving() {
    let mut world = World::new(deployment(json!({})));
    world.run("");
    let mut tree = json(&*world.deployment);
    tree["spec"]["template"]["spec"]["containers"][0]["image"] = "broken".into();
    world.deployment = Arc::new(from_value(tree).expect("a Deployment"));
    let steps = world.run("broken");
    assert_eq!(steps.last(), Some(&vec![3, 2]), "{steps:?}");
}

#[test]
fn an_undo_reuses_the_old_set_under_a_new_revision() {
    let mut world = World::new(deployment(json!({})));
    world.run("");
    let original = world.deployment.spec.clone();
    let mut tree = json(&*world.deployment);
    tree["spec"]["template"]["spec"]["containers"][0]["image"] = "i:3".into();
    world.deployment = Arc::new(from_value(tree).expect("a Deployment"));
    world.run("");
    let mut back = Deployment::clone(&world.deployment);
    back.spec = original;
    world.deployment = Arc::new(back);
    let steps = world.run("");
    assert_eq!(steps.last(), Some(&vec![4, 0]), "{steps:?}");
    assert_eq!(revision(world.deployment.metadata.annotations.as_ref()), 3);
}

#[test]
fn percentages_round_surge_up_and_unavailable_down() {
    let ten = |v: &str| IntOrString::String(v.to_owned());
    assert_eq!(scaled(Some(&ten("25%")), 10, true), 3);
    assert_eq!(scaled(Some(&ten("25%")), 10, false), 2);
    let still =
        deployment(json!({"replicas": 1, "strategy": {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": "0%"}}}));
    assert_eq!(bounds(&still), (0, 1));
}
