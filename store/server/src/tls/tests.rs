//! Handshakes with certificates of every kind.

use std::path::PathBuf;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, RevokedCertParams, SerialNumber, date_time_ymd,
};
use rustls::ProtocolVersion;
use rustls::pki_types::ServerName;
use tempfile::TempDir;

use super::*;

/// A CA in a folder.
struct Authority {
    dir: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        Self::named("ca")
    }

    fn named(name: &str) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let ca = params.self_signed(&key).expect("a CA");
        std::fs::write(dir.path().join("ca.crt"), ca.pem()).expect("written");
        Self { issuer: Issuer::from_ca_cert_pem(&ca.pem(), key).expect("an issuer"), dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A certificate with this common name and number, good for that host.
    fn certificate(&self, name: &str, number: u64, host: &str) -> Tls {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new([host.to_owned()]).expect("a host");
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.serial_number = Some(SerialNumber::from(number));
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        let (cert_file, key_file) = (self.path(&format!("{number}.crt")), self.path(&format!("{number}.key")));
        std::fs::write(&cert_file, certificate.pem()).expect("written");
        std::fs::write(&key_file, key.serialize_pem()).expect("written");
        let trusted_ca_file = Some(self.path("ca.crt"));
        Tls { cert_file: Some(cert_file), key_file: Some(key_file), trusted_ca_file, ..Tls::default() }
    }

    /// A list of revoked numbers.
    fn revoke(&self, numbers: &[u64]) -> PathBuf {
        let revoked = |number: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*number),
            revocation_time: date_time_ymd(2024, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2024, 1, 1),
            next_update: date_time_ymd(2100, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: numbers.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let path = self.path("revoked.pem");
        let list = list.signed_by(&self.issuer).expect("a list");
        std::fs::write(&path, list.pem().expect("PEM")).expect("written");
        std::fs::write(self.path("revoked.crl"), list.der()).expect("written");
        path
    }
}

/// What a server sees of a client: version, suite, and the client's name.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    version: ProtocolVersion,
    suite: String,
    name: Option<String>,
}

/// Shakes hands: what the server sees, or why one of them refused.
async fn shake(server: ServerConfig, client: ClientConfig) -> Result<Seen, String> {
    let (near, far) = tokio::io::duplex(64 << 10);
    let accept = tokio_rustls::TlsAcceptor::from(Arc::new(server)).accept(far);
    let name = ServerName::try_from("here").expect("a name");
    let connect = tokio_rustls::TlsConnector::from(Arc::new(client)).connect(name, near);
    let (accepted, connected) = tokio::join!(accept, connect);
    connected.map_err(|e| format!("client: {e}"))?;
    let stream = accepted.map_err(|e| format!("server: {e}"))?;
    let connection = stream.get_ref().1;
    let suite = connection.negotiated_cipher_suite().map(|suite| suite_name(&suite)).unwrap_or_default();
    let name = common_name(connection.peer_certificates()).map(|name| name.to_string());
    Ok(Seen { version: connection.protocol_version().expect("a version"), suite, name })
}

async fn between(server_tls: &Tls, client_tls: &Tls) -> Result<Seen, String> {
    shake(server(server_tls).expect("a server"), client(client_tls).expect("a client")).await
}

/// Who came, or what the refusal says.
fn name(seen: Result<Seen, String>) -> Result<Option<String>, String> {
    seen.map(|seen| seen.name)
}

