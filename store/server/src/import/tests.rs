//! An import's file, without a source.

use super::*;

fn put(key: &'static str, create: i64, at: i64, version: i64, lease: i64) -> KeyValue {
    let value = format!("{key} at {at}").into();
    KeyValue { key: key.into(), value, create_revision: create, mod_revision: at, version, lease }
}

fn deleted(key: &'static str, at: i64) -> KeyValue {
    KeyValue { key: key.into(), mod_revision: at, ..KeyValue::default() }
}

fn begun(file: &Path) -> Import {
    let mut import = Import::open(file).expect("opened");
    import.begin(7, 5).expect("begun");
    import.page(vec![put("forgotten", 5, 5, 1, 3)], true).expect("taken");
    import.leases(&[(3, 30)]).expect("taken");
    // The source compacted what was being read.
    import.begin(7, 10).expect("begun anew");
    import
}

/// Everything that a state holds from the pinned revision on, in order.
fn held(file: &Path, dir: &tempfile::TempDir) -> (Vec<KeyValue>, i64, i64, Vec<(i64, i64)>) {
    let generation = dir.path().join("restored/1");
    std::fs::create_dir_all(&generation).expect("a folder");
    crate::backup::unpack(file, &generation).expect("unpacked");
    let state = State::open(&dir.path().join("restored")).expect("opened");
    let mut changes = Vec::new();
    let taken = state.each_change(0, i64::MAX, |_, kv, value| {
        let value = if kv.version == 0 { Default::default() } else { value()? };
        changes.push(KeyValue { value, ..kv });
        Ok(true)
    });
    assert_eq!(taken, Ok(true));
    let mvcc = state.read();
    let leases = mvcc.lease_times().map(|(id, ttl, _)| (id, ttl)).collect();
    (changes, mvcc.revision(), mvcc.compacted(), leases)
}

/// Keys of one revision may come on different pages; deletions at the pinned revision come with the changes.
#[test]
fn pages_and_changes_become_one_state() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("backup");
    let mut import = begun(&file);
    import.page(vec![put("a", 3, 9, 4, 0), put("b", 10, 10, 1, 5)], true).expect("taken");
    assert_eq!(import.progress().next_key, "b\0");
    import.page(vec![put("c", 2, 9, 2, 0)], false).expect("taken");
    import.changes(vec![put("b", 10, 10, 1, 5), deleted("x", 10), put("d", 11, 11, 1, 6)]).expect("taken");
    // A watch that was opened again tells some of it again.
    import.changes(vec![put("d", 11, 11, 1, 6), deleted("a", 12)]).expect("taken");
    import.leases(&[(5, 60), (6, 70), (8, 80)]).expect("taken");
    assert_eq!(import.unknown_leases(&[5, 9].into()).expect("known"), [9]);
    let header = import.finish(&[3, 5, 6].into(), 3).expect("a file");
    assert_eq!((header.cluster_id, header.revision, header.keys), (7, 12, 3));
    let expected = vec![
        put("a", 3, 9, 4, 0),
        put("c", 2, 9, 2, 0),
        put("b", 10, 10, 1, 5),
        deleted("x", 10),
        put("d", 11, 11, 1, 6),
        deleted("a", 12),
    ];
    assert_eq!(held(&file, &dir), (expected, 12, 10, vec![(5, 60), (6, 70)]));
    assert!(!dir.path().join("backup.import").exists());
}

/// I1.
#[test]
fn what_was_durable_is_gone_on_with() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("backup");
    let mut import = begun(&file);
    import.page(vec![put("a", 3, 9, 4, 0)], true).expect("taken");
    import.flush().expect("durable");
    let known = import.progress().clone();
    drop(import);
    let import = Import::open(&file).expect("opened");
    assert_eq!((import.progress(), import.progress().keys), (&known, 1));
    import.check_source(7).expect("the same");
    assert!(matches!(import.check_source(8), Err(ImportError::OtherSource { held: 7, asked: 8, .. })));
}

/// I2.
#[test]
fn keys_that_are_missing_are_noticed() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("backup");
    let mut import = begun(&file);
    import.page(vec![put("a", 3, 9, 4, 0)], false).expect("taken");
    let refused = import.finish(&BTreeSet::new(), 2);
    assert!(matches!(refused, Err(ImportError::Miscounted { found: 1, expected: 2, .. })));
    assert!(!file.exists());
}

#[test]
fn a_file_is_never_overwritten() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("backup");
    std::fs::write(&file, "precious").expect("written");
    let refused = Import::open(&file).map(|_| ()).expect_err("refused");
    assert!(refused.to_string().contains("is there already"), "{refused}");
}
