use store_core::auth::{Access, Asker};
use store_core::mvcc::Answer;
use store_core::wire::auth_change::Change as AuthRequest;
use store_core::wire::command::Request;
use store_core::wire::{
    AuthChange, AuthEnableRequest, AuthRoleAddRequest, AuthRoleGrantPermissionRequest, AuthUserAddRequest,
    AuthUserDeleteRequest, AuthUserGrantRoleRequest, CompactionRequest, LeaseGrantRequest, Permission, PutRequest,
    RangeRequest, TokenAssign,
};
use tempfile::TempDir;

use super::*;
use store_core::wire::Command;

/// A state in a folder, with the place of its log.
struct Member {
    dir: TempDir,
    state: State,
    index: u64,
}

impl Member {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let state = State::open(&dir.path().join("state")).expect("opened");
        Self { dir, state, index: 0 }
    }

    fn run(&mut self, asker: &Asker, request: Request) -> Done {
        self.index += 1;
        run(&self.state, self.index, asker, request)
    }

    fn change(&mut self, change: AuthRequest) -> Done {
        let applied = self.run(&Asker::Member, Request::Auth(AuthChange { change: Some(change) }));
        assert!(applied.answer.is_ok(), "{:?}", applied.answer);
        applied
    }

    /// `root`, and `ann` who may write `k`; a user who is gone; auth is on.
    fn peopled() -> Self {
        let mut member = Self::new();
        for name in ["root", "ann", "gone"] {
            let hashed_password = format!("hash of {name}");
            let user = AuthUserAddRequest { name: name.to_owned(), hashed_password, ..Default::default() };
            member.change(AuthRequest::UserAdd(user));
            member.change(AuthRequest::RoleAdd(AuthRoleAddRequest { name: name.to_owned() }));
            let (user, role) = (name.to_owned(), name.to_owned());
            member.change(AuthRequest::UserGrantRole(AuthUserGrantRoleRequest { user, role }));
        }
        let perm = Some(Permission { perm_type: 1, key: "k".into(), range_end: Bytes::new() });
        let name = "ann".to_owned();
        member.change(AuthRequest::RoleGrantPermission(AuthRoleGrantPermissionRequest { name, perm }));
        member.change(AuthRequest::UserDelete(AuthUserDeleteRequest { name: "gone".to_owned() }));
        member.change(AuthRequest::Enable(AuthEnableRequest {}));
        member
    }

    fn ann(&self) -> Asker {
        Asker::user("ann".to_owned(), self.state.auth().revision())
    }
}

fn entry(index: u64, asker: &Asker, request: Request) -> Entry {
    let mut command = Command { request: Some(request), ..Command::default() };
    asker.sign(&mut command);
    Entry { index, term: 1, data: command.encode_to_vec().into(), ..Entry::default() }
}

fn run(state: &State, index: u64, asker: &Asker, request: Request) -> Done {
    let applied = state.apply(&[entry(index, asker, request)]).expect("applied").pop().expect("of one entry");
    applied.done.expect("a command")
}

fn check(auth: &Auth) {
    assert!(auth.is_enabled());
    assert_eq!(auth.users().collect::<Vec<_>>(), ["ann", "root"]);
    assert_eq!(auth.roles().collect::<Vec<_>>(), ["ann", "gone", "root"]);
    let ann = Asker::user("ann".to_owned(), auth.revision());
    assert_eq!(auth.keys(&ann, Access::Write, b"k", b""), Ok(()));
    assert_eq!(auth.keys(&ann, Access::Write, b"l", b""), Err(RequestError::PermissionDenied));
    assert_eq!(auth.password_hash("ann").map(|hash| &hash[..]), Some(&b"hash of ann"[..]));
}

fn put(key: &'static str) -> Request {
    Request::Put(PutRequest { key: key.into(), ..PutRequest::default() })
}

