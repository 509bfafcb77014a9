//! TLS as settings say it.

use std::path::PathBuf;

use super::{ConfigError, refuse};

/// A version of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    /// TLS 1.2
    V12,
    /// TLS 1.3
    V13,
}

/// A certificate, its key and the CA of the other side; PEM files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tls {
    /// Own certificate.
    pub cert_file: Option<PathBuf>,
    /// Own key.
    pub key_file: Option<PathBuf>,
    /// Certificate where this side dials; without it, the own one.
    pub dial_cert_file: Option<PathBuf>,
    /// Its key.
    pub dial_key_file: Option<PathBuf>,
    /// Who signs the other side's certificates. Named, it makes the server demand them, as in etcd.
    pub trusted_ca_file: Option<PathBuf>,
    /// Whether clients must show a certificate; their names are then their users'.
    pub client_cert_auth: bool,
    /// Certificates that their CA has revoked: its signed lists.
    pub crl_file: Option<PathBuf>,
    /// Of these common names the other side's certificate must have one; of any if there are none.
    pub allowed_cns: Vec<String>,
    /// For one of these hosts it must be good; for any if there are none.
    pub allowed_hostnames: Vec<String>,
    /// The oldest version that is spoken; 1.2 if it isn't said.
    pub min_version: Option<TlsVersion>,
    /// The newest; 1.3 if it isn't said.
    pub max_version: Option<TlsVersion>,
    /// Cipher suites of TLS 1.2 by their names; all there are if none is named. Those of 1.3 aren't chosen, as in Go.
    pub cipher_suites: Vec<String>,
}

impl Tls {
    pub(crate) fn speaks(&self, version: TlsVersion) -> bool {
        self.min_version.is_none_or(|min| min <= version) && self.max_version.is_none_or(|max| version <= max)
    }

    /// Checks settings against each other; `side` is what their flags begin with.
    pub(super) fn validate(&self, side: &str) -> Result<(), ConfigError> {
        let names_somebody = !self.allowed_cns.is_empty() || !self.allowed_hostnames.is_empty();
        match () {
            () if !self.allowed_cns.is_empty() && !self.allowed_hostnames.is_empty() => {
                refuse(format!("--{side}-cert-allowed-cn and --{side}-cert-allowed-hostname are mutually exclusive"))
            }
            () if self.dial_cert_file.is_some() != self.dial_key_file.is_some() => {
                refuse(format!("--{side}-client-cert-file and --{side}-client-key-file must both be present or absent"))
            }
            () if names_somebody && self.trusted_ca_file.is_none() => {
                refuse(format!("--{side}-cert-allowed-* needs a trusted CA: no certificate would be asked for"))
            }
            () if self.crl_file.is_some() && self.trusted_ca_file.is_none() => {
                refuse(format!("--{side}-crl-file needs a trusted CA: no certificate would be asked for"))
            }
            () if self.min_version.zip(self.max_version).is_some_and(|(min, max)| min > max) => {
                refuse("--tls-min-version is greater than --tls-max-version")
            }
            () if !self.cipher_suites.is_empty() && !self.speaks(TlsVersion::V12) => {
                refuse("--cipher-suites can't be configured when only TLS 1.3 is spoken")
            }
            () => Ok(()),
        }
    }
}
