//! TLS material: the server's own, and the client's towards node agents.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use crate::config::{Config, KubeletClient};

/// A certificate or key that can't be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The file can't be read.
    #[error("reading {path}")]
    Read {
        /// The file.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file holds nothing usable.
    #[error("{path} holds no {what}")]
    Empty {
        /// The file.
        path: String,
        /// What was looked for.
        what: &'static str,
    },
    /// The pieces don't fit together.
    #[error("TLS settings: {0}")]
    Settings(String),
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|source| TlsError::Read { path: path.display().to_string(), source })
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let pem = read(path)?;
    let certs: Vec<_> = rustls_pemfile::certs(&mut pem.as_slice()).filter_map(Result::ok).collect();
    if certs.is_empty() {
        return Err(TlsError::Empty { path: path.display().to_string(), what: "certificate" });
    }
    Ok(certs)
}

fn key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let pem = read(path)?;
    let key = rustls_pemfile::private_key(&mut pem.as_slice()).ok().flatten();
    key.ok_or_else(|| TlsError::Empty { path: path.display().to_string(), what: "private key" })
}

fn roots(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for cert in certificates(path)? {
        roots.add(cert).map_err(|e| TlsError::Settings(format!("{}: {e}", path.display())))?;
    }
    Ok(roots)
}

fn settings(error: impl std::fmt::Display) -> TlsError {
    TlsError::Settings(error.to_string())
}

/// The server's side: client certificates are asked for and checked if shown,
/// not demanded, so that a bearer token may serve instead.
pub(crate) fn server(config: &Config) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(&config.client_ca)?), provider.clone())
        .allow_unauthenticated()
        .build()
        .map_err(settings)?;
    let mut server = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(settings)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(certificates(&config.tls_cert)?, key(&config.tls_key)?)
        .map_err(settings)?;
    server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(server))
}

/// The client's side towards node agents.
pub(crate) fn kubelet(client: &KubeletClient) -> Result<Arc<ClientConfig>, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(settings)?
        .with_root_certificates(roots(&client.ca)?)
        .with_client_auth_cert(certificates(&client.cert)?, key(&client.key)?)
        .map_err(settings)?;
    Ok(Arc::new(config))
}
