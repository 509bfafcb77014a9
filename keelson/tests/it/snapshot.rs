//! `keelson store snapshot` and a member's folder, as an operator meets them.

use std::net::Ipv4Addr;
use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    SanType,
};

use crate::cluster::text;
use crate::flags::{Member, etcdctl, store};

/// What a command says that works.
fn done(arguments: &[&str]) -> String {
    let output = store(arguments, &[]);
    assert!(output.status.success(), "{arguments:?}: {}", text(&output));
    text(&output)
}

fn refused(arguments: &[&str]) -> String {
    let output = store(arguments, &[]);
    assert!(!output.status.success(), "{arguments:?}: {}", text(&output));
    text(&output)
}

/// A CA, and a certificate of it for servers and clients; nobody's name.
fn certificates(dir: &Path) -> [String; 3] {
    let key = KeyPair::generate().expect("a key");
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.distinguished_name.push(DnType::CommonName, "ca");
    let ca = ca.self_signed(&key).expect("a CA");
    let issuer = Issuer::from_ca_cert_pem(&ca.pem(), key).expect("an issuer");
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::IpAddress(Ipv4Addr::LOCALHOST.into())];
    params.distinguished_name = DistinguishedName::new();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let key = KeyPair::generate().expect("a key");
    let cert = params.signed_by(&key, &issuer).expect("a certificate");
    [("ca.crt", ca.pem()), ("own.crt", cert.pem()), ("own.key", key.serialize_pem())].map(|(name, pem)| {
        let path = dir.join(name);
        std::fs::write(&path, pem).expect("written");
        path.display().to_string()
    })
}

const USERS: [&[&str]; 8] = [
    &["put", "p/a", "1"],
    &["put", "other", "1"],
    &["user", "add", "root:rootpw"],
    &["user", "add", "ann:secret"],
    &["role", "add", "r"],
    &["role", "grant-permission", "r", "readwrite", "p/", "--prefix=true"],
    &["user", "grant-role", "ann", "r"],
    &["auth", "enable"],
];

/// A guarded member is saved by its root over TLS, and what is restored is guarded as it was.
#[test]
fn users_and_roles_are_saved_and_restored() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = |name: &str| dir.path().join(name).display().to_string();
    let [ca, cert, key] = &certificates(dir.path());
    let url = format!("https://127.0.0.1:{}", crate::ports::free_port(20_000..32_000));
    let tls = ["--cert-file", cert, "--key-file", key, "--trusted-ca-file", ca, "--client-cert-auth"];
    let listens = ["--listen-client-urls", &url];
    let (member, _) = Member::start(dir.path(), &[&tls[..], &listens].concat());
    let access = ["--endpoints", &url, "--cacert", ca, "--cert", cert, "--key", key];
    for command in USERS {
        let (done, said) = etcdctl(&access, command, "");
        assert!(done, "{command:?}: {said}");
    }
    let file = path("backup");
    let save = [&["snapshot", "save", &file][..], &access].concat();
    // As etcd's main branch says who isn't known by his certificate either.
    let said = refused(&save);
    assert!(said.contains("user name is empty"), "{said}");
    let said = refused(&[&save[..], &["--user", "ann:secret"]].concat());
    assert!(said.contains("permission denied"), "{said}");
    let said = refused(&[&save[..], &["--user", "root:wrong"]].concat());
    assert!(said.contains("invalid user ID or password"), "{said}");
    let without_tls = ["snapshot", "save", &file, "--endpoints", &url, "--user", "root:rootpw"];
    assert!(refused(&without_tls).contains("connecting to"), "an unknown CA");
    assert!(!Path::new(&file).exists());
    let said = done(&[&save[..], &["--user", "root:rootpw"]].concat());
    assert!(said.contains("saved ") && said.contains(&file), "{said}");
    drop(member);

    let status = done(&["snapshot", "status", &file]);
    let parts: Vec<&str> = status.trim().split(", ").collect();
    assert_eq!((parts.len(), parts[1], parts[2]), (4, "3", "2"), "hash, revision, keys, bytes: {status}");

    let (peer, restored) = (format!("http://127.0.0.1:{}", crate::ports::free_port(20_000..32_000)), path("restored"));
    let restore = ["snapshot", "restore", &file, "--data-dir", &restored, "--initial-advertise-peer-urls", &peer];
    let said = refused(&[&restore[..], &["--bump-revision", "1000000"]].concat());
    assert!(said.contains("--mark-compacted"), "{said}");
    let said = done(&[&restore[..], &["--bump-revision", "1000000", "--mark-compacted"]].concat());
    assert!(said.contains("restored 2 keys at revision 1000003"), "{said}");
    assert!(refused(&restore).contains(&restored), "a folder is made once");
    let flags = ["--data-dir", &restored, "--initial-advertise-peer-urls", &peer, "--listen-peer-urls", &peer];
    let client = format!("http://127.0.0.1:{}", crate::ports::free_port(20_000..32_000));
    let urls = ["--listen-client-urls", &client, "--advertise-client-urls", &client];
    let _member = Member::of(&[&flags[..], &urls].concat());
    let ask = |who: &[&str], command: &[&str]| etcdctl(&[&["--endpoints", &client], who].concat(), command, "");
    let (ann, root) = (["--user", "ann:secret"], ["--user", "root:rootpw"]);
    assert_eq!(ask(&ann, &["get", "p/a"]), (true, "p/a\n1\n".to_owned()));
    let (is_done, said) = ask(&ann, &["get", "other"]);
    assert!(!is_done && said.contains("permission denied"), "{said}");
    let (is_done, said) = ask(&[], &["get", "p/a"]);
    assert!(!is_done && said.contains("user name is empty"), "{said}");
    assert_eq!(ask(&root, &["user", "list"]), (true, "ann\nroot\n".to_owned()));
    let (is_done, said) = ask(&root, &["put", "other", "2", "-w", "json"]);
    assert!(is_done && said.contains("\"revision\":1000004"), "{said}");
    let (is_done, said) = ask(&root, &["get", "other", "--rev=3"]);
    assert!(!is_done && said.contains("has been compacted"), "{said}");
}

/// A folder is one process's: two that write in it would lose what both acknowledged.
#[test]
fn a_folder_in_use_is_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let (_member, client) = Member::start(dir.path(), &[]);
    let access = ["--endpoints", client.as_str()];
    assert_eq!(etcdctl(&access, &["put", "k", "v"], ""), (true, "OK\n".to_owned()));
    let data = dir.path().join("store").display().to_string();
    let url = || format!("http://127.0.0.1:{}", crate::ports::free_port(20_000..32_000));
    let (other, peer) = (url(), url());
    let urls = ["--listen-client-urls", &other, "--listen-peer-urls", &peer];
    let said = refused(&[&["--data-dir", &data][..], &urls].concat());
    assert!(said.contains(&data) && said.contains("another process"), "{said}");
    // The first one goes on.
    assert_eq!(etcdctl(&access, &["get", "k"], ""), (true, "k\nv\n".to_owned()));
}
