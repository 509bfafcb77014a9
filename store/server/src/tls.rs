//! TLS from PEM files, which are read again when they change: certificates are renewed while the
//! member runs.

mod names;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;

use rustls::client::WebPkiServerVerifier;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion};

use crate::config::{Tls, TlsVersion};
use crate::peers::PeerTls;

/// A certificate, key or CA that can't be used.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct TlsError(String);

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|e| TlsError(format!("{}: {e}", path.display())))
}

fn wrong(error: impl std::fmt::Display) -> TlsError {
    TlsError(error.to_string())
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let pem = read(path)?;
    let certs: Vec<_> = rustls_pemfile::certs(&mut pem.as_slice()).filter_map(Result::ok).collect();
    if certs.is_empty() { Err(TlsError(format!("{} holds no certificate", path.display()))) } else { Ok(certs) }
}

fn key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let pem = read(path)?;
    let found = rustls_pemfile::private_key(&mut pem.as_slice()).ok().flatten();
    found.ok_or_else(|| TlsError(format!("{} holds no private key", path.display())))
}

fn roots(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut store = RootCertStore::empty();
    for cert in certificates(path)? {
        store.add(cert).map_err(wrong)?;
    }
    Ok(store)
}

fn pair(tls: &Tls) -> Result<Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>, TlsError> {
    match (&tls.cert_file, &tls.key_file) {
        (Some(cert), Some(file)) => Ok(Some((certificates(cert)?, key(file)?))),
        _ => Ok(None),
    }
}

/// How often the files are looked at, at most.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The server's side, as its files are now.
pub(crate) type ServerTls = Arc<Reloading<ServerConfig>>;
/// The client's side, as its files are now.
pub(crate) type ClientTls = Arc<Reloading<ClientConfig>>;

/// Settings from files, and what the files looked like.
pub(crate) struct Reloading<C> {
    tls: Tls,
    build: fn(&Tls) -> Result<C, TlsError>,
    current: Mutex<Current<C>>,
}

struct Current<C> {
    config: Arc<C>,
    seen: Vec<Seen>,
    looked: Instant,
}

/// When a file was written, and how long it is; `None` for one that isn't there.
type Seen = Option<(SystemTime, u64)>;

fn look(tls: &Tls) -> Vec<Seen> {
    let own = [&tls.cert_file, &tls.key_file, &tls.dial_cert_file, &tls.dial_key_file];
    let files = own.into_iter().chain([&tls.trusted_ca_file, &tls.crl_file]);
    let seen = |path: &std::path::PathBuf| {
        let metadata = std::fs::metadata(path).ok()?;
        Some((metadata.modified().ok()?, metadata.len()))
    };
    files.flatten().map(seen).collect()
}

impl<C> Reloading<C> {
    fn new(tls: &Tls, build: fn(&Tls) -> Result<C, TlsError>) -> Result<Arc<Self>, TlsError> {
        // Looked at before they are read: what changes in between is read once more.
        let seen = look(tls);
        let current = Current { config: Arc::new(build(tls)?), seen, looked: Instant::now() };
        Ok(Arc::new(Self { tls: tls.clone(), build, current: Mutex::new(current) }))
    }

    /// What new connections use.
    pub(crate) fn get(&self) -> Arc<C> {
        let mut current = self.current.lock();
        if current.looked.elapsed() >= LOOK_EVERY {
            current.looked = Instant::now();
            let seen = look(&self.tls);
            if seen != current.seen {
                match (self.build)(&self.tls) {
                    Ok(config) => {
                        tracing::info!("certificates changed and were read again");
                        current.config = Arc::new(config);
                        current.seen = seen;
                    }
                    // Half of a renewal; the next look sees the other half.
                    Err(error) => tracing::warn!(%error, "certificates changed and can't be used; the old ones stay"),
                }
            }
        }
        current.config.clone()
    }
}

/// Towards clients; `None` without a certificate.
pub(crate) fn for_clients(tls: &Tls) -> Result<Option<ServerTls>, TlsError> {
    if pair(tls)?.is_none() {
        return Ok(None);
    }
    let build = |tls: &Tls| {
        let mut config = server(tls)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(config)
    };
    Reloading::new(tls, build).map(Some)
}

/// Both sides between peers; `None` without a certificate.
pub(crate) fn for_peers(tls: &Tls) -> Result<Option<PeerTls>, TlsError> {
    if pair(tls)?.is_none() {
        return Ok(None);
    }
    Ok(Some(PeerTls { server: Reloading::new(tls, server)?, client: Reloading::new(tls, client)? }))
}

fn needed_pair(tls: &Tls) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), TlsError> {
    pair(tls)?.ok_or_else(|| TlsError("a certificate and its key are needed".to_owned()))
}

