//! Certificates and kubeconfigs of a run: one authority signs for everybody.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, date_time_ymd,
};

/// First address of the services' range, under which the apiserver is a service.
const SERVICE_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);

/// A certificate and its key, as PEM files.
#[derive(Clone)]
pub(crate) struct Pair {
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
}

/// The authority of a run and the folder of what it signed.
pub(crate) struct Pki {
    dir: PathBuf,
    issuer: Issuer<'static, KeyPair>,
    pub(crate) ca: PathBuf,
    /// What every member of the store shows to clients and peers, and the apiserver to them.
    pub(crate) store: Pair,
    pub(crate) apiserver: Pair,
    /// Signs the tokens of service accounts, and checks them.
    pub(crate) service_accounts: Pair,
}

impl Pki {
    /// Makes all of it in `dir`.
    pub(crate) fn make(dir: &Path) -> Result<Self> {
        std::fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))?;
        let key = KeyPair::generate()?;
        let mut params = parameters("kubernetes");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let (ca, pem) = (dir.join("ca.crt"), params.self_signed(&key)?.pem());
        write(&ca, &pem)?;
        let issuer = Issuer::from_ca_cert_pem(&pem, key)?;
        let pair = |name: &str| Pair { cert: dir.join(format!("{name}.crt")), key: dir.join(format!("{name}.key")) };
        let service_accounts = Pair { cert: dir.join("service-accounts.pub"), key: dir.join("service-accounts.key") };
        let key = KeyPair::generate()?;
        write(&service_accounts.cert, &key.public_key_pem())?;
        write(&service_accounts.key, &key.serialize_pem())?;
        let (store, apiserver) = (pair("store"), pair("apiserver"));
        let pki = Self { dir: dir.to_owned(), issuer, ca, store, apiserver, service_accounts };
        pki.issue("store", "store", &[])?;
        pki.issue("apiserver", "kube-apiserver", &[])?;
        Ok(pki)
    }

    /// A certificate for both sides of a connection on this machine.
    fn issue(&self, file: &str, name: &str, groups: &[&str]) -> Result<Pair> {
        let mut params = parameters(name);
        for group in groups {
            params.distinguished_name.push(DnType::OrganizationName, *group);
        }
        let local = IpAddr::V4(Ipv4Addr::LOCALHOST);
        params.subject_alt_names = vec![
            SanType::DnsName("localhost".try_into()?),
            SanType::DnsName("kubernetes.default.svc".try_into()?),
            SanType::IpAddress(local),
            SanType::IpAddress(SERVICE_ADDRESS.into()),
        ];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate()?;
        let cert = params.signed_by(&key, &self.issuer)?;
        let pair = Pair { cert: self.dir.join(format!("{file}.crt")), key: self.dir.join(format!("{file}.key")) };
        write(&pair.cert, &cert.pem())?;
        write(&pair.key, &key.serialize_pem())?;
        Ok(pair)
    }

    /// A kubeconfig for `user` of `groups` towards the apiserver at `server`.
    pub(crate) fn kubeconfig(&self, server: &str, user: &str, groups: &[&str]) -> Result<PathBuf> {
        let file = user.replace(':', "-");
        let pair = self.issue(&file, user, groups)?;
        let path = self.dir.join(format!("{file}.kubeconfig"));
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: run\nclusters:\n- name: run\n  cluster:\n    server: {server}\n    certificate-authority: {}\ncontexts:\n- name: run\n  context:\n    cluster: run\n    user: {user}\nusers:\n- name: {user}\n  user:\n    client-certificate: {}\n    client-key: {}\n",
            self.ca.display(),
            pair.cert.display(),
            pair.key.display()
        );
        write(&path, &text)?;
        Ok(path)
    }
}

fn parameters(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    // Wide on purpose: a machine's clock may be years off, and the folder is thrown away.
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2100, 1, 1);
    params
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| format!("writing {}", path.display()))
}