/// S1: commands that are applied together see what those before them did, and leave the same behind as one by one.
#[test]
fn commands_together_do_the_same_as_one_by_one() {
    let write = |value: &'static str| PutRequest { key: "k".into(), value: value.into(), ..PutRequest::default() };
    let read = PutRequest { prev_kv: true, ..write("third") };
    let lease = LeaseGrantRequest { id: 7, ttl: 60 };
    let requests = [
        Request::Put(write("first")),
        Request::LeaseGrant(lease),
        Request::Put(PutRequest { lease: 7, ..write("second") }),
        Request::Put(read),
        Request::Compact(CompactionRequest { revision: 2, physical: false }),
    ];
    let entries: Vec<Entry> =
        (1..).zip(requests).map(|(index, request)| entry(index, &Asker::Member, request)).collect();
    let (alone, together) = (Member::new(), Member::new());
    let one_by_one = entries.iter().flat_map(|entry| alone.state.apply(std::slice::from_ref(entry)).expect("applied"));
    let one_by_one: Vec<_> = one_by_one.map(|applied| (applied.hash, applied.done.map(|done| done.answer))).collect();
    let applied = together.state.apply(&entries).expect("applied").into_iter();
    let applied: Vec<_> = applied.map(|applied| (applied.hash, applied.done.map(|done| done.answer))).collect();
    assert_eq!(applied, one_by_one);
    let Some(Ok(Answer::Put(third))) = &applied[3].1 else { panic!("{:?}", applied[3]) };
    assert_eq!(third.prev_kv.as_ref().map(|kv| &kv.value[..]), Some(&b"second"[..]));
    let kept = [alone, together].map(|Member { dir, state, .. }| {
        state.flush().expect("flushed");
        drop(state);
        let state = State::open(&dir.path().join("state")).expect("opened");
        let (applied, machine) = (state.applied().expect("read"), state.current.read().machine.clone());
        (applied, machine, state.disk().value(Revision { main: 3, sub: 0 }))
    });
    assert_eq!(kept[0], kept[1]);
    assert_eq!(kept[0].0, (5, 1));
}

/// What nobody need wait for is answered at once, as it is with waiting.
#[test]
fn one_key_is_answered_at_once_if_it_is_in_memory() {
    let mut member = Member::new();
    let value = "v".repeat(1000);
    let write = PutRequest { key: "k".into(), value: value.into(), ..PutRequest::default() };
    member.run(&Asker::Member, Request::Put(write)).answer.expect("written");
    let of = |key: &'static str| RangeRequest { key: key.into(), ..RangeRequest::default() };
    let at_once = |state: &State, request: &RangeRequest| state.one_at_once(request, |_| Ok(()));
    let waiting = |state: &State, request: &RangeRequest| state.range(request, |_| Ok(()), |_| Ok(()));
    for request in
        [of("k"), of("m"), RangeRequest { revision: 9, ..of("k") }, RangeRequest { keys_only: true, ..of("k") }]
    {
        assert_eq!(at_once(&member.state, &request), Some(waiting(&member.state, &request)), "{request:?}");
    }
    let refused = member.state.one_at_once(&of("k"), |_| Err(RequestError::PermissionDenied));
    assert_eq!(refused, Some(Err(RequestError::PermissionDenied)));
    assert_eq!(at_once(&member.state, &RangeRequest { range_end: "z".into(), ..of("a") }), None);
    {
        let _writer = member.state.current.write();
        assert_eq!(at_once(&member.state, &of("m")), None);
    }
    member.state.flush().expect("flushed");
    let Member { dir, state, .. } = member;
    drop(state);
    let state = State::open(&dir.path().join("state")).expect("opened");
    assert_eq!(at_once(&state, &of("k")), None);
    assert_eq!(state.damage(), None);
    let answer = waiting(&state, &of("k"));
    assert_eq!(at_once(&state, &of("k")), Some(answer));
    let large = PutRequest { key: "l".into(), value: vec![0; 1 << 20].into(), ..PutRequest::default() };
    run(&state, 2, &Asker::Member, Request::Put(large)).answer.expect("written");
    assert_eq!(at_once(&state, &of("l")), None);
}

/// Values are the same one by one and together, close to each other and far apart, in memory and in files.
#[test]
fn values_are_read_together() {
    let mut member = Member::new();
    let write = |number: i64| PutRequest {
        key: format!("k{}", number % 7).into(),
        value: vec![number as u8; 1 + number as usize % 300].into(),
        ..PutRequest::default()
    };
    for number in 0..500 {
        member.run(&Asker::Member, Request::Put(write(number))).answer.expect("written");
        if number == 200 || number == 350 {
            member.state.flush().expect("flushed");
        }
    }
    // Others lie between, and behind these nothing.
    let compact = CompactionRequest { revision: 100, physical: false };
    member.run(&Asker::Member, Request::Compact(compact)).answer.expect("compacted");
    while member.state.collect().expect("collected") {}
    let disk = member.state.disk();
    let at = |main: i64| Revision { main, sub: 0 };
    let read = |ats: &[Revision]| {
        let mut values = vec![Bytes::new(); ats.len()];
        disk.each(ats, &mut |place, value| values[place] = Bytes::copy_from_slice(value))?;
        Ok(values)
    };
    for step in [1, 3, 20, 40] {
        let ats: Vec<Revision> = (102..=501).step_by(step).map(at).collect();
        let alone: Vec<Bytes> = ats.iter().map(|at| disk.value(*at).expect("a value")).collect();
        assert_eq!(read(&ats), Ok(alone), "each {step}");
        let missing: Vec<Revision> = ats.iter().copied().chain([at(502)]).collect();
        assert_eq!(read(&missing), Err(RequestError::Disk), "each {step}");
    }
    assert_eq!(read(&[]), Ok(Vec::new()));
    assert_eq!(read(&[at(50), at(51), at(102)]), Err(RequestError::Disk));
    assert_eq!(member.state.damage(), None);
}

