//! The files of a new edge: a certificate authority, a certificate, a tunnel and its token.

use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use aws_lc_rs::rand;
use ipnet::IpNet;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};
use uuid::Uuid;
use zeroize::Zeroizing;

use super::tunnels::digest_text;
use crate::wire::{Secret, Token};

/// The name that stock connectors verify, whatever they dial.
pub const STOCK_SERVER_NAME: &str = "quic.cftunnel.com";

/// For everybody, and for the owner only.
const PUBLIC: u32 = 0o644;
const PRIVATE: u32 = 0o600;

/// The length of a secret, in bytes.
const SECRET_LEN: usize = 32;

/// The files of an edge.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct EdgeFiles {
    /// The certificate of the authority, which connectors need.
    pub ca: PathBuf,
    /// The key of the authority. Only another certificate needs it.
    pub ca_key: PathBuf,
    /// The certificate of the edge.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// The tunnels file.
    pub tunnels: PathBuf,
    /// The token of the tunnel, which its connectors need.
    pub token: PathBuf,
}

/// Why the files could not be created.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// A file or the folder could not be created.
    #[error("cannot create {0}: {1}")]
    Create(PathBuf, #[source] io::Error),
    /// No certificate can have this name, or no key could be made.
    #[error("cannot make a certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    /// The system has no random numbers.
    #[error("no random numbers")]
    Random,
}

impl EdgeFiles {
    /// The files in a folder.
    pub fn of(folder: &Path) -> Self {
        let [ca, ca_key, certificate, key, tunnels, token] =
            ["ca.pem", "ca.key", "edge.pem", "edge.key", "tunnels.toml", "token"].map(|name| folder.join(name));
        Self { ca, ca_key, certificate, key, tunnels, token }
    }

    /// Creates the folder and the files, for an edge with these host names or addresses and a tunnel that is allowed these
    /// prefixes. Only the owner can read keys and the token.
    ///
    /// # Errors
    /// A file exists already or cannot be created, or a name cannot stand in a certificate.
    pub fn create(folder: &Path, names: &[String], allowed: &[IpNet]) -> Result<Self, InitError> {
        let files = Self::of(folder);
        let created = |path: &Path| {
            let path = path.to_owned();
            move |error| InitError::Create(path, error)
        };
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(created(folder))?;
        let write = |path: &Path, mode, text: &str| create(path, mode, text).map_err(created(path));

        let authority = authority()?;
        write(&files.ca, PUBLIC, &authority.pem())?;
        write(&files.ca_key, PRIVATE, &Zeroizing::new(authority.key().serialize_pem()))?;
        let key = KeyPair::generate()?;
        write(&files.certificate, PUBLIC, &certificate(names)?.signed_by(&key, &authority)?.pem())?;
        write(&files.key, PRIVATE, &Zeroizing::new(key.serialize_pem()))?;

        let token = token()?;
        write(&files.tunnels, PRIVATE, &tunnels_file(&token, allowed))?;
        write(&files.token, PRIVATE, &Zeroizing::new(format!("{}\n", *token.to_text())))?;
        Ok(files)
    }
}

fn authority() -> Result<CertifiedIssuer<'static, KeyPair>, rcgen::Error> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name.push(DnType::CommonName, "pingferry edge CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    CertifiedIssuer::self_signed(params, KeyPair::generate()?)
}

fn certificate(names: &[String]) -> Result<CertificateParams, rcgen::Error> {
    let mut all: Vec<String> = names.to_vec();
    all.push(STOCK_SERVER_NAME.into());
    all.dedup();
    let mut params = CertificateParams::new(all)?;
    params.distinguished_name.push(DnType::CommonName, "pingferry edge");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn token() -> Result<Token, InitError> {
    let mut secret = vec![0; SECRET_LEN];
    rand::fill(&mut secret).map_err(|_| InitError::Random)?;
    let (account_tag, tunnel_id) = ("pingferry".into(), Uuid::new_v4());
    Ok(Token { account_tag, tunnel_id, secret: Secret::new(secret), endpoint: None })
}

fn tunnels_file(token: &Token, allowed: &[IpNet]) -> String {
    let allowed: Vec<String> = allowed.iter().map(|prefix| format!("{:?}", prefix.trunc().to_string())).collect();
    format!(
        "# The tunnels of this edge. The edge reads this file again at SIGHUP.\n\n[[tunnel]]\nid = \"{}\"\nname = \"default\"\n\
         secret_sha256 = \"{}\"\n# What its connectors may serve. What they advertise beyond it is ignored.\n\
         allowed = [{}]\n",
        token.tunnel_id,
        digest_text(token.secret.as_bytes()),
        allowed.join(", ")
    )
}

fn create(path: &Path, mode: u32, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::super::tunnels::Tunnels;
    use super::*;

    fn nets(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn the_token_opens_the_tunnel() {
        let folder = tempfile::tempdir().unwrap();
        let allowed = nets(&["10.0.0.0/8", "fd00::/8"]);
        let files = EdgeFiles::create(&folder.path().join("edge"), &["edge.example".into()], &allowed).unwrap();
        let token: Token = fs::read_to_string(&files.token).unwrap().parse().unwrap();
        let tunnels = Tunnels::read(&files.tunnels).unwrap();
        let tunnel = tunnels.authenticate(token.tunnel_id, token.secret.as_bytes()).unwrap();
        assert_eq!(tunnel.allowed, allowed);
    }

    #[test]
    fn only_the_owner_can_read_secrets() {
        let folder = tempfile::tempdir().unwrap();
        let files = EdgeFiles::create(folder.path(), &["192.0.2.1".into()], &nets(&["10.0.0.0/8"])).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o077;
        for path in [&files.ca_key, &files.key, &files.tunnels, &files.token] {
            assert_eq!(mode(path), 0, "{}", path.display());
        }
    }

    #[test]
    fn nothing_is_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let create = || EdgeFiles::create(folder.path(), &["edge.example".into()], &nets(&["10.0.0.0/8"]));
        let files = create().unwrap();
        let before = fs::read(&files.token).unwrap();
        let error = create().unwrap_err().to_string();
        assert!(error.contains("ca.pem") && error.contains("exists"), "{error}");
        assert_eq!(fs::read(&files.token).unwrap(), before);
    }
}
