//! Certificates that are trusted, and that must bear certain names besides.
//!
//! Source: etcd `client/pkg/transport/listener.go`: the same names hold for who dials and for who is dialled; Go
//! `crypto/x509`, `Certificate.Verify`: a trusted certificate is trusted itself, whatever else it may sign.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_name;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use x509_parser::time::ASN1Time;

use super::{TlsError, certificates, common_name};
use crate::config::Tls;

/// A verifier of chains, and the names of which one is needed.
#[derive(Debug)]
struct Named<V: ?Sized> {
    common_names: Vec<String>,
    hosts: Vec<ServerName<'static>>,
    /// Those that may be shown themselves. A chain never ends with a CA's certificate, but who signs his own, as
    /// `openssl req -x509` does, has no other.
    trusted: Vec<CertificateDer<'static>>,
    chains: Arc<V>,
}

#[derive(Clone, Copy)]
enum Side {
    Client,
    Server,
}

impl<V: ?Sized> Named<V> {
    fn new(chains: Arc<V>, tls: &Tls) -> Result<Self, TlsError> {
        let host = |name: &String| {
            let host = ServerName::try_from(name.clone());
            host.map_err(|_| TlsError(format!("{name:?} is no hostname that a certificate could be for")))
        };
        let hosts = tls.allowed_hostnames.iter().map(host).collect::<Result<_, _>>()?;
        let trusted = match &tls.trusted_ca_file {
            // What is revoked only chains are asked about.
            Some(ca) if tls.crl_file.is_none() => certificates(ca)?,
            _ => Vec::new(),
        };
        Ok(Self { common_names: tls.allowed_cns.clone(), hosts, trusted, chains })
    }

    /// Whether a certificate is one of the trusted CAs' own, now and for this side.
    fn trusts(&self, certificate: &CertificateDer<'_>, side: Side, now: UnixTime) -> bool {
        if !self.trusted.iter().any(|trusted| trusted == certificate) {
            return false;
        }
        let Ok((_, parsed)) = x509_parser::parse_x509_certificate(certificate) else { return false };
        let is_now = i64::try_from(now.as_secs())
            .ok()
            .and_then(|seconds| ASN1Time::from_timestamp(seconds).ok())
            .is_some_and(|now| parsed.validity().is_valid_at(now));
        let is_for_side = match parsed.extended_key_usage() {
            Ok(None) => true,
            Ok(Some(usage)) => match side {
                _ if usage.value.any => true,
                Side::Client => usage.value.client_auth,
                Side::Server => usage.value.server_auth,
            },
            Err(_) => false,
        };
        parsed.is_ca() && is_now && is_for_side
    }

    fn check(&self, certificate: &CertificateDer<'_>) -> Result<(), Error> {
        if self.common_names.is_empty() && self.hosts.is_empty() {
            return Ok(());
        }
        let name = common_name(Some(std::slice::from_ref(certificate)));
        let is_named = name.is_some_and(|name| self.common_names.iter().any(|allowed| **allowed == *name));
        let parsed = ParsedCertificate::try_from(certificate)?;
        if is_named || self.hosts.iter().any(|host| verify_server_name(&parsed, host).is_ok()) {
            return Ok(());
        }
        Err(CertificateError::ApplicationVerificationFailure.into())
    }
}

/// Who may dial.
pub(super) fn of_clients(
    chains: Arc<dyn ClientCertVerifier>,
    tls: &Tls,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    Ok(Arc::new(Named::new(chains, tls)?))
}

/// Who may be dialled.
pub(super) fn of_servers(
    chains: Arc<dyn ServerCertVerifier>,
    tls: &Tls,
) -> Result<Arc<dyn ServerCertVerifier>, TlsError> {
    Ok(Arc::new(Named::new(chains, tls)?))
}

impl ClientCertVerifier for Named<dyn ClientCertVerifier> {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chains.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        if !self.trusts(end_entity, Side::Client, now) {
            self.chains.verify_client_cert(end_entity, intermediates, now)?;
        }
        self.check(end_entity).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chains.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chains.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chains.supported_verify_schemes()
    }
}

impl ServerCertVerifier for Named<dyn ServerCertVerifier> {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.trusts(end_entity, Side::Server, now) {
            verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
        } else {
            self.chains.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)?;
        }
        self.check(end_entity).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chains.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chains.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chains.supported_verify_schemes()
    }
}