/// S1: users and roles lie beside the applied index.
#[test]
fn users_and_roles_are_there_after_opening_again() {
    let member = Member::peopled();
    let before = member.state.auth();
    member.state.flush().expect("flushed");
    let Member { dir, state, index } = member;
    drop(state);
    let state = State::open(&dir.path().join("state")).expect("opened");
    assert_eq!((state.applied().expect("read").0, &*state.auth()), (index, &*before));
    check(&state.auth());
}

/// A folder with another member's files, as they come from a peer.
fn sent(member: &Member, other: &Member) -> (Room, SnapshotMetadata) {
    let copy = tempfile::tempdir().expect("a folder");
    let (metadata, _) = member.state.copy_to(&copy.path().join("copy")).expect("copied");
    let room = other.state.make_room(&metadata).expect("room");
    for file in std::fs::read_dir(copy.path().join("copy")).expect("a folder").flatten() {
        std::fs::copy(file.path(), room.path().join(file.file_name())).expect("copied");
    }
    (room, metadata)
}

#[test]
fn a_snapshot_brings_users_and_roles_and_takes_others_away() {
    let mut member = Member::peopled();
    member.run(&member.ann(), put("k"));
    let mut other = Member::new();
    other.change(AuthRequest::UserAdd(AuthUserAddRequest { name: "own".to_owned(), ..Default::default() }));
    let (room, metadata) = sent(&member, &other);
    let received = other.state.receive(room, &metadata).expect("received");
    other.state.install(received).expect("installed");
    assert_eq!(other.state.auth(), member.state.auth());
    check(&other.state.auth());
    assert_eq!(other.state.read().key_count(), 1);
}

/// Its sender may not have heard that it came.
#[test]
fn a_snapshot_that_comes_again_leaves_the_state_in_use_alone() {
    let mut member = Member::peopled();
    member.run(&member.ann(), put("k"));
    let other = Member::new();
    let (room, metadata) = sent(&member, &other);
    other.state.install(other.state.receive(room, &metadata).expect("received")).expect("installed");
    for _ in 0..2 {
        let (room, metadata) = sent(&member, &other);
        // Loaded, and refused by raft.
        drop(other.state.receive(room, &metadata).expect("received"));
        drop(sent(&member, &other));
    }
    run(&other.state, metadata.index + 1, &Asker::Member, put("l"));
    other.state.flush().expect("its files are there");
    drop(other.state);
    let folder = other.dir.path().join("state");
    let state = State::open(&folder).expect("opened");
    assert_eq!(state.read().key_count(), 2);
    drop(state);
    // Without its files it is missed, and not begun anew.
    let current = std::fs::read_to_string(folder.join("CURRENT")).expect("a name");
    std::fs::remove_dir_all(folder.join(current)).expect("removed");
    assert!(matches!(State::open(&folder), Err(StateError::Gone(_))));
}

/// What is refused when it is applied leaves nothing on disk and tells nobody.
#[test]
fn a_refused_command_only_moves_the_index() {
    let mut member = Member::peopled();
    let before = (member.state.auth(), member.state.read().clone());
    let refused = [
        (member.ann(), put("l"), RequestError::PermissionDenied),
        (Asker::Nobody, put("k"), RequestError::UserEmpty),
        (Asker::user("ann".to_owned(), 1), put("k"), RequestError::AuthOldRevision),
        (Asker::user("gone".to_owned(), before.0.revision()), put("k"), RequestError::PermissionDenied),
    ];
    for (asker, request, error) in refused {
        let applied = member.run(&asker, request);
        assert_eq!((applied.answer, applied.changes.len()), (Err(error), 0), "{asker:?}");
    }
    assert_eq!((member.state.auth(), member.state.read().clone()), before);
    assert_eq!(member.run(&member.ann(), put("k")).changes.len(), 1);
    let request = TokenAssign { name: "ann".to_owned(), auth_revision: before.0.revision(), ..Default::default() };
    let token =
        member.run(&Asker::Nobody, Request::Auth(AuthChange { change: Some(AuthRequest::TokenAssign(request)) }));
    assert_eq!(token.answer, Ok(Answer::Token(member.index)));
}

