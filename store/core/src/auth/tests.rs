//! Each rule of etcd's, as a script: a line a command, and what came of it.

use expect_test::{Expect, expect};

use super::*;
use crate::mvcc::Answer;
use crate::wire::auth_change::Change;
use crate::wire::*;

fn change(words: &[&str]) -> Change {
    let own = |at: usize| words.get(at).map(|word| (*word).to_owned()).unwrap_or_default();
    let bytes = |at: usize| Bytes::from(own(at).replace("\\0", "\0"));
    match (words[0], words.get(1).copied().unwrap_or_default()) {
        ("enable", _) => Change::Enable(AuthEnableRequest {}),
        ("disable", _) => Change::Disable(AuthDisableRequest {}),
        ("user", "add") => Change::UserAdd(AuthUserAddRequest {
            name: own(2),
            hashed_password: own(3),
            options: Some(UserAddOptions { no_password: own(3).is_empty() }),
            ..AuthUserAddRequest::default()
        }),
        ("user", "delete") => Change::UserDelete(AuthUserDeleteRequest { name: own(2) }),
        ("user", "passwd") => Change::UserChangePassword(AuthUserChangePasswordRequest {
            name: own(2),
            hashed_password: own(3),
            ..AuthUserChangePasswordRequest::default()
        }),
        ("user", "grant") => Change::UserGrantRole(AuthUserGrantRoleRequest { user: own(2), role: own(3) }),
        ("user", "revoke") => Change::UserRevokeRole(AuthUserRevokeRoleRequest { name: own(2), role: own(3) }),
        ("role", "add") => Change::RoleAdd(AuthRoleAddRequest { name: own(2) }),
        ("role", "delete") => Change::RoleDelete(AuthRoleDeleteRequest { role: own(2) }),
        ("role", "grant") => Change::RoleGrantPermission(AuthRoleGrantPermissionRequest {
            name: own(2),
            perm: (words.len() > 3).then(|| Permission {
                perm_type: ["r", "w", "rw"].iter().position(|kind| *kind == own(3)).map_or(9, |kind| kind as i32),
                key: bytes(4),
                range_end: bytes(5),
            }),
        }),
        ("role", "revoke") => Change::RoleRevokePermission(AuthRoleRevokePermissionRequest {
            role: own(2),
            key: bytes(3),
            range_end: bytes(4),
        }),
        ("token", name) => Change::TokenAssign(TokenAssign {
            name: name.to_owned(),
            digest: Bytes::from_static(&[7; 32]),
            auth_revision: own(2).parse().expect("a revision"),
        }),
        other => panic!("no such command: {other:?}"),
    }
}

fn run(auth: &mut Auth, line: &str) -> String {
    let words: Vec<&str> = line.split_whitespace().collect();
    let before = auth.clone();
    let done = auth.apply(&AuthChange { change: Some(change(&words)) }, 42);
    match done {
        Ok((answer, changed)) => {
            // What is written is what has changed, and makes the same state again.
            let mut again = restore(&before.entries());
            again = restore(&merge(again.entries(), changed.entries));
            assert_eq!(&again, auth, "{line}");
            let tokens = changed.tokens.map(|change| format!(" {change:?}")).unwrap_or_default();
            let answer = if answer == Answer::Auth { "ok".to_owned() } else { format!("{answer:?}") };
            format!("{answer} {}{tokens}", auth.revision)
        }
        Err(error) => {
            // U2.
            assert_eq!(&before, auth, "{line}");
            error.to_string()
        }
    }
}

fn merge(old: Vec<(Bytes, Bytes)>, new: Vec<Entry>) -> Vec<(Bytes, Bytes)> {
    let mut all: BTreeMap<Bytes, Bytes> = old.into_iter().collect();
    for (key, value) in new {
        match value {
            Some(value) => all.insert(key, value),
            None => all.remove(&key),
        };
    }
    all.into_iter().collect()
}

fn restore(entries: &[(Bytes, Bytes)]) -> Auth {
    let mut auth = Auth::new();
    entries.iter().for_each(|(key, value)| auth.restore(key, value).expect("our own entry"));
    auth.restored();
    auth
}

fn check(script: &str, expected: &Expect) {
    let mut auth = Auth::new();
    let lines = script.split(';').map(str::trim).filter(|line| !line.is_empty());
    let shown: String = lines.map(|line| format!("{line}: {}\n", run(&mut auth, line))).collect();
    expected.assert_eq(&shown);
}

