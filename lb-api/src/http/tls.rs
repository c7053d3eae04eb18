//! TLS with certificates that are followed: new files are taken for new connections, without a restart.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lb_api_types::config::Tls;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{RootCertStore, ServerConfig};
use tokio_rustls::TlsAcceptor;
use webpki::EndEntityCert;

/// How often the files are looked at.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(2);

/// What tells one version of the files from another: inode, size and time of each; none where it cannot be read.
type Version = Vec<Option<(u64, u64, i64, i64)>>;

/// What connections are accepted with.
#[derive(Clone)]
pub(super) struct Acceptor(Arc<Followed>);

struct Followed {
    tls: Tls,
    current: RwLock<Arc<ServerConfig>>,
}

/// Accepts TLS with files that are followed as long as the acceptor is there.
///
/// # Errors
///
/// One sentence on what is wrong with the files.
pub(super) fn acceptor(tls: &Tls) -> Result<Acceptor, String> {
    let seen = version(tls);
    let current = RwLock::new(Arc::new(load(tls)?));
    let followed = Arc::new(Followed { tls: tls.clone(), current });
    tokio::spawn(follow(Arc::downgrade(&followed), seen));
    Ok(Acceptor(followed))
}

impl Acceptor {
    /// As the files say it now.
    pub(super) fn current(&self) -> TlsAcceptor {
        let current = self.0.current.read().unwrap_or_else(PoisonError::into_inner);
        TlsAcceptor::from(Arc::clone(&current))
    }
}

/// The DNS names of the certificate that a client has shown to be its own, and whose signer is one of ours.
pub(super) fn names(connection: &rustls::ServerConnection) -> Vec<String> {
    let shown = connection.peer_certificates().and_then(<[_]>::first);
    let parsed = shown.and_then(|shown| EndEntityCert::try_from(shown).ok());
    parsed.iter().flat_map(|parsed| parsed.valid_dns_names()).map(str::to_owned).collect()
}

async fn follow(followed: Weak<Followed>, mut seen: Version) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let Some(followed) = followed.upgrade() else { return };
        let before = seen.clone();
        let looked = tokio::task::spawn_blocking(move || {
            let now = version(&followed.tls);
            if now != before {
                followed.reload();
            }
            now
        });
        seen = looked.await.unwrap_or_default();
    }
}

impl Followed {
    /// Takes the files, or keeps what there is where they are not right, such as while they are replaced one by one.
    fn reload(&self) {
        match load(&self.tls) {
            Ok(new) => {
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(new);
                let file = self.tls.certificate_file.display();
                tracing::info!(%file, "certificates reloaded");
            }
            Err(why) => tracing::warn!(why, "the API's certificates stay what they were"),
        }
    }
}

/// Whether connections can be accepted with the files as they are now, and when the first of their certificates expires.
///
/// # Errors
///
/// One sentence on what is wrong with the files.
pub(crate) fn examine(tls: &Tls) -> Result<SystemTime, String> {
    load(tls)?;
    let file = &tls.certificate_file;
    let expires = |certificate: &CertificateDer<'_>| {
        let parsed = x509_parser::parse_x509_certificate(certificate);
        let (_, parsed) = parsed.map_err(|error| broken(file, &error))?;
        let seconds = u64::try_from(parsed.validity().not_after.timestamp()).unwrap_or_default();
        Ok(UNIX_EPOCH + Duration::from_secs(seconds))
    };
    let all = certificates(file)?.iter().map(expires).collect::<Result<Vec<_>, String>>()?;
    all.into_iter().min().ok_or_else(|| format!("{} has no certificate", file.display()))
}

fn version(tls: &Tls) -> Version {
    let Tls { certificate_file, key_file, client_ca_file, .. } = tls;
    let files: [Option<&PathBuf>; 3] =
        [Some(certificate_file), Some(key_file), client_ca_file.as_ref()];
    let of = |path: &PathBuf| {
        let data = fs::metadata(path).ok()?;
        Some((data.ino(), data.len(), data.mtime(), data.mtime_nsec()))
    };
    files.into_iter().flatten().map(of).collect()
}

fn load(tls: &Tls) -> Result<ServerConfig, String> {
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let config = match &tls.client_ca_file {
        None => config.with_no_client_auth(),
        Some(file) => config.with_client_cert_verifier(verifier(file)?),
    };
    let key = certified(&tls.certificate_file, &tls.key_file)?;
    let mut config = config.with_cert_resolver(Arc::new(SingleCertAndKey::from(key)));
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// Lets in whoever shows a certificate that these have signed, and whoever shows none: they bring a token.
fn verifier(file: &Path) -> Result<Arc<dyn ClientCertVerifier>, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(file)? {
        roots.add(certificate).map_err(|error| broken(file, &error))?;
    }
    let provider = Arc::new(ring::default_provider());
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
        .allow_unauthenticated()
        .build()
        .map_err(|error| broken(file, &error))
}

fn certified(certificate: &Path, key: &Path) -> Result<CertifiedKey, String> {
    let chain = certificates(certificate)?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| broken(key, &error))?;
    // That the two belong together is looked at, too.
    CertifiedKey::from_der(chain, private, &ring::default_provider()).map_err(|error| {
        format!("cannot use {} with {}: {error}", certificate.display(), key.display())
    })
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| broken(file, &error))
}

fn broken(path: &Path, error: &dyn std::fmt::Display) -> String {
    format!("cannot use {}: {error}; write it as PEM", path.display())
}
