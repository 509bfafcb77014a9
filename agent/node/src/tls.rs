//! TLS of the agent's server, and of probes that ask pods over HTTPS.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme};

use crate::config::Serving;

/// Why the agent can't serve.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A PEM file is missing or damaged.
    #[error("reading {path}: {what}")]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// Certificate and key don't fit, or the CA is of no use.
    #[error("the serving certificate can't be used: {0}")]
    Unusable(String),
}

fn file_error(path: &Path, what: &dyn std::fmt::Display) -> TlsError {
    TlsError::File { path: path.to_path_buf(), what: what.to_string() }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let list = CertificateDer::pem_file_iter(path).map_err(|e| file_error(path, &e))?;
    list.collect::<Result<_, _>>().map_err(|e| file_error(path, &e))
}

/// TLS that asks every client for a certificate of the CA.
pub(crate) fn server(serving: &Serving) -> Result<Arc<ServerConfig>, TlsError> {
    let unusable = |error: &dyn std::fmt::Display| TlsError::Unusable(error.to_string());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&serving.client_ca)? {
        roots.add(certificate).map_err(|e| file_error(&serving.client_ca, &e))?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    let verifier = verifier.build().map_err(|e| unusable(&e))?;
    let key = PrivateKeyDer::from_pem_file(&serving.key).map_err(|e| file_error(&serving.key, &e))?;
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| unusable(&e))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(certificates(&serving.cert)?, key)
        .map_err(|e| unusable(&e))?;
    Ok(Arc::new(config))
}

/// The common name of a certificate that was verified.
pub(crate) fn common_name(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let name = parsed.subject().iter_common_name().next()?;
    name.as_str().ok().map(str::to_owned)
}

/// TLS that believes any certificate: a probe asks whether a pod answers, not who it is.
/// Source: kubelet `prober`, whose transport sets `InsecureSkipVerify`.
pub(crate) fn unverified() -> Arc<ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let schemes = provider.signature_verification_algorithms.supported_schemes();
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        // The provider was made with the versions that are asked for.
        .unwrap_or_else(|error| panic!("ring lacks the default TLS versions: {error}"));
    let config = builder.dangerous().with_custom_certificate_verifier(Arc::new(Anyone { schemes }));
    Arc::new(config.with_no_client_auth())
}

#[derive(Debug)]
struct Anyone {
    schemes: Vec<SignatureScheme>,
}

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes.clone()
    }
}
