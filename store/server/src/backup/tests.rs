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
fn every_flipped_bit_and_every_cut_is_found() {
    let (dir, file) = backup();
    let whole = std::fs::read(&file).expect("a file");
    let step = whole.len() / 60;
    for (round, at) in (0..whole.len()).step_by(step).enumerate() {
        let mut flipped = whole.clone();
        flipped[at] ^= 1 << (round % 8);
        std::fs::write(&file, &flipped).expect("written");
        assert!(unpacked(&dir, &file, &format!("flipped-{at}")).is_err(), "a bit at {at}");
        std::fs::write(&file, &whole[..at]).expect("written");
        assert!(unpacked(&dir, &file, &format!("cut-{at}")).is_err(), "cut at {at}");
    }
    std::fs::write(&file, "a bbolt file").expect("written");
    assert!(matches!(unpacked(&dir, &file, "foreign"), Err(BackupError::Foreign(_))));
}