/// U4.
#[test]
fn auth_needs_its_administrator() {
    check(
        "enable; user add root x; enable; user grant root root; enable; enable;
         user delete root; user revoke root root; role delete root; disable; disable;
         role add root; role delete root; user delete root; enable",
        &expect![[r#"
            enable: etcdserver: root user does not exist
            user add root x: ok 2
            enable: etcdserver: root user does not have root role
            user grant root root: ok 3
            enable: ok 3
            enable: ok 3
            user delete root: etcdserver: invalid auth management
            user revoke root root: etcdserver: invalid auth management
            role delete root: etcdserver: invalid auth management
            disable: ok 4 AllGone
            disable: ok 4
            role add root: ok 5
            role delete root: ok 6
            user delete root: ok 7 UserGone("root")
            enable: etcdserver: root user does not exist
        "#]],
    );
}

#[test]
fn users_and_their_roles() {
    check(
        "user add; user add ann x; user add ann y; user grant bob r; user grant ann r; role add r;
         user grant ann r; user grant ann r; user revoke bob r; user revoke ann r; user revoke ann r;
         user passwd bob x; user passwd ann y; user delete bob; user delete ann",
        &expect![[r#"
            user add: etcdserver: user name is empty
            user add ann x: ok 2
            user add ann y: etcdserver: user name already exists
            user grant bob r: etcdserver: user name not found
            user grant ann r: etcdserver: role name not found
            role add r: ok 3
            user grant ann r: ok 4
            user grant ann r: ok 4
            user revoke bob r: etcdserver: user name not found
            user revoke ann r: ok 5
            user revoke ann r: etcdserver: role is not granted to the user
            user passwd bob x: etcdserver: user name not found
            user passwd ann y: ok 6 UserGone("ann")
            user delete bob: etcdserver: user name not found
            user delete ann: ok 7 UserGone("ann")
        "#]],
    );
}

#[test]
fn roles_and_their_permissions() {
    check(
        "role add; role add r; role add r; role grant r; role grant s r k; role grant r r; role grant r x k;
         role grant r r k k; role grant r r k a; role grant r r k; role grant r rw k; role grant r w k z;
         role grant r r a \\0; role revoke s k; role revoke r k y; role revoke r k; role revoke r k;
         role revoke r k z; role delete s; role delete r",
        &expect![[r#"
            role add: etcdserver: role name is empty
            role add r: ok 2
            role add r: etcdserver: role name already exists
            role grant r: etcdserver: permission not given
            role grant s r k: etcdserver: role name not found
            role grant r r: etcdserver: invalid auth management
            role grant r x k: etcdserver: invalid auth management
            role grant r r k k: etcdserver: invalid auth management
            role grant r r k a: etcdserver: invalid auth management
            role grant r r k: ok 3
            role grant r rw k: ok 4
            role grant r w k z: ok 5
            role grant r r a \0: ok 6
            role revoke s k: etcdserver: role name not found
            role revoke r k y: etcdserver: permission is not granted to the role
            role revoke r k: ok 7
            role revoke r k: etcdserver: permission is not granted to the role
            role revoke r k z: ok 8
            role delete s: etcdserver: role name not found
            role delete r: ok 9
        "#]],
    );
}

#[test]
fn tokens_are_for_users_with_passwords_as_they_are_now() {
    check(
        "token root 1; user add root x; user grant root root; user add cert; enable; token nobody 4;
         token cert 4; token root 3; token root 4",
        &expect![[r#"
            token root 1: etcdserver: authentication is not enabled
            user add root x: ok 2
            user grant root root: ok 3
            user add cert: ok 4
            enable: ok 4
            token nobody 4: etcdserver: authentication failed, invalid user ID or password
            token cert 4: etcdserver: authentication failed, invalid user ID or password
            token root 3: etcdserver: revision of auth store is old
            token root 4: Token(42) 4 Assigned { user: "root", key: Key { index: 42, digest: b"\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07" } }
        "#]],
    );
}

fn built(script: &str) -> Auth {
    let mut auth = Auth::new();
    for line in script.split(';').map(str::trim) {
        let done = run(&mut auth, line);
        assert!(done.starts_with("ok"), "{line}: {done}");
    }
    auth
}

fn user(auth: &Auth, name: &str) -> Asker {
    Asker::user(name.to_owned(), auth.revision())
}

const CAST: &str = "user add root x; user grant root root; user add ann x; role add r; user grant ann r;
    role grant r r k; role grant r rw m z; role grant r w k; enable";

#[test]
fn permissions_are_kept_in_order_of_keys_and_replaced_not_doubled() {
    let auth = built(CAST);
    let permissions = auth.role_permissions(&user(&auth, "root"), "r").expect("root may know");
    let shown: Vec<_> = permissions.iter().map(|p| (p.perm_type, &p.key[..], &p.range_end[..])).collect();
    assert_eq!(shown, [(1, &b"k"[..], &b""[..]), (2, b"m", b"z")]);
}

#[test]
fn who_may_know_users_and_roles() {
    let auth = built(CAST);
    let (root, ann, eve) = (user(&auth, "root"), user(&auth, "ann"), user(&auth, "eve"));
    assert_eq!(auth.user_roles(&root, "ann"), Ok(vec!["r".to_owned()]));
    assert_eq!(auth.user_roles(&ann, "ann"), Ok(vec!["r".to_owned()]));
    assert_eq!(auth.user_roles(&ann, "root"), Err(RequestError::PermissionDenied));
    assert_eq!(auth.user_roles(&ann, "eve"), Err(RequestError::PermissionDenied));
    assert_eq!(auth.user_roles(&root, "eve"), Err(RequestError::UserNotFound));
    assert_eq!(auth.user_roles(&Asker::Nobody, "ann"), Err(RequestError::UserEmpty));
    assert_eq!(auth.user_roles(&eve, "ann"), Err(RequestError::UserNotFound));
    assert!(auth.role_permissions(&ann, "r").is_ok());
    assert_eq!(auth.role_permissions(&ann, "root"), Err(RequestError::PermissionDenied));
    assert_eq!(auth.role_permissions(&root, "root"), Err(RequestError::RoleNotFound));
    assert_eq!(auth.role_permissions(&Asker::Nobody, "r"), Err(RequestError::UserEmpty));
    let auth = built(&format!("{CAST}; role add root"));
    let all = Permission { perm_type: 2, key: Bytes::new(), range_end: Bytes::from_static(b"\0") };
    assert_eq!(auth.role_permissions(&user(&auth, "root"), "root"), Ok(vec![all]));
}

#[test]
fn keys_are_for_who_is_known_by_the_present_revision() {
    let auth = built(CAST);
    let ann = user(&auth, "ann");
    let old = Asker::user("ann".to_owned(), auth.revision() - 1);
    let old_root = Asker::user("root".to_owned(), auth.revision() - 1);
    let table = [
        (&ann, "k", "", Access::Write, Ok(())),
        (&ann, "k", "", Access::Read, Err(RequestError::PermissionDenied)),
        (&ann, "n", "y", Access::Read, Ok(())),
        (&ann, "m", "\0", Access::Read, Err(RequestError::PermissionDenied)),
        (&old, "n", "", Access::Read, Err(RequestError::AuthOldRevision)),
        (&old_root, "n", "", Access::Read, Err(RequestError::AuthOldRevision)),
        (&Asker::Nobody, "n", "", Access::Read, Err(RequestError::UserEmpty)),
        (&Asker::Member, "a", "", Access::Write, Ok(())),
    ];
    for (asker, key, end, access, expected) in table {
        assert_eq!(auth.keys(asker, access, key.as_bytes(), end.as_bytes()), expected, "{asker:?} {key} {end}");
    }
    assert_eq!(auth.admin(&old_root), Ok(()), "who changes users one after the other changes the revision himself");
    assert_eq!(auth.keys(&user(&auth, "eve"), Access::Read, b"n", b""), Err(RequestError::PermissionDenied));
}

#[test]
fn a_deleted_role_is_taken_from_its_users() {
    let mut auth = built(CAST);
    assert_eq!(run(&mut auth, "role delete r"), "ok 10");
    assert_eq!(auth.user_roles(&user(&auth, "ann"), "ann"), Ok(vec![]));
    assert_eq!(auth.keys(&user(&auth, "ann"), Access::Read, b"n", b""), Err(RequestError::PermissionDenied));
}

#[test]
fn what_is_no_entry_is_damage() {
    for (key, value) in [("other", ""), ("revision", "short"), ("user/x", "\u{ff}")] {
        assert_eq!(Auth::new().restore(key.as_bytes(), value.as_bytes()), Err(Damaged), "{key}");
    }
}
