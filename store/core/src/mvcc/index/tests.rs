//! The index against a map of all versions.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::mvcc::in_range;
use seeded_bugs::assert_noticed;

/// What an index may get wrong.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Bug {
    /// What was replaced at the floor itself is still there.
    FloorIsEarly,
    /// A key whose last version is a deletion leaves that behind.
    KeepsDeletions,
    /// A key that is deleted counts as one that is there.
    CountsDeleted,
}

/// Every key with all its versions that collection left.
type Model = BTreeMap<Vec<u8>, Vec<Version>>;

fn key(number: u16) -> Bytes {
    format!("k{number:05}").into()
}

fn version(main: i64, is_deletion: bool) -> Version {
    Version { at: Revision { main, sub: 0 }, create: 1, version: i64::from(!is_deletion), lease: 0, value_bytes: 0 }
}

fn seen(versions: &[Version], revision: i64) -> Option<&Version> {
    versions.iter().rfind(|v| v.at.main <= revision).filter(|v| !v.is_deletion())
}

/// Collects in the model; returns the revisions that go.
fn collect(model: &mut Model, floor: i64, bug: Option<Bug>) -> Vec<Revision> {
    let mut gone = Vec::new();
    let floor = floor - i64::from(bug == Some(Bug::FloorIsEarly));
    for versions in model.values_mut() {
        let last = versions.iter().rfind(|v| v.at.main <= floor && bug == Some(Bug::KeepsDeletions));
        let visible = last.or_else(|| seen(versions, floor)).map(|v| v.at);
        versions.retain(|v| {
            let keep = v.at.main >= floor || Some(v.at) == visible;
            if !keep {
                gone.push(v.at);
            }
            keep
        });
    }
    model.retain(|_, versions| !versions.is_empty());
    gone
}

fn check_structure(index: &Index) {
    assert_eq!([index.alive.len(), index.newest.len()], [index.blocks.len(); 2]);
    assert_eq!(index.firsts.get(index.blocks.len()), None);
    let keys: Vec<&[u8]> = index.blocks.iter().flat_map(|block| block.keys.iter()).collect();
    assert!(keys.is_sorted_by(|a, b| a < b), "K1");
    for (at, block) in index.blocks.iter().enumerate() {
        assert!(
            (1..=KEYS_MAX).contains(&block.keys.len()) && block.keys.get(0) == index.firsts.get(at).as_deref(),
            "K1"
        );
        assert_eq!(block.entries.len(), block.keys.len());
        assert_eq!(index.alive[at] as usize, alive(&block.entries), "K2");
        assert!(block.entries.iter().all(|entry| entry.newest.at.main <= index.newest[at]), "K3");
    }
}

fn check_range(index: &Index, model: &Model, start: &[u8], end: &[u8], revision: i64) {
    let expected: Vec<(&[u8], Version)> = model
        .iter()
        .filter(|(key, _)| in_range(key, start, end))
        .filter_map(|(key, versions)| Some((key.as_slice(), *seen(versions, revision)?)))
        .collect();
    let found: Vec<(&[u8], Version)> = index.range(start, end, revision).map(|(k, v)| (k, *v)).collect();
    assert_eq!(found, expected, "{start:?}..{end:?} at {revision}");
    assert_eq!(index.count(start, end, revision), expected.len(), "{start:?}..{end:?} at {revision}");
}

/// What is done to an index, and looked for then.
#[derive(Debug, Clone)]
struct Case {
    spread: u16,
    in_order: bool,
    operations: Vec<(u16, u8)>,
    reads: Vec<(u16, u16, i64, u8)>,
}

fn case() -> impl Strategy<Value = Case> {
    // Few keys that are written often, or many; in order, or not.
    let spread = prop_oneof![Just(20u16), Just(700), Just(3000)];
    let operations = prop::collection::vec((any::<u16>(), 0..100u8), 1..2500);
    let reads = prop::collection::vec((any::<u16>(), any::<u16>(), 0..2600i64, 0..10u8), 30);
    (spread, any::<bool>(), operations, reads).prop_map(|(spread, in_order, operations, reads)| Case {
        spread,
        in_order,
        operations,
        reads,
    })
}

fn collect_all(index: &mut Index, floor: i64) -> Vec<Revision> {
    let (mut gone, mut from) = (Vec::new(), Some(Bytes::new()));
    while let Some(at) = from {
        let (more, next) = index.collect(&at, floor, 150);
        gone.extend(more);
        from = next;
    }
    gone
}

/// Writes to both; gives the floor of the last collection.
fn write(case: &Case, index: &mut Index, model: &mut Model, bug: Option<Bug>) -> Result<i64, TestCaseError> {
    let mut floor = 0;
    for (revision, (number, kind)) in (1i64..).zip(&case.operations) {
        let key = key(if case.in_order { revision as u16 } else { number % case.spread });
        let is_deletion = (0..25).contains(kind);
        if *kind == 99 {
            floor = revision - 1;
            prop_assert_eq!(collect_all(index, floor), collect(model, floor, bug));
            check_structure(index);
        }
        let versions = model.entry(key.to_vec()).or_default();
        if is_deletion && versions.last().is_none_or(Version::is_deletion) {
            // Only keys that are there are deleted.
            if versions.is_empty() {
                model.remove(&key[..]);
            }
            continue;
        }
        versions.push(version(revision, is_deletion));
        index.push(index.spot(&key), &key, version(revision, is_deletion));
        prop_assert_eq!(index.latest(&key), Some(&version(revision, is_deletion)));
    }
    Ok(floor)
}