/// R1: what is compacted while a read is on its way is there until it ends.
#[test]
fn a_read_is_of_one_revision_whatever_happens_meanwhile() {
    // Several slices.
    const KEYS: usize = 5_000;
    let Member { state, mut index, dir: _dir } = Member::new();
    let mut write = |request: Request| {
        index += 1;
        run(&state, index, &Asker::Nobody, request)
    };
    let put = |value: &'static str, n: usize| {
        Request::Put(PutRequest { key: format!("k{n:05}").into(), value: value.into(), ..PutRequest::default() })
    };
    (0..KEYS).for_each(|n| drop(write(put("old", n))));
    let everything = RangeRequest { key: "k".into(), range_end: "l".into(), ..RangeRequest::default() };
    let allow = |_: &Auth| Ok(());
    let mut begins = true;
    let meanwhile = |_| {
        if std::mem::take(&mut begins) {
            (0..KEYS).for_each(|n| drop(write(put("new", n))));
            let compact = CompactionRequest { revision: state.read().revision(), physical: false };
            assert_eq!(write(Request::Compact(compact)).answer, Ok(Answer::Compact));
        }
        assert!(state.collect().expect("a slice"), "the read isn't over");
        Ok(())
    };
    let (answer, revision) = state.range(&everything, allow, meanwhile).expect("a read");
    assert_eq!((answer.kvs.len(), answer.count, revision), (KEYS, KEYS as i64, KEYS as i64 + 1));
    assert!(answer.kvs.iter().all(|kv| kv.value == "old"));
    while state.collect().expect("a slice") {}
    let mut left = 0;
    let all = state.each_change(0, i64::MAX, |_, _, _| {
        left += 1;
        Ok(true)
    });
    assert_eq!((all, left), (Ok(true), KEYS), "the older versions are gone");
    let (answer, _) = state.range(&everything, allow, |_| Ok(())).expect("a read");
    assert!(answer.kvs.len() == KEYS && answer.kvs.iter().all(|kv| kv.value == "new"));
}

/// What looks left behind may be a snapshot that is just coming.
#[test]
fn a_folder_in_use_is_left_alone() {
    let member = Member::new();
    let path = member.dir.path().join("state");
    let coming = path.join("coming");
    std::fs::create_dir(&coming).expect("a folder");
    let refused = State::open(&path).err().expect("refused").to_string();
    assert!(refused.contains(&path.display().to_string()) && refused.contains("another process uses it"), "{refused}");
    assert!(coming.is_dir(), "nothing is cleared away");
    let Member { dir, state, .. } = member;
    drop(state);
    State::open(&path).expect("free again");
    assert!(!coming.exists());
    drop(dir);
}

/// Opening reads no values, and a copy is made of links: one that is damaged would be handed on.
#[test]
fn a_damaged_value_is_found_when_all_are_read() {
    const VALUE: &str = "a value that is told apart";
    let mut member = Member::new();
    let put = PutRequest { key: "k".into(), value: VALUE.into(), ..PutRequest::default() };
    assert!(member.run(&Asker::Nobody, Request::Put(put)).answer.is_ok());
    member.state.flush().expect("flushed");
    member.state.read_values().expect("all can be read");
    let Member { dir, state, .. } = member;
    drop(state);
    let files = std::fs::read_dir(dir.path().join("state/1")).expect("a generation");
    for path in
        files.map(|file| file.expect("a file").path()).filter(|path| path.extension().is_some_and(|e| e == "sst"))
    {
        let mut bytes = std::fs::read(&path).expect("read");
        if let Some(at) = bytes.windows(VALUE.len()).position(|window| window == VALUE.as_bytes()) {
            bytes[at] ^= 1;
            std::fs::write(&path, bytes).expect("written");
        }
    }
    let state = State::open(&dir.path().join("state")).expect("the index is whole");
    assert_eq!(state.damage(), None);
    assert!(state.read_values().is_err() && state.damage().is_some());
}