#[tokio::test]
async fn whom_the_ca_has_revoked_is_refused() {
    let ca = Authority::new();
    let (good, bad) = (ca.certificate("good", 2, "a"), ca.certificate("bad", 3, "b"));
    let plain = ca.certificate("server", 1, "here");
    let checking = Tls { crl_file: Some(ca.revoke(&[3, 9])), ..plain.clone() };
    assert_eq!(name(between(&plain, &bad).await), Ok(Some("bad".to_owned())));
    assert_eq!(name(between(&checking, &good).await), Ok(Some("good".to_owned())));
    let refused = between(&checking, &bad).await.expect_err("revoked");
    assert!(refused.contains("Revoked"), "{refused}");
    let in_der = Tls { crl_file: Some(ca.path("revoked.crl")), ..plain.clone() };
    assert_eq!(name(between(&in_der, &good).await), Ok(Some("good".to_owned())));
    assert!(between(&in_der, &bad).await.is_err_and(|refused| refused.contains("Revoked")));
    // Who dials looks as well.
    let dialling = Tls { crl_file: Some(ca.revoke(&[1])), ..good };
    let refused = between(&plain, &dialling).await.expect_err("revoked");
    assert!(refused.contains("client: ") && refused.contains("Revoked"), "{refused}");
    // A file that is no list, or another CA's: told at the start, or nothing said.
    std::fs::write(ca.path("none.pem"), "nothing").expect("written");
    let wrong = Tls { crl_file: Some(ca.path("none.pem")), ..plain.clone() };
    assert!(server(&wrong).expect_err("no list").to_string().contains("none.pem holds no list"));
    let (other, forger) = (Authority::named("other"), Authority::new());
    let foreign = Tls { crl_file: Some(other.revoke(&[3])), ..plain.clone() };
    assert_eq!(name(between(&foreign, &bad).await), Ok(Some("bad".to_owned())));
    // One in this CA's name that it hasn't signed lets nobody in.
    let forged = Tls { crl_file: Some(forger.revoke(&[9])), ..plain };
    let refused = between(&forged, &bad).await.expect_err("forged");
    assert!(refused.contains("BadSignature"), "{refused}");
}

#[tokio::test]
async fn only_those_names_are_let_in() {
    let ca = Authority::new();
    let plain = ca.certificate("server", 1, "here");
    let (ann, bob) = (ca.certificate("ann", 2, "a.example"), ca.certificate("bob", 3, "b.example"));
    let by_name = Tls { allowed_cns: vec!["zoe".to_owned(), "ann".to_owned()], ..plain.clone() };
    let by_host = Tls { allowed_hostnames: vec!["b.example".to_owned()], ..plain.clone() };
    assert_eq!(name(between(&by_name, &ann).await), Ok(Some("ann".to_owned())));
    assert_eq!(name(between(&by_host, &bob).await), Ok(Some("bob".to_owned())));
    for (server, client) in [(&by_name, &bob), (&by_host, &ann)] {
        let refused = between(server, client).await.expect_err("another name");
        assert!(refused.starts_with("server: ") && refused.contains("ApplicationVerificationFailure"), "{refused}");
    }
    // The same for who is dialled.
    let dialling = |name: &str| Tls { allowed_cns: vec![name.to_owned()], ..ann.clone() };
    assert!(between(&plain, &dialling("server")).await.is_ok());
    let refused = between(&plain, &dialling("other")).await.expect_err("another name");
    assert!(refused.starts_with("client: "), "{refused}");
    let nonsense = Tls { allowed_hostnames: vec!["no host".to_owned()], ..plain };
    assert!(server(&nonsense).expect_err("no host").to_string().contains("\"no host\""));
}

/// As in etcd: a trusted CA alone is enough.
#[tokio::test]
async fn a_trusted_ca_makes_for_demanded_certificates() {
    let ca = Authority::new();
    let tls = ca.certificate("server", 1, "here");
    let nobody = || {
        let provider = provider(&Tls::default()).expect("suites");
        let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(&versions(&tls));
        let roots = roots(&ca.path("ca.crt")).expect("a CA");
        builder.expect("versions").with_root_certificates(roots).with_no_client_auth()
    };
    let refused = shake(server(&tls).expect("a server"), nobody()).await.expect_err("no certificate");
    assert!(refused.contains("NoCertificatesPresented") || refused.contains("no certificates"), "{refused}");
    let open = Tls { trusted_ca_file: None, ..tls.clone() };
    assert_eq!(name(shake(server(&open).expect("a server"), nobody()).await), Ok(None));
}

