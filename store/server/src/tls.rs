//! TLS from PEM files.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use crate::config::Tls;
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

/// The server's side; `None` without a certificate.
pub(crate) fn server(tls: &Tls, protocols: &[&[u8]]) -> Result<Option<Arc<ServerConfig>>, TlsError> {
    let Some((certs, key)) = pair(tls)? else { return Ok(None) };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions().map_err(wrong)?;
    let builder = match &tls.trusted_ca_file {
        Some(ca) if tls.client_cert_auth => {
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots(ca)?), provider).build().map_err(wrong)?;
            builder.with_client_cert_verifier(verifier)
        }
        None if tls.client_cert_auth => {
            return Err(TlsError("client certificates are demanded, but no trusted CA is named".to_owned()));
        }
        _ => builder.with_no_client_auth(),
    };
    let mut config = builder.with_single_cert(certs, key).map_err(wrong)?;
    config.alpn_protocols = protocols.iter().map(|p| p.to_vec()).collect();
    Ok(Some(Arc::new(config)))
}

/// Both sides between peers; `None` without a certificate.
pub(crate) fn peers(tls: &Tls) -> Result<Option<PeerTls>, TlsError> {
    let Some(server) = server(tls, &[])? else { return Ok(None) };
    let Some(ca) = &tls.trusted_ca_file else {
        return Err(TlsError("peers use TLS, but no trusted CA is named".to_owned()));
    };
    let Some((certs, key)) = pair(tls)? else { return Ok(None) };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(wrong)?
        .with_root_certificates(roots(ca)?)
        .with_client_auth_cert(certs, key)
        .map_err(wrong)?;
    Ok(Some(PeerTls { server, client: Arc::new(client) }))
}
