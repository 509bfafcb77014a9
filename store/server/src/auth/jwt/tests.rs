use std::path::PathBuf;
use std::time::Duration;

use tempfile::TempDir;

use super::*;

/// The two sides of a key, as PEM files.
fn pair(dir: &TempDir, name: &str, algorithm: &'static rcgen::SignatureAlgorithm) -> (PathBuf, PathBuf) {
    let key = rcgen::KeyPair::generate_for(algorithm).expect("a key");
    let path = |end: &str| dir.path().join(format!("{name}.{end}"));
    std::fs::write(path("key"), key.serialize_pem()).expect("write");
    std::fs::write(path("pub"), key.public_key_pem()).expect("write");
    (path("key"), path("pub"))
}

fn settings(method: &str, private: Option<&Path>, public: Option<&Path>) -> JwtSettings {
    let path = |path: Option<&Path>| path.map(Path::to_path_buf);
    let (private_key, public_key) = (path(private), path(public));
    JwtSettings { private_key, public_key, sign_method: method.to_owned(), ttl: Duration::from_secs(300) }
}

fn refused(settings: &JwtSettings) -> String {
    Jwt::new(settings).err().expect("a refusal").to_string()
}

#[test]
fn tokens_say_who_and_by_which_revision() {
    let dir = tempfile::tempdir().expect("a folder");
    let secret = dir.path().join("secret");
    std::fs::write(&secret, "a secret of some length, as it should be").expect("write");
    let (ec, ec_public) = pair(&dir, "ec", &rcgen::PKCS_ECDSA_P256_SHA256);
    let (ec384, ec384_public) = pair(&dir, "ec384", &rcgen::PKCS_ECDSA_P384_SHA384);
    let (ed, ed_public) = pair(&dir, "ed", &rcgen::PKCS_ED25519);
    let table = [
        settings("HS256", Some(&secret), None),
        settings("HS512", Some(&secret), None),
        settings("ES256", Some(&ec), Some(&ec_public)),
        settings("ES384", Some(&ec384), Some(&ec384_public)),
        settings("EdDSA", Some(&ed), Some(&ed_public)),
    ];
    let all: Vec<Jwt> = table.iter().map(|settings| Jwt::new(settings).expect("usable keys")).collect();
    for (at, jwt) in all.iter().enumerate() {
        let token = jwt.make("ann", 17).expect("signed");
        assert_eq!(jwt.check(&token), Some(("ann".to_owned(), 17)), "{}", table[at].sign_method);
        for (other, elsewhere) in all.iter().enumerate().filter(|(other, _)| *other != at) {
            assert_eq!(elsewhere.check(&token), None, "{at} {other}");
        }
        let mut damaged = token.clone().into_bytes();
        let last = damaged.len() - 5;
        damaged[last] = if damaged[last] == b'A' { b'B' } else { b'A' };
        assert_eq!(jwt.check(std::str::from_utf8(&damaged).expect("text")), None);
    }
}

#[test]
fn rsa_signs_too() {
    use rsa::pkcs8::{EncodePrivateKey as _, EncodePublicKey as _, LineEnding};
    let dir = tempfile::tempdir().expect("a folder");
    let key = rsa::RsaPrivateKey::new(&mut rsa::rand_core::OsRng, 2048).expect("a key");
    let (private, public) = (dir.path().join("rsa.key"), dir.path().join("rsa.pub"));
    std::fs::write(&private, key.to_pkcs8_pem(LineEnding::LF).expect("PEM").as_bytes()).expect("write");
    let text = key.to_public_key().to_public_key_pem(LineEnding::LF).expect("PEM");
    std::fs::write(&public, &text).expect("write");
    for method in ["RS256", "RS512", "PS256"] {
        let jwt = Jwt::new(&settings(method, Some(&private), Some(&public))).expect("usable keys");
        assert_eq!(jwt.check(&jwt.make("ann", 3).expect("signed")), Some(("ann".to_owned(), 3)), "{method}");
        // The oldest trick: the public key, which everybody has, as the secret of another method.
        let forged = jsonwebtoken::encode(
            &Header::new(Algorithm::HS256),
            &Claims { username: "root", revision: 9, exp: u64::from(u32::MAX) },
            &EncodingKey::from_secret(text.as_bytes()),
        );
        assert_eq!(jwt.check(&forged.expect("a forgery")), None);
    }
}

#[test]
fn tokens_end_and_none_is_made_up() {
    let dir = tempfile::tempdir().expect("a folder");
    let (private, public) = pair(&dir, "ec", &rcgen::PKCS_ECDSA_P256_SHA256);
    let jwt = Jwt::new(&settings("ES256", Some(&private), Some(&public))).expect("usable keys");
    let key = EncodingKey::from_ec_pem(&std::fs::read(&private).expect("read")).expect("a key");
    let signed = |claims: &str| {
        let claims: serde_json::Value = serde_json::from_str(claims).expect("JSON");
        jwt.check(&jsonwebtoken::encode(&Header::new(Algorithm::ES256), &claims, &key).expect("signed"))
    };
    let ann = |revision| Some(("ann".to_owned(), revision));
    assert_eq!(signed(r#"{"username":"ann","revision":3,"exp":4000000000}"#), ann(3));
    assert_eq!(signed(r#"{"username":"ann","revision":3.0,"aud":"others"}"#), ann(3), "as etcd takes it");
    assert_eq!(signed(r#"{"username":"ann","revision":-3}"#), ann(0), "by which nobody is known");
    assert_eq!(signed(r#"{"username":"ann","revision":3,"exp":1000000000}"#), None);
    assert_eq!(signed(r#"{"username":"ann","revision":3,"nbf":4000000000}"#), None);
    assert_eq!(signed(r#"{"username":"ann","exp":4000000000}"#), None);
    assert_eq!(signed(r#"{"revision":3,"exp":4000000000}"#), None);
    assert_eq!(signed(r#"{"username":7,"revision":3}"#), None);
    let unsigned = "eyJhbGciOiJub25lIn0.eyJ1c2VybmFtZSI6InJvb3QiLCJyZXZpc2lvbiI6M30.";
    for wrong in [unsigned, "", "a.b.c", "a.1"] {
        assert_eq!(jwt.check(wrong), None, "{wrong}");
    }
}

#[test]
fn keys_must_fit() {
    let dir = tempfile::tempdir().expect("a folder");
    let (private, public) = pair(&dir, "one", &rcgen::PKCS_ECDSA_P256_SHA256);
    let (_, other) = pair(&dir, "two", &rcgen::PKCS_ECDSA_P256_SHA256);
    assert!(refused(&settings("ES256", Some(&private), Some(&other))).contains("don't match"));
    assert!(refused(&settings("ES256", Some(&private), None)).contains("missing key data"));
    assert!(refused(&settings("HS256", None, None)).contains("missing key data"));
    assert!(refused(&settings("EdDSA", Some(&private), Some(&public))).contains("EdDSA"));
    assert!(refused(&settings("none", Some(&private), Some(&public))).contains("none"));
    assert!(refused(&settings("ES256", Some(&dir.path().join("gone")), Some(&public))).contains("gone"));
    let checks = Jwt::new(&settings("ES256", None, Some(&public))).expect("enough to check");
    let makes = Jwt::new(&settings("ES256", Some(&private), Some(&public))).expect("usable keys");
    assert_eq!(checks.make("ann", 1), Err(RequestError::VerifyOnly));
    assert_eq!(checks.check(&makes.make("ann", 1).expect("signed")), Some(("ann".to_owned(), 1)));
}
