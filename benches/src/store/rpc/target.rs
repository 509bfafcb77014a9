//! Where a member is, and whom to believe that it is the member.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use http::Uri;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;

/// Certificates, read once for all connections.
#[derive(Clone, Default)]
pub(in crate::store) struct Trust(Option<TlsConnector>);

impl Trust {
    /// Reads an authority's certificates, and the certificate to show with its key.
    ///
    /// # Errors
    /// If a file can't be read, or doesn't hold what it must.
    pub(in crate::store) fn read(authority: Option<&Path>, shown: Option<(&PathBuf, &PathBuf)>) -> Result<Self> {
        let Some(authority) = authority else { return Ok(Self(None)) };
        let mut roots = RootCertStore::empty();
        for certificate in certificates(authority)? {
            roots.add(certificate).with_context(|| authority.display().to_string())?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        let builder = builder.with_root_certificates(roots);
        let mut config = match shown {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let pem = file(key)?;
                let found = rustls_pemfile::private_key(&mut pem.as_slice())?;
                let key = found.with_context(|| format!("{} holds no private key", key.display()))?;
                builder.with_client_auth_cert(certificates(certificate)?, key)?
            }
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Self(Some(TlsConnector::from(Arc::new(config)))))
    }
}

fn file(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| path.display().to_string())
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let pem = file(path)?;
    let found: Vec<_> = rustls_pemfile::certs(&mut pem.as_slice()).collect::<Result<_, _>>()?;
    if found.is_empty() {
        bail!("{} holds no certificate", path.display());
    }
    Ok(found)
}

/// Where a member is.
pub(super) struct Target {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) tls: Option<(TlsConnector, ServerName<'static>)>,
    /// Host and port as the endpoint had them.
    authority: String,
}

impl Target {
    /// Understands `http://host:port`, `https://host:port` and `host:port`.
    pub(super) fn parse(endpoint: &str, trust: &Trust) -> Result<Self> {
        let (scheme, rest) = endpoint.split_once("://").unwrap_or(("http", endpoint));
        let uri: Uri = rest.trim_end_matches('/').parse().with_context(|| format!("{endpoint} is no endpoint"))?;
        let authority = uri.authority().with_context(|| format!("{endpoint} names no host"))?;
        let host = authority.host().trim_matches(['[', ']']).to_owned();
        let tls = match (scheme, &trust.0) {
            ("http", _) => None,
            ("https", Some(connector)) => {
                let name = ServerName::try_from(host.clone()).with_context(|| format!("{host} is no host"))?;
                Some((connector.clone(), name))
            }
            ("https", None) => bail!("{endpoint} asks for --cacert"),
            _ => bail!("{endpoint} begins with neither http:// nor https://"),
        };
        let port = authority.port_u16().unwrap_or(if tls.is_some() { 443 } else { 80 });
        Ok(Self { host, port, tls, authority: authority.to_string() })
    }

    /// What is asked for there.
    pub(super) fn uri(&self, path: &str) -> Uri {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let uri = Uri::builder().scheme(scheme).authority(self.authority.as_str()).path_and_query(path).build();
        // The authority was parsed, and paths are constants.
        uri.unwrap_or_default()
    }
}