#[tokio::test]
async fn members_dial_with_a_certificate_of_their_own() {
    let ca = Authority::new();
    let (own, dialling) = (ca.certificate("server", 1, "here"), ca.certificate("dialler", 2, "x"));
    let both = Tls { dial_cert_file: dialling.cert_file, dial_key_file: dialling.key_file, ..own.clone() };
    assert_eq!(name(between(&both, &both).await), Ok(Some("dialler".to_owned())));
    assert_eq!(look(&both).len(), 5);
}

#[tokio::test]
async fn versions_and_suites_are_those_that_were_chosen() {
    let ca = Authority::new();
    let any = ca.certificate("server", 1, "here");
    let only = |version| Tls { min_version: Some(version), max_version: Some(version), ..any.clone() };
    let (old, new) = (only(TlsVersion::V12), only(TlsVersion::V13));
    let version = |seen: Result<Seen, String>| seen.map(|seen| seen.version);
    assert_eq!(version(between(&any, &any).await), Ok(ProtocolVersion::TLSv1_3));
    assert_eq!(version(between(&old, &any).await), Ok(ProtocolVersion::TLSv1_2));
    assert!(between(&old, &new).await.is_err());
    // Keys here are for ECDSA.
    for (named, suite) in [
        ("TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"),
        ("TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305", "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256"),
    ] {
        let chosen = Tls { cipher_suites: vec![named.to_owned()], ..any.clone() };
        assert_eq!(between(&chosen, &old).await.map(|seen| seen.suite), Ok(suite.to_owned()));
        // Those of 1.3 are all there.
        assert_eq!(version(between(&chosen, &new).await), Ok(ProtocolVersion::TLSv1_3));
    }
    let weak = Tls { cipher_suites: vec!["TLS_RSA_WITH_AES_128_CBC_SHA".to_owned()], ..any };
    let refused = server(&weak).expect_err("weak").to_string();
    assert!(refused.contains("TLS_RSA_WITH_AES_128_CBC_SHA isn't offered; there are TLS_"), "{refused}");
}

/// A certificate that signed itself, as a CA's; what it is for, and until which year.
fn own(dir: &Authority, host: &str, usages: &[ExtendedKeyUsagePurpose], until: i32) -> Tls {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new([host.to_owned()]).expect("a host");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.extended_key_usages = usages.to_vec();
    params.not_after = date_time_ymd(until, 1, 1);
    let certificate = params.self_signed(&key).expect("a certificate");
    let (cert_file, key_file) = (dir.path("own.crt"), dir.path("own.key"));
    std::fs::write(&cert_file, certificate.pem()).expect("written");
    std::fs::write(&key_file, key.serialize_pem()).expect("written");
    Tls {
        trusted_ca_file: Some(cert_file.clone()),
        cert_file: Some(cert_file),
        key_file: Some(key_file),
        ..Tls::default()
    }
}

#[tokio::test]
async fn one_that_signed_its_own_is_trusted_by_who_has_it() {
    use ExtendedKeyUsagePurpose::{ClientAuth, ServerAuth};
    let dirs: Vec<Authority> = (0..5).map(|_| Authority::new()).collect();
    let good = own(&dirs[0], "here", &[], 2100);
    assert!(between(&good, &good).await.is_ok());
    let both = own(&dirs[1], "here", &[ClientAuth, ServerAuth], 2100);
    assert!(between(&both, &both).await.is_ok());
    let refused = between(&good, &both).await.expect_err("not the trusted one");
    assert!(refused.contains("UnknownIssuer") || refused.contains("CaUsedAsEndEntity"), "{refused}");
    for (tls, why) in [
        (own(&dirs[2], "there", &[], 2100), "not valid for name"),
        (own(&dirs[3], "here", &[ClientAuth], 2100), "CaUsedAsEndEntity"),
        // Which of its faults the library finds first is its own matter.
        (own(&dirs[4], "here", &[], 2020), "invalid peer certificate"),
    ] {
        let refused = between(&tls, &tls).await.expect_err(why);
        assert!(refused.starts_with("client: ") && refused.contains(why), "{why}: {refused}");
    }
}