/// The lists of revoked certificates, in PEM's form or one in DER's as CAs publish it; none without a file.
fn revoked(tls: &Tls) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
    let Some(path) = &tls.crl_file else { return Ok(Vec::new()) };
    let bytes = read(path)?;
    if x509_parser::parse_x509_crl(&bytes).is_ok_and(|(rest, _)| rest.is_empty()) {
        return Ok(vec![bytes.into()]);
    }
    let lists: Result<Vec<_>, _> = rustls_pemfile::crls(&mut bytes.as_slice()).collect();
    match lists {
        Ok(lists) if !lists.is_empty() => Ok(lists),
        _ => Err(TlsError(format!("{} holds no list of revoked certificates, in PEM or DER", path.display()))),
    }
}

fn versions(tls: &Tls) -> Vec<&'static SupportedProtocolVersion> {
    let all = [(TlsVersion::V12, &rustls::version::TLS12), (TlsVersion::V13, &rustls::version::TLS13)];
    all.into_iter().filter(|(version, _)| tls.speaks(*version)).map(|(_, version)| version).collect()
}

/// The name that Go and IANA give a suite.
fn suite_name(suite: &rustls::SupportedCipherSuite) -> String {
    suite.suite().as_str().unwrap_or_default().replace("TLS13_", "TLS_")
}

/// What encrypts and signs, with the suites that were chosen.
fn provider(tls: &Tls) -> Result<Arc<CryptoProvider>, TlsError> {
    let mut provider = rustls::crypto::ring::default_provider();
    let known: Vec<String> = provider.cipher_suites.iter().map(suite_name).collect();
    // Go's older names of two suites have no hash in them.
    let is_named = |named: &str, name: &str| name == named || name.strip_suffix("_SHA256") == Some(named);
    for named in &tls.cipher_suites {
        if !known.iter().any(|name| is_named(named, name)) {
            return Err(TlsError(format!("--cipher-suites: {named} isn't offered; there are {}", known.join(", "))));
        }
    }
    if !tls.cipher_suites.is_empty() {
        provider.cipher_suites.retain(|suite| {
            suite.tls13().is_some() || tls.cipher_suites.iter().any(|named| is_named(named, &suite_name(suite)))
        });
    }
    Ok(Arc::new(provider))
}

fn server(tls: &Tls) -> Result<ServerConfig, TlsError> {
    let (certs, key) = needed_pair(tls)?;
    let provider = provider(tls)?;
    let builder =
        ServerConfig::builder_with_provider(provider.clone()).with_protocol_versions(&versions(tls)).map_err(wrong)?;
    let builder = match &tls.trusted_ca_file {
        Some(ca) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(ca)?), provider)
                .with_crls(revoked(tls)?)
                // A list is one CA's; of others' certificates it says nothing.
                .allow_unknown_revocation_status();
            builder.with_client_cert_verifier(names::of_clients(verifier.build().map_err(wrong)?, tls)?)
        }
        None if tls.client_cert_auth => {
            return Err(TlsError("client certificates are demanded, but no trusted CA is named".to_owned()));
        }
        None => builder.with_no_client_auth(),
    };
    builder.with_single_cert(certs, key).map_err(wrong)
}

/// Says why somebody's handshake failed; who just went away isn't worth a line.
pub(crate) fn tell_refused(error: &std::io::Error, what: &'static str) {
    match error.kind() {
        std::io::ErrorKind::UnexpectedEof | std::io::ErrorKind::ConnectionReset => tracing::debug!(%error, "{what}"),
        _ => tracing::warn!(%error, "{what}"),
    }
}

/// The name in a client's certificate. There is none unless certificates are demanded and checked.
pub(crate) fn common_name(shown: Option<&[CertificateDer<'_>]>) -> Option<Arc<str>> {
    let (_, certificate) = x509_parser::parse_x509_certificate(shown?.first()?).ok()?;
    let name = certificate.subject().iter_common_name().next()?.as_str().ok()?;
    Some(name.into())
}

fn client(tls: &Tls) -> Result<ClientConfig, TlsError> {
    let Some(ca) = &tls.trusted_ca_file else {
        return Err(TlsError("peers use TLS, but no trusted CA is named".to_owned()));
    };
    let (certs, key) = match (&tls.dial_cert_file, &tls.dial_key_file) {
        (Some(cert), Some(file)) => (certificates(cert)?, key(file)?),
        _ => needed_pair(tls)?,
    };
    let provider = provider(tls)?;
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots(ca)?), provider.clone())
        .with_crls(revoked(tls)?)
        .allow_unknown_revocation_status();
    ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&versions(tls))
        .map_err(wrong)?
        // The library's word for a verifier of one's own; this one asks for more than the library's.
        .dangerous()
        .with_custom_certificate_verifier(names::of_servers(verifier.build().map_err(wrong)?, tls)?)
        .with_client_auth_cert(certs, key)
        .map_err(wrong)
}

#[cfg(test)]
mod tests;
