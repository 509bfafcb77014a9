//! The parts of the spread that whole decisions don't show.

use super::*;
use crate::scenario::{pod, run};

/// Values of Go's `math.Log`, bit for bit.
#[test]
fn the_logarithm_is_gos() {
    let cases = [(2.0, std::f64::consts::LN_2), (4.0, 2.0 * std::f64::consts::LN_2)];
    for (x, expected) in cases {
        assert_eq!(ln(x), expected, "{x}");
    }
    for n in 2..100_000_u32 {
        let x = f64::from(n);
        // Both are within one unit in the last place of the true value.
        assert!((ln(x) - x.ln()).abs() <= 4.0 * f64::EPSILON * x.ln(), "{x}");
    }
}

/// An empty selector counts no pod, and yet the pod itself matches it: nothing is ever uneven but by the pod.
#[test]
fn an_empty_selector_counts_none() {
    let mut cluster = Cluster::new();
    run(&mut cluster, "node a label.zone=a\n pod x a label.app=x\n pod y a label.app=x");
    let mut wire = pod(&["p", "label.app=x", "spread=zone:1:hard:app=x"]);
    let spread = |wire: &k8s_openapi::api::core::v1::Pod| {
        let incoming = Incoming::read(wire).unwrap();
        let spread = Spread::count(&cluster, &incoming);
        let node = cluster.node("a").unwrap();
        (spread.hard[0].1["a"], spread.fits(&incoming, node))
    };
    // One domain only: it is the fewest as well.
    assert_eq!(spread(&wire), (2, Ok(())));
    let constraint = |wire: &mut k8s_openapi::api::core::v1::Pod, selector: Option<LabelSelector>, domains| {
        let constraint = &mut wire.spec.as_mut().unwrap().topology_spread_constraints.as_mut().unwrap()[0];
        constraint.label_selector = selector;
        constraint.min_domains = domains;
    };
    constraint(&mut wire, Some(LabelSelector::default()), None);
    assert_eq!(spread(&wire), (0, Ok(())));
    // Fewer domains than wanted: the fewest counts as none.
    constraint(
        &mut wire,
        Some(LabelSelector {
            match_labels: Some([("app".to_owned(), "x".to_owned())].into()),
            ..LabelSelector::default()
        }),
        Some(2),
    );
    assert_eq!(spread(&wire), (2, Err(Unfit::Skew)));
    constraint(&mut wire, None, None);
    assert_eq!(spread(&wire), (0, Ok(())));
}

/// Taking pods away changes the count of their domain only.
#[test]
fn without_some_pods() {
    let mut cluster = Cluster::new();
    run(
        &mut cluster,
        "node a label.zone=a
         node b label.zone=b
         pod x a label.app=x
         pod y a label.app=y",
    );
    let incoming = Incoming::read(&pod(&["p", "spread=zone:1:hard:app=x"])).unwrap();
    let spread = Spread::count(&cluster, &incoming);
    let node = cluster.node("a").unwrap();
    let less = spread.without(node.pods(), node, &incoming);
    assert_eq!((spread.hard[0].1["a"], less.hard[0].1["a"], less.hard[0].1["b"]), (1, 0, 0));
}

#[test]
fn defaults_join_services_and_owner() {
    let labels = |text: &str| Labels::from([(text.to_owned(), "1".to_owned())]);
    let own = LabelSelector { match_labels: Some(labels("c")), ..LabelSelector::default() };
    let joined = SpreadDefaults::of([&labels("a"), &labels("b")], Some(OwnerSelector::Selector(&own)));
    let all: Labels = [labels("a"), labels("b"), labels("c")].into_iter().flatten().collect();
    assert!(joined.0.matches(&all) && !joined.0.matches(&labels("c")));
    assert!(SpreadDefaults::of([], None).constraints().is_empty());
    assert_eq!(SpreadDefaults::of([], Some(OwnerSelector::Labels(&labels("a")))).constraints().len(), 2);
}
