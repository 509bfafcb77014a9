//! Users by certificate and by signed token.

use std::path::{Path, PathBuf};

use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair};
use store_server::{AuthToken, Tls};

use crate::cluster::Cluster;
use crate::script::{Endpoint, transcript};

/// CA, certificate and key of a client of that name.
pub(super) fn client(dir: &Path, issuer: &Issuer<'_, KeyPair>, name: &str) -> [PathBuf; 3] {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let certificate = params.signed_by(&key, issuer).expect("a certificate");
    let path = |end: &str| dir.join(format!("{name}.{end}"));
    std::fs::write(path("crt"), certificate.pem()).expect("write");
    std::fs::write(path("key"), key.serialize_pem()).expect("write");
    [dir.join("ca.crt"), path("crt"), path("key")]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_names_its_user() {
    let cluster = Cluster::started(1).await;
    let issuer = cluster.issuer();
    let dir = cluster.dir.path().to_path_buf();
    let of = |name: &str| Endpoint { url: cluster.secure_url(0), tls: Some(client(&dir, &issuer, name)) };
    let (root, ann, eve) = (of("root"), of("ann"), of("eve"));
    let plain = Endpoint::plain(&cluster.url(0));
    let shown = tokio::task::spawn_blocking(move || {
        let setup = "user add root --no-password
            user add ann --no-password
            role add r
            role grant-permission r readwrite k
            user grant-role ann r
            auth enable";
        let mut shown = transcript(setup, &plain);
        shown.extend(transcript("put k 1\nput l 1", &ann));
        shown.extend(transcript("put k 1", &eve));
        shown.extend(transcript("put k 1\n@ann: get k", &plain));
        shown.extend(transcript("put l 1\nuser add bob:secret", &root));
        // A token goes before the certificate.
        shown.extend(transcript("@bob:secret get l\n@bob:wrong get l\nauth disable", &root));
        shown
    });
    let shown = shown.await.expect("no panic");
    let failed =
        |line: &str| shown.iter().filter(|s| s.starts_with(line)).map(|s| s.contains("failed")).collect::<Vec<_>>();
    assert_eq!(failed("put k 1"), [false, true, true], "{shown:#?}");
    assert_eq!(failed("put l 1"), [true, false], "{shown:#?}");
    assert_eq!(failed("@bob:secret get l"), [true], "{shown:#?}");
    assert_eq!(failed("@bob:wrong get l"), [true], "{shown:#?}");
    assert_eq!(failed("auth disable"), [false], "{shown:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn signed_tokens_work_on_every_member() {
    let mut cluster = Cluster::new(3);
    let key = KeyPair::generate().expect("a key");
    let path = |name: &str| cluster.dir.path().join(name);
    std::fs::write(path("jwt.key"), key.serialize_pem()).expect("write");
    std::fs::write(path("jwt.pub"), key.public_key_pem()).expect("write");
    let (private, public) = (path("jwt.key"), path("jwt.pub"));
    let token = format!("jwt,priv-key={},pub-key={},sign-method=ES256,ttl=5m", private.display(), public.display());
    for at in 0..3 {
        cluster.members[at].config.auth_token = AuthToken::parse(&token).expect("understood");
        cluster.start(at);
    }
    cluster.wait_for_leader().await;
    let urls: Vec<String> = (0..3).map(|at| cluster.url(at)).collect();
    let shown = tokio::task::spawn_blocking(move || {
        let setup = "user add root:rootpw
            user add ann:secret
            role add r
            role grant-permission r readwrite k
            user grant-role ann r
            auth enable
            @ann:secret put k 1";
        let mut shown = transcript(setup, &Endpoint::plain(&urls[0]));
        for url in &urls {
            shown.extend(transcript("@ann:secret get k\n@ann:secret get l\n@ann:wrong get k", &Endpoint::plain(url)));
        }
        // Many endpoints: the token is of whichever answers.
        shown.extend(transcript("@ann:secret get k", &Endpoint::plain(&urls.join(","))));
        shown
    });
    let shown = shown.await.expect("no panic");
    let failed =
        |line: &str| shown.iter().filter(|s| s.starts_with(line)).map(|s| s.contains("failed")).collect::<Vec<_>>();
    assert_eq!(failed("@ann:secret get k"), [false; 4], "{shown:#?}");
    assert_eq!(failed("@ann:secret get l"), [true; 3], "{shown:#?}");
    assert_eq!(failed("@ann:wrong"), [true; 3], "{shown:#?}");
}

/// Without certificates there is no name to be known by, whatever a client shows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_nobody_checks_names_nobody() {
    let mut cluster = Cluster::new(1);
    let tls = cluster.members[0].config.client_tls.clone();
    cluster.members[0].config.client_tls = Tls { client_cert_auth: false, ..tls };
    cluster.start(0);
    cluster.wait_for_leader().await;
    let dir = cluster.dir.path().to_path_buf();
    let root = Endpoint { url: cluster.secure_url(0), tls: Some(client(&dir, &cluster.issuer(), "root")) };
    let shown = tokio::task::spawn_blocking(move || {
        transcript("user add root --no-password\nuser grant-role root root\nauth enable\nput k 1", &root)
    });
    let shown = shown.await.expect("no panic");
    assert!(shown[2].contains("done") && shown[3].contains("user name is empty"), "{shown:#?}");
}
