//! TLS 1.3: what both ends offer, and files with certificates and keys.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::sync::Arc;

use pingferry_sys::file::open_regular_file;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{default_provider, kx_group};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use super::{ALPN, TlsError};

/// The key exchanges that stock ends have: X25519MLKEM768 against those who record today and have a quantum computer later,
/// then P-256. A stock end has no X25519.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(CryptoProvider { kx_groups: vec![kx_group::X25519MLKEM768, kx_group::SECP256R1], ..default_provider() })
}

pub(super) fn client(roots: RootCertStore) -> Result<ClientConfig, TlsError> {
    let builder = ClientConfig::builder_with_provider(provider()).with_protocol_versions(&[&TLS13])?;
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![ALPN.into()];
    // A connection that is resumed is of no use, and one more secret in memory.
    config.resumption = rustls::client::Resumption::disabled();
    Ok(config)
}

pub(super) fn server(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<ServerConfig, TlsError> {
    let builder = ServerConfig::builder_with_provider(provider()).with_protocol_versions(&[&TLS13])?;
    let mut config = builder.with_no_client_auth().with_single_cert(chain, key)?;
    config.alpn_protocols = vec![ALPN.into()];
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// The certificate authorities that a connector trusts: those in a file, or else those of the system.
///
/// # Errors
/// The file cannot be read or has none, or the system has none.
pub fn load_roots(file: Option<&Path>) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    match file {
        Some(file) => {
            for certificate in load_certificates(file)? {
                roots.add(certificate)?;
            }
        }
        None => _ = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs),
    }
    if roots.is_empty() { Err(TlsError::NoRoots) } else { Ok(roots) }
}

/// The certificates in a PEM file, at least one.
///
/// # Errors
/// The file cannot be read or has none.
pub fn load_certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let what = "certificate";
    let read = CertificateDer::pem_reader_iter(open(file)?);
    let certificates = read.collect::<Result<Vec<_>, _>>().map_err(|error| no_pem(file, what, error))?;
    if certificates.is_empty() { Err(TlsError::Empty(file.display().to_string(), what)) } else { Ok(certificates) }
}

/// The private key in a PEM file.
///
/// # Errors
/// The file cannot be read or has none.
pub fn load_key(file: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_reader(open(file)?).map_err(|error| no_pem(file, "private key", error))
}

fn open(file: &Path) -> Result<BufReader<File>, TlsError> {
    let opened = open_regular_file(file).map(BufReader::new);
    opened.map_err(|error| TlsError::Read(file.display().to_string(), error))
}

fn no_pem(file: &Path, what: &'static str, error: rustls::pki_types::pem::Error) -> TlsError {
    let name = file.display().to_string();
    match error {
        rustls::pki_types::pem::Error::Io(error) => TlsError::Read(name, error),
        _ => TlsError::Empty(name, what),
    }
}
