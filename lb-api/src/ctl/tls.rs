//! TLS to the daemon.

use std::path::Path;
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;

/// Where distributions keep the certificates that they trust, as one file.
const TRUSTED: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// Trusts what the certificates of a file have signed, by default of the one of this host, and shows a certificate of its own
/// where there is one, with its key.
pub(super) fn connector(
    ca_file: Option<&Path>,
    identity: Option<(&Path, &Path)>,
) -> Result<TlsConnector, String> {
    let default = || TRUSTED.iter().map(Path::new).find(|file| file.exists());
    let file = ca_file.or_else(default);
    let file = file.ok_or("this host has no list of trusted certificates: name a --ca-file")?;
    let broken = |error: &dyn std::fmt::Display| {
        format!("cannot use {}: {error}; name another --ca-file", file.display())
    };
    let mut roots = RootCertStore::empty();
    let all = CertificateDer::pem_file_iter(file).map_err(|error| broken(&error))?;
    // A list of many may have some that this library does not know.
    let (taken, _) = roots.add_parsable_certificates(all.filter_map(Result::ok));
    if taken == 0 {
        return Err(broken(&"there is no certificate in it"));
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots);
    let config = match identity {
        None => config.with_no_client_auth(),
        Some((certificate, key)) => {
            let broken = |path: &Path, error: &dyn std::fmt::Display| {
                format!("cannot use {}: {error}", path.display())
            };
            let chain = CertificateDer::pem_file_iter(certificate)
                .and_then(Iterator::collect::<Result<Vec<_>, _>>)
                .map_err(|error| broken(certificate, &error))?;
            let private = PrivateKeyDer::from_pem_file(key).map_err(|error| broken(key, &error))?;
            config
                .with_client_auth_cert(chain, private)
                .map_err(|error| broken(certificate, &error))?
        }
    };
    Ok(TlsConnector::from(Arc::new(config)))
}

/// The name that the server's certificate has to have.
pub(super) fn name(authority: &str) -> Result<ServerName<'static>, String> {
    let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    ServerName::try_from(host.to_owned()).map_err(|_| format!("{host} is no name of a server"))
}
