use super::*;

fn header() -> BackupHeader {
    BackupHeader { cluster_id: 7, revision: 12, keys: 3, ..BackupHeader::default() }
}

/// A backup of two files in a folder of its own.
fn backup() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("a folder");
    let copy = dir.path().join("copy");
    std::fs::create_dir(&copy).expect("a folder");
    std::fs::write(copy.join("000012.sst"), vec![5; 300_000]).expect("written");
    std::fs::write(copy.join("CURRENT"), "MANIFEST-1").expect("written");
    let plan = Plan::of(&copy, &header()).expect("a plan");
    let mut bytes = Vec::new();
    plan.write(&mut bytes).expect("written");
    assert_eq!(bytes.len() as u64, plan.size());
    let file = dir.path().join("backup");
    std::fs::write(&file, bytes).expect("written");
    (dir, file)
}

fn unpacked(dir: &tempfile::TempDir, file: &Path, name: &str) -> Result<BackupHeader, BackupError> {
    let folder = dir.path().join(name);
    std::fs::create_dir(&folder).expect("a folder");
    unpack(file, &folder)
}

#[test]
fn what_was_packed_is_unpacked() {
    let (dir, file) = backup();
    assert_eq!(unpacked(&dir, &file, "to").expect("whole"), header());
    for name in ["000012.sst", "CURRENT"] {
        let read = |folder: &str| std::fs::read(dir.path().join(folder).join(name)).expect("a file");
        assert_eq!(read("copy"), read("to"));
    }
    assert_eq!(std::fs::metadata(&file).expect("a file").len() % 512, 32, "as etcdctl wants it");
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    let (dir, file) = backup();
    let mut bytes = std::fs::read(&file).expect("a file");
    let end = bytes.len() - 1;
    bytes[end] ^= 1;
    std::fs::write(&file, &bytes).expect("written");
    let error = unpacked(&dir, &file, "flipped").expect_err("damaged");
    assert!(matches!(&error, BackupError::Damaged { offset, .. } if *offset == bytes.len() as u64), "{error}");
    assert!(error.to_string().starts_with(&file.display().to_string()), "{error}");
    std::fs::write(&file, "a bbolt file").expect("written");
    assert!(matches!(unpacked(&dir, &file, "foreign"), Err(BackupError::Foreign(_))));
}

#[test]
fn nothing_is_written_over() {
    let (dir, file) = backup();
    let folder = dir.path().join("occupied");
    std::fs::create_dir(&folder).expect("a folder");
    std::fs::write(folder.join("CURRENT"), "mine").expect("written");
    assert!(matches!(unpack(&file, &folder), Err(BackupError::Io { .. })));
    assert_eq!(std::fs::read(folder.join("CURRENT")).expect("a file"), b"mine");
}