fn is_a_map_of_versions(case: Case, bug: Option<Bug>) -> Result<(), TestCaseError> {
    let (mut index, mut model) = (Index::default(), Model::new());
    let floor = write(&case, &mut index, &mut model, bug)?;
    check_structure(&index);
    let is_there =
        |versions: &&Vec<Version>| bug == Some(Bug::CountsDeleted) || !versions[versions.len() - 1].is_deletion();
    prop_assert_eq!(index.alive(), model.values().filter(is_there).count());
    for (from, to, revision, kind) in case.reads {
        let (start, revision) = (key(from % case.spread), revision.max(floor));
        let end = match kind {
            0 => Bytes::new(),
            1 => Bytes::from_static(b"\0"),
            2 => key(from % case.spread / 2),
            _ => key(to % case.spread),
        };
        check_range(&index, &model, &start, &end, revision);
        check_range(&index, &model, &start, &end, case.operations.len() as i64);
        prop_assert_eq!(index.at(&start, revision), model.get(&start[..]).and_then(|v| seen(v, revision)));
    }
    check_range(&index, &model, b"\0", b"\0", floor.max(1));
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn the_index_is_a_map_of_versions(case in case()) {
        is_a_map_of_versions(case, None)?;
    }
}

/// A version that is collected too early, too late or never, and a key too many, are found.
#[test]
fn a_wrong_map_is_noticed() {
    let bugs = [Bug::FloorIsEarly, Bug::KeepsDeletions, Bug::CountsDeleted];
    assert_noticed(&bugs, &case(), is_a_map_of_versions);
}

#[test]
fn keys_between_full_blocks_do_not_make_blocks_of_one() {
    let mut index = Index::default();
    for number in (0..10_000u16).step_by(4).chain((1..10_000).step_by(4).rev()) {
        index.push(index.spot(&key(number)), &key(number), version(i64::from(number) + 1, false));
    }
    check_structure(&index);
    assert!(index.blocks.len() <= 5_000 / (KEYS_MAX / 2) + 1, "{} blocks", index.blocks.len());
}

/// Keys of few letters, so that many are equal for long, and one is often the beginning of another.
fn short_key() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop_oneof![Just(0u8), Just(b'a'), Just(b'b'), Just(255)], 1..14)
}

fn check_keys(keys: &Keys, model: &[Vec<u8>], probes: &[Vec<u8>]) {
    assert!(keys.iter().eq(model.iter().map(Vec::as_slice)), "P1");
    assert_eq!(keys.bytes(), model.iter().map(Vec::len).sum::<usize>());
    for probe in probes.iter().chain(model) {
        assert_eq!(keys.before(probe, false), model.partition_point(|key| key < probe), "{probe:?} in {model:?}");
        assert_eq!(keys.before(probe, true), model.partition_point(|key| key <= probe), "{probe:?} in {model:?}");
    }
}

/// First keys that come from behind, of which one becomes a lesser one for a while, and some go.
fn check_firsts(model: &[Vec<u8>], probes: &[Vec<u8>]) {
    let (mut firsts, mut keys) = (Firsts::default(), Vec::new());
    for key in model.iter().rev() {
        firsts.insert(0, key);
        keys.insert(0, key.clone());
        if keys.len() % 4 == 3 {
            firsts.remove(1);
            keys.remove(1);
        }
        let lesser = key[..key.len() - 1].to_vec();
        firsts.replace(0, &lesser);
        keys[0] = lesser;
        for probe in probes.iter().chain(model) {
            assert_eq!(firsts.before(probe, false), keys.partition_point(|key| key < probe), "{probe:?} in {keys:?}");
            assert_eq!(firsts.before(probe, true), keys.partition_point(|key| key <= probe), "{probe:?} in {keys:?}");
        }
        keys[0].clone_from(key);
        firsts.replace(0, key);
    }
}

proptest! {
    #[test]
    fn packed_keys_are_a_sorted_list(
        start in prop_oneof![Just(""), Just("/registry/pods/")],
        keys in prop::collection::vec(short_key(), 1..60),
        probes in prop::collection::vec(short_key(), 1..20),
        cut in any::<prop::sample::Index>(),
        kept in any::<u64>(),
    ) {
        let whole = |key: &Vec<u8>| [start.as_bytes(), key].concat();
        let probes: Vec<Vec<u8>> = probes.iter().cloned().chain(probes.iter().map(whole)).collect();
        let (mut packed, mut model) = (Keys::default(), Vec::new());
        for (number, key) in keys.iter().map(whole).enumerate() {
            match model.binary_search(&key) {
                Err(at) => {
                    packed.insert(at, &key);
                    model.insert(at, key);
                }
                Ok(at) if number % 3 == 0 => {
                    packed.retain(|other| other != at);
                    model.remove(at);
                }
                Ok(_) => {}
            }
            check_keys(&packed, &model, &probes);
        }
        check_firsts(&model, &probes);
        let at = cut.index(model.len() + 1);
        let (upper, upper_model) = (packed.split_off(at), model.split_off(at));
        check_keys(&packed, &model, &probes);
        check_keys(&upper, &upper_model, &probes);
        packed.append(&upper);
        model.extend(upper_model);
        check_keys(&packed, &model, &probes);
        packed.retain(|at| kept >> (at % 64) & 1 == 1);
        let mut places = 0..;
        model.retain(|_| places.next().is_some_and(|at| kept >> (at % 64) & 1 == 1));
        check_keys(&packed, &model, &probes);
    }
}

#[test]
fn long_keys_do_not_make_large_blocks() {
    let mut index = Index::default();
    for number in 0..200u16 {
        let key = [&key(number % 20 * 10 + number / 20), &vec![b'x'; BYTES_MAX / 3][..]].concat();
        index.push(index.spot(&key), &key, version(i64::from(number) + 1, false));
    }
    check_structure(&index);
    assert!(index.blocks.iter().all(|block| block.keys.bytes() <= BYTES_MAX * 4 / 3));
}
