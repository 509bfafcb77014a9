//! Text cases: taints and tolerations as `key operator value effect`.

use super::*;
use expect_test::expect;

fn taint(text: &str) -> Taint {
    let parts: Vec<&str> = text.split(' ').collect();
    Taint { key: parts[0].to_owned(), value: parts[1].to_owned(), effect: parts[2].to_owned() }
}

fn toleration(text: &str) -> Toleration {
    let parts: Vec<String> = text.split(' ').map(|part| part.replace('_', "")).collect();
    Toleration { key: parts[0].clone(), operator: parts[1].clone(), value: parts[2].clone(), effect: parts[3].clone() }
}

#[test]
fn tolerations_meet_taints() {
    let mut out = String::new();
    for (taints, tolerations) in [
        (&["a x NoSchedule"][..], &[][..]),
        (&["a x NoSchedule"], &["a Equal x NoSchedule"]),
        (&["a x NoSchedule"], &["a _ x _"]),
        (&["a x NoSchedule"], &["a Equal y _"]),
        (&["a x NoSchedule"], &["_ Exists _ _"]),
        (&["a x NoSchedule"], &["a Exists _ NoExecute"]),
        (&["a x NoExecute", "b x NoSchedule"], &["a Exists _ _"]),
        (&["a x NoSchedule"], &["a Near x _"]),
        (&["a x PreferNoSchedule", "b x PreferNoSchedule"], &["a Exists _ NoSchedule"]),
        (&["a x PreferNoSchedule", "b x PreferNoSchedule"], &["a Exists _ PreferNoSchedule"]),
        (&["a x PreferNoSchedule"], &["_ Exists _ _"]),
        (&["node.kubernetes.io/unschedulable  NoSchedule"], &["node.kubernetes.io/unschedulable Exists _ NoSchedule"]),
    ] {
        let has: Vec<Taint> = taints.iter().map(|t| taint(t)).collect();
        let bears: Vec<Toleration> = tolerations.iter().map(|t| toleration(t)).collect();
        out.push_str(&format!(
            "{taints:?} {tolerations:?}: tolerated {} unwelcome {} unschedulable {}\n",
            tolerated(&has, &bears),
            unwelcome(&has, &bears),
            tolerates_unschedulable(&bears)
        ));
    }
    expect![[r#"
        ["a x NoSchedule"] []: tolerated false unwelcome 0 unschedulable false
        ["a x NoSchedule"] ["a Equal x NoSchedule"]: tolerated true unwelcome 0 unschedulable false
        ["a x NoSchedule"] ["a _ x _"]: tolerated true unwelcome 0 unschedulable false
        ["a x NoSchedule"] ["a Equal y _"]: tolerated false unwelcome 0 unschedulable false
        ["a x NoSchedule"] ["_ Exists _ _"]: tolerated true unwelcome 0 unschedulable true
        ["a x NoSchedule"] ["a Exists _ NoExecute"]: tolerated false unwelcome 0 unschedulable false
        ["a x NoExecute", "b x NoSchedule"] ["a Exists _ _"]: tolerated false unwelcome 0 unschedulable false
        ["a x NoSchedule"] ["a Near x _"]: tolerated false unwelcome 0 unschedulable false
        ["a x PreferNoSchedule", "b x PreferNoSchedule"] ["a Exists _ NoSchedule"]: tolerated true unwelcome 2 unschedulable false
        ["a x PreferNoSchedule", "b x PreferNoSchedule"] ["a Exists _ PreferNoSchedule"]: tolerated true unwelcome 1 unschedulable false
        ["a x PreferNoSchedule"] ["_ Exists _ _"]: tolerated true unwelcome 0 unschedulable true
        ["node.kubernetes.io/unschedulable  NoSchedule"] ["node.kubernetes.io/unschedulable Exists _ NoSchedule"]: tolerated true unwelcome 0 unschedulable true
    "#]].assert_eq(&out);
}
